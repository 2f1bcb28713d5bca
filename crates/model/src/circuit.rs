//! The circuit: whether the other side of a queue is to be left alone, and when it is to be tried again.
//!
//! It opens when several rows in a row have failed for reasons that lie with the other side. One row that fails again
//! and again counts once, so that a single poison event never opens it. While it is open, single probes go out with
//! growing pauses; a success, whoever's, closes it.

use crate::clock::Timestamp;
use std::time::Duration;

/// So many rows have to fail without a success between them.
pub const OPENS_AFTER: usize = 5;

/// The pause before the first probe.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between probes.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The probes of late that a circuit remembers, so that the next one goes out with another row.
const REMEMBERED: usize = 16;

/// What a step tells of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It took what it was given.
    Good,
    /// It is in trouble, whatever it is given.
    Bad,
    /// Nothing, or something about this one row.
    Neutral,
}

/// What a sign changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The circuit has opened.
    Opened,
    /// It has closed again.
    Closed,
}

/// The circuit of one queue, whose rows are named by `K`.
#[derive(Clone, Debug)]
pub struct Circuit<K> {
    state: State<K>,
}

#[derive(Clone, Debug)]
enum State<K> {
    /// With the rows that failed since the last success, each once.
    Closed(Vec<K>),
    Open(Open<K>),
}

#[derive(Clone, Debug)]
struct Open<K> {
    /// The probes that found the trouble still there.
    failed: u32,
    /// When the next probe may go out.
    next: Timestamp,
    /// The probe under way.
    probing: Option<K>,
    /// The rows of the last probes, the latest last.
    probed: Vec<K>,
}

impl<K> Default for Circuit<K> {
    /// A closed one.
    fn default() -> Self {
        Self { state: State::Closed(Vec::new()) }
    }
}

impl<K: Copy + Eq> Circuit<K> {
    /// Whether rows wait.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// When the next probe may go out; none: the circuit is closed, or a probe is under way.
    pub fn next_probe(&self) -> Option<Timestamp> {
        match &self.state {
            State::Open(open) if open.probing.is_none() => Some(open.next),
            _ => None,
        }
    }

    /// How many probes ago this row was the probe; none: not lately.
    pub fn probed(&self, row: K) -> Option<usize> {
        match &self.state {
            State::Open(open) => open.probed.iter().rev().position(|probed| *probed == row),
            State::Closed(_) => None,
        }
    }

    /// A probe goes out with this row.
    pub fn probe(&mut self, row: K) {
        if let State::Open(open) = &mut self.state {
            open.probing = Some(row);
            open.probed.retain(|probed| *probed != row);
            if open.probed.len() == REMEMBERED {
                open.probed.remove(0);
            }
            open.probed.push(row);
        }
    }

    /// A row's step has ended. `jitter`, in `0.0..1.0`, shortens a pause by up to half; none is longer than `longest`.
    pub fn note(
        &mut self,
        row: K,
        sign: Sign,
        now: Timestamp,
        jitter: impl FnOnce() -> f64,
        longest: Duration,
    ) -> Change {
        match (&mut self.state, sign) {
            (State::Closed(failed), Sign::Good) => {
                failed.clear();
                Change::None
            }
            (State::Open(_), Sign::Good) => {
                *self = Self::default();
                Change::Closed
            }
            (State::Closed(failed), Sign::Bad) => {
                if !failed.contains(&row) {
                    failed.push(row);
                }
                if failed.len() < OPENS_AFTER {
                    return Change::None;
                }
                let next = now + pause(0, jitter(), longest);
                self.state = State::Open(Open { failed: 0, next, probing: None, probed: Vec::new() });
                Change::Opened
            }
            (State::Closed(_), Sign::Neutral) => Change::None,
            (State::Open(open), Sign::Bad | Sign::Neutral) => {
                open.end_probe(row, sign, now, jitter, longest);
                Change::None
            }
        }
    }
}

impl<K: Copy + Eq> Open<K> {
    /// What began before the circuit opened and fails now says nothing new: only the probe counts.
    fn end_probe(&mut self, row: K, sign: Sign, now: Timestamp, jitter: impl FnOnce() -> f64, longest: Duration) {
        if self.probing == Some(row) {
            self.probing = None;
            self.failed = self.failed.saturating_add(u32::from(sign == Sign::Bad));
            self.next = now + pause(self.failed, jitter(), longest);
        }
    }
}

fn pause(failed: u32, jitter: f64, longest: Duration) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failed.min(16));
    doubled.min(LONGEST_PAUSE).min(longest).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn sign() -> impl Strategy<Value = Sign> {
        prop_oneof![Just(Sign::Good), Just(Sign::Bad), Just(Sign::Neutral)]
    }

    fn note(circuit: &mut Circuit<u32>, row: u32, sign: Sign, now: Timestamp) -> Change {
        circuit.note(row, sign, now, || 0.0, LONGEST_PAUSE)
    }

    fn opened() -> Circuit<u32> {
        let mut circuit = Circuit::default();
        let changes: Vec<_> = (0..5).map(|row| note(&mut circuit, row, Sign::Bad, START)).collect();
        assert_eq!(changes, [Change::None, Change::None, Change::None, Change::None, Change::Opened]);
        circuit
    }

    proptest! {
        #[test]
        fn it_opens_when_five_rows_have_failed_since_the_last_success(steps in proptest::collection::vec((0_u32..8, sign()), 0..60)) {
            let mut circuit = Circuit::default();
            let mut failed = std::collections::HashSet::new();
            for (row, sign) in steps {
                note(&mut circuit, row, sign, START);
                match sign {
                    Sign::Good => failed.clear(),
                    Sign::Bad => drop(failed.insert(row)),
                    Sign::Neutral => {}
                }
                prop_assert_eq!(circuit.is_open(), failed.len() >= OPENS_AFTER);
            }
        }

        #[test]
        fn four_poison_events_never_open_it(rows in proptest::collection::vec((0_u32..4, prop_oneof![Just(Sign::Bad), Just(Sign::Neutral)]), 0..200)) {
            let mut circuit = Circuit::default();
            for (row, sign) in rows {
                prop_assert_eq!(note(&mut circuit, row, sign, START), Change::None);
            }
            prop_assert!(!circuit.is_open());
        }

        #[test]
        fn probes_go_out_one_at_a_time_with_pauses_that_grow_within_their_bounds(
            jitters in proptest::collection::vec(0.0..1.0_f64, 1..40),
            longest in 1_u64..120,
        ) {
            let longest = Duration::from_secs(longest);
            let mut circuit = opened();
            let mut now = START;
            for (i, jitter) in jitters.into_iter().enumerate() {
                now = circuit.next_probe().unwrap().max(now);
                let row = 100 + u32::try_from(i).unwrap();
                circuit.probe(row);
                prop_assert_eq!(circuit.next_probe(), None);
                // Somebody who was under way before.
                circuit.note(1, Sign::Bad, now, || jitter, longest);
                prop_assert_eq!(circuit.next_probe(), None);
                circuit.note(row, Sign::Bad, now, || jitter, longest);
                let base = Duration::from_secs(1 << (i + 1).min(10)).min(LONGEST_PAUSE).min(longest);
                let pause = circuit.next_probe().unwrap().since(now);
                prop_assert!(pause <= base && pause >= base.mul_f64(0.49), "{pause:?} of {base:?}");
            }
        }

        #[test]
        fn any_success_closes_it(failures in 0_u32..20, row in 0_u32..30) {
            let mut circuit = opened();
            for probe in 0..failures {
                circuit.probe(probe);
                note(&mut circuit, probe, Sign::Bad, START);
            }
            prop_assert_eq!(note(&mut circuit, row, Sign::Good, START), Change::Closed);
            prop_assert!(!circuit.is_open() && circuit.next_probe().is_none());
        }
    }

    #[test]
    fn an_answer_about_the_probe_alone_neither_closes_it_nor_makes_the_pause_grow() {
        let mut circuit = opened();
        for probe in 0..5 {
            circuit.probe(probe);
            assert_eq!(note(&mut circuit, probe, Sign::Neutral, START), Change::None);
            assert_eq!(circuit.next_probe(), Some(START + FIRST_PAUSE));
        }
    }

    #[test]
    fn the_rows_of_the_last_probes_are_remembered() {
        let mut circuit = opened();
        for probe in 0..40 {
            circuit.probe(probe);
            note(&mut circuit, probe, Sign::Bad, START);
        }
        circuit.probe(30);
        assert_eq!((circuit.probed(30), circuit.probed(39), circuit.probed(5)), (Some(0), Some(1), None));
    }
}
