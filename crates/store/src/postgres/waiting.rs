//! How many messages wait to be sent: counted now and then, and kept up with what this node does in between. Exact where
//! one node works; of several each learns of what the others took at the next count.

use super::pool::{Pool, lookup};
use super::session::col;
use crate::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long a count holds at least.
const HOLDS: Duration = Duration::from_secs(2);
/// A count takes at most about this part of the time.
const PART: u32 = 20;

const COUNT: &str =
    "SELECT count(*) FROM (SELECT FROM message WHERE due_at IS NOT NULL AND state IN (0, 1) LIMIT $1) waiting";

#[derive(Debug)]
pub(super) struct Waiting {
    messages: AtomicI64,
    /// Past this many no execution is accepted.
    pub limit: u64,
}

impl Waiting {
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { messages: AtomicI64::new(0), limit })
    }

    pub fn now(&self) -> u64 {
        u64::try_from(self.messages.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Notes what was committed.
    pub fn add(&self, messages: i64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    /// Counts anew; what is noted meanwhile stays noted.
    pub async fn count(&self, readers: &Arc<Pool>) -> Result<()> {
        let before = self.messages.load(Ordering::Relaxed);
        let most = i64::try_from(self.limit).unwrap_or(i64::MAX).saturating_add(1);
        let counted: i64 = lookup!(readers, |session| async {
            let row = session.query_opt(COUNT, &[&most]).await?;
            row.as_ref().map_or(Ok(0), |row| col(row, 0))
        })?;
        self.messages.fetch_add(counted - before, Ordering::Relaxed);
        Ok(())
    }

    /// Counts until the task is ended.
    pub async fn keep(self: Arc<Self>, readers: Arc<Pool>) {
        loop {
            let begun = Instant::now();
            if let Err(error) = self.count(&readers).await {
                tracing::debug!(%error, "what waits could not be counted");
            }
            tokio::time::sleep(HOLDS.max(begun.elapsed() * PART)).await;
        }
    }
}
