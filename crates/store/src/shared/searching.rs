//! The index of recipients, as every store has it: by which executions have messages to an address or a user id.
//!
//! Addresses come in no order, and an index of them beside the rows would write a page anywhere in it for each message.
//! So it is made off the path, in runs: a few seconds after they were accepted, [`RUN`] messages of a sandbox are entered
//! behind all that is there, by their hashes. A search asks each run; what came after the last run
//! it looks through. A hash is not its text: whoever finds by it looks whether it is the right one.
//!
//! What is accepted with a number that a run has already gone past (a clock was set back, or a commit took long) enters
//! itself in its own transaction, in run [`LATE`]. For that a run is announced before its messages are read.

use crate::lookup::MessageFilter;
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::ids::ExecutionId;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The messages of a run, about.
pub const RUN: usize = 10_000;
/// The run of what came late.
pub const LATE: i32 = 0;
/// No run has messages that are younger than this, in milliseconds: later than this hardly anything is committed.
const SETTLED_MS: i64 = 3_000;
/// The executions that a part of the index tells at most.
pub const MOST: usize = 200;
/// The windows that whoever wants all executions of a recipient looks through at most.
pub const WINDOWS: usize = 4;

/// A run of a sandbox's messages: the executions from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub number: i32,
    pub first: i64,
    pub last: i64,
}

/// What comes after a sandbox's last run.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// Enough messages for this one.
    Run(Run),
    /// Enough messages, not all of which have settled.
    NotYet,
    /// Too few messages: so many.
    TooFew(usize),
}

impl Next {
    /// After run `number`, which ends with execution `last`, come messages enough for another one up to execution `end`.
    pub fn after(number: i32, last: i64, end: i64, now: Timestamp) -> Self {
        match end < settled(now) {
            true => Self::Run(Run { number: number + 1, first: last + 1, last: end }),
            false => Self::NotYet,
        }
    }
}

/// How many messages of each sandbox came since its last run, about.
#[derive(Debug, Default)]
pub struct Fresh(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    of: BTreeMap<i64, usize>,
    /// The sandbox that was looked at last: the next one begins.
    last: i64,
}

impl Fresh {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, sbx: i64, messages: usize) {
        *self.counts().of.entry(sbx).or_default() += messages;
    }

    /// Of what was counted, which was `counted`, only this much is there. What came meanwhile may count twice, or, where it
    /// was counted before its commit, not at all: the run comes earlier or later by as much.
    fn correct(&self, sbx: i64, counted: usize, left: usize) {
        if let Some(count) = self.counts().of.get_mut(&sbx) {
            *count = count.saturating_sub(counted).saturating_add(left);
        }
    }

    /// The sandboxes that may have enough for a run, and how many each. They take turns at being first.
    fn due(&self) -> Vec<(i64, usize)> {
        let counts = self.counts();
        let (before, after) = (counts.of.range(..=counts.last), counts.of.range(counts.last + 1..));
        after.chain(before).map(|(sbx, count)| (*sbx, *count)).filter(|(_, count)| *count >= RUN).collect()
    }
}

/// A store whose runs are made.
pub trait Indexed {
    fn fresh(&self) -> &Fresh;
    /// What comes after the last run of a sandbox.
    async fn next_run(&self, sbx: i64, now: Timestamp) -> Result<Next>;
    /// Makes a run; false: not now, somebody is in the way.
    async fn make_run(&self, sbx: i64, run: Run) -> Result<bool>;
}

/// Makes a run of the next sandbox that has messages enough; true: it has. What goes wrong with one sandbox is none of
/// the others' trouble.
pub async fn step(store: &impl Indexed, now: Timestamp) -> Result<bool> {
    for (sbx, counted) in store.fresh().due() {
        store.fresh().counts().last = sbx;
        match index(store, sbx, counted, now).await {
            Ok(None) => {}
            Err(error) if !matches!(error, StoreError::Unavailable(_)) => {
                tracing::warn!(%error, sandbox = sbx, "the index of a sandbox's recipients cannot be made");
            }
            // Where somebody was in the way, he may be in the others' too.
            Ok(Some(is_made)) => return Ok(is_made),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Whether a run of a sandbox was made; none: there is none to be made.
async fn index(store: &impl Indexed, sbx: i64, counted: usize, now: Timestamp) -> Result<Option<bool>> {
    match store.next_run(sbx, now).await? {
        // There may be others after it: nothing is taken off the count before there are too few.
        Next::Run(run) => store.make_run(sbx, run).await.map(Some),
        Next::NotYet => Ok(None),
        Next::TooFew(left) => {
            store.fresh().correct(sbx, counted, left);
            Ok(None)
        }
    }
}

/// Executions from this number on are too young for a run.
fn settled(now: Timestamp) -> i64 {
    ExecutionId::floor_at(Timestamp(now.millis().saturating_sub(SETTLED_MS))).number()
}

/// Whose executions a search asks for, and in which range, `before` where its last page ended. None: it names nobody, or
/// has a quicker way.
pub fn asked_for(filter: &MessageFilter, before: Option<i64>) -> Option<(&str, Range<i64>)> {
    let is_narrow = filter.execution_id.is_some() || filter.execution.request_id.is_some();
    let recipient = filter.recipient.as_deref().filter(|_| !is_narrow)?;
    let number = |at| ExecutionId::floor_at(at).number();
    let end = filter.execution.to.map_or(i64::MAX, number).min(before.unwrap_or(i64::MAX));
    Some((recipient, filter.execution.from.map_or(0, number)..end))
}

/// Executions that have a message to a recipient: the latest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Their numbers, none of them below `end`. Some may turn out to have none.
    pub executions: BTreeSet<i64>,
    /// From here on all of them were found; none: from the beginning.
    pub end: Option<i64>,
}

impl Places {
    /// Adds what a run tells, from its end on: up to [`MOST`] and one more, which says that there are others. False: there
    /// are enough of them by now.
    pub fn add(&mut self, run: Run, told: &[i64]) -> bool {
        self.executions.extend(told.iter().take(MOST));
        let is_cut = told.len() > MOST;
        if is_cut || self.executions.len() >= MOST {
            self.end = if is_cut { told.get(MOST - 1).copied() } else { Some(run.first) };
        }
        self.end.is_none()
    }

    /// Adds what was found by looking through messages from execution `first` on; `is_all`: nothing but runs is left.
    pub fn add_unindexed(&mut self, first: i64, told: &[i64], is_all: bool) -> bool {
        let wants_more = self.add(Run { number: LATE, first, last: i64::MAX }, told);
        if wants_more && !is_all {
            self.end = Some(first);
        }
        self.end.is_none()
    }

    /// The same with what came late, which is of any age; and all.
    pub fn and_late(mut self, told: &[i64]) -> Self {
        self.executions.extend(told.iter().take(MOST));
        if told.len() > MOST {
            self.end = self.end.max(told.get(MOST - 1).copied());
        }
        if let Some(end) = self.end {
            self.executions = self.executions.split_off(&end);
        }
        self
    }
}

/// All executions of a recipient, page by page, unless it would take long to find them all.
#[derive(Debug, Default)]
pub struct AllPlaces {
    executions: BTreeSet<i64>,
    /// None: at the beginning.
    end: Option<i64>,
    pages: usize,
    is_whole: bool,
}

impl AllPlaces {
    /// Before which execution the next page ends; none: there is none to be asked for.
    pub fn before(&self) -> Option<i64> {
        let is_enough = self.is_whole || self.pages >= WINDOWS || (self.pages > 0 && self.executions.len() >= MOST);
        (!is_enough).then_some(self.end.unwrap_or(i64::MAX))
    }

    /// Adds the page that was asked for.
    pub fn add(&mut self, page: Places) {
        self.executions.extend(page.executions);
        self.pages += 1;
        (self.end, self.is_whole) = (page.end, page.end.is_none());
    }

    /// All of them; none: there may be others.
    pub fn whole(self) -> Option<BTreeSet<i64>> {
        self.is_whole.then_some(self.executions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of its sandboxes 1 is broken, 2 has no end of messages, 3 enough for one run, 4 one too few.
    #[derive(Default)]
    struct Fake {
        fresh: Fresh,
        made: Mutex<Vec<i64>>,
    }

    impl Indexed for Fake {
        fn fresh(&self) -> &Fresh {
            &self.fresh
        }

        async fn next_run(&self, sbx: i64, _: Timestamp) -> Result<Next> {
            let is_made = self.made.lock().unwrap().contains(&sbx);
            match sbx {
                1 => Err(StoreError::Corrupt("the index".to_owned())),
                3 if is_made => Ok(Next::TooFew(0)),
                4 => Ok(Next::TooFew(RUN - 1)),
                _ => Ok(Next::Run(Run { number: 1, first: 1, last: 2 })),
            }
        }

        async fn make_run(&self, sbx: i64, _: Run) -> Result<bool> {
            self.made.lock().unwrap().push(sbx);
            Ok(true)
        }
    }

    #[tokio::test]
    async fn sandboxes_take_turns_and_what_is_left_counts() {
        let store = Fake::default();
        for sbx in 1..=4 {
            store.fresh.add(sbx, 3 * RUN);
        }
        for _ in 0..5 {
            assert!(step(&store, Timestamp(0)).await.unwrap());
        }
        assert_eq!(*store.made.lock().unwrap(), [2, 3, 2, 2, 2]);
        let due = |store: &Fake| store.fresh.due().into_iter().map(|(sbx, _)| sbx).collect::<BTreeSet<_>>();
        assert_eq!(due(&store), [1, 2].into());
        store.fresh.add(3, RUN - 1);
        store.fresh.add(4, 1);
        assert_eq!(due(&store), [1, 2, 4].into(), "one more makes enough");
    }

    /// What a part of an index tells.
    fn told(part: &BTreeSet<i64>) -> Vec<i64> {
        part.iter().rev().take(MOST + 1).copied().collect()
    }

    proptest! {
        #[test]
        fn pages_of_places_tell_all_and_nothing_twice(
            executions in proptest::collection::btree_set(0_i64..2_500, 0..1_100),
            late in proptest::collection::btree_set(0_i64..2_000, 0..400),
            window in 50_i64..600,
        ) {
            let runs = (0..10).map(|n| Run { number: n + 1, first: i64::from(n) * 200, last: i64::from(n) * 200 + 199 });
            let (mut before, mut all) = (i64::MAX, Vec::new());
            loop {
                let mut places = Places::default();
                // From 2,000 on they are in no run, and are looked through by windows.
                let end = before.min(2_500);
                let first = 2_000.max(end - window);
                let wants_runs = end <= 2_000 || {
                    let part = executions.range(first..end).copied().collect();
                    places.add_unindexed(first, &told(&part), first == 2_000)
                };
                for run in runs.clone().rev().filter(|run| wants_runs && run.first < before) {
                    let part = executions.range(run.first..=run.last.min(before - 1)).copied().collect();
                    if !places.add(run, &told(&part)) {
                        break;
                    }
                }
                let places = places.and_late(&told(&late.range(..before).copied().collect()));
                prop_assert!(places.executions.len() <= 3 * MOST);
                all.extend(places.executions.iter().rev().copied());
                let Some(end) = places.end else { break };
                prop_assert!(end < before);
                before = end;
            }
            let expected: BTreeSet<i64> = executions.union(&late).copied().collect();
            let expected: Vec<i64> = expected.into_iter().rev().collect();
            prop_assert_eq!(all, expected);
        }
    }
}
