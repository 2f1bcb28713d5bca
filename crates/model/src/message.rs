//! A message's states and every legal path between them.
//!
//! ```text
//!            ┌──────────────► excluded | denylisted | failed | bounced (sync)
//! queued ────┤
//!   ▲        └─► handing-over ─► sent ─► delivered
//!   └── retry ──────┘             └────► bounced (async)
//! ```
//! [`Progress::take`] is the only place that knows them: outcomes may come in any order, twice or late, and what comes
//! out is a sequence of events in which none is repeated and none contradicts another.

use crate::outcome::{FailureCategory, FeedbackStatus, Verdict};
use serde::Serialize;
use utoipa::ToSchema;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MessageState {
    /// Accepted, waiting to be sent or to be tried again.
    Queued,
    /// Its last byte may have reached the relay or provider; what became of it is not known yet.
    HandingOver,
    /// The relay or provider accepted it.
    Sent,
    /// Its arrival is confirmed.
    Delivered,
    /// It was refused or came back.
    Bounced,
    /// Processing failed.
    Failed,
    /// The recipient was left out.
    Excluded,
    /// The provider left the recipient out.
    Denylisted,
}

impl MessageState {
    /// All of them, in the order of their stored codes.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::HandingOver,
        Self::Sent,
        Self::Delivered,
        Self::Bounced,
        Self::Failed,
        Self::Excluded,
        Self::Denylisted,
    ];

    /// The code that a store keeps. Codes never change.
    pub fn code(self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::HandingOver => 1,
            Self::Sent => 2,
            Self::Delivered => 3,
            Self::Bounced => 4,
            Self::Failed => 5,
            Self::Excluded => 6,
            Self::Denylisted => 7,
        }
    }

    /// The state with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Whether the message has still to be sent.
    pub fn awaits_sending(self) -> bool {
        matches!(self, Self::Queued | Self::HandingOver)
    }
}

/// What the message has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where it stands.
    pub state: MessageState,
    /// Whether a `delay` was recorded: there is at most one a message.
    pub delayed: bool,
}

/// What an outcome changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where the message stands afterwards.
    pub progress: Progress,
    /// Whether a `sent` event comes first: the outcome implies it and it had not been recorded.
    pub sent_first: bool,
    /// Whether the outcome itself becomes an event; otherwise it was a repetition, late, or contradicts a final one.
    pub recorded: bool,
}

impl Progress {
    /// A message just accepted.
    pub const NEW: Self = Self { state: MessageState::Queued, delayed: false };

    /// What `verdict` makes of the message.
    pub fn take(self, verdict: &Verdict) -> Taken {
        let open = self.state.awaits_sending();
        let ignored = Taken { progress: self, sent_first: false, recorded: false };
        let moved = |state| Taken {
            progress: Self { state, ..self },
            sent_first: open && verdict.implies_sent(),
            recorded: true,
        };
        match (self.state, verdict) {
            (MessageState::Queued | MessageState::HandingOver | MessageState::Sent, Verdict::Delay) => {
                let progress = Self { delayed: true, ..self };
                Taken { progress, sent_first: false, recorded: !self.delayed }
            }
            (_, Verdict::Sent) if open => moved(MessageState::Sent),
            (_, Verdict::Error(_)) if open => moved(MessageState::Failed),
            (_, Verdict::Exclude(_)) if open => moved(MessageState::Excluded),
            (_, Verdict::Denylist(_)) if open => moved(MessageState::Denylisted),
            (_, Verdict::Delivered) if open || self.state == MessageState::Sent => moved(MessageState::Delivered),
            (_, Verdict::Bounce(_)) if open => moved(MessageState::Bounced),
            (MessageState::Sent, Verdict::Bounce(failure)) if failure.category == FailureCategory::Async => {
                moved(MessageState::Bounced)
            }
            _ => ignored,
        }
    }
}

/// Whether `next` may follow `events`, the statuses recorded for a message so far. The rule that [`Progress::take`]
/// keeps, said a second time from the receiver's side, for checks.
pub fn may_follow(events: &[FeedbackStatus], next: FeedbackStatus) -> bool {
    use FeedbackStatus::{Bounce, Delay, Delivered, Sent};
    let ended = events.iter().any(|status| !matches!(status, Sent | Delay));
    let sent = events.contains(&Sent);
    match next {
        _ if ended || events.contains(&next) => false,
        Delay | Bounce => true,
        Delivered => sent,
        _ => !sent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Exclusion, Failure};
    use proptest::prelude::*;

    fn any_verdict() -> impl Strategy<Value = Verdict> {
        let failure = |category| Failure { category, ..Failure::admin("x") };
        prop_oneof![
            Just(Verdict::Sent),
            Just(Verdict::Delivered),
            Just(Verdict::Bounce(failure(FailureCategory::Sync))),
            Just(Verdict::Bounce(failure(FailureCategory::Async))),
            Just(Verdict::Error(failure(FailureCategory::Sync))),
            Just(Verdict::Exclude(Exclusion::rendering_error("x"))),
            Just(Verdict::Denylist(Exclusion::dispatch_error("x"))),
            Just(Verdict::Delay),
        ]
    }

    fn replay(verdicts: &[Verdict]) -> (Progress, Vec<FeedbackStatus>) {
        let mut progress = Progress::NEW;
        let mut events = Vec::new();
        for verdict in verdicts {
            let taken = progress.take(verdict);
            if taken.sent_first {
                assert!(may_follow(&events, FeedbackStatus::Sent), "{events:?} then an implied sent");
                events.push(FeedbackStatus::Sent);
            }
            if taken.recorded {
                assert!(may_follow(&events, verdict.status()), "{events:?} then {:?}", verdict.status());
                events.push(verdict.status());
            }
            progress = taken.progress;
        }
        (progress, events)
    }

    proptest! {
        #[test]
        fn outcomes_in_any_order_twice_or_late_never_contradict(verdicts in proptest::collection::vec(any_verdict(), 0..12)) {
            let (_, events) = replay(&verdicts);
            prop_assert!(events.len() <= 4);
        }

        #[test]
        fn a_repeated_outcome_changes_nothing(verdicts in proptest::collection::vec(any_verdict(), 1..8), at: prop::sample::Index) {
            let mut twice = verdicts.clone();
            let again = at.get(&verdicts).clone();
            let place = at.index(verdicts.len()) + 1;
            twice.insert(place, again);
            prop_assert_eq!(replay(&verdicts), replay(&twice));
        }

        #[test]
        fn every_message_that_was_told_something_final_ends(verdicts in proptest::collection::vec(any_verdict(), 0..8)) {
            let (progress, events) = replay(&verdicts);
            let told = verdicts.iter().any(|verdict| *verdict != Verdict::Delay);
            prop_assert_eq!(told, !progress.state.awaits_sending());
            prop_assert_eq!(told, events.iter().any(|status| *status != FeedbackStatus::Delay));
        }
    }

    #[test]
    fn an_async_outcome_implies_sent() {
        let late = Verdict::Bounce(Failure { category: FailureCategory::Async, ..Failure::admin("gone") });
        assert_eq!(replay(std::slice::from_ref(&late)).1, [FeedbackStatus::Sent, FeedbackStatus::Bounce]);
        assert_eq!(replay(&[Verdict::Delivered]).1, [FeedbackStatus::Sent, FeedbackStatus::Delivered]);
        assert_eq!(replay(&[Verdict::Delivered, late]).1, [FeedbackStatus::Sent, FeedbackStatus::Delivered]);
    }

    #[test]
    fn codes_read_back() {
        for state in MessageState::ALL {
            assert_eq!(MessageState::from_code(state.code()), Some(state));
        }
    }
}
