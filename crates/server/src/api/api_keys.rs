//! `/v1/api-keys`: who may call.

use super::Api;
use super::auth::{self, Administers, Caller, InOrganization, OrganizationHeader};
use super::body::{Input, Json, read_only};
use super::problem::Problem;
use super::query::{Id, List, Paging, Query};
use axum::extract::State;
use http::StatusCode;
use model::clock::Timestamp;
use model::fault::Faults;
use model::ids::ApiKeyId;
use model::tenancy::{ApiKey, Role};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::StoreError;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, revoke))
}

/// The most sandboxes that a key may be restricted to.
const MAX_SANDBOXES: usize = 100;

/// A new API key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ApiKeyRequest {
    /// The organization; the call's own by default.
    #[schema(example = "acme@EsitoOrg")]
    ims_org: Option<String>,
    /// What it may do.
    role: Role,
    /// A name for people; also what `createdBy` shows.
    #[schema(example = "shop backend")]
    name: String,
    /// The names of the sandboxes it may work in; all by default.
    sandboxes: Option<Vec<String>>,
    /// When it ends by itself; never by default.
    expires_at: Option<Timestamp>,
}

impl Input for ApiKeyRequest {
    const READ_ONLY: &'static [&'static str] = read_only!("id", "revokedAt", "key");
}

/// A new API key with its text.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewApiKey {
    #[serde(flatten)]
    api_key: ApiKey,
    /// The key itself: shown this once.
    #[schema(example = "esito_Vb3k0c8yQm1xT5uWz7Rj2nLp9sDf4gHhKaEeXoIiUuY")]
    key: String,
}

/// Whether the caller's key reaches everything that `other` reaches: it may neither make nor see nor end more.
fn covers(caller: &Caller, sandboxes: Option<&[String]>) -> bool {
    match (&caller.key.sandboxes, sandboxes) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(_), Some(names)) => names.iter().all(|name| caller.key.reaches_sandbox(name)),
    }
}

async fn check(
    api: &Api,
    scope: &InOrganization<Administers>,
    request: &ApiKeyRequest,
    now: Timestamp,
) -> Result<(), Problem> {
    let mut faults = Faults::default();
    faults.check_name("$.name", &request.name);
    let lasts = request.expires_at.is_none_or(|end| now < end);
    faults.require(lasts, "$.expiresAt", "must be in the future");
    let names = request.sandboxes.as_deref();
    let count = names.map_or(1, <[String]>::len);
    faults.require(
        (1..=MAX_SANDBOXES).contains(&count),
        "$.sandboxes",
        "must name 1 to 100 sandboxes, or be left out for all",
    );
    faults.into_result()?;
    if !covers(&scope.caller, names) {
        return Err(Problem::BeyondKey("a key for some sandboxes only makes keys for those: name them in sandboxes"));
    }
    api.organization(&scope.ims_org).await?;
    for (index, name) in names.unwrap_or_default().iter().enumerate() {
        match api.store.sandbox(&scope.ims_org, name).await {
            Err(StoreError::NotFound(_)) => {
                return Err(Problem::fault(
                    format!("$.sandboxes[{index}]"),
                    "the organization has no sandbox of this name",
                ));
            }
            other => other?,
        };
    }
    Ok(())
}

/// Makes an API key.
#[utoipa::path(post, path = "/v1/api-keys", operation_id = "createApiKey", tag = "administration",
    params(OrganizationHeader), request_body = ApiKeyRequest,
    responses((status = 201, body = NewApiKey, description = "The API key, with its text: shown this once.")))]
async fn create(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Administers>,
    Json(request): Json<ApiKeyRequest>,
) -> Result<(StatusCode, axum::Json<NewApiKey>), Problem> {
    let scope = scope.named_in_body(request.ims_org.as_deref())?;
    let now = api.clock.now();
    check(&api, &scope, &request, now).await?;
    let api_key = ApiKey {
        id: ApiKeyId::new(now, &*api.entropy),
        ims_org: scope.ims_org.clone(),
        role: request.role,
        name: request.name,
        sandboxes: request.sandboxes,
        expires_at: request.expires_at,
        revoked_at: None,
        created_at: now,
        created_by: scope.caller.key.name.clone(),
    };
    let key = auth::new_key(&*api.entropy);
    let audit = scope.audit(&api, now, "api-key.create", api_key.id, &api_key);
    api.store.create_api_key(api_key.clone(), auth::hash_key(&key), audit).await?;
    Ok((StatusCode::CREATED, axum::Json(NewApiKey { api_key, key })))
}

/// Lists the organization's API keys.
#[utoipa::path(get, path = "/v1/api-keys", operation_id = "listApiKeys", tag = "administration",
    params(OrganizationHeader, Paging),
    responses((status = 200, body = List<ApiKey>, description = "A page of API keys.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Administers>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<ApiKey>>, Problem> {
    let mut listed = api.store.api_keys(&scope.ims_org, paging.page()?).await?;
    listed.items.retain(|key| covers(&scope.caller, key.sandboxes.as_deref()));
    Ok(List::of(listed, |key| key))
}

async fn find(api: &Api, scope: &InOrganization<Administers>, id: ApiKeyId) -> Result<ApiKey, Problem> {
    let key = api.store.api_key(id).await?;
    let reached = scope.caller.check_organization(&key.ims_org).is_ok();
    if reached && covers(&scope.caller, key.sandboxes.as_deref()) { Ok(key) } else { Err(Problem::NotFound("API key")) }
}

/// Reads an API key, without its text.
#[utoipa::path(get, path = "/v1/api-keys/{id}", operation_id = "getApiKey", tag = "administration",
    params(OrganizationHeader, ("id" = ApiKeyId, Path, description = "The API key's id.")),
    responses((status = 200, body = ApiKey, description = "The API key.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Administers>,
    Id(id): Id<ApiKeyId>,
) -> Result<axum::Json<ApiKey>, Problem> {
    find(&api, &scope, id).await.map(axum::Json)
}

/// Revokes an API key for good. It stays listed.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", operation_id = "revokeApiKey", tag = "administration",
    params(OrganizationHeader, ("id" = ApiKeyId, Path, description = "The API key's id.")),
    responses((status = 204, description = "It is revoked.")))]
async fn revoke(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Administers>,
    Id(id): Id<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    let mut key = find(&api, &scope, id).await?;
    let now = api.clock.now();
    key.revoked_at.get_or_insert(now);
    let mut audit = scope.audit(&api, now, "api-key.revoke", id, &key);
    audit.ims_org = key.ims_org;
    api.store.revoke_api_key(id, now, audit).await?;
    api.keys.clear();
    Ok(StatusCode::NO_CONTENT)
}
