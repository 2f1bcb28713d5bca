//! What happened, counted: a row for each kind, which each lane has for itself.

use super::facts::Facts;
use super::rows::{big, byte, moment, rows_of};
use super::session::{Done, Session, col};
use crate::statistics::{BY_HOUR, BY_MINUTE, Backlog, Buckets, Counting, Counts, HOUR_MS, MOST_WAITING, SUCCESSES};
use model::clock::Timestamp;
use model::ids::SandboxId;

/// In the order of their keys.
pub(super) const COUNT: &str = "INSERT INTO statistic AS s (sbx, span, at, kind, part, n, last) \
     SELECT c.sbx, 0, c.at, c.kind, $1::smallint, c.n, c.last \
     FROM unnest($2::bigint[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[]) AS c (sbx, at, kind, n, last) \
     ON CONFLICT (sbx, span, at, kind, part) \
     DO UPDATE SET n = s.n + excluded.n, last = GREATEST(s.last, excluded.last)";

/// Writes what a transaction has counted: the last thing before its commit.
pub(super) async fn count(session: &Session, part: i16, mut counted: Counting) -> Done<()> {
    let (mut sbx, mut at, mut kinds, mut n, mut last) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for ((of, minute), counts) in counted.take() {
        for (kind, count) in counts.by_kind {
            sbx.push(of);
            at.push(minute);
            kinds.push(i16::from(kind));
            n.push(big(count));
            last.push(counts.last_success.filter(|_| SUCCESSES.contains(&kind)).map(Timestamp::millis));
        }
    }
    if sbx.is_empty() {
        return Ok(());
    }
    session.execute(COUNT, &[&part, &sbx, &at, &kinds, &n, &last]).await.map(drop)
}

const READ: &str = "SELECT $2 + (at - $2) / $4 * $4, kind, sum(n)::bigint FROM statistic \
     WHERE sbx = $1 AND span IN (0, 1) AND at >= $2 AND at < $3 GROUP BY 1, 2";

pub(super) async fn statistics(
    session: &Session,
    facts: &Facts,
    sandbox: SandboxId,
    buckets: &Buckets,
) -> Done<Vec<Counts>> {
    let sbx = facts.sandbox(session, sandbox).await?.sbx;
    let (from, to, length) = (buckets.from.millis(), buckets.to().millis(), buckets.length_ms());
    let rows = session.query(READ, &[&sbx, &from, &to, &length]).await?;
    let mut counted = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut counts = Counts::default();
        counts.count(byte(row, 1)?, u64::try_from(col::<i64>(row, 2)?).unwrap_or(0));
        counted.push((col(row, 0)?, counts));
    }
    Ok(buckets.sum(counted))
}

const LAST_SUCCESS: &str = "SELECT max(last) FROM statistic WHERE sbx = $1 AND span = $2 AND at = \
     (SELECT at FROM statistic WHERE sbx = $1 AND span = $2 AND last IS NOT NULL ORDER BY at DESC LIMIT 1)";

pub(super) async fn last_success(session: &Session, facts: &Facts, sandbox: SandboxId) -> Done<Option<Timestamp>> {
    let sbx = facts.sandbox(session, sandbox).await?.sbx;
    for span in [BY_MINUTE, BY_HOUR] {
        let row = session.query_opt(LAST_SUCCESS, &[&sbx, &i16::from(span)]).await?;
        if let Some(at) = row.as_ref().map_or(Ok(None), |row| moment(row, 0))? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

const BACKLOG: &str = "SELECT \
     (SELECT count(*) FROM (SELECT FROM event WHERE sbx = $1 AND delivery = 1 LIMIT $2) pending) + \
     (SELECT count(*) FROM (SELECT FROM event WHERE sbx = $1 AND delivery = 2 LIMIT $2) blocked), \
     (SELECT due_at FROM event WHERE sbx = $1 AND delivery = 1 ORDER BY due_at LIMIT 1)";

pub(super) async fn backlog(session: &Session, facts: &Facts, sandbox: SandboxId) -> Done<Backlog> {
    let sbx = facts.sandbox(session, sandbox).await?.sbx;
    let Some(row) = session.query_opt(BACKLOG, &[&sbx, &big(MOST_WAITING + 1)]).await? else {
        return Ok(Backlog::default());
    };
    Ok(Backlog::new(u64::try_from(col::<i64>(&row, 0)?).unwrap_or(0), moment(&row, 1)?))
}

/// Whether there is anything to be moved or deleted before this moment.
pub(super) async fn is_any_before(session: &Session, sbx: i64, span: u8, before: Timestamp) -> Done<bool> {
    let sql = "SELECT 1 FROM statistic WHERE sbx = $1 AND span = $2 AND at < $3 LIMIT 1";
    Ok(session.query_opt(sql, &[&sbx, &i16::from(span), &before.millis()]).await?.is_some())
}

/// What a lane still adds to a row meanwhile is waited for, or begins the row anew.
macro_rules! take_some {
    () => {
        "DELETE FROM statistic s USING (SELECT at, kind, part FROM statistic WHERE sbx = $1 AND span = $2 AND at < $3 \
         ORDER BY at, kind, part LIMIT $4) n \
         WHERE s.sbx = $1 AND s.span = $2 AND s.at = n.at AND s.kind = n.kind AND s.part = n.part"
    };
}

const MOVE: &str = concat!(
    "WITH gone AS (",
    take_some!(),
    " RETURNING s.at, s.kind, s.n, s.last) INSERT INTO statistic AS s (sbx, span, at, kind, part, n, last) \
     SELECT $1, 1, at - at % $5, kind, 0, sum(n), max(last) FROM gone GROUP BY at - at % $5, kind \
     ON CONFLICT (sbx, span, at, kind, part) \
     DO UPDATE SET n = s.n + excluded.n, last = GREATEST(s.last, excluded.last)"
);

/// Moves some of what was counted by minute to the hours.
pub(super) async fn move_to_hours(session: &Session, sbx: i64, before: Timestamp, most: usize) -> Done<()> {
    let span = i16::from(BY_MINUTE);
    session.execute(MOVE, &[&sbx, &span, &before.millis(), &rows_of(most), &HOUR_MS]).await.map(drop)
}

const DELETE: &str = take_some!();

/// Deletes some of what was counted by hour.
pub(super) async fn delete_hours(session: &Session, sbx: i64, before: Timestamp, most: usize) -> Done<()> {
    let span = i16::from(BY_HOUR);
    session.execute(DELETE, &[&sbx, &span, &before.millis(), &rows_of(most)]).await.map(drop)
}
