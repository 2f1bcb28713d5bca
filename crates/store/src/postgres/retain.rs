//! Retention: what is old goes, in steps. A lookup finds it; the transaction locks it and deletes what is still as it
//! was seen. What is left behind is for autovacuum, which the tables ask for early; new rows take its place.

use super::facts::Facts;
use super::rows::{corrupt, delivery, json, message_key, rows_of};
use super::search::{self, Had};
use super::session::{Done, Session, col};
use super::statistics;
use crate::StoreError;
use crate::shared::change::sequence_at;
use crate::shared::retaining::{self, Old};
use crate::statistics::{BY_HOUR, BY_MINUTE};
use crate::work::{Deleted, Kept, RetainStep, RetainWhat, Retained};
use model::ids::ExecutionId;
use model::retention::RetentionOverride;
use std::collections::HashMap;
use tokio_postgres::Row;

/// The events of a window that is looked through for attempts.
const WINDOW: i64 = 5_000;

pub(super) async fn kept(session: &Session, facts: &Facts) -> Done<Vec<Kept>> {
    let sql = "SELECT s.sbx, o.retention FROM sandbox s JOIN organization o ON o.id = s.org ORDER BY s.sbx";
    let rows = session.query(sql, &[]).await?;
    let mut read: Vec<(i64, RetentionOverride)> = Vec::with_capacity(rows.len());
    for row in &rows {
        let is_set = col::<Option<&str>>(row, 1)?.is_some();
        read.push((col(row, 0)?, if is_set { json(row, 1)? } else { RetentionOverride::default() }));
    }
    let sandboxes = facts.sandboxes_of(session, read.iter().map(|(sbx, _)| *sbx)).await?;
    let of = |(sbx, retention)| {
        let sandbox = sandboxes.get(&sbx)?;
        Some(Kept { sandbox: sandbox.tenant.sandbox_id, shard: sandbox.shard, retention })
    };
    Ok(read.into_iter().filter_map(of).collect())
}

/// What a step has found before its transaction.
#[derive(Debug)]
pub(super) enum Found {
    Executions { gone: Vec<Vec<Old>>, next: Option<i64> },
    Attempts { sequences: Vec<i64>, next: Option<i64> },
    AuditLog { is_empty: bool },
    Counts { is_empty: bool },
}

impl Found {
    /// Nothing is old enough: then there is nothing to be written. Where the next step goes on.
    pub fn nothing(&self) -> Option<Retained> {
        let next = match self {
            Self::Executions { gone, next } if gone.is_empty() => *next,
            Self::Attempts { sequences, next } if sequences.is_empty() => *next,
            Self::AuditLog { is_empty: true } | Self::Counts { is_empty: true } => None,
            _ => return None,
        };
        Some(Retained { deleted: Deleted::default(), next })
    }
}

pub(super) async fn look(session: &Session, facts: &Facts, step: &RetainStep) -> Done<Found> {
    let sandbox = facts.sandbox(session, step.sandbox).await?;
    let sbx = sandbox.sbx;
    match step.what {
        RetainWhat::Executions => {
            let messages = old_messages(session, sbx, step).await?;
            let (gone, next) = retaining::choose(messages, step.before, step.most);
            Ok(Found::Executions { gone, next })
        }
        RetainWhat::Attempts => old_attempts(session, sbx, step).await,
        RetainWhat::AuditLog => {
            let sql = "SELECT 1 FROM audit_log WHERE org = $1 AND id < $2 LIMIT 1";
            let floor = uuid::Uuid::from_bytes(retaining::id_floor(step.before));
            let found = session.query_opt(sql, &[&sandbox.tenant.ims_org, &floor]).await?;
            Ok(Found::AuditLog { is_empty: found.is_none() })
        }
        RetainWhat::CountsByMinute => counts_before(session, sbx, BY_MINUTE, step).await,
        RetainWhat::CountsByHour => counts_before(session, sbx, BY_HOUR, step).await,
    }
}

async fn counts_before(session: &Session, sbx: i64, span: u8, step: &RetainStep) -> Done<Found> {
    let is_there = statistics::is_any_before(session, sbx, span, step.before).await?;
    Ok(Found::Counts { is_empty: !is_there })
}

const MESSAGES: &str = "SELECT exec, ord, due_at IS NOT NULL, last_event FROM message \
     WHERE sbx = $1 AND exec > $2 AND exec < $3 ORDER BY exec, ord LIMIT $4";

/// The events of messages, from the latest one of each on.
const CHAINS: &str = "WITH RECURSIVE c AS (SELECT w.i, v.seq, v.prev, v.delivery \
     FROM unnest($2::int[], $3::bigint[]) AS w (i, seq) JOIN event v ON v.sbx = $1 AND v.seq = w.seq \
     UNION ALL SELECT c.i, v.seq, v.prev, v.delivery FROM c JOIN event v ON v.sbx = $1 AND v.seq = c.prev) \
     SELECT i, seq, delivery FROM c";

async fn old_messages(session: &Session, sbx: i64, step: &RetainStep) -> Done<Vec<Old>> {
    let end = ExecutionId::floor_at(step.before).number();
    let rows = session.query(MESSAGES, &[&sbx, &step.after, &end, &rows_of(step.most)]).await?;
    let read = |row: &Row| {
        Ok(Old { key: message_key(row, 0)?, is_due: col(row, 2)?, last_event: col(row, 3)?, events: Vec::new() })
    };
    let mut messages = rows.iter().map(read).collect::<Done<Vec<_>>>()?;
    let (mut places, mut latest) = (Vec::new(), Vec::new());
    for (place, message) in messages.iter().enumerate() {
        if let Some(last) = message.last_event {
            places.push(i32::try_from(place).map_err(|_| corrupt("too many messages"))?);
            latest.push(last);
        }
    }
    for row in session.query(CHAINS, &[&sbx, &places, &latest]).await? {
        let place = usize::try_from(col::<i32>(&row, 0)?).map_err(|_| corrupt("a negative place"))?;
        let event = (col(&row, 1)?, delivery(&row, 2)?);
        messages.get_mut(place).ok_or_else(|| corrupt("a place that nobody has"))?.events.push(event);
    }
    Ok(messages)
}

const WINDOW_END: &str =
    "SELECT seq FROM event WHERE sbx = $1 AND seq > $2 AND seq < $3 ORDER BY seq LIMIT 1 OFFSET $4";

const WITH_ATTEMPTS: &str = "SELECT v.seq FROM event v WHERE v.sbx = $1 AND v.seq > $2 AND v.seq <= $3 \
     AND v.delivery + 0 NOT IN (1, 2) AND v.ended_at < $4 AND (v.attempt_excerpt IS NOT NULL \
     OR EXISTS (SELECT 1 FROM attempt a WHERE a.sbx = v.sbx AND a.seq = v.seq)) ORDER BY v.seq LIMIT $5";

/// Events whose deliveries ended so long ago, and that have attempts or an endpoint's answer.
async fn old_attempts(session: &Session, sbx: i64, step: &RetainStep) -> Done<Found> {
    let end = sequence_at(step.before);
    let next = session.query_opt(WINDOW_END, &[&sbx, &step.after, &end, &(WINDOW - 1)]).await?;
    let next: Option<i64> = next.as_ref().map(|row| col(row, 0)).transpose()?;
    let (last, before) = (next.unwrap_or(end - 1), step.before.millis());
    let rows = session.query(WITH_ATTEMPTS, &[&sbx, &step.after, &last, &before, &rows_of(step.most)]).await?;
    let sequences = rows.iter().map(|row| col(row, 0)).collect::<Done<Vec<i64>>>()?;
    let is_cut = sequences.len() >= step.most;
    let next = if is_cut { sequences.last().copied() } else { next };
    Ok(Found::Attempts { sequences, next })
}

/// Deletes what was found; what has changed meanwhile undoes it all.
pub(super) async fn take(session: &Session, facts: &Facts, step: &RetainStep, found: &Found) -> Done<Retained> {
    let sandbox = facts.sandbox(session, step.sandbox).await?;
    let sbx = sandbox.sbx;
    match found {
        Found::Executions { gone, next } => {
            let attempts = delete_executions(session, sbx, gone).await?;
            let delete = "DELETE FROM replay WHERE sbx = $1 AND state <> 0 AND ended_at < $2";
            session.execute(delete, &[&sbx, &step.before.millis()]).await?;
            search::trim(session, sbx).await?;
            Ok(retaining::deleted(gone, attempts, *next))
        }
        Found::Attempts { sequences, next } => {
            // Locked in their order, and looked at once they are.
            session.query(LOCK_EVENTS, &[&sbx, sequences]).await?;
            let attempts = session.execute(DELETE_ENDED_ATTEMPTS, &[&sbx, sequences]).await?;
            session.execute(FORGET_EXCERPTS, &[&sbx, sequences]).await?;
            Ok(Retained { deleted: Deleted { attempts, ..Deleted::default() }, next: *next })
        }
        Found::AuditLog { .. } => {
            let floor = uuid::Uuid::from_bytes(retaining::id_floor(step.before));
            let most = rows_of(step.most);
            let audit_log = session.execute(DELETE_AUDIT, &[&sandbox.tenant.ims_org, &floor, &most]).await?;
            let next = (audit_log >= u64::try_from(step.most).unwrap_or(u64::MAX)).then_some(0);
            Ok(Retained { deleted: Deleted { audit_log, ..Deleted::default() }, next })
        }
        Found::Counts { .. } => {
            match step.what {
                RetainWhat::CountsByMinute => statistics::move_to_hours(session, sbx, step.before, step.most).await?,
                _ => statistics::delete_hours(session, sbx, step.before, step.most).await?,
            }
            Ok(retaining::again(step))
        }
    }
}

const LOCK_EVENTS: &str = "SELECT FROM event WHERE sbx = $1 AND seq = ANY($2) ORDER BY sbx, seq FOR UPDATE";

const DELETE_ENDED_ATTEMPTS: &str = "DELETE FROM attempt a USING event v, unnest($2::bigint[]) AS n (seq) \
     WHERE v.sbx = $1 AND v.seq = n.seq AND v.delivery + 0 NOT IN (1, 2) AND a.sbx = v.sbx AND a.seq = v.seq";

const FORGET_EXCERPTS: &str = "UPDATE event v SET attempt_excerpt = NULL FROM unnest($2::bigint[]) AS n (seq) \
     WHERE v.sbx = $1 AND v.seq = n.seq AND v.attempt_excerpt IS NOT NULL AND v.delivery + 0 NOT IN (1, 2)";

const DELETE_AUDIT: &str = "DELETE FROM audit_log l USING (SELECT id FROM audit_log WHERE org = $1 AND id < $2 LIMIT $3) n \
     WHERE l.org = $1 AND l.id = n.id";

const LOCK_MESSAGES: &str = "SELECT m.exec, m.ord, m.due_at IS NOT NULL, m.last_event \
     FROM unnest($2::bigint[], $3::smallint[]) AS n (exec, ord) \
     JOIN message m ON m.sbx = $1 AND m.exec = n.exec AND m.ord = n.ord ORDER BY m.exec, m.ord FOR UPDATE OF m";

const DELETE_ATTEMPTS: &str =
    "DELETE FROM attempt a USING unnest($2::bigint[]) AS n (seq) WHERE a.sbx = $1 AND a.seq = n.seq";

const DELETE_EVENTS: &str = "DELETE FROM event v USING unnest($2::bigint[]) AS n (seq) \
     WHERE v.sbx = $1 AND v.seq = n.seq AND v.delivery + 0 NOT IN (1, 2)";

const DELETE_MESSAGES: &str = "DELETE FROM message m USING unnest($2::bigint[]) AS n (exec) \
     WHERE m.sbx = $1 AND m.exec = n.exec RETURNING m.exec, m.user_id, m.address";

const DELETE_EXECUTIONS: &str = "DELETE FROM execution e USING unnest($2::bigint[]) AS n (exec) \
     WHERE e.sbx = $1 AND e.exec = n.exec";

async fn delete_executions(session: &Session, sbx: i64, gone: &[Vec<Old>]) -> Done<u64> {
    if gone.is_empty() {
        return Ok(0);
    }
    let messages: HashMap<_, _> = gone.iter().flatten().map(|old| (old.key, old)).collect();
    let (mut execs, mut ords) = (Vec::new(), Vec::new());
    for old in gone.iter().flatten() {
        execs.push(old.key.execution.number());
        ords.push(i16::from(old.key.ordinal));
    }
    search::hold_runs(session, sbx).await?;
    let locked = session.query(LOCK_MESSAGES, &[&sbx, &execs, &ords]).await?;
    for row in &locked {
        let as_seen = messages.get(&message_key(row, 0)?).is_some_and(|old| col(row, 3).ok() == Some(old.last_event));
        if !as_seen || col(row, 2)? {
            return Err(StoreError::Changed.into());
        }
    }
    let mut sequences: Vec<i64> = gone.iter().flatten().flat_map(|old| &old.events).map(|event| event.0).collect();
    sequences.sort_unstable();
    session.query(LOCK_EVENTS, &[&sbx, &sequences]).await?;
    let deleted = session.execute(DELETE_EVENTS, &[&sbx, &sequences]).await?;
    if locked.len() != messages.len() || usize::try_from(deleted) != Ok(sequences.len()) {
        return Err(StoreError::Changed.into());
    }
    let attempts = session.execute(DELETE_ATTEMPTS, &[&sbx, &sequences]).await?;
    execs.dedup();
    let mut texts = Vec::with_capacity(2 * locked.len());
    for row in session.query(DELETE_MESSAGES, &[&sbx, &execs]).await? {
        let (exec, address): (i64, Option<String>) = (col(&row, 0)?, col(&row, 2)?);
        texts.push((exec, col(&row, 1)?));
        texts.extend(address.map(|address| (exec, address)));
    }
    search::forget(session, sbx, &texts, Had::No).await?;
    session.execute(DELETE_EXECUTIONS, &[&sbx, &execs]).await?;
    Ok(attempts)
}
