//! Replays: feedback events that are delivered once more, chosen as in a list.

use super::Console;
use super::asked::{Asked, Campaigns, ENDED, FILTERS};
use super::form::{Form, number};
use super::inside::{List, Refusal};
use super::page::{EVENTS, Fields, Frame, Posted, Visit, show};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{Method, StatusCode};
use model::clock::Timestamp;
use model::replay::DEFAULT_PER_SECOND;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const PATH: &str = "/v1/replays";

/// A replay as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Replay {
    id: String,
    filter: Map<String, Value>,
    per_second: u32,
    state: String,
    reason: Option<String>,
    progress: f64,
    replayed: u64,
    skipped: u64,
    outstanding: u64,
    ended_at: Option<Timestamp>,
    created_at: Timestamp,
    created_by: String,
}

impl Replay {
    /// The filters that are set, as the API calls them.
    fn filters(&self) -> Vec<(&'static str, &str)> {
        let set = |name| Some((name, self.filter.get(name)?.as_str()?));
        FILTERS.into_iter().filter_map(set).collect()
    }

    /// The whole per cent of what was looked at.
    fn percent(&self) -> String {
        format!("{:.0}", (self.progress * 100.0).floor())
    }

    fn is_running(&self) -> bool {
        self.state == "running"
    }
}

#[derive(Template)]
#[template(path = "replays.html")]
struct Replays {
    f: Frame,
    list: List<Replay>,
}

/// Replays, the newest first.
pub async fn replays(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let list = visit.get(&console, &format!("{PATH}?{}", visit.frame.list_query())).await?;
    Ok(show(StatusCode::OK, &Replays { f: visit.frame, list }))
}

#[derive(Template)]
#[template(path = "replay-new.html")]
struct New {
    f: Frame,
    campaigns: Campaigns,
    form: Form,
}

impl New {
    fn states(&self) -> [&'static str; 3] {
        ENDED
    }

    fn statuses(&self) -> [&'static str; 7] {
        EVENTS
    }
}

/// The form, with the filters that a list had.
pub async fn new(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let campaigns = Campaigns::of(&console, &visit).await?;
    let Asked(Fields(mut fields)) = Asked::of(&visit.frame.path);
    fields.push(("rate".to_owned(), DEFAULT_PER_SECOND.to_string()));
    Ok(show(StatusCode::OK, &New { f: visit.frame, campaigns, form: Fields(fields).into() }))
}

/// Makes a replay, and shows how it goes.
pub async fn create(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit, fields } = posted;
    let asked = Asked(fields);
    let made = if asked.is_narrow() || asked.0.is_set("everything") {
        let filter: Map<String, Value> = asked.filters().map(|(name, text)| (name.to_owned(), json!(text))).collect();
        let settings = json!({"filter": filter, "perSecond": number(asked.text("rate"))});
        visit.call(&console, Method::POST, PATH, Some(&settings)).await
    } else {
        Err(Refusal::new(StatusCode::BAD_REQUEST, visit.frame.t("replay-needs-filter")))
    };
    match made {
        Ok(replay) => {
            let id = replay["id"].as_str().unwrap_or_default();
            Ok(Redirect::to(&visit.frame.to(&format!("replays/{id}"))).into_response())
        }
        Err(refusal) => {
            let (status, form) = Form::from(asked.0).refused(&visit.frame, refusal)?;
            let campaigns = Campaigns::of(&console, &visit).await?;
            Ok(show(status, &New { f: visit.frame, campaigns, form }))
        }
    }
}

#[derive(Template)]
#[template(path = "replay.html")]
struct One {
    f: Frame,
    campaigns: Campaigns,
    replay: Replay,
    /// The page shows itself anew, where a browser runs no scripts.
    refreshes: bool,
}

impl One {
    fn path(&self) -> String {
        self.f.to(&format!("replays/{}", self.replay.id))
    }

    fn filter_text(&self, name: &str, value: &str) -> String {
        match name {
            "status" => self.f.tk("event-", value),
            "state" => self.f.tk("state-", value),
            "channel" => self.f.tk("channel-", value),
            "campaignId" => self.campaigns.name(value).to_owned(),
            _ => value.to_owned(),
        }
    }

    fn filter_name(&self, name: &str) -> String {
        let key = match name {
            "executionId" => "execution",
            "campaignId" => "campaign",
            "recipient" => "recipient",
            "status" => "event",
            "state" => "delivery",
            "channel" => "channel",
            "from" => "from-utc",
            "to" => "to-utc",
            other => return other.to_owned(),
        };
        self.f.t(key)
    }
}

/// A replay and how far it has come.
pub async fn replay(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let replay: Replay = visit.get(&console, &visit.resource(PATH)).await?;
    let campaigns = Campaigns::of(&console, &visit).await?;
    let is_still = Asked::of(&visit.frame.path).is("refresh", "no");
    let refreshes = replay.is_running() && !is_still;
    Ok(show(StatusCode::OK, &One { f: visit.frame, campaigns, replay, refreshes }))
}

/// Cancels a replay; one that has ended meanwhile is shown as it ended.
pub async fn cancel(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let visit = posted.visit;
    let path = visit.resource(PATH);
    match visit.call(&console, Method::POST, &format!("{path}/cancel"), None).await {
        Ok(_) => {}
        Err(refusal) if refusal.status == StatusCode::CONFLICT => {}
        Err(refusal) => return Err(visit.frame.trouble(&refusal)),
    }
    Ok(Redirect::to(&visit.frame.to(&format!("replays/{}", visit.part("id")))).into_response())
}
