//! How many executions a second a sandbox may send: a token bucket each.

use super::problem::Problem;
use model::clock::Timestamp;
use model::ids::SandboxId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The buckets of all sandboxes; there is one at most for each sandbox of the store.
#[derive(Debug)]
pub struct RateLimit {
    per_second: Option<u32>,
    buckets: Mutex<HashMap<SandboxId, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Timestamp,
}

impl RateLimit {
    /// So many a second, and as many at once after a pause; none: no limit.
    pub fn new(per_second: Option<u32>) -> Self {
        Self { per_second, buckets: Mutex::default() }
    }

    /// Takes one token, or says when there will be one.
    pub fn take(&self, sandbox: SandboxId, now: Timestamp) -> Result<(), Problem> {
        let Some(per_second) = self.per_second else {
            return Ok(());
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = f64::from(per_second);
        let bucket = buckets.entry(sandbox).or_insert(Bucket { tokens: rate, filled_at: now });
        bucket.tokens = (bucket.tokens + now.since(bucket.filled_at).as_secs_f64() * rate).min(rate);
        bucket.filled_at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        // A bucket holds a second's worth, so there is a token within one second, unless none is allowed at all.
        Err(Problem::RateLimited { retry_after: if per_second == 0 { 60 } else { 1 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_bucket_for_each_sandbox() {
        let limit = RateLimit::new(Some(2));
        let (one, other) = (SandboxId(Uuid::from_u128(1)), SandboxId(Uuid::from_u128(2)));
        let now = Timestamp(1_000_000);
        assert!(limit.take(one, now).is_ok() && limit.take(one, now).is_ok());
        assert_eq!(limit.take(one, now), Err(Problem::RateLimited { retry_after: 1 }));
        assert!(limit.take(other, now).is_ok());
        assert!(limit.take(one, Timestamp(1_000_500)).is_ok());
        assert!(limit.take(one, Timestamp(1_000_500)).is_err());
        assert!(RateLimit::new(None).take(one, now).is_ok());
    }
}
