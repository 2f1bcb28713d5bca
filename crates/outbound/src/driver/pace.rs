//! How many steps of a queue at a time: as many as the other side keeps up with.
//!
//! The limit begins small and doubles with each round of answers, so that a fast endpoint is at its most within
//! milliseconds; trouble and rising latency shrink it. What it bounds is how much of the house a queue whose other side
//! hangs can hold: a few places, soon one.

use model::circuit::Sign;
use std::time::Duration;
use tokio::time::Instant;

/// Where every queue begins, and what it may always have under way while nothing is heard.
const FIRST: usize = 4;
/// A failure that took this long held its place for long.
const SLOW: Duration = Duration::from_secs(1);
/// Below this latency no place is worth taking away.
const UNHURRIED: f64 = 0.25;
/// After so long without an answer, with several steps under way, no more are started.
const SILENCE: Duration = Duration::from_secs(1);

/// A queue's limit.
#[derive(Debug)]
pub(super) struct Pace {
    limit: f64,
    /// Up to here it doubles with each round of answers; above, it grows by one.
    doubles_to: f64,
    /// Rows waited for the limit when steps were started last: it is worth growing.
    is_wanted: bool,
    /// The number of the next step.
    next: u64,
    /// Steps with lower numbers began before the limit shrank, so they say nothing about what it is now.
    since: u64,
    /// The latency when not much is asked, in seconds.
    usual: f64,
    /// The latency of late.
    recent: f64,
    /// The last sign was a good one.
    is_proven: bool,
    heard: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            limit: as_float(FIRST),
            doubles_to: f64::INFINITY,
            is_wanted: false,
            next: 0,
            since: 0,
            usual: f64::INFINITY,
            recent: 0.0,
            is_proven: false,
            heard: now,
        }
    }

    /// The limit, where the settings allow `most`.
    pub(super) fn limit(&self, most: usize) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at least 1, and a float saturates"
        )]
        let limit = self.limit as usize;
        limit.clamp(1, most.max(1))
    }

    /// Whether one more step may begin beside `under_way` others.
    pub(super) fn allows(&mut self, under_way: usize, most: usize, now: Instant) -> bool {
        self.is_wanted = under_way >= self.limit(most);
        let hangs = under_way >= FIRST && self.is_silent(now);
        !self.is_wanted && !hangs
    }

    /// Everything that waited was started: the limit need not grow.
    pub(super) fn suffices(&mut self) {
        self.is_wanted = false;
    }

    fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.heard) > SILENCE.max(Duration::from_secs_f64(4.0 * self.recent))
    }

    /// Whether the other side answers at present, as far as one can tell with so many steps under way.
    pub(super) fn answers(&self, under_way: usize, now: Instant) -> bool {
        self.is_proven && (under_way == 0 || !self.is_silent(now))
    }

    /// A step begins beside `under_way` others; its number.
    pub(super) fn begin(&mut self, under_way: usize, now: Instant) -> u64 {
        if under_way == 0 {
            self.heard = now;
        }
        self.next += 1;
        self.next - 1
    }

    /// The number that the next step will have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// A step has ended.
    pub(super) fn note(&mut self, number: u64, sign: Sign, took: Duration, most: usize, now: Instant) {
        self.heard = now;
        match sign {
            Sign::Good => self.is_proven = true,
            Sign::Bad => self.is_proven = false,
            Sign::Neutral => {}
        }
        if sign == Sign::Bad {
            return self.shrink(number, if took >= SLOW { 0.5 } else { 0.9 }, 1.0);
        }
        if !took.is_zero() {
            self.measure(took.as_secs_f64());
        }
        if self.recent > 2.0 * self.usual && self.recent > UNHURRIED {
            self.shrink(number, 0.9, as_float(FIRST));
        } else if self.is_wanted {
            let more = if self.limit < self.doubles_to { 1.0 } else { 1.0 / self.limit };
            self.limit = (self.limit + more).min(as_float(most.max(1)));
        }
    }

    fn measure(&mut self, took: f64) {
        let first = self.usual.is_infinite();
        self.recent = if first { took } else { self.recent + (took - self.recent) / 8.0 };
        // It forgets, a twentieth each round, so that an endpoint which has become slower for good is taken as it is.
        self.usual = (self.usual * (1.0 + 0.05 / self.limit)).min(took.max(0.001));
    }

    /// Once for each round: all that was under way when it shrank was asked at the former limit.
    fn shrink(&mut self, number: u64, factor: f64, least: f64) {
        if number >= self.since && self.limit > least {
            self.limit = (self.limit * factor).max(least);
            self.doubles_to = self.limit;
            self.since = self.next;
        }
    }

    /// Begins anew with `limit`, after the circuit has closed or what is asked has changed.
    pub(super) fn restart(&mut self, limit: usize) {
        self.limit = as_float(limit.max(1));
        self.doubles_to = f64::INFINITY;
        self.since = self.next;
        self.usual = f64::INFINITY;
    }

    /// Begins anew as for a new queue.
    pub(super) fn begin_anew(&mut self) {
        self.restart(FIRST);
        self.is_proven = false;
    }
}

fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAST: Duration = Duration::from_millis(2);

    /// Starts as many as may be, ends all of them with this sign after that long; how many there were.
    fn round(pace: &mut Pace, sign: Sign, took: Duration, most: usize, now: &mut Instant) -> usize {
        let mut begun = Vec::new();
        while pace.allows(begun.len(), most, *now) {
            begun.push(pace.begin(begun.len(), *now));
        }
        *now += took;
        begun.iter().for_each(|number| pace.note(*number, sign, took, most, *now));
        begun.len()
    }

    #[test]
    fn a_fast_endpoint_is_at_its_most_after_a_few_rounds() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let rounds: Vec<_> = (0..6).map(|_| round(&mut pace, Sign::Good, FAST, 64, &mut now)).collect();
        assert_eq!(rounds, [4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn one_that_hangs_holds_a_place_soon_and_gets_them_back_when_it_answers() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        (0..6).for_each(|_| assert!(round(&mut pace, Sign::Good, FAST, 64, &mut now) > 0));
        let hang = Duration::from_secs(15);
        let rounds: Vec<_> = (0..7).map(|_| round(&mut pace, Sign::Bad, hang, 64, &mut now)).collect();
        assert_eq!(rounds, [64, 32, 16, 8, 4, 2, 1]);
        let back = (0..100).map(|_| round(&mut pace, Sign::Good, FAST, 64, &mut now)).last().unwrap();
        assert_eq!(back, 64, "one more each round");
    }

    #[test]
    fn nothing_more_is_started_while_nothing_is_heard() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        (0..6).for_each(|_| assert!(round(&mut pace, Sign::Good, FAST, 64, &mut now) > 0));
        for under_way in 0..10 {
            assert!(pace.allows(under_way, 64, now));
            pace.begin(under_way, now);
        }
        now += 2 * SILENCE;
        assert!(!pace.allows(10, 64, now));
        assert!(pace.allows(3, 64, now), "one poison event that hangs leaves places for the others");
        pace.note(0, Sign::Good, FAST, 64, now);
        assert!(pace.allows(9, 64, now));
    }

    #[test]
    fn rising_latency_shrinks_the_limit_and_a_steady_one_does_not() {
        let mut now = Instant::now();
        let (mut pace, mut steady) = (Pace::new(now), Pace::new(now));
        let mut rounds = |pace: &mut Pace, count: usize, millis: u64| -> Vec<usize> {
            (0..count).map(|_| round(pace, Sign::Good, Duration::from_millis(millis), 64, &mut now)).collect()
        };
        assert_eq!(rounds(&mut pace, 20, 100).last(), Some(&64));
        let slower = rounds(&mut pace, 20, 800);
        assert!(slower.windows(2).all(|pair| pair[1] <= pair[0]) && slower[19] < 20, "{slower:?}");
        assert_eq!(rounds(&mut pace, 200, 800).last(), Some(&64), "it stays slower, so that is what it is");
        assert_eq!(rounds(&mut steady, 20, 2_000).last(), Some(&64));
    }

    #[test]
    fn a_limit_that_nobody_waits_for_does_not_grow() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..100 {
            assert!(pace.allows(0, 64, now));
            let number = pace.begin(0, now);
            pace.suffices();
            pace.note(number, Sign::Good, FAST, 64, now);
        }
        assert_eq!(pace.limit(64), FIRST);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(
            steps in proptest::collection::vec((0_u8..3, 0_u64..20_000), 0..300),
            most in 1_usize..1000,
        ) {
            let mut now = Instant::now();
            let mut pace = Pace::new(now);
            for (sign, took) in steps {
                let sign = [Sign::Good, Sign::Bad, Sign::Neutral][usize::from(sign)];
                let begun = round(&mut pace, sign, Duration::from_millis(took), most, &mut now);
                prop_assert!((1..=most).contains(&begun));
                prop_assert!((1..=most).contains(&pace.limit(most)));
            }
        }
    }
}
