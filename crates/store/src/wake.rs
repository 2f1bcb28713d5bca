//! Hints: how the one who committed a row tells its owner at once.
//!
//! The row is the truth. A lost hint costs latency, never an event: the owner polls as well.

use model::delivery::DueDelivery;
use model::execution::DueMessage;
use model::ids::{ChannelConfigurationId, SandboxId};

/// What has changed.
#[derive(Clone, Debug)]
pub enum Hint {
    /// Messages were accepted: rows that are committed already.
    Messages {
        /// Their sandbox.
        sandbox: SandboxId,
        /// Through what they are sent.
        channel: ChannelConfigurationId,
        /// The rows.
        due: Vec<DueMessage>,
    },
    /// Deliveries were made or became due: rows that are committed already.
    Deliveries {
        /// Their sandbox.
        sandbox: SandboxId,
        /// The rows; empty: some were cancelled or made due by hand, and what waits in memory is not to be trusted.
        due: Vec<DueDelivery>,
    },
    /// The sandbox's webhook was made, changed or deleted.
    Webhook(SandboxId),
    /// All deliveries of the sandbox's webhook were made due, and are to go out at once.
    Drain(SandboxId),
    /// A replay was made.
    Replay,
    /// An erasure was asked for.
    Erasure,
    /// The channel configuration was changed or deleted.
    Channel(ChannelConfigurationId),
}

/// Takes hints to the owner.
pub trait Wake: Send + Sync + std::fmt::Debug {
    /// Passes a hint on, or drops it where the owner is busy: the owner then finds the rows by polling.
    fn hint(&self, hint: Hint);
}
