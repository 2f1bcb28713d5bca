//! What is due, and what becomes of deliveries.

use super::facts::Facts;
use super::record::{holds, promote_next};
use super::rows::{
    EVENT_COLUMNS, EVENT_WIDTH, MESSAGE_COLUMNS, find_event, find_message, into_event, into_event_for, read_event,
    read_message,
};
use super::writer::Tx;
#[cfg(feature = "planted-bugs")]
use crate::planted::{Bug, is_planted};
use crate::shared::change;
use crate::shared::facts::SandboxFacts;
use crate::shared::rows::{EventRow, ToDue, json_of};
use crate::work::{Due, DueDeliveries, DueMessages, Finish, Finished};
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::{Attempt, AttemptDecision, DueDelivery, StoredDelivery};
use model::ids::{ChannelConfigurationId, EventId, MessageKey, SandboxId, Shard};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

pub(super) fn due_delivery(
    connection: &Connection,
    facts: &Facts,
    sbx: i64,
    sequence: i64,
) -> Result<Option<DueDelivery>> {
    let Some(row) = find_event(connection, sbx, sequence)? else { return Ok(None) };
    let to_due = ToDue::of(&row);
    Ok(Some(to_due.with(into_event(row, connection, facts, sbx)?)))
}

pub(super) fn due_deliveries(
    connection: &Connection,
    facts: &Facts,
    sandbox: SandboxId,
    now: Timestamp,
    limit: usize,
) -> Result<DueDeliveries> {
    let sbx = facts.sandbox(connection, sandbox)?.sbx;
    let mut query = connection.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS}, m.user_id, m.namespace, m.address \
         FROM event v INDEXED BY event_due \
         CROSS JOIN message m ON m.sbx = v.sbx AND m.exec = v.exec AND m.ord = v.ord \
         WHERE v.sbx = ?1 AND v.delivery = 1 AND v.due_at <= ?2 ORDER BY v.due_at, v.seq LIMIT ?3"
    ))?;
    let mut rows = query.query((sbx, now.millis(), limit))?;
    let mut deliveries = Vec::new();
    while let Some(row) = rows.next()? {
        let recipient = super::rows::recipient(row, EVENT_WIDTH)?;
        let row = read_event(row)?;
        let to_due = ToDue::of(&row);
        deliveries.push(to_due.with(into_event_for(recipient, row, connection, facts, sbx)?));
    }
    let next_at =
        if deliveries.len() == limit { Some(now) } else { first_delivery_after(connection, sbx, now.millis())? };
    Ok(DueDeliveries { deliveries, next_at })
}

pub(super) fn first_delivery_after(connection: &Connection, sbx: i64, moment: i64) -> Result<Option<Timestamp>> {
    let mut query = connection.prepare_cached(
        "SELECT due_at FROM event INDEXED BY event_due WHERE sbx = ?1 AND delivery = 1 AND due_at > ?2 \
         ORDER BY due_at LIMIT 1",
    )?;
    Ok(query.query_row((sbx, moment), |row| row.get(0)).optional()?.map(Timestamp))
}

pub(super) fn webhooks_with_due(connection: &Connection, facts: &Facts) -> Result<Vec<Due<SandboxId>>> {
    let mut query = connection.prepare_cached("SELECT sbx FROM webhook WHERE deleting = 0")?;
    let all = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let mut found = Vec::new();
    for sbx in all {
        if let Some(at) = first_delivery_after(connection, sbx, i64::MIN)? {
            let sandbox = facts.sandbox_of(connection, sbx)?;
            found.push(Due { id: sandbox.tenant.sandbox_id, shard: sandbox.shard, at });
        }
    }
    Ok(found)
}

pub(super) fn channels_with_due(connection: &Connection, facts: &Facts) -> Result<Vec<Due<ChannelConfigurationId>>> {
    let mut query = connection.prepare_cached("SELECT q, sbx FROM channel_configuration")?;
    let all =
        query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<Vec<(i64, i64)>>>()?;
    let mut found = Vec::new();
    for (q, sbx) in all {
        if let Some(at) = first_message_after(connection, q, i64::MIN)? {
            let shard: Shard = facts.sandbox_of(connection, sbx)?.shard;
            found.push(Due { id: facts.channel(connection, q)?.0, shard, at });
        }
    }
    Ok(found)
}

fn first_message_after(connection: &Connection, q: i64, moment: i64) -> Result<Option<Timestamp>> {
    let mut query = connection.prepare_cached(
        "SELECT due_at FROM message INDEXED BY message_due WHERE q = ?1 AND prio = ?2 AND due_at > ?3 \
         ORDER BY due_at LIMIT 1",
    )?;
    let mut earliest = None;
    for prio in 0..=1 {
        let found: Option<i64> = query.query_row((q, prio, moment), |row| row.get(0)).optional()?;
        earliest = [earliest, found].into_iter().flatten().min();
    }
    Ok(earliest.map(Timestamp))
}

pub(super) fn due_messages(
    connection: &Connection,
    facts: &Facts,
    channel: ChannelConfigurationId,
    now: Timestamp,
    limit: usize,
) -> Result<DueMessages> {
    let mut find = connection.prepare_cached("SELECT q, sbx FROM channel_configuration WHERE id = ?1")?;
    let found: Option<(i64, i64)> =
        find.query_row([channel.bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((q, sbx)) = found else { return Ok(DueMessages::default()) };
    let mut query = connection.prepare_cached(&format!(
        "SELECT {MESSAGE_COLUMNS}, m.personal FROM message m INDEXED BY message_due \
         WHERE m.q = ?1 AND m.prio = ?2 AND m.due_at <= ?3 ORDER BY m.due_at LIMIT ?4"
    ))?;
    let mut messages = Vec::new();
    for prio in 0..=1 {
        let mut rows = query.query((q, prio, now.millis(), limit - messages.len()))?;
        while let Some(row) = rows.next()? {
            let personal: Option<Vec<u8>> = row.get(13)?;
            let message = read_message(row)?;
            let execution = facts.execution(connection, sbx, message.key.execution)?;
            messages.push(message.into_due(execution, personal.as_deref())?);
        }
    }
    let next_at = if messages.len() == limit { Some(now) } else { first_message_after(connection, q, now.millis())? };
    Ok(DueMessages { messages, next_at })
}

pub(super) fn finish(tx: &mut Tx<'_>, finish: Finish) -> Result<Finished> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, finish.sandbox)?;
    let holds = holds(tx, &sandbox, finish.lease);
    #[cfg(feature = "planted-bugs")]
    let holds = holds || is_planted(Bug::FinishIgnoresEpoch);
    if !holds {
        return Ok(Finished::default());
    }
    let sbx = sandbox.sbx;
    tx.note_age(finish.now.since(change::recorded_at(finish.sequence)));
    let ended = match finish.decision {
        AttemptDecision::Succeeded => end(tx, sbx, &finish, StoredDelivery::Succeeded)?,
        AttemptDecision::Exhausted => end(tx, sbx, &finish, StoredDelivery::Exhausted)?,
        AttemptDecision::RetryAt(at) => put_off(tx, sbx, &finish, at, 1)?,
        AttemptDecision::Gone => put_off(tx, sbx, &finish, finish.now, 0)?,
    };
    let Some(ended) = ended else { return Ok(Finished::default()) };
    tx.state.counted.attempted(sbx, &finish, ended.is_again);
    if finish.decision != AttemptDecision::Succeeded {
        add_attempt(tx, sbx, finish.sequence, &finish.attempt)?;
    }
    let webhook_changed = note_health(tx, &sandbox, &finish)?;
    let is_over = matches!(finish.decision, AttemptDecision::Succeeded | AttemptDecision::Exhausted);
    #[cfg(feature = "planted-bugs")]
    let is_over = is_over || is_planted(Bug::EarlyPromotion);
    let promoted = match ended.followed.filter(|_| is_over) {
        Some(message) => {
            let webhook = super::admin::known_webhook(tx, &sandbox)?;
            promote_next(tx, &sandbox, webhook.as_deref(), message, finish.now)?
        }
        None => None,
    };
    Ok(Finished { done: true, promoted, webhook_changed })
}

/// A delivery that an attempt was written to.
struct Ended {
    /// The message, if another event of it waits for this one.
    followed: Option<MessageKey>,
    /// It had ended before, and was made due again.
    is_again: bool,
}

fn ended_from(row: &rusqlite::Row<'_>) -> rusqlite::Result<Ended> {
    let message = MessageKey { execution: super::rows::execution_id(row, 1)?, ordinal: row.get(2)? };
    Ok(Ended { followed: row.get::<_, bool>(0)?.then_some(message), is_again: row.get(3)? })
}

macro_rules! end_event {
    ($and:literal) => {
        concat!(
            "UPDATE event SET delivery = ?4, ended_at = ?5, due_at = NULL, failures = failures + ?6, attempt_at = ?7, \
             attempt_ms = ?8, attempt_status = ?9, attempt_excerpt = ?10 \
             WHERE sbx = ?1 AND seq = ?2 AND delivery = 1 AND failures = ?3",
            $and
        )
    };
}

/// None where nothing was changed.
fn end(tx: &Tx<'_>, sbx: i64, finish: &Finish, state: StoredDelivery) -> Result<Option<Ended>> {
    let succeeded = state == StoredDelivery::Succeeded;
    let attempt = &finish.attempt;
    let values = params![
        sbx,
        finish.sequence,
        finish.failures,
        state.code(),
        finish.now.millis(),
        u8::from(!succeeded),
        succeeded.then_some(attempt.at.millis()),
        succeeded.then_some(attempt.duration_ms),
        succeeded.then_some(attempt.status).flatten(),
        attempt.response_excerpt.as_ref().filter(|_| succeeded)
    ];
    // Mostly nothing waits, and what returns rows makes a table of them and can be undone alone: a third of its cost.
    let mut alone = tx.connection.prepare_cached(end_event!(" AND followed = 0 AND again IS NULL"))?;
    if alone.execute(values)? == 1 {
        return Ok(Some(Ended { followed: None, is_again: false }));
    }
    let mut any = tx.connection.prepare_cached(end_event!(" RETURNING followed, exec, ord, again IS NOT NULL"))?;
    Ok(any.query_row(values, ended_from).optional()?)
}

/// The same for one that is tried again.
fn put_off(tx: &Tx<'_>, sbx: i64, finish: &Finish, at: Timestamp, failures: u8) -> Result<Option<Ended>> {
    let mut update = tx.connection.prepare_cached(
        "UPDATE event SET due_at = ?4, failures = failures + ?5 \
         WHERE sbx = ?1 AND seq = ?2 AND delivery = 1 AND failures = ?3 \
         RETURNING followed, exec, ord, again IS NOT NULL",
    )?;
    let values = (sbx, finish.sequence, finish.failures, at.millis(), failures);
    Ok(update.query_row(values, ended_from).optional()?)
}

fn add_attempt(tx: &Tx<'_>, sbx: i64, sequence: i64, attempt: &Attempt) -> Result<()> {
    let mut insert = tx.connection.prepare_cached(
        "INSERT INTO attempt (sbx, seq, n, at, ms, status, excerpt, error_kind, error) SELECT ?1, ?2, \
         coalesce((SELECT max(n) FROM attempt WHERE sbx = ?1 AND seq = ?2), 0) + 1, ?3, ?4, ?5, ?6, ?7, ?8",
    )?;
    let kind = attempt.error.as_ref().map(|error| json_of(&error.kind)).transpose()?;
    insert.execute(params![
        sbx,
        sequence,
        attempt.at.millis(),
        attempt.duration_ms,
        attempt.status,
        attempt.response_excerpt,
        kind,
        attempt.error.as_ref().map(|error| &error.message)
    ])?;
    Ok(())
}

/// Keeps the webhook's state.
fn note_health(tx: &mut Tx<'_>, sandbox: &SandboxFacts, finish: &Finish) -> Result<bool> {
    let Some(webhook) = super::admin::known_webhook(tx, sandbox)? else { return Ok(false) };
    let Some(changed) = change::health(&webhook, finish) else { return Ok(false) };
    super::admin::store_control(tx, sandbox.sbx, changed)?;
    Ok(true)
}

/// The row of the event with this id in this sandbox.
pub(super) fn find_by_id(connection: &Connection, sbx: i64, id: EventId) -> Result<EventRow> {
    let missing = || StoreError::NotFound("feedback event");
    let key = id.key().ok_or_else(missing)?;
    let message = find_message(connection, sbx, key.message)?.ok_or_else(missing)?;
    let mut next = message.last_event;
    while let Some(sequence) = next {
        let row = find_event(connection, sbx, sequence)?.ok_or_else(missing)?;
        if row.key == key {
            return Ok(row);
        }
        next = row.previous;
    }
    Err(missing())
}

/// Makes a delivery due again. It waits where another event of its message is under way.
pub(super) fn retry(tx: &mut Tx<'_>, sandbox: SandboxId, id: EventId, now: Timestamp) -> Result<()> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, sandbox)?;
    let row = find_by_id(tx.connection, sandbox.sbx, id)?;
    let webhook = super::admin::known_webhook(tx, &sandbox)?;
    let under_way = under_way_beside(tx, sandbox.sbx, &row)?;
    let again = change::retry(&row, webhook.as_deref(), under_way.is_some(), now)?;
    if again.had_succeeded {
        keep_success(tx, sandbox.sbx, row.sequence)?;
    }
    let due_at = again.due_at.map(Timestamp::millis);
    // Later events may wait for this one by now, or it for a later one.
    tx.connection.execute(
        "UPDATE event SET delivery = ?3, due_at = ?4, first_due = ?5, ended_at = NULL, followed = 1, replay = NULL, \
         again = CASE delivery WHEN 1 THEN again ELSE 1 END WHERE sbx = ?1 AND seq = ?2",
        (sandbox.sbx, row.sequence, again.delivery.code(), due_at, again.first_due.millis()),
    )?;
    if let Some(other) = under_way {
        tx.connection.execute("UPDATE event SET followed = 1 WHERE sbx = ?1 AND seq = ?2", (sandbox.sbx, other))?;
    }
    Ok(())
}

/// The other event of the same message that is under way, earlier or later.
fn under_way_beside(tx: &Tx<'_>, sbx: i64, row: &EventRow) -> Result<Option<i64>> {
    let message = find_message(tx.connection, sbx, row.key.message)?.ok_or(StoreError::NotFound("message"))?;
    let mut next = message.last_event;
    while let Some(sequence) = next {
        let Some(other) = find_event(tx.connection, sbx, sequence)? else { break };
        if other.delivery == StoredDelivery::Pending && sequence != row.sequence {
            return Ok(Some(sequence));
        }
        next = other.previous;
    }
    Ok(None)
}

/// Moves the attempt that succeeded from the event's row to the others, before the delivery starts again.
pub(super) fn keep_success(tx: &Tx<'_>, sbx: i64, sequence: i64) -> Result<()> {
    tx.connection.execute(
        "INSERT INTO attempt (sbx, seq, n, at, ms, status, excerpt) SELECT sbx, seq, \
         coalesce((SELECT max(n) FROM attempt WHERE sbx = ?1 AND seq = ?2), 0) + 1, \
         attempt_at, attempt_ms, attempt_status, attempt_excerpt FROM event WHERE sbx = ?1 AND seq = ?2",
        (sbx, sequence),
    )?;
    Ok(())
}

/// Cancels a delivery that has not ended; what waited for it becomes due.
pub(super) fn cancel(tx: &mut Tx<'_>, sandbox: SandboxId, id: EventId, now: Timestamp) -> Result<Option<DueDelivery>> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, sandbox)?;
    let row = find_by_id(tx.connection, sandbox.sbx, id)?;
    change::check_cancel(row.delivery)?;
    tx.connection.execute(
        "UPDATE event SET delivery = ?3, due_at = NULL, ended_at = ?4 WHERE sbx = ?1 AND seq = ?2",
        (sandbox.sbx, row.sequence, StoredDelivery::Cancelled.code(), now.millis()),
    )?;
    let webhook = super::admin::known_webhook(tx, &sandbox)?;
    promote_next(tx, &sandbox, webhook.as_deref(), row.key.message, now)
}

/// Makes up to `limit` deliveries of the sandbox that wait for a later time due now; returns how many.
pub(super) fn drain_some(tx: &Tx<'_>, sbx: i64, now: Timestamp, limit: usize) -> Result<usize> {
    Ok(tx.connection.execute(
        "UPDATE event SET due_at = ?2 WHERE (sbx, seq) IN (SELECT sbx, seq FROM event INDEXED BY event_due \
         WHERE sbx = ?1 AND delivery = 1 AND due_at > ?2 LIMIT ?3)",
        (sbx, now.millis(), limit),
    )?)
}

/// Cancels up to `limit` deliveries of the sandbox that have not ended; returns how many.
pub(super) fn cancel_some(tx: &Tx<'_>, sbx: i64, now: Timestamp, limit: usize) -> Result<usize> {
    let update = |from: &str| {
        let sql = format!(
            "UPDATE event SET delivery = {}, due_at = NULL, ended_at = ?2 WHERE (sbx, seq) IN ({from} LIMIT ?3)",
            StoredDelivery::Cancelled.code()
        );
        tx.connection.execute(&sql, (sbx, now.millis(), limit))
    };
    // First those that wait for another, so that none is promoted in between.
    let blocked = update("SELECT sbx, seq FROM event INDEXED BY event_ended WHERE sbx = ?1 AND delivery = 2")?;
    if blocked > 0 {
        return Ok(blocked);
    }
    Ok(update("SELECT sbx, seq FROM event INDEXED BY event_due WHERE sbx = ?1 AND delivery = 1")?)
}
