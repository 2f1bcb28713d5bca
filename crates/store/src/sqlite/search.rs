//! The index of recipients: see [`crate::shared::searching`]. Entries are written in small commits between others'.

use super::writer::Tx;
use crate::shared::searching::{AllPlaces, Fresh, LATE, MOST, Next, Places, RUN, Run};
use crate::{Result, StoreError};
use aws_lc_rs::digest::{SHA256, digest};
use model::clock::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The entries of a commit.
pub(super) const ENTRIES_AT_A_TIME: usize = 2_000;

/// How far the index is. Shared by the writer, which accepts, and whoever makes a run.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub fresh: Fresh,
    of: Mutex<HashMap<i64, Announced>>,
}

#[derive(Debug, Default)]
struct Announced {
    /// Who accepts an execution with a number up to this one enters it himself. The writer alone changes it.
    until: i64,
    /// The run under way, or the last one that was.
    run: Option<Run>,
    /// A message that may have been read for it is gone.
    is_disturbed: bool,
}

impl Progress {
    /// As a file tells it.
    pub fn of(connection: &Connection) -> Result<Self> {
        let progress = Self::default();
        let mut query = connection.prepare(
            "SELECT s.sbx, coalesce((SELECT max(last) FROM search_run r WHERE r.sbx = s.sbx), 0), \
             coalesce((SELECT max(run) FROM search_run r WHERE r.sbx = s.sbx), 0) FROM sandbox s",
        )?;
        let mut broken_off = connection.prepare("DELETE FROM search_entry WHERE sbx = ?1 AND run > ?2")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (sbx, last) = (row.get(0)?, row.get(1)?);
            broken_off.execute((sbx, row.get::<_, i32>(2)?))?;
            progress.with(sbx, |one| one.until = last);
            // Nobody counted what an earlier process left: each sandbox is looked at once.
            progress.fresh.add(sbx, RUN);
        }
        Ok(progress)
    }

    fn with<T>(&self, sbx: i64, work: impl FnOnce(&mut Announced) -> T) -> T {
        work(self.of.lock().unwrap_or_else(PoisonError::into_inner).entry(sbx).or_default())
    }
}

/// What a text is found by.
pub(super) fn hash(text: &str) -> i64 {
    digest(&SHA256, text.as_bytes()).as_ref().iter().take(8).fold(0, |number: i64, byte| number << 8 | i64::from(*byte))
}

const ENTER: &str = "INSERT OR IGNORE INTO search_entry (sbx, run, hash, exec) VALUES (?1, ?2, ?3, ?4)";

/// An execution with so many messages was accepted; `texts` are their addresses and user ids.
pub(super) fn note_accepted<'a>(
    tx: &Tx<'_>,
    sbx: i64,
    exec: i64,
    count: usize,
    texts: impl Iterator<Item = &'a str>,
) -> Result<()> {
    tx.state.search.fresh.add(sbx, count);
    if exec <= tx.state.search.with(sbx, |one| one.until) {
        let mut enter = tx.connection.prepare_cached(ENTER)?;
        for text in texts {
            enter.execute((sbx, LATE, hash(text), exec))?;
        }
    }
    Ok(())
}

/// Messages of an execution were deleted: nothing in the index is to tell to which addresses and user ids.
pub(super) fn forget<'a>(tx: &Tx<'_>, sbx: i64, exec: i64, texts: impl Iterator<Item = &'a str>) -> Result<()> {
    let under_way = tx.state.search.with(sbx, |one| {
        let run = one.run.filter(|run| (run.first..=run.last).contains(&exec));
        one.is_disturbed |= run.is_some();
        run.map(|run| run.number)
    });
    let made = "SELECT run FROM search_run WHERE sbx = ?1 AND last >= ?2 ORDER BY run LIMIT 1";
    let made: Option<i32> = tx.connection.prepare_cached(made)?.query_row((sbx, exec), |row| row.get(0)).optional()?;
    let mut others = tx
        .connection
        .prepare_cached("SELECT 1 FROM message WHERE sbx = ?1 AND exec = ?2 AND (address = ?3 OR user_id = ?3)")?;
    let mut delete = tx
        .connection
        .prepare_cached("DELETE FROM search_entry WHERE sbx = ?1 AND run = ?2 AND hash = ?3 AND exec = ?4")?;
    for text in texts {
        if !others.exists(params![sbx, exec, text])? {
            for run in [Some(LATE), made, under_way].into_iter().flatten() {
                delete.execute((sbx, run, hash(text), exec))?;
            }
        }
    }
    Ok(())
}

/// The runs of a sandbox, the latest first.
fn runs(connection: &Connection, sbx: i64) -> Result<Vec<Run>> {
    let sql = "SELECT run, first, last FROM search_run WHERE sbx = ?1 ORDER BY run DESC";
    let mut query = connection.prepare_cached(sql)?;
    let read = |row: &rusqlite::Row<'_>| Ok(Run { number: row.get(0)?, first: row.get(1)?, last: row.get(2)? });
    Ok(query.query_map([sbx], read)?.collect::<rusqlite::Result<_>>()?)
}

/// What comes after the last run of a sandbox.
pub(super) fn next_run(connection: &Connection, sbx: i64, now: Timestamp) -> Result<Next> {
    let sql = "SELECT run, last FROM search_run WHERE sbx = ?1 ORDER BY run DESC LIMIT 1";
    let last = connection.prepare_cached(sql)?.query_row([sbx], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (number, last) = last.unwrap_or((0, 0));
    let sql = "SELECT exec FROM message WHERE sbx = ?1 AND exec > ?2 ORDER BY exec, ord LIMIT 1 OFFSET ?3";
    let mut query = connection.prepare_cached(sql)?;
    if let Some(end) = query.query_row((sbx, last, RUN - 1), |row| row.get(0)).optional()? {
        return Ok(Next::after(number, last, end, now));
    }
    let mut left = connection.prepare_cached("SELECT count(*) FROM message WHERE sbx = ?1 AND exec > ?2")?;
    Ok(Next::TooFew(left.query_row((sbx, last), |row| row.get(0))?))
}

/// From now on whoever accepts something among these enters it himself; what a run left that was broken off goes.
pub(super) fn announce(tx: &Tx<'_>, sbx: i64, run: Run) -> Result<()> {
    tx.state.search.with(sbx, |one| {
        *one = Announced { until: one.until.max(run.last), run: Some(run), is_disturbed: false };
    });
    // Numbers begin anew where no run is left.
    tx.connection.execute("DELETE FROM search_entry WHERE sbx = ?1 AND run >= ?2", (sbx, run.number))?;
    Ok(())
}

/// What is to be entered for the messages of a run, in order.
pub(super) fn entries(connection: &Connection, sbx: i64, run: Run) -> Result<Vec<(i64, i64)>> {
    let mut query = connection
        .prepare_cached("SELECT exec, user_id, address FROM message WHERE sbx = ?1 AND exec BETWEEN ?2 AND ?3")?;
    let mut rows = query.query((sbx, run.first, run.last))?;
    let mut entries = Vec::with_capacity(2 * RUN);
    while let Some(row) = rows.next()? {
        let exec = row.get(0)?;
        let (user_id, address) = (row.get_ref(1)?.as_str(), row.get_ref(2)?.as_str_or_null());
        let (user_id, address) = (user_id.map_err(of_column)?, address.map_err(of_column)?);
        entries.push((hash(user_id), exec));
        entries.extend(address.map(|address| (hash(address), exec)));
    }
    entries.sort_unstable();
    entries.dedup();
    Ok(entries)
}

fn of_column(error: rusqlite::types::FromSqlError) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

pub(super) fn enter(tx: &Tx<'_>, sbx: i64, run: Run, entries: &[(i64, i64)]) -> Result<()> {
    let mut enter = tx.connection.prepare_cached(ENTER)?;
    for (hash, exec) in entries {
        enter.execute((sbx, run.number, hash, exec))?;
    }
    Ok(())
}

/// The run is whole. Where a message in it was deleted meanwhile, it goes, and is made anew in the next step.
pub(super) fn complete(tx: &Tx<'_>, sbx: i64, run: Run) -> Result<()> {
    if tx.state.search.with(sbx, |one| one.is_disturbed || one.run != Some(run)) {
        tx.connection.execute("DELETE FROM search_entry WHERE sbx = ?1 AND run = ?2", (sbx, run.number))?;
        return Ok(());
    }
    let insert = "INSERT INTO search_run (sbx, run, first, last) VALUES (?1, ?2, ?3, ?4)";
    tx.connection.execute(insert, (sbx, run.number, run.first, run.last))?;
    Ok(())
}

/// Deletes the runs that are older than all messages: what was in them was forgotten with its messages.
pub(super) fn trim(connection: &Connection, sbx: i64) -> Result<()> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM search_run WHERE sbx = ?1 AND last < \
         coalesce((SELECT exec FROM message WHERE sbx = ?1 ORDER BY exec LIMIT 1), ?2)",
    )?;
    delete.execute((sbx, i64::MAX))?;
    Ok(())
}

/// The index of a sandbox begins anew: for the filling of a store with what is older than what it has.
pub(super) fn begin_anew(tx: &Tx<'_>, sbx: i64) -> Result<()> {
    tx.state.search.with(sbx, |one| *one = Announced::default());
    tx.state.search.fresh.add(sbx, RUN);
    tx.connection.execute("DELETE FROM search_run WHERE sbx = ?1", [sbx])?;
    tx.connection.execute("DELETE FROM search_entry WHERE sbx = ?1", [sbx])?;
    Ok(())
}

/// The executions in this range that have a message to a recipient, from the latest on.
pub(super) fn places(
    connection: &Connection,
    sbx: i64,
    recipient: &str,
    range: Range<i64>,
    window: usize,
) -> Result<Places> {
    let runs = runs(connection, sbx)?;
    let covered = runs.first().map_or(0, |run| run.last);
    let mut places = Places::default();
    let first = range.start.max(covered + 1);
    if first < range.end && !unindexed(connection, sbx, recipient, first..range.end, window, &mut places)? {
        return Ok(places);
    }
    let hash = hash(recipient);
    let sql = "SELECT exec FROM search_entry WHERE sbx = ?1 AND run = ?2 AND hash = ?3 AND exec >= ?4 AND exec < ?5 \
               ORDER BY exec DESC LIMIT ?6";
    let mut query = connection.prepare_cached(sql)?;
    let mut told = |run| {
        let rows = query.query_map((sbx, run, hash, range.start, range.end, MOST + 1), |row| row.get(0))?;
        rows.collect::<rusqlite::Result<Vec<i64>>>()
    };
    for run in runs.into_iter().filter(|run| run.first < range.end && run.last >= range.start) {
        if !places.add(run, &told(run.number)?) {
            break;
        }
    }
    Ok(places.and_late(&told(LATE)?))
}

/// All executions that have a message to a recipient; none: it would take long to find them all.
pub(super) fn all_places(
    connection: &Connection,
    sbx: i64,
    recipient: &str,
    window: usize,
) -> Result<Option<BTreeSet<i64>>> {
    let mut all = AllPlaces::default();
    while let Some(before) = all.before() {
        all.add(places(connection, sbx, recipient, 0..before, window)?);
    }
    Ok(all.whole())
}

/// The same among messages that are in no run yet; whether the runs are wanted too.
fn unindexed(
    connection: &Connection,
    sbx: i64,
    recipient: &str,
    range: Range<i64>,
    window: usize,
    places: &mut Places,
) -> Result<bool> {
    let mut end = connection.prepare_cached(
        "SELECT exec FROM message WHERE sbx = ?1 AND exec >= ?2 AND exec < ?3 ORDER BY exec DESC, ord DESC \
         LIMIT 1 OFFSET ?4",
    )?;
    let end: Option<i64> = end.query_row((sbx, range.start, range.end, window - 1), |row| row.get(0)).optional()?;
    let mut query = connection.prepare_cached(
        "SELECT DISTINCT exec FROM message WHERE sbx = ?1 AND exec >= ?2 AND exec < ?3 \
         AND (address = ?4 OR user_id = ?4) ORDER BY exec DESC LIMIT ?5",
    )?;
    let first = end.unwrap_or(range.start);
    let told = query.query_map(params![sbx, first, range.end, recipient, MOST + 1], |row| row.get(0))?;
    let told = told.collect::<rusqlite::Result<Vec<i64>>>()?;
    Ok(places.add_unindexed(first, &told, end.is_none()))
}
