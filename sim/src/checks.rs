//! What must be true once all faults have stopped and everything had its time.

use crate::arrival::shown;
use crate::ledger::{Execution, Request};
use crate::world::{START, Tenant, World};
use model::clock::Timestamp;
use model::delivery::DeliveryState;
use model::ids::{EventId, ExecutionId};
use model::message::may_follow;
use model::outcome::FeedbackStatus::{self, Bounce, Delay, Delivered, Error, Exclude, Sent};
use std::time::Duration;
use store::Store;
use store::lookup::{
    DeliveryView, EventFilter, EventView, ExecutionFilter, ExecutionView, Listed, MessageFilter, MessageView, Page,
};
use store::statistics::Buckets;

/// The executions that are not through yet.
pub async fn unsettled(world: &World, store: &dyn Store, among: Vec<ExecutionId>) -> Vec<ExecutionId> {
    let mut left = Vec::new();
    for id in among {
        let Some((execution, tenant)) = execution(world, id) else { continue };
        let may_be_held = world.plan.sandboxes[execution.sandbox].stays_paused;
        let settled = store.execution(tenant.sandbox, id).await.is_ok_and(|view| is_settled(&view, may_be_held));
        if !settled {
            left.push(id);
        }
    }
    left
}

/// Whether every replay has ended that can: the deliveries of one whose webhook is held wait with it.
pub async fn replays_are_over(world: &World, store: &dyn Store) -> bool {
    let Ok(running) = store.running_replays().await else { return false };
    running.iter().all(|replay| {
        let place = world.tenants().iter().position(|tenant| tenant.sandbox == replay.sandbox);
        place.is_some_and(|place| world.plan.sandboxes[place].stays_paused)
    })
}

fn execution(world: &World, id: ExecutionId) -> Option<(Execution, &Tenant)> {
    let execution = world.ledger(|ledger| ledger.executions.get(&id).cloned())?;
    let tenant = world.tenants().get(execution.sandbox)?;
    Some((execution, tenant))
}

fn is_settled(view: &ExecutionView, may_be_held: bool) -> bool {
    let has_ended = |delivery: &DeliveryView| match delivery.state {
        DeliveryState::Held => may_be_held,
        DeliveryState::Succeeded | DeliveryState::Exhausted | DeliveryState::Cancelled => true,
        DeliveryState::Pending | DeliveryState::Failing => false,
    };
    view.messages.iter().all(|message| {
        !message.state.awaits_sending()
            && message.next_try_at.is_none()
            && !message.events.is_empty()
            && message.events.iter().all(|event| event.delivery.as_ref().is_none_or(has_ended))
    })
}

/// Checks everything.
pub async fn check(world: &World, store: &dyn Store) {
    let ids: Vec<_> = world.ledger(|ledger| ledger.executions.keys().copied().collect());
    for id in ids {
        let Some((execution, tenant)) = execution(world, id) else { continue };
        match store.execution(tenant.sandbox, id).await {
            Ok(view) => check_execution(world, &execution, &view),
            Err(error) => world.violation(format!("{id} was acknowledged and is not there: {error}")),
        }
    }
    if !replays_are_over(world, store).await {
        world.violation("a replay does not come to its end".to_owned());
    }
    for tenant in world.tenants() {
        match check_statistics(store, tenant).await {
            Ok((counted, there)) if counted == there => {}
            Ok((counted, there)) => {
                world.violation(format!("{} counts {counted:?} where there are {there:?}", tenant.name));
            }
            Err(error) => world.violation(format!("the statistics of {} cannot be read: {error}", tenant.name)),
        }
    }
    check_bodies(world);
    check_mailed(world);
    check_load(world);
}

/// Messages, feedback events by status, and attempts.
type Sums = (u64, [u64; 7], u64);

/// What was counted, and what the rows say.
async fn check_statistics(store: &dyn Store, tenant: &Tenant) -> store::Result<(Sums, Sums)> {
    let always = Buckets { from: START, length: Duration::from_secs(365 * 86_400), count: 1 };
    let mut counted = Sums::default();
    for counts in store.statistics(tenant.sandbox, always).await? {
        let outcomes = FeedbackStatus::ALL.map(|status| counts.outcomes(status));
        counted = (counts.accepted(), outcomes, counts.succeeded() + counts.failed());
    }
    let mut there = Sums::default();
    let mut page = Page { limit: 200, cursor: None };
    loop {
        let Listed { items, next } = store.executions(all_messages(tenant), page.clone()).await?;
        there.0 += items.iter().map(|execution| execution.messages.len() as u64).sum::<u64>();
        if next.is_none() {
            break;
        }
        page.cursor = next;
    }
    page.cursor = None;
    loop {
        let Listed { items, next } = store.events(EventFilter::of(tenant.sandbox), page.clone()).await?;
        for event in items {
            let status = event.event.outcome.verdict.status();
            let place = FeedbackStatus::ALL.iter().position(|one| *one == status).unwrap_or(0);
            there.1[place] += 1;
            there.2 += store.attempts(tenant.sandbox, event.event.key.id()).await?.len() as u64;
        }
        if next.is_none() {
            return Ok((counted, there));
        }
        page.cursor = next;
    }
}

fn all_messages(tenant: &Tenant) -> MessageFilter {
    let sandbox = tenant.sandbox;
    let execution =
        ExecutionFilter { sandbox, request_id: None, campaign: None, from: None, to: None, created_by: None };
    MessageFilter { execution, execution_id: None, recipient: None, state: None, channel: None }
}

fn check_execution(world: &World, execution: &Execution, view: &ExecutionView) {
    if view.facts.request_id != execution.request_id || view.messages.len() != execution.addresses.len() {
        world.violation(format!("{} is not what was accepted", view.facts.id));
    }
    for (message, address) in view.messages.iter().zip(&execution.addresses) {
        check_message(world, execution, message, address);
        for event in &message.events {
            check_delivery(world, execution, event);
        }
    }
}

/// The events are those that the address asks for.
fn check_message(world: &World, execution: &Execution, message: &MessageView, address: &str) {
    let told: Vec<FeedbackStatus> = message.events.iter().map(|event| event.event.outcome.verdict.status()).collect();
    let expected: Option<&[FeedbackStatus]> = match address.split(['+', '-']).next().unwrap_or(address) {
        "sent" => Some(&[Sent]),
        "delivered" => Some(&[Sent, Delivered]),
        "bounce" | "softbounce" => Some(&[Bounce]),
        "error" => Some(&[Error]),
        "late" => Some(&[Sent, Bounce]),
        "delay" => Some(&[Delay, Sent]),
        "exclude" => Some(&[Exclude]),
        _ => None,
    };
    let expired = execution.expires && matches!(told.last(), Some(Exclude | Error));
    let follow = told.iter().enumerate().all(|(place, status)| may_follow(&told[..place], *status));
    let is_final = told.iter().any(|status| *status != Delay);
    let as_asked = expected.is_none_or(|expected| told == expected) || expired;
    if !follow || !is_final || !as_asked || message.state.awaits_sending() {
        let key = message.key;
        world.violation(format!("{}/{} {address} ended as {:?} {told:?}", key.execution, key.ordinal, message.state));
    }
}

fn check_delivery(world: &World, execution: &Execution, event: &EventView) {
    let id = event.event.key.id();
    let Some(delivery) = &event.delivery else {
        if must_have_delivery(world, execution, event) {
            world.violation(format!("{} has no delivery", shown(Some(event.event.key))));
        }
        return;
    };
    let fault = match delivery.state {
        DeliveryState::Succeeded => (!was_taken(world, id)).then_some("succeeded, and the endpoint did not take it"),
        DeliveryState::Cancelled => (!may_be_cancelled(world, execution, id)).then_some("cancelled by nobody"),
        DeliveryState::Held => {
            (!world.plan.sandboxes[execution.sandbox].stays_paused).then_some("held, and its webhook is not")
        }
        DeliveryState::Exhausted => gave_up_early(world, execution, event).then_some("given up before its time"),
        DeliveryState::Pending | DeliveryState::Failing => Some("not delivered"),
    };
    if let Some(fault) = fault {
        world.violation(format!("{} is {fault}: {delivery:?}", shown(Some(event.event.key))));
    }
}

fn was_taken(world: &World, id: EventId) -> bool {
    world.ledger(|ledger| {
        let arrivals = ledger.arrivals.get(&id).map_or(&[][..], Vec::as_slice);
        arrivals.iter().any(|arrival| matches!(arrival.answered, Some(200..=299)))
    })
}

fn may_be_cancelled(world: &World, execution: &Execution, id: EventId) -> bool {
    let of_sandbox = |number: usize| world.plan.webhooks[number].sandbox == execution.sandbox;
    world.ledger(|ledger| {
        let deleted = ledger.webhooks.iter().enumerate().any(|(n, life)| of_sandbox(n) && life.end_asked.is_some());
        deleted || ledger.cancel_asked.contains(&id)
    })
}

/// Whether a webhook that wants the event was there for certain when it was recorded.
fn must_have_delivery(world: &World, execution: &Execution, event: &EventView) -> bool {
    let at = event.event.recorded_at;
    let status = event.event.outcome.verdict.status();
    let wants = |number: usize| {
        let plan = &world.plan.webhooks[number];
        let events = plan.settings["events"].as_array();
        let selects = events.map_or(status != Delay, |all| all.iter().any(|one| one == status.as_str()));
        plan.sandbox == execution.sandbox && selects
    };
    // An event is recorded a little after the moment that it carries, or long after, where its process stood still.
    let frozen: Duration = world.plan.freezes.iter().map(|freeze| freeze.length).sum();
    let margin = Duration::from_secs(10) + frozen;
    world.ledger(|ledger| {
        ledger.webhooks.iter().enumerate().any(|(number, life)| {
            let there = life.made.is_some_and(|made| made < at) && life.end_asked.is_none_or(|end| at + margin < end);
            there && wants(number)
        })
    })
}

/// Whether a delivery was given up although another attempt would have been in time. Time held does not count.
fn gave_up_early(world: &World, execution: &Execution, event: &EventView) -> bool {
    let Some(ended) = event.delivery.as_ref().and_then(|delivery| delivery.ended_at) else { return false };
    let least_ms = world.plan.webhooks.iter().filter(|plan| plan.sandbox == execution.sandbox).filter_map(|plan| {
        let retry = &plan.settings["retry"];
        let longest_pause = retry["maxDelaySeconds"].as_i64()?.max(30) * 3 / 2;
        Some((retry["giveUpAfterSeconds"].as_i64()? - longest_pause) * 1_000)
    });
    let recorded = event.event.recorded_at;
    let held = world.ledger(|ledger| ledger.held_ms(execution.sandbox, recorded, ended));
    ended.millis() - recorded.millis() < least_ms.min().unwrap_or(0) + held
}

/// The body of an event never changes.
fn check_bodies(world: &World) {
    let changed = world.ledger(|ledger| {
        let differ = |arrivals: &Vec<crate::ledger::Arrival>| arrivals.windows(2).any(|two| two[0].body != two[1].body);
        ledger.arrivals.iter().filter(|(_, arrivals)| differ(arrivals)).map(|(id, _)| *id).collect::<Vec<_>>()
    });
    for id in changed {
        world.violation(format!("{} came with different bodies", shown(id.key())));
    }
}

/// Nobody is mailed more often than crashes and takeovers can explain.
fn check_mailed(world: &World) {
    let often = world.ledger(|ledger| {
        let most = 1 + ledger.upsets;
        ledger.mailed.iter().filter(|(_, times)| **times > most).map(|(key, times)| (*key, *times)).collect::<Vec<_>>()
    });
    for (key, times) in often {
        world.violation(format!("{}/{} was mailed {times} times", key.execution, key.ordinal));
    }
}

/// No endpoint saw more than its limits allow.
fn check_load(world: &World) {
    let load = world.ledger(|ledger| ledger.load.clone());
    for ((process, webhook), requests) in load {
        let settings = &world.plan.webhooks[webhook].settings;
        let concurrency = settings["maxConcurrency"].as_u64().unwrap_or(64);
        let most = most_at_once(&requests);
        if most > concurrency {
            world.violation(format!("p{process} made {most} requests at once to webhook {webhook}, not {concurrency}"));
        }
        if let Some(rate) = settings["maxPerSecond"].as_u64()
            && let Some(span) = burst(&requests, u32::try_from(rate).unwrap_or(u32::MAX))
        {
            world.violation(format!("p{process} made more than {rate} requests a second to webhook {webhook}: {span}"));
        }
    }
}

/// The most requests that were under way together for any time at all.
fn most_at_once(requests: &[Request]) -> u64 {
    let mut edges: Vec<(Timestamp, bool)> = Vec::new();
    for request in requests.iter().filter(|request| request.until != Some(request.from)) {
        edges.push((request.from, true));
        edges.extend(request.until.map(|until| (until, false)));
    }
    // At one moment ends come before beginnings.
    edges.sort();
    let (mut now, mut most) = (0_u64, 0);
    for (_, begins) in edges {
        now = if begins { now + 1 } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    most
}

/// A span with more requests than a bucket of a tenth of a second's worth allows, with a little for the way.
fn burst(requests: &[Request], rate: u32) -> Option<String> {
    let times: Vec<Timestamp> = requests.iter().filter(|one| one.is_rated).map(|one| one.from).collect();
    for (place, from) in times.iter().enumerate() {
        for (count, until) in times[place..].iter().enumerate() {
            let seconds = until.since(*from).as_secs_f64() + 0.1;
            let allowed = f64::from(rate) * seconds + (f64::from(rate) / 10.0).max(1.0) + 0.5;
            let count = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
            if f64::from(count) > allowed {
                return Some(format!("{count} within {seconds:.1} s"));
            }
        }
    }
    None
}
