//! How much a process has its databases do: counted for benchmarks only, as SQLite tells of each statement at some cost.
//!
//! The counts are the process's and not a store's: they are read from outside, by whoever compares stores.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static IS_COUNTED: AtomicBool = AtomicBool::new(false);
static STATEMENTS: AtomicU64 = AtomicU64::new(0);
static ROWS_WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Counts from now on. Connections that are open already are not counted.
pub fn count() {
    IS_COUNTED.store(true, Ordering::Relaxed);
}

/// Whether it is counted.
pub fn is_counted() -> bool {
    IS_COUNTED.load(Ordering::Relaxed)
}

/// The statements that were run, those that begin and end transactions included.
pub fn statements() -> u64 {
    STATEMENTS.load(Ordering::Relaxed)
}

/// The rows of tables that the SQLite writer has inserted, changed and deleted. PostgreSQL counts its own
/// (`pg_stat_database`).
pub fn rows_written() -> u64 {
    ROWS_WRITTEN.load(Ordering::Relaxed)
}

pub(crate) fn add_statements(count: u64) {
    if is_counted() {
        STATEMENTS.fetch_add(count, Ordering::Relaxed);
    }
}

/// Counts the statements of a text that holds several.
pub(crate) fn add_script(sql: &str) {
    if is_counted() {
        add_statements(sql.split(';').filter(|part| !part.trim().is_empty()).count() as u64);
    }
}

pub(crate) fn add_rows_written(count: u64) {
    if is_counted() {
        ROWS_WRITTEN.fetch_add(count, Ordering::Relaxed);
    }
}
