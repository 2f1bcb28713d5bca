//! Replays: what is chosen, at which pace, in which order, and each event once however often it is broken off.

use super::Bench;
use super::fixtures::{START, at, hard_bounce, is_not_found, is_state_conflict, page, plain, recipient};
use super::world::World;
use crate::admin::Edit;
use crate::work::{ReplayStep, ReplayStepped};
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::{AttemptDecision, DeliveryState, DueDelivery};
use model::ids::ReplayId;
use model::outcome::{FailureCategory, FeedbackStatus, Verdict};
use model::replay::{Replay, ReplayFilter, ReplayProgress, ReplaySettings, ReplayState};
use model::webhook::{Payload, Stamps};
use serde_json::json;
use std::collections::BTreeSet;

impl World {
    /// A new id, later than all before it.
    fn replay_id(&self) -> ReplayId {
        let later = u64::try_from(self.execution("none").id.number()).unwrap();
        ReplayId(uuid::Uuid::from_u64_pair(later, 0))
    }

    async fn try_replay(&self, filter: ReplayFilter) -> Result<Replay> {
        let replay = Replay {
            id: self.replay_id(),
            sandbox: self.sandbox.id,
            settings: ReplaySettings { filter, per_second: 100 },
            state: ReplayState::Running,
            reason: None,
            progress: ReplayProgress::default(),
            ended_at: None,
            stamps: Stamps::new(START, "ops"),
        };
        self.store.create_replay(replay, self.audit("replay.create")).await
    }

    async fn replay(&self, filter: ReplayFilter) -> ReplayId {
        self.try_replay(filter).await.unwrap().id
    }

    async fn replay_view(&self, id: ReplayId) -> Replay {
        self.store.replay(self.sandbox.id, id).await.unwrap()
    }

    fn step_of(&self, id: ReplayId, most: usize, now: Timestamp) -> ReplayStep {
        ReplayStep { id, sandbox: self.sandbox.id, lease: self.lease, most, most_open: 1_000, now }
    }

    async fn step(&self, id: ReplayId, most: usize, now: Timestamp) -> ReplayStepped {
        self.store.replay_step(self.step_of(id, most, now)).await.unwrap()
    }

    /// A delivery that has ended this way.
    async fn ended(&self, request_id: &str, decision: AttemptDecision) -> DueDelivery {
        let due = self.delivery(request_id).await;
        assert!(self.finish(&due, at(1), decision).await.done);
        due
    }

    /// So many deliveries that have succeeded.
    async fn succeeded(&self, count: usize) -> Vec<i64> {
        let mut sequences = Vec::new();
        for i in 0..count {
            sequences.push(self.ended(&format!("r{i}"), AttemptDecision::Succeeded).await.sequence);
        }
        sequences
    }

    async fn cancel_replay(&self, id: ReplayId) -> Result<Replay> {
        let edit = Edit { sandbox: self.sandbox.id, id, seen_revision: None };
        self.store.cancel_replay(edit, (at(50), "ops".to_owned()), self.audit("replay.cancel")).await
    }
}

fn sequences(due: &[DueDelivery]) -> Vec<i64> {
    due.iter().map(|due| due.sequence).collect()
}

pub async fn what_has_ended_becomes_due_again_in_the_order_of_the_feed(bench: &dyn Bench) {
    let world = World::new(bench).await;
    // Recorded without a webhook: it has no delivery, and gets one with the body of the present webhook.
    let message = world.message("before").await;
    world.record(message, Verdict::Sent).await;
    world.add_webhook(json!({"payload": "extended"})).await;
    let before = world.view(message).await.events[0].sequence;
    let succeeded = world.ended("succeeded", AttemptDecision::Succeeded).await;
    let exhausted = world.ended("exhausted", AttemptDecision::Exhausted).await;
    let cancelled = world.delivery("cancelled").await;
    world.cancel(&cancelled, at(1)).await.unwrap();
    let id = world.replay(ReplayFilter::default()).await;

    let stepped = world.step(id, 100, at(100)).await;
    assert!(stepped.running && stepped.replayed == 4, "{stepped:?}");
    let wanted = [before, succeeded.sequence, exhausted.sequence, cancelled.sequence];
    assert_eq!(sequences(&stepped.due), wanted);
    let read = world.due_deliveries(at(100)).await.deliveries;
    assert_eq!(sequences(&read), wanted, "the rows say the same");
    for (due, read) in stepped.due.iter().zip(&read) {
        assert_eq!((due.replay, read.replay), (Some(id), Some(id)));
        assert_eq!((due.due_at, due.first_due), (at(100), at(100)));
        assert_eq!(due.event.body(), read.event.body());
    }
    assert_eq!(read[0].event.payload, Payload::Extended);
    assert_eq!(read[1].event.key, succeeded.event.key, "the id is the same");
    let view = world.replay_view(id).await;
    assert_eq!((view.state, view.progress.replayed, view.progress.open.len()), (ReplayState::Running, 4, 4));

    for due in &read {
        assert!(world.finish(due, at(101), AttemptDecision::Succeeded).await.done);
    }
    assert!(!world.step(id, 100, at(102)).await.running);
    let view = world.replay_view(id).await;
    assert_eq!((view.state, view.ended_at), (ReplayState::Completed, Some(at(102))));
    assert!((view.progress.part() - 1.0).abs() < f64::EPSILON && view.progress.open.is_empty());
    let attempts = world.store.attempts(world.sandbox.id, succeeded.event.key.id()).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.at).collect::<Vec<_>>(), [at(1), at(101)], "none is lost");
}

pub async fn a_replay_keeps_to_its_filter(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let sent = world.ended("sent", AttemptDecision::Succeeded).await;
    let exhausted = world.ended("exhausted", AttemptDecision::Exhausted).await;
    let mut execution = world.execution_at(at(60), "joe");
    execution.recipients = vec![recipient("joe")];
    let joe = model::ids::MessageKey { execution: world.accept(execution).await.id, ordinal: 0 };
    let bounce = plain(hard_bounce(FailureCategory::Sync));
    let bounced = world.record_at(joe, at(60), bounce).await.due.remove(0);
    world.finish(&bounced, at(61), AttemptDecision::Succeeded).await;

    let (all, none) = (ReplayFilter::default(), Vec::new());
    let cases = [
        (ReplayFilter { request_id: Some("sent".to_owned()), ..all.clone() }, vec![sent.sequence]),
        (ReplayFilter { request_id: Some("other".to_owned()), ..all.clone() }, none.clone()),
        (ReplayFilter { execution_id: Some(joe.execution), ..all.clone() }, vec![bounced.sequence]),
        (
            ReplayFilter { campaign_id: Some(world.campaign), ..all.clone() },
            vec![sent.sequence, exhausted.sequence, bounced.sequence],
        ),
        (ReplayFilter { recipient: Some("joe@example.com".to_owned()), ..all.clone() }, vec![bounced.sequence]),
        (ReplayFilter { status: Some(FeedbackStatus::Bounce), ..all.clone() }, vec![bounced.sequence]),
        (ReplayFilter { channel: Some(model::webhook::Channel::Sms), ..all.clone() }, none.clone()),
        (ReplayFilter { state: Some(DeliveryState::Exhausted), ..all.clone() }, vec![exhausted.sequence]),
        (ReplayFilter { from: Some(at(60)), ..all.clone() }, vec![bounced.sequence]),
        (ReplayFilter { to: Some(at(60)), ..all.clone() }, vec![sent.sequence, exhausted.sequence]),
        (ReplayFilter { from: Some(at(1)), to: Some(at(60)), ..all.clone() }, none),
    ];
    for (filter, wanted) in cases {
        let id = world.replay(filter.clone()).await;
        let mut got = Vec::new();
        loop {
            let stepped = world.step(id, 100, at(100)).await;
            for due in &stepped.due {
                got.push(due.sequence);
                let exhausts = due.sequence == exhausted.sequence;
                let decision = if exhausts { AttemptDecision::Exhausted } else { AttemptDecision::Succeeded };
                assert!(world.finish(due, at(101), decision).await.done);
            }
            if !stepped.running {
                break;
            }
        }
        assert_eq!(got, wanted, "{filter:?}");
    }
}

pub async fn a_replay_keeps_the_order_in_a_message(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let first = world.ended("r1", AttemptDecision::Succeeded).await;
    let second = world.record(first.event.key.message, hard_bounce(FailureCategory::Async)).await.due.remove(0);
    world.finish(&second, at(2), AttemptDecision::Exhausted).await;
    let id = world.replay(ReplayFilter::default()).await;
    let stepped = world.step(id, 10, at(10)).await;
    assert_eq!((sequences(&stepped.due), stepped.replayed), (vec![first.sequence], 2));
    let promoted = world.finish(&stepped.due[0], at(11), AttemptDecision::Succeeded).await.promoted.unwrap();
    assert_eq!((promoted.sequence, promoted.replay), (second.sequence, Some(id)));
    assert!(world.step(id, 10, at(12)).await.running, "the second is open");
    world.finish(&promoted, at(13), AttemptDecision::Exhausted).await;
    assert!(!world.step(id, 10, at(14)).await.running, "what is exhausted has ended");

    // What is under way goes first, whichever it is; and it is not replayed itself.
    world.retry(&second, at(20)).await.unwrap();
    let under_way = world.due_deliveries(at(20)).await.deliveries.remove(0);
    assert_eq!((under_way.sequence, under_way.replay), (second.sequence, None), "a retry by hand is no replay");
    let id = world.replay(ReplayFilter::default()).await;
    let stepped = world.step(id, 10, at(21)).await;
    assert_eq!((sequences(&stepped.due), stepped.replayed), (Vec::new(), 1));
    assert_eq!(world.replay_view(id).await.progress.skipped, 1);
    let promoted = world.finish(&under_way, at(22), AttemptDecision::Succeeded).await.promoted.unwrap();
    assert_eq!((promoted.sequence, promoted.replay), (first.sequence, Some(id)));
}

pub async fn a_replay_broken_off_goes_on_and_replays_each_event_once(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let wanted = world.succeeded(23).await;
    let id = world.replay(ReplayFilter::default()).await;
    // Recorded after the replay was made: not its concern.
    world.ended("later", AttemptDecision::Succeeded).await;
    let mut got = Vec::new();
    for round in 0.. {
        let stepped = world.step(id, 3, at(100 + round)).await;
        got.extend(sequences(&stepped.due));
        // What was made due is in the rows, whoever reads them.
        for due in &world.due_deliveries(at(100 + round)).await.deliveries {
            assert!(world.finish(due, at(100 + round), AttemptDecision::Succeeded).await.done);
        }
        if round % 3 == 2 {
            world = world.reopen(bench).await;
            let running = world.store.running_replays().await.unwrap();
            let shard = model::ids::Shard::of(super::fixtures::ACME, world.sandbox.id);
            assert!(running.iter().all(|running| (running.id, running.shard, running.per_second) == (id, shard, 100)));
        }
        if !stepped.running {
            break;
        }
    }
    assert_eq!(got, wanted);
    assert!(world.store.running_replays().await.unwrap().is_empty());
    assert_eq!(world.replay_view(id).await.progress.replayed, 23);
}

pub async fn steps_at_the_same_time_replay_each_event_once(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let wanted: BTreeSet<i64> = world.succeeded(12).await.into_iter().collect();
    let id = world.replay(ReplayFilter::default()).await;
    let mut got = Vec::new();
    for _ in 0..12 {
        let step = || world.store.replay_step(world.step_of(id, 4, at(100)));
        let (a, b, c, d) = tokio::join!(step(), step(), step(), step());
        for stepped in [a, b, c, d] {
            got.extend(sequences(&stepped.unwrap().due));
        }
    }
    assert_eq!(got.len(), wanted.len(), "{got:?}");
    assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), wanted);
}

pub async fn with_many_open_a_replay_waits(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    world.succeeded(5).await;
    let id = world.replay(ReplayFilter::default()).await;
    let step = |most_open| ReplayStep { most_open, ..world.step_of(id, 10, at(10)) };
    let first = world.store.replay_step(step(2)).await.unwrap();
    assert_eq!(first.due.len(), 2);
    let none = world.store.replay_step(step(2)).await.unwrap();
    assert!(none.running && none.due.is_empty(), "{none:?}");
    world.finish(&first.due[1], at(11), AttemptDecision::Succeeded).await;
    let next = world.store.replay_step(step(2)).await.unwrap();
    assert_eq!(next.due.len(), 1);
    let open = [first.due[0].sequence, next.due[0].sequence];
    assert_eq!(world.replay_view(id).await.progress.open, open);
}

pub async fn an_owner_that_lost_its_lease_replays_nothing(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    world.succeeded(2).await;
    let id = world.replay(ReplayFilter::default()).await;
    let stale = world.step_of(id, 10, at(10));
    world = world.reopen(bench).await;
    let stepped = world.store.replay_step(stale).await.unwrap();
    assert!(!stepped.running && stepped.due.is_empty() && world.due_deliveries(at(99)).await.deliveries.is_empty());
    assert_eq!(world.step(id, 10, at(10)).await.due.len(), 2);
}

pub async fn a_cancelled_replay_makes_nothing_due(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    world.succeeded(3).await;
    let id = world.replay(ReplayFilter::default()).await;
    let due = world.step(id, 1, at(10)).await.due;
    let cancelled = world.cancel_replay(id).await.unwrap();
    assert_eq!((cancelled.state, cancelled.ended_at, cancelled.reason), (ReplayState::Cancelled, Some(at(50)), None));
    let stepped = world.step(id, 10, at(11)).await;
    assert!(!stepped.running && stepped.due.is_empty());
    assert_eq!(sequences(&world.due_deliveries(at(99)).await.deliveries), sequences(&due), "what was due goes out");
    assert!(is_state_conflict(world.cancel_replay(id).await));
    assert!(world.try_replay(ReplayFilter::default()).await.is_ok(), "there is room for another");
}

pub async fn a_sandbox_replays_once_at_a_time_and_to_a_webhook(bench: &dyn Bench) {
    let world = World::new(bench).await;
    assert!(is_state_conflict(world.try_replay(ReplayFilter::default()).await), "there is no webhook");
    let webhook = world.add_webhook(json!({})).await;
    world.succeeded(3).await;
    let id = world.replay(ReplayFilter::default()).await;
    assert!(is_state_conflict(world.try_replay(ReplayFilter::default()).await), "one is running");
    let other = world.beside("other").await;
    assert!(is_not_found(other.store.replay(other.sandbox.id, id).await));
    assert!(is_not_found(other.cancel_replay(id).await));
    assert!(other.store.replays(other.sandbox.id, page(10)).await.unwrap().items.is_empty());

    world.step(id, 1, at(10)).await;
    let edit = Edit { sandbox: world.sandbox.id, id: webhook.id, seen_revision: None };
    world.store.delete_webhook(edit, at(11), world.audit("feedback-webhook.delete")).await.unwrap();
    assert!(!world.step(id, 1, at(12)).await.running);
    let view = world.replay_view(id).await;
    assert_eq!((view.state, view.ended_at), (ReplayState::Cancelled, Some(at(12))));
    assert!(view.reason.is_some_and(|reason| reason.contains("webhook was deleted")));
    world.add_webhook(json!({})).await;
    let next = world.replay(ReplayFilter::default()).await;
    let listed = world.store.replays(world.sandbox.id, page(1)).await.unwrap();
    assert_eq!((listed.items[0].id, listed.next.is_some()), (next, true), "the newest first");
}

pub async fn what_no_webhook_wants_is_left_alone(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    let enabled = world.campaign;
    world.campaign = world.add_campaign(json!({"audience": {"enableWebhooks": false}})).await;
    let unwanted = world.message("r1").await;
    world.record(unwanted, Verdict::Sent).await;
    world.campaign = enabled;
    let unselected = world.message("r2").await;
    world.record(unselected, Verdict::Sent).await;
    world.add_webhook(json!({"events": ["bounce"]})).await;
    let id = world.replay(ReplayFilter::default()).await;
    let stepped = world.step(id, 10, at(10)).await;
    assert!(!stepped.running && stepped.due.is_empty(), "{stepped:?}");
    let view = world.replay_view(id).await;
    assert_eq!((view.state, view.progress.skipped), (ReplayState::Completed, 2));
}

pub async fn a_rare_event_is_found_among_many(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let wanted = world.ended("wanted", AttemptDecision::Succeeded).await;
    let nothing = world.replay(ReplayFilter { request_id: Some("nobody".to_owned()), ..ReplayFilter::default() }).await;
    assert!(!world.step(nothing, 10, at(10)).await.running, "an empty choice ends at once");
    let empty = world.replay_view(nothing).await;
    assert_eq!((empty.state, empty.progress.replayed), (ReplayState::Completed, 0));
    let id = world.replay(ReplayFilter { request_id: Some("wanted".to_owned()), ..ReplayFilter::default() }).await;
    assert_eq!(sequences(&world.step(id, 10, at(11)).await.due), [wanted.sequence]);
    let missing = world.store.replay_step(world.step_of(world.replay_id(), 1, at(12))).await;
    assert!(matches!(missing, Err(StoreError::NotFound(_))));
}
