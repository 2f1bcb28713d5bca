//! Webhook deliveries and their attempts.

use crate::clock::Timestamp;
use crate::feedback::FeedbackEvent;
use crate::ids::ReplayId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Where a delivery stands, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Due, or waiting for an earlier event of its message.
    Pending,
    /// Its webhook is disabled or paused; no attempt is used up.
    Held,
    /// At least one attempt failed; another is due.
    Failing,
    /// The endpoint took it.
    Succeeded,
    /// Given up: kept, visible, may be retried by hand.
    Exhausted,
    /// Cancelled.
    Cancelled,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Held, Self::Failing, Self::Succeeded, Self::Exhausted, Self::Cancelled];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Failing => "failing",
            Self::Succeeded => "succeeded",
            Self::Exhausted => "exhausted",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// Where a delivery stands, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredDelivery {
    /// The event has none: no webhook wanted it when it was recorded.
    None,
    /// Due at its time.
    Pending,
    /// Waits until the event before it in its message has ended.
    Blocked,
    /// The endpoint took it.
    Succeeded,
    /// Given up.
    Exhausted,
    /// Cancelled.
    Cancelled,
}

impl StoredDelivery {
    const ALL: [Self; 6] =
        [Self::None, Self::Pending, Self::Blocked, Self::Succeeded, Self::Exhausted, Self::Cancelled];

    /// The code that a store keeps. Codes never change.
    pub fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Pending => 1,
            Self::Blocked => 2,
            Self::Succeeded => 3,
            Self::Exhausted => 4,
            Self::Cancelled => 5,
        }
    }

    /// The state with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Whether an event after it in its message has to wait.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Blocked)
    }

    /// What is shown for it; none where there is no delivery.
    pub fn shown(self, webhook_is_held: bool, failures: u32) -> Option<DeliveryState> {
        match self {
            Self::None => None,
            Self::Pending | Self::Blocked if webhook_is_held => Some(DeliveryState::Held),
            Self::Pending if failures > 0 => Some(DeliveryState::Failing),
            Self::Pending | Self::Blocked => Some(DeliveryState::Pending),
            Self::Succeeded => Some(DeliveryState::Succeeded),
            Self::Exhausted => Some(DeliveryState::Exhausted),
            Self::Cancelled => Some(DeliveryState::Cancelled),
        }
    }
}

/// A delivery that is due.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// The event's place in the feed: the row.
    pub sequence: i64,
    /// The event.
    pub event: Arc<FeedbackEvent>,
    /// The failed attempts so far.
    pub failures: u32,
    /// When the first attempt was due, on the webhook's clock that stands still while it is held.
    pub first_due: Timestamp,
    /// When this attempt is due.
    pub due_at: Timestamp,
    /// The replay that made it due again.
    pub replay: Option<ReplayId>,
}

/// What kept an attempt from succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptErrorKind {
    /// The webhook's own settings do not work: its key or a header.
    Configuration,
    /// The guard refused the address.
    Guard,
    /// The token endpoint gave no access token, whatever the reason; the endpoint itself was not asked.
    Token,
    /// The host name did not resolve.
    Dns,
    /// No connection.
    Connect,
    /// The TLS handshake failed: the certificate, most often.
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection broke, or the answer was no HTTP.
    Protocol,
    /// An answer other than 2xx.
    Status,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptError {
    /// What kind of failure.
    pub kind: AttemptErrorKind,
    /// What exactly.
    pub message: String,
}

/// One try to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// The beginning of the answer's body.
    pub response_excerpt: Option<String>,
    /// Why it failed; null: it succeeded.
    pub error: Option<AttemptError>,
}

/// The most bytes of an answer that an attempt keeps.
pub const EXCERPT_BYTES: usize = 1024;

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptDecision {
    /// The endpoint took it.
    Succeeded,
    /// Another try, not before this.
    RetryAt(Timestamp),
    /// The time is up.
    Exhausted,
    /// The endpoint answered 410: the webhook is disabled, the delivery stays and is held, and nothing is used up.
    Gone,
}
