//! Executions: the calls that sent something, each with all of its recipients.

use super::Console;
use super::asked::{Asked, Campaigns, list};
use super::inside::List;
use super::page::{Frame, Visit, show};
use super::search::{MESSAGE_STATES, Message};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use model::clock::Timestamp;
use serde::Deserialize;
use std::sync::Arc;

const PATH: &str = "/v1/executions";

/// An execution as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Execution {
    execution_id: String,
    request_id: String,
    campaign_id: String,
    campaign_version_id: String,
    channel: String,
    mode: String,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    created_by: String,
    recipients: Vec<Message>,
}

/// Where messages stand, as the API shows it.
const STATES: [&str; 8] =
    ["queued", "handing-over", "sent", "delivered", "bounced", "failed", "excluded", "denylisted"];

impl Execution {
    /// How many of its messages stand where.
    fn counts(&self) -> Vec<(&'static str, usize)> {
        let count = |state: &str| self.recipients.iter().filter(|message| message.state == state).count();
        STATES.into_iter().map(|state| (state, count(state))).filter(|(_, count)| *count > 0).collect()
    }

    /// The key of the text that says how it came in.
    fn mode_key(&self) -> &'static str {
        if self.mode == "unitary" { "mode-unitary" } else { "mode-high-throughput" }
    }
}

#[derive(Template)]
#[template(path = "executions.html")]
struct Executions {
    f: Frame,
    asked: Asked,
    campaigns: Campaigns,
    list: List<Execution>,
    trouble: Option<String>,
}

impl Executions {
    fn states(&self) -> [&'static str; 8] {
        MESSAGE_STATES
    }
}

/// Executions, the newest first.
pub async fn executions(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let asked = Asked::of(&visit.frame.path);
    let campaigns = Campaigns::of(&console, &visit).await?;
    let (list, trouble) = list(&console, &visit, PATH, &asked).await?;
    Ok(show(StatusCode::OK, &Executions { f: visit.frame, asked, campaigns, list, trouble }))
}

#[derive(Template)]
#[template(path = "execution.html")]
struct One {
    f: Frame,
    campaigns: Campaigns,
    execution: Execution,
}

/// An execution with what became of each recipient.
pub async fn execution(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let execution = visit.get(&console, &visit.resource(PATH)).await?;
    let campaigns = Campaigns::of(&console, &visit).await?;
    Ok(show(StatusCode::OK, &One { f: visit.frame, campaigns, execution }))
}
