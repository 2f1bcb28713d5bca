//! When each call is to be made.

use super::plan::{Pace, Recipients};
use crate::clock::SystemClock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// One call to make.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Its number.
    pub n: u64,
    /// How many recipients it has.
    pub recipients: u64,
    /// When it is to be made, in microseconds since the Unix epoch.
    pub intended: u64,
}

/// The calls of callers that wait for their answers: each takes the next.
#[derive(Debug)]
pub struct Taken {
    next: AtomicU64,
    events: AtomicU64,
    most: u64,
    until: u64,
    recipients: Recipients,
}

impl Taken {
    /// No more than so many events and seconds.
    pub fn new(events: u64, seconds: f64, recipients: Recipients) -> Self {
        let until = SystemClock::micros() + micros(seconds);
        Self { next: AtomicU64::new(0), events: AtomicU64::new(0), most: events, until, recipients }
    }

    /// The next call, to be made now.
    pub fn take(&self) -> Option<Job> {
        let intended = SystemClock::micros();
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let wanted = self.recipients.of(n);
        let before = self.events.fetch_add(wanted, Ordering::Relaxed);
        let recipients = wanted.min(self.most.saturating_sub(before));
        (recipients > 0 && intended < self.until).then_some(Job { n, recipients, intended })
    }
}

/// The calls of an open loop, each given out at its time.
///
/// A thread of its own sleeps between them: the runtime's timers know milliseconds only.
pub fn timed(events_per_second: f64, events: u64, recipients: Recipients) -> UnboundedReceiver<Job> {
    let (jobs, taken) = unbounded_channel();
    std::thread::spawn(move || {
        let (_open, never) = channel::<()>();
        for job in schedule(SystemClock::micros() + 1_000, events_per_second, events, recipients) {
            while let Some(wait) = job.intended.checked_sub(SystemClock::micros()).filter(|wait| *wait > 0) {
                // It is this long before anything comes: nothing ever does.
                let _ = never.recv_timeout(Duration::from_micros(wait));
            }
            if jobs.send(job).is_err() {
                return;
            }
        }
    });
    taken
}

/// Calls whose events come at an even rate.
fn schedule(start: u64, events_per_second: f64, events: u64, recipients: Recipients) -> impl Iterator<Item = Job> {
    let (mut n, mut before) = (0, 0);
    std::iter::from_fn(move || {
        let recipients = recipients.of(n).min(events - before);
        let intended = start + micros(super::report::count(before) / events_per_second);
        let job = Job { n, recipients, intended };
        n += 1;
        before += recipients;
        (recipients > 0).then_some(job)
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a bench, never negative")]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// The calls of a pace.
#[derive(Debug)]
pub enum Calls {
    /// Taken by so many callers.
    Closed(usize, Taken),
    /// Given out in time.
    Open(UnboundedReceiver<Job>),
}

impl Calls {
    /// Those of a pace, the time running from now.
    pub fn of(pace: Pace, recipients: Recipients) -> Self {
        match pace {
            Pace::Closed { callers, events, seconds } => Self::Closed(callers, Taken::new(events, seconds, recipients)),
            Pace::Open { events_per_second, events } => Self::Open(timed(events_per_second, events, recipients)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_keeps_its_rate_and_count() {
        let jobs: Vec<Job> = schedule(1_000, 500.0, 1_000, Recipients::UpTo(20)).collect();
        assert_eq!(jobs.iter().map(|job| job.recipients).sum::<u64>(), 1_000);
        assert_eq!(jobs[0].intended, 1_000);
        let before: u64 = jobs[..10].iter().map(|job| job.recipients).sum();
        assert_eq!(jobs[10].intended, 1_000 + before * 2_000);
    }

    #[test]
    fn callers_take_no_more_than_there_is() {
        let taken = Taken::new(50, 60.0, Recipients::Exactly(20));
        let sizes: Vec<u64> = std::iter::from_fn(|| taken.take()).map(|job| job.recipients).collect();
        assert_eq!(sizes, [20, 20, 10]);
        assert!(Taken::new(50, 0.0, Recipients::Exactly(20)).take().is_none());
    }
}
