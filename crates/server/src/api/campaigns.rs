//! `/v1/campaigns`: what is sent, in versions. A draft becomes live by being activated; once live it never changes, and
//! accepted messages keep the version that they were accepted with.

use super::Api;
use super::auth::{Edits, InSandbox, Reads, SandboxHeaders};
use super::body::{Input, Json, read_only};
use super::etag::{IfMatch, IfMatchHeader, Tagged};
use super::problem::{Problem, ProblemDocument};
use super::query::{Id, List, Paging, Query};
use super::webhooks::changed;
use axum::extract::State;
use http::StatusCode;
use model::campaign::{Campaign, CampaignSettings, CampaignStatus, CampaignVersion};
use model::clock::Timestamp;
use model::fault::Faults;
use model::ids::{CampaignId, CampaignVersionId};
use model::webhook::{SandboxRef, Stamps};
use serde::Serialize;
use std::sync::Arc;
use store::StoreError;
use store::admin::Edit;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wire::template::Template;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, replace, delete))
        .routes(routes!(versions))
        .routes(routes!(activate))
        .routes(routes!(stop))
}

/// A campaign as it is read: the settings are the draft's where there is one, else the live version's.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignRead {
    /// Its id.
    id: CampaignId,
    /// Its organization.
    ims_org: String,
    /// Its sandbox.
    sandbox: SandboxRef,
    /// Where it stands.
    status: CampaignStatus,
    /// The version that executions get: the live one; of a campaign that was never live the draft's.
    version_id: CampaignVersionId,
    /// Whether there is a draft that is not activated yet.
    has_draft: bool,
    #[serde(flatten)]
    settings: CampaignSettings,
    #[serde(flatten)]
    stamps: Stamps,
}

impl CampaignRead {
    /// The campaign as it is read. Every campaign has a draft or a live version.
    fn of<R>(campaign: &Campaign, scope: &InSandbox<R>) -> Result<Self, Problem> {
        let shown = campaign.current().ok_or(Problem::Internal)?;
        Ok(Self {
            id: campaign.id,
            ims_org: campaign.ims_org.clone(),
            sandbox: SandboxRef { id: campaign.sandbox, name: scope.sandbox.name.clone() },
            status: campaign.status,
            version_id: campaign.live.as_ref().unwrap_or(shown).id,
            has_draft: campaign.draft.is_some(),
            settings: shown.settings.clone(),
            stamps: campaign.stamps.clone(),
        })
    }
}

/// A version of a campaign that is or was live. It never changes.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct VersionRead {
    /// Its id.
    version_id: CampaignVersionId,
    /// Whether executions get it now; of a stopped campaign it is the last one that they got.
    live: bool,
    #[serde(flatten)]
    settings: CampaignSettings,
}

impl Input for CampaignSettings {
    const READ_ONLY: &'static [&'static str] = read_only!("id", "imsOrg", "sandbox", "status", "versionId", "hasDraft");
}

/// Checks the settings, the templates' syntax, and that there is such a channel configuration.
async fn check<R>(api: &Api, scope: &InSandbox<R>, settings: &CampaignSettings) -> Result<(), Problem> {
    let mut faults = Faults::default();
    settings.check(&mut faults);
    for fault in Template::compile(settings.channel, &settings.content).err().into_iter().flatten() {
        faults.add(fault.path, fault.message);
    }
    let path = "$.channelConfigurationId";
    match api.store.channel(scope.sandbox.id, settings.channel_configuration_id).await {
        Ok(channel) => {
            let same = channel.settings.channel == settings.channel;
            faults.require(same, path, "is a channel configuration of another channel");
        }
        Err(StoreError::NotFound(_)) => faults.add(path, "the sandbox has no such channel configuration"),
        Err(error) => return Err(error.into()),
    }
    Ok(faults.into_result()?)
}

impl Api {
    async fn campaign_to_change(
        &self,
        scope: &InSandbox<Edits>,
        id: CampaignId,
        if_match: &IfMatch,
        now: Timestamp,
    ) -> Result<Campaign, Problem> {
        let mut campaign = self.store.campaign(scope.sandbox.id, id).await?;
        if_match.check(campaign.stamps.revision)?;
        campaign.stamps.touch(now, scope.by());
        Ok(campaign)
    }

    async fn save_campaign(
        &self,
        scope: &InSandbox<Edits>,
        campaign: Campaign,
        if_match: &IfMatch,
        action: &str,
    ) -> Result<Tagged<CampaignRead>, Problem> {
        let answer = CampaignRead::of(&campaign, scope)?;
        let stamps = &campaign.stamps;
        let revision = stamps.revision;
        let audit = scope.audit(self, stamps.modified_at, action, campaign.id, &answer);
        let stored = self.store.update_campaign(campaign, audit).await;
        stored.map_err(|error| changed(error, if_match))?;
        Ok(Tagged::ok(revision, answer))
    }
}

/// Makes a campaign, as a draft.
#[utoipa::path(post, path = "/v1/campaigns", operation_id = "createCampaign", tag = "campaigns",
    params(SandboxHeaders),
    request_body(content = CampaignSettings, example = json!({
        "name": "order confirmation", "channel": "email",
        "channelConfigurationId": "01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11",
        "content": {"subject": "Order {{context.orderNumber}}", "html": "<p>Thank you!</p>"},
        "audience": {"enableWebhooks": true}})),
    responses((status = 201, body = CampaignRead, description = "The campaign.")))]
async fn create(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Json(settings): Json<CampaignSettings>,
) -> Result<Tagged<CampaignRead>, Problem> {
    check(&api, &scope, &settings).await?;
    let now = api.clock.now();
    let campaign = Campaign {
        id: CampaignId::new(now, &*api.entropy),
        ims_org: scope.sandbox.ims_org.clone(),
        sandbox: scope.sandbox.id,
        status: CampaignStatus::Draft,
        live: None,
        draft: Some(CampaignVersion { id: CampaignVersionId::new(now, &*api.entropy), settings }),
        stamps: Stamps::new(now, scope.by()),
    };
    let answer = CampaignRead::of(&campaign, &scope)?;
    let audit = scope.audit(&api, now, "campaign.create", campaign.id, &answer);
    api.store.create_campaign(campaign, audit).await?;
    Ok(Tagged::created(answer.stamps.revision, answer))
}

/// Lists the sandbox's campaigns.
#[utoipa::path(get, path = "/v1/campaigns", operation_id = "listCampaigns", tag = "campaigns",
    params(SandboxHeaders, Paging),
    responses((status = 200, body = List<CampaignRead>, description = "A page of campaigns.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<CampaignRead>>, Problem> {
    let listed = api.store.campaigns(scope.sandbox.id, paging.page()?).await?;
    let items = listed.items.iter().map(|campaign| CampaignRead::of(campaign, &scope)).collect::<Result<_, _>>()?;
    Ok(axum::Json(List { items, next_cursor: listed.next }))
}

/// Reads a campaign.
#[utoipa::path(get, path = "/v1/campaigns/{id}", operation_id = "getCampaign", tag = "campaigns",
    params(SandboxHeaders, ("id" = CampaignId, Path, description = "The campaign's id.")),
    responses((status = 200, body = CampaignRead, description = "The campaign.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Id(id): Id<CampaignId>,
) -> Result<Tagged<CampaignRead>, Problem> {
    let campaign = api.store.campaign(scope.sandbox.id, id).await?;
    Ok(Tagged::ok(campaign.stamps.revision, CampaignRead::of(&campaign, &scope)?))
}

/// Lists the versions of a campaign that are or were live, the newest first.
#[utoipa::path(get, path = "/v1/campaigns/{id}/versions", operation_id = "listCampaignVersions", tag = "campaigns",
    params(SandboxHeaders, ("id" = CampaignId, Path, description = "The campaign's id."), Paging),
    responses((status = 200, body = List<VersionRead>, description = "A page of versions.")))]
async fn versions(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Id(id): Id<CampaignId>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<VersionRead>>, Problem> {
    let page = paging.page()?;
    let listed = api.store.campaign_versions(scope.sandbox.id, id, page).await?;
    let live = api.store.campaign(scope.sandbox.id, id).await?.live.map(|version| version.id);
    let read = |CampaignVersion { id, settings }| VersionRead { version_id: id, live: live == Some(id), settings };
    Ok(List::of(listed, read))
}

/// Replaces a campaign's draft; of a live campaign it makes one, which goes live when activated.
#[utoipa::path(put, path = "/v1/campaigns/{id}", operation_id = "replaceCampaign", tag = "campaigns",
    params(SandboxHeaders, IfMatchHeader, ("id" = CampaignId, Path, description = "The campaign's id.")),
    request_body = CampaignSettings,
    responses((status = 200, body = CampaignRead, description = "The campaign as it is now."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It is stopped."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn replace(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<CampaignId>,
    if_match: IfMatch,
    Json(settings): Json<CampaignSettings>,
) -> Result<Tagged<CampaignRead>, Problem> {
    let now = api.clock.now();
    let mut campaign = api.campaign_to_change(&scope, id, &if_match, now).await?;
    if campaign.status == CampaignStatus::Stopped {
        return Err(Problem::WrongState("the campaign is stopped for good; make another one".to_owned()));
    }
    check(&api, &scope, &settings).await?;
    match &mut campaign.draft {
        Some(draft) => draft.settings = settings,
        none => *none = Some(CampaignVersion { id: CampaignVersionId::new(now, &*api.entropy), settings }),
    }
    api.save_campaign(&scope, campaign, &if_match, "campaign.replace").await
}

/// Deletes a campaign that was never live.
#[utoipa::path(delete, path = "/v1/campaigns/{id}", operation_id = "deleteCampaign", tag = "campaigns",
    params(SandboxHeaders, IfMatchHeader, ("id" = CampaignId, Path, description = "The campaign's id.")),
    responses((status = 204, description = "It is deleted."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It is or was live."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn delete(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<CampaignId>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let campaign = api.store.campaign(scope.sandbox.id, id).await?;
    if_match.check(campaign.stamps.revision)?;
    let detail = CampaignRead::of(&campaign, &scope)?;
    let audit = scope.audit(&api, api.clock.now(), "campaign.delete", id, &detail);
    let seen_revision = if_match.is_given().then_some(campaign.stamps.revision);
    let deleted = api.store.delete_campaign(Edit { sandbox: scope.sandbox.id, id, seen_revision }, audit).await;
    deleted.map_err(|error| changed(error, &if_match))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes the draft live: executions from now on get it. A live campaign without a draft stays as it is.
#[utoipa::path(post, path = "/v1/campaigns/{id}/activate", operation_id = "activateCampaign", tag = "campaigns",
    params(SandboxHeaders, IfMatchHeader, ("id" = CampaignId, Path, description = "The campaign's id.")),
    responses((status = 200, body = CampaignRead, description = "The campaign, live."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It is stopped."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn activate(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<CampaignId>,
    if_match: IfMatch,
) -> Result<Tagged<CampaignRead>, Problem> {
    let mut campaign = api.campaign_to_change(&scope, id, &if_match, api.clock.now()).await?;
    match (campaign.status, campaign.draft.take()) {
        (CampaignStatus::Stopped, _) => {
            Err(Problem::WrongState("the campaign is stopped for good; make another one".to_owned()))
        }
        (_, None) => read(State(api), scope.narrowed(), Id(id)).await,
        (_, Some(draft)) => {
            // What was right when it was written may be so no more: its channel configuration, say.
            check(&api, &scope, &draft.settings).await?;
            campaign.live = Some(draft);
            campaign.status = CampaignStatus::Live;
            api.save_campaign(&scope, campaign, &if_match, "campaign.activate").await
        }
    }
}

/// Stops a live campaign for good: it takes no executions any more. Messages already accepted are sent.
#[utoipa::path(post, path = "/v1/campaigns/{id}/stop", operation_id = "stopCampaign", tag = "campaigns",
    params(SandboxHeaders, IfMatchHeader, ("id" = CampaignId, Path, description = "The campaign's id.")),
    responses((status = 200, body = CampaignRead, description = "The campaign, stopped."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It was never live."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn stop(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<CampaignId>,
    if_match: IfMatch,
) -> Result<Tagged<CampaignRead>, Problem> {
    let mut campaign = api.campaign_to_change(&scope, id, &if_match, api.clock.now()).await?;
    match campaign.status {
        CampaignStatus::Draft => Err(Problem::WrongState("the campaign was never live; delete it instead".to_owned())),
        CampaignStatus::Stopped => read(State(api), scope.narrowed(), Id(id)).await,
        CampaignStatus::Live => {
            // A draft can never go live any more.
            campaign.draft = None;
            campaign.status = CampaignStatus::Stopped;
            api.save_campaign(&scope, campaign, &if_match, "campaign.stop").await
        }
    }
}
