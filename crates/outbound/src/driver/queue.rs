//! A queue's task: what it is told, and what comes of its steps. How it reads and starts is in modules of their own.

use super::memory::{Came, Memory, Settled};
use super::pace::Pace;
use super::rate::Rate;
use super::reading::{ROWS_FOR_PROBES, ROWS_IN_MEMORY};
use super::signals::{self, Signals};
use super::steps::Steps;
use super::{Handles, POLL, Rows, Shared, Stepped, Turn, Work, Written};
use crate::admission::Share;
use futures_util::FutureExt;
use model::circuit::{Change, Circuit, Sign};
use model::clock::Timestamp;
use model::ids::Shard;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

/// So many writes of a queue at a time: one waits for the disk while the other gathers with those of other queues.
const WRITES_AT_A_TIME: usize = 2;
/// After a step panicked its row is left alone this long.
const PANIC_PAUSE: Duration = Duration::from_secs(60);
/// A queue with nothing to do for so long ends. Its connections have been closed by then.
pub(super) const IDLE: Duration = Duration::from_secs(90);

/// A queue, as its task sees it.
pub(super) struct Queue<W: Work> {
    pub(super) id: W::Queue,
    pub(super) work: Arc<W>,
    pub(super) shared: Arc<Shared>,
    pub(super) queues: Arc<Handles<W>>,
    pub(super) signals: Arc<Signals>,
    pub(super) target: Option<(Arc<W::Target>, Shard)>,
    /// The epoch of the shard's lease when it was looked at last; none: it was another node's.
    pub(super) epoch: Option<u64>,
    /// The target is to be read anew.
    pub(super) is_stale: bool,
    pub(super) memory: Memory<W>,
    /// The store has rows that are due and not in memory: new ones must not overtake them.
    pub(super) is_behind: bool,
    /// When the store is to be looked at next.
    pub(super) look_at: Option<Timestamp>,
    /// When it was looked at last.
    pub(super) looked: Option<Instant>,
    /// At most one read of the store under way: steps go on meanwhile.
    pub(super) reads: JoinSet<store::Result<Rows<W::Row>>>,
    /// Rows that a hint or the read under way may still show as due.
    pub(super) settled: Settled<W::Key>,
    /// Rows written down since the read under way began: whatever it shows of them is from before.
    pub(super) settled_meanwhile: HashSet<W::Key>,
    /// What the read under way finds may have changed since.
    pub(super) read_is_stale: bool,
    /// Rows were left to the store since the read under way began.
    pub(super) left_some: bool,
    /// After trouble with the store.
    pub(super) trouble_until: Option<Instant>,
    pub(super) pause_until: Option<Timestamp>,
    pub(super) circuit: Circuit<W::Key>,
    /// What began before the circuit changed or closed says nothing about how things are now.
    pub(super) circuit_since: u64,
    pub(super) pace: Pace,
    pub(super) rate: Rate,
    pub(super) share: Share,
    /// A step waits for its second's share.
    pub(super) is_rated: bool,
    /// It wants more places and cannot have them now.
    pub(super) is_throttled: bool,
    /// Known rows that are left alone for a while.
    pub(super) parked: Vec<(Timestamp, W::Key)>,
    /// Steps under way.
    pub(super) steps: Steps<Ended<W>>,
    /// The places of the reserve among those that the steps hold.
    pub(super) of_reserve: usize,
    pub(super) done: Vec<(W::Key, W::Done)>,
    /// Those in `done` and those being written.
    pub(super) unwritten: usize,
    pub(super) writes: JoinSet<WriteEnded<W>>,
    /// When it last had anything to do.
    pub(super) active: Instant,
}

/// A step that has ended.
pub(super) struct Ended<W: Work> {
    pub(super) key: W::Key,
    pub(super) number: u64,
    pub(super) turn: Turn,
    pub(super) of_reserve: bool,
    /// None: it panicked.
    pub(super) stepped: Option<Stepped<W::Done>>,
}

/// What was written, by the rows' keys; none: the write panicked.
pub(super) type WriteEnded<W> = (Vec<<W as Work>::Key>, Option<Vec<Written<<W as Work>::Row>>>);

impl<W: Work> Queue<W> {
    pub(super) fn new(
        id: W::Queue,
        work: Arc<W>,
        shared: Arc<Shared>,
        queues: Arc<Handles<W>>,
        signals: Arc<Signals>,
    ) -> Self {
        let now = Instant::now();
        let memory = Memory::new(Arc::clone(&shared.budget));
        let hands = shared.hands;
        Self {
            id,
            work,
            shared,
            queues,
            signals,
            target: None,
            epoch: None,
            is_stale: true,
            memory,
            is_behind: false,
            look_at: None,
            looked: None,
            reads: JoinSet::new(),
            settled: Settled::new(now),
            settled_meanwhile: HashSet::new(),
            read_is_stale: false,
            left_some: false,
            trouble_until: None,
            pause_until: None,
            circuit: Circuit::default(),
            circuit_since: 0,
            pace: Pace::new(now),
            rate: Rate::new(now),
            share: Share::new(now),
            is_rated: false,
            is_throttled: false,
            parked: Vec::new(),
            steps: Steps::new(hands),
            of_reserve: 0,
            done: Vec::new(),
            unwritten: 0,
            writes: JoinSet::new(),
            active: now,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Vec<W::Row>>) {
        let shared = Arc::clone(&self.shared);
        let mut stopped = pin!(shared.stop.cancelled());
        let mut timer = pin!(sleep_until(Instant::now() + IDLE));
        while !shared.stop.is_cancelled() {
            self.advance().await;
            self.steps.flush();
            self.show_waiting();
            if self.active.elapsed() >= IDLE && self.retires(&inbox) {
                return;
            }
            let wake_at = self.wake_at();
            // An earlier time than wanted does no harm, and the timer is seldom touched.
            if timer.is_elapsed() || wake_at < timer.deadline() {
                timer.as_mut().reset(wake_at);
            }
            tokio::select! {
                biased;
                () = &mut stopped => {}
                Some(ended) = self.steps.next() => self.ended(ended),
                Some(written) = self.writes.join_next() => self.written(written),
                Some(found) = self.reads.join_next() => self.found(found),
                rows = inbox.recv() => match rows {
                    Some(rows) => self.take(rows),
                    None => break,
                },
                () = &mut timer => {}
            }
            self.gather(&mut inbox);
        }
        self.end().await;
    }

    fn show_waiting(&mut self) {
        if let Some((target, _)) = &self.target {
            self.share.show(W::gauge(target), self.memory.waiting(), Instant::now());
        }
    }

    /// Takes what has come meanwhile in one go: the next advance sees all of it.
    fn gather(&mut self, inbox: &mut mpsc::Receiver<Vec<W::Row>>) {
        // What this leaves unpolled the next select polls.
        while let Some(Some(ended)) = self.steps.next().now_or_never() {
            self.ended(ended);
        }
        while let Some(written) = self.writes.try_join_next() {
            self.written(written);
        }
        while let Ok(rows) = inbox.try_recv() {
            self.take(rows);
        }
    }

    /// After the stop: waits for what is under way and writes it down.
    async fn end(&mut self) {
        loop {
            self.start_write();
            tokio::select! {
                Some(ended) = self.steps.next() => self.ended(ended),
                Some(written) = self.writes.join_next() => self.written(written),
                else => return,
            }
        }
    }

    /// Takes the queue out of the driver, unless there is something to do after all; a later hint makes a new one.
    fn retires(&mut self, inbox: &mpsc::Receiver<Vec<W::Row>>) -> bool {
        let far = self.shared.clock.now() + IDLE;
        let is_idle = self.memory.known() == 0 && !self.circuit.is_open() && self.look_at.is_none_or(|at| at > far);
        let is_held = self.target.is_none() && !self.is_stale;
        if !(is_idle || is_held) || !self.steps.is_empty() || !self.reads.is_empty() || self.unwritten > 0 {
            self.active = Instant::now();
            return false;
        }
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        let nothing_told = inbox.is_empty() && !self.signals.is_any();
        if nothing_told {
            queues.remove(&self.id);
        }
        nothing_told
    }

    // ---- what the queue is told ----

    fn take(&mut self, rows: Vec<W::Row>) {
        if !rows.is_empty() {
            let now = self.shared.clock.now();
            rows.into_iter().for_each(|row| self.add(row, now));
            self.active = Instant::now();
        }
    }

    /// Takes a row into memory, unless it has to wait for its time or its turn: then it stays in the store.
    fn add(&mut self, row: W::Row, now: Timestamp) {
        if W::due_at(&row) > now {
            return self.look_by(W::due_at(&row));
        }
        if self.settled.contains(W::key(&row), W::due_at(&row), Instant::now) {
            return;
        }
        let most = if self.is_shut(now) { ROWS_FOR_PROBES } else { 2 * ROWS_IN_MEMORY };
        let urgent = W::is_urgent(&row);
        // Urgent rows never wait behind others, neither here nor in the store.
        if urgent && self.memory.known() >= most.min(ROWS_IN_MEMORY) && self.memory.keep_urgent() {
            self.fall_behind(now);
        }
        let is_held = self.target.is_none() && !self.is_stale;
        let overtakes = self.is_behind && !urgent;
        if is_held || overtakes || self.memory.waiting() >= most || !self.memory.hold(row, Came::ByHint) {
            self.fall_behind(now);
        }
    }

    /// Rows were left to the store.
    pub(super) fn fall_behind(&mut self, now: Timestamp) {
        self.is_behind = true;
        self.left_some = true;
        self.look_by(now);
    }

    /// Leaves all but a few of the rows that wait to the store: memory is for those who can use it.
    pub(super) fn keep_few(&mut self, now: Timestamp) {
        if self.memory.keep(ROWS_FOR_PROBES) {
            self.fall_behind(now);
        }
    }

    pub(super) fn heed_signals(&mut self) {
        let told = self.signals.take();
        if told == 0 {
            return;
        }
        let now = self.shared.clock.now();
        let is = |signal| told & signal != 0;
        if is(signals::LOOK) || is(signals::OVERDUE) && self.may_have_missed_some() {
            self.look_by(now);
        }
        if is(signals::LOST) {
            self.fall_behind(now);
        }
        if is(signals::FORGET | signals::CHANGED | signals::DRAIN) {
            // Rows in memory may have been cancelled, or the queue held: all is read anew.
            self.memory.keep(0);
            self.read_is_stale = true;
            self.fall_behind(now);
        }
        if is(signals::CHANGED | signals::DRAIN) {
            self.pause_until = None;
            self.circuit = Circuit::default();
            self.circuit_since = self.pace.next();
        }
        if is(signals::CHANGED) {
            self.is_stale = true;
            self.pace.begin_anew();
        }
        if is(signals::DRAIN) {
            self.pace.restart(self.limits().map_or(1, |limits| limits.concurrency));
        }
    }

    /// With rows in memory the store shows them as due; it is looked at again once they are through.
    fn may_have_missed_some(&self) -> bool {
        let lately = self.looked.is_some_and(|at| at.elapsed() < 6 * POLL);
        self.memory.known() == 0 || !lately
    }

    pub(super) fn look_by(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |known| known.min(at)));
    }

    // ---- what came of steps ----

    pub(super) fn ended(&mut self, ended: Ended<W>) {
        let Ended { key, number, turn, of_reserve, stepped } = ended;
        self.of_reserve -= usize::from(of_reserve);
        let now = self.shared.clock.now();
        let stepped = stepped.unwrap_or_else(|| Stepped::put_back(now + PANIC_PAUSE));
        if turn == Turn::Try {
            self.note(key, number, &stepped, now);
        }
        if let Some(until) = stepped.pause_until {
            self.pause_until = Some(self.pause_until.map_or(until, |known| known.max(until)));
            self.keep_few(now);
        }
        match stepped.done {
            Ok(done) => {
                self.done.push((key, done));
                self.unwritten += 1;
            }
            Err(until) => self.parked.push((until, key)),
        }
    }

    /// What the step tells of the other side.
    fn note(&mut self, key: W::Key, number: u64, stepped: &Stepped<W::Done>, now: Timestamp) {
        let Some(limits) = self.limits() else { return };
        self.pace.note(number, stepped.sign, stepped.took, limits.concurrency, Instant::now());
        let is_late = number < self.circuit_since && !self.circuit.is_open();
        let sign = if is_late && stepped.sign == Sign::Bad { Sign::Neutral } else { stepped.sign };
        let entropy = &self.shared.entropy;
        match self.circuit.note(key, sign, now, || entropy.unit(), limits.longest_pause) {
            Change::None => {}
            Change::Opened => {
                tracing::warn!(queue = ?self.id, "the other side keeps failing: it is probed only, its rows wait");
                self.keep_few(now);
            }
            Change::Closed => {
                tracing::info!(queue = ?self.id, "the other side answers again");
                self.circuit_since = self.pace.next();
                // The backlog goes out at a rate that doubles with each round of successes.
                self.pace.restart(1);
            }
        }
    }

    pub(super) fn written(&mut self, ended: Result<WriteEnded<W>, JoinError>) {
        // Writes catch their panics and are never aborted.
        let Ok((keys, written)) = ended else { return };
        self.unwritten -= keys.len();
        let now = self.shared.clock.now();
        let Some(written) = written else {
            self.parked.extend(keys.into_iter().map(|key| (now + PANIC_PAUSE, key)));
            return;
        };
        keys.into_iter().for_each(|key| self.settle(key));
        for Written { again_at, follows, changed } in written {
            again_at.into_iter().for_each(|at| self.look_by(at));
            self.is_stale |= changed;
            follows.into_iter().for_each(|row| self.add(row, now));
        }
    }

    fn settle(&mut self, key: W::Key) {
        let Some(known) = self.memory.forget(&key) else { return };
        if !self.reads.is_empty() {
            self.settled_meanwhile.insert(key);
        }
        // A hint can only be late where a read was faster.
        if known.came == Came::ByRead || !self.reads.is_empty() {
            self.settled.insert(key, known.due_at, Instant::now());
        }
    }

    pub(super) fn start_write(&mut self) {
        if self.done.is_empty() || self.writes.len() >= WRITES_AT_A_TIME {
            return;
        }
        let (keys, done): (Vec<_>, Vec<_>) = std::mem::take(&mut self.done).into_iter().unzip();
        let work = Arc::clone(&self.work);
        self.writes.spawn(async move { (keys, AssertUnwindSafe(work.write(done)).catch_unwind().await.ok()) });
    }
}
