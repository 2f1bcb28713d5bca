//! `/v1/feedback-webhooks`: who is told about messages, where and how. At most one a sandbox.

use super::Api;
use super::auth::{Edits, InOrganization, InSandbox, OrganizationHeader, Reads, SandboxHeaders};
use super::body::{Input, Json, read_only};
use super::etag::{IfMatch, IfMatchHeader, Tagged};
use super::problem::{Problem, ProblemDocument};
use super::query::{Id, List, Query, largest_page, page};
use super::webhook_keys::{self, Rotation};
use axum::extract::{FromRequestParts, State};
use http::StatusCode;
use http::request::Parts;
use model::clock::Timestamp;
use model::fault::Faults;
use model::ids::{SandboxId, WebhookId};
use model::secret::{HasSecrets, Secret};
use model::webhook::{SandboxRef, Stamps, Webhook, WebhookControl, WebhookKeys, WebhookSettings, WebhookState};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::admin::Edit;
use store::wake::Hint;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(create, list)).routes(routes!(read, replace, delete))
}

/// A feedback webhook as it is read.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookRead {
    /// Its id.
    id: WebhookId,
    /// Its organization.
    ims_org: String,
    /// Its sandbox.
    sandbox: SandboxRef,
    #[serde(flatten)]
    settings: WebhookSettings,
    /// Whether its events go out.
    state: WebhookState,
    /// Why, where they do not or attempts fail.
    state_reason: Option<String>,
    /// The public key of the Standard Webhooks signature, where `signing` is `v1a`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=")]
    signing_public_key: Option<String>,
    /// Former public keys whose private halves still sign beside the present one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    former_signing_public_keys: Vec<FormerPublicKey>,
    #[serde(flatten)]
    stamps: Stamps,
}

/// A public key that has a successor.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FormerPublicKey {
    /// The key.
    public_key: String,
    /// Until when it is good.
    expires_at: Timestamp,
}

/// A feedback webhook with the secret that Esito made for its signatures, where it has made one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookWithSecret {
    #[serde(flatten)]
    webhook: WebhookRead,
    /// The new secret of the Standard Webhooks signature: shown this once. None where there is no new one, and for
    /// `v1a`, whose key pair shows its public half only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")]
    signing_secret: Option<String>,
}

impl WebhookRead {
    /// The webhook as it is read at `now`; its secrets show only that they are set.
    pub fn of(webhook: &Webhook, now: Timestamp) -> Self {
        let (state, state_reason) = webhook.state();
        let pairs = || webhook.keys.signing.iter().filter_map(|key| Some((key.public_key.clone()?, key.expires_at)));
        let current = pairs().find(|(_, expires_at)| expires_at.is_none());
        let former = pairs().filter_map(|(public_key, expires_at)| {
            let expires_at = expires_at.filter(|end| now < *end)?;
            Some(FormerPublicKey { public_key, expires_at })
        });
        Self {
            id: webhook.id,
            ims_org: webhook.ims_org.clone(),
            sandbox: webhook.sandbox.clone(),
            settings: webhook.settings.clone(),
            state,
            state_reason,
            signing_public_key: current.map(|(public_key, _)| public_key),
            former_signing_public_keys: former.collect(),
            stamps: webhook.stamps.clone(),
        }
    }
}

impl WebhookWithSecret {
    /// The webhook as it is read at `now`, with a new secret where there is one.
    pub fn of(webhook: &Webhook, signing_secret: Option<String>, now: Timestamp) -> Self {
        Self { webhook: WebhookRead::of(webhook, now), signing_secret }
    }
}

impl Input for WebhookSettings {
    const READ_ONLY: &'static [&'static str] = read_only!(
        "id",
        "imsOrg",
        "sandbox",
        "state",
        "stateReason",
        "signingSecret",
        "signingPublicKey",
        "formerSigningPublicKeys"
    );
}

/// What the handlers of this resource share.
impl Api {
    /// A webhook that the caller is about to change.
    pub(super) async fn webhook_to_change(
        &self,
        scope: &InSandbox<Edits>,
        id: WebhookId,
        if_match: &IfMatch,
        now: Timestamp,
    ) -> Result<Webhook, Problem> {
        let mut webhook = self.store.webhook(scope.sandbox.id, id).await?;
        if_match.check(webhook.stamps.revision)?;
        webhook.stamps.touch(now, scope.by());
        Ok(webhook)
    }

    /// Stores a changed webhook and tells its owner.
    pub(super) async fn save_webhook(
        &self,
        scope: &InSandbox<Edits>,
        webhook: &mut Webhook,
        if_match: &IfMatch,
        action: &str,
    ) -> Result<(), Problem> {
        let now = webhook.stamps.modified_at;
        webhook.note_hold(now);
        let audit = scope.audit(self, now, action, webhook.id, &WebhookRead::of(webhook, now));
        let stored = self.store.update_webhook(webhook.clone(), audit).await;
        stored.map_err(|error| changed(error, if_match))?;
        self.webhook_changed(scope.sandbox.id);
        Ok(())
    }

    fn webhook_changed(&self, sandbox: SandboxId) {
        self.jwks.clear();
        self.wake.hint(Hint::Webhook(sandbox));
    }

    async fn check_webhook(&self, settings: &WebhookSettings) -> Result<(), Problem> {
        let mut faults = Faults::default();
        settings.check(&mut faults);
        if let Err(why) = self.outside.check_url(&settings.url).await {
            faults.add("$.url", why);
        }
        if let Some(token_url) = &settings.authentication.token_url
            && let Err(why) = self.outside.check_url(token_url).await
        {
            faults.add("$.authentication.tokenUrl", why);
        }
        Ok(faults.into_result()?)
    }

    /// What a change of keys at `now` depends on.
    pub(super) fn rotation(&self, now: Timestamp, overlap: Option<Duration>) -> Rotation<'_> {
        let overlap = overlap.unwrap_or(self.settings.rotation_overlap);
        Rotation { now, overlap, entropy: &*self.entropy }
    }
}

/// A resource that changed between its read and its write: the caller's state is stale, or nobody's fault.
pub(super) fn changed(error: StoreError, if_match: &IfMatch) -> Problem {
    match error {
        StoreError::Changed if if_match.is_given() => Problem::PreconditionFailed { revision: None },
        error => error.into(),
    }
}

/// Makes the sandbox's webhook.
#[utoipa::path(post, path = "/v1/feedback-webhooks", operation_id = "createFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders),
    request_body(content = WebhookSettings, example = json!({
        "name": "orders", "channels": ["email"], "url": "https://hooks.example.com/esito",
        "authentication": {"type": "jwt", "algorithm": "ES256", "issuer": "esito", "audience": "hooks"},
        "headers": [{"name": "x-team", "value": "orders"}]})),
    responses(
        (status = 201, body = WebhookWithSecret, description = "The webhook, with its signing secret (none for `v1a`): shown this once."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The sandbox already has a webhook, which the problem names.")))]
async fn create(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Json(settings): Json<WebhookSettings>,
) -> Result<Tagged<WebhookWithSecret>, Problem> {
    api.check_webhook(&settings).await?;
    // The store decides; asked before, it saves the making of keys for nothing.
    if let Some(Webhook { id, settings, .. }) = api.store.webhook_of(scope.sandbox.id).await? {
        return Err(Problem::WebhookExists { id, name: settings.name });
    }
    let now = api.clock.now();
    let mut webhook = new_webhook(&api, &scope, settings, now);
    let rotation = api.rotation(now, None);
    let secret = webhook_keys::align_signing_key(&mut webhook, &rotation)?;
    webhook_keys::align_key_pair(&mut webhook, &rotation).await?;
    webhook.note_hold(now);
    let audit = scope.audit(&api, now, "feedback-webhook.create", webhook.id, &WebhookRead::of(&webhook, now));
    let answer = WebhookWithSecret::of(&webhook, secret, now);
    let revision = webhook.stamps.revision;
    api.store.create_webhook(webhook, audit).await?;
    api.webhook_changed(scope.sandbox.id);
    Ok(Tagged::created(revision, answer))
}

fn new_webhook(api: &Api, scope: &InSandbox<Edits>, settings: WebhookSettings, now: Timestamp) -> Webhook {
    Webhook {
        id: WebhookId::new(now, &*api.entropy),
        ims_org: scope.sandbox.ims_org.clone(),
        sandbox: SandboxRef { id: scope.sandbox.id, name: scope.sandbox.name.clone() },
        settings,
        keys: WebhookKeys::default(),
        control: WebhookControl::default(),
        stamps: Stamps::new(now, scope.by()),
    }
}

/// Which webhooks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct WebhookQuery {
    /// Those of every sandbox of the organization that the key may see; `x-sandbox-name` is then not needed.
    all_sandboxes: Option<bool>,
    /// The most items, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// The sandboxes that a list spans: all that the key may see, or the one that the headers name.
struct Spanned(Vec<SandboxId>, WebhookQuery);

impl FromRequestParts<Arc<Api>> for Spanned {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let organization = InOrganization::<Reads>::from_request_parts(parts, api).await?;
        let Query(query) = Query::<WebhookQuery>::from_request_parts(parts, api).await?;
        let sandboxes = match query.all_sandboxes {
            Some(true) => all_sandboxes(api, &organization).await?,
            _ => vec![InSandbox::<Reads>::from_request_parts(parts, api).await?.sandbox.id],
        };
        Ok(Self(sandboxes, query))
    }
}

async fn all_sandboxes(api: &Api, organization: &InOrganization<Reads>) -> Result<Vec<SandboxId>, Problem> {
    let mut ids = Vec::new();
    let mut cursor = None;
    loop {
        let listed = api.store.sandboxes(&organization.ims_org, largest_page(cursor)).await?;
        let seen = listed.items.iter().filter(|sandbox| organization.caller.key.reaches_sandbox(&sandbox.name));
        ids.extend(seen.map(|sandbox| sandbox.id));
        cursor = listed.next;
        if cursor.is_none() {
            return Ok(ids);
        }
    }
}

/// Lists the sandbox's webhook, or all of the organization's.
#[utoipa::path(get, path = "/v1/feedback-webhooks", operation_id = "listFeedbackWebhooks", tag = "feedback-webhooks",
    params(OrganizationHeader, ("x-sandbox-name" = Option<String>, Header, description = "The sandbox; required unless `allSandboxes` is true."), WebhookQuery),
    responses((status = 200, body = List<WebhookRead>, description = "A page of webhooks.")))]
async fn list(
    State(api): State<Arc<Api>>,
    Spanned(sandboxes, query): Spanned,
) -> Result<axum::Json<List<WebhookRead>>, Problem> {
    let page = page(query.limit, query.cursor)?;
    let listed = api.store.webhooks(sandboxes, page).await?;
    let now = api.clock.now();
    Ok(List::of(listed, |webhook| WebhookRead::of(&webhook, now)))
}

/// Reads a webhook.
#[utoipa::path(get, path = "/v1/feedback-webhooks/{id}", operation_id = "getFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, ("id" = WebhookId, Path, description = "The webhook's id.")),
    responses((status = 200, body = WebhookRead, description = "The webhook.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Id(id): Id<WebhookId>,
) -> Result<Tagged<WebhookRead>, Problem> {
    let webhook = api.store.webhook(scope.sandbox.id, id).await?;
    Ok(Tagged::ok(webhook.stamps.revision, WebhookRead::of(&webhook, api.clock.now())))
}

/// Replaces a webhook's settings: an omitted field takes its default, an omitted secret stays.
#[utoipa::path(put, path = "/v1/feedback-webhooks/{id}", operation_id = "replaceFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, IfMatchHeader, ("id" = WebhookId, Path, description = "The webhook's id.")),
    request_body = WebhookSettings,
    responses((status = 200, body = WebhookWithSecret, description = "The webhook as it is now, with a signing secret where the change of `signing` made one."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn replace(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
    if_match: IfMatch,
    Json(mut settings): Json<WebhookSettings>,
) -> Result<Tagged<WebhookWithSecret>, Problem> {
    let now = api.clock.now();
    let mut webhook = api.webhook_to_change(&scope, id, &if_match, now).await?;
    check_still_secret(&webhook.settings, &settings)?;
    settings.fill_secrets(&webhook.settings.take_secrets());
    api.check_webhook(&settings).await?;
    webhook.settings = settings;
    let rotation = api.rotation(now, None);
    let secret = webhook_keys::align_signing_key(&mut webhook, &rotation)?;
    webhook_keys::align_key_pair(&mut webhook, &rotation).await?;
    api.save_webhook(&scope, &mut webhook, &if_match, "feedback-webhook.replace").await?;
    Ok(Tagged::ok(webhook.stamps.revision, WebhookWithSecret::of(&webhook, secret, now)))
}

/// A header's value that was a secret is not laid open by taking the flag away.
fn check_still_secret(former: &WebhookSettings, settings: &WebhookSettings) -> Result<(), Problem> {
    let mut faults = Faults::default();
    for (i, header) in settings.headers.iter().enumerate() {
        let is_kept = header.value.as_ref().and_then(Secret::value).is_none();
        let was_secret = former.headers.iter().any(|one| one.secret && one.name.eq_ignore_ascii_case(&header.name));
        let stays = header.secret || !is_kept || !was_secret;
        faults.require(stays, &format!("$.headers[{i}].value"), "was a secret: write it anew to make it readable");
    }
    Ok(faults.into_result()?)
}

/// Deletes a webhook and cancels its deliveries.
#[utoipa::path(delete, path = "/v1/feedback-webhooks/{id}", operation_id = "deleteFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, IfMatchHeader, ("id" = WebhookId, Path, description = "The webhook's id.")),
    responses((status = 204, description = "It is deleted."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn delete(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    let webhook = api.store.webhook(scope.sandbox.id, id).await?;
    if_match.check(webhook.stamps.revision)?;
    let now = api.clock.now();
    let audit = scope.audit(&api, now, "feedback-webhook.delete", id, &WebhookRead::of(&webhook, now));
    let seen_revision = if_match.is_given().then_some(webhook.stamps.revision);
    let edit = Edit { sandbox: scope.sandbox.id, id, seen_revision };
    let deleted = api.store.delete_webhook(edit, now, audit).await;
    deleted.map_err(|error| changed(error, &if_match))?;
    api.webhook_changed(scope.sandbox.id);
    Ok(StatusCode::NO_CONTENT)
}
