//! `esito bench`: what this machine delivers, measured from outside.
//!
//! The server, the callers and the endpoint are processes of their own; the figures come from the endpoint and from the
//! kernel's accounts of each process, never from the server about itself. `raw` is the yardstick: the same HTTP client
//! posting the same bytes to the same endpoint with nothing behind it.

mod load;
mod run;
mod sink;

use super::{Failure, Outcome, print_line};
use clap::{Args, Subcommand};
use serde::Serialize;

/// The arguments of `esito bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// The yardstick: the same client posts the same bytes to the same endpoint, with nothing behind it
    Raw(Settings),
    /// Executions of 1 recipient, each event delivered to one webhook
    Single(Settings),
    /// Executions of 20 recipients, each event delivered to one webhook
    Deliver(Settings),
    /// An endpoint that counts: one of the bench's processes
    #[command(hide = true)]
    Sink(sink::Sink),
    /// Callers: one of the bench's processes
    #[command(hide = true)]
    Load(load::Load),
}

/// What every scenario is told.
#[derive(Clone, Debug, Args)]
struct Settings {
    /// How many events [default: as many as take about 10 s]
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// How many times; the figures of the median run are told, and the spread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    repeat: u32,
    /// Posts over TLS
    #[arg(long)]
    tls: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Runs the scenario.
    pub async fn run(self) -> Outcome {
        let (scenario, recipients, settings) = match self.scenario {
            Scenario::Sink(sink) => return sink.run().await,
            Scenario::Load(load) => return load.run().await,
            Scenario::Raw(settings) => ("raw", 0, settings),
            Scenario::Single(settings) => ("single", 1, settings),
            Scenario::Deliver(settings) => ("deliver", 20, settings),
        };
        let mut reports = Vec::new();
        for _ in 0..settings.repeat {
            reports.push(run::measure(scenario, recipients, &settings).await.map_err(Failure::new)?);
        }
        reports.sort_by(|a, b| a.events_per_second.total_cmp(&b.events_per_second));
        let spread = (reports[0].events_per_second, reports[reports.len() - 1].events_per_second);
        let mut median = reports.swap_remove(reports.len() / 2);
        median.events_per_second_spread = spread.into();
        if settings.json {
            return print_line(&serde_json::to_string(&median).map_err(|error| Failure::new(error.to_string()))?);
        }
        print_line(&median.to_string())
    }
}

/// What a scenario found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    scenario: &'static str,
    tls: bool,
    events: u64,
    seconds: f64,
    events_per_second: f64,
    /// The slowest and the fastest of the repeated runs.
    events_per_second_spread: Spread,
    raw_per_second: f64,
    ratio_to_raw: f64,
    latency_ms: Percentiles,
    server_cpu_micros_per_event: Option<f64>,
    raw_client_cpu_micros_per_request: f64,
    /// The server's largest resident set.
    rss_mi_b: Option<f64>,
    disk_bytes_per_event: Option<f64>,
    body_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Spread {
    min: f64,
    max: f64,
}

impl From<(f64, f64)> for Spread {
    fn from((min, max): (f64, f64)) -> Self {
        Self { min, max }
    }
}

/// From the start of the call to the arrival of the event, in milliseconds. The callers of these scenarios wait for
/// answers, not for events, so at full load this is mostly the time spent in the queue.
#[derive(Clone, Copy, Debug, Default, Serialize, serde::Deserialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Spread { min, max } = self.events_per_second_spread;
        let tls = if self.tls { "TLS" } else { "plain" };
        writeln!(f, "{} ({tls}, {} bytes a body)", self.scenario, self.body_bytes)?;
        writeln!(
            f,
            "  {} events in {:.2} s: {:.0}/s ({min:.0}-{max:.0})",
            self.events, self.seconds, self.events_per_second
        )?;
        writeln!(f, "  raw {:.0}/s at {:.1} µs of CPU", self.raw_per_second, self.raw_client_cpu_micros_per_request)?;
        if let (Some(cpu), Some(rss), Some(disk)) =
            (self.server_cpu_micros_per_event, self.rss_mi_b, self.disk_bytes_per_event)
        {
            let times = cpu / self.raw_client_cpu_micros_per_request;
            writeln!(
                f,
                "  ratio to raw {:.3}, server {cpu:.1} µs of CPU an event ({times:.2} x raw)",
                self.ratio_to_raw
            )?;
            writeln!(f, "  {rss:.0} MiB resident, {disk:.0} bytes of disk an event")?;
        }
        let Percentiles { p50, p90, p99, p999, max } = self.latency_ms;
        write!(f, "  latency ms: p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1}")
    }
}
