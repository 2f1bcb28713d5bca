//! Replays: feedback events that are delivered once more, chosen by a filter, at a rate.

use crate::clock::Timestamp;
use crate::delivery::DeliveryState;
use crate::fault::Faults;
use crate::ids::{CampaignId, ExecutionId, ReplayId, SandboxId};
use crate::outcome::FeedbackStatus;
use crate::webhook::{Channel, Stamps};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most events a second that a replay may make due.
pub const MOST_PER_SECOND: u32 = 10_000;
/// How many events a second a replay makes due unless it says otherwise: a bounded part of what most endpoints take.
pub const DEFAULT_PER_SECOND: u32 = 500;

/// Which events: those for which all that is set holds. Nothing set: all of the sandbox's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplayFilter {
    /// With this requestId.
    pub request_id: Option<String>,
    /// Of this execution.
    pub execution_id: Option<ExecutionId>,
    /// Of this campaign.
    pub campaign_id: Option<CampaignId>,
    /// About this address or userId.
    pub recipient: Option<String>,
    /// With this status.
    pub status: Option<FeedbackStatus>,
    /// Of this channel.
    pub channel: Option<Channel>,
    /// With a delivery in this state: `succeeded`, `exhausted` or `cancelled`. Null: in any of these, and events that
    /// had no delivery because there was no webhook, where the present one selects them.
    pub state: Option<DeliveryState>,
    /// Recorded at or after this.
    pub from: Option<Timestamp>,
    /// Recorded before this.
    pub to: Option<Timestamp>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplaySettings {
    /// Which events. Those recorded after the replay was made are never among them.
    pub filter: ReplayFilter,
    /// The most events a second, 1 to 10,000. The webhook's own limits hold beside it.
    #[serde(default = "default_per_second")]
    #[schema(minimum = 1, maximum = 10_000, default = 500)]
    pub per_second: u32,
}

fn default_per_second() -> u32 {
    DEFAULT_PER_SECOND
}

impl ReplaySettings {
    /// Notes what is wrong.
    pub fn check(&self, faults: &mut Faults) {
        let rate = (1..=MOST_PER_SECOND).contains(&self.per_second);
        faults.require(rate, "$.perSecond", "must be from 1 to 10000");
        let open = [DeliveryState::Pending, DeliveryState::Held, DeliveryState::Failing];
        let has_ended = self.filter.state.is_none_or(|state| !open.contains(&state));
        let why = "must be succeeded, exhausted or cancelled: what has not ended is delivered anyway";
        faults.require(has_ended, "$.filter.state", why);
        for (path, text, most) in [
            ("$.filter.requestId", &self.filter.request_id, 255),
            ("$.filter.recipient", &self.filter.recipient, 1_024),
        ] {
            let fits =
                |text: &String| (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            let why = format!("must have 1 to {most} characters, without control characters");
            faults.require(text.as_ref().is_none_or(fits), path, &why);
        }
        if let (Some(from), Some(to)) = (self.filter.from, self.filter.to) {
            faults.require(from < to, "$.filter.to", "must be later than from");
        }
    }
}

/// Where a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplayState {
    /// Events are still to be made due, or their deliveries have not ended.
    Running,
    /// Every event was made due and its delivery has ended, or it was left out.
    Completed,
    /// Cancelled: no further event is made due; those that are due go out.
    Cancelled,
}

impl ReplayState {
    const ALL: [Self; 3] = [Self::Running, Self::Completed, Self::Cancelled];

    /// The code that a store keeps. Codes never change.
    pub fn code(self) -> u8 {
        match self {
            Self::Running => 0,
            Self::Completed => 1,
            Self::Cancelled => 2,
        }
    }

    /// The state with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// How far a replay has come. Places are those of the sandbox's feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayProgress {
    /// After this place it began.
    pub start: i64,
    /// Up to here all events were looked at.
    pub position: i64,
    /// The last place that it looks at: the feed's end when the replay was made.
    pub until: i64,
    /// How many events were made due.
    pub replayed: u64,
    /// How many were chosen but left as they are: they were under way already, or no webhook wants them.
    pub skipped: u64,
    /// The places of those made due whose deliveries had not ended when it was last looked.
    pub open: Vec<i64>,
}

impl ReplayProgress {
    /// The part of the feed that was looked at, 0 to 1.
    pub fn part(&self) -> f64 {
        let whole = self.until.saturating_sub(self.start);
        if whole <= 0 || self.position >= self.until {
            return 1.0;
        }
        // Places encode times in microseconds: what is lost beyond 2^53 nobody sees.
        self.position.saturating_sub(self.start).max(0) as f64 / whole as f64
    }

    /// Whether nothing is left to be done.
    pub fn is_over(&self) -> bool {
        self.position >= self.until && self.open.is_empty()
    }
}

/// A replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Its id; every attempt that it causes carries it as `esito-replay`.
    pub id: ReplayId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// What was asked for.
    pub settings: ReplaySettings,
    /// Where it stands.
    pub state: ReplayState,
    /// Why it was cancelled, where not by hand.
    pub reason: Option<String>,
    /// How far it has come.
    pub progress: ReplayProgress,
    /// When it was completed or cancelled.
    pub ended_at: Option<Timestamp>,
    /// When and by whom it was made and cancelled.
    pub stamps: Stamps,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(settings: &ReplaySettings) -> Vec<String> {
        let mut faults = Faults::default();
        settings.check(&mut faults);
        faults.list().iter().map(|fault| fault.path.clone()).collect()
    }

    #[test]
    fn settings_are_checked() {
        let fine = ReplaySettings { filter: ReplayFilter::default(), per_second: 1 };
        assert!(faults(&fine).is_empty());
        for state in DeliveryState::ALL {
            let with = ReplaySettings {
                filter: ReplayFilter { state: Some(state), ..ReplayFilter::default() },
                ..fine.clone()
            };
            let is_end =
                [DeliveryState::Succeeded, DeliveryState::Exhausted, DeliveryState::Cancelled].contains(&state);
            assert_eq!(faults(&with).is_empty(), is_end, "{state:?}");
        }
        let (from, to) = (Some(Timestamp(5)), Some(Timestamp(5)));
        let all_wrong =
            ReplaySettings { filter: ReplayFilter { from, to, ..ReplayFilter::default() }, per_second: 10_001 };
        assert_eq!(faults(&all_wrong), ["$.perSecond", "$.filter.to"]);
        for text in ["", "a\0", &"x".repeat(1_025)] {
            let (request_id, recipient) = (Some(text.to_owned()), Some(text.to_owned()));
            let filter = ReplayFilter { request_id, recipient, ..ReplayFilter::default() };
            let found = faults(&ReplaySettings { filter, per_second: 1 });
            assert_eq!(found, ["$.filter.requestId", "$.filter.recipient"], "{text:?}");
        }
    }

    #[test]
    fn the_part_runs_from_0_to_1() {
        let at = |position| ReplayProgress { start: 100, position, until: 300, ..ReplayProgress::default() }.part();
        assert_eq!([at(100), at(200), at(300), at(400)], [0.0, 0.5, 1.0, 1.0]);
        assert!((ReplayProgress::default().part() - 1.0).abs() < f64::EPSILON, "nothing to do");
    }
}
