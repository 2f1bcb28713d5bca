//! Deliveries and their attempts.

use super::Bench;
use super::fixtures::{START, at, hard_bounce, is_changed};
use super::world::World;
use crate::work::Finish;
use model::delivery::{AttemptDecision, AttemptErrorKind, DeliveryState};
use model::ids::SandboxId;
use model::outcome::FeedbackStatus::{Delay, Sent};
use model::outcome::{FailureCategory, Verdict};
use model::webhook::WebhookState;
use serde_json::json;

pub async fn a_webhook_gets_the_channels_and_statuses_that_it_selects(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({"events": ["sent", "bounce"]})).await;
    let message = world.message("r1").await;
    assert!(world.record(message, Verdict::Delay).await.due.is_empty());
    assert_eq!(world.record(message, Verdict::Sent).await.due.len(), 1);
    let view = world.view(message).await;
    let wanted: Vec<_> = view.events.iter().map(|event| event.delivery.is_some()).collect();
    assert_eq!((world.told(message).await, wanted), (vec![Delay, Sent], vec![false, true]));
    // The choice is made when the event is recorded.
    world.edit_webhook(START, |webhook| webhook.settings.channels = vec![model::webhook::Channel::Sms]).await;
    assert!(world.record(message, hard_bounce(FailureCategory::Async)).await.due.is_empty());
    let delivered: Vec<_> =
        world.deliveries(None).await.iter().map(|view| view.event.outcome.verdict.status()).collect();
    assert_eq!(delivered, [Sent]);
    let due = world.store.webhooks_with_due().await.unwrap();
    assert_eq!((due[0].id, due[0].shard, due[0].at), (world.sandbox.id, world.lease.shard, START));
}

pub async fn a_campaign_without_webhooks_makes_no_deliveries(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    let with = world.message("r1").await;
    assert!(world.record(with, Verdict::Sent).await.due.is_empty(), "there is no webhook yet");
    world.add_webhook(json!({})).await;
    world.campaign = world.add_campaign(json!({"audience": {"enableWebhooks": false}})).await;
    let without = world.message("r1").await;
    assert!(world.record(without, Verdict::Sent).await.due.is_empty());
    assert!(world.view(without).await.events[0].delivery.is_none());
    assert!(world.deliveries(None).await.is_empty());
    assert!(world.store.webhooks_with_due().await.unwrap().is_empty());
}

pub async fn an_attempt_counts_once(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    let failed = world.finish_of(&due, START, AttemptDecision::RetryAt(at(5)));
    assert!(world.finish_this(failed.clone()).await.done);
    assert!(!world.finish_this(failed.clone()).await.done);
    let wrong = Finish { failures: 2, ..failed };
    let nowhere = Finish { sandbox: SandboxId(world.campaign.0), ..wrong.clone() };
    let no_row = Finish { sequence: 1, failures: 0, ..wrong.clone() };
    let right = Finish { failures: 1, ..world.finish_of(&due, at(5), AttemptDecision::Succeeded) };
    let finished = world.store.finish(vec![wrong, nowhere, no_row, right.clone()]).await.unwrap();
    let done: Vec<_> = finished.iter().map(|finished| finished.done).collect();
    assert_eq!(done, [false, false, false, true]);
    assert!(!world.finish_this(right).await.done);
    assert_eq!(world.store.attempts(world.sandbox.id, due.event.key.id()).await.unwrap().len(), 2);
}

pub async fn a_failed_attempt_is_tried_again_at_its_time(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    assert_eq!(world.state(&due).await, DeliveryState::Pending);
    world.finish(&due, at(1), AttemptDecision::RetryAt(at(5))).await;
    let world = world.reopen(bench).await;
    let early = world.due_deliveries(at(4)).await;
    assert_eq!((early.deliveries.len(), early.next_at), (0, Some(at(5))));
    let again = world.due_deliveries(at(5)).await.deliveries.remove(0);
    assert_eq!((again.sequence, again.failures), (due.sequence, 1));
    assert_eq!((again.first_due, again.due_at), (START, at(5)));
    let shown = world.event(&due).await.delivery.unwrap();
    assert_eq!((shown.state, shown.attempts), (DeliveryState::Failing, 1));
    assert_eq!((shown.next_attempt_at, shown.ended_at), (Some(at(5)), None));
}

pub async fn an_exhausted_delivery_stays_visible(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    assert!(world.finish(&due, at(9), AttemptDecision::Exhausted).await.done);
    assert!(world.due_deliveries(at(99)).await.deliveries.is_empty());
    let shown = world.event(&due).await.delivery.unwrap();
    assert_eq!((shown.state, shown.attempts), (DeliveryState::Exhausted, 1));
    assert_eq!((shown.next_attempt_at, shown.ended_at), (None, Some(at(9))));
}

pub async fn the_attempts_tell_failures_and_the_success(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    let attempts = || async { world.store.attempts(world.sandbox.id, due.event.key.id()).await.unwrap() };
    assert!(attempts().await.is_empty());
    let first = world.finish_of(&due, at(1), AttemptDecision::RetryAt(at(5)));
    let second = Finish { failures: 1, ..world.finish_of(&due, at(5), AttemptDecision::Succeeded) };
    world.finish_this(first.clone()).await;
    world.finish_this(second.clone()).await;
    assert_eq!(attempts().await, [first.attempt.clone(), second.attempt.clone()]);
    assert_eq!(attempts().await[0].error.as_ref().unwrap().kind, AttemptErrorKind::Status);
    // Sent anew by hand, the former success stays in the log.
    world.retry(&due, at(6)).await.unwrap();
    assert_eq!(attempts().await, [first.attempt.clone(), second.attempt.clone()]);
    let third = Finish { failures: 1, ..world.finish_of(&due, at(7), AttemptDecision::Succeeded) };
    world.finish_this(third.clone()).await;
    assert_eq!(attempts().await, [first.attempt, second.attempt, third.attempt]);
    assert_eq!(world.event(&due).await.delivery.unwrap().attempts, 3);
}

pub async fn an_endpoint_that_is_gone_disables_the_webhook_and_uses_up_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    let finished = world.finish(&due, at(1), AttemptDecision::Gone).await;
    assert!(finished.done && finished.webhook_changed && finished.promoted.is_none());
    let webhook = world.webhook().await;
    assert_eq!((webhook.state().0, webhook.control.gone_at), (WebhookState::Disabled, Some(at(1))));
    assert_eq!(webhook.control.held_since, Some(at(1)));
    let shown = world.event(&due).await.delivery.unwrap();
    assert_eq!((shown.state, shown.attempts, shown.next_attempt_at), (DeliveryState::Held, 1, None));
    let attempts = world.store.attempts(world.sandbox.id, due.event.key.id()).await.unwrap();
    assert_eq!(attempts.len(), 1);

    world.edit_webhook(at(11), |webhook| webhook.control.gone_at = None).await;
    let again = world.due_deliveries(at(11)).await.deliveries.remove(0);
    assert_eq!((again.failures, again.first_due), (0, START));
    assert!(world.finish(&again, at(11), AttemptDecision::Succeeded).await.done);
    let webhook = world.webhook().await;
    assert_eq!((webhook.state().0, webhook.control.held_ms), (WebhookState::Active, 10_000));
}

pub async fn what_was_gone_before_a_change_disables_nothing_after_it(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let (first, second) = (world.delivery("r1").await, world.delivery("r2").await);
    let late = world.finish_of(&second, at(1), AttemptDecision::Gone);
    assert!(world.finish(&first, at(1), AttemptDecision::Gone).await.webhook_changed);
    world.edit_webhook(at(2), |webhook| webhook.control.gone_at = None).await;
    let finished = world.store.finish(vec![Finish { now: at(3), ..late }]).await.unwrap().remove(0);
    assert!(finished.done && !finished.webhook_changed);
    assert_eq!(world.webhook().await.state().0, WebhookState::Failing);
    assert_eq!(world.due_deliveries(at(3)).await.deliveries.len(), 2);
    let attempts = world.store.attempts(world.sandbox.id, second.event.key.id()).await.unwrap();
    assert_eq!(attempts.len(), 1);
}

pub async fn a_stale_copy_does_not_undo_that_the_endpoint_is_gone(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    let mut copy = world.webhook().await;
    world.finish(&due, at(1), AttemptDecision::Gone).await;
    copy.settings.name = "renamed".to_owned();
    copy.stamps.touch(at(2), "ops");
    assert!(is_changed(world.store.update_webhook(copy, world.audit("feedback-webhook.update")).await));
    assert_eq!(world.webhook().await.state().0, WebhookState::Disabled);
}

pub async fn a_webhook_is_failing_from_the_first_failure_to_the_next_success(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let (first, second) = (world.delivery("r1").await, world.delivery("r2").await);
    let finished = world.finish(&first, at(1), AttemptDecision::RetryAt(at(5))).await;
    assert!(finished.webhook_changed);
    let finished = world.finish(&second, at(2), AttemptDecision::RetryAt(at(6))).await;
    assert!(finished.done && !finished.webhook_changed);
    let webhook = world.webhook().await;
    assert_eq!(webhook.state(), (WebhookState::Failing, Some("answered 500".to_owned())));
    assert_eq!(webhook.control.failing_since, Some(at(1)));
    // An edit from a copy made before the failure does not heal it.
    let mut edited = webhook;
    edited.control.failing_since = None;
    edited.stamps.touch(at(3), "ops");
    world.store.update_webhook(edited, world.audit("feedback-webhook.update")).await.unwrap();
    assert_eq!(world.webhook().await.state().0, WebhookState::Failing);

    let again = world.due_deliveries(at(5)).await.deliveries.remove(0);
    assert!(world.finish(&again, at(5), AttemptDecision::Succeeded).await.webhook_changed);
    assert_eq!(world.webhook().await.state(), (WebhookState::Active, None));
    let again = world.due_deliveries(at(6)).await.deliveries.remove(0);
    assert!(!world.finish(&again, at(6), AttemptDecision::Succeeded).await.webhook_changed);
}
