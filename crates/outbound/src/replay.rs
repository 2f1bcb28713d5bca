//! Replays under way: each is a task that makes a few events due at a time, at its rate, and hints the webhook's queue.
//!
//! All it needs to go on is in the replay's row, so a restart or another owner goes on where this one ended. It adds
//! nothing while too many of its deliveries have not ended: an endpoint in trouble is not flooded, and what is live
//! waits behind few of them.

use crate::driver::{Driver, Leases};
use crate::webhook::work::WebhookWork;
use model::clock::Clock;
use model::ids::ReplayId;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::work::{ReplayStep, RunningReplay};
use store::{Store, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often replays are looked for that no hint told of: those of former owners.
const LOOK: Duration = Duration::from_secs(5);
/// The shortest time between two steps. What one step makes due goes ahead of what becomes live next.
const STEP: Duration = Duration::from_millis(10);
/// The longest: also how late the end of the last delivery is noticed.
const LONGEST_STEP: Duration = Duration::from_millis(500);
/// The most events of a step.
const MOST: usize = 128;
/// The fewest and most deliveries of a replay that may be open; between them what its rate makes due in a fifth of a
/// second.
const OPEN: (usize, usize) = (16, 1_000);
/// After a failure of the store.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The replays that this node works on.
#[derive(Debug)]
pub struct Replays {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leases: Arc<dyn Leases>,
    pub(crate) webhooks: Arc<Driver<WebhookWork>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) under_way: Mutex<HashSet<ReplayId>>,
    pub(crate) told: Notify,
}

/// The events that a replay may make due by now.
struct Allowance {
    per_second: f64,
    credit: f64,
    counted: Instant,
}

impl Allowance {
    fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), credit: 1.0, counted: Instant::now() }
    }

    /// What may be made due now; nothing is saved up for longer than two steps.
    fn now(&mut self) -> usize {
        let now = Instant::now();
        let saved = (self.per_second * STEP.as_secs_f64() * 2.0).max(1.0);
        self.credit = (self.credit + self.per_second * (now - self.counted).as_secs_f64()).min(saved);
        self.counted = now;
        let whole = self.credit as usize;
        whole.min(MOST)
    }

    fn spend(&mut self, events: usize) {
        self.credit -= events as f64;
    }

    /// Until there is enough for another step.
    fn pause(&self) -> Duration {
        let missing = (1.0 - self.credit).max(0.0) / self.per_second;
        Duration::from_secs_f64(missing).clamp(STEP, LONGEST_STEP)
    }
}

impl Replays {
    /// Looks for replays at once.
    pub fn look(&self) {
        self.told.notify_one();
    }

    /// Takes up the replays of the shards that this node owns, until the stop.
    pub(crate) async fn keep(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            match self.store.running_replays().await {
                Ok(running) => running.into_iter().for_each(|replay| self.take_up(replay)),
                Err(error) => tracing::warn!(%error, "replays cannot be looked for"),
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.told.notified() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn take_up(self: &Arc<Self>, replay: RunningReplay) {
        if self.leases.lease(replay.shard, self.clock.now()).is_none() {
            return;
        }
        if !self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(replay.id) {
            return;
        }
        let replays = Arc::clone(self);
        self.tasks.spawn(async move {
            replays.run(replay).await;
            replays.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&replay.id);
        });
    }

    /// Works on a replay until it or the lease ends.
    async fn run(&self, replay: RunningReplay) {
        let mut allowance = Allowance::new(replay.per_second);
        let most_open = (usize::try_from(replay.per_second).unwrap_or(usize::MAX) / 5).clamp(OPEN.0, OPEN.1);
        while let Some(lease) = self.leases.lease(replay.shard, self.clock.now()) {
            let (id, sandbox, now) = (replay.id, replay.sandbox, self.clock.now());
            let step = ReplayStep { id, sandbox, lease, most: allowance.now(), most_open, now };
            let pause = match self.store.replay_step(step).await {
                Ok(stepped) => {
                    allowance.spend(stepped.replayed);
                    if !stepped.due.is_empty() {
                        self.webhooks.rows(sandbox, stepped.due);
                    }
                    if !stepped.running {
                        return;
                    }
                    allowance.pause()
                }
                Err(StoreError::NotFound(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, replay = %id, "a replay waits");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }
}
