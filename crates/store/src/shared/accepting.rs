//! What an execution comes to.

use super::facts::VersionFacts;
use crate::work::{AcceptError, NewExecution, NewRecipient};
use crate::{Result, StoreError};
use model::campaign::CampaignStatus;
use model::clock::Timestamp;
use model::execution::{DueMessage, ExecutionFacts};
use model::ids::{ExecutionId, MessageKey};
use std::sync::Arc;

/// For how long a requestId is remembered: at least 7 whole days.
const REMEMBERED_MS: i64 = 8 * 86_400_000;

/// The first execution that is remembered at `now` by its requestId.
pub fn remembered_since(now: Timestamp) -> ExecutionId {
    ExecutionId::floor_at(Timestamp((now.millis() - REMEMBERED_MS).max(0)))
}

/// The number of the campaign's live version.
pub fn live_version(status: CampaignStatus, live: Option<i64>) -> std::result::Result<i64, AcceptError> {
    match (status, live) {
        (CampaignStatus::Live, Some(ver)) => Ok(ver),
        (CampaignStatus::Draft, _) => Err(AcceptError::NotLive("DRAFT")),
        _ => Err(AcceptError::NotLive("STOPPED")),
    }
}

/// Whether the version takes executions at `now`.
pub fn check_schedule(version: &VersionFacts, now: Timestamp) -> std::result::Result<(), AcceptError> {
    let schedule = version.settings.schedule;
    let too_early = schedule.start_at.filter(|start| now < *start).map(|start| format!("it starts at {start}"));
    let too_late = schedule.end_at.filter(|end| now >= *end).map(|end| format!("it ended at {end}"));
    too_early.or(too_late).map_or(Ok(()), |why| Err(AcceptError::OutsideSchedule(why)))
}

/// The facts of a new execution, which loses its requestId to them.
pub fn facts_of(new: &mut NewExecution, version: &VersionFacts) -> ExecutionFacts {
    ExecutionFacts {
        id: new.id,
        request_id: std::mem::take(&mut new.request_id),
        campaign: new.campaign,
        version: version.id,
        channel: version.settings.channel,
        priority: new.priority,
        expires_at: new.expires_at,
        created_at: new.now,
        created_by: new.created_by.clone(),
        created_by_key: new.created_by_key,
    }
}

/// The message to a recipient, and what of it is personal as it is stored.
pub fn new_message(
    execution: &Arc<ExecutionFacts>,
    ordinal: u8,
    new: NewRecipient,
) -> Result<(DueMessage, Option<Vec<u8>>)> {
    let (recipient, personal) = new.on_channel(execution.channel);
    let personal_json = (personal.context.is_some() || personal.profile.is_some())
        .then(|| serde_json::to_vec(&personal))
        .transpose()
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let now = execution.created_at;
    let due = DueMessage {
        key: MessageKey { execution: execution.id, ordinal },
        execution: Arc::clone(execution),
        recipient: Arc::new(recipient),
        personalization: personal_json.is_some().then(|| Arc::new(personal)),
        failures: 0,
        first_due: now,
        due_at: now,
        may_have_been_sent: false,
        delayed: false,
        planned: None,
    };
    Ok((due, personal_json))
}
