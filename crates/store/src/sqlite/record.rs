//! Recording outcomes: message state, feedback events and their deliveries in one transaction.

use super::facts::{SandboxFacts, VersionFacts};
use super::rows::{MessageRow, json_of, payload_code, status_code, why_of};
use super::writer::Tx;
#[cfg(feature = "planted-bugs")]
use crate::planted::{Bug, is_planted};
use crate::work::{Lease, Record, Recorded, What};
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::{DueDelivery, StoredDelivery};
use model::execution::ExecutionFacts;
use model::feedback::FeedbackEvent;
use model::ids::{EventKey, MessageKey, SandboxId};
use model::message::MessageState;
use model::outcome::{Outcome, Verdict};
use model::webhook::Webhook;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// Whether the lease is that of the shard's present owner.
pub(super) fn holds(tx: &Tx<'_>, sandbox: &SandboxFacts, lease: Lease) -> bool {
    sandbox.shard == lease.shard && tx.state.epochs.get(usize::from(lease.shard.0)) == Some(&lease.epoch)
}

/// How many messages wait to be sent.
pub(super) fn count_waiting(connection: &Connection) -> Result<u64> {
    let sql = "SELECT count(*) FROM message WHERE due_at IS NOT NULL AND state IN (?1, ?2)";
    let states = (MessageState::Queued.code(), MessageState::HandingOver.code());
    Ok(connection.query_row(sql, states, |row| row.get(0))?)
}

pub(super) fn hand_over(tx: &mut Tx<'_>, lease: Lease, sandbox: SandboxId, key: MessageKey) -> Result<bool> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, sandbox)?;
    if !holds(tx, &sandbox, lease) {
        return Ok(false);
    }
    let mut update = tx.connection.prepare_cached(
        "UPDATE message SET state = ?4 WHERE sbx = ?1 AND exec = ?2 AND ord = ?3 AND state IN (?5, ?4)",
    )?;
    let (handing_over, queued) = (MessageState::HandingOver.code(), MessageState::Queued.code());
    let changed = update.execute(params![sandbox.sbx, key.execution.number(), key.ordinal, handing_over, queued])?;
    Ok(changed == 1)
}

pub(super) fn record(tx: &mut Tx<'_>, record: Record) -> Result<Recorded> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, record.sandbox)?;
    if record.lease.is_some_and(|lease| !holds(tx, &sandbox, lease)) {
        return Ok(Recorded::default());
    }
    tx.note_age(record.now.since(record.message.execution.made_at()));
    if let (What::Outcome { .. }, Some(known)) = (&record.what, record.untouched) {
        let row = MessageRow::untouched(record.message, known);
        let recorded = record_on_trust(tx, &sandbox, row, record.now, record.what.clone())?;
        if recorded.done {
            return Ok(recorded);
        }
    }
    let Some(row) = MessageRow::find(tx.connection, sandbox.sbx, record.message)? else {
        return Ok(Recorded::default());
    };
    let mut change = Change::begin(tx, &sandbox, row, record.now)?;
    if !change.apply(tx, record.what)? {
        return Ok(Recorded::default());
    }
    change.finish(tx)
}

/// Records about a message that is taken to be untouched, without reading it: half the reading of a first record. Not
/// done, and nothing changed, where it is not so.
fn record_on_trust(
    tx: &mut Tx<'_>,
    sandbox: &SandboxFacts,
    row: MessageRow,
    now: Timestamp,
    what: What,
) -> Result<Recorded> {
    let before = tx.state.sequence;
    let mut change = match Change::begin(tx, sandbox, row, now) {
        Ok(change) => change,
        // The message may be gone with its execution.
        Err(StoreError::NotFound(_)) => return Ok(Recorded::default()),
        Err(error) => return Err(error),
    };
    change.is_trusted = true;
    change.apply(tx, what)?;
    let recorded = change.finish(tx)?;
    if !recorded.done {
        let mut undo = tx.connection.prepare_cached("DELETE FROM event WHERE sbx = ?1 AND seq > ?2")?;
        undo.execute((sandbox.sbx, before))?;
    }
    Ok(recorded)
}

macro_rules! update_message {
    ($($and:literal)?) => {
        concat!(
            "UPDATE message SET state = ?4, delayed = ?5, failures = ?6, events = ?7, last_event = ?8, due_at = ?9, \
             planned = ?10, personal = CASE WHEN ?11 THEN personal END WHERE sbx = ?1 AND exec = ?2 AND ord = ?3",
            $($and)?
        )
    };
}

/// A message being changed.
struct Change<'a> {
    sandbox: &'a SandboxFacts,
    execution: Arc<ExecutionFacts>,
    version: Arc<VersionFacts>,
    row: MessageRow,
    awaited_sending: bool,
    /// The row was not read.
    is_trusted: bool,
    now: Timestamp,
    due: Vec<DueDelivery>,
}

impl<'a> Change<'a> {
    fn begin(tx: &Tx<'_>, sandbox: &'a SandboxFacts, row: MessageRow, now: Timestamp) -> Result<Self> {
        let facts = &tx.state.facts;
        let stored = facts.stored_execution(tx.connection, sandbox.sbx, row.key.execution)?;
        let (execution, version) = (Arc::clone(&stored.facts), Arc::clone(&stored.version));
        let awaited_sending = row.progress.state.awaits_sending();
        Ok(Self { sandbox, execution, version, row, awaited_sending, is_trusted: false, now, due: Vec::new() })
    }

    /// Does what is to be recorded; false: there is nothing.
    fn apply(&mut self, tx: &mut Tx<'_>, what: What) -> Result<bool> {
        match what {
            What::Outcome { outcome, planned } => {
                let before = self.row.progress.state;
                if self.take(tx, outcome)? {
                    self.plan(before, planned);
                }
            }
            What::Planned => {
                let Some(outcome) = self.row.planned.take() else { return Ok(false) };
                self.row.due_at = None;
                self.take(tx, outcome)?;
            }
            What::Retry { at, delay, may_have_been_sent } => {
                let state = if may_have_been_sent { MessageState::HandingOver } else { MessageState::Queued };
                self.retry(tx, at, delay, state)?;
            }
        }
        Ok(true)
    }

    /// Applies an outcome; true where it was not a repetition, late or contradicting.
    fn take(&mut self, tx: &mut Tx<'_>, outcome: Outcome) -> Result<bool> {
        let taken = self.row.progress.take(&outcome.verdict);
        if taken.sent_first {
            self.add_event(tx, Outcome::new(Verdict::Sent, outcome.occurred_at))?;
        }
        if taken.recorded {
            self.add_event(tx, outcome)?;
        }
        self.row.progress = taken.progress;
        Ok(taken.recorded)
    }

    /// What is due after an outcome that was recorded: what is planned, or nothing once the message has moved on. A
    /// `delay` alone moves nothing: what was due before it stays due.
    fn plan(&mut self, before: MessageState, planned: Option<(Timestamp, Outcome)>) {
        if let Some((at, outcome)) = planned {
            (self.row.due_at, self.row.planned) = (Some(at), Some(outcome));
        } else if self.row.progress.state != before {
            (self.row.due_at, self.row.planned) = (None, None);
        }
    }

    fn retry(&mut self, tx: &mut Tx<'_>, at: Timestamp, delay: Outcome, state: MessageState) -> Result<()> {
        if !self.awaited_sending {
            return Ok(());
        }
        self.row.failures += 1;
        self.row.progress.state = state;
        (self.row.due_at, self.row.planned) = (Some(at), None);
        self.take(tx, delay)?;
        Ok(())
    }

    /// Inserts a feedback event, with its delivery where the sandbox's webhook wants it.
    fn add_event(&mut self, tx: &mut Tx<'_>, outcome: Outcome) -> Result<()> {
        let wanted = self.wanting_webhook(tx, &outcome)?;
        let open_before = match wanted {
            Some(_) => self.last_open_event(tx)?,
            None => None,
        };
        let delivery = match (&wanted, open_before) {
            (None, _) => StoredDelivery::None,
            (Some(_), Some(_)) => StoredDelivery::Blocked,
            (Some(_), None) => StoredDelivery::Pending,
        };
        let sequence = tx.next_sequence(self.now);
        let event = FeedbackEvent {
            key: EventKey { message: self.row.key, number: self.row.events + 1 },
            tenant: Arc::clone(&self.sandbox.tenant),
            execution: Arc::clone(&self.execution),
            recipient: Arc::clone(&self.row.recipient),
            outcome,
            retry_count: self.row.failures,
            recorded_at: self.now,
            payload: wanted.as_ref().map_or_else(Default::default, |webhook| webhook.settings.payload),
        };
        let first_due = wanted.as_ref().map(|webhook| webhook.active_time(self.now));
        insert_event(tx, self.sandbox.sbx, sequence, self.row.last_event, &event, delivery, first_due)?;
        if let Some(before) = open_before {
            let mut follow =
                tx.connection.prepare_cached("UPDATE event SET followed = 1 WHERE sbx = ?1 AND seq = ?2")?;
            follow.execute((self.sandbox.sbx, before))?;
        }
        if let (StoredDelivery::Pending, Some(first_due)) = (delivery, first_due) {
            self.due.push(DueDelivery { sequence, event: Arc::new(event), failures: 0, first_due, due_at: self.now });
        }
        self.row.events += 1;
        self.row.last_event = Some(sequence);
        Ok(())
    }

    /// The sandbox's webhook, if it is to get this event.
    fn wanting_webhook(&self, tx: &mut Tx<'_>, outcome: &Outcome) -> Result<Option<Arc<Webhook>>> {
        if !self.version.settings.audience.enable_webhooks {
            return Ok(None);
        }
        let webhook = super::admin::known_webhook(tx, self.sandbox)?;
        let status = outcome.verdict.status();
        Ok(webhook.filter(|webhook| webhook.settings.selects(self.execution.channel, status)))
    }

    /// The message's latest event whose delivery has not ended.
    fn last_open_event(&self, tx: &Tx<'_>) -> Result<Option<i64>> {
        let mut query = tx.connection.prepare_cached("SELECT delivery, prev FROM event WHERE sbx = ?1 AND seq = ?2")?;
        let mut next = self.row.last_event;
        while let Some(sequence) = next {
            let found: Option<(u8, Option<i64>)> =
                query.query_row((self.sandbox.sbx, sequence), |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((delivery, previous)) = found else { break };
            if StoredDelivery::from_code(delivery).is_some_and(StoredDelivery::is_open) {
                return Ok(Some(sequence));
            }
            next = previous;
        }
        Ok(None)
    }

    /// Writes the message back. What is personal goes as soon as no try can need it.
    fn finish(self, tx: &mut Tx<'_>) -> Result<Recorded> {
        let row = &self.row;
        let awaits_sending = row.progress.state.awaits_sending();
        let mut update = tx.connection.prepare_cached(match self.is_trusted {
            false => update_message!(),
            true => update_message!(" AND state <= 1 AND delayed = 0 AND failures = 0 AND events = 0"),
        })?;
        let planned = row.planned.as_ref().map(json_of).transpose()?;
        let changed = update.execute(params![
            self.sandbox.sbx,
            row.key.execution.number(),
            row.key.ordinal,
            row.progress.state.code(),
            row.progress.delayed,
            row.failures,
            row.events,
            row.last_event,
            row.due_at.map(Timestamp::millis),
            planned,
            awaits_sending && row.planned.is_none()
        ])?;
        if changed == 0 {
            return Ok(Recorded::default());
        }
        if self.awaited_sending && !awaits_sending {
            tx.state.waiting = tx.state.waiting.saturating_sub(1);
        }
        Ok(Recorded { done: true, due: self.due })
    }
}

fn insert_event(
    tx: &Tx<'_>,
    sbx: i64,
    sequence: i64,
    previous: Option<i64>,
    event: &FeedbackEvent,
    delivery: StoredDelivery,
    first_due: Option<Timestamp>,
) -> Result<()> {
    let outcome = &event.outcome;
    let due_at = (delivery == StoredDelivery::Pending).then_some(event.recorded_at.millis());
    let mut insert = tx.connection.prepare_cached(
        "INSERT INTO event (sbx, seq, exec, ord, n, prev, status, occurred_at, recorded_at, retry_count, payload, \
         response_code, response_ms, encoding, parts, why, delivery, first_due, due_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    )?;
    insert.execute(params![
        sbx,
        sequence,
        event.key.message.execution.number(),
        event.key.message.ordinal,
        event.key.number,
        previous,
        status_code(outcome.verdict.status()),
        outcome.occurred_at.millis(),
        event.recorded_at.millis(),
        event.retry_count,
        payload_code(event.payload),
        outcome.response_code,
        outcome.response_duration_ms,
        outcome.encoding,
        outcome.parts,
        why_of(&outcome.verdict)?,
        delivery.code(),
        first_due.map(Timestamp::millis),
        due_at
    ])?;
    Ok(())
}

/// After an event of a message has ended: makes the first one that still waits due, unless another is under way.
pub(super) fn promote_next(
    tx: &Tx<'_>,
    sandbox: &SandboxFacts,
    webhook: Option<&Webhook>,
    message: MessageKey,
    now: Timestamp,
) -> Result<Option<DueDelivery>> {
    let row = MessageRow::find(tx.connection, sandbox.sbx, message)?.ok_or(StoreError::NotFound("message"))?;
    let mut first_blocked = None;
    let mut next = row.last_event;
    let mut query = tx.connection.prepare_cached("SELECT delivery, prev FROM event WHERE sbx = ?1 AND seq = ?2")?;
    while let Some(sequence) = next {
        let (delivery, previous): (u8, Option<i64>) =
            query.query_row((sandbox.sbx, sequence), |row| Ok((row.get(0)?, row.get(1)?)))?;
        match StoredDelivery::from_code(delivery) {
            #[cfg(feature = "planted-bugs")]
            Some(StoredDelivery::Pending) if is_planted(Bug::EarlyPromotion) => {}
            Some(StoredDelivery::Pending) => return Ok(None),
            Some(StoredDelivery::Blocked) => first_blocked = Some(sequence),
            _ => {}
        }
        next = previous;
    }
    let Some(sequence) = first_blocked else { return Ok(None) };
    let first_due = webhook.map_or(now, |webhook| webhook.active_time(now));
    let mut update = tx
        .connection
        .prepare_cached("UPDATE event SET delivery = ?3, due_at = ?4, first_due = ?5 WHERE sbx = ?1 AND seq = ?2")?;
    update.execute((sandbox.sbx, sequence, StoredDelivery::Pending.code(), now.millis(), first_due.millis()))?;
    super::deliver::due_delivery(tx.connection, &tx.state.facts, sandbox.sbx, sequence)
}
