//! `/v1/channel-configurations`: through what messages are sent.

use super::Api;
use super::auth::{Edits, InSandbox, Reads, SandboxHeaders};
use super::body::{Input, Json, read_only};
use super::etag::{IfMatch, IfMatchHeader, Tagged};
use super::problem::{Problem, ProblemDocument};
use super::query::{Id, List, Paging, Query};
use super::webhooks::changed;
use axum::extract::State;
use http::StatusCode;
use model::channel::{ChannelConfiguration, ChannelSettings};
use model::fault::Faults;
use model::ids::ChannelConfigurationId;
use model::secret::HasSecrets;
use model::webhook::{SandboxRef, Stamps};
use serde::Serialize;
use std::sync::Arc;
use store::admin::Edit;
use store::wake::Hint;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, replace, delete))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// A channel configuration as it is read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelConfigurationRead {
    /// Its id.
    id: ChannelConfigurationId,
    /// Its organization.
    ims_org: String,
    /// Its sandbox.
    sandbox: SandboxRef,
    #[serde(flatten)]
    settings: ChannelSettings,
    /// Whether sending is paused by hand.
    paused: bool,
    #[serde(flatten)]
    stamps: Stamps,
}

impl ChannelConfigurationRead {
    fn of<R>(channel: &ChannelConfiguration, scope: &InSandbox<R>) -> Self {
        Self {
            id: channel.id,
            ims_org: channel.ims_org.clone(),
            sandbox: SandboxRef { id: channel.sandbox, name: scope.sandbox.name.clone() },
            settings: channel.settings.clone(),
            paused: channel.paused,
            stamps: channel.stamps.clone(),
        }
    }
}

impl Input for ChannelSettings {
    const READ_ONLY: &'static [&'static str] = read_only!("id", "imsOrg", "sandbox", "paused");
}

fn check(settings: &ChannelSettings) -> Result<(), Problem> {
    let mut faults = Faults::default();
    settings.check(&mut faults);
    Ok(faults.into_result()?)
}

/// Changes a channel configuration and tells its owner.
async fn change(
    api: &Api,
    scope: &InSandbox<Edits>,
    id: ChannelConfigurationId,
    if_match: &IfMatch,
    action: &str,
    apply: impl FnOnce(&mut ChannelConfiguration) -> Result<(), Problem>,
) -> Result<Tagged<ChannelConfigurationRead>, Problem> {
    let mut channel = api.store.channel(scope.sandbox.id, id).await?;
    if_match.check(channel.stamps.revision)?;
    let now = api.clock.now();
    apply(&mut channel)?;
    channel.stamps.touch(now, scope.by());
    let answer = ChannelConfigurationRead::of(&channel, scope);
    let revision = channel.stamps.revision;
    let audit = scope.audit(api, now, action, id, &answer);
    let stored = api.store.update_channel(channel, audit).await;
    stored.map_err(|error| changed(error, if_match))?;
    api.wake.hint(Hint::Channel(id));
    Ok(Tagged::ok(revision, answer))
}

/// Makes a channel configuration.
#[utoipa::path(post, path = "/v1/channel-configurations", operation_id = "createChannelConfiguration", tag = "channel-configurations",
    params(SandboxHeaders),
    request_body(content = ChannelSettings, example = json!({
        "name": "transactional-mail", "channel": "email", "type": "smtp",
        "smtp": {"host": "127.0.0.1", "port": 25, "tls": "none"},
        "from": {"name": "Acme", "address": "orders@acme.example"}})),
    responses((status = 201, body = ChannelConfigurationRead, description = "The channel configuration.")))]
async fn create(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Json(settings): Json<ChannelSettings>,
) -> Result<Tagged<ChannelConfigurationRead>, Problem> {
    check(&settings)?;
    let now = api.clock.now();
    let channel = ChannelConfiguration {
        id: ChannelConfigurationId::new(now, &*api.entropy),
        ims_org: scope.sandbox.ims_org.clone(),
        sandbox: scope.sandbox.id,
        settings,
        paused: false,
        stamps: Stamps::new(now, scope.by()),
    };
    let answer = ChannelConfigurationRead::of(&channel, &scope);
    let audit = scope.audit(&api, now, "channel-configuration.create", channel.id, &answer);
    api.store.create_channel(channel, audit).await?;
    Ok(Tagged::created(answer.stamps.revision, answer))
}

/// Lists the sandbox's channel configurations.
#[utoipa::path(get, path = "/v1/channel-configurations", operation_id = "listChannelConfigurations", tag = "channel-configurations",
    params(SandboxHeaders, Paging),
    responses((status = 200, body = List<ChannelConfigurationRead>, description = "A page of channel configurations.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Query(paging): Query<Paging>,
) -> Result<axum::Json<List<ChannelConfigurationRead>>, Problem> {
    let listed = api.store.channels(scope.sandbox.id, paging.page()?).await?;
    Ok(List::of(listed, |channel| ChannelConfigurationRead::of(&channel, &scope)))
}

/// Reads a channel configuration.
#[utoipa::path(get, path = "/v1/channel-configurations/{id}", operation_id = "getChannelConfiguration", tag = "channel-configurations",
    params(SandboxHeaders, ("id" = ChannelConfigurationId, Path, description = "The channel configuration's id.")),
    responses((status = 200, body = ChannelConfigurationRead, description = "The channel configuration.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Id(id): Id<ChannelConfigurationId>,
) -> Result<Tagged<ChannelConfigurationRead>, Problem> {
    let channel = api.store.channel(scope.sandbox.id, id).await?;
    Ok(Tagged::ok(channel.stamps.revision, ChannelConfigurationRead::of(&channel, &scope)))
}

/// Replaces a channel configuration's settings: an omitted field takes its default, an omitted secret stays.
#[utoipa::path(put, path = "/v1/channel-configurations/{id}", operation_id = "replaceChannelConfiguration", tag = "channel-configurations",
    params(SandboxHeaders, IfMatchHeader, ("id" = ChannelConfigurationId, Path, description = "The channel configuration's id.")),
    request_body = ChannelSettings,
    responses((status = 200, body = ChannelConfigurationRead, description = "The channel configuration as it is now."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The channel may not change: campaigns rely on it."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn replace(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<ChannelConfigurationId>,
    if_match: IfMatch,
    Json(mut settings): Json<ChannelSettings>,
) -> Result<Tagged<ChannelConfigurationRead>, Problem> {
    change(&api, &scope, id, &if_match, "channel-configuration.replace", |channel| {
        settings.fill_secrets(&channel.settings.take_secrets());
        check(&settings)?;
        if settings.channel != channel.settings.channel {
            let why = "the channel of a channel configuration does not change; make another one";
            return Err(Problem::WrongState(why.to_owned()));
        }
        channel.settings = settings;
        Ok(())
    })
    .await
}

/// Deletes a channel configuration that no campaign uses.
#[utoipa::path(delete, path = "/v1/channel-configurations/{id}", operation_id = "deleteChannelConfiguration", tag = "channel-configurations",
    params(SandboxHeaders, IfMatchHeader, ("id" = ChannelConfigurationId, Path, description = "The channel configuration's id.")),
    responses((status = 204, description = "It is deleted."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "A campaign uses it."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn delete(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<ChannelConfigurationId>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let channel = api.store.channel(scope.sandbox.id, id).await?;
    if_match.check(channel.stamps.revision)?;
    let detail = ChannelConfigurationRead::of(&channel, &scope);
    let audit = scope.audit(&api, api.clock.now(), "channel-configuration.delete", id, &detail);
    let seen_revision = if_match.is_given().then_some(channel.stamps.revision);
    let deleted = api.store.delete_channel(Edit { sandbox: scope.sandbox.id, id, seen_revision }, audit).await;
    deleted.map_err(|error| changed(error, &if_match))?;
    api.wake.hint(Hint::Channel(id));
    Ok(StatusCode::NO_CONTENT)
}

/// Pauses sending: messages wait.
#[utoipa::path(post, path = "/v1/channel-configurations/{id}/pause", operation_id = "pauseChannelConfiguration", tag = "channel-configurations",
    params(SandboxHeaders, IfMatchHeader, ("id" = ChannelConfigurationId, Path, description = "The channel configuration's id.")),
    responses((status = 200, body = ChannelConfigurationRead, description = "The channel configuration as it is now."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn pause(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<ChannelConfigurationId>,
    if_match: IfMatch,
) -> Result<Tagged<ChannelConfigurationRead>, Problem> {
    let apply = |channel: &mut ChannelConfiguration| {
        channel.paused = true;
        Ok(())
    };
    change(&api, &scope, id, &if_match, "channel-configuration.pause", apply).await
}

/// Ends a pause: what waited is sent.
#[utoipa::path(post, path = "/v1/channel-configurations/{id}/resume", operation_id = "resumeChannelConfiguration", tag = "channel-configurations",
    params(SandboxHeaders, IfMatchHeader, ("id" = ChannelConfigurationId, Path, description = "The channel configuration's id.")),
    responses((status = 200, body = ChannelConfigurationRead, description = "The channel configuration as it is now."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn resume(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<ChannelConfigurationId>,
    if_match: IfMatch,
) -> Result<Tagged<ChannelConfigurationRead>, Problem> {
    let apply = |channel: &mut ChannelConfiguration| {
        channel.paused = false;
        Ok(())
    };
    change(&api, &scope, id, &if_match, "channel-configuration.resume", apply).await
}
