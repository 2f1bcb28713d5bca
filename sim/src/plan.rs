//! What a seed decides before a run begins: tenants, their traffic, what operators do, and the faults.

use crate::rng::Rng;
use serde_json::{Value, json};
use std::time::Duration;

/// A run.
#[derive(Debug)]
pub struct Plan {
    /// The tenants' sandboxes.
    pub sandboxes: Vec<SandboxPlan>,
    /// Every webhook that is made, the first ones in the order of the sandboxes.
    pub webhooks: Vec<WebhookPlan>,
    /// What callers and operators do, in order of time.
    pub actions: Vec<(Duration, Action)>,
    /// When the faults stop.
    pub length: Duration,
    /// How each process ends, one after the other; past the last one none ends before its time.
    pub ends: Vec<End>,
    /// When whoever owns the shards stands still, one time after the other.
    pub freezes: Vec<Freeze>,
    /// The share of hints about new messages that are lost.
    pub hints_lost: f64,
    /// The share of commits that the disk refuses.
    pub commits_refused: f64,
    /// How slow the store may be, in milliseconds.
    pub store_slowness_ms: u64,
}

/// A sandbox.
#[derive(Debug)]
pub struct SandboxPlan {
    /// How often its endpoint and the way there fail, until a time in milliseconds.
    pub trouble: Vec<(u64, f64)>,
    /// Whether its webhook stays paused at the end.
    pub stays_paused: bool,
    /// How often its relay fails.
    pub relay_trouble: f64,
}

/// A webhook.
#[derive(Debug)]
pub struct WebhookPlan {
    /// Whose.
    pub sandbox: usize,
    /// Its settings.
    pub settings: Value,
}

/// What somebody does.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// A caller sends an execution.
    Execute {
        /// Where.
        sandbox: usize,
        /// Through the relay, not the simulator.
        relay: bool,
        /// To how many.
        recipients: usize,
        /// As high throughput.
        high: bool,
        /// It expires so soon.
        expires: Option<Duration>,
        /// And sends it once more.
        twice: bool,
    },
    /// The webhook is paused.
    Pause(usize),
    /// The webhook is resumed, and enabled where a 410 disabled it.
    Resume(usize),
    /// The webhook is deleted.
    Delete(usize),
    /// The webhook with this number is made.
    Create(usize),
    /// An open delivery is cancelled.
    Cancel(usize),
    /// A delivery is retried by hand.
    Retry(usize),
    /// All that the sandbox has recorded is replayed.
    Replay(usize),
    /// What waits is made due at once.
    Drain(usize),
    /// Sending is paused.
    PauseChannels(usize),
    /// Sending is resumed.
    ResumeChannels(usize),
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Not before so long a life.
    pub after: Duration,
    /// How.
    pub how: Ending,
    /// How long there is none then.
    pub pause: Duration,
}

/// The ways to end.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// A crash after so many steps: calls to the store, the network, the clock.
    AtStep(u64),
    /// A crash before a commit: nothing is stored.
    BeforeCommit,
    /// A crash after a commit, before anybody hears of it.
    AfterCommit,
    /// As asked: what is under way may end.
    Stop,
}

/// A process that stands still while another takes its place.
#[derive(Clone, Copy, Debug)]
pub struct Freeze {
    /// So long after the last time, or the beginning of the life.
    pub after: Duration,
    /// For how long.
    pub length: Duration,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let length = rng.millis(40_000, 160_000);
        let sandboxes: Vec<_> = (0..rng.between(1, 4)).map(|_| sandbox(&mut rng, length)).collect();
        let mut webhooks: Vec<_> = (0..sandboxes.len()).map(|place| webhook(&mut rng, place, place)).collect();
        let mut actions = traffic(&mut rng, sandboxes.len(), length);
        operate(&mut rng, sandboxes.len(), length, &mut webhooks, &mut actions);
        actions.sort_by_key(|(at, _)| *at);
        let ends =
            if rng.chance(0.75) { (0..rng.between(1, 5)).map(|_| end(&mut rng, length)).collect() } else { vec![] };
        let freezes = if rng.chance(0.4) { (0..rng.between(1, 4)).map(|_| freeze(&mut rng)).collect() } else { vec![] };
        Self {
            sandboxes,
            webhooks,
            actions,
            length,
            ends,
            freezes,
            hints_lost: rng.pick(&[0.0, 0.0, 0.2, 1.0]),
            commits_refused: rng.pick(&[0.0, 0.0, 0.0, 0.02]),
            store_slowness_ms: rng.pick(&[0, 2, 20, 60]),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn sandbox(rng: &mut Rng, length: Duration) -> SandboxPlan {
    let mut trouble = Vec::new();
    let mut until = 0;
    while until < millis(length) {
        until += rng.between(5_000, 60_000);
        trouble.push((until, rng.pick(&[0.0, 0.05, 0.3, 0.7, 1.0])));
    }
    SandboxPlan { trouble, stays_paused: rng.chance(0.1), relay_trouble: rng.pick(&[0.0, 0.1, 0.5]) }
}

fn webhook(rng: &mut Rng, sandbox: usize, number: usize) -> WebhookPlan {
    let mut settings = json!({
        "name": format!("hook {number}"), "channels": ["email"],
        "url": format!("http://hook{sandbox}.example/{number}"),
        "signing": "none",
        "timeoutSeconds": rng.between(1, 11),
        "maxConcurrency": rng.pick(&[1, 2, 4, 64]),
        "maxPerSecond": rng.pick(&[None, None, Some(2), Some(10)]),
        "retry": {
            "firstDelaySeconds": rng.between(1, 6),
            "maxDelaySeconds": rng.between(5, 31),
            "giveUpAfterSeconds": rng.pick(&[20, 60, 3_600, 86_400]),
        },
    });
    if rng.chance(0.3) {
        settings["events"] = json!(["sent", "delivered", "bounce", "error", "exclude", "denylist", "delay"]);
    }
    WebhookPlan { sandbox, settings }
}

fn traffic(rng: &mut Rng, sandboxes: usize, length: Duration) -> Vec<(Duration, Action)> {
    let executions = rng.between(4, 22);
    let execute = |rng: &mut Rng| {
        let recipients = if rng.chance(0.15) { rng.between(6, 21) } else { rng.between(1, 5) };
        let action = Action::Execute {
            sandbox: rng.place(sandboxes),
            relay: rng.chance(0.4),
            recipients: usize::try_from(recipients).unwrap_or(1),
            high: rng.chance(0.3),
            expires: rng.chance(0.1).then(|| rng.millis(100, 20_000)),
            twice: rng.chance(0.1),
        };
        (rng.millis(0, millis(length) * 9 / 10), action)
    };
    (0..executions).map(|_| execute(rng)).collect()
}

/// What operators do. Pauses and deletions are followed by their opposite, sooner or later.
fn operate(
    rng: &mut Rng,
    sandboxes: usize,
    length: Duration,
    webhooks: &mut Vec<WebhookPlan>,
    actions: &mut Vec<(Duration, Action)>,
) {
    for _ in 0..rng.between(0, 9) {
        let sandbox = rng.place(sandboxes);
        let at = rng.millis(0, millis(length));
        let later = at + rng.millis(10, 40_000);
        match rng.between(0, 9) {
            0 | 1 => actions.extend([(at, Action::Pause(sandbox)), (later, Action::Resume(sandbox))]),
            2 => {
                let number = webhooks.len();
                webhooks.push(webhook(rng, sandbox, number));
                actions.extend([(at, Action::Delete(sandbox)), (later, Action::Create(number))]);
            }
            3 | 4 => actions.push((at, Action::Cancel(sandbox))),
            5 => actions.push((at, Action::Retry(sandbox))),
            6 => actions.push((at, Action::Drain(sandbox))),
            7 => actions.push((at, Action::Replay(sandbox))),
            _ => actions.extend([(at, Action::PauseChannels(sandbox)), (later, Action::ResumeChannels(sandbox))]),
        }
    }
}

/// Most last about as long as it takes another process to take over: then both mean to own the shards.
fn freeze(rng: &mut Rng) -> Freeze {
    let length = if rng.chance(0.7) { rng.millis(20_000, 50_000) } else { rng.millis(500, 100_000) };
    Freeze { after: rng.millis(500, 40_000), length }
}

fn end(rng: &mut Rng, length: Duration) -> End {
    let how = match rng.between(0, 8) {
        0..4 => Ending::AtStep(rng.between(0, 400)),
        4 | 5 => Ending::BeforeCommit,
        6 => Ending::AfterCommit,
        _ => Ending::Stop,
    };
    End { after: rng.millis(100, millis(length) / 2), how, pause: rng.millis(0, 20_000) }
}
