//! Administration / Channels / Feedback webhook settings: the inventory of an organization's webhooks, and the form that
//! makes and changes one.

use super::Console;
use super::inside::Refusal;
use super::page::{Fields, Frame, Posted, Visit, place_path, show};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::{Method, StatusCode};
use model::clock::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const PATH: &str = "/v1/feedback-webhooks";

/// A webhook as the API shows it, as far as the inventory does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    id: String,
    name: String,
    url: String,
    sandbox: SandboxName,
    channels: Vec<String>,
    authentication: Proof,
    signing: String,
    state: String,
    state_reason: Option<String>,
    modified_at: Timestamp,
    modified_by: String,
}

#[derive(Clone, Debug, Deserialize)]
struct SandboxName {
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Proof {
    #[serde(rename = "type")]
    kind: String,
    algorithm: Option<String>,
    method: Option<String>,
}

#[derive(Deserialize)]
struct Items {
    items: Vec<Item>,
    #[serde(rename = "nextCursor")]
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct Inventory {
    f: Frame,
    items: Vec<Item>,
    next: Option<String>,
    /// The sandbox has one already.
    own: Option<Item>,
}

impl Inventory {
    fn edit_path(&self, item: &Item) -> String {
        let tenant = self.f.tenant.as_ref().map_or("", |tenant| &tenant.organization);
        place_path(tenant, &item.sandbox.name, &format!("webhooks/{}", item.id))
    }

    fn tone(&self, item: &Item) -> &'static str {
        tone(&item.state)
    }
}

fn tone(state: &str) -> &'static str {
    match state {
        "active" => "good",
        "failing" => "bad",
        "paused" => "warn",
        _ => "wait",
    }
}

/// The inventory: all webhooks of the organization that the key may see.
pub async fn inventory(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let Visit { frame: f, place, .. } = visit;
    let query = f.path.split_once('?').map_or("", |(_, query)| query);
    let cursor = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "cursor");
    let cursor = cursor.map_or(String::new(), |(_, value)| {
        format!("&cursor={}", url::form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>())
    });
    let path = format!("{PATH}?allSandboxes=true&limit=50{cursor}");
    let all: Items = console.inside.get(&place, &path).await.map_err(|refusal| f.trouble(&refusal))?;
    let own: Items = console.inside.get(&place, PATH).await.map_err(|refusal| f.trouble(&refusal))?;
    let page = Inventory { f, items: all.items, next: all.next, own: own.items.into_iter().next() };
    Ok(show(StatusCode::OK, &page))
}

/// A field of the form that is at fault: its JSON path, and why.
type Faults = Vec<(String, String)>;

#[derive(Template)]
#[template(path = "webhook-edit.html")]
struct Edit {
    f: Frame,
    /// None: it is to be made.
    webhook: Option<Item>,
    form: Form,
    faults: Faults,
    /// What is wrong with all of it.
    trouble: Option<String>,
    notice: Option<Notice>,
}

/// What has just come of an action.
#[derive(Clone, Debug, Default)]
struct Notice {
    text: String,
    is_bad: bool,
    /// Shown this once.
    secret: Option<String>,
    attempt: Option<AttemptShown>,
}

/// What an endpoint said to a test event.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttemptShown {
    duration_ms: u64,
    succeeded: bool,
    status: Option<u16>,
    error: Option<AttemptFault>,
    response_excerpt: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct AttemptFault {
    message: String,
}

impl Edit {
    /// Why the field of this path is at fault; a path that ends with `*` has all below it.
    fn fault(&self, path: &str) -> Option<&str> {
        let matches = |fault: &&(String, String)| match path.strip_suffix('*') {
            Some(start) => fault.0.starts_with(start),
            None => fault.0 == path,
        };
        self.faults.iter().find(matches).map(|fault| fault.1.as_str())
    }

    /// Faults of fields that the form has no place for.
    fn other_faults(&self) -> impl Iterator<Item = &(String, String)> {
        let has_place = |path: &str| {
            PLACES.contains(&path)
                || path.starts_with("$.headers[")
                || path.starts_with("$.channels")
                || path.starts_with("$.events")
        };
        self.faults.iter().filter(move |fault| !has_place(&fault.0))
    }

    fn header_fault(&self, place: &usize) -> Option<&str> {
        self.fault(&format!("$.headers[{place}]*"))
    }

    fn action(&self) -> String {
        match &self.webhook {
            Some(webhook) => self.f.to(&format!("webhooks/{}", webhook.id)),
            None => self.f.to("webhooks"),
        }
    }

    fn act(&self, action: &str) -> String {
        format!("{}/{action}", self.action())
    }

    fn tone(&self, item: &Item) -> &'static str {
        tone(&item.state)
    }

    fn algorithms(&self) -> [&'static str; 7] {
        ALGORITHMS
    }

    fn events(&self) -> [&'static str; 7] {
        EVENTS
    }

    /// Whether there may be a key pair of Esito's own making.
    fn has_key_pair(&self, item: &Item) -> bool {
        let proof = &item.authentication;
        let is_signed = proof.kind == "jwt" || proof.method.as_deref() == Some("jwt_bearer");
        is_signed && proof.algorithm.as_ref().is_some_and(|name| !name.starts_with("HS"))
    }
}

/// The fields that the form shows faults at.
const PLACES: [&str; 25] = [
    "$.name",
    "$.url",
    "$.authentication.algorithm",
    "$.authentication.secret",
    "$.authentication.privateKey",
    "$.authentication.keyId",
    "$.authentication.issuer",
    "$.authentication.subject",
    "$.authentication.audience",
    "$.authentication.expiresInSeconds",
    "$.authentication.claims",
    "$.authentication.header",
    "$.authentication.prefix",
    "$.authentication.tokenUrl",
    "$.authentication.clientId",
    "$.authentication.clientSecret",
    "$.authentication.scope",
    "$.authentication.method",
    "$.timeoutSeconds",
    "$.maxConcurrency",
    "$.maxPerSecond",
    "$.retry.firstDelaySeconds",
    "$.retry.maxDelaySeconds",
    "$.retry.giveUpAfterSeconds",
    "$.headers",
];

const ALGORITHMS: [&str; 7] = ["ES256", "EdDSA", "RS256", "PS256", "HS256", "HS384", "HS512"];
const EVENTS: [&str; 7] = ["sent", "delivered", "bounce", "error", "exclude", "denylist", "delay"];

/// The form as it was typed, or as the webhook is.
#[derive(Clone, Debug, Default)]
struct Form {
    fields: Fields,
    headers: Vec<HeaderRow>,
}

#[derive(Clone, Debug, Default)]
struct HeaderRow {
    name: String,
    value: String,
    is_secret: bool,
    /// A secret that is set, and stays where nothing is typed.
    is_kept: bool,
}

/// Text fields of the authentication: what the form calls them, and what the API does.
const PROOF: [(&str, &str); 14] = [
    ("algorithm", "algorithm"),
    ("secret", "secret"),
    ("private-key", "privateKey"),
    ("key-id", "keyId"),
    ("issuer", "issuer"),
    ("subject", "subject"),
    ("audience", "audience"),
    ("header", "header"),
    ("prefix", "prefix"),
    ("token-url", "tokenUrl"),
    ("client-id", "clientId"),
    ("client-secret", "clientSecret"),
    ("scope", "scope"),
    ("method", "method"),
];

/// Which of them a type of authentication has.
fn belongs(kind: &str, method: &str, name: &str) -> bool {
    match name {
        "token-url" | "client-id" | "scope" | "method" => kind == "oauth2",
        "client-secret" => kind == "oauth2" && method != "jwt_bearer",
        "secret" | "header" | "prefix" => kind == "jwt",
        "audience" => kind != "none",
        _ => kind == "jwt" || (kind == "oauth2" && method == "jwt_bearer"),
    }
}

const NUMBERS: [(&str, &str, &str); 6] = [
    ("timeout", "", "timeoutSeconds"),
    ("concurrency", "", "maxConcurrency"),
    ("rate", "", "maxPerSecond"),
    ("first-delay", "retry", "firstDelaySeconds"),
    ("max-delay", "retry", "maxDelaySeconds"),
    ("give-up", "retry", "giveUpAfterSeconds"),
];

/// A number as JSON; what is none goes on as it was typed, for the API to say so.
fn number(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))
}

impl Form {
    /// The form of a webhook as the API shows it.
    fn of(webhook: &Value) -> Self {
        let mut fields = Vec::new();
        let mut add = |name: &str, value: &Value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return,
            };
            fields.push((name.to_owned(), text));
        };
        for name in ["name", "url", "payload", "signing"] {
            add(name, &webhook[name]);
        }
        let proof = &webhook["authentication"];
        add("auth", &proof["type"]);
        for (name, field) in PROOF {
            add(name, &proof[field]);
        }
        add("expires", &proof["expiresInSeconds"]);
        for (name, group, field) in NUMBERS {
            add(name, if group.is_empty() { &webhook[field] } else { &webhook[group][field] });
        }
        for (name, list) in [("channel", "channels"), ("event", "events")] {
            for value in webhook[list].as_array().into_iter().flatten() {
                add(name, value);
            }
        }
        if let Some(claims) = proof["claims"].as_object().filter(|claims| !claims.is_empty()) {
            let text = serde_json::to_string_pretty(claims).unwrap_or_default();
            fields.push(("claims".to_owned(), text));
        }
        for (name, field) in [("secret", "secret"), ("private-key", "privateKey"), ("client-secret", "clientSecret")] {
            if proof[field]["set"] == true {
                fields.push((format!("{name}-is-set"), "yes".to_owned()));
            }
        }
        if webhook["enabled"] == true {
            fields.push(("enabled".to_owned(), "yes".to_owned()));
        }
        let headers = webhook["headers"].as_array().into_iter().flatten().map(|header| HeaderRow {
            name: header["name"].as_str().unwrap_or_default().to_owned(),
            value: header["value"].as_str().unwrap_or_default().to_owned(),
            is_secret: header["secret"] == true,
            is_kept: header["value"]["set"] == true,
        });
        let headers = headers.collect();
        Self { fields: Fields(fields), headers }
    }

    /// What a new webhook has at first.
    fn new() -> Self {
        Self::of(&json!({
            "channels": ["email"], "payload": "standard", "signing": "v1", "enabled": true,
            "authentication": {"type": "none", "algorithm": "ES256", "expiresInSeconds": 300, "prefix": "Bearer"},
            "events": EVENTS[..6], "timeoutSeconds": 15, "maxConcurrency": 64,
            "retry": {"firstDelaySeconds": 5, "maxDelaySeconds": 3600, "giveUpAfterSeconds": 259_200},
        }))
    }

    /// The form as it was typed. Rows of headers are told apart by a number: `header-name-3`.
    fn typed(fields: Fields) -> Self {
        let rows = fields.0.iter().filter_map(|field| field.0.strip_prefix("header-name-"));
        let row = |n: &str| {
            let text = |part: &str| fields.text(&format!("header-{part}-{n}")).to_owned();
            HeaderRow {
                name: text("name"),
                value: text("value"),
                is_secret: fields.is_set(&format!("header-secret-{n}")),
                is_kept: fields.is_set(&format!("header-kept-{n}")),
            }
        };
        let removed = fields.text("remove").to_owned();
        let headers =
            rows.filter(|n| *n != removed).map(row).filter(|row| !row.name.is_empty() || !row.value.is_empty());
        let headers = headers.collect();
        Self { headers, fields }
    }

    fn text(&self, name: &str) -> &str {
        self.fields.text(name)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == value
    }

    fn is_set(&self, name: &str) -> bool {
        self.fields.is_set(name)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.fields.all(name).any(|one| one == value)
    }

    /// Rows for headers that are not there yet.
    fn empty_rows(&self) -> std::ops::Range<usize> {
        let first = self.headers.len();
        first..first + if self.is_set("add") { 2 } else { 1 }
    }

    /// The settings as the API takes them.
    fn settings(&self) -> Result<Value, Faults> {
        let mut settings = Map::new();
        for name in ["name", "url", "payload", "signing"] {
            settings.insert(name.to_owned(), json!(self.text(name)));
        }
        settings.insert("channels".to_owned(), self.fields.all("channel").collect());
        settings.insert("events".to_owned(), self.fields.all("event").collect());
        settings.insert("enabled".to_owned(), json!(self.is_set("enabled")));
        let mut retry = Map::new();
        for (name, group, field) in NUMBERS {
            if !self.text(name).is_empty() {
                let into = if group.is_empty() { &mut settings } else { &mut retry };
                into.insert(field.to_owned(), number(self.text(name)));
            }
        }
        settings.insert("retry".to_owned(), retry.into());
        settings.insert("authentication".to_owned(), self.proof()?.into());
        let header = |row: &HeaderRow| {
            let mut header = json!({"name": row.name, "secret": row.is_secret});
            if !(row.is_kept && row.value.is_empty()) {
                header["value"] = json!(row.value);
            }
            header
        };
        settings.insert("headers".to_owned(), self.headers.iter().map(header).collect());
        Ok(settings.into())
    }

    fn proof(&self) -> Result<Map<String, Value>, Faults> {
        let (kind, method) = (self.text("auth"), self.text("method"));
        let mut proof = Map::from_iter([("type".to_owned(), json!(kind))]);
        for (name, field) in PROOF {
            let text = self.text(name);
            // An empty prefix is one, unlike the others.
            let is_given = !text.is_empty() || (name == "prefix" && self.is_set(name));
            if is_given && belongs(kind, method, name) {
                proof.insert(field.to_owned(), json!(text));
            }
        }
        if kind == "jwt" && !self.text("expires").is_empty() {
            proof.insert("expiresInSeconds".to_owned(), number(self.text("expires")));
        }
        let takes_claims = kind == "jwt" || (kind == "oauth2" && method == "jwt_bearer");
        if takes_claims && !self.text("claims").is_empty() {
            let claims = serde_json::from_str::<Map<String, Value>>(self.text("claims"));
            let claims = claims.map_err(|error| vec![("$.authentication.claims".to_owned(), error.to_string())])?;
            proof.insert("claims".to_owned(), claims.into());
        }
        Ok(proof)
    }
}

/// The empty form, or a pointer to the webhook that the sandbox has.
pub async fn new(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let Visit { frame: f, place, .. } = visit;
    let own: Items = console.inside.get(&place, PATH).await.map_err(|refusal| f.trouble(&refusal))?;
    if let Some(item) = own.items.first() {
        return Ok(Redirect::to(&f.to(&format!("webhooks/{}", item.id))).into_response());
    }
    let page = Edit { f, webhook: None, form: Form::new(), faults: Vec::new(), trouble: None, notice: None };
    Ok(show(StatusCode::OK, &page))
}

/// Whether a button was pressed that only changes the form.
fn is_form_only(fields: &Fields) -> bool {
    fields.is_set("add") || fields.is_set("remove")
}

/// Makes a webhook.
pub async fn create(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit: Visit { frame: f, place, .. }, fields } = posted;
    let only = is_form_only(&fields);
    let form = Form::typed(fields);
    let mut page = Edit { f, webhook: None, form, faults: Vec::new(), trouble: None, notice: None };
    if only {
        return Ok(show(StatusCode::OK, &page));
    }
    let made = match page.form.settings() {
        Ok(settings) => console.inside.call(&place, Method::POST, PATH, Some(&settings)).await,
        Err(faults) => {
            page.faults = faults;
            return Ok(show(StatusCode::BAD_REQUEST, &page));
        }
    };
    match made {
        Ok(made) => {
            let secret = made["signingSecret"].as_str().map(str::to_owned);
            let notice = Notice { text: page.f.t("webhook-created"), secret, ..Notice::default() };
            Ok(edit_page(page.f, &made, Some(notice)))
        }
        Err(refusal) => Ok(refused(page, refusal)),
    }
}

/// The form again, with what is wrong with it.
fn refused(mut page: Edit, refusal: Refusal) -> Response {
    match refusal.status {
        StatusCode::BAD_REQUEST => page.faults = refusal.faults,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {}
        _ => return page.f.trouble(&refusal),
    }
    if page.faults.is_empty() {
        page.trouble = Some(refusal.detail);
    }
    show(refusal.status, &page)
}

fn edit_page(f: Frame, webhook: &Value, notice: Option<Notice>) -> Response {
    let item = serde_json::from_value::<Item>(webhook.clone());
    let item = match item {
        Ok(item) => item,
        Err(error) => return f.trouble(&Refusal::internal(error.to_string())),
    };
    let page = Edit { f, webhook: Some(item), form: Form::of(webhook), faults: Vec::new(), trouble: None, notice };
    show(StatusCode::OK, &page)
}

fn path_of(visit: &Visit) -> String {
    let id = visit.parts.get("id").map_or("", String::as_str);
    format!("{PATH}/{}", url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>())
}

/// The form of a webhook.
pub async fn edit(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let path = path_of(&visit);
    let Visit { frame: f, place, .. } = visit;
    let webhook = console.inside.call(&place, Method::GET, &path, None).await.map_err(|refusal| f.trouble(&refusal))?;
    Ok(edit_page(f, &webhook, None))
}

/// Changes a webhook.
pub async fn replace(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let path = path_of(&posted.visit);
    let Posted { visit: Visit { frame: f, place, .. }, fields } = posted;
    let present = console.inside.call(&place, Method::GET, &path, None).await.map_err(|refusal| f.trouble(&refusal))?;
    let webhook = serde_json::from_value::<Item>(present).ok();
    let only = is_form_only(&fields);
    let form = Form::typed(fields);
    let mut page = Edit { f, webhook, form, faults: Vec::new(), trouble: None, notice: None };
    if only {
        return Ok(show(StatusCode::OK, &page));
    }
    let changed = match page.form.settings() {
        Ok(settings) => console.inside.call(&place, Method::PUT, &path, Some(&settings)).await,
        Err(faults) => {
            page.faults = faults;
            return Ok(show(StatusCode::BAD_REQUEST, &page));
        }
    };
    match changed {
        Ok(changed) => {
            let secret = changed["signingSecret"].as_str().map(str::to_owned);
            let notice = Notice { text: page.f.t("webhook-saved"), secret, ..Notice::default() };
            Ok(edit_page(page.f, &changed, Some(notice)))
        }
        Err(refusal) => Ok(refused(page, refusal)),
    }
}

/// The buttons of a webhook: those of the API, and what is said when it is done.
const ACTIONS: [(&str, &str); 8] = [
    ("enable", "webhook-done-enable"),
    ("disable", "webhook-done-disable"),
    ("pause", "webhook-done-pause"),
    ("resume", "webhook-done-resume"),
    ("drain", "webhook-done-drain"),
    ("rotate-secret", "webhook-done-rotate-secret"),
    ("rotate-key", "webhook-done-rotate-key"),
    ("test", "webhook-done-test"),
];

/// Does what a button says.
pub async fn act(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let path = path_of(&posted.visit);
    let action = posted.visit.parts.get("action").cloned().unwrap_or_default();
    let Visit { frame: f, place, .. } = posted.visit;
    if action == "delete" {
        let deleted = console.inside.call(&place, Method::DELETE, &path, None).await;
        deleted.map_err(|refusal| f.trouble(&refusal))?;
        return Ok(Redirect::to(&f.to("webhooks")).into_response());
    }
    let Some((action, said)) = ACTIONS.into_iter().find(|known| known.0 == action) else {
        let status = StatusCode::NOT_FOUND;
        return Err(f.trouble(&Refusal::new(status, "")));
    };
    let done = console.inside.call(&place, Method::POST, &format!("{path}/{action}"), None).await;
    let mut notice = Notice { text: f.t(said), ..Notice::default() };
    match done {
        Ok(answer) if action == "test" => {
            let attempt = serde_json::from_value::<AttemptShown>(answer);
            let attempt = attempt.map_err(|error| f.trouble(&Refusal::internal(error.to_string())))?;
            if !attempt.succeeded {
                (notice.text, notice.is_bad) = (f.t("webhook-test-failed"), true);
            }
            notice.attempt = Some(attempt);
        }
        Ok(answer) => notice.secret = answer["signingSecret"].as_str().map(str::to_owned),
        Err(refusal) if refusal.status == StatusCode::CONFLICT => {
            (notice.text, notice.is_bad) = (refusal.detail, true);
        }
        Err(refusal) => return Err(f.trouble(&refusal)),
    }
    let webhook = console.inside.call(&place, Method::GET, &path, None).await.map_err(|refusal| f.trouble(&refusal))?;
    Ok(edit_page(f, &webhook, Some(notice)))
}
