//! `raw`: the yardstick. A bare client posts the bytes of one event, as the server sent it, again and again.

use super::super::{Failure, Outcome};
use super::ledger::Sample;
use super::outside;
use super::plan::{Pace, Plan, Post, Work};
use super::report::{Percentiles, Report, count, ratio};
use super::server::Sandbox;
use super::stage::{CONCURRENCY, Endpoint, Stage, call};
use super::{Settings, progress};
use std::path::Path;
use std::time::Duration;

/// A yardstick below this share of what an outside tool reaches is none.
const LEAST_SHARE: f64 = 0.8;
/// The bare client posts for no longer.
const LONGEST_SECONDS: f64 = 20.0;
/// What was posted has come within this.
const LAST_POSTS: Duration = Duration::from_secs(10);

/// The arguments of `esito bench raw`.
#[derive(Clone, Debug, clap::Args)]
pub struct Raw {
    /// Compares with wrk, or h2load, posting the same to the same endpoint; fails below 0.8 of it
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// What the bare client reached.
#[derive(Clone, Debug)]
pub struct Bare {
    events: u64,
    seconds: f64,
    /// Requests a second.
    pub per_second: f64,
    cpu_micros_per_request: f64,
    /// From the time of a call to its arrival.
    pub from_call: Percentiles,
}

impl Raw {
    pub(super) async fn measure(&self) -> Result<Report, String> {
        let settings = &self.settings;
        let mut report = Report::new("raw", settings.tls);
        let sample = sample(settings.tls).await?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        progress("posting");
        let events = settings.events(200, 400_000, 1_500_000);
        let bare = at_full_speed(folder.path(), &sample, events, settings.tls).await?;
        bare.report(&mut report);
        report.set_pace(bare.events, bare.seconds);
        report.ratio_to_raw = Some(1.0);
        report.latency_from = Some("call");
        report.latency_ms = bare.from_call;
        report.body_bytes = Some(sample.body.len() as u64);
        if self.check {
            self.check(folder.path(), &sample, &mut report).await?;
        }
        Ok(report)
    }

    /// Rounds of the bare client and the outside tool in turn, each by its median: what else the machine does meanwhile
    /// then touches both alike. The tool counts with the number of threads that suits it best.
    async fn check(&self, folder: &Path, sample: &Sample, report: &mut Report) -> Result<(), String> {
        let tls = self.settings.tls;
        let (rounds, seconds) = self.settings.size((1, 1), (5, 2), (9, 4));
        let (mut bare, mut theirs, mut tool) = (Vec::new(), outside::THREADS.map(|_| Vec::new()), None);
        for round in 1..=rounds {
            progress(&format!("round {round} of {rounds} with an outside tool"));
            bare.push(at_full_speed(folder, sample, self.settings.size(200, 150_000, 300_000), tls).await?.per_second);
            for (found, threads) in theirs.iter_mut().zip(outside::THREADS) {
                let endpoint = Endpoint::start_to_count_all(folder, "outside", tls).await?;
                let url = endpoint.url("hook/0");
                let measured = outside::measure(folder, &url, sample, (threads, CONCURRENCY), seconds).await?;
                endpoint.end().await?;
                let Some((name, per_second)) = measured else {
                    report.add("outsidePerSecond", "outside", None::<f64>, "neither wrk nor h2load is installed");
                    return Ok(());
                };
                tool = Some(name);
                found.push(per_second);
            }
        }
        let (bare, theirs) = (middle(bare), theirs.map(middle).into_iter().fold(0.0, f64::max));
        let tool = tool.unwrap_or_default();
        let told = format!("{theirs:.0}/s by {tool}, {bare:.0}/s by the bare client between");
        report.add("outsidePerSecond", "outside", theirs, told);
        report.add_quietly("outsideTool", tool);
        report.add_quietly("rawPerSecondBetween", bare);
        report.add_number("ratioToOutside", "raw / outside", ratio(bare, theirs), 3);
        Ok(())
    }

    /// Fails where the yardstick was checked and found wanting.
    pub(super) fn verdict(&self, report: &Report) -> Outcome {
        match report.more.get("ratioToOutside").and_then(serde_json::Value::as_f64) {
            Some(share) if share < LEAST_SHARE && !self.settings.tiny => Err(Failure::new(format!(
                "the bare client reaches only {share:.2} of what an outside tool does: no yardstick"
            ))),
            _ => Ok(()),
        }
    }
}

/// The one in the middle.
fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// One event as the server sends it.
pub async fn sample(tls: bool) -> Result<Sample, String> {
    let stage = Stage::set(tls).await?;
    let target = stage.server.make_one(Sandbox::new("bench", "hook", stage.endpoint.url("hook/0"))).await?;
    let run = stage.at_full_speed(&[target], 1, 1, LONGEST_SECONDS).await?;
    run.check("hook")?;
    Ok(run.seen.sample)
}

/// Posts as fast as 64 connections go.
pub async fn at_full_speed(folder: &Path, sample: &Sample, events: u64, tls: bool) -> Result<Bare, String> {
    let callers = usize::try_from(CONCURRENCY).unwrap_or(usize::MAX);
    bare(folder, sample, Pace::Closed { callers, events, seconds: LONGEST_SECONDS }, tls).await
}

/// Posts at a rate.
pub async fn at_rate(
    folder: &Path,
    sample: &Sample,
    events_per_second: f64,
    events: u64,
    tls: bool,
) -> Result<Bare, String> {
    bare(folder, sample, Pace::Open { events_per_second, events }, tls).await
}

async fn bare(folder: &Path, sample: &Sample, pace: Pace, tls: bool) -> Result<Bare, String> {
    let endpoint = Endpoint::start_to_count_all(folder, "raw", tls).await?;
    let post = Post { url: endpoint.url("hook/0"), headers: sample.headers.clone(), body: sample.body.clone() };
    let plan = Plan { work: Work::Post(post), pace, ca_file: endpoint.ca_file.clone() };
    let done = call(folder, &plan).await?;
    let seen = endpoint.wait_for("hook", done.requests, LAST_POSTS).await?.group("hook");
    endpoint.end().await?;
    Ok(Bare {
        events: seen.events,
        seconds: seen.seconds(),
        per_second: seen.per_second(),
        cpu_micros_per_request: done.cpu_micros / count(done.requests.max(1)),
        // Without a time in the body only the answers tell how long it took.
        from_call: if matches!(pace, Pace::Open { .. }) { seen.from_call } else { done.answer_ms },
    })
}

impl Bare {
    /// Puts the yardstick into a report.
    pub fn report(&self, report: &mut Report) {
        report.raw_per_second = Some(self.per_second);
        report.raw_client_cpu_micros_per_request = Some(self.cpu_micros_per_request);
    }
}
