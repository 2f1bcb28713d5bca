//! What a queue is told besides rows. A signal is a bit and is never lost, however busy the queue is.

use std::sync::atomic::{AtomicU8, Ordering};

/// There may be due rows in the store.
pub(super) const LOOK: u8 = 1;
/// The store was polled: rows are due that may have been missed.
pub(super) const OVERDUE: u8 = 1 << 1;
/// Rows were handed over that found no room: later ones must not overtake them.
pub(super) const LOST: u8 = 1 << 2;
/// Rows have changed: those in memory may not be due any more.
pub(super) const FORGET: u8 = 1 << 3;
/// The settings have changed.
pub(super) const CHANGED: u8 = 1 << 4;
/// All that waits is to go out at once.
pub(super) const DRAIN: u8 = 1 << 5;

/// The signals that a queue has not heeded yet.
#[derive(Debug, Default)]
pub(super) struct Signals(AtomicU8);

impl Signals {
    pub(super) fn set(&self, signal: u8) {
        self.0.fetch_or(signal, Ordering::AcqRel);
    }

    /// Takes all of them.
    pub(super) fn take(&self) -> u8 {
        // On the way of every row: look before writing.
        if self.0.load(Ordering::Acquire) == 0 { 0 } else { self.0.swap(0, Ordering::AcqRel) }
    }

    pub(super) fn is_any(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Whether no step may begin before they are heeded: what was paused, changed or cancelled stops at once.
    pub(super) fn stop_steps(&self) -> bool {
        self.0.load(Ordering::Acquire) & (FORGET | CHANGED | DRAIN) != 0
    }
}
