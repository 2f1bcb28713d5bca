//! The program's life: what runs, what ends it, and in which order.

use std::future::Future;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells tasks to stop and waits for them. Passed as an argument to whoever starts tasks; clones are the same life.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// Starts a task that the end waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Tells every task to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether the tasks were told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until the tasks are told to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Stops, and waits for the tasks; false where they did not end within `limit`.
    pub async fn end(&self, limit: Duration) -> bool {
        self.stop();
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }

    /// Stops at the first SIGTERM or SIGINT, and ends the process at the second.
    pub fn stop_on_signals(&self) -> std::io::Result<()> {
        let mut signals =
            Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        let stop = self.stop.clone();
        // Not tracked: it waits for the second signal as long as the process lives.
        tokio::spawn(async move {
            let first = signals.next().await;
            tracing::info!(signal = first, "stopping; a second signal ends at once");
            stop.cancel();
            let second = signals.next().await;
            tracing::warn!(signal = second, "ended by a second signal before all was drained");
            #[expect(clippy::disallowed_methods, reason = "the operator asked twice: nothing is waited for any more")]
            std::process::exit(128 + second);
        });
        Ok(())
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_waits_for_tasks_within_the_limit() {
        let life = Lifecycle::default();
        let inner = life.clone();
        life.spawn(async move {
            inner.stopping().await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        });
        assert!(!life.is_stopping());
        assert!(!life.end(Duration::from_millis(10)).await);
        assert!(life.end(Duration::from_secs(20)).await);
    }
}
