//! A store and another side that do as a test says, on tokio's paused clock.

use crate::admission::Gauge;
use crate::driver::{Budget, Driver, Leases, Limits, Places, Rows, Shared, Stepped, Turn, Work, Written};
use model::circuit::Sign;
use model::clock::{Clock, Entropy, Timestamp};
use model::ids::Shard;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::work::{Due, Lease};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Names a row: its queue, and its number there.
pub type Key = (u32, u32);

#[derive(Clone, Debug)]
pub struct Row {
    pub key: Key,
    pub due_at: Timestamp,
    pub urgent: bool,
    pub failures: u32,
}

/// What the other side does.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Ok(Duration),
    /// Fails after so long; the row is tried again five seconds later, and later each time.
    Fail(Sign, Duration),
    /// The same, and asks to be left alone for so long.
    Busy(Duration),
    Panic,
}

pub const FAST: Act = Act::Ok(Duration::from_millis(2));
pub const DOWN: Act = Act::Fail(Sign::Bad, Duration::from_millis(2));
pub const HANG: Act = Act::Fail(Sign::Bad, Duration::from_secs(15));

/// A try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Try {
    pub key: Key,
    /// When, since the start of the test.
    pub at: Duration,
    /// How many of its queue were under way with it.
    pub under_way: usize,
}

/// The rows of a queue, by when they are due.
type Rowset = BTreeMap<(Timestamp, u32), Row>;
type Behave = dyn Fn(Key, Duration) -> Act + Send + Sync;

pub struct Fake {
    start: Instant,
    stored: Mutex<BTreeMap<u32, Rowset>>,
    pub held: Mutex<HashSet<u32>>,
    pub limits: Mutex<Limits>,
    behave: Mutex<Arc<Behave>>,
    pub tries: Mutex<Vec<Try>>,
    /// The rows that were taken.
    pub taken: Mutex<Vec<Key>>,
    /// The rows that ended without a try.
    pub ended: Mutex<Vec<Key>>,
    under_way: Mutex<HashMap<u32, HashSet<Key>>>,
    /// From this age on a row ends alone.
    pub longest: Mutex<Option<Duration>>,
    pub reads: AtomicUsize,
    pub writes: AtomicUsize,
    owned: AtomicBool,
    pub gauge: Arc<Gauge>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

pub const ROW_BYTES: usize = 1024;

/// What a queue's target knows.
pub struct Target {
    limits: Limits,
    longest: Option<Duration>,
    gauge: Arc<Gauge>,
}

impl Work for Fake {
    type Queue = u32;
    type Row = Row;
    type Key = Key;
    type Target = Target;
    type Done = (Row, Option<Timestamp>, bool);

    fn key(row: &Row) -> Key {
        row.key
    }

    fn due_at(row: &Row) -> Timestamp {
        row.due_at
    }

    fn is_urgent(row: &Row) -> bool {
        row.urgent
    }

    fn bytes(_: &Row) -> usize {
        ROW_BYTES
    }

    fn limits(target: &Target) -> Limits {
        target.limits
    }

    fn gauge(target: &Target) -> &Arc<Gauge> {
        &target.gauge
    }

    fn ends_alone(target: &Target, row: &Row, now: Timestamp) -> bool {
        target.longest.is_some_and(|longest| now.since(row.due_at) >= longest)
    }

    async fn queues(&self) -> store::Result<Vec<Due<u32>>> {
        let stored = self.stored.lock().unwrap();
        let first = |rows: &Rowset| rows.keys().next().map(|(at, _)| *at);
        Ok(stored.iter().filter_map(|(id, rows)| Some(Due { id: *id, shard: Shard(0), at: first(rows)? })).collect())
    }

    async fn read(&self, queue: u32, now: Timestamp, limit: usize) -> store::Result<Rows<Row>> {
        let found = self.due(queue, now, limit);
        // Much can happen after the store was looked at and before the answer is there.
        sleep(Duration::from_millis(7)).await;
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(found)
    }

    async fn target(&self, queue: u32) -> store::Result<Option<(Arc<Target>, Shard)>> {
        let held = self.held.lock().unwrap().contains(&queue);
        let target = Target {
            limits: *self.limits.lock().unwrap(),
            longest: *self.longest.lock().unwrap(),
            gauge: Arc::clone(&self.gauge),
        };
        Ok((!held).then(|| (Arc::new(target), Shard(0))))
    }

    async fn step(&self, _: &Target, row: Row, turn: Turn, _: Lease) -> Stepped<Self::Done> {
        if turn == Turn::End {
            self.ended.lock().unwrap().push(row.key);
            let done = Ok((row, None, false));
            return Stepped { done, sign: Sign::Bad, took: Duration::ZERO, pause_until: None };
        }
        let act = self.begin(&row);
        let (sign, took) = match act {
            Act::Ok(took) => (Sign::Good, took),
            Act::Fail(sign, took) => (sign, took),
            Act::Busy(_) => (Sign::Bad, Duration::from_millis(2)),
            Act::Panic => panic!("as the test wants it"),
        };
        sleep(took).await;
        self.under_way.lock().unwrap().get_mut(&row.key.0).unwrap().remove(&row.key);
        let again = (sign != Sign::Good).then(|| self.now() + Duration::from_secs(5 << row.failures.min(6)));
        let pause_until = if let Act::Busy(pause) = act { Some(self.now() + pause) } else { None };
        Stepped { done: Ok((row, again, sign == Sign::Good)), sign, took, pause_until }
    }

    async fn write(&self, done: Vec<Self::Done>) -> Vec<Written<Row>> {
        sleep(Duration::from_millis(1)).await;
        self.writes.fetch_add(1, Ordering::SeqCst);
        done.into_iter().map(|done| self.write_down(done)).collect()
    }
}

impl Fake {
    pub fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000) + self.start.elapsed()
    }

    fn due(&self, queue: u32, now: Timestamp, limit: usize) -> Rows<Row> {
        let stored = self.stored.lock().unwrap();
        let Some(all) = stored.get(&queue) else { return Rows { rows: Vec::new(), next_at: None } };
        let due = || all.values().filter(|row| row.due_at <= now);
        let rows: Vec<_> = due().filter(|row| row.urgent).chain(due().filter(|row| !row.urgent)).cloned().collect();
        let next_at = match rows.len() >= limit {
            true => Some(now),
            false => all.keys().map(|(at, _)| *at).find(|at| *at > now),
        };
        Rows { rows: rows.into_iter().take(limit).collect(), next_at }
    }

    fn begin(&self, row: &Row) -> Act {
        let at = self.start.elapsed();
        let under_way = {
            let mut under_way = self.under_way.lock().unwrap();
            let queue = under_way.entry(row.key.0).or_default();
            assert!(queue.insert(row.key), "{:?} is tried twice at a time", row.key);
            queue.len()
        };
        self.tries.lock().unwrap().push(Try { key: row.key, at, under_way });
        let behave = Arc::clone(&self.behave.lock().unwrap());
        let act = behave(row.key, at);
        if matches!(act, Act::Panic) {
            self.under_way.lock().unwrap().get_mut(&row.key.0).unwrap().remove(&row.key);
        }
        act
    }

    fn write_down(&self, (row, again_at, taken): (Row, Option<Timestamp>, bool)) -> Written<Row> {
        let mut stored = self.stored.lock().unwrap();
        let Some(rows) = stored.get_mut(&row.key.0) else { return Written::default() };
        // Cancelled meanwhile: nothing changes.
        let is_it = |(_, stored): &(&(Timestamp, u32), &Row)| stored.key == row.key && stored.failures == row.failures;
        let place = match rows.contains_key(&(row.due_at, row.key.1)) {
            true => Some((row.due_at, row.key.1)),
            // Made due anew meanwhile.
            false => rows.iter().find(is_it).map(|(place, _)| *place),
        };
        let Some(row) = place.and_then(|place| rows.remove(&place)) else { return Written::default() };
        if taken {
            self.taken.lock().unwrap().push(row.key);
        }
        if let Some(at) = again_at {
            rows.insert((at, row.key.1), Row { due_at: at, failures: row.failures + 1, ..row });
        }
        Written { again_at, ..Written::default() }
    }

    /// Stores rows of a queue with these numbers, due now.
    pub fn store(&self, queue: u32, numbers: std::ops::Range<u32>, urgent: bool) -> Vec<Row> {
        let due_at = self.now();
        let rows: Vec<_> = numbers.map(|n| Row { key: (queue, n), due_at, urgent, failures: 0 }).collect();
        let mut stored = self.stored.lock().unwrap();
        stored.entry(queue).or_default().extend(rows.iter().map(|row| ((due_at, row.key.1), row.clone())));
        rows
    }

    pub fn cancel(&self, queue: u32, is_cancelled: impl Fn(u32) -> bool) {
        self.stored.lock().unwrap().get_mut(&queue).unwrap().retain(|(_, number), _| !is_cancelled(*number));
    }

    /// Makes all of a queue due now.
    pub fn make_due(&self, queue: u32) {
        let now = self.now();
        let mut stored = self.stored.lock().unwrap();
        let rows = stored.get_mut(&queue).unwrap();
        let all = std::mem::take(rows);
        rows.extend(all.into_values().map(|row| ((now, row.key.1), Row { due_at: now, ..row })));
    }

    pub fn behave(&self, behave: impl Fn(Key, Duration) -> Act + Send + Sync + 'static) {
        *self.behave.lock().unwrap() = Arc::new(behave);
    }

    pub fn own(&self, owned: bool) {
        self.owned.store(owned, Ordering::SeqCst);
    }

    pub fn tries_of(&self, queue: u32) -> Vec<Try> {
        self.tries.lock().unwrap().iter().filter(|one| one.key.0 == queue).copied().collect()
    }

    pub fn taken_of(&self, queue: u32) -> usize {
        self.taken.lock().unwrap().iter().filter(|key| key.0 == queue).count()
    }
}

#[derive(Debug)]
struct FakeClock(Arc<Fake>);

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

#[derive(Debug)]
struct FakeLeases(Arc<Fake>);

impl Leases for FakeLeases {
    fn lease(&self, shard: Shard, now: Timestamp) -> Option<Lease> {
        let owned = self.0.owned.load(Ordering::SeqCst);
        owned.then(|| Lease { shard, epoch: 1, until: now + Duration::from_secs(30) })
    }
}

#[derive(Debug)]
struct NoJitter;

impl Entropy for NoJitter {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// A driver over a fake.
pub struct Rig {
    pub fake: Arc<Fake>,
    pub driver: Arc<Driver<Fake>>,
    pub budget: Arc<Budget>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(4096, 48 << 20)
    }

    /// With so many places, and so many bytes for rows in memory.
    pub fn with(places: usize, bytes: usize) -> Self {
        let limits = Limits { concurrency: 64, per_second: None, longest_pause: Duration::from_secs(60) };
        let fake = Arc::new(Fake {
            start: Instant::now(),
            stored: Mutex::default(),
            held: Mutex::default(),
            limits: Mutex::new(limits),
            behave: Mutex::new(Arc::new(|_, _| FAST)),
            tries: Mutex::default(),
            taken: Mutex::default(),
            ended: Mutex::default(),
            under_way: Mutex::default(),
            longest: Mutex::default(),
            reads: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            owned: AtomicBool::new(true),
            gauge: Arc::default(),
        });
        let (stop, tasks, budget) = (CancellationToken::new(), TaskTracker::new(), Budget::new(bytes));
        let shared = Shared {
            clock: Arc::new(FakeClock(Arc::clone(&fake))),
            entropy: Arc::new(NoJitter),
            leases: Arc::new(FakeLeases(Arc::clone(&fake))),
            places: Places::new(places),
            budget: Arc::clone(&budget),
            hands: 2,
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        let driver = Driver::new(Arc::clone(&fake), Arc::new(shared));
        Self { fake, driver, budget, stop, tasks }
    }

    /// Starts the polling, too.
    pub fn polling(self) -> Self {
        self.tasks.spawn(Arc::clone(&self.driver).poll());
        self
    }

    /// Rows are stored and handed over, twenty at a time.
    pub fn give(&self, queue: u32, numbers: std::ops::Range<u32>) {
        self.give_so(queue, numbers, false);
    }

    pub fn give_so(&self, queue: u32, numbers: std::ops::Range<u32>, urgent: bool) {
        for rows in self.fake.store(queue, numbers, urgent).chunks(20) {
            self.driver.rows(queue, rows.to_vec());
        }
    }

    pub fn since_start(&self) -> Duration {
        self.fake.start.elapsed()
    }

    /// Waits until it is so; the time since the start.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Fake) -> bool) -> Duration {
        for _ in 0..1_000_000 {
            if is_so(&self.fake) {
                return self.since_start();
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("waited for {what} in vain");
    }

    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub fn queues(&self) -> usize {
        self.driver.queues.read().unwrap().len()
    }
}
