//! Bugs planted on purpose must be found: what would not notice them checks nothing.

#![cfg(feature = "planted-bugs")]

use sim::run;
use store::planted::{Bug, plant};

/// Runs seeds until each of `expected` was the first that one of them said, and nothing else was.
fn assert_found(bug: Bug, expected: &[&str]) {
    plant(Some(bug));
    let mut missing = expected.to_vec();
    for seed in 0..1000 {
        let report = run(seed, false);
        if let Some(what) = report.violations.first() {
            assert!(expected.iter().any(|one| what.contains(one)), "seed {seed} says {what}");
            missing.retain(|one| !what.contains(one));
        }
        if missing.is_empty() {
            break;
        }
    }
    plant(None);
    assert!(missing.is_empty(), "a thousand seeds do not notice {missing:?}");
}

#[test]
fn a_finish_that_ignores_the_epoch_is_found() {
    assert_found(Bug::FinishIgnoresEpoch, &["a finish under a stale lease counted"]);
}

#[test]
fn what_is_never_looked_for_is_missed() {
    // A message whose hint was lost, and an event.
    assert_found(Bug::NoPolling, &["ended as Queued []", "is not delivered"]);
}

#[test]
fn an_event_that_goes_out_before_its_turn_is_found() {
    assert_found(Bug::EarlyPromotion, &["earlier events have not ended"]);
}
