//! Channels: what sends a message and says what became of it.

pub mod compose;
pub mod email;
#[cfg(test)]
mod fixtures;
mod prepare;
pub mod simulator;
pub mod work;

pub use prepare::{Prepared, Templates, prepare};

use async_trait::async_trait;
use email::SmtpSender;
use model::channel::{ChannelConfiguration, ChannelType};
use model::clock::{Clock, Timestamp};
use model::execution::DueMessage;
use model::outcome::{Failure, Outcome, Verdict};
use rustls::ClientConfig;
use simulator::Simulator;
use std::sync::Arc;
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

impl Sent {
    /// Decided, and nothing follows.
    pub fn decided(verdict: Verdict, now: Timestamp) -> Self {
        Self::Decided { outcome: Outcome::new(verdict, now), planned: None }
    }
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

/// The sender of a channel configuration, with its secrets. What is compiled once is shared in `templates`; `tls` is
/// what a relay's certificate is checked against.
pub fn sender_for(
    configuration: &ChannelConfiguration,
    templates: Arc<Templates>,
    clock: Arc<dyn Clock>,
    tls: Arc<ClientConfig>,
) -> Arc<dyn Sender> {
    match configuration.settings.kind {
        ChannelType::Simulator => Arc::new(Simulator::new(templates, clock)),
        ChannelType::Smtp => match SmtpSender::new(&configuration.settings, templates, clock.clone(), tls) {
            Ok(sender) => Arc::new(sender),
            Err(reason) => Arc::new(Misconfigured { reason, clock }),
        },
    }
}

/// Stands for a channel configuration that cannot work. Its messages wait, so that it can be mended.
#[derive(Debug)]
struct Misconfigured {
    reason: String,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Sender for Misconfigured {
    async fn send(&self, _message: &DueMessage, _version: &LiveVersion, _gate: &dyn Gate) -> Sent {
        let delay = Outcome::new(Verdict::Delay, self.clock.now());
        Sent::Later { delay, at_the_end: Verdict::Error(Failure::admin(&self.reason)) }
    }
}
