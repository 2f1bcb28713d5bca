//! `/v1/organizations`: the tenants.

use super::Api;
use super::auth::{Administers, InOrganization, OrganizationHeader, Reads};
use super::body::{Input, Json, read_only};
use super::problem::{Problem, ProblemDocument};
use super::query::{List, NameInPath, Paging, Query};
use axum::extract::State;
use http::StatusCode;
use model::fault::Faults;
use model::retention::RetentionOverride;
use model::tenancy::{Organization, is_organization_id};
use serde::Deserialize;
use std::sync::Arc;
use store::StoreError;
use store::admin::NewOrganization;
use store::lookup::Listed;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, replace))
}

/// A new organization.
#[derive(Debug, Deserialize, ToSchema)]
struct OrganizationRequest {
    /// The id that callers name: letters, digits and `. _ - @`, at most 128.
    #[schema(example = "acme@EsitoOrg", pattern = "^[A-Za-z0-9._@-]{1,128}$")]
    id: String,
    /// A name for people.
    #[schema(example = "Acme")]
    name: String,
    /// How long its data is kept, where not as the operator sets.
    #[serde(default)]
    retention: RetentionOverride,
}

impl Input for OrganizationRequest {
    const READ_ONLY: &'static [&'static str] = read_only!();
}

/// What can be changed of an organization.
#[derive(Debug, Deserialize, ToSchema)]
struct OrganizationChange {
    /// A name for people.
    #[schema(example = "Acme")]
    name: String,
    /// How long its data is kept, where not as the operator sets.
    #[serde(default)]
    retention: RetentionOverride,
}

impl Input for OrganizationChange {
    const READ_ONLY: &'static [&'static str] = read_only!("id");
}

impl OrganizationRequest {
    fn check(&self) -> Result<(), Problem> {
        let mut faults = Faults::default();
        let fits = is_organization_id(&self.id);
        faults.require(fits, "$.id", "must have 1 to 128 letters, digits and . _ - @, such as acme@EsitoOrg");
        faults.check_name("$.name", &self.name);
        self.retention.check("$.retention", &mut faults);
        Ok(faults.into_result()?)
    }
}

impl Api {
    /// The organization of this id.
    pub(super) async fn organization(&self, id: &str) -> Result<Organization, Problem> {
        match self.store.organization(id).await {
            Err(StoreError::NotFound(_)) => Err(Problem::UnknownOrganization),
            other => Ok(other?),
        }
    }
}

/// Makes an organization. Needs an admin key of the default organization.
#[utoipa::path(post, path = "/v1/organizations", operation_id = "createOrganization", tag = "administration",
    params(OrganizationHeader), request_body = OrganizationRequest,
    responses((status = 201, body = Organization, description = "The organization."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The id is taken.")))]
async fn create(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Administers>,
    Json(request): Json<OrganizationRequest>,
) -> Result<(StatusCode, axum::Json<Organization>), Problem> {
    if !scope.caller.crosses_organizations() {
        return Err(Problem::BeyondKey("only an admin key of default@EsitoOrg for all sandboxes makes organizations"));
    }
    request.check()?;
    let now = api.clock.now();
    let created_by = scope.caller.key.name.clone();
    let organization =
        Organization { id: request.id, name: request.name, retention: request.retention, created_at: now, created_by };
    let mut audit = scope.audit(&api, now, "organization.create", &organization.id, &organization);
    audit.ims_org.clone_from(&organization.id);
    let new = NewOrganization { organization: organization.clone(), sandbox: None };
    api.store.create_organization(new, audit).await?;
    Ok((StatusCode::CREATED, axum::Json(organization)))
}

/// Lists the organizations that the key may see: its own; all for an admin key of the default organization.
#[utoipa::path(get, path = "/v1/organizations", operation_id = "listOrganizations", tag = "administration",
    params(OrganizationHeader, Paging),
    responses((status = 200, body = List<Organization>, description = "A page of organizations.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Reads>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<Organization>>, Problem> {
    let page = paging.page()?;
    let listed = match scope.caller.crosses_organizations() {
        true => api.store.organizations(page).await?,
        false => Listed { items: vec![api.organization(&scope.ims_org).await?], next: None },
    };
    Ok(List::of(listed, |organization| organization))
}

/// Reads an organization.
#[utoipa::path(get, path = "/v1/organizations/{id}", operation_id = "getOrganization", tag = "administration",
    params(OrganizationHeader, ("id" = String, Path, description = "The organization's id.")),
    responses((status = 200, body = Organization, description = "The organization.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Reads>,
    NameInPath(id): NameInPath,
) -> Result<axum::Json<Organization>, Problem> {
    // Whether another organization exists is nobody's business.
    scope.caller.check_organization(&id).map_err(|_| Problem::UnknownOrganization)?;
    api.organization(&id).await.map(axum::Json)
}

/// Replaces an organization's name and retention. Needs an admin key of the default organization.
#[utoipa::path(put, path = "/v1/organizations/{id}", operation_id = "replaceOrganization", tag = "administration",
    params(OrganizationHeader, ("id" = String, Path, description = "The organization's id.")),
    request_body = OrganizationChange,
    responses((status = 200, body = Organization, description = "The organization as it is now.")))]
async fn replace(
    State(api): State<Arc<Api>>,
    scope: InOrganization<Administers>,
    NameInPath(id): NameInPath,
    Json(change): Json<OrganizationChange>,
) -> Result<axum::Json<Organization>, Problem> {
    // Whether another organization exists is nobody's business.
    scope.caller.check_organization(&id).map_err(|_| Problem::UnknownOrganization)?;
    if !scope.caller.crosses_organizations() {
        return Err(Problem::BeyondKey(
            "only an admin key of default@EsitoOrg for all sandboxes changes organizations",
        ));
    }
    let mut faults = Faults::default();
    faults.check_name("$.name", &change.name);
    change.retention.check("$.retention", &mut faults);
    faults.into_result()?;
    let former = api.organization(&id).await?;
    let organization = Organization { name: change.name, retention: change.retention, ..former };
    let mut audit = scope.audit(&api, api.clock.now(), "organization.replace", &id, &organization);
    audit.ims_org.clone_from(&id);
    api.store.update_organization(organization.clone(), audit).await?;
    Ok(axum::Json(organization))
}
