//! `growth`: how fast events go through, and how long lists and searches take, with ever more events in the store.

use super::deliver::HOOK;
use super::open_loop::{MOST_RECIPIENTS, events_in};
use super::plan::{Pace, Recipients};
use super::report::{Percentiles, Report, histogram, ratio};
use super::server::{Sandbox, Server};
use super::stage::{Stage, words};
use super::watched::Postgres;
use super::{Settings, progress};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often each list is asked.
const TIMES: usize = 20;
/// How often the latency is measured at each size, of which the median counts: a checkpoint falls into one of them, or not.
const ROUNDS: usize = 3;
/// Over so many days the events are spread that are there from the beginning.
pub const DAYS: u32 = 60;

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Growth {
    /// An empty PostgreSQL database, in place of SQLite
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// One point of the curve.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    present: u64,
    events_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// The longest 95th percentile of all lists and searches, and which it is.
    slowest_search_ms: f64,
    slowest_search: String,
    searches: BTreeMap<String, Percentiles>,
}

impl Growth {
    /// Measures at each size.
    pub async fn measure(&self) -> Result<Report, String> {
        let settings = &self.settings;
        let mut report = Report::new("growth", settings.tls);
        let mut stage = Stage::set_on(self.postgres.as_deref(), settings.tls).await?;
        let hook = [stage.server.make_one(Sandbox::new(HOOK, HOOK, stage.endpoint.url("hook/0"))).await?];
        let most = settings.events(4_000, 1_000_000, 10_000_000);
        let mut points: Vec<Point> = Vec::new();
        let (mut rate, mut filled) = (None, 0);
        for size in [0, most / 10, most] {
            let present = stage.all_events() + filled;
            if size > present {
                progress(&format!("filling up to {size} events"));
                let fill = format!("bench age --sandbox {HOOK} --events {} --days {DAYS}", size - present);
                let limit = Duration::from_secs_f64(settings.size(60.0, 600.0, 3_600.0));
                stage.server = stage.server.beside(words(&fill), limit).await?;
                filled += size - present;
                if let Some(url) = &self.postgres {
                    progress("letting the database come to rest (VACUUM, CHECKPOINT)");
                    Postgres::connect(url).await?.settle().await?;
                }
            }
            progress(&format!("{size} events present"));
            let run = stage
                .at_full_speed(
                    &hook,
                    MOST_RECIPIENTS,
                    settings.size(400, 100_000, 200_000),
                    settings.size(5.0, 15.0, 30.0),
                )
                .await?;
            run.check(HOOK)?;
            let events_per_second = run.seen.group(HOOK).per_second();
            // The same rate at each size: half of what goes with nothing there.
            let rate = *rate.get_or_insert(events_per_second / 2.0);
            let mut latencies = Vec::new();
            for _ in 0..ROUNDS {
                let pace =
                    Pace::Open { events_per_second: rate, events: events_in(rate, settings.size(0.5, 4.0, 12.0)) };
                let paced = stage.run(&hook, Recipients::UpTo(MOST_RECIPIENTS), pace).await?;
                paced.check(HOOK)?;
                latencies.push(paced.seen.group(HOOK).from_outcome);
            }
            latencies.sort_by(|a, b| a.p99.total_cmp(&b.p99));
            let latency = latencies[ROUNDS / 2];
            let searches = searches(&stage.server).await?;
            let slowest = searches.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0)).ok_or("no searches")?;
            let point = Point {
                present: size,
                events_per_second,
                p50_ms: latency.p50,
                p99_ms: latency.p99,
                slowest_search_ms: slowest.1.0,
                slowest_search: slowest.0.clone(),
                searches: searches.iter().map(|(name, (_, all))| (name.clone(), *all)).collect(),
            };
            tell(&point, &mut report);
            points.push(point);
        }
        let (first, last) = (points.first().ok_or("no points")?, points.last().ok_or("no points")?);
        report.add_number(
            "eventsPerSecondRatio",
            "events/s, last / first",
            ratio(last.events_per_second, first.events_per_second),
            3,
        );
        report.add_number("p99Ratio", "p99, last / first", ratio(last.p99_ms, first.p99_ms), 3);
        report.add_quietly("points", points);
        stage.count_further(filled);
        stage.end(&mut report).await?;
        Ok(report)
    }
}

fn tell(point: &Point, report: &mut Report) {
    let text = format!(
        "{:.0}/s, p50 {:.1} p99 {:.1} ms; searches to {:.0} ms ({})",
        point.events_per_second, point.p50_ms, point.p99_ms, point.slowest_search_ms, point.slowest_search
    );
    progress(&format!("{} events present: {text}", point.present));
    report.add(&format!("at{}", point.present), &format!("{} events", point.present), point, text);
}

/// What is looked for: what the newest event is about, and what nobody has.
pub struct Sought {
    request: String,
    /// The newest event's execution.
    pub execution: String,
    /// Its message.
    pub message: String,
    campaign: String,
    recipient: String,
}

impl Sought {
    /// What is in the bench's sandbox.
    pub async fn of(server: &Server) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().replace('+', "%2B");
        let newest = server.get(HOOK, "/v1/feedback-events?limit=1").await?;
        let newest = &newest["items"][0];
        let (event, about) = (&newest["event"], &newest["event"]["messageExecution"]);
        let identities = event["identityMap"].as_object().and_then(|map| map.values().next()).ok_or("no identity")?;
        Ok(Self {
            request: text(&event["requestId"]),
            execution: text(&about["messageExecutionID"]),
            message: text(&newest["messageId"]),
            campaign: text(&about["campaignID"]),
            recipient: text(&identities[0]["id"]),
        })
    }

    /// The filters of a list that are tried.
    pub fn filters(&self, list: &str) -> Vec<String> {
        let Self { request, execution, campaign, recipient, .. } = self;
        let mut filters = vec![
            String::new(),
            format!("requestId={request}"),
            "requestId=nobody".to_owned(),
            format!("executionId={execution}"),
            format!("campaignId={campaign}"),
            format!("recipient={recipient}"),
            "recipient=person7@example.com".to_owned(),
            "recipient=nobody@example.com".to_owned(),
            "channel=sms".to_owned(),
            "from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z".to_owned(),
        ];
        match list {
            "feedback-events" => {
                filters.extend(["bounce", "denylist"].map(|status| format!("status={status}")));
                filters.extend(["after=0", "after=0&status=denylist"].map(str::to_owned));
            }
            "deliveries" => filters.extend(
                ["pending", "failing", "held", "succeeded", "exhausted", "cancelled"]
                    .map(|state| format!("state={state}")),
            ),
            "messages" => filters.extend(["queued", "bounce"].map(|state| format!("status={state}"))),
            _ => {}
        }
        filters
    }
}

/// The 95th percentile and all of each list and search, asked one after the other while nothing else goes on.
async fn searches(server: &Server) -> Result<BTreeMap<String, (f64, Percentiles)>, String> {
    sleep(Duration::from_millis(500)).await;
    let sought = Sought::of(server).await?;
    let mut found = BTreeMap::new();
    for list in ["executions", "messages", "feedback-events", "deliveries"] {
        for filter in sought.filters(list) {
            let path = format!("/v1/{list}?{filter}");
            let timed = timed(async || server.get(HOOK, &path).await.map(drop)).await?;
            found.insert(format!("{list}?{filter}"), timed);
        }
    }
    Ok(found)
}

/// The 95th percentile and all of something that is done again and again, in milliseconds.
pub async fn timed(work: impl AsyncFn() -> Result<(), String>) -> Result<(f64, Percentiles), String> {
    let mut micros = histogram();
    for _ in 0..TIMES {
        let began = Instant::now();
        work().await?;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        micros.saturating_record(took.max(1));
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a call")]
    let p95 = micros.value_at_quantile(0.95) as f64 / 1000.0;
    Ok((p95, Percentiles::of(&micros)))
}
