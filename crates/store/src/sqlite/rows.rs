//! Between rows and values.

use super::facts::Facts;
use crate::shared::rows::{EventRow, MessageRow, payload_from, verdict_from};
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::StoredDelivery;
use model::execution::Recipient;
use model::feedback::FeedbackEvent;
use model::ids::{EventKey, ExecutionId, MessageKey, ReplayId};
use model::message::{MessageState, Progress};
use model::outcome::Outcome;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;
use std::sync::Arc;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &error {
            E::QueryReturnedNoRows => Self::NotFound("row"),
            E::FromSqlConversionFailure(..) | E::InvalidColumnType(..) | E::IntegralValueOutOfRange(..) => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

fn because(column: usize, error: StoreError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

pub(super) fn unreadable(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, what.into())
}

/// An id kept as 16 bytes.
pub(super) fn id_from<Id>(row: &Row<'_>, column: usize, read: fn(&[u8]) -> Option<Id>) -> rusqlite::Result<Id> {
    let bytes = row.get_ref(column)?.as_blob().map_err(|_| unreadable(column, "not an id"))?;
    read(bytes).ok_or_else(|| unreadable(column, "not an id"))
}

/// A value kept as JSON.
pub(super) fn json_from<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str().map_err(|_| unreadable(column, "not text"))?;
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

pub(super) fn execution_id(row: &Row<'_>, column: usize) -> rusqlite::Result<ExecutionId> {
    ExecutionId::from_number(row.get(column)?).ok_or_else(|| unreadable(column, "not an execution's number"))
}

pub(super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
}

/// A recipient in three columns from this one on.
pub(super) fn recipient(row: &Row<'_>, first: usize) -> rusqlite::Result<Arc<Recipient>> {
    let (user_id, namespace, address) = (row.get(first)?, row.get(first + 1)?, row.get(first + 2)?);
    Ok(Arc::new(Recipient { user_id, namespace, address }))
}

/// The columns of a message, in the order that [`read_message`] expects.
pub(super) const MESSAGE_COLUMNS: &str = "m.exec, m.ord, m.state, m.delayed, m.failures, m.events, m.last_event, \
     m.first_due, m.due_at, m.user_id, m.namespace, m.address, m.planned";

pub(super) fn read_message(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    let planned = match row.get_ref(12)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(json_from(row, 12)?),
    };
    let state = MessageState::from_code(row.get(2)?).ok_or_else(|| unreadable(2, "not a message's state"))?;
    Ok(MessageRow {
        key: MessageKey { execution: execution_id(row, 0)?, ordinal: row.get(1)? },
        progress: Progress { state, delayed: row.get(3)? },
        failures: row.get(4)?,
        events: row.get(5)?,
        last_event: row.get(6)?,
        first_due: Timestamp(row.get(7)?),
        due_at: moment(row, 8)?,
        recipient: recipient(row, 9)?,
        planned,
    })
}

pub(super) fn find_message(connection: &Connection, sbx: i64, key: MessageKey) -> Result<Option<MessageRow>> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT {MESSAGE_COLUMNS} FROM message m WHERE m.sbx = ?1 AND m.exec = ?2 AND m.ord = ?3"
    ))?;
    Ok(query.query_row((sbx, key.execution.number(), key.ordinal), read_message).optional()?)
}

/// The columns of an event, in the order that [`read_event`] expects.
pub(super) const EVENT_COLUMNS: &str = "v.seq, v.exec, v.ord, v.n, v.prev, v.status, v.occurred_at, v.recorded_at, \
     v.retry_count, v.payload, v.response_code, v.response_ms, v.encoding, v.parts, v.why, v.delivery, v.failures, \
     v.first_due, v.due_at, v.ended_at, v.replay";

/// How many these are.
pub(super) const EVENT_WIDTH: usize = 21;

pub(super) fn read_event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let why = row.get_ref(14)?.as_str_or_null().map_err(|_| unreadable(14, "not text"))?;
    let message = MessageKey { execution: execution_id(row, 1)?, ordinal: row.get(2)? };
    let delivery = StoredDelivery::from_code(row.get(15)?).ok_or_else(|| unreadable(15, "not a delivery's state"))?;
    Ok(EventRow {
        sequence: row.get(0)?,
        key: EventKey { message, number: row.get(3)? },
        previous: row.get(4)?,
        outcome: Outcome {
            verdict: verdict_from(row.get(5)?, why).map_err(|error| because(14, error))?,
            occurred_at: Timestamp(row.get(6)?),
            response_code: row.get(10)?,
            response_duration_ms: row.get(11)?,
            encoding: row.get(12)?,
            parts: row.get(13)?,
        },
        recorded_at: Timestamp(row.get(7)?),
        retry_count: row.get(8)?,
        payload: payload_from(row.get(9)?),
        delivery,
        failures: row.get(16)?,
        first_due: moment(row, 17)?,
        due_at: moment(row, 18)?,
        ended_at: moment(row, 19)?,
        replay: row.get_ref(20)?.as_blob_or_null().ok().flatten().and_then(ReplayId::from_bytes),
    })
}

pub(super) fn find_event(connection: &Connection, sbx: i64, sequence: i64) -> Result<Option<EventRow>> {
    let mut query =
        connection.prepare_cached(&format!("SELECT {EVENT_COLUMNS} FROM event v WHERE v.sbx = ?1 AND v.seq = ?2"))?;
    Ok(query.query_row((sbx, sequence), read_event).optional()?)
}

/// An event with the facts of its message and execution.
pub(super) fn into_event(row: EventRow, connection: &Connection, facts: &Facts, sbx: i64) -> Result<FeedbackEvent> {
    let message = find_message(connection, sbx, row.key.message)?.ok_or(StoreError::NotFound("message"))?;
    into_event_for(message.recipient, row, connection, facts, sbx)
}

/// The same where the recipient is known.
pub(super) fn into_event_for(
    recipient: Arc<Recipient>,
    row: EventRow,
    connection: &Connection,
    facts: &Facts,
    sbx: i64,
) -> Result<FeedbackEvent> {
    let tenant = Arc::clone(&facts.sandbox_of(connection, sbx)?.tenant);
    let execution = facts.execution(connection, sbx, row.key.message.execution)?;
    Ok(row.into_event(recipient, tenant, execution))
}
