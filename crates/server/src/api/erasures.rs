//! `/v1/erasures`: what is known of an address goes, and a receipt stays.

use super::Api;
use super::auth::{Edits, InOrganization, OrganizationHeader, Reads};
use super::body::{Input, Json, read_only};
use super::problem::Problem;
use super::query::{Id, List, Paging, Query};
use axum::extract::State;
use http::StatusCode;
use model::clock::Timestamp;
use model::erasure::{Erased, Erasure, ErasureState, check_address};
use model::fault::Faults;
use model::ids::ErasureId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use store::wake::Hint;
use store::work::NewErasure;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read))
}

/// Whose data is to go.
#[derive(Deserialize, ToSchema)]
struct ErasureRequest {
    /// An email address, a telephone number as it was given, or a userId; upper and lower case are the same.
    #[schema(example = "jane.roe@example.com", min_length = 3, max_length = 1_024)]
    address: String,
}

impl Input for ErasureRequest {
    const READ_ONLY: &'static [&'static str] = read_only!();
}

/// An erasure's receipt. It does not hold the address.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErasureRead {
    /// Its id.
    id: ErasureId,
    /// The organization, in all of whose sandboxes it erases.
    ims_org: String,
    /// HMAC-SHA-256 of the address in lower case, in hexadecimal, under a key derived from the master key: two erasures of
    /// the same address have the same.
    address_digest: String,
    /// Where it stands.
    state: ErasureState,
    /// What was erased so far.
    erased: Erased,
    /// When it was asked for. What was accepted later is not part of it.
    created_at: Timestamp,
    /// By whom.
    created_by: String,
    /// When it was done.
    completed_at: Option<Timestamp>,
}

impl From<Erasure> for ErasureRead {
    fn from(erasure: Erasure) -> Self {
        let Erasure { id, ims_org, address_digest, state, erased, created_at, created_by, completed_at } = erasure;
        Self { id, ims_org, address_digest, state, erased, created_at, created_by, completed_at }
    }
}

/// Erases all messages to an address, in all sandboxes of the organization, with their feedback events, deliveries and
/// attempts. Those that wait are not sent any more; events that have not been delivered are not. Backups are not reached.
#[utoipa::path(post, path = "/v1/erasures", operation_id = "createErasure", tag = "administration",
    params(OrganizationHeader), request_body = ErasureRequest,
    responses((status = 201, body = ErasureRead, description = "The erasure, which goes on by itself.")))]
async fn create(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Edits>,
    Json(request): Json<ErasureRequest>,
) -> Result<(StatusCode, axum::Json<ErasureRead>), Problem> {
    if scope.caller.key.sandboxes.is_some() {
        return Err(Problem::BeyondKey("only a key for all sandboxes of the organization erases"));
    }
    let mut faults = Faults::default();
    check_address(&request.address, &mut faults);
    faults.into_result()?;
    let now = api.clock.now();
    let id = ErasureId::new(now, &*api.entropy);
    let audit = scope.audit(&api, now, "erasure.create", id, &json!({}));
    let new = NewErasure {
        id,
        ims_org: scope.ims_org.clone(),
        address: request.address,
        now,
        created_by: scope.caller.key.name.clone(),
    };
    let erasure = api.store.create_erasure(new, audit).await?;
    api.wake.hint(Hint::Erasure);
    Ok((StatusCode::CREATED, axum::Json(erasure.into())))
}

/// Lists the organization's erasures, the newest first.
#[utoipa::path(get, path = "/v1/erasures", operation_id = "listErasures", tag = "administration",
    params(OrganizationHeader, Paging),
    responses((status = 200, body = List<ErasureRead>, description = "A page of erasures.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Reads>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<ErasureRead>>, Problem> {
    let listed = api.store.erasures(&scope.ims_org, paging.page()?).await?;
    Ok(List::of(listed, ErasureRead::from))
}

/// Reads an erasure's receipt.
#[utoipa::path(get, path = "/v1/erasures/{id}", operation_id = "getErasure", tag = "administration",
    params(OrganizationHeader, ("id" = ErasureId, Path, description = "The erasure's id.")),
    responses((status = 200, body = ErasureRead, description = "The receipt.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Reads>,
    Id(id): Id<ErasureId>,
) -> Result<axum::Json<ErasureRead>, Problem> {
    let erasure = api.store.erasure(&scope.ims_org, id).await?;
    Ok(axum::Json(erasure.into()))
}
