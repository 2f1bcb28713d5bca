//! A program of somebody else, as a process that ends with the test.

use super::{program, project_folder};
use crate::support::{HANG, must};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::watch;

/// A running peer, and the lines that it printed.
pub struct Peer {
    name: String,
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
    /// The peer runs as long as this is open, so it ends even with a test that is killed.
    tether: Option<ChildStdin>,
    child: Child,
}

impl Drop for Peer {
    /// Waits: a peer that still writes into a folder would keep it from being removed.
    fn drop(&mut self) {
        self.tether.take();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts an installed program.
    pub fn start(name: &str, arguments: &[impl AsRef<OsStr>]) -> Self {
        let file = program(name);
        Self::tethered(name, &file, arguments)
    }

    /// Starts a program of `tests/peers`.
    pub fn python(script: &str, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut words = vec![script_file(script).into_os_string()];
        words.extend(arguments.iter().map(|word| word.as_ref().to_owned()));
        Self::tethered(script, &python(), &words)
    }

    fn tethered(name: &str, file: &std::path::Path, arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = Command::new(python());
        command.arg(script_file("tether.py")).arg(file).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a peer starts");
        let tether = child.stdin.take();
        let output = ChildStdout::from_std(child.stdout.take().expect("piped")).expect("a pipe");
        let mut output = BufReader::new(output).lines();
        let (told, count) = watch::channel(0);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                kept.lock().unwrap().push(line);
                told.send_modify(|count| *count += 1);
            }
        });
        Self { name: name.to_owned(), lines, count, tether, child }
    }

    /// All that it printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// What it told as lines of JSON.
    pub fn told(&self) -> Vec<Value> {
        self.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until `look` finds something in the lines; none where the peer ends before.
    pub async fn look_for<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let mut count = self.count.clone();
        let looking = async {
            loop {
                count.borrow_and_update();
                if let Some(found) = look(&self.lines()) {
                    return Some(found);
                }
                if count.changed().await.is_err() {
                    return look(&self.lines());
                }
            }
        };
        match tokio::time::timeout(HANG, looking).await {
            Ok(found) => found,
            Err(_) => panic!("waited {} s for {what} of {}; {}", HANG.as_secs(), self.name, self.last_words()),
        }
    }

    /// Like `look_for`, of a peer that must not end.
    pub async fn wait_until<T>(&self, what: &str, look: impl Fn(&[String]) -> Option<T>) -> T {
        let found = self.look_for(what, look).await;
        found.unwrap_or_else(|| panic!("{} ended before {what}; {}", self.name, self.last_words()))
    }

    /// Waits until it has told this many things that `pick` takes.
    pub async fn wait_for(&self, count: usize, pick: impl Fn(&Value) -> bool) -> Vec<Value> {
        let look = |lines: &[String]| {
            let told = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
            let picked: Vec<Value> = told.filter(&pick).collect();
            (picked.len() >= count).then_some(picked)
        };
        self.wait_until(&format!("{count} reports"), look).await
    }

    /// The port that it chose.
    pub async fn port(&self) -> u16 {
        let told = self.wait_for(1, |told| told["port"].is_u64()).await;
        u16::try_from(told[0]["port"].as_u64().unwrap()).unwrap()
    }

    /// Ends it, with all that it has started; what it printed.
    pub async fn stop(mut self) -> Vec<String> {
        self.tether.take();
        // Its output ends with the last of its processes.
        must(&format!("{} to end", self.name), async { while self.count.changed().await.is_ok() {} }).await;
        self.lines()
    }

    pub fn last_words(&self) -> String {
        let lines = self.lines();
        format!("it printed {} lines, the last:\n{}", lines.len(), lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

fn script_file(name: &str) -> PathBuf {
    project_folder().join("tests/peers").join(name)
}

fn python() -> PathBuf {
    let file = project_folder().join("target/peers-venv/bin/python");
    assert!(file.is_file(), "these tests need {}, which is not there: run scripts/peers", file.display());
    file
}

/// A port for a program that cannot choose one itself. It lies below those that the system gives to connections and to
/// whoever asks for any, so it stays free while its program is stopped and started; two tests may still pick the same
/// one, so a program that cannot have it is to be started again with another.
pub fn free_port() -> u16 {
    let seed = tempfile::Builder::new().prefix("").rand_bytes(8).tempfile().unwrap();
    let name = seed.path().file_name().unwrap().to_string_lossy().into_owned();
    let start = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(61).wrapping_add(byte.into()));
    let ports = (0..20_000).map(|step| 10_000 + (start.wrapping_add(step) % 20_000) as u16);
    let mut free = ports.filter(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    free.next().expect("one of 20,000 ports is free")
}
