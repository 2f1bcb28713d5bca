//! Faults on purpose, for the simulation to find: compiled in by the feature `planted-bugs` alone, which no default
//! build has. A simulation that passes with one of them switched on checks nothing.

use std::cell::Cell;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A finish is taken whatever epoch its lease has.
    FinishIgnoresEpoch,
    /// What is due is handed over after the commit and never looked for: a hint lost is an event lost.
    NoPolling,
    /// A message's next event goes out although the one before it has not ended.
    EarlyPromotion,
}

impl Bug {
    /// All of them, by name.
    pub const ALL: [(&str, Self); 3] = [
        ("finish-ignores-epoch", Self::FinishIgnoresEpoch),
        ("no-polling", Self::NoPolling),
        ("early-promotion", Self::EarlyPromotion),
    ];
}

thread_local! {
    /// A simulation has one thread; others run beside it.
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a fault on this thread, or none.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this fault is planted on this thread.
pub fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
