//! How many steps a second.

use std::time::Duration;
use tokio::time::Instant;

/// A token bucket of a tenth of a second's worth.
#[derive(Debug)]
pub(super) struct Rate {
    tokens: f64,
    filled: Instant,
    per_second: Option<u32>,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: 1.0, filled: now, per_second: None }
    }

    /// Whether there is a token.
    pub(super) fn allows(&mut self, per_second: Option<u32>, now: Instant) -> bool {
        self.per_second = per_second;
        let Some(rate) = per_second.map(f64::from) else { return true };
        let gained = now.duration_since(self.filled).as_secs_f64() * rate;
        // Bursts stay small, and a tick of the timer loses nothing.
        self.tokens = (self.tokens + gained).min((rate / 10.0).max(1.0));
        self.filled = now;
        self.tokens >= 1.0
    }

    /// Takes the token that [`Rate::allows`] found.
    pub(super) fn take(&mut self) {
        if self.per_second.is_some() {
            self.tokens -= 1.0;
        }
    }

    /// When the next token is there, if one is missing.
    pub(super) fn next_in(&self) -> Option<Duration> {
        let rate = f64::from(self.per_second?);
        (self.tokens < 1.0).then(|| Duration::from_secs_f64((1.0 - self.tokens) / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_the_rate_and_a_tenth() {
        for per_second in [1, 7, 1000] {
            let mut rate = Rate::new(Instant::now());
            let start = Instant::now();
            let mut taken = 0;
            while start.elapsed() < Duration::from_secs(10) {
                while rate.allows(Some(per_second), Instant::now()) {
                    rate.take();
                    taken += 1;
                }
                tokio::time::sleep(rate.next_in().unwrap().max(Duration::from_millis(1))).await;
            }
            assert!(
                (9 * per_second..=10 * per_second + per_second / 10 + 1).contains(&taken),
                "{taken} at {per_second}/s"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_there_is_no_wait() {
        let mut rate = Rate::new(Instant::now());
        for _ in 0..1000 {
            assert!(rate.allows(None, Instant::now()));
            rate.take();
        }
        assert_eq!(rate.next_in(), None);
    }
}
