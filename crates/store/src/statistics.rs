//! What happened, counted by minute and later by hour: what is counted, and what the counts tell.
//!
//! A count is written in the transaction of what it counts, so that it is exact whatever breaks off. A transaction
//! collects its counts ([`Counting`]) and adds them up in a few rows just before its commit. Each count lies in one row
//! alone: what was counted by minute moves to its hour after a day.

use crate::shared::change::recorded_at;
use crate::shared::rows::status_code;
use crate::work::Finish;
use model::clock::Timestamp;
use model::delivery::AttemptDecision;
use model::outcome::{FeedbackStatus, Verdict};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// So long counts are kept by minute. A little more than a day, so that a day can be shown in parts of an hour.
pub const MINUTES_KEPT: Duration = Duration::from_secs(25 * 3_600);
/// So long counts are kept by hour. They are about nobody in particular, so that no organization has an age of its own.
pub const HOURS_KEPT: Duration = Duration::from_secs(90 * 86_400);

const MINUTE_MS: i64 = 60_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// The spans that rows count, as their codes in the stores.
pub(crate) const BY_MINUTE: u8 = 0;
pub(crate) const BY_HOUR: u8 = 1;

/// What is counted, as its code in the stores. Codes never change; those below 16 are the codes of statuses.
const ACCEPTED: u8 = 16;
const FAILED: u8 = 17;
const EXHAUSTED: u8 = 18;
const CAME_BACK: u8 = 19;
/// A success that says nothing about latency.
const SUCCEEDED_AGAIN: u8 = 31;
/// The first of the successes by latency.
const SUCCEEDED: u8 = 32;
/// Attempts that succeeded. Each counts once: by its latency, or as one of a delivery that was made due again.
pub(crate) const SUCCESSES: RangeInclusive<u8> = SUCCEEDED_AGAIN..=SUCCEEDED + LATENCIES - 1;

/// Latencies are told apart by four parts of each power of two of milliseconds, up to 12 days: what is told is at most an
/// eighth off.
const LATENCIES: u8 = 120;

/// The part that a latency belongs to.
fn part_of(latency: Duration) -> u8 {
    let ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX).clamp(1, (1 << (LATENCIES / 4)) - 1);
    let octave = ms.ilog2();
    let quarter = ((ms << 2) >> octave) & 3;
    u8::try_from(u64::from(octave) * 4 + quarter).unwrap_or(LATENCIES - 1)
}

/// The middle of a part, in milliseconds.
fn middle_of(part: u8) -> u64 {
    ((2 * (4 + u64::from(part % 4)) + 1) << (part / 4)) >> 3
}

/// What was counted in some span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub(crate) by_kind: BTreeMap<u8, u64>,
    /// When an attempt last succeeded.
    pub(crate) last_success: Option<Timestamp>,
}

impl Counts {
    fn of(&self, kind: u8) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or(0)
    }

    /// Messages accepted: one for each recipient of an execution.
    pub fn accepted(&self) -> u64 {
        self.of(ACCEPTED)
    }

    /// Feedback events recorded with this status.
    pub fn outcomes(&self, status: FeedbackStatus) -> u64 {
        self.of(status_code(status))
    }

    /// Of the bounces those of messages that had been sent: they count as sent, too.
    pub fn came_back(&self) -> u64 {
        self.of(CAME_BACK)
    }

    /// Attempts that succeeded, those of replays and retries by hand too.
    pub fn succeeded(&self) -> u64 {
        self.by_kind.range(SUCCESSES).map(|(_, count)| count).sum()
    }

    /// Attempts that failed, as the attempt log has them.
    pub fn failed(&self) -> u64 {
        self.of(FAILED)
    }

    /// Deliveries given up.
    pub fn exhausted(&self) -> u64 {
        self.of(EXHAUSTED)
    }

    /// The time, in milliseconds, within which so many of a hundred events were delivered, from their recording to the end
    /// of the attempt that succeeded. None where there are none. What a replay or somebody by hand made due again, after
    /// it had ended, is left out.
    pub fn latency_ms(&self, percent: u64) -> Option<u64> {
        let latencies = || self.by_kind.range(SUCCEEDED..=*SUCCESSES.end());
        let all: u64 = latencies().map(|(_, count)| count).sum();
        let wanted = (all * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = latencies().find(|(_, count)| {
            seen += **count;
            seen >= wanted
        });
        found.map(|(kind, _)| middle_of(kind - SUCCEEDED))
    }

    pub(crate) fn count(&mut self, kind: u8, count: u64) {
        *self.by_kind.entry(kind).or_default() += count;
    }

    /// Adds what was counted elsewhere or at another time.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.by_kind {
            self.count(*kind, *count);
        }
        self.last_success = self.last_success.max(other.last_success);
    }
}

/// Spans of time of the same length, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Where the first begins.
    pub from: Timestamp,
    /// How long each is: whole minutes; whole hours for what is older than [`MINUTES_KEPT`].
    pub length: Duration,
    /// How many there are.
    pub count: usize,
}

impl Buckets {
    /// The last of them holds `now`; all begin at multiples of their length since the Unix epoch.
    pub fn until(now: Timestamp, length: Duration, count: usize) -> Self {
        let buckets = Self { from: now, length, count };
        let last = now.millis().div_euclid(buckets.length_ms()) * buckets.length_ms();
        let before = i64::try_from(count.saturating_sub(1)).unwrap_or(0) * buckets.length_ms();
        Self { from: Timestamp(last - before), ..buckets }
    }

    pub(crate) fn length_ms(&self) -> i64 {
        i64::try_from(self.length.as_millis()).unwrap_or(i64::MAX).max(1)
    }

    /// Where each begins, in order.
    pub fn starts(&self) -> impl Iterator<Item = Timestamp> {
        let (from, length) = (self.from.millis(), self.length_ms());
        (0..).take(self.count).map(move |place: i64| Timestamp(from + place * length))
    }

    /// Where the last ends.
    pub fn to(&self) -> Timestamp {
        let count = i64::try_from(self.count).unwrap_or(i64::MAX);
        Timestamp(self.from.millis().saturating_add(count.saturating_mul(self.length_ms())))
    }

    /// Adds up what was counted at these moments within them.
    pub(crate) fn sum(&self, counted: impl IntoIterator<Item = (i64, Counts)>) -> Vec<Counts> {
        let mut sums = vec![Counts::default(); self.count];
        for (at, counts) in counted {
            let place = usize::try_from((at - self.from.millis()).div_euclid(self.length_ms()));
            if let Some(sum) = place.ok().and_then(|place| sums.get_mut(place)) {
                sum.add(&counts);
            }
        }
        sums
    }
}

/// What of a sandbox's deliveries has not ended: due, waiting for a next attempt or an earlier event, or held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many there are: [`MOST_WAITING`] at most.
    pub waiting: u64,
    /// There are more than `waiting` says.
    pub is_at_least: bool,
    /// When the first of them was due, or will be.
    pub oldest_due_at: Option<Timestamp>,
}

/// So many deliveries that wait are counted; millions would take seconds.
pub const MOST_WAITING: u64 = 10_000;

impl Backlog {
    pub(crate) fn new(counted: u64, oldest_due_at: Option<Timestamp>) -> Self {
        Self { waiting: counted.min(MOST_WAITING), is_at_least: counted > MOST_WAITING, oldest_due_at }
    }
}

#[derive(Clone, Copy, Debug)]
struct One {
    sbx: i64,
    now: Timestamp,
    kind: u8,
    count: u64,
}

/// What a transaction has counted so far, in the order in which it happened: what is undone is cut off at the end.
#[derive(Debug, Default)]
pub(crate) struct Counting(Vec<One>);

impl Counting {
    /// An execution with so many messages was accepted.
    pub fn accepted(&mut self, sbx: i64, now: Timestamp, messages: usize) {
        let count = u64::try_from(messages).unwrap_or(u64::MAX);
        self.0.push(One { sbx, now, kind: ACCEPTED, count });
    }

    /// A feedback event was recorded.
    pub fn told(&mut self, sbx: i64, now: Timestamp, verdict: &Verdict) {
        self.0.push(One { sbx, now, kind: status_code(verdict.status()), count: 1 });
        if matches!(verdict, Verdict::Bounce(_)) && verdict.implies_sent() {
            self.0.push(One { sbx, now, kind: CAME_BACK, count: 1 });
        }
    }

    /// An attempt was written down. `is_again`: its delivery had ended before, and was made due again.
    pub fn attempted(&mut self, sbx: i64, finish: &Finish, is_again: bool) {
        let mut add = |kind| self.0.push(One { sbx, now: finish.now, kind, count: 1 });
        match finish.decision {
            AttemptDecision::Succeeded if is_again => add(SUCCEEDED_AGAIN),
            AttemptDecision::Succeeded => {
                let end = finish.attempt.at + Duration::from_millis(finish.attempt.duration_ms.into());
                add(SUCCEEDED + part_of(end.since(recorded_at(finish.sequence))));
            }
            AttemptDecision::RetryAt(_) | AttemptDecision::Gone => add(FAILED),
            AttemptDecision::Exhausted => {
                add(FAILED);
                add(EXHAUSTED);
            }
        }
    }

    /// How far it has come, for [`Self::undo_to`].
    pub fn mark(&self) -> usize {
        self.0.len()
    }

    /// Forgets what was counted since.
    pub fn undo_to(&mut self, mark: usize) {
        self.0.truncate(mark);
    }

    /// The sums by sandbox and the beginning of the minute, in order; nothing is left here.
    pub fn take(&mut self) -> BTreeMap<(i64, i64), Counts> {
        let mut sums: BTreeMap<(i64, i64), Counts> = BTreeMap::new();
        for One { sbx, now, kind, count } in self.0.drain(..) {
            let minute = now.millis().div_euclid(MINUTE_MS) * MINUTE_MS;
            let counts = sums.entry((sbx, minute)).or_default();
            counts.count(kind, count);
            if SUCCESSES.contains(&kind) {
                counts.last_success = counts.last_success.max(Some(now));
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_told_within_an_eighth() {
        let mut parts = 0;
        for ms in (1..5_000).chain((1..31).map(|n| (1_u64 << n) - 1)) {
            let part = part_of(Duration::from_millis(ms));
            assert!(part < LATENCIES && part >= parts || ms < 5_000, "{ms}");
            parts = part;
            let told = middle_of(part);
            assert!(told.abs_diff(ms) * 8 <= ms, "{ms} is told as {told}");
        }
        assert_eq!(part_of(Duration::ZERO), 0);
        assert_eq!(part_of(Duration::MAX), LATENCIES - 1);
        assert!(middle_of(LATENCIES - 1) > 864_000_000, "ten days");
    }

    #[test]
    fn percentiles_are_those_of_the_latencies_alone() {
        let mut counts = Counts::default();
        assert_eq!(counts.latency_ms(50), None);
        counts.count(SUCCEEDED_AGAIN, 1_000);
        assert_eq!((counts.latency_ms(50), counts.succeeded()), (None, 1_000));
        for ms in 1..=1_000 {
            counts.count(SUCCEEDED + part_of(Duration::from_millis(ms)), 1);
        }
        assert_eq!(counts.succeeded(), 2_000);
        for (percent, exact) in [(0, 1), (50, 500), (95, 950), (99, 990), (100, 1_000)] {
            let told = counts.latency_ms(percent).unwrap();
            assert!(told.abs_diff(exact) * 8 <= exact, "p{percent} is told as {told}");
        }
    }

    #[test]
    fn buckets_lie_at_multiples_of_their_length_and_the_last_holds_now() {
        let length = Duration::from_secs(900);
        let buckets = Buckets::until(Timestamp(1_800_000_000_123), length, 96);
        assert_eq!((buckets.from, buckets.to()), (Timestamp(1_799_914_500_000), Timestamp(1_800_000_900_000)));
        assert_eq!((buckets.starts().count(), buckets.starts().last()), (96, Some(Timestamp(1_800_000_000_000))));
        let one = |at| (at, Counts { by_kind: [(ACCEPTED, 1)].into(), last_success: None });
        let at = [buckets.from.0 - 1, buckets.from.0, buckets.to().0 - 1, buckets.to().0];
        let sums = buckets.sum(at.map(one));
        let found: Vec<u64> = sums.iter().map(Counts::accepted).collect();
        assert_eq!((found[0], found[95], found.iter().sum::<u64>()), (1, 1, 2));
    }

    #[test]
    fn what_is_undone_does_not_count() {
        let mut counting = Counting::default();
        counting.accepted(1, Timestamp(59_999), 3);
        let mark = counting.mark();
        counting.told(1, Timestamp(60_000), &Verdict::Sent);
        counting.undo_to(mark);
        counting.told(1, Timestamp(60_000), &Verdict::Delay);
        counting.accepted(2, Timestamp(0), 1);
        let sums: Vec<_> = counting.take().into_iter().map(|(key, counts)| (key, counts.by_kind)).collect();
        let wanted = [((1, 0), [(16, 3)]), ((1, 60_000), [(6, 1)]), ((2, 0), [(16, 1)])];
        assert_eq!(sums, wanted.map(|(key, counts)| (key, BTreeMap::from(counts))));
        assert!(counting.take().is_empty());
    }
}
