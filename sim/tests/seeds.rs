//! Seeds that must run clean, and run the same each time.

#![expect(clippy::unwrap_used, reason = "tests")]

use sim::{Report, run};
use std::ops::Range;
use std::thread;

/// Runs seeds on every core; each run has a thread to itself.
fn run_all(seeds: Range<u64>) -> Vec<Report> {
    let threads = u64::try_from(thread::available_parallelism().map_or(2, usize::from)).unwrap();
    let share = |part: u64| seeds.clone().filter(move |seed| seed % threads == part);
    let runs: Vec<_> = (0..threads)
        .map(|part| {
            let seeds: Vec<u64> = share(part).collect();
            thread::spawn(move || seeds.into_iter().map(|seed| run(seed, false)).collect::<Vec<_>>())
        })
        .collect();
    runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
}

#[test]
fn two_hundred_seeds_are_clean() {
    let reports = run_all(0..200);
    let failed: Vec<_> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    for report in &failed {
        println!("seed {}: {:#?}", report.seed, report.violations);
    }
    assert!(failed.is_empty(), "{} seeds failed; see `sim --seed N`", failed.len());
    // There was something to check.
    let sum = |figure: fn(&Report) -> usize| reports.iter().map(figure).sum::<usize>();
    assert!(sum(|report| report.figures.lives) > 400);
    assert!(sum(|report| report.figures.messages) > 5_000);
    assert!(sum(|report| report.figures.arrivals) > sum(|report| report.figures.taken) + 1_000);
    assert!(sum(|report| report.figures.mailed_twice) > 5);
    assert!(sum(|report| report.figures.takeovers) > 20);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (first, second) = (run_all(1000..1030), run_all(1000..1030));
    for (first, second) in first.iter().zip(&second) {
        let differs = first.trace.lines().zip(second.trace.lines()).find(|(first, second)| first != second);
        assert_eq!(first.trace.digest(), second.trace.digest(), "seed {}: {differs:?}", first.seed);
        assert!(first.trace.count() > 10, "seed {}", first.seed);
    }
}
