//! Bugs planted on purpose must be found: what would not notice them checks nothing.

#![cfg(feature = "planted-bugs")]

use sim::run;
use store::planted::{Bug, plant};

/// Runs seeds until one fails; its number and what it said.
fn first_failure(bug: Bug) -> Option<(u64, String)> {
    plant(Some(bug));
    let mut reports = (0..1000).map(|seed| run(seed, false));
    let found = reports.find_map(|report| report.violations.first().map(|what| (report.seed, what.clone())));
    plant(None);
    found
}

/// `expected` is each of the ways in which the bug may show first.
fn assert_found(bug: Bug, expected: &[&str]) {
    let (seed, what) = first_failure(bug).expect("a thousand seeds do not notice the bug");
    assert!(expected.iter().any(|one| what.contains(one)), "seed {seed} says {what}");
}

#[test]
fn a_finish_that_ignores_the_epoch_is_found() {
    assert_found(Bug::FinishIgnoresEpoch, &["a finish under a stale lease counted"]);
}

#[test]
fn what_is_never_looked_for_is_missed() {
    // A message whose hint was lost, or an event.
    assert_found(Bug::NoPolling, &["ended as Queued []", "is not delivered"]);
}

#[test]
fn an_event_that_goes_out_before_its_turn_is_found() {
    assert_found(Bug::EarlyPromotion, &["earlier events have not ended"]);
}
