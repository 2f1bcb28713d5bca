//! Taking executions.

use super::facts::VersionFacts;
use super::writer::{CampaignFacts, Tx};
use crate::work::{AcceptError, Accepted, NewExecution, NewRecipient};
use crate::{Result, StoreError};
use model::campaign::CampaignStatus;
use model::clock::Timestamp;
use model::execution::{DueMessage, ExecutionFacts};
use model::ids::{CampaignId, ExecutionId, MessageKey};
use model::message::MessageState;
use rusqlite::{OptionalExtension, params};
use std::sync::Arc;

/// For how long a requestId is remembered: at least 7 whole days.
const REMEMBERED_MS: i64 = 8 * 86_400_000;

type Answer = std::result::Result<Accepted, AcceptError>;

pub(super) fn accept(tx: &mut Tx<'_>, new: NewExecution) -> Result<Answer> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, new.sandbox)?;
    if let Some((id, body)) = find_request(tx, sandbox.sbx, &new)? {
        return repetition(tx, sandbox.sbx, id, body, &new);
    }
    let version = match live_version(tx, sandbox.sbx, &new)? {
        Ok(version) => version,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if tx.state.waiting + new.recipients.len() as u64 > tx.state.max_waiting {
        return Ok(Err(AcceptError::TooMuchWaiting { waiting: tx.state.waiting }));
    }
    let k = facts.key_number(tx.connection, new.created_by_key)?;
    let (ver, version) = version;
    store(tx, sandbox.sbx, k, ver, &version, new).map(Ok)
}

/// The campaign's execution that used this requestId of late, with the digest of its body. The executions themselves are
/// the memory: their index by requestId serves searches too, so remembering costs nothing more.
fn find_request(tx: &Tx<'_>, sbx: i64, new: &NewExecution) -> Result<Option<(ExecutionId, [u8; 16])>> {
    let mut query = tx.connection.prepare_cached(
        "SELECT exec, body, ver FROM execution INDEXED BY execution_request \
         WHERE sbx = ?1 AND request_id = ?2 AND exec >= ?3",
    )?;
    let since = ExecutionId::floor_at(Timestamp((new.now.millis() - REMEMBERED_MS).max(0)));
    let mut rows = query.query((sbx, &new.request_id, since.number()))?;
    while let Some(row) = rows.next()? {
        if tx.state.facts.version(tx.connection, row.get(2)?)?.campaign == new.campaign {
            return Ok(Some((super::rows::execution_id(row, 0)?, row.get(1)?)));
        }
    }
    Ok(None)
}

fn repetition(tx: &Tx<'_>, sbx: i64, id: ExecutionId, body: [u8; 16], new: &NewExecution) -> Result<Answer> {
    if body != new.body_digest {
        return Ok(Err(AcceptError::RequestIdConflict(id)));
    }
    let facts = tx.state.facts.execution(tx.connection, sbx, id)?;
    Ok(Ok(Accepted { id, created_at: facts.created_at, created_by: facts.created_by.clone(), work: None }))
}

type Version = (i64, Arc<VersionFacts>);

/// The campaign's live version, if it takes executions now.
fn live_version(tx: &mut Tx<'_>, sbx: i64, new: &NewExecution) -> Result<std::result::Result<Version, AcceptError>> {
    let Some(campaign) = campaign(tx, sbx, new.campaign)? else {
        return Ok(Err(AcceptError::UnknownCampaign(new.campaign)));
    };
    let ver = match (campaign.status, campaign.live) {
        (CampaignStatus::Live, Some(ver)) => ver,
        (CampaignStatus::Draft, _) => return Ok(Err(AcceptError::NotLive("DRAFT"))),
        _ => return Ok(Err(AcceptError::NotLive("STOPPED"))),
    };
    let version = tx.state.facts.version(tx.connection, ver)?;
    let schedule = version.settings.schedule;
    let too_early = schedule.start_at.filter(|start| new.now < *start).map(|start| format!("it starts at {start}"));
    let too_late = schedule.end_at.filter(|end| new.now >= *end).map(|end| format!("it ended at {end}"));
    Ok(match too_early.or(too_late) {
        Some(why) => Err(AcceptError::OutsideSchedule(why)),
        None => Ok((ver, version)),
    })
}

fn campaign(tx: &mut Tx<'_>, sbx: i64, id: CampaignId) -> Result<Option<CampaignFacts>> {
    if let Some(known) = tx.state.memory.campaigns.get(&(sbx, id)) {
        return Ok(Some(known.clone()));
    }
    let mut query = tx.connection.prepare_cached("SELECT status, live FROM campaign WHERE id = ?1 AND sbx = ?2")?;
    let found =
        query.query_row(params![id.bytes(), sbx], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional()?;
    let Some((status, live)) = found else { return Ok(None) };
    let status = super::admin::campaign_status(&status)?;
    let facts = CampaignFacts { status, live };
    tx.state.memory.campaigns.insert((sbx, id), facts.clone());
    Ok(Some(facts))
}

/// Writes the execution and its messages.
fn store(
    tx: &mut Tx<'_>,
    sbx: i64,
    k: i64,
    ver: i64,
    version: &Arc<VersionFacts>,
    new: NewExecution,
) -> Result<Accepted> {
    let connection = tx.connection;
    let mut insert = connection.prepare_cached(
        "INSERT INTO execution (sbx, exec, request_id, ver, prio, expires_at, created_at, k, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute(params![
        sbx,
        new.id.number(),
        new.request_id,
        ver,
        new.priority.code(),
        new.expires_at.map(Timestamp::millis),
        new.now.millis(),
        k,
        new.body_digest.as_slice()
    ])?;
    let execution = Arc::new(ExecutionFacts {
        id: new.id,
        request_id: new.request_id,
        campaign: new.campaign,
        version: version.id,
        channel: version.settings.channel,
        priority: new.priority,
        expires_at: new.expires_at,
        created_at: new.now,
        created_by: new.created_by.clone(),
        created_by_key: new.created_by_key,
    });
    tx.state.facts.remember_execution(sbx, &execution, version);
    tx.state.waiting += new.recipients.len() as u64;
    let mut due = Vec::with_capacity(new.recipients.len());
    for (ordinal, recipient) in (0_u8..).zip(new.recipients) {
        due.push(store_message(tx, sbx, version.q, &execution, ordinal, recipient)?);
    }
    Ok(Accepted {
        id: new.id,
        created_at: new.now,
        created_by: new.created_by,
        work: Some((version.settings.channel_configuration_id, due)),
    })
}

fn store_message(
    tx: &Tx<'_>,
    sbx: i64,
    q: i64,
    execution: &Arc<ExecutionFacts>,
    ordinal: u8,
    new: NewRecipient,
) -> Result<DueMessage> {
    let (recipient, personal) = new.on_channel(execution.channel);
    let personal_json = (personal.context.is_some() || personal.profile.is_some())
        .then(|| serde_json::to_vec(&personal))
        .transpose()
        .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let now = execution.created_at;
    let mut insert = tx.connection.prepare_cached(
        "INSERT INTO message (sbx, exec, ord, state, delayed, failures, events, q, prio, first_due, due_at, \
         user_id, namespace, address, personal) VALUES (?1, ?2, ?3, ?4, 0, 0, 0, ?5, ?6, ?7, ?7, ?8, ?9, ?10, ?11)",
    )?;
    insert.execute(params![
        sbx,
        execution.id.number(),
        ordinal,
        MessageState::Queued.code(),
        q,
        execution.priority.code(),
        now.millis(),
        recipient.user_id,
        recipient.namespace,
        recipient.address,
        personal_json
    ])?;
    Ok(DueMessage {
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
    })
}
