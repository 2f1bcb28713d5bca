//! What happened, counted: a row has all counts of a sandbox's minute or hour, so that a commit writes one more row.

use super::facts::Facts;
use crate::Result;
use crate::shared::rows::{from_json, json_of};
use crate::statistics::{BY_HOUR, BY_MINUTE, Backlog, Buckets, Counting, Counts, HOUR_MS, MOST_WAITING};
use model::clock::Timestamp;
use model::ids::SandboxId;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;

/// Writes what a transaction has counted: the last thing before its commit.
pub(super) fn write(connection: &Connection, counted: &mut Counting) -> Result<()> {
    for ((sbx, minute), counts) in counted.take() {
        add(connection, (sbx, BY_MINUTE, minute), counts)?;
    }
    Ok(())
}

fn add(connection: &Connection, (sbx, span, at): (i64, u8, i64), mut counts: Counts) -> Result<()> {
    let mut find = connection
        .prepare_cached("SELECT at, counts, last_success FROM statistic WHERE sbx = ?1 AND span = ?2 AND at = ?3")?;
    let before = find.query_row((sbx, span, at), raw).optional()?;
    if let Some((_, before)) = before.map(parsed).transpose()? {
        counts.add(&before);
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO statistic (sbx, span, at, counts, last_success) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (sbx, span, at) DO UPDATE SET counts = excluded.counts, last_success = excluded.last_success",
    )?;
    let last_success = counts.last_success.map(Timestamp::millis);
    insert.execute(params![sbx, span, at, json_of(&counts.by_kind)?, last_success])?;
    Ok(())
}

type Raw = (i64, String, Option<i64>);

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn parsed((at, counts, last_success): Raw) -> Result<(i64, Counts)> {
    Ok((at, Counts { by_kind: from_json(&counts)?, last_success: last_success.map(Timestamp) }))
}

pub(super) fn statistics(
    connection: &Connection,
    facts: &Facts,
    sandbox: SandboxId,
    buckets: &Buckets,
) -> Result<Vec<Counts>> {
    let sbx = facts.sandbox(connection, sandbox)?.sbx;
    let mut query = connection.prepare_cached(
        "SELECT at, counts, last_success FROM statistic \
         WHERE sbx = ?1 AND span IN (0, 1) AND at >= ?2 AND at < ?3",
    )?;
    let rows = query.query_map((sbx, buckets.from.millis(), buckets.to().millis()), raw)?;
    let counted = rows.map(|row| parsed(row?)).collect::<Result<Vec<_>>>()?;
    Ok(buckets.sum(counted))
}

pub(super) fn last_success(connection: &Connection, facts: &Facts, sandbox: SandboxId) -> Result<Option<Timestamp>> {
    let sbx = facts.sandbox(connection, sandbox)?.sbx;
    let mut query = connection.prepare_cached(
        "SELECT last_success FROM statistic WHERE sbx = ?1 AND span = ?2 AND last_success IS NOT NULL \
         ORDER BY at DESC LIMIT 1",
    )?;
    for span in [BY_MINUTE, BY_HOUR] {
        if let Some(at) = query.query_row((sbx, span), |row| row.get(0)).optional()? {
            return Ok(Some(Timestamp(at)));
        }
    }
    Ok(None)
}

pub(super) fn backlog(connection: &Connection, facts: &Facts, sandbox: SandboxId) -> Result<Backlog> {
    let sbx = facts.sandbox(connection, sandbox)?.sbx;
    let most = MOST_WAITING + 1;
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row((sbx, most), |row| row.get::<_, u64>(0));
    let pending = count(
        "SELECT count(*) FROM (SELECT 1 FROM event INDEXED BY event_due WHERE sbx = ?1 AND delivery = 1 LIMIT ?2)",
    )?;
    let blocked = count(
        "SELECT count(*) FROM (SELECT 1 FROM event INDEXED BY event_ended WHERE sbx = ?1 AND delivery = 2 LIMIT ?2)",
    )?;
    Ok(Backlog::new(pending + blocked, super::deliver::first_delivery_after(connection, sbx, i64::MIN)?))
}

/// Whether there is anything to be moved or deleted before this moment.
pub(super) fn is_any_before(connection: &Connection, sbx: i64, span: u8, before: Timestamp) -> Result<bool> {
    let mut query =
        connection.prepare_cached("SELECT 1 FROM statistic WHERE sbx = ?1 AND span = ?2 AND at < ?3 LIMIT 1")?;
    Ok(query.exists((sbx, span, before.millis()))?)
}

/// Moves some of what was counted by minute to the hours.
pub(super) fn move_to_hours(connection: &Connection, sbx: i64, before: Timestamp, most: usize) -> Result<()> {
    let mut query = connection.prepare_cached(
        "SELECT at, counts, last_success FROM statistic WHERE sbx = ?1 AND span = ?2 AND at < ?3 ORDER BY at LIMIT ?4",
    )?;
    let rows = query.query_map((sbx, BY_MINUTE, before.millis(), most), raw)?;
    let minutes = rows.map(|row| parsed(row?)).collect::<Result<Vec<_>>>()?;
    let Some((last, _)) = minutes.last() else { return Ok(()) };
    let mut delete = connection.prepare_cached("DELETE FROM statistic WHERE sbx = ?1 AND span = ?2 AND at <= ?3")?;
    delete.execute((sbx, BY_MINUTE, last))?;
    let mut hours: BTreeMap<i64, Counts> = BTreeMap::new();
    for (minute, counts) in &minutes {
        hours.entry(minute - minute.rem_euclid(HOUR_MS)).or_default().add(counts);
    }
    for (hour, counts) in hours {
        add(connection, (sbx, BY_HOUR, hour), counts)?;
    }
    Ok(())
}

/// Deletes some of what was counted by hour.
pub(super) fn delete_hours(connection: &Connection, sbx: i64, before: Timestamp, most: usize) -> Result<()> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM statistic WHERE (sbx, span, at) IN \
         (SELECT sbx, span, at FROM statistic WHERE sbx = ?1 AND span = ?2 AND at < ?3 LIMIT ?4)",
    )?;
    delete.execute((sbx, BY_HOUR, before.millis(), most))?;
    Ok(())
}
