//! `hang` and `hang-relay`: what the others notice when half of all endpoints, or relays, hang.

use super::deliver::yardstick;
use super::ledger::Group;
use super::open_loop::{MOST_RECIPIENTS, events_in, maximum};
use super::plan::{Pace, Recipients, Target};
use super::process::Process;
use super::report::{OFFERED, Report, ratio};
use super::server::Sandbox;
use super::sink::HANGING;
use super::stage::{Run, Stage, words};
use super::{Paced, Settings, progress};
use serde_json::json;
use std::time::Duration;

/// What hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Endpoints never answer.
    Webhooks,
    /// Relays take the mail and never answer.
    Relays,
}

/// The group of those that never hang.
const OTHERS: &str = "others";
/// The group of the other half while it is well.
const WELL: &str = "well";
/// The sandboxes are there within this.
const MAKE_LIMIT: Duration = Duration::from_secs(60);

/// Half of the sandboxes hang, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    IsWell,
    Hangs,
}

/// A stage with its sandboxes.
struct Set {
    stage: Stage,
    targets: Vec<Target>,
    _relays: Option<Process>,
}

/// Measures the others with the half that is well, then, on a stage of their own, with the half that hangs.
pub async fn measure(what: What, paced: &Paced) -> Result<Report, String> {
    let settings = &paced.settings;
    let name = match what {
        What::Webhooks => "hang",
        What::Relays => "hang-relay",
    };
    let mut report = Report::new(name, settings.tls);
    let well = set(what, Half::IsWell, settings).await?;
    progress("the maximum");
    let most = match what {
        What::Webhooks => settings.size(200, 60_000, 200_000),
        What::Relays => settings.size(200, 12_000, 60_000),
    };
    let maximum = maximum(&well.stage, &well.targets, most, settings.size(5.0, 6.0, 20.0)).await?;
    let rate = paced.rate(maximum);
    let events = settings.events(400, events_in(rate, 10.0), events_in(rate, 60.0));
    progress(&format!("{events} events, {rate:.0} a second, none hangs"));
    let none = run(&well, rate, events).await?;
    none.check(OTHERS)?;
    drop(well);
    let hanging = set(what, Half::Hangs, settings).await?;
    progress("the same, half hangs");
    let some = run(&hanging, rate, events).await?;
    some.report(OTHERS, &mut report);
    // What the server did for those that hang is no cost of the others' events.
    report.server_cpu_micros_per_event = None;
    report.latency_from = Some("call");
    report.latency_ms = some.seen.group(OTHERS).from_call;
    report.add_number(OFFERED, "offered a second", rate, 0);
    report.add_number("maximumPerSecond", "maximum a second", maximum, 0);
    let webhooks = hanging.targets.len();
    report.add("webhooks", "webhooks", webhooks, webhooks.to_string());
    tell(&none, &some, &mut report);
    hanging.stage.end(&mut report).await?;
    // Most of it is about those that hang.
    report.disk_bytes_per_event = None;
    yardstick(&some.seen.sample, settings, &mut report).await?;
    Ok(report)
}

async fn run(set: &Set, events_per_second: f64, events: u64) -> Result<Run, String> {
    set.stage.run(&set.targets, Recipients::UpTo(MOST_RECIPIENTS), Pace::Open { events_per_second, events }).await
}

fn tell(none: &Run, some: &Run, report: &mut Report) {
    let (before, with) = (none.seen.group(OTHERS), some.seen.group(OTHERS));
    let told = |group: &Group| format!("{:.0}/s, {}", group.per_second(), group.from_call);
    let figures = |group: &Group| json!({"eventsPerSecond": group.per_second(), "latencyMs": group.from_call, "outcomeToArrivalMs": group.from_outcome});
    report.add("othersWithNoneHanging", "others, none hangs", figures(&before), told(&before));
    report.add("othersWithHalfHanging", "others, half hangs", figures(&with), told(&with));
    report.add_number("throughputRatio", "throughput with / without", ratio(with.per_second(), before.per_second()), 3);
    report.add_number("p99Ratio", "p99 with / without", ratio(with.from_call.p99, before.from_call.p99), 2);
    let missing = some.done.of(OTHERS).saturating_sub(with.events);
    report.add("othersMissing", "others' events missing", missing, missing.to_string());
    report.add("failedCalls", "failed calls", &some.done.failed, format!("{:?}", some.done.failed));
}

async fn set(what: What, half: Half, settings: &Settings) -> Result<Set, String> {
    let stage = Stage::set(settings.tls).await?;
    let (relays, ports) = match what {
        What::Webhooks => (None, None),
        What::Relays => {
            let relays = Process::start(&words("bench relays"), "ports ").await?;
            let ports = relays.told.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            (Some(relays), Some(ports.ok_or("the relays told no ports")?))
        }
    };
    let sandbox = |n: usize| {
        let hangs = n % 2 == 1 && half == Half::Hangs;
        let group = match (n % 2, what) {
            (0, _) => OTHERS,
            (_, What::Webhooks) if hangs => HANGING,
            _ => WELL,
        };
        let mut made = Sandbox::new(format!("s{n}"), group, stage.endpoint.url(&format!("{group}/{n}")));
        made.webhook = json!({"timeoutSeconds": settings.size(1, 5, 15)});
        made.relay_port = ports.map(|(good, hanging): (u16, u16)| if hangs { hanging } else { good });
        made
    };
    let sandboxes = (0..settings.size(4, 100, 100)).map(sandbox).collect();
    let targets = stage.server.make(sandboxes, MAKE_LIMIT).await?;
    Ok(Set { stage, targets, _relays: relays })
}
