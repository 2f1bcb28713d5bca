//! `ETag` and `If-Match` (RFC 9110 sections 8.8.3 and 13.1.1): the revision of a resource.

use super::Api;
use super::problem::Problem;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// The entity tag of a revision.
pub fn of(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// Which state of the resource the caller wants to change; optional.
#[derive(Clone, Debug, Default)]
pub struct IfMatch(Option<String>);

/// The header of [`IfMatch`].
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct IfMatchHeader {
    /// The `ETag` that a read gave; the change is refused with 412 where the resource has another by now.
    #[param(rename = "If-Match")]
    #[expect(dead_code, reason = "read from the headers; the type is its documentation")]
    if_match: Option<String>,
}

impl IfMatch {
    fn of(headers: &HeaderMap) -> Self {
        let lines: Vec<_> = headers.get_all(header::IF_MATCH).iter().map(|line| line.to_str().unwrap_or("")).collect();
        Self((!lines.is_empty()).then(|| lines.join(",")))
    }

    /// Whether the caller named a state.
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// Refuses where the resource is not in a state that the caller named.
    pub fn check(&self, revision: u64) -> Result<(), Problem> {
        let Some(tags) = &self.0 else { return Ok(()) };
        let current = of(revision);
        let matches = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == current;
        if tags.split(',').map(str::trim).any(matches) {
            return Ok(());
        }
        Err(Problem::PreconditionFailed { revision: Some(revision) })
    }
}

impl FromRequestParts<Arc<Api>> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        Ok(Self::of(&parts.headers))
    }
}

/// A resource with its revision.
#[derive(Debug)]
pub struct Tagged<T> {
    /// The status of the answer.
    pub status: StatusCode,
    /// The revision.
    pub revision: u64,
    /// The resource as read.
    pub read: T,
}

impl<T> Tagged<T> {
    /// A resource that is there.
    pub fn ok(revision: u64, read: T) -> Self {
        Self { status: StatusCode::OK, revision, read }
    }

    /// A resource just made.
    pub fn created(revision: u64, read: T) -> Self {
        Self { status: StatusCode::CREATED, revision, read }
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.read)).into_response();
        let tag = HeaderValue::try_from(of(self.revision)).expect("digits and quotes are a header value");
        response.headers_mut().insert(header::ETAG, tag);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_states() {
        let given = |value: &'static str| {
            IfMatch::of(&HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(value))]))
        };
        assert!(IfMatch::of(&HeaderMap::new()).check(3).is_ok());
        assert!(given("\"3\"").check(3).is_ok() && given("W/\"3\"").check(3).is_ok());
        assert!(given("*").check(3).is_ok() && given("\"1\", \"3\"").check(3).is_ok());
        for stale in ["\"2\"", "3", "nonsense", ""] {
            assert_eq!(given(stale).check(3), Err(Problem::PreconditionFailed { revision: Some(3) }), "{stale}");
        }
    }
}
