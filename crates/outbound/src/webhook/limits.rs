//! How fast a webhook's queue may go.

use crate::driver::Limits;
use model::circuit::LONGEST_PAUSE;
use model::webhook::WebhookSettings;
use std::time::Duration;

/// What the settings allow. A webhook whose retries are never far apart is not probed less often than they would be due.
pub(super) fn limits(settings: &WebhookSettings) -> Limits {
    Limits {
        concurrency: usize::try_from(settings.max_concurrency).unwrap_or(1),
        per_second: settings.max_per_second,
        longest_pause: LONGEST_PAUSE.min(Duration::from_secs(u64::from(settings.retry.max_delay_seconds))),
    }
}
