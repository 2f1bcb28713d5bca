//! Messages and events as stored, and the codes and texts in their columns.

use crate::work::Untouched;
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::{DueDelivery, StoredDelivery};
use model::execution::{DueMessage, ExecutionFacts, Personalization, Recipient};
use model::feedback::{FeedbackEvent, Tenant};
use model::ids::{EventKey, MessageKey, ReplayId};
use model::message::{MessageState, Progress};
use model::outcome::{FeedbackStatus, Outcome, Verdict};
use model::webhook::Payload;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A value to be kept as JSON.
pub fn json_of<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// A value kept as JSON.
pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

pub fn payload_code(payload: Payload) -> u8 {
    match payload {
        Payload::Standard => 0,
        Payload::Extended => 1,
    }
}

pub fn payload_from(code: u8) -> Payload {
    if code == 0 { Payload::Standard } else { Payload::Extended }
}

/// The code of a status: its place among all. Codes never change.
pub fn status_code(status: FeedbackStatus) -> u8 {
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

/// What is stored of a verdict besides its status.
pub fn why_of(verdict: &Verdict) -> Result<Option<String>> {
    match (verdict.failure(), verdict.exclusion()) {
        (Some(failure), _) => json_of(failure).map(Some),
        (_, Some(exclusion)) => json_of(exclusion).map(Some),
        _ => Ok(None),
    }
}

/// The verdict of a status' code and what is stored besides.
pub fn verdict_from(status: u8, why: Option<&str>) -> Result<Verdict> {
    let why = why.unwrap_or_default();
    Ok(match status {
        0 => Verdict::Sent,
        1 => Verdict::Delivered,
        2 => Verdict::Bounce(from_json(why)?),
        3 => Verdict::Error(from_json(why)?),
        4 => Verdict::Exclude(from_json(why)?),
        5 => Verdict::Denylist(from_json(why)?),
        6 => Verdict::Delay,
        _ => return Err(StoreError::Corrupt(format!("the status {status}"))),
    })
}

/// A message as stored, without what is personal.
#[derive(Clone, Debug)]
pub struct MessageRow {
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

/// An event as stored, with its delivery.
#[derive(Clone, Debug)]
pub struct EventRow {
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
    pub replay: Option<ReplayId>,
}

impl EventRow {
    /// The event with the facts of its message and execution.
    pub fn into_event(
        self,
        recipient: Arc<Recipient>,
        tenant: Arc<Tenant>,
        execution: Arc<ExecutionFacts>,
    ) -> FeedbackEvent {
        FeedbackEvent {
            key: self.key,
            tenant,
            execution,
            recipient,
            outcome: self.outcome,
            retry_count: self.retry_count,
            recorded_at: self.recorded_at,
            payload: self.payload,
        }
    }
}

/// What a delivery has besides its event.
#[derive(Debug)]
pub struct ToDue {
    sequence: i64,
    failures: u32,
    first_due: Timestamp,
    due_at: Timestamp,
    replay: Option<ReplayId>,
}

impl ToDue {
    pub fn of(row: &EventRow) -> Self {
        let due_at = row.due_at.unwrap_or(row.recorded_at);
        let first_due = row.first_due.unwrap_or(due_at);
        Self { sequence: row.sequence, failures: row.failures, first_due, due_at, replay: row.replay }
    }

    pub fn with(self, event: FeedbackEvent) -> DueDelivery {
        let Self { sequence, failures, first_due, due_at, replay } = self;
        DueDelivery { sequence, event: Arc::new(event), failures, first_due, due_at, replay }
    }
}
