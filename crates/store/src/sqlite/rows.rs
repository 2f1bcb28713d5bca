//! Between rows and values.

use super::facts::Facts;
use crate::work::Untouched;
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::StoredDelivery;
use model::execution::{DueMessage, ExecutionFacts, Personalization, Recipient};
use model::feedback::FeedbackEvent;
use model::ids::{EventKey, ExecutionId, MessageKey};
use model::message::{MessageState, Progress};
use model::outcome::{Exclusion, Failure, FeedbackStatus, Outcome, Verdict};
use model::webhook::Payload;
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

/// A value to be kept as JSON.
pub(super) fn json_of<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub(super) fn execution_id(row: &Row<'_>, column: usize) -> rusqlite::Result<ExecutionId> {
    ExecutionId::from_number(row.get(column)?).ok_or_else(|| unreadable(column, "not an execution's number"))
}

pub(super) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp))
}

pub(super) fn payload_code(payload: Payload) -> u8 {
    match payload {
        Payload::Standard => 0,
        Payload::Extended => 1,
    }
}

fn payload_from(code: u8) -> Payload {
    if code == 0 { Payload::Standard } else { Payload::Extended }
}

/// The code of a status: its place among all. Codes never change.
pub(super) fn status_code(status: FeedbackStatus) -> u8 {
    match status {
        FeedbackStatus::Sent => 0,
        FeedbackStatus::Delivered => 1,
        FeedbackStatus::Bounce => 2,
        FeedbackStatus::Error => 3,
        FeedbackStatus::Exclude => 4,
        FeedbackStatus::Denylist => 5,
        FeedbackStatus::Delay => 6,
    }
}

/// A recipient in three columns from this one on.
pub(super) fn recipient(row: &Row<'_>, first: usize) -> rusqlite::Result<Arc<Recipient>> {
    let (user_id, namespace, address) = (row.get(first)?, row.get(first + 1)?, row.get(first + 2)?);
    Ok(Arc::new(Recipient { user_id, namespace, address }))
}

/// The columns of a message, in the order that [`MessageRow::read`] expects.
pub(super) const MESSAGE_COLUMNS: &str = "m.exec, m.ord, m.state, m.delayed, m.failures, m.events, m.last_event, \
     m.first_due, m.due_at, m.user_id, m.namespace, m.address, m.planned";

/// A message as stored, without what is personal.
#[derive(Debug)]
pub(super) struct MessageRow {
    pub key: MessageKey,
    pub progress: Progress,
    pub failures: u32,
    pub events: u8,
    pub last_event: Option<i64>,
    pub first_due: Timestamp,
    pub due_at: Option<Timestamp>,
    pub recipient: Arc<Recipient>,
    pub planned: Option<Outcome>,
}

impl MessageRow {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let planned = match row.get_ref(12)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(json_from(row, 12)?),
        };
        let state = MessageState::from_code(row.get(2)?).ok_or_else(|| unreadable(2, "not a message's state"))?;
        Ok(Self {
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

    /// A message of which nothing has been recorded.
    pub fn untouched(key: MessageKey, known: Untouched) -> Self {
        Self {
            key,
            progress: Progress::NEW,
            failures: 0,
            events: 0,
            last_event: None,
            first_due: known.due_at,
            due_at: Some(known.due_at),
            recipient: known.recipient,
            planned: None,
        }
    }

    pub fn find(connection: &Connection, sbx: i64, key: MessageKey) -> Result<Option<Self>> {
        let mut query = connection.prepare_cached(&format!(
            "SELECT {MESSAGE_COLUMNS} FROM message m WHERE m.sbx = ?1 AND m.exec = ?2 AND m.ord = ?3"
        ))?;
        Ok(query.query_row((sbx, key.execution.number(), key.ordinal), Self::read).optional()?)
    }

    /// The message as work; `personal` is its stored JSON.
    pub fn into_due(self, execution: Arc<ExecutionFacts>, personal: Option<&[u8]>) -> Result<DueMessage> {
        let personalization: Option<Personalization> =
            personal.map(serde_json::from_slice).transpose().map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(DueMessage {
            key: self.key,
            execution,
            recipient: self.recipient,
            personalization: personalization.map(Arc::new),
            failures: self.failures,
            first_due: self.first_due,
            due_at: self.due_at.unwrap_or(self.first_due),
            may_have_been_sent: self.progress.state == MessageState::HandingOver,
            delayed: self.progress.delayed,
            planned: self.planned,
        })
    }
}

/// The columns of an event, in the order that [`EventRow::read`] expects.
pub(super) const EVENT_COLUMNS: &str = "v.seq, v.exec, v.ord, v.n, v.prev, v.status, v.occurred_at, v.recorded_at, \
     v.retry_count, v.payload, v.response_code, v.response_ms, v.encoding, v.parts, v.why, v.delivery, v.failures, \
     v.first_due, v.due_at, v.ended_at";

/// An event as stored, with its delivery.
#[derive(Debug)]
pub(super) struct EventRow {
    pub sequence: i64,
    pub key: EventKey,
    pub previous: Option<i64>,
    pub outcome: Outcome,
    pub recorded_at: Timestamp,
    pub retry_count: u32,
    pub payload: Payload,
    pub delivery: StoredDelivery,
    pub failures: u32,
    pub first_due: Option<Timestamp>,
    pub due_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

impl EventRow {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let message = MessageKey { execution: execution_id(row, 1)?, ordinal: row.get(2)? };
        let delivery =
            StoredDelivery::from_code(row.get(15)?).ok_or_else(|| unreadable(15, "not a delivery's state"))?;
        Ok(Self {
            sequence: row.get(0)?,
            key: EventKey { message, number: row.get(3)? },
            previous: row.get(4)?,
            outcome: Outcome {
                verdict: verdict_from(row)?,
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
        })
    }

    pub fn find(connection: &Connection, sbx: i64, sequence: i64) -> Result<Option<Self>> {
        let mut query = connection
            .prepare_cached(&format!("SELECT {EVENT_COLUMNS} FROM event v WHERE v.sbx = ?1 AND v.seq = ?2"))?;
        Ok(query.query_row((sbx, sequence), Self::read).optional()?)
    }

    /// The event with the facts of its message and execution.
    pub fn into_event(self, connection: &Connection, facts: &Facts, sbx: i64) -> Result<FeedbackEvent> {
        let message = MessageRow::find(connection, sbx, self.key.message)?.ok_or(StoreError::NotFound("message"))?;
        self.into_event_for(message.recipient, connection, facts, sbx)
    }

    /// The same where the recipient is known.
    pub fn into_event_for(
        self,
        recipient: Arc<Recipient>,
        connection: &Connection,
        facts: &Facts,
        sbx: i64,
    ) -> Result<FeedbackEvent> {
        Ok(FeedbackEvent {
            key: self.key,
            tenant: Arc::clone(&facts.sandbox_of(connection, sbx)?.tenant),
            execution: facts.execution(connection, sbx, self.key.message.execution)?,
            recipient,
            outcome: self.outcome,
            retry_count: self.retry_count,
            recorded_at: self.recorded_at,
            payload: self.payload,
        })
    }
}

fn verdict_from(row: &Row<'_>) -> rusqlite::Result<Verdict> {
    let failure = || json_from::<Failure>(row, 14);
    let exclusion = || json_from::<Exclusion>(row, 14);
    Ok(match row.get::<_, u8>(5)? {
        0 => Verdict::Sent,
        1 => Verdict::Delivered,
        2 => Verdict::Bounce(failure()?),
        3 => Verdict::Error(failure()?),
        4 => Verdict::Exclude(exclusion()?),
        5 => Verdict::Denylist(exclusion()?),
        6 => Verdict::Delay,
        _ => return Err(unreadable(5, "not a status")),
    })
}

/// What is stored of a verdict besides its status.
pub(super) fn why_of(verdict: &Verdict) -> Result<Option<String>> {
    match (verdict.failure(), verdict.exclusion()) {
        (Some(failure), _) => json_of(failure).map(Some),
        (_, Some(exclusion)) => json_of(exclusion).map(Some),
        _ => Ok(None),
    }
}
