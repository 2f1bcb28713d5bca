//! Webhook deliveries as work for the driver.

use super::{Endpoint, Network, Post, Reply, Verdict};
use crate::driver::{Limits, Rows, Stepped, Work};
use crate::engine::Tally;
use async_trait::async_trait;
use bytes::Bytes;
use model::clock::{Clock, Entropy, Timestamp};
use model::delivery::{AttemptDecision, AttemptError, DueDelivery};
use model::ids::{SandboxId, Shard};
use model::retry::RetryDecision;
use model::webhook::Webhook;
use std::sync::Arc;
use std::time::Duration;
use store::work::{Due, Finish, Finished, Lease};
use store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

/// Delivers feedback events.
#[derive(Debug)]
pub struct WebhookWork {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) network: Arc<Network>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) tally: Arc<dyn Tally>,
    /// After this nothing is worth waiting for any more.
    pub(crate) abandon: CancellationToken,
}

/// When a row could not be worked on, the store is looked at again after this.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A webhook with its connections. A webhook whose settings do not work has the reason instead.
#[derive(Debug)]
pub struct WebhookTarget {
    webhook: Webhook,
    endpoint: Result<Endpoint, AttemptError>,
}

#[async_trait]
impl Work for WebhookWork {
    type Queue = SandboxId;
    type Row = DueDelivery;
    type Key = i64;
    type Target = WebhookTarget;

    fn key(row: &DueDelivery) -> i64 {
        row.sequence
    }

    fn due_at(row: &DueDelivery) -> Timestamp {
        row.due_at
    }

    fn is_urgent(_: &DueDelivery) -> bool {
        false
    }

    fn limits(target: &WebhookTarget) -> Limits {
        let settings = &target.webhook.settings;
        Limits {
            concurrency: usize::try_from(settings.max_concurrency).unwrap_or(1),
            per_second: settings.max_per_second,
        }
    }

    async fn queues(&self) -> store::Result<Vec<Due<SandboxId>>> {
        self.store.webhooks_with_due().await
    }

    async fn read(&self, queue: SandboxId, now: Timestamp, limit: usize) -> store::Result<Rows<DueDelivery>> {
        let found = self.store.due_deliveries(queue, now, limit).await?;
        Ok(Rows { rows: found.deliveries, next_at: found.next_at })
    }

    async fn target(&self, queue: SandboxId) -> store::Result<Option<(Arc<WebhookTarget>, Shard)>> {
        let Some(webhook) = self.store.webhook_of(queue).await?.filter(|webhook| !webhook.is_held()) else {
            return Ok(None);
        };
        let shard = Shard::of(&webhook.ims_org, queue);
        let endpoint = Endpoint::new(&webhook, &self.network);
        Ok(Some((Arc::new(WebhookTarget { webhook, endpoint }), shard)))
    }

    async fn step(&self, target: &WebhookTarget, row: DueDelivery, lease: Lease) -> Stepped<DueDelivery> {
        let reply = self.attempt(target, &row).await;
        let now = self.clock.now();
        let (decision, pause_until) = self.decide(&target.webhook, &row, &reply, now);
        self.tally.delivered(decision);
        let finish = Finish {
            sandbox: row.event.tenant.sandbox_id,
            sequence: row.sequence,
            failures: row.failures,
            lease,
            attempt: reply.attempt,
            decision,
            now,
        };
        let Some(finished) = self.finish(finish).await else {
            return Stepped::default();
        };
        Stepped {
            again_at: match decision {
                AttemptDecision::RetryAt(at) => Some(at),
                _ => None,
            },
            follows: finished.promoted,
            changed: decision == AttemptDecision::Gone,
            pause_until,
        }
    }
}

impl WebhookWork {
    async fn attempt(&self, target: &WebhookTarget, row: &DueDelivery) -> Reply {
        let id = row.event.key.id().to_string();
        match &target.endpoint {
            Ok(endpoint) => {
                let post = Post { id: &id, body: Bytes::from(row.event.body()), marks: &[] };
                endpoint.post(post, &*self.clock).await
            }
            Err(error) => Reply::failed(self.clock.now(), Duration::ZERO, error.clone()),
        }
    }

    /// What follows the attempt, and until when the whole webhook is to be left alone.
    fn decide(
        &self,
        webhook: &Webhook,
        row: &DueDelivery,
        reply: &Reply,
        now: Timestamp,
    ) -> (AttemptDecision, Option<Timestamp>) {
        let retry_after = match reply.verdict {
            Verdict::Succeeded => return (AttemptDecision::Succeeded, None),
            Verdict::Gone => return (AttemptDecision::Gone, None),
            Verdict::Failed { retry_after } => retry_after,
        };
        // Deadlines stand on the webhook's own clock, which does not run while it is held.
        let active_now = webhook.active_time(now);
        let retry = &webhook.settings.retry;
        let next = retry.next(row.first_due, active_now, row.failures + 1, self.entropy.unit(), retry_after);
        let decision = match next {
            RetryDecision::At(at) => AttemptDecision::RetryAt(now + at.since(active_now)),
            RetryDecision::GiveUp => AttemptDecision::Exhausted,
        };
        (decision, retry_after.map(|pause| now + pause))
    }

    /// Writes the attempt down, however long the store is away; none: the program ends first, or it counted for nothing.
    async fn finish(&self, finish: Finish) -> Option<Finished> {
        let finished = persist(&self.abandon, || self.store.finish(vec![finish.clone()])).await?;
        finished.into_iter().next().filter(|finished| finished.done)
    }
}

/// Repeats a write until the store takes it or the program ends. What is written happened already; giving it up would
/// make it happen again.
pub(crate) async fn persist<T, F, Fut>(abandon: &CancellationToken, mut write: F) -> Option<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = store::Result<T>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        match write().await {
            Ok(value) => return Some(value),
            Err(StoreError::Unavailable(why)) => {
                tracing::warn!(%why, "the store is away; what was done is kept in memory until it is back");
            }
            Err(error) => {
                tracing::error!(%error, "what was done cannot be written down");
                return None;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
            () = abandon.cancelled() => return None,
        }
    }
}
