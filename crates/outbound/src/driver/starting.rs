//! A queue starts steps, and knows when it has to wake up for the next.

use super::places::{Holder, Place};
use super::queue::{Ended, IDLE, Queue};
use super::{Limits, Stepped, Turn, Work};
use futures_util::FutureExt;
use model::circuit::Sign;
use model::clock::Timestamp;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::work::Lease;
use tokio::time::Instant;

/// The most steps that have ended and are not written down yet. They are repeated where the process ends now.
const UNWRITTEN: usize = 1_024;
/// How soon a queue that has places and could not get more tries again.
const PLACES_PAUSE: Duration = Duration::from_millis(500);

impl<D> Stepped<D> {
    /// A step that did nothing; the row is left alone until `until`.
    pub(super) fn put_back(until: Timestamp) -> Self {
        Self { done: Err(until), sign: Sign::Neutral, took: Duration::ZERO, pause_until: None }
    }
}

impl<W: Work> Queue<W> {
    /// Starts as many steps as may be.
    pub(super) async fn start_steps(&mut self, target: &Arc<W::Target>, lease: Lease, now: Timestamp) {
        (self.is_throttled, self.is_rated) = (false, false);
        if self.memory.waiting() == 0 {
            return self.pace.suffices();
        }
        let limits = W::limits(target);
        if !self.is_paused(now) {
            self.pause_until = None;
        }
        self.end_alone(target, lease, now);
        while self.may_start(&limits, now) {
            let Some(place) = self.place().await else { return };
            let stops = self.signals.stops();
            if self.signals.stop_steps() || self.shared.stop.is_cancelled() {
                return;
            }
            let Some(row) = self.next_row() else { return };
            self.rate.take();
            self.share.begin();
            self.start(target, row, Turn::Try, lease, Some((place, stops)));
        }
        if self.memory.waiting() == 0 {
            self.pace.suffices();
        }
    }

    /// Ends rows that need not wait for a side that is left alone. They take nobody's place: they wait for nothing.
    fn end_alone(&mut self, target: &Arc<W::Target>, lease: Lease, now: Timestamp) {
        while self.is_shut(now) && self.unwritten < UNWRITTEN && !self.signals.stop_steps() {
            let Some(row) = self.memory.first(|row| W::ends_alone(target, row, now)) else { return };
            self.start(target, row, Turn::End, lease, None);
        }
    }

    fn may_start(&mut self, limits: &Limits, now: Timestamp) -> bool {
        if self.memory.waiting() == 0 || self.unwritten >= UNWRITTEN || self.is_paused(now) {
            return false;
        }
        let now_by_timer = Instant::now();
        let may_go = match self.circuit.is_open() {
            true => self.circuit.next_probe().is_some_and(|at| at <= now),
            false => self.pace.allows(self.steps.len(), limits.concurrency, now_by_timer),
        };
        self.is_rated = may_go && !self.rate.allows(limits.per_second, now_by_timer);
        may_go && !self.is_rated
    }

    /// A place among all queues' steps. A queue without any waits for one in its turn.
    async fn place(&mut self) -> Option<Place> {
        let held = self.steps.len();
        let answers = self.pace.answers(held, Instant::now());
        let place = self.shared.places.take(Holder { held, of_reserve: self.of_reserve, answers });
        if place.is_some() {
            return place;
        }
        if held > 0 {
            self.is_throttled = true;
            return None;
        }
        tokio::select! {
            place = self.shared.places.wait(answers) => place,
            () = self.shared.stop.cancelled() => None,
        }
    }

    fn next_row(&mut self) -> Option<W::Row> {
        if !self.circuit.is_open() {
            return self.memory.next();
        }
        // Another row than those of the last probes, or else the one whose probe is longest ago.
        let circuit = &self.circuit;
        let row = self.memory.best(|row| circuit.probed(W::key(row)).unwrap_or(usize::MAX))?;
        self.circuit.probe(W::key(&row));
        Some(row)
    }

    /// Starts a step. `place` comes with the number of stops until then: whatever polls the step may come to it later.
    fn start(&mut self, target: &Arc<W::Target>, row: W::Row, turn: Turn, lease: Lease, place: Option<(Place, u64)>) {
        let key = W::key(&row);
        let number = self.pace.begin(self.steps.len(), Instant::now());
        let of_reserve = place.as_ref().is_some_and(|(place, _)| place.is_of_reserve);
        self.of_reserve += usize::from(of_reserve);
        let (work, target) = (Arc::clone(&self.work), Arc::clone(target));
        let (signals, clock) = (Arc::clone(&self.signals), Arc::clone(&self.shared.clock));
        let step = async move {
            let is_stopped = place.as_ref().is_some_and(|(_, stops)| signals.stops() != *stops);
            let stepped = match is_stopped {
                true => Some(Stepped::put_back(clock.now())),
                false => AssertUnwindSafe(work.step(&target, row, turn, lease)).catch_unwind().await.ok(),
            };
            drop(place);
            Ended { key, number, turn, of_reserve, stepped }
        };
        self.steps.push(Box::pin(step), &self.shared.tasks);
    }

    /// When there is something to do even if nobody says so.
    pub(super) fn wake_at(&self) -> Instant {
        let now = self.shared.clock.now();
        let is_held = self.target.is_none() && !self.is_stale;
        let waits = self.memory.waiting() > 0 && !is_held;
        let may_look = !is_held && self.reads.is_empty() && self.trouble_until.is_none();
        let look = self.look_at.filter(|_| may_look && self.wants_rows(now));
        let look = look.map(|at| at.since(now).max(self.next_look_in()));
        let pause = self.pause_until.filter(|_| waits).map(|at| at.since(now));
        let is_going = waits && !self.is_paused(now) && self.unwritten < UNWRITTEN;
        let may_probe = is_going && !self.is_throttled && !self.is_rated;
        let probe = self.circuit.next_probe().filter(|_| may_probe).map(|at| at.since(now));
        let rate = if is_going && self.is_rated { self.rate.next_in() } else { None };
        let places = (is_going && self.is_throttled).then_some(PLACES_PAUSE);
        let parked = self.parked.iter().map(|(until, _)| until.since(now)).min();
        let start = Instant::now();
        let trouble = self.trouble_until.map(|at| at.duration_since(start));
        let wait = [look, pause, probe, rate, places, parked, trouble].into_iter().flatten().min();
        wait.map_or(self.active + IDLE, |wait| start + wait.max(Duration::from_millis(1))).min(self.active + IDLE)
    }
}
