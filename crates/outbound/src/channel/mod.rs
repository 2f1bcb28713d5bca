//! Channels: what sends a message and says what became of it.

pub mod work;

use async_trait::async_trait;
use model::clock::Timestamp;
use model::execution::DueMessage;
use model::outcome::{Outcome, Verdict};
use store::work::LiveVersion;

/// What a try to send came to. Whether to try again is decided here, where the error is made.
#[derive(Clone, Debug)]
pub enum Sent {
    /// It is decided: the outcome, and one that follows by itself where the channel knows it already.
    Decided {
        /// The outcome.
        outcome: Outcome,
        /// What follows, and when.
        planned: Option<(Timestamp, Outcome)>,
    },
    /// Not now. The caller tries again on its schedule; when that ends, `at_the_end` is the verdict.
    Later {
        /// The circumstances: what a `delay` event would tell.
        delay: Outcome,
        /// What it comes to when the time is up: a `bounce` of type Soft after refusals, an `error` after trouble.
        at_the_end: Verdict,
    },
    /// The gate stayed shut: nothing was sent, and nothing is to be recorded.
    Withheld,
}

/// Opened right before the last byte of a message can reach a relay or provider.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Marks the message as `handing-over`, durably. False: it must not be sent (any more).
    async fn open(&self) -> bool;
}

/// Sends the messages of one channel configuration.
#[async_trait]
pub trait Sender: Send + Sync + std::fmt::Debug {
    /// Tries to send one message.
    async fn send(&self, message: &DueMessage, version: &LiveVersion, gate: &dyn Gate) -> Sent;
}
