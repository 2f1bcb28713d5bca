//! Between rows and values.

use super::session::{Done, Fault, col};
use crate::StoreError;
use crate::shared::rows::{EventRow, MessageRow, from_json, payload_from, verdict_from};
use model::clock::Timestamp;
use model::delivery::{Attempt, AttemptError, StoredDelivery};
use model::execution::Recipient;
use model::ids::{EventKey, ExecutionId, MessageKey, ReplayId};
use model::message::{MessageState, Progress};
use model::outcome::Outcome;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;
use tokio_postgres::Row;

pub(super) fn corrupt(what: &str) -> Fault {
    StoreError::Corrupt(what.to_owned()).into()
}

/// A small number kept as SMALLINT.
pub(super) fn byte(row: &Row, column: usize) -> Done<u8> {
    u8::try_from(col::<i16>(row, column)?).map_err(|_| corrupt("a number out of its range"))
}

/// A number kept as INTEGER.
pub(super) fn count(row: &Row, column: usize) -> Done<u32> {
    u32::try_from(col::<i32>(row, column)?).map_err(|_| corrupt("a number out of its range"))
}

fn optional<T: TryFrom<i32>>(row: &Row, column: usize) -> Done<Option<T>> {
    let number: Option<i32> = col(row, column)?;
    number.map(T::try_from).transpose().map_err(|_| corrupt("a number out of its range"))
}

/// A number as INTEGER; what is larger than any real one becomes the largest.
pub(super) fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn moment(row: &Row, column: usize) -> Done<Option<Timestamp>> {
    Ok(col::<Option<i64>>(row, column)?.map(Timestamp))
}

pub(super) fn revision(row: &Row, column: usize) -> Done<u64> {
    u64::try_from(col::<i64>(row, column)?).map_err(|_| corrupt("a negative revision"))
}

/// A revision as BIGINT.
pub(super) fn big(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A number of rows as BIGINT.
pub(super) fn rows_of(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A value kept as JSON.
pub(super) fn json<T: DeserializeOwned>(row: &Row, column: usize) -> Done<T> {
    Ok(from_json(col(row, column)?)?)
}

/// What endpoints and relays say may hold the one character that a text here cannot.
pub(super) fn text(said: &str) -> Cow<'_, str> {
    if said.contains('\0') { Cow::Owned(said.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(said) }
}

pub(super) fn execution_id(row: &Row, column: usize) -> Done<ExecutionId> {
    ExecutionId::from_number(col(row, column)?).ok_or_else(|| corrupt("not an execution's number"))
}

pub(super) fn delivery(row: &Row, column: usize) -> Done<StoredDelivery> {
    StoredDelivery::from_code(byte(row, column)?).ok_or_else(|| corrupt("not a delivery's state"))
}

/// A recipient in three columns from this one on.
pub(super) fn recipient(row: &Row, first: usize) -> Done<Arc<Recipient>> {
    let (user_id, namespace, address) = (col(row, first)?, col(row, first + 1)?, col(row, first + 2)?);
    Ok(Arc::new(Recipient { user_id, namespace, address }))
}

/// The columns of a message, in the order that [`read_message`] expects.
macro_rules! message_columns {
    () => {
        "m.exec, m.ord, m.state, m.delayed, m.failures, m.events, m.last_event, m.first_due, m.due_at, m.user_id, \
         m.namespace, m.address, m.planned"
    };
}
pub(super) use message_columns;

/// How many these are.
pub(super) const MESSAGE_COLUMNS: usize = 13;

pub(super) fn message_key(row: &Row, first: usize) -> Done<MessageKey> {
    Ok(MessageKey { execution: execution_id(row, first)?, ordinal: byte(row, first + 1)? })
}

/// Reads a message from the columns from `first` on.
pub(super) fn read_message(row: &Row, first: usize) -> Done<MessageRow> {
    let planned: Option<&str> = col(row, first + 12)?;
    let state = MessageState::from_code(byte(row, first + 2)?).ok_or_else(|| corrupt("not a message's state"))?;
    Ok(MessageRow {
        key: message_key(row, first)?,
        progress: Progress { state, delayed: col(row, first + 3)? },
        failures: count(row, first + 4)?,
        events: byte(row, first + 5)?,
        last_event: col(row, first + 6)?,
        first_due: Timestamp(col(row, first + 7)?),
        due_at: moment(row, first + 8)?,
        recipient: recipient(row, first + 9)?,
        planned: planned.map(from_json).transpose()?,
    })
}

/// The columns of an event, in the order that [`read_event`] expects.
macro_rules! event_columns {
    () => {
        "v.seq, v.exec, v.ord, v.n, v.prev, v.status, v.occurred_at, v.recorded_at, v.retry_count, v.payload, \
         v.response_code, v.response_ms, v.encoding, v.parts, v.why, v.delivery, v.failures, v.first_due, v.due_at, \
         v.ended_at, v.replay"
    };
}
pub(super) use event_columns;

/// How many these are.
pub(super) const EVENT_COLUMNS: usize = 21;

/// Reads an event from the columns from `first` on.
pub(super) fn read_event(row: &Row, first: usize) -> Done<EventRow> {
    Ok(EventRow {
        sequence: col(row, first)?,
        key: EventKey { message: message_key(row, first + 1)?, number: byte(row, first + 3)? },
        previous: col(row, first + 4)?,
        outcome: Outcome {
            verdict: verdict_from(byte(row, first + 5)?, col(row, first + 14)?)?,
            occurred_at: Timestamp(col(row, first + 6)?),
            response_code: optional(row, first + 10)?,
            response_duration_ms: optional(row, first + 11)?,
            encoding: col(row, first + 12)?,
            parts: optional(row, first + 13)?,
        },
        recorded_at: Timestamp(col(row, first + 7)?),
        retry_count: count(row, first + 8)?,
        payload: payload_from(byte(row, first + 9)?),
        delivery: delivery(row, first + 15)?,
        failures: count(row, first + 16)?,
        first_due: moment(row, first + 17)?,
        due_at: moment(row, first + 18)?,
        ended_at: moment(row, first + 19)?,
        replay: col::<Option<uuid::Uuid>>(row, first + 20)?.map(ReplayId),
    })
}

/// An attempt from the columns at, ms, status, excerpt, error_kind, error.
pub(super) fn read_attempt(row: &Row) -> Done<Attempt> {
    let message: Option<String> = col(row, 5)?;
    let error = match message {
        Some(message) => Some(AttemptError { kind: json(row, 4)?, message }),
        None => None,
    };
    Ok(Attempt {
        at: Timestamp(col(row, 0)?),
        duration_ms: count(row, 1)?,
        status: optional(row, 2)?,
        response_excerpt: col(row, 3)?,
        error,
    })
}
