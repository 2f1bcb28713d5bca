//! What a scenario found, for people and for programs.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// What a scenario found. What it could not or need not find is `null`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The scenario.
    pub scenario: &'static str,
    /// Whether the posts went over TLS.
    pub tls: bool,
    /// How many events came.
    pub events: u64,
    /// From the first to the last of them.
    pub seconds: f64,
    /// Events in these seconds.
    pub events_per_second: f64,
    /// The slowest and the fastest of the repeated runs.
    pub events_per_second_spread: Spread,
    /// The same client, with nothing behind it, in the same run.
    pub raw_per_second: Option<f64>,
    /// The quotient of the two.
    pub ratio_to_raw: Option<f64>,
    /// The least and the greatest of the repeated runs.
    pub ratio_to_raw_spread: Option<Spread>,
    /// The least and the greatest 99th percentile of the repeated runs.
    pub p99_spread: Spread,
    /// Where the latency begins: at the intended time of the `call`, or with the `outcome`.
    pub latency_from: Option<&'static str>,
    /// From there to the arrival at the endpoint.
    pub latency_ms: Percentiles,
    /// The server's processor time.
    pub server_cpu_micros_per_event: Option<f64>,
    /// The bare client's.
    pub raw_client_cpu_micros_per_request: Option<f64>,
    /// The server's largest resident set.
    pub rss_mi_b: Option<f64>,
    /// What the database has grown by once it is closed.
    pub disk_bytes_per_event: Option<f64>,
    /// What the server has written to disk, the log and what was overwritten included.
    pub written_bytes_per_event: Option<f64>,
    /// The largest size of the database's log.
    pub wal_mi_b: Option<f64>,
    /// Calls of fsync and fdatasync, counted by strace in a further short run.
    pub fsyncs_per_event: Option<f64>,
    /// Why they were not counted.
    pub fsyncs_note: Option<String>,
    /// The length of a body.
    pub body_bytes: Option<u64>,
    /// Events that came more than once; they count once.
    pub repeated_events: Option<u64>,
    /// What the database was on. On a `tmpfs` nothing waits for a disk.
    pub filesystem: Option<String>,
    /// Processors of this machine.
    pub processors: usize,
    /// What only this scenario finds.
    #[serde(flatten)]
    pub more: Map<String, Value>,
    #[serde(skip)]
    rows: Vec<(String, String)>,
}

/// The least and the greatest.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half took no longer.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// None took longer.
    pub max: f64,
}

impl Percentiles {
    /// Those of microseconds.
    pub fn of(micros: &Histogram<u64>) -> Self {
        let at = |quantile: f64| count(micros.value_at_quantile(quantile)) / 1000.0;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, p999, max } = self;
        write!(f, "p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1} ms")
    }
}

/// Microseconds from one to a hundred minutes, to a thousandth.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 6_000_000_000, 3).expect("the bounds are in order and the digits few")
}

/// The key of the rate that was set.
pub const OFFERED: &str = "offeredPerSecond";

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
pub fn count(n: u64) -> f64 {
    n as f64
}

/// A quotient; 0 where there is nothing to divide by.
pub fn ratio(of: f64, to: f64) -> f64 {
    if to > 0.0 { of / to } else { 0.0 }
}

impl Report {
    /// A report of a scenario that found nothing yet.
    pub fn new(scenario: &'static str, tls: bool) -> Self {
        let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        Self { scenario, tls, processors, ..Self::default() }
    }

    /// Adds what only this scenario finds: a figure in the JSON object, a row of the text.
    pub fn add(&mut self, key: &str, label: &str, value: impl Serialize, text: impl Into<String>) {
        self.add_quietly(key, value);
        self.rows.push((label.to_owned(), text.into()));
    }

    /// Adds it to the JSON object alone.
    pub fn add_quietly(&mut self, key: &str, value: impl Serialize) {
        self.more.insert(key.to_owned(), serde_json::to_value(value).unwrap_or_default());
    }

    /// Adds a number with this many digits after the point.
    pub fn add_number(&mut self, key: &str, label: &str, value: f64, digits: usize) {
        self.add(key, label, value, format!("{value:.digits$}"));
    }

    /// Whether it went at a set rate, so that the rate says nothing about the server.
    pub fn is_paced(&self) -> bool {
        self.more.contains_key(OFFERED)
    }

    /// Sets how many events came, and how fast.
    pub fn set_pace(&mut self, events: u64, seconds: f64) {
        (self.events, self.seconds) = (events, seconds);
        self.events_per_second = ratio(count(events), seconds);
    }

    /// The JSON object, numbers rounded to what they are good for.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        round(&mut value);
        value
    }

    fn usual_rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        let mut row = |label: &str, text: Option<String>| rows.extend(text.map(|text| (label.to_owned(), text)));
        let Spread { min, max } = self.events_per_second_spread;
        let spread = if max > min { format!(" ({min:.0} to {max:.0})") } else { String::new() };
        let pace = format!("{} in {:.2} s: {:.0}/s{spread}", self.events, self.seconds, self.events_per_second);
        row("events", (self.events > 0).then_some(pace));
        let cpu = self.raw_client_cpu_micros_per_request;
        row("raw", self.raw_per_second.zip(cpu).map(|(raw, cpu)| format!("{raw:.0}/s, {cpu:.1} µs of CPU a request")));
        let ratio = self.ratio_to_raw.filter(|_| !self.is_paced());
        row("ratio to raw", ratio.map(|ratio| format!("{ratio:.3}{}", self.ratio_spread())));
        row("events repeated", self.repeated_events.filter(|n| *n > 0).map(|n| n.to_string()));
        row("latency", self.latency_from.map(|from| format!("{} (from the {from})", self.latency_ms)));
        row("server CPU", self.server_cpu_micros_per_event.map(|micros| self.server_cpu(micros)));
        row("server memory", self.rss_mi_b.map(|mib| format!("{mib:.0} MiB")));
        row("disk", self.disk());
        let fsyncs = self.fsyncs_per_event.map(|n| format!("{n:.4} an event"));
        row("fsyncs", fsyncs.or_else(|| self.fsyncs_note.clone()));
        rows
    }

    fn ratio_spread(&self) -> String {
        let spread = self.ratio_to_raw_spread.filter(|spread| spread.max > spread.min);
        spread.map(|Spread { min, max }| format!(" ({min:.3} to {max:.3})")).unwrap_or_default()
    }

    fn server_cpu(&self, micros: f64) -> String {
        let times = self.raw_client_cpu_micros_per_request.map(|raw| format!(", {:.2} x raw", ratio(micros, raw)));
        format!("{micros:.1} µs an event{}", times.unwrap_or_default())
    }

    fn disk(&self) -> Option<String> {
        let kept = self.disk_bytes_per_event?;
        let written = self.written_bytes_per_event.map(|bytes| format!(", {bytes:.0} written"));
        let wal = self.wal_mi_b.map(|mib| format!(", log of {mib:.0} MiB"));
        let kind = self.filesystem.as_ref().map(|kind| format!(", on {kind}"));
        let [written, wal, kind] = [written, wal, kind].map(Option::unwrap_or_default);
        Some(format!("{kept:.0} bytes an event{written}{wal}{kind}"))
    }
}

/// Keeps three digits after the point, more for small numbers.
fn round(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().unwrap_or_default();
            let unit = if exact.abs() < 0.1 { 1e6 } else { 1e3 };
            *value = Value::from((exact * unit).round() / unit);
        }
        _ => {}
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { "TLS" } else { "plain" };
        let body = self.body_bytes.map(|bytes| format!(", {bytes} bytes a body")).unwrap_or_default();
        write!(f, "{} ({tls}{body})", self.scenario)?;
        let rows: Vec<_> = self.usual_rows().into_iter().chain(self.rows.clone()).collect();
        let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default();
        rows.iter().try_for_each(|(label, text)| write!(f, "\n  {label:width$}  {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_milliseconds() {
        let mut micros = histogram();
        (1..=1000).for_each(|n| micros.record(n * 1000).unwrap());
        let found = Percentiles::of(&micros);
        for (found, wanted) in [(found.p50, 500.0), (found.p99, 990.0), (found.max, 1000.0)] {
            assert!((found - wanted).abs() / wanted < 0.002, "{found} is not {wanted}");
        }
    }

    #[test]
    fn the_object_has_the_fixed_keys_and_further_ones() {
        let mut report = Report::new("deliver", false);
        report.set_pace(100, 0.123_456_789);
        report.add_number("waits", "waits", 1.5, 1);
        let object = report.to_json();
        assert_eq!(object["seconds"], 0.123);
        assert_eq!(object["waits"], 1.5);
        assert!(object["rssMiB"].is_null() && object["fsyncsPerEvent"].is_null());
        assert!(report.to_string().contains("\n  waits   1.5"), "{report}");
    }
}
