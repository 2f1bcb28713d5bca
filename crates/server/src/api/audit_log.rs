//! `/v1/audit-log`: who changed what.

use super::Api;
use super::auth::{InOrganization, OrganizationHeader, Reads};
use super::problem::Problem;
use super::query::{List, Paging, Query};
use axum::extract::State;
use model::tenancy::{ApiKey, AuditEntry};
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists the changes in the organization that the key may see, the newest first.
#[utoipa::path(get, path = "/v1/audit-log", operation_id = "listAuditLog", tag = "administration",
    params(OrganizationHeader, Paging),
    responses((status = 200, body = List<AuditEntry>, description = "A page of entries; it may have fewer than `limit` and still not be the last.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Reads>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<AuditEntry>>, Problem> {
    let mut listed = api.store.audit_log(&scope.ims_org, paging.page()?).await?;
    listed.items.retain(|entry| sees(&scope.caller.key, entry));
    Ok(List::of(listed, |entry| entry))
}

/// A key for some sandboxes sees what happened in those.
fn sees(key: &ApiKey, entry: &AuditEntry) -> bool {
    key.sandboxes.is_none() || entry.sandbox.as_ref().is_some_and(|name| key.reaches_sandbox(name))
}
