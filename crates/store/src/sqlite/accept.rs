//! Taking executions.

use super::search::note_accepted;
use super::writer::{CampaignFacts, Tx};
use crate::Result;
use crate::shared::accepting::{check_schedule, facts_of, live_version, new_message, remembered_since};
use crate::shared::facts::VersionFacts;
use crate::work::{AcceptError, Accepted, NewExecution, NewRecipient};
use model::clock::Timestamp;
use model::execution::{DueMessage, ExecutionFacts};
use model::ids::{CampaignId, ExecutionId};
use model::message::MessageState;
use rusqlite::{OptionalExtension, params};
use std::sync::Arc;

type Answer = std::result::Result<Accepted, AcceptError>;

pub(super) fn accept(tx: &mut Tx<'_>, new: NewExecution) -> Result<Answer> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, new.sandbox)?;
    if let Some((id, body)) = find_request(tx, sandbox.sbx, &new)? {
        return repetition(tx, sandbox.sbx, id, body, &new);
    }
    let version = match version_at(tx, sandbox.sbx, &new)? {
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
    let mut rows = query.query((sbx, &new.request_id, remembered_since(new.now).number()))?;
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
fn version_at(tx: &mut Tx<'_>, sbx: i64, new: &NewExecution) -> Result<std::result::Result<Version, AcceptError>> {
    let Some(campaign) = campaign(tx, sbx, new.campaign)? else {
        return Ok(Err(AcceptError::UnknownCampaign(new.campaign)));
    };
    let ver = match live_version(campaign.status, campaign.live) {
        Ok(ver) => ver,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let version = tx.state.facts.version(tx.connection, ver)?;
    Ok(check_schedule(&version, new.now).map(|()| (ver, version)))
}

fn campaign(tx: &mut Tx<'_>, sbx: i64, id: CampaignId) -> Result<Option<CampaignFacts>> {
    if let Some(known) = tx.state.memory.campaigns.get(&(sbx, id)) {
        return Ok(Some(known.clone()));
    }
    let mut query = tx.connection.prepare_cached("SELECT status, live FROM campaign WHERE id = ?1 AND sbx = ?2")?;
    let found =
        query.query_row(params![id.bytes(), sbx], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional()?;
    let Some((status, live)) = found else { return Ok(None) };
    let status = crate::shared::sealing::campaign_status(&status)?;
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
    mut new: NewExecution,
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
    let execution = Arc::new(facts_of(&mut new, version));
    tx.state.facts.remember_execution(sbx, &execution, version);
    tx.state.waiting += new.recipients.len() as u64;
    tx.state.counted.accepted(sbx, new.now, new.recipients.len());
    let mut due = Vec::with_capacity(new.recipients.len());
    for (ordinal, recipient) in (0_u8..).zip(new.recipients) {
        due.push(store_message(tx, sbx, version.q, &execution, ordinal, recipient)?);
    }
    let texts = due.iter().flat_map(|message| message.recipient.texts());
    note_accepted(tx, sbx, new.id.number(), due.len(), texts)?;
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
    let (due, personal_json) = new_message(execution, ordinal, new)?;
    let recipient = &due.recipient;
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
        due.due_at.millis(),
        recipient.user_id,
        recipient.namespace,
        recipient.address,
        personal_json
    ])?;
    Ok(due)
}
