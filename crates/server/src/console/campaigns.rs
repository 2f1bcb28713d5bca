//! Campaigns: what is sent, to whom webhooks tell of it, and the call that sends it.

use super::Console;
use super::form::{Form, fields_of};
use super::inside::{List, Place, Refusal};
use super::page::{Fields, Frame, Posted, Visit, show};
use super::preview::{self, Failed};
use super::receivers::literal;
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{Method, StatusCode};
use model::campaign::Content;
use model::clock::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use wire::template::Rendered;

const PATH: &str = "/v1/campaigns";

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
    fn state(&self) -> String {
        self.status.to_ascii_lowercase()
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Channel {
    id: String,
    name: String,
    channel: String,
}

#[derive(Template)]
#[template(path = "campaigns.html")]
struct Inventory {
    f: Frame,
    list: List<Item>,
}

/// All of the sandbox.
pub async fn inventory(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let list = visit.get(&console, &format!("{PATH}?{}", visit.frame.list_query())).await?;
    Ok(show(StatusCode::OK, &Inventory { f: visit.frame, list }))
}

#[derive(Template)]
#[template(path = "campaign-edit.html")]
struct Edit {
    f: Frame,
    /// None: it is to be made.
    campaign: Option<Item>,
    channels: Vec<Channel>,
    form: Form,
    notice: Option<String>,
    /// The call that runs an execution, for a shell.
    call: Option<String>,
    preview: Option<Preview>,
}

/// What the content comes to for the sample of the form.
enum Preview {
    Rendered(Rendered),
    /// A recipient like it would be excluded, and why.
    Excluded(String),
}

impl Edit {
    fn action(&self) -> String {
        match &self.campaign {
            Some(campaign) => self.f.to(&format!("campaigns/{}", campaign.id)),
            None => self.f.to("campaigns"),
        }
    }

    fn act(&self, action: &str) -> String {
        format!("{}/{action}", self.action())
    }
}

/// The form for what the API shows.
fn form_of(campaign: &Value) -> Form {
    let (content, audience, schedule) = (&campaign["content"], &campaign["audience"], &campaign["schedule"]);
    let mut fields = fields_of([
        ("name", &campaign["name"]),
        ("channel", &campaign["channelConfigurationId"]),
        ("subject", &content["subject"]),
        ("html", &content["html"]),
        ("text", &content["text"]),
        ("namespace", &audience["identityNamespace"]),
        ("start", &schedule["startAt"]),
        ("end", &schedule["endAt"]),
    ]);
    fields.push(("sample".to_owned(), preview::SAMPLE.to_owned()));
    let boxes = [
        ("strict", &content["strictVariables"]),
        ("webhooks", &audience["enableWebhooks"]),
        ("high-throughput", &campaign["highThroughputMode"]),
    ];
    let ticked = boxes.into_iter().filter(|one| *one.1 == true);
    fields.extend(ticked.map(|one| (one.0.to_owned(), "on".to_owned())));
    Fields(fields).into()
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

/// The most channel configurations that a form offers.
const OFFERED: usize = 2_000;

/// What may be chosen to send through.
async fn channels_of(console: &Console, visit: &Visit) -> Result<Vec<Channel>, Response> {
    let channels = console.inside.list(&visit.place, "/v1/channel-configurations", OFFERED).await;
    channels.map_err(|refusal| visit.frame.trouble(&refusal))
}

/// The empty form.
pub async fn new(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let channels = channels_of(&console, &visit).await?;
    let form = form_of(&json!({"audience": {"identityNamespace": "email", "enableWebhooks": true}}));
    let page = Edit { f: visit.frame, campaign: None, channels, form, notice: None, call: None, preview: None };
    Ok(show(StatusCode::OK, &page))
}

/// The page of a campaign as the API shows it.
async fn page_of(
    console: &Console,
    visit: Visit,
    campaign: &Value,
    notice: Option<String>,
) -> Result<Response, Response> {
    let channels = channels_of(console, &visit).await?;
    let Visit { frame: f, place, .. } = visit;
    let item = Item::deserialize(campaign);
    let item = item.map_err(|error| f.trouble(&Refusal::internal(error.to_string())))?;
    let call = (item.status == "LIVE").then(|| call(console, &place, &item));
    let page = Edit { f, campaign: Some(item), channels, form: form_of(campaign), notice, call, preview: None };
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
    // Somebody else wrote what is in it, and a shell is to read it.
    let body = literal::shell(&body.to_string());
    format!(
        "curl -sS {}/ajo/im/executions/{mode} \\\n  -H \"Authorization: Bearer $ESITO_API_KEY\" \\\n  \
         -H 'x-gw-ims-org-id: {}' -H 'x-sandbox-name: {}' \\\n  -H 'content-type: application/json' \\\n  -d {body}",
        console.public_url, place.organization, place.sandbox
    )
}

/// A version that is or was live, as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version_id: String,
    live: bool,
    channel_configuration_id: String,
    content: Content,
    audience: Audience,
}

#[derive(Template)]
#[template(path = "campaign-versions.html")]
struct Versions {
    f: Frame,
    campaign: Item,
    list: List<Version>,
}

/// The versions of a campaign: what executions got, and when they were made.
pub async fn versions(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let path = visit.resource(PATH);
    let campaign = visit.get(&console, &path).await?;
    let list = visit.get(&console, &format!("{path}/versions?{}", visit.frame.list_query())).await?;
    Ok(show(StatusCode::OK, &Versions { f: visit.frame, campaign, list }))
}

/// A campaign.
pub async fn edit(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let campaign: Value = visit.get(&console, &visit.resource(PATH)).await?;
    page_of(&console, visit, &campaign, None).await
}

/// Makes a campaign: a draft.
pub async fn create(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    save(&console, posted, Method::POST, PATH, None, "campaign-created").await
}

/// Changes a campaign: of a live one this makes a draft.
pub async fn replace(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let path = posted.visit.resource(PATH);
    let present: Item = posted.visit.get(&console, &path).await?;
    save(&console, posted, Method::PUT, &path, Some(present), "campaign-saved").await
}

/// Has a form stored, and says so, or says what is wrong with it.
async fn save(
    console: &Console,
    posted: Posted,
    method: Method,
    path: &str,
    present: Option<Item>,
    said: &str,
) -> Result<Response, Response> {
    let Posted { visit, fields } = posted;
    let channels = channels_of(console, &visit).await?;
    let settings = settings_of(&fields, &channels);
    if fields.is_set("preview") {
        return preview(visit.frame, present, channels, fields, settings).await;
    }
    match visit.call(console, method, path, Some(&settings)).await {
        Ok(stored) => {
            let notice = Some(visit.frame.t(said));
            page_of(console, visit, &stored, notice).await
        }
        Err(refusal) => {
            let f = visit.frame;
            let (status, form) = Form::from(fields).refused(&f, refusal)?;
            Ok(show(status, &Edit { f, campaign: present, channels, form, notice: None, call: None, preview: None }))
        }
    }
}

/// What of a form's settings a message is made of.
#[derive(Deserialize)]
struct Previewed {
    channel: model::webhook::Channel,
    content: Content,
}

/// The form as it was typed, with what its content comes to for its sample. Nothing is stored.
async fn preview(
    f: Frame,
    campaign: Option<Item>,
    channels: Vec<Channel>,
    fields: Fields,
    settings: Value,
) -> Result<Response, Response> {
    let internal = |error: String| f.trouble(&Refusal::internal(error));
    let Previewed { channel, content } =
        Previewed::deserialize(settings).map_err(|error| internal(error.to_string()))?;
    let sample = fields.text("sample").to_owned();
    // A template may take its time within its bounds; the other pages do not wait for it.
    let rendered = tokio::task::spawn_blocking(move || preview::render(channel, &content, &sample)).await;
    let mut form = Form::from(fields);
    let (status, preview) = match rendered.map_err(|error| internal(error.to_string()))? {
        Ok(rendered) => (StatusCode::OK, Some(Preview::Rendered(rendered))),
        Err(Failed::Excluded(why)) => (StatusCode::OK, Some(Preview::Excluded(f.said(why)))),
        Err(Failed::Faults(faults)) => {
            form = form.at_fault(&f, faults);
            (StatusCode::BAD_REQUEST, None)
        }
    };
    Ok(show(status, &Edit { f, campaign, channels, form, notice: None, call: None, preview }))
}

/// The buttons of a campaign, and what is said when it is done.
const ACTIONS: [(&str, &str); 2] = [("activate", "campaign-done-activate"), ("stop", "campaign-done-stop")];

/// Activates, stops, deletes.
pub async fn act(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let visit = posted.visit;
    match visit.act(&console, PATH, &ACTIONS).await {
        Ok(None) => Ok(Redirect::to(&visit.frame.to("campaigns")).into_response()),
        Ok(Some((said, campaign))) => {
            let notice = Some(visit.frame.t(said));
            page_of(&console, visit, &campaign, notice).await
        }
        Err(refusal) => Err(visit.frame.trouble(&refusal)),
    }
}
