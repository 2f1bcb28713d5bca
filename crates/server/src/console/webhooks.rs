//! Administration / Channels / Feedback webhook settings: the inventory of an organization's webhooks, and the form that
//! makes and changes one.

use super::Console;
use super::form::{Form, fields_of, number};
use super::inside::{Attempt, List, Place, Refusal};
use super::page::{EVENTS, Fields, Frame, Posted, Visit, place_path, show};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use model::clock::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const PATH: &str = "/v1/feedback-webhooks";

/// A webhook as the API shows it, as far as the inventory does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub id: String,
    pub name: String,
    pub url: String,
    pub sandbox: SandboxName,
    pub channels: Vec<String>,
    pub authentication: Proof,
    pub signing: String,
    pub state: String,
    pub state_reason: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct SandboxName {
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Proof {
    #[serde(rename = "type")]
    kind: String,
    algorithm: Option<String>,
    method: Option<String>,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct Inventory {
    f: Frame,
    list: List<Row>,
    /// The sandbox has one already.
    own: Option<Item>,
}

impl Item {
    /// Where it is edited.
    pub fn edit_path(&self, f: &Frame) -> String {
        let organization = f.tenant.as_ref().map_or("", |tenant| &tenant.organization);
        place_path(organization, &self.sandbox.name, &format!("webhooks/{}", self.id))
    }
}

/// A webhook with how it has been doing for a day.
struct Row {
    item: Item,
    day: Day,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Day {
    last_success_at: Option<Timestamp>,
    attempts: Attempts,
}

#[derive(Debug, Deserialize)]
struct Attempts {
    failed: u64,
}

/// The webhooks whose statistics are read at once.
const AT_ONCE: usize = 4;

async fn day_of(console: &Console, visit: &Visit, item: &Item) -> Result<Day, Refusal> {
    let place = Place { sandbox: item.sandbox.name.clone(), ..visit.place.clone() };
    console.inside.get(&place, &format!("{PATH}/{}/statistics?window=24h", item.id)).await
}

/// The webhook of the sandbox.
async fn own(console: &Console, visit: &Visit) -> Result<Option<Item>, Response> {
    Ok(visit.get::<List<Item>>(console, PATH).await?.items.into_iter().next())
}

/// The inventory: all webhooks of the organization that the key may see.
pub async fn inventory(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let path = format!("{PATH}?allSandboxes=true&{}", visit.frame.list_query());
    let List { items, next } = visit.get::<List<Item>>(&console, &path).await?;
    let own = own(&console, &visit).await?;
    let mut list = List { items: Vec::with_capacity(items.len()), next };
    let asked: Vec<_> = items.iter().map(|item| day_of(&console, &visit, item)).collect();
    let days: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    for (item, day) in items.into_iter().zip(days) {
        match day {
            Ok(day) => list.items.push(Row { item, day }),
            // Deleted meanwhile.
            Err(refusal) if refusal.status == StatusCode::NOT_FOUND => {}
            Err(refusal) => return Err(visit.frame.trouble(&refusal)),
        }
    }
    Ok(show(StatusCode::OK, &Inventory { f: visit.frame, list, own }))
}

#[derive(Template)]
#[template(path = "webhook-edit.html")]
struct Edit {
    f: Frame,
    /// None: it is to be made.
    webhook: Option<Item>,
    form: Form,
    headers: Vec<HeaderRow>,
    notice: Option<Notice>,
}

/// What has just come of an action.
#[derive(Clone, Debug, Default)]
struct Notice {
    text: String,
    is_bad: bool,
    /// Shown this once.
    secret: Option<String>,
    attempt: Option<Attempt>,
}

impl Notice {
    /// What is said, with the secret that the API's answer shows this once.
    fn of(text: String, answer: &Value) -> Self {
        Self { text, secret: answer["signingSecret"].as_str().map(str::to_owned), ..Self::default() }
    }
}

impl Edit {
    fn action(&self) -> String {
        match &self.webhook {
            Some(webhook) => self.f.to(&format!("webhooks/{}", webhook.id)),
            None => self.f.to("webhooks"),
        }
    }

    fn act(&self, action: &str) -> String {
        format!("{}/{action}", self.action())
    }

    fn algorithms(&self) -> [&'static str; 7] {
        ["ES256", "EdDSA", "RS256", "PS256", "HS256", "HS384", "HS512"]
    }

    fn events(&self) -> [&'static str; 7] {
        EVENTS
    }

    fn header_fault(&self, place: &usize) -> Option<&str> {
        self.form.fault(&format!("$.headers[{place}]*"))
    }

    /// Rows for headers that are not there yet.
    fn empty_rows(&self) -> std::ops::Range<usize> {
        let first = self.headers.len();
        first..first + if self.form.is_set("add") { 2 } else { 1 }
    }

    /// Whether there may be a key pair of Esito's own making.
    fn has_key_pair(&self, item: &Item) -> bool {
        let proof = &item.authentication;
        let is_signed = proof.kind == "jwt" || proof.method.as_deref() == Some("jwt_bearer");
        is_signed && proof.algorithm.as_ref().is_some_and(|name| !name.starts_with("HS"))
    }
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

/// Which fields a type of authentication has.
fn belongs(kind: &str, method: &str, name: &str) -> bool {
    match name {
        "token-url" | "client-id" | "scope" | "method" => kind == "oauth2",
        "client-secret" => kind == "oauth2" && method != "jwt_bearer",
        "secret" | "header" | "prefix" | "expires" => kind == "jwt",
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

/// The form of a webhook as the API shows it, with its headers.
fn form_of(webhook: &Value) -> (Form, Vec<HeaderRow>) {
    let proof = &webhook["authentication"];
    let number_of = |group: &str, field: &str| if group.is_empty() { &webhook[field] } else { &webhook[group][field] };
    let ticked = |name, list: &str| webhook[list].as_array().into_iter().flatten().map(move |value| (name, value));
    let values = ["name", "url", "payload", "signing"].map(|name| (name, &webhook[name]));
    let values = values.into_iter().chain([("auth", &proof["type"]), ("expires", &proof["expiresInSeconds"])]);
    let values = values.chain(PROOF.map(|(name, field)| (name, &proof[field])));
    let values = values.chain(NUMBERS.map(|(name, group, field)| (name, number_of(group, field))));
    let mut fields = fields_of(values.chain(ticked("channel", "channels")).chain(ticked("event", "events")));
    if let Some(claims) = proof["claims"].as_object().filter(|claims| !claims.is_empty()) {
        fields.push(("claims".to_owned(), serde_json::to_string_pretty(claims).unwrap_or_default()));
    }
    let secrets = PROOF.iter().filter(|(_, field)| proof[*field]["set"] == true);
    fields.extend(secrets.map(|(name, _)| (format!("{name}-is-set"), "yes".to_owned())));
    if webhook["enabled"] == true {
        fields.push(("enabled".to_owned(), "yes".to_owned()));
    }
    let headers = webhook["headers"].as_array().into_iter().flatten().map(|header| HeaderRow {
        name: header["name"].as_str().unwrap_or_default().to_owned(),
        value: header["value"].as_str().unwrap_or_default().to_owned(),
        is_secret: header["secret"] == true,
        is_kept: header["value"]["set"] == true,
    });
    (Fields(fields).into(), headers.collect())
}

/// The headers as they were typed. Their rows are told apart by a number: `header-name-3`.
fn typed_headers(fields: &Fields) -> Vec<HeaderRow> {
    let row = |n: &str| {
        let text = |part: &str| fields.text(&format!("header-{part}-{n}")).to_owned();
        HeaderRow {
            name: text("name"),
            value: text("value"),
            is_secret: fields.is_set(&format!("header-secret-{n}")),
            is_kept: fields.is_set(&format!("header-kept-{n}")),
        }
    };
    let rows = fields.0.iter().filter_map(|field| field.0.strip_prefix("header-name-"));
    let rows = rows.filter(|n| *n != fields.text("remove")).map(row);
    rows.filter(|row| !row.name.is_empty() || !row.value.is_empty()).collect()
}

/// The settings as the API takes them; or the field that cannot be one of them, and why.
fn settings_of(form: &Form, headers: &[HeaderRow]) -> Result<Value, (String, String)> {
    let mut settings = Map::new();
    for name in ["name", "url", "payload", "signing"] {
        settings.insert(name.to_owned(), json!(form.text(name)));
    }
    settings.insert("channels".to_owned(), form.fields.all("channel").collect());
    settings.insert("events".to_owned(), form.fields.all("event").collect());
    settings.insert("enabled".to_owned(), json!(form.is_set("enabled")));
    let mut retry = Map::new();
    for (name, group, field) in NUMBERS {
        if !form.text(name).is_empty() {
            let into = if group.is_empty() { &mut settings } else { &mut retry };
            into.insert(field.to_owned(), number(form.text(name)));
        }
    }
    settings.insert("retry".to_owned(), retry.into());
    settings.insert("authentication".to_owned(), proof_of(form)?.into());
    let header = |row: &HeaderRow| {
        let mut header = json!({"name": row.name, "secret": row.is_secret});
        if !(row.is_kept && row.value.is_empty()) {
            header["value"] = json!(row.value);
        }
        header
    };
    settings.insert("headers".to_owned(), headers.iter().map(header).collect());
    Ok(settings.into())
}

fn proof_of(form: &Form) -> Result<Map<String, Value>, (String, String)> {
    let (kind, method) = (form.text("auth"), form.text("method"));
    let mut proof = Map::from_iter([("type".to_owned(), json!(kind))]);
    for (name, field) in PROOF {
        let text = form.text(name);
        // An empty prefix is one, unlike the others.
        let is_given = !text.is_empty() || (name == "prefix" && form.is_set(name));
        if is_given && belongs(kind, method, name) {
            proof.insert(field.to_owned(), json!(text));
        }
    }
    if belongs(kind, method, "expires") && !form.text("expires").is_empty() {
        proof.insert("expiresInSeconds".to_owned(), number(form.text("expires")));
    }
    if belongs(kind, method, "claims") && !form.text("claims").is_empty() {
        let claims = serde_json::from_str::<Map<String, Value>>(form.text("claims"));
        let claims = claims.map_err(|error| ("$.authentication.claims".to_owned(), error.to_string()))?;
        proof.insert("claims".to_owned(), claims.into());
    }
    Ok(proof)
}

/// The empty form, or a pointer to the webhook that the sandbox has.
pub async fn new(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    if let Some(own) = own(&console, &visit).await? {
        return Ok(Redirect::to(&visit.frame.to(&format!("webhooks/{}", own.id))).into_response());
    }
    // What a new webhook has at first.
    let (form, headers) = form_of(&json!({
        "channels": ["email"], "payload": "standard", "signing": "v1", "enabled": true,
        "authentication": {"type": "none", "algorithm": "ES256", "expiresInSeconds": 300, "prefix": "Bearer"},
        "events": EVENTS[..6], "timeoutSeconds": 15, "maxConcurrency": 64,
        "retry": {"firstDelaySeconds": 5, "maxDelaySeconds": 3600, "giveUpAfterSeconds": 259_200},
    }));
    Ok(show(StatusCode::OK, &Edit { f: visit.frame, webhook: None, form, headers, notice: None }))
}

/// Makes a webhook.
pub async fn create(State(console): State<Arc<Console>>, posted: Posted) -> Response {
    save(&console, posted, Method::POST, PATH, None, "webhook-created").await
}

/// Changes a webhook.
pub async fn replace(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let path = posted.visit.resource(PATH);
    let present: Item = posted.visit.get(&console, &path).await?;
    Ok(save(&console, posted, Method::PUT, &path, Some(present), "webhook-saved").await)
}

/// Has a form stored, and says so, or says what is wrong with it. Some buttons only change the form.
async fn save(
    console: &Console,
    posted: Posted,
    method: Method,
    path: &str,
    webhook: Option<Item>,
    said: &str,
) -> Response {
    let Posted { visit, fields } = posted;
    let (headers, form) = (typed_headers(&fields), Form::from(fields));
    let again = |f, status, form, headers| show(status, &Edit { f, webhook, form, headers, notice: None });
    if form.is_set("add") || form.is_set("remove") {
        return again(visit.frame, StatusCode::OK, form, headers);
    }
    let stored = match settings_of(&form, &headers) {
        Ok(settings) => visit.call(console, method, path, Some(&settings)).await,
        Err(fault) => {
            let form = form.at_fault(&visit.frame, vec![fault]);
            return again(visit.frame, StatusCode::BAD_REQUEST, form, headers);
        }
    };
    match stored {
        Ok(stored) => {
            let notice = Notice::of(visit.frame.t(said), &stored);
            page_of(visit.frame, &stored, Some(notice))
        }
        Err(refusal) => match form.refused(&visit.frame, refusal) {
            Ok((status, form)) => again(visit.frame, status, form, headers),
            Err(trouble) => trouble,
        },
    }
}

fn page_of(f: Frame, webhook: &Value, notice: Option<Notice>) -> Response {
    let (form, headers) = form_of(webhook);
    match Item::deserialize(webhook) {
        Ok(item) => show(StatusCode::OK, &Edit { f, webhook: Some(item), form, headers, notice }),
        Err(error) => f.trouble(&Refusal::internal(error.to_string())),
    }
}

/// The form of a webhook.
pub async fn edit(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let webhook: Value = visit.get(&console, &visit.resource(PATH)).await?;
    Ok(page_of(visit.frame, &webhook, None))
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
    let visit = posted.visit;
    let notice = match visit.act(&console, PATH, &ACTIONS).await {
        Ok(None) => return Ok(Redirect::to(&visit.frame.to("webhooks")).into_response()),
        Ok(Some((said, answer))) if visit.part("action") == "test" => {
            let attempt = Attempt::deserialize(answer);
            let attempt = attempt.map_err(|error| visit.frame.trouble(&Refusal::internal(error.to_string())))?;
            let said = if attempt.succeeded { said } else { "webhook-test-failed" };
            let (text, is_bad) = (visit.frame.t(said), !attempt.succeeded);
            Notice { text, is_bad, attempt: Some(attempt), secret: None }
        }
        Ok(Some((said, answer))) => Notice::of(visit.frame.t(said), &answer),
        Err(refusal) if refusal.status == StatusCode::CONFLICT => {
            Notice { text: visit.frame.said(refusal.detail), is_bad: true, ..Notice::default() }
        }
        Err(refusal) => return Err(visit.frame.trouble(&refusal)),
    };
    let webhook: Value = visit.get(&console, &visit.resource(PATH)).await?;
    Ok(page_of(visit.frame, &webhook, Some(notice)))
}
