//! What people do to deliveries: retry, cancel, hold, drain, delete.

use super::Bench;
use super::fixtures::{START, at, hard_bounce, is_not_found, is_state_conflict};
use super::world::World;
use crate::admin::Edit;
use model::delivery::{AttemptDecision, DeliveryState};
use model::ids::SandboxId;
use model::outcome::FeedbackStatus::Bounce;
use model::outcome::{FailureCategory, Verdict};
use serde_json::json;

pub async fn an_ended_delivery_can_be_retried_by_hand(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let mut ended = Vec::new();
    for (i, decision) in [AttemptDecision::Exhausted, AttemptDecision::Succeeded].into_iter().enumerate() {
        let due = world.delivery(&format!("r{i}")).await;
        world.finish(&due, at(1), decision).await;
        ended.push(due);
    }
    let cancelled = world.delivery("cancelled").await;
    world.cancel(&cancelled, at(1)).await.unwrap();
    ended.push(cancelled);
    let failing = world.delivery("failing").await;
    world.finish(&failing, at(1), AttemptDecision::RetryAt(at(500))).await;
    ended.push(failing.clone());
    for due in &ended {
        let shown = world.retry(due, at(100)).await.unwrap().delivery.unwrap();
        assert_eq!((shown.next_attempt_at, shown.ended_at), (Some(at(100)), None));
    }
    let due = world.due_deliveries(at(100)).await.deliveries;
    assert_eq!(due.len(), 4);
    for due in &due {
        // An ended delivery gets its whole time again; one that is failing keeps its deadline.
        let deadline = if due.sequence == failing.sequence { START } else { at(100) };
        assert_eq!((due.due_at, due.first_due), (at(100), deadline));
        assert!(world.finish(due, at(101), AttemptDecision::Succeeded).await.done);
    }
    assert!(world.due_deliveries(at(999)).await.deliveries.is_empty());
}

pub async fn what_has_no_delivery_cannot_be_retried_or_cancelled(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    world.record(message, Verdict::Sent).await;
    let id = world.view(message).await.events[0].event.key.id();
    let of = world.sandbox.id;
    world.add_webhook(json!({})).await;
    assert!(is_state_conflict(world.store.retry_delivery(of, id, START, world.audit("delivery.retry")).await));
    assert!(is_state_conflict(world.store.cancel_delivery(of, id, START, world.audit("delivery.cancel")).await));

    // Neither can one that waits for another be retried, nor one that has ended be cancelled.
    let first = world.delivery("r2").await;
    world.record(first.event.key.message, hard_bounce(FailureCategory::Async)).await;
    let blocked = world.view(first.event.key.message).await.events[1].event.key.id();
    assert!(is_state_conflict(world.store.retry_delivery(of, blocked, START, world.audit("delivery.retry")).await));
    world.finish(&first, START, AttemptDecision::Succeeded).await;
    assert!(is_state_conflict(world.cancel(&first, START).await));

    // Nor anything without a webhook.
    let edit = Edit { sandbox: of, id: world.webhook().await.id, seen_revision: None };
    world.store.delete_webhook(edit, START, world.audit("feedback-webhook.delete")).await.unwrap();
    assert!(is_state_conflict(world.retry(&first, START).await));
}

pub async fn a_cancelled_delivery_takes_no_attempt(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    let shown = world.cancel(&due, at(1)).await.unwrap().delivery.unwrap();
    assert_eq!((shown.state, shown.ended_at), (DeliveryState::Cancelled, Some(at(1))));
    assert!(!world.finish(&due, at(2), AttemptDecision::Succeeded).await.done);
    assert!(world.due_deliveries(at(9)).await.deliveries.is_empty());
    assert_eq!(world.state(&due).await, DeliveryState::Cancelled);
}

pub async fn held_time_does_not_count(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    world.edit_webhook(at(10), |webhook| webhook.control.paused = true).await;
    let message = world.message("r1").await;
    let sent = super::fixtures::plain(Verdict::Sent);
    let due = world.record_at(message, at(30), sent.clone()).await.due.remove(0);
    // While it is held the webhook's clock stands at 10.
    assert_eq!((due.first_due, due.due_at), (at(10), at(30)));
    assert_eq!(world.state(&due).await, DeliveryState::Held);
    world.edit_webhook(at(70), |webhook| webhook.control.paused = false).await;
    let webhook = world.webhook().await;
    assert_eq!((webhook.control.held_ms, webhook.active_time(at(80))), (60_000, at(20)));
    let read = world.due_deliveries(at(70)).await.deliveries.remove(0);
    assert_eq!(read.first_due, at(10));
    let second = world.message("r2").await;
    let later = world.record_at(second, at(80), sent).await.due.remove(0);
    assert_eq!((later.first_due, later.due_at), (at(20), at(80)));
    // A promoted delivery is due on the same clock.
    world.record_at(second, at(85), super::fixtures::plain(hard_bounce(FailureCategory::Async))).await;
    let next = world.finish(&later, at(90), AttemptDecision::Succeeded).await.promoted.unwrap();
    assert_eq!((next.first_due, next.due_at), (at(30), at(90)));
}

pub async fn draining_makes_waiting_deliveries_due(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let mut all = Vec::new();
    for i in 0..5 {
        let due = world.delivery(&format!("r{i}")).await;
        world.finish(&due, at(1), AttemptDecision::RetryAt(at(1000 + i))).await;
        all.push(due);
    }
    let blocked = world.record(all[0].event.key.message, hard_bounce(FailureCategory::Async)).await;
    assert!(blocked.due.is_empty());
    let drained = world.store.drain_webhook(world.sandbox.id, at(2), world.audit("feedback-webhook.drain")).await;
    assert_eq!(drained.unwrap(), 5);
    let due = world.due_deliveries(at(2)).await.deliveries;
    assert_eq!(due.len(), 5);
    assert!(due.iter().all(|due| due.failures == 1 && due.first_due == START));
    let nowhere = SandboxId(world.campaign.0);
    assert!(is_not_found(world.store.drain_webhook(nowhere, at(2), world.audit("feedback-webhook.drain")).await));
}

pub async fn deleting_the_webhook_cancels_its_deliveries_and_makes_room(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let webhook = world.add_webhook(json!({})).await;
    let (open, done) = (world.delivery("r1").await, world.delivery("r2").await);
    world.record(open.event.key.message, hard_bounce(FailureCategory::Async)).await;
    world.finish(&done, START, AttemptDecision::Succeeded).await;
    let edit = Edit { sandbox: world.sandbox.id, id: webhook.id, seen_revision: Some(1) };
    world.store.delete_webhook(edit, at(7), world.audit("feedback-webhook.delete")).await.unwrap();

    assert!(world.store.webhook_of(world.sandbox.id).await.unwrap().is_none());
    assert!(is_not_found(world.store.webhook(world.sandbox.id, webhook.id).await));
    let again = world.store.delete_webhook(edit, at(8), world.audit("feedback-webhook.delete")).await;
    assert!(is_not_found(again));
    assert_eq!(world.state(&done).await, DeliveryState::Succeeded);
    let cancelled = world.deliveries(Some(DeliveryState::Cancelled)).await;
    assert_eq!(cancelled.len(), 2);
    assert!(cancelled.iter().all(|view| view.delivery.as_ref().unwrap().ended_at == Some(at(7))));
    assert!(!world.finish(&open, at(9), AttemptDecision::Succeeded).await.done);
    assert!(world.due_deliveries(at(99)).await.deliveries.is_empty());

    // A new one gets what is recorded from now on, and what is retried by hand.
    let between = world.message("r3").await;
    assert!(world.record(between, Verdict::Sent).await.due.is_empty());
    world.add_webhook(json!({})).await;
    world.delivery("r4").await;
    world.retry(&open, at(10)).await.unwrap();
    assert_eq!(world.due_deliveries(at(10)).await.deliveries.len(), 2);
}

pub async fn deliveries_are_found_by_state(bench: &dyn Bench) {
    use DeliveryState::{Cancelled, Exhausted, Failing, Held, Pending, Succeeded};
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let _pending = world.delivery("pending").await;
    let failing = world.delivery("failing").await;
    world.finish(&failing, START, AttemptDecision::RetryAt(at(5))).await;
    world.record(failing.event.key.message, hard_bounce(FailureCategory::Async)).await;
    let succeeded = world.delivery("succeeded").await;
    world.finish(&succeeded, START, AttemptDecision::Succeeded).await;
    let exhausted = world.delivery("exhausted").await;
    world.finish(&exhausted, START, AttemptDecision::Exhausted).await;
    let cancelled = world.delivery("cancelled").await;
    world.cancel(&cancelled, START).await.unwrap();

    let counts = || async {
        let mut counts = Vec::new();
        for state in DeliveryState::ALL {
            let found = world.deliveries(Some(state)).await;
            assert!(found.iter().all(|view| view.delivery.as_ref().unwrap().state == state));
            counts.push((state, found.len()));
        }
        counts
    };
    let blocked = &world.deliveries(Some(Pending)).await[0];
    assert_eq!(blocked.event.outcome.verdict.status(), Bounce);
    assert!(blocked.delivery.as_ref().unwrap().blocked);
    let active = [(Pending, 2), (Held, 0), (Failing, 1), (Succeeded, 1), (Exhausted, 1), (Cancelled, 1)];
    assert_eq!(counts().await, active);
    assert_eq!(world.deliveries(None).await.len(), 6);
    world.edit_webhook(START, |webhook| webhook.settings.enabled = false).await;
    let held = [(Pending, 0), (Held, 3), (Failing, 0), (Succeeded, 1), (Exhausted, 1), (Cancelled, 1)];
    assert_eq!(counts().await, held);
}
