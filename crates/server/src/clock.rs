//! The system's clock and randomness: the one place that asks the operating system for either.

use model::clock::{Clock, Entropy, Timestamp};
use std::time::{Duration, UNIX_EPOCH};

/// The time of day.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

fn since_epoch() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system's time")]
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX))
    }
}

impl SystemClock {
    /// Microseconds since the Unix epoch: what two processes of one machine can compare, for measuring.
    pub fn micros() -> u64 {
        u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
    }
}

/// The random bytes of the cryptographic library, seeded by the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // Keys made of anything but random bytes would be worse than none at all.
        aws_lc_rs::rand::fill(bytes).expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_and_the_bytes_differ() {
        assert!(SystemClock.now() > Timestamp::parse("2025-01-01T00:00:00Z").unwrap());
        let (mut one, mut other) = ([0; 32], [0; 32]);
        SystemEntropy.fill(&mut one);
        SystemEntropy.fill(&mut other);
        assert_ne!(one, other);
    }
}
