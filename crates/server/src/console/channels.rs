//! Administration / Channels / Channel configurations: through what messages are sent.

use super::Console;
use super::form::{Form, fields_of, number};
use super::inside::{List, Refusal};
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

#[derive(Template)]
#[template(path = "channels.html")]
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
#[template(path = "channel-edit.html")]
struct Edit {
    f: Frame,
    /// None: it is to be made.
    channel: Option<Item>,
    form: Form,
    notice: Option<String>,
}

impl Edit {
    fn action(&self) -> String {
        match &self.channel {
            Some(channel) => self.f.to(&format!("channels/{}", channel.id)),
            None => self.f.to("channels"),
        }
    }

    fn act(&self, action: &str) -> String {
        format!("{}/{action}", self.action())
    }
}

/// The form for what the API shows.
fn form_of(channel: &Value) -> Form {
    let smtp = &channel["smtp"];
    let mut fields = fields_of([
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
    ]);
    if smtp["password"]["set"] == true {
        fields.push(("password-is-set".to_owned(), "yes".to_owned()));
    }
    Fields(fields).into()
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
pub async fn new(visit: Visit) -> Response {
    let form = form_of(&json!({"channel": "email", "type": "smtp", "retryHours": 84,
        "smtp": {"port": 587, "tls": "starttls", "maxConnections": 8}}));
    show(StatusCode::OK, &Edit { f: visit.frame, channel: None, form, notice: None })
}

fn page_of(f: Frame, channel: &Value, notice: Option<String>) -> Response {
    match Item::deserialize(channel) {
        Ok(item) => show(StatusCode::OK, &Edit { f, channel: Some(item), form: form_of(channel), notice }),
        Err(error) => f.trouble(&Refusal::internal(error.to_string())),
    }
}

/// The form of a channel configuration.
pub async fn edit(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let channel: Value = visit.get(&console, &visit.resource(PATH)).await?;
    Ok(page_of(visit.frame, &channel, None))
}

/// The form again, with what is wrong with it.
fn refused(f: Frame, channel: Option<Item>, fields: Fields, refusal: Refusal) -> Response {
    match Form::from(fields).refused(&f, refusal) {
        Ok((status, form)) => show(status, &Edit { f, channel, form, notice: None }),
        Err(trouble) => trouble,
    }
}

/// Makes a channel configuration.
pub async fn create(State(console): State<Arc<Console>>, posted: Posted) -> Response {
    let Posted { visit, fields } = posted;
    match visit.call(&console, Method::POST, PATH, Some(&settings_of(&fields))).await {
        Ok(_) => Redirect::to(&visit.frame.to("channels")).into_response(),
        Err(refusal) => refused(visit.frame, None, fields, refusal),
    }
}

/// Changes a channel configuration.
pub async fn replace(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit, fields } = posted;
    let path = visit.resource(PATH);
    let channel: Item = visit.get(&console, &path).await?;
    Ok(match visit.call(&console, Method::PUT, &path, Some(&settings_of(&fields))).await {
        Ok(changed) => {
            let notice = Some(visit.frame.t("channel-saved"));
            page_of(visit.frame, &changed, notice)
        }
        Err(refusal) => refused(visit.frame, Some(channel), fields, refusal),
    })
}

/// The buttons of a channel configuration, and what is said when it is done.
const ACTIONS: [(&str, &str); 2] = [("pause", "channel-done-pause"), ("resume", "channel-done-resume")];

/// Pauses, resumes, deletes.
pub async fn act(State(console): State<Arc<Console>>, posted: Posted) -> Response {
    let visit = posted.visit;
    match visit.act(&console, PATH, &ACTIONS).await {
        Ok(None) => Redirect::to(&visit.frame.to("channels")).into_response(),
        Ok(Some((said, channel))) => {
            let notice = Some(visit.frame.t(said));
            page_of(visit.frame, &channel, notice)
        }
        Err(refusal) => visit.frame.trouble(&refusal),
    }
}
