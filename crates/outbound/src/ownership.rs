//! Which shards this node works on: leases taken and renewed in one statement.

use crate::driver::Leases;
use model::clock::{Clock, Timestamp};
use model::ids::{OwnerId, SHARDS, Shard};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::Store;
use store::work::Lease;
use tokio_util::sync::CancellationToken;

/// How long a lease lasts without renewal.
const LEASE: Duration = Duration::from_secs(30);
/// How often leases are renewed, and free shards looked for.
const RENEWAL: Duration = Duration::from_secs(10);

/// The leases that this node holds.
#[derive(Debug)]
pub struct Ownership {
    owner: OwnerId,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    leases: RwLock<Vec<Option<Lease>>>,
}

impl Ownership {
    /// An owner without shards.
    pub fn new(owner: OwnerId, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let leases = RwLock::new(vec![None; usize::from(SHARDS)]);
        Arc::new(Self { owner, store, clock, leases })
    }

    /// Takes what is free and renews what is held.
    pub async fn renew(&self) -> store::Result<()> {
        let wanted = (0..SHARDS).map(Shard).collect();
        let held = self.store.claim_shards(self.owner, wanted, self.clock.now(), LEASE).await?;
        let mut leases = self.leases.write().unwrap_or_else(PoisonError::into_inner);
        leases.fill(None);
        for lease in held {
            leases[usize::from(lease.shard.0)] = Some(lease);
        }
        Ok(())
    }

    /// Keeps the leases until the stop.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(RENEWAL) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, "leases cannot be renewed");
            }
        }
    }

    /// Gives every shard back.
    pub async fn release(&self) {
        self.leases.write().unwrap_or_else(PoisonError::into_inner).fill(None);
        if let Err(error) = self.store.release_shards(self.owner).await {
            tracing::warn!(%error, "leases cannot be given back; they end by themselves");
        }
    }
}

impl Leases for Ownership {
    fn lease(&self, shard: Shard, now: Timestamp) -> Option<Lease> {
        let leases = self.leases.read().unwrap_or_else(PoisonError::into_inner);
        leases.get(usize::from(shard.0)).copied().flatten().filter(|lease| now < lease.until)
    }
}
