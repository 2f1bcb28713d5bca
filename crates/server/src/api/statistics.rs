//! `/v1/statistics` and `/v1/feedback-webhooks/{id}/statistics`: how much happened of late, how fast, and what waits.

use super::Api;
use super::auth::{InSandbox, Reads, SandboxHeaders};
use super::problem::Problem;
use super::query::{Id, Query};
use axum::Json;
use axum::extract::State;
use model::clock::Timestamp;
use model::ids::WebhookId;
use model::outcome::FeedbackStatus;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::statistics::{Backlog, Buckets, Counts};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(read_of_webhook))
}

/// How far back.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
enum Window {
    /// An hour, by minute.
    #[serde(rename = "1h")]
    Hour,
    /// A day, by quarter of an hour.
    #[default]
    #[serde(rename = "24h")]
    Day,
    /// A week, by two hours.
    #[serde(rename = "7d")]
    Week,
}

impl Window {
    /// The last bucket is the one under way.
    fn buckets(self, now: Timestamp) -> Buckets {
        let (seconds, count) = match self {
            Self::Hour => (60, 60),
            Self::Day => (900, 96),
            Self::Week => (7_200, 84),
        };
        Buckets::until(now, Duration::from_secs(seconds), count)
    }
}

/// Which statistics.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct StatisticsQuery {
    /// How far back; a day by default.
    #[param(inline)]
    window: Option<Window>,
}

/// What happened in a sandbox, and what waits. Counts are exact: they are written together with what they count.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StatisticsRead {
    /// Where the first bucket begins.
    from: Timestamp,
    /// Where the last bucket ends, which is the one under way.
    to: Timestamp,
    /// How long each bucket is.
    bucket_seconds: u64,
    /// What happened by time, in order. Buckets in which nothing happened are there too.
    buckets: Vec<BucketRead>,
    /// The same over all buckets.
    totals: CountsRead,
    /// What of the webhook's deliveries has not ended.
    backlog: BacklogRead,
}

/// What happened in a part of the time.
#[derive(Debug, Serialize, ToSchema)]
struct BucketRead {
    /// Where the bucket begins.
    at: Timestamp,
    #[serde(flatten)]
    counts: CountsRead,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CountsRead {
    /// Messages accepted: one for each recipient of an execution.
    accepted: u64,
    /// Feedback events recorded, by status.
    outcomes: OutcomesRead,
    /// Attempts to deliver an event, those of replays and retries too.
    attempts: AttemptsRead,
    /// Deliveries given up.
    exhausted: u64,
    /// How long events took to be delivered; null: none was.
    latency_ms: Option<LatencyRead>,
}

/// Feedback events, by status.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct OutcomesRead {
    /// Accepted by the relay or provider.
    sent: u64,
    /// Confirmed by the provider or the receiving side.
    delivered: u64,
    /// Refused, at once or later.
    bounce: u64,
    /// Of the bounces those of messages that had been sent, and count as such too.
    bounce_after_sent: u64,
    /// Processing failed.
    error: u64,
    /// Filtered out before the send.
    exclude: u64,
    /// Skipped by the provider.
    denylist: u64,
    /// To be tried again.
    delay: u64,
}

/// Attempts that have ended.
#[derive(Debug, Serialize, ToSchema)]
struct AttemptsRead {
    /// The endpoint took the event.
    succeeded: u64,
    /// It did not.
    failed: u64,
}

/// From the recording of an event to the end of the attempt that succeeded, in milliseconds, to within an eighth. What had
/// ended and was made due again, by a replay or by hand, is left out.
#[derive(Debug, Serialize, ToSchema)]
struct LatencyRead {
    /// Half of the events took no longer.
    p50: u64,
    /// 95 of a hundred took no longer.
    p95: u64,
    /// 99 of a hundred took no longer.
    p99: u64,
}

/// Deliveries that have not ended: due, waiting for a next attempt or an earlier event of their message, or held.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BacklogRead {
    /// How many there are, up to 10,000.
    waiting: u64,
    /// There are more than `waiting`.
    is_at_least: bool,
    /// When the first of them was due, or will be.
    oldest_due_at: Option<Timestamp>,
}

/// How a webhook has been doing, and what waits for it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WebhookStatisticsRead {
    /// Since when.
    from: Timestamp,
    /// Until when: the end of a span of time that is under way.
    to: Timestamp,
    /// When an attempt last succeeded, within the last 90 days.
    last_success_at: Option<Timestamp>,
    /// Attempts, those of replays and retries too.
    attempts: AttemptsRead,
    /// Deliveries given up.
    exhausted: u64,
    /// How long events took to be delivered; null: none was.
    latency_ms: Option<LatencyRead>,
    /// What has not ended.
    backlog: BacklogRead,
}

impl CountsRead {
    fn of(counts: &Counts) -> Self {
        let outcomes = |status| counts.outcomes(status);
        Self {
            accepted: counts.accepted(),
            outcomes: OutcomesRead {
                sent: outcomes(FeedbackStatus::Sent),
                delivered: outcomes(FeedbackStatus::Delivered),
                bounce: outcomes(FeedbackStatus::Bounce),
                bounce_after_sent: counts.came_back(),
                error: outcomes(FeedbackStatus::Error),
                exclude: outcomes(FeedbackStatus::Exclude),
                denylist: outcomes(FeedbackStatus::Denylist),
                delay: outcomes(FeedbackStatus::Delay),
            },
            attempts: AttemptsRead { succeeded: counts.succeeded(), failed: counts.failed() },
            exhausted: counts.exhausted(),
            latency_ms: LatencyRead::of(counts),
        }
    }
}

impl LatencyRead {
    fn of(counts: &Counts) -> Option<Self> {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| counts.latency_ms(percent));
        Some(Self { p50: p50?, p95: p95?, p99: p99? })
    }
}

impl BacklogRead {
    fn of(backlog: Backlog) -> Self {
        let Backlog { waiting, is_at_least, oldest_due_at } = backlog;
        Self { waiting, is_at_least, oldest_due_at }
    }
}

fn total(counts: &[Counts]) -> Counts {
    let mut total = Counts::default();
    counts.iter().for_each(|counts| total.add(counts));
    total
}

/// Reads what happened in the sandbox of late, by time, and what waits for its webhook.
#[utoipa::path(get, path = "/v1/statistics", operation_id = "getStatistics", tag = "statistics",
    params(SandboxHeaders, StatisticsQuery),
    responses((status = 200, body = StatisticsRead, description = "The statistics.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Query(query): Query<StatisticsQuery>,
) -> Result<Json<StatisticsRead>, Problem> {
    let buckets = query.window.unwrap_or_default().buckets(api.clock.now());
    let counts = api.store.statistics(scope.sandbox.id, buckets).await?;
    let backlog = api.store.backlog(scope.sandbox.id).await?;
    let read = |(at, counts)| BucketRead { at, counts: CountsRead::of(counts) };
    Ok(Json(StatisticsRead {
        from: buckets.from,
        to: buckets.to(),
        bucket_seconds: buckets.length.as_secs(),
        buckets: buckets.starts().zip(&counts).map(read).collect(),
        totals: CountsRead::of(&total(&counts)),
        backlog: BacklogRead::of(backlog),
    }))
}

/// Reads how a webhook has been doing of late, and what waits for it.
#[utoipa::path(get, path = "/v1/feedback-webhooks/{id}/statistics", operation_id = "getFeedbackWebhookStatistics", tag = "feedback-webhooks",
    params(SandboxHeaders, ("id" = WebhookId, Path, description = "The webhook's id."), StatisticsQuery),
    responses((status = 200, body = WebhookStatisticsRead, description = "The statistics.")))]
async fn read_of_webhook(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Id(id): Id<WebhookId>,
    Query(query): Query<StatisticsQuery>,
) -> Result<Json<WebhookStatisticsRead>, Problem> {
    let webhook = api.store.webhook(scope.sandbox.id, id).await?;
    let buckets = query.window.unwrap_or_default().buckets(api.clock.now());
    let counted = api.store.statistics(scope.sandbox.id, buckets).await?;
    // What came before was a former webhook's, as was an earlier success.
    let made_at = webhook.stamps.created_at;
    let own = buckets.starts().zip(&counted).filter(|(start, _)| *start + buckets.length > made_at);
    let mut counts = Counts::default();
    own.for_each(|(_, own)| counts.add(own));
    let last_success = api.store.last_success(scope.sandbox.id).await?;
    let backlog = api.store.backlog(scope.sandbox.id).await?;
    Ok(Json(WebhookStatisticsRead {
        from: buckets.from,
        to: buckets.to(),
        last_success_at: last_success.filter(|at| *at >= made_at),
        attempts: AttemptsRead { succeeded: counts.succeeded(), failed: counts.failed() },
        exhausted: counts.exhausted(),
        latency_ms: LatencyRead::of(&counts),
        backlog: BacklogRead::of(backlog),
    }))
}
