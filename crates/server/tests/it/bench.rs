//! `esito bench`: every scenario at its smallest. That they run and tell what they promise, not how fast anything is.

use serde_json::Value;
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// A debug build on a busy machine takes its time; this is for a bench that is stuck.
const STUCK: Duration = Duration::from_secs(240);

/// What every scenario tells.
const KEYS: [&str; 12] = [
    "scenario",
    "events",
    "seconds",
    "eventsPerSecond",
    "rawPerSecond",
    "ratioToRaw",
    "latencyMs",
    "serverCpuMicrosPerEvent",
    "rawClientCpuMicrosPerRequest",
    "rssMiB",
    "diskBytesPerEvent",
    "fsyncsPerEvent",
];

async fn esito(arguments: &[&str], temporary: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esito"));
    command.arg("bench").args(arguments).env("TMPDIR", temporary).env("ESITO_LISTEN", "nowhere").kill_on_drop(true);
    tokio::time::timeout(STUCK, command.output()).await.expect("the bench ends").unwrap()
}

/// The one object that the scenario prints; nothing is left behind.
async fn measure(arguments: &[&str]) -> Value {
    let temporary = TempDir::new().unwrap();
    let output = esito(&[arguments, &["--tiny", "--json"]].concat(), temporary.path()).await;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}");
    let found: Value = serde_json::from_slice(&output.stdout).expect("exactly one JSON object");
    assert_eq!(found["scenario"], arguments[0]);
    for key in KEYS {
        assert!(found.get(key).is_some(), "{key} is not in {found}");
    }
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left behind");
    found
}

fn number(found: &Value, path: &str) -> f64 {
    let value = path.split('.').fold(found, |value, name| &value[name]);
    value.as_f64().unwrap_or_else(|| panic!("{path} is {value} in {found}"))
}

fn positive(found: &Value, paths: &[&str]) {
    for path in paths {
        assert!(number(found, path) > 0.0, "{path} in {found}");
    }
}

/// Percentiles rise.
fn ordered(found: &Value, path: &str) {
    let at = |name: &str| number(found, &format!("{path}.{name}"));
    let all = [at("p50"), at("p90"), at("p99"), at("p999"), at("max")];
    assert!(all[0] >= 0.0 && all.is_sorted(), "{path} in {found}");
}

#[tokio::test]
async fn raw_is_the_yardstick() {
    for arguments in [&["raw"][..], &["raw", "--tls"]] {
        let found = measure(arguments).await;
        assert_eq!(number(&found, "events"), 200.0);
        positive(&found, &["eventsPerSecond", "rawPerSecond", "rawClientCpuMicrosPerRequest", "bodyBytes"]);
        assert_eq!(found["ratioToRaw"], 1.0);
        assert_eq!(found["tls"], arguments.len() > 1);
        ordered(&found, "latencyMs");
    }
}

#[tokio::test]
async fn raw_is_checked_against_what_is_there() {
    let found = measure(&["raw", "--check"]).await;
    let outside = &found["outsidePerSecond"];
    assert!(outside.is_null() || outside.as_f64() > Some(0.0), "{found}");
}

#[tokio::test]
async fn deliver_and_single_tell_what_an_event_costs() {
    for scenario in ["deliver", "single"] {
        let found = measure(&[scenario, "--events", "100"]).await;
        assert_eq!(number(&found, "events"), 100.0);
        let costs = ["ratioToRaw", "serverCpuMicrosPerEvent", "rssMiB", "diskBytesPerEvent", "seconds"];
        positive(&found, &costs);
        ordered(&found, "latencyMs");
        let counted = found["fsyncsPerEvent"].as_f64().is_some_and(|n| n > 0.0);
        assert!(counted || found["fsyncsNote"].is_string(), "{found}");
    }
}

#[tokio::test]
async fn deliver_goes_over_tls() {
    let found = measure(&["deliver", "--tls", "--repeat", "2", "--events", "40"]).await;
    assert_eq!(found["tls"], true);
    let spread = &found["eventsPerSecondSpread"];
    assert!(number(spread, "min") <= number(spread, "max") && number(spread, "min") > 0.0, "{found}");
}

#[tokio::test]
async fn open_loop_tells_the_latency_at_a_rate() {
    let found = measure(&["open-loop", "--rate", "200"]).await;
    assert_eq!(number(&found, "events"), 200.0);
    assert_eq!(number(&found, "offeredPerSecond"), 200.0);
    for percentiles in ["latencyMs", "callToArrivalMs", "rawLatencyMs", "answerMs"] {
        ordered(&found, percentiles);
    }
    assert_eq!(found["failedCalls"], serde_json::json!({}));
}

#[tokio::test]
async fn hanging_halves_are_compared_with_none() {
    for scenario in ["hang", "hang-relay"] {
        let found = measure(&[scenario, "--rate", "200"]).await;
        positive(&found, &["throughputRatio", "p99Ratio", "webhooks", "events"]);
        assert_eq!(number(&found, "othersMissing"), 0.0, "{found}");
        ordered(&found, "othersWithNoneHanging.latencyMs");
    }
}

#[tokio::test]
async fn a_backlog_waits_and_drains() {
    let found = measure(&["backlog", "--rate", "100"]).await;
    assert_eq!(number(&found, "backlogEvents"), 400.0);
    assert_eq!(number(&found, "drainedEvents"), 380.0, "{found}");
    assert_eq!(number(&found, "limitedDrainedEvents"), 20.0, "{found}");
    positive(&found, &["restartMs", "backlogRssMiB", "p99Ratio"]);
    assert!(number(&found, "drainMostConnections") <= 64.0, "{found}");
}

#[tokio::test]
async fn every_one_of_many_webhooks_gets_its_events() {
    let found = measure(&["many-webhooks", "--rate", "100"]).await;
    assert_eq!(number(&found, "webhooks"), 10.0);
    positive(&found, &["maxToMedianWait", "eventsPerWebhook"]);
    ordered(&found, "meanWaitOfWebhooksMs");
}

#[tokio::test]
async fn a_replay_runs_beside_live_traffic_and_through_kills() {
    let found = measure(&["replay", "--rate", "100"]).await;
    for replay in ["replayedEvents", "replayedThroughKills"] {
        let replay = &found[replay];
        assert_eq!(replay["state"], "completed", "{found}");
        assert_eq!(replay["replayed"], replay["told"], "{found}");
        assert!(replay["replayed"].as_u64() >= replay["events"].as_u64(), "{found}");
    }
    positive(&found, &["p99Ratio", "replayPerSecond"]);
    assert_eq!(number(&found, "liveMissing"), 0.0, "{found}");
}

#[tokio::test]
async fn a_store_levels_off_under_retention() {
    let found = measure(&["retention"]).await;
    assert_eq!(number(&found, "present"), 1_000.0, "ten of forty days: {found}");
    positive(&found, &["databaseRatio", "memoryRatio", "diskBytesPerEvent", "deletedPerSecond"]);
    assert_eq!(found["days"].as_array().unwrap().len(), 40);
}

#[tokio::test]
async fn a_store_grows_and_every_search_is_timed() {
    let found = measure(&["growth"]).await;
    let points = found["points"].as_array().unwrap();
    assert_eq!(points.len(), 3, "{found}");
    for point in points {
        assert!(point["searches"].as_object().unwrap().len() > 40, "{point}");
        assert!(point["eventsPerSecond"].as_f64().unwrap() > 0.0 && point["slowestSearchMs"].as_f64().unwrap() > 0.0);
    }
    positive(&found, &["eventsPerSecondRatio", "p99Ratio"]);
}

#[tokio::test]
async fn every_page_of_the_console_is_timed() {
    let found = measure(&["console"]).await;
    assert!(found["pages"].as_object().unwrap().len() > 50, "{found}");
    positive(&found, &["slowestPageMs"]);
}

#[cfg(feature = "peers")]
#[tokio::test(flavor = "multi_thread")]
async fn both_stores_are_compared_in_one_run() {
    let database = store::postgres::throwaway::Database::new().await;
    let found = measure(&["stores", "--postgres", database.url()]).await;
    for store in ["sqlite", "postgres"] {
        let of = |name: &str| number(&found, &format!("{store}.{name}"));
        assert_eq!(of("events"), 200.0);
        for name in ["eventsPerSecond", "serverCpuMicros", "walBytes"] {
            assert!(of(name) > 0.0, "{store}.{name} in {found}");
        }
        // An event is a row, and a message is changed for it.
        assert!(of("rowWrites") > 1.0 && of("statements") > 0.0, "{found}");
    }
    positive(&found, &["postgresToSqlite", "ratioToRaw", "postgres.transactions"]);
}

#[tokio::test]
async fn an_idle_server_is_watched() {
    let found = measure(&["idle"]).await;
    positive(&found, &["readyMs", "idleRssMiB", "rssMiB"]);
    assert!(number(&found, "idleCpuPercent") >= 0.0);
    assert!(found["rawPerSecond"].is_null());
}

#[tokio::test]
async fn results_are_compared() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let before = write("a", r#"{"scenario":"deliver","tls":false,"ratioToRaw":0.40,"latencyMs":{"p99":10}}"#);
    let after = write("b", r#"{"scenario":"deliver","tls":false,"ratioToRaw":0.30,"latencyMs":{"p99":9}}"#);
    let other = write("c", r#"{"scenario":"raw","tls":false}"#);
    let broken = write("d", "[]");
    let compare = async |arguments: &[&str]| esito(&[&["compare"], arguments].concat(), folder.path()).await;
    let worse = compare(&[&before, &after]).await;
    assert_eq!(worse.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&worse.stdout).contains("-25.0 %  worse"));
    assert!(String::from_utf8_lossy(&worse.stderr).contains("ratioToRaw"));
    assert!(compare(&[&before, &after, "--tolerance", "30"]).await.status.success());
    assert!(compare(&[&after, &before]).await.status.code() == Some(1), "the latency is 11 % worse");
    let told = compare(&[&before, &after, "--json"]).await;
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["worse"], serde_json::json!(["ratioToRaw"]));
    for wrong in [&other, &broken, "nowhere"] {
        assert_eq!(compare(&[&before, wrong]).await.status.code(), Some(1));
    }
}
