//! Outcomes: what a channel said became of a message.
//!
//! Statuses, categories, types and codes are those of Adobe's public XDM schema "message delivery feedback".

use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The status of a feedback event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FeedbackStatus {
    /// Accepted by the relay or provider.
    Sent,
    /// The provider or the receiving side confirms it.
    Delivered,
    /// Refused, in the dialogue (sync) or later (async).
    Bounce,
    /// Processing failed.
    Error,
    /// The recipient was filtered out before the send.
    Exclude,
    /// The provider skipped an address that it knows to be bad.
    Denylist,
    /// Not yet; it will be tried again.
    Delay,
}

impl FeedbackStatus {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Sent, Self::Delivered, Self::Bounce, Self::Error, Self::Exclude, Self::Denylist, Self::Delay];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Bounce => "bounce",
            Self::Error => "error",
            Self::Exclude => "exclude",
            Self::Denylist => "denylist",
            Self::Delay => "delay",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// Whether a failure came during the send or afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailureCategory {
    /// During the send.
    Sync,
    /// Afterwards.
    Async,
}

/// How final a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum FailureType {
    /// The address is bad for good.
    Hard,
    /// It may work another time.
    Soft,
    /// It says nothing about the address.
    Ignored,
}

/// Why a message failed: `messageFailure`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// During the send or afterwards.
    pub category: FailureCategory,
    /// How final it is.
    #[serde(rename = "type")]
    pub failure_type: FailureType,
    /// The public code, e.g. `10` for an invalid recipient.
    pub code: String,
    /// The relay's or provider's own words.
    pub reason: String,
}

/// The code of a failure in Esito's own or the operator's administration; type `Ignored` on the wire.
pub const CODE_ADMIN_FAILURE: &str = "25";

impl Failure {
    /// A failure of processing that says nothing about the address.
    pub fn admin(reason: impl Into<String>) -> Self {
        Self {
            category: FailureCategory::Sync,
            failure_type: FailureType::Ignored,
            code: CODE_ADMIN_FAILURE.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Why a recipient was left out: `messageExclusion`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exclusion {
    /// The public code, e.g. `050024`.
    pub code: String,
    /// The public name of the code, e.g. `EmailMalformedAddress`.
    pub reason: String,
    /// What exactly was wrong.
    pub details: Option<String>,
}

macro_rules! exclusions {
    ($($(#[$doc:meta])* $make:ident = $code:literal $reason:literal,)*) => {
        impl Exclusion {$(
            $(#[$doc])*
            pub fn $make(details: impl Into<String>) -> Self {
                Self { code: $code.to_owned(), reason: $reason.to_owned(), details: Some(details.into()) }
            }
        )*}
    };
}

exclusions! {
    /// The message could not be handed to the channel, for a reason that is not the recipient's.
    dispatch_error = "050301" "RuntimeDispatchError",
    /// The content could not be rendered for this recipient.
    rendering_error = "050302" "RuntimeRenderingError",
    /// No email address was given.
    no_email_address = "050020" "EmailNoAddressFoundInProfile",
    /// The email address is not one.
    malformed_email_address = "050024" "EmailMalformedAddress",
    /// No telephone number was given, or it is not one.
    no_phone_number = "050153" "SMSNoToNumberDefinedInProfile",
}

/// What happened to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "status", content = "why")]
pub enum Verdict {
    /// The relay or provider accepted it.
    Sent,
    /// Its arrival was confirmed.
    Delivered,
    /// It was refused, or came back.
    Bounce(Failure),
    /// Processing failed.
    Error(Failure),
    /// The recipient was left out.
    Exclude(Exclusion),
    /// The provider left the recipient out.
    Denylist(Exclusion),
    /// Not yet.
    Delay,
}

impl Verdict {
    /// The status that a feedback event about it has.
    pub fn status(&self) -> FeedbackStatus {
        match self {
            Self::Sent => FeedbackStatus::Sent,
            Self::Delivered => FeedbackStatus::Delivered,
            Self::Bounce(_) => FeedbackStatus::Bounce,
            Self::Error(_) => FeedbackStatus::Error,
            Self::Exclude(_) => FeedbackStatus::Exclude,
            Self::Denylist(_) => FeedbackStatus::Denylist,
            Self::Delay => FeedbackStatus::Delay,
        }
    }

    /// Why it failed; for bounces and errors.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Bounce(failure) | Self::Error(failure) => Some(failure),
            _ => None,
        }
    }

    /// Why the recipient was left out.
    pub fn exclusion(&self) -> Option<&Exclusion> {
        match self {
            Self::Exclude(exclusion) | Self::Denylist(exclusion) => Some(exclusion),
            _ => None,
        }
    }

    /// Whether it can only have come after the relay or provider had accepted the message.
    pub fn implies_sent(&self) -> bool {
        match self {
            Self::Delivered => true,
            Self::Bounce(failure) => failure.category == FailureCategory::Async,
            _ => false,
        }
    }
}

/// An outcome: a verdict with its circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// What happened.
    pub verdict: Verdict,
    /// When, as far as known.
    pub occurred_at: Timestamp,
    /// The relay's reply code or the provider's HTTP status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_code: Option<u16>,
    /// How long the relay or provider took to answer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_duration_ms: Option<u32>,
    /// SMS: `GSM` or `UNICODE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// SMS: the number of parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u16>,
}

impl Outcome {
    /// An outcome with no circumstances but its time.
    pub fn new(verdict: Verdict, occurred_at: Timestamp) -> Self {
        Self { verdict, occurred_at, response_code: None, response_duration_ms: None, encoding: None, parts: None }
    }
}
