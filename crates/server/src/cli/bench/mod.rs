//! `esito bench`: what this machine delivers, measured from outside.
//!
//! The server, the callers and the endpoint are processes of their own; the figures come from the endpoint and from the
//! kernel's accounts of each process, never from the server about itself. `raw` is the yardstick: the bare HTTP client
//! posting the same bytes to the same endpoint with nothing behind it.
//!
//! | modules | what |
//! |---|---|
//! | [`sink`], [`ledger`], [`relay`] | the endpoint and what it counts; the mail relays |
//! | [`age`] | a store that fills and grows old, without a server |
//! | [`load`], [`caller`], [`connections`], [`pace`], [`plan`] | the callers |
//! | [`process`], [`account`], [`server`], [`stage`] | the processes, and what the kernel says of them |
//! | [`raw`], [`deliver`], [`open_loop`], [`hang`], [`backlog`], [`many`], [`replay`], [`retention`], [`growth`], [`console`], [`stores`], [`idle`] | the scenarios |
//! | [`watched`] | databases |
//! | [`report`], [`compare`] | what they found |

mod account;
mod age;
mod backlog;
mod caller;
mod compare;
mod connections;
mod console;
mod deliver;
mod fsyncs;
mod growth;
mod hang;
mod idle;
mod ledger;
mod load;
mod many;
mod open_loop;
mod outside;
mod pace;
mod plan;
mod process;
mod raw;
mod relay;
mod replay;
mod report;
mod retention;
mod server;
mod sink;
mod stage;
mod stores;
mod watched;

use super::{Failure, Outcome, print_line};
use clap::{Args, Subcommand};
use report::{Report, Spread};
use std::io::Write as _;
use tokio::signal::unix::{SignalKind, signal};

/// The arguments of `esito bench`.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// The yardstick: a bare client posts the same bytes to the same endpoint, with nothing behind it
    Raw(raw::Raw),
    /// Executions of 20 recipients, as many as go, each event delivered to one webhook
    Deliver(Settings),
    /// Executions of 1 recipient, as many as go, each event delivered to one webhook
    Single(Settings),
    /// Latency: executions of 1 to 20 recipients at their times, at half of the maximum
    OpenLoop(Paced),
    /// 100 webhooks of which 50 hang until the timeout, against the same 100 with none hanging
    Hang(Paced),
    /// The same with mail relays: 50 of 100 never say what became of a mail
    HangRelay(Paced),
    /// Many events wait for a dead endpoint: memory, the others' latency, a restart, the drain
    Backlog(Paced),
    /// 10,000 webhooks: how even their waits are
    ManyWebhooks(Paced),
    /// A replay of many events beside live traffic, and one through five kills
    Replay(Paced),
    /// The same measurements with ever more events in the store; and how long each list and search takes
    Growth(growth::Growth),
    /// How long the console's pages take with a million events, and when a browser first shows something
    Console(console::Console),
    /// The same load on SQLite and on PostgreSQL, and what each of them does for an event
    Stores(stores::Stores),
    /// Many days of events through retention: how large the store gets, and whether it levels off
    Retention(Settings),
    /// A server with nothing to do: start, memory, processor time
    Idle(Settings),
    /// Compares two results as `--json` printed them
    Compare(compare::Compare),
    /// An endpoint that counts: one of the bench's processes
    #[command(hide = true)]
    Sink(sink::Sink),
    /// Mail relays: one of the bench's processes
    #[command(hide = true)]
    Relays(relay::Relays),
    /// Fills a store as days go by: one of the bench's processes
    #[command(hide = true)]
    Age(age::Age),
    /// Callers: one of the bench's processes
    #[command(hide = true)]
    Load(load::Load),
}

/// What every scenario is told.
#[derive(Clone, Debug, Args)]
struct Settings {
    /// How many events [default: as many as a minute allows for the whole scenario]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,
    /// How many times; the figures of the median run are told, and the spread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    repeat: u32,
    /// Posts over TLS
    #[arg(long)]
    tls: bool,
    /// Takes its time: more events, for longer than a minute
    #[arg(long)]
    full: bool,
    /// A moment's worth of everything, to see that it works
    #[arg(long, hide = true, conflicts_with = "full")]
    tiny: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// What the scenarios with a rate are told.
#[derive(Clone, Debug, Args)]
struct Paced {
    /// How many events a second [default: half of what is delivered at most, measured first]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    settings: Settings,
}

impl Settings {
    /// One of three sizes.
    fn size<T>(&self, tiny: T, usual: T, full: T) -> T {
        match (self.tiny, self.full) {
            (true, _) => tiny,
            (false, false) => usual,
            (false, true) => full,
        }
    }

    /// The number of events asked for, else one of three sizes.
    fn events(&self, tiny: u64, usual: u64, full: u64) -> u64 {
        self.events.unwrap_or_else(|| self.size(tiny, usual, full))
    }
}

impl Paced {
    /// The rate asked for, else half of the maximum.
    fn rate(&self, maximum: f64) -> f64 {
        self.rate.map_or(maximum / 2.0, f64::from)
    }
}

/// Tells whoever waits what is being done.
fn progress(what: &str) {
    // With the standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "bench: {what}");
}

async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        },
        _ => std::future::pending().await,
    }
}

impl Bench {
    /// Runs the scenario.
    pub async fn run(self) -> Outcome {
        let settings = match &self.scenario {
            Scenario::Raw(raw::Raw { settings, .. }) | Scenario::Deliver(settings) => settings,
            Scenario::Single(settings) | Scenario::Idle(settings) | Scenario::Retention(settings) => settings,
            Scenario::Growth(growth) => &growth.settings,
            Scenario::Console(console) => &console.settings,
            Scenario::Stores(stores) => &stores.settings,
            Scenario::OpenLoop(paced) | Scenario::Hang(paced) | Scenario::HangRelay(paced) => &paced.settings,
            Scenario::Backlog(paced) | Scenario::ManyWebhooks(paced) | Scenario::Replay(paced) => &paced.settings,
            _ => return self.scenario.help_out().await,
        };
        let mut reports = Vec::new();
        for n in 1..=settings.repeat {
            if settings.repeat > 1 {
                progress(&format!("run {n} of {}", settings.repeat));
            }
            let measured = tokio::select! {
                measured = self.scenario.measure() => measured,
                // Dropping what is under way ends its processes and removes its files.
                () = interrupted() => Err("interrupted".to_owned()),
            };
            reports.push(measured.map_err(Failure::new)?);
        }
        let median = median(reports).ok_or_else(|| Failure::new("nothing was measured"))?;
        print_line(&if settings.json { median.to_json().to_string() } else { median.to_string() })?;
        self.scenario.verdict(&median)
    }
}

impl Scenario {
    /// The commands that are no scenarios.
    async fn help_out(self) -> Outcome {
        match self {
            Self::Compare(compare) => compare.run(),
            Self::Sink(sink) => sink.run().await,
            Self::Relays(relays) => relays.run().await,
            Self::Load(load) => load.run().await,
            Self::Age(age) => age.run().await,
            _ => Ok(()),
        }
    }

    async fn measure(&self) -> Result<Report, String> {
        match self {
            Self::Raw(raw) => raw.measure().await,
            Self::Deliver(settings) => deliver::measure("deliver", 20, settings).await,
            Self::Single(settings) => deliver::measure("single", 1, settings).await,
            Self::OpenLoop(paced) => open_loop::measure(paced).await,
            Self::Hang(paced) => hang::measure(hang::What::Webhooks, paced).await,
            Self::HangRelay(paced) => hang::measure(hang::What::Relays, paced).await,
            Self::Backlog(paced) => backlog::measure(paced).await,
            Self::ManyWebhooks(paced) => many::measure(paced).await,
            Self::Replay(paced) => replay::measure(paced).await,
            Self::Retention(settings) => retention::measure(settings).await,
            Self::Growth(growth) => growth.measure().await,
            Self::Console(console) => console.measure().await,
            Self::Stores(stores) => stores.measure().await,
            Self::Idle(settings) => idle::measure(settings).await,
            Self::Compare(_) | Self::Sink(_) | Self::Relays(_) | Self::Load(_) | Self::Age(_) => {
                Err("no scenario".to_owned())
            }
        }
    }

    /// Whether the yardstick is one.
    fn verdict(&self, report: &Report) -> Outcome {
        match self {
            Self::Raw(raw) => raw.verdict(report),
            _ => Ok(()),
        }
    }
}

/// The run in the middle, with the spread of all: by its ratio to the bare client, at a set rate by its latency.
fn median(mut reports: Vec<Report>) -> Option<Report> {
    let spread = |of: &dyn Fn(&Report) -> f64| {
        let values = || reports.iter().map(of);
        Spread { min: values().fold(f64::INFINITY, f64::min), max: values().fold(0.0, f64::max) }
    };
    let per_second = spread(&|report| report.events_per_second);
    let ratio = spread(&|report| report.ratio_to_raw.unwrap_or_default());
    let p99 = spread(&|report| report.latency_ms.p99);
    let key = |report: &Report| match report.is_paced() {
        true => (report.latency_ms.p99, report.events_per_second),
        false => (report.ratio_to_raw.unwrap_or_default(), report.events_per_second),
    };
    reports.sort_by(|a, b| key(a).0.total_cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1)));
    let middle = reports.len() / 2;
    let mut median = reports.into_iter().nth(middle)?;
    (median.events_per_second_spread, median.p99_spread) = (per_second, p99);
    median.ratio_to_raw_spread = median.ratio_to_raw.map(|_| ratio);
    Some(median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_by_ratio_and_has_the_spread() {
        let run = |ratio: f64, per_second: f64| {
            let mut report = Report::new("deliver", false);
            (report.ratio_to_raw, report.events_per_second) = (Some(ratio), per_second);
            report
        };
        let found = median(vec![run(0.5, 100.0), run(0.3, 300.0), run(0.4, 200.0)]).unwrap();
        assert!((found.events_per_second - 200.0).abs() < 1e-9);
        assert!((found.events_per_second_spread.max - 300.0).abs() < 1e-9);
        assert!((found.ratio_to_raw_spread.unwrap().min - 0.3).abs() < 1e-9);
        assert!(median(Vec::new()).is_none());
    }
}
