//! Ownership of shards: leases by compare-and-set, and what checks them.

use super::rows::corrupt;
use super::session::{Done, Session, col};
use crate::shared::facts::SandboxFacts;
use crate::work::Lease;
use model::clock::Timestamp;
use model::ids::{OwnerId, Shard};
use std::collections::HashMap;
use std::time::Duration;
use tokio_postgres::Row;

/// The epochs of shards, held until the end of the transaction: a claim waits for it, and a claim that was quicker is
/// seen. In the order of the shards, as claims lock them.
pub(super) const EPOCHS: &str = "SELECT shard, epoch FROM shard WHERE shard = ANY($1) ORDER BY shard FOR SHARE";

/// The shards of leases as a value of [`EPOCHS`].
pub(super) fn shards_of(leases: impl Iterator<Item = Lease>) -> Vec<i32> {
    let mut shards: Vec<i32> = leases.map(|lease| i32::from(lease.shard.0)).collect();
    shards.sort_unstable();
    shards.dedup();
    shards
}

/// Epochs by shard.
pub(super) struct Epochs(HashMap<i32, i64>);

impl Epochs {
    pub fn read(rows: &[Row]) -> Done<Self> {
        rows.iter().map(|row| Ok((col(row, 0)?, col(row, 1)?))).collect::<Done<_>>().map(Self)
    }

    /// Whether the lease is that of the shard's present owner.
    pub fn hold(&self, sandbox: &SandboxFacts, lease: Lease) -> bool {
        let present = self.0.get(&i32::from(lease.shard.0)).copied();
        sandbox.shard == lease.shard && present.is_some_and(|epoch| u64::try_from(epoch) == Ok(lease.epoch))
    }
}

/// First the rows are locked, in their order, and only then looked at: what another claim did meanwhile is seen.
const CLAIM: &str = "WITH seen AS (SELECT shard, owner, epoch, until FROM shard WHERE shard = ANY($2) OR owner = $1 \
     ORDER BY shard FOR UPDATE) \
     UPDATE shard s SET owner = $1, until = $4, epoch = seen.epoch + CASE WHEN seen.owner = $1 THEN 0 ELSE 1 END \
     FROM seen WHERE s.shard = seen.shard AND (seen.owner = $1 OR seen.owner IS NULL OR seen.until <= $3) \
     RETURNING s.shard, s.epoch";

pub(super) async fn claim(
    session: &Session,
    owner: OwnerId,
    wanted: &[Shard],
    now: Timestamp,
    lease: Duration,
) -> Done<Vec<Lease>> {
    let until = now + lease;
    let wanted: Vec<i32> = wanted.iter().map(|shard| i32::from(shard.0)).collect();
    let rows = session.query(CLAIM, &[&owner.0, &wanted, &now.millis(), &until.millis()]).await?;
    let mut held = Vec::with_capacity(rows.len());
    for row in &rows {
        let shard = u16::try_from(col::<i32>(row, 0)?).map_err(|_| corrupt("a shard's number"))?;
        let epoch = u64::try_from(col::<i64>(row, 1)?).map_err(|_| corrupt("a shard's epoch"))?;
        held.push(Lease { shard: Shard(shard), epoch, until });
    }
    held.sort_unstable_by_key(|lease| lease.shard);
    Ok(held)
}

const RELEASE: &str = "WITH held AS (SELECT shard FROM shard WHERE owner = ANY($1) ORDER BY shard FOR UPDATE) \
     UPDATE shard s SET owner = NULL, until = 0 FROM held WHERE s.shard = held.shard";

pub(super) async fn release(session: &Session, owners: &[OwnerId]) -> Done<()> {
    let owners: Vec<uuid::Uuid> = owners.iter().map(|owner| owner.0).collect();
    session.execute(RELEASE, &[&owners]).await.map(drop)
}
