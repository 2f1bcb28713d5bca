//! What all pages have in common: who looks, where, in which language, and the frame around the contents.

use super::inside::{List, Place, Refusal};
use super::language::Language;
use super::said;
use super::session::{Session, cookie_of};
use super::{Console, assets};
use crate::api::auth::{Caller, InOrganization, Reads};
use crate::api::problem::Problem;
use askama::Template;
use axum::Form;
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use fluent_bundle::FluentValue;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use model::clock::Timestamp;
use model::tenancy::{DEFAULT_SANDBOX, Role};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

/// The pages that the frame leads to: the end of the path, the key of the name, and the key of the group that begins there.
pub const NAVIGATION: [(&str, &str, Option<&str>); 13] = [
    ("overview", "overview-title", None),
    ("live", "live-title", None),
    ("campaigns", "campaigns-title", Some("group-messages")),
    ("executions", "executions-title", None),
    ("messages", "messages-title", None),
    ("feedback-events", "feedback-events-title", None),
    ("deliveries", "deliveries-title", None),
    ("replays", "replays-title", None),
    ("webhooks", "webhooks-title", Some("group-administration-channels")),
    ("channels", "channels-title", None),
    ("keys", "keys-title", Some("group-administration")),
    ("audit-log", "audit-title", None),
    ("settings", "settings-title", None),
];

/// The page that the console begins with.
const FIRST: &str = "overview";

const LANGUAGE: &str = "esito-language";
const THEME: &str = "esito-theme";
/// The statuses of feedback events; a webhook gets the last one where it asks for it.
pub const EVENTS: [&str; 7] = ["sent", "delivered", "bounce", "error", "exclude", "denylist", "delay"];
/// The items of a list's page.
pub const ITEMS: &str = "50";
/// Preferences are kept for a year.
const KEPT_SECONDS: u32 = 365 * 86_400;

/// How a visitor wants pages to be.
#[derive(Clone, Copy, Debug)]
pub struct Taste {
    pub language: Language,
    /// `light` or `dark`; none: as the browser is set.
    pub theme: Option<&'static str>,
}

impl Taste {
    /// What the cookies say, else what the browser accepts.
    pub fn of(headers: &HeaderMap) -> Self {
        let accepted = || {
            let header = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
            Language::accepted(header.unwrap_or_default())
        };
        let chosen = cookie_of(headers, LANGUAGE).and_then(Language::parse);
        let theme = cookie_of(headers, THEME);
        Self {
            language: chosen.unwrap_or_else(accepted),
            theme: ["light", "dark"].into_iter().find(|name| theme == Some(name)),
        }
    }
}

/// The frame of a page: what its template asks for.
#[derive(Clone, Debug)]
pub struct Frame {
    pub taste: Taste,
    pub now: Timestamp,
    /// Where this page is, for forms that come back to it.
    pub path: String,
    /// None: nobody is signed in.
    pub tenant: Option<Tenant>,
    /// What forms carry.
    pub token: String,
}

/// Who is signed in, and where.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub organization: String,
    pub sandbox: String,
    /// Those that the key may see, the first 200 of them.
    pub sandboxes: Vec<String>,
    /// The other organizations, for a key that may act in them, the first 200.
    pub organizations: Vec<String>,
    pub key_name: String,
    pub role: Role,
}

impl Frame {
    /// The text of a key.
    pub fn t(&self, key: &str) -> String {
        self.taste.language.text(key)
    }

    /// The text of a key that ends with a value: a state, a role.
    pub fn tk(&self, prefix: &str, value: &str) -> String {
        self.t(&format!("{prefix}{value}"))
    }

    /// The text of a key with a number in it, `n`.
    pub fn tn(&self, key: &str, n: &u64) -> String {
        self.taste.language.text_with(key, &[("n", FluentValue::from(*n))])
    }

    /// The text of a key with another text in it, `x`.
    pub fn tx(&self, key: &str, x: impl AsRef<str>) -> String {
        self.taste.language.text_with(key, &[("x", FluentValue::from(x.as_ref().to_owned()))])
    }

    /// What the API says, in the visitor's language.
    pub fn said(&self, english: impl AsRef<str>) -> String {
        said::said(self.taste.language, english.as_ref())
    }

    pub fn asset(&self, name: &str) -> String {
        assets::path(name)
    }

    pub fn language(&self) -> &'static str {
        self.taste.language.code()
    }

    pub fn languages(&self) -> [Language; 2] {
        Language::ALL
    }

    /// The path of a page of this sandbox.
    pub fn to(&self, end: &str) -> String {
        match &self.tenant {
            Some(tenant) => place_path(&tenant.organization, &tenant.sandbox, end),
            None => "/".to_owned(),
        }
    }

    /// The same page in another sandbox.
    pub fn in_sandbox(&self, sandbox: &str) -> String {
        let end = NAVIGATION.iter().map(|(end, ..)| *end).find(|end| self.is_at(end)).unwrap_or(FIRST);
        match &self.tenant {
            Some(tenant) => place_path(&tenant.organization, sandbox, end),
            None => "/".to_owned(),
        }
    }

    /// Whether this page is that one, or below it.
    pub fn is_at(&self, end: &str) -> bool {
        self.path.strip_prefix(&self.to(end)).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// The pages that the visitor may see.
    pub fn navigation(&self) -> impl Iterator<Item = &'static (&'static str, &'static str, Option<&'static str>)> {
        let is_admin = self.tenant.as_ref().is_some_and(|tenant| tenant.role == Role::Admin);
        NAVIGATION.iter().filter(move |(end, ..)| is_admin || *end != "keys")
    }

    /// What this page was asked for, as it came.
    pub fn query(&self) -> &str {
        query_of(&self.path)
    }

    /// The query of this page's list for the API, from the cursor on that this page was asked for.
    pub fn list_query(&self) -> String {
        let mut asked = url::form_urlencoded::Serializer::new(String::new());
        asked.append_pair("limit", ITEMS);
        if let Some((_, cursor)) =
            url::form_urlencoded::parse(self.query().as_bytes()).find(|(name, _)| name == "cursor")
        {
            asked.append_pair("cursor", &cursor);
        }
        asked.finish()
    }

    /// The look of a state, of whatever it is one.
    pub fn tone(&self, state: &str) -> &'static str {
        match state {
            "active" | "live" | "valid" | "sent" | "delivered" | "succeeded" | "completed" => "good",
            "failing" | "bounce" | "bounced" | "error" | "failed" | "exhausted" => "bad",
            "paused" | "draft" | "exclude" | "excluded" | "denylist" | "denylisted" | "delay" | "held" => "warn",
            _ => "wait",
        }
    }

    /// Whether the visitor may change what a sandbox has.
    pub fn may_edit(&self) -> bool {
        self.tenant.as_ref().is_some_and(|tenant| matches!(tenant.role, Role::Admin | Role::Operator))
    }

    /// How long ago a moment was, for people.
    pub fn ago(&self, at: &Timestamp) -> String {
        let seconds = u64::try_from((self.now.millis() - at.millis()) / 1_000).unwrap_or(0);
        match seconds {
            0..60 => self.tn("time-seconds-ago", &seconds),
            60..3_600 => self.tn("time-minutes-ago", &(seconds / 60)),
            3_600..172_800 => self.tn("time-hours-ago", &(seconds / 3_600)),
            _ => self.tn("time-days-ago", &(seconds / 86_400)),
        }
    }

    /// How long until a moment, for people.
    pub fn until(&self, at: &Timestamp) -> String {
        let seconds = u64::try_from((at.millis() - self.now.millis() + 999) / 1_000).unwrap_or(0);
        match seconds {
            0 => self.t("time-now"),
            1..60 => self.tn("time-in-seconds", &seconds),
            60..3_600 => self.tn("time-in-minutes", &(seconds / 60)),
            3_600..172_800 => self.tn("time-in-hours", &(seconds / 3_600)),
            _ => self.tn("time-in-days", &(seconds / 86_400)),
        }
    }

    /// How long ago a moment was, or how long until it is.
    pub fn relative(&self, at: &Timestamp) -> String {
        if *at > self.now { self.until(at) } else { self.ago(at) }
    }

    /// A number as the language writes it.
    pub fn number(&self, n: impl Borrow<u64>) -> String {
        grouped(*n.borrow(), self.taste.language.group_mark())
    }

    /// How long something took, from milliseconds.
    pub fn lasting(&self, ms: &u64) -> String {
        match *ms {
            0..10_000 => format!("{} ms", self.number(ms)),
            10_000..600_000 => format!("{} s", self.number(ms / 1_000)),
            600_000..36_000_000 => format!("{} min", self.number(ms / 60_000)),
            _ => format!("{} h", self.number(ms / 3_600_000)),
        }
    }

    /// Hundredths as a number with two places.
    pub fn decimal(&self, hundredths: &u64) -> String {
        let mark = self.taste.language.decimal_mark();
        format!("{}{mark}{:02}", self.number(hundredths / 100), hundredths % 100)
    }

    /// The time of a moment, and the day where it was another one. In UTC.
    pub fn clock(&self, at: &Timestamp) -> String {
        let (text, today) = (at.to_string(), self.now.to_string());
        match (text.split_once('T'), today.split_once('T')) {
            (Some((day, time)), Some((this, _))) if day == this => time.trim_end_matches('Z').to_owned(),
            (Some((day, time)), _) => format!("{day} {}", time.trim_end_matches('Z')),
            _ => text,
        }
    }
}

/// A number with a mark before each three digits.
fn grouped(n: u64, mark: char) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(mark);
        }
        grouped.push(digit);
    }
    grouped
}

/// The query of a path.
pub fn query_of(path: &str) -> &str {
    path.split_once('?').map_or("", |(_, query)| query)
}

/// A text as a part of a path or a query.
pub fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The path of a page of a sandbox.
pub fn place_path(organization: &str, sandbox: &str, end: &str) -> String {
    // Both are of letters, digits and . _ - @, which a path has as they are.
    format!("/o/{organization}/{sandbox}/{end}")
}

/// A page as an answer.
pub fn show(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A page that says what is in the way.
#[derive(Template)]
#[template(path = "trouble.html")]
struct Trouble {
    f: Frame,
    status: u16,
    title: String,
    detail: String,
}

impl Frame {
    /// The frame of a page for whoever it is.
    pub fn alone(console: &Console, headers: &HeaderMap, path: &str) -> Self {
        let (taste, now) = (Taste::of(headers), console.clock.now());
        Self { taste, now, path: path.to_owned(), tenant: None, token: String::new() }
    }

    /// The page for what the API refused.
    pub fn trouble(&self, refusal: &Refusal) -> Response {
        let key = match refusal.status {
            StatusCode::FORBIDDEN => "error-forbidden",
            StatusCode::NOT_FOUND => "error-not-found",
            StatusCode::SERVICE_UNAVAILABLE => "error-unavailable",
            _ if refusal.is_overtaken => "error-changed",
            StatusCode::CONFLICT => "error-conflict",
            _ => "error-other",
        };
        let (f, title) = (self.clone(), self.t(key));
        let page = Trouble { f, status: refusal.status.as_u16(), title, detail: self.said(&refusal.detail) };
        show(refusal.status, &page)
    }
}

/// A visit to a page of a sandbox by somebody who is signed in.
pub struct Visit {
    pub frame: Frame,
    pub place: Place,
    /// The further parts of the path.
    pub parts: HashMap<String, String>,
    pub session: Session,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Visit {
    /// A further part of the path.
    pub fn part(&self, name: &str) -> &str {
        self.parts.get(name).map_or("", String::as_str)
    }

    /// The API's path of what this page is about, among those of `all`.
    pub fn resource(&self, all: &str) -> String {
        format!("{all}/{}", encoded(self.part("id")))
    }

    /// Reads something; what is refused is a page that says so.
    pub async fn get<T: DeserializeOwned>(&self, console: &Console, path: &str) -> Result<T, Response> {
        console.inside.get(&self.place, path).await.map_err(|refusal| self.frame.trouble(&refusal))
    }

    /// Calls the API to change something.
    pub async fn call(
        &self,
        console: &Console,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        console.inside.call(&self.place, method, path, body).await
    }

    /// Does what a button of a resource says: one of `actions`, each with the key of what is said when it is done, which is
    /// returned with the API's answer; or deletes it, and nothing is.
    pub async fn act<'a>(
        &self,
        console: &Console,
        all: &str,
        actions: &[(&str, &'a str)],
    ) -> Result<Option<(&'a str, Value)>, Refusal> {
        let (path, action) = (self.resource(all), self.part("action"));
        if action == "delete" {
            return self.call(console, Method::DELETE, &path, None).await.map(|_| None);
        }
        let known = actions.iter().find(|known| known.0 == action);
        let (_, said) = known.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, ""))?;
        let done = self.call(console, Method::POST, &format!("{path}/{action}"), None).await;
        done.map(|answer| Some((*said, answer)))
    }
}

/// The caller whose session this is; whoever has none is sent to sign in, and comes back.
async fn caller_of(console: &Console, headers: &HeaderMap, path: &str) -> Result<(Session, Caller), Response> {
    let to_sign_in = || Redirect::to(&format!("/sign-in?next={}", encoded(path))).into_response();
    let session = console.sessions.of(headers, console.clock.now()).ok_or_else(to_sign_in)?;
    match Caller::of_id(&console.api, session.key).await {
        Ok(caller) => Ok((session, caller)),
        Err(Problem::Unauthenticated(_)) => Err(to_sign_in()),
        // Signing in would not help while the store is away.
        Err(problem) => Err(Frame::alone(console, headers, path).trouble(&problem.into())),
    }
}

/// The sandboxes of a place's organization that the key may see.
async fn sandboxes_of(console: &Console, place: &Place) -> Result<Vec<String>, Refusal> {
    let sandboxes = console.inside.get::<List<Named>>(place, "/v1/sandboxes?limit=200").await?;
    Ok(sandboxes.items.into_iter().map(|sandbox| sandbox.name).collect())
}

#[derive(Deserialize)]
struct Organization {
    id: String,
}

async fn other_organizations(console: &Console, place: &Place) -> Result<Vec<String>, Refusal> {
    if !place.caller.crosses_organizations() {
        return Ok(Vec::new());
    }
    let all = console.inside.get::<List<Organization>>(place, "/v1/organizations?limit=200").await?;
    Ok(all.items.into_iter().map(|one| one.id).filter(|id| *id != place.organization).collect())
}

impl FromRequestParts<Arc<Console>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let back = if parts.method == Method::GET { &*path } else { "/" };
        let (session, caller) = caller_of(console, &parts.headers, back).await?;
        let named = Path::<HashMap<String, String>>::from_request_parts(parts, console).await;
        let Path(named) = named.map_err(IntoResponse::into_response)?;
        let part = |name: &str| named.get(name).cloned().unwrap_or_default();
        let (organization, sandbox) = (part("organization"), part("sandbox"));
        let token = console.sessions.form_token(&session);
        let mut frame = Frame { token, ..Frame::alone(console, &parts.headers, &path) };
        let entered = InOrganization::<Reads>::enter(caller.clone(), Some(&organization));
        let entered = match entered {
            Ok(organization) => organization.sandbox(&console.api, &sandbox).await,
            Err(problem) => Err(problem),
        };
        entered.map_err(|problem| frame.trouble(&problem.into()))?;
        let place = Place { caller, organization, sandbox };
        let sandboxes = sandboxes_of(console, &place).await.map_err(|refusal| frame.trouble(&refusal))?;
        let organizations = other_organizations(console, &place).await;
        let organizations = organizations.map_err(|refusal| frame.trouble(&refusal))?;
        frame.tenant = Some(Tenant {
            organization: place.organization.clone(),
            sandbox: place.sandbox.clone(),
            sandboxes,
            organizations,
            key_name: place.caller.key.name.clone(),
            role: place.caller.key.role,
        });
        Ok(Self { frame, place, parts: named, session })
    }
}

/// The fields of a form, in order; a name may be there several times.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The value of a field, without space around it; empty where it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|field| field.0 == name).map_or("", |field| field.1.trim())
    }

    /// All values of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |field| field.0 == name).map(|field| field.1.as_str())
    }

    /// Whether a box is ticked.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.iter().any(|field| field.0 == name)
    }
}

/// A form that was sent from a page of the visitor's own session.
pub struct Posted {
    pub visit: Visit,
    pub fields: Fields,
}

/// Whether a browser says that another site has sent this (Fetch Metadata).
pub fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none")
}

impl FromRequest<Arc<Console>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, console).await?;
        let is_from_elsewhere = is_from_elsewhere(&parts.headers);
        let form = Form::<Vec<(String, String)>>::from_request(Request::from_parts(parts, body), console).await;
        let fields = Fields(form.map_err(IntoResponse::into_response)?.0);
        if is_from_elsewhere || !console.sessions.owns(&visit.session, fields.text("token")) {
            let (status, detail) = (StatusCode::FORBIDDEN, visit.frame.t("error-foreign-form"));
            return Err(visit.frame.trouble(&Refusal::new(status, detail)));
        }
        Ok(Self { visit, fields })
    }
}

/// Leads to the first page that the key may see.
pub async fn home(State(console): State<Arc<Console>>, headers: HeaderMap) -> Result<Redirect, Response> {
    let (_, caller) = caller_of(&console, &headers, "/").await?;
    let sandbox = caller.key.sandboxes.as_ref().and_then(|names| names.first()).map_or(DEFAULT_SANDBOX, String::as_str);
    Ok(Redirect::to(&place_path(&caller.key.ims_org, sandbox, FIRST)))
}

/// Leads to the first sandbox of an organization.
pub async fn organization(
    State(console): State<Arc<Console>>,
    Path(organization): Path<String>,
    headers: HeaderMap,
) -> Result<Redirect, Response> {
    let (_, caller) = caller_of(&console, &headers, "/").await?;
    let place = Place { caller, organization, sandbox: DEFAULT_SANDBOX.to_owned() };
    let sandboxes = sandboxes_of(&console, &place).await;
    let sandboxes = sandboxes.map_err(|refusal| Frame::alone(&console, &headers, "/").trouble(&refusal))?;
    let own = place.caller.key.sandboxes.as_ref().and_then(|names| names.first());
    let first = own.or(sandboxes.first()).map_or(DEFAULT_SANDBOX, String::as_str);
    Ok(Redirect::to(&place_path(&place.organization, first, FIRST)))
}

/// The language and theme of whoever asks: his own business, so nobody need be signed in.
pub async fn set_preferences(headers: HeaderMap, Form(fields): Form<Vec<(String, String)>>) -> Response {
    let fields = Fields(fields);
    if is_from_elsewhere(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut response = Redirect::to(local(fields.text("back"))).into_response();
    let set = |name: &str, value: &str| {
        HeaderValue::from_str(&format!("{name}={value}; Path=/; Max-Age={KEPT_SECONDS}; SameSite=Strict"))
    };
    let language = Language::parse(fields.text("language")).map(|language| (LANGUAGE, language.code()));
    let theme = ["light", "dark", "auto"].into_iter().find(|name| *name == fields.text("theme"));
    for (name, value) in language.into_iter().chain(theme.map(|theme| (THEME, theme))) {
        if let Ok(cookie) = set(name, value) {
            response.headers_mut().append::<HeaderName>(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// A path of this console, or the beginning of it where it is none: nobody is led elsewhere.
pub fn local(path: &str) -> &str {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if path.starts_with('/') && !path.starts_with("//") && is_plain { path } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let all = [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567"), (100_000, "100,000")];
        for (n, text) in all {
            assert_eq!(grouped(n, ','), text);
        }
    }

    #[test]
    fn nobody_is_led_elsewhere() {
        for path in ["//evil.example", "https://evil.example", "/\\evil.example", "", "/a b", "/a\nb", "javascript:x"] {
            assert_eq!(local(path), "/", "{path}");
        }
        assert_eq!(local("/o/a@b/prod/webhooks?x=1"), "/o/a@b/prod/webhooks?x=1");
    }
}
