//! Retention: what is old enough goes, a few thousand rows at a time, from the sandboxes whose shards this node owns.
//!
//! It goes on all the time, in rounds. After each step it leaves the store alone for several times as long as the step
//! took, so that live traffic hardly notices, and still it keeps up with many times what comes in.

use crate::driver::Leases;
use crate::engine::Tally;
use model::clock::{Clock, Timestamp};
use model::ids::SandboxId;
use model::retention::{Retention, before};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::statistics::{HOURS_KEPT, MINUTES_KEPT};
use store::work::{Kept, RetainStep, RetainWhat};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a round is waited for after the one before.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(300);
/// How long after the start the first one begins.
const AFTER_START: Duration = Duration::from_secs(30);
/// The rows of a step.
const MOST: usize = 2_000;
/// After a step the store is left alone for so many times as long as it took.
const REST: u32 = 3;
/// And for no shorter or longer than this.
const LEAST_REST: Duration = Duration::from_millis(10);
const MOST_REST: Duration = Duration::from_secs(2);
/// Where attempts were looked through to their end, the next rounds go on from there; after so many, from the beginning:
/// what had not ended then may have by now.
const ROUNDS_FROM_THERE: u32 = 288;

fn ago(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp(now.millis() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

/// Deletes what is old.
#[derive(Debug)]
pub struct Retaining {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leases: Arc<dyn Leases>,
    pub(crate) tally: Arc<dyn Tally>,
    pub(crate) retention: Retention,
    pub(crate) stop: CancellationToken,
}

impl Retaining {
    /// Works in rounds until the stop.
    pub(crate) async fn keep(self) {
        let mut looked_through = HashMap::new();
        let mut pause = AFTER_START;
        for round in 0_u32.. {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
            pause = BETWEEN_ROUNDS;
            if round.is_multiple_of(ROUNDS_FROM_THERE) {
                looked_through.clear();
            }
            match self.store.kept().await {
                Ok(kept) => {
                    for sandbox in kept {
                        self.round(sandbox, &mut looked_through).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "what is old cannot be looked for"),
            }
        }
    }

    async fn round(&self, kept: Kept, looked_through: &mut HashMap<SandboxId, i64>) {
        let ages = kept.retention.over(self.retention);
        let now = self.clock.now();
        let from = |what, before, after| RetainStep { sandbox: kept.sandbox, what, before, after, most: MOST };
        self.steps(kept, from(RetainWhat::Executions, before(now, ages.events_days), 0)).await;
        // Where events go first, their attempts go with them.
        if ages.attempts_days < ages.events_days {
            let after = looked_through.get(&kept.sandbox).copied().unwrap_or(0);
            let last = self.steps(kept, from(RetainWhat::Attempts, before(now, ages.attempts_days), after)).await;
            looked_through.insert(kept.sandbox, last);
        }
        self.steps(kept, from(RetainWhat::AuditLog, before(now, ages.audit_log_days), 0)).await;
        self.steps(kept, from(RetainWhat::CountsByMinute, ago(now, MINUTES_KEPT), 0)).await;
        self.steps(kept, from(RetainWhat::CountsByHour, ago(now, HOURS_KEPT), 0)).await;
    }

    /// Steps until there is nothing left; where the last one began.
    async fn steps(&self, kept: Kept, mut step: RetainStep) -> i64 {
        while !self.stop.is_cancelled() && self.leases.lease(kept.shard, self.clock.now()).is_some() {
            let began = Instant::now();
            match self.store.retain(step).await {
                Ok(retained) => {
                    self.tally.deleted(&retained.deleted);
                    let Some(next) = retained.next else { break };
                    step.after = next;
                }
                Err(error) => {
                    tracing::warn!(%error, "what is old cannot be deleted now");
                    break;
                }
            }
            let rest = (began.elapsed() * REST).clamp(LEAST_REST, MOST_REST);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.stop.cancelled() => break,
            }
        }
        step.after
    }
}
