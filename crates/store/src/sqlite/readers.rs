//! The readers: connections in a pool, each lookup bounded in time.

use crate::{Result, StoreError};
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The most lookups at a time.
const READERS: u32 = 4;
/// After this long a lookup is interrupted.
pub(super) const LONGEST_LOOKUP: Duration = Duration::from_secs(10);
/// After this long in the queue a lookup is given up.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A lookup asks after so many steps of SQLite's machine whether it is to end.
const STEPS_BETWEEN_LOOKS: i32 = 1000;

#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
    place: Place,
}

/// Where lookups run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On threads for blocking work.
    Threads,
    /// Where they are asked for: in a simulation, which has one thread.
    Inline,
}

impl Readers {
    pub fn new(file: PathBuf, place: Place) -> Self {
        Self { file, idle: Mutex::default(), turns: Arc::new(Semaphore::new(READERS as usize)), place }
    }

    /// Runs a lookup on a thread of its own.
    pub async fn read<T: Send + 'static>(
        &self,
        lookup: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let busy = || StoreError::Unavailable("too many lookups at a time".to_owned());
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(|_| StoreError::Unavailable("the store is closed".to_owned()))?;
        let mut connection = self.take()?;
        if self.place == Place::Inline {
            let result = lookup(&connection);
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            return result;
        }
        let stop = Stop::default();
        let is_set = Arc::clone(&stop.0);
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || is_set.load(Ordering::Relaxed)))?;
        // The lookup keeps its turn and its connection even where the caller goes away.
        let mut task = tokio::task::spawn_blocking(move || (lookup(&connection), connection, turn));
        let finished = match tokio::time::timeout(LONGEST_LOOKUP, &mut task).await {
            Ok(finished) => finished,
            Err(_) => {
                stop.set();
                task.await
            }
        };
        let (result, connection, _turn) =
            finished.map_err(|_| StoreError::Unavailable("a lookup panicked".to_owned()))?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }

    fn take(&self) -> Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => super::connect(&self.file, super::Access::Read),
        }
    }

    /// Waits until the lookups under way have ended; later ones fail.
    pub async fn close(&self) {
        let _all = self.turns.acquire_many(READERS).await;
        self.turns.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Ends a lookup early: past its time, or when nobody waits for it any more.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.set();
    }
}
