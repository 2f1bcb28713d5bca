//! Administration: API keys, and the log of who changed what.

use super::Console;
use super::form::Form;
use super::inside::List;
use super::page::{Fields, Frame, Posted, Visit, show};
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
    fn state(&self, now: &Timestamp) -> &'static str {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(end)) if end <= *now => "expired",
            _ => "valid",
        }
    }
}

#[derive(Template)]
#[template(path = "api-keys.html")]
struct Keys {
    f: Frame,
    list: List<Key>,
    /// The text of the key that was just made: shown this once.
    made: Option<String>,
    form: Form,
}

impl Keys {
    fn roles(&self) -> [&'static str; 4] {
        ["sender", "viewer", "operator", "admin"]
    }

    fn revoke_path(&self, key: &Key) -> String {
        self.f.to(&format!("keys/{}/revoke", key.id))
    }
}

async fn keys_page(console: &Console, visit: Visit) -> Result<Keys, Response> {
    let list = visit.get(console, &format!("{KEYS}?{}", visit.frame.list_query())).await?;
    let form = Form::from(Fields(vec![("role".to_owned(), "sender".to_owned())]));
    Ok(Keys { f: visit.frame, list, made: None, form })
}

/// The keys of the organization.
pub async fn keys(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    Ok(show(StatusCode::OK, &keys_page(&console, visit).await?))
}

/// Makes a key.
pub async fn make_key(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit, fields } = posted;
    let sandboxes: Vec<&str> = fields.all("sandbox").collect();
    let mut body = json!({"name": fields.text("name"), "role": fields.text("role")});
    if !sandboxes.is_empty() {
        body["sandboxes"] = json!(sandboxes);
    }
    let made = visit.call(&console, Method::POST, KEYS, Some(&body)).await;
    let mut page = keys_page(&console, visit).await?;
    let status = match made {
        Ok(made) => {
            page.made = made["key"].as_str().map(str::to_owned);
            StatusCode::OK
        }
        Err(refusal) => {
            let (status, form) = Form::from(fields).refused(&page.f, refusal)?;
            page.form = form;
            status
        }
    };
    Ok(show(status, &page))
}

/// Ends a key.
pub async fn revoke_key(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let visit = posted.visit;
    let revoked = visit.call(&console, Method::DELETE, &visit.resource(KEYS), None).await;
    revoked.map_err(|refusal| visit.frame.trouble(&refusal))?;
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
    let list = visit.get(&console, &format!("/v1/audit-log?{}", visit.frame.list_query())).await?;
    Ok(show(StatusCode::OK, &Log { f: visit.frame, list }))
}
