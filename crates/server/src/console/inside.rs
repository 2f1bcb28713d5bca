//! The API, called from within: the console does what its user could do with the same key, by the same code.

use super::page::encoded;
use crate::api::auth::Caller;
use crate::api::problem::Problem;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use model::clock::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// In whose name, and where.
#[derive(Clone, Debug)]
pub struct Place {
    pub caller: Caller,
    pub organization: String,
    pub sandbox: String,
}

/// What the API refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub detail: String,
    /// The fields that are at fault, by their path, and why.
    pub faults: Vec<(String, String)>,
    /// Somebody else has changed what this was about.
    pub is_overtaken: bool,
}

impl Refusal {
    /// One that is not the API's own.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// One about no field.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), faults: Vec::new(), is_overtaken: false }
    }

    /// What a problem document says.
    fn of(status: StatusCode, document: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let faults = document["report"]["additionalContext"]["faults"].as_array().into_iter().flatten();
        Self {
            status,
            detail: text(&document["detail"]),
            faults: faults.map(|fault| (text(&fault["path"]), text(&fault["message"]))).collect(),
            is_overtaken: ["contended", "precondition-failed"]
                .iter()
                .any(|kind| text(&document["type"]).ends_with(kind)),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let document = problem.document();
        let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::of(status, &json!(document))
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
    /// Where the next page begins.
    #[serde(rename = "nextCursor")]
    pub next: Option<String>,
}

/// One attempt to deliver an event.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    pub at: Timestamp,
    pub duration_ms: u64,
    pub succeeded: bool,
    pub status: Option<u16>,
    pub response_excerpt: Option<String>,
    pub error: Option<AttemptError>,
}

/// Why it failed.
#[derive(Clone, Debug, Deserialize)]
pub struct AttemptError {
    pub kind: String,
    pub message: String,
}

/// The most items that the API puts on a page.
pub const LARGEST_PAGE: u32 = 200;

/// The beginning of a call in this name.
fn request(place: &Place, method: Method, path: &str) -> Result<http::request::Builder, Refusal> {
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| Refusal::internal(error.to_string()));
    Ok(Request::builder()
        .method(method)
        .uri(path)
        .header("x-gw-ims-org-id", value(&place.organization)?)
        .header("x-sandbox-name", value(&place.sandbox)?)
        .extension(place.caller.clone()))
}

/// The API's router, of which each call takes a copy.
#[derive(Clone, Debug)]
pub struct Inside(pub Router);

impl Inside {
    /// Calls the API.
    pub async fn call(
        &self,
        place: &Place,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        let mut request = request(place, method, path)?;
        let body = match body {
            None => Body::empty(),
            Some(json) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
        };
        let response = self.send(request, body).await?;
        let status = response.status();
        let bytes =
            response.into_body().collect().await.map_err(|error| Refusal::internal(error.to_string()))?.to_bytes();
        let answer = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap_or(Value::Null) };
        if status.is_success() { Ok(answer) } else { Err(Refusal::of(status, &answer)) }
    }

    async fn send(&self, request: http::request::Builder, body: Body) -> Result<Response, Refusal> {
        let request = request.body(body).map_err(|error| Refusal::internal(error.to_string()))?;
        let Ok(response) = self.0.clone().oneshot(request).await;
        Ok(response)
    }

    /// The API's own answer, as it comes.
    pub async fn stream(&self, place: &Place, path: &str, last_event: Option<&HeaderValue>) -> Response {
        let answer = async {
            let mut request = request(place, Method::GET, path)?;
            if let Some(id) = last_event {
                request = request.header("last-event-id", id);
            }
            self.send(request, Body::empty()).await
        };
        answer.await.unwrap_or_else(|refusal: Refusal| refusal.status.into_response())
    }

    /// Reads something.
    pub async fn get<T: DeserializeOwned>(&self, place: &Place, path: &str) -> Result<T, Refusal> {
        let answer = self.call(place, Method::GET, path, None).await?;
        serde_json::from_value(answer).map_err(|error| Refusal::internal(error.to_string()))
    }

    /// Reads the beginning of a list, page by page: `most` items and what else is on the last page.
    pub async fn list<T: DeserializeOwned>(&self, place: &Place, path: &str, most: usize) -> Result<Vec<T>, Refusal> {
        let mut page: List<T> = self.get(place, &format!("{path}?limit={LARGEST_PAGE}")).await?;
        let mut items = page.items;
        while let Some(cursor) = page.next.filter(|_| items.len() < most) {
            page = self.get(place, &format!("{path}?limit={LARGEST_PAGE}&cursor={}", encoded(&cursor))).await?;
            items.append(&mut page.items);
        }
        Ok(items)
    }
}
