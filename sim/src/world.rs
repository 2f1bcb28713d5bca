//! What outlives every process of a run: time, the tenants, the ledger of what was seen, and who may end or freeze.

use crate::ledger::Ledger;
use crate::plan::{Ending, Plan};
use crate::rng::{Rng, Seeded};
use crate::trace::{Trace, millis_since};
use model::clock::{Clock, Timestamp};
use model::ids::{ApiKeyId, CampaignId, ChannelConfigurationId, SandboxId, Shard};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use store::Store;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The organization of every run.
pub const ACME: &str = "acme@EsitoOrg";
/// When every run begins.
pub const START: Timestamp = Timestamp(1_800_000_000_000);
/// A run that takes more steps than this turns in a circle.
const MOST_STEPS: u64 = 2_000_000;
/// The most violations that are kept.
const MOST_VIOLATIONS: usize = 20;

/// A sandbox with what is in it.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its name.
    pub name: String,
    /// Its shard.
    pub shard: Shard,
    /// The key that sends.
    pub key: ApiKeyId,
    /// The simulator, then the relay.
    pub channels: [ChannelConfigurationId; 2],
    /// The campaigns over them.
    pub campaigns: [CampaignId; 2],
}

/// The world around the processes.
#[derive(Debug)]
pub struct World {
    /// What the seed decided.
    pub plan: Plan,
    /// The product's randomness.
    pub entropy: Arc<Seeded>,
    /// What ends the present process.
    pub end: EndSwitch,
    tenants: OnceLock<Vec<Tenant>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    base: Timestamp,
    since: Option<Instant>,
    calm: bool,
    dice: Rng,
    trace: Trace,
    violations: Vec<String>,
    ledger: Ledger,
    store: Option<Arc<dyn Store>>,
}

/// Locks, also after a panic elsewhere.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, is_shown: bool) -> Arc<Self> {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let entropy = Arc::new(Seeded::new(rng.fork()));
        let plan = Plan::of(seed);
        let state = State {
            base: START,
            since: None,
            calm: true,
            dice: rng.fork(),
            trace: Trace::new(is_shown),
            violations: Vec::new(),
            ledger: Ledger::new(plan.webhooks.len()),
            store: None,
        };
        Arc::new(Self { plan, entropy, end: EndSwitch::default(), tenants: OnceLock::new(), state: Mutex::new(state) })
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        let state = lock(&self.state);
        state.base + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A runtime begins: its time continues the world's.
    pub fn begin_life(&self) {
        lock(&self.state).since = Some(Instant::now());
    }

    /// A runtime is about to end: time stands still until the next one.
    pub fn end_life(&self) {
        let now = self.now();
        let mut state = lock(&self.state);
        (state.base, state.since, state.store) = (now, None, None);
    }

    /// Time passes without a process.
    pub fn pass(&self, pause: Duration) {
        let mut state = lock(&self.state);
        state.base = state.base + pause;
    }

    /// How long the run has taken.
    pub fn elapsed(&self) -> Duration {
        self.now().since(START)
    }

    /// The tenants, once they are made.
    pub fn tenants(&self) -> &[Tenant] {
        self.tenants.get().map_or(&[], Vec::as_slice)
    }

    /// Names the tenants.
    pub fn set_tenants(&self, tenants: Vec<Tenant>) {
        // Once a run.
        let _ = self.tenants.set(tenants);
    }

    /// The store itself, behind all faults: what is true.
    pub fn truth(&self) -> Option<Arc<dyn Store>> {
        lock(&self.state).store.clone()
    }

    /// Names the store of the present life.
    pub fn set_truth(&self, store: Arc<dyn Store>) {
        lock(&self.state).store = Some(store);
    }

    /// Throws the dice.
    pub fn throw<T>(&self, throw: impl FnOnce(&mut Rng) -> T) -> T {
        throw(&mut lock(&self.state).dice)
    }

    /// Reads or writes the ledger.
    pub fn ledger<T>(&self, with: impl FnOnce(&mut Ledger) -> T) -> T {
        with(&mut lock(&self.state).ledger)
    }

    /// Begins or ends all faults.
    pub fn set_calm(&self, calm: bool) {
        lock(&self.state).calm = calm;
    }

    /// Whether there are no faults: not yet, or no more.
    pub fn is_calm(&self) -> bool {
        lock(&self.state).calm
    }

    /// How likely the endpoint of a sandbox, or the way there, fails now.
    pub fn trouble(&self, sandbox: usize) -> f64 {
        let now = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        let phases = self.plan.sandboxes.get(sandbox).map_or(&[][..], |plan| &plan.trouble);
        let phase = phases.iter().find(|(until, _)| now < *until);
        if self.is_calm() { 0.0 } else { phase.map_or(0.0, |(_, trouble)| *trouble) }
    }

    /// Adds a line to the trace.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let now = self.now();
        lock(&self.state).trace.note(millis_since(START, now), what);
    }

    /// Notes that something happened that must not happen.
    pub fn violation(&self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        let at = millis_since(START, self.now());
        let mut state = lock(&self.state);
        if state.violations.len() < MOST_VIOLATIONS {
            state.violations.push(format!("at {at} ms: {what}"));
        }
    }

    /// A step of the program: the finest grain at which it can end.
    pub fn step(&self) {
        if self.end.step() {
            self.violation("the program turns in a circle".to_owned());
        }
    }

    /// The trace and the violations so far.
    pub fn take_report(&self) -> (Trace, Vec<String>) {
        let mut state = lock(&self.state);
        let trace = std::mem::replace(&mut state.trace, Trace::new(false));
        (trace, std::mem::take(&mut state.violations))
    }

    /// Whether there was a violation.
    pub fn is_violated(&self) -> bool {
        !lock(&self.state).violations.is_empty()
    }
}

/// The product's clock.
#[derive(Debug)]
pub struct SimClock(pub Arc<World>);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.0.step();
        self.0.now()
    }
}

/// Ends the processes of a life.
#[derive(Debug, Default)]
pub struct EndSwitch {
    state: Mutex<EndState>,
    thrown: Notify,
}

#[derive(Debug, Default)]
struct EndState {
    armed: Option<Ending>,
    is_over: bool,
    steps: u64,
}

impl EndSwitch {
    /// A new life: nothing is armed.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        (state.armed, state.is_over) = (None, false);
    }

    /// From now on this may end it.
    pub fn arm(&self, ending: Ending) {
        lock(&self.state).armed = Some(ending);
    }

    /// Takes a step; true where it was one too many.
    fn step(&self) -> bool {
        let mut state = lock(&self.state);
        state.steps += 1;
        let too_many = state.steps == MOST_STEPS;
        let ends = match &mut state.armed {
            Some(Ending::AtStep(0)) => true,
            Some(Ending::AtStep(left)) => {
                *left -= 1;
                false
            }
            _ => false,
        };
        drop(state);
        if ends || too_many {
            self.throw();
        }
        too_many
    }

    /// Crashes here, and never returns, if this is what was armed.
    pub async fn at(&self, here: impl Fn(&Ending) -> bool) {
        if lock(&self.state).armed.as_ref().is_some_and(here) {
            self.throw();
        }
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }

    fn throw(&self) {
        lock(&self.state).is_over = true;
        self.thrown.notify_one();
    }

    fn is_over(&self) -> bool {
        lock(&self.state).is_over
    }

    /// Waits until the life is over.
    pub async fn over(&self) {
        while !self.is_over() {
            self.thrown.notified().await;
        }
    }
}

/// Whether a process stands still.
#[derive(Debug, Default)]
pub struct Stand(Mutex<Standing>);

#[derive(Debug, Default)]
struct Standing {
    is_frozen: bool,
    thawed_at: Option<Timestamp>,
    wakers: Vec<Waker>,
}

impl Stand {
    /// Stands still from now on.
    pub fn freeze(&self) {
        lock(&self.0).is_frozen = true;
    }

    /// Goes on.
    pub fn thaw(&self, now: Timestamp) {
        let mut state = lock(&self.0);
        state.is_frozen = false;
        state.thawed_at = Some(now);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether it stands still now.
    pub fn is_frozen(&self) -> bool {
        lock(&self.0).is_frozen
    }

    /// Whether it stood still at any time since then.
    pub fn stood_since(&self, moment: Timestamp) -> bool {
        let state = lock(&self.0);
        state.is_frozen || state.thawed_at.is_some_and(|at| at >= moment)
    }

    /// Waits while it stands still.
    pub fn poll_pass(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if !state.is_frozen {
            return Poll::Ready(());
        }
        state.wakers.push(context.waker().clone());
        Poll::Pending
    }

    /// Waits while it stands still.
    pub async fn pass(&self) {
        std::future::poll_fn(|context| self.poll_pass(context)).await;
    }
}
