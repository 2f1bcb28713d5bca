//! Databases watched from outside: their processor time and what they write to their logs.

use super::account::{family_micros, thread_names_and_micros};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::{Client, NoTls};
use tokio_util::task::AbortOnDropHandle;

/// The processor time so far of the threads that write SQLite's file.
pub fn store_micros(pid: u32) -> f64 {
    let of_the_store = |(name, _): &(String, f64)| ["esito-writer", "esito-checkpoin"].contains(&name.as_str());
    thread_names_and_micros(pid).into_iter().filter(of_the_store).map(|(_, micros)| micros).sum()
}

/// How often SQLite's log is looked at. It starts anew every few seconds at most.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// How much goes through SQLite's write-ahead log. It is overwritten again and again, so its size does not tell.
pub struct Log {
    bytes: Arc<AtomicU64>,
    _watching: AbortOnDropHandle<()>,
}

/// The log as the head of its index says (<https://www.sqlite.org/walformat.html#the_wal_index_header>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Changes with each new beginning.
    salt: [u8; 4],
    frames: u32,
    page_bytes: u32,
}

/// Bytes before each page in the log.
const FRAME_HEAD: u64 = 24;

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let four = |at: usize| bytes.get(at..at + 4)?.try_into().ok();
        let short = u16::from_ne_bytes(bytes.get(14..16)?.try_into().ok()?);
        // 65,536 does not fit and is written as 1.
        let page_bytes = if short == 1 { 65_536 } else { u32::from(short) };
        Some(Self { salt: four(32)?, frames: u32::from_ne_bytes(four(16)?), page_bytes })
    }

    /// What was written since `before`.
    fn bytes_since(self, before: Self) -> u64 {
        let new = if self.salt == before.salt { self.frames.saturating_sub(before.frames) } else { self.frames };
        u64::from(new) * (u64::from(self.page_bytes) + FRAME_HEAD)
    }
}

fn read_head(index: &Path) -> Option<Head> {
    Head::of(fs::read(index).ok()?.get(..48)?)
}

impl Log {
    /// Watches the log that has this index.
    pub fn watch(index: PathBuf) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let sum = Arc::clone(&bytes);
        let mut last = read_head(&index);
        let watching = tokio::spawn(async move {
            let mut ticks = interval(BETWEEN_LOOKS);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let now = read_head(&index);
                if let (Some(now), Some(last)) = (now, last) {
                    sum.fetch_add(now.bytes_since(last), Ordering::Relaxed);
                }
                last = now.or(last);
            }
        });
        Self { bytes, _watching: AbortOnDropHandle::new(watching) }
    }

    /// What was written so far.
    #[expect(clippy::cast_precision_loss, reason = "a bench writes far less than 2^52 bytes")]
    pub fn bytes(&self) -> f64 {
        self.bytes.load(Ordering::Relaxed) as f64
    }
}

/// A PostgreSQL server on this machine.
pub struct Postgres {
    client: Client,
    /// The process that all others of the server are children of.
    first: u32,
    _connection: AbortOnDropHandle<()>,
}

/// What it did so far.
#[derive(Clone, Copy, Debug)]
pub struct PostgresAccount {
    /// The processor time of all its processes, those that have ended included.
    pub cpu_micros: f64,
    /// Bytes of its log.
    pub wal_bytes: f64,
    /// Rows that were inserted, changed and deleted in this database, by sessions that have told of it.
    pub rows_written: f64,
    /// Transactions in this database that have ended, by the same.
    pub transactions: f64,
}

/// The numbers that the database knows.
const NUMBERS: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8, \
    (tup_inserted + tup_updated + tup_deleted)::float8, (xact_commit + xact_rollback)::float8 \
    FROM pg_stat_database WHERE datname = current_database()";

impl Postgres {
    /// Connects, without TLS: the server is on this machine.
    pub async fn connect(url: &str) -> Result<Self, String> {
        let told = |error: tokio_postgres::Error| format!("PostgreSQL: {error}");
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(told)?;
        // Its end is seen by whoever asks next.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(told)?.get(0);
        let first = u32::try_from(pid).ok().and_then(parent_of);
        let first =
            first.ok_or("the PostgreSQL server must be on this machine, where its processor time can be read")?;
        Ok(Self { client, first, _connection: connection })
    }

    /// What it did so far.
    pub async fn account(&self) -> Result<PostgresAccount, String> {
        let row = self.client.query_one(NUMBERS, &[]).await.map_err(|error| format!("PostgreSQL: {error}"))?;
        let children = fs::read_dir("/proc").map_err(|error| error.to_string())?;
        let pids = children.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let own = pids.filter(|pid| *pid == self.first || parent_of(*pid) == Some(self.first));
        let cpu_micros = own.filter_map(family_micros).sum();
        Ok(PostgresAccount { cpu_micros, wal_bytes: row.get(0), rows_written: row.get(1), transactions: row.get(2) })
    }

    /// Does what a filling in minutes has left it to do, and what in years is done along the way. For a superuser.
    pub async fn settle(&self) -> Result<(), String> {
        for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
            self.client.batch_execute(statement).await.map_err(|error| format!("PostgreSQL: {statement}: {error}"))?;
        }
        Ok(())
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    if !status.starts_with("Name:\tpostgres\n") {
        return None;
    }
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_began_anew_counts_from_its_beginning() {
        let head = |salt: u8, frames: u32| {
            let mut bytes = [0; 48];
            bytes[14..16].copy_from_slice(&4096_u16.to_ne_bytes());
            bytes[16..20].copy_from_slice(&frames.to_ne_bytes());
            bytes[32] = salt;
            Head::of(&bytes).unwrap()
        };
        assert_eq!(head(1, 5).bytes_since(head(1, 2)), 3 * 4120);
        assert_eq!(head(2, 5).bytes_since(head(1, 9)), 5 * 4120);
        assert_eq!(head(1, 5).bytes_since(head(1, 5)), 0);
        assert_eq!(Head::of(&[0; 20]), None);
    }

    #[tokio::test]
    async fn all_that_goes_through_a_log_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("a.db-shm");
        let connection = rusqlite::Connection::open(folder.path().join("a.db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
        let head = || read_head(&index).unwrap();
        let first = head();
        let log = Log::watch(index.clone());
        let seen = async |wanted: u64| {
            let coming = async {
                while log.bytes.load(Ordering::Relaxed) < wanted {
                    tokio::time::sleep(BETWEEN_LOOKS).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), coming).await.expect("it is seen");
            assert_eq!(log.bytes.load(Ordering::Relaxed), wanted);
        };
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        let before = head();
        assert_eq!(before.frames, first.frames + 1);
        let one = 4096 + FRAME_HEAD;
        seen(one).await;
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES (3)").unwrap();
        assert_ne!(head().salt, before.salt, "it began anew");
        seen(2 * one).await;
    }
}
