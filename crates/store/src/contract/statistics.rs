//! Statistics: what is counted is what happened, once, in its minute.

use super::Bench;
use super::fixtures::{START, at, hard_bounce, plain, recipient, retry_at};
use super::world::World;
use crate::statistics::{Backlog, Buckets, Counts, MOST_WAITING};
use crate::work::{Finish, Lease, NewExecution, Record, ReplayStep, RetainStep, RetainWhat, Retained, Untouched};
use model::clock::Timestamp;
use model::delivery::{AttemptDecision, DueDelivery};
use model::ids::{MessageKey, ReplayId, SandboxId};
use model::outcome::FailureCategory;
use model::outcome::{FeedbackStatus, Verdict};
use model::replay::{Replay, ReplayFilter, ReplayProgress, ReplaySettings, ReplayState};
use model::webhook::Stamps;
use serde_json::json;
use std::time::Duration;
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

impl World {
    async fn buckets(&self, from: Timestamp, length: Duration, count: usize) -> Vec<Counts> {
        let buckets = Buckets { from, length, count };
        let counts = self.store.statistics(self.sandbox.id, buckets).await.unwrap();
        assert_eq!(counts.len(), count);
        counts
    }

    /// All that was counted.
    pub async fn counts(&self) -> Counts {
        self.buckets(START, DAY, 200).await.into_iter().fold(Counts::default(), |mut sum, counts| {
            sum.add(&counts);
            sum
        })
    }

    async fn retain_counts(&self, what: RetainWhat, before: Timestamp) -> usize {
        let step = RetainStep { sandbox: self.sandbox.id, what, before, after: 0, most: 20 };
        for steps in 0.. {
            let Retained { deleted, next } = self.store.retain(step).await.unwrap();
            assert_eq!(deleted, Default::default());
            if next.is_none() {
                return steps;
            }
        }
        unreachable!()
    }

    fn stale(&self) -> Lease {
        Lease { epoch: self.lease.epoch - 1, ..self.lease }
    }
}

/// Sent, delivered, bounces, errors, excluded, on the deny list, delays.
fn outcomes(counts: &Counts) -> [u64; 7] {
    FeedbackStatus::ALL.map(|status| counts.outcomes(status))
}

/// Attempts that succeeded and failed, and what was given up.
fn attempts(counts: &Counts) -> [u64; 3] {
    [counts.succeeded(), counts.failed(), counts.exhausted()]
}

pub async fn what_is_done_counts_once(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    assert_eq!(world.counts().await, Counts::default());
    // Executions: two messages, a repetition, a conflict.
    let new = NewExecution { recipients: vec![recipient("a"), recipient("b")], ..world.execution("r1") };
    let execution = world.accept(new.clone()).await.id;
    let again = NewExecution { id: world.execution("").id, ..new.clone() };
    assert!(world.accept(again).await.work.is_none());
    let other = NewExecution { id: world.execution("").id, body_digest: [6; 16], ..new };
    assert!(world.store.accept(other).await.unwrap().is_err());
    assert_eq!(world.counts().await.accepted(), 2);
    // Outcomes: under a stale lease, a retry that tells, one that does not, twice the same, one that implies another.
    let [a, b] = [0, 1].map(|ordinal| MessageKey { execution, ordinal });
    let stale = Record { lease: Some(world.stale()), ..world.record_of(a, START, plain(Verdict::Sent)) };
    assert!(!world.store.record(vec![stale]).await.unwrap()[0].done);
    world.record_at(a, START, retry_at(at(1))).await;
    world.record_at(a, at(1), retry_at(at(2))).await;
    world.record(a, Verdict::Sent).await;
    world.record(a, Verdict::Sent).await;
    world.record(b, hard_bounce(FailureCategory::Async)).await;
    let counts = world.counts().await;
    assert_eq!((outcomes(&counts), counts.came_back()), ([2, 0, 1, 0, 0, 0, 1], 1));
    // Attempts: under a stale lease, twice the same, of an unknown row.
    let due = world.due_deliveries(at(9)).await.deliveries.remove(0);
    let failed = world.finish_of(&due, at(9), AttemptDecision::RetryAt(at(20)));
    let stale = Finish { lease: world.stale(), ..failed.clone() };
    let unknown = Finish { sequence: 1, ..failed.clone() };
    let finished = world.store.finish(vec![stale, failed.clone(), unknown, failed]).await.unwrap();
    assert_eq!(finished.iter().map(|finished| finished.done).collect::<Vec<_>>(), [false, true, false, false]);
    let gone = Finish { failures: 1, ..world.finish_of(&due, at(20), AttemptDecision::Gone) };
    assert!(world.finish_this(gone).await.done);
    let given_up = Finish { failures: 1, ..world.finish_of(&due, at(21), AttemptDecision::Exhausted) };
    assert!(world.finish_this(given_up.clone()).await.done && !world.finish_this(given_up).await.done);
    let delivery = world.delivery("r2").await;
    let delivered = world.finish_of(&delivery, at(3), AttemptDecision::Succeeded);
    assert!(world.finish_this(delivered.clone()).await.done && !world.finish_this(delivered).await.done);
    let counts = world.counts().await;
    assert_eq!((counts.accepted(), outcomes(&counts), attempts(&counts)), (3, [3, 0, 1, 0, 0, 0, 1], [1, 3, 1]));
    let world = world.reopen(bench).await;
    assert_eq!(world.counts().await, counts);
}

pub async fn counts_are_a_sandboxs_own_and_lie_in_their_minute(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let beside = world.beside("stage").await;
    for (seconds, request) in [(0, "a"), (59, "b"), (60, "c"), (180, "d"), (7_200, "e")] {
        world.accept(world.execution_at(at(seconds), request)).await;
    }
    beside.accept(beside.execution_at(at(0), "a")).await;
    let accepted = |counts: Vec<Counts>| counts.iter().map(Counts::accepted).collect::<Vec<_>>();
    assert_eq!(accepted(world.buckets(START, MINUTE, 5).await), [2, 1, 0, 1, 0]);
    assert_eq!(accepted(world.buckets(at(60), MINUTE, 3).await), [1, 0, 1]);
    assert_eq!(accepted(world.buckets(START, MINUTE * 2, 2).await), [3, 1]);
    assert_eq!(accepted(world.buckets(START, HOUR, 3).await), [4, 0, 1]);
    assert_eq!(accepted(beside.buckets(START, HOUR, 1).await), [1]);
    let nowhere = Buckets { from: START, length: HOUR, count: 1 };
    assert!(super::fixtures::is_not_found(world.store.statistics(SandboxId(world.campaign.0), nowhere).await));
    // What belongs together may lie in different minutes.
    let due = world.delivery("f").await;
    world.finish(&due, at(125), AttemptDecision::Succeeded).await;
    let minutes = world.buckets(START, MINUTE, 3).await;
    assert_eq!(minutes.iter().map(|counts| outcomes(counts)[0]).collect::<Vec<_>>(), [1, 0, 0]);
    assert_eq!(minutes.iter().map(Counts::succeeded).collect::<Vec<_>>(), [0, 0, 1]);
}

pub async fn a_latency_is_that_of_a_first_delivery(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let about = |told: Option<u64>, ms: u64| assert!(told.unwrap().abs_diff(ms) * 8 <= ms, "{told:?} for {ms}");
    let mut due = Vec::new();
    for i in 0..100 {
        due.push(world.delivery(&format!("r{i}")).await);
    }
    for (i, due) in (1..).zip(&due) {
        // The attempt takes 12 ms and is written down later.
        let finish = world.finish_of(due, Timestamp(START.0 + 10 * i), AttemptDecision::Succeeded);
        assert!(world.finish_this(Finish { now: at(30), ..finish }).await.done);
    }
    let check = |counts: &Counts| {
        about(counts.latency_ms(50), 512);
        about(counts.latency_ms(95), 962);
        about(counts.latency_ms(99), 1_002);
    };
    check(&world.counts().await);
    // By hand and by a replay, days later: attempts that say nothing about latency.
    world.retry(&due[0], at(500_000)).await.unwrap();
    assert!(world.finish(&due[0], at(500_001), AttemptDecision::Succeeded).await.done);
    let again = replayed(&world, at(500_002)).await;
    assert_eq!(again.len(), 100);
    for due in &again {
        assert!(world.finish(due, at(500_003), AttemptDecision::Succeeded).await.done);
    }
    let counts = world.counts().await;
    assert_eq!(counts.succeeded(), 201);
    check(&counts);
    assert_eq!(world.buckets(at(500_000 / 60 * 60), MINUTE, 1).await[0].latency_ms(50), None);
    // Given up and retried by hand is over too; one that only waited for its next try is not.
    let world = world.beside("stage").await;
    world.add_webhook(json!({})).await;
    let [over, failing] = [world.delivery("over").await, world.delivery("failing").await];
    world.finish(&over, at(1), AttemptDecision::Exhausted).await;
    world.finish(&failing, at(1), AttemptDecision::RetryAt(at(900))).await;
    for (due, failed) in [(&over, 1), (&failing, 1)] {
        world.retry(due, at(64)).await.unwrap();
        let finish = world.finish_of(due, at(64), AttemptDecision::Succeeded);
        assert!(world.finish_this(Finish { failures: failed, ..finish }).await.done);
    }
    let counts = world.counts().await;
    assert_eq!(attempts(&counts), [2, 2, 1]);
    about(counts.latency_ms(1), 64_012);
    assert_eq!(counts.by_kind.range(32..).count(), 1, "one of the two alone");
}

/// All events of the sandbox, due again.
async fn replayed(world: &World, now: Timestamp) -> Vec<DueDelivery> {
    let replay = Replay {
        id: ReplayId(world.new_owner().0),
        sandbox: world.sandbox.id,
        settings: ReplaySettings { filter: ReplayFilter::default(), per_second: 1_000 },
        state: ReplayState::Running,
        reason: None,
        progress: ReplayProgress::default(),
        ended_at: None,
        stamps: Stamps::new(now, "ops"),
    };
    let id = world.store.create_replay(replay, world.audit("replay.create")).await.unwrap().id;
    let step = ReplayStep { id, sandbox: world.sandbox.id, lease: world.lease, most: 1_000, most_open: 2_000, now };
    world.store.replay_step(step).await.unwrap().due
}

pub async fn what_fails_or_is_taken_back_counts_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let (first, second) = (world.message("r1").await, world.message("r2").await);
    // Taken for untouched, which it is not any more; and an unknown sandbox in the same batch.
    world.record(first, Verdict::Delay).await;
    let known = Untouched { recipient: world.view(first).await.recipient.clone(), due_at: START };
    let wrong = Record { untouched: Some(known), ..world.record_of(first, START, plain(Verdict::Sent)) };
    let nowhere =
        Record { sandbox: SandboxId(world.campaign.0), ..world.record_of(second, START, plain(Verdict::Sent)) };
    let right = world.record_of(second, START, plain(Verdict::Sent));
    let recorded = world.store.record(vec![wrong, nowhere, right]).await.unwrap();
    assert_eq!(recorded.iter().map(|recorded| recorded.done).collect::<Vec<_>>(), [true, false, true]);
    let counts = world.counts().await;
    assert_eq!((counts.accepted(), outcomes(&counts)), (2, [2, 0, 0, 0, 0, 0, 1]));
}

pub async fn concurrent_writers_count_all(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let world = world.clone();
        writers.spawn(async move {
            for i in 0..25 {
                let due = world.delivery(&format!("{writer}-{i}")).await;
                assert!(world.finish(&due, at(i), AttemptDecision::Succeeded).await.done);
            }
        });
    }
    writers.join_all().await;
    let counts = world.counts().await;
    assert_eq!((counts.accepted(), outcomes(&counts)[0], attempts(&counts)), (200, 200, [200, 0, 0]));
}

pub async fn old_minutes_move_to_their_hours_and_old_hours_go(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    for minute in 0..150 {
        let request = format!("r{minute}");
        let execution = world.accept(world.execution_at(at(minute * 60 + 1), &request)).await.id;
        let key = MessageKey { execution, ordinal: 0 };
        let due = world.record_at(key, at(minute * 60 + 2), plain(Verdict::Sent)).await.due.remove(0);
        assert!(world.finish(&due, at(minute * 60 + 3), AttemptDecision::Succeeded).await.done);
    }
    let (all, by_hour) = (world.counts().await, world.buckets(START, HOUR, 3).await);
    assert_eq!((all.accepted(), all.succeeded()), (150, 150));
    assert_eq!(by_hour.iter().map(Counts::accepted).collect::<Vec<_>>(), [60, 60, 30]);
    let succeeded = world.store.last_success(world.sandbox.id).await.unwrap();
    assert_eq!(succeeded, Some(at(149 * 60 + 3)));
    let rows = bench.count("statistic").await;
    // In the middle of the second hour; what is asked for by hour is the same whatever has moved.
    assert!(world.retain_counts(RetainWhat::CountsByMinute, at(5_400)).await > 1);
    assert_eq!((world.counts().await, world.buckets(START, HOUR, 3).await), (all.clone(), by_hour.clone()));
    assert!(world.buckets(at(5_400), MINUTE, 60).await.iter().all(|counts| counts.accepted() == 1));
    assert!(world.retain_counts(RetainWhat::CountsByMinute, at(9_000)).await > 1);
    assert_eq!((world.counts().await, world.buckets(START, HOUR, 3).await), (all, by_hour));
    assert_eq!(world.store.last_success(world.sandbox.id).await.unwrap(), succeeded);
    assert!(bench.count("statistic").await * 10 < rows);
    assert_eq!(world.retain_counts(RetainWhat::CountsByMinute, at(9_000)).await, 0);
    assert_eq!(world.retain_counts(RetainWhat::CountsByHour, START).await, 0);
    assert!(world.retain_counts(RetainWhat::CountsByHour, at(7_200)).await > 0);
    assert_eq!(world.counts().await.accepted(), 30);
    assert!(world.retain_counts(RetainWhat::CountsByHour, at(7_201)).await > 0);
    assert_eq!((world.counts().await, bench.count("statistic").await), (Counts::default(), 0));
    assert_eq!(world.store.last_success(world.sandbox.id).await.unwrap(), None);
}

pub async fn a_backlog_is_all_that_has_not_ended(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let backlog = async || world.store.backlog(world.sandbox.id).await.unwrap();
    let last_success = async || world.store.last_success(world.sandbox.id).await.unwrap();
    world.add_webhook(json!({})).await;
    assert_eq!((backlog().await, last_success().await), (Backlog::default(), None));
    let first = world.delivery("r1").await;
    let second = world.delivery("r2").await;
    world.record(first.event.key.message, hard_bounce(FailureCategory::Async)).await;
    let wanted = |waiting, at| Backlog { waiting, is_at_least: false, oldest_due_at: Some(at) };
    assert_eq!(backlog().await, wanted(3, START), "one that waits for another is one of them");
    world.finish(&first, at(1), AttemptDecision::RetryAt(at(70))).await;
    world.finish(&second, at(2), AttemptDecision::RetryAt(at(60))).await;
    assert_eq!((backlog().await, last_success().await), (wanted(3, at(60)), None));
    // The next event of its message comes after it.
    world.finish_this(Finish { failures: 1, ..world.finish_of(&first, at(70), AttemptDecision::Succeeded) }).await;
    assert_eq!((backlog().await, last_success().await), (wanted(2, at(60)), Some(at(70))));
    world.finish_this(Finish { failures: 1, ..world.finish_of(&second, at(75), AttemptDecision::Exhausted) }).await;
    world.edit_webhook(at(76), |webhook| webhook.control.paused = true).await;
    assert_eq!((backlog().await, last_success().await), (wanted(1, at(70)), Some(at(70))));
    let counted = Backlog::new(MOST_WAITING + 1, None);
    assert_eq!((counted.waiting, counted.is_at_least), (MOST_WAITING, true));
}
