//! Erasures, a part at a time. What is deleted is in no table any more; autovacuum clears the space.

use super::admin::{By, audit, organization, page};
use super::facts::Facts;
use super::find::events_from;
use super::rows::{message_columns, message_key, moment, read_message, rows_of};
use super::search::{self, Had};
use super::session::{Done, Session, col};
use crate::StoreError;
use crate::envelope::MasterKey;
use crate::lookup::{Listed, Page};
use crate::shared::erasing::{self, MOST, Place, Step, WINDOW};
use crate::shared::rows::{from_json, json_of};
use crate::work::NewErasure;
use model::clock::Timestamp;
use model::erasure::{Erased, Erasure, ErasureState};
use model::ids::{ChannelConfigurationId, ErasureId, MessageKey, SandboxId};
use model::tenancy::AuditEntry;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

macro_rules! erasures {
    ($condition:literal) => {
        concat!("SELECT id, org, digest, erased, created_at, created_by, completed_at FROM erasure WHERE ", $condition)
    };
}

fn read_erasure(row: &Row) -> Done<Erasure> {
    let completed_at = moment(row, 6)?;
    Ok(Erasure {
        id: ErasureId(col(row, 0)?),
        ims_org: col(row, 1)?,
        address_digest: col(row, 2)?,
        state: if completed_at.is_some() { ErasureState::Completed } else { ErasureState::Running },
        erased: from_json(col(row, 3)?)?,
        created_at: Timestamp(col(row, 4)?),
        created_by: col(row, 5)?,
        completed_at,
    })
}

pub(super) async fn create(session: &Session, master: &MasterKey, new: &NewErasure, entry: &AuditEntry) -> Done<()> {
    organization(session, &new.ims_org).await?;
    let sql = "INSERT INTO erasure (id, org, digest, sealed, erased, created_at, created_by) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (digest, sealed) = (erasing::digest(master, &new.address), erasing::seal(master, new.id, &new.address)?);
    let (erased, now) = (json_of(&Erased::default())?, new.now.millis());
    session.execute(sql, &[&new.id.0, &new.ims_org, &digest, &sealed, &erased, &now, &new.created_by]).await?;
    audit(session, entry).await
}

pub(super) async fn erasure(session: &Session, organization: &str, id: ErasureId) -> Done<Erasure> {
    let row = session.query_opt(erasures!("org = $1 AND id = $2"), &[&organization, &id.0]).await?;
    read_erasure(row.as_ref().ok_or(StoreError::NotFound("erasure"))?)
}

pub(super) async fn erasures(session: &Session, organization: &str, wanted: &Page) -> Done<Listed<Erasure>> {
    let values = [(&organization as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT)];
    page(session, erasures!("org = $1"), By::IdFromTheNewest("id"), &values, wanted, |row| {
        let erasure = read_erasure(row)?;
        let key = erasure.id.bytes().to_vec();
        Ok((erasure, key))
    })
    .await
}

pub(super) async fn running(session: &Session) -> Done<Vec<ErasureId>> {
    let rows = session.query("SELECT id FROM erasure WHERE completed_at IS NULL ORDER BY id", &[]).await?;
    rows.iter().map(|row| Ok(ErasureId(col(row, 0)?))).collect()
}

/// An erasure under way, as a step sees it.
#[derive(Debug)]
pub(super) struct Seen {
    organization: String,
    address: String,
    place: Place,
    next: Place,
    hits: Vec<MessageKey>,
    is_over: bool,
}

const HITS: &str = "SELECT exec, ord FROM (SELECT exec, ord, address, user_id FROM message \
     WHERE sbx = $1 AND (exec, ord) > ($2, $3) AND exec < $4 ORDER BY exec, ord LIMIT $6) m \
     WHERE lower(address) = lower($5) OR lower(user_id) = lower($5) ORDER BY exec, ord LIMIT $7";

const WINDOW_END: &str = "SELECT exec, ord FROM message WHERE sbx = $1 AND (exec, ord) > ($2, $3) AND exec < $4 \
     ORDER BY exec, ord LIMIT 1 OFFSET $5";

/// What a step sees before its transaction; none: the erasure is completed.
pub(super) async fn look(session: &Session, master: &MasterKey, id: ErasureId) -> Done<Option<Seen>> {
    let sql =
        "SELECT org, sealed, at_sbx, at_exec, at_ord, created_at FROM erasure WHERE id = $1 AND completed_at IS NULL";
    let Some(row) = session.query_opt(sql, &[&id.0]).await? else { return Ok(None) };
    let sealed: Option<&[u8]> = col(&row, 1)?;
    let place = Place { sbx: col(&row, 2)?, exec: col(&row, 3)?, ord: col::<i16>(&row, 4)?.into() };
    let mut seen = Seen {
        organization: col(&row, 0)?,
        address: erasing::unseal(master, id, sealed)?,
        place,
        next: place,
        hits: Vec::new(),
        is_over: false,
    };
    let (ord, end) = (i16::try_from(place.ord).unwrap_or(i16::MAX), erasing::end(Timestamp(col(&row, 5)?)));
    let (window, most) = (rows_of(WINDOW), rows_of(MOST));
    let rows = session.query(HITS, &[&place.sbx, &place.exec, &ord, &end, &seen.address, &window, &most]).await?;
    seen.hits = rows.iter().map(|row| message_key(row, 0)).collect::<Done<_>>()?;
    if seen.hits.len() == MOST
        && let Some(last) = seen.hits.last()
    {
        seen.next = Place { sbx: place.sbx, exec: last.execution.number(), ord: last.ordinal.into() };
        return Ok(Some(seen));
    }
    let last = session.query_opt(WINDOW_END, &[&place.sbx, &place.exec, &ord, &end, &(window - 1)]).await?;
    if let Some(last) = last {
        seen.next = Place { sbx: place.sbx, exec: col(&last, 0)?, ord: col::<i16>(&last, 1)?.into() };
        return Ok(Some(seen));
    }
    let following = "SELECT min(sbx) FROM sandbox WHERE org = $1 AND sbx > $2";
    let following = session.query_opt(following, &[&seen.organization, &place.sbx]).await?;
    match following.as_ref().map_or(Ok(None), |row| col::<Option<i64>>(row, 0))? {
        Some(sbx) => seen.next = Place { sbx, exec: 0, ord: -1 },
        None => seen.is_over = true,
    }
    Ok(Some(seen))
}

const PRESENT: &str = "SELECT at_sbx, at_exec, at_ord, erased FROM erasure WHERE id = $1 AND completed_at IS NULL \
     FOR NO KEY UPDATE";

const DELETE_REPLAYS: &str = "DELETE FROM replay WHERE sbx IN (SELECT sbx FROM sandbox WHERE org = $1) \
     AND lower(settings::jsonb #>> '{filter,recipient}') = lower($2)";

/// Erases what was seen. Where another step was quicker nothing is done.
pub(super) async fn take(
    session: &Session,
    facts: &Facts,
    id: ErasureId,
    seen: &Seen,
    now: Timestamp,
) -> Done<Option<Step>> {
    let Some(row) = session.query_opt(PRESENT, &[&id.0]).await? else { return Ok(None) };
    let place = Place { sbx: col(&row, 0)?, exec: col(&row, 1)?, ord: col::<i16>(&row, 2)?.into() };
    if place != seen.place {
        return Ok(None);
    }
    let erased = erase(session, place.sbx, &seen.hits).await?;
    let total = json_of(&from_json::<Erased>(col(&row, 3)?)?.and(erased))?;
    if seen.is_over {
        session.execute(DELETE_REPLAYS, &[&seen.organization, &seen.address]).await?;
        let done = "UPDATE erasure SET erased = $2, sealed = NULL, completed_at = $3 WHERE id = $1";
        session.execute(done, &[&id.0, &total, &now.millis()]).await?;
    } else {
        let next = seen.next;
        let ord = i16::try_from(next.ord).unwrap_or(i16::MAX);
        let update = "UPDATE erasure SET at_sbx = $2, at_exec = $3, at_ord = $4, erased = $5 WHERE id = $1";
        session.execute(update, &[&id.0, &next.sbx, &next.exec, &ord, &total]).await?;
    }
    let touched = if seen.hits.is_empty() { None } else { Some(place.sbx) };
    let sandboxes = facts.sandboxes_of(session, touched).await?;
    let sandbox = touched.and_then(|sbx| sandboxes.get(&sbx)).map(|sandbox| sandbox.tenant.sandbox_id);
    Ok(Some(Step { sandbox, is_over: seen.is_over }))
}

const MESSAGES: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM unnest($2::bigint[], $3::smallint[]) AS n (exec, ord) \
     JOIN message m ON m.sbx = $1 AND m.exec = n.exec AND m.ord = n.ord ORDER BY m.exec, m.ord FOR UPDATE OF m"
);

const LOCK_EVENTS: &str = "SELECT FROM event WHERE sbx = $1 AND seq = ANY($2) ORDER BY sbx, seq FOR UPDATE";

const DELETE_EVENTS: &str =
    "DELETE FROM event v USING unnest($2::bigint[]) AS n (seq) WHERE v.sbx = $1 AND v.seq = n.seq";

const DELETE_ATTEMPTS: &str =
    "DELETE FROM attempt a USING unnest($2::bigint[]) AS n (seq) WHERE a.sbx = $1 AND a.seq = n.seq";

const DELETE_MESSAGES: &str = "DELETE FROM message m USING unnest($2::bigint[], $3::smallint[]) AS n (exec, ord) \
     WHERE m.sbx = $1 AND m.exec = n.exec AND m.ord = n.ord";

const DELETE_EXECUTIONS: &str = "DELETE FROM execution e USING (SELECT DISTINCT exec FROM unnest($2::bigint[]) AS u (exec)) n \
     WHERE e.sbx = $1 AND e.exec = n.exec AND NOT EXISTS (SELECT FROM message m WHERE m.sbx = e.sbx AND m.exec = e.exec)";

/// Messages with all that hangs on them; their executions too, where they had no others.
async fn erase(session: &Session, sbx: i64, hits: &[MessageKey]) -> Done<Erased> {
    let mut erased = Erased::default();
    if hits.is_empty() {
        return Ok(erased);
    }
    let execs: Vec<i64> = hits.iter().map(|key| key.execution.number()).collect();
    let ords: Vec<i16> = hits.iter().map(|key| i16::from(key.ordinal)).collect();
    search::hold_runs(session, sbx).await?;
    let messages = session.query(MESSAGES, &[&sbx, &execs, &ords]).await?;
    let (mut latest, mut texts) = (Vec::with_capacity(messages.len()), Vec::with_capacity(2 * messages.len()));
    for row in &messages {
        let message = read_message(row, 0)?;
        latest.extend(message.last_event);
        let exec = message.key.execution.number();
        texts.extend(message.recipient.texts().map(|text| (exec, text.to_owned())));
    }
    // Nobody adds any while the messages are locked.
    let sequences: Vec<i64> = events_from(session, sbx, &latest).await?.iter().map(|event| event.sequence).collect();
    session.query(LOCK_EVENTS, &[&sbx, &sequences]).await?;
    erased.attempts = session.execute(DELETE_ATTEMPTS, &[&sbx, &sequences]).await?;
    erased.feedback_events = session.execute(DELETE_EVENTS, &[&sbx, &sequences]).await?;
    erased.messages = session.execute(DELETE_MESSAGES, &[&sbx, &execs, &ords]).await?;
    search::forget(session, sbx, &texts, Had::Others).await?;
    erased.executions = session.execute(DELETE_EXECUTIONS, &[&sbx, &execs]).await?;
    Ok(erased)
}

/// The channel configurations of a sandbox: their queues may hold what is gone.
pub(super) async fn channels_of(
    session: &Session,
    facts: &Facts,
    sandbox: SandboxId,
) -> Done<Vec<ChannelConfigurationId>> {
    let sbx = facts.sandbox(session, sandbox).await?.sbx;
    let rows = session.query("SELECT id FROM channel_configuration WHERE sbx = $1", &[&sbx]).await?;
    rows.iter().map(|row| Ok(ChannelConfigurationId(col(row, 0)?))).collect()
}
