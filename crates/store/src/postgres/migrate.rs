//! Migrations: forward only, each with its checksum, all that are missing in one transaction, one process at a time.

use super::session::{Done, Session, Target, col};
use crate::StoreError;
use aws_lc_rs::digest::{SHA256, digest};
use std::time::Duration;

/// A step of the schema. A step that was ever released never changes.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "first", sql: include_str!("migrations/0001_first.sql") },
    Migration { version: 2, name: "replay", sql: include_str!("migrations/0002_replay.sql") },
    Migration { version: 3, name: "retention", sql: include_str!("migrations/0003_retention.sql") },
    Migration { version: 4, name: "erasure", sql: include_str!("migrations/0004_erasure.sql") },
    Migration { version: 5, name: "search", sql: include_str!("migrations/0005_search.sql") },
    Migration { version: 6, name: "search anew", sql: include_str!("migrations/0006_search_anew.sql") },
    Migration { version: 7, name: "statistics", sql: include_str!("migrations/0007_statistics.sql") },
];

/// Locks others out until the end of the transaction; the numbers are Esito's own ("esito", "schema").
const LOCK: &str = "SELECT pg_advisory_xact_lock(1702062452, 1935894893)";

fn checksum(sql: &str) -> Vec<u8> {
    digest(&SHA256, sql.as_bytes()).as_ref().to_vec()
}

/// Brings the schema up to date. Refuses a schema that is newer than the program or was made by altered steps.
pub(super) async fn migrate(target: &Target) -> Done<()> {
    // Steps may take as long as they take.
    let session = target.connect(Duration::ZERO).await?;
    run(&session, MIGRATIONS).await
}

async fn run(session: &Session, steps: &[Migration]) -> Done<()> {
    check_encoding(session).await?;
    session.run(&format!("BEGIN; {LOCK}")).await?;
    let migrated = apply_all(session, steps).await;
    match migrated {
        Ok(()) => session.commit().await,
        Err(fault) => {
            session.run("ROLLBACK").await?;
            Err(fault)
        }
    }
}

async fn check_encoding(session: &Session) -> Done<()> {
    let row = session.query_opt("SELECT current_setting('server_encoding')", &[]).await?;
    let encoding: String = row.as_ref().map_or(Ok(String::new()), |row| col(row, 0))?;
    match encoding.as_str() {
        "UTF8" => Ok(()),
        _ => Err(StoreError::Corrupt(format!("the database's encoding is {encoding}; make one with UTF8")).into()),
    }
}

async fn apply_all(session: &Session, steps: &[Migration]) -> Done<()> {
    let table = "CREATE TABLE IF NOT EXISTS migration (version BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum BYTEA NOT NULL)";
    session.run(table).await?;
    let present = verify(session, steps).await?;
    for step in steps.iter().filter(|step| step.version > present) {
        session.run(step.sql).await?;
        let insert = "INSERT INTO migration (version, name, checksum) VALUES ($1, $2, $3)";
        session.execute(insert, &[&step.version, &step.name, &checksum(step.sql)]).await?;
    }
    Ok(())
}

/// The version of the schema, after a check that it was made by these very steps.
async fn verify(session: &Session, steps: &[Migration]) -> Done<i64> {
    let rows = session.query("SELECT version, checksum FROM migration ORDER BY version", &[]).await?;
    let mut present = 0;
    let known = steps.last().map_or(0, |step| step.version);
    for row in &rows {
        present = col(row, 0)?;
        let made_by: Vec<u8> = col(row, 1)?;
        let Some(step) = steps.iter().find(|step| step.version == present) else {
            let newest = rows.last().map_or(Ok(present), |row| col(row, 0))?;
            let told = format!("the database has schema {newest}, this program knows up to {known}: use a newer Esito");
            return Err(StoreError::Corrupt(told).into());
        };
        if made_by != checksum(step.sql) {
            let told = format!("migration {} ({}) is not the one that made this database", step.version, step.name);
            return Err(StoreError::Corrupt(told).into());
        }
    }
    Ok(present)
}

#[cfg(test)]
#[cfg(feature = "peers")]
mod tests {
    use super::*;
    use crate::postgres::throwaway::Database;

    const ONE: Migration = Migration { version: 1, name: "one", sql: "CREATE TABLE t (a BIGINT)" };
    const TWO: Migration = Migration { version: 2, name: "two", sql: "ALTER TABLE t ADD COLUMN b BIGINT" };

    async fn session(database: &Database) -> Session {
        Target::parse(database.url()).unwrap().connect(Duration::ZERO).await.unwrap()
    }

    fn told(done: Done<()>) -> String {
        StoreError::from(done.unwrap_err()).to_string()
    }

    #[tokio::test]
    async fn steps_run_once_and_newer_or_altered_ones_are_refused() {
        let database = Database::new().await;
        let session = session(&database).await;
        run(&session, &[ONE]).await.unwrap();
        session.run("INSERT INTO t VALUES (7)").await.unwrap();
        run(&session, &[ONE, TWO]).await.unwrap();
        run(&session, &[ONE, TWO]).await.unwrap();
        assert!(session.query_opt("SELECT a, b FROM t", &[]).await.unwrap().is_some());
        let newer = told(run(&session, &[ONE]).await);
        assert!(newer.contains("use a newer Esito"), "{newer}");
        let altered = told(run(&session, &[Migration { sql: "CREATE TABLE t (z BIGINT)", ..ONE }, TWO]).await);
        assert!(altered.contains("not the one"), "{altered}");
    }

    #[tokio::test]
    async fn a_step_that_fails_leaves_nothing_behind() {
        let database = Database::new().await;
        let session = session(&database).await;
        let broken =
            Migration { version: 1, name: "broken", sql: "CREATE TABLE t (a BIGINT); CREATE TABLE t (a BIGINT)" };
        assert!(run(&session, &[broken]).await.is_err());
        assert!(session.query("SELECT * FROM t", &[]).await.is_err());
        run(&session, &[ONE]).await.unwrap();
    }

    #[tokio::test]
    async fn eight_starts_at_once_make_one_schema() {
        let database = Database::new().await;
        let mut starts = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let target = Target::parse(database.url()).unwrap();
            starts.spawn(async move { migrate(&target).await.map_err(StoreError::from) });
        }
        assert!(starts.join_all().await.into_iter().all(|done| done.is_ok()));
    }
}
