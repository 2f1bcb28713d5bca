//! Problem documents: everything that the API refuses, each cause with a `type` of its own (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use model::fault::{Fault, Faults};
use model::ids::{CampaignId, ExecutionId, WebhookId};
use serde::Serialize;
use serde_json::{Value, json};
use store::work::AcceptError;
use store::{Conflict, StoreError};
use utoipa::ToSchema;

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// How long a caller should wait before it tries again where nothing better is known, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;

/// A cause for which a request is refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// Fields have the wrong shape or value.
    Validation(Faults),
    /// The body is not JSON; says where.
    MalformedJson(String),
    /// The body ended before it was complete.
    IncompleteBody,
    /// A required header is missing or unreadable.
    MissingHeader(&'static str),
    /// No usable API key; says why.
    Unauthenticated(&'static str),
    /// The key's role does not allow this; says what it is.
    RoleForbids(&'static str),
    /// The key has no access to the organization.
    ForeignOrganization,
    /// The key has no access to the sandbox.
    ForeignSandbox,
    /// The key may not give away what it does not have itself.
    BeyondKey(&'static str),
    /// There is no such path.
    UnknownPath,
    /// There is no such resource; says which kind.
    NotFound(&'static str),
    /// There is no such organization.
    UnknownOrganization,
    /// The organization has no such sandbox.
    UnknownSandbox,
    /// The sandbox has no such campaign.
    UnknownCampaign(CampaignId),
    /// The path has no such method.
    MethodNotAllowed,
    /// The requestId was used with another body.
    RequestIdConflict(ExecutionId),
    /// The campaign is a draft or stopped; says which.
    CampaignNotLive(String),
    /// The campaign takes no executions at this time; says why.
    OutsideSchedule(String),
    /// The sandbox has a webhook already.
    WebhookExists {
        /// Its id.
        id: WebhookId,
        /// Its name.
        name: String,
    },
    /// The id or name is taken; says which.
    Taken(String),
    /// Others depend on the resource; says which.
    InUse(String),
    /// The resource's state does not allow this; says why.
    WrongState(String),
    /// Others keep changing the resource.
    Contended,
    /// The resource is not as `If-Match` says.
    PreconditionFailed {
        /// The revision that it has.
        revision: Option<u64>,
    },
    /// The body is longer than allowed, in bytes.
    BodyTooLarge(usize),
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// More executions a second than the sandbox may send.
    RateLimited {
        /// When to come again, in seconds.
        retry_after: u32,
    },
    /// More messages wait to be sent than the operator allows.
    TooMuchWaiting {
        /// How many.
        waiting: u64,
    },
    /// As many follow the feed as may.
    TooManyStreams,
    /// The store does not answer.
    Unavailable,
    /// A fault of Esito's own.
    Internal,
}

/// The problem document.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDocument {
    /// The cause, for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:esito:problem:validation")]
    pub problem_type: String,
    /// The cause, for people.
    #[schema(example = "The request is not valid")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 400)]
    pub status: u16,
    /// What was wrong with this request.
    #[schema(example = "$.recipients[0].userId: is required")]
    pub detail: String,
    /// More for programs.
    pub report: ProblemReport,
}

/// What else there is to know about a problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemReport {
    /// By cause; for validation `faults`, a list of `path` and `message`.
    #[schema(value_type = Object, example = json!({"faults": [{"path": "$.recipients[0].userId", "message": "is required"}]}))]
    pub additional_context: Value,
}

impl Problem {
    /// A problem with one field.
    pub fn fault(path: impl Into<String>, message: impl Into<String>) -> Self {
        let mut faults = Faults::default();
        faults.add(path, message);
        Self::Validation(faults)
    }

    /// Status, last part of the type, and title.
    fn cause(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Validation(_) => (S::BAD_REQUEST, "validation", "The request is not valid"),
            Self::MalformedJson(_) => (S::BAD_REQUEST, "malformed-json", "The body is not JSON"),
            Self::IncompleteBody => (S::BAD_REQUEST, "incomplete-body", "The body is incomplete"),
            Self::MissingHeader(_) => (S::BAD_REQUEST, "missing-header", "A required header is missing"),
            Self::Unauthenticated(_) => (S::UNAUTHORIZED, "unauthenticated", "No valid API key"),
            Self::RoleForbids(_) => (S::FORBIDDEN, "role-forbids", "The API key's role does not allow this"),
            Self::ForeignOrganization => {
                (S::FORBIDDEN, "foreign-organization", "The API key has no access to the organization")
            }
            Self::ForeignSandbox => (S::FORBIDDEN, "foreign-sandbox", "The API key has no access to the sandbox"),
            Self::BeyondKey(_) => (S::FORBIDDEN, "beyond-key", "The API key cannot give what it does not have"),
            Self::UnknownPath => (S::NOT_FOUND, "unknown-path", "There is no such path"),
            Self::NotFound(_) => (S::NOT_FOUND, "not-found", "There is no such resource"),
            Self::UnknownOrganization => (S::NOT_FOUND, "unknown-organization", "There is no such organization"),
            Self::UnknownSandbox => (S::NOT_FOUND, "unknown-sandbox", "There is no such sandbox"),
            Self::UnknownCampaign(_) => (S::NOT_FOUND, "unknown-campaign", "There is no such campaign"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method-not-allowed", "The path has no such method"),
            Self::RequestIdConflict(_) => {
                (S::CONFLICT, "request-id-conflict", "The requestId was used with another body")
            }
            Self::CampaignNotLive(_) => (S::CONFLICT, "campaign-not-live", "The campaign is not live"),
            Self::OutsideSchedule(_) => (S::CONFLICT, "outside-schedule", "The campaign is outside its schedule"),
            Self::WebhookExists { .. } => {
                (S::CONFLICT, "feedback-webhook-exists", "The sandbox already has a feedback webhook")
            }
            Self::Taken(_) => (S::CONFLICT, "taken", "The id or name is taken"),
            Self::InUse(_) => (S::CONFLICT, "in-use", "The resource is in use"),
            Self::WrongState(_) => (S::CONFLICT, "wrong-state", "The resource's state does not allow this"),
            Self::Contended => (S::CONFLICT, "contended", "The resource keeps being changed by others"),
            Self::PreconditionFailed { .. } => {
                (S::PRECONDITION_FAILED, "precondition-failed", "The resource was changed meanwhile")
            }
            Self::BodyTooLarge(_) => (S::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body is not declared as JSON")
            }
            Self::RateLimited { .. } => (S::TOO_MANY_REQUESTS, "rate-limited", "Too many executions a second"),
            Self::TooMuchWaiting { .. } => {
                (S::TOO_MANY_REQUESTS, "too-much-waiting", "Too many messages wait to be sent")
            }
            Self::TooManyStreams => (S::TOO_MANY_REQUESTS, "too-many-streams", "Too many streams of events"),
            Self::Unavailable => (S::SERVICE_UNAVAILABLE, "unavailable", "The service is unavailable"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "An internal error"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Validation(faults) => first_fault(faults.list()),
            Self::MalformedJson(why) => format!("the body is not JSON: {why}"),
            Self::IncompleteBody => {
                "the connection ended, paused for half a minute, or broke the framing, before the body was complete"
                    .into()
            }
            Self::MissingHeader(name) => {
                format!("the header {name} is required, once and as plain text")
            }
            Self::Unauthenticated(why) => (*why).to_owned(),
            Self::RoleForbids(what) => {
                format!("the role of this API key does not allow it to {what}")
            }
            Self::ForeignOrganization => "x-gw-ims-org-id or imsOrg names another organization than the key's".into(),
            Self::ForeignSandbox => "x-sandbox-name names a sandbox that the key is not for".into(),
            Self::BeyondKey(what) => (*what).to_owned(),
            Self::UnknownPath => "there is nothing at this path; /openapi.json lists what there is".into(),
            Self::NotFound(kind) => format!("there is no such {kind} here"),
            Self::UnknownOrganization => "there is no organization of this id".into(),
            Self::UnknownSandbox => "the organization has no sandbox of the name in x-sandbox-name".into(),
            Self::UnknownCampaign(id) => format!("$.campaignId: the sandbox has no campaign {id}"),
            Self::MethodNotAllowed => "the header Allow lists the methods that this path has".into(),
            Self::RequestIdConflict(id) => {
                format!("$.requestId: was used before with another body, by execution {id}; choose a new one")
            }
            Self::CampaignNotLive(why) | Self::OutsideSchedule(why) => why.clone(),
            Self::WebhookExists { id, name } => {
                format!("the sandbox already has the feedback webhook {name:?} ({id}); change or delete that one")
            }
            Self::Taken(what) => format!("{what} is taken"),
            Self::InUse(why) | Self::WrongState(why) => why.clone(),
            Self::Contended => "read the resource again and repeat the change".into(),
            Self::PreconditionFailed { .. } => "If-Match names an older state; read the resource again".into(),
            Self::BodyTooLarge(limit) => format!("the body may have at most {limit} bytes"),
            Self::UnsupportedMediaType => "send the header content-type: application/json".into(),
            Self::RateLimited { retry_after } => format!("try again in {retry_after} s"),
            Self::TooMuchWaiting { waiting } => {
                format!("{waiting} messages already wait to be sent; try again later")
            }
            Self::TooManyStreams => {
                "as many streams are open as this server has; end one, or read /v1/feedback-events".into()
            }
            Self::Unavailable => "the store does not answer at the moment; try again, the same request is safe".into(),
            Self::Internal => "something went wrong inside; the log of the server says more".into(),
        }
    }

    fn additional_context(&self) -> Value {
        match self {
            Self::Validation(faults) => json!({ "faults": faults.list() }),
            Self::MissingHeader(name) => json!({ "header": name }),
            Self::RequestIdConflict(id) => json!({ "executionId": id }),
            Self::UnknownCampaign(id) => json!({ "campaignId": id }),
            Self::WebhookExists { id, name } => json!({ "id": id, "name": name }),
            Self::PreconditionFailed { revision: Some(revision) } => json!({ "etag": super::etag::of(*revision) }),
            Self::BodyTooLarge(limit) => json!({ "limitBytes": limit }),
            Self::RateLimited { retry_after } => json!({ "retryAfterSeconds": retry_after }),
            Self::TooMuchWaiting { waiting } => json!({ "waiting": waiting }),
            _ => json!({}),
        }
    }

    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::TooMuchWaiting { .. } | Self::TooManyStreams | Self::Unavailable => Some(RETRY_AFTER_SECONDS),
            _ => None,
        }
    }

    /// The problem as it is sent.
    pub fn document(&self) -> ProblemDocument {
        let (status, name, title) = self.cause();
        ProblemDocument {
            problem_type: format!("urn:esito:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
            report: ProblemReport { additional_context: self.additional_context() },
        }
    }
}

fn first_fault(faults: &[Fault]) -> String {
    faults.first().map_or_else(String::new, |Fault { path, message }| format!("{path}: {message}"))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.document()).expect("a problem document has string keys only");
        let mut response = (self.cause().0, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Self::Unauthenticated(_)) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Faults> for Problem {
    fn from(faults: Faults) -> Self {
        Self::Validation(faults)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound("cursor") => Self::fault("$query.cursor", "must be the nextCursor of the page before"),
            StoreError::NotFound(kind) => Self::NotFound(kind),
            StoreError::Changed => Self::Contended,
            StoreError::Conflict(conflict) => conflict.into(),
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "a request could not be served");
                Self::Unavailable
            }
            StoreError::Corrupt(_) => {
                tracing::error!(%error, "a request could not be served");
                Self::Internal
            }
        }
    }
}

impl From<Conflict> for Problem {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::WebhookExists { id, name } => Self::WebhookExists { id, name },
            Conflict::Taken(what) => Self::Taken(what),
            Conflict::InUse(why) => Self::InUse(why),
            Conflict::State(why) => Self::WrongState(why),
        }
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::UnknownCampaign(id) => Self::UnknownCampaign(id),
            AcceptError::RequestIdConflict(id) => Self::RequestIdConflict(id),
            AcceptError::NotLive(_) => Self::CampaignNotLive(error.to_string()),
            AcceptError::OutsideSchedule(_) => Self::OutsideSchedule(error.to_string()),
            AcceptError::TooMuchWaiting { waiting } => Self::TooMuchWaiting { waiting },
        }
    }
}

#[cfg(test)]
mod tests;
