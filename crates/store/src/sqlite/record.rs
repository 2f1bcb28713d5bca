//! Recording outcomes: message state, feedback events and their deliveries in one transaction.

use super::rows::find_message;
use super::writer::Tx;
use crate::shared::change::{self, NewEvent, Told};
use crate::shared::facts::{SandboxFacts, StoredExecution};
use crate::shared::rows::{MessageRow, json_of, payload_code, status_code, why_of};
use crate::work::{Lease, Record, Recorded, What};
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::delivery::{DueDelivery, StoredDelivery};
use model::ids::{MessageKey, SandboxId};
use model::message::MessageState;
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
    let Some(row) = find_message(tx.connection, sandbox.sbx, record.message)? else {
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
    let (before, counted) = (tx.state.sequence, tx.state.counted.mark());
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
        tx.state.counted.undo_to(counted);
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
    execution: Arc<StoredExecution>,
    row: MessageRow,
    awaited_sending: bool,
    /// The row was not read.
    is_trusted: bool,
    now: Timestamp,
    due: Vec<DueDelivery>,
}

impl<'a> Change<'a> {
    fn begin(tx: &Tx<'_>, sandbox: &'a SandboxFacts, row: MessageRow, now: Timestamp) -> Result<Self> {
        let execution = tx.state.facts.stored_execution(tx.connection, sandbox.sbx, row.key.execution)?;
        let awaited_sending = row.progress.state.awaits_sending();
        Ok(Self { sandbox, execution, row, awaited_sending, is_trusted: false, now, due: Vec::new() })
    }

    /// Does what is to be recorded; false: there is nothing.
    fn apply(&mut self, tx: &mut Tx<'_>, what: What) -> Result<bool> {
        let Some(tellings) = self.row.apply(what) else { return Ok(false) };
        for told in tellings.into_iter().flatten() {
            self.add_event(tx, told)?;
        }
        Ok(true)
    }

    /// Inserts a feedback event, with its delivery where the sandbox's webhook wants it.
    fn add_event(&mut self, tx: &mut Tx<'_>, told: Told) -> Result<()> {
        let webhook = match self.execution.version.settings.audience.enable_webhooks {
            true => super::admin::known_webhook(tx, self.sandbox)?,
            false => None,
        };
        let wanted = change::wanting(webhook.as_deref(), &self.execution, &told.outcome);
        let open_before = match wanted {
            Some(_) => self.last_open_event(tx)?,
            None => None,
        };
        let about = (self.sandbox, &*self.execution, &self.row);
        let new = NewEvent::new(told, about, wanted, open_before.is_some(), self.now);
        let sequence = tx.next_sequence(self.now);
        insert_event(tx, self.sandbox.sbx, sequence, self.row.last_event, &new)?;
        tx.state.counted.told(self.sandbox.sbx, self.now, &new.event.outcome.verdict);
        if let Some(before) = open_before {
            let mut follow =
                tx.connection.prepare_cached("UPDATE event SET followed = 1 WHERE sbx = ?1 AND seq = ?2")?;
            follow.execute((self.sandbox.sbx, before))?;
        }
        self.due.extend(new.into_due(sequence));
        self.row.last_event = Some(sequence);
        Ok(())
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
            row.keeps_personal()
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

fn insert_event(tx: &Tx<'_>, sbx: i64, sequence: i64, previous: Option<i64>, new: &NewEvent) -> Result<()> {
    let NewEvent { event, delivery, first_due } = new;
    let outcome = &event.outcome;
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
        new.due_at().map(Timestamp::millis)
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
    let row = find_message(tx.connection, sandbox.sbx, message)?.ok_or(StoreError::NotFound("message"))?;
    let mut query = tx.connection.prepare_cached("SELECT delivery, prev FROM event WHERE sbx = ?1 AND seq = ?2")?;
    let mut next = row.last_event;
    let chain = std::iter::from_fn(|| {
        let sequence = next?;
        let found = query.query_row((sandbox.sbx, sequence), |row| Ok((row.get::<_, u8>(0)?, row.get(1)?)));
        Some(found.map(|(delivery, previous)| {
            next = previous;
            (sequence, StoredDelivery::from_code(delivery).unwrap_or(StoredDelivery::None))
        }))
    });
    let Some(sequence) = change::next_to_go(chain)? else { return Ok(None) };
    let first_due = webhook.map_or(now, |webhook| webhook.active_time(now));
    let mut update = tx
        .connection
        .prepare_cached("UPDATE event SET delivery = ?3, due_at = ?4, first_due = ?5 WHERE sbx = ?1 AND seq = ?2")?;
    update.execute((sandbox.sbx, sequence, StoredDelivery::Pending.code(), now.millis(), first_due.millis()))?;
    super::deliver::due_delivery(tx.connection, &tx.state.facts, sandbox.sbx, sequence)
}
