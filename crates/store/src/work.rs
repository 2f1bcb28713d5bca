//! Values of the main path: what goes in, what is due, what follows.

use model::campaign::CampaignSettings;
use model::clock::Timestamp;
use model::delivery::{Attempt, AttemptDecision, DueDelivery};
use model::execution::{DueMessage, Personalization, Priority, Recipient};
use model::ids::{
    ApiKeyId, CampaignId, CampaignVersionId, ChannelConfigurationId, ErasureId, ExecutionId, MessageKey, ReplayId,
    SandboxId, Shard,
};
use model::outcome::Outcome;
use model::retention::RetentionOverride;
use std::sync::Arc;

/// The right to send and deliver for a shard. It holds as long as its epoch is the shard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub shard: Shard,
    /// Rises whenever the shard changes hands.
    pub epoch: u64,
    /// When it ends unless renewed.
    pub until: Timestamp,
}

/// An execution to accept.
#[derive(Clone, Debug)]
pub struct NewExecution {
    /// The id that it gets if it is new.
    pub id: ExecutionId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// The caller's id.
    pub request_id: String,
    /// The campaign.
    pub campaign: CampaignId,
    /// A digest of the parsed body: what tells a repetition from a conflict.
    pub body_digest: [u8; 16],
    /// Unitary or high throughput.
    pub priority: Priority,
    /// What is not handed over by then is not sent any more.
    pub expires_at: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
    /// The name of the API key.
    pub created_by: String,
    /// The API key.
    pub created_by_key: ApiKeyId,
    /// The recipients, 1 to 20.
    pub recipients: Vec<NewRecipient>,
}

/// A recipient of an execution to accept. Which address counts depends on the campaign's channel.
#[derive(Clone, Debug)]
pub struct NewRecipient {
    /// The caller's id of the person.
    pub user_id: String,
    /// The namespace of that id.
    pub namespace: String,
    /// The address for email, where there is one.
    pub email: Option<String>,
    /// The number for SMS, where there is one.
    pub phone: Option<String>,
    /// Context and profile.
    pub personalization: Personalization,
}

impl NewRecipient {
    /// Whom the message is for on this channel, and what it is rendered with.
    pub fn on_channel(self, channel: model::webhook::Channel) -> (Recipient, Personalization) {
        let address = match channel {
            model::webhook::Channel::Email => self.email,
            model::webhook::Channel::Sms => self.phone,
        };
        (Recipient { user_id: self.user_id, namespace: self.namespace, address }, self.personalization)
    }
}

/// An execution accepted, now or before.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its id: the first one's for a repetition.
    pub id: ExecutionId,
    /// When it was first accepted.
    pub created_at: Timestamp,
    /// The name of the API key that sent it first.
    pub created_by: String,
    /// Its messages and the channel configuration through which they are sent, to be handed to the owner; none for a
    /// repetition.
    pub work: Option<(ChannelConfigurationId, Vec<DueMessage>)>,
}

/// Why an execution is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The sandbox has no such campaign.
    #[error("the sandbox has no campaign {0}")]
    UnknownCampaign(CampaignId),
    /// The requestId was used with another body.
    #[error("requestId was used before with another body, by execution {0}")]
    RequestIdConflict(ExecutionId),
    /// The campaign is a draft or stopped.
    #[error("the campaign is not live: its status is {0}")]
    NotLive(&'static str),
    /// The campaign takes no executions at this time.
    #[error("the campaign takes no executions at this time: {0}")]
    OutsideSchedule(String),
    /// More messages wait to be sent than the operator allows: try again later.
    #[error("{waiting} messages already wait to be sent")]
    TooMuchWaiting {
        /// How many.
        waiting: u64,
    },
}

/// Something with work that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due<Id> {
    /// What.
    pub id: Id,
    /// Its sandbox's shard: only the shard's owner works on it.
    pub shard: Shard,
    /// When the first of it is due.
    pub at: Timestamp,
}

/// Messages that are due.
#[derive(Clone, Debug, Default)]
pub struct DueMessages {
    /// The messages, each with its sandbox.
    pub messages: Vec<DueMessage>,
    /// When the next one after these is due; none: there is none.
    pub next_at: Option<Timestamp>,
}

/// Deliveries that are due.
#[derive(Clone, Debug, Default)]
pub struct DueDeliveries {
    /// The deliveries.
    pub deliveries: Vec<DueDelivery>,
    /// When the next one after these is due; none: there is none.
    pub next_at: Option<Timestamp>,
}

/// An outcome or a retry to record about one message.
#[derive(Clone, Debug)]
pub struct Record {
    /// The message's sandbox.
    pub sandbox: SandboxId,
    /// The message.
    pub message: MessageKey,
    /// For the reply of a send: the lease under which it was sent. Outcomes from elsewhere need none.
    pub lease: Option<Lease>,
    /// Now.
    pub now: Timestamp,
    /// The message as the caller saw it, where nothing had been recorded of it yet: as long as that is so, the store
    /// need not read it.
    pub untouched: Option<Untouched>,
    /// What to record.
    pub what: What,
}

/// A message of which nothing has been recorded.
#[derive(Clone, Debug)]
pub struct Untouched {
    /// Whom it is for.
    pub recipient: Arc<Recipient>,
    /// When it was due.
    pub due_at: Timestamp,
}

/// What is recorded.
#[derive(Clone, Debug)]
pub enum What {
    /// An outcome, with one that follows by itself at a later time where the channel knows it already.
    Outcome {
        /// The outcome.
        outcome: Outcome,
        /// What follows, and when.
        planned: Option<(Timestamp, Outcome)>,
    },
    /// The planned outcome has become due.
    Planned,
    /// A try to send failed for now; the message waits until the next.
    Retry {
        /// When.
        at: Timestamp,
        /// What is told: a `delay`.
        delay: Outcome,
        /// It stays `handing-over`: a former process may have sent it, and this try has made nobody wiser.
        may_have_been_sent: bool,
    },
}

/// What came of a record.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// False where the lease was stale, the message is gone or nothing was planned: nothing was changed.
    pub done: bool,
    /// Deliveries made by it that are due now, for the owner.
    pub due: Vec<DueDelivery>,
}

/// An attempt to write down, with what follows.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The event's row.
    pub sequence: i64,
    /// The failed attempts before this one, as the caller saw them: an attempt counts once.
    pub failures: u32,
    /// The lease under which it was made.
    pub lease: Lease,
    /// The attempt.
    pub attempt: Attempt,
    /// What follows.
    pub decision: AttemptDecision,
    /// Now.
    pub now: Timestamp,
}

/// What came of a finish.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// False where the lease was stale or the delivery had ended otherwise: nothing was changed.
    pub done: bool,
    /// The next event's delivery of the same message, which is due now.
    pub promoted: Option<DueDelivery>,
    /// Whether the webhook's state changed with it: from or to `failing`, or to `disabled`.
    pub webhook_changed: bool,
}

/// A campaign version with what sending needs.
#[derive(Clone, Debug)]
pub struct LiveVersion {
    /// Its id.
    pub id: CampaignVersionId,
    /// The campaign.
    pub campaign: CampaignId,
    /// Content, audience and channel configuration.
    pub settings: CampaignSettings,
}

/// A replay that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningReplay {
    /// Its id.
    pub id: ReplayId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// The sandbox's shard: only the shard's owner works on it.
    pub shard: Shard,
    /// The most events a second.
    pub per_second: u32,
}

/// A step of a replay.
#[derive(Clone, Copy, Debug)]
pub struct ReplayStep {
    /// The replay.
    pub id: ReplayId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// The lease under which it is made.
    pub lease: Lease,
    /// How many events may become due with it.
    pub most: usize,
    /// With this many whose deliveries have not ended, none is added.
    pub most_open: usize,
    /// Now.
    pub now: Timestamp,
}

/// What came of a step of a replay.
#[derive(Clone, Debug, Default)]
pub struct ReplayStepped {
    /// Whether there is more to do.
    pub running: bool,
    /// Deliveries that became due with it, for the owner.
    pub due: Vec<DueDelivery>,
    /// How many events were made due, those too that wait behind another of their message.
    pub replayed: usize,
}

/// A sandbox whose data is kept for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Its shard: only the shard's owner works on it.
    pub shard: Shard,
    /// What its organization has instead of the operator's ages.
    pub retention: RetentionOverride,
}

/// What a step of retention is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetainWhat {
    /// Executions with their messages, feedback events, deliveries and attempts; and replays that have ended.
    Executions,
    /// The attempts of deliveries that have ended, with what endpoints answered.
    Attempts,
    /// The audit log of the sandbox's organization.
    AuditLog,
    /// What was counted by minute: it moves to its hours, and is not deleted.
    CountsByMinute,
    /// What was counted by hour.
    CountsByHour,
}

/// A step of retention.
#[derive(Clone, Copy, Debug)]
pub struct RetainStep {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// What.
    pub what: RetainWhat,
    /// What lies before this moment may go.
    pub before: Timestamp,
    /// Where the step before ended, as it said; 0 at the beginning of a round.
    pub after: i64,
    /// About how many rows it may touch, 20 or more.
    pub most: usize,
}

/// How many rows have gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Executions.
    pub executions: u64,
    /// Messages.
    pub messages: u64,
    /// Feedback events, with their deliveries.
    pub events: u64,
    /// Attempts.
    pub attempts: u64,
    /// Entries of the audit log.
    pub audit_log: u64,
}

/// What came of a step of retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// What has gone.
    pub deleted: Deleted,
    /// Where the next step goes on; none: the round is over.
    pub next: Option<i64>,
}

/// An erasure to begin.
#[derive(Clone)]
pub struct NewErasure {
    /// Its id.
    pub id: ErasureId,
    /// The organization.
    pub ims_org: String,
    /// Whose messages.
    pub address: String,
    /// Now.
    pub now: Timestamp,
    /// The name of the API key.
    pub created_by: String,
}

impl std::fmt::Debug for NewErasure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewErasure").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What came of a step of an erasure.
#[derive(Clone, Debug, Default)]
pub struct EraseStepped {
    /// Whether there is more to do.
    pub running: bool,
    /// A sandbox whose messages and deliveries in memory are not to be trusted any more, with its channel
    /// configurations.
    pub touched: Option<(SandboxId, Vec<ChannelConfigurationId>)>,
}
