//! What is due.

use super::facts::Facts;
use super::rows::{
    EVENT_COLUMNS, MESSAGE_COLUMNS, event_columns, message_columns, moment, read_event, read_message, recipient,
    rows_of,
};
use super::session::{Done, Session, col};
use crate::StoreError;
use crate::shared::rows::ToDue;
use crate::work::{Due, DueDeliveries, DueMessages};
use model::clock::Timestamp;
use model::ids::{ChannelConfigurationId, SandboxId};
use std::sync::Arc;
use tokio_postgres::Row;

const DELIVERIES: &str = concat!(
    "SELECT ",
    event_columns!(),
    ", m.user_id, m.namespace, m.address FROM (SELECT * FROM event WHERE sbx = $1 AND delivery = 1 AND due_at <= $2 \
     ORDER BY due_at, seq LIMIT $3) v \
     JOIN message m ON m.sbx = v.sbx AND m.exec = v.exec AND m.ord = v.ord ORDER BY v.due_at, v.seq"
);

const NEXT_DELIVERY: &str =
    "SELECT due_at FROM event WHERE sbx = $1 AND delivery = 1 AND due_at > $2 ORDER BY due_at LIMIT 1";

const WEBHOOKS: &str = "SELECT w.sbx, d.due_at FROM webhook w CROSS JOIN LATERAL (\
     SELECT due_at FROM event v WHERE v.sbx = w.sbx AND v.delivery = 1 ORDER BY v.due_at LIMIT 1) d WHERE NOT w.deleting";

const CHANNELS: &str = "SELECT c.id, c.sbx, LEAST(a.due_at, b.due_at) FROM channel_configuration c \
     LEFT JOIN LATERAL (SELECT due_at FROM message m WHERE m.q = c.q AND m.prio = 0 AND m.due_at IS NOT NULL \
     ORDER BY m.due_at LIMIT 1) a ON true \
     LEFT JOIN LATERAL (SELECT due_at FROM message m WHERE m.q = c.q AND m.prio = 1 AND m.due_at IS NOT NULL \
     ORDER BY m.due_at LIMIT 1) b ON true \
     WHERE a.due_at IS NOT NULL OR b.due_at IS NOT NULL";

const MESSAGES: &str = concat!(
    "SELECT ",
    message_columns!(),
    ", m.personal FROM message m WHERE m.q = $1 AND m.prio = $2 AND m.due_at <= $3 ORDER BY m.due_at LIMIT $4"
);

const NEXT_MESSAGE: &str = "SELECT LEAST(\
     (SELECT due_at FROM message WHERE q = $1 AND prio = 0 AND due_at > $2 ORDER BY due_at LIMIT 1), \
     (SELECT due_at FROM message WHERE q = $1 AND prio = 1 AND due_at > $2 ORDER BY due_at LIMIT 1))";

async fn next_at(session: &Session, sql: &'static str, of: i64, after: Timestamp) -> Done<Option<Timestamp>> {
    let row = session.query_opt(sql, &[&of, &after.millis()]).await?;
    row.as_ref().map_or(Ok(None), |row| moment(row, 0))
}

pub(super) async fn deliveries(
    session: &Session,
    facts: &Facts,
    sandbox: SandboxId,
    now: Timestamp,
    limit: usize,
) -> Done<DueDeliveries> {
    let sandbox = facts.sandbox(session, sandbox).await?;
    let rows = session.query(DELIVERIES, &[&sandbox.sbx, &now.millis(), &rows_of(limit)]).await?;
    let events: Vec<_> =
        rows.iter().map(|row: &Row| Ok((read_event(row, 0)?, recipient(row, EVENT_COLUMNS)?))).collect::<Done<_>>()?;
    let wanted = events.iter().map(|(event, _)| (sandbox.sbx, event.key.message.execution));
    let executions = facts.executions(session, wanted).await?;
    let mut deliveries = Vec::with_capacity(events.len());
    for (event, recipient) in events {
        let stored = executions.get(&(sandbox.sbx, event.key.message.execution));
        let stored = stored.ok_or(StoreError::NotFound("execution"))?;
        let to_due = ToDue::of(&event);
        let event = event.into_event(recipient, Arc::clone(&sandbox.tenant), Arc::clone(&stored.facts));
        deliveries.push(to_due.with(event));
    }
    let next_at = match deliveries.len() == limit {
        true => Some(now),
        false => next_at(session, NEXT_DELIVERY, sandbox.sbx, now).await?,
    };
    Ok(DueDeliveries { deliveries, next_at })
}

pub(super) async fn webhooks(session: &Session, facts: &Facts) -> Done<Vec<Due<SandboxId>>> {
    let rows = session.query(WEBHOOKS, &[]).await?;
    let due = rows.iter().map(|row| Ok((col(row, 0)?, Timestamp(col(row, 1)?)))).collect::<Done<Vec<(i64, _)>>>()?;
    let sandboxes = facts.sandboxes_of(session, due.iter().map(|(sbx, _)| *sbx)).await?;
    let of = |(sbx, at): (i64, Timestamp)| {
        let sandbox = sandboxes.get(&sbx)?;
        Some(Due { id: sandbox.tenant.sandbox_id, shard: sandbox.shard, at })
    };
    Ok(due.into_iter().filter_map(of).collect())
}

pub(super) async fn channels(session: &Session, facts: &Facts) -> Done<Vec<Due<ChannelConfigurationId>>> {
    let rows = session.query(CHANNELS, &[]).await?;
    let mut due = Vec::with_capacity(rows.len());
    for row in &rows {
        due.push((ChannelConfigurationId(col(row, 0)?), col::<i64>(row, 1)?, Timestamp(col(row, 2)?)));
    }
    let sandboxes = facts.sandboxes_of(session, due.iter().map(|(_, sbx, _)| *sbx)).await?;
    let of = |(id, sbx, at)| Some(Due { id, shard: sandboxes.get(&sbx)?.shard, at });
    Ok(due.into_iter().filter_map(of).collect())
}

pub(super) async fn messages(
    session: &Session,
    facts: &Facts,
    channel: ChannelConfigurationId,
    now: Timestamp,
    limit: usize,
) -> Done<DueMessages> {
    let found = session.query_opt("SELECT q, sbx FROM channel_configuration WHERE id = $1", &[&channel.0]).await?;
    let Some(found) = found else { return Ok(DueMessages::default()) };
    let (q, sbx): (i64, i64) = (col(&found, 0)?, col(&found, 1)?);
    let mut rows = session.query(MESSAGES, &[&q, &0_i16, &now.millis(), &rows_of(limit)]).await?;
    let left = limit.saturating_sub(rows.len());
    rows.extend(session.query(MESSAGES, &[&q, &1_i16, &now.millis(), &rows_of(left)]).await?);
    let read = rows.iter().map(|row| read_message(row, 0)).collect::<Done<Vec<_>>>()?;
    let executions = facts.executions(session, read.iter().map(|message| (sbx, message.key.execution))).await?;
    let mut messages = Vec::with_capacity(read.len());
    for (row, message) in rows.iter().zip(read) {
        let stored = executions.get(&(sbx, message.key.execution)).ok_or(StoreError::NotFound("execution"))?;
        messages.push(message.into_due(Arc::clone(&stored.facts), col(row, MESSAGE_COLUMNS)?)?);
    }
    let next_at = match messages.len() == limit {
        true => Some(now),
        false => next_at(session, NEXT_MESSAGE, q, now).await?,
    };
    Ok(DueMessages { messages, next_at })
}
