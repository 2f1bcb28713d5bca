//! The store for several nodes: PostgreSQL. Lookups and administration take connections of bounded pools; the main path
//! writes by lanes (`lane`), tasks that do whatever has gathered in one transaction with a few statements.
//!
//! Any number of nodes write at the same time, so that only what never changes is remembered (`facts`). What changes is
//! read in the transaction that depends on it, and held as long as it must not change:
//!
//! - **A lease** is checked by a shared lock of the shard's row (`shards`), which a claim waits for and which sees a claim
//!   that was quicker. So an owner that stood still past its lease changes nothing.
//! - **The feed** of a sandbox has a row with its last place. Who records takes places last of all and holds the row until
//!   the commit: places are in commit order, and no reader sees a later one before an earlier one.
//! - **The order in a message**: who records a later event locks those whose deliveries have not ended and marks the last
//!   of them `followed`, or finds none any more and makes its own due. Who ends one either sees the mark and promotes what
//!   waits, or is seen to have ended it: the row's lock lets one of them be first.
//! - **A webhook** that is being deleted gets nothing more: who records with it holds its key until the commit.
//! - **A requestId** is taken under an advisory lock (`accept`).
//! - **A run of the index of recipients** is announced, and made, under advisory locks of its sandbox (`search`).
//!
//! Rows are locked in one order, so that nobody waits for whoever waits for him: shards, messages, webhooks, events,
//! feeds, statistics; of each kind by key. The one exception is a promotion, which locks an event after others were locked, and may
//! meet a record of a third event of that message or a retry by hand. PostgreSQL then undoes one of the two, which tries
//! again (40P01), as it does after any such failure.
//!
//! While the database is away every call says so within seconds, and lanes and pools find it again by themselves.

mod accept;
mod admin;
mod control;
mod due;
mod erase;
mod events;
mod facts;
mod find;
mod finish;
mod hooks;
mod lane;
mod migrate;
mod pool;
mod record;
mod replay;
mod resources;
mod retain;
mod rows;
mod search;
mod session;
mod shards;
mod statistics;
#[cfg(test)]
#[cfg(feature = "peers")]
mod tests;
#[cfg(feature = "peers")]
pub mod throwaway;
mod tls;
mod waiting;
mod webhooks;

use crate::admin::{Edit, NewOrganization};
use crate::envelope::MasterKey;
use crate::lookup::{
    AttemptView, DeliveryFilter, EventFilter, EventView, ExecutionView, Listed, MessageFilter, MessageView, Page,
};
use crate::shared::change::{each_done, recorded_at};
use crate::shared::retaining::again;
use crate::shared::searching::{self, Fresh, Indexed, Next, RUN, Run};
use crate::statistics::{Backlog, Buckets, Counts};
use crate::work::{
    AcceptError, Accepted, Due, DueDeliveries, DueMessages, EraseStepped, Finish, Finished, Kept, Lease, LiveVersion,
    NewErasure, NewExecution, Record, Recorded, ReplayStep, ReplayStepped, RetainStep, Retained, RunningReplay,
};
use crate::{Result, Store, StoreError, Use};
use accept::Accepting;
use async_trait::async_trait;
use facts::Facts;
use find::Finder;
use finish::Finishing;
use hooks::Hooks;
use lane::Lane;
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
use pool::{Pool, lookup, unit};
use record::Recording;
use secrecy::{ExposeSecret, SecretString};
use session::{Target, col};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use waiting::Waiting;

/// The most lookups at a time.
const READERS: u32 = 8;
/// The most administrative changes at a time.
const WRITERS: u32 = 4;
/// How many numbers of nodes there are.
const NODES: i64 = 1024;

/// What a store needs to open.
#[derive(Debug)]
pub struct Options {
    /// Where the database is: `postgres://user:password@host/database`.
    pub url: SecretString,
    /// The key of the envelopes.
    pub master_key: MasterKey,
    /// How this process uses it.
    pub usage: Use,
    /// Past this many messages that wait to be sent, executions are refused for a while.
    pub max_waiting_messages: u64,
}

/// The store on PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    readers: Arc<Pool>,
    writers: Arc<Pool>,
    facts: Arc<Facts>,
    hooks: Arc<Hooks>,
    search: Arc<search::Progress>,
    master: Arc<MasterKey>,
    lanes: Mutex<Option<Lanes>>,
    upkeep: Mutex<Option<JoinHandle<()>>>,
    /// Whoever claimed shards here: a close gives them back.
    owners: Mutex<HashSet<OwnerId>>,
    node: u16,
}

struct Lanes {
    accept: Lane<Accepting>,
    record: Lane<Recording>,
    finish: Lane<Finishing>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lanes")
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// Whether this is the URL of a PostgreSQL database that can be tried.
pub fn is_url(text: &str) -> bool {
    (text.starts_with("postgres://") || text.starts_with("postgresql://")) && Target::parse(text).is_ok()
}

/// Whether the database has been used before.
pub async fn is_used(url: &SecretString) -> Result<bool> {
    let target = Target::parse(url.expose_secret()).map_err(unavailable)?;
    let session = target.connect(session::STATEMENT_LIMIT).await?;
    let row = session.query_opt("SELECT to_regclass('api_key') IS NOT NULL", &[]).await?;
    Ok(row.as_ref().map_or(Ok(false), |row| col(row, 0))?)
}

impl PostgresStore {
    /// Opens the store, bringing its schema up to date.
    pub async fn open(options: Options) -> Result<Self> {
        let target = Arc::new(Target::parse(options.url.expose_secret()).map_err(unavailable)?);
        migrate::migrate(&target).await?;
        let (readers, writers) = (Pool::new(Arc::clone(&target), READERS), Pool::new(Arc::clone(&target), WRITERS));
        let (facts, hooks) = (Arc::<Facts>::default(), Arc::<Hooks>::default());
        let waiting = Waiting::new(options.max_waiting_messages);
        let mut upkeep = None;
        let mut node = 0;
        if options.usage == Use::Work {
            node = next_node(&writers).await?;
            waiting.count(&readers).await?;
            finish_deletions(&writers).await?;
            upkeep = Some(tokio::spawn(Arc::clone(&waiting).keep(Arc::clone(&readers))));
        }
        let search = Arc::<search::Progress>::default();
        let [a, r, f] = parts(node);
        let accepting = Accepting {
            facts: Arc::clone(&facts),
            waiting: Arc::clone(&waiting),
            search: Arc::clone(&search),
            part: a,
        };
        let recording = Recording { facts: Arc::clone(&facts), hooks: Arc::clone(&hooks), waiting, part: r };
        let finishing = Finishing { facts: Arc::clone(&facts), hooks: Arc::clone(&hooks), part: f };
        let (accept, accepts) = Lane::start(accepting, Arc::clone(&target));
        let (record, records) = Lane::start(recording, Arc::clone(&target));
        let (finish, finishes) = Lane::start(finishing, target);
        let lanes = Lanes { accept, record, finish, tasks: vec![accepts, records, finishes] };
        Ok(Self {
            readers,
            writers,
            facts,
            hooks,
            search,
            master: Arc::new(options.master_key),
            lanes: Mutex::new(Some(lanes)),
            upkeep: Mutex::new(upkeep),
            owners: Mutex::default(),
            node,
        })
    }

    /// The number of this process among those that work here: no other of the last thousand starts has it.
    pub fn node(&self) -> u16 {
        self.node
    }

    fn lane<T>(&self, pick: impl FnOnce(&Lanes) -> T) -> Result<T> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.as_ref().map(pick).ok_or_else(|| unavailable("the store is closed"))
    }

    async fn record_units(&self, units: Vec<record::Unit>) -> Result<Vec<Result<record::Answer>>> {
        self.lane(|lanes| lanes.record.clone())?.each(units).await
    }
}

impl Indexed for PostgresStore {
    fn fresh(&self) -> &Fresh {
        &self.search.fresh
    }

    async fn next_run(&self, sbx: i64, now: Timestamp) -> Result<Next> {
        lookup!(self.readers, |session| search::next_run(session, sbx, now))
    }

    async fn make_run(&self, sbx: i64, run: Run) -> Result<bool> {
        if !lookup!(self.writers, |session| search::announce(session, sbx, run))? {
            return Ok(false);
        }
        unit!(self.writers, |session| search::enter(session, sbx, run))?;
        Ok(true)
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        if let Some(upkeep) = self.upkeep.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            upkeep.abort();
        }
    }
}

async fn next_node(writers: &Arc<Pool>) -> Result<u16> {
    let number: i64 = unit!(writers, |session| async {
        let row = session.query_opt("SELECT nextval('node')", &[]).await?;
        row.as_ref().map_or(Ok(0), |row| col(row, 0))
    })?;
    Ok(u16::try_from(number % NODES).unwrap_or(0))
}

/// The parts of the statistics that the lanes of this node write. Whoever has the same number a thousand starts later adds
/// to the same rows.
fn parts(node: u16) -> [i16; 3] {
    let first = 3 * i16::try_from(node).unwrap_or(0);
    [first, first + 1, first + 2]
}

/// Ends deletions of webhooks that a process began and did not end. One that is still at it does no harm to this.
async fn finish_deletions(writers: &Arc<Pool>) -> Result<()> {
    let begun = lookup!(writers, |session| webhooks::being_deleted(session))?;
    for (sbx, last) in begun {
        // No clock reaches this point; the feed says when its last event was recorded, and that is close enough.
        delete_rest(writers, sbx, recorded_at(last)).await?;
    }
    Ok(())
}

/// Cancels what a webhook that is being deleted has left, and ends its deletion.
async fn delete_rest(writers: &Arc<Pool>, sbx: i64, now: Timestamp) -> Result<()> {
    while unit!(writers, |session| control::cancel_some(session, sbx, now))? > 0 {}
    unit!(writers, |session| webhooks::end_delete(session, sbx))
}

/// The same, however often the database is away: there is no way back, nor any other who would end it before the next
/// start.
async fn end_deletion(writers: Arc<Pool>, sbx: i64, now: Timestamp) -> Result<()> {
    let mut pause = Duration::from_millis(50);
    loop {
        match delete_rest(&writers, sbx, now).await {
            Err(StoreError::Unavailable(why)) if !writers.is_closed() => {
                tracing::warn!(%why, "the deletion of a webhook waits");
            }
            ended => return ended,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

async fn release_all(writers: &Arc<Pool>, owners: &[OwnerId]) -> Result<()> {
    if owners.is_empty() || writers.is_closed() {
        return Ok(());
    }
    unit!(writers, |session| shards::release(session, owners))
}

#[async_trait]
impl Store for PostgresStore {
    async fn claim_shards(
        &self,
        owner: OwnerId,
        wanted: Vec<Shard>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Lease>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(owner);
        unit!(self.writers, |session| shards::claim(session, owner, &wanted, now, lease))
    }

    async fn release_shards(&self, owner: OwnerId) -> Result<()> {
        unit!(self.writers, |session| shards::release(session, &[owner]))
    }

    async fn accept(&self, execution: NewExecution) -> Result<std::result::Result<Accepted, AcceptError>> {
        let mut answers = self.lane(|lanes| lanes.accept.clone())?.each(vec![execution]).await?;
        answers.pop().unwrap_or_else(|| Err(unavailable("the lane gave no answer")))
    }

    async fn channels_with_due(&self) -> Result<Vec<Due<ChannelConfigurationId>>> {
        lookup!(self.readers, |session| due::channels(session, &self.facts))
    }

    async fn due_messages(&self, channel: ChannelConfigurationId, now: Timestamp, limit: usize) -> Result<DueMessages> {
        lookup!(self.readers, |session| due::messages(session, &self.facts, channel, now, limit))
    }

    async fn hand_over(&self, lease: Lease, messages: Vec<(SandboxId, MessageKey)>) -> Result<Vec<bool>> {
        let units = messages.into_iter().map(|(sandbox, message)| record::Unit::HandOver(lease, sandbox, message));
        let answers = self.record_units(units.collect()).await?;
        let handed_over = |answer| matches!(answer, record::Answer::HandedOver(true));
        each_done(answers.into_iter().map(|answer| answer.map(handed_over)).collect())
    }

    async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>> {
        let units = records.into_iter().map(|record| record::Unit::Record(Box::new(record)));
        let answers = self.record_units(units.collect()).await?;
        let recorded = |answer| match answer {
            record::Answer::Recorded(recorded) => recorded,
            record::Answer::HandedOver(_) => Recorded::default(),
        };
        each_done(answers.into_iter().map(|answer| answer.map(recorded)).collect())
    }

    async fn webhooks_with_due(&self) -> Result<Vec<Due<SandboxId>>> {
        lookup!(self.readers, |session| due::webhooks(session, &self.facts))
    }

    async fn due_deliveries(&self, sandbox: SandboxId, now: Timestamp, limit: usize) -> Result<DueDeliveries> {
        lookup!(self.readers, |session| due::deliveries(session, &self.facts, sandbox, now, limit))
    }

    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>> {
        each_done(self.lane(|lanes| lanes.finish.clone())?.each(finishes).await?)
    }

    async fn campaign_version(&self, version: CampaignVersionId) -> Result<LiveVersion> {
        lookup!(self.readers, |session| async {
            let row = session.query_opt("SELECT ver FROM campaign_version WHERE id = $1", &[&version.0]).await?;
            let missing = || StoreError::NotFound("campaign version");
            let ver: i64 = col(row.as_ref().ok_or_else(missing)?, 0)?;
            let found = self.facts.versions(session, [ver]).await?.remove(&ver).ok_or_else(missing)?;
            Ok(LiveVersion { id: found.id, campaign: found.campaign, settings: found.settings.clone() })
        })
    }

    async fn execution(&self, sandbox: SandboxId, id: ExecutionId) -> Result<ExecutionView> {
        lookup!(self.readers, |session| async { Finder { session, facts: &self.facts }.execution(sandbox, id).await })
    }

    async fn executions(&self, filter: MessageFilter, page: Page) -> Result<Listed<ExecutionView>> {
        lookup!(self.readers, |session| async {
            Finder { session, facts: &self.facts }.executions(&filter, &page).await
        })
    }

    async fn message(&self, sandbox: SandboxId, key: MessageKey) -> Result<MessageView> {
        lookup!(self.readers, |session| async { Finder { session, facts: &self.facts }.message(sandbox, key).await })
    }

    async fn messages(&self, filter: MessageFilter, page: Page) -> Result<Listed<MessageView>> {
        lookup!(self.readers, |session| async { Finder { session, facts: &self.facts }.messages(&filter, &page).await })
    }

    async fn event(&self, sandbox: SandboxId, id: EventId) -> Result<EventView> {
        lookup!(self.readers, |session| async { Finder { session, facts: &self.facts }.event(sandbox, id).await })
    }

    async fn events(&self, filter: EventFilter, page: Page) -> Result<Listed<EventView>> {
        lookup!(self.readers, |session| async { Finder { session, facts: &self.facts }.events(&filter, &page).await })
    }

    async fn deliveries(&self, filter: DeliveryFilter, page: Page) -> Result<Listed<EventView>> {
        lookup!(self.readers, |session| async {
            Finder { session, facts: &self.facts }.deliveries(&filter, &page).await
        })
    }

    async fn attempts(&self, sandbox: SandboxId, id: EventId) -> Result<Vec<AttemptView>> {
        lookup!(self.readers, |session| async { Finder { session, facts: &self.facts }.attempts(sandbox, id).await })
    }

    async fn retry_delivery(
        &self,
        sandbox: SandboxId,
        id: EventId,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<EventView> {
        let known = (&*self.facts, &*self.hooks);
        unit!(self.writers, |session| control::retry(session, known, sandbox, id, now, &audit))?;
        self.event(sandbox, id).await
    }

    async fn cancel_delivery(
        &self,
        sandbox: SandboxId,
        id: EventId,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<EventView> {
        let known = (&*self.facts, &*self.hooks);
        unit!(self.writers, |session| control::cancel(session, known, sandbox, id, now, &audit))?;
        self.event(sandbox, id).await
    }

    async fn statistics(&self, sandbox: SandboxId, buckets: Buckets) -> Result<Vec<Counts>> {
        lookup!(self.readers, |session| statistics::statistics(session, &self.facts, sandbox, &buckets))
    }

    async fn last_success(&self, sandbox: SandboxId) -> Result<Option<Timestamp>> {
        lookup!(self.readers, |session| statistics::last_success(session, &self.facts, sandbox))
    }

    async fn backlog(&self, sandbox: SandboxId) -> Result<Backlog> {
        lookup!(self.readers, |session| statistics::backlog(session, &self.facts, sandbox))
    }

    async fn create_organization(&self, new: NewOrganization, audit: AuditEntry) -> Result<()> {
        unit!(self.writers, |session| admin::create_organization(session, &new, &audit))
    }

    async fn organization(&self, id: &str) -> Result<Organization> {
        lookup!(self.readers, |session| admin::organization(session, id))
    }

    async fn organizations(&self, page: Page) -> Result<Listed<Organization>> {
        lookup!(self.readers, |session| admin::organizations(session, &page))
    }

    async fn update_organization(&self, organization: Organization, audit: AuditEntry) -> Result<()> {
        unit!(self.writers, |session| admin::update_organization(session, &organization, &audit))
    }

    async fn create_sandbox(&self, sandbox: Sandbox, audit: AuditEntry) -> Result<()> {
        unit!(self.writers, |session| admin::create_sandbox(session, &sandbox, &audit))
    }

    async fn sandboxes(&self, organization: &str, page: Page) -> Result<Listed<Sandbox>> {
        lookup!(self.readers, |session| admin::sandboxes(session, organization, &page))
    }

    async fn sandbox(&self, organization: &str, name: &str) -> Result<Sandbox> {
        lookup!(self.readers, |session| admin::sandbox(session, organization, name))
    }

    async fn create_api_key(&self, key: ApiKey, hash: [u8; 32], audit: AuditEntry) -> Result<()> {
        unit!(self.writers, |session| admin::create_api_key(session, &key, &hash, &audit))
    }

    async fn find_api_key(&self, hash: [u8; 32]) -> Result<Option<ApiKey>> {
        lookup!(self.readers, |session| admin::find_api_key(session, &hash))
    }

    async fn api_key(&self, id: ApiKeyId) -> Result<ApiKey> {
        lookup!(self.readers, |session| admin::api_key(session, id))
    }

    async fn api_keys(&self, organization: &str, page: Page) -> Result<Listed<ApiKey>> {
        lookup!(self.readers, |session| admin::api_keys(session, organization, &page))
    }

    async fn revoke_api_key(&self, id: ApiKeyId, now: Timestamp, audit: AuditEntry) -> Result<ApiKey> {
        unit!(self.writers, |session| admin::revoke_api_key(session, id, now, &audit))
    }

    async fn has_api_keys(&self) -> Result<bool> {
        lookup!(self.readers, |session| admin::has_api_keys(session))
    }

    async fn audit_log(&self, organization: &str, page: Page) -> Result<Listed<AuditEntry>> {
        lookup!(self.readers, |session| admin::audit_log(session, organization, &page))
    }

    async fn create_webhook(&self, webhook: Webhook, audit: AuditEntry) -> Result<()> {
        let known = (&*self.facts, &*self.master);
        unit!(self.writers, |session| webhooks::create_webhook(session, known, webhook.clone(), &audit))
    }

    async fn webhook(&self, sandbox: SandboxId, id: WebhookId) -> Result<Webhook> {
        lookup!(self.readers, |session| webhooks::webhook(session, &self.master, sandbox, id))
    }

    async fn webhook_of(&self, sandbox: SandboxId) -> Result<Option<Webhook>> {
        lookup!(self.readers, |session| webhooks::webhook_of(session, &self.master, sandbox))
    }

    async fn webhooks(&self, sandboxes: Vec<SandboxId>, page: Page) -> Result<Listed<Webhook>> {
        lookup!(self.readers, |session| webhooks::webhooks(session, &self.master, &sandboxes, &page))
    }

    async fn webhooks_with_keys(&self) -> Result<Vec<Webhook>> {
        lookup!(self.readers, |session| webhooks::webhooks_with_keys(session))
    }

    async fn update_webhook(&self, webhook: Webhook, audit: AuditEntry) -> Result<()> {
        let known = (&*self.facts, &*self.master);
        unit!(self.writers, |session| webhooks::update_webhook(session, known, webhook.clone(), &audit))
    }

    async fn delete_webhook(&self, edit: Edit<WebhookId>, now: Timestamp, audit: AuditEntry) -> Result<()> {
        let (writers, facts) = (Arc::clone(&self.writers), Arc::clone(&self.facts));
        // A task of its own, so that a caller that goes away does not leave it half done.
        let deletion = tokio::spawn(async move {
            let sbx = unit!(writers, |session| webhooks::begin_delete(session, &facts, edit, &audit))?;
            end_deletion(writers, sbx, now).await
        });
        deletion.await.map_err(unavailable)?
    }

    async fn drain_webhook(&self, sandbox: SandboxId, now: Timestamp, audit: AuditEntry) -> Result<u64> {
        let sbx = unit!(self.writers, |session| async {
            admin::audit(session, &audit).await?;
            Ok(self.facts.sandbox(session, sandbox).await?.sbx)
        })?;
        let mut sum = 0;
        loop {
            match unit!(self.writers, |session| control::drain_some(session, sbx, now))? {
                0 => return Ok(sum),
                some => sum += some,
            }
        }
    }

    async fn create_channel(&self, channel: ChannelConfiguration, audit: AuditEntry) -> Result<()> {
        let known = (&*self.facts, &*self.master);
        unit!(self.writers, |session| resources::create_channel(session, known, channel.clone(), &audit))
    }

    async fn channel(&self, sandbox: SandboxId, id: ChannelConfigurationId) -> Result<ChannelConfiguration> {
        lookup!(self.readers, |session| resources::channel(session, &self.master, Some(sandbox), id))
    }

    async fn any_channel(&self, id: ChannelConfigurationId) -> Result<ChannelConfiguration> {
        lookup!(self.readers, |session| resources::channel(session, &self.master, None, id))
    }

    async fn channels(&self, sandbox: SandboxId, page: Page) -> Result<Listed<ChannelConfiguration>> {
        lookup!(self.readers, |session| resources::channels(session, &self.master, sandbox, &page))
    }

    async fn update_channel(&self, channel: ChannelConfiguration, audit: AuditEntry) -> Result<()> {
        let known = (&*self.facts, &*self.master);
        unit!(self.writers, |session| resources::update_channel(session, known, channel.clone(), &audit))
    }

    async fn delete_channel(&self, edit: Edit<ChannelConfigurationId>, audit: AuditEntry) -> Result<()> {
        unit!(self.writers, |session| resources::delete_channel(session, &self.facts, edit, &audit))
    }

    async fn create_campaign(&self, campaign: Campaign, audit: AuditEntry) -> Result<()> {
        unit!(self.writers, |session| resources::create_campaign(session, &self.facts, &campaign, &audit))
    }

    async fn campaign(&self, sandbox: SandboxId, id: CampaignId) -> Result<Campaign> {
        lookup!(self.readers, |session| resources::campaign(session, sandbox, id))
    }

    async fn campaigns(&self, sandbox: SandboxId, page: Page) -> Result<Listed<Campaign>> {
        lookup!(self.readers, |session| resources::campaigns(session, sandbox, &page))
    }

    async fn campaign_versions(
        &self,
        sandbox: SandboxId,
        id: CampaignId,
        page: Page,
    ) -> Result<Listed<CampaignVersion>> {
        lookup!(self.readers, |session| resources::campaign_versions(session, sandbox, id, &page))
    }

    async fn update_campaign(&self, campaign: Campaign, audit: AuditEntry) -> Result<()> {
        unit!(self.writers, |session| resources::update_campaign(session, &self.facts, &campaign, &audit))
    }

    async fn delete_campaign(&self, edit: Edit<CampaignId>, audit: AuditEntry) -> Result<()> {
        unit!(self.writers, |session| resources::delete_campaign(session, edit, &audit))
    }

    async fn index_step(&self, now: Timestamp) -> Result<bool> {
        if self.search.is_new() {
            self.search.begin(lookup!(self.readers, |session| search::sandboxes(session))?);
        }
        searching::step(self, now).await
    }

    async fn begin_index_anew(&self, sandbox: SandboxId) -> Result<()> {
        let sbx = lookup!(self.readers, |session| async { Ok(self.facts.sandbox(session, sandbox).await?.sbx) })?;
        unit!(self.writers, |session| search::begin_anew(session, sbx))?;
        self.search.fresh.add(sbx, RUN);
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<Kept>> {
        lookup!(self.readers, |session| retain::kept(session, &self.facts))
    }

    async fn retain(&self, step: RetainStep) -> Result<Retained> {
        let found = lookup!(self.readers, |session| retain::look(session, &self.facts, &step))?;
        if let Some(nothing) = found.nothing() {
            return Ok(nothing);
        }
        match unit!(self.writers, |session| retain::take(session, &self.facts, &step, &found)) {
            Err(StoreError::Changed) => Ok(again(&step)),
            retained => retained,
        }
    }

    async fn create_erasure(&self, new: NewErasure, audit: AuditEntry) -> Result<Erasure> {
        unit!(self.writers, |session| erase::create(session, &self.master, &new, &audit))?;
        self.erasure(&new.ims_org, new.id).await
    }

    async fn erasure(&self, organization: &str, id: ErasureId) -> Result<Erasure> {
        lookup!(self.readers, |session| erase::erasure(session, organization, id))
    }

    async fn erasures(&self, organization: &str, page: Page) -> Result<Listed<Erasure>> {
        lookup!(self.readers, |session| erase::erasures(session, organization, &page))
    }

    async fn running_erasures(&self) -> Result<Vec<ErasureId>> {
        lookup!(self.readers, |session| erase::running(session))
    }

    async fn erase_step(&self, id: ErasureId, now: Timestamp) -> Result<EraseStepped> {
        let Some(seen) = lookup!(self.readers, |session| erase::look(session, &self.master, id))? else {
            return Ok(EraseStepped::default());
        };
        let step = unit!(self.writers, |session| erase::take(session, &self.facts, id, &seen, now))?;
        let touched = match step.and_then(|step| step.sandbox) {
            Some(sandbox) => {
                let channels = lookup!(self.readers, |session| erase::channels_of(session, &self.facts, sandbox))?;
                Some((sandbox, channels))
            }
            None => None,
        };
        Ok(EraseStepped { running: step.is_none_or(|step| !step.is_over), touched })
    }

    async fn create_replay(&self, replay: Replay, audit: AuditEntry) -> Result<Replay> {
        unit!(self.writers, |session| replay::create(session, (&self.facts, &self.hooks), &replay, &audit))
    }

    async fn replay(&self, sandbox: SandboxId, id: ReplayId) -> Result<Replay> {
        lookup!(self.readers, |session| replay::replay(session, &self.facts, sandbox, id))
    }

    async fn replays(&self, sandbox: SandboxId, page: Page) -> Result<Listed<Replay>> {
        lookup!(self.readers, |session| replay::replays(session, &self.facts, sandbox, &page))
    }

    async fn cancel_replay(
        &self,
        edit: Edit<ReplayId>,
        stamp: (Timestamp, String),
        audit: AuditEntry,
    ) -> Result<Replay> {
        unit!(self.writers, |session| replay::cancel(session, &self.facts, edit, (stamp.0, &stamp.1), &audit))
    }

    async fn running_replays(&self) -> Result<Vec<RunningReplay>> {
        lookup!(self.readers, |session| replay::running(session, &self.facts))
    }

    async fn replay_step(&self, step: ReplayStep) -> Result<ReplayStepped> {
        let seen = lookup!(self.readers, |session| async {
            replay::look(&Finder { session, facts: &self.facts }, &step).await
        })?;
        match seen {
            Some(seen) if seen.is_news() => {
                unit!(self.writers, |session| replay::take(session, (&self.facts, &self.hooks), &step, &seen))
            }
            Some(_) => Ok(ReplayStepped { running: true, ..ReplayStepped::default() }),
            None => Ok(ReplayStepped::default()),
        }
    }

    async fn ping(&self) -> Result<()> {
        lookup!(self.readers, |session| session.run("SELECT 1"))?;
        let is_copy: bool = lookup!(self.writers, |session| async {
            let row = session.query_opt("SELECT pg_is_in_recovery()", &[]).await?;
            row.as_ref().map_or(Ok(true), |row| col(row, 0))
        })?;
        if is_copy { Err(unavailable("the database is a copy that cannot be written to")) } else { Ok(()) }
    }

    async fn close(&self) {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(upkeep) = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take() {
            upkeep.abort();
        }
        if let Some(Lanes { accept, record, finish, tasks }) = lanes {
            drop((accept, record, finish));
            for task in tasks {
                if task.await.is_err() {
                    tracing::error!("a lane panicked");
                }
            }
        }
        let owners: Vec<OwnerId> = self.owners.lock().unwrap_or_else(PoisonError::into_inner).drain().collect();
        if let Err(error) = release_all(&self.writers, &owners).await {
            tracing::warn!(%error, "leases cannot be given back; they end by themselves");
        }
        self.readers.close().await;
        self.writers.close().await;
    }
}
