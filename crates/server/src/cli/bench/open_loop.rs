//! `open-loop`: how long an event takes at half of the maximum, whatever became of the calls before.

use super::deliver::{HOOK, yardstick};
use super::plan::{Pace, Recipients, Target};
use super::report::{OFFERED, Report, ratio};
use super::server::Sandbox;
use super::stage::Stage;
use super::{Paced, progress, raw};

/// Recipients of an execution, at most.
pub const MOST_RECIPIENTS: u64 = 20;

/// Measures the maximum, then the latency at half of it, then the bare client's at the same rate.
pub async fn measure(paced: &Paced) -> Result<Report, String> {
    let settings = &paced.settings;
    let mut report = Report::new("open-loop", settings.tls);
    let stage = Stage::set(settings.tls).await?;
    let target = stage.server.make_one(Sandbox::new(HOOK, HOOK, stage.endpoint.url("hook/0"))).await?;
    let targets = [target];
    progress("the maximum");
    let most = settings.size(200, 100_000, 300_000);
    let maximum = maximum(&stage, &targets, most, settings.size(5.0, 10.0, 30.0)).await?;
    let rate = paced.rate(maximum);
    let events = settings.events(200, events_in(rate, 15.0), events_in(rate, 90.0));
    progress(&format!("{events} events, {rate:.0} a second"));
    let pace = Pace::Open { events_per_second: rate, events };
    let run = stage.run(&targets, Recipients::UpTo(MOST_RECIPIENTS), pace).await?;
    run.check(HOOK)?;
    let found = run.seen.group(HOOK);
    run.report(HOOK, &mut report);
    report.latency_from = Some("outcome");
    report.latency_ms = found.from_outcome;
    report.add_number(OFFERED, "offered a second", rate, 0);
    report.add("maximumPerSecond", "maximum", maximum, format!("{maximum:.0}/s with executions of 20"));
    report.add("callToArrivalMs", "call to arrival", found.from_call, found.from_call.to_string());
    report.add("answerMs", "call to answer", run.done.answer_ms, run.done.answer_ms.to_string());
    report.add("failedCalls", "failed calls", &run.done.failed, format!("{:?}", run.done.failed));
    report.add_quietly("latestCallMs", run.done.latest_call_ms);
    stage.end(&mut report).await?;
    progress("the bare client at the same rate");
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let posts = events_in(rate, 5.0).min(events.max(200));
    let bare = raw::at_rate(folder.path(), &run.seen.sample, rate, posts, settings.tls).await?;
    report.add("rawLatencyMs", "raw at this rate", bare.from_call, bare.from_call.to_string());
    report.add_number("p99ToRawP99", "p99 / raw p99", ratio(found.from_outcome.p99, bare.from_call.p99), 2);
    yardstick(&run.seen.sample, settings, &mut report).await?;
    Ok(report)
}

/// What is delivered at most: executions of 20.
pub async fn maximum(stage: &Stage, targets: &[Target], events: u64, seconds: f64) -> Result<f64, String> {
    let run = stage.at_full_speed(targets, MOST_RECIPIENTS, events, seconds).await?;
    let group = targets.first().map(|target| target.group.as_str()).unwrap_or_default();
    run.check(group)?;
    Ok(run.seen.groups.values().map(super::ledger::Group::per_second).sum())
}

/// How many events a rate makes in so many seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive, and a bench short")]
pub fn events_in(rate: f64, seconds: f64) -> u64 {
    (rate * seconds).max(1.0) as u64
}
