//! Executions and their recipients.

use crate::clock::Timestamp;
use crate::ids::{ApiKeyId, CampaignId, CampaignVersionId, ExecutionId, MessageKey};
use crate::outcome::Outcome;
use crate::webhook::Channel;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// The fewest and the most recipients of an execution.
pub const RECIPIENTS: std::ops::RangeInclusive<usize> = 1..=20;

/// The most bytes of a recipient's `context`.
pub const MAX_CONTEXT_BYTES: usize = 200_000;

/// How urgent an execution's messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// `unitary`: goes first.
    Unitary,
    /// `highthroughput`: never ahead of unitary ones.
    HighThroughput,
}

impl Priority {
    /// The code that a store keeps; lower goes first.
    pub fn code(self) -> u8 {
        match self {
            Self::Unitary => 0,
            Self::HighThroughput => 1,
        }
    }

    /// The priority with this code.
    pub fn from_code(code: u8) -> Self {
        if code == 0 { Self::Unitary } else { Self::HighThroughput }
    }
}

/// The facts of an execution that its messages and feedback events share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionFacts {
    /// The execution.
    pub id: ExecutionId,
    /// The caller's own id, echoed in every event.
    pub request_id: String,
    /// The campaign.
    pub campaign: CampaignId,
    /// The campaign's version when the execution was accepted.
    pub version: CampaignVersionId,
    /// The campaign's channel.
    pub channel: Channel,
    /// Unitary or high throughput.
    pub priority: Priority,
    /// What is not handed over by then is not sent any more.
    pub expires_at: Option<Timestamp>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The name of the API key that sent it.
    pub created_by: String,
    /// The id of that key.
    pub created_by_key: ApiKeyId,
}

/// What is personal about a message: kept only as long as a try can need it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Personalization {
    /// The recipient's `context`, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Box<RawValue>>,
    /// The recipient's `profile`, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Box<RawValue>>,
}

/// Who a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The caller's id of the person, unique in the call.
    pub user_id: String,
    /// The namespace of that id, e.g. `email`, `Phone`, `ECID`.
    pub namespace: String,
    /// The address for the campaign's channel; none: the recipient is excluded.
    pub address: Option<String>,
}

impl Recipient {
    /// What a search finds it by: the id and, where it is another text, the address.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let address = self.address.as_deref().filter(|address| *address != self.user_id);
        std::iter::once(self.user_id.as_str()).chain(address)
    }
}

/// A message that waits to be sent, with all that sending needs but the campaign's content.
#[derive(Clone, Debug)]
pub struct DueMessage {
    /// Which one.
    pub key: MessageKey,
    /// Its execution.
    pub execution: Arc<ExecutionFacts>,
    /// Who it is for.
    pub recipient: Arc<Recipient>,
    /// Context and profile.
    pub personalization: Option<Arc<Personalization>>,
    /// The failed tries so far.
    pub failures: u32,
    /// When the first try was due.
    pub first_due: Timestamp,
    /// When this try is due.
    pub due_at: Timestamp,
    /// A former process marked it `handing-over` and then ended: it may have been sent.
    pub may_have_been_sent: bool,
    /// Whether a `delay` was already recorded.
    pub delayed: bool,
    /// An outcome that was recorded for later together with an earlier one (the simulator's second): nothing is sent,
    /// it becomes due and is recorded.
    pub planned: Option<Outcome>,
}

/// Whether `address` looks like a deliverable email address: an ASCII `local@domain` in the dot-atom form of RFC 5322
/// section 3.2.3, within the lengths of RFC 5321 section 4.5.3.1. Quoted local parts and address literals are refused,
/// as mailbox providers do.
pub fn is_email_address(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    let dot_atom = |text: &str| text.split('.').all(|part| !part.is_empty() && part.bytes().all(atom));
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    local.len() <= 64 && address.len() <= 254 && dot_atom(local) && domain.split('.').all(label)
}

/// Whether `number` looks like a telephone number in international form: `+` and 6 to 20 digits (E.164 has at most 15;
/// the simulator's numbers may be longer).
pub fn is_phone_number(number: &str) -> bool {
    number
        .strip_prefix('+')
        .is_some_and(|digits| (6..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["jane.roe@example.com", "bounce+42@simulator.esito.test", "o'neil@a-b.example", "x@localhost"] {
            assert!(is_email_address(good), "{good}");
        }
        for bad in [
            "",
            "jane",
            "@example.com",
            "jane@",
            "a b@example.com",
            "a@b@example.com",
            "a..b@example.com",
            "a@-b.example",
            "a@b..c",
            "<a@b.example>",
            "a@b.example\r\nRCPT TO:<x@y>",
            "jané@example.com",
        ] {
            assert!(!is_email_address(bad), "{bad}");
        }
        assert!(is_phone_number("+999000001") && is_phone_number("+39021234567"));
        assert!(!is_phone_number("021234567") && !is_phone_number("+39 02") && !is_phone_number("+"));
    }
}
