//! Where the truth is kept: the [`Store`] trait, the [`Wake`](wake::Wake) beside it, and the stores themselves.
//!
//! Each method is one use case and one transaction; no method waits for anything but the database. The crate knows
//! nothing of HTTP, SMTP or TLS, and nothing of the wire formats in `wire`.

pub mod admin;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod effort;
pub mod envelope;
pub mod lookup;
#[cfg(feature = "planted-bugs")]
pub mod planted;
pub mod postgres;
mod shared;
pub mod sqlite;
pub mod statistics;
pub mod wake;
pub mod work;

use admin::{Edit, NewOrganization};
use async_trait::async_trait;
use lookup::{
    AttemptView, DeliveryFilter, EventFilter, EventView, ExecutionView, Listed, MessageFilter, MessageView, Page,
};
use model::campaign::{Campaign, CampaignVersion};
use model::channel::ChannelConfiguration;
use model::clock::Timestamp;
use model::erasure::Erasure;
use model::ids::{
    ApiKeyId, CampaignId, CampaignVersionId, ChannelConfigurationId, ErasureId, EventId, ExecutionId, MessageKey,
    OwnerId, ReplayId, SandboxId, Shard, WebhookId,
};
use model::replay::Replay;
use model::tenancy::{ApiKey, AuditEntry, Organization, Sandbox};
use model::webhook::Webhook;
use statistics::{Backlog, Buckets, Counts};
use std::time::Duration;
use work::{
    AcceptError, Accepted, Due, Finish, Finished, Lease, LiveVersion, NewExecution, Record, Recorded, ReplayStep,
    ReplayStepped, RunningReplay,
};

/// What keeps a store from doing what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, is full or is shutting down: try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// There is no such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Somebody changed it meanwhile.
    #[error("it was changed meanwhile")]
    Changed,
    /// Something else is in the way.
    #[error("{0}")]
    Conflict(Conflict),
    /// What is stored cannot be read: a fault in the program, in the file, or another master key.
    #[error("what is stored cannot be read: {0}")]
    Corrupt(String),
}

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The sandbox has a webhook already.
    #[error("the sandbox already has the feedback webhook {name:?} ({id})")]
    WebhookExists {
        /// Its id.
        id: WebhookId,
        /// Its name.
        name: String,
    },
    /// The id or name is taken.
    #[error("{0} is taken")]
    Taken(String),
    /// Others depend on it.
    #[error("{0}")]
    InUse(String),
    /// Its state does not allow it.
    #[error("{0}")]
    State(String),
}

/// How a process uses the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It does the work: of SQLite's processes one at a time, of PostgreSQL's as many as there are.
    Work,
    /// It adds organizations, sandboxes and API keys beside those that do the work.
    Administration,
}

/// The answer of a store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The truth. All methods may be called from any node; those that take a [`Lease`] change nothing once it is stale.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    // ---- ownership ----

    /// Takes every shard of `wanted` that is free or whose lease has ended, renews those that `owner` holds, and
    /// returns all that it then holds. A shard that changes hands gets a higher epoch.
    async fn claim_shards(
        &self,
        owner: OwnerId,
        wanted: Vec<Shard>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Lease>>;

    /// Gives back every shard that `owner` holds.
    async fn release_shards(&self, owner: OwnerId) -> Result<()>;

    // ---- the main path ----

    /// Takes an execution, once for each requestId in the sandbox and campaign.
    async fn accept(&self, execution: NewExecution) -> Result<std::result::Result<Accepted, AcceptError>>;

    /// For each channel configuration with messages (or planned outcomes) that wait: when the first is due.
    async fn channels_with_due(&self) -> Result<Vec<Due<ChannelConfigurationId>>>;

    /// Messages of one channel configuration that are due at `now`, unitary ones first, then the longest waiting.
    async fn due_messages(
        &self,
        channel: ChannelConfigurationId,
        now: Timestamp,
        limit: usize,
    ) -> Result<work::DueMessages>;

    /// Marks messages as `handing-over`; true for each that may be sent: it still waits, and the lease holds.
    async fn hand_over(&self, lease: Lease, messages: Vec<(SandboxId, MessageKey)>) -> Result<Vec<bool>>;

    /// Records outcomes and retries: message state, feedback events and their deliveries, in one transaction each. One
    /// that cannot be recorded, because sandbox or message are unknown, is not done and hides nothing of the others;
    /// so it is with [`Store::hand_over`] and [`Store::finish`].
    async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>>;

    /// For each webhook with deliveries that wait: when the first is due.
    async fn webhooks_with_due(&self) -> Result<Vec<Due<SandboxId>>>;

    /// Deliveries of one sandbox's webhook that are due at `now`, the longest waiting first.
    async fn due_deliveries(&self, sandbox: SandboxId, now: Timestamp, limit: usize) -> Result<work::DueDeliveries>;

    /// Writes down attempts together with what follows them; an attempt under a stale lease changes nothing.
    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>>;

    /// The content of a campaign version, live or formerly live.
    async fn campaign_version(&self, version: CampaignVersionId) -> Result<LiveVersion>;

    // ---- lookups ----

    /// An execution with its messages and their events.
    async fn execution(&self, sandbox: SandboxId, id: ExecutionId) -> Result<ExecutionView>;
    /// Executions with at least one such message, the newest first.
    async fn executions(&self, filter: MessageFilter, page: Page) -> Result<Listed<ExecutionView>>;
    /// A message with its events.
    async fn message(&self, sandbox: SandboxId, key: MessageKey) -> Result<MessageView>;
    /// Messages with their events, the newest first.
    async fn messages(&self, filter: MessageFilter, page: Page) -> Result<Listed<MessageView>>;
    /// One feedback event with its delivery.
    async fn event(&self, sandbox: SandboxId, id: EventId) -> Result<EventView>;
    /// Feedback events: the newest first, or, with `after`, in commit order from there on, without gaps.
    async fn events(&self, filter: EventFilter, page: Page) -> Result<Listed<EventView>>;
    /// Deliveries with their events, the newest first.
    async fn deliveries(&self, filter: DeliveryFilter, page: Page) -> Result<Listed<EventView>>;
    /// The attempts of a delivery, the first first.
    async fn attempts(&self, sandbox: SandboxId, id: EventId) -> Result<Vec<AttemptView>>;
    /// Makes an exhausted, cancelled or succeeded delivery due again, or a failing one due at once. It waits as long as
    /// another event of its message is under way.
    async fn retry_delivery(
        &self,
        sandbox: SandboxId,
        id: EventId,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<EventView>;
    /// Cancels a delivery that has not ended.
    async fn cancel_delivery(
        &self,
        sandbox: SandboxId,
        id: EventId,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<EventView>;

    // ---- statistics ----

    /// What was counted in a sandbox: for each of the buckets, in their order.
    async fn statistics(&self, sandbox: SandboxId, buckets: Buckets) -> Result<Vec<Counts>>;
    /// When an attempt to deliver a sandbox's events last succeeded, as far as statistics are kept.
    async fn last_success(&self, sandbox: SandboxId) -> Result<Option<Timestamp>>;
    /// What of a sandbox's deliveries has not ended.
    async fn backlog(&self, sandbox: SandboxId) -> Result<Backlog>;

    // ---- administration: every change is written together with its entry in the audit log ----

    /// Makes an organization; with a sandbox where one is named.
    async fn create_organization(&self, new: NewOrganization, audit: AuditEntry) -> Result<()>;
    /// One organization.
    async fn organization(&self, id: &str) -> Result<Organization>;
    /// All organizations, by id.
    async fn organizations(&self, page: Page) -> Result<Listed<Organization>>;
    /// Changes an organization's name and retention.
    async fn update_organization(&self, organization: Organization, audit: AuditEntry) -> Result<()>;
    /// Makes a sandbox.
    async fn create_sandbox(&self, sandbox: Sandbox, audit: AuditEntry) -> Result<()>;
    /// The sandboxes of an organization, by name.
    async fn sandboxes(&self, organization: &str, page: Page) -> Result<Listed<Sandbox>>;
    /// The sandbox of this name.
    async fn sandbox(&self, organization: &str, name: &str) -> Result<Sandbox>;

    /// Stores an API key by the hash of its text.
    async fn create_api_key(&self, key: ApiKey, hash: [u8; 32], audit: AuditEntry) -> Result<()>;
    /// The key with this hash, live or not.
    async fn find_api_key(&self, hash: [u8; 32]) -> Result<Option<ApiKey>>;
    /// One key.
    async fn api_key(&self, id: ApiKeyId) -> Result<ApiKey>;
    /// The keys of an organization, the oldest first.
    async fn api_keys(&self, organization: &str, page: Page) -> Result<Listed<ApiKey>>;
    /// Revokes a key for good.
    async fn revoke_api_key(&self, id: ApiKeyId, now: Timestamp, audit: AuditEntry) -> Result<ApiKey>;
    /// Whether there is any API key: a store without one is new.
    async fn has_api_keys(&self) -> Result<bool>;
    /// The audit log of an organization, the newest first.
    async fn audit_log(&self, organization: &str, page: Page) -> Result<Listed<AuditEntry>>;

    /// Makes the sandbox's webhook; there can be one only.
    async fn create_webhook(&self, webhook: Webhook, audit: AuditEntry) -> Result<()>;
    /// One webhook, with its secrets.
    async fn webhook(&self, sandbox: SandboxId, id: WebhookId) -> Result<Webhook>;
    /// The sandbox's webhook, with its secrets.
    async fn webhook_of(&self, sandbox: SandboxId) -> Result<Option<Webhook>>;
    /// The webhooks of these sandboxes.
    async fn webhooks(&self, sandboxes: Vec<SandboxId>, page: Page) -> Result<Listed<Webhook>>;
    /// Every webhook with key pairs: for the JWKS.
    async fn webhooks_with_keys(&self) -> Result<Vec<Webhook>>;
    /// Replaces a webhook whose revision is the one before `webhook`'s.
    async fn update_webhook(&self, webhook: Webhook, audit: AuditEntry) -> Result<()>;
    /// Deletes a webhook and cancels its deliveries.
    async fn delete_webhook(&self, edit: Edit<WebhookId>, now: Timestamp, audit: AuditEntry) -> Result<()>;
    /// Makes every failing delivery of the sandbox's webhook due at `now`; returns how many.
    async fn drain_webhook(&self, sandbox: SandboxId, now: Timestamp, audit: AuditEntry) -> Result<u64>;

    /// Makes a channel configuration.
    async fn create_channel(&self, channel: ChannelConfiguration, audit: AuditEntry) -> Result<()>;
    /// One channel configuration of a sandbox, with its secrets.
    async fn channel(&self, sandbox: SandboxId, id: ChannelConfigurationId) -> Result<ChannelConfiguration>;
    /// One channel configuration of any sandbox, with its secrets.
    async fn any_channel(&self, id: ChannelConfigurationId) -> Result<ChannelConfiguration>;
    /// The channel configurations of a sandbox.
    async fn channels(&self, sandbox: SandboxId, page: Page) -> Result<Listed<ChannelConfiguration>>;
    /// Replaces a channel configuration whose revision is the one before `channel`'s.
    async fn update_channel(&self, channel: ChannelConfiguration, audit: AuditEntry) -> Result<()>;
    /// Deletes a channel configuration that no campaign uses.
    async fn delete_channel(&self, edit: Edit<ChannelConfigurationId>, audit: AuditEntry) -> Result<()>;

    /// Makes a campaign.
    async fn create_campaign(&self, campaign: Campaign, audit: AuditEntry) -> Result<()>;
    /// One campaign.
    async fn campaign(&self, sandbox: SandboxId, id: CampaignId) -> Result<Campaign>;
    /// The campaigns of a sandbox.
    async fn campaigns(&self, sandbox: SandboxId, page: Page) -> Result<Listed<Campaign>>;
    /// The versions of a campaign that are or were live, the newest first.
    async fn campaign_versions(
        &self,
        sandbox: SandboxId,
        id: CampaignId,
        page: Page,
    ) -> Result<Listed<CampaignVersion>>;
    /// Replaces a campaign whose revision is the one before `campaign`'s; a live version is kept for good.
    async fn update_campaign(&self, campaign: Campaign, audit: AuditEntry) -> Result<()>;
    /// Deletes a campaign that was never live.
    async fn delete_campaign(&self, edit: Edit<CampaignId>, audit: AuditEntry) -> Result<()>;

    // ---- the index of recipients ----

    /// Enters messages that were accepted some seconds ago in the index by which searches find a recipient's, if there
    /// are enough of them; true: there may be more. Searches find what is in no index too, but must look through it.
    async fn index_step(&self, now: Timestamp) -> Result<bool>;
    /// Lets the index of a sandbox begin anew. For whoever fills a store with what is older than all that it has; not
    /// while executions are accepted.
    async fn begin_index_anew(&self, sandbox: SandboxId) -> Result<()>;

    // ---- retention ----

    /// The sandboxes, with how long their data is kept.
    async fn kept(&self) -> Result<Vec<work::Kept>>;
    /// Deletes some of what is old, in one transaction. What is still due stays, whatever its age.
    async fn retain(&self, step: work::RetainStep) -> Result<work::Retained>;

    // ---- erasures ----

    /// Begins to erase an address in all sandboxes of an organization.
    async fn create_erasure(&self, new: work::NewErasure, audit: AuditEntry) -> Result<Erasure>;
    /// One erasure of an organization.
    async fn erasure(&self, organization: &str, id: ErasureId) -> Result<Erasure>;
    /// An organization's erasures, the newest first.
    async fn erasures(&self, organization: &str, page: Page) -> Result<Listed<Erasure>>;
    /// The erasures that are not completed.
    async fn running_erasures(&self) -> Result<Vec<ErasureId>>;
    /// Looks through a bounded part of the messages and erases what is the address's, in one transaction with the
    /// erasure's progress; in the end clears what the database's file still has of it.
    async fn erase_step(&self, id: ErasureId, now: Timestamp) -> Result<work::EraseStepped>;

    // ---- replays ----

    /// Makes a replay of what the sandbox's feed holds by now. Refused where the sandbox has no webhook, or a replay that
    /// has not ended. `replay`'s progress is the store's to fill.
    async fn create_replay(&self, replay: Replay, audit: AuditEntry) -> Result<Replay>;
    /// One replay.
    async fn replay(&self, sandbox: SandboxId, id: ReplayId) -> Result<Replay>;
    /// The replays of a sandbox, the newest first.
    async fn replays(&self, sandbox: SandboxId, page: Page) -> Result<Listed<Replay>>;
    /// Ends a replay: it makes no further event due.
    async fn cancel_replay(
        &self,
        edit: Edit<ReplayId>,
        stamp: (Timestamp, String),
        audit: AuditEntry,
    ) -> Result<Replay>;
    /// The replays that have not ended.
    async fn running_replays(&self) -> Result<Vec<RunningReplay>>;
    /// Looks at a bounded part of the feed and makes what is chosen there due again, in one transaction with the
    /// replay's progress: however often it is broken off, each event is replayed once.
    async fn replay_step(&self, step: ReplayStep) -> Result<ReplayStepped>;

    // ---- upkeep ----

    /// Whether the store can read and write.
    async fn ping(&self) -> Result<()>;
    /// Ends the store's threads after all that was begun is written.
    async fn close(&self);
}
