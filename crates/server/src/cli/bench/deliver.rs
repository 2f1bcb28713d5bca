//! `deliver` and `single`: executions as many as go, each event delivered to one webhook.

use super::report::{Report, ratio};
use super::server::Sandbox;
use super::stage::Stage;
use super::{Settings, fsyncs, progress, raw};

/// The sandbox of the one webhook, and the group of its events.
pub const HOOK: &str = "hook";

/// Measures executions of so many recipients.
pub async fn measure(scenario: &'static str, recipients: u64, settings: &Settings) -> Result<Report, String> {
    let mut report = Report::new(scenario, settings.tls);
    let events = if recipients == 1 {
        settings.events(200, 60_000, 500_000)
    } else {
        settings.events(200, 200_000, 1_500_000).next_multiple_of(recipients)
    };
    let seconds = settings.size(5.0, 25.0, 150.0);
    let stage = Stage::set(settings.tls).await?;
    let target = stage.server.make_one(Sandbox::new(HOOK, HOOK, stage.endpoint.url("hook/0"))).await?;
    progress(&format!("{events} events in executions of {recipients}"));
    let run = stage.at_full_speed(&[target], recipients, events, seconds).await?;
    run.check(HOOK)?;
    run.report(HOOK, &mut report);
    report.latency_from = Some("call");
    report.latency_ms = run.seen.group(HOOK).from_call;
    report.add_quietly("outcomeToArrivalMs", run.seen.group(HOOK).from_outcome);
    stage.end(&mut report).await?;
    yardstick(&run.seen.sample, settings, &mut report).await?;
    progress("counting fsyncs");
    fsyncs::report(recipients, events.min(settings.size(200, 40_000, 200_000)), settings.tls, &mut report).await;
    Ok(report)
}

/// The bare client with the same bytes, in the same run.
pub async fn yardstick(
    sample: &super::ledger::Sample,
    settings: &Settings,
    report: &mut Report,
) -> Result<raw::Bare, String> {
    progress("the bare client");
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let posts = settings.size(200, 200_000, 600_000);
    let bare = raw::at_full_speed(folder.path(), sample, posts, settings.tls).await?;
    bare.report(report);
    report.ratio_to_raw = Some(ratio(report.events_per_second, bare.per_second));
    Ok(bare)
}
