//! The processes of the bench: this very program, with other arguments.

use super::account::Account;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::task::AbortOnDropHandle;

/// Lets a process have as many sockets as it may: the scenarios with many endpoints need more than the usual 1,024.
const WITH_MANY_SOCKETS: &str = r#"ulimit -n "$(ulimit -H -n)" 2>/dev/null; exec "$@""#;

/// A process may take this long to say that it is there.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A process of the bench; it ends with the bench.
pub struct Process {
    child: Child,
    /// What followed the wanted words in the line that it printed.
    pub told: String,
    _output: AbortOnDropHandle<()>,
}

/// This program with arguments, its own settings alone: none of the environment's.
fn command(tracer: &[String], arguments: &[String]) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("sh");
    command.args(["-c", WITH_MANY_SOCKETS, "sh"]).args(tracer).arg(program).args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ESITO_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

impl Process {
    /// Starts it and waits until it prints a line with `wanted` in it.
    pub async fn start(arguments: &[String], wanted: &str) -> Result<Self, String> {
        Self::start_under(&[], arguments, wanted).await
    }

    /// The same under a tracer.
    pub async fn start_under(tracer: &[String], arguments: &[String], wanted: &str) -> Result<Self, String> {
        let mut child = command(tracer, arguments)?.spawn().map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let told = tokio::time::timeout(START_LIMIT, find(&mut lines, wanted)).await.unwrap_or_default();
        let told = told.ok_or_else(|| format!("`esito {}` did not start", arguments.join(" ")))?;
        // Read on, or the pipe fills.
        let rest = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, told, _output: AbortOnDropHandle::new(rest) })
    }

    /// Its number.
    pub fn pid(&self) -> Result<u32, String> {
        self.child.id().ok_or_else(|| "a process of the bench has ended".to_owned())
    }

    /// What the kernel says of it.
    pub fn account(&self) -> Result<Account, String> {
        Account::of(self.pid()?)
    }

    /// Ends it at once, with no chance to tidy up.
    pub async fn kill(mut self) -> Result<(), String> {
        self.child.kill().await.map_err(|error| error.to_string())
    }

    /// Asks it to end, and waits; false where it did not in time.
    pub async fn end(mut self, limit: Duration) -> Result<bool, String> {
        let pid = self.child.id().ok_or("a process of the bench has ended")?.to_string();
        let mut kill = Command::new("sh");
        kill.args(["-c", r#"kill -TERM "$1""#, "sh", &pid]).status().await.map_err(|error| error.to_string())?;
        Ok(tokio::time::timeout(limit, self.child.wait()).await.is_ok())
    }
}

async fn find(lines: &mut Lines<BufReader<ChildStdout>>, wanted: &str) -> Option<String> {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some((_, told)) = line.split_once(wanted) {
            return Some(told.trim().to_owned());
        }
    }
    None
}

/// Runs a process to its end; what it printed.
pub async fn run(arguments: &[String], limit: Duration) -> Result<String, String> {
    let child = command(&[], arguments)?.spawn().map_err(|error| error.to_string())?;
    let ended = tokio::time::timeout(limit, child.wait_with_output()).await;
    let output = ended.map_err(|_| format!("`esito {}` did not end in time", arguments.join(" ")))?;
    let output = output.map_err(|error| error.to_string())?;
    // It has said itself what was wrong, to the standard error.
    if output.status.success() {
        String::from_utf8(output.stdout).map_err(|error| error.to_string())
    } else {
        Err("the callers failed".to_owned())
    }
}

/// Runs a process to its end; `told` gets each line that it prints, and what the kernel says of it then.
pub async fn watch(
    arguments: &[String],
    limit: Duration,
    mut told: impl FnMut(&str, &Account) -> Result<(), String>,
) -> Result<(), String> {
    let mut child = command(&[], arguments)?.spawn().map_err(|error| error.to_string())?;
    let pid = child.id().ok_or("a process of the bench has ended")?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let name = arguments.join(" ");
    let ended = tokio::time::timeout(limit, async {
        while let Some(line) = lines.next_line().await.map_err(|error| error.to_string())? {
            told(&line, &Account::of(pid)?)?;
        }
        child.wait().await.map_err(|error| error.to_string())
    });
    let status = ended.await.map_err(|_| format!("`esito {name}` did not end in time"))??;
    if status.success() { Ok(()) } else { Err(format!("`esito {name}` failed")) }
}
