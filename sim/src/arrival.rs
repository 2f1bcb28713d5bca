//! What must be true whenever a request comes in at an endpoint.

use crate::endpoint::{Received, UnderWay};
use crate::ledger::{Arrival, Ledger, ProcessState, Request};
use crate::world::{Tenant, World};
use model::clock::Timestamp;
use model::delivery::DeliveryState;
use model::ids::EventKey;
use std::sync::Arc;
use std::time::Duration;
use store::lookup::{DeliveryView, EventView, MessageView};

/// A program that was told to stop something may have begun it right before: in the middle of a lookup.
pub const SLACK: Duration = Duration::from_millis(400);

/// So long after an answer it is written down, though the disk refuses some commits.
const WRITTEN_DOWN_WITHIN: Duration = Duration::from_secs(5);

/// A request that was taken.
#[derive(Debug)]
pub struct Taken {
    /// Lasts as long as the request is under way.
    pub under_way: UnderWay,
    /// The arrival's place among those of its event.
    pub place: usize,
}

/// Takes a request: checks and notes it.
pub async fn take(world: &Arc<World>, process: &Arc<ProcessState>, received: &Received) -> Taken {
    let number = process.number;
    let key = received.event.key();
    world.note(format_args!(
        "arrival p{number} w{} {} began {}",
        received.webhook,
        shown(key),
        received.began.seconds()
    ));
    match (key, world.tenants().get(received.sandbox)) {
        (Some(key), Some(tenant)) => check(world, process, received, tenant, key).await,
        _ => world.violation(format!("webhook-id {} is none of ours", received.event)),
    }
    let (now, body) = (world.now(), digest(&received.body));
    let (place, request) = world.ledger(|ledger| note(ledger, process, received, now, body));
    Taken { under_way: UnderWay::new(world, (number, received.webhook), request), place }
}

/// An event, short enough for a trace.
pub fn shown(key: Option<EventKey>) -> String {
    key.map_or_else(String::new, |key| {
        let message = key.message;
        format!("{}/{}#{}", message.execution, message.ordinal, key.number)
    })
}

fn note(ledger: &mut Ledger, process: &ProcessState, received: &Received, now: Timestamp, body: u64) -> (usize, usize) {
    let is_fresh = now.since(received.began) < Duration::from_secs(1) && !process.stand.stood_since(received.began);
    let process = process.number;
    let upsets = ledger.upsets;
    let arrivals = ledger.arrivals.entry(received.event).or_default();
    let is_echo = arrivals
        .last()
        .is_some_and(|last| last.process == process && last.began == received.began && last.answered.unwrap_or(0) == 0);
    let is_rated = !is_echo && is_fresh;
    let arrival = Arrival { at: now, began: received.began, process, body, answered: None, asked_pause: 0, upsets };
    arrivals.push(arrival);
    let place = arrivals.len() - 1;
    let load = ledger.load.entry((process, received.webhook)).or_default();
    load.push(Request { from: now, until: None, line: received.line, is_rated });
    (place, load.len() - 1)
}

/// Notes what was answered.
pub fn answered(
    world: &World,
    process: usize,
    received: &Received,
    place: usize,
    status: Option<u16>,
    pause: Option<u64>,
) {
    world.note(format_args!("answer {} {status:?} {pause:?}", shown(received.event.key())));
    let now = world.now();
    world.ledger(|ledger| {
        if status == Some(410) {
            // Held once that is written down.
            ledger.hold_asked.insert(received.sandbox, now + WRITTEN_DOWN_WITHIN);
        }
        if let Some(pause) = pause {
            let key = (process, received.webhook);
            let until = now + Duration::from_secs(pause);
            // Several may be under way: the longest pause counts.
            let known = ledger.pauses.get(&key).filter(|(_, known)| *known > until).copied();
            ledger.pauses.insert(key, known.unwrap_or((now, until)));
        }
        *ledger.answers.entry(status.unwrap_or(0)).or_default() += 1;
        let arrivals = ledger.arrivals.get_mut(&received.event);
        if let Some(arrival) = arrivals.and_then(|arrivals| arrivals.get_mut(place)) {
            arrival.answered = Some(status.unwrap_or(0));
            arrival.asked_pause = pause.unwrap_or(0);
        }
    });
}

fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

async fn check(world: &World, process: &ProcessState, received: &Received, tenant: &Tenant, key: EventKey) {
    let Some(store) = world.truth() else { return };
    let view = match store.message(tenant.sandbox, key.message).await {
        Ok(view) => view,
        Err(error) => return world.violation(format!("{} has no message: {error}", shown(Some(key)))),
    };
    let Some(event) = view.events.iter().find(|event| event.event.key == key) else {
        return world.violation(format!("{} came in before it was stored", shown(Some(key))));
    };
    let said = [
        check_body(received, event),
        check_webhook(world, received),
        check_owner(world, process, received, tenant),
        check_order(world, received, &view, key),
        check_state(world, process, received, event),
        check_pace(world, process, received),
        check_pause(world, process, received),
    ];
    for what in said.into_iter().flatten() {
        world.violation(format!("p{} {}: {what}", process.number, shown(Some(key))));
    }
}

/// The body is the event's, and never changes.
fn check_body(received: &Received, event: &EventView) -> Option<String> {
    (received.body != event.event.body()).then(|| "the body is not the event's".to_owned())
}

/// The webhook that is meant is there: it was not gone before the attempt began.
fn check_webhook(world: &World, received: &Received) -> Option<String> {
    let life = world.ledger(|ledger| ledger.webhooks.get(received.webhook).cloned()).unwrap_or_default();
    let is_gone = life.ended.is_some_and(|ended| received.began > ended + SLACK);
    (life.asked.is_none() || is_gone).then(|| format!("webhook {} is not there", received.webhook))
}

/// No attempt begins once another process owns the shard.
fn check_owner(world: &World, process: &ProcessState, received: &Received, tenant: &Tenant) -> Option<String> {
    let owner = world.ledger(|ledger| ledger.owner(tenant))?;
    let is_late = owner.process != process.number && received.began > owner.since;
    is_late.then(|| format!("the attempt began although process {} owns the shard", owner.process))
}

/// Every earlier event of the message has ended. A delivery that was ended and retried by hand or
/// replayed has had its turn.
fn check_order(world: &World, received: &Received, message: &MessageView, key: EventKey) -> Option<String> {
    if world.ledger(|ledger| ledger.comes_again(received.sandbox, key.message)) {
        return None;
    }
    let is_open = |delivery: &DeliveryView| {
        matches!(delivery.state, DeliveryState::Pending | DeliveryState::Held | DeliveryState::Failing)
    };
    let earlier = message.events.iter().filter(|event| event.event.key.number < key.number);
    let open = earlier.filter(|event| event.delivery.as_ref().is_some_and(is_open)).count();
    (open > 0).then(|| format!("{open} earlier events have not ended"))
}

/// The delivery was due when the attempt began.
fn check_state(world: &World, process: &ProcessState, received: &Received, event: &EventView) -> Option<String> {
    let Some(delivery) = &event.delivery else { return Some("it has no delivery".to_owned()) };
    let began = received.began;
    let now = world.now();
    let under_way = |since: Option<Timestamp>| since.is_some_and(|since| since + SLACK >= began);
    let excused = match delivery.state {
        // Whoever stood still did not hear what happened meanwhile.
        _ if process.stand.stood_since(began) => true,
        DeliveryState::Pending | DeliveryState::Failing => !delivery.blocked && delivery.next_attempt_at <= Some(now),
        DeliveryState::Held => under_way(world.ledger(|ledger| ledger.hold_asked.get(&received.sandbox).copied())),
        DeliveryState::Succeeded | DeliveryState::Exhausted | DeliveryState::Cancelled => under_way(delivery.ended_at),
    };
    (!excused).then(|| format!("it is not due: {delivery:?}"))
}

/// The pauses between attempts are those of the schedule: measured from the endpoint's own answers.
fn check_pace(world: &World, process: &ProcessState, received: &Received) -> Option<String> {
    let key = received.event.key()?;
    let now = world.now();
    let retry = &world.plan.webhooks.get(received.webhook)?.settings["retry"];
    let least = Duration::from_secs(retry["firstDelaySeconds"].as_u64()?).mul_f64(0.49);
    world.ledger(|ledger| {
        let last = ledger.arrivals.get(&received.event)?.last()?;
        // By hand, or because what came of the last attempt was lost with its process, it may be tried at once.
        let is_free = ledger.comes_again(received.sandbox, key.message)
            || ledger.drained.contains(&received.sandbox)
            || last.upsets != ledger.upsets
            || last.process != process.number
            || last.began == received.began;
        let failed = last.answered.is_some_and(|status| !matches!(status, 200..=299 | 410));
        let pause = least.max(Duration::from_secs(last.asked_pause));
        let early = failed && now < last.at + pause;
        (early && !is_free).then(|| format!("tried again {:?} after a failure, not {pause:?}", now.since(last.at)))
    })
}

/// A pause that the endpoint asked for holds for all of the webhook's events, unless the webhook is changed or drained.
fn check_pause(world: &World, process: &ProcessState, received: &Received) -> Option<String> {
    let now = world.now();
    world.ledger(|ledger| {
        let (from, until) = ledger.pauses.get(&(process.number, received.webhook)).copied()?;
        // Whoever stands still when the answer comes has not heard of it.
        let is_free =
            ledger.told.get(&received.sandbox).is_some_and(|told| *told >= from) || process.stand.stood_since(from);
        let early = received.began > from + SLACK && now < until;
        (early && !is_free).then(|| format!("tried {:?} before the pause is over", until.since(now)))
    })
}
