//! The harness: the real binary as a process, a real TLS receiver, a real SMTP relay, a plain HTTP client.
//!
//! Nothing here uses the program's own code: what it checks is what somebody else's program would see.

#![allow(dead_code, reason = "each test uses its part of the harness")]

pub mod backing;
pub mod client;
pub mod openapi;
pub mod receiver;
pub mod relay;
pub mod server;
pub mod world;

use std::future::Future;
use std::time::Duration;
use tokio::process::Command;

/// After this long a test that waits is stuck.
pub const HANG: Duration = Duration::from_secs(60);

/// The program. What is meant for a test, or for a server of the developer's own, is not meant for this one.
pub fn esito() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esito"));
    clear(&mut command);
    command
}

/// Leaves nothing of Esito's own in a command's environment.
pub fn clear(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"ESITO_")) {
        command.env_remove(name);
    }
}

/// Waits for something that must happen; a hang guard, not a measure.
pub async fn must<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANG, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s for {what}", HANG.as_secs()),
    }
}

/// Asks again until there is an answer that will do: for what nobody announces. Each round is a request, so the loop
/// goes at the pace of the server.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    must(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// splitmix64: what a test takes at random follows from its seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % bound as u64).expect("below a usize")
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
