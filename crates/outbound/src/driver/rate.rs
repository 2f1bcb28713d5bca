//! How many steps a second.

use std::time::Duration;
use tokio::time::Instant;

/// No second has more than the rate, and those are spread: a bucket of a tenth of a second's worth, under a window.
#[derive(Debug)]
pub(super) struct Rate {
    tokens: f64,
    filled: Instant,
    limited: Option<(u32, Box<Window>)>,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: 1.0, filled: now, limited: None }
    }

    /// Whether one more may start.
    pub(super) fn allows(&mut self, per_second: Option<u32>, now: Instant) -> bool {
        let Some(per_second) = per_second else {
            self.limited = None;
            return true;
        };
        let (rate, window) = self.limited.get_or_insert_with(|| (per_second, Box::new(Window::new(now))));
        *rate = per_second;
        window.advance(now);
        let rate = f64::from(per_second);
        let gained = now.duration_since(self.filled).as_secs_f64() * rate;
        // Bursts stay small, and a tick of the timer loses nothing.
        self.tokens = (self.tokens + gained).min((rate / 10.0).max(1.0));
        self.filled = now;
        self.tokens >= 1.0 && window.sum < per_second
    }

    /// Counts the one that [`Rate::allows`] let start.
    pub(super) fn take(&mut self) {
        if let Some((_, window)) = &mut self.limited {
            window.count();
            self.tokens -= 1.0;
        }
    }

    /// When the next one may start, if it may not now.
    pub(super) fn next_in(&self) -> Option<Duration> {
        let (per_second, window) = self.limited.as_ref()?;
        let rate = f64::from(*per_second);
        let token = (self.tokens < 1.0).then(|| Duration::from_secs_f64((1.0 - self.tokens) / rate));
        let room = (window.sum >= *per_second).then(|| window.next_leaves_in(self.filled));
        token.max(room)
    }
}

const SLOT: Duration = Duration::from_millis(20);
/// The slots that any second touches.
const SLOTS: usize = 51;

/// How many started in the last second, and up to a slot more: the other side counts by its own clock, and what left
/// evenly may arrive in a bunch.
#[derive(Debug)]
struct Window {
    origin: Instant,
    /// The slot that is counted in at present, since the origin.
    current: u64,
    slots: [u32; SLOTS],
    sum: u32,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { origin: now, current: 0, slots: [0; SLOTS], sum: 0 }
    }

    fn place(slot: u64) -> usize {
        usize::try_from(slot % SLOTS as u64).unwrap_or(0)
    }

    fn advance(&mut self, now: Instant) {
        let slot = u64::try_from(now.duration_since(self.origin).as_nanos() / SLOT.as_nanos()).unwrap_or(u64::MAX);
        let passed = slot.saturating_sub(self.current).min(SLOTS as u64);
        for left in slot + 1 - passed..=slot {
            self.sum -= std::mem::take(&mut self.slots[Self::place(left)]);
        }
        self.current = slot;
    }

    fn count(&mut self) {
        self.slots[Self::place(self.current)] += 1;
        self.sum += 1;
    }

    /// When the first of those counted is no longer in the window.
    fn next_leaves_in(&self, now: Instant) -> Duration {
        let since = (self.current + 1).saturating_sub(SLOTS as u64);
        let first = (since..=self.current).find(|&slot| self.slots[Self::place(slot)] > 0).unwrap_or(self.current);
        let leaves = SLOT.saturating_mul(u32::try_from(first + SLOTS as u64).unwrap_or(u32::MAX));
        leaves.saturating_sub(now.duration_since(self.origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_the_rate() {
        for per_second in [1, 7, 500, 10_000] {
            let mut rate = Rate::new(Instant::now());
            let start = Instant::now();
            let mut taken: Vec<Duration> = Vec::new();
            // It idles in between: what was saved up then does not come on top.
            for pause in [0, 3_000, 700] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let begun = taken.len();
                let until = start.elapsed() + Duration::from_secs(10);
                while start.elapsed() < until {
                    while rate.allows(Some(per_second), Instant::now()) {
                        rate.take();
                        taken.push(start.elapsed());
                    }
                    tokio::time::sleep(rate.next_in().unwrap().max(Duration::from_millis(1))).await;
                }
                let count = taken.len() - begun;
                let wanted = 10 * per_second as usize;
                assert!((wanted * 95 / 100..=wanted + 1).contains(&count), "{count} at {per_second}/s in 10 s");
            }
            let most = per_second as usize;
            for (first, next) in taken.iter().zip(&taken[most..]) {
                assert!(*next - *first >= Duration::from_secs(1), "{} in {:?}", most + 1, *next - *first);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_may_change_at_any_time() {
        let mut rate = Rate::new(Instant::now());
        for per_second in [Some(1000), None, Some(10), Some(1000)] {
            for _ in 0..200 {
                if rate.allows(per_second, Instant::now()) {
                    rate.take();
                }
                let wait = rate.next_in().unwrap_or_default();
                assert!(wait <= Duration::from_millis(1_100), "{wait:?}");
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
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
