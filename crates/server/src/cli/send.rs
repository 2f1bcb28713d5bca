//! `esito send`.

use super::client::{Remote, refusal};
use super::{Failure, Outcome, print_line};
use crate::clock::SystemEntropy;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use model::clock::Entropy as _;
use model::ids::CampaignId;
use serde_json::{Value, json};
use std::time::Duration;

/// How long the answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The arguments of `esito send`.
#[derive(Debug, clap::Args)]
pub struct Send {
    #[command(flatten)]
    remote: Remote,
    /// The campaign
    #[arg(long, value_name = "UUID")]
    campaign: CampaignId,
    /// An email address, or a telephone number such as +3902123456; up to 20
    #[arg(long, value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// The request's id: sending it again sends nothing twice [default: a new one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// The context of every recipient, as a JSON object, or @ and the file that has it
    #[arg(long, value_name = "JSON|@FILE", value_parser = context)]
    context: Option<Value>,
    /// Sends after all unitary executions
    #[arg(long)]
    high_throughput: bool,
    /// Prints the answer as it came
    #[arg(long)]
    json: bool,
}

fn context(text: &str) -> Result<Value, String> {
    let read = match text.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None => text.to_owned(),
    };
    let value: Value = serde_json::from_str(&read).map_err(|error| error.to_string())?;
    if value.is_object() { Ok(value) } else { Err("write a JSON object".to_owned()) }
}

fn new_request_id() -> String {
    let mut bytes = [0; 16];
    SystemEntropy.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

impl Send {
    /// Runs the execution, and prints what the server says.
    pub async fn run(self) -> Outcome {
        let request_id = self.request_id.clone().unwrap_or_else(new_request_id);
        let request = self.request(&request_id)?;
        let client = self.remote.client()?;
        let answer = client.call(request, LIMIT).await;
        let unknown = |error| {
            Failure::new(format!(
                "{error}\nnobody knows whether it was accepted; repeat it with --request-id {request_id}"
            ))
        };
        let answer = answer.map_err(unknown)?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        let accepted = answer.status == http::StatusCode::ACCEPTED;
        if self.json {
            print_line(&body.to_string())?;
            return if accepted { Ok(()) } else { Err(Failure::told()) };
        }
        if accepted {
            let id = body["executionId"].as_str().unwrap_or_default();
            return print_line(&format!("accepted {id} (request {request_id})"));
        }
        Err(Failure::new(refusal(answer.status, &answer.body)))
    }

    fn request(&self, request_id: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let kind = if self.high_throughput { "highthroughput" } else { "unitary" };
        let recipients: Vec<Value> = self.to.iter().map(|address| self.recipient(address)).collect();
        let body = json!({"requestId": request_id, "campaignId": self.campaign, "recipients": recipients});
        self.remote.request(Method::POST, &format!("/ajo/im/executions/{kind}"), Some(&body))
    }

    fn recipient(&self, address: &str) -> Value {
        let (namespace, field) = match address.starts_with('+') {
            true => ("Phone", "mobilePhoneNumber"),
            false => ("email", "emailAddress"),
        };
        let mut recipient =
            json!({"type": "external", "userId": address, "namespace": namespace, "channelData": {field: address}});
        if let Some(context) = &self.context {
            recipient["context"] = context.clone();
        }
        recipient
    }
}
