//! Erasures: what is known of an address goes, and a receipt stays.

use crate::clock::Timestamp;
use crate::fault::Faults;
use crate::ids::ErasureId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most characters of an address.
const MOST_CHARS: usize = 1_024;

/// Notes what is wrong with an address to erase: an email address, a telephone number in E.164, or a userId.
pub fn check_address(address: &str, faults: &mut Faults) {
    let fits = (3..=MOST_CHARS).contains(&address.chars().count())
        && !address.chars().any(|character| character.is_control() || character.is_whitespace());
    let why = "must be an address or userId of 3 to 1024 characters, without spaces or control characters";
    faults.require(fits, "$.address", why);
}

/// Where an erasure stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErasureState {
    /// Rows, or traces of them, are still being looked for.
    Running,
    /// Nothing is left.
    Completed,
}

/// What was erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Erased {
    /// Executions that had no other recipient.
    pub executions: u64,
    /// Messages; those still to be sent are not sent any more.
    pub messages: u64,
    /// Feedback events, with their deliveries.
    pub feedback_events: u64,
    /// Attempts of these deliveries that had rows of their own.
    pub attempts: u64,
}

impl Erased {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            executions: self.executions + other.executions,
            messages: self.messages + other.messages,
            feedback_events: self.feedback_events + other.feedback_events,
            attempts: self.attempts + other.attempts,
        }
    }
}

/// An erasure, as its receipt says. It does not hold the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Its id.
    pub id: ErasureId,
    /// The organization, in all of whose sandboxes it erases.
    pub ims_org: String,
    /// A digest of the address in lower case under the master key, in hexadecimal: who knows both can tell whose it was.
    pub address_digest: String,
    /// Where it stands.
    pub state: ErasureState,
    /// What was erased so far.
    pub erased: Erased,
    /// When it was asked for. What was accepted later is not part of it.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it was done.
    pub completed_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_spaces() {
        let fits = |address: &str| {
            let mut faults = Faults::default();
            check_address(address, &mut faults);
            faults.into_result().is_ok()
        };
        assert!(fits("jane@example.com") && fits("+3902123456") && fits("crm-17") && fits("ü@bücher.example"));
        for wrong in ["", "a", "jane doe@example.com", "jane@example.com\n", &"x".repeat(1_025)] {
            assert!(!fits(wrong), "{wrong:?}");
        }
    }
}
