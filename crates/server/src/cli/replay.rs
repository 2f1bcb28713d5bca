//! `esito replay`.

use super::client::{HttpClient, Remote, refusal};
use super::{Failure, Outcome, print_line};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use model::clock::Timestamp;
use model::ids::{CampaignId, ExecutionId, ReplayId};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::time::Duration;

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
    #[command(flatten)]
    remote: Remote,
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
        let client = self.remote.client()?;
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
        let request = self.remote.request(method, &format!("/v1/replays{path}"), body.as_ref())?;
        let answer = client.call(request, LIMIT).await.map_err(Failure::new)?;
        match answer.status.is_success() {
            true => Ok(serde_json::from_slice(&answer.body).unwrap_or(Value::Null)),
            false => Err(Failure::new(refusal(answer.status, &answer.body))),
        }
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
