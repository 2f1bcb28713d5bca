//! What a scenario plays on: a folder, an endpoint, a server.

use super::super::client::HttpClient;
use super::account::Account;
use super::ledger::Seen;
use super::plan::{Done, Execute, Pace, Plan, Recipients, Target, Work};
use super::process::{self, Process};
use super::report::{Report, count, ratio};
use super::server::Server;
use http::{Method, Request};
use http_body_util::Full;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// Requests at a time to the endpoint, for the bare client as for each webhook.
pub const CONCURRENCY: u32 = 64;
/// Executions at a time to the API, where callers wait for answers.
const CALLERS: usize = 64;
/// The same where each is for one recipient. Each caller waits for a commit, so with fewer the machine waits for callers.
const CALLERS_FOR_SINGLE: usize = 128;
/// After the last call all events must have come within this.
const LAST_EVENTS: Duration = Duration::from_secs(30);
/// The callers end this long after their last call at the latest.
const LAST_ANSWERS: Duration = Duration::from_secs(120);
/// How long the server may take to put its store in order.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often the endpoint is asked what has come.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// The process that plays the endpoint.
pub struct Endpoint {
    process: Process,
    base: String,
    /// The authority that signed its certificate.
    pub ca_file: Option<String>,
    client: HttpClient,
}

impl Endpoint {
    /// Starts one that counts each event once; `name` tells its files from another's.
    pub async fn start(folder: &Path, name: &str, tls: bool) -> Result<Self, String> {
        Self::start_as(folder, name, tls, &words("--listen 127.0.0.1:0")).await
    }

    /// One that counts every request.
    pub async fn start_to_count_all(folder: &Path, name: &str, tls: bool) -> Result<Self, String> {
        Self::start_as(folder, name, tls, &words("--listen 127.0.0.1:0 --count-repeats")).await
    }

    /// One without TLS at an address.
    pub async fn start_at(folder: &Path, name: &str, listen: &str) -> Result<Self, String> {
        Self::start_as(folder, name, false, &["--listen".to_owned(), listen.to_owned()]).await
    }

    async fn start_as(folder: &Path, name: &str, tls: bool, options: &[String]) -> Result<Self, String> {
        let ca_file = tls.then(|| folder.join(format!("{name}.pem")).display().to_string());
        let mut arguments = words("bench sink");
        arguments.extend_from_slice(options);
        if let Some(file) = &ca_file {
            arguments.extend(["--ca-out".to_owned(), file.clone()]);
        }
        let process = Process::start(&arguments, "listens on ").await?;
        let scheme = if tls { "https" } else { "http" };
        let base = format!("{scheme}://{}", process.told);
        let client = HttpClient::new(ca_file.as_deref().map(Path::new))?;
        Ok(Self { process, base, ca_file, client })
    }

    /// The URL of a group.
    pub fn url(&self, group: &str) -> String {
        format!("{}/{group}", self.base)
    }

    /// What has come.
    pub async fn seen(&self) -> Result<Seen, String> {
        serde_json::from_slice(&self.ask(Method::GET).await?).map_err(|error| error.to_string())
    }

    /// Begins all counts again.
    pub async fn reset(&self) -> Result<(), String> {
        self.ask(Method::DELETE).await.map(drop)
    }

    async fn ask(&self, method: Method) -> Result<bytes::Bytes, String> {
        let request = Request::builder().method(method).uri(&self.base).body(Full::default());
        let answer = self.client.call(request.map_err(|error| error.to_string())?, Duration::from_secs(10)).await?;
        Ok(answer.body)
    }

    /// Waits for so many events of a group; tells what came, even if it is less.
    pub async fn wait_for(&self, group: &str, events: u64, limit: Duration) -> Result<Seen, String> {
        let started = Instant::now();
        loop {
            let seen = self.seen().await?;
            if seen.group(group).events >= events || started.elapsed() > limit {
                return Ok(seen);
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Ends it.
    pub async fn end(self) -> Result<(), String> {
        self.process.kill().await
    }
}

/// Words that hold no space, as arguments.
pub fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Runs callers to their end.
pub async fn call(folder: &Path, plan: &Plan) -> Result<Done, String> {
    let path = folder.join("plan.json");
    std::fs::write(&path, serde_json::to_vec(plan).map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    let mut arguments = words("bench load --plan");
    arguments.push(path.display().to_string());
    let length = match plan.pace {
        Pace::Closed { seconds, .. } => seconds,
        Pace::Open { events_per_second, events } => count(events) / events_per_second,
    };
    let printed = process::run(&arguments, LAST_ANSWERS + Duration::from_secs_f64(length)).await?;
    serde_json::from_str(&printed).map_err(|error| error.to_string())
}

/// A server with an endpoint for its events.
pub struct Stage {
    /// Where its files are.
    pub folder: TempDir,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The server.
    pub server: Server,
    /// The database's size before the first event.
    empty_bytes: OnceLock<u64>,
    /// All events that have come.
    events: AtomicU64,
}

/// What a run of callers came to.
pub struct Run {
    /// What the callers tell.
    pub done: Done,
    /// What the endpoint saw.
    pub seen: Seen,
    /// The server before it.
    pub before: Account,
    /// The server after it.
    pub after: Account,
}

impl Stage {
    /// An empty one.
    pub async fn set(tls: bool) -> Result<Self, String> {
        Self::set_under(&[], tls).await
    }

    /// The same with the server under a tracer.
    pub async fn set_under(tracer: &[String], tls: bool) -> Result<Self, String> {
        Self::set_with(None, tracer, &[], tls).await
    }

    /// The same on an empty PostgreSQL database, where one is named.
    pub async fn set_on(database: Option<&str>, tls: bool) -> Result<Self, String> {
        Self::set_with(database, &[], &[], tls).await
    }

    /// The same with a server that counts what it has its database do.
    pub async fn set_counting(database: Option<&str>, tls: bool) -> Result<Self, String> {
        Self::set_with(database, &[], &words("--count-effort"), tls).await
    }

    async fn set_with(database: Option<&str>, tracer: &[String], flags: &[String], tls: bool) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let endpoint = Endpoint::start(folder.path(), "endpoint", tls).await?;
        let server = Server::start_on(database, folder.path(), endpoint.ca_file.as_deref(), tracer, flags).await?;
        Ok(Self { folder, endpoint, server, empty_bytes: OnceLock::new(), events: AtomicU64::new(0) })
    }

    /// As many executions as callers get answered; waits for the events of one group.
    pub async fn at_full_speed(
        &self,
        targets: &[Target],
        recipients: u64,
        events: u64,
        seconds: f64,
    ) -> Result<Run, String> {
        let callers = if recipients == 1 { CALLERS_FOR_SINGLE } else { CALLERS };
        let pace = Pace::Closed { callers, events, seconds };
        self.run(targets, Recipients::Exactly(recipients), pace).await
    }

    /// Executions at their times; waits for the events of the first target's group.
    pub async fn run(&self, targets: &[Target], recipients: Recipients, pace: Pace) -> Result<Run, String> {
        self.endpoint.reset().await?;
        self.empty_bytes.get_or_init(|| self.server.database_bytes());
        let before = self.server.account()?;
        let done = self.call(targets, recipients, pace).await?;
        let group = targets.first().map(|target| target.group.as_str()).unwrap_or_default();
        let seen = self.endpoint.wait_for(group, done.of(group), LAST_EVENTS).await?;
        let after = self.server.account()?;
        self.events.fetch_add(seen.events(), Ordering::Relaxed);
        Ok(Run { done, seen, before, after })
    }

    /// Executions, and no waiting for their events.
    pub async fn call(&self, targets: &[Target], recipients: Recipients, pace: Pace) -> Result<Done, String> {
        let (base, key) = (self.server.base().to_owned(), self.server.key.clone());
        let work = Work::Execute(Execute { base, key, targets: targets.to_vec(), recipients });
        call(self.folder.path(), &Plan { work, pace, ca_file: None }).await
    }
}

impl Stage {
    /// Counts events that no run waited for.
    pub fn count_further(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    /// How many events have come in all runs.
    pub fn all_events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Ends it: what the database has grown by, and what it is on.
    pub async fn end(self, report: &mut Report) -> Result<(), String> {
        report.wal_mi_b = Some(count(self.server.log_bytes()) / 1024.0 / 1024.0);
        report.filesystem = filesystem(self.folder.path());
        let empty = self.empty_bytes.get().copied().unwrap_or_default();
        let events = self.events.into_inner();
        let bytes = self.server.end(END_LIMIT).await?;
        report.disk_bytes_per_event = bytes.map(|bytes| ratio(count(bytes.saturating_sub(empty)), count(events)));
        Ok(())
    }
}

/// The kind of file system that a folder is on: the mount point that names most of its path.
fn filesystem(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let of_line = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?.to_owned(), words.next()?.to_owned());
        folder.starts_with(&point).then_some((point.len(), kind))
    };
    mounts.lines().filter_map(of_line).max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

impl Run {
    /// Fails unless every event of the group came.
    pub fn check(&self, group: &str) -> Result<(), String> {
        let (came, wanted) = (self.seen.group(group).events, self.done.of(group));
        if came < wanted {
            return Err(format!("only {came} of {wanted} events came within {} s", LAST_EVENTS.as_secs()));
        }
        if wanted == 0 {
            return Err(format!("no execution was accepted: {:?}", self.done.failed));
        }
        Ok(())
    }

    /// Puts what a group's events cost into the report.
    pub fn report(&self, group: &str, report: &mut Report) {
        let found = self.seen.group(group);
        report.set_pace(found.events, found.seconds());
        let all = self.seen.events();
        report.repeated_events = Some(self.seen.groups.values().map(|group| group.repeats).sum());
        report.server_cpu_micros_per_event = Some(self.after.cpu_micros_since(&self.before) / count(all.max(1)));
        report.rss_mi_b = Some(self.after.peak_rss_mib);
        report.written_bytes_per_event = self.after.written_since(&self.before).map(|bytes| bytes / count(all.max(1)));
        report.body_bytes = Some(self.seen.sample.body.len() as u64);
    }
}
