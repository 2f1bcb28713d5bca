//! How long what is kept is kept.

use crate::clock::Timestamp;
use crate::fault::Faults;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// A requestId is remembered by its execution, for at least this many days.
pub const LEAST_EVENTS_DAYS: u32 = 8;
/// A hundred years.
pub const MOST_DAYS: u32 = 36_500;

/// The ages, in days, that the operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Of executions, with their messages, feedback events and deliveries: 8 or more. Nothing goes that is still due.
    pub events_days: u32,
    /// Of the attempts of deliveries that have ended, with what the endpoint answered.
    pub attempts_days: u32,
    /// Of entries of the audit log.
    pub audit_log_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { events_days: 90, attempts_days: 30, audit_log_days: 730 }
    }
}

/// What an organization has instead; null: what the operator sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetentionOverride {
    /// Executions, with their messages, feedback events and deliveries. Nothing goes that is still due.
    #[schema(minimum = 8, maximum = 36_500)]
    pub events_days: Option<u32>,
    /// The attempts of deliveries that have ended, with what the endpoint answered.
    #[schema(minimum = 1, maximum = 36_500)]
    pub attempts_days: Option<u32>,
    /// Entries of the audit log.
    #[schema(minimum = 1, maximum = 36_500)]
    pub audit_log_days: Option<u32>,
}

impl RetentionOverride {
    /// Notes what is wrong, below this path.
    pub fn check(&self, path: &str, faults: &mut Faults) {
        for (name, days, least) in [
            ("eventsDays", self.events_days, LEAST_EVENTS_DAYS),
            ("attemptsDays", self.attempts_days, 1),
            ("auditLogDays", self.audit_log_days, 1),
        ] {
            let fits = days.is_none_or(|days| (least..=MOST_DAYS).contains(&days));
            faults.require(fits, &format!("{path}.{name}"), &format!("must be null or from {least} to {MOST_DAYS}"));
        }
    }

    /// What holds, over what the operator sets.
    pub fn over(&self, general: Retention) -> Retention {
        Retention {
            events_days: self.events_days.unwrap_or(general.events_days),
            attempts_days: self.attempts_days.unwrap_or(general.attempts_days),
            audit_log_days: self.audit_log_days.unwrap_or(general.audit_log_days),
        }
    }
}

/// The moment before which what is so old lies.
pub fn before(now: Timestamp, days: u32) -> Timestamp {
    Timestamp(
        now.millis() - i64::try_from(Duration::from_secs(u64::from(days) * 86_400).as_millis()).unwrap_or(i64::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_may_have_other_ages() {
        let none = RetentionOverride::default();
        assert_eq!(none.over(Retention::default()), Retention::default());
        let own = RetentionOverride { events_days: Some(8), audit_log_days: Some(1), ..none };
        let wanted = Retention { events_days: 8, audit_log_days: 1, ..Retention::default() };
        assert_eq!(own.over(Retention::default()), wanted);
    }

    #[test]
    fn ages_have_bounds() {
        let faults = |own: RetentionOverride| {
            let mut faults = Faults::default();
            own.check("$.retention", &mut faults);
            faults.list().iter().map(|fault| fault.path.clone()).collect::<Vec<_>>()
        };
        let all =
            |days| RetentionOverride { events_days: Some(days), attempts_days: Some(days), audit_log_days: Some(days) };
        assert!(faults(all(8)).is_empty() && faults(all(36_500)).is_empty());
        assert_eq!(faults(all(7)), ["$.retention.eventsDays"]);
        assert_eq!(faults(all(0)).len(), 3);
        assert_eq!(faults(all(36_501)).len(), 3);
    }

    #[test]
    fn days_lie_before_now() {
        assert_eq!(before(Timestamp(86_400_000 * 10), 8), Timestamp(86_400_000 * 2));
    }
}
