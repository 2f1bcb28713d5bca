//! Ownership of shards: leases by compare-and-set.

use super::writer::Tx;
use crate::work::Lease;
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::ids::{OwnerId, Shard};
use rusqlite::Connection;
use std::time::Duration;

/// Frees every shard: only for a process that has just taken the file's lock, so that no other owner can be alive.
pub(super) fn free_all(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE shard SET owner = NULL, until = 0 WHERE owner IS NOT NULL", [])?;
    Ok(())
}

/// The epochs as stored; 0 for a shard that nobody ever held.
pub(super) fn epochs(connection: &Connection, epochs: &mut [u64]) -> Result<()> {
    epochs.fill(0);
    let mut query = connection.prepare("SELECT shard, epoch FROM shard")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let shard: usize = row.get(0)?;
        let epoch = epochs.get_mut(shard).ok_or_else(|| StoreError::Corrupt(format!("the shard {shard}")))?;
        *epoch = row.get(1)?;
    }
    Ok(())
}

pub(super) fn claim(
    tx: &mut Tx<'_>,
    owner: OwnerId,
    wanted: &[Shard],
    now: Timestamp,
    lease: Duration,
) -> Result<Vec<Lease>> {
    let until = now + lease;
    for shard in wanted {
        take(tx, owner, *shard, now, until)?;
    }
    let mut renew = tx.connection.prepare_cached("UPDATE shard SET until = ?2 WHERE owner = ?1")?;
    renew.execute((owner.bytes(), until.millis()))?;
    let mut held = tx.connection.prepare_cached("SELECT shard, epoch FROM shard WHERE owner = ?1 ORDER BY shard")?;
    let held = held
        .query_map([owner.bytes()], |row| Ok(Lease { shard: Shard(row.get(0)?), epoch: row.get(1)?, until }))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    // Last, so that a claim that fails leaves the memory as it was.
    for lease in &held {
        if let Some(known) = tx.state.epochs.get_mut(usize::from(lease.shard.0)) {
            *known = lease.epoch;
        }
    }
    Ok(held)
}

/// Takes one shard if nobody else holds it.
fn take(tx: &Tx<'_>, owner: OwnerId, shard: Shard, now: Timestamp, until: Timestamp) -> Result<()> {
    let mut take = tx.connection.prepare_cached(
        "INSERT INTO shard (shard, owner, epoch, until) VALUES (?1, ?2, 1, ?4) ON CONFLICT (shard) DO UPDATE \
         SET owner = ?2, epoch = epoch + 1, until = ?4 WHERE owner IS NULL OR (owner <> ?2 AND until <= ?3)",
    )?;
    take.execute((shard.0, owner.bytes(), now.millis(), until.millis()))?;
    Ok(())
}

pub(super) fn release(tx: &Tx<'_>, owner: OwnerId) -> Result<()> {
    tx.connection.execute("UPDATE shard SET owner = NULL, until = 0 WHERE owner = ?1", [owner.bytes()])?;
    Ok(())
}
