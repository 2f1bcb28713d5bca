//! `esito replay`.

use super::client::HttpClient;
use super::{Failure, Outcome, print_line};
use crate::config::API_KEY_VARIABLE;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::Full;
use indicatif::{ProgressBar, ProgressStyle};
use model::clock::Timestamp;
use model::ids::{CampaignId, ExecutionId, ReplayId};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How often the server is asked how far it has come.
const LOOK: Duration = Duration::from_millis(500);
/// How many times in a row the server may be away before this gives up watching.
const MOST_FAILURES: u32 = 60;
/// The steps of the bar.
const STEPS: u64 = 1_000;

/// The arguments of `esito replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Where the server is
    #[arg(long, default_value = "http://127.0.0.1:8025")]
    url: Url,
    /// The API key: an operator's or an admin's
    #[arg(long, env = API_KEY_VARIABLE, hide_env_values = true)]
    key: SecretString,
    /// The organization
    #[arg(long, value_name = "ID")]
    org: String,
    /// The sandbox
    #[arg(long, value_name = "NAME", default_value = "prod")]
    sandbox: String,
    #[command(flatten)]
    which: Which,
    /// The most events a second, 1 to 10000
    #[arg(long, value_name = "EVENTS", default_value_t = model::replay::DEFAULT_PER_SECOND)]
    per_second: u32,
    /// Returns as soon as the replay has begun, which goes on in the server
    #[arg(long)]
    detach: bool,
    /// Watches a replay that has begun, instead of making one
    #[arg(long, value_name = "UUID", conflicts_with_all = ["cancel", "per_second", "detach"], conflicts_with = "Which")]
    watch: Option<ReplayId>,
    /// Cancels a replay, instead of making one
    #[arg(long, value_name = "UUID", conflicts_with_all = ["per_second", "detach"], conflicts_with = "Which")]
    cancel: Option<ReplayId>,
    /// Authorities to trust besides the system's, as PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Prints the replay as the server shows it, at its end
    #[arg(long)]
    json: bool,
}

/// Which events; without any of these, `--all` must say that all are meant.
#[derive(Debug, clap::Args)]
#[group(multiple = true)]
struct Which {
    /// Recorded at or after this, such as 2026-03-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,
    /// Recorded before this
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Timestamp>,
    /// With a delivery in this state: succeeded, exhausted or cancelled
    #[arg(long)]
    state: Option<String>,
    /// With this status, such as bounce
    #[arg(long)]
    status: Option<String>,
    /// Of this campaign
    #[arg(long, value_name = "UUID")]
    campaign: Option<CampaignId>,
    /// Of this execution
    #[arg(long, value_name = "HUMA-…")]
    execution: Option<ExecutionId>,
    /// With this requestId
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// About this address or userId
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// Of this channel: email or sms
    #[arg(long)]
    channel: Option<String>,
    /// All events of the sandbox
    #[arg(long)]
    all: bool,
}

fn time(text: &str) -> Result<Timestamp, String> {
    serde_json::from_value(Value::String(text.to_owned()))
        .map_err(|_| "write a time such as 2026-03-01T00:00:00Z".to_owned())
}

impl Which {
    fn filter(&self) -> Result<Value, Failure> {
        let filter = json!({
            "from": self.from, "to": self.to, "state": self.state, "status": self.status,
            "campaignId": self.campaign, "executionId": self.execution, "requestId": self.request_id,
            "recipient": self.recipient, "channel": self.channel,
        });
        let is_empty = filter.as_object().is_some_and(|fields| fields.values().all(Value::is_null));
        if is_empty != self.all {
            return Err(Failure::new("say which events are meant, such as --from TIME or --state exhausted; or --all"));
        }
        Ok(filter)
    }
}

/// Goes on in the server whatever becomes of this program: what it prints to find it again.
fn goes_on(id: &str) -> String {
    format!("the replay goes on in the server: esito replay --watch {id}, or --cancel {id}")
}

impl Replay {
    /// Makes a replay and shows how it goes until its end.
    pub async fn run(self) -> Outcome {
        let client = HttpClient::new(self.ca_file.as_deref()).map_err(Failure::new)?;
        let replay = match (self.cancel, self.watch) {
            (Some(id), _) => {
                let replay = self.call(&client, Method::POST, &format!("/{id}/cancel"), None).await?;
                return self.show(&replay);
            }
            (_, Some(id)) => self.call(&client, Method::GET, &format!("/{id}"), None).await?,
            (None, None) => {
                let body = json!({"filter": self.which.filter()?, "perSecond": self.per_second});
                self.call(&client, Method::POST, "", Some(body)).await?
            }
        };
        if self.detach {
            return self.show(&replay);
        }
        let id = replay["id"].as_str().unwrap_or_default().to_owned();
        let ended = tokio::select! {
            ended = self.watch(&client, &id, replay) => ended?,
            _ = tokio::signal::ctrl_c() => return Err(Failure::new(goes_on(&id))),
        };
        self.show(&ended)?;
        match ended["state"].as_str() {
            Some("completed") => Ok(()),
            _ => Err(Failure::told()),
        }
    }

    /// Follows a replay to its end. A server that is away for a while, or restarts, ends nothing.
    async fn watch(&self, client: &HttpClient, id: &str, mut replay: Value) -> Result<Value, Failure> {
        let bar = bar();
        let mut failures = 0;
        while replay["state"] == "running" {
            bar.set_position((replay["progress"].as_f64().unwrap_or(0.0) * STEPS as f64) as u64);
            bar.set_message(format!("{} replayed, {} outstanding", replay["replayed"], replay["outstanding"]));
            tokio::time::sleep(LOOK).await;
            match self.call(client, Method::GET, &format!("/{id}"), None).await {
                Ok(read) => (replay, failures) = (read, 0),
                Err(error) if failures == MOST_FAILURES => {
                    return Err(Failure::new(format!("{error}\n{}", goes_on(id))));
                }
                Err(error) => {
                    failures += 1;
                    bar.set_message(format!("{error}; asking again"));
                }
            }
        }
        bar.finish_and_clear();
        Ok(replay)
    }

    fn show(&self, replay: &Value) -> Outcome {
        if self.json {
            return print_line(&replay.to_string());
        }
        let reason = replay["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        print_line(&format!(
            "{} {}: {} replayed, {} skipped, {} outstanding{reason}",
            replay["id"].as_str().unwrap_or_default(),
            replay["state"].as_str().unwrap_or_default(),
            replay["replayed"],
            replay["skipped"],
            replay["outstanding"]
        ))
    }

    async fn call(
        &self,
        client: &HttpClient,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let base = self.url.as_str().trim_end_matches('/');
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}/v1/replays{path}"))
            .header(AUTHORIZATION, format!("Bearer {}", self.key.expose_secret()))
            .header(CONTENT_TYPE, "application/json")
            .header("x-gw-ims-org-id", &self.org)
            .header("x-sandbox-name", &self.sandbox)
            .body(Full::from(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()))));
        // Not the error's text: it may be about the key.
        let request = request.map_err(|_| {
            Failure::new("the URL, key, organization or sandbox has characters that HTTP does not take")
        })?;
        let answer = client.call(request, LIMIT).await.map_err(Failure::new)?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status.is_success() {
            return Ok(body);
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        Err(Failure::new(format!("{}: {} {}", answer.status, text("title"), text("detail"))))
    }
}

/// A bar on the standard error, where that is a terminal.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} % {elapsed_precise} {msg}");
    ProgressBar::new(STEPS).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
