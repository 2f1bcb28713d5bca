//! The program `esito`: the HTTP API, the drivers behind it, and the tools around them.

mod api;
mod cli;
mod clock;
mod config;
mod console;
mod event_body;
mod front;
mod lifecycle;
mod listener;
mod logging;
mod metrics;

/// Rows, requests and answers are many small pieces freed on other threads than they were made on: where the system's
/// allocator spent a sixth of the server's time. It serves SQLite too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
