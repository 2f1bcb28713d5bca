//! What the cases have in common: a tenant with all it needs, and short ways to do the usual.

use super::fixtures::{
    ACME, START, Seeded, all_shards, audit, merge, new_key, new_organization, new_sandbox, page, plain, recipient,
};
use super::{Bench, Setup};
use crate::admin::NewOrganization;
use crate::lookup::{DeliveryFilter, EventFilter, EventView, ExecutionFilter, MessageFilter, MessageView};
use crate::work::{
    Accepted, DueDeliveries, DueMessages, Finish, Finished, Lease, NewExecution, Record, Recorded, What,
};
use crate::{Result, Store};
use model::campaign::{Campaign, CampaignSettings, CampaignStatus, CampaignVersion};
use model::channel::{ChannelConfiguration, ChannelSettings};
use model::clock::Timestamp;
use model::delivery::{Attempt, AttemptDecision, AttemptError, AttemptErrorKind, DeliveryState, DueDelivery};
use model::execution::Priority;
use model::ids::{
    CampaignId, CampaignVersionId, ChannelConfigurationId, ExecutionIds, MessageKey, OwnerId, Shard, WebhookId,
};
use model::outcome::{FeedbackStatus, Verdict};
use model::tenancy::{ApiKey, AuditEntry, Sandbox};
use model::webhook::{Channel, SandboxRef, Stamps, Webhook, WebhookSettings};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A store with a tenant: a sandbox, a key, a channel configuration that simulates, a live campaign that enables
/// webhooks, and an owner of every shard.
#[derive(Clone, Debug)]
pub struct World {
    pub store: Arc<dyn Store>,
    pub sandbox: Sandbox,
    pub key: ApiKey,
    pub channel: ChannelConfigurationId,
    pub campaign: CampaignId,
    pub owner: OwnerId,
    pub lease: Lease,
    ids: Arc<ExecutionIds>,
    entropy: Arc<Seeded>,
}

impl World {
    /// A new world in the bench's database.
    pub async fn new(bench: &dyn Bench) -> Self {
        Self::with(bench, Setup::default()).await
    }

    pub async fn with(bench: &dyn Bench, setup: Setup) -> Self {
        let store = bench.open(setup).await.unwrap();
        let entropy = Arc::new(Seeded::default());
        let sandbox = new_sandbox(&entropy, "prod");
        let organization = new_organization(ACME);
        let new = NewOrganization { organization, sandbox: Some(sandbox.clone()) };
        store.create_organization(new, audit(&entropy, "organization.create")).await.unwrap();
        let key = new_key(&entropy, "shop");
        store.create_api_key(key.clone(), [1; 32], audit(&entropy, "api-key.create")).await.unwrap();
        let mut world = Self {
            sandbox,
            key,
            channel: ChannelConfigurationId::new(START, &*entropy),
            campaign: CampaignId::new(START, &*entropy),
            owner: OwnerId::new(START, &*entropy),
            lease: Lease { shard: Shard(0), epoch: 0, until: START },
            ids: Arc::new(ExecutionIds::new(1)),
            entropy,
            store,
        };
        world.channel = world.add_channel(Channel::Email).await;
        world.campaign = world.add_campaign(json!({})).await;
        world.lease = world.claim_all(world.owner).await;
        world
    }

    /// The same world after a restart of the process, with a new owner.
    pub async fn reopen(self, bench: &dyn Bench) -> Self {
        self.reopen_with(bench, Setup::default()).await
    }

    pub async fn reopen_with(mut self, bench: &dyn Bench, setup: Setup) -> Self {
        self.store.close().await;
        self.store = bench.open(setup).await.unwrap();
        self.owner = self.new_owner();
        self.lease = self.claim_all(self.owner).await;
        self
    }

    // ---- ownership ----

    pub fn new_owner(&self) -> OwnerId {
        OwnerId::new(START, &*self.entropy)
    }

    /// Claims every shard and returns the lease of the sandbox's.
    pub async fn claim_all(&self, owner: OwnerId) -> Lease {
        let leases = self.store.claim_shards(owner, all_shards(), START, Duration::from_secs(30)).await.unwrap();
        let shard = Shard::of(ACME, self.sandbox.id);
        *leases.iter().find(|lease| lease.shard == shard).unwrap()
    }

    // ---- administration ----

    pub fn audit(&self, action: &str) -> AuditEntry {
        audit(&self.entropy, action)
    }

    /// A new sandbox with a channel configuration and a campaign: the world as that sandbox sees it.
    pub async fn beside(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.sandbox = new_sandbox(&self.entropy, name);
        self.store.create_sandbox(other.sandbox.clone(), self.audit("sandbox.create")).await.unwrap();
        other.channel = other.add_channel(Channel::Email).await;
        other.campaign = other.add_campaign(json!({})).await;
        // The owner of every shard: it only renews.
        other.lease = other.claim_all(self.owner).await;
        other
    }

    pub async fn add_key(&self, name: &str, hash: [u8; 32]) -> ApiKey {
        let key = new_key(&self.entropy, name);
        self.store.create_api_key(key.clone(), hash, self.audit("api-key.create")).await.unwrap();
        key
    }

    pub fn new_channel(&self, channel: Channel) -> ChannelConfiguration {
        let settings = json!({"name": "sim", "channel": channel.as_str(), "type": "simulator"});
        ChannelConfiguration {
            id: ChannelConfigurationId::new(START, &*self.entropy),
            ims_org: ACME.to_owned(),
            sandbox: self.sandbox.id,
            settings: serde_json::from_value::<ChannelSettings>(settings).unwrap(),
            paused: false,
            stamps: Stamps::new(START, "ops"),
        }
    }

    pub async fn add_channel(&self, channel: Channel) -> ChannelConfigurationId {
        let channel = self.new_channel(channel);
        let id = channel.id;
        self.store.create_channel(channel, self.audit("channel-configuration.create")).await.unwrap();
        id
    }

    /// A version of a campaign with these settings besides the usual ones.
    pub fn version(&self, changes: Value) -> CampaignVersion {
        let mut settings = json!({
            "name": "orders", "channel": "email", "channelConfigurationId": self.channel,
            "content": {"subject": "s", "text": "t"}, "audience": {"enableWebhooks": true},
        });
        merge(&mut settings, changes);
        let settings = serde_json::from_value::<CampaignSettings>(settings).unwrap();
        CampaignVersion { id: CampaignVersionId::new(START, &*self.entropy), settings }
    }

    pub fn new_campaign(&self, status: CampaignStatus, changes: Value) -> Campaign {
        let version = self.version(changes);
        let is_draft = status == CampaignStatus::Draft;
        Campaign {
            id: CampaignId::new(START, &*self.entropy),
            ims_org: ACME.to_owned(),
            sandbox: self.sandbox.id,
            status,
            live: (!is_draft).then(|| version.clone()),
            draft: is_draft.then_some(version),
            stamps: Stamps::new(START, "ops"),
        }
    }

    /// A live campaign.
    pub async fn add_campaign(&self, changes: Value) -> CampaignId {
        let campaign = self.new_campaign(CampaignStatus::Live, changes);
        let id = campaign.id;
        self.store.create_campaign(campaign, self.audit("campaign.create")).await.unwrap();
        id
    }

    pub async fn stop_campaign(&self) {
        let mut campaign = self.store.campaign(self.sandbox.id, self.campaign).await.unwrap();
        campaign.status = CampaignStatus::Stopped;
        campaign.stamps.touch(START, "ops");
        self.store.update_campaign(campaign, self.audit("campaign.stop")).await.unwrap();
    }

    /// A webhook with these settings besides the usual ones: email, every status.
    pub fn new_webhook(&self, changes: Value) -> Webhook {
        let events: Vec<_> = FeedbackStatus::ALL.iter().map(|status| status.as_str()).collect();
        let mut settings = json!({"name": "crm", "channels": ["email"], "url": "https://a.example/", "events": events});
        merge(&mut settings, changes);
        Webhook {
            id: WebhookId::new(START, &*self.entropy),
            ims_org: ACME.to_owned(),
            sandbox: SandboxRef { id: self.sandbox.id, name: self.sandbox.name.clone() },
            settings: serde_json::from_value::<WebhookSettings>(settings).unwrap(),
            keys: Default::default(),
            control: Default::default(),
            stamps: Stamps::new(START, "ops"),
        }
    }

    pub async fn add_webhook(&self, changes: Value) -> Webhook {
        let webhook = self.new_webhook(changes);
        self.store.create_webhook(webhook.clone(), self.audit("feedback-webhook.create")).await.unwrap();
        webhook
    }

    /// The sandbox's webhook as it is now.
    pub async fn webhook(&self) -> Webhook {
        self.store.webhook_of(self.sandbox.id).await.unwrap().unwrap()
    }

    /// Changes the sandbox's webhook at `now`.
    pub async fn edit_webhook(&self, now: Timestamp, edit: impl FnOnce(&mut Webhook)) {
        let mut webhook = self.webhook().await;
        edit(&mut webhook);
        webhook.note_hold(now);
        webhook.stamps.touch(now, "ops");
        self.store.update_webhook(webhook, self.audit("feedback-webhook.update")).await.unwrap();
    }

    // ---- executions and messages ----

    /// An execution with one recipient, `jane@example.com`, and one-time code.
    pub fn execution(&self, request_id: &str) -> NewExecution {
        NewExecution {
            id: self.ids.next(START),
            sandbox: self.sandbox.id,
            request_id: request_id.to_owned(),
            campaign: self.campaign,
            body_digest: [5; 16],
            priority: Priority::Unitary,
            expires_at: None,
            now: START,
            created_by: self.key.name.clone(),
            created_by_key: self.key.id,
            recipients: vec![recipient("jane")],
        }
    }

    /// The same, made at another time.
    pub fn execution_at(&self, now: Timestamp, request_id: &str) -> NewExecution {
        NewExecution { id: self.ids.next(now), now, ..self.execution(request_id) }
    }

    pub async fn accept(&self, execution: NewExecution) -> Accepted {
        self.store.accept(execution).await.unwrap().unwrap()
    }

    /// The message of a new execution with one recipient.
    pub async fn message(&self, request_id: &str) -> MessageKey {
        let accepted = self.accept(self.execution(request_id)).await;
        MessageKey { execution: accepted.id, ordinal: 0 }
    }

    pub async fn due_messages(&self, now: Timestamp) -> DueMessages {
        self.store.due_messages(self.channel, now, 100).await.unwrap()
    }

    pub async fn view(&self, message: MessageKey) -> MessageView {
        self.store.message(self.sandbox.id, message).await.unwrap()
    }

    /// The statuses of a message's events in the order recorded.
    pub async fn told(&self, message: MessageKey) -> Vec<FeedbackStatus> {
        let view = self.view(message).await;
        view.events.iter().map(|view| view.event.outcome.verdict.status()).collect()
    }

    // ---- outcomes ----

    pub fn record_of(&self, message: MessageKey, now: Timestamp, what: What) -> Record {
        Record { sandbox: self.sandbox.id, message, lease: None, now, untouched: None, what }
    }

    pub async fn record_at(&self, message: MessageKey, now: Timestamp, what: What) -> Recorded {
        let mut recorded = self.store.record(vec![self.record_of(message, now, what)]).await.unwrap();
        assert_eq!(recorded.len(), 1);
        recorded.remove(0)
    }

    pub async fn record(&self, message: MessageKey, verdict: Verdict) -> Recorded {
        self.record_at(message, START, plain(verdict)).await
    }

    // ---- deliveries ----

    pub async fn due_deliveries(&self, now: Timestamp) -> DueDeliveries {
        self.store.due_deliveries(self.sandbox.id, now, 100).await.unwrap()
    }

    /// A delivery that is due, of a new message that was sent.
    pub async fn delivery(&self, request_id: &str) -> DueDelivery {
        let message = self.message(request_id).await;
        let mut recorded = self.record(message, Verdict::Sent).await;
        assert_eq!(recorded.due.len(), 1);
        recorded.due.remove(0)
    }

    /// What an attempt at `now` that answers `decision` comes to be written as.
    pub fn finish_of(&self, due: &DueDelivery, now: Timestamp, decision: AttemptDecision) -> Finish {
        let succeeded = decision == AttemptDecision::Succeeded;
        let error = AttemptError { kind: AttemptErrorKind::Status, message: "answered 500".to_owned() };
        let attempt = Attempt {
            at: now,
            duration_ms: 12,
            status: Some(if succeeded { 204 } else { 500 }),
            response_excerpt: Some("body".to_owned()),
            error: (!succeeded).then_some(error),
        };
        Finish {
            sandbox: self.sandbox.id,
            sequence: due.sequence,
            failures: due.failures,
            lease: self.lease,
            attempt,
            decision,
            now,
        }
    }

    pub async fn finish(&self, due: &DueDelivery, now: Timestamp, decision: AttemptDecision) -> Finished {
        self.finish_this(self.finish_of(due, now, decision)).await
    }

    pub async fn finish_this(&self, finish: Finish) -> Finished {
        let mut finished = self.store.finish(vec![finish]).await.unwrap();
        assert_eq!(finished.len(), 1);
        finished.remove(0)
    }

    /// The event of a delivery as it is now.
    pub async fn event(&self, due: &DueDelivery) -> EventView {
        self.store.event(self.sandbox.id, due.event.key.id()).await.unwrap()
    }

    /// The delivery's state as shown.
    pub async fn state(&self, due: &DueDelivery) -> DeliveryState {
        self.event(due).await.delivery.unwrap().state
    }

    pub async fn retry(&self, due: &DueDelivery, now: Timestamp) -> Result<EventView> {
        let audit = self.audit("delivery.retry");
        self.store.retry_delivery(self.sandbox.id, due.event.key.id(), now, audit).await
    }

    pub async fn cancel(&self, due: &DueDelivery, now: Timestamp) -> Result<EventView> {
        let audit = self.audit("delivery.cancel");
        self.store.cancel_delivery(self.sandbox.id, due.event.key.id(), now, audit).await
    }

    // ---- filters ----

    pub fn executions(&self) -> ExecutionFilter {
        ExecutionFilter {
            sandbox: self.sandbox.id,
            request_id: None,
            campaign: None,
            from: None,
            to: None,
            created_by: None,
        }
    }

    pub fn messages(&self) -> MessageFilter {
        MessageFilter { execution: self.executions(), execution_id: None, recipient: None, state: None, channel: None }
    }

    pub fn events(&self) -> EventFilter {
        EventFilter::of(self.sandbox.id)
    }

    /// Those of the sandbox's deliveries that are in `state`.
    pub async fn deliveries(&self, state: Option<DeliveryState>) -> Vec<EventView> {
        let filter = DeliveryFilter { event: self.events(), state };
        self.store.deliveries(filter, page(100)).await.unwrap().items
    }
}
