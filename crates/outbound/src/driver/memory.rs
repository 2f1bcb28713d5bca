//! The rows of a queue in memory, within a bound over all queues of a driver.
//!
//! What does not fit stays in the store, where it is true anyway.

use super::Work;
use model::clock::Timestamp;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The rows that a queue may hold whatever others do.
pub(super) const FEW: usize = 4;
/// What a row is taken to need before any was seen: a first read of the largest ones must not be too much.
const UNKNOWN: usize = 64 * 1024;
/// The rows that a search for a certain one looks at.
const LOOKED_AT: usize = 32;

/// The bytes of rows in memory, over all queues.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    all: usize,
}

impl Budget {
    /// A budget of so many bytes. A queue may have an eighth of it.
    pub fn new(all: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), all })
    }

    /// The bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn left(&self) -> usize {
        self.all.saturating_sub(self.used())
    }

    fn of_a_queue(&self) -> usize {
        self.all / 8
    }
}

/// What is kept of a row whose content is under way.
#[derive(Debug)]
pub(super) struct Known {
    bytes: usize,
    pub(super) due_at: Timestamp,
    pub(super) came: Came,
}

/// How a row came into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    ByHint,
    ByRead,
}

/// The rows of one queue.
pub(super) struct Memory<W: Work> {
    urgent: VecDeque<W::Row>,
    others: VecDeque<W::Row>,
    /// The rows that wait here, are under way, or left alone for a while, each with its bytes: the store may show them
    /// as due.
    known: HashMap<W::Key, Known>,
    bytes: usize,
    /// The bytes of a row, on average of late.
    each: usize,
    budget: Arc<Budget>,
}

impl<W: Work> Memory<W> {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            urgent: VecDeque::new(),
            others: VecDeque::new(),
            known: HashMap::new(),
            bytes: 0,
            each: UNKNOWN,
            budget,
        }
    }

    /// The rows that wait for their step.
    pub(super) fn waiting(&self) -> usize {
        self.urgent.len() + self.others.len()
    }

    /// All rows that are known.
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    /// How many more rows of the usual size the bounds leave room for; a few in any case.
    pub(super) fn room(&self) -> usize {
        let left = self.budget.left().min(self.budget.of_a_queue().saturating_sub(self.bytes));
        (left / self.each.max(1)).max(FEW.saturating_sub(self.waiting()))
    }

    /// Takes a row, unless it is known already; false: there is no room.
    pub(super) fn hold(&mut self, row: W::Row, came: Came) -> bool {
        let key = W::key(&row);
        if self.known.contains_key(&key) {
            return true;
        }
        let bytes = W::bytes(&row);
        let fits = bytes <= self.budget.left() && self.bytes + bytes <= self.budget.of_a_queue();
        if !fits && self.waiting() >= FEW {
            return false;
        }
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        self.each = (self.each * 7 + bytes) / 8;
        self.known.insert(key, Known { bytes, due_at: W::due_at(&row), came });
        if W::is_urgent(&row) {
            self.urgent.push_back(row)
        } else {
            self.others.push_back(row)
        }
        true
    }

    /// The next row, the urgent ones first. It stays known.
    pub(super) fn next(&mut self) -> Option<W::Row> {
        self.urgent.pop_front().or_else(|| self.others.pop_front())
    }

    /// The row with the highest rank, of equals the first; it stays known. Looks at few.
    pub(super) fn best(&mut self, rank: impl Fn(&W::Row) -> usize) -> Option<W::Row> {
        let best_of = |rows: &VecDeque<W::Row>| {
            let ranks = rows.iter().take(LOOKED_AT).map(&rank).enumerate();
            ranks.max_by_key(|(place, rank)| (*rank, usize::MAX - place))
        };
        match (best_of(&self.urgent), best_of(&self.others)) {
            (Some((place, urgent)), others) if others.is_none_or(|(_, other)| urgent >= other) => {
                self.urgent.remove(place)
            }
            (_, others) => self.others.remove(others?.0),
        }
    }

    /// The first row that is so; it stays known. Looks at few.
    pub(super) fn first(&mut self, is_so: impl Fn(&W::Row) -> bool) -> Option<W::Row> {
        let place = |rows: &VecDeque<W::Row>| rows.iter().take(LOOKED_AT).position(&is_so);
        match place(&self.urgent) {
            Some(place) => self.urgent.remove(place),
            None => place(&self.others).and_then(|place| self.others.remove(place)),
        }
    }

    /// A row is done with.
    pub(super) fn forget(&mut self, key: &W::Key) -> Option<Known> {
        let known = self.known.remove(key)?;
        self.budget.used.fetch_sub(known.bytes, Ordering::Relaxed);
        self.bytes -= known.bytes;
        Some(known)
    }

    /// Leaves all but the first `few` of the rows that wait to where they are true: the store. True where there were any.
    pub(super) fn keep(&mut self, few: usize) -> bool {
        let urgent = self.urgent.split_off(few.min(self.urgent.len()));
        let others = few.saturating_sub(self.urgent.len()).min(self.others.len());
        let others = self.others.split_off(others);
        let left: Vec<W::Key> = urgent.iter().chain(&others).map(W::key).collect();
        for key in &left {
            self.forget(key);
        }
        self.shrink();
        !left.is_empty()
    }

    /// The same for those that are not urgent.
    pub(super) fn keep_urgent(&mut self) -> bool {
        let left: Vec<W::Key> = std::mem::take(&mut self.others).iter().map(W::key).collect();
        for key in &left {
            self.forget(key);
        }
        !left.is_empty()
    }

    /// Gives back what a burst has left behind: there may be thousands of queues.
    pub(super) fn shrink(&mut self) {
        self.urgent.shrink_to(FEW);
        self.others.shrink_to(FEW);
        self.known.shrink_to(FEW);
    }
}

impl<W: Work> Drop for Memory<W> {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Rows written down of late, each as it was due.
///
/// A hint and a read may show the same row, and the one that comes late shows it as it was before it was done with.
#[derive(Debug)]
pub(super) struct Settled<K> {
    /// In two generations, so that neither needs a time for each row.
    new: HashSet<(K, Timestamp)>,
    old: HashSet<(K, Timestamp)>,
    turned: Instant,
}

/// A hint or the answer to a read is not later than this, or it costs a repetition with the same id.
const LATE: Duration = Duration::from_secs(1);

impl<K: Copy + Eq + Hash> Settled<K> {
    pub(super) fn new(now: Instant) -> Self {
        Self { new: HashSet::new(), old: HashSet::new(), turned: now }
    }

    pub(super) fn insert(&mut self, key: K, due_at: Timestamp, now: Instant) {
        self.turn(now);
        self.new.insert((key, due_at));
    }

    /// Forgets what was long ago: a row that is shown as due all the time was not done with after all. What was written down
    /// of it changed nothing where the shard had become another node's for a while.
    fn turn(&mut self, now: Instant) {
        let since = now.duration_since(self.turned);
        if since >= LATE {
            self.old = std::mem::take(&mut self.new);
            self.turned = now;
        }
        if since >= 2 * LATE {
            self.old.clear();
        }
    }

    pub(super) fn contains(&mut self, key: K, due_at: Timestamp, now: impl FnOnce() -> Instant) -> bool {
        // Empty on the way of most rows.
        if self.new.is_empty() && self.old.is_empty() {
            return false;
        }
        self.turn(now());
        let is_in = |set: &HashSet<(K, Timestamp)>| !set.is_empty() && set.contains(&(key, due_at));
        is_in(&self.new) || is_in(&self.old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_is_known_for_a_moment_and_not_for_good() {
        let start = Instant::now();
        let mut settled = Settled::new(start);
        let due_at = Timestamp(7);
        settled.insert(1, due_at, start);
        assert!(settled.contains(1, due_at, || start));
        assert!(!settled.contains(1, Timestamp(8), || start), "it became due anew");
        // A late answer is known for what it is…
        assert!(settled.contains(1, due_at, || start + LATE));
        // …and what is still due then was not done with, though nothing else was settled meanwhile.
        assert!(!settled.contains(1, due_at, || start + 2 * LATE));
        settled.insert(2, due_at, start + 2 * LATE);
        assert!(!settled.contains(2, due_at, || start + 5 * LATE));
    }
}
