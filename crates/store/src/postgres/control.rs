//! What people do to deliveries: retry, cancel, drain, and cancel all with their webhook.
//!
//! A change of one delivery locks its message and then all events of that message, so that it sees where each stands.

use super::admin::audit;
use super::facts::Facts;
use super::find::events_from;
use super::hooks::{HELD, Hooks};
use super::rows::{message_columns, read_message};
use super::session::{Done, Session, Values};
use crate::StoreError;
use crate::shared::change;
use crate::shared::facts::SandboxFacts;
use crate::shared::rows::EventRow;
use model::clock::Timestamp;
use model::delivery::StoredDelivery;
use model::ids::{EventId, SandboxId};
use model::tenancy::AuditEntry;
use model::webhook::Webhook;
use std::sync::Arc;

const MESSAGE: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM message m WHERE m.sbx = $1 AND m.exec = $2 AND m.ord = $3 FOR NO KEY UPDATE"
);

const LOCK_EVENTS: &str = "SELECT FROM event WHERE sbx = $1 AND seq = ANY($2) ORDER BY sbx, seq FOR NO KEY UPDATE";

/// Moves the attempt that succeeded from the event's row to the others.
const KEEP_SUCCESS: &str = "INSERT INTO attempt (sbx, seq, n, at, ms, status, excerpt) SELECT v.sbx, v.seq, \
     coalesce((SELECT max(a.n) FROM attempt a WHERE a.sbx = $1 AND a.seq = $2), 0) + 1, \
     v.attempt_at, v.attempt_ms, v.attempt_status, v.attempt_excerpt FROM event v WHERE v.sbx = $1 AND v.seq = $2";

/// An event's delivery that is to be changed.
struct Chosen {
    sandbox: Arc<SandboxFacts>,
    webhook: Option<Arc<Webhook>>,
    /// All events of the message, in the order recorded.
    events: Vec<EventRow>,
    /// The place of the chosen one among them.
    place: usize,
}

impl Chosen {
    async fn lock(session: &Session, facts: &Facts, hooks: &Hooks, sandbox: SandboxId, id: EventId) -> Done<Self> {
        let missing = || StoreError::NotFound("feedback event");
        let sandbox = facts.sandbox(session, sandbox).await?;
        let key = id.key().ok_or_else(missing)?;
        let (exec, ord) = (key.message.execution.number(), i16::from(key.message.ordinal));
        let row = session.query_opt(MESSAGE, &[&sandbox.sbx, &exec, &ord]).await?;
        let message = read_message(row.as_ref().ok_or_else(missing)?, 0)?;
        let rows = session.query(HELD, &[&vec![sandbox.sbx]]).await?;
        let webhook = hooks.read(session, &rows).await?.remove(&sandbox.sbx);
        let latest: Vec<i64> = message.last_event.into_iter().collect();
        // Nobody adds any while the message is locked; where they stand is read anew once they are locked too.
        let events = events_from(session, sandbox.sbx, &latest).await?;
        let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
        session.query(LOCK_EVENTS, &[&sandbox.sbx, &sequences]).await?;
        let events = events_from(session, sandbox.sbx, &latest).await?;
        let place = events.iter().position(|event| event.key == key).ok_or_else(missing)?;
        Ok(Self { sandbox, webhook, events, place })
    }

    fn event(&self) -> &EventRow {
        &self.events[self.place]
    }

    /// The other event that is under way.
    fn under_way_beside(&self) -> Option<i64> {
        let others = self.events.iter().enumerate().filter(|(place, _)| *place != self.place);
        others
            .map(|(_, event)| event)
            .find(|event| event.delivery == StoredDelivery::Pending)
            .map(|event| event.sequence)
    }
}

/// Makes a delivery due again. It waits where another event of its message is under way.
pub(super) async fn retry(
    session: &Session,
    (facts, hooks): (&Facts, &Hooks),
    sandbox: SandboxId,
    id: EventId,
    now: Timestamp,
    entry: &AuditEntry,
) -> Done<()> {
    let chosen = Chosen::lock(session, facts, hooks, sandbox, id).await?;
    let (sbx, seq) = (chosen.sandbox.sbx, chosen.event().sequence);
    let under_way = chosen.under_way_beside();
    let again = change::retry(chosen.event(), chosen.webhook.as_deref(), under_way.is_some(), now)?;
    if again.had_succeeded {
        session.execute(KEEP_SUCCESS, &[&sbx, &seq]).await?;
    }
    // Later events may wait for this one by now, or it for a later one.
    let sql = "UPDATE event SET delivery = $3, due_at = $4, first_due = $5, ended_at = NULL, followed = true, \
               replay = NULL, again = CASE delivery WHEN 1 THEN again ELSE true END WHERE sbx = $1 AND seq = $2";
    let due_at = again.due_at.map(Timestamp::millis);
    let values: Values<'_> = &[&sbx, &seq, &i16::from(again.delivery.code()), &due_at, &again.first_due.millis()];
    session.execute(sql, values).await?;
    if let Some(other) = under_way {
        session.execute("UPDATE event SET followed = true WHERE sbx = $1 AND seq = $2", &[&sbx, &other]).await?;
    }
    audit(session, entry).await
}

/// Cancels a delivery that has not ended; what waited for it becomes due.
pub(super) async fn cancel(
    session: &Session,
    (facts, hooks): (&Facts, &Hooks),
    sandbox: SandboxId,
    id: EventId,
    now: Timestamp,
    entry: &AuditEntry,
) -> Done<()> {
    let chosen = Chosen::lock(session, facts, hooks, sandbox, id).await?;
    let (sbx, seq) = (chosen.sandbox.sbx, chosen.event().sequence);
    change::check_cancel(chosen.event().delivery)?;
    let sql = "UPDATE event SET delivery = $3, due_at = NULL, ended_at = $4 WHERE sbx = $1 AND seq = $2";
    let cancelled = StoredDelivery::Cancelled;
    session.execute(sql, &[&sbx, &seq, &i16::from(cancelled.code()), &now.millis()]).await?;
    let newest_first = chosen.events.iter().rev().map(|event| {
        let delivery = if event.sequence == seq { cancelled } else { event.delivery };
        Done::Ok((event.sequence, delivery))
    });
    if let Some(next) = change::next_to_go(newest_first)? {
        let first_due = chosen.webhook.as_ref().map_or(now, |webhook| webhook.active_time(now));
        let sql = "UPDATE event SET delivery = 1, due_at = $3, first_due = $4 WHERE sbx = $1 AND seq = $2";
        session.execute(sql, &[&sbx, &next, &now.millis(), &first_due.millis()]).await?;
    }
    audit(session, entry).await
}

/// Some of a sandbox's deliveries in one state, locked in their order. What has left the state by then is left alone.
macro_rules! step {
    ($set:literal, $of:literal, $still:literal) => {
        concat!(
            "WITH part AS (SELECT seq FROM event WHERE sbx = $1 AND ",
            $of,
            " LIMIT $3), held AS (SELECT v.seq FROM event v JOIN part ON part.seq = v.seq WHERE v.sbx = $1 \
             ORDER BY v.seq FOR NO KEY UPDATE OF v) UPDATE event v SET ",
            $set,
            " FROM held WHERE v.sbx = $1 AND v.seq = held.seq AND ",
            $still
        )
    };
}

const DRAIN: &str = step!("due_at = $2", "delivery = 1 AND due_at > $2", "v.delivery + 0 = 1 AND v.due_at > $2");
const CANCEL_BLOCKED: &str = step!("delivery = 5, due_at = NULL, ended_at = $2", "delivery = 2", "v.delivery + 0 = 2");
const CANCEL_PENDING: &str = step!("delivery = 5, due_at = NULL, ended_at = $2", "delivery = 1", "v.delivery + 0 = 1");

/// The rows that one step of a long change touches: short enough that others do not wait for long.
const STEP: i64 = 2_000;

/// Makes some deliveries of the sandbox that wait for a later time due now; returns how many.
pub(super) async fn drain_some(session: &Session, sbx: i64, now: Timestamp) -> Done<u64> {
    session.execute(DRAIN, &[&sbx, &now.millis(), &STEP]).await
}

/// Cancels some deliveries of the sandbox that have not ended; returns how many. First those that wait for another, so
/// that few are promoted in between.
pub(super) async fn cancel_some(session: &Session, sbx: i64, now: Timestamp) -> Done<u64> {
    match session.execute(CANCEL_BLOCKED, &[&sbx, &now.millis(), &STEP]).await? {
        0 => session.execute(CANCEL_PENDING, &[&sbx, &now.millis(), &STEP]).await,
        some => Ok(some),
    }
}
