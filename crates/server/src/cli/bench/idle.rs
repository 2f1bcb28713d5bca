//! `idle`: what a server costs that has nothing to do.

use super::report::{Report, ratio};
use super::server::Server;
use super::{Settings, progress};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Starts it several times on an empty store, then lets it be.
pub async fn measure(settings: &Settings) -> Result<Report, String> {
    let mut report = Report::new("idle", settings.tls);
    progress("starting on an empty store");
    let mut ready = Vec::new();
    for _ in 0..settings.size(1, 5, 15) {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        ready.push(Server::start(folder.path(), None, &[]).await?.ready_ms);
    }
    ready.sort_by(f64::total_cmp);
    progress("doing nothing");
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let server = Server::start(folder.path(), None, &[]).await?;
    // What a start does behind the first answer is over by then.
    sleep(Duration::from_secs_f64(settings.size(0.2, 2.0, 2.0))).await;
    let (before, started) = (server.account()?, Instant::now());
    sleep(Duration::from_secs_f64(settings.size(0.5, 10.0, 60.0))).await;
    let after = server.account()?;
    let seconds = started.elapsed().as_secs_f64();
    let percent = ratio(after.cpu_micros_since(&before) / 1e4, seconds);
    report.seconds = seconds;
    report.rss_mi_b = Some(after.peak_rss_mib);
    report.add_number("idleRssMiB", "resident now (MiB)", after.rss_mib, 1);
    report.add("idleCpuPercent", "CPU of a core", percent, format!("{percent:.2} %"));
    let median = ready[ready.len() / 2];
    let (least, most) = (ready[0], ready[ready.len() - 1]);
    report.add("readyMs", "start to ready", median, format!("{median:.0} ms ({least:.0} to {most:.0})"));
    Ok(report)
}
