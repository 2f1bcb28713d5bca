//! Retention: what is old goes, in steps; what is still due stays; and nobody sees half of anything.

use super::Bench;
use super::fixtures::{START, at, hard_bounce, is_not_found, page, plain};
use super::world::World;
use crate::work::{Deleted, RetainStep, RetainWhat, Retained, What};
use model::clock::Timestamp;
use model::delivery::{AttemptDecision, DueDelivery};
use model::ids::{AuditId, MessageKey, ReplayId};
use model::outcome::{FailureCategory, Outcome, Verdict};
use model::replay::{Replay, ReplayFilter, ReplayProgress, ReplaySettings, ReplayState};
use model::retention::RetentionOverride;
use model::webhook::Stamps;
use serde_json::json;

impl World {
    async fn retain(&self, what: RetainWhat, before: Timestamp, after: i64, most: usize) -> Retained {
        self.store.retain(RetainStep { sandbox: self.sandbox.id, what, before, after, most }).await.unwrap()
    }

    /// A whole round; what has gone.
    async fn round(&self, what: RetainWhat, before: Timestamp) -> Deleted {
        let (mut all, mut after) = (Deleted::default(), 0);
        loop {
            let Retained { deleted, next } = self.retain(what, before, after, 20).await;
            all.executions += deleted.executions;
            all.messages += deleted.messages;
            all.events += deleted.events;
            all.attempts += deleted.attempts;
            all.audit_log += deleted.audit_log;
            match next {
                Some(next) => after = next,
                None => return all,
            }
        }
    }

    /// A message whose one event was delivered at this time.
    async fn delivered_at(&self, request_id: &str, now: Timestamp) -> DueDelivery {
        let execution = self.accept(self.execution_at(now, request_id)).await.id;
        let key = MessageKey { execution, ordinal: 0 };
        let due = self.record_at(key, now, plain(Verdict::Sent)).await.due.remove(0);
        assert!(self.finish(&due, now, AttemptDecision::Succeeded).await.done);
        due
    }
}

/// Later than all of the world's own rows.
const LATER: Timestamp = Timestamp(START.0 + 1_000_000);

pub async fn what_is_old_goes_as_a_whole(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let mut old = Vec::new();
    for i in 0..45 {
        old.push(world.delivered_at(&format!("old{i}"), at(i)).await);
    }
    let young = world.delivered_at("young", LATER).await;
    let gone = world.round(RetainWhat::Executions, LATER).await;
    assert_eq!((gone.executions, gone.messages, gone.events), (45, 45, 45));
    for due in &old {
        let key = due.event.key.message;
        assert!(is_not_found(world.store.execution(world.sandbox.id, key.execution).await));
        assert!(is_not_found(world.store.message(world.sandbox.id, key).await));
        assert!(is_not_found(world.store.event(world.sandbox.id, due.event.key.id()).await));
    }
    let mut feed = world.events();
    feed.after = Some(0);
    let left = world.store.events(feed, page(100)).await.unwrap().items;
    assert_eq!(left.iter().map(|view| view.sequence).collect::<Vec<_>>(), [young.sequence]);
    let executions = world.store.executions(world.messages(), page(100)).await.unwrap().items;
    assert_eq!(executions.len(), 1);
    assert_eq!(world.round(RetainWhat::Executions, LATER).await, Deleted::default(), "once is enough");
    // Places in the feed are never given twice, though the last ones are gone.
    let next = world.delivered_at("next", LATER).await;
    assert!(next.sequence > young.sequence);
}

pub async fn what_is_still_due_stays(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    // One of everything that is not over: to be sent, with an outcome planned, pending, failing, blocked.
    let queued = world.message("queued").await;
    let planned = world.message("planned").await;
    let later = Some((LATER, Outcome::new(Verdict::Delivered, LATER)));
    let outcome = What::Outcome { outcome: Outcome::new(Verdict::Sent, START), planned: later };
    let sent = world.record_at(planned, START, outcome).await.due.remove(0);
    world.finish(&sent, START, AttemptDecision::Succeeded).await;
    let pending = world.delivery("pending").await;
    let failing = world.delivery("failing").await;
    world.finish(&failing, START, AttemptDecision::RetryAt(LATER)).await;
    let first = world.delivery("blocked").await;
    world.record(first.event.key.message, hard_bounce(FailureCategory::Async)).await;
    let over = world.delivered_at("over", START).await;
    // And one whose last event is young, though it is old itself.
    let async_bounced = world.delivered_at("young event", START).await;
    let bounce = plain(hard_bounce(FailureCategory::Async));
    let bounced = world.record_at(async_bounced.event.key.message, LATER, bounce).await.due.remove(0);
    world.finish(&bounced, LATER, AttemptDecision::Succeeded).await;

    let gone = world.round(RetainWhat::Executions, LATER).await;
    assert_eq!((gone.executions, gone.events), (1, 1));
    assert!(is_not_found(world.event_by_id(&over).await));
    for key in [queued, planned, pending.event.key.message, failing.event.key.message, first.event.key.message] {
        assert!(world.store.message(world.sandbox.id, key).await.is_ok());
    }
    assert_eq!(world.view(async_bounced.event.key.message).await.events.len(), 2, "all of it or nothing");
    // What waits goes on as if nothing had been.
    assert!(world.finish(&pending, at(5), AttemptDecision::Succeeded).await.done);
    let promoted = world.finish(&first, at(5), AttemptDecision::Succeeded).await.promoted.unwrap();
    assert!(world.finish(&promoted, at(6), AttemptDecision::Exhausted).await.done);
    let gone = world.round(RetainWhat::Executions, LATER).await;
    assert_eq!((gone.executions, gone.events), (2, 3));
    assert_eq!(gone.attempts, 1, "the one that was given up");
}

impl World {
    async fn event_by_id(&self, due: &DueDelivery) -> crate::Result<crate::lookup::EventView> {
        self.store.event(self.sandbox.id, due.event.key.id()).await
    }
}

pub async fn a_step_touches_few_rows_and_says_where_it_ended(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let mut stuck = Vec::new();
    for i in 0..30 {
        stuck.push(world.delivery(&format!("stuck{i}")).await);
    }
    for i in 0..50 {
        world.delivered_at(&format!("r{i}"), at(1)).await;
    }
    let (mut after, mut steps, mut gone) = (0, 0, 0);
    loop {
        let Retained { deleted, next } = world.retain(RetainWhat::Executions, LATER, after, 20).await;
        assert!(deleted.messages <= 20);
        gone += deleted.executions;
        steps += 1;
        match next {
            Some(next) => {
                assert!(next > after, "what cannot go is passed by");
                after = next;
            }
            None => break,
        }
    }
    assert_eq!((gone, steps), (50, 5));
    assert!(world.finish(&stuck[0], at(9), AttemptDecision::Succeeded).await.done);
}

pub async fn attempts_have_an_age_of_their_own(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    world.finish(&due, at(1), AttemptDecision::RetryAt(at(2))).await;
    let again = world.due_deliveries(at(2)).await.deliveries.remove(0);
    world.finish(&again, at(2), AttemptDecision::Succeeded).await;
    let open = world.delivery("open").await;
    world.finish(&open, at(1), AttemptDecision::RetryAt(LATER)).await;
    let young = world.delivered_at("young", LATER).await;
    let attempts = async |due: &DueDelivery| world.store.attempts(world.sandbox.id, due.event.key.id()).await.unwrap();
    assert_eq!(attempts(&due).await.len(), 2);
    assert_eq!(world.round(RetainWhat::Attempts, at(500)).await.attempts, 1);
    let left = attempts(&due).await;
    assert_eq!(left.len(), 1, "the one that succeeded is the delivery's own");
    assert_eq!((left[0].status, &left[0].response_excerpt), (Some(204), &None), "without what the endpoint said");
    assert_eq!(attempts(&open).await.len(), 1, "what has not ended keeps its log");
    assert!(attempts(&young).await[0].response_excerpt.is_some());
    assert_eq!(world.round(RetainWhat::Attempts, at(500)).await, Deleted::default());
    assert_eq!(world.state(&due).await, model::delivery::DeliveryState::Succeeded);
}

pub async fn the_audit_log_has_an_age_of_its_own(bench: &dyn Bench) {
    let world = World::new(bench).await;
    for i in 0..45 {
        let mut entry = world.audit("test");
        let id = uuid::Builder::from_unix_timestamp_millis(u64::try_from(LATER.0 + i).unwrap(), &[7; 10]).into_uuid();
        (entry.id, entry.at) = (AuditId(id), Timestamp(LATER.0 + i));
        let mut organization = world.store.organization(&world.sandbox.ims_org).await.unwrap();
        organization.name = format!("name {i}");
        world.store.update_organization(organization, entry).await.unwrap();
    }
    let log = async || world.store.audit_log(&world.sandbox.ims_org, page(200)).await.unwrap().items;
    let before = log().await.len();
    let young = Timestamp(LATER.0 + 30);
    let gone = world.round(RetainWhat::AuditLog, young).await.audit_log;
    let left = log().await;
    assert_eq!((left.len(), usize::try_from(gone).unwrap()), (15, before - 15));
    assert!(left.iter().all(|entry| entry.at >= young));
}

pub async fn an_organizations_retention_is_its_own(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let kept = async || {
        let kept = world.store.kept().await.unwrap();
        kept.into_iter().find(|kept| kept.sandbox == world.sandbox.id).unwrap().retention
    };
    assert_eq!(kept().await, RetentionOverride::default());
    let mut organization = world.store.organization(&world.sandbox.ims_org).await.unwrap();
    organization.retention.events_days = Some(8);
    let audit = world.audit("organization.replace");
    world.store.update_organization(organization.clone(), audit).await.unwrap();
    assert_eq!(kept().await, organization.retention);
    assert_eq!(world.store.organization(&world.sandbox.ims_org).await.unwrap(), organization);
    let unknown = model::tenancy::Organization { id: "nobody@EsitoOrg".to_owned(), ..organization };
    let audit = world.audit("organization.replace");
    assert!(is_not_found(world.store.update_organization(unknown, audit).await));
}

pub async fn retention_and_replays_go_side_by_side(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    for i in 0..60 {
        world.delivered_at(&format!("r{i}"), at(i)).await;
    }
    let replay = Replay {
        id: ReplayId(world.new_owner().0),
        sandbox: world.sandbox.id,
        settings: ReplaySettings { filter: ReplayFilter::default(), per_second: 100 },
        state: ReplayState::Running,
        reason: None,
        progress: ReplayProgress::default(),
        ended_at: None,
        stamps: Stamps::new(START, "ops"),
    };
    let id = world.store.create_replay(replay, world.audit("replay.create")).await.unwrap().id;
    let step = |most| crate::work::ReplayStep {
        id,
        sandbox: world.sandbox.id,
        lease: world.lease,
        most,
        most_open: 1_000,
        now: at(100),
    };
    // Ten are open again; the others go; the replay comes to its end without them.
    let open = world.store.replay_step(step(10)).await.unwrap().due;
    let gone = world.round(RetainWhat::Executions, LATER).await;
    assert_eq!((open.len(), gone.executions), (10, 50));
    for due in &open {
        assert!(world.finish(due, at(101), AttemptDecision::Succeeded).await.done);
    }
    let stepped = world.store.replay_step(step(100)).await.unwrap();
    assert!(stepped.due.is_empty() && !stepped.running, "{stepped:?}");
    let view = world.store.replay(world.sandbox.id, id).await.unwrap();
    assert_eq!((view.state, view.progress.replayed), (ReplayState::Completed, 10));
    let gone = world.round(RetainWhat::Executions, LATER).await;
    assert_eq!((gone.executions, gone.attempts), (10, 10));
    assert!(is_not_found(world.store.replay(world.sandbox.id, id).await), "it goes with what it was about");
}

pub async fn steps_and_writers_do_not_disturb_each_other(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let mut due = Vec::new();
    for i in 0..40 {
        due.push(world.delivery(&format!("r{i}")).await);
    }
    let finish = async {
        for due in &due {
            assert!(world.finish(due, at(1), AttemptDecision::Succeeded).await.done);
            world.retry(due, at(2)).await.ok();
        }
    };
    let delete = async {
        for _ in 0..20 {
            world.round(RetainWhat::Executions, LATER).await;
        }
    };
    tokio::join!(finish, delete);
    // Whatever is left is whole.
    for view in world.store.messages(world.messages(), page(100)).await.unwrap().items {
        assert_eq!(view.events.len(), 1, "{view:?}");
    }
    let events = world.store.events(world.events(), page(100)).await.unwrap().items;
    let messages = world.store.messages(world.messages(), page(100)).await.unwrap().items;
    assert_eq!(events.len(), messages.len());
}
