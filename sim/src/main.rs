//! `sim`: runs seeds and says what they found.

use clap::Parser;
use sim::{Report, run};
use std::ops::Range;
use std::process::ExitCode;

/// Seeded runs of the delivery engine among simulated faults
#[derive(Debug, Parser)]
struct Args {
    /// Runs this seed and shows its trace
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Runs these seeds, the last one not included
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Plants this bug, which must then be found: finish-ignores-epoch, no-polling, early-promotion
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_parser = parse_bug)]
    planted: Option<store::planted::Bug>,
    /// Shows what the program logs
    #[arg(long)]
    log: bool,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (from, until) = text.split_once("..").ok_or("expected A..B")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number"));
    Ok(number(from)?..number(until)?)
}

#[cfg(feature = "planted-bugs")]
fn parse_bug(text: &str) -> Result<store::planted::Bug, String> {
    let found = store::planted::Bug::ALL.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, bug)| bug).ok_or_else(|| "there is no such bug".to_owned())
}

/// Plants the bug, if one is to be; true where it is.
#[cfg(feature = "planted-bugs")]
fn plant(args: &Args) -> bool {
    store::planted::plant(args.planted);
    args.planted.is_some()
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(_: &Args) -> bool {
    false
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.log {
        tracing_subscriber::fmt().without_time().with_writer(std::io::stderr).init();
    }
    let planted = plant(&args);
    let seeds = args.seeds.clone().unwrap_or_else(|| args.seed.map_or(0..200, |seed| seed..seed + 1));
    let (mut failed, mut count) = (0_u64, 0_u64);
    for seed in seeds {
        let report = run(seed, args.seed.is_some());
        count += 1;
        if args.seed.is_some() {
            println!(
                "{:?}\ntrace of {} lines, digest {:016x}",
                report.figures,
                report.trace.count(),
                report.trace.digest()
            );
        }
        if !report.violations.is_empty() {
            failed += 1;
            tell(&report);
            if planted {
                break;
            }
        }
    }
    println!("{count} seeds, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(report: &Report) {
    println!("seed {} failed; see `sim --seed {}`", report.seed, report.seed);
    for violation in &report.violations {
        println!("   {violation}");
    }
}
