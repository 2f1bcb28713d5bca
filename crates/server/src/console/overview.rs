//! The overview: what became of messages of late, how fast it was told, and what needs somebody.

use super::Console;
use super::asked::Asked;
use super::inside::List;
use super::page::{Frame, Visit, show};
use super::webhooks;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use model::clock::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

const WINDOWS: [&str; 3] = ["1h", "24h", "7d"];

/// Statistics of a sandbox as the API shows them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    buckets: Vec<Bucket>,
    totals: Counts,
    backlog: Backlog,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    at: Timestamp,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    accepted: u64,
    outcomes: Outcomes,
    attempts: Attempts,
    exhausted: u64,
    latency_ms: Option<Latency>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcomes {
    sent: u64,
    delivered: u64,
    bounce: u64,
    bounce_after_sent: u64,
    error: u64,
    exclude: u64,
    denylist: u64,
}

#[derive(Debug, Deserialize)]
struct Attempts {
    succeeded: u64,
    failed: u64,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: u64,
    p95: u64,
    p99: u64,
}

/// What waits for a webhook.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backlog {
    waiting: u64,
    is_at_least: bool,
    oldest_due_at: Option<Timestamp>,
}

impl Counts {
    fn excluded(&self) -> u64 {
        self.outcomes.exclude + self.outcomes.denylist
    }

    fn failed(&self) -> u64 {
        self.outcomes.bounce + self.outcomes.error
    }

    /// The part of the messages whose send came to an end that neither bounced nor failed, in hundredths of a percent. What
    /// bounces later may have been sent before these counts begin.
    fn rate(&self) -> Option<u64> {
        let good = self.outcomes.sent.saturating_sub(self.outcomes.bounce_after_sent);
        good.checked_mul(10_000)?.checked_div(good + self.failed())
    }

    /// Whether nothing happened.
    fn is_zero(&self) -> bool {
        let Outcomes { sent, delivered, bounce, bounce_after_sent: _, error, exclude, denylist } = self.outcomes;
        let Attempts { succeeded, failed } = self.attempts;
        self.accepted + sent + delivered + bounce + error + exclude + denylist + succeeded + failed == 0
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    f: Frame,
    window: &'static str,
    statistics: Statistics,
    /// The organization's webhooks that do not work as they should.
    troubled: Vec<webhooks::Item>,
    /// None: all is done, or the visitor may not do it.
    steps: Option<Steps>,
}

/// What a newcomer has done.
struct Steps {
    webhook: bool,
    channel: bool,
    campaign: bool,
    execution: bool,
}

impl Steps {
    /// Whether a webhook is there is known already. Where executions are, the rest was done before.
    async fn of(console: &Console, visit: &Visit, webhook: bool) -> Result<Self, Response> {
        let has = async |list: &str| {
            let list: List<Value> = visit.get(console, &format!("/v1/{list}?limit=1")).await?;
            Ok::<bool, Response>(!list.items.is_empty())
        };
        let execution = has("executions").await?;
        let channel = execution || has("channel-configurations").await?;
        let campaign = execution || is_any_live(console, visit).await?;
        Ok(Self { webhook, channel, campaign, execution })
    }

    fn are_done(&self) -> bool {
        self.webhook && self.channel && self.campaign && self.execution
    }
}

impl Overview {
    fn windows(&self) -> [&'static str; 3] {
        WINDOWS
    }

    fn rate(&self) -> Option<String> {
        let rate = self.statistics.totals.rate()?;
        Some(self.f.decimal(&rate) + " %")
    }

    fn seconds(&self, bucket: &Bucket) -> i64 {
        bucket.at.millis() / 1_000
    }

    /// A number of the table, empty where there is none.
    fn latency(&self, bucket: &Bucket, which: &str) -> String {
        let Some(latency) = &bucket.counts.latency_ms else { return String::new() };
        match which {
            "p50" => latency.p50,
            "p95" => latency.p95,
            _ => latency.p99,
        }
        .to_string()
    }
}

/// The overview of a sandbox, with the webhooks in trouble of its whole organization.
pub async fn page(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let asked = Asked::of(&visit.frame.path);
    let window = WINDOWS.into_iter().find(|window| asked.is("window", window)).unwrap_or("24h");
    let statistics = visit.get(&console, &format!("/v1/statistics?window={window}")).await?;
    let webhooks: List<webhooks::Item> =
        visit.get(&console, "/v1/feedback-webhooks?allSandboxes=true&limit=200").await?;
    let steps = match visit.frame.may_edit() {
        true => {
            let own = webhooks.items.iter().any(|webhook| webhook.sandbox.name == visit.place.sandbox);
            Some(Steps::of(&console, &visit, own).await?).filter(|steps| !steps.are_done())
        }
        false => None,
    };
    let troubled = webhooks.items.into_iter().filter(|webhook| webhook.state != "active").collect();
    Ok(show(StatusCode::OK, &Overview { f: visit.frame, window, statistics, troubled, steps }))
}

#[derive(Deserialize)]
struct Campaign {
    status: String,
}

/// Whether a campaign was ever activated, of the first 200.
async fn is_any_live(console: &Console, visit: &Visit) -> Result<bool, Response> {
    let list: List<Campaign> = visit.get(console, "/v1/campaigns?limit=200").await?;
    Ok(list.items.iter().any(|campaign| campaign.status != "DRAFT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_what_was_sent() {
        let counts = |sent, bounce, late, error| Counts {
            accepted: 0,
            outcomes: Outcomes { sent, delivered: 7, bounce, bounce_after_sent: late, error, exclude: 3, denylist: 1 },
            attempts: Attempts { succeeded: 0, failed: 0 },
            exhausted: 0,
            latency_ms: None,
        };
        assert_eq!(counts(0, 0, 0, 0).rate(), None);
        assert_eq!(counts(98, 1, 0, 1).rate(), Some(9_800));
        assert_eq!(counts(0, 5, 0, 0).rate(), Some(0));
        assert_eq!(counts(2, 1, 0, 0).rate(), Some(6_666));
        // Those that came back were sent.
        assert_eq!(counts(100, 10, 10, 0).rate(), Some(9_000));
        assert_eq!(counts(100, 20, 10, 0).rate(), Some(8_181));
        assert_eq!(counts(0, 3, 3, 0).rate(), Some(0), "sent before");
        assert!(!counts(0, 0, 0, 0).is_zero(), "something was excluded");
    }
}
