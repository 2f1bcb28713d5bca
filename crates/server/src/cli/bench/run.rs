//! One run of a scenario: starts the processes, sets the server up, measures, ends the processes.

use super::super::client::HttpClient;
use super::sink::Seen;
use super::{Report, Settings};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Requests at a time to the endpoint, for `raw` as for the webhook.
const CONCURRENCY: u32 = 64;
/// Executions at a time to the API.
const CALLERS: u32 = 64;
/// A run that takes longer has failed.
const LONGEST_RUN: Duration = Duration::from_secs(120);
const ORGANIZATION: &str = "default@EsitoOrg";
const SECRET: &str = "a shared secret of the bench, 32 bytes or more";

/// A process of the bench; it ends with the bench.
struct Process {
    child: Child,
    /// The first line that it printed with this in it, and what follows it there.
    told: String,
}

impl Process {
    async fn start(arguments: &[&str], wanted: &str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        while let Some(line) = lines.next_line().await.map_err(|error| error.to_string())? {
            if let Some((_, told)) = line.split_once(wanted) {
                return Ok(Self { child, told: told.trim().to_owned() });
            }
        }
        Err(format!("`esito {}` did not start", arguments.join(" ")))
    }

    fn account(&self) -> Result<Account, String> {
        account(self.child.id().ok_or("a process has ended")?)
    }
}

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug)]
struct Account {
    cpu_micros: f64,
    peak_rss_mib: f64,
}

/// Reads `/proc/<pid>`: user and system time in hundredths of a second (proc_pid_stat(5)), the largest resident set.
fn account(pid: u32) -> Result<Account, String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| error.to_string());
    let stat = read("stat")?;
    let after_name = stat.rsplit_once(')').ok_or("an unknown form of stat")?.1;
    let ticks = |field: usize| after_name.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = (ticks(11).ok_or("no utime")?, ticks(12).ok_or("no stime")?);
    let status = read("status")?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|text| text.split_whitespace().next());
    let peak_kib: f64 = peak.and_then(|text| text.parse().ok()).ok_or("no VmHWM")?;
    Ok(Account { cpu_micros: (user + system) * 10_000.0, peak_rss_mib: peak_kib / 1024.0 })
}

struct Endpoint {
    process: Process,
    url: String,
    ca_file: Option<String>,
    client: HttpClient,
}

impl Endpoint {
    async fn start(folder: &Path, name: &str, tls: bool) -> Result<Self, String> {
        let ca_file = tls.then(|| folder.join(format!("{name}.pem")).display().to_string());
        let mut arguments = vec!["bench", "sink"];
        if let Some(file) = &ca_file {
            arguments.extend(["--ca-out", file]);
        }
        let process = Process::start(&arguments, "").await?;
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}/hook", process.told);
        let client = HttpClient::new(ca_file.as_deref().map(Path::new))?;
        Ok(Self { process, url, ca_file, client })
    }

    async fn seen(&self) -> Result<Seen, String> {
        let request = Request::get(&self.url).body(Full::default()).map_err(|error| error.to_string())?;
        let answer = self.client.call(request, Duration::from_secs(10)).await?;
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
    }

    async fn wait_for(&self, events: u64) -> Result<Seen, String> {
        let started = Instant::now();
        loop {
            let seen = self.seen().await?;
            if seen.events >= events {
                return Ok(seen);
            }
            if started.elapsed() > LONGEST_RUN {
                return Err(format!("only {} of {events} events came in {} s", seen.events, LONGEST_RUN.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Measures a scenario, and `raw` beside it in the same run.
pub(super) async fn measure(scenario: &'static str, recipients: u64, settings: &Settings) -> Result<Report, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut report = Report { scenario, tls: settings.tls, ..Report::default() };
    let measured = if recipients > 0 {
        let events = settings.events.unwrap_or(if recipients == 1 { 60_000 } else { 200_000 });
        delivered(&folder, recipients, events.next_multiple_of(recipients), settings.tls, &mut report).await?
    } else {
        sample(&folder, settings.tls).await?
    };
    let raw_events = if recipients == 0 { settings.events.unwrap_or(400_000) } else { 200_000 };
    let raw = raw(&folder, &measured, raw_events, settings.tls).await?;
    report.body_bytes = measured.body_bytes;
    report.raw_per_second = raw.per_second;
    report.raw_client_cpu_micros_per_request = raw.cpu_micros_per_request;
    if recipients == 0 {
        report.events = raw_events;
        report.seconds = raw.seconds;
        report.events_per_second = raw.per_second;
    }
    report.ratio_to_raw = report.events_per_second / raw.per_second;
    Ok(report)
}

struct Raw {
    seconds: f64,
    per_second: f64,
    cpu_micros_per_request: f64,
}

/// Posts the sample again and again.
async fn raw(folder: &TempDir, sample: &Seen, requests: u64, tls: bool) -> Result<Raw, String> {
    let endpoint = Endpoint::start(folder.path(), "raw", tls).await?;
    let template = write_template(folder.path(), "raw", &sample.sample_headers, &sample.sample_body)?;
    let arguments = Arguments {
        url: &endpoint.url,
        requests,
        recipients: 0,
        campaign: "",
        template: &template,
        concurrency: CONCURRENCY,
    };
    let cpu = run_load(&arguments, endpoint.ca_file.as_deref()).await?;
    let seen = endpoint.wait_for(requests).await?;
    let seconds = seconds_of(&seen);
    Ok(Raw { seconds, per_second: count(requests) / seconds, cpu_micros_per_request: cpu / count(requests) })
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
fn count(n: u64) -> f64 {
    n as f64
}

fn seconds_of(seen: &Seen) -> f64 {
    count(seen.last.saturating_sub(seen.first)) / 1e6
}

/// One event as the server sends it.
async fn sample(folder: &TempDir, tls: bool) -> Result<Seen, String> {
    delivered(folder, 1, 1, tls, &mut Report::default()).await
}

/// Runs executions through a server until all of their events have come.
async fn delivered(
    folder: &TempDir,
    recipients: u64,
    events: u64,
    tls: bool,
    report: &mut Report,
) -> Result<Seen, String> {
    let endpoint = Endpoint::start(folder.path(), "sink", tls).await?;
    let server = start_server(folder.path(), endpoint.ca_file.as_deref()).await?;
    let key = std::fs::read_to_string(folder.path().join("key")).map_err(|error| error.to_string())?;
    let caller = Caller { base: server.told.clone(), key: key.trim().to_owned(), client: HttpClient::new(None)? };
    let campaign = caller.set_up(&endpoint.url).await?;
    let template = write_template(folder.path(), "load", &caller.headers(), "")?;
    let url = format!("{}/ajo/im/executions/unitary", caller.base);
    let requests = events / recipients;
    let arguments =
        Arguments { url: &url, requests, recipients, campaign: &campaign, template: &template, concurrency: CALLERS };
    let before = server.account()?;
    run_load(&arguments, None).await?;
    let seen = endpoint.wait_for(events).await?;
    // The last attempts are written down a moment after the endpoint has them.
    let after = server.account()?;
    report.events = events;
    report.seconds = seconds_of(&seen);
    report.events_per_second = count(events) / report.seconds;
    report.latency_ms = seen.latency;
    report.server_cpu_micros_per_event = Some((after.cpu_micros - before.cpu_micros) / count(events));
    report.rss_mi_b = Some(after.peak_rss_mib);
    report.disk_bytes_per_event = Some(database_bytes(folder.path())? / count(events));
    drop(endpoint.process);
    Ok(seen)
}

/// The size of the database's file once everything in the log has gone into it.
fn database_bytes(folder: &Path) -> Result<f64, String> {
    let length = |name: &str| std::fs::metadata(folder.join(name)).map(|file| file.len());
    Ok(count(length("esito.db").map_err(|error| error.to_string())?))
}

async fn start_server(folder: &Path, ca_file: Option<&str>) -> Result<Process, String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let set = [
        format!("database.url=sqlite:{}", path("esito.db")),
        format!("secrets.master_key_file={}", path("master.key")),
        "egress.allow_networks=127.0.0.0/8".to_owned(),
        "egress.allow_http=true".to_owned(),
        format!("egress.extra_ca_file={}", ca_file.unwrap_or("")),
        "log.level=warn".to_owned(),
    ];
    let (config, key) = (path("esito.toml"), path("key"));
    std::fs::write(&config, "").map_err(|error| error.to_string())?;
    let mut arguments = vec!["serve", "--config", &config, "--listen", "127.0.0.1:0", "--print-key-file", &key];
    for one in &set {
        arguments.extend(["--set", one]);
    }
    Process::start(&arguments, "listening on ").await
}

/// The bench as a user of the API.
struct Caller {
    base: String,
    key: String,
    client: HttpClient,
}

impl Caller {
    fn headers(&self) -> Vec<(String, String)> {
        let plain =
            [("content-type", "application/json"), ("x-gw-ims-org-id", ORGANIZATION), ("x-sandbox-name", "prod")];
        let mut headers: Vec<_> = plain.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        headers.push(("authorization".to_owned(), format!("Bearer {}", self.key)));
        headers
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let mut request = Request::builder().method(Method::POST).uri(format!("{}{path}", self.base));
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(Bytes::from(body.to_string()))).map_err(|error| error.to_string())?;
        let answer = self.client.call(request, Duration::from_secs(10)).await?;
        if !answer.status.is_success() {
            return Err(format!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
    }

    /// A webhook with signature and HS256, and a live campaign; the campaign's id.
    async fn set_up(&self, url: &str) -> Result<String, String> {
        let webhook = json!({"name": "bench", "channels": ["email"], "url": url, "payload": "extended",
            "maxConcurrency": CONCURRENCY, "authentication": {"type": "jwt", "algorithm": "HS256", "secret": SECRET, "issuer": "esito"}});
        self.post("/v1/feedback-webhooks", &webhook).await?;
        let channel = json!({"name": "simulator", "channel": "email", "type": "simulator"});
        let channel = self.post("/v1/channel-configurations", &channel).await?;
        let campaign = json!({"name": "bench", "channel": "email", "channelConfigurationId": channel["id"],
            "content": {"subject": "Order {{context.order}}", "html": "<p>Thank you, {{profile.person.name.firstName}}: {{context.total}} {{context.currency}}</p>"},
            "audience": {"identityNamespace": "ECID", "enableWebhooks": true}});
        let campaign = self.post("/v1/campaigns", &campaign).await?;
        let id = campaign["id"].as_str().ok_or("the campaign has no id")?.to_owned();
        self.post(&format!("/v1/campaigns/{id}/activate"), &json!({})).await?;
        Ok(id)
    }
}

fn write_template(folder: &Path, name: &str, headers: &[(String, String)], body: &str) -> Result<String, String> {
    let path = folder.join(format!("{name}.template.json"));
    std::fs::write(&path, json!([headers, body]).to_string()).map_err(|error| error.to_string())?;
    Ok(path.display().to_string())
}

struct Arguments<'a> {
    url: &'a str,
    requests: u64,
    recipients: u64,
    campaign: &'a str,
    template: &'a str,
    concurrency: u32,
}

/// Runs the callers to their end; the CPU that they took, in microseconds.
async fn run_load(arguments: &Arguments<'_>, ca_file: Option<&str>) -> Result<f64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args([
        "bench",
        "load",
        "--url",
        arguments.url,
        "--campaign",
        arguments.campaign,
        "--template",
        arguments.template,
    ]);
    let numbers = [
        ("--requests", arguments.requests),
        ("--recipients", arguments.recipients),
        ("--concurrency", arguments.concurrency.into()),
    ];
    for (name, value) in numbers {
        command.arg(name).arg(value.to_string());
    }
    if let Some(file) = ca_file {
        command.args(["--ca-file", file]);
    }
    let before = children_cpu_micros()?;
    let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().map_err(|error| error.to_string())?;
    let ended = tokio::time::timeout(LONGEST_RUN, child.wait()).await.map_err(|_| "the callers did not end in time")?;
    if !ended.map_err(|error| error.to_string())?.success() {
        return Err("the callers failed".to_owned());
    }
    Ok(children_cpu_micros()? - before)
}

/// The CPU of all children that have ended and been waited for: cutime and cstime of proc_pid_stat(5).
fn children_cpu_micros() -> Result<f64, String> {
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|error| error.to_string())?;
    let after_name = stat.rsplit_once(')').ok_or("an unknown form of stat")?.1;
    let ticks = |field: usize| after_name.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok());
    Ok((ticks(13).ok_or("no cutime")? + ticks(14).ok_or("no cstime")?) * 10_000.0)
}
