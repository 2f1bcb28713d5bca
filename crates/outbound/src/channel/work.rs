//! Messages as work for the driver.

use super::{Gate, Sender, Sent};
use crate::admission::{Admission, Gauge};
use crate::driver::{Driver, Limits, Rows, Stepped, Turn, Work, Written};
use crate::engine::Tally;
use crate::webhook::work::{LOOK_AGAIN, WebhookWork, persist};
use async_trait::async_trait;
use model::channel::{ChannelConfiguration, ChannelType};
use model::circuit::{LONGEST_PAUSE, Sign};
use model::clock::{Clock, Entropy, Timestamp};
use model::execution::{DueMessage, Priority};
use model::ids::{CampaignVersionId, ChannelConfigurationId, MessageKey, SandboxId, Shard};
use model::outcome::{Exclusion, Failure, Outcome, Verdict};
use model::retry::RetryDecision;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::Store;
use store::work::{Due, Lease, LiveVersion, Record, Untouched, What};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Makes the sender of a channel configuration.
pub type MakeSender = dyn Fn(&ChannelConfiguration) -> Arc<dyn Sender> + Send + Sync;

/// Sends messages.
pub struct ChannelWork {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) tally: Arc<dyn Tally>,
    pub(crate) make_sender: Box<MakeSender>,
    pub(crate) versions: Versions,
    pub(crate) webhooks: Arc<Driver<WebhookWork>>,
    pub(crate) abandon: CancellationToken,
    pub(crate) admission: Arc<Admission>,
}

impl std::fmt::Debug for ChannelWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChannelWork")
    }
}

/// A channel configuration with its sender.
#[derive(Debug)]
pub struct ChannelTarget {
    configuration: ChannelConfiguration,
    sender: Arc<dyn Sender>,
    gauge: Arc<Gauge>,
}

/// The simulator waits for nothing, so its steps are as many as keep the writer's commits full.
const SIMULATED_AT_A_TIME: usize = 256;

impl Work for ChannelWork {
    type Queue = ChannelConfigurationId;
    type Row = DueMessage;
    type Key = MessageKey;
    type Target = ChannelTarget;
    type Done = Record;

    fn key(row: &DueMessage) -> MessageKey {
        row.key
    }

    fn due_at(row: &DueMessage) -> Timestamp {
        row.due_at
    }

    fn is_urgent(row: &DueMessage) -> bool {
        row.execution.priority == Priority::Unitary
    }

    fn bytes(row: &DueMessage) -> usize {
        let recipient = &row.recipient;
        let personal = row.personalization.as_ref().map_or(0, |personal| {
            let length = |text: &Option<Box<RawValue>>| text.as_ref().map_or(0, |text| text.get().len());
            length(&personal.context) + length(&personal.profile)
        });
        let address = recipient.address.as_ref().map_or(0, String::len);
        size_of::<DueMessage>() + 256 + recipient.user_id.len() + address + personal
    }

    fn limits(target: &ChannelTarget) -> Limits {
        let settings = &target.configuration.settings;
        let concurrency = match (settings.kind, &settings.smtp) {
            (ChannelType::Smtp, Some(smtp)) => usize::try_from(smtp.max_connections).unwrap_or(1),
            _ => SIMULATED_AT_A_TIME,
        };
        Limits { concurrency, per_second: settings.max_per_second, longest_pause: LONGEST_PAUSE }
    }

    fn gauge(target: &ChannelTarget) -> &Arc<Gauge> {
        &target.gauge
    }

    fn ends_alone(_: &ChannelTarget, row: &DueMessage, now: Timestamp) -> bool {
        row.planned.is_some() || is_expired(row, now)
    }

    async fn queues(&self) -> store::Result<Vec<Due<ChannelConfigurationId>>> {
        self.store.channels_with_due().await
    }

    async fn read(
        &self,
        queue: ChannelConfigurationId,
        now: Timestamp,
        limit: usize,
    ) -> store::Result<Rows<DueMessage>> {
        let found = self.store.due_messages(queue, now, limit).await?;
        Ok(Rows { rows: found.messages, next_at: found.next_at })
    }

    async fn target(&self, queue: ChannelConfigurationId) -> store::Result<Option<(Arc<ChannelTarget>, Shard)>> {
        let configuration = match self.store.any_channel(queue).await {
            Ok(configuration) if configuration.paused => return Ok(None),
            Ok(configuration) => configuration,
            Err(store::StoreError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let shard = Shard::of(&configuration.ims_org, configuration.sandbox);
        let sender = (self.make_sender)(&configuration);
        let gauge = self.admission.gauge(configuration.sandbox);
        Ok(Some((Arc::new(ChannelTarget { configuration, sender, gauge }), shard)))
    }

    async fn step(&self, target: &ChannelTarget, row: DueMessage, _: Turn, lease: Lease) -> Stepped<Record> {
        let (key, planned) = (row.key, row.planned.as_ref().map(|planned| planned.verdict.status()));
        let begun = Instant::now();
        let (what, sign) = self.send(target, &row, lease).await;
        let now = self.clock.now();
        let status = match &what {
            Some(What::Outcome { outcome, .. }) => Some(outcome.verdict.status()),
            Some(What::Planned) => planned,
            Some(What::Retry { .. }) | None => None,
        };
        status.into_iter().for_each(|status| self.tally.recorded(status));
        let sandbox = target.configuration.sandbox;
        let is_untouched = row.failures == 0 && !row.delayed && row.planned.is_none();
        let untouched = is_untouched.then_some(Untouched { recipient: row.recipient, due_at: row.due_at });
        let record = what.map(|what| Record { sandbox, message: key, lease: Some(lease), now, untouched, what });
        // Where nothing is known to have happened, the store says what is due.
        let done = record.ok_or(now + LOOK_AGAIN);
        Stepped { done, sign, took: begun.elapsed(), pause_until: None }
    }

    async fn write(&self, done: Vec<Record>) -> Vec<Written<DueMessage>> {
        let again: Vec<_> = done.iter().map(|record| again_at(&record.what)).collect();
        let sandbox = done.first().map(|record| record.sandbox);
        let recorded = persist(&self.abandon, || self.store.record(done.clone())).await;
        // All of a queue's messages are of one sandbox.
        let due: Vec<_> = recorded.into_iter().flatten().flat_map(|recorded| recorded.due).collect();
        if let Some(sandbox) = sandbox.filter(|_| !due.is_empty()) {
            self.webhooks.rows(sandbox, due);
        }
        again.into_iter().map(|again_at| Written { again_at, ..Written::default() }).collect()
    }
}

fn again_at(what: &What) -> Option<Timestamp> {
    match what {
        What::Retry { at, .. } | What::Outcome { planned: Some((at, _)), .. } => Some(*at),
        What::Outcome { planned: None, .. } | What::Planned => None,
    }
}

/// What a try to send tells of the relay or provider behind the configuration.
fn sign_of(sent: &Sent) -> Sign {
    match sent {
        // The relay itself has said that it is not available (RFC 5321 section 3.8).
        Sent::Later { delay, .. } if delay.response_code == Some(421) => Sign::Bad,
        // What ends as an error is trouble with the relay, what ends as a bounce its word on this message.
        Sent::Later { at_the_end: Verdict::Error(_), .. } => Sign::Bad,
        Sent::Decided { outcome, .. } if !matches!(outcome.verdict, Verdict::Error(_) | Verdict::Exclude(_)) => {
            Sign::Good
        }
        Sent::Later { .. } | Sent::Decided { .. } | Sent::Withheld => Sign::Neutral,
    }
}

impl ChannelWork {
    /// Tries to send; what is to be recorded of it, and what it tells of the relay.
    async fn send(&self, target: &ChannelTarget, row: &DueMessage, lease: Lease) -> (Option<What>, Sign) {
        if row.planned.is_some() {
            return (Some(What::Planned), Sign::Neutral);
        }
        let now = self.clock.now();
        if is_expired(row, now) {
            return (Some(decided(Outcome::new(expired(row), now))), Sign::Neutral);
        }
        let version = match self.versions.get(&*self.store, row.execution.version).await {
            Ok(version) => version,
            Err(error) => {
                // The row stays due; the queue comes back to it.
                tracing::warn!(%error, "a campaign version cannot be read");
                return (None, Sign::Neutral);
            }
        };
        let gate = StoreGate { work: self, lease, sandbox: target.configuration.sandbox, key: row.key };
        let sent = target.sender.send(row, &version, &gate).await;
        let sign = sign_of(&sent);
        let what = match sent {
            Sent::Decided { outcome, planned } => Some(What::Outcome { outcome, planned }),
            Sent::Later { delay, at_the_end } => Some(self.later(&target.configuration, row, delay, at_the_end)),
            Sent::Withheld => None,
        };
        (what, sign)
    }

    fn later(
        &self,
        configuration: &ChannelConfiguration,
        row: &DueMessage,
        delay: Outcome,
        at_the_end: Verdict,
    ) -> What {
        let now = self.clock.now();
        let schedule = configuration.settings.retry_schedule();
        match schedule.next(row.first_due, now, row.failures + 1, self.entropy.unit(), None) {
            RetryDecision::At(at) => What::Retry { at, delay, may_have_been_sent: row.may_have_been_sent },
            RetryDecision::GiveUp => decided(Outcome { verdict: at_the_end, ..delay }),
        }
    }
}

fn decided(outcome: Outcome) -> What {
    What::Outcome { outcome, planned: None }
}

fn is_expired(row: &DueMessage, now: Timestamp) -> bool {
    row.execution.expires_at.is_some_and(|end| end <= now)
}

/// What a message that was not handed over in time comes to.
fn expired(row: &DueMessage) -> Verdict {
    if row.may_have_been_sent {
        let why = "a process ended while the message was handed over, and it expired before it could be sent again: \
                   it may have been sent";
        Verdict::Error(Failure::admin(why))
    } else {
        Verdict::Exclude(Exclusion::dispatch_error("the message expired (expiresAt) before it could be sent"))
    }
}

/// The gate that marks the message in the store.
struct StoreGate<'a> {
    work: &'a ChannelWork,
    lease: Lease,
    sandbox: SandboxId,
    key: MessageKey,
}

#[async_trait]
impl Gate for StoreGate<'_> {
    async fn open(&self) -> bool {
        let marked = self.work.store.hand_over(self.lease, vec![(self.sandbox, self.key)]).await;
        match marked {
            Ok(marked) => marked.first() == Some(&true),
            Err(error) => {
                tracing::warn!(%error, "a message cannot be marked before it is handed over");
                false
            }
        }
    }
}

/// Campaign versions by id. They never change, so they are read once.
#[derive(Debug, Default)]
pub(crate) struct Versions(Mutex<HashMap<CampaignVersionId, Arc<LiveVersion>>>);

/// Past this many versions the memory starts anew.
const VERSIONS_REMEMBERED: usize = 500;

impl Versions {
    async fn get(&self, store: &dyn Store, id: CampaignVersionId) -> store::Result<Arc<LiveVersion>> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(known));
        }
        let version = Arc::new(store.campaign_version(id).await?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= VERSIONS_REMEMBERED {
            known.clear();
        }
        known.insert(id, Arc::clone(&version));
        Ok(version)
    }
}
