//! Metrics for Prometheus: a registry for each instance, and no global one.
//!
//! Labels take few values, all of them known beforehand: never an organization, a recipient or a path as called.

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use model::clock::Timestamp;
use model::delivery::AttemptDecision;
use model::outcome::FeedbackStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use store::effort;
use store::work::Deleted;
use tokio::time::Instant;

/// The metrics of one instance; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    executions: Family<ExecutionLabels, Counter>,
    outcomes: Family<OutcomeLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    deleted: Family<DeletedLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExecutionLabels {
    priority: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeletedLabels {
    kind: &'static str,
}

const PRIORITIES: [&str; 2] = ["unitary", "highthroughput"];
const ATTEMPT_RESULTS: [&str; 4] = ["succeeded", "failed", "exhausted", "gone"];

fn by_kind(rows: &Deleted) -> [(&'static str, u64); 5] {
    [
        ("execution", rows.executions),
        ("message", rows.messages),
        ("event", rows.events),
        ("attempt", rows.attempts),
        ("audit-log", rows.audit_log),
    ]
}

impl Metrics {
    /// New metrics, all at zero, of an instance that started at `started`.
    pub fn new(started: Timestamp) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process { started }));
        if effort::is_counted() {
            registry.register_collector(Box::new(Effort));
        }
        let esito = registry.sub_registry_with_prefix("esito");
        esito.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let requests = Family::default();
        esito.register("http_requests", "Requests answered, by route and status", requests.clone());
        // 0.5 ms to about 8 s.
        let request_seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        let help = "How long it took to answer a request";
        esito.register_with_unit("http_request_duration", help, Unit::Seconds, request_seconds.clone());
        let executions = Family::default();
        esito.register("executions_accepted", "Executions answered 202, repetitions included", executions.clone());
        let outcomes = Family::default();
        esito.register("outcomes_recorded", "Feedback events recorded, by status", outcomes.clone());
        let attempts = Family::default();
        esito.register("delivery_attempts", "Attempts to deliver an event that have ended", attempts.clone());
        let deleted = Family::default();
        esito.register("rows_deleted", "Rows deleted because of their age, by kind", deleted.clone());
        let registry = Arc::new(registry);
        let metrics = Self { registry, requests, request_seconds, executions, outcomes, attempts, deleted };
        metrics.show_zeros();
        metrics
    }

    /// A rate over a series that begins with its first event misses that event, so every known series is there at once.
    fn show_zeros(&self) {
        for priority in PRIORITIES {
            drop(self.executions.get_or_create(&ExecutionLabels { priority }));
        }
        for status in FeedbackStatus::ALL {
            drop(self.outcomes.get_or_create(&OutcomeLabels { status: status.as_str() }));
        }
        self.rows_deleted(&Deleted::default());
        for result in ATTEMPT_RESULTS {
            drop(self.attempts.get_or_create(&AttemptLabels { result }));
        }
    }

    /// Counts rows that retention has deleted.
    pub fn rows_deleted(&self, rows: &Deleted) {
        for (kind, count) in by_kind(rows) {
            self.deleted.get_or_create(&DeletedLabels { kind }).inc_by(count);
        }
    }

    /// Counts a feedback event that was recorded.
    pub fn outcome_recorded(&self, status: FeedbackStatus) {
        self.outcomes.get_or_create(&OutcomeLabels { status: status.as_str() }).inc();
    }

    /// Counts an attempt that has ended.
    pub fn attempt_ended(&self, decision: AttemptDecision) {
        let [succeeded, failed, exhausted, gone] = ATTEMPT_RESULTS;
        let result = match decision {
            AttemptDecision::Succeeded => succeeded,
            AttemptDecision::RetryAt(_) => failed,
            AttemptDecision::Exhausted => exhausted,
            AttemptDecision::Gone => gone,
        };
        self.attempts.get_or_create(&AttemptLabels { result }).inc();
    }

    /// Adds counting to every route of `router`, and `/metrics` beside them.
    pub fn mount(&self, router: Router) -> Router {
        let counted = router.layer(middleware::from_fn_with_state(self.clone(), count_request));
        Router::new().route("/metrics", get(show)).with_state(self.clone()).merge(counted)
    }

    /// Counts a request that was answered.
    pub fn count(&self, route: &str, status: u16, started: Instant) {
        self.request_seconds.observe(started.elapsed().as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route: route.to_owned(), status }).inc();
        let executed = route.strip_prefix("/ajo/im/executions/").filter(|_| status == 202);
        if let Some(priority) = PRIORITIES.into_iter().find(|priority| executed == Some(priority)) {
            self.executions.get_or_create(&ExecutionLabels { priority }).inc();
        }
    }
}

async fn count_request(
    State(metrics): State<Metrics>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let response = next.run(request).await;
    metrics.count(route.as_ref().map_or("none", MatchedPath::as_str), response.status().as_u16(), started);
    response
}

async fn show(State(metrics): State<Metrics>) -> Response {
    let mut text = String::new();
    match text::encode(&mut text, &metrics.registry) {
        Ok(()) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(fmt::Error) => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The process, by the names that Prometheus' own libraries use.
#[derive(Debug)]
struct Process {
    started: Timestamp,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let started = self.started.millis() as f64 / 1000.0;
        gauge(
            &mut encoder,
            "process_start_time",
            "When the process started, since 1970",
            Some(&Unit::Seconds),
            started,
        )?;
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "The processor time used";
            let metric = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), counter.metric_type())?;
            counter.encode(metric)?;
        }
        if let Some(bytes) = resident_bytes() {
            gauge(&mut encoder, "process_resident_memory", "The memory in use", Some(&Unit::Bytes), bytes)?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            gauge(&mut encoder, "process_open_fds", "The file descriptors in use", None, open.count() as f64)?;
        }
        Ok(())
    }
}

/// What the database is had to do; for benchmarks.
#[derive(Debug)]
struct Effort;

impl Collector for Effort {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, help, count) in [
            ("esito_store_statements", "Statements that the database ran", effort::statements()),
            ("esito_store_rows_written", "Rows that SQLite inserted, changed and deleted", effort::rows_written()),
        ] {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name, help, unit, gauge.metric_type())?;
    gauge.encode(metric)
}

/// Fields 14 and 15 of proc_pid_stat(5), in ticks: `USER_HZ` is 100 on every architecture of Linux in use.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, a name in brackets, may hold spaces.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    async fn call(router: &Router, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(router.clone()).call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn counts_by_route_and_not_by_path() {
        let accepted = || async { http::StatusCode::ACCEPTED };
        let routes =
            Router::new().route("/ajo/im/executions/unitary", get(accepted)).route("/v1/x/{id}", get(accepted));
        let metrics = Metrics::new(Timestamp(1_700_000_000_500));
        metrics.outcome_recorded(FeedbackStatus::Bounce);
        metrics.attempt_ended(AttemptDecision::RetryAt(Timestamp(7)));
        let router = metrics.mount(routes);
        for path in ["/ajo/im/executions/unitary", "/v1/x/1", "/v1/x/2", "/nowhere"] {
            call(&router, path).await;
        }
        let (status, text) = call(&router, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            "esito_http_requests_total{route=\"/v1/x/{id}\",status=\"202\"} 2",
            "esito_executions_accepted_total{priority=\"unitary\"} 1",
            "esito_executions_accepted_total{priority=\"highthroughput\"} 0",
            "esito_outcomes_recorded_total{status=\"bounce\"} 1",
            "esito_delivery_attempts_total{result=\"failed\"} 1",
            "esito_delivery_attempts_total{result=\"exhausted\"} 0",
            "esito_http_request_duration_seconds_count 4",
            "process_start_time_seconds 1700000000.5",
            "esito_build_info{version=\"0.1.0\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes ") && text.contains("process_cpu_seconds_total "));
        assert!(!text.contains("/v1/x/1") && !text.contains("/nowhere"));
    }
}
