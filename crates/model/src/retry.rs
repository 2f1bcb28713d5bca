//! When to try again.

use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// An exponential schedule with jitter that gives up after a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetrySchedule {
    /// The pause after the first failure, before jitter, in seconds.
    pub first_delay_seconds: u32,
    /// The longest pause, before jitter, in seconds.
    pub max_delay_seconds: u32,
    /// No try is due later than this after the first one was, in seconds.
    pub give_up_after_seconds: u32,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        Self { first_delay_seconds: 5, max_delay_seconds: 3600, give_up_after_seconds: 259_200 }
    }
}

/// What follows a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again, not before this.
    At(Timestamp),
    /// The time is up.
    GiveUp,
}

impl RetrySchedule {
    /// The pause after `failures` failed tries (1 or more), with `jitter` in `0.0..1.0` spreading it by ±50 %.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(32);
        let doubled = u64::from(self.first_delay_seconds) << doublings;
        let base = Duration::from_secs(doubled.min(u64::from(self.max_delay_seconds)));
        base.mul_f64(0.5 + jitter.clamp(0.0, 1.0))
    }

    /// What follows the failure at `now` of a delivery or message whose first try was due at `first_due`.
    /// `asked` is the least pause that the other side asked for.
    pub fn next(
        &self,
        first_due: Timestamp,
        now: Timestamp,
        failures: u32,
        jitter: f64,
        asked: Option<Duration>,
    ) -> RetryDecision {
        let at = now + self.delay(failures, jitter).max(asked.unwrap_or_default());
        let end = first_due + Duration::from_secs(u64::from(self.give_up_after_seconds));
        if at <= end { RetryDecision::At(at) } else { RetryDecision::GiveUp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_stay_within_half_and_one_and_a_half(failures in 1_u32..200, jitter in 0.0..1.0_f64, first in 1_u32..3600, max in 1_u32..86_400) {
            let schedule = RetrySchedule { first_delay_seconds: first, max_delay_seconds: max, give_up_after_seconds: 1 };
            let base = (f64::from(first) * 2_f64.powi(i32::try_from(failures - 1).unwrap().min(40))).min(f64::from(max));
            let delay = schedule.delay(failures, jitter).as_secs_f64();
            prop_assert!(delay >= base * 0.499 && delay <= base * 1.501, "{delay} of {base}");
        }

        #[test]
        fn no_try_is_due_after_the_end(failures in 1_u32..50, jitter in 0.0..1.0_f64, passed in 0_u64..400_000, asked in proptest::option::of(0_u64..4000)) {
            let schedule = RetrySchedule::default();
            let first_due = Timestamp(1_800_000_000_000);
            let now = first_due + Duration::from_secs(passed);
            match schedule.next(first_due, now, failures, jitter, asked.map(Duration::from_secs)) {
                RetryDecision::At(at) => {
                    prop_assert!(at > now);
                    prop_assert!(at.since(first_due) <= Duration::from_secs(259_200));
                    prop_assert!(asked.is_none_or(|least| at.since(now) >= Duration::from_secs(least)));
                }
                RetryDecision::GiveUp => prop_assert!(passed + 5400 + asked.unwrap_or(0) > 259_200),
            }
        }
    }

    #[test]
    fn a_default_schedule_gives_up_after_three_days() {
        let schedule = RetrySchedule::default();
        let (mut now, mut failures) = (Timestamp(0), 0);
        loop {
            failures += 1;
            match schedule.next(Timestamp(0), now, failures, 0.5, None) {
                RetryDecision::At(at) => now = at,
                RetryDecision::GiveUp => break,
            }
        }
        assert!(now.seconds() > 259_200 - 3600 && failures > 70, "{failures} tries until {now}");
    }
}
