//! Admission: executions wait a little where a sandbox's own rows wait for processor time.
//!
//! Taking an execution is cheap beside what follows from it. A caller in a hurry would therefore fill the queues, where
//! each row is dropped from memory, read again and late by the whole backlog. Instead its next request is answered a
//! little later, as soon as the queues have room, and what was taken before comes first: where events came seconds late
//! they come some tens of milliseconds late, and as many go out in all.
//!
//! Only want of processor time counts: rows that wait in a queue which begins very many steps a second. What waits for a
//! relay, for an endpoint or for somebody's limit is the store's to keep, and delays nobody's request. Each sandbox has
//! its own gauge, so that nobody waits for another's rows; a caller of moderate speed does not wait even for its own.

use model::ids::SandboxId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// With more rows than this waiting, requests wait too. It is some 7 ms of work; with 1,024 events were a third older and
/// no more of them went out.
const FULL: usize = 256;
/// A queue that begins fewer steps a second is held up by something else than the processors.
const BUSY_PER_SECOND: u32 = 5_000;
/// How often that is counted.
const WINDOW: Duration = Duration::from_millis(50);
/// So many recipients a second of a sandbox never wait.
const FREE_PER_SECOND: u32 = 1_000;
/// What a sandbox may save up of these.
const FREE_AT_ONCE: Duration = Duration::from_millis(100);
/// No request waits longer.
const LONGEST: Duration = Duration::from_millis(200);
/// For so many rows of room one request goes on. A request brings up to 20; those with one are common.
const ROWS_A_REQUEST: usize = 8;

/// The gauges of all sandboxes.
#[derive(Debug, Default)]
pub struct Admission {
    gauges: RwLock<HashMap<SandboxId, Weak<Gauge>>>,
}

impl Admission {
    /// The gauge of a sandbox, which lives as long as somebody holds it.
    pub fn gauge(&self, sandbox: SandboxId) -> Arc<Gauge> {
        let mut gauges = self.gauges.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = gauges.get(&sandbox).and_then(Weak::upgrade) {
            return known;
        }
        if gauges.len() == gauges.capacity() {
            gauges.retain(|_, gauge| gauge.strong_count() > 0);
        }
        let made = Arc::<Gauge>::default();
        gauges.insert(sandbox, Arc::downgrade(&made));
        made
    }

    fn known(&self, sandbox: SandboxId) -> Option<Arc<Gauge>> {
        let gauges = self.gauges.read().unwrap_or_else(PoisonError::into_inner);
        gauges.get(&sandbox).and_then(Weak::upgrade)
    }

    /// Waits until an execution for so many recipients may be taken, 200 ms at most.
    pub async fn admit(&self, sandbox: SandboxId, recipients: usize) {
        let Some(gauge) = self.known(sandbox) else { return };
        // Made before the look: room that there is right after it is not missed.
        let room = gauge.room.notified();
        if gauge.is_full() && !gauge.takes_free(recipients, Instant::now()) {
            // One that has waited so long goes on whatever is there.
            let _ = tokio::time::timeout(LONGEST, room).await;
        }
    }
}

/// The rows of a sandbox that wait for processor time.
#[derive(Debug, Default)]
pub struct Gauge {
    rows: AtomicUsize,
    room: Notify,
    /// What is free has been taken up to then.
    free_since: Mutex<Option<Instant>>,
}

impl Gauge {
    pub(crate) fn is_full(&self) -> bool {
        self.rows.load(Ordering::Relaxed) > FULL
    }

    /// Whether the request is within what never waits.
    fn takes_free(&self, recipients: usize, now: Instant) -> bool {
        let mut since = self.free_since.lock().unwrap_or_else(PoisonError::into_inner);
        let from = since.into_iter().chain(now.checked_sub(FREE_AT_ONCE)).max().unwrap_or(now);
        let until = from + Duration::from_secs(1) * u32::try_from(recipients).unwrap_or(u32::MAX) / FREE_PER_SECOND;
        let fits = until <= now;
        if fits {
            *since = Some(until);
        }
        fits
    }

    fn change(&self, before: usize, after: usize) {
        let rows = match after >= before {
            true => self.rows.fetch_add(after - before, Ordering::Relaxed) + (after - before),
            false => self.rows.fetch_sub(before - after, Ordering::Relaxed) - (before - after),
        };
        if rows == 0 {
            // Perhaps nobody comes back here to say that there is still room.
            self.room.notify_waiters();
        } else {
            (0..FULL.saturating_sub(rows) / ROWS_A_REQUEST).for_each(|_| self.room.notify_one());
        }
    }
}

/// What one queue adds to its sandbox's gauge.
#[derive(Debug)]
pub(crate) struct Share {
    gauge: Option<Arc<Gauge>>,
    rows: usize,
    begun: u32,
    since: Instant,
    is_busy: bool,
}

impl Share {
    pub fn new(now: Instant) -> Self {
        Self { gauge: None, rows: 0, begun: 0, since: now, is_busy: false }
    }

    /// A step has begun.
    pub fn begin(&mut self) {
        self.begun = self.begun.saturating_add(1);
    }

    /// So many rows wait now.
    pub fn show(&mut self, gauge: &Arc<Gauge>, waiting: usize, now: Instant) {
        let elapsed = now.duration_since(self.since);
        if elapsed >= WINDOW {
            self.is_busy = f64::from(self.begun) >= f64::from(BUSY_PER_SECOND) * elapsed.as_secs_f64();
            (self.begun, self.since) = (0, now);
        }
        if self.gauge.as_ref().is_none_or(|known| !Arc::ptr_eq(known, gauge)) {
            self.clear();
            self.gauge = Some(Arc::clone(gauge));
        }
        let rows = if self.is_busy { waiting } else { 0 };
        if rows > 0 || self.rows > 0 {
            gauge.change(self.rows, rows);
            self.rows = rows;
        }
    }

    fn clear(&mut self) {
        if let Some(gauge) = self.gauge.take() {
            gauge.change(std::mem::take(&mut self.rows), 0);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;
    use tokio::time::{advance, timeout};

    const RECIPIENTS: usize = 20;

    fn sandbox(n: u8) -> SandboxId {
        SandboxId::from_bytes(&[n; 16]).unwrap()
    }

    /// A queue of the sandbox that begins so many steps a second, with so many rows waiting.
    async fn queue(admission: &Admission, begun_per_second: u32, waiting: usize) -> (Share, Arc<Gauge>) {
        let (gauge, mut share) = (admission.gauge(sandbox(1)), Share::new(Instant::now()));
        (0..begun_per_second / 10).for_each(|_| share.begin());
        advance(Duration::from_millis(100)).await;
        share.show(&gauge, waiting, Instant::now());
        (share, gauge)
    }

    /// Takes what is free.
    async fn use_up(admission: &Admission) {
        for _ in 0..5 {
            admission.admit(sandbox(1), RECIPIENTS).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_room_in_a_busy_queue_of_its_own_sandbox() {
        let admission = Admission::default();
        let (mut share, gauge) = queue(&admission, 20_000, FULL + 1).await;
        use_up(&admission).await;
        let mut waits = pin!(admission.admit(sandbox(1), RECIPIENTS));
        assert!(poll!(&mut waits).is_pending());
        let mut others = pin!(admission.admit(sandbox(2), RECIPIENTS));
        assert!(poll!(&mut others).is_ready());
        share.show(&gauge, FULL / 2, Instant::now());
        assert!(poll!(&mut waits).is_ready());
        let mut next = pin!(admission.admit(sandbox(1), RECIPIENTS));
        assert!(poll!(&mut next).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn no_request_waits_long_nor_for_a_queue_that_has_ended() {
        let admission = Admission::default();
        let (share, gauge) = queue(&admission, 20_000, 100 * FULL).await;
        use_up(&admission).await;
        let begun = Instant::now();
        admission.admit(sandbox(1), RECIPIENTS).await;
        assert_eq!(begun.elapsed(), LONGEST);
        // What was saved up meanwhile.
        use_up(&admission).await;
        let mut waits: Vec<_> = (0..100).map(|_| Box::pin(admission.admit(sandbox(1), RECIPIENTS))).collect();
        for one in &mut waits {
            assert!(poll!(one).is_pending());
        }
        drop(share);
        for one in &mut waits {
            assert!(poll!(one).is_ready());
        }
        assert!(!gauge.is_full());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_queue_that_something_else_holds_up() {
        let admission = Admission::default();
        let (_share, gauge) = queue(&admission, 4_000, 100 * FULL).await;
        assert!(!gauge.is_full());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_of_moderate_speed_never_waits() {
        let admission = Admission::default();
        let (_share, gauge) = queue(&admission, 20_000, 100 * FULL).await;
        for _ in 0..200 {
            assert!(gauge.is_full());
            assert!(timeout(Duration::ZERO, admission.admit(sandbox(1), RECIPIENTS)).await.is_ok());
            advance(Duration::from_secs(1) * 20 / FREE_PER_SECOND).await;
        }
        use_up(&admission).await;
        assert!(poll!(pin!(admission.admit(sandbox(1), RECIPIENTS))).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn gauges_that_nobody_holds_are_forgotten() {
        let admission = Admission::default();
        for n in 0..=255 {
            assert!(!admission.gauge(sandbox(n)).is_full());
        }
        assert!(admission.gauges.read().unwrap().len() < 10);
    }
}
