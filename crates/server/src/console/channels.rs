//! Administration / Channels / Channel configurations: through what messages are sent.

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

const PATH: &str = "/v1/channel-configurations";

/// A channel configuration as the API shows it, as far as the inventory does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    name: String,
    channel: String,
    #[serde(rename = "type")]
    kind: String,
    smtp: Option<Relay>,
    paused: bool,
    modified_at: Timestamp,
    modified_by: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Relay {
    host: String,
    port: u16,
}

#[derive(Deserialize)]
struct Items {
    items: Vec<Item>,
    #[serde(rename = "nextCursor")]
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "channels.html")]
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
#[template(path = "channel-edit.html")]
struct Edit {
    f: Frame,
    /// None: it is to be made.
    channel: Option<Item>,
    fields: Fields,
    faults: Vec<(String, String)>,
    trouble: Option<String>,
    notice: Option<String>,
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
        match &self.channel {
            Some(channel) => self.f.to(&format!("channels/{}", channel.id)),
            None => self.f.to("channels"),
        }
    }
}

/// The fields that the form shows faults at.
const PLACES: [&str; 13] = [
    "$.name",
    "$.smtp.host",
    "$.smtp.port",
    "$.smtp.tls",
    "$.smtp.username",
    "$.smtp.password",
    "$.smtp.maxConnections",
    "$.from.name",
    "$.from.address",
    "$.replyTo.address",
    "$.retryHours",
    "$.maxPerSecond",
    "$.channel",
];

/// The fields of a form for what the API shows.
fn fields_of(channel: &Value) -> Fields {
    let smtp = &channel["smtp"];
    let values = [
        ("name", &channel["name"]),
        ("channel", &channel["channel"]),
        ("type", &channel["type"]),
        ("host", &smtp["host"]),
        ("port", &smtp["port"]),
        ("tls", &smtp["tls"]),
        ("username", &smtp["username"]),
        ("connections", &smtp["maxConnections"]),
        ("from-name", &channel["from"]["name"]),
        ("from-address", &channel["from"]["address"]),
        ("reply-to", &channel["replyTo"]["address"]),
        ("retry-hours", &channel["retryHours"]),
        ("rate", &channel["maxPerSecond"]),
    ];
    let mut fields = Vec::new();
    for (name, value) in values {
        match value {
            Value::String(text) => fields.push((name.to_owned(), text.clone())),
            Value::Number(number) => fields.push((name.to_owned(), number.to_string())),
            _ => {}
        }
    }
    if smtp["password"]["set"] == true {
        fields.push(("password-is-set".to_owned(), "yes".to_owned()));
    }
    Fields(fields)
}

/// A number as JSON; what is none goes on as it was typed, for the API to say so.
fn number(text: &str) -> Value {
    serde_json::from_str::<serde_json::Number>(text).map_or_else(|_| json!(text), Value::Number)
}

/// The settings as the API takes them.
fn settings_of(fields: &Fields) -> Value {
    let text = |name: &str| fields.text(name);
    let mut settings = json!({"name": text("name"), "channel": text("channel"), "type": text("type")});
    let mailbox = |name: &str, address: &str| match name {
        "" => json!({ "address": address }),
        name => json!({"name": name, "address": address}),
    };
    if !text("from-address").is_empty() || !text("from-name").is_empty() {
        settings["from"] = mailbox(text("from-name"), text("from-address"));
    }
    if !text("reply-to").is_empty() {
        settings["replyTo"] = mailbox("", text("reply-to"));
    }
    for (name, field) in [("retry-hours", "retryHours"), ("rate", "maxPerSecond")] {
        if !text(name).is_empty() {
            settings[field] = number(text(name));
        }
    }
    if text("type") == "smtp" {
        let mut smtp = json!({"host": text("host"), "port": number(text("port")), "tls": text("tls")});
        if !text("connections").is_empty() {
            smtp["maxConnections"] = number(text("connections"));
        }
        // A password that is left empty stays, with its user's name.
        for name in ["username", "password"] {
            if !text(name).is_empty() {
                smtp[name] = json!(text(name));
            }
        }
        settings["smtp"] = smtp;
    }
    settings
}

/// The empty form.
pub async fn new(visit: Visit) -> Result<Response, Response> {
    let fields = fields_of(&json!({"channel": "email", "type": "smtp", "retryHours": 84,
        "smtp": {"port": 587, "tls": "starttls", "maxConnections": 8}}));
    let f = visit.frame;
    let page = Edit { f, channel: None, fields, faults: Vec::new(), trouble: None, notice: None };
    Ok(show(StatusCode::OK, &page))
}

fn page_of(f: Frame, channel: &Value, notice: Option<String>) -> Response {
    let item = serde_json::from_value::<Item>(channel.clone());
    let item = match item {
        Ok(item) => item,
        Err(error) => return f.trouble(&Refusal::internal(error.to_string())),
    };
    let fields = fields_of(channel);
    let page = Edit { f, channel: Some(item), fields, faults: Vec::new(), trouble: None, notice };
    show(StatusCode::OK, &page)
}

fn path_of(visit: &Visit) -> String {
    let id = visit.parts.get("id").map_or("", String::as_str);
    format!("{PATH}/{}", url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>())
}

async fn read(console: &Console, f: &Frame, place: &Place, path: &str) -> Result<Value, Response> {
    console.inside.call(place, Method::GET, path, None).await.map_err(|refusal| f.trouble(&refusal))
}

/// The form of a channel configuration.
pub async fn edit(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let channel = read(&console, &visit.frame, &visit.place, &path_of(&visit)).await?;
    Ok(page_of(visit.frame, &channel, None))
}

/// The form again, with what is wrong with it.
fn refused(mut page: Edit, refusal: Refusal) -> Response {
    if ![StatusCode::BAD_REQUEST, StatusCode::CONFLICT].contains(&refusal.status) {
        return page.f.trouble(&refusal);
    }
    page.faults = refusal.faults;
    if page.faults.is_empty() {
        page.trouble = Some(refusal.detail);
    }
    show(refusal.status, &page)
}

/// Makes a channel configuration.
pub async fn create(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit: Visit { frame: f, place, .. }, fields } = posted;
    match console.inside.call(&place, Method::POST, PATH, Some(&settings_of(&fields))).await {
        Ok(_) => Ok(Redirect::to(&f.to("channels")).into_response()),
        Err(refusal) => {
            Ok(refused(Edit { f, channel: None, fields, faults: Vec::new(), trouble: None, notice: None }, refusal))
        }
    }
}

/// Changes a channel configuration.
pub async fn replace(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let path = path_of(&posted.visit);
    let Posted { visit: Visit { frame: f, place, .. }, fields } = posted;
    let channel = serde_json::from_value(read(&console, &f, &place, &path).await?).ok();
    match console.inside.call(&place, Method::PUT, &path, Some(&settings_of(&fields))).await {
        Ok(changed) => {
            let notice = Some(f.t("channel-saved"));
            Ok(page_of(f, &changed, notice))
        }
        Err(refusal) => {
            Ok(refused(Edit { f, channel, fields, faults: Vec::new(), trouble: None, notice: None }, refusal))
        }
    }
}

/// Pauses, resumes, deletes.
pub async fn act(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let path = path_of(&posted.visit);
    let action = posted.visit.parts.get("action").cloned().unwrap_or_default();
    let Visit { frame: f, place, .. } = posted.visit;
    let known = [("pause", "channel-done-pause"), ("resume", "channel-done-resume")];
    let done = match known.into_iter().find(|one| one.0 == action) {
        Some((_, said)) => {
            console.inside.call(&place, Method::POST, &format!("{path}/{action}"), None).await.map(|_| said)
        }
        None if action == "delete" => console.inside.call(&place, Method::DELETE, &path, None).await.map(|_| ""),
        None => Err(Refusal::new(StatusCode::NOT_FOUND, "")),
    };
    match done {
        Ok("") => Ok(Redirect::to(&f.to("channels")).into_response()),
        Ok(said) => {
            let (channel, notice) = (read(&console, &f, &place, &path).await?, Some(f.t(said)));
            Ok(page_of(f, &channel, notice))
        }
        Err(refusal) => Err(f.trouble(&refusal)),
    }
}
