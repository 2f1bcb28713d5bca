//! The index of recipients: made beside live traffic, a part at a time, some seconds behind what is accepted.

use model::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long after a part the next one is made, in times of what it took: even a backlog leaves live traffic most of the
/// store, which itself takes pauses in making one.
const REST: u32 = 1;
/// And how long it is at most.
const MOST_REST: Duration = Duration::from_secs(2);
/// How long nothing is done where there was nothing to be done.
const IDLE: Duration = Duration::from_secs(1);

/// Makes the index.
#[derive(Debug)]
pub struct Indexing {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
}

impl Indexing {
    /// Works until the stop.
    pub(crate) async fn keep(self) {
        loop {
            let began = Instant::now();
            let rest = match self.store.index_step(self.clock.now()).await {
                Ok(true) => (began.elapsed() * REST).min(MOST_REST),
                Ok(false) => IDLE,
                Err(error) => {
                    tracing::warn!(%error, "the index of recipients cannot be made now");
                    MOST_REST
                }
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }
}
