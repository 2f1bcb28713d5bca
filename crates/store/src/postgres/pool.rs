//! A small pool of connections: for lookups, and for administrative changes.

use super::session::{ANSWER_LIMIT, Done, Fault, STATEMENT_LIMIT, Session, Target};
use crate::StoreError;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// After this long in the queue a caller is told to come again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Pool {
    target: Arc<Target>,
    idle: Mutex<Vec<Session>>,
    turns: Arc<Semaphore>,
    size: u32,
}

impl Pool {
    pub fn new(target: Arc<Target>, size: u32) -> Arc<Self> {
        Arc::new(Self { target, idle: Mutex::default(), turns: Arc::new(Semaphore::new(size as usize)), size })
    }

    /// A connection, for as long as what this returns is kept.
    pub async fn take(self: &Arc<Self>) -> Done<Pooled> {
        let turn = tokio::time::timeout(LONGEST_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let busy = || StoreError::Unavailable("all connections to the database are busy".to_owned());
        let turn = turn.map_err(|_| busy())?.map_err(|_| StoreError::Unavailable("the store is closed".to_owned()))?;
        let session = match self.idle() {
            Some(session) => session,
            None => self.target.connect(STATEMENT_LIMIT).await?,
        };
        Ok(Pooled { session, pool: Arc::clone(self), turn })
    }

    fn idle(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|session| !session.is_closed());
        idle.pop()
    }

    pub fn is_closed(&self) -> bool {
        self.turns.is_closed()
    }

    /// Waits until what is under way has ended; later takers fail.
    pub async fn close(&self) {
        let _all = self.turns.acquire_many(self.size).await;
        self.turns.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A connection of a pool. Dropped half-way it is closed, since nobody knows what is still under way on it.
#[derive(Debug)]
pub(super) struct Pooled {
    session: Session,
    pool: Arc<Pool>,
    turn: OwnedSemaphorePermit,
}

impl Deref for Pooled {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Pooled {
    /// Gives the connection back, unless what came of its use speaks against it.
    pub fn give_back<T>(self, result: Done<T>) -> Done<T> {
        let Self { session, pool, turn } = self;
        if result.as_ref().err().is_none_or(Fault::leaves_the_session) && !session.is_closed() {
            pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
        drop(turn);
        result
    }

    /// Ends a transaction: commits what succeeded, undoes what did not.
    pub async fn end<T>(self, result: Done<T>) -> Done<T> {
        let ended = match result {
            Ok(done) => in_time(self.session.commit()).await.map(|()| done),
            Err(fault) => match in_time(self.session.run("ROLLBACK")).await {
                Ok(()) => Err(fault),
                // The connection may be in any state.
                Err(_) => return Err(fault),
            },
        };
        self.give_back(ended)
    }
}

/// Bounds a wait for the database.
pub(super) async fn in_time<T>(work: impl Future<Output = Done<T>>) -> Done<T> {
    tokio::time::timeout(ANSWER_LIMIT, work).await.unwrap_or(Err(Fault::Late))
}

/// Runs a lookup on a connection of the pool.
macro_rules! lookup {
    ($pool:expr, |$session:ident| $work:expr) => {{
        let pooled = $pool.take().await?;
        let $session: &$crate::postgres::session::Session = &pooled;
        let found = $crate::postgres::pool::in_time($work).await;
        pooled.give_back(found).map_err($crate::StoreError::from)
    }};
}

/// Runs a unit in a transaction of its own, a few times where it is in another's way.
macro_rules! unit {
    ($pool:expr, |$session:ident| $work:expr) => {{
        let mut tries = $crate::postgres::pool::TRIES;
        loop {
            let pooled = $pool.take().await?;
            let done = {
                let $session: &$crate::postgres::session::Session = &pooled;
                $crate::postgres::pool::in_time(async {
                    $session.begin().await?;
                    $work.await
                })
                .await
            };
            tries -= 1;
            match pooled.end(done).await {
                Err(fault) if fault.is_passing() && tries > 0 => {}
                ended => break ended.map_err($crate::StoreError::from),
            }
        }
    }};
}

/// How often a transaction is tried that is in another's way.
pub(super) const TRIES: u32 = 5;

pub(super) use {lookup, unit};
