//! The program `esito`: the HTTP API, the drivers behind it, and the tools around them.

mod api;
mod cli;
mod clock;
mod config;
mod lifecycle;
mod listener;
mod logging;
mod metrics;

fn main() -> std::process::ExitCode {
    cli::run()
}
