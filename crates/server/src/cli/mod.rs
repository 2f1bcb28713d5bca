//! The commands: one file each.

mod api_key_create;
mod backup;
mod bench;
mod certificate;
mod client;
mod config_check;
mod demo;
mod jwks;
mod listen;
mod master_key;
mod openapi;
mod receiver;
mod replay;
mod send;
mod serve;
mod store;
mod tail;
mod tenancy;

use crate::config::{self, CONFIG_VARIABLE, ConfigFaults, Loaded};
use ::store::StoreError;
use clap::{Args, Parser, Subcommand};
use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Sends transactional email and text messages, and tells your webhook what became of them.
#[derive(Debug, Parser)]
#[command(name = "esito", version, max_term_width = 100)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the API, sends messages and delivers feedback events
    Serve(serve::Serve),
    /// Shows it all at work on this machine, with nothing configured
    Demo(demo::Demo),
    /// Receives feedback events to develop against: verifies, prints and answers them
    Listen(listen::Listen),
    /// Runs an execution
    Send(send::Send),
    /// Follows feedback events as they are recorded
    Tail(tail::Tail),
    /// Delivers feedback events once more, and shows how far it has come
    Replay(replay::Replay),
    /// Copies the SQLite database, beside a server that goes on, and checks the copy
    Backup(backup::Backup),
    /// Puts a copy that `backup` made in the place of the SQLite database
    Restore(backup::Restore),
    /// API keys
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Prints the OpenAPI document of the API
    Openapi,
    /// Measures what this machine delivers, from outside, against a bare HTTP client
    Bench(bench::Bench),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ApiKeyCommand {
    /// Makes an API key on the store itself, and prints it this once
    Create(api_key_create::ApiKeyCreate),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Prints the configuration that counts, or all that is wrong with it
    Check(config_check::ConfigCheck),
}

/// Why a command did not do what it was asked. It is told once, by [`run`], in one line or several.
#[derive(Debug)]
pub struct Failure {
    message: Option<String>,
}

impl Failure {
    /// A failure that is told to the standard error.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: Some(message.into()) }
    }

    /// A failure that was told already, in the form that was asked for.
    pub fn told() -> Self {
        Self { message: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or_default())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ConfigFaults> for Failure {
    fn from(faults: ConfigFaults) -> Self {
        Self::new(faults.to_string())
    }
}

/// What a command comes to.
pub type Outcome = Result<(), Failure>;

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    let outcome = match Program::parse().command {
        Command::Serve(command) => on_runtime(command.run()),
        Command::Demo(command) => on_runtime(command.run()),
        Command::Listen(command) => on_runtime(command.run()),
        Command::Send(command) => on_runtime(command.run()),
        Command::Tail(command) => on_runtime(command.run()),
        Command::Replay(command) => on_runtime(command.run()),
        Command::Backup(command) => on_runtime(command.run()),
        Command::Restore(command) => on_runtime(command.run()),
        Command::ApiKey(ApiKeyCommand::Create(command)) => on_runtime(command.run()),
        Command::Bench(command) => on_runtime(command.run()),
        Command::Openapi => openapi::run(),
        Command::Config(ConfigCommand::Check(command)) => command.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.message.is_some() {
                // With the standard error closed there is nobody left to tell.
                let _ = writeln!(io::stderr(), "esito: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}

fn on_runtime(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))?.block_on(command)
}

/// Writes a line to the standard output, at once.
fn print_line(line: &str) -> Outcome {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|error| Failure::new(format!("cannot write to the standard output: {error}")))
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file [default: ./esito.toml, if it is there]
    #[arg(long, value_name = "FILE", env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,
    /// Sets a key, such as egress.allow_http=true; lists with commas; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Loaded, ConfigFaults> {
        config::load(self.config.as_deref(), std::env::vars_os(), &self.set)
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
