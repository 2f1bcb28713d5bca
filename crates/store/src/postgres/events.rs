//! New feedback events: their places in the feed, and their rows.

use super::rows::{corrupt, int, text};
use super::session::{Done, Session, col};
use crate::Result;
use crate::shared::change::{NewEvent, sequence_at};
use crate::shared::rows::{payload_code, status_code, why_of};
use model::clock::Timestamp;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// Gives each sandbox so many places in its feed, the last of them returned. Until the commit nobody else gets any.
pub(super) const PLACES: &str = "WITH n AS (SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS n (sbx, count, floor)), \
     held AS (SELECT f.sbx FROM feed f JOIN n ON n.sbx = f.sbx ORDER BY f.sbx FOR NO KEY UPDATE OF f) \
     UPDATE feed f SET last = GREATEST(f.last, n.floor - 1) + n.count FROM n, held \
     WHERE n.sbx = held.sbx AND f.sbx = held.sbx RETURNING f.sbx, f.last";

pub(super) const INSERT_EVENTS: &str = "INSERT INTO event (sbx, seq, exec, ord, n, prev, status, occurred_at, recorded_at, retry_count, \
     payload, response_code, response_ms, encoding, parts, why, delivery, followed, first_due, due_at) \
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::smallint[], $6::bigint[], \
     $7::smallint[], $8::bigint[], $9::bigint[], $10::int[], $11::smallint[], $12::int[], $13::int[], $14::text[], \
     $15::int[], $16::text[], $17::smallint[], $18::boolean[], $19::bigint[], $20::bigint[])";

/// An event of the message: one that is stored, by its place in the feed, or one of this batch, by its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Stored(i64),
    Fresh(usize),
}

/// An event to be stored.
pub(super) struct Fresh {
    pub sbx: i64,
    pub previous: Option<Event>,
    pub followed: bool,
    pub new: NewEvent,
}

/// The place of an event in its feed, once those of the batch have theirs.
pub(super) fn place_of(event: Option<Event>, sequences: &[i64]) -> Option<i64> {
    match event? {
        Event::Stored(sequence) => Some(sequence),
        Event::Fresh(place) => sequences.get(place).copied(),
    }
}

/// Takes places in the feeds for these events, one for each.
pub(super) async fn take_places(session: &Session, events: &[Fresh]) -> Done<Vec<i64>> {
    let mut wanted: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for event in events {
        let (count, floor) = wanted.entry(event.sbx).or_default();
        *count += 1;
        *floor = (*floor).max(sequence_at(event.new.event.recorded_at));
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let sbx: Vec<i64> = wanted.keys().copied().collect();
    let (counts, floors): (Vec<i64>, Vec<i64>) = wanted.values().copied().unzip();
    let mut next = HashMap::new();
    for row in session.query(PLACES, &[&sbx, &counts, &floors]).await? {
        let (sbx, last): (i64, i64) = (col(&row, 0)?, col(&row, 1)?);
        let count = wanted.get(&sbx).map_or(0, |(count, _)| *count);
        next.insert(sbx, last - count + 1);
    }
    let places = events.iter().map(|event| {
        let next = next.get_mut(&event.sbx).ok_or_else(|| corrupt("a sandbox without a feed"))?;
        *next += 1;
        Ok(*next - 1)
    });
    places.collect()
}

/// Inserts events at their places.
pub(super) async fn insert_events(session: &Session, events: &[Fresh], sequences: &[i64]) -> Done<u64> {
    if events.is_empty() {
        return Ok(0);
    }
    let columns = EventColumns::new(events, sequences)?;
    session
        .execute(
            INSERT_EVENTS,
            &[
                &columns.sbx,
                &sequences,
                &columns.exec,
                &columns.ord,
                &columns.n,
                &columns.prev,
                &columns.status,
                &columns.occurred_at,
                &columns.recorded_at,
                &columns.retry_count,
                &columns.payload,
                &columns.response_code,
                &columns.response_ms,
                &columns.encoding,
                &columns.parts,
                &columns.why,
                &columns.delivery,
                &columns.followed,
                &columns.first_due,
                &columns.due_at,
            ],
        )
        .await
}

/// The columns of new events.
#[derive(Default)]
struct EventColumns<'a> {
    sbx: Vec<i64>,
    exec: Vec<i64>,
    ord: Vec<i16>,
    n: Vec<i16>,
    prev: Vec<Option<i64>>,
    status: Vec<i16>,
    occurred_at: Vec<i64>,
    recorded_at: Vec<i64>,
    retry_count: Vec<i32>,
    payload: Vec<i16>,
    response_code: Vec<Option<i32>>,
    response_ms: Vec<Option<i32>>,
    encoding: Vec<Option<Cow<'a, str>>>,
    parts: Vec<Option<i32>>,
    why: Vec<Option<String>>,
    delivery: Vec<i16>,
    followed: Vec<bool>,
    first_due: Vec<Option<i64>>,
    due_at: Vec<Option<i64>>,
}

impl<'a> EventColumns<'a> {
    fn new(events: &'a [Fresh], sequences: &[i64]) -> Result<Self> {
        let mut columns = Self::default();
        for fresh in events {
            let (event, outcome) = (&fresh.new.event, &fresh.new.event.outcome);
            columns.sbx.push(fresh.sbx);
            columns.exec.push(event.key.message.execution.number());
            columns.ord.push(event.key.message.ordinal.into());
            columns.n.push(event.key.number.into());
            columns.prev.push(place_of(fresh.previous, sequences));
            columns.status.push(status_code(outcome.verdict.status()).into());
            columns.occurred_at.push(outcome.occurred_at.millis());
            columns.recorded_at.push(event.recorded_at.millis());
            columns.retry_count.push(int(event.retry_count));
            columns.payload.push(payload_code(event.payload).into());
            columns.response_code.push(outcome.response_code.map(i32::from));
            columns.response_ms.push(outcome.response_duration_ms.map(int));
            columns.encoding.push(outcome.encoding.as_deref().map(text));
            columns.parts.push(outcome.parts.map(i32::from));
            columns.why.push(why_of(&outcome.verdict)?);
            columns.delivery.push(fresh.new.delivery.code().into());
            columns.followed.push(fresh.followed);
            columns.first_due.push(fresh.new.first_due.map(Timestamp::millis));
            columns.due_at.push(fresh.new.due_at().map(Timestamp::millis));
        }
        Ok(columns)
    }
}
