//! Handing messages over and recording outcomes, many in one transaction.
//!
//! The batch reads and locks all that it is about, decides in memory unit by unit, and writes what has changed. In which
//! order rows are locked is written down in the module above.

use super::events::{Event, Fresh, INSERT_EVENTS, PLACES, insert_events, place_of, take_places};
use super::facts::{Facts, Found};
use super::hooks::{HELD, Hooks};
use super::lane::Work;
use super::rows::{delivery, int, message_columns, message_key, read_message};
use super::session::{Done, Session, col};
use super::shards::{EPOCHS, Epochs, shards_of};
use super::statistics::{self, COUNT};
use super::waiting::Waiting;
use crate::shared::change::{NewEvent, Told, wanting};
use crate::shared::facts::{SandboxFacts, StoredExecution};
use crate::shared::rows::{MessageRow, json_of};
use crate::statistics::Counting;
use crate::work::{Lease, Record, Recorded};
use crate::{Result, StoreError};
use async_trait::async_trait;
use model::clock::Timestamp;
use model::ids::{ExecutionId, MessageKey, SandboxId};
use model::message::MessageState;
use model::webhook::Webhook;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio_postgres::Row;

const MESSAGES: &str = concat!(
    "SELECT m.sbx, ",
    message_columns!(),
    " FROM unnest($1::bigint[], $2::bigint[], $3::smallint[]) AS w (sbx, exec, ord) \
     JOIN message m ON m.sbx = w.sbx AND m.exec = w.exec AND m.ord = w.ord \
     ORDER BY m.sbx, m.exec, m.ord FOR NO KEY UPDATE OF m"
);

/// The events of messages, from the latest one of each on.
const CHAINS: &str = "WITH RECURSIVE chain AS (\
     SELECT v.sbx, v.exec, v.ord, v.seq, v.prev, v.delivery FROM unnest($1::bigint[], $2::bigint[]) AS w (sbx, seq) \
     JOIN event v ON v.sbx = w.sbx AND v.seq = w.seq \
     UNION ALL SELECT v.sbx, v.exec, v.ord, v.seq, v.prev, v.delivery FROM chain c \
     JOIN event v ON v.sbx = c.sbx AND v.seq = c.prev) \
     SELECT sbx, seq, delivery FROM chain";

/// Those of these events whose deliveries have not ended. An attempt that is being written down is waited for, and a
/// later one sees what is written here.
const STILL_OPEN: &str = "SELECT v.sbx, v.exec, v.ord, v.seq FROM unnest($1::bigint[], $2::bigint[]) AS w (sbx, seq) \
     JOIN event v ON v.sbx = w.sbx AND v.seq = w.seq WHERE v.delivery IN (1, 2) \
     ORDER BY v.sbx, v.seq FOR NO KEY UPDATE OF v";

const UPDATE_MESSAGES: &str = "UPDATE message m SET state = n.state, delayed = n.delayed, failures = n.failures, \
     events = n.events, last_event = n.last_event, due_at = n.due_at, planned = n.planned, \
     personal = CASE WHEN n.keeps THEN m.personal END \
     FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::boolean[], $6::int[], $7::smallint[], \
     $8::bigint[], $9::bigint[], $10::text[], $11::boolean[]) \
     AS n (sbx, exec, ord, state, delayed, failures, events, last_event, due_at, planned, keeps) \
     WHERE m.sbx = n.sbx AND m.exec = n.exec AND m.ord = n.ord";

const FOLLOW: &str = "UPDATE event v SET followed = true FROM unnest($1::bigint[], $2::bigint[]) AS w (sbx, seq) \
     WHERE v.sbx = w.sbx AND v.seq = w.seq";

/// The lane that hands over and records.
pub(super) struct Recording {
    pub facts: Arc<Facts>,
    pub hooks: Arc<Hooks>,
    pub waiting: Arc<Waiting>,
    /// Of the statistics.
    pub part: i16,
}

/// What this lane does to a message.
pub(super) enum Unit {
    HandOver(Lease, SandboxId, MessageKey),
    Record(Box<Record>),
}

/// What came of it.
pub(super) enum Answer {
    HandedOver(bool),
    Recorded(Recorded),
}

impl Unit {
    fn sandbox(&self) -> SandboxId {
        match self {
            Self::HandOver(_, sandbox, _) => *sandbox,
            Self::Record(record) => record.sandbox,
        }
    }

    fn message(&self) -> MessageKey {
        match self {
            Self::HandOver(_, _, message) => *message,
            Self::Record(record) => record.message,
        }
    }

    fn lease(&self) -> Option<Lease> {
        match self {
            Self::HandOver(lease, _, _) => Some(*lease),
            Self::Record(record) => record.lease,
        }
    }

    fn nothing_done(&self) -> Answer {
        match self {
            Self::HandOver(..) => Answer::HandedOver(false),
            Self::Record(_) => Answer::Recorded(Recorded::default()),
        }
    }
}

/// A message by its sandbox's number.
type Key = (i64, MessageKey);

#[async_trait]
impl Work for Recording {
    type Unit = Unit;
    type Answer = Answer;
    const STATEMENTS: &'static [&'static str] =
        &[EPOCHS, MESSAGES, HELD, CHAINS, STILL_OPEN, UPDATE_MESSAGES, PLACES, INSERT_EVENTS, FOLLOW, COUNT];

    async fn run(&self, session: &Session, units: &[&Unit]) -> Done<Vec<Result<Answer>>> {
        let sandboxes = self.facts.sandboxes(session, units.iter().map(|unit| unit.sandbox())).await?;
        let mut keys: Vec<Key> = Vec::with_capacity(units.len());
        keys.extend(units.iter().filter_map(|unit| Some((sandboxes.get(&unit.sandbox())?.sbx, unit.message()))));
        keys.sort_unstable();
        keys.dedup();
        let shards = shards_of(units.iter().filter_map(|unit| unit.lease()));
        let sbx: Vec<i64> = keys.iter().map(|(sbx, _)| *sbx).collect();
        let exec: Vec<i64> = keys.iter().map(|(_, key)| key.execution.number()).collect();
        let ord: Vec<i16> = keys.iter().map(|(_, key)| key.ordinal.into()).collect();
        let mut of_webhooks = sbx.clone();
        of_webhooks.dedup();
        let ((), epochs, messages, hooks) = tokio::try_join!(
            biased;
            session.begin(),
            async { session.query(EPOCHS, &[&shards]).await },
            async { session.query(MESSAGES, &[&sbx, &exec, &ord]).await },
            async { session.query(HELD, &[&of_webhooks]).await }
        )?;
        let mut batch = Batch {
            sandboxes,
            epochs: Epochs::read(&epochs)?,
            hooks: self.hooks.read(session, &hooks).await?,
            messages: read_messages(&messages)?,
            executions: HashMap::new(),
            events: Vec::new(),
            followed: BTreeSet::new(),
        };
        let recorded = batch.messages.keys().map(|(sbx, key)| (*sbx, key.execution));
        batch.executions = self.facts.executions(session, recorded).await?;
        batch.look_for_open_events(session).await?;
        let answers: Vec<Result<Decided>> = units.iter().map(|unit| batch.decide(unit)).collect();
        let waiting_before = batch.messages.values().flatten().filter(|message| message.awaited_sending).count();
        let waiting_after = batch.messages.values().flatten().filter(|message| message.awaits_sending()).count();
        let sequences = batch.write(session, self.part).await?;
        self.waiting.add(waiting_after as i64 - waiting_before as i64);
        Ok(answered(answers, batch.events, &sequences))
    }
}

fn read_messages(rows: &[Row]) -> Done<HashMap<Key, Result<Message>>> {
    let mut messages = HashMap::with_capacity(rows.len());
    for row in rows {
        // One that cannot be read must not hide the others.
        let message = read_message(row, 1).map(Message::new).map_err(StoreError::from);
        messages.insert((col(row, 0)?, message_key(row, 1)?), message);
    }
    Ok(messages)
}

/// A message being changed.
struct Message {
    row: MessageRow,
    awaited_sending: bool,
    is_changed: bool,
    last_event: Option<Event>,
    /// The last event whose delivery has not ended.
    last_open: Option<Event>,
}

impl Message {
    fn new(row: MessageRow) -> Self {
        let awaited_sending = row.progress.state.awaits_sending();
        let last_event = row.last_event.map(Event::Stored);
        Self { row, awaited_sending, is_changed: false, last_event, last_open: None }
    }

    fn awaits_sending(&self) -> bool {
        self.row.progress.state.awaits_sending()
    }
}

/// What a unit came to, before its events have places in the feed.
enum Decided {
    HandedOver(bool),
    /// The events from one place in the batch up to another.
    Recorded(bool, std::ops::Range<usize>),
}

struct Batch {
    sandboxes: Found<SandboxId, SandboxFacts>,
    epochs: Epochs,
    hooks: HashMap<i64, Arc<Webhook>>,
    messages: HashMap<Key, Result<Message>>,
    executions: Found<(i64, ExecutionId), StoredExecution>,
    events: Vec<Fresh>,
    /// Stored events that another waits for from now on.
    followed: BTreeSet<(i64, i64)>,
}

impl Batch {
    /// Finds and locks the events whose ends later ones may have to wait for.
    async fn look_for_open_events(&mut self, session: &Session) -> Done<()> {
        let told = self.messages.iter().filter_map(|((sbx, key), message)| {
            let last = message.as_ref().ok()?.row.last_event?;
            let execution = self.executions.get(&(*sbx, key.execution))?;
            let may_wait = execution.version.settings.audience.enable_webhooks && self.hooks.contains_key(sbx);
            may_wait.then_some((*sbx, last))
        });
        let (sbx, last): (Vec<i64>, Vec<i64>) = told.unzip();
        if sbx.is_empty() {
            return Ok(());
        }
        let mut open = Vec::new();
        for row in session.query(CHAINS, &[&sbx, &last]).await? {
            if delivery(&row, 2)?.is_open() {
                open.push((col::<i64>(&row, 0)?, col::<i64>(&row, 1)?));
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        open.sort_unstable();
        let (sbx, seq): (Vec<i64>, Vec<i64>) = open.into_iter().unzip();
        // In the order recorded: the last one stays.
        for row in session.query(STILL_OPEN, &[&sbx, &seq]).await? {
            let key = (col(&row, 0)?, message_key(&row, 1)?);
            if let Some(Ok(message)) = self.messages.get_mut(&key) {
                message.last_open = Some(Event::Stored(col(&row, 3)?));
            }
        }
        Ok(())
    }

    fn decide(&mut self, unit: &Unit) -> Result<Decided> {
        let nothing = || match unit.nothing_done() {
            Answer::HandedOver(done) => Decided::HandedOver(done),
            Answer::Recorded(_) => Decided::Recorded(false, 0..0),
        };
        let Some(sandbox) = self.sandboxes.get(&unit.sandbox()).map(Arc::clone) else { return Ok(nothing()) };
        if unit.lease().is_some_and(|lease| !self.epochs.hold(&sandbox, lease)) {
            return Ok(nothing());
        }
        let key = (sandbox.sbx, unit.message());
        let message = match self.messages.get_mut(&key) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(StoreError::Corrupt(error.to_string())),
            None => return Ok(nothing()),
        };
        match unit {
            Unit::HandOver(..) => {
                let waits = message.awaits_sending();
                if waits && message.row.progress.state != MessageState::HandingOver {
                    message.row.progress.state = MessageState::HandingOver;
                    message.is_changed = true;
                }
                Ok(Decided::HandedOver(waits))
            }
            Unit::Record(record) => {
                let Some(execution) = self.executions.get(&(key.0, key.1.execution)).map(Arc::clone) else {
                    return Ok(nothing());
                };
                let Some(tellings) = message.row.apply(record.what.clone()) else { return Ok(nothing()) };
                message.is_changed = true;
                let first = self.events.len();
                for told in tellings.into_iter().flatten() {
                    self.tell(key, &sandbox, &execution, told, record.now);
                }
                Ok(Decided::Recorded(true, first..self.events.len()))
            }
        }
    }

    fn tell(&mut self, key: Key, sandbox: &SandboxFacts, execution: &StoredExecution, told: Told, now: Timestamp) {
        let Some(Ok(message)) = self.messages.get_mut(&key) else { return };
        let webhook = self.hooks.get(&key.0).map(Arc::as_ref);
        let wanted = wanting(webhook, execution, &told.outcome);
        let before = message.last_open.filter(|_| wanted.is_some());
        let new = NewEvent::new(told, (sandbox, execution, &message.row), wanted, before.is_some(), now);
        let place = Event::Fresh(self.events.len());
        let previous = message.last_event.replace(place);
        if new.delivery.is_open() {
            message.last_open = Some(place);
        }
        match before {
            Some(Event::Stored(sequence)) => drop(self.followed.insert((key.0, sequence))),
            Some(Event::Fresh(place)) => self.events[place].followed = true,
            None => {}
        }
        self.events.push(Fresh { sbx: key.0, previous, followed: false, new });
    }

    /// Writes what has changed, and commits; the places of the new events in their feeds.
    async fn write(&self, session: &Session, part: i16) -> Done<Vec<i64>> {
        let changed: BTreeMap<Key, &Message> = self
            .messages
            .iter()
            .filter_map(|(key, message)| Some((*key, message.as_ref().ok().filter(|message| message.is_changed)?)))
            .collect();
        if changed.is_empty() {
            session.commit().await?;
            return Ok(Vec::new());
        }
        let sequences = take_places(session, &self.events).await?;
        let mut counted = Counting::default();
        for Fresh { sbx, new, .. } in &self.events {
            counted.told(*sbx, new.event.recorded_at, &new.event.outcome.verdict);
        }
        let (f_sbx, f_seq): (Vec<i64>, Vec<i64>) = self.followed.iter().copied().unzip();
        let follow = async {
            match f_sbx.is_empty() {
                true => Ok(0),
                false => session.execute(FOLLOW, &[&f_sbx, &f_seq]).await,
            }
        };
        tokio::try_join!(
            biased;
            follow,
            update_messages(session, &changed, &sequences),
            insert_events(session, &self.events, &sequences),
            statistics::count(session, part, counted),
            session.commit()
        )?;
        Ok(sequences)
    }
}

async fn update_messages(session: &Session, changed: &BTreeMap<Key, &Message>, sequences: &[i64]) -> Done<u64> {
    let rows = || changed.values().map(|message| &message.row);
    let sbx: Vec<i64> = changed.keys().map(|(sbx, _)| *sbx).collect();
    let exec: Vec<i64> = rows().map(|row| row.key.execution.number()).collect();
    let ord: Vec<i16> = rows().map(|row| row.key.ordinal.into()).collect();
    let state: Vec<i16> = rows().map(|row| row.progress.state.code().into()).collect();
    let delayed: Vec<bool> = rows().map(|row| row.progress.delayed).collect();
    let failures: Vec<i32> = rows().map(|row| int(row.failures)).collect();
    let events: Vec<i16> = rows().map(|row| row.events.into()).collect();
    let last: Vec<Option<i64>> = changed.values().map(|message| place_of(message.last_event, sequences)).collect();
    let due_at: Vec<Option<i64>> = rows().map(|row| row.due_at.map(Timestamp::millis)).collect();
    let planned: Vec<Option<String>> =
        rows().map(|row| row.planned.as_ref().map(json_of).transpose()).collect::<Result<_>>()?;
    let keeps: Vec<bool> = rows().map(MessageRow::keeps_personal).collect();
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 11] =
        [&sbx, &exec, &ord, &state, &delayed, &failures, &events, &last, &due_at, &planned, &keeps];
    session.execute(UPDATE_MESSAGES, &values).await
}

/// The answers, with the deliveries that are due.
fn answered(decided: Vec<Result<Decided>>, events: Vec<Fresh>, sequences: &[i64]) -> Vec<Result<Answer>> {
    let mut due: Vec<_> =
        events.into_iter().zip(sequences).map(|(fresh, sequence)| fresh.new.into_due(*sequence)).collect();
    let mut answer = |decided| match decided {
        Decided::HandedOver(done) => Answer::HandedOver(done),
        Decided::Recorded(done, events) => {
            let due = due.get_mut(events).into_iter().flatten().filter_map(Option::take).collect();
            Answer::Recorded(Recorded { done, due })
        }
    };
    decided.into_iter().map(|decided| decided.map(&mut answer)).collect()
}
