//! Erasures: rows first, a part at a time; then the traces that deleted rows leave in the file (`traces`).

use super::admin::{audit_only, organization, page};
use super::facts::Facts;
use super::retain::delete_attempts;
use super::rows::{execution_id, find_message, id_from, moment};
use super::search::forget;
use super::writer::Tx;
use crate::envelope::MasterKey;
use crate::lookup::{Listed, Page};
use crate::shared::erasing::{self, MOST, Place, Step, WINDOW};
use crate::shared::rows::{from_json, json_of};
use crate::work::NewErasure;
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::erasure::{Erased, Erasure, ErasureState};
use model::ids::{ChannelConfigurationId, ErasureId, MessageKey, SandboxId};
use model::tenancy::AuditEntry;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::Arc;

const COLUMNS: &str = "id, org, digest, erased, created_at, created_by, completed_at";

fn read_erasure(row: &Row<'_>) -> Result<Erasure> {
    let completed_at = moment(row, 6)?;
    Ok(Erasure {
        id: id_from(row, 0, ErasureId::from_bytes)?,
        ims_org: row.get(1)?,
        address_digest: row.get(2)?,
        state: if completed_at.is_some() { ErasureState::Completed } else { ErasureState::Running },
        erased: from_json(&row.get::<_, String>(3)?)?,
        created_at: Timestamp(row.get(4)?),
        created_by: row.get(5)?,
        completed_at,
    })
}

pub(super) fn create(tx: &Tx<'_>, master: &MasterKey, new: &NewErasure, entry: &AuditEntry) -> Result<()> {
    organization(tx.connection, &new.ims_org)?;
    tx.connection.execute(
        "INSERT INTO erasure (id, org, digest, sealed, erased, created_at, created_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            new.id.bytes(),
            new.ims_org,
            erasing::digest(master, &new.address),
            erasing::seal(master, new.id, &new.address)?,
            json_of(&Erased::default())?,
            new.now.millis(),
            new.created_by
        ],
    )?;
    audit_only(tx, entry)
}

pub(super) fn erasure(connection: &Connection, organization: &str, id: ErasureId) -> Result<Erasure> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM erasure WHERE org = ?1 AND id = ?2"))?;
    let mut rows = query.query(params![organization, id.bytes()])?;
    read_erasure(rows.next()?.ok_or(StoreError::NotFound("erasure"))?)
}

pub(super) fn erasures(connection: &Connection, organization: &str, wanted: &Page) -> Result<Listed<Erasure>> {
    let sql = format!("SELECT {COLUMNS} FROM erasure WHERE org = ?1");
    page(connection, &sql, "id", &[&organization], wanted, true, |row| {
        let erasure = read_erasure(row)?;
        let key = erasure.id.bytes().to_vec();
        Ok((erasure, key))
    })
}

pub(super) fn running(connection: &Connection) -> Result<Vec<ErasureId>> {
    let mut query = connection.prepare_cached("SELECT id FROM erasure WHERE completed_at IS NULL ORDER BY id")?;
    let ids = query.query_map([], |row| id_from(row, 0, ErasureId::from_bytes))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// An erasure under way, as a step sees it.
#[derive(Debug)]
pub(super) struct Seen {
    pub address: String,
    /// All rows are gone: what is left are traces.
    pub rows_done: bool,
    place: Place,
    next: Place,
    hits: Vec<(i64, MessageKey)>,
    is_over: bool,
}

/// What a step sees before its transaction; none: the erasure is completed.
pub(super) fn look(connection: &Connection, master: &MasterKey, id: ErasureId) -> Result<Option<Seen>> {
    let mut query = connection.prepare_cached(
        "SELECT org, sealed, at_sbx, at_exec, at_ord, rows_done, created_at FROM erasure \
         WHERE id = ?1 AND completed_at IS NULL",
    )?;
    let mut rows = query.query([id.bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let sealed: Option<Vec<u8>> = row.get(1)?;
    let place = Place { sbx: row.get(2)?, exec: row.get(3)?, ord: row.get(4)? };
    let mut seen = Seen {
        address: erasing::unseal(master, id, sealed.as_deref())?,
        rows_done: row.get(5)?,
        place,
        next: place,
        hits: Vec::new(),
        is_over: false,
    };
    let (organization, end) = (row.get::<_, String>(0)?, erasing::end(Timestamp(row.get(6)?)));
    if !seen.rows_done {
        look_through(connection, &organization, end, &mut seen)?;
    }
    Ok(Some(seen))
}

/// Looks through a part of one sandbox, or goes on to the next.
fn look_through(connection: &Connection, organization: &str, end: i64, seen: &mut Seen) -> Result<()> {
    let Place { sbx, exec, ord } = seen.place;
    let mut hits = connection.prepare_cached(&format!(
        "SELECT exec, ord FROM (SELECT exec, ord, address, user_id FROM message WHERE sbx = ?1 AND (exec, ord) > (?2, ?3) \
         AND exec < ?4 ORDER BY exec, ord LIMIT {WINDOW}) \
         WHERE address = ?5 COLLATE NOCASE OR user_id = ?5 COLLATE NOCASE LIMIT {MOST}"
    ))?;
    let found = hits.query_map(params![sbx, exec, ord, end, seen.address], |row| {
        Ok((sbx, MessageKey { execution: execution_id(row, 0)?, ordinal: row.get(1)? }))
    })?;
    seen.hits = found.collect::<rusqlite::Result<_>>()?;
    if seen.hits.len() == MOST
        && let Some((_, last)) = seen.hits.last()
    {
        seen.next = Place { sbx, exec: last.execution.number(), ord: last.ordinal.into() };
        return Ok(());
    }
    let mut window = connection.prepare_cached(
        "SELECT exec, ord FROM message WHERE sbx = ?1 AND (exec, ord) > (?2, ?3) AND exec < ?4 \
         ORDER BY exec, ord LIMIT 1 OFFSET ?5",
    )?;
    let last = window.query_row(params![sbx, exec, ord, end, WINDOW - 1], |row| {
        Ok(Place { sbx, exec: row.get(0)?, ord: row.get(1)? })
    });
    if let Some(last) = last.optional()? {
        seen.next = last;
        return Ok(());
    }
    let following = "SELECT min(sbx) FROM sandbox WHERE org = ?1 AND sbx > ?2";
    let following: Option<i64> = connection.query_row(following, params![organization, sbx], |row| row.get(0))?;
    match following {
        Some(sbx) => seen.next = Place { sbx, exec: 0, ord: -1 },
        None => seen.is_over = true,
    }
    Ok(())
}

/// Erases what was seen. Where another step was quicker nothing is done.
pub(super) fn take(tx: &mut Tx<'_>, id: ErasureId, seen: &Seen) -> Result<Option<Step>> {
    let present = "SELECT at_sbx, at_exec, at_ord, erased, org FROM erasure WHERE id = ?1 AND completed_at IS NULL";
    let present = tx.connection.query_row(present, [id.bytes()], |row| {
        let place = Place { sbx: row.get(0)?, exec: row.get(1)?, ord: row.get(2)? };
        Ok((place, row.get::<_, String>(3)?, row.get::<_, String>(4)?))
    });
    let Some((place, before, organization)) = present.optional()? else { return Ok(None) };
    if place != seen.place {
        return Ok(None);
    }
    let mut erased = Erased::default();
    for (sbx, key) in &seen.hits {
        erased = erased.and(erase_message(tx, *sbx, *key)?);
    }
    if seen.is_over {
        delete_replays(tx.connection, &organization, &seen.address)?;
    }
    let total = from_json::<Erased>(&before)?.and(erased);
    tx.connection.execute(
        "UPDATE erasure SET at_sbx = ?2, at_exec = ?3, at_ord = ?4, erased = ?5, rows_done = ?6 WHERE id = ?1",
        params![id.bytes(), seen.next.sbx, seen.next.exec, seen.next.ord, json_of(&total)?, seen.is_over],
    )?;
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = match seen.hits.first() {
        Some((sbx, _)) => Some(facts.sandbox_of(tx.connection, *sbx)?.tenant.sandbox_id),
        None => None,
    };
    Ok(Some(Step { sandbox, is_over: seen.is_over }))
}

/// A message with all that hangs on it; its execution too, where it had no other.
fn erase_message(tx: &mut Tx<'_>, sbx: i64, key: MessageKey) -> Result<Erased> {
    let connection = tx.connection;
    let mut erased = Erased::default();
    let Some(message) = find_message(connection, sbx, key)? else { return Ok(erased) };
    let mut previous = connection.prepare_cached("SELECT prev FROM event WHERE sbx = ?1 AND seq = ?2")?;
    let mut delete = connection.prepare_cached("DELETE FROM event WHERE sbx = ?1 AND seq = ?2")?;
    let mut next = message.last_event;
    while let Some(sequence) = next {
        next = previous.query_row((sbx, sequence), |row| row.get(0)).optional()?.flatten();
        erased.attempts += delete_attempts(connection, sbx, sequence)?;
        erased.feedback_events += u64::from(delete.execute((sbx, sequence))? == 1);
    }
    let (exec, ord) = (key.execution.number(), key.ordinal);
    let delete = "DELETE FROM message WHERE sbx = ?1 AND exec = ?2 AND ord = ?3";
    erased.messages += u64::from(connection.prepare_cached(delete)?.execute((sbx, exec, ord))? == 1);
    forget(tx, sbx, exec, message.recipient.texts())?;
    let delete = "DELETE FROM execution WHERE sbx = ?1 AND exec = ?2 \
                  AND NOT EXISTS (SELECT 1 FROM message WHERE sbx = ?1 AND exec = ?2)";
    erased.executions += u64::from(connection.prepare_cached(delete)?.execute((sbx, exec))? == 1);
    if message.progress.state.awaits_sending() {
        tx.state.waiting = tx.state.waiting.saturating_sub(1);
    }
    Ok(erased)
}

/// A replay that was about the address is about nothing any more.
fn delete_replays(connection: &Connection, organization: &str, address: &str) -> Result<()> {
    connection.execute(
        "DELETE FROM replay WHERE sbx IN (SELECT sbx FROM sandbox WHERE org = ?1) \
         AND json_extract(settings, '$.filter.recipient') = ?2 COLLATE NOCASE",
        [organization, address],
    )?;
    Ok(())
}

/// The channel configurations of a sandbox: their queues may hold what is gone.
pub(super) fn channels_of(
    connection: &Connection,
    facts: &Facts,
    sandbox: SandboxId,
) -> Result<Vec<ChannelConfigurationId>> {
    let sbx = facts.sandbox(connection, sandbox)?.sbx;
    let mut query = connection.prepare_cached("SELECT id FROM channel_configuration WHERE sbx = ?1")?;
    let ids = query.query_map([sbx], |row| id_from(row, 0, ChannelConfigurationId::from_bytes))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// All is done: the address goes too.
pub(super) fn complete(tx: &Tx<'_>, id: ErasureId, now: Timestamp) -> Result<()> {
    tx.connection.execute(
        "UPDATE erasure SET sealed = NULL, completed_at = ?2 WHERE id = ?1",
        params![id.bytes(), now.millis()],
    )?;
    Ok(())
}
