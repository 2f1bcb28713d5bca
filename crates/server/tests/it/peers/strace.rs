//! strace around a server: the system calls that it makes, as the kernel saw them.

use super::program;
use crate::support::must;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// What traces one run of a program.
pub struct Tracer {
    prefix: Vec<String>,
    trace: JoinHandle<String>,
    /// The named pipe lies in it.
    _folder: TempDir,
}

impl Tracer {
    /// Makes ready to trace a program with all its threads, with these options of strace.
    pub fn new(options: &[&str]) -> Self {
        let strace = require_ptrace().to_string_lossy().into_owned();
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("trace");
        let trace = read_pipe(&pipe);
        // -D: the server is this test's child and strace its grandchild, so that signals reach the server.
        let mut prefix = vec![strace, "-D".to_owned(), "-f".to_owned()];
        prefix.extend(options.iter().map(|&option| option.to_owned()));
        prefix.extend(["-o".to_owned(), pipe.to_string_lossy().into_owned()]);
        Self { prefix, trace, _folder: folder }
    }

    /// The words before those that start the program.
    pub fn prefix(&self) -> Vec<&str> {
        self.prefix.iter().map(String::as_str).collect()
    }

    /// The whole trace of a program that has ended.
    pub async fn trace(self) -> String {
        must("the end of the trace", self.trace).await.unwrap()
    }
}

/// Whether the kernel lets one process trace another here.
fn require_ptrace() -> std::path::PathBuf {
    let strace = program("strace");
    let tried = Command::new(&strace).args(["-o", "/dev/null", "true"]).output().unwrap();
    let said = String::from_utf8_lossy(&tried.stderr);
    assert!(
        tried.status.success(),
        "this test needs ptrace, which is not permitted here (kernel.yama.ptrace_scope, seccomp): {said}"
    );
    strace
}

/// All that comes out of a named pipe, until its writer is gone.
fn read_pipe(pipe: &Path) -> JoinHandle<String> {
    let made = Command::new("mkfifo").arg(pipe).status().unwrap();
    assert!(made.success(), "mkfifo {}", pipe.display());
    let pipe = pipe.to_owned();
    tokio::task::spawn_blocking(move || String::from_utf8_lossy(&std::fs::read(pipe).unwrap()).into_owned())
}
