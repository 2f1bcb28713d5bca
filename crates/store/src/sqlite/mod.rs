//! The embedded store: SQLite in WAL mode, one writer thread with group commit, pooled readers.
//!
//! `synchronous=FULL`: a commit is on disk before anybody hears of it. One process owns the file's work (an exclusive
//! lock beside it); administrative commands may write at the same time.

mod accept;
mod admin;
pub mod backup;
mod deliver;
mod disk;
mod erase;
mod facts;
mod find;
mod migrate;
mod readers;
mod record;
mod replay;
mod retain;
mod rows;
mod search;
mod shards;
mod statistics;
#[cfg(test)]
mod tests;
mod traces;
mod writer;

use crate::admin::{Edit, NewOrganization};
use crate::envelope::MasterKey;
use crate::lookup::{
    AttemptView, DeliveryFilter, EventFilter, EventView, ExecutionView, Listed, MessageFilter, MessageView, Page,
};
use crate::shared::change::{each_done, recorded_at};
use crate::shared::retaining::again;
use crate::shared::searching::{self, Fresh, Indexed, Next, Run};
use crate::statistics::{Backlog, Buckets, Counts};
use crate::work::{
    AcceptError, Accepted, Due, DueDeliveries, DueMessages, EraseStepped, Finish, Finished, Kept, Lease, LiveVersion,
    NewErasure, NewExecution, Record, Recorded, ReplayStep, ReplayStepped, RetainStep, Retained, RunningReplay,
};
use crate::{Result, Store, StoreError, Use, effort};
use async_trait::async_trait;
use facts::Facts;
use find::Finder;
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
use readers::{Place, Readers};
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use writer::{Entrance, State, Tx, WeakEntrance, Writer};

pub use writer::CommitSeam;

/// What a store needs to open.
#[derive(Debug)]
pub struct Options {
    /// The file; made where it is missing, with its folder.
    pub file: PathBuf,
    /// The key of the envelopes.
    pub master_key: MasterKey,
    /// How this process uses it.
    pub usage: Use,
    /// Past this many messages that wait to be sent, executions are refused for a while.
    pub max_waiting_messages: u64,
    /// With less than this free on the disk, executions are refused: what is under way can still be written to its end.
    pub min_free_disk_bytes: u64,
}

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    file: PathBuf,
    writer: Mutex<Option<Writer>>,
    readers: Readers,
    facts: Arc<Facts>,
    search: Arc<search::Progress>,
    master: Arc<MasterKey>,
    checkpoints: Mutex<Option<Checkpoints>>,
    disk: Arc<disk::Disk>,
    /// Held as long as the store is open.
    lock: Mutex<Option<File>>,
}

#[derive(Debug)]
struct Checkpoints {
    close: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// How long a statement waits for another process' write to end.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// How many statements a connection keeps prepared: more than the program has.
const STATEMENTS: usize = 200;

fn connect(file: &Path, access: Access) -> Result<Connection> {
    let mode = match access {
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let mut connection = Connection::open_with_flags(file, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    if effort::is_counted() {
        connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(|_: TraceEvent<'_>| effort::add_statements(1)))?;
    }
    connection.busy_timeout(BUSY_LIMIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = ON;")?;
    match access {
        // auto_vacuum takes effect on a new file only, and only before the switch to WAL.
        Access::Write => connection.execute_batch(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
             PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -32768;",
        )?,
        Access::Read => connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -4096;")?,
    }
    Ok(connection)
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The folder that a file is in.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Takes the lock that lets one process do the work.
fn lock(file: &Path) -> Result<File> {
    let path = beside(file, ".lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(unavailable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(unavailable(format!("another process works on {}; stop it first", file.display())))
        }
        Err(TryLockError::Error(error)) => Err(unavailable(error)),
    }
}

impl SqliteStore {
    /// Opens the store, bringing its schema up to date.
    pub fn open(options: Options) -> Result<Self> {
        let Opened { lock, connection, state } = Opened::new(&options)?;
        let log_is_long = Arc::new(AtomicBool::new(false));
        let disk = Arc::new(disk::Disk::new(folder_of(&options.file).to_owned(), options.min_free_disk_bytes));
        let checkpoints = match options.usage {
            Use::Work => Some(start_checkpoints(&options.file, Arc::clone(&log_is_long), Arc::clone(&disk))?),
            Use::Administration => None,
        };
        let (facts, search) = (Arc::clone(&state.facts), Arc::clone(&state.search));
        let writer = Writer::start(connection, state, log_is_long).map_err(unavailable)?;
        Ok(Self {
            file: options.file.clone(),
            writer: Mutex::new(Some(writer)),
            readers: Readers::new(options.file, Place::Threads),
            facts,
            search,
            master: Arc::new(options.master_key),
            checkpoints: Mutex::new(checkpoints),
            disk,
            lock: Mutex::new(lock),
        })
    }

    /// Opens the store for a simulation: the same units and lookups, all of them on the runtime that this is called
    /// in, without threads. `seam` stands around each commit. The disk is not waited for: here only processes end, and
    /// what one has written to the file outlives it.
    pub fn open_inline(options: Options, seam: Arc<dyn CommitSeam>) -> Result<Self> {
        let Opened { lock, connection, state } = Opened::new(&options)?;
        connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 1000;")?;
        let (facts, search) = (Arc::clone(&state.facts), Arc::clone(&state.search));
        let disk = Arc::new(disk::Disk::new(folder_of(&options.file).to_owned(), options.min_free_disk_bytes));
        Ok(Self {
            file: options.file.clone(),
            disk,
            writer: Mutex::new(Some(Writer::start_inline(connection, state, seam))),
            readers: Readers::new(options.file, Place::Inline),
            facts,
            search,
            master: Arc::new(options.master_key),
            checkpoints: Mutex::default(),
            lock: Mutex::new(lock),
        })
    }

    fn writer(&self) -> Result<Entrance> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().map(Writer::entrance).ok_or_else(|| unavailable("the store is closed"))
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer()?.once(work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        lookup: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.readers.read(lookup).await
    }

    /// Clears what deleted rows have left of a text in the file and its log; how many pages still have it, in rows that
    /// are there.
    async fn clear_traces(&self, text: String) -> Result<u64> {
        for _ in 0..TRIES_AT_TRACES {
            let (file, wanted) = (self.file.clone(), text.clone());
            let found =
                tokio::task::spawn_blocking(move || find_traces(&file, &wanted)).await.map_err(unavailable)??;
            let mut changed = 0;
            for some in found.chunks(PAGES_AT_A_TIME) {
                let some = some.to_vec();
                changed += self.write(move |tx| traces::clear(tx.connection, &some)).await?;
            }
            if changed == 0 {
                return Ok(found.len() as u64);
            }
        }
        Err(unavailable("what was erased comes up again in the file"))
    }

    async fn find<T: Send + 'static>(
        &self,
        lookup: impl FnOnce(Finder<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let facts = Arc::clone(&self.facts);
        self.readers.read(move |connection| lookup(Finder { connection, facts: &facts })).await
    }
}

impl Indexed for SqliteStore {
    fn fresh(&self) -> &Fresh {
        &self.search.fresh
    }

    async fn next_run(&self, sbx: i64, now: Timestamp) -> Result<Next> {
        self.read(move |connection| search::next_run(connection, sbx, now)).await
    }

    async fn make_run(&self, sbx: i64, run: Run) -> Result<bool> {
        self.write(move |tx| search::announce(tx, sbx, run)).await?;
        let entries = self.read(move |connection| search::entries(connection, sbx, run)).await?;
        for some in entries.chunks(search::ENTRIES_AT_A_TIME) {
            let (some, began) = (some.to_vec(), Instant::now());
            self.write(move |tx| search::enter(tx, sbx, run, &some)).await?;
            // The thread that writes is everybody's.
            tokio::time::sleep(began.elapsed()).await;
        }
        self.write(move |tx| search::complete(tx, sbx, run)).await?;
        Ok(true)
    }
}

/// How often the file is searched for traces, and cleared of what is found.
const TRIES_AT_TRACES: u32 = 5;
/// The pages that are cleared in one transaction.
const PAGES_AT_A_TIME: usize = 200;

/// The pages that hold a text, once the log is in the file and empty.
fn find_traces(file: &Path, text: &str) -> Result<Vec<u32>> {
    let connection = connect(file, Access::Write)?;
    let page_bytes: usize = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let is_busy = |row: &rusqlite::Row<'_>| row.get::<_, bool>(0);
    if connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], is_busy)? {
        return Err(unavailable("a reader still looks at the log"));
    }
    Ok(traces::pages_with(file, page_bytes, text).map_err(unavailable)?.into_iter().collect())
}

/// A store's file, open, up to date and as an earlier process would have left it had it ended well.
struct Opened {
    lock: Option<File>,
    connection: Connection,
    state: State,
}

impl Opened {
    fn new(options: &Options) -> Result<Self> {
        let file = &options.file;
        std::fs::create_dir_all(folder_of(file)).map_err(unavailable)?;
        let lock = if options.usage == Use::Work { Some(lock(file)?) } else { None };
        let mut connection = connect(file, Access::Write)?;
        migrate::migrate(&mut connection, file)?;
        let mut state = State::new(Arc::default(), options.max_waiting_messages);
        if options.usage == Use::Work {
            shards::free_all(&connection)?;
            state.waiting = record::count_waiting(&connection)?;
            state.sequence = last_sequence(&connection)?;
            finish_deletions(&connection, &mut state)?;
            state.search = Arc::new(search::Progress::of(&connection)?);
        }
        shards::epochs(&connection, &mut state.epochs)?;
        Ok(Self { lock, connection, state })
    }
}

/// The rows that one step of a long change touches: short enough that others' commits do not wait.
const STEP: usize = 2_000;

/// The latest place in the feed that was ever given, as far as the rows tell.
fn last_sequence(connection: &Connection) -> Result<i64> {
    let mut sandboxes = connection.prepare("SELECT sbx FROM sandbox")?;
    let mut last = connection.prepare("SELECT max(seq) FROM event WHERE sbx = ?1")?;
    let mut latest = 0;
    for sbx in sandboxes.query_map([], |row| row.get::<_, i64>(0))? {
        let of_sandbox: Option<i64> = last.query_row([sbx?], |row| row.get(0)).optional()?.flatten();
        latest = latest.max(of_sandbox.unwrap_or(0));
    }
    Ok(latest)
}

/// Ends deletions of webhooks that an earlier process began.
fn finish_deletions(connection: &Connection, state: &mut State) -> Result<()> {
    for sbx in admin::webhooks_being_deleted(connection)? {
        let mut tx = Tx { connection, state };
        // No clock reaches this point; the rows say when they were recorded, and that is close enough for the end.
        let now = recorded_at(last_sequence(connection)?);
        while deliver::cancel_some(&tx, sbx, now, STEP)? > 0 {}
        admin::end_delete_webhook(&mut tx, sbx)?;
    }
    Ok(())
}

/// Ends the deletion of a webhook, however often the disk refuses: from its beginning on there is no way back, nor any
/// other who would end it before the next start.
async fn end_deletion(writer: WeakEntrance, sbx: i64, now: Timestamp) -> Result<()> {
    let mut pause = Duration::from_millis(50);
    loop {
        let writer = writer.upgrade().ok_or_else(|| unavailable("the store is closed"))?;
        let cancelled = writer.repeat(move |tx| deliver::cancel_some(tx, sbx, now, STEP)).await;
        let ended = match cancelled {
            Ok(_) => writer.once(move |tx| admin::end_delete_webhook(tx, sbx)).await,
            Err(error) => Err(error),
        };
        match ended {
            Err(StoreError::Unavailable(why)) => tracing::warn!(%why, "the deletion of a webhook waits"),
            ended => return ended,
        }
        drop(writer);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn start_checkpoints(file: &Path, log_is_long: Arc<AtomicBool>, disk: Arc<disk::Disk>) -> Result<Checkpoints> {
    let connection = connect(file, Access::Write)?;
    let log = beside(file, "-wal");
    let (close, closed) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("esito-checkpoint".to_owned())
        .spawn(move || writer::checkpoint_until_closed(&connection, &log, &log_is_long, &disk, &closed))
        .map_err(unavailable)?;
    Ok(Checkpoints { close, thread })
}

#[async_trait]
impl Store for SqliteStore {
    async fn claim_shards(
        &self,
        owner: OwnerId,
        wanted: Vec<Shard>,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Lease>> {
        self.write(move |tx| shards::claim(tx, owner, &wanted, now, lease)).await
    }

    async fn release_shards(&self, owner: OwnerId) -> Result<()> {
        self.write(move |tx| shards::release(tx, owner)).await
    }

    async fn accept(&self, execution: NewExecution) -> Result<std::result::Result<Accepted, AcceptError>> {
        self.disk.check()?;
        self.writer()?.once_hopefully(move |tx| accept::accept(tx, execution)).await
    }

    async fn channels_with_due(&self) -> Result<Vec<Due<ChannelConfigurationId>>> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| deliver::channels_with_due(connection, &facts)).await
    }

    async fn due_messages(&self, channel: ChannelConfigurationId, now: Timestamp, limit: usize) -> Result<DueMessages> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| deliver::due_messages(connection, &facts, channel, now, limit)).await
    }

    async fn hand_over(&self, lease: Lease, messages: Vec<(SandboxId, MessageKey)>) -> Result<Vec<bool>> {
        let work = move |tx: &mut Tx<'_>, (sandbox, key)| record::hand_over(tx, lease, sandbox, key);
        each_done(self.writer()?.each(messages, work).await?)
    }

    async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>> {
        each_done(self.writer()?.each(records, record::record).await?)
    }

    async fn webhooks_with_due(&self) -> Result<Vec<Due<SandboxId>>> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| deliver::webhooks_with_due(connection, &facts)).await
    }

    async fn due_deliveries(&self, sandbox: SandboxId, now: Timestamp, limit: usize) -> Result<DueDeliveries> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| deliver::due_deliveries(connection, &facts, sandbox, now, limit)).await
    }

    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>> {
        each_done(self.writer()?.each(finishes, deliver::finish).await?)
    }

    async fn campaign_version(&self, version: CampaignVersionId) -> Result<LiveVersion> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| {
            let mut query = connection.prepare_cached("SELECT ver FROM campaign_version WHERE id = ?1")?;
            let ver = query.query_row([version.bytes()], |row| row.get(0)).optional()?;
            let found = facts.version(connection, ver.ok_or(StoreError::NotFound("campaign version"))?)?;
            Ok(LiveVersion { id: found.id, campaign: found.campaign, settings: found.settings.clone() })
        })
        .await
    }

    async fn execution(&self, sandbox: SandboxId, id: ExecutionId) -> Result<ExecutionView> {
        self.find(move |finder| finder.execution(sandbox, id)).await
    }

    async fn executions(&self, filter: MessageFilter, page: Page) -> Result<Listed<ExecutionView>> {
        self.find(move |finder| finder.executions(&filter, &page)).await
    }

    async fn message(&self, sandbox: SandboxId, key: MessageKey) -> Result<MessageView> {
        self.find(move |finder| finder.message(sandbox, key)).await
    }

    async fn messages(&self, filter: MessageFilter, page: Page) -> Result<Listed<MessageView>> {
        self.find(move |finder| finder.messages(&filter, &page)).await
    }

    async fn event(&self, sandbox: SandboxId, id: EventId) -> Result<EventView> {
        self.find(move |finder| finder.event(sandbox, id)).await
    }

    async fn events(&self, filter: EventFilter, page: Page) -> Result<Listed<EventView>> {
        self.find(move |finder| finder.events(&filter, &page)).await
    }

    async fn deliveries(&self, filter: DeliveryFilter, page: Page) -> Result<Listed<EventView>> {
        self.find(move |finder| finder.deliveries(&filter, &page)).await
    }

    async fn attempts(&self, sandbox: SandboxId, id: EventId) -> Result<Vec<AttemptView>> {
        self.find(move |finder| finder.attempts(sandbox, id)).await
    }

    async fn retry_delivery(
        &self,
        sandbox: SandboxId,
        id: EventId,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<EventView> {
        self.write(move |tx| {
            deliver::retry(tx, sandbox, id, now)?;
            admin::audit_only(tx, &audit)
        })
        .await?;
        self.event(sandbox, id).await
    }

    async fn cancel_delivery(
        &self,
        sandbox: SandboxId,
        id: EventId,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<EventView> {
        self.write(move |tx| {
            deliver::cancel(tx, sandbox, id, now)?;
            admin::audit_only(tx, &audit)
        })
        .await?;
        self.event(sandbox, id).await
    }

    async fn statistics(&self, sandbox: SandboxId, buckets: Buckets) -> Result<Vec<Counts>> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| statistics::statistics(connection, &facts, sandbox, &buckets)).await
    }

    async fn last_success(&self, sandbox: SandboxId) -> Result<Option<Timestamp>> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| statistics::last_success(connection, &facts, sandbox)).await
    }

    async fn backlog(&self, sandbox: SandboxId) -> Result<Backlog> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| statistics::backlog(connection, &facts, sandbox)).await
    }

    async fn create_organization(&self, new: NewOrganization, audit: AuditEntry) -> Result<()> {
        self.write(move |tx| admin::create_organization(tx, &new, &audit)).await
    }

    async fn organization(&self, id: &str) -> Result<Organization> {
        let id = id.to_owned();
        self.read(move |connection| admin::organization(connection, &id)).await
    }

    async fn organizations(&self, page: Page) -> Result<Listed<Organization>> {
        self.read(move |connection| admin::organizations(connection, &page)).await
    }

    async fn update_organization(&self, organization: Organization, audit: AuditEntry) -> Result<()> {
        self.write(move |tx| admin::update_organization(tx, &organization, &audit)).await
    }

    async fn create_sandbox(&self, sandbox: Sandbox, audit: AuditEntry) -> Result<()> {
        self.write(move |tx| admin::create_sandbox(tx, &sandbox, &audit)).await
    }

    async fn sandboxes(&self, organization: &str, page: Page) -> Result<Listed<Sandbox>> {
        let organization = organization.to_owned();
        self.read(move |connection| admin::sandboxes(connection, &organization, &page)).await
    }

    async fn sandbox(&self, organization: &str, name: &str) -> Result<Sandbox> {
        let (organization, name) = (organization.to_owned(), name.to_owned());
        self.read(move |connection| admin::sandbox(connection, &organization, &name)).await
    }

    async fn create_api_key(&self, key: ApiKey, hash: [u8; 32], audit: AuditEntry) -> Result<()> {
        self.write(move |tx| admin::create_api_key(tx, &key, &hash, &audit)).await
    }

    async fn find_api_key(&self, hash: [u8; 32]) -> Result<Option<ApiKey>> {
        self.read(move |connection| admin::find_api_key(connection, &hash)).await
    }

    async fn api_key(&self, id: ApiKeyId) -> Result<ApiKey> {
        self.read(move |connection| admin::api_key(connection, id)).await
    }

    async fn api_keys(&self, organization: &str, page: Page) -> Result<Listed<ApiKey>> {
        let organization = organization.to_owned();
        self.read(move |connection| admin::api_keys(connection, &organization, &page)).await
    }

    async fn revoke_api_key(&self, id: ApiKeyId, now: Timestamp, audit: AuditEntry) -> Result<ApiKey> {
        self.write(move |tx| admin::revoke_api_key(tx, id, now, &audit)).await
    }

    async fn has_api_keys(&self) -> Result<bool> {
        self.read(admin::has_api_keys).await
    }

    async fn audit_log(&self, organization: &str, page: Page) -> Result<Listed<AuditEntry>> {
        let organization = organization.to_owned();
        self.read(move |connection| admin::audit_log(connection, &organization, &page)).await
    }

    async fn create_webhook(&self, webhook: Webhook, audit: AuditEntry) -> Result<()> {
        let master = Arc::clone(&self.master);
        self.write(move |tx| admin::create_webhook(tx, &master, webhook, &audit)).await
    }

    async fn webhook(&self, sandbox: SandboxId, id: WebhookId) -> Result<Webhook> {
        let master = Arc::clone(&self.master);
        self.read(move |connection| admin::webhook(connection, &master, sandbox, id)).await
    }

    async fn webhook_of(&self, sandbox: SandboxId) -> Result<Option<Webhook>> {
        let master = Arc::clone(&self.master);
        self.read(move |connection| admin::webhook_of(connection, &master, sandbox)).await
    }

    async fn webhooks(&self, sandboxes: Vec<SandboxId>, page: Page) -> Result<Listed<Webhook>> {
        let master = Arc::clone(&self.master);
        self.read(move |connection| admin::webhooks(connection, &master, &sandboxes, &page)).await
    }

    async fn webhooks_with_keys(&self) -> Result<Vec<Webhook>> {
        self.read(admin::webhooks_with_keys).await
    }

    async fn update_webhook(&self, webhook: Webhook, audit: AuditEntry) -> Result<()> {
        let master = Arc::clone(&self.master);
        self.write(move |tx| admin::update_webhook(tx, &master, webhook, &audit)).await
    }

    async fn delete_webhook(&self, edit: Edit<WebhookId>, now: Timestamp, audit: AuditEntry) -> Result<()> {
        let writer = self.writer()?;
        // A task of its own, so that a caller that goes away does not leave it half done.
        let deletion = tokio::spawn(async move {
            let sbx = writer.once(move |tx| admin::begin_delete_webhook(tx, edit, &audit)).await?;
            let again = writer.downgrade();
            drop(writer);
            end_deletion(again, sbx, now).await
        });
        deletion.await.map_err(unavailable)?
    }

    async fn drain_webhook(&self, sandbox: SandboxId, now: Timestamp, audit: AuditEntry) -> Result<u64> {
        let sbx = self
            .write(move |tx| {
                admin::audit_only(tx, &audit)?;
                let facts = Arc::clone(&tx.state.facts);
                Ok(facts.sandbox(tx.connection, sandbox)?.sbx)
            })
            .await?;
        self.writer()?.repeat(move |tx| deliver::drain_some(tx, sbx, now, STEP)).await
    }

    async fn create_channel(&self, channel: ChannelConfiguration, audit: AuditEntry) -> Result<()> {
        let master = Arc::clone(&self.master);
        self.write(move |tx| admin::create_channel(tx, &master, channel, &audit)).await
    }

    async fn channel(&self, sandbox: SandboxId, id: ChannelConfigurationId) -> Result<ChannelConfiguration> {
        let master = Arc::clone(&self.master);
        self.read(move |connection| admin::channel(connection, &master, Some(sandbox), id)).await
    }

    async fn any_channel(&self, id: ChannelConfigurationId) -> Result<ChannelConfiguration> {
        let master = Arc::clone(&self.master);
        self.read(move |connection| admin::channel(connection, &master, None, id)).await
    }

    async fn channels(&self, sandbox: SandboxId, page: Page) -> Result<Listed<ChannelConfiguration>> {
        let master = Arc::clone(&self.master);
        self.read(move |connection| admin::channels(connection, &master, sandbox, &page)).await
    }

    async fn update_channel(&self, channel: ChannelConfiguration, audit: AuditEntry) -> Result<()> {
        let master = Arc::clone(&self.master);
        self.write(move |tx| admin::update_channel(tx, &master, channel, &audit)).await
    }

    async fn delete_channel(&self, edit: Edit<ChannelConfigurationId>, audit: AuditEntry) -> Result<()> {
        self.write(move |tx| admin::delete_channel(tx, edit, &audit)).await
    }

    async fn create_campaign(&self, campaign: Campaign, audit: AuditEntry) -> Result<()> {
        self.write(move |tx| admin::create_campaign(tx, &campaign, &audit)).await
    }

    async fn campaign(&self, sandbox: SandboxId, id: CampaignId) -> Result<Campaign> {
        self.read(move |connection| admin::campaign(connection, sandbox, id)).await
    }

    async fn campaigns(&self, sandbox: SandboxId, page: Page) -> Result<Listed<Campaign>> {
        self.read(move |connection| admin::campaigns(connection, sandbox, &page)).await
    }

    async fn campaign_versions(
        &self,
        sandbox: SandboxId,
        id: CampaignId,
        page: Page,
    ) -> Result<Listed<CampaignVersion>> {
        self.read(move |connection| admin::campaign_versions(connection, sandbox, id, &page)).await
    }

    async fn update_campaign(&self, campaign: Campaign, audit: AuditEntry) -> Result<()> {
        self.write(move |tx| admin::update_campaign(tx, &campaign, &audit)).await
    }

    async fn delete_campaign(&self, edit: Edit<CampaignId>, audit: AuditEntry) -> Result<()> {
        self.write(move |tx| admin::delete_campaign(tx, edit, &audit)).await
    }

    async fn index_step(&self, now: Timestamp) -> Result<bool> {
        searching::step(self, now).await
    }

    async fn begin_index_anew(&self, sandbox: SandboxId) -> Result<()> {
        self.write(move |tx| {
            let facts = Arc::clone(&tx.state.facts);
            search::begin_anew(tx, facts.sandbox(tx.connection, sandbox)?.sbx)
        })
        .await
    }

    async fn kept(&self) -> Result<Vec<Kept>> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| retain::kept(connection, &facts)).await
    }

    async fn retain(&self, step: RetainStep) -> Result<Retained> {
        let facts = Arc::clone(&self.facts);
        let found = self.read(move |connection| retain::look(connection, &facts, &step)).await?;
        if let Some(nothing) = found.nothing() {
            return Ok(nothing);
        }
        match self.write(move |tx| retain::take(tx, &step, found)).await {
            Err(StoreError::Changed) => Ok(again(&step)),
            retained => retained,
        }
    }

    async fn create_erasure(&self, new: NewErasure, audit: AuditEntry) -> Result<Erasure> {
        let (master, organization, id) = (Arc::clone(&self.master), new.ims_org.clone(), new.id);
        self.write(move |tx| erase::create(tx, &master, &new, &audit)).await?;
        self.erasure(&organization, id).await
    }

    async fn erasure(&self, organization: &str, id: ErasureId) -> Result<Erasure> {
        let organization = organization.to_owned();
        self.read(move |connection| erase::erasure(connection, &organization, id)).await
    }

    async fn erasures(&self, organization: &str, page: Page) -> Result<Listed<Erasure>> {
        let organization = organization.to_owned();
        self.read(move |connection| erase::erasures(connection, &organization, &page)).await
    }

    async fn running_erasures(&self) -> Result<Vec<ErasureId>> {
        self.read(erase::running).await
    }

    async fn erase_step(&self, id: ErasureId, now: Timestamp) -> Result<EraseStepped> {
        let master = Arc::clone(&self.master);
        let Some(seen) = self.read(move |connection| erase::look(connection, &master, id)).await? else {
            return Ok(EraseStepped::default());
        };
        if seen.rows_done {
            let pages = self.clear_traces(seen.address).await?;
            if pages > 0 {
                // The file is everybody's: the receipt must not tell one organization what another one's rows hold.
                tracing::info!(erasure = %id, pages, "other rows still hold the erased address in a text of theirs");
            }
            self.write(move |tx| erase::complete(tx, id, now)).await?;
            return Ok(EraseStepped::default());
        }
        let step = self.write(move |tx| erase::take(tx, id, &seen)).await?;
        let touched = match step.and_then(|step| step.sandbox) {
            Some(sandbox) => {
                let facts = Arc::clone(&self.facts);
                let channels = self.read(move |connection| erase::channels_of(connection, &facts, sandbox)).await?;
                Some((sandbox, channels))
            }
            None => None,
        };
        Ok(EraseStepped { running: true, touched })
    }

    async fn create_replay(&self, replay: Replay, audit: AuditEntry) -> Result<Replay> {
        self.write(move |tx| replay::create(tx, replay, &audit)).await
    }

    async fn replay(&self, sandbox: SandboxId, id: ReplayId) -> Result<Replay> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| replay::replay(connection, &facts, sandbox, id)).await
    }

    async fn replays(&self, sandbox: SandboxId, page: Page) -> Result<Listed<Replay>> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| replay::replays(connection, &facts, sandbox, &page)).await
    }

    async fn cancel_replay(
        &self,
        edit: Edit<ReplayId>,
        stamp: (Timestamp, String),
        audit: AuditEntry,
    ) -> Result<Replay> {
        self.write(move |tx| replay::cancel(tx, edit, (stamp.0, &stamp.1), &audit)).await
    }

    async fn running_replays(&self) -> Result<Vec<RunningReplay>> {
        let facts = Arc::clone(&self.facts);
        self.read(move |connection| replay::running(connection, &facts)).await
    }

    async fn replay_step(&self, step: ReplayStep) -> Result<ReplayStepped> {
        match self.find(move |finder| replay::look(&finder, &step)).await? {
            Some(seen) if seen.is_news() => self.write(move |tx| replay::take(tx, &step, seen)).await,
            Some(_) => Ok(ReplayStepped { running: true, ..ReplayStepped::default() }),
            None => Ok(ReplayStepped::default()),
        }
    }

    async fn ping(&self) -> Result<()> {
        self.write(|_| Ok(())).await?;
        self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }

    async fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.readers.close().await;
        let checkpoints = self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Checkpoints { close, thread }) = checkpoints {
            drop(close);
            let ended = tokio::task::spawn_blocking(|| thread.join().is_ok());
            if !ended.await.unwrap_or(false) {
                tracing::error!("the checkpoint thread panicked");
            }
        }
        if let Some(writer) = writer {
            writer.close().await;
        }
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
