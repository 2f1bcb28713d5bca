//! Writing down attempts with what follows them, many in one transaction.

use super::facts::{Facts, Found};
use super::hooks::{Hooks, SEEN};
use super::lane::Work;
use super::rows::{EVENT_COLUMNS, big, byte, delivery, event_columns, execution_id, int, read_event, recipient, text};
use super::session::{Done, Fault, Session, col};
use super::shards::{EPOCHS, Epochs, shards_of};
use super::statistics::{self, COUNT};
use crate::Result;
#[cfg(feature = "planted-bugs")]
use crate::planted::{Bug, is_planted};
use crate::shared::change;
use crate::shared::facts::SandboxFacts;
use crate::shared::rows::{ToDue, json_of};
use crate::statistics::Counting;
use crate::work::{Finish, Finished};
use async_trait::async_trait;
use model::clock::Timestamp;
use model::delivery::{AttemptDecision, DueDelivery, StoredDelivery};
use model::ids::{MessageKey, SandboxId};
use model::webhook::Webhook;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// In the order of the values: a nested loop goes through them one by one. `+ 0`: or the index of what is due, which may
/// be long by then, looks shorter to the planner than the way by the key.
const END: &str = "UPDATE event v SET delivery = n.delivery, ended_at = n.ended_at, due_at = n.due_at, \
     failures = v.failures + n.more, attempt_at = n.at, attempt_ms = n.ms, attempt_status = n.status, \
     attempt_excerpt = n.excerpt \
     FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::int[], $5::smallint[], $6::bigint[], $7::bigint[], \
     $8::int[], $9::bigint[], $10::int[], $11::int[], $12::text[]) \
     AS n (i, sbx, seq, failures, delivery, ended_at, due_at, more, at, ms, status, excerpt) \
     WHERE v.sbx = n.sbx AND v.seq = n.seq AND v.delivery + 0 = 1 AND v.failures = n.failures \
     RETURNING n.i, v.followed, v.exec, v.ord, v.again IS NOT NULL";

const ADD_ATTEMPTS: &str = "INSERT INTO attempt (sbx, seq, n, at, ms, status, excerpt, error_kind, error) \
     SELECT n.sbx, n.seq, coalesce((SELECT max(a.n) FROM attempt a WHERE a.sbx = n.sbx AND a.seq = n.seq), 0) + 1, \
     n.at, n.ms, n.status, n.excerpt, n.kind, n.error \
     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[], $5::int[], $6::text[], $7::text[], $8::text[]) \
     AS n (sbx, seq, at, ms, status, excerpt, kind, error)";

/// The events of messages, from the latest one of each on.
const CHAINS: &str = "WITH RECURSIVE chain AS (\
     SELECT w.i, v.sbx, v.seq, v.prev, v.delivery \
     FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::smallint[]) AS w (i, sbx, exec, ord) \
     JOIN message m ON m.sbx = w.sbx AND m.exec = w.exec AND m.ord = w.ord \
     JOIN event v ON v.sbx = m.sbx AND v.seq = m.last_event \
     UNION ALL SELECT c.i, v.sbx, v.seq, v.prev, v.delivery FROM chain c \
     JOIN event v ON v.sbx = c.sbx AND v.seq = c.prev) \
     SELECT i, seq, delivery FROM chain";

/// The recipient comes from subqueries: joined in, the planner finds ways through all events of a sandbox.
macro_rules! of_recipient {
    ($column:literal) => {
        concat!("(SELECT m.", $column, " FROM message m WHERE m.sbx = v.sbx AND m.exec = v.exec AND m.ord = v.ord)")
    };
}

const PROMOTE: &str = concat!(
    "UPDATE event v SET delivery = 1, due_at = n.now, first_due = n.first_due \
     FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS n (i, sbx, seq, now, first_due) \
     WHERE v.sbx = n.sbx AND v.seq = n.seq AND v.delivery + 0 = 2 RETURNING ",
    event_columns!(),
    ", n.i, ",
    of_recipient!("user_id"),
    ", ",
    of_recipient!("namespace"),
    ", ",
    of_recipient!("address")
);

/// What attempts note of a webhook that is as it was seen.
const NOTE: &str = "UPDATE webhook SET control = $3, revision = $4, failing_since = $5, last_error = $6 \
     WHERE id = $1 AND revision = $2 AND NOT deleting";

/// The lane that finishes attempts.
pub(super) struct Finishing {
    pub facts: Arc<Facts>,
    pub hooks: Arc<Hooks>,
    /// Of the statistics.
    pub part: i16,
}

/// A message with an event that has ended and another that waits.
struct Follower {
    unit: usize,
    sbx: i64,
    message: MessageKey,
}

#[async_trait]
impl Work for Finishing {
    type Unit = Finish;
    type Answer = Finished;
    const STATEMENTS: &'static [&'static str] = &[EPOCHS, SEEN, END, ADD_ATTEMPTS, CHAINS, PROMOTE, NOTE, COUNT];

    async fn run(&self, session: &Session, units: &[&Finish]) -> Done<Vec<Result<Finished>>> {
        let sandboxes = self.facts.sandboxes(session, units.iter().map(|unit| unit.sandbox)).await?;
        let shards = shards_of(units.iter().map(|unit| unit.lease));
        let of_webhooks: Vec<i64> = sandboxes.values().map(|sandbox| sandbox.sbx).collect();
        let ((), epochs, hooks) = tokio::try_join!(
            biased;
            session.begin(),
            async { session.query(EPOCHS, &[&shards]).await },
            async { session.query(SEEN, &[&of_webhooks]).await }
        )?;
        let epochs = Epochs::read(&epochs)?;
        let mut batch = Batch {
            units,
            hooks: Health::new(self.hooks.read(session, &hooks).await?),
            answers: units.iter().map(|_| Finished::default()).collect(),
            followers: Vec::new(),
            counted: Counting::default(),
        };
        for wave in waves(units, &sandboxes, &epochs) {
            batch.end(session, &wave).await?;
        }
        batch.note_health(&sandboxes);
        batch.promote(session, &self.facts, &sandboxes).await?;
        batch.hooks.write(session).await?;
        let Batch { answers, counted, .. } = batch;
        tokio::try_join!(biased; statistics::count(session, self.part, counted), session.commit())?;
        Ok(answers.into_iter().map(Ok).collect())
    }
}

/// The units under valid leases, in the order of their rows; a second one about the same row comes in a second wave.
fn waves(units: &[&Finish], sandboxes: &Found<SandboxId, SandboxFacts>, epochs: &Epochs) -> Vec<Vec<(i64, usize)>> {
    let mut waves: Vec<Vec<(i64, usize)>> = Vec::new();
    let mut seen: HashMap<(i64, i64), usize> = HashMap::with_capacity(units.len());
    for (place, unit) in units.iter().enumerate() {
        let Some(sandbox) = sandboxes.get(&unit.sandbox) else { continue };
        let holds = epochs.hold(sandbox, unit.lease);
        #[cfg(feature = "planted-bugs")]
        let holds = holds || is_planted(Bug::FinishIgnoresEpoch);
        if !holds {
            continue;
        }
        let wave = seen.entry((sandbox.sbx, unit.sequence)).and_modify(|wave| *wave += 1).or_default();
        if waves.len() <= *wave {
            waves.push(Vec::new());
        }
        waves[*wave].push((sandbox.sbx, place));
    }
    for wave in &mut waves {
        wave.sort_unstable_by_key(|(sbx, place)| (*sbx, units[*place].sequence));
    }
    waves
}

struct Batch<'a> {
    units: &'a [&'a Finish],
    hooks: Health,
    answers: Vec<Finished>,
    followers: Vec<Follower>,
    counted: Counting,
}

impl Batch<'_> {
    /// Writes down the attempts of a wave.
    async fn end(&mut self, session: &Session, wave: &[(i64, usize)]) -> Done<()> {
        let columns = EndColumns::new(self.units, wave);
        let rows = session
            .query(
                END,
                &[
                    &columns.i,
                    &columns.sbx,
                    &columns.seq,
                    &columns.failures,
                    &columns.delivery,
                    &columns.ended_at,
                    &columns.due_at,
                    &columns.more,
                    &columns.at,
                    &columns.ms,
                    &columns.status,
                    &columns.excerpt,
                ],
            )
            .await?;
        let mut failed = Vec::new();
        for row in &rows {
            let Some((sbx, place)) = usize::try_from(col::<i32>(row, 0)?).ok().and_then(|i| wave.get(i)).copied()
            else {
                continue;
            };
            self.answers[place].done = true;
            self.counted.attempted(sbx, self.units[place], col(row, 4)?);
            let decision = self.units[place].decision;
            if decision != AttemptDecision::Succeeded {
                failed.push((sbx, place));
            }
            let is_over = matches!(decision, AttemptDecision::Succeeded | AttemptDecision::Exhausted);
            #[cfg(feature = "planted-bugs")]
            let is_over = is_over || is_planted(Bug::EarlyPromotion);
            if is_over && col::<bool>(row, 1)? {
                let message = MessageKey { execution: execution_id(row, 2)?, ordinal: byte(row, 3)? };
                self.followers.push(Follower { unit: place, sbx, message });
            }
        }
        self.add_attempts(session, &failed).await
    }

    async fn add_attempts(&self, session: &Session, failed: &[(i64, usize)]) -> Done<()> {
        if failed.is_empty() {
            return Ok(());
        }
        let attempts = || failed.iter().map(|(_, place)| &self.units[*place].attempt);
        let sbx: Vec<i64> = failed.iter().map(|(sbx, _)| *sbx).collect();
        let seq: Vec<i64> = failed.iter().map(|(_, place)| self.units[*place].sequence).collect();
        let at: Vec<i64> = attempts().map(|attempt| attempt.at.millis()).collect();
        let ms: Vec<i32> = attempts().map(|attempt| int(attempt.duration_ms)).collect();
        let status: Vec<Option<i32>> = attempts().map(|attempt| attempt.status.map(i32::from)).collect();
        let excerpts: Vec<Option<Cow<'_, str>>> =
            attempts().map(|attempt| attempt.response_excerpt.as_deref().map(text)).collect();
        let kinds = attempts().map(|attempt| attempt.error.as_ref().map(|error| json_of(&error.kind)).transpose());
        let kinds: Vec<Option<String>> = kinds.collect::<Result<_>>()?;
        let errors: Vec<Option<Cow<'_, str>>> =
            attempts().map(|attempt| attempt.error.as_ref().map(|error| text(&error.message))).collect();
        session.execute(ADD_ATTEMPTS, &[&sbx, &seq, &at, &ms, &status, &excerpts, &kinds, &errors]).await.map(drop)
    }

    fn note_health(&mut self, sandboxes: &Found<SandboxId, SandboxFacts>) {
        for (unit, answer) in self.units.iter().zip(&mut self.answers) {
            if let Some(sandbox) = sandboxes.get(&unit.sandbox).filter(|_| answer.done) {
                answer.webhook_changed = self.hooks.note(sandbox.sbx, unit);
            }
        }
    }

    /// Makes due what waited for the events that have ended.
    async fn promote(
        &mut self,
        session: &Session,
        facts: &Facts,
        sandboxes: &Found<SandboxId, SandboxFacts>,
    ) -> Done<()> {
        let next = self.next_of_each(session).await?;
        if next.is_empty() {
            return Ok(());
        }
        let followers = || next.iter().map(|(follower, _)| *follower);
        let now = |follower: &Follower| self.units[follower.unit].now;
        let i: Vec<i32> = followers().map(|follower| i32::try_from(follower.unit).unwrap_or(0)).collect();
        let sbx: Vec<i64> = followers().map(|follower| follower.sbx).collect();
        let seq: Vec<i64> = next.iter().map(|(_, sequence)| *sequence).collect();
        let due: Vec<i64> = followers().map(|follower| now(follower).millis()).collect();
        let first_due: Vec<i64> =
            followers().map(|follower| self.hooks.active_time(follower.sbx, now(follower)).millis()).collect();
        let rows = session.query(PROMOTE, &[&i, &sbx, &seq, &due, &first_due]).await?;
        let mut promoted = Vec::with_capacity(rows.len());
        for row in &rows {
            let place = usize::try_from(col::<i32>(row, EVENT_COLUMNS)?).unwrap_or(0);
            promoted.push((place, read_event(row, 0)?, recipient(row, EVENT_COLUMNS + 1)?));
        }
        let of_unit = |place: usize| self.units.get(place).and_then(|unit| sandboxes.get(&unit.sandbox));
        let wanted =
            promoted.iter().filter_map(|(place, event, _)| Some((of_unit(*place)?.sbx, event.key.message.execution)));
        let executions = facts.executions(session, wanted).await?;
        for (place, event, recipient) in promoted {
            let Some(sandbox) = of_unit(place) else { continue };
            let Some(stored) = executions.get(&(sandbox.sbx, event.key.message.execution)) else { continue };
            let to_due = ToDue::of(&event);
            let event = event.into_event(recipient, Arc::clone(&sandbox.tenant), Arc::clone(&stored.facts));
            let due: DueDelivery = to_due.with(event);
            self.answers[place].promoted = Some(due);
        }
        Ok(())
    }

    /// The event to go next of each message with one that has ended.
    async fn next_of_each(&self, session: &Session) -> Done<Vec<(&Follower, i64)>> {
        let mut seen = HashSet::new();
        let mut followers: Vec<&Follower> =
            self.followers.iter().filter(|follower| seen.insert((follower.sbx, follower.message))).collect();
        if followers.is_empty() {
            return Ok(Vec::new());
        }
        followers.sort_unstable_by_key(|follower| (follower.sbx, follower.message));
        let i: Vec<i32> = (0..).take(followers.len()).collect();
        let sbx: Vec<i64> = followers.iter().map(|follower| follower.sbx).collect();
        let exec: Vec<i64> = followers.iter().map(|follower| follower.message.execution.number()).collect();
        let ord: Vec<i16> = followers.iter().map(|follower| follower.message.ordinal.into()).collect();
        let mut chains: Vec<Vec<(i64, StoredDelivery)>> = vec![Vec::new(); followers.len()];
        for row in session.query(CHAINS, &[&i, &sbx, &exec, &ord]).await? {
            if let Some(chain) = usize::try_from(col::<i32>(&row, 0)?).ok().and_then(|i| chains.get_mut(i)) {
                chain.push((col(&row, 1)?, delivery(&row, 2)?));
            }
        }
        let mut next = Vec::new();
        for (follower, mut chain) in followers.into_iter().zip(chains) {
            chain.sort_unstable_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
            if let Some(sequence) = change::next_to_go(chain.into_iter().map(Done::Ok))? {
                next.push((follower, sequence));
            }
        }
        next.sort_unstable_by_key(|(follower, sequence)| (follower.sbx, *sequence));
        Ok(next)
    }
}

/// The columns of [`END`].
#[derive(Default)]
struct EndColumns<'a> {
    i: Vec<i32>,
    sbx: Vec<i64>,
    seq: Vec<i64>,
    failures: Vec<i32>,
    delivery: Vec<i16>,
    ended_at: Vec<Option<i64>>,
    due_at: Vec<Option<i64>>,
    more: Vec<i32>,
    at: Vec<Option<i64>>,
    ms: Vec<Option<i32>>,
    status: Vec<Option<i32>>,
    excerpt: Vec<Option<Cow<'a, str>>>,
}

impl<'a> EndColumns<'a> {
    fn new(units: &[&'a Finish], wave: &[(i64, usize)]) -> Self {
        let mut columns = Self::default();
        for (i, (sbx, place)) in (0..).zip(wave) {
            let unit: &'a Finish = units[*place];
            let (delivery, ended_at, due_at, more) = match unit.decision {
                AttemptDecision::Succeeded => (StoredDelivery::Succeeded, Some(unit.now), None, 0),
                AttemptDecision::Exhausted => (StoredDelivery::Exhausted, Some(unit.now), None, 1),
                AttemptDecision::RetryAt(at) => (StoredDelivery::Pending, None, Some(at), 1),
                AttemptDecision::Gone => (StoredDelivery::Pending, None, Some(unit.now), 0),
            };
            let succeeded = delivery == StoredDelivery::Succeeded;
            let attempt = Some(&unit.attempt).filter(|_| succeeded);
            columns.i.push(i);
            columns.sbx.push(*sbx);
            columns.seq.push(unit.sequence);
            columns.failures.push(int(unit.failures));
            columns.delivery.push(delivery.code().into());
            columns.ended_at.push(ended_at.map(Timestamp::millis));
            columns.due_at.push(due_at.map(Timestamp::millis));
            columns.more.push(more);
            columns.at.push(attempt.map(|attempt| attempt.at.millis()));
            columns.ms.push(attempt.map(|attempt| int(attempt.duration_ms)));
            columns.status.push(attempt.and_then(|attempt| attempt.status).map(i32::from));
            columns.excerpt.push(attempt.and_then(|attempt| attempt.response_excerpt.as_deref()).map(text));
        }
        columns
    }
}

/// The webhooks of a batch with what its attempts do to them.
struct Health {
    seen: HashMap<i64, Arc<Webhook>>,
    changed: BTreeMap<i64, Webhook>,
}

impl Health {
    fn new(seen: HashMap<i64, Arc<Webhook>>) -> Self {
        Self { seen, changed: BTreeMap::new() }
    }

    fn present(&self, sbx: i64) -> Option<&Webhook> {
        self.changed.get(&sbx).or_else(|| self.seen.get(&sbx).map(Arc::as_ref))
    }

    fn active_time(&self, sbx: i64, now: Timestamp) -> Timestamp {
        self.present(sbx).map_or(now, |webhook| webhook.active_time(now))
    }

    /// Takes an attempt in; whether it changes the webhook.
    fn note(&mut self, sbx: i64, finish: &Finish) -> bool {
        let changed = self.present(sbx).and_then(|webhook| change::health(webhook, finish));
        let is_changed = changed.is_some();
        self.changed.extend(changed.map(|webhook| (sbx, webhook)));
        is_changed
    }

    async fn write(&self, session: &Session) -> Done<()> {
        for (sbx, webhook) in &self.changed {
            let Some(seen) = self.seen.get(sbx) else { continue };
            let mut control = webhook.control.clone();
            let since = control.failing_since.take().map(Timestamp::millis);
            let error = control.last_error.take();
            let error = error.as_deref().map(text);
            let (before, after) = (big(seen.stamps.revision), big(webhook.stamps.revision));
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                [&webhook.id.0, &before, &json_of(&control)?, &after, &since, &error];
            if session.execute(NOTE, &values).await? == 0 {
                // Somebody has changed it since it was read. Deleted, it is not found the next time.
                return Err(Fault::Again);
            }
        }
        Ok(())
    }
}
