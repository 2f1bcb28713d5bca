//! `replay`: many events once more, beside live traffic to the same webhook, and then through kills.

use super::deliver::{HOOK, yardstick};
use super::ledger::Group;
use super::open_loop::{MOST_RECIPIENTS, events_in, maximum};
use super::plan::{Pace, Recipients};
use super::report::{OFFERED, Report, count, ratio};
use super::server::Sandbox;
use super::stage::{Run, Stage};
use super::{Paced, progress};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often the server is killed during the second replay.
const KILLS: u32 = 5;
/// The most events a second that a replay may be asked for.
const MOST_PER_SECOND: f64 = 10_000.0;
/// How often a replay is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Fills a store, measures live traffic without a replay and with one, and kills the server during another.
pub async fn measure(paced: &Paced) -> Result<Report, String> {
    let settings = &paced.settings;
    let mut report = Report::new("replay", settings.tls);
    let mut stage = Stage::set(settings.tls).await?;
    let hook = [stage.server.make_one(Sandbox::new(HOOK, HOOK, stage.endpoint.url("hook/0"))).await?];
    progress("the maximum");
    let maximum = maximum(&stage, &hook, settings.size(200, 30_000, 200_000), settings.size(5.0, 8.0, 20.0)).await?;
    // Live traffic takes a quarter of what goes, and the replay a twentieth: a million events in ten minutes.
    let rate = paced.rate.map_or(maximum / 4.0, f64::from);
    let per_second = (maximum / 20.0).clamp(1.0, MOST_PER_SECOND);
    let wanted = settings.events(400, 20_000, 1_000_000);
    progress(&format!("{wanted} events to be replayed"));
    let filled = stage.at_full_speed(&hook, MOST_RECIPIENTS, wanted, settings.size(5.0, 20.0, 120.0)).await?;
    filled.check(HOOK)?;
    let live = async |stage: &Stage, seconds: f64| {
        let pace = Pace::Open { events_per_second: rate, events: events_in(rate, seconds) };
        stage.run(&hook, Recipients::UpTo(MOST_RECIPIENTS), pace).await
    };
    progress(&format!("{rate:.0} live events a second, no replay"));
    let without = live(&stage, settings.size(0.5, 5.0, 30.0)).await?;
    without.check(HOOK)?;
    // And a few of the live ones that come before it.
    let all = settled(&stage).await?;
    progress(&format!("the same beside a replay of {all} events at {per_second:.0} a second"));
    let started = Instant::now();
    // The counts begin again with the live traffic, so the replay begins a moment later.
    let beside = async {
        sleep(LOOK * 2).await;
        begin(&stage, all, per_second).await
    };
    let (with, id) = tokio::join!(live(&stage, count(all) / per_second), beside);
    let (with, id) = (with?, id?);
    let replay = end(&stage, &id, patience(all, per_second)).await?;
    let took = started.elapsed().as_secs_f64();
    let seen = stage.endpoint.seen().await?.group(HOOK);
    with.report(HOOK, &mut report);
    report.latency_from = Some("call");
    report.latency_ms = with.seen.group(HOOK).from_call;
    report.add_number(OFFERED, "live events a second", rate, 0);
    report.add("maximumPerSecond", "maximum", maximum, format!("{maximum:.0}/s with executions of 20"));
    tell_live(&without, &with, &mut report);
    tell_replay("replayedEvents", "events replayed", &seen, &replay, all, &mut report);
    report.add_number("replayPerSecond", "replayed a second", ratio(count(seen.replayed), took), 0);
    progress(&format!("a replay through {KILLS} kills"));
    let all = settled(&stage).await?;
    stage.endpoint.reset().await?;
    let id = begin(&stage, all, MOST_PER_SECOND).await?;
    let between = count(all) / MOST_PER_SECOND / f64::from(KILLS + 1);
    for _ in 0..KILLS {
        sleep(Duration::from_secs_f64(between)).await;
        stage.server = stage.server.crash_and_restart().await?;
    }
    let replay = end(&stage, &id, patience(all, MOST_PER_SECOND)).await?;
    let seen = stage.endpoint.seen().await?.group(HOOK);
    tell_replay("replayedThroughKills", "through kills", &seen, &replay, all, &mut report);
    report.add_quietly("kills", KILLS);
    stage.end(&mut report).await?;
    yardstick(&with.seen.sample, settings, &mut report).await?;
    Ok(report)
}

/// Waits until every delivery has ended, as the store has it; how many there are.
async fn settled(stage: &Stage) -> Result<u64, String> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let pending = stage.server.get(HOOK, "/v1/deliveries?state=pending&limit=1").await?;
        if pending["items"].as_array().is_some_and(Vec::is_empty) {
            return Ok(stage.all_events());
        }
        if Instant::now() > until {
            return Err("deliveries did not end".to_owned());
        }
        sleep(LOOK).await;
    }
}

async fn begin(stage: &Stage, all: u64, per_second: f64) -> Result<String, String> {
    if all == 0 {
        return Err("there is nothing to replay".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10,000")]
    let asked = json!({"filter": {}, "perSecond": per_second as u32});
    let replay = stage.server.post(HOOK, "/v1/replays", &asked).await?;
    replay["id"].as_str().map(str::to_owned).ok_or_else(|| "the replay has no id".to_owned())
}

/// How long the end of a replay of so many events is waited for: it may be slower than asked for.
fn patience(all: u64, per_second: f64) -> Duration {
    Duration::from_secs(60) + Duration::from_secs_f64(3.0 * count(all) / per_second)
}

/// The replay once it has ended.
async fn end(stage: &Stage, id: &str, limit: Duration) -> Result<Value, String> {
    let until = Instant::now() + limit;
    loop {
        let replay = stage.server.get(HOOK, &format!("/v1/replays/{id}")).await?;
        if replay["state"] != "running" {
            return Ok(replay);
        }
        if Instant::now() > until {
            return Err(format!("the replay did not end within {} s: {replay}", limit.as_secs()));
        }
        sleep(LOOK).await;
    }
}

fn tell_live(without: &Run, with: &Run, report: &mut Report) {
    let (before, after) = (without.seen.group(HOOK), with.seen.group(HOOK));
    let figures = |group: &Group| json!({"eventsPerSecond": group.per_second(), "latencyMs": group.from_call, "outcomeToArrivalMs": group.from_outcome});
    report.add("liveWithoutReplay", "live, no replay", figures(&before), before.from_call.to_string());
    report.add("liveWithReplay", "live, beside the replay", figures(&after), after.from_call.to_string());
    report.add_number("p99Ratio", "p99 with / without", ratio(after.from_call.p99, before.from_call.p99), 2);
    let missing = with.done.of(HOOK).saturating_sub(after.events);
    report.add("liveMissing", "live events missing", missing, missing.to_string());
}

/// What came at the endpoint as replays, beside what the replay says of itself.
fn tell_replay(name: &'static str, label: &'static str, seen: &Group, replay: &Value, all: u64, report: &mut Report) {
    let text = format!(
        "{} of at least {all}, {} again; the server says {} ({})",
        seen.replayed,
        seen.replayed_again,
        replay["replayed"],
        replay["state"].as_str().unwrap_or_default()
    );
    let figures = json!({"events": all, "replayed": seen.replayed, "again": seen.replayed_again, "told": replay["replayed"], "state": replay["state"]});
    report.add(name, label, figures, text);
}
