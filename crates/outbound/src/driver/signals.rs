//! What a queue is told besides rows. A signal is a bit and is never lost, however busy the queue is.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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

/// No step may begin before these are heeded: what was paused, changed or cancelled stops at once.
const STOP: u8 = FORGET | CHANGED | DRAIN;

/// The signals that a queue has not heeded yet.
#[derive(Debug, Default)]
pub(super) struct Signals {
    bits: AtomicU8,
    /// How often steps were told to stop.
    stops: AtomicU64,
}

impl Signals {
    pub(super) fn set(&self, signal: u8) {
        if signal & STOP != 0 {
            self.stops.fetch_add(1, Ordering::AcqRel);
        }
        self.bits.fetch_or(signal, Ordering::AcqRel);
    }

    /// Takes all of them.
    pub(super) fn take(&self) -> u8 {
        // On the way of every row: look before writing.
        if self.bits.load(Ordering::Acquire) == 0 { 0 } else { self.bits.swap(0, Ordering::AcqRel) }
    }

    pub(super) fn is_any(&self) -> bool {
        self.bits.load(Ordering::Acquire) != 0
    }

    /// Whether no step may begin before they are heeded.
    pub(super) fn stop_steps(&self) -> bool {
        self.bits.load(Ordering::Acquire) & STOP != 0
    }

    /// Rises whenever steps are told to stop: one that was started before and has not begun must not begin any more.
    pub(super) fn stops(&self) -> u64 {
        self.stops.load(Ordering::Acquire)
    }
}
