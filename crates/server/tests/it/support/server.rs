//! The program `esito serve` as a process, to be stopped, killed and started again.

use super::{clear, must};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The lines of a log that tell of a failure.
const LAST_LINES: usize = 100;

/// A folder with a configuration, and the program that works in it.
pub struct Server {
    pub folder: TempDir,
    pub base: String,
    pub key: String,
    child: Option<Child>,
    prefix: Vec<String>,
    /// It prints its first key, and the link to the console, in place of writing the key to a file.
    prints_key: bool,
    printed: Arc<Mutex<String>>,
}

/// What the server of a failed test has logged says why, and goes with it. `ESITO_KEEP=<folder>` keeps its database, too.
impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("the end of the server's log:\n{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        if let Some(folder) = std::env::var_os("ESITO_KEEP") {
            let kept = PathBuf::from(folder).join(self.folder.path().file_name().unwrap());
            std::fs::create_dir_all(&kept).unwrap();
            for file in std::fs::read_dir(self.folder.path()).unwrap().filter_map(Result::ok) {
                std::fs::copy(file.path(), kept.join(file.file_name())).ok();
            }
        }
    }
}

/// Changes to the configuration, by key.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

impl Server {
    /// Starts on an empty store. Endpoints on loopback addresses are allowed unless the settings say otherwise.
    pub async fn start(settings: Settings<'_>) -> Self {
        let mut server = Self::prepare(settings);
        server.up().await;
        server
    }

    /// Like `start`, by a person at a terminal.
    pub async fn start_by_hand() -> Self {
        let mut server = Self::prepare(&[]);
        server.prints_key = true;
        server.up().await;
        server
    }

    /// Like `start`, run by another program: a tracer.
    pub async fn start_under(prefix: &[&str], settings: Settings<'_>) -> Self {
        let mut server = Self::prepare(settings);
        server.run_under(prefix);
        server.up().await;
        server
    }

    /// Has another program run this one from the next start on.
    pub fn run_under(&mut self, prefix: &[&str]) {
        self.prefix = prefix.iter().map(|&part| part.to_owned()).collect();
    }

    fn prepare(settings: Settings<'_>) -> Self {
        let server = Self {
            folder: tempfile::tempdir().unwrap(),
            base: String::new(),
            key: String::new(),
            child: None,
            prefix: Vec::new(),
            prints_key: false,
            printed: Arc::default(),
        };
        server.configure(settings);
        server
    }

    /// Writes the configuration that the next start reads.
    pub fn configure(&self, settings: Settings<'_>) {
        let quoted = |name: &str| format!("\"{}\"", self.file(name).display());
        let database = format!("\"sqlite:{}\"", self.file("esito.db").display());
        let defaults = [
            ("listen", "\"127.0.0.1:0\"".to_owned()),
            ("database.url", database),
            ("secrets.master_key_file", quoted("master.key")),
            ("egress.allow_networks", "[\"127.0.0.0/8\", \"::1/128\"]".to_owned()),
            ("log.level", "\"debug\"".to_owned()),
        ];
        let kept = defaults.iter().filter(|(key, _)| settings.iter().all(|(set, _)| set != key));
        let kept = kept.map(|(key, value)| (*key, value.as_str()));
        let lines: String =
            kept.chain(settings.iter().copied()).map(|(key, value)| format!("{key} = {value}\n")).collect();
        std::fs::write(self.file("esito.toml"), lines).unwrap();
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The process id of the program (or of the tracer that runs it).
    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("the server runs")
    }

    /// Everything the program has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Everything the program has printed, but for the line that says where it listens.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// The link to the console that it has printed.
    pub fn console_link(&self) -> String {
        let printed = self.printed();
        let link = printed.split_once("15 minutes: ").expect("the link to the console was printed").1;
        let (start, token) = link.split_once("once=").unwrap();
        format!("{start}once={}", &token[..43])
    }

    /// Starts the program, again or for the first time, and waits until it is ready.
    pub async fn up(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.file("log")).unwrap();
        let binary = env!("CARGO_BIN_EXE_esito").to_owned();
        let mut words: Vec<String> = self.prefix.clone();
        words.push(binary);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("serve").arg("--config").arg(self.file("esito.toml"));
        if !self.prints_key {
            command.arg("--print-key-file").arg(self.file("key"));
        }
        command.stdout(Stdio::piped()).stderr(log).stdin(Stdio::null()).kill_on_drop(true);
        clear(&mut command);
        let mut child = command.spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let found = must("the server to be ready", async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, base)) = line.split_once("listening on ") {
                    return Some(base.trim().to_owned());
                }
                self.printed.lock().unwrap().push_str(&line);
            }
            None
        })
        .await;
        self.base = found.unwrap_or_else(|| panic!("the server did not come up:\n{}", self.log()));
        // Read on, or the pipe fills.
        let printed = Arc::clone(&self.printed);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                printed.lock().unwrap().push_str(&line);
            }
        });
        self.key = match self.prints_key {
            true => self.printed().split_once("shown this once: ").expect("the key was printed").1[..49].to_owned(),
            false => std::fs::read_to_string(self.file("key")).unwrap().trim().to_owned(),
        };
        self.child = Some(child);
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.start_kill().unwrap();
        must("the killed server to end", child.wait()).await.unwrap();
    }

    /// SIGTERM, and what the program exits with.
    pub async fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let pid = child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
        assert!(sent.success());
        must("the server to stop", child.wait()).await.unwrap()
    }

    /// A caller with the first admin key in the default organization.
    pub fn admin(&self) -> super::client::Caller {
        super::client::Caller::new(&self.base, &self.key, "default@EsitoOrg", "prod")
    }
}
