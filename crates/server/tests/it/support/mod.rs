//! The harness: the real binary as a process, a real TLS receiver, a real SMTP relay, a plain HTTP client.
//!
//! Nothing here uses the program's own code: what it checks is what somebody else's program would see.

#![allow(dead_code, reason = "each test uses its part of the harness")]

pub mod client;
pub mod receiver;
pub mod relay;
pub mod server;
pub mod world;

use std::future::Future;
use std::time::Duration;

/// After this long a test that waits is stuck.
pub const HANG: Duration = Duration::from_secs(60);

/// Waits for something that must happen; a hang guard, not a measure.
pub async fn must<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANG, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s for {what}", HANG.as_secs()),
    }
}
