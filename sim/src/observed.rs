//! The store as one process sees it: it may be slow, it stands still with the process, and what concerns ownership is
//! checked from outside.

use crate::ledger::{Owner, ProcessState};
use crate::world::World;
use async_trait::async_trait;
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
use std::sync::Arc;
use std::time::Duration;
use store::admin::{Edit, NewOrganization};
use store::lookup::{
    AttemptView, DeliveryFilter, EventFilter, EventView, ExecutionView, Listed, MessageFilter, MessageView, Page,
};
use store::statistics::{Backlog, Buckets, Counts};
use store::work::{
    AcceptError, Accepted, Due, DueDeliveries, DueMessages, EraseStepped, Finish, Finished, Kept, Lease, LiveVersion,
    NewErasure, NewExecution, Record, Recorded, ReplayStep, ReplayStepped, RetainStep, Retained, RunningReplay,
};
use store::{Result, Store};

/// The store of one process.
#[derive(Debug)]
pub struct Observed {
    /// The world.
    pub world: Arc<World>,
    /// The process.
    pub process: Arc<ProcessState>,
    /// The store that all share.
    pub inner: Arc<dyn Store>,
}

impl Observed {
    /// What a call takes, on either side of it.
    async fn take_time(&self) {
        self.world.step();
        self.process.stand.pass().await;
        let most = self.world.plan.store_slowness_ms;
        let pause = self.world.throw(|dice| dice.millis(0, most + 1));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
            self.process.stand.pass().await;
        }
    }

    fn note_leases(&self, leases: &[Lease]) {
        let since = self.world.now();
        let process = self.process.number;
        let (mut taken, mut from_another, mut doubled) = (0_usize, false, 0_usize);
        self.world.ledger(|ledger| {
            for lease in leases {
                let known = ledger.owners.get(&lease.shard).copied();
                if known.is_some_and(|known| known.process != process && known.epoch >= lease.epoch) {
                    doubled += 1;
                } else if known.is_none_or(|known| known.epoch < lease.epoch) {
                    from_another |= known.is_some_and(|known| known.process >= ledger.first_of_life);
                    ledger.owners.insert(lease.shard, Owner { process, epoch: lease.epoch, since });
                    taken += 1;
                }
            }
            ledger.takeovers += usize::from(from_another);
            ledger.upsets += u32::from(from_another);
        });
        if taken > 0 {
            self.world.note(format_args!("p{process} owns {taken} shards anew"));
        }
        if doubled > 0 {
            self.world.violation(format!("p{process} got {doubled} shards under epochs that others have"));
        }
    }

    /// The leases that were stale when a write under them was begun.
    fn stale(&self, leases: impl IntoIterator<Item = Option<Lease>>) -> Vec<bool> {
        self.world.ledger(|ledger| {
            let is_stale = |lease: Lease| ledger.owners.get(&lease.shard).is_some_and(|one| one.epoch > lease.epoch);
            leases.into_iter().map(|lease| lease.is_some_and(is_stale)).collect()
        })
    }

    fn check_refused(&self, what: &str, stale: &[bool], done: impl Iterator<Item = bool>) {
        for (_, _) in stale.iter().zip(done).filter(|(stale, done)| **stale && *done) {
            self.world.violation(format!("p{}: a {what} under a stale lease counted", self.process.number));
        }
    }
}

macro_rules! observed {
    ($(async fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for Observed {
            async fn claim_shards(
                &self,
                owner: OwnerId,
                wanted: Vec<Shard>,
                now: Timestamp,
                lease: Duration,
            ) -> Result<Vec<Lease>> {
                self.take_time().await;
                let leases = self.inner.claim_shards(owner, wanted, now, lease).await?;
                self.note_leases(&leases);
                self.take_time().await;
                Ok(leases)
            }

            async fn hand_over(&self, lease: Lease, messages: Vec<(SandboxId, MessageKey)>) -> Result<Vec<bool>> {
                self.take_time().await;
                let stale = self.stale(messages.iter().map(|_| Some(lease)));
                let marked = self.inner.hand_over(lease, messages).await?;
                self.check_refused("hand-over", &stale, marked.iter().copied());
                self.take_time().await;
                Ok(marked)
            }

            async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>> {
                self.take_time().await;
                let stale = self.stale(records.iter().map(|record| record.lease));
                let recorded = self.inner.record(records).await?;
                self.check_refused("record", &stale, recorded.iter().map(|recorded| recorded.done));
                self.take_time().await;
                Ok(recorded)
            }

            async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>> {
                self.take_time().await;
                let stale = self.stale(finishes.iter().map(|finish| Some(finish.lease)));
                let finished = self.inner.finish(finishes).await?;
                self.check_refused("finish", &stale, finished.iter().map(|finished| finished.done));
                self.take_time().await;
                Ok(finished)
            }

            async fn replay_step(&self, step: ReplayStep) -> Result<ReplayStepped> {
                self.take_time().await;
                let stale = self.stale([Some(step.lease)]);
                let stepped = self.inner.replay_step(step).await?;
                self.check_refused("step of a replay", &stale, std::iter::once(stepped.replayed > 0));
                self.take_time().await;
                Ok(stepped)
            }

            async fn close(&self) {
                self.inner.close().await;
            }

            $(async fn $name(&self, $($arg: $type),*) -> $answer {
                self.take_time().await;
                let answer = self.inner.$name($($arg),*).await;
                self.take_time().await;
                answer
            })*
        }
    };
}

observed! {
    async fn release_shards(owner: OwnerId) -> Result<()>;
    async fn accept(execution: NewExecution) -> Result<std::result::Result<Accepted, AcceptError>>;
    async fn channels_with_due() -> Result<Vec<Due<ChannelConfigurationId>>>;
    async fn due_messages(channel: ChannelConfigurationId, now: Timestamp, limit: usize) -> Result<DueMessages>;
    async fn webhooks_with_due() -> Result<Vec<Due<SandboxId>>>;
    async fn due_deliveries(sandbox: SandboxId, now: Timestamp, limit: usize) -> Result<DueDeliveries>;
    async fn campaign_version(version: CampaignVersionId) -> Result<LiveVersion>;
    async fn execution(sandbox: SandboxId, id: ExecutionId) -> Result<ExecutionView>;
    async fn executions(filter: MessageFilter, page: Page) -> Result<Listed<ExecutionView>>;
    async fn message(sandbox: SandboxId, key: MessageKey) -> Result<MessageView>;
    async fn messages(filter: MessageFilter, page: Page) -> Result<Listed<MessageView>>;
    async fn event(sandbox: SandboxId, id: EventId) -> Result<EventView>;
    async fn events(filter: EventFilter, page: Page) -> Result<Listed<EventView>>;
    async fn deliveries(filter: DeliveryFilter, page: Page) -> Result<Listed<EventView>>;
    async fn attempts(sandbox: SandboxId, id: EventId) -> Result<Vec<AttemptView>>;
    async fn retry_delivery(sandbox: SandboxId, id: EventId, now: Timestamp, audit: AuditEntry) -> Result<EventView>;
    async fn cancel_delivery(sandbox: SandboxId, id: EventId, now: Timestamp, audit: AuditEntry) -> Result<EventView>;
    async fn statistics(sandbox: SandboxId, buckets: Buckets) -> Result<Vec<Counts>>;
    async fn last_success(sandbox: SandboxId) -> Result<Option<Timestamp>>;
    async fn backlog(sandbox: SandboxId) -> Result<Backlog>;
    async fn create_organization(new: NewOrganization, audit: AuditEntry) -> Result<()>;
    async fn organization(id: &str) -> Result<Organization>;
    async fn organizations(page: Page) -> Result<Listed<Organization>>;
    async fn create_sandbox(sandbox: Sandbox, audit: AuditEntry) -> Result<()>;
    async fn sandboxes(organization: &str, page: Page) -> Result<Listed<Sandbox>>;
    async fn sandbox(organization: &str, name: &str) -> Result<Sandbox>;
    async fn create_api_key(key: ApiKey, hash: [u8; 32], audit: AuditEntry) -> Result<()>;
    async fn find_api_key(hash: [u8; 32]) -> Result<Option<ApiKey>>;
    async fn api_key(id: ApiKeyId) -> Result<ApiKey>;
    async fn api_keys(organization: &str, page: Page) -> Result<Listed<ApiKey>>;
    async fn revoke_api_key(id: ApiKeyId, now: Timestamp, audit: AuditEntry) -> Result<ApiKey>;
    async fn has_api_keys() -> Result<bool>;
    async fn audit_log(organization: &str, page: Page) -> Result<Listed<AuditEntry>>;
    async fn create_webhook(webhook: Webhook, audit: AuditEntry) -> Result<()>;
    async fn webhook(sandbox: SandboxId, id: WebhookId) -> Result<Webhook>;
    async fn webhook_of(sandbox: SandboxId) -> Result<Option<Webhook>>;
    async fn webhooks(sandboxes: Vec<SandboxId>, page: Page) -> Result<Listed<Webhook>>;
    async fn webhooks_with_keys() -> Result<Vec<Webhook>>;
    async fn update_webhook(webhook: Webhook, audit: AuditEntry) -> Result<()>;
    async fn delete_webhook(edit: Edit<WebhookId>, now: Timestamp, audit: AuditEntry) -> Result<()>;
    async fn drain_webhook(sandbox: SandboxId, now: Timestamp, audit: AuditEntry) -> Result<u64>;
    async fn create_channel(channel: ChannelConfiguration, audit: AuditEntry) -> Result<()>;
    async fn channel(sandbox: SandboxId, id: ChannelConfigurationId) -> Result<ChannelConfiguration>;
    async fn any_channel(id: ChannelConfigurationId) -> Result<ChannelConfiguration>;
    async fn channels(sandbox: SandboxId, page: Page) -> Result<Listed<ChannelConfiguration>>;
    async fn update_channel(channel: ChannelConfiguration, audit: AuditEntry) -> Result<()>;
    async fn delete_channel(edit: Edit<ChannelConfigurationId>, audit: AuditEntry) -> Result<()>;
    async fn create_campaign(campaign: Campaign, audit: AuditEntry) -> Result<()>;
    async fn campaign(sandbox: SandboxId, id: CampaignId) -> Result<Campaign>;
    async fn campaigns(sandbox: SandboxId, page: Page) -> Result<Listed<Campaign>>;
    async fn campaign_versions(sandbox: SandboxId, id: CampaignId, page: Page) -> Result<Listed<CampaignVersion>>;
    async fn update_campaign(campaign: Campaign, audit: AuditEntry) -> Result<()>;
    async fn delete_campaign(edit: Edit<CampaignId>, audit: AuditEntry) -> Result<()>;
    async fn update_organization(organization: Organization, audit: AuditEntry) -> Result<()>;
    async fn index_step(now: Timestamp) -> Result<bool>;
    async fn begin_index_anew(sandbox: SandboxId) -> Result<()>;
    async fn kept() -> Result<Vec<Kept>>;
    async fn retain(step: RetainStep) -> Result<Retained>;
    async fn create_erasure(new: NewErasure, audit: AuditEntry) -> Result<Erasure>;
    async fn erasure(organization: &str, id: ErasureId) -> Result<Erasure>;
    async fn erasures(organization: &str, page: Page) -> Result<Listed<Erasure>>;
    async fn running_erasures() -> Result<Vec<ErasureId>>;
    async fn erase_step(id: ErasureId, now: Timestamp) -> Result<EraseStepped>;
    async fn create_replay(replay: Replay, audit: AuditEntry) -> Result<Replay>;
    async fn replay(sandbox: SandboxId, id: ReplayId) -> Result<Replay>;
    async fn replays(sandbox: SandboxId, page: Page) -> Result<Listed<Replay>>;
    async fn cancel_replay(edit: Edit<ReplayId>, stamp: (Timestamp, String), audit: AuditEntry) -> Result<Replay>;
    async fn running_replays() -> Result<Vec<RunningReplay>>;
    async fn ping() -> Result<()>;
}
