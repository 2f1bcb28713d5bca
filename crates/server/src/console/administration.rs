//! Administration: API keys, and the log of who changed what.

use super::Console;
use super::inside::Refusal;
use super::page::{Frame, Posted, Visit, show};
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};
use model::clock::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const KEYS: &str = "/v1/api-keys";

/// An API key as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    id: String,
    role: String,
    name: String,
    sandboxes: Option<Vec<String>>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    created_at: Timestamp,
    created_by: String,
}

impl Key {
    /// The end of the key of the word for its state, and its look.
    fn state(&self, now: &Timestamp) -> (&'static str, &'static str) {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => ("revoked", "wait"),
            (None, Some(end)) if end <= *now => ("expired", "wait"),
            _ => ("valid", "good"),
        }
    }
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
    #[serde(rename = "nextCursor")]
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "api-keys.html")]
struct Keys {
    f: Frame,
    list: List<Key>,
    /// The text of the key that was just made: shown this once.
    made: Option<String>,
    /// What was typed for one that could not be made, and why not.
    name: String,
    role: String,
    sandboxes: Vec<String>,
    faults: Vec<(String, String)>,
}

impl Keys {
    fn roles(&self) -> [&'static str; 4] {
        ["sender", "viewer", "operator", "admin"]
    }

    fn fault(&self, path: &str) -> Option<&str> {
        self.faults.iter().find(|fault| fault.0.starts_with(path)).map(|fault| fault.1.as_str())
    }

    fn is_ticked(&self, sandbox: &str) -> bool {
        self.sandboxes.iter().any(|name| name == sandbox)
    }
}

/// The query of a page from its cursor on.
pub(super) fn from_cursor(path: &str) -> String {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let mut asked = url::form_urlencoded::Serializer::new(String::new());
    asked.append_pair("limit", "50");
    if let Some((_, cursor)) = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "cursor") {
        asked.append_pair("cursor", &cursor);
    }
    asked.finish()
}

async fn keys_page(console: &Console, visit: Visit) -> Result<Keys, Response> {
    let path = format!("{KEYS}?{}", from_cursor(&visit.frame.path));
    let Visit { frame: f, place, .. } = visit;
    let list = console.inside.get(&place, &path).await.map_err(|refusal| f.trouble(&refusal))?;
    let (name, role) = (String::new(), "sender".to_owned());
    Ok(Keys { f, list, made: None, name, role, sandboxes: Vec::new(), faults: Vec::new() })
}

/// The keys of the organization.
pub async fn keys(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    Ok(show(StatusCode::OK, &keys_page(&console, visit).await?))
}

/// Makes a key.
pub async fn make_key(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit, fields } = posted;
    let sandboxes: Vec<String> = fields.all("sandbox").map(str::to_owned).collect();
    let mut body = json!({"name": fields.text("name"), "role": fields.text("role")});
    if !sandboxes.is_empty() {
        body["sandboxes"] = json!(sandboxes);
    }
    let made = console.inside.call(&visit.place, Method::POST, KEYS, Some(&body)).await;
    let frame = visit.frame.clone();
    let mut page = keys_page(&console, visit).await?;
    match made {
        Ok(made) => page.made = made["key"].as_str().map(str::to_owned),
        Err(refusal) if refusal.status == StatusCode::BAD_REQUEST => {
            (page.name, page.role) = (fields.text("name").to_owned(), fields.text("role").to_owned());
            (page.sandboxes, page.faults) = (sandboxes, refusal.faults);
            return Ok(show(StatusCode::BAD_REQUEST, &page));
        }
        Err(refusal) => return Err(frame.trouble(&refusal)),
    }
    Ok(show(StatusCode::OK, &page))
}

/// Ends a key.
pub async fn revoke_key(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit, .. } = posted;
    let id = visit.parts.get("id").map_or("", String::as_str);
    let path = format!("{KEYS}/{}", url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>());
    let revoked = console.inside.call(&visit.place, Method::DELETE, &path, None).await;
    revoked.map_err(|refusal: Refusal| visit.frame.trouble(&refusal))?;
    Ok(show(StatusCode::OK, &keys_page(&console, visit).await?))
}

/// An entry of the audit log as the API shows it.
#[derive(Debug, Deserialize)]
struct Entry {
    sandbox: Option<String>,
    at: Timestamp,
    actor: String,
    action: String,
    resource: String,
    detail: Value,
}

impl Entry {
    fn pretty(&self) -> String {
        serde_json::to_string_pretty(&self.detail).unwrap_or_default()
    }
}

#[derive(Template)]
#[template(path = "audit-log.html")]
struct Log {
    f: Frame,
    list: List<Entry>,
}

/// Who changed what, the newest first.
pub async fn audit_log(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let path = format!("/v1/audit-log?{}", from_cursor(&visit.frame.path));
    let Visit { frame: f, place, .. } = visit;
    let list = console.inside.get(&place, &path).await.map_err(|refusal| f.trouble(&refusal))?;
    Ok(show(StatusCode::OK, &Log { f, list }))
}
