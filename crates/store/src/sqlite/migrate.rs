//! Migrations: forward only, each with its checksum, each in one transaction, a copy of the file before.

use crate::{Result, StoreError};
use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::{Path, PathBuf};

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
    Migration { version: 5, name: "erasure mentions", sql: include_str!("migrations/0005_erasure_mentions.sql") },
    Migration { version: 6, name: "search", sql: include_str!("migrations/0006_search.sql") },
    Migration { version: 7, name: "search anew", sql: include_str!("migrations/0007_search_anew.sql") },
    Migration { version: 8, name: "statistics", sql: include_str!("migrations/0008_statistics.sql") },
];

fn checksum(sql: &str) -> Vec<u8> {
    digest(&SHA256, sql.as_bytes()).as_ref().to_vec()
}

/// Brings the schema up to date. Refuses a schema that is newer than the program or was made by altered steps.
pub(super) fn migrate(connection: &mut Connection, file: &Path) -> Result<()> {
    run(connection, file, MIGRATIONS)
}

fn run(connection: &mut Connection, file: &Path, steps: &[Migration]) -> Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS migration (
           version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum BLOB NOT NULL)",
    )?;
    let present = verify(connection, steps)?;
    for step in steps.iter().filter(|step| step.version > present) {
        if present > 0 {
            back_up(connection, file, step.version - 1)?;
        }
        apply(connection, step)?;
    }
    Ok(())
}

/// The version of a database's schema: one that this program knows.
pub(super) fn schema_of(connection: &Connection) -> Result<i64> {
    verify(connection, MIGRATIONS)
}

/// The version of the schema, after a check that it was made by these very steps.
fn verify(connection: &Connection, steps: &[Migration]) -> Result<i64> {
    let present: i64 = connection.query_row("SELECT coalesce(max(version), 0) FROM migration", [], |row| row.get(0))?;
    let known = steps.last().map_or(0, |step| step.version);
    if present > known {
        let told = format!("the database has schema {present}, this program knows up to {known}: use a newer Esito");
        return Err(StoreError::Corrupt(told));
    }
    for step in steps.iter().filter(|step| step.version <= present) {
        let stored: Option<Vec<u8>> = connection
            .query_row("SELECT checksum FROM migration WHERE version = ?1", [step.version], |row| row.get(0))
            .optional()?;
        if stored.as_deref() != Some(checksum(step.sql).as_slice()) {
            let told = format!("migration {} ({}) is not the one that made this database", step.version, step.name);
            return Err(StoreError::Corrupt(told));
        }
    }
    Ok(present)
}

fn apply(connection: &mut Connection, step: &Migration) -> Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(step.sql)?;
    transaction.execute(
        "INSERT INTO migration (version, name, checksum) VALUES (?1, ?2, ?3)",
        params![step.version, step.name, checksum(step.sql)],
    )?;
    transaction.commit()?;
    Ok(())
}

/// Copies the database beside itself, as it was at schema `version`.
fn back_up(connection: &Connection, file: &Path, version: i64) -> Result<()> {
    let target = backup_path(file, version);
    if target.exists() {
        // A former try got this far; its copy is of the same schema and at least as old.
        return Ok(());
    }
    let unfinished = target.with_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    }
    let path = unfinished.to_str().ok_or_else(|| StoreError::Unavailable("the path is not UTF-8".to_owned()))?;
    connection.execute("VACUUM INTO ?1", [path])?;
    let kept = std::fs::File::open(&unfinished).and_then(|copy| copy.sync_all());
    kept.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    std::fs::rename(&unfinished, &target).map_err(|error| StoreError::Unavailable(error.to_string()))
}

fn backup_path(file: &Path, version: i64) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".before-schema-{}", version + 1));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration { version: 1, name: "one", sql: "CREATE TABLE t (a)" };
    const TWO: Migration = Migration { version: 2, name: "two", sql: "ALTER TABLE t ADD COLUMN b" };

    fn open(folder: &tempfile::TempDir) -> (Connection, PathBuf) {
        let file = folder.path().join("x.db");
        (Connection::open(&file).unwrap(), file)
    }

    #[test]
    fn a_step_forward_keeps_a_copy_and_runs_once() {
        let folder = tempfile::tempdir().unwrap();
        let (mut connection, file) = open(&folder);
        run(&mut connection, &file, &[ONE]).unwrap();
        connection.execute("INSERT INTO t VALUES (7)", []).unwrap();
        assert!(!backup_path(&file, 0).exists());
        run(&mut connection, &file, &[ONE, TWO]).unwrap();
        run(&mut connection, &file, &[ONE, TWO]).unwrap();
        let copy = Connection::open(backup_path(&file, 1)).unwrap();
        assert_eq!(copy.query_row("SELECT a FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
        assert!(copy.prepare("SELECT b FROM t").is_err());
    }

    #[test]
    fn a_newer_schema_and_an_altered_step_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (mut connection, file) = open(&folder);
        run(&mut connection, &file, &[ONE, TWO]).unwrap();
        let newer = run(&mut connection, &file, &[ONE]).unwrap_err().to_string();
        assert!(newer.contains("use a newer Esito"), "{newer}");
        let altered = Migration { sql: "CREATE TABLE t (z)", ..ONE };
        let altered = run(&mut connection, &file, &[altered, TWO]).unwrap_err().to_string();
        assert!(altered.contains("not the one"), "{altered}");
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (mut connection, file) = open(&folder);
        let broken = Migration { version: 1, name: "broken", sql: "CREATE TABLE t (a); CREATE TABLE t (a)" };
        assert!(run(&mut connection, &file, &[broken]).is_err());
        assert!(connection.prepare("SELECT * FROM t").is_err());
        run(&mut connection, &file, &[ONE]).unwrap();
    }
}
