//! Campaigns: what is sent, to whom webhooks tell of it, and the call that sends it.

use super::Console;
use super::inside::{Place, Refusal};
use super::page::{Fields, Frame, Posted, Visit, show};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{Method, StatusCode};
use model::clock::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const PATH: &str = "/v1/campaigns";
const CHANNELS: &str = "/v1/channel-configurations?limit=200";

/// A campaign as the API shows it, as far as the inventory does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    name: String,
    channel: String,
    status: String,
    has_draft: bool,
    version_id: String,
    audience: Audience,
    high_throughput_mode: bool,
    modified_at: Timestamp,
    modified_by: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Audience {
    identity_namespace: Option<String>,
    enable_webhooks: bool,
}

impl Item {
    /// The end of the key of the word for its state, and its look.
    fn state(&self) -> (&'static str, &'static str) {
        match self.status.as_str() {
            "LIVE" => ("live", "good"),
            "STOPPED" => ("stopped", "wait"),
            _ => ("draft", "warn"),
        }
    }
}

#[derive(Deserialize)]
struct Items {
    items: Vec<Item>,
    #[serde(rename = "nextCursor")]
    next: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Channel {
    id: String,
    name: String,
    channel: String,
}

#[derive(Deserialize)]
struct Channels {
    items: Vec<Channel>,
}

#[derive(Template)]
#[template(path = "campaigns.html")]
struct Inventory {
    f: Frame,
    list: Items,
}

/// All of the sandbox.
pub async fn inventory(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let path = format!("{PATH}?{}", super::administration::from_cursor(&visit.frame.path));
    let Visit { frame: f, place, .. } = visit;
    let list = console.inside.get(&place, &path).await.map_err(|refusal| f.trouble(&refusal))?;
    Ok(show(StatusCode::OK, &Inventory { f, list }))
}

#[derive(Template)]
#[template(path = "campaign-edit.html")]
struct Edit {
    f: Frame,
    /// None: it is to be made.
    campaign: Option<Item>,
    channels: Vec<Channel>,
    fields: Fields,
    faults: Vec<(String, String)>,
    trouble: Option<String>,
    notice: Option<String>,
    /// The call that runs an execution, for a shell.
    call: Option<String>,
}

impl Edit {
    fn text(&self, name: &str) -> &str {
        self.fields.text(name)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.fields.text(name) == value
    }

    fn is_set(&self, name: &str) -> bool {
        self.fields.is_set(name)
    }

    fn fault(&self, path: &str) -> Option<&str> {
        self.faults.iter().find(|fault| fault.0 == path).map(|fault| fault.1.as_str())
    }

    /// Faults of fields that the form has no place for.
    fn other_faults(&self) -> impl Iterator<Item = &(String, String)> {
        self.faults.iter().filter(|fault| !PLACES.contains(&fault.0.as_str()))
    }

    fn action(&self) -> String {
        match &self.campaign {
            Some(campaign) => self.f.to(&format!("campaigns/{}", campaign.id)),
            None => self.f.to("campaigns"),
        }
    }
}

/// The fields that the form shows faults at.
const PLACES: [&str; 8] = [
    "$.name",
    "$.channelConfigurationId",
    "$.content.subject",
    "$.content.html",
    "$.content.text",
    "$.audience.identityNamespace",
    "$.schedule.startAt",
    "$.schedule.endAt",
];

/// The fields of a form for what the API shows.
fn fields_of(campaign: &Value) -> Fields {
    let (content, audience, schedule) = (&campaign["content"], &campaign["audience"], &campaign["schedule"]);
    let values = [
        ("name", &campaign["name"]),
        ("channel", &campaign["channelConfigurationId"]),
        ("subject", &content["subject"]),
        ("html", &content["html"]),
        ("text", &content["text"]),
        ("namespace", &audience["identityNamespace"]),
        ("start", &schedule["startAt"]),
        ("end", &schedule["endAt"]),
    ];
    let texts = values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_str()?.to_owned())));
    let boxes = [
        ("strict", &content["strictVariables"]),
        ("webhooks", &audience["enableWebhooks"]),
        ("high-throughput", &campaign["highThroughputMode"]),
    ];
    let ticked = boxes.into_iter().filter(|one| *one.1 == true).map(|one| (one.0.to_owned(), "on".to_owned()));
    Fields(texts.chain(ticked).collect())
}

/// The settings as the API takes them. The channel is that of the configuration which was chosen.
fn settings_of(fields: &Fields, channels: &[Channel]) -> Value {
    let text = |name: &str| Some(fields.text(name)).filter(|text| !text.is_empty());
    let chosen = channels.iter().find(|channel| channel.id == fields.text("channel"));
    let channel = chosen.map_or("email", |channel| channel.channel.as_str());
    let mut content = json!({"strictVariables": fields.is_set("strict")});
    for name in ["subject", "html", "text"] {
        if let Some(text) = text(name) {
            content[name] = json!(text);
        }
    }
    json!({
        "name": fields.text("name"),
        "channel": channel,
        "channelConfigurationId": fields.text("channel"),
        "content": content,
        "audience": {"identityNamespace": text("namespace"), "enableWebhooks": fields.is_set("webhooks")},
        "highThroughputMode": fields.is_set("high-throughput"),
        "schedule": {"startAt": text("start"), "endAt": text("end")},
    })
}

async fn channels_of(console: &Console, f: &Frame, place: &Place) -> Result<Vec<Channel>, Response> {
    let channels = console.inside.get::<Channels>(place, CHANNELS).await;
    Ok(channels.map_err(|refusal| f.trouble(&refusal))?.items)
}

/// The empty form.
pub async fn new(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let Visit { frame: f, place, .. } = visit;
    let channels = channels_of(&console, &f, &place).await?;
    let fields = fields_of(&json!({"audience": {"identityNamespace": "email", "enableWebhooks": true}}));
    Ok(show(StatusCode::OK, &Edit::of(f, channels, fields)))
}

impl Edit {
    fn of(f: Frame, channels: Vec<Channel>, fields: Fields) -> Self {
        let faults = Vec::new();
        Self { f, campaign: None, channels, fields, faults, trouble: None, notice: None, call: None }
    }

    fn refused(mut self, refusal: Refusal) -> Response {
        if ![StatusCode::BAD_REQUEST, StatusCode::CONFLICT].contains(&refusal.status) {
            return self.f.trouble(&refusal);
        }
        self.faults = refusal.faults;
        if self.faults.is_empty() {
            self.trouble = Some(refusal.detail);
        }
        show(refusal.status, &self)
    }
}

/// The page of a campaign as the API shows it.
async fn page_of(
    console: &Console,
    f: Frame,
    place: &Place,
    campaign: &Value,
    notice: Option<String>,
) -> Result<Response, Response> {
    let channels = channels_of(console, &f, place).await?;
    let item = serde_json::from_value::<Item>(campaign.clone());
    let item = item.map_err(|error| f.trouble(&Refusal::internal(error.to_string())))?;
    let mut page = Edit::of(f, channels, fields_of(campaign));
    page.notice = notice;
    page.call = (item.status == "LIVE").then(|| call(console, place, &item));
    page.campaign = Some(item);
    Ok(show(StatusCode::OK, &page))
}

/// The call that runs an execution of this campaign.
fn call(console: &Console, place: &Place, item: &Item) -> String {
    let mode = if item.high_throughput_mode { "highthroughput" } else { "unitary" };
    let (kind, address) = match item.channel.as_str() {
        "sms" => ("mobilePhoneNumber", "+15550100"),
        _ => ("emailAddress", "jane@example.com"),
    };
    let namespace = item.audience.identity_namespace.as_deref().unwrap_or("email");
    let body = json!({"requestId": "order-1", "campaignId": item.id, "recipients": [{"type": "external",
        "userId": address, "namespace": namespace, "channelData": { kind: address }, "context": {}}]});
    format!(
        "curl -sS {}/ajo/im/executions/{mode} \\\n  -H \"Authorization: Bearer $ESITO_API_KEY\" \\\n  \
         -H 'x-gw-ims-org-id: {}' -H 'x-sandbox-name: {}' \\\n  -H 'content-type: application/json' \\\n  -d '{body}'",
        console.public_url, place.organization, place.sandbox
    )
}

fn path_of(visit: &Visit) -> String {
    let id = visit.parts.get("id").map_or("", String::as_str);
    format!("{PATH}/{}", url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>())
}

async fn read(console: &Console, f: &Frame, place: &Place, path: &str) -> Result<Value, Response> {
    console.inside.call(place, Method::GET, path, None).await.map_err(|refusal| f.trouble(&refusal))
}

/// A campaign.
pub async fn edit(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let campaign = read(&console, &visit.frame, &visit.place, &path_of(&visit)).await?;
    page_of(&console, visit.frame, &visit.place, &campaign, None).await
}

/// Makes a campaign: a draft.
pub async fn create(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit: Visit { frame: f, place, .. }, fields } = posted;
    let channels = channels_of(&console, &f, &place).await?;
    match console.inside.call(&place, Method::POST, PATH, Some(&settings_of(&fields, &channels))).await {
        Ok(made) => {
            let notice = Some(f.t("campaign-created"));
            page_of(&console, f, &place, &made, notice).await
        }
        Err(refusal) => Ok(Edit::of(f, channels, fields).refused(refusal)),
    }
}

/// Changes a campaign: of a live one this makes a draft.
pub async fn replace(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let path = path_of(&posted.visit);
    let Posted { visit: Visit { frame: f, place, .. }, fields } = posted;
    let channels = channels_of(&console, &f, &place).await?;
    let present = serde_json::from_value(read(&console, &f, &place, &path).await?).ok();
    match console.inside.call(&place, Method::PUT, &path, Some(&settings_of(&fields, &channels))).await {
        Ok(changed) => {
            let notice = Some(f.t("campaign-saved"));
            page_of(&console, f, &place, &changed, notice).await
        }
        Err(refusal) => {
            let mut page = Edit::of(f, channels, fields);
            page.campaign = present;
            Ok(page.refused(refusal))
        }
    }
}

/// Activates, stops, deletes.
pub async fn act(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let path = path_of(&posted.visit);
    let action = posted.visit.parts.get("action").cloned().unwrap_or_default();
    let Visit { frame: f, place, .. } = posted.visit;
    let known = [("activate", "campaign-done-activate"), ("stop", "campaign-done-stop")];
    let done = match known.into_iter().find(|one| one.0 == action) {
        Some((_, said)) => {
            console.inside.call(&place, Method::POST, &format!("{path}/{action}"), None).await.map(|_| said)
        }
        None if action == "delete" => console.inside.call(&place, Method::DELETE, &path, None).await.map(|_| ""),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "")),
    };
    match done {
        Ok("") => Ok(Redirect::to(&f.to("campaigns")).into_response()),
        Ok(said) => {
            let (campaign, notice) = (read(&console, &f, &place, &path).await?, Some(f.t(said)));
            page_of(&console, f, &place, &campaign, notice).await
        }
        Err(refusal) => Err(f.trouble(&refusal)),
    }
}
