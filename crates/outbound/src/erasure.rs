//! Erasures under way: step after step, one at a time, by the node that owns the first shard. What it takes to go on is in
//! the erasure's row.

use crate::driver::Leases;
use model::clock::Clock;
use model::ids::{ErasureId, Shard};
use std::sync::Arc;
use std::time::Duration;
use store::wake::Hint;
use store::{Store, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often erasures are looked for that no hint told of.
const LOOK: Duration = Duration::from_secs(10);
/// After a step the store is left alone for so many times as long as it took.
const REST: u32 = 2;
/// And for no longer than this.
const MOST_REST: Duration = Duration::from_secs(1);
/// After a failure of the store.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Whose owner does it, of all nodes.
const BY_THE_OWNER_OF: Shard = Shard(0);

/// Passes a hint on to the queues of this node.
pub(crate) type Tell = Box<dyn Fn(Hint) + Send + Sync>;

/// Erases.
pub struct Erasing {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) leases: Arc<dyn Leases>,
    pub(crate) told: Arc<Notify>,
    pub(crate) tell: Tell,
    pub(crate) stop: CancellationToken,
}

impl Erasing {
    /// Takes up what is asked for, until the stop.
    pub(crate) async fn keep(self) {
        while !self.stop.is_cancelled() {
            if self.leases.lease(BY_THE_OWNER_OF, self.clock.now()).is_some() {
                match self.store.running_erasures().await {
                    Ok(running) => {
                        for id in running {
                            self.run(id).await;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "erasures cannot be looked for"),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.told.notified() => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn run(&self, id: ErasureId) {
        while !self.stop.is_cancelled() && self.leases.lease(BY_THE_OWNER_OF, self.clock.now()).is_some() {
            let began = Instant::now();
            let rest = match self.store.erase_step(id, self.clock.now()).await {
                Ok(stepped) => {
                    if let Some((sandbox, channels)) = stepped.touched {
                        // What waits in memory is not to be trusted.
                        (self.tell)(Hint::Deliveries { sandbox, due: Vec::new() });
                        for channel in channels {
                            (self.tell)(Hint::Messages { sandbox, channel, due: Vec::new() });
                        }
                    }
                    if !stepped.running {
                        return;
                    }
                    (began.elapsed() * REST).min(MOST_REST)
                }
                Err(StoreError::Unavailable(why)) => {
                    tracing::warn!(%why, erasure = %id, "an erasure waits");
                    AFTER_FAILURE
                }
                Err(error) => {
                    tracing::error!(%error, erasure = %id, "an erasure does not go on");
                    return;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }
}
