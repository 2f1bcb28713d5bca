//! The one writer: a thread that commits whatever has gathered.
//!
//! While one commit waits for the disk the next jobs gather, so that many share an fsync (group commit). A unit that
//! fails before its first write fails alone; one that may fail later has a savepoint, or the whole commit is undone and
//! its callers come again. Nobody hears of success before the commit is on disk.

use super::facts::Facts;
use super::search::Progress;
use crate::shared::change::sequence_at;
use crate::statistics::Counting;
use crate::{Result, StoreError, effort};
use model::campaign::CampaignStatus;
use model::clock::Timestamp;
use model::ids::{CampaignId, SHARDS};
use model::webhook::Webhook;
use rusqlite::Connection;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The most jobs of one commit.
const JOBS_PER_COMMIT: usize = 512;
/// After a unit failed half-way, this many commits guard each unit by a savepoint: long enough for the same unit to come
/// again and fail alone.
const CAREFUL_COMMITS: u32 = 100;
/// While more than single units come, commits begin no closer together than this: each costs an fsync and the writing of
/// every page it touched, however few units it holds. What comes alone does not wait.
const BETWEEN_COMMITS: Duration = Duration::from_micros(500);
/// The same where all that comes has waited long already, for processor time or in a backlog: there fewer and larger
/// commits get everybody further.
const BETWEEN_COMMITS_AT_MOST: Duration = Duration::from_millis(2);
/// A commit may make what it holds later by about this part of the age of the youngest.
const PART_OF_AGE: u32 = 2;
/// A commit of fewer units says that little comes.
const UNITS_OF_A_CROWD: usize = 8;
/// So long the writer waits for readers to let go of the log.
const READERS_LIMIT: Duration = Duration::from_millis(5);
/// The most jobs that wait; past it callers wait in turn.
const JOBS_WAITING: usize = 4096;
/// When the write-ahead log has grown to this, the writer itself finishes the checkpoint, so that the log starts anew.
pub(super) const LOG_LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// What the writer knows by heart. It is the only one that changes these, so its memory is exact.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Campaigns by sandbox, with their live version.
    pub campaigns: HashMap<(i64, CampaignId), CampaignFacts>,
    /// The webhook of each sandbox, without its secrets.
    pub webhooks: HashMap<i64, Option<Arc<Webhook>>>,
}

/// What accepting an execution needs of a campaign.
#[derive(Clone, Debug)]
pub(super) struct CampaignFacts {
    pub status: CampaignStatus,
    pub live: Option<i64>,
}

/// What the writer thread owns.
#[derive(Debug)]
pub(super) struct State {
    pub facts: Arc<Facts>,
    pub memory: Memory,
    pub search: Arc<Progress>,
    /// The last sequence given to an event.
    pub sequence: i64,
    /// The epoch of each shard.
    pub epochs: Vec<u64>,
    /// How many messages wait to be sent.
    pub waiting: u64,
    /// Past this many no execution is accepted.
    pub max_waiting: u64,
    /// What this commit has counted.
    pub counted: Counting,
    /// The least time, of all outcomes and attempts in this commit, since what they are about was accepted or recorded.
    least_age: Option<Duration>,
    /// For how many commits each unit still gets a savepoint.
    careful: u32,
    /// A unit without a savepoint failed after a write: the transaction must be undone.
    spoiled: bool,
}

impl State {
    pub fn new(facts: Arc<Facts>, max_waiting: u64) -> Self {
        let epochs = vec![0; usize::from(SHARDS)];
        Self {
            facts,
            memory: Memory::default(),
            search: Arc::default(),
            sequence: 0,
            epochs,
            waiting: 0,
            max_waiting,
            counted: Counting::default(),
            least_age: None,
            careful: 0,
            spoiled: false,
        }
    }
}

/// A transaction under way, as a unit of work sees it.
pub(super) struct Tx<'a> {
    pub connection: &'a Connection,
    pub state: &'a mut State,
}

impl Tx<'_> {
    /// The next place in the feed: later than every one before, about a quarter of a microsecond apart.
    pub fn next_sequence(&mut self, now: Timestamp) -> i64 {
        self.state.sequence = (self.state.sequence + 1).max(sequence_at(now));
        self.state.sequence
    }

    /// Notes how long ago that was accepted or recorded whose outcome or attempt this unit is about.
    pub fn note_age(&mut self, age: Duration) {
        self.state.least_age = Some(self.state.least_age.map_or(age, |least| least.min(age)));
    }

    /// Runs `work`, which happens whole or not at all, on the expectation that it does not fail after its first write.
    /// If it does, the whole transaction is undone, and the next ones guard each unit again: a savepoint copies every
    /// page that a unit touches, which took a tenth of the writer's time.
    fn hopeful_unit<T>(&mut self, work: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        if self.state.careful > 0 {
            return self.unit(work);
        }
        if self.state.spoiled || self.connection.is_autocommit() {
            return Err(StoreError::Unavailable("the transaction is being undone".to_owned()));
        }
        let (waiting, counted) = (self.state.waiting, self.state.counted.mark());
        let changes = self.connection.total_changes();
        let result = work(self);
        if result.is_err() {
            self.state.waiting = waiting;
            self.state.counted.undo_to(counted);
            self.state.memory = Memory::default();
            self.state.spoiled = self.connection.total_changes() != changes;
        }
        result
    }

    /// Runs `work` so that it happens whole or not at all.
    fn unit<T>(&mut self, work: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
        if self.connection.is_autocommit() {
            // A full disk, for one, undoes the whole transaction. What came now would be committed on its own.
            return Err(StoreError::Unavailable("the transaction was undone".to_owned()));
        }
        if self.state.spoiled {
            return Err(StoreError::Unavailable("the transaction is being undone".to_owned()));
        }
        let (waiting, counted) = (self.state.waiting, self.state.counted.mark());
        self.connection.prepare_cached("SAVEPOINT unit")?.execute([])?;
        let result = work(self);
        if result.is_err() {
            self.state.waiting = waiting;
            self.state.counted.undo_to(counted);
            self.state.memory = Memory::default();
            self.connection.prepare_cached("ROLLBACK TO unit")?.execute([])?;
        }
        self.connection.prepare_cached("RELEASE unit")?.execute([])?;
        result
    }
}

/// Something to do in a transaction. `settle` tells its caller once the commit is decided, and why it failed if it did.
trait Job: Send {
    /// How many units it is.
    fn units(&self) -> usize;
    fn run(&mut self, tx: &mut Tx<'_>);
    fn settle(self: Box<Self>, failure: Option<&str>);
}

struct Units<I, T, F> {
    inputs: Vec<I>,
    /// Whether each gets a savepoint.
    guarded: bool,
    work: F,
    results: Vec<Result<T>>,
    reply: oneshot::Sender<Vec<Result<T>>>,
}

impl<I: Send, T: Send, F: FnMut(&mut Tx<'_>, I) -> Result<T> + Send> Job for Units<I, T, F> {
    fn units(&self) -> usize {
        self.inputs.len()
    }

    fn run(&mut self, tx: &mut Tx<'_>) {
        for input in std::mem::take(&mut self.inputs) {
            let work = &mut self.work;
            self.results.push(match self.guarded {
                true => tx.unit(|tx| work(tx, input)),
                false => tx.hopeful_unit(|tx| work(tx, input)),
            });
        }
    }

    fn settle(self: Box<Self>, failure: Option<&str>) {
        let results = match failure {
            None => self.results,
            Some(why) => self.results.iter().map(|_| Err(StoreError::Unavailable(why.to_owned()))).collect(),
        };
        // A caller that went away does not care; what was committed stays.
        let _ = self.reply.send(results);
    }
}

/// The one writer: a thread; in a simulation a task.
#[derive(Debug)]
pub(super) struct Writer {
    entrance: Entrance,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Thread(std::thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

/// The way to the writer, which lives as long as there is one.
#[derive(Clone, Debug)]
pub(super) struct Entrance {
    jobs: mpsc::Sender<Box<dyn Job>>,
}

/// The same for work that is not to keep the writer alive between its tries.
#[derive(Clone, Debug)]
pub(super) struct WeakEntrance {
    jobs: mpsc::WeakSender<Box<dyn Job>>,
}

impl WeakEntrance {
    /// The way in, unless the store is closed.
    pub fn upgrade(&self) -> Option<Entrance> {
        self.jobs.upgrade().map(|jobs| Entrance { jobs })
    }
}

impl Writer {
    /// Starts the thread. `log` is the file of the write-ahead log, `log_is_long` is set by the checkpoint thread.
    pub fn start(connection: Connection, state: State, log_is_long: Arc<AtomicBool>) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING);
        let thread = std::thread::Builder::new()
            .name("esito-writer".to_owned())
            .spawn(move || write_until_closed(&connection, state, waiting, &log_is_long))?;
        Ok(Self { entrance: Entrance { jobs }, running: Running::Thread(thread) })
    }

    /// The same as a task of this runtime, for a simulation: `seam` stands around each commit.
    pub fn start_inline(connection: Connection, state: State, seam: Arc<dyn CommitSeam>) -> Self {
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING);
        let task = tokio::spawn(write_inline(connection, state, waiting, seam));
        Self { entrance: Entrance { jobs }, running: Running::Task(task) }
    }

    /// A way to the writer.
    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// Waits until all that was begun is written and the writer has ended.
    pub async fn close(self) {
        drop(self.entrance);
        let ended = match self.running {
            Running::Thread(thread) => tokio::task::spawn_blocking(|| thread.join().is_ok()).await.unwrap_or(false),
            Running::Task(task) => task.await.is_ok(),
        };
        if !ended {
            tracing::error!("the writer panicked");
        }
    }
}

impl Entrance {
    /// Does `work` in one unit.
    pub async fn once<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.single(true, work).await
    }

    /// Does `work` in one unit; for work that checks first and then writes.
    pub async fn once_hopefully<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.single(false, work).await
    }

    async fn single<T: Send + 'static>(
        &self,
        guarded: bool,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut work = Some(work);
        let run = move |tx: &mut Tx<'_>, ()| match work.take() {
            Some(work) => work(tx),
            None => Err(StoreError::Corrupt("a unit ran twice".to_owned())),
        };
        let mut results = self.send(vec![()], guarded, run).await?;
        results.pop().unwrap_or_else(|| Err(StoreError::Unavailable("the writer gave no answer".to_owned())))
    }

    /// Does `work`, which checks first and then writes, for each input, each in a unit of its own, all in one commit.
    pub async fn each<I: Send + 'static, T: Send + 'static>(
        &self,
        inputs: Vec<I>,
        work: impl FnMut(&mut Tx<'_>, I) -> Result<T> + Send + 'static,
    ) -> Result<Vec<Result<T>>> {
        self.send(inputs, false, work).await
    }

    async fn send<I: Send + 'static, T: Send + 'static>(
        &self,
        inputs: Vec<I>,
        guarded: bool,
        work: impl FnMut(&mut Tx<'_>, I) -> Result<T> + Send + 'static,
    ) -> Result<Vec<Result<T>>> {
        let (reply, answer) = oneshot::channel();
        let results = Vec::with_capacity(inputs.len());
        let job = Box::new(Units { inputs, guarded, work, results, reply });
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        self.jobs.send(job).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }

    /// The same way in for whoever does not keep the writer alive.
    pub fn downgrade(&self) -> WeakEntrance {
        WeakEntrance { jobs: self.jobs.downgrade() }
    }

    /// Repeats a bounded step of a long change until it finds nothing more; returns the sum.
    pub async fn repeat(&self, step: impl Fn(&mut Tx<'_>) -> Result<usize> + Clone + Send + 'static) -> Result<u64> {
        let mut sum = 0;
        loop {
            let step = step.clone();
            match self.once(move |tx| step(tx)).await? {
                0 => return Ok(sum),
                changed => sum += changed as u64,
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the writer has a thread of its own, and what comes meanwhile gathers")]
fn sleep_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

fn write_until_closed(
    connection: &Connection,
    mut state: State,
    mut waiting: mpsc::Receiver<Box<dyn Job>>,
    log_is_long: &AtomicBool,
) {
    let mut batch = Vec::with_capacity(JOBS_PER_COMMIT);
    let mut next_at = Instant::now();
    while let Some(first) = waiting.blocking_recv() {
        batch.push(first);
        sleep_until(next_at);
        let begun = Instant::now();
        gather(&mut batch, &mut waiting);
        let units: usize = batch.iter().map(|job| job.units()).sum();
        state.least_age = None;
        let failure = commit(connection, &mut state, &mut batch, None);
        next_at = if units >= UNITS_OF_A_CROWD { begun + between_commits(state.least_age) } else { begun };
        settle(&mut batch, failure.as_deref());
        if log_is_long.swap(false, Ordering::Relaxed) {
            checkpoint(connection);
        }
    }
}

fn between_commits(least_age: Option<Duration>) -> Duration {
    let part = least_age.map_or(Duration::ZERO, |age| age / PART_OF_AGE);
    part.clamp(BETWEEN_COMMITS, BETWEEN_COMMITS_AT_MOST)
}

/// What stands around each commit in a simulation.
#[async_trait::async_trait]
pub trait CommitSeam: Send + Sync + std::fmt::Debug {
    /// Jobs wait; what comes until this returns shares their commit. One that never returns is a crash before the
    /// commit; an error is a commit that the disk refuses.
    async fn before(&self) -> std::result::Result<(), String>;

    /// The commit is durable, and nobody has heard of it. One that never returns is a crash right after the commit.
    async fn after(&self);
}

/// [`write_until_closed`] for a simulation.
async fn write_inline(
    connection: Connection,
    mut state: State,
    mut waiting: mpsc::Receiver<Box<dyn Job>>,
    seam: Arc<dyn CommitSeam>,
) {
    let mut batch = Vec::with_capacity(JOBS_PER_COMMIT);
    while let Some(first) = waiting.recv().await {
        batch.push(first);
        let refused = seam.before().await.err();
        gather(&mut batch, &mut waiting);
        let failure = commit(&connection, &mut state, &mut batch, refused);
        seam.after().await;
        settle(&mut batch, failure.as_deref());
    }
}

fn gather(batch: &mut Vec<Box<dyn Job>>, waiting: &mut mpsc::Receiver<Box<dyn Job>>) {
    while batch.len() < JOBS_PER_COMMIT {
        match waiting.try_recv() {
            Ok(job) => batch.push(job),
            Err(_) => break,
        }
    }
}

fn settle(batch: &mut Vec<Box<dyn Job>>, failure: Option<&str>) {
    for job in batch.drain(..) {
        job.settle(failure);
    }
}

/// Runs a batch and commits it, unless `refused` says that it is to fail; returns why it failed if it did.
fn commit(
    connection: &Connection,
    state: &mut State,
    batch: &mut [Box<dyn Job>],
    refused: Option<String>,
) -> Option<String> {
    let (waiting, changes) = (state.waiting, connection.total_changes());
    let outcome = run_batch(connection, state, batch, refused);
    effort::add_rows_written(connection.total_changes().saturating_sub(changes));
    if let Err(error) = &outcome {
        tracing::error!(%error, jobs = batch.len(), "a commit failed");
        // Best effort: if this fails too there is no transaction any more.
        let _ = connection.execute_batch("ROLLBACK");
        state.waiting = waiting;
        state.counted.undo_to(0);
        state.memory = Memory::default();
        state.facts.clear();
        if let Err(error) = super::shards::epochs(connection, &mut state.epochs) {
            tracing::error!(%error, "the epochs could not be read: no lease holds until the shards are claimed anew");
        }
    }
    outcome.err().map(|error| error.to_string())
}

fn run_batch(
    connection: &Connection,
    state: &mut State,
    batch: &mut [Box<dyn Job>],
    refused: Option<String>,
) -> Result<()> {
    state.spoiled = false;
    state.careful = state.careful.saturating_sub(1);
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for job in batch.iter_mut() {
        job.run(&mut Tx { connection, state });
    }
    if state.spoiled {
        state.careful = CAREFUL_COMMITS;
        return Err(StoreError::Unavailable("a unit failed after it had written".to_owned()));
    }
    if let Some(why) = refused {
        return Err(StoreError::Unavailable(why));
    }
    // Where SQLite has undone the transaction itself, what came now would be committed on its own.
    if !connection.is_autocommit() {
        super::statistics::write(connection, &mut state.counted)?;
    }
    Ok(connection.prepare_cached("COMMIT")?.execute([]).map(|_| ())?)
}

/// Moves what is left of the log into the file and starts the log anew, unless a reader still looks at it.
fn checkpoint(connection: &Connection) {
    let restart = || {
        // A backup may look at the log for minutes: others' commits are not to wait for it.
        connection.busy_timeout(READERS_LIMIT)?;
        let restarted = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
        connection.busy_timeout(super::BUSY_LIMIT)?;
        restarted
    };
    if let Err(error) = restart() {
        tracing::warn!(%error, "a checkpoint failed");
    }
}

/// The checkpoint thread: moves the log into the file beside the writer, and tells the writer when the log is long.
pub(super) fn checkpoint_until_closed(
    connection: &Connection,
    log: &PathBuf,
    log_is_long: &AtomicBool,
    disk: &super::disk::Disk,
    closed: &std::sync::mpsc::Receiver<()>,
) {
    use std::sync::mpsc::RecvTimeoutError;
    let mut moved_at = 0;
    while let Err(RecvTimeoutError::Timeout) = closed.recv_timeout(Duration::from_millis(500)) {
        disk.look();
        let length = std::fs::metadata(log).map_or(0, |file| file.len());
        if length == moved_at && length < LOG_LIMIT_BYTES {
            continue;
        }
        moved_at = length;
        if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            tracing::warn!(%error, "a checkpoint failed");
        }
        if length >= LOG_LIMIT_BYTES {
            log_is_long.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (a); CREATE TABLE shard (shard, epoch)").unwrap();
        Writer::start(connection, State::new(Arc::default(), 10), Arc::default()).unwrap()
    }

    fn insert(tx: &mut Tx<'_>, value: i64) -> Result<()> {
        tx.connection.execute("INSERT INTO t VALUES (?1)", [value])?;
        if value < 0 { Err(StoreError::Corrupt("a negative value".to_owned())) } else { Ok(()) }
    }

    async fn stored(entrance: &Entrance) -> Vec<i64> {
        let read = |tx: &mut Tx<'_>| {
            let mut query = tx.connection.prepare("SELECT a FROM t ORDER BY a")?;
            Ok(query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        };
        entrance.once(read).await.unwrap()
    }

    #[test]
    fn commits_keep_apart_by_a_part_of_what_their_units_have_waited() {
        let between = |age| between_commits(age).as_micros();
        assert_eq!(between(None), 500);
        assert_eq!(between(Some(Duration::ZERO)), 500);
        assert_eq!(between(Some(Duration::from_millis(3))), 1_500);
        assert_eq!(between(Some(Duration::from_secs(60))), 2_000);
    }

    #[tokio::test]
    async fn a_unit_that_fails_half_way_undoes_its_commit_once_and_then_fails_alone() {
        let writer = writer();
        let entrance = writer.entrance();
        let results = entrance.each(vec![1, -1, 2], insert).await.unwrap();
        assert!(results.iter().all(|result| matches!(result, Err(StoreError::Unavailable(_)))));
        assert_eq!(stored(&entrance).await, [0; 0]);
        let results = entrance.each(vec![1, -1, 2], insert).await.unwrap();
        assert!(matches!(results[1], Err(StoreError::Corrupt(_))));
        assert!(results[0].is_ok() && results[2].is_ok());
        assert_eq!(stored(&entrance).await, [1, 2]);
        drop(entrance);
        writer.close().await;
    }
}
