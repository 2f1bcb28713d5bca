//! The server under test, as a process, and what its API is asked to set up.

use super::super::client::HttpClient;
use super::account::Account;
use super::caller::ORGANIZATION;
use super::plan::Target;
use super::process::Process;
use super::stage::CONCURRENCY;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const SECRET: &str = "a shared secret of the bench, 32 bytes or more";
/// Sandboxes made at a time.
const MAKERS: usize = 48;
/// A call that sets something up may take this long: all of them wait for the same disk.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// A server of its own, with its store in the folder of the bench.
pub struct Server {
    process: Process,
    arguments: Vec<String>,
    folder: PathBuf,
    /// The admin key.
    pub key: String,
    /// From the start of the process until it was ready.
    pub ready_ms: f64,
    client: HttpClient,
}

/// A sandbox to make: a webhook, a channel, a live campaign.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Its name.
    pub name: String,
    /// The group that its events are counted in.
    pub group: &'static str,
    /// Where its events go.
    pub url: String,
    /// What its webhook has that the usual one has not.
    pub webhook: Value,
    /// Where its mail goes; none: nowhere, the simulator says that it was sent.
    pub relay_port: Option<u16>,
}

impl Sandbox {
    /// With the usual webhook, and the simulator.
    pub fn new(name: impl Into<String>, group: &'static str, url: String) -> Self {
        Self { name: name.into(), group, url, webhook: json!({}), relay_port: None }
    }
}

/// What a server had its database do.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Statements.
    pub statements: f64,
    /// Rows inserted, changed and deleted; of SQLite alone.
    pub rows_written: f64,
}

impl Server {
    /// Starts one on an empty store in the folder.
    pub async fn start(folder: &Path, ca_file: Option<&str>, tracer: &[String]) -> Result<Self, String> {
        Self::start_on(None, folder, ca_file, tracer, &[]).await
    }

    /// The same on an empty PostgreSQL database, where one is named.
    pub async fn start_on(
        database: Option<&str>,
        folder: &Path,
        ca_file: Option<&str>,
        tracer: &[String],
        flags: &[String],
    ) -> Result<Self, String> {
        let path = |name: &str| folder.join(name).display().to_string();
        std::fs::write(folder.join("esito.toml"), "").map_err(|error| error.to_string())?;
        let (config, key_file) = (path("esito.toml"), path("key"));
        let mut arguments: Vec<String> =
            ["serve", "--config", &config, "--listen", "127.0.0.1:0", "--print-key-file", &key_file]
                .map(str::to_owned)
                .into();
        let settings = [
            database.map_or_else(
                || format!("database.url=sqlite:{}", path("esito.db")),
                |url| format!("database.url={url}"),
            ),
            format!("secrets.master_key_file={}", path("master.key")),
            "egress.allow_networks=127.0.0.0/8".to_owned(),
            "egress.allow_http=true".to_owned(),
            format!("egress.extra_ca_file={}", ca_file.unwrap_or("")),
            "log.level=error".to_owned(),
        ];
        arguments.extend(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]));
        arguments.extend_from_slice(flags);
        let started = Instant::now();
        let process = Process::start_under(tracer, &arguments, "listening on ").await?;
        let ready_ms = started.elapsed().as_secs_f64() * 1000.0;
        let key = std::fs::read_to_string(&key_file).map_err(|error| error.to_string())?.trim().to_owned();
        let client = HttpClient::new(None)?;
        Ok(Self { process, arguments, folder: folder.to_owned(), key, ready_ms, client })
    }

    /// The words that have another command use the same configuration.
    pub fn configuration(&self) -> Vec<String> {
        let mut words = self.arguments.iter();
        let mut kept = Vec::new();
        while let Some(word) = words.next() {
            if ["--config", "--set"].contains(&word.as_str()) {
                kept.extend([word.clone()].into_iter().chain(words.next().cloned()));
            }
        }
        kept
    }

    /// Stops it, runs another command on its store, and starts it again.
    pub async fn beside(self, command: Vec<String>, limit: Duration) -> Result<Self, String> {
        let mut words = command;
        words.extend(self.configuration());
        let Self { process, arguments, folder, key, client, .. } = self;
        if !process.end(CALL_LIMIT).await? {
            return Err("the server did not stop in time".to_owned());
        }
        super::process::run(&words, limit).await?;
        let started = Instant::now();
        let process = Process::start(&arguments, "listening on ").await?;
        let ready_ms = started.elapsed().as_secs_f64() * 1000.0;
        Ok(Self { process, arguments, folder, key, ready_ms, client })
    }

    /// Kills it and starts it again on the same store.
    pub async fn crash_and_restart(self) -> Result<Self, String> {
        let Self { process, arguments, folder, key, client, .. } = self;
        process.kill().await?;
        let started = Instant::now();
        let process = Process::start(&arguments, "listening on ").await?;
        let ready_ms = started.elapsed().as_secs_f64() * 1000.0;
        Ok(Self { process, arguments, folder, key, ready_ms, client })
    }

    /// The address of the API.
    pub fn base(&self) -> &str {
        &self.process.told
    }

    /// Its process.
    pub fn pid(&self) -> Result<u32, String> {
        self.process.pid()
    }

    /// What it had its database do, of a server that counts it.
    pub async fn effort(&self) -> Result<Effort, String> {
        let request = Request::builder().uri(format!("{}/metrics", self.base())).body(Full::default());
        let answer = self.client.call(request.map_err(|error| error.to_string())?, CALL_LIMIT).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let number = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            found.ok_or_else(|| format!("the metrics have no {name}"))
        };
        Ok(Effort {
            statements: number("esito_store_statements_total ")?,
            rows_written: number("esito_store_rows_written_total ")?,
        })
    }

    /// What the kernel says of it.
    pub fn account(&self) -> Result<Account, String> {
        self.process.account()
    }

    /// Ends it and waits until it has put its store in order; the database's size then, if it ended in time.
    pub async fn end(self, limit: Duration) -> Result<Option<u64>, String> {
        let Self { process, folder, .. } = self;
        Ok(process.end(limit).await?.then(|| size(&folder.join("esito.db"))))
    }

    /// The size of the database as it is, without its log.
    pub fn database_bytes(&self) -> u64 {
        size(&self.folder.join("esito.db"))
    }

    /// The size of the database's log.
    pub fn log_bytes(&self) -> u64 {
        size(&self.folder.join("esito.db-wal"))
    }

    fn maker(&self) -> Maker {
        Maker { client: self.client.clone(), base: self.base().to_owned(), key: self.key.clone() }
    }

    /// Calls the API, in a sandbox.
    pub async fn post(&self, sandbox: &str, path: &str, body: &Value) -> Result<Value, String> {
        self.maker().call(Method::POST, sandbox, path, body).await
    }

    /// Reads from the API, in a sandbox.
    pub async fn get(&self, sandbox: &str, path: &str) -> Result<Value, String> {
        self.maker().call(Method::GET, sandbox, path, &Value::Null).await
    }

    /// Makes sandboxes, as many at a time as go, until they are all there or the time is over; in their order.
    pub async fn make(&self, sandboxes: Vec<Sandbox>, limit: Duration) -> Result<Vec<Target>, String> {
        let (sandboxes, next) = (Arc::new(sandboxes), Arc::new(AtomicUsize::new(0)));
        let until = Instant::now() + limit;
        let mut makers = JoinSet::new();
        for _ in 0..MAKERS.min(sandboxes.len()) {
            let maker = self.maker();
            let (sandboxes, next) = (Arc::clone(&sandboxes), Arc::clone(&next));
            makers.spawn(async move {
                let mut made = Vec::new();
                while Instant::now() < until {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(sandbox) = sandboxes.get(index) else { break };
                    made.push((index, maker.make(sandbox).await?));
                }
                Ok::<_, String>(made)
            });
        }
        let mut made = Vec::new();
        while let Some(some) = makers.join_next().await {
            made.extend(some.map_err(|error| error.to_string())??);
        }
        made.sort_by_key(|(index, _)| *index);
        Ok(made.into_iter().map(|(_, target)| target).collect())
    }

    /// Makes one sandbox; its webhook's id is to be had by its name.
    pub async fn make_one(&self, sandbox: Sandbox) -> Result<Target, String> {
        let made = self.make(vec![sandbox], CALL_LIMIT).await?;
        made.into_iter().next().ok_or_else(|| "no sandbox was made".to_owned())
    }

    /// Asks for the whole backlog of a sandbox's webhook to be delivered at once.
    pub async fn drain(&self, sandbox: &str) -> Result<(), String> {
        let list = self.maker().call(Method::GET, sandbox, "/v1/feedback-webhooks", &Value::Null).await?;
        let id = list["items"][0]["id"].as_str().ok_or("the sandbox has no webhook")?;
        self.post(sandbox, &format!("/v1/feedback-webhooks/{id}/drain"), &json!({})).await.map(drop)
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map(|file| file.len()).unwrap_or_default()
}

/// A user of the API who sets things up.
struct Maker {
    client: HttpClient,
    base: String,
    key: String,
}

impl Maker {
    async fn call(&self, method: Method, sandbox: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = request.header("content-type", "application/json").header("x-sandbox-name", sandbox);
        let request = request.header("x-gw-ims-org-id", ORGANIZATION);
        let request = request.header("authorization", format!("Bearer {}", self.key)).body(Full::from(body));
        let answer = self.client.call(request.map_err(|error| error.to_string())?, CALL_LIMIT).await?;
        if !answer.status.is_success() {
            return Err(format!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
    }

    /// A sandbox with a webhook that signs and has an HS256 token, and with a live campaign.
    async fn make(&self, sandbox: &Sandbox) -> Result<Target, String> {
        let name = &sandbox.name;
        let post = async |path: &str, body: &Value| self.call(Method::POST, name, path, body).await;
        post("/v1/sandboxes", &json!({"name": name})).await?;
        post("/v1/feedback-webhooks", &webhook(sandbox)).await?;
        let channel = post("/v1/channel-configurations", &channel(sandbox)).await?;
        let campaign = json!({"name": "bench", "channel": "email", "channelConfigurationId": channel["id"],
            "content": {"subject": "Order {{context.order}}",
                "html": "<p>Thank you, {{profile.person.name.firstName}}: {{context.total}} {{context.currency}}</p>"},
            "audience": {"identityNamespace": "ECID", "enableWebhooks": true}});
        let campaign = post("/v1/campaigns", &campaign).await?;
        let campaign = campaign["id"].as_str().ok_or("the campaign has no id")?.to_owned();
        post(&format!("/v1/campaigns/{campaign}/activate"), &json!({})).await?;
        Ok(Target { sandbox: name.clone(), campaign, group: sandbox.group.to_owned() })
    }
}

fn webhook(sandbox: &Sandbox) -> Value {
    let mut webhook = json!({"name": "bench", "channels": ["email"], "url": sandbox.url, "payload": "extended",
        "maxConcurrency": CONCURRENCY,
        "authentication": {"type": "jwt", "algorithm": "HS256", "secret": SECRET, "issuer": "esito"}});
    for (name, value) in sandbox.webhook.as_object().into_iter().flatten() {
        webhook[name] = value.clone();
    }
    webhook
}

fn channel(sandbox: &Sandbox) -> Value {
    match sandbox.relay_port {
        None => json!({"name": "simulator", "channel": "email", "type": "simulator"}),
        Some(port) => json!({"name": "relay", "channel": "email", "type": "smtp",
            "smtp": {"host": "127.0.0.1", "port": port, "tls": "none"},
            "from": {"name": "Bench", "address": "bench@esito.example"}}),
    }
}
