//! Replays: as resources, and step by step. A step locks the messages that it touches, and then all their events, each in
//! the order in which everybody does.

use super::admin::{By, audit, page};
use super::facts::Facts;
use super::find::{Finder, events_from};
use super::hooks::{HELD, Hooks};
use super::rows::{EVENT_COLUMNS, event_columns, message_columns, recipient};
use super::rows::{big, byte, corrupt, json, message_key, moment, read_event, read_message, revision};
use super::session::{Done, Session, col};
use super::shards::{EPOCHS, Epochs, shards_of};
use crate::StoreError;
use crate::admin::Edit;
use crate::lookup::{Listed, Page};
use crate::shared::change;
use crate::shared::facts::SandboxFacts;
use crate::shared::replaying::{self, Again, Seen};
use crate::shared::rows::{EventRow, ToDue, json_of, payload_code};
use crate::work::{ReplayStep, ReplayStepped, RunningReplay};
use model::clock::Timestamp;
use model::delivery::DueDelivery;
use model::ids::{MessageKey, ReplayId, SandboxId};
use model::replay::{Replay, ReplayProgress, ReplaySettings, ReplayState};
use model::tenancy::AuditEntry;
use model::webhook::{Stamps, Webhook};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

macro_rules! replays {
    ($condition:literal) => {
        concat!(
            "SELECT r.id, s.id, r.settings, r.state, r.reason, r.start, r.position, r.until, r.replayed, r.skipped, \
             r.open, r.ended_at, r.stamps, r.revision FROM replay r JOIN sandbox s ON s.sbx = r.sbx WHERE ",
            $condition
        )
    };
}

fn number(row: &Row, column: usize) -> Done<u64> {
    u64::try_from(col::<i64>(row, column)?).map_err(|_| corrupt("a negative count"))
}

fn read_replay(row: &Row) -> Done<Replay> {
    let mut stamps: Stamps = json(row, 12)?;
    stamps.revision = revision(row, 13)?;
    Ok(Replay {
        id: ReplayId(col(row, 0)?),
        sandbox: SandboxId(col(row, 1)?),
        settings: json(row, 2)?,
        state: ReplayState::from_code(byte(row, 3)?).ok_or_else(|| corrupt("not a replay's state"))?,
        reason: col(row, 4)?,
        progress: ReplayProgress {
            start: col(row, 5)?,
            position: col(row, 6)?,
            until: col(row, 7)?,
            replayed: number(row, 8)?,
            skipped: number(row, 9)?,
            open: col(row, 10)?,
        },
        ended_at: moment(row, 11)?,
        stamps,
    })
}

fn found(row: Option<&Row>) -> Done<Replay> {
    read_replay(row.ok_or(StoreError::NotFound("replay"))?)
}

const STORE: &str = "UPDATE replay SET state = $2, reason = $3, position = $4, replayed = $5, skipped = $6, open = $7, \
     ended_at = $8, stamps = $9, revision = $10 WHERE id = $1";

/// Writes what can change of a replay.
async fn store(session: &Session, replay: &Replay) -> Done<()> {
    let progress = &replay.progress;
    let (state, ended_at) = (i16::from(replay.state.code()), replay.ended_at.map(Timestamp::millis));
    let (replayed, skipped) = (big(progress.replayed), big(progress.skipped));
    let (stamps, revision) = (json_of(&replay.stamps)?, big(replay.stamps.revision));
    session
        .execute(
            STORE,
            &[
                &replay.id.0,
                &state,
                &replay.reason,
                &progress.position,
                &replayed,
                &skipped,
                &progress.open,
                &ended_at,
                &stamps,
                &revision,
            ],
        )
        .await
        .map(drop)
}

const INSERT: &str = "INSERT INTO replay (id, sbx, settings, state, start, position, until, replayed, skipped, open, \
     stamps, revision) VALUES ($1, $2, $3, 0, $4, $4, $5, 0, 0, '{}', $6, $7) ON CONFLICT (sbx) WHERE state = 0 DO NOTHING";

pub(super) async fn create(
    session: &Session,
    (facts, hooks): (&Facts, &Hooks),
    replay: &Replay,
    entry: &AuditEntry,
) -> Done<Replay> {
    let sandbox = facts.sandbox(session, replay.sandbox).await?;
    if webhook_of(session, hooks, &sandbox).await?.is_none() {
        return Err(replaying::no_webhook().into());
    }
    let mut replay = replay.clone();
    replay.progress = whole_feed(session, &sandbox, &replay.settings).await?;
    let (settings, stamps, revision) =
        (json_of(&replay.settings)?, json_of(&replay.stamps)?, big(replay.stamps.revision));
    let progress = &replay.progress;
    let inserted = session
        .execute(INSERT, &[&replay.id.0, &sandbox.sbx, &settings, &progress.start, &progress.until, &stamps, &revision])
        .await?;
    if inserted == 0 {
        let running = session.query_opt("SELECT id FROM replay WHERE sbx = $1 AND state = 0", &[&sandbox.sbx]).await?;
        let running = running
            .as_ref()
            .map(|row| col(row, 0))
            .transpose()?
            .map_or_else(String::new, |id| ReplayId(id).to_string());
        return Err(replaying::already_running(running).into());
    }
    audit(session, entry).await?;
    Ok(replay)
}

async fn webhook_of(session: &Session, hooks: &Hooks, sandbox: &SandboxFacts) -> Done<Option<Arc<Webhook>>> {
    let rows = session.query(HELD, &[&vec![sandbox.sbx]]).await?;
    Ok(hooks.read(session, &rows).await?.remove(&sandbox.sbx))
}

async fn whole_feed(session: &Session, sandbox: &SandboxFacts, settings: &ReplaySettings) -> Done<ReplayProgress> {
    let sql = "SELECT (SELECT seq FROM event WHERE sbx = $1 ORDER BY seq LIMIT 1), \
               (SELECT seq FROM event WHERE sbx = $1 ORDER BY seq DESC LIMIT 1)";
    let row = session.query_opt(sql, &[&sandbox.sbx]).await?;
    let row = row.as_ref().ok_or_else(|| corrupt("no answer"))?;
    Ok(replaying::part_of_feed(col(row, 0)?, col(row, 1)?, settings.filter.from))
}

pub(super) async fn replay(session: &Session, facts: &Facts, sandbox: SandboxId, id: ReplayId) -> Done<Replay> {
    let sbx = facts.sandbox(session, sandbox).await?.sbx;
    found(session.query_opt(replays!("r.id = $1 AND r.sbx = $2"), &[&id.0, &sbx]).await?.as_ref())
}

pub(super) async fn replays(
    session: &Session,
    facts: &Facts,
    sandbox: SandboxId,
    wanted: &Page,
) -> Done<Listed<Replay>> {
    let sbx = facts.sandbox(session, sandbox).await?.sbx;
    let by = By::IdFromTheNewest("r.id");
    page(session, replays!("r.sbx = $1"), by, &[(&sbx, Type::INT8)], wanted, |row| {
        let replay = read_replay(row)?;
        let key = replay.id.bytes().to_vec();
        Ok((replay, key))
    })
    .await
}

const LOCKED: &str = replays!("r.id = $1 AND r.sbx = $2 FOR NO KEY UPDATE OF r");

pub(super) async fn cancel(
    session: &Session,
    facts: &Facts,
    edit: Edit<ReplayId>,
    (now, by): (Timestamp, &str),
    entry: &AuditEntry,
) -> Done<Replay> {
    let sbx = facts.sandbox(session, edit.sandbox).await?.sbx;
    let mut replay = found(session.query_opt(LOCKED, &[&edit.id.0, &sbx]).await?.as_ref())?;
    if edit.seen_revision.is_some_and(|seen| seen != replay.stamps.revision) {
        return Err(StoreError::Changed.into());
    }
    replaying::cancel(&mut replay, None, now)?;
    replay.stamps.touch(now, by);
    store(session, &replay).await?;
    audit(session, entry).await?;
    Ok(replay)
}

pub(super) async fn running(session: &Session, facts: &Facts) -> Done<Vec<RunningReplay>> {
    let rows = session.query("SELECT id, sbx, settings FROM replay WHERE state = 0", &[]).await?;
    let mut read = Vec::with_capacity(rows.len());
    for row in &rows {
        read.push((ReplayId(col(row, 0)?), col::<i64>(row, 1)?, json::<ReplaySettings>(row, 2)?.per_second));
    }
    let sandboxes = facts.sandboxes_of(session, read.iter().map(|(_, sbx, _)| *sbx)).await?;
    let of = |(id, sbx, per_second)| {
        let sandbox = sandboxes.get(&sbx)?;
        Some(RunningReplay { id, sandbox: sandbox.tenant.sandbox_id, shard: sandbox.shard, per_second })
    };
    Ok(read.into_iter().filter_map(of).collect())
}

const OPEN: &str = "SELECT v.seq FROM unnest($2::bigint[]) AS n (seq) JOIN event v ON v.sbx = $1 AND v.seq = n.seq \
     WHERE v.delivery + 0 IN (1, 2)";

/// What a step sees before its transaction; none: the replay does not run.
pub(super) async fn look(finder: &Finder<'_>, step: &ReplayStep) -> Done<Option<Seen>> {
    let session = finder.session;
    let sbx = finder.facts.sandbox(session, step.sandbox).await?.sbx;
    let replay = found(session.query_opt(replays!("r.id = $1 AND r.sbx = $2"), &[&step.id.0, &sbx]).await?.as_ref())?;
    if replay.state != ReplayState::Running {
        return Ok(None);
    }
    let mut open = Vec::new();
    if !replay.progress.open.is_empty() {
        let rows = session.query(OPEN, &[&sbx, &replay.progress.open]).await?;
        open = rows.iter().map(|row| col(row, 0)).collect::<Done<Vec<i64>>>()?;
    }
    let (chosen, position) = match replaying::room(step.most, step.most_open, open.len()) {
        0 => (Vec::new(), replay.progress.position),
        room => finder.chosen(&replaying::filter_of(&replay), &replay.progress, room).await?,
    };
    Ok(Some(Seen { replay, open, chosen, position }))
}

/// A step, after what was seen. Another one may have been made since: then this one is not.
pub(super) async fn take(
    session: &Session,
    (facts, hooks): (&Facts, &Hooks),
    step: &ReplayStep,
    seen: &Seen,
) -> Done<ReplayStepped> {
    let sandbox = facts.sandbox(session, step.sandbox).await?;
    let epochs = Epochs::read(&session.query(EPOCHS, &[&shards_of([step.lease].into_iter())]).await?)?;
    if !epochs.hold(&sandbox, step.lease) {
        return Ok(ReplayStepped::default());
    }
    let mut present = found(session.query_opt(LOCKED, &[&step.id.0, &sandbox.sbx]).await?.as_ref())?;
    let running = present.state == ReplayState::Running;
    if !running || present.progress.position != seen.replay.progress.position {
        return Ok(ReplayStepped { running, ..ReplayStepped::default() });
    }
    let Some(webhook) = webhook_of(session, hooks, &sandbox).await? else {
        replaying::cancel(&mut present, Some(replaying::NO_WEBHOOK), step.now)?;
        store(session, &present).await?;
        return Ok(ReplayStepped::default());
    };
    let (again, followed, skipped) = decide(session, facts, (&sandbox, &webhook), &seen.chosen, step.now).await?;
    let due = start_again(session, facts, &sandbox, &again, &followed, step.id).await?;
    let made_due: Vec<i64> = again.iter().map(|again| again.sequence).collect();
    let seen = Seen { replay: present, open: seen.open.clone(), chosen: Vec::new(), position: seen.position };
    let replay = replaying::after_step(seen, &made_due, skipped, step.now);
    store(session, &replay).await?;
    Ok(ReplayStepped { running: replay.state == ReplayState::Running, due, replayed: made_due.len() })
}

const KEYS: &str = "SELECT DISTINCT v.exec, v.ord FROM unnest($2::bigint[]) AS n (seq) \
     JOIN event v ON v.sbx = $1 AND v.seq = n.seq ORDER BY v.exec, v.ord";

const MESSAGES: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM unnest($2::bigint[], $3::smallint[]) AS n (exec, ord) \
     JOIN message m ON m.sbx = $1 AND m.exec = n.exec AND m.ord = n.ord ORDER BY m.exec, m.ord FOR NO KEY UPDATE OF m"
);

const LOCK_EVENTS: &str = "SELECT FROM event WHERE sbx = $1 AND seq = ANY($2) ORDER BY sbx, seq FOR NO KEY UPDATE";

type Decided = (Vec<Again>, Vec<i64>, u64);

/// What becomes of the chosen events; those that are gone meanwhile are left out.
async fn decide(
    session: &Session,
    facts: &Facts,
    (sandbox, webhook): (&SandboxFacts, &Webhook),
    chosen: &[i64],
    now: Timestamp,
) -> Done<Decided> {
    let mut decided = Decided::default();
    if chosen.is_empty() {
        return Ok(decided);
    }
    let sbx = sandbox.sbx;
    let keys = session.query(KEYS, &[&sbx, &chosen]).await?;
    let keys = keys.iter().map(|row| message_key(row, 0)).collect::<Done<Vec<_>>>()?;
    let execs: Vec<i64> = keys.iter().map(|key| key.execution.number()).collect();
    let ords: Vec<i16> = keys.iter().map(|key| i16::from(key.ordinal)).collect();
    let messages = session.query(MESSAGES, &[&sbx, &execs, &ords]).await?;
    let mut latest = Vec::with_capacity(messages.len());
    for row in &messages {
        latest.extend(read_message(row, 0)?.last_event);
    }
    // Nobody adds any while the messages are locked; where they stand is read anew once they are locked too.
    let sequences: Vec<i64> = events_from(session, sbx, &latest).await?.iter().map(|event| event.sequence).collect();
    session.query(LOCK_EVENTS, &[&sbx, &sequences]).await?;
    let mut events: BTreeMap<MessageKey, Vec<EventRow>> = BTreeMap::new();
    for event in events_from(session, sbx, &latest).await? {
        events.entry(event.key.message).or_default().push(event);
    }
    let executions = facts.executions(session, keys.iter().map(|key| (sbx, key.execution))).await?;
    for (key, events) in &events {
        let Some(execution) = executions.get(&(sbx, key.execution)) else { continue };
        let is_wanted = |event: &EventRow| change::wanting(Some(webhook), execution, &event.outcome).is_some();
        let of_message = replaying::of_message(events, chosen, webhook, is_wanted, now);
        decided.0.extend(of_message.again);
        decided.1.extend(of_message.followed);
        decided.2 += of_message.skipped;
    }
    Ok(decided)
}

/// Moves the attempts that succeeded from the events' rows to the others.
const KEEP_SUCCESSES: &str = "INSERT INTO attempt (sbx, seq, n, at, ms, status, excerpt) SELECT v.sbx, v.seq, \
     coalesce((SELECT max(a.n) FROM attempt a WHERE a.sbx = v.sbx AND a.seq = v.seq), 0) + 1, \
     v.attempt_at, v.attempt_ms, v.attempt_status, v.attempt_excerpt \
     FROM unnest($2::bigint[]) AS n (seq) JOIN event v ON v.sbx = $1 AND v.seq = n.seq";

const FOLLOWED: &str = "UPDATE event v SET followed = true FROM unnest($2::bigint[]) AS n (seq) \
     WHERE v.sbx = $1 AND v.seq = n.seq";

const AGAIN: &str = concat!(
    "WITH done AS (UPDATE event v SET delivery = n.delivery, due_at = n.due_at, first_due = n.first_due, \
     ended_at = NULL, followed = v.followed OR n.followed, payload = n.payload, replay = $7, again = true \
     FROM unnest($2::bigint[], $3::smallint[], $4::bigint[], $5::bigint[], $6::smallint[], $8::boolean[]) \
     AS n (seq, delivery, due_at, first_due, payload, followed) WHERE v.sbx = $1 AND v.seq = n.seq RETURNING v.*) SELECT ",
    event_columns!(),
    ", m.user_id, m.namespace, m.address FROM done v JOIN message m ON m.sbx = v.sbx AND m.exec = v.exec \
     AND m.ord = v.ord WHERE v.delivery = 1 ORDER BY v.seq"
);

async fn start_again(
    session: &Session,
    facts: &Facts,
    sandbox: &SandboxFacts,
    again: &[Again],
    followed: &[i64],
    replay: ReplayId,
) -> Done<Vec<DueDelivery>> {
    let sbx = sandbox.sbx;
    let kept: Vec<i64> = again.iter().filter(|again| again.had_succeeded).map(|again| again.sequence).collect();
    if !kept.is_empty() {
        session.execute(KEEP_SUCCESSES, &[&sbx, &kept]).await?;
    }
    if !followed.is_empty() {
        session.execute(FOLLOWED, &[&sbx, &followed]).await?;
    }
    if again.is_empty() {
        return Ok(Vec::new());
    }
    let sequences: Vec<i64> = again.iter().map(|again| again.sequence).collect();
    let deliveries: Vec<i16> = again.iter().map(|again| i16::from(again.delivery.code())).collect();
    let due_at: Vec<Option<i64>> = again.iter().map(|again| again.due_at.map(Timestamp::millis)).collect();
    let first_due: Vec<i64> = again.iter().map(|again| again.first_due.millis()).collect();
    let payloads: Vec<i16> = again.iter().map(|again| i16::from(payload_code(again.payload))).collect();
    let followed_too: Vec<bool> = again.iter().map(|again| again.followed).collect();
    let rows = session
        .query(AGAIN, &[&sbx, &sequences, &deliveries, &due_at, &first_due, &payloads, &replay.0, &followed_too])
        .await?;
    let events = rows.iter().map(|row| Ok((read_event(row, 0)?, recipient(row, EVENT_COLUMNS)?)));
    let events = events.collect::<Done<Vec<_>>>()?;
    let wanted = events.iter().map(|(event, _)| (sbx, event.key.message.execution));
    let executions = facts.executions(session, wanted).await?;
    let mut due = Vec::with_capacity(events.len());
    for (event, recipient) in events {
        let Some(stored) = executions.get(&(sbx, event.key.message.execution)) else { continue };
        let to_due = ToDue::of(&event);
        due.push(to_due.with(event.into_event(recipient, Arc::clone(&sandbox.tenant), Arc::clone(&stored.facts))));
    }
    Ok(due)
}
