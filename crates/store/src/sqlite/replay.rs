//! Replays: as resources, and step by step.

use super::admin::{audit_only, known_webhook, page};
use super::deliver::keep_success;
use super::facts::Facts;
use super::find::Finder;
use super::record::holds;
use super::rows::{find_event, find_message, id_from, json_from, moment, unreadable};
use super::writer::Tx;
use crate::admin::Edit;
use crate::lookup::{Listed, Page};
use crate::shared::change;
use crate::shared::facts::SandboxFacts;
use crate::shared::replaying::{self, Again, Seen};
use crate::shared::rows::{EventRow, ToDue, json_of, payload_code};
use crate::work::{ReplayStep, ReplayStepped, RunningReplay};
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::StoredDelivery;
use model::execution::Recipient;
use model::ids::{MessageKey, ReplayId, SandboxId};
use model::replay::{Replay, ReplayProgress, ReplaySettings, ReplayState};
use model::tenancy::AuditEntry;
use model::webhook::Stamps;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;
use std::sync::Arc;

const COLUMNS: &str = "r.id, s.id, r.settings, r.state, r.reason, r.start, r.position, r.until, r.replayed, r.skipped, \
     r.open, r.ended_at, r.stamps, r.revision";

fn read_replay(row: &Row<'_>) -> rusqlite::Result<Replay> {
    let mut stamps: Stamps = json_from(row, 12)?;
    stamps.revision = row.get(13)?;
    Ok(Replay {
        id: id_from(row, 0, ReplayId::from_bytes)?,
        sandbox: id_from(row, 1, SandboxId::from_bytes)?,
        settings: json_from(row, 2)?,
        state: ReplayState::from_code(row.get(3)?).ok_or_else(|| unreadable(3, "not a replay's state"))?,
        reason: row.get(4)?,
        progress: ReplayProgress {
            start: row.get(5)?,
            position: row.get(6)?,
            until: row.get(7)?,
            replayed: row.get(8)?,
            skipped: row.get(9)?,
            open: json_from(row, 10)?,
        },
        ended_at: moment(row, 11)?,
        stamps,
    })
}

fn find(connection: &Connection, sbx: i64, id: ReplayId) -> Result<Replay> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM replay r JOIN sandbox s ON s.sbx = r.sbx WHERE r.id = ?1 AND r.sbx = ?2"
    ))?;
    query.query_row(params![id.bytes(), sbx], read_replay).optional()?.ok_or(StoreError::NotFound("replay"))
}

/// Writes what can change of a replay.
fn store(connection: &Connection, replay: &Replay) -> Result<()> {
    let progress = &replay.progress;
    let mut update = connection.prepare_cached(
        "UPDATE replay SET state = ?2, reason = ?3, position = ?4, replayed = ?5, skipped = ?6, open = ?7, \
         ended_at = ?8, stamps = ?9, revision = ?10 WHERE id = ?1",
    )?;
    update.execute(params![
        replay.id.bytes(),
        replay.state.code(),
        replay.reason,
        progress.position,
        progress.replayed,
        progress.skipped,
        json_of(&progress.open)?,
        replay.ended_at.map(Timestamp::millis),
        json_of(&replay.stamps)?,
        replay.stamps.revision
    ])?;
    Ok(())
}

pub(super) fn create(tx: &mut Tx<'_>, mut replay: Replay, entry: &AuditEntry) -> Result<Replay> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, replay.sandbox)?;
    if known_webhook(tx, &sandbox)?.is_none() {
        return Err(replaying::no_webhook());
    }
    let running = "SELECT id FROM replay WHERE sbx = ?1 AND state = 0";
    let running =
        tx.connection.query_row(running, [sandbox.sbx], |row| id_from(row, 0, ReplayId::from_bytes)).optional()?;
    if let Some(running) = running {
        return Err(replaying::already_running(running));
    }
    replay.progress = whole_feed(tx.connection, &sandbox, &replay.settings)?;
    let progress = &replay.progress;
    tx.connection.execute(
        "INSERT INTO replay (id, sbx, settings, state, start, position, until, replayed, skipped, open, stamps, revision) \
         VALUES (?1, ?2, ?3, 0, ?4, ?4, ?5, 0, 0, '[]', ?6, ?7)",
        params![
            replay.id.bytes(),
            sandbox.sbx,
            json_of(&replay.settings)?,
            progress.start,
            progress.until,
            json_of(&replay.stamps)?,
            replay.stamps.revision
        ],
    )?;
    audit_only(tx, entry)?;
    Ok(replay)
}

fn whole_feed(connection: &Connection, sandbox: &SandboxFacts, settings: &ReplaySettings) -> Result<ReplayProgress> {
    let ends = "SELECT (SELECT min(seq) FROM event WHERE sbx = ?1), (SELECT max(seq) FROM event WHERE sbx = ?1)";
    let (first, last) = connection.query_row(ends, [sandbox.sbx], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(replaying::part_of_feed(first, last, settings.filter.from))
}

pub(super) fn replay(connection: &Connection, facts: &Facts, sandbox: SandboxId, id: ReplayId) -> Result<Replay> {
    find(connection, facts.sandbox(connection, sandbox)?.sbx, id)
}

pub(super) fn replays(
    connection: &Connection,
    facts: &Facts,
    sandbox: SandboxId,
    wanted: &Page,
) -> Result<Listed<Replay>> {
    let sbx = facts.sandbox(connection, sandbox)?.sbx;
    let sql = format!("SELECT {COLUMNS} FROM replay r JOIN sandbox s ON s.sbx = r.sbx WHERE r.sbx = ?1");
    page(connection, &sql, "r.id", &[&sbx], wanted, true, |row| {
        let replay = read_replay(row)?;
        let key = replay.id.bytes().to_vec();
        Ok((replay, key))
    })
}

pub(super) fn cancel(
    tx: &mut Tx<'_>,
    edit: Edit<ReplayId>,
    (now, by): (Timestamp, &str),
    entry: &AuditEntry,
) -> Result<Replay> {
    let facts = Arc::clone(&tx.state.facts);
    let mut replay = replay(tx.connection, &facts, edit.sandbox, edit.id)?;
    if edit.seen_revision.is_some_and(|seen| seen != replay.stamps.revision) {
        return Err(StoreError::Changed);
    }
    replaying::cancel(&mut replay, None, now)?;
    replay.stamps.touch(now, by);
    store(tx.connection, &replay)?;
    audit_only(tx, entry)?;
    Ok(replay)
}

pub(super) fn running(connection: &Connection, facts: &Facts) -> Result<Vec<RunningReplay>> {
    let mut query = connection.prepare_cached("SELECT id, sbx, settings FROM replay WHERE state = 0")?;
    let rows = query.query_map([], |row| {
        Ok((id_from(row, 0, ReplayId::from_bytes)?, row.get::<_, i64>(1)?, json_from::<ReplaySettings>(row, 2)?))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (id, sbx, settings) = row?;
        let sandbox = facts.sandbox_of(connection, sbx)?;
        let (sandbox, shard) = (sandbox.tenant.sandbox_id, sandbox.shard);
        found.push(RunningReplay { id, sandbox, shard, per_second: settings.per_second });
    }
    Ok(found)
}

/// What a step sees before its transaction; none: the replay does not run.
pub(super) fn look(finder: &Finder<'_>, step: &ReplayStep) -> Result<Option<Seen>> {
    let connection = finder.connection;
    let sbx = finder.facts.sandbox(connection, step.sandbox)?.sbx;
    let replay = find(connection, sbx, step.id)?;
    if replay.state != ReplayState::Running {
        return Ok(None);
    }
    let mut state = connection.prepare_cached("SELECT delivery FROM event WHERE sbx = ?1 AND seq = ?2")?;
    let mut open = Vec::new();
    for sequence in &replay.progress.open {
        let delivery: Option<u8> = state.query_row((sbx, sequence), |row| row.get(0)).optional()?;
        if delivery.and_then(StoredDelivery::from_code).is_some_and(StoredDelivery::is_open) {
            open.push(*sequence);
        }
    }
    let room = replaying::room(step.most, step.most_open, open.len());
    let (chosen, position) = match room {
        0 => (Vec::new(), replay.progress.position),
        room => finder.chosen(&replaying::filter_of(&replay), &replay.progress, room)?,
    };
    Ok(Some(Seen { replay, open, chosen, position }))
}

/// A step, after what was seen. Another one may have been made since: then this one is not.
pub(super) fn take(tx: &mut Tx<'_>, step: &ReplayStep, seen: Seen) -> Result<ReplayStepped> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, step.sandbox)?;
    if !holds(tx, &sandbox, step.lease) {
        return Ok(ReplayStepped::default());
    }
    let mut present = find(tx.connection, sandbox.sbx, step.id)?;
    if present.state != ReplayState::Running || present.progress.position != seen.replay.progress.position {
        return Ok(ReplayStepped { running: present.state == ReplayState::Running, ..ReplayStepped::default() });
    }
    let Some(webhook) = known_webhook(tx, &sandbox)? else {
        replaying::cancel(&mut present, Some(replaying::NO_WEBHOOK), step.now)?;
        store(tx.connection, &present)?;
        return Ok(ReplayStepped::default());
    };
    let (mut made_due, mut skipped, mut due) = (Vec::new(), 0, Vec::new());
    for (message, chosen) in by_message(tx.connection, sandbox.sbx, &seen.chosen)? {
        let Some((recipient, events)) = message_with_events(tx.connection, sandbox.sbx, message, &chosen)? else {
            continue;
        };
        let execution = facts.stored_execution(tx.connection, sandbox.sbx, message.execution)?;
        let is_wanted = |event: &EventRow| change::wanting(Some(&webhook), &execution, &event.outcome).is_some();
        let sequences: Vec<i64> = chosen.iter().map(|event| event.sequence).collect();
        let of_message = replaying::of_message(&events, &sequences, &webhook, is_wanted, step.now);
        for again in &of_message.again {
            start_again(tx, sandbox.sbx, again, step.id)?;
            made_due.push(again.sequence);
        }
        let first = of_message.again.first().filter(|first| first.delivery == StoredDelivery::Pending);
        if let Some(first) = first
            && let Some(row) = events.into_iter().find(|event| event.sequence == first.sequence)
        {
            let row = first.applied_to(row, step.id);
            let to_due = ToDue::of(&row);
            let tenant = Arc::clone(&sandbox.tenant);
            due.push(to_due.with(row.into_event(recipient, tenant, Arc::clone(&execution.facts))));
        }
        if let Some(other) = of_message.followed {
            let sql = "UPDATE event SET followed = 1 WHERE sbx = ?1 AND seq = ?2";
            tx.connection.prepare_cached(sql)?.execute((sandbox.sbx, other))?;
        }
        skipped += of_message.skipped;
    }
    let replay = replaying::after_step(seen, &made_due, skipped, step.now);
    store(tx.connection, &replay)?;
    Ok(ReplayStepped { running: replay.state == ReplayState::Running, due, replayed: made_due.len() })
}

/// The chosen events by their messages, in the order of the feed. One that is gone meanwhile is left out.
fn by_message(connection: &Connection, sbx: i64, chosen: &[i64]) -> Result<Vec<(MessageKey, Vec<EventRow>)>> {
    let mut messages: Vec<(MessageKey, Vec<EventRow>)> = Vec::new();
    let mut places = HashMap::new();
    for sequence in chosen {
        let Some(event) = find_event(connection, sbx, *sequence)? else { continue };
        let key = event.key.message;
        let place = *places.entry(key).or_insert(messages.len());
        match messages.get_mut(place) {
            Some((_, events)) => events.push(event),
            None => messages.push((key, vec![event])),
        }
    }
    Ok(messages)
}

/// Whom a message is for, and all its events in the order recorded.
fn message_with_events(
    connection: &Connection,
    sbx: i64,
    key: MessageKey,
    known: &[EventRow],
) -> Result<Option<(Arc<Recipient>, Vec<EventRow>)>> {
    let Some(message) = find_message(connection, sbx, key)? else { return Ok(None) };
    let mut events: Vec<EventRow> = Vec::new();
    let mut next = message.last_event;
    while let Some(sequence) = next {
        let event = match known.iter().find(|event| event.sequence == sequence) {
            Some(known) => Some(known.clone()),
            None => find_event(connection, sbx, sequence)?,
        };
        let Some(event) = event else { break };
        next = event.previous;
        events.push(event);
    }
    events.reverse();
    Ok(Some((message.recipient, events)))
}

fn start_again(tx: &Tx<'_>, sbx: i64, again: &Again, replay: ReplayId) -> Result<()> {
    if again.had_succeeded {
        keep_success(tx, sbx, again.sequence)?;
    }
    let mut update = tx.connection.prepare_cached(
        "UPDATE event SET delivery = ?3, due_at = ?4, first_due = ?5, ended_at = NULL, payload = ?6, replay = ?7, \
         followed = max(followed, ?8), again = 1 WHERE sbx = ?1 AND seq = ?2",
    )?;
    update.execute(params![
        sbx,
        again.sequence,
        again.delivery.code(),
        again.due_at.map(Timestamp::millis),
        again.first_due.millis(),
        payload_code(again.payload),
        replay.bytes(),
        again.followed
    ])?;
    Ok(())
}
