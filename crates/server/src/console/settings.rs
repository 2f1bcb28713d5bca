//! Settings: the organization's name and how long it keeps what it has, its sandboxes, and this server.

use super::Console;
use super::asked::Asked;
use super::form::{Form, fields_of, number};
use super::inside::List;
use super::page::{Fields, Frame, Posted, Visit, encoded, place_path, show};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::{Method, StatusCode};
use model::clock::Timestamp;
use model::retention::{Retention, RetentionOverride};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const SANDBOXES: &str = "/v1/sandboxes";

/// What is kept: the form's field and the API's, and the key of its text.
const KEPT: [(&str, &str, &str); 3] = [
    ("events-days", "eventsDays", "settings-events-days"),
    ("attempts-days", "attemptsDays", "settings-attempts-days"),
    ("audit-days", "auditLogDays", "settings-audit-days"),
];

/// An organization as the API shows it.
#[derive(Debug, Deserialize)]
struct Organization {
    id: String,
    name: String,
    retention: RetentionOverride,
}

/// A sandbox as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sandbox {
    id: String,
    name: String,
    created_at: Timestamp,
    created_by: String,
}

/// How long something is kept.
struct Kept {
    field: &'static str,
    path: String,
    label: &'static str,
    /// What the organization has; none: what the operator sets.
    own: Option<u64>,
    general: u64,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct Page {
    f: Frame,
    organization: Organization,
    kept: Vec<Kept>,
    list: List<Sandbox>,
    /// Whether the API takes such a change from this key.
    may_change: bool,
    may_make_sandboxes: bool,
    form: Form,
    /// Of a new sandbox.
    sandbox: Form,
    notice: Option<String>,
    version: &'static str,
    public_url: String,
}

impl Page {
    fn days(&self, kept: &Kept) -> String {
        match kept.own {
            Some(own) => self.f.tn("settings-days", &own),
            None => self.f.tn("settings-days-as-server", &kept.general),
        }
    }

    fn sandbox_path(&self, sandbox: &Sandbox) -> String {
        place_path(&self.organization.id, &sandbox.name, "overview")
    }

    /// What is wrong with the name of a new sandbox: as a name, or because it is taken.
    fn sandbox_fault(&self) -> Option<&str> {
        self.sandbox.fault("$.name").or(self.sandbox.trouble.as_deref())
    }
}

/// The days of each of [`KEPT`].
fn days(own: RetentionOverride, general: Retention) -> Vec<Kept> {
    let own = [own.events_days, own.attempts_days, own.audit_log_days];
    let general = [general.events_days, general.attempts_days, general.audit_log_days];
    let each = KEPT.iter().zip(own.into_iter().zip(general));
    let kept = each.map(|((field, name, label), (own, general))| Kept {
        field,
        path: format!("$.retention.{name}"),
        label,
        own: own.map(u64::from),
        general: general.into(),
    });
    kept.collect()
}

fn path_of(visit: &Visit) -> String {
    format!("/v1/organizations/{}", encoded(&visit.place.organization))
}

/// The page with what is stored in its forms.
async fn stored(console: &Console, visit: Visit) -> Result<Page, Response> {
    let organization: Organization = visit.get(console, &path_of(&visit)).await?;
    let list = visit.get(console, &format!("{SANDBOXES}?{}", visit.frame.list_query())).await?;
    let kept = days(organization.retention, console.retention);
    let values: Vec<(&str, Value)> = kept.iter().map(|kept| (kept.field, json!(kept.own))).collect();
    let name = json!(organization.name);
    let fields = fields_of(values.iter().map(|(name, value)| (*name, value)).chain([("name", &name)]));
    let (caller, f) = (&visit.place.caller, visit.frame);
    Ok(Page {
        organization,
        kept,
        list,
        may_change: caller.crosses_organizations(),
        may_make_sandboxes: f.may_edit() && caller.key.sandboxes.is_none(),
        form: Fields(fields).into(),
        sandbox: Form::default(),
        notice: None,
        version: env!("CARGO_PKG_VERSION"),
        public_url: console.public_url.clone(),
        f,
    })
}

/// The settings.
pub async fn page(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let mut page = stored(&console, visit).await?;
    let asked = Asked::of(&page.f.path);
    // Nothing is said that is not so.
    let mut known = page.f.tenant.iter().flat_map(|tenant| &tenant.sandboxes);
    page.notice = known.find(|name| asked.is("made", name)).map(|made| page.f.tx("settings-sandbox-made", made));
    Ok(show(StatusCode::OK, &page))
}

/// Changes the organization.
pub async fn replace(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit, fields } = posted;
    let retention = KEPT.iter().filter(|(field, ..)| !fields.text(field).is_empty());
    let retention: Map<String, Value> =
        retention.map(|(field, name, _)| ((*name).to_owned(), number(fields.text(field)))).collect();
    let change = json!({"name": fields.text("name"), "retention": retention});
    let changed = visit.call(&console, Method::PUT, &path_of(&visit), Some(&change)).await;
    let mut page = stored(&console, visit).await?;
    let status = match changed {
        Ok(_) => {
            page.notice = Some(page.f.t("settings-saved"));
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

/// Makes a sandbox.
pub async fn make_sandbox(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let Posted { visit, fields } = posted;
    let name = fields.text("name").to_owned();
    match visit.call(&console, Method::POST, SANDBOXES, Some(&json!({"name": name}))).await {
        Ok(_) => {
            let path = format!("{}?made={}", visit.frame.to("settings"), encoded(&name));
            Ok(Redirect::to(&path).into_response())
        }
        Err(refusal) => {
            let mut page = stored(&console, visit).await?;
            let (status, form) = Form::from(fields).refused(&page.f, refusal)?;
            page.sandbox = form;
            Ok(show(status, &page))
        }
    }
}
