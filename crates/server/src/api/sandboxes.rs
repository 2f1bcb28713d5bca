//! `/v1/sandboxes`: the parts of an organization, each with its own campaigns, messages and webhook.

use super::Api;
use super::auth::{Edits, InOrganization, OrganizationHeader, Reads};
use super::body::{Input, Json, read_only};
use super::problem::{Problem, ProblemDocument};
use super::query::{List, Paging, Query};
use axum::extract::State;
use http::StatusCode;
use model::ids::SandboxId;
use model::tenancy::Sandbox;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list))
}

/// A new sandbox.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SandboxRequest {
    /// The organization; the call's own by default.
    #[schema(example = "acme@EsitoOrg")]
    ims_org: Option<String>,
    /// The name that callers put into `x-sandbox-name`: letters, digits, `-` and `_`, at most 64.
    #[schema(example = "prod", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: String,
}

impl Input for SandboxRequest {
    const READ_ONLY: &'static [&'static str] = read_only!("id");
}

/// Makes a sandbox.
#[utoipa::path(post, path = "/v1/sandboxes", operation_id = "createSandbox", tag = "administration",
    params(OrganizationHeader), request_body = SandboxRequest,
    responses((status = 201, body = Sandbox, description = "The sandbox."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The name is taken.")))]
async fn create(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Edits>,
    Json(request): Json<SandboxRequest>,
) -> Result<(StatusCode, axum::Json<Sandbox>), Problem> {
    let scope = scope.named_in_body(request.ims_org.as_deref())?;
    if scope.caller.key.sandboxes.is_some() {
        return Err(Problem::BeyondKey("a key for some sandboxes only does not make others"));
    }
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if !(1..=64).contains(&request.name.len()) || !request.name.bytes().all(usual) {
        return Err(Problem::fault("$.name", "must have 1 to 64 letters, digits, - and _"));
    }
    api.organization(&scope.ims_org).await?;
    let now = api.clock.now();
    let sandbox = Sandbox {
        id: SandboxId::new(now, &*api.entropy),
        ims_org: scope.ims_org.clone(),
        name: request.name,
        created_at: now,
        created_by: scope.caller.key.name.clone(),
    };
    let mut audit = scope.audit(&api, now, "sandbox.create", sandbox.id, &sandbox);
    audit.sandbox = Some(sandbox.name.clone());
    api.store.create_sandbox(sandbox.clone(), audit).await?;
    Ok((StatusCode::CREATED, axum::Json(sandbox)))
}

/// Lists the organization's sandboxes that the key may see.
#[utoipa::path(get, path = "/v1/sandboxes", operation_id = "listSandboxes", tag = "administration",
    params(OrganizationHeader, Paging),
    responses((status = 200, body = List<Sandbox>, description = "A page of sandboxes; it may have fewer than `limit` and still not be the last.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Reads>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<Sandbox>>, Problem> {
    let mut listed = api.store.sandboxes(&scope.ims_org, paging.page()?).await?;
    listed.items.retain(|sandbox| scope.caller.key.reaches_sandbox(&sandbox.name));
    Ok(List::of(listed, |sandbox| sandbox))
}
