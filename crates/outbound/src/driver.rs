//! The generic driver: takes due rows, gives each its step, finishes. It knows no HTTP and no SMTP.
//!
//! Each queue (a webhook's, a channel configuration's) is a task of its own with its own rows, limits and clock, so
//! that one in trouble takes nothing of another's. Rows come as hints, right after their commit, or are read from the
//! store; both are the same rows. What does not fit in memory stays in the store.

use crate::ownership::Ownership;
use async_trait::async_trait;
use futures_util::FutureExt;
use model::clock::{Clock, Timestamp};
use model::ids::Shard;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::work::{Due, Lease};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most rows of one queue in memory. With bodies of a few kilobytes this bounds a queue to a few megabytes.
const ROWS_IN_MEMORY: usize = 1_000;
/// When fewer than this are left and the store has more, the next are read.
const FEW_ROWS: usize = 250;
/// The most messages that wait for a queue's task; past it the task is told to read the store instead.
const MESSAGES_WAITING: usize = 256;
/// After trouble with the store a queue waits this long.
const STORE_TROUBLE_PAUSE: Duration = Duration::from_millis(500);
/// How often the store is asked for due rows that no hint told of.
const POLL: Duration = Duration::from_secs(5);
/// While rows are in memory the store is looked at no more often than this: it shows those rows again each time.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// After a step panicked its row is left alone this long.
const PANIC_PAUSE: Duration = Duration::from_secs(60);

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
}

/// What a step leaves behind for its queue.
#[derive(Debug)]
pub struct Stepped<R> {
    /// When the row is due again; none: it is done with.
    pub again_at: Option<Timestamp>,
    /// A row that became due with it.
    pub follows: Option<R>,
    /// The queue's settings are to be read anew.
    pub changed: bool,
    /// Nothing of this queue is to be tried before this.
    pub pause_until: Option<Timestamp>,
}

/// A row that is done with, and nothing else.
impl<R> Default for Stepped<R> {
    fn default() -> Self {
        Self { again_at: None, follows: None, changed: false, pause_until: None }
    }
}

impl<R> Stepped<R> {
    /// A row that is due again at a time.
    pub fn again(at: Timestamp) -> Self {
        Self { again_at: Some(at), ..Self::default() }
    }
}

/// One kind of work.
#[async_trait]
pub trait Work: Send + Sync + Debug + 'static {
    /// Names a queue.
    type Queue: Copy + Eq + Hash + Send + Sync + Debug;
    /// A due row.
    type Row: Send + 'static;
    /// Names a row.
    type Key: Copy + Eq + Hash + Send;
    /// What a queue's steps need: settings, connections.
    type Target: Send + Sync + 'static;

    /// The row's name.
    fn key(row: &Self::Row) -> Self::Key;
    /// When the row is due.
    fn due_at(row: &Self::Row) -> Timestamp;
    /// Whether the row goes ahead of the others.
    fn is_urgent(row: &Self::Row) -> bool;
    /// How fast the target's queue may go.
    fn limits(target: &Self::Target) -> Limits;

    /// Every queue with rows that wait.
    async fn queues(&self) -> store::Result<Vec<Due<Self::Queue>>>;
    /// Rows of a queue that are due.
    async fn read(&self, queue: Self::Queue, now: Timestamp, limit: usize) -> store::Result<Rows<Self::Row>>;
    /// What the queue's steps need, and its shard; none: the queue is held, or gone.
    async fn target(&self, queue: Self::Queue) -> store::Result<Option<(Arc<Self::Target>, Shard)>>;
    /// Does what the row asks for, under the lease, and writes down what came of it.
    async fn step(&self, target: &Self::Target, row: Self::Row, lease: Lease) -> Stepped<Self::Row>;
}

/// What a queue's task is told.
enum Message<R> {
    /// Rows just committed.
    Rows(Vec<R>),
    /// There may be due rows in the store.
    Look,
    /// The store is polled: rows are due that may have been missed.
    Overdue,
    /// The settings have changed.
    Changed,
}

/// The way to one queue.
struct Handle<R> {
    messages: mpsc::Sender<Message<R>>,
    /// A message was dropped: look at everything.
    missed: Arc<AtomicBool>,
}

/// What all queues of a driver share.
pub struct Shared {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Which shards this node works on.
    pub ownership: Arc<Ownership>,
    /// Places for steps under way, for all queues together: given out in the order asked.
    pub places: Arc<Semaphore>,
    /// Ends the taking of new rows.
    pub stop: CancellationToken,
    /// Knows when every queue's task has ended.
    pub tasks: TaskTracker,
}

/// A driver: the queues of one kind of work.
pub struct Driver<W: Work> {
    work: Arc<W>,
    shared: Arc<Shared>,
    queues: RwLock<HashMap<W::Queue, Handle<W::Row>>>,
}

impl<W: Work> Debug for Driver<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("work", &self.work).finish_non_exhaustive()
    }
}

impl<W: Work> Driver<W> {
    /// A driver without queues: they are made as they are needed.
    pub fn new(work: Arc<W>, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { work, shared, queues: RwLock::default() })
    }

    /// Asks the store for due rows, at once and every few seconds, until the stop.
    pub async fn poll(self: Arc<Self>) {
        let mut pause = POLL;
        while !self.shared.stop.is_cancelled() {
            match self.work.queues().await {
                Ok(due) => self.tell_due(due, pause),
                Err(error) => tracing::warn!(%error, work = ?self.work, "due rows cannot be read"),
            }
            pause = POLL;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shared.stop.cancelled() => {}
            }
        }
    }

    fn tell_due(&self, due: Vec<Due<W::Queue>>, ahead: Duration) {
        let horizon = self.shared.clock.now() + ahead;
        for one in due.into_iter().filter(|one| one.at <= horizon && self.shared.ownership.owns(one.shard)) {
            self.tell(one.id, Message::Overdue);
        }
    }

    /// Hands rows over that were just committed.
    pub fn rows(&self, queue: W::Queue, rows: Vec<W::Row>) {
        if rows.is_empty() {
            self.tell(queue, Message::Look);
        } else {
            self.tell(queue, Message::Rows(rows));
        }
    }

    /// Says that the queue's settings have changed.
    pub fn changed(&self, queue: W::Queue) {
        self.tell(queue, Message::Changed);
    }

    fn tell(&self, queue: W::Queue, message: Message<W::Row>) {
        if self.shared.stop.is_cancelled() {
            return;
        }
        let known = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = known.get(&queue) {
            return handle.tell(message);
        }
        drop(known);
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues.entry(queue).or_insert_with(|| self.start(queue)).tell(message);
    }

    fn start(&self, queue: W::Queue) -> Handle<W::Row> {
        let (messages, inbox) = mpsc::channel(MESSAGES_WAITING);
        let missed = Arc::new(AtomicBool::new(false));
        let task = Queue {
            id: queue,
            work: Arc::clone(&self.work),
            shared: Arc::clone(&self.shared),
            missed: Arc::clone(&missed),
            target: None,
            stale: true,
            urgent: VecDeque::new(),
            others: VecDeque::new(),
            known: HashSet::new(),
            behind: false,
            look_at: None,
            looked: None,
            pause_until: None,
            rate: Rate::new(),
            steps: JoinSet::new(),
        };
        self.shared.tasks.spawn(task.run(inbox));
        Handle { messages, missed }
    }
}

impl<R> Handle<R> {
    fn tell(&self, message: Message<R>) {
        if self.messages.try_send(message).is_err() {
            self.missed.store(true, Ordering::Release);
        }
    }
}

/// A queue's task.
struct Queue<W: Work> {
    id: W::Queue,
    work: Arc<W>,
    shared: Arc<Shared>,
    missed: Arc<AtomicBool>,
    target: Option<(Arc<W::Target>, Shard)>,
    /// The target is to be read anew.
    stale: bool,
    urgent: VecDeque<W::Row>,
    others: VecDeque<W::Row>,
    /// The rows in memory, waiting or under way: the store may show them as due.
    known: HashSet<W::Key>,
    /// The store has rows that are due and not in memory: new ones must not overtake them.
    behind: bool,
    /// When the store is to be looked at next.
    look_at: Option<Timestamp>,
    /// When it was looked at last.
    looked: Option<Instant>,
    pause_until: Option<Timestamp>,
    rate: Rate,
    steps: JoinSet<(W::Key, Stepped<W::Row>)>,
}

impl<W: Work> Queue<W> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Message<W::Row>>) {
        let stop = self.shared.stop.clone();
        while !stop.is_cancelled() {
            self.advance().await;
            let wake_at = self.wake_in().map(|wait| Instant::now() + wait);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                Some(done) = self.steps.join_next() => self.settle(done),
                message = inbox.recv() => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                () = sleep_until(wake_at) => {}
            }
            // What has gathered meanwhile is taken in one go: the next advance sees all of it.
            while let Some(done) = self.steps.try_join_next() {
                self.settle(done);
            }
            while let Ok(message) = inbox.try_recv() {
                self.take(message);
            }
        }
        while let Some(done) = self.steps.join_next().await {
            self.settle(done);
        }
    }

    fn take(&mut self, message: Message<W::Row>) {
        match message {
            Message::Rows(rows) => rows.into_iter().for_each(|row| self.add(row)),
            Message::Look => self.look_by(self.shared.clock.now()),
            // With rows in memory the store shows them as due; it is looked at again once they are through.
            Message::Overdue if self.looked_lately() && !self.known.is_empty() => {}
            Message::Overdue => self.look_by(self.shared.clock.now()),
            Message::Changed => {
                // Rows in memory may have been cancelled, or the queue held: all is read anew.
                self.forget_waiting();
                self.stale = true;
                self.pause_until = None;
                self.look_by(self.shared.clock.now());
            }
        }
    }

    fn looked_lately(&self) -> bool {
        self.looked.is_some_and(|at| at.elapsed() < 6 * POLL)
    }

    /// Takes a row into memory, unless it has to wait for its time or its turn: then it stays in the store.
    fn add(&mut self, row: W::Row) {
        let now = self.shared.clock.now();
        if W::due_at(&row) > now {
            self.look_by(W::due_at(&row));
            return;
        }
        let urgent = W::is_urgent(&row);
        if urgent && self.known.len() >= ROWS_IN_MEMORY {
            // Urgent rows never wait behind others, neither here nor in the store.
            let others = std::mem::take(&mut self.others);
            self.forget(others);
        }
        let held = self.target.is_none() && !self.stale;
        let overtakes = self.behind && !urgent;
        if held || overtakes || self.known.len() >= 2 * ROWS_IN_MEMORY {
            self.behind = true;
            self.look_by(now);
        } else {
            self.hold(row);
        }
    }

    fn hold(&mut self, row: W::Row) {
        if self.known.insert(W::key(&row)) {
            if W::is_urgent(&row) { self.urgent.push_back(row) } else { self.others.push_back(row) }
        }
    }

    /// Leaves rows that wait in memory to where they are true: the store.
    fn forget(&mut self, rows: VecDeque<W::Row>) {
        for row in rows {
            self.known.remove(&W::key(&row));
            self.behind = true;
        }
    }

    fn forget_waiting(&mut self) {
        let waiting = [std::mem::take(&mut self.urgent), std::mem::take(&mut self.others)];
        waiting.into_iter().for_each(|rows| self.forget(rows));
    }

    fn look_by(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
    }

    fn settle(&mut self, done: Result<(W::Key, Stepped<W::Row>), tokio::task::JoinError>) {
        // Steps catch their panics and are never aborted.
        let Ok((key, stepped)) = done else { return };
        self.known.remove(&key);
        if let Some(at) = stepped.again_at {
            self.look_by(at);
        }
        if let Some(until) = stepped.pause_until {
            self.pause_until = Some(self.pause_until.map_or(until, |known| known.max(until)));
        }
        self.stale |= stepped.changed;
        if let Some(row) = stepped.follows {
            self.add(row);
        }
    }

    /// Brings the settings and the rows up to date, then starts as many steps as may be.
    async fn advance(&mut self) {
        if self.missed.swap(false, Ordering::Acquire) {
            self.take(Message::Changed);
        }
        if self.stale {
            self.read_target().await;
        }
        if self.target.is_none() {
            return;
        }
        self.read_rows().await;
        self.start_steps().await;
    }

    async fn read_target(&mut self) {
        match self.work.target(self.id).await {
            Ok(target) => {
                self.stale = false;
                if target.is_none() {
                    self.forget_waiting();
                    self.look_at = None;
                }
                self.target = target;
            }
            Err(error) => self.store_trouble(&error),
        }
    }

    fn store_trouble(&mut self, error: &store::StoreError) {
        tracing::warn!(%error, queue = ?self.id, "the store cannot be read");
        self.look_by(self.shared.clock.now() + STORE_TROUBLE_PAUSE);
    }

    fn waiting(&self) -> usize {
        self.urgent.len() + self.others.len()
    }

    async fn read_rows(&mut self) {
        let now = self.shared.clock.now();
        let is_time = self.look_at.is_some_and(|at| at <= now);
        if !is_time || self.waiting() >= FEW_ROWS || self.next_look_in() > Duration::ZERO {
            return;
        }
        // Rows in memory are due in the store too and come first there: room for them, or the read finds no others.
        match self.work.read(self.id, now, self.known.len() + ROWS_IN_MEMORY).await {
            Ok(found) => {
                self.looked = Some(Instant::now());
                self.look_at = found.next_at;
                self.behind = found.next_at.is_some_and(|at| at <= now);
                for row in found.rows {
                    if self.known.len() >= 2 * ROWS_IN_MEMORY {
                        self.behind = true;
                        self.look_by(now);
                        break;
                    }
                    self.hold(row);
                }
            }
            Err(error) => self.store_trouble(&error),
        }
    }

    async fn start_steps(&mut self) {
        let Some((target, shard)) = self.target.clone() else { return };
        let limits = W::limits(&target);
        let now = self.shared.clock.now();
        if self.pause_until.is_some_and(|until| until > now) {
            return;
        }
        self.pause_until = None;
        while self.waiting() > 0 && self.steps.len() < limits.concurrency {
            let Some(lease) = self.shared.ownership.lease(shard, now) else {
                self.forget_waiting();
                return;
            };
            if !self.rate.allows(limits.per_second) {
                return;
            }
            let place = tokio::select! {
                place = Arc::clone(&self.shared.places).acquire_owned() => place,
                () = self.shared.stop.cancelled() => return,
            };
            let (Ok(place), Some(row)) = (place, self.next_row()) else { return };
            let (work, target) = (Arc::clone(&self.work), Arc::clone(&target));
            let key = W::key(&row);
            let after_panic = now + PANIC_PAUSE;
            self.steps.spawn(async move {
                let stepped = AssertUnwindSafe(work.step(&target, row, lease)).catch_unwind().await;
                drop(place);
                (key, stepped.unwrap_or_else(|_| Stepped::again(after_panic)))
            });
        }
    }

    fn next_row(&mut self) -> Option<W::Row> {
        self.urgent.pop_front().or_else(|| self.others.pop_front())
    }

    /// How long the store is to be left alone.
    fn next_look_in(&self) -> Duration {
        let since = self.looked.filter(|_| !self.known.is_empty()).map(|at| at.elapsed());
        since.map_or(Duration::ZERO, |since| BETWEEN_LOOKS.saturating_sub(since))
    }

    /// How long there is nothing to do unless somebody says so; none: for ever.
    fn wake_in(&self) -> Option<Duration> {
        let now = self.shared.clock.now();
        let look = self.look_at.filter(|_| self.waiting() < FEW_ROWS).map(|at| at.since(now).max(self.next_look_in()));
        let waiting = self.waiting() > 0 && self.target.is_some();
        let pause = self.pause_until.filter(|_| waiting).map(|at| at.since(now));
        let rate = if waiting && pause.is_none() { self.rate.next_in() } else { None };
        let held = self.target.is_none() && !self.stale;
        [look, pause, rate].into_iter().flatten().min().filter(|_| !held).map(|wait| wait.max(Duration::from_millis(1)))
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A token bucket of one second's worth.
struct Rate {
    tokens: f64,
    filled: Instant,
    per_second: Option<u32>,
}

impl Rate {
    fn new() -> Self {
        Self { tokens: 1.0, filled: Instant::now(), per_second: None }
    }

    /// Takes a token, if there is one.
    fn allows(&mut self, per_second: Option<u32>) -> bool {
        self.per_second = per_second;
        let Some(rate) = per_second else { return true };
        let now = Instant::now();
        let gained = now.duration_since(self.filled).as_secs_f64() * f64::from(rate);
        // A tenth of a second's worth may gather: bursts stay small, and a tick of the timer loses nothing.
        self.tokens = (self.tokens + gained).min((f64::from(rate) / 10.0).max(1.0));
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// When the next token is there, if one is missing.
    fn next_in(&self) -> Option<Duration> {
        let rate = f64::from(self.per_second?);
        (self.tokens < 1.0).then(|| Duration::from_secs_f64((1.0 - self.tokens) / rate))
    }
}
