//! The index of recipients: see [`crate::shared::searching`]. The database makes the hashes and the entries itself.
//!
//! Advisory locks of two numbers keep a sandbox's parties apart: under the one who accepts shares it, and who announces a
//! run has it alone, so that whatever was accepted without knowing of the run is committed before its messages are read;
//! under the other either a run is made or messages are deleted, by an erasure or for their age.

use super::rows::rows_of;
use super::session::{Done, Fault, Session, col};
use crate::shared::searching::{AllPlaces, Fresh, LATE, MOST, Next, Places, RUN, Run};
use model::clock::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

/// The runs that are asked in the first statement of a search; in each one after it are twice as many, up to a number.
const RUNS_AT_FIRST: usize = 8;
const RUNS_AT_ONCE: usize = 64;
/// The messages of a run that are entered by one statement.
const MESSAGES_AT_A_TIME: usize = 1_000;
/// The pause after it.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What this node has accepted since the last run of each sandbox. What other nodes accept they count: a run may come
/// later by as much.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub fresh: Fresh,
    has_begun: AtomicBool,
}

impl Progress {
    /// Whether this is the first step. Nobody counted what an earlier process left: each sandbox is looked at once.
    pub fn is_new(&self) -> bool {
        !self.has_begun.load(Ordering::Relaxed)
    }

    pub fn begin(&self, sandboxes: Vec<i64>) {
        for sbx in sandboxes {
            self.fresh.add(sbx, RUN);
        }
        self.has_begun.store(true, Ordering::Relaxed);
    }
}

pub(super) async fn sandboxes(session: &Session) -> Done<Vec<i64>> {
    session.query("SELECT sbx FROM sandbox", &[]).await?.iter().map(|row| col(row, 0)).collect()
}

// ---- by whoever accepts ----

/// Lets a run of these sandboxes be announced only once this transaction has ended. After all other advisory locks and in
/// the sandboxes' order, so that nobody waits for whoever waits for him.
pub(super) const SHARE: &str = "SELECT pg_advisory_xact_lock_shared(7, sbx::int) FROM unnest($1::bigint[]) AS u (sbx)";

/// Up to where runs have been announced.
pub(super) const ANNOUNCED: &str = "SELECT sbx, announced FROM search_index WHERE sbx = ANY($1)";

const ENTER_LATE: &str = "INSERT INTO search_entry (sbx, run, hash, exec) \
     SELECT DISTINCT n.sbx, 0, hashtextextended(n.text, 0), n.exec \
     FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS n (sbx, exec, text) ON CONFLICT DO NOTHING";

/// Enters what was accepted late.
pub(super) async fn enter_late(session: &Session, late: &[(i64, i64, &str)]) -> Done<()> {
    if late.is_empty() {
        return Ok(());
    }
    let sandboxes: Vec<i64> = late.iter().map(|one| one.0).collect();
    let executions: Vec<i64> = late.iter().map(|one| one.1).collect();
    let texts: Vec<&str> = late.iter().map(|one| one.2).collect();
    session.execute(ENTER_LATE, &[&sandboxes, &executions, &texts]).await?;
    Ok(())
}

// ---- by whoever makes a run ----

/// The runs of a sandbox, the latest first.
async fn runs(session: &Session, sbx: i64) -> Done<Vec<Run>> {
    let sql = "SELECT run, first, last FROM search_run WHERE sbx = $1 ORDER BY run DESC";
    let read = |row: &Row| Ok(Run { number: col(row, 0)?, first: col(row, 1)?, last: col(row, 2)? });
    session.query(sql, &[&sbx]).await?.iter().map(read).collect()
}

const LAST_RUN: &str = "SELECT run, last FROM search_run WHERE sbx = $1 ORDER BY run DESC LIMIT 1";

/// The number of a sandbox's last run, and its last execution.
async fn last_run(session: &Session, sbx: i64) -> Done<(i32, i64)> {
    let row = session.query_opt(LAST_RUN, &[&sbx]).await?;
    row.as_ref().map_or(Ok((0, 0)), |row| Ok((col(row, 0)?, col(row, 1)?)))
}

/// What comes after the last run of a sandbox.
pub(super) async fn next_run(session: &Session, sbx: i64, now: Timestamp) -> Done<Next> {
    let (number, last) = last_run(session, sbx).await?;
    let sql = "SELECT exec FROM message WHERE sbx = $1 AND exec > $2 ORDER BY exec, ord LIMIT 1 OFFSET $3";
    if let Some(row) = session.query_opt(sql, &[&sbx, &last, &rows_of(RUN - 1)]).await? {
        return Ok(Next::after(number, last, col(&row, 0)?, now));
    }
    let left = session.query_opt("SELECT count(*) FROM message WHERE sbx = $1 AND exec > $2", &[&sbx, &last]).await?;
    let left = left.as_ref().map_or(Ok(0), |row| col::<i64>(row, 0))?;
    Ok(Next::TooFew(usize::try_from(left).unwrap_or(0)))
}

/// From now on whoever accepts something among these enters it himself. False: others are at it for longer than whoever
/// comes after them is to wait. One message to the database, thus one transaction: nobody waits for our next word.
pub(super) async fn announce(session: &Session, sbx: i64, run: Run) -> Done<bool> {
    let announcing = session
        .run(&format!(
            "SELECT set_config('lock_timeout', '200ms', true); SELECT pg_advisory_xact_lock(7, {sbx}::int); \
             INSERT INTO search_index AS s (sbx, announced) VALUES ({sbx}, {}) \
             ON CONFLICT (sbx) DO UPDATE SET announced = greatest(s.announced, excluded.announced)",
            run.last
        ))
        .await;
    match announcing {
        Err(Fault::Db(error)) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
        announced => announced.map(|()| true),
    }
}

const IS_ANNOUNCED: &str = "SELECT 1 FROM search_index WHERE sbx = $1 AND announced >= $2";

const ENTER: &str = "INSERT INTO search_entry (sbx, run, hash, exec) SELECT DISTINCT $1::bigint, $2::int, \
     hashtextextended(t.text, 0) AS hash, m.exec FROM message m \
     CROSS JOIN LATERAL (VALUES (m.user_id), (m.address)) AS t (text) \
     WHERE m.sbx = $1 AND m.exec BETWEEN $3 AND $4 AND t.text IS NOT NULL ORDER BY 3, 4";
const COMPLETE: &str = "INSERT INTO search_run (sbx, run, first, last) VALUES ($1, $2, $3, $4)";

/// Makes a run, unless another node was quicker, or the index has begun anew.
pub(super) async fn enter(session: &Session, sbx: i64, run: Run) -> Done<()> {
    hold_runs(session, sbx).await?;
    let is_announced = session.query_opt(IS_ANNOUNCED, &[&sbx, &run.last]).await?.is_some();
    if is_announced && last_run(session, sbx).await?.1 + 1 == run.first {
        let mut rest = run;
        while rest.first <= run.last {
            let began = Instant::now();
            rest.last = part_end(session, sbx, rest).await?;
            session.execute(ENTER, &[&sbx, &run.number, &rest.first, &rest.last]).await?;
            rest = Run { first: rest.last + 1, last: run.last, ..run };
            // A processor that others want too is not taken for long. Whoever deletes waits for this transaction: where the
            // database is slow the pauses are not as long.
            tokio::time::sleep(began.elapsed().min(LONGEST_PAUSE)).await;
        }
        session.execute(COMPLETE, &[&sbx, &run.number, &run.first, &run.last]).await?;
    }
    Ok(())
}

/// Where the next part of a run ends that is entered at once.
async fn part_end(session: &Session, sbx: i64, rest: Run) -> Done<i64> {
    let sql = "SELECT exec FROM message WHERE sbx = $1 AND exec BETWEEN $2 AND $3 ORDER BY exec, ord LIMIT 1 OFFSET $4";
    let row = session.query_opt(sql, &[&sbx, &rest.first, &rest.last, &rows_of(MESSAGES_AT_A_TIME - 1)]).await?;
    row.as_ref().map_or(Ok(rest.last), |row| col(row, 0))
}

const ALONE: &str = "SELECT pg_advisory_xact_lock(7, $1::bigint::int)";

/// The index of a sandbox begins anew.
pub(super) async fn begin_anew(session: &Session, sbx: i64) -> Done<()> {
    session.query(ALONE, &[&sbx]).await?;
    hold_runs(session, sbx).await?;
    session.execute("DELETE FROM search_index WHERE sbx = $1", &[&sbx]).await?;
    session.execute("DELETE FROM search_run WHERE sbx = $1", &[&sbx]).await?;
    session.execute("DELETE FROM search_entry WHERE sbx = $1", &[&sbx]).await?;
    Ok(())
}

// ---- by whoever deletes ----

const NO_OTHER: &str = "SELECT pg_advisory_xact_lock(8, $1::bigint::int)";

/// No other makes a run until this transaction has ended.
pub(super) async fn hold_runs(session: &Session, sbx: i64) -> Done<()> {
    session.query(NO_OTHER, &[&sbx]).await?;
    Ok(())
}

/// Deletes the entries of these executions' messages to these texts: those for which this holds.
macro_rules! forget {
    ($condition:literal) => {
        concat!(
            "DELETE FROM search_entry n USING (SELECT w.exec, hashtextextended(w.text, 0) AS hash, r.run \
             FROM unnest($2::bigint[], $3::text[]) AS w (exec, text) CROSS JOIN LATERAL \
             ((SELECT run FROM search_run r WHERE r.sbx = $1 AND r.last >= w.exec ORDER BY run LIMIT 1) \
             UNION ALL SELECT 0) r WHERE ",
            $condition,
            ") d WHERE n.sbx = $1 AND n.run = d.run AND n.hash = d.hash AND n.exec = d.exec"
        )
    };
}

const FORGET_SOME: &str = forget!(
    "NOT EXISTS (SELECT FROM message m WHERE m.sbx = $1 AND m.exec = w.exec \
     AND (m.address = w.text OR m.user_id = w.text))"
);
const FORGET_ALL: &str = forget!("true");

/// The messages that these executions had to these addresses and user ids were deleted, or all that they had.
pub(super) async fn forget(session: &Session, sbx: i64, of: &[(i64, String)], had: Had) -> Done<()> {
    let executions: Vec<i64> = of.iter().map(|one| one.0).collect();
    let texts: Vec<&str> = of.iter().map(|one| one.1.as_str()).collect();
    let sql = match had {
        Had::Others => FORGET_SOME,
        Had::No => FORGET_ALL,
    };
    session.execute(sql, &[&sbx, &executions, &texts]).await?;
    Ok(())
}

/// Whether executions had messages that are still there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Had {
    Others,
    No,
}

/// Deletes the runs that are older than all messages: what was in them was forgotten with its messages.
pub(super) async fn trim(session: &Session, sbx: i64) -> Done<()> {
    let delete = "DELETE FROM search_run WHERE sbx = $1 AND last < \
                  coalesce((SELECT exec FROM message WHERE sbx = $1 ORDER BY exec, ord LIMIT 1), $2)";
    session.execute(delete, &[&sbx, &i64::MAX]).await?;
    Ok(())
}

// ---- by searches ----

const ASK: &str = "SELECT r.run, n.exec FROM unnest($2::int[]) AS r (run) CROSS JOIN LATERAL \
     (SELECT exec FROM search_entry n WHERE n.sbx = $1 AND n.run = r.run AND n.hash = hashtextextended($3, 0) \
     AND n.exec >= $4 AND n.exec < $5 ORDER BY n.exec DESC LIMIT $6) n ORDER BY n.exec DESC";

/// A search for a recipient's executions.
struct Search<'a> {
    session: &'a Session,
    sbx: i64,
    recipient: &'a str,
    range: Range<i64>,
}

/// The executions in this range that have a message to a recipient, from the latest on.
pub(super) async fn places(
    session: &Session,
    sbx: i64,
    recipient: &str,
    range: Range<i64>,
    window: usize,
) -> Done<Places> {
    if recipient.contains('\0') {
        return Ok(Places::default());
    }
    let runs = runs(session, sbx).await?;
    let covered = runs.first().map_or(0, |run| run.last);
    let search = Search { session, sbx, recipient, range };
    let mut places = Places::default();
    if !search.look_through(covered, window, &mut places).await? {
        return Ok(places);
    }
    let of_range = |run: &Run| run.first < search.range.end && run.last >= search.range.start;
    let runs: Vec<Run> = runs.into_iter().filter(of_range).collect();
    let (mut rest, mut count) = (runs.as_slice(), RUNS_AT_FIRST);
    'all: while !rest.is_empty() {
        let (now, later) = rest.split_at(count.min(rest.len()));
        let told = search.ask(now.iter().map(|run| run.number).collect()).await?;
        for run in now {
            if !places.add(*run, told.get(&run.number).map_or(&[], Vec::as_slice)) {
                break 'all;
            }
        }
        (rest, count) = (later, (count * 2).min(RUNS_AT_ONCE));
    }
    let late = search.ask(vec![LATE]).await?;
    Ok(places.and_late(late.get(&LATE).map_or(&[], Vec::as_slice)))
}

/// All executions that have a message to a recipient; none: it would take long to find them all.
pub(super) async fn all_places(
    session: &Session,
    sbx: i64,
    recipient: &str,
    window: usize,
) -> Done<Option<BTreeSet<i64>>> {
    let mut all = AllPlaces::default();
    while let Some(before) = all.before() {
        all.add(places(session, sbx, recipient, 0..before, window).await?);
    }
    Ok(all.whole())
}

impl Search<'_> {
    /// What these runs tell, of each the latest first.
    async fn ask(&self, runs: Vec<i32>) -> Done<HashMap<i32, Vec<i64>>> {
        let Range { start, end } = self.range;
        let found =
            self.session.query(ASK, &[&self.sbx, &runs, &self.recipient, &start, &end, &rows_of(MOST + 1)]).await?;
        let mut told: HashMap<i32, Vec<i64>> = HashMap::new();
        for row in &found {
            told.entry(col(row, 0)?).or_default().push(col(row, 1)?);
        }
        Ok(told)
    }

    /// Looks through messages that are in no run yet; whether the runs are wanted too.
    async fn look_through(&self, covered: i64, window: usize, places: &mut Places) -> Done<bool> {
        let (start, end) = (self.range.start.max(covered + 1), self.range.end);
        if start >= end {
            return Ok(true);
        }
        let sql = "SELECT exec FROM message WHERE sbx = $1 AND exec >= $2 AND exec < $3 \
                   ORDER BY exec DESC, ord DESC LIMIT 1 OFFSET $4";
        let last = self.session.query_opt(sql, &[&self.sbx, &start, &end, &rows_of(window - 1)]).await?;
        let last: Option<i64> = last.as_ref().map(|row| col(row, 0)).transpose()?;
        let first = last.unwrap_or(start);
        let sql = "SELECT DISTINCT exec FROM message WHERE sbx = $1 AND exec >= $2 AND exec < $3 \
                   AND (address = $4 OR user_id = $4) ORDER BY exec DESC LIMIT $5";
        let found = self.session.query(sql, &[&self.sbx, &first, &end, &self.recipient, &rows_of(MOST + 1)]).await?;
        let told = found.iter().map(|row| col(row, 0)).collect::<Done<Vec<i64>>>()?;
        Ok(places.add_unindexed(first, &told, last.is_none()))
    }
}
