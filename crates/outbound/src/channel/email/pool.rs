//! Which connections to the relay are open: at most as many as the relay takes, and used again.

use super::relay::Connection;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Relays close idle connections after some minutes; one that waited for less is probably open still.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// A connection is not kept for ever, so that a relay behind a changed name or a balancer is found anew.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The connections to one relay. Every open one is either leased or idle, and a new one is opened only under a lease
/// when none is idle, so that there are never more than leases.
pub(super) struct Pool {
    permits: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// The right to one open connection.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    permit: Option<SemaphorePermit<'a>>,
}

impl Pool {
    pub(super) fn new(max_connections: u32) -> Self {
        let permits = usize::try_from(max_connections.max(1)).unwrap_or(1);
        Self { permits: Semaphore::new(permits), idle: Mutex::default() }
    }

    /// Waits for the right to a connection; who waits longest gets it first.
    pub(super) async fn lease(&self) -> Lease<'_> {
        // The semaphore is never closed, so there always is a permit.
        Lease { pool: self, permit: self.permits.acquire().await.ok() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    /// The connection that was used last, if one is open and not too old. The old ones are closed.
    pub(super) fn idle(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.pool.idle();
        idle.retain(|one| now - one.since < MAX_IDLE && now - one.connection.opened < MAX_AGE);
        idle.pop().map(|one| one.connection)
    }

    /// Leaves an open connection for the next lease.
    pub(super) fn give_back(mut self, connection: Connection) {
        self.pool.idle().push(Idle { connection, since: Instant::now() });
        // Not before the connection is there to be found, or the next lease would open one more.
        self.permit.take();
    }
}
