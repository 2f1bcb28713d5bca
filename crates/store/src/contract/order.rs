//! The order of a message's events.

use super::Bench;
use super::fixtures::{START, at, hard_bounce, plain};
use super::world::World;
use model::delivery::{AttemptDecision, DeliveryState, DueDelivery};
use model::ids::MessageKey;
use model::outcome::FeedbackStatus::{Bounce, Sent};
use model::outcome::{FailureCategory, Verdict};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

pub async fn a_later_event_waits_until_the_one_before_has_ended(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    for (i, end) in ["succeed", "exhaust", "cancel"].into_iter().enumerate() {
        let sent = world.delivery(&format!("r{i}")).await;
        let message = sent.event.key.message;
        assert!(world.record(message, hard_bounce(FailureCategory::Async)).await.due.is_empty());
        let bounce = world.view(message).await.events.remove(1).delivery.unwrap();
        assert!(bounce.blocked && bounce.state == DeliveryState::Pending && bounce.next_attempt_at.is_none());

        // A try that failed is no end.
        let failed = world.finish(&sent, at(1), AttemptDecision::RetryAt(at(2))).await;
        assert!(failed.done && failed.promoted.is_none());
        let sent = DueDelivery { failures: 1, ..sent };
        let promoted = match end {
            "succeed" => world.finish(&sent, at(3), AttemptDecision::Succeeded).await.promoted,
            "exhaust" => world.finish(&sent, at(3), AttemptDecision::Exhausted).await.promoted,
            _ => {
                world.cancel(&sent, at(3)).await.unwrap();
                None
            }
        };
        let due = world.due_deliveries(at(3)).await.deliveries.remove(0);
        assert_eq!(due.event.outcome.verdict.status(), Bounce);
        assert_eq!((due.first_due, due.due_at, due.failures), (at(3), at(3), 0));
        assert!(promoted.is_none_or(|promoted| promoted.sequence == due.sequence), "{end}");
        assert!(world.finish(&due, at(4), AttemptDecision::Succeeded).await.done);
    }
}

pub async fn what_is_recorded_together_waits_each_for_its_own(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let mut sent = Vec::new();
    for i in 0..20 {
        sent.push(world.delivery(&format!("r{i}")).await);
    }
    let late = || plain(hard_bounce(FailureCategory::Async));
    let records = sent.iter().map(|due| world.record_of(due.event.key.message, at(1), late())).collect();
    let recorded = world.store.record(records).await.unwrap();
    assert!(recorded.iter().all(|recorded| recorded.done && recorded.due.is_empty()));
    let finishes = sent.iter().map(|due| world.finish_of(due, at(2), AttemptDecision::Succeeded)).collect();
    let finished = world.store.finish(finishes).await.unwrap();
    for (due, finished) in sent.iter().zip(finished) {
        let next = finished.promoted.expect("its bounce is due now");
        assert_eq!((next.event.key.message, next.event.key.number), (due.event.key.message, 2));
    }
}

pub async fn an_event_nobody_wants_holds_up_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({"events": ["sent", "bounce"]})).await;
    let message = world.message("r1").await;
    world.record(message, Verdict::Delay).await;
    let recorded = world.record(message, hard_bounce(FailureCategory::Async)).await;
    assert_eq!(recorded.due.len(), 1);
    assert_eq!(recorded.due[0].event.outcome.verdict.status(), Sent);
    let next = world.finish(&recorded.due[0], START, AttemptDecision::Succeeded).await.promoted.unwrap();
    assert_eq!(next.event.outcome.verdict.status(), Bounce);
}

pub async fn a_retry_by_hand_waits_for_the_event_under_way(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let sent = world.delivery("r1").await;
    let message = sent.event.key.message;
    world.finish(&sent, at(1), AttemptDecision::Succeeded).await;
    let delay = world.record(message, Verdict::Delay).await.due.remove(0);
    assert!(world.record(message, Verdict::Delivered).await.due.is_empty());
    // The first is asked for once more while the second may be on the wire: it goes next, then the third.
    let shown = world.retry(&sent, at(2)).await.unwrap().delivery.unwrap();
    assert!(shown.blocked);
    assert_eq!(world.due_deliveries(at(9)).await.deliveries.len(), 1);
    let next = world.finish(&delay, at(3), AttemptDecision::Succeeded).await.promoted.unwrap();
    assert_eq!(next.sequence, sent.sequence);
    let last = world.finish(&next, at(4), AttemptDecision::Succeeded).await.promoted.unwrap();
    assert_eq!(last.event.key.number, 3);
}

pub async fn a_cancelled_event_lets_only_what_is_free_go(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let sent = world.delivery("r1").await;
    let message = sent.event.key.message;
    world.finish(&sent, at(1), AttemptDecision::Exhausted).await;
    let delay = world.record(message, Verdict::Delay).await.due.remove(0);
    world.record(message, Verdict::Delivered).await;
    world.retry(&sent, at(2)).await.unwrap();
    // The second is under way, the first and the third wait for it; the third is cancelled.
    let third = world.view(message).await.events.remove(2).event.key.id();
    world.store.cancel_delivery(world.sandbox.id, third, at(3), world.audit("delivery.cancel")).await.unwrap();
    let due = world.due_deliveries(at(9)).await.deliveries;
    assert_eq!(due.iter().map(|due| due.sequence).collect::<Vec<_>>(), [delay.sequence]);
    world.cancel(&delay, at(4)).await.unwrap();
    let due = world.due_deliveries(at(9)).await.deliveries;
    assert_eq!(due.iter().map(|due| due.sequence).collect::<Vec<_>>(), [sent.sequence]);
}

/// Something that happens to a message with deliveries.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An outcome is recorded: 0 a delay, 1 sent, 2 delivered, 3 a late bounce.
    Record(u8),
    /// An attempt at what is due ends; `true`: it is written down twice.
    Finish(AttemptDecision, bool),
    /// The event at this place is cancelled.
    Cancel(prop::sample::Index),
    /// The event at this place is retried by hand.
    Retry(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    let decision = prop_oneof![
        3 => Just(AttemptDecision::Succeeded),
        2 => Just(AttemptDecision::RetryAt(at(1))),
        1 => Just(AttemptDecision::Exhausted),
    ];
    prop_oneof![
        3 => (0_u8..4).prop_map(Step::Record),
        5 => (decision, any::<bool>()).prop_map(|(decision, twice)| Step::Finish(decision, twice)),
        2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        2 => any::<prop::sample::Index>().prop_map(Step::Retry),
    ]
}

pub async fn any_interleaving_keeps_the_order(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let steps = proptest::collection::vec(any_step(), 1..40);
    let handle = tokio::runtime::Handle::current();
    let run = |steps: Vec<Step>| handle.block_on(keeps_the_order(&world, &steps));
    tokio::task::block_in_place(|| TestRunner::new(config).run(&steps, run)).unwrap();
}

async fn keeps_the_order(world: &World, steps: &[Step]) -> Result<(), TestCaseError> {
    let new = world.execution("");
    let request_id = new.id.to_string();
    let execution = world.accept(crate::work::NewExecution { request_id, ..new }).await.id;
    let message = MessageKey { execution, ordinal: 0 };
    let mut succeeded = Vec::new();
    let mut by_hand = false;
    for step in steps {
        let events = world.view(message).await.events;
        match *step {
            Step::Record(which) => {
                let late_bounce = hard_bounce(FailureCategory::Async);
                let verdicts = [Verdict::Delay, Verdict::Sent, Verdict::Delivered, late_bounce];
                world.record(message, verdicts[usize::from(which)].clone()).await;
            }
            Step::Finish(decision, twice) => {
                let Some(due) = due_of(world, message).await? else {
                    continue;
                };
                prop_assert!(world.finish(&due, START, decision).await.done);
                if twice {
                    prop_assert!(!world.finish(&due, START, decision).await.done);
                }
                if decision == AttemptDecision::Succeeded {
                    succeeded.push(due.event.key.number);
                }
            }
            Step::Cancel(_) | Step::Retry(_) if events.is_empty() => {}
            Step::Cancel(place) => {
                let id = place.get(&events).event.key.id();
                let _ = world.store.cancel_delivery(world.sandbox.id, id, START, world.audit("cancel")).await;
            }
            Step::Retry(place) => {
                let id = place.get(&events).event.key.id();
                let done = world.store.retry_delivery(world.sandbox.id, id, START, world.audit("retry")).await;
                by_hand |= done.is_ok();
            }
        }
        due_of(world, message).await?;
    }
    prop_assert!(by_hand || succeeded.is_sorted_by(|a, b| a < b), "{succeeded:?}");
    // Whatever happened, the rest can be delivered to the end.
    while let Some(due) = due_of(world, message).await? {
        prop_assert!(world.finish(&due, START, AttemptDecision::Succeeded).await.done);
    }
    let open = |state| matches!(state, DeliveryState::Pending | DeliveryState::Failing);
    let rest = world.view(message).await.events;
    prop_assert!(!rest.iter().any(|event| open(event.delivery.as_ref().unwrap().state)), "{rest:?}");
    Ok(())
}

/// What is due of a message: never two, and none only where nothing is open.
async fn due_of(world: &World, message: MessageKey) -> Result<Option<DueDelivery>, TestCaseError> {
    let due = world.due_deliveries(at(1000)).await.deliveries;
    let mut due: Vec<_> = due.into_iter().filter(|due| due.event.key.message == message).collect();
    prop_assert!(due.len() <= 1, "{due:?}");
    let events = world.view(message).await.events;
    let blocked = events.iter().any(|event| event.delivery.as_ref().is_some_and(|delivery| delivery.blocked));
    prop_assert!(!blocked || due.len() == 1, "{events:?}");
    Ok(due.pop())
}
