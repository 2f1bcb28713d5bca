//! The generic driver: takes due rows, gives each its step, writes down what came of it. It knows no HTTP and no SMTP.
//!
//! Each queue (a webhook's, a channel configuration's) is a task of its own with its own rows, limits and circuit, so
//! that one in trouble takes nothing of another's. Rows come as hints, right after their commit, or are read from the
//! store; both are the same rows. What does not fit in memory stays in the store.
//!
//! | module | what it bounds or decides |
//! |---|---|
//! | `queue` | the task: what it is told, what came of its steps, when to write |
//! | `reading` | when to ask the store, and for how much |
//! | `starting` | what to start |
//! | `steps` | who polls the steps under way |
//! | `memory` | the rows in memory, of one queue and of all |
//! | `pace` | how many steps of a queue at a time |
//! | `places` | how many of all queues |
//! | `rate` | how many a second |
//! | `model::circuit` | whether the other side is left alone |
//! | `signals` | what a queue is told besides rows |

mod memory;
mod pace;
mod places;
mod queue;
mod rate;
mod reading;
mod signals;
mod starting;
mod steps;
#[cfg(test)]
mod tests;

pub use memory::Budget;
pub use places::Places;

use crate::admission::Gauge;
use model::circuit::Sign;
use model::clock::{Clock, Entropy, Timestamp};
use model::ids::Shard;
use queue::Queue;
use signals::Signals;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::work::{Due, Lease};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most hints that wait for a queue's task; past it the task is told to read the store instead.
const HINTS_WAITING: usize = 256;
/// How often the store is asked for due rows that no hint told of.
const POLL: Duration = Duration::from_secs(5);

/// Due rows as the store gave them.
#[derive(Debug)]
pub struct Rows<R> {
    /// The rows.
    pub rows: Vec<R>,
    /// When the next one after these is due.
    pub next_at: Option<Timestamp>,
}

/// How fast a queue may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most steps at a time.
    pub concurrency: usize,
    /// The most steps a second.
    pub per_second: Option<u32>,
    /// The longest pause between probes of a side in trouble.
    pub longest_pause: Duration,
}

/// What a row gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A try.
    Try,
    /// None any more: it ends without the other side, which is left alone at present. See [`Work::ends_alone`].
    End,
}

/// What a step leaves behind.
#[derive(Debug)]
pub struct Stepped<D> {
    /// What is to be written down; or the row stays as it is and is left alone until then.
    pub done: Result<D, Timestamp>,
    /// What the step tells of the other side.
    pub sign: Sign,
    /// How long the other side was waited for.
    pub took: Duration,
    /// Nothing of this queue is to be tried before this.
    pub pause_until: Option<Timestamp>,
}

/// What came of writing it down.
#[derive(Debug)]
pub struct Written<R> {
    /// When the row is due again; none: it is done with.
    pub again_at: Option<Timestamp>,
    /// A row that became due with it.
    pub follows: Option<R>,
    /// The queue's settings are to be read anew.
    pub changed: bool,
}

/// A row that is done with, and nothing else.
impl<R> Default for Written<R> {
    fn default() -> Self {
        Self { again_at: None, follows: None, changed: false }
    }
}

/// One kind of work.
pub trait Work: Send + Sync + Debug + 'static {
    /// Names a queue.
    type Queue: Copy + Eq + Hash + Send + Sync + Debug;
    /// A due row.
    type Row: Send + 'static;
    /// Names a row.
    type Key: Copy + Eq + Hash + Send + Sync;
    /// What a queue's steps need: settings, connections.
    type Target: Send + Sync + 'static;
    /// What is written down of a step.
    type Done: Send + 'static;

    /// The row's name.
    fn key(row: &Self::Row) -> Self::Key;
    /// When the row is due.
    fn due_at(row: &Self::Row) -> Timestamp;
    /// Whether the row goes ahead of the others.
    fn is_urgent(row: &Self::Row) -> bool;
    /// About how much memory the row takes.
    fn bytes(row: &Self::Row) -> usize;
    /// How fast the target's queue may go.
    fn limits(target: &Self::Target) -> Limits;
    /// Where the rows that wait for processor time are shown.
    fn gauge(target: &Self::Target) -> &Arc<Gauge>;
    /// Whether the row, while the other side is left alone, is not to wait for it: its time is up, or it never needed it.
    fn ends_alone(target: &Self::Target, row: &Self::Row, now: Timestamp) -> bool;

    /// Every queue with rows that wait.
    fn queues(&self) -> impl Future<Output = store::Result<Vec<Due<Self::Queue>>>> + Send;
    /// Rows of a queue that are due.
    fn read(
        &self,
        queue: Self::Queue,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = store::Result<Rows<Self::Row>>> + Send;
    /// What the queue's steps need, and its shard; none: the queue is held, or gone.
    fn target(
        &self,
        queue: Self::Queue,
    ) -> impl Future<Output = store::Result<Option<(Arc<Self::Target>, Shard)>>> + Send;
    /// Does what the row asks for, under the lease.
    fn step(
        &self,
        target: &Self::Target,
        row: Self::Row,
        turn: Turn,
        lease: Lease,
    ) -> impl Future<Output = Stepped<Self::Done>> + Send;
    /// Writes down what steps have left, in their order, however long the store is away. Nothing is to be written twice.
    fn write(&self, done: Vec<Self::Done>) -> impl Future<Output = Vec<Written<Self::Row>>> + Send;
}

/// Who may work on a shard.
pub trait Leases: Send + Sync + Debug {
    /// The lease of a shard, if this node holds it at `now`.
    fn lease(&self, shard: Shard, now: Timestamp) -> Option<Lease>;
}

/// The way to one queue.
struct Handle<R> {
    hints: mpsc::Sender<Vec<R>>,
    signals: Arc<Signals>,
}

type Handles<W> = RwLock<HashMap<<W as Work>::Queue, Handle<<W as Work>::Row>>>;

/// What all queues of a driver share.
#[derive(Debug)]
pub struct Shared {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Spreads pauses.
    pub entropy: Arc<dyn Entropy>,
    /// Which shards this node works on.
    pub leases: Arc<dyn Leases>,
    /// Places for steps under way.
    pub places: Arc<Places>,
    /// Bounds the rows in memory.
    pub budget: Arc<Budget>,
    /// The most tasks that poll the steps of one queue, 1 or more: what comes of one busy queue is spread over so many
    /// processors.
    pub hands: usize,
    /// Ends the taking of new rows.
    pub stop: CancellationToken,
    /// Knows when every queue's task has ended.
    pub tasks: TaskTracker,
}

/// A driver: the queues of one kind of work.
pub struct Driver<W: Work> {
    work: Arc<W>,
    shared: Arc<Shared>,
    queues: Arc<Handles<W>>,
}

impl<W: Work> Debug for Driver<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("work", &self.work).finish_non_exhaustive()
    }
}

impl<W: Work> Driver<W> {
    /// A driver without queues: they are made as they are needed.
    pub fn new(work: Arc<W>, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { work, shared, queues: Arc::default() })
    }

    /// Asks the store for due rows, at once and every few seconds, until the stop.
    pub async fn poll(self: Arc<Self>) {
        #[cfg(feature = "planted-bugs")]
        if store::planted::is_planted(store::planted::Bug::NoPolling) {
            return;
        }
        while !self.shared.stop.is_cancelled() {
            match self.work.queues().await {
                Ok(due) => self.tell_due(due),
                Err(error) => tracing::warn!(%error, work = ?self.work, "due rows cannot be read"),
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.shared.stop.cancelled() => {}
            }
        }
    }

    fn tell_due(&self, due: Vec<Due<W::Queue>>) {
        let now = self.shared.clock.now();
        let is_ours = |one: &Due<W::Queue>| self.shared.leases.lease(one.shard, now).is_some();
        for one in due.into_iter().filter(|one| one.at <= now + POLL && is_ours(one)) {
            self.signal(one.id, signals::OVERDUE);
        }
    }

    /// Hands rows over that were just committed.
    pub fn rows(&self, queue: W::Queue, rows: Vec<W::Row>) {
        self.tell(queue, |handle| {
            // A queue that is told of nothing but rows need not look for others.
            if handle.hints.try_send(rows).is_err() {
                handle.signals.set(signals::LOST);
            }
        });
    }

    /// Says that rows of the queue were changed: cancelled, or made due. No row from before begins a step any more.
    pub fn rows_changed(&self, queue: W::Queue) {
        self.signal(queue, signals::FORGET);
    }

    /// Says that the queue's settings have changed. No step begins under the former ones any more.
    pub fn changed(&self, queue: W::Queue) {
        self.signal(queue, signals::CHANGED);
    }

    /// Lets all that waits go out at once, whatever the circuit, the pace or a pause say.
    pub fn drain(&self, queue: W::Queue) {
        self.signal(queue, signals::DRAIN);
    }

    fn signal(&self, queue: W::Queue, signal: u8) {
        self.tell(queue, |handle| {
            handle.signals.set(signal);
            // Wakes the task; where the inbox is full it is awake.
            drop(handle.hints.try_send(Vec::new()));
        });
    }

    fn tell(&self, queue: W::Queue, tell: impl FnOnce(&Handle<W::Row>)) {
        if self.shared.stop.is_cancelled() {
            return;
        }
        // Under the lock, so that no queue ends with something told and not heard.
        let known = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = known.get(&queue) {
            return tell(handle);
        }
        drop(known);
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        tell(queues.entry(queue).or_insert_with(|| self.start(queue)));
    }

    fn start(&self, queue: W::Queue) -> Handle<W::Row> {
        let (hints, inbox) = mpsc::channel(HINTS_WAITING);
        let signals = Arc::new(Signals::default());
        let (work, shared) = (Arc::clone(&self.work), Arc::clone(&self.shared));
        let task = Queue::new(queue, work, shared, Arc::clone(&self.queues), Arc::clone(&signals));
        self.shared.tasks.spawn(task.run(inbox));
        Handle { hints, signals }
    }
}
