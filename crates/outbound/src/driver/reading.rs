//! A queue reads its settings and its rows.

use super::memory::Came;
use super::queue::Queue;
use super::{Limits, Rows, Work};
use model::clock::Timestamp;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinError;
use tokio::time::Instant;

/// The most rows of one queue that are read at a time; hints may add as many. Each read shows those in memory again, so
/// small ones cost more: with 1,000 it was a tenth of the processor time of a backlog.
pub(super) const ROWS_IN_MEMORY: usize = 4_000;
/// The rows that wait in memory while the other side is left alone: enough for probes with different ones.
pub(super) const ROWS_FOR_PROBES: usize = 8;
/// After trouble with the store a queue waits this long.
const STORE_TROUBLE_PAUSE: Duration = Duration::from_millis(500);
/// While rows are in memory the store is looked at no more often than this: it shows those rows again each time.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

impl<W: Work> Queue<W> {
    /// Brings the settings and the rows up to date, then starts as many steps as may be.
    pub(super) async fn advance(&mut self) {
        self.start_write();
        self.heed_signals();
        self.unpark();
        if self.trouble_until.is_some_and(|until| until <= Instant::now()) {
            self.trouble_until = None;
        }
        if !self.is_ours() {
            return;
        }
        if self.is_stale && self.trouble_until.is_none() {
            self.read_target().await;
        }
        // Where the settings cannot be read, the former ones may be what was just changed.
        let Some((target, shard)) = self.target.clone().filter(|_| !self.is_stale) else { return };
        let now = self.shared.clock.now();
        let Some(lease) = self.shared.leases.lease(shard, now) else { return self.leave() };
        self.epoch = Some(lease.epoch);
        self.start_read(now);
        self.start_steps(&target, lease, now).await;
    }

    /// Whether the shard is this node's, as far as is known. What is known from before it was another's is forgotten.
    fn is_ours(&mut self) -> bool {
        let Some((_, shard)) = &self.target else { return true };
        let Some(lease) = self.shared.leases.lease(*shard, self.shared.clock.now()) else {
            self.leave();
            return false;
        };
        if self.epoch != Some(lease.epoch) {
            self.leave();
            self.fall_behind(self.shared.clock.now());
        }
        true
    }

    /// The shard is another node's. If it becomes this one's again, the poll finds what is due.
    fn leave(&mut self) {
        self.memory.keep(0);
        (self.look_at, self.epoch) = (None, None);
        // Settings and rows may have changed under the other node.
        (self.is_stale, self.read_is_stale) = (true, true);
    }

    fn unpark(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        let (ready, parked) = std::mem::take(&mut self.parked).into_iter().partition(|(until, _)| *until <= now);
        self.parked = parked;
        let ready: Vec<(Timestamp, W::Key)> = ready;
        for (until, key) in ready {
            self.memory.forget(&key);
            self.look_by(until);
        }
    }

    async fn read_target(&mut self) {
        // What is told while it is read may be newer than what is read.
        self.is_stale = false;
        match self.work.target(self.id).await {
            Ok(target) => {
                if target.is_none() {
                    self.memory.keep(0);
                    self.look_at = None;
                }
                self.target = target;
            }
            Err(error) => {
                self.is_stale = true;
                self.store_trouble(&error);
            }
        }
    }

    fn store_trouble(&mut self, error: &dyn Display) {
        tracing::warn!(%error, queue = ?self.id, "the store cannot be read");
        self.trouble_until = Some(Instant::now() + STORE_TROUBLE_PAUSE);
    }

    pub(super) fn limits(&self) -> Option<Limits> {
        self.target.as_ref().map(|(target, _)| W::limits(target))
    }

    pub(super) fn is_paused(&self, now: Timestamp) -> bool {
        self.pause_until.is_some_and(|until| until > now)
    }

    /// Whether the other side is left alone.
    pub(super) fn is_shut(&self, now: Timestamp) -> bool {
        self.circuit.is_open() || self.is_paused(now)
    }

    /// How many rows are wanted in memory, so that the queue need not wait for the store.
    fn wanted(&self, now: Timestamp) -> usize {
        if self.is_shut(now) {
            return ROWS_FOR_PROBES;
        }
        let per_second = self.limits().and_then(|limits| limits.per_second);
        let of_rate = per_second.map_or(ROWS_IN_MEMORY, |rate| usize::try_from(rate).unwrap_or(ROWS_IN_MEMORY) * 2);
        of_rate.clamp(2 * ROWS_FOR_PROBES, ROWS_IN_MEMORY)
    }

    pub(super) fn wants_rows(&self, now: Timestamp) -> bool {
        self.memory.waiting() < self.wanted(now).min(self.memory.waiting() + self.memory.room()).div_ceil(4)
    }

    fn start_read(&mut self, now: Timestamp) {
        let is_time = self.look_at.is_some_and(|at| at <= now);
        let may_read = self.reads.is_empty() && self.trouble_until.is_none();
        if !is_time || !may_read || !self.wants_rows(now) || self.next_look_in() > Duration::ZERO {
            return;
        }
        (self.look_at, self.read_is_stale, self.left_some) = (None, false, false);
        self.settled_meanwhile.clear();
        // Rows in memory are due in the store too and come first there: room for them, or the read finds no others.
        let limit = self.memory.known() + self.wanted(now).min(self.memory.room());
        let (work, id) = (Arc::clone(&self.work), self.id);
        self.reads.spawn(async move { work.read(id, now, limit).await });
    }

    pub(super) fn found(&mut self, found: Result<store::Result<Rows<W::Row>>, JoinError>) {
        let now = self.shared.clock.now();
        let found = match found {
            Ok(Ok(found)) if !self.read_is_stale && self.target.is_some() => found,
            Ok(Ok(_)) => return self.look_by(now),
            Ok(Err(error)) => {
                self.look_by(now);
                return self.store_trouble(&error);
            }
            Err(panicked) => {
                self.look_by(now);
                return self.store_trouble(&panicked);
            }
        };
        (self.looked, self.active) = (Some(Instant::now()), Instant::now());
        self.is_behind = self.left_some || found.next_at.is_some_and(|at| at <= now);
        found.next_at.into_iter().for_each(|at| self.look_by(at));
        let settled_meanwhile = std::mem::take(&mut self.settled_meanwhile);
        for row in found.rows {
            let key = W::key(&row);
            if self.settled.contains(key, W::due_at(&row), Instant::now) {
                // The poll looks again: then it is known that this was no late answer.
                continue;
            }
            if settled_meanwhile.contains(&key) {
                // It was made due anew, by hand, before or after it was written down: only another look can tell.
                self.look_by(now);
                continue;
            }
            if !self.memory.hold(row, Came::ByRead) {
                self.fall_behind(now);
                break;
            }
        }
        if self.is_shut(now) {
            self.keep_few(now);
        }
    }

    /// How long the store is to be left alone.
    pub(super) fn next_look_in(&self) -> Duration {
        // Behind, and with nothing else to do: each look finds others.
        let may_repeat = self.memory.known() > 0 && !(self.is_behind && self.memory.waiting() == 0);
        let since = self.looked.filter(|_| may_repeat).map(|at| at.elapsed());
        since.map_or(Duration::ZERO, |since| BETWEEN_LOOKS.saturating_sub(since))
    }
}
