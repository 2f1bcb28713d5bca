//! `/ajo/im/executions`: takes executions. A client written for Adobe Journey Optimizer's Interactive Message Execution
//! API works here by changing the host.

use super::Api;
use super::auth::{InSandbox, SandboxHeaders, Sends};
use super::body::{self, MAX_EXECUTION_BYTES};
use super::digest;
use super::problem::{Problem, ProblemDocument};
use super::recipients::{self, RecipientRequest};
use super::shape::{self, Mode};
use super::well_known::{Health, OK};
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use model::clock::Timestamp;
use model::execution::{Priority, RECIPIENTS};
use model::fault::Faults;
use model::ids::{CampaignId, ExecutionId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::wake::Hint;
use store::work::NewExecution;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(unitary)).routes(routes!(high_throughput)).routes(routes!(health))
}

const MAX_REQUEST_ID_CHARS: usize = 255;

/// An execution of a campaign for up to 20 recipients.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionRequest {
    /// The caller's own id: the same again, with the same body, sends nothing twice. Echoed in every feedback event.
    #[schema(min_length = 1, max_length = 255, example = "8f0c2f6f1d4f4e1f")]
    request_id: String,
    /// A live campaign of the sandbox.
    campaign_id: CampaignId,
    /// Who gets a message.
    #[schema(min_items = 1, max_items = 20)]
    recipients: Vec<RecipientRequest>,
    /// What is not handed over by then is not sent any more.
    expires_at: Option<Timestamp>,
}

/// An execution that was accepted, now or before: it is durable.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionAccepted {
    execution_id: ExecutionId,
    request_id: String,
    created_at: Timestamp,
    created_by: String,
    modified_at: Timestamp,
    modified_by: String,
}

/// The paths on which executions are posted, as the metrics name them.
pub fn route(path: &str) -> Option<(&'static str, Priority)> {
    match path {
        "/ajo/im/executions/unitary" => Some(("/ajo/im/executions/unitary", Priority::Unitary)),
        "/ajo/im/executions/highthroughput" => Some(("/ajo/im/executions/highthroughput", Priority::HighThroughput)),
        _ => None,
    }
}

/// The body of an execution as it came.
struct ExecutionBody(Bytes);

impl FromRequest<Arc<Api>> for ExecutionBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, Problem> {
        body::check_content_type(request.headers())?;
        body::read(request, MAX_EXECUTION_BYTES).await.map(Self)
    }
}

impl ExecutionBody {
    /// How many recipients it seems to have, 1 to 20: near enough to admit it by.
    fn recipients(&self) -> usize {
        memchr::memmem::find_iter(&self.0, br#""userId""#).count().clamp(*RECIPIENTS.start(), *RECIPIENTS.end())
    }

    /// What it asks for, with the digest of its JSON. Fields that Esito does not know are ignored: clients of other
    /// hosts send some.
    fn parse(self) -> Result<(ExecutionRequest, [u8; 16]), Problem> {
        let value = body::parse(&self.0)?;
        let digest = digest::of(&value);
        let request = shape::read(value, Mode::Lenient, "$");
        Ok((request.map_err(|fault| Problem::fault(fault.path, fault.message))?, digest))
    }
}

/// Sends a campaign's message to up to 20 recipients, ahead of high-throughput ones.
#[utoipa::path(post, path = "/ajo/im/executions/unitary", operation_id = "executeUnitary", tag = "executions",
    params(SandboxHeaders),
    request_body(content = ExecutionRequest, example = json!({
        "requestId": "8f0c2f6f1d4f4e1f", "campaignId": "01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11",
        "recipients": [{"type": "external", "userId": "jane.roe@example.com", "namespace": "email",
            "context": {"orderNumber": "4711"}}]})),
    responses(
        (status = 202, body = ExecutionAccepted, description = "Accepted and durable; for a repetition the first answer's executionId."),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json", description = "There is no such campaign or sandbox."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The requestId was used with another body, or the campaign is not live or outside its schedule."),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json", description = "Too many executions a second, or too much waits to be sent; `Retry-After` says when to come again.")))]
async fn unitary(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Sends>,
    body: ExecutionBody,
) -> Result<Response, Problem> {
    execute(&api, &scope, Priority::Unitary, body).await
}

/// Sends a campaign's message to up to 20 external recipients, at high rates.
#[utoipa::path(post, path = "/ajo/im/executions/highthroughput", operation_id = "executeHighThroughput", tag = "executions",
    params(SandboxHeaders), request_body = ExecutionRequest,
    responses(
        (status = 202, body = ExecutionAccepted, description = "Accepted and durable; for a repetition the first answer's executionId."),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json", description = "There is no such campaign or sandbox."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The requestId was used with another body, or the campaign is not live or outside its schedule."),
        (status = 429, body = ProblemDocument, content_type = "application/problem+json", description = "Too many executions a second, or too much waits to be sent; `Retry-After` says when to come again.")))]
async fn high_throughput(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Sends>,
    body: ExecutionBody,
) -> Result<Response, Problem> {
    execute(&api, &scope, Priority::HighThroughput, body).await
}

/// An execution from its request, as the handlers get it from theirs.
pub async fn execute_request(api: &Arc<Api>, priority: Priority, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let executed = async {
        let scope = InSandbox::<Sends>::from_request_parts(&mut parts, api).await?;
        let body = ExecutionBody::from_request(Request::from_parts(parts, body), api).await?;
        execute(api, &scope, priority, body).await
    };
    executed.await.into_response()
}

/// Whether executions are taken.
#[utoipa::path(get, path = "/ajo/im/health", operation_id = "getExecutionHealth", tag = "executions", security(()), responses(
    (status = 200, body = Health, description = "They are."),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json", description = "The store does not answer.")))]
async fn health(State(api): State<Arc<Api>>) -> Result<axum::Json<Health>, Problem> {
    api.store.ping().await?;
    Ok(OK)
}

async fn execute(
    api: &Api,
    scope: &InSandbox<Sends>,
    priority: Priority,
    body: ExecutionBody,
) -> Result<Response, Problem> {
    // What waits, waits as bytes: parsed it is many times as large, and out of the processor's caches when its turn comes.
    api.outside.admit(scope.sandbox.id, body.recipients()).await;
    let (request, digest) = body.parse()?;
    let now = api.clock.now();
    api.rate.take(scope.sandbox.id, now)?;
    let execution = new_execution(api, scope, priority, (request, digest), now)?;
    let request_id = execution.request_id.clone();
    let accepted = api.store.accept(execution).await??;
    let answer = ExecutionAccepted {
        execution_id: accepted.id,
        request_id,
        created_at: accepted.created_at,
        created_by: accepted.created_by.clone(),
        modified_at: accepted.created_at,
        modified_by: accepted.created_by,
    };
    // A repetition has no work: its messages were handed to the owner the first time.
    if let Some((channel, due)) = accepted.work {
        api.wake.hint(Hint::Messages { sandbox: scope.sandbox.id, channel, due });
    }
    Ok((StatusCode::ACCEPTED, axum::Json(answer)).into_response())
}

fn new_execution(
    api: &Api,
    scope: &InSandbox<Sends>,
    priority: Priority,
    (request, body_digest): (ExecutionRequest, [u8; 16]),
    now: Timestamp,
) -> Result<NewExecution, Problem> {
    let ExecutionRequest { request_id, campaign_id, recipients, expires_at } = request;
    let mut faults = Faults::default();
    check_request_id(&request_id, &mut faults);
    let recipients = recipients::check(recipients, priority == Priority::HighThroughput, &mut faults);
    faults.into_result()?;
    Ok(NewExecution {
        id: api.execution_ids.next(now),
        sandbox: scope.sandbox.id,
        request_id,
        campaign: campaign_id,
        body_digest,
        priority,
        expires_at,
        now,
        created_by: scope.by().to_owned(),
        created_by_key: scope.caller.key.id,
        recipients,
    })
}

fn check_request_id(request_id: &str, faults: &mut Faults) {
    let path = "$.requestId";
    faults.require(!request_id.trim().is_empty(), path, "must not be empty");
    faults.require(request_id.chars().count() <= MAX_REQUEST_ID_CHARS, path, "must have at most 255 characters");
    faults.require(!request_id.chars().any(char::is_control), path, "must have no control characters");
}
