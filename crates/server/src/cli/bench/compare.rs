//! `compare`: two results side by side.

use super::super::{Failure, Outcome, print_line};
use super::report::OFFERED;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The arguments of `esito bench compare`.
#[derive(Debug, clap::Args)]
pub struct Compare {
    /// The result to compare with, as `--json` printed it
    before: PathBuf,
    /// The result to judge
    after: PathBuf,
    /// How much worse a figure may be
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    tolerance: f64,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// What is good for a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Good {
    More,
    Less,
    /// It says under which conditions the others came about, or is too much a matter of chance.
    Neither,
}

/// The figures that are judged, by the last part of their names, and what is good for them.
const JUDGED: &[(&str, Good)] = &[
    ("eventsPerSecond", Good::More),
    ("ratioToRaw", Good::More),
    ("maximumPerSecond", Good::More),
    ("throughputRatio", Good::More),
    ("drainPerSecond", Good::More),
    ("drainToMaximum", Good::More),
    ("p50", Good::Less),
    ("p90", Good::Less),
    ("p99", Good::Less),
    ("p99Ratio", Good::Less),
    ("p99ToRawP99", Good::Less),
    ("maxToMedianWait", Good::Less),
    ("serverCpuMicrosPerEvent", Good::Less),
    ("rssMiB", Good::Less),
    ("backlogRssMiB", Good::Less),
    ("idleRssMiB", Good::Less),
    ("idleCpuPercent", Good::Less),
    ("readyMs", Good::Less),
    ("restartMs", Good::Less),
    ("diskBytesPerEvent", Good::Less),
    ("writtenBytesPerEvent", Good::Less),
    ("fsyncsPerEvent", Good::Less),
];

fn good(name: &str, is_paced: bool) -> Good {
    // The bare client's figures are about the machine.
    if name.starts_with("raw") || name.starts_with("outside") {
        return Good::Neither;
    }
    // At a set rate these say what was set.
    if is_paced && ["eventsPerSecond", "ratioToRaw"].contains(&name) {
        return Good::Neither;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    JUDGED.iter().find(|(judged, _)| *judged == last).map_or(Good::Neither, |(_, good)| *good)
}

/// A figure in both results.
#[derive(Clone, Debug)]
struct Change {
    name: String,
    before: f64,
    after: f64,
    /// In percent of `before`; none where that is 0.
    percent: Option<f64>,
    is_worse: bool,
}

impl Compare {
    /// Prints every figure of both; fails where one is worse than tolerated.
    pub fn run(self) -> Outcome {
        let (before, after) = (read(&self.before)?, read(&self.after)?);
        if before["scenario"] != after["scenario"] || before["tls"] != after["tls"] {
            return Err(Failure::new(format!(
                "these are no two results of one scenario: {} and {}",
                of_what(&before),
                of_what(&after)
            )));
        }
        let changes = changes(&figures(&before), &figures(&after), self.tolerance);
        let worse: Vec<&str> =
            changes.iter().filter(|change| change.is_worse).map(|change| change.name.as_str()).collect();
        if self.json {
            let items: Vec<Value> = changes.iter().map(Change::to_json).collect();
            let scenario = &before["scenario"];
            let told =
                json!({"scenario": scenario, "tolerancePercent": self.tolerance, "worse": worse, "figures": items});
            print_line(&told.to_string())?;
        } else {
            print_line(&table(&of_what(&before), &changes))?;
        }
        if worse.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("worse by more than {} %: {}", self.tolerance, worse.join(", "))))
    }
}

fn read(path: &Path) -> Result<Value, Failure> {
    let fault = |what: String| Failure::new(format!("{}: {what}", path.display()));
    let text = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| fault(error.to_string()))?;
    match value["scenario"].is_string() {
        true => Ok(value),
        false => Err(fault("this is no result of esito bench --json".to_owned())),
    }
}

fn of_what(result: &Value) -> String {
    let tls = if result["tls"] == true { " (TLS)" } else { "" };
    format!("{}{tls}", result["scenario"].as_str().unwrap_or_default())
}

/// Every number of a result, by its path.
fn figures(result: &Value) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    collect("", result, &mut found);
    found
}

fn collect(path: &str, value: &Value, found: &mut BTreeMap<String, f64>) {
    if let Some(number) = value.as_f64() {
        found.insert(path.to_owned(), number);
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(&path, value, found);
    }
}

fn changes(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, tolerance: f64) -> Vec<Change> {
    let is_paced = before.contains_key(OFFERED);
    let change = |(name, &before): (&String, &f64)| {
        let &after = after.get(name)?;
        let percent = (before != 0.0).then(|| (after - before) / before * 100.0);
        let worse = match good(name, is_paced) {
            Good::More => percent.map(|percent| -percent),
            Good::Less => percent,
            Good::Neither => None,
        };
        let is_worse = worse.is_some_and(|by| by > tolerance);
        Some(Change { name: name.clone(), before, after, percent, is_worse })
    };
    before.iter().filter_map(change).collect()
}

impl Change {
    fn to_json(&self) -> Value {
        let Self { name, before, after, percent, is_worse } = self;
        json!({"name": name, "before": before, "after": after, "percent": percent, "worse": is_worse})
    }
}

fn table(what: &str, changes: &[Change]) -> String {
    let width = changes.iter().map(|change| change.name.len()).max().unwrap_or_default();
    let mut text = what.to_owned();
    for Change { name, before, after, percent, is_worse } in changes {
        let percent = percent.map(|percent| format!("{percent:+.1} %")).unwrap_or_default();
        let mark = if *is_worse { "  worse" } else { "" };
        text.push_str(&format!("\n  {name:width$}  {before:>14.3}  {after:>14.3}  {percent:>10}{mark}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(before: Value, after: Value) -> Vec<String> {
        let changes = changes(&figures(&before), &figures(&after), 10.0);
        changes.into_iter().filter(|change| change.is_worse).map(|change| change.name).collect()
    }

    #[test]
    fn worse_is_less_of_the_good_and_more_of_the_bad() {
        let before = json!({"eventsPerSecond": 100.0, "latencyMs": {"p99": 10.0, "max": 20.0}, "rawPerSecond": 500.0});
        let after = json!({"eventsPerSecond": 80.0, "latencyMs": {"p99": 12.0, "max": 90.0}, "rawPerSecond": 100.0});
        assert_eq!(judged(before.clone(), after.clone()), ["eventsPerSecond", "latencyMs.p99"]);
        assert!(judged(after, before.clone()).is_empty());
        assert!(judged(before.clone(), before).is_empty());
    }

    #[test]
    fn what_is_missing_or_null_is_not_compared() {
        let before = json!({"fsyncsPerEvent": null, "rssMiB": 0.0, "x": 1});
        assert!(judged(before, json!({"fsyncsPerEvent": 3.0, "rssMiB": 5.0})).is_empty());
    }

    #[test]
    fn every_change_has_its_row() {
        let changes = changes(&figures(&json!({"a": 1.0})), &figures(&json!({"a": 2.0})), 10.0);
        assert_eq!(table("deliver", &changes), "deliver\n  a           1.000           2.000    +100.0 %");
    }
}
