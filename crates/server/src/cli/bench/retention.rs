//! `retention`: many days of events, of which the last ten are kept. The store's process is watched from outside.

use super::process;
use super::report::{Report, count, ratio};
use super::server::{Sandbox, Server};
use super::stage::words;
use super::{Settings, progress};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// How many days are filled.
const DAYS: u32 = 40;
/// How many of them are kept.
const KEPT: u32 = 10;
const SANDBOX: &str = "old";

/// What the process tells of a day.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    day: u32,
    events: u64,
    deleted: u64,
    fill_seconds: f64,
    retention_seconds: f64,
}

/// A day, seen from outside.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Day {
    day: u32,
    present: u64,
    deleted: u64,
    database_mi_b: f64,
    log_mi_b: f64,
    rss_mi_b: f64,
    filled_per_second: f64,
    deleted_per_second: f64,
}

/// Fills day after day, and notes size and memory.
pub async fn measure(settings: &Settings) -> Result<Report, String> {
    let mut report = Report::new("retention", false);
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let server = Server::start(folder.path(), None, &[]).await?;
    server.make_one(Sandbox::new(SANDBOX, "none", "http://127.0.0.1:9/none/0".to_owned())).await?;
    let mut arguments = words("bench age");
    arguments.extend(server.configuration());
    server.end(Duration::from_secs(20)).await?;
    let events = settings.events(4_000, 1_000_000, 10_000_000);
    arguments.extend(words(&format!("--sandbox {SANDBOX} --events {events} --days {DAYS} --keep-days {KEPT}")));
    progress(&format!("{events} events over {DAYS} days, of which {KEPT} are kept"));
    let mut days: Vec<Day> = Vec::new();
    let limit = Duration::from_secs_f64(settings.size(60.0, 300.0, 3_000.0));
    process::watch(&arguments, limit, |line, account| {
        let told: Told = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let (filled, deleted) = days.last().map_or((told.events, told.deleted), |last| {
            (told.events - last.present - last.deleted, told.deleted - last.deleted)
        });
        let mib = |name: &str| count(size(&folder.path().join(name))) / 1024.0 / 1024.0;
        let day = Day {
            day: told.day,
            present: told.events - told.deleted,
            deleted: told.deleted,
            database_mi_b: mib("esito.db"),
            log_mi_b: mib("esito.db-wal"),
            rss_mi_b: account.rss_mib,
            filled_per_second: ratio(count(filled), told.fill_seconds),
            deleted_per_second: ratio(count(deleted), told.retention_seconds),
        };
        if told.day.is_multiple_of(5) {
            progress(&format!(
                "day {}: {} events, database {:.0} MiB, log {:.0} MiB, memory {:.0} MiB, {:.0} filled and {:.0} deleted a second",
                day.day, day.present, day.database_mi_b, day.log_mi_b, day.rss_mi_b, day.filled_per_second, day.deleted_per_second
            ));
        }
        days.push(day);
        Ok(())
    })
    .await?;
    tell(&days, events, &mut report)?;
    Ok(report)
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map(|file| file.len()).unwrap_or_default()
}

/// The first day after which as much goes as comes, against the last.
fn tell(days: &[Day], events: u64, report: &mut Report) -> Result<(), String> {
    let full = days.iter().find(|day| day.day == KEPT + 2).ok_or("too few days")?;
    let last = days.last().ok_or("no days")?;
    let most = days.iter().map(|day| day.database_mi_b).fold(0.0, f64::max);
    report.events = events;
    report.rss_mi_b = Some(days.iter().map(|day| day.rss_mi_b).fold(0.0, f64::max));
    report.disk_bytes_per_event = Some(ratio(full.database_mi_b * 1024.0 * 1024.0, count(full.present)));
    report.add("present", "events present", last.present, format!("{} of {events}", last.present));
    let size = format!(
        "{:.0} MiB on day {}, {:.0} on day {}, {most:.0} at most",
        full.database_mi_b, full.day, last.database_mi_b, last.day
    );
    report.add("databaseMiB", "database", [full.database_mi_b, last.database_mi_b, most], size);
    report.add_number("databaseRatio", "last / first full day", ratio(last.database_mi_b, full.database_mi_b), 3);
    let memory = format!("{:.0} MiB on day {}, {:.0} on day {}", full.rss_mi_b, full.day, last.rss_mi_b, last.day);
    report.add("memoryMiB", "memory", [full.rss_mi_b, last.rss_mi_b], memory);
    report.add_number("memoryRatio", "last / first full day", ratio(last.rss_mi_b, full.rss_mi_b), 3);
    report.add_number("filledPerSecond", "filled a second, last day", last.filled_per_second, 0);
    report.add_number("deletedPerSecond", "deleted a second, last day", last.deleted_per_second, 0);
    report.add_quietly("days", days);
    Ok(())
}
