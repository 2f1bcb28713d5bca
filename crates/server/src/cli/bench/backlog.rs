//! `backlog`: events wait for a dead endpoint. What it costs, what the others notice, and how it ends.

use super::deliver::yardstick;
use super::ledger::{Group, Seen};
use super::open_loop::{MOST_RECIPIENTS, events_in, maximum};
use super::plan::{Pace, Recipients, Target};
use super::report::{OFFERED, Report, count, ratio};
use super::server::{Sandbox, Server};
use super::stage::{CONCURRENCY, Endpoint, Run, Stage};
use super::{Paced, Settings, progress};
use serde_json::json;
use std::net::TcpListener;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LIVE: &str = "live";
const DEAD: &str = "dead";
const LIMITED: &str = "limited";
/// Callers that fill the backlog.
const FILLERS: usize = 64;
/// Of so many executions one goes to the dead webhook that may not be called often.
const ONE_LIMITED_IN: usize = 20;
/// A server that takes less than this share of a processor is at rest.
const QUIET_SHARE: f64 = 0.1;
/// It is waited for no longer.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// A loopback address that no connection begins at: nobody else takes the port meanwhile.
const DEAD_HOST: &str = "127.0.0.77";

/// What the drain came to.
struct Drain {
    seen: Seen,
    /// From the endpoint's return to the first event.
    first_after: Option<Duration>,
    /// From the first event until nearly all had come. The last few were tried just before and are due by their own
    /// schedule, seconds later, whatever the drain does.
    nearly_all: Option<(u64, Duration)>,
    asked: bool,
}

/// Live traffic without a backlog and with it, a restart, and the drain.
pub async fn measure(paced: &Paced) -> Result<Report, String> {
    let settings = &paced.settings;
    let mut report = Report::new("backlog", settings.tls);
    let mut stage = Stage::set(settings.tls).await?;
    let wanted = settings.events(400, 100_000, 1_000_000);
    let address = dead_address()?;
    let limit = (wanted / ONE_LIMITED_IN as u64 / 10).max(20);
    let [live, dead, limited] = targets(&stage, &address, limit).await?;
    let live = [live];
    progress("the maximum");
    let maximum = maximum(&stage, &live, settings.size(200, 60_000, 200_000), settings.size(5.0, 8.0, 20.0)).await?;
    let rate = paced.rate(maximum);
    let events = events_in(rate, settings.size(0.5, 6.0, 30.0));
    progress(&format!("{rate:.0} a second to a living endpoint, nothing waits"));
    let without = run(&stage, &live, rate, events).await?;
    without.check(LIVE)?;
    progress(&format!("{wanted} events for a dead endpoint"));
    let mut waiting = vec![dead; ONE_LIMITED_IN - 1];
    waiting.push(limited);
    let seconds = settings.size(5.0, 20.0, 200.0);
    let pace = Pace::Closed { callers: FILLERS, events: wanted, seconds };
    let filled = stage.call(&waiting, Recipients::Exactly(MOST_RECIPIENTS), pace).await?;
    let settled = settle(&stage.server).await?;
    progress(&format!("the same to a living endpoint, {} events wait", filled.all()));
    let with = run(&stage, &live, rate, events).await?;
    with.report(LIVE, &mut report);
    report.latency_from = Some("call");
    report.latency_ms = with.seen.group(LIVE).from_call;
    report.add_number(OFFERED, "offered a second", rate, 0);
    report.add("maximumPerSecond", "maximum", maximum, format!("{maximum:.0}/s with executions of 20"));
    tell_others(&without, &with, &mut report);
    let told = settled.map_or("no: the server was still busy".to_owned(), |seconds| format!("after {seconds:.1} s"));
    report.add("settledAfterSeconds", "backlog at rest", settled, told);
    report.add("backlogEvents", "events waiting", filled.all(), filled.all().to_string());
    report.add_number("backlogRssMiB", "resident with them (MiB)", with.after.rss_mib, 0);
    progress("kill -9 and restart");
    stage.server = stage.server.crash_and_restart().await?;
    report.add("restartMs", "restart to ready", stage.server.ready_ms, format!("{:.0} ms", stage.server.ready_ms));
    progress("the endpoint comes back");
    let drained = drain(&stage, &address, filled.of(DEAD), filled.of(LIMITED), settings).await?;
    tell_drain(&drained, &filled, maximum, limit, &mut report);
    let restarted = stage.server.account()?;
    report.add_number("drainPeakRssMiB", "most resident since (MiB)", restarted.peak_rss_mib, 0);
    report.rss_mi_b = report.rss_mi_b.map(|before| before.max(restarted.peak_rss_mib));
    stage.count_further(filled.all());
    stage.end(&mut report).await?;
    yardstick(&with.seen.sample, settings, &mut report).await?;
    Ok(report)
}

/// An address where nobody listens.
fn dead_address() -> Result<String, String> {
    let bound = TcpListener::bind((DEAD_HOST, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.to_string()).map_err(|error| format!("{DEAD_HOST}: {error}"))
}

/// A living webhook, a dead one, and a dead one that may be called only so often.
async fn targets(stage: &Stage, dead: &str, limit: u64) -> Result<[Target; 3], String> {
    let live = Sandbox::new(LIVE, LIVE, stage.endpoint.url("live/0"));
    let dead_one = Sandbox::new(DEAD, DEAD, format!("http://{dead}/{DEAD}/0"));
    let mut limited = Sandbox::new(LIMITED, LIMITED, format!("http://{dead}/{LIMITED}/0"));
    limited.webhook = json!({"maxPerSecond": limit});
    let server = &stage.server;
    Ok([server.make_one(live).await?, server.make_one(dead_one).await?, server.make_one(limited).await?])
}

async fn run(stage: &Stage, live: &[Target], events_per_second: f64, events: u64) -> Result<Run, String> {
    stage.run(live, Recipients::UpTo(MOST_RECIPIENTS), Pace::Open { events_per_second, events }).await
}

fn tell_others(without: &Run, with: &Run, report: &mut Report) {
    let (before, after) = (without.seen.group(LIVE), with.seen.group(LIVE));
    let figures = |group: &Group| json!({"eventsPerSecond": group.per_second(), "latencyMs": group.from_call, "outcomeToArrivalMs": group.from_outcome});
    report.add("othersWithoutBacklog", "others, nothing waits", figures(&before), before.from_call.to_string());
    report.add("othersWithBacklog", "others, backlog waits", figures(&after), after.from_call.to_string());
    report.add_number("p99Ratio", "p99 with / without", ratio(after.from_call.p99, before.from_call.p99), 2);
    let missing = with.done.of(LIVE).saturating_sub(after.events);
    report.add("othersMissing", "others' events missing", missing, missing.to_string());
}

/// Waits until the server has recorded what the fill left it to send: then only the waiting itself is measured. How long
/// it took; none where it never became quiet.
async fn settle(server: &Server) -> Result<Option<f64>, String> {
    progress("waiting for the server to be done with sending them");
    let started = Instant::now();
    let mut before = server.account()?;
    while started.elapsed() < SETTLE_LIMIT {
        let since = Instant::now();
        sleep(Duration::from_millis(500)).await;
        let now = server.account()?;
        if now.cpu_micros_since(&before) < QUIET_SHARE * since.elapsed().as_secs_f64() * 1e6 {
            return Ok(Some(started.elapsed().as_secs_f64()));
        }
        before = now;
    }
    Ok(None)
}

/// Lets the endpoint come back; asks for the drain where the server does not notice by itself for a while.
async fn drain(stage: &Stage, address: &str, dead: u64, limited: u64, settings: &Settings) -> Result<Drain, String> {
    let endpoint = Endpoint::start_at(stage.folder.path(), "returned", address).await?;
    let back = Instant::now();
    let patience = Duration::from_secs_f64(settings.size(0.5, 5.0, 120.0));
    let limit = Duration::from_secs_f64(settings.size(10.0, 25.0, 300.0));
    let (mut first_after, mut nearly_all, mut asked) = (None, None, false);
    loop {
        let seen = endpoint.seen().await?;
        let (came, came_limited) = (seen.group(DEAD).events, seen.group(LIMITED).events);
        if first_after.is_none() && came > 0 {
            first_after = Some(back.elapsed());
        }
        if let (None, Some(first)) = (nearly_all, first_after)
            && came >= dead - dead / 100
        {
            nearly_all = Some((came, back.elapsed().saturating_sub(first)));
        }
        if (came >= dead && came_limited >= limited) || back.elapsed() > patience + limit {
            return Ok(Drain { seen, first_after, nearly_all, asked });
        }
        // Where events come it has noticed; those that may go out only so often are expected to take longer.
        if !asked && first_after.is_none() && back.elapsed() > patience {
            asked = true;
            ask(&stage.server).await?;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn ask(server: &Server) -> Result<(), String> {
    server.drain(DEAD).await?;
    server.drain(LIMITED).await
}

fn tell_drain(drain: &Drain, filled: &super::plan::Done, maximum: f64, limit: u64, report: &mut Report) {
    let (dead, limited) = (drain.seen.group(DEAD), drain.seen.group(LIMITED));
    let first = drain.first_after.map(|after| after.as_secs_f64());
    report.add("drainAfterSeconds", "first event after", first, first.map_or("never".into(), |s| format!("{s:.1} s")));
    let asked = if drain.asked { "yes: nothing came by itself" } else { "no" };
    report.add("drainAsked", "drain asked for", drain.asked, asked);
    let all = filled.of(DEAD);
    report.add("drainedEvents", "drained", dead.events, format!("{} of {all} in {:.1} s", dead.events, dead.seconds()));
    let rate = drain.nearly_all.map(|(events, took)| ratio(count(events), took.as_secs_f64()));
    let nearly = drain.nearly_all.map_or("never".to_owned(), |(n, took)| format!("{n} in {:.2} s", took.as_secs_f64()));
    report.add("drainNearlyAllSeconds", "99 % of them", drain.nearly_all.map(|(_, took)| took.as_secs_f64()), nearly);
    report.add(
        "drainPerSecond",
        "drain rate (to 99 %)",
        rate,
        rate.map_or("none".into(), |rate| format!("{rate:.0}/s")),
    );
    report.add_number("drainToMaximum", "drain rate / maximum", ratio(rate.unwrap_or(0.0), maximum), 3);
    let connections = (dead.most_connections, CONCURRENCY);
    report.add(
        "drainMostConnections",
        "most connections",
        connections.0,
        format!("{} of {} allowed", connections.0, connections.1),
    );
    let most = limited.most_in_a_second;
    report.add_quietly("limitedPerSecond", limit);
    report.add_quietly("limitedDrainedEvents", limited.events);
    report.add("limitedMostInASecond", "limited: most in a second", most, format!("{most} of {limit} allowed"));
}
