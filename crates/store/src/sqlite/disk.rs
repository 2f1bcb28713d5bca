//! The room left on the disk: executions are refused before it is gone, so that what was accepted can still be ended.

use crate::{Result, StoreError};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is known of the disk under the database.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    least_free_bytes: u64,
    is_nearly_full: AtomicBool,
}

impl Disk {
    /// The disk of this folder, looked at once.
    pub fn new(folder: PathBuf, least_free_bytes: u64) -> Self {
        let disk = Self { folder, least_free_bytes, is_nearly_full: AtomicBool::new(false) };
        disk.look();
        disk
    }

    /// Looks how much is free. A disk that cannot be asked is not refused: its writes will tell.
    pub fn look(&self) {
        let Ok(found) = rustix::fs::statvfs(&self.folder) else { return };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let nearly_full = free < self.least_free_bytes;
        if self.is_nearly_full.swap(nearly_full, Ordering::Relaxed) != nearly_full {
            tracing::warn!(
                nearly_full,
                free,
                least = self.least_free_bytes,
                "the free room on the disk crossed its limit"
            );
        }
    }

    /// An error where the disk is nearly full.
    pub fn check(&self) -> Result<()> {
        match self.is_nearly_full.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable("the disk is nearly full".to_owned())),
            false => Ok(()),
        }
    }
}
