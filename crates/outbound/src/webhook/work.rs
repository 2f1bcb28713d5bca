//! Webhook deliveries as work for the driver.

use super::circuit::sign;
use super::limits::limits;
use super::{Endpoint, Network, Post, Reply, Verdict};
use crate::admission::{Admission, Gauge};
use crate::driver::{Limits, Rows, Stepped, Turn, Work, Written};
use crate::engine::Tally;
use bytes::Bytes;
use model::circuit::LONGEST_PAUSE;
use model::clock::{Clock, Entropy, Timestamp};
use model::delivery::{AttemptDecision, AttemptError, AttemptErrorKind, DueDelivery};
use model::feedback::FeedbackEvent;
use model::ids::{SandboxId, Shard};
use model::retry::RetryDecision;
use model::webhook::Webhook;
use std::sync::{Arc, Mutex, PoisonError};
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
    pub(crate) admission: Arc<Admission>,
}

/// When a row could not be worked on, the store is looked at again after this.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A row that was never tried, because the endpoint was left alone, is given this much longer.
const GRACE: Duration = LONGEST_PAUSE;

/// After a 410 nothing more goes out until it is written down and the webhook read anew.
const GONE_PAUSE: Duration = Duration::from_secs(1);

/// The header that tells a replay from the delivery before it.
const REPLAY_MARK: &str = "esito-replay";

/// A webhook with its connections. A webhook whose settings do not work has the reason instead.
#[derive(Debug)]
pub struct WebhookTarget {
    webhook: Webhook,
    endpoint: Result<Endpoint, AttemptError>,
    gauge: Arc<Gauge>,
    /// What kept the last attempt from succeeding that did not.
    trouble: Mutex<Option<AttemptError>>,
}

impl WebhookTarget {
    /// When the delivery is given up, on the clock that stands still while the webhook is held.
    fn end_of(&self, row: &DueDelivery) -> Timestamp {
        row.first_due + Duration::from_secs(u64::from(self.webhook.settings.retry.give_up_after_seconds))
    }

    fn note_trouble(&self, error: &AttemptError) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
    }

    /// Why a delivery is given up whose time ran out while the endpoint was left alone.
    fn given_up(&self) -> AttemptError {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (kind, last) = trouble.map_or((AttemptErrorKind::Connect, String::new()), |error| {
            (error.kind, format!("; what it said last: {}", error.message))
        });
        AttemptError {
            kind,
            message: format!("given up without another try: the time is up, and the endpoint keeps failing{last}"),
        }
    }
}

impl Work for WebhookWork {
    type Queue = SandboxId;
    type Row = DueDelivery;
    type Key = i64;
    type Target = WebhookTarget;
    type Done = Finish;

    fn key(row: &DueDelivery) -> i64 {
        row.sequence
    }

    fn due_at(row: &DueDelivery) -> Timestamp {
        row.due_at
    }

    fn is_urgent(_: &DueDelivery) -> bool {
        false
    }

    fn bytes(row: &DueDelivery) -> usize {
        // Tenant and execution are shared. The reason of a failure is the one text that can be long.
        let event = &row.event;
        let recipient = &event.recipient;
        let reason = event.outcome.verdict.failure().map_or(0, |failure| failure.reason.len());
        let address = recipient.address.as_ref().map_or(0, String::len);
        size_of::<DueDelivery>() + size_of::<FeedbackEvent>() + 256 + recipient.user_id.len() + address + reason
    }

    fn limits(target: &WebhookTarget) -> Limits {
        limits(&target.webhook.settings)
    }

    fn gauge(target: &WebhookTarget) -> &Arc<Gauge> {
        &target.gauge
    }

    fn ends_alone(target: &WebhookTarget, row: &DueDelivery, now: Timestamp) -> bool {
        let grace = if row.failures == 0 { GRACE } else { Duration::ZERO };
        target.end_of(row) + grace <= target.webhook.active_time(now)
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
        Ok(Some((
            Arc::new(WebhookTarget {
                webhook,
                endpoint,
                gauge: self.admission.gauge(queue),
                trouble: Mutex::default(),
            }),
            shard,
        )))
    }

    async fn step(&self, target: &WebhookTarget, row: DueDelivery, turn: Turn, lease: Lease) -> Stepped<Finish> {
        let reply = match turn {
            Turn::Try => self.attempt(target, &row).await,
            Turn::End => Reply::failed(self.clock.now(), Duration::ZERO, target.given_up()),
        };
        let now = self.clock.now();
        let (decision, pause_until) = match turn {
            Turn::Try => self.decide(&target.webhook, &row, &reply, now),
            Turn::End => (AttemptDecision::Exhausted, None),
        };
        if let (Turn::Try, Some(error)) = (turn, &reply.attempt.error) {
            target.note_trouble(error);
        }
        self.tally.delivered(decision);
        let (sign, took) = (sign(&reply), Duration::from_millis(reply.attempt.duration_ms.into()));
        let finish = Finish {
            sandbox: row.event.tenant.sandbox_id,
            sequence: row.sequence,
            failures: row.failures,
            lease,
            attempt: reply.attempt,
            decision,
            now,
        };
        Stepped { done: Ok(finish), sign, took, pause_until }
    }

    async fn write(&self, done: Vec<Finish>) -> Vec<Written<DueDelivery>> {
        let decisions: Vec<_> = done.iter().map(|finish| finish.decision).collect();
        let finished = persist(&self.abandon, || self.store.finish(done.clone())).await;
        let finished = finished.unwrap_or_default().into_iter();
        // What was not done changed nothing: the delivery was cancelled meanwhile, or the shard is another node's.
        decisions.into_iter().zip(finished).filter(|(_, finished)| finished.done).map(written).collect()
    }
}

fn written((decision, finished): (AttemptDecision, Finished)) -> Written<DueDelivery> {
    Written {
        again_at: match decision {
            AttemptDecision::RetryAt(at) => Some(at),
            _ => None,
        },
        follows: finished.promoted,
        changed: decision == AttemptDecision::Gone,
    }
}

impl WebhookWork {
    async fn attempt(&self, target: &WebhookTarget, row: &DueDelivery) -> Reply {
        let id = row.event.key.id().to_string();
        match &target.endpoint {
            Ok(endpoint) => {
                let replay = row.replay.map(|replay| [(REPLAY_MARK, replay.to_string())]);
                let marks = replay.as_ref().map_or(&[][..], |mark| &mark[..]);
                let post = Post { id: &id, body: Bytes::from(row.event.body()), marks };
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
            Verdict::Gone => return (AttemptDecision::Gone, Some(now + GONE_PAUSE)),
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
