//! Retention: what is old goes, in steps. A reader finds it; the transaction deletes what is still as it was seen.

use super::facts::Facts;
use super::rows::execution_id;
use super::writer::Tx;
use super::{search, statistics};
use crate::shared::change::sequence_at;
use crate::shared::retaining::{self, Old};
use crate::shared::rows::from_json;
use crate::statistics::{BY_HOUR, BY_MINUTE};
use crate::work::{Deleted, Kept, RetainStep, RetainWhat, Retained};
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::StoredDelivery;
use model::ids::{ExecutionId, MessageKey};
use model::retention::RetentionOverride;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// The free pages that are left in the file: what comes next takes them. More than these, and more than a tenth of the
/// file, are given back.
const FREE_PAGES: i64 = 2_560;
/// The pages that a step gives back at most.
const PAGES_GIVEN_BACK: u32 = 256;
/// The events of a window that is looked through for attempts.
const WINDOW: usize = 5_000;

pub(super) fn kept(connection: &Connection, facts: &Facts) -> Result<Vec<Kept>> {
    let mut query = connection.prepare_cached(
        "SELECT s.sbx, o.retention FROM sandbox s JOIN organization o ON o.id = s.org ORDER BY s.sbx",
    )?;
    let rows = query.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?)))?;
    let mut found = Vec::new();
    for row in rows {
        let (sbx, retention) = row?;
        let sandbox = facts.sandbox_of(connection, sbx)?;
        let retention = retention.as_deref().map(from_json::<RetentionOverride>).transpose()?.unwrap_or_default();
        found.push(Kept { sandbox: sandbox.tenant.sandbox_id, shard: sandbox.shard, retention });
    }
    Ok(found)
}

/// What a step has found before its transaction.
#[derive(Debug)]
pub(super) enum Found {
    Executions { gone: Vec<Vec<Old>>, next: Option<i64> },
    Attempts { sequences: Vec<i64>, next: Option<i64> },
    AuditLog { is_empty: bool },
    Counts { is_empty: bool },
}

impl Found {
    /// Nothing is old enough: then there is nothing to be written. Where the next step goes on.
    pub fn nothing(&self) -> Option<Retained> {
        let next = match self {
            Self::Executions { gone, next } if gone.is_empty() => *next,
            Self::Attempts { sequences, next } if sequences.is_empty() => *next,
            Self::AuditLog { is_empty: true } | Self::Counts { is_empty: true } => None,
            _ => return None,
        };
        Some(Retained { deleted: Deleted::default(), next })
    }
}

pub(super) fn look(connection: &Connection, facts: &Facts, step: &RetainStep) -> Result<Found> {
    let sandbox = facts.sandbox(connection, step.sandbox)?;
    let sbx = sandbox.sbx;
    match step.what {
        RetainWhat::Executions => {
            let (gone, next) = retaining::choose(old_messages(connection, sbx, step)?, step.before, step.most);
            Ok(Found::Executions { gone, next })
        }
        RetainWhat::Attempts => old_attempts(connection, sbx, step),
        RetainWhat::AuditLog => {
            let mut query = connection.prepare_cached("SELECT 1 FROM audit_log WHERE org = ?1 AND id < ?2 LIMIT 1")?;
            let is_there = query.exists(params![sandbox.tenant.ims_org, retaining::id_floor(step.before)])?;
            Ok(Found::AuditLog { is_empty: !is_there })
        }
        RetainWhat::CountsByMinute => counts_before(connection, sbx, BY_MINUTE, step),
        RetainWhat::CountsByHour => counts_before(connection, sbx, BY_HOUR, step),
    }
}

fn counts_before(connection: &Connection, sbx: i64, span: u8, step: &RetainStep) -> Result<Found> {
    let is_there = statistics::is_any_before(connection, sbx, span, step.before)?;
    Ok(Found::Counts { is_empty: !is_there })
}

fn old_messages(connection: &Connection, sbx: i64, step: &RetainStep) -> Result<Vec<Old>> {
    let mut query = connection.prepare_cached(
        "SELECT exec, ord, due_at IS NOT NULL, last_event FROM message \
         WHERE sbx = ?1 AND exec > ?2 AND exec < ?3 ORDER BY exec, ord LIMIT ?4",
    )?;
    let mut of_event = connection.prepare_cached("SELECT prev, delivery FROM event WHERE sbx = ?1 AND seq = ?2")?;
    let end = ExecutionId::floor_at(step.before).number();
    let rows = query.query_map((sbx, step.after, end, step.most), |row| {
        let key = MessageKey { execution: execution_id(row, 0)?, ordinal: row.get(1)? };
        Ok(Old { key, is_due: row.get(2)?, last_event: row.get(3)?, events: Vec::new() })
    })?;
    let mut messages = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for message in &mut messages {
        let mut next = message.last_event;
        while let Some(sequence) = next {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, u8>(1)?));
            let Some((previous, delivery)) = of_event.query_row((sbx, sequence), read).optional()? else { break };
            message.events.push((sequence, StoredDelivery::from_code(delivery).unwrap_or(StoredDelivery::Pending)));
            next = previous;
        }
    }
    Ok(messages)
}

/// Events whose deliveries ended so long ago, and that have attempts or an endpoint's answer.
fn old_attempts(connection: &Connection, sbx: i64, step: &RetainStep) -> Result<Found> {
    let end = sequence_at(step.before);
    let last = "SELECT seq FROM event WHERE sbx = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq LIMIT 1 OFFSET ?4";
    let next: Option<i64> =
        connection.prepare_cached(last)?.query_row((sbx, step.after, end, WINDOW - 1), |row| row.get(0)).optional()?;
    let mut query = connection.prepare_cached(
        "SELECT v.seq FROM event v WHERE v.sbx = ?1 AND v.seq > ?2 AND v.seq <= ?3 AND v.delivery NOT IN (1, 2) \
         AND v.ended_at < ?4 AND (v.attempt_excerpt IS NOT NULL \
         OR EXISTS (SELECT 1 FROM attempt a WHERE a.sbx = v.sbx AND a.seq = v.seq)) LIMIT ?5",
    )?;
    let values = (sbx, step.after, next.unwrap_or(end - 1), step.before.millis(), step.most);
    let sequences = query.query_map(values, |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let is_cut = sequences.len() >= step.most;
    let next = if is_cut { sequences.last().copied() } else { next };
    Ok(Found::Attempts { sequences, next })
}

/// Deletes what was found; what has changed meanwhile undoes it all.
pub(super) fn take(tx: &mut Tx<'_>, step: &RetainStep, found: Found) -> Result<Retained> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, step.sandbox)?;
    match found {
        Found::Executions { gone, next } => {
            let mut attempts = 0;
            for execution in &gone {
                attempts += delete_execution(tx, sandbox.sbx, execution)?;
            }
            delete_replays(tx.connection, sandbox.sbx, step.before)?;
            search::trim(tx.connection, sandbox.sbx)?;
            give_back(tx.connection)?;
            Ok(retaining::deleted(&gone, attempts, next))
        }
        Found::Attempts { sequences, next } => {
            let mut attempts = 0;
            for sequence in sequences {
                attempts += delete_attempts(tx.connection, sandbox.sbx, sequence)?;
                let update = "UPDATE event SET attempt_excerpt = NULL WHERE sbx = ?1 AND seq = ?2 \
                              AND attempt_excerpt IS NOT NULL AND delivery NOT IN (1, 2)";
                tx.connection.prepare_cached(update)?.execute((sandbox.sbx, sequence))?;
            }
            Ok(Retained { deleted: Deleted { attempts, ..Deleted::default() }, next })
        }
        Found::AuditLog { .. } => {
            let floor = retaining::id_floor(step.before);
            let mut delete = tx.connection.prepare_cached(
                "DELETE FROM audit_log WHERE org = ?1 AND id IN \
                 (SELECT id FROM audit_log WHERE org = ?1 AND id < ?2 LIMIT ?3)",
            )?;
            let deleted = delete.execute(params![sandbox.tenant.ims_org, floor, step.most])?;
            let audit_log = u64::try_from(deleted).unwrap_or(u64::MAX);
            let next = (deleted >= step.most).then_some(0);
            Ok(Retained { deleted: Deleted { audit_log, ..Deleted::default() }, next })
        }
        Found::Counts { .. } => {
            match step.what {
                RetainWhat::CountsByMinute => {
                    statistics::move_to_hours(tx.connection, sandbox.sbx, step.before, step.most)?;
                }
                _ => statistics::delete_hours(tx.connection, sandbox.sbx, step.before, step.most)?,
            }
            Ok(retaining::again(step))
        }
    }
}

fn delete_execution(tx: &Tx<'_>, sbx: i64, execution: &[Old]) -> Result<u64> {
    let connection = tx.connection;
    let (mut attempts, mut texts) = (0, Vec::with_capacity(2 * execution.len()));
    let mut event =
        connection.prepare_cached("DELETE FROM event WHERE sbx = ?1 AND seq = ?2 AND delivery NOT IN (1, 2)")?;
    let mut message = connection.prepare_cached(
        "DELETE FROM message WHERE sbx = ?1 AND exec = ?2 AND ord = ?3 AND due_at IS NULL AND last_event IS ?4 \
         RETURNING user_id, address",
    )?;
    for old in execution {
        for (sequence, _) in &old.events {
            attempts += delete_attempts(connection, sbx, *sequence)?;
            if event.execute((sbx, sequence))? != 1 {
                return Err(StoreError::Changed);
            }
        }
        let key = (sbx, old.key.execution.number(), old.key.ordinal, old.last_event);
        let deleted = message.query_row(key, |row| Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?)));
        let (user_id, address) = deleted.optional()?.ok_or(StoreError::Changed)?;
        texts.push(user_id);
        texts.extend(address);
    }
    if let Some(old) = execution.first() {
        let exec = old.key.execution.number();
        search::forget(tx, sbx, exec, texts.iter().map(String::as_str))?;
        let mut delete = connection.prepare_cached("DELETE FROM execution WHERE sbx = ?1 AND exec = ?2")?;
        delete.execute((sbx, exec))?;
    }
    Ok(attempts)
}

pub(super) fn delete_attempts(connection: &Connection, sbx: i64, sequence: i64) -> Result<u64> {
    let deleted =
        connection.prepare_cached("DELETE FROM attempt WHERE sbx = ?1 AND seq = ?2")?.execute((sbx, sequence))?;
    Ok(u64::try_from(deleted).unwrap_or(u64::MAX))
}

/// What a replay was about goes with the events.
fn delete_replays(connection: &Connection, sbx: i64, before: Timestamp) -> Result<()> {
    let delete = "DELETE FROM replay WHERE sbx = ?1 AND state <> 0 AND ended_at < ?2";
    connection.prepare_cached(delete)?.execute((sbx, before.millis()))?;
    Ok(())
}

/// Gives some of the space back that nobody will need soon.
fn give_back(connection: &Connection) -> Result<()> {
    let number = |pragma: &str| connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let free = number("freelist_count")?;
    if free > FREE_PAGES && free > number("page_count")? / 10 {
        let mut vacuum = connection.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_GIVEN_BACK})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}
