//! `/v1/feedback-webhooks/{id}/…`: what is done to a webhook besides its settings.

use super::Api;
use super::auth::{Edits, InSandbox, SandboxHeaders};
use super::body::{Input, OptionalJson};
use super::etag::{IfMatch, IfMatchHeader, Tagged};
use super::problem::{Problem, ProblemDocument};
use super::query::Id;
use super::views::AttemptRead;
use super::webhook_keys;
use super::webhooks::{WebhookRead, WebhookWithSecret};
use axum::Json;
use axum::extract::State;
use model::ids::WebhookId;
use model::webhook::Webhook;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use store::wake::Hint;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(test))
        .routes(routes!(enable))
        .routes(routes!(disable))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(drain))
        .routes(routes!(rotate_secret))
        .routes(routes!(rotate_key))
}

/// How a rotation goes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RotationRequest {
    /// For how long the former one is good beside the new one, up to 7 days; 24 hours unless the operator set another.
    #[schema(maximum = 604_800)]
    overlap_seconds: Option<u32>,
}

impl Input for RotationRequest {}

/// The longest overlap of a rotation, in seconds.
const MAX_OVERLAP_SECONDS: u32 = 7 * 86_400;

impl RotationRequest {
    fn overlap(&self) -> Result<Option<Duration>, Problem> {
        if self.overlap_seconds.is_some_and(|seconds| seconds > MAX_OVERLAP_SECONDS) {
            return Err(Problem::fault("$.overlapSeconds", "must be from 0 to 604800"));
        }
        Ok(self.overlap_seconds.map(u64::from).map(Duration::from_secs))
    }
}

/// What draining did.
#[derive(Debug, Serialize, ToSchema)]
struct Drained {
    /// How many deliveries it made due.
    deliveries: u64,
}

/// Sends a sample, marked `esito-test: true`, and answers what the endpoint said.
#[utoipa::path(post, path = "/v1/feedback-webhooks/{id}/test", operation_id = "testFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, ("id" = WebhookId, Path, description = "The webhook's id.")),
    responses((status = 200, body = AttemptRead, description = "The attempt, whether it succeeded or not.")))]
async fn test(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
) -> Result<Json<AttemptRead>, Problem> {
    let webhook = api.store.webhook(scope.sandbox.id, id).await?;
    Ok(Json(AttemptRead::of(api.outside.test_webhook(&webhook).await)))
}

async fn change(
    api: &Api,
    scope: &InSandbox<Edits>,
    id: WebhookId,
    if_match: &IfMatch,
    action: &str,
    apply: impl FnOnce(&mut Webhook),
) -> Result<Tagged<WebhookRead>, Problem> {
    let now = api.clock.now();
    let mut webhook = api.webhook_to_change(scope, id, if_match, now).await?;
    apply(&mut webhook);
    api.save_webhook(scope, &mut webhook, if_match, action).await?;
    Ok(Tagged::ok(webhook.stamps.revision, WebhookRead::of(&webhook, now)))
}

/// Enables a webhook, also one whose endpoint answered 410: what was held goes out.
#[utoipa::path(post, path = "/v1/feedback-webhooks/{id}/enable", operation_id = "enableFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, IfMatchHeader, ("id" = WebhookId, Path, description = "The webhook's id.")),
    responses((status = 200, body = WebhookRead, description = "The webhook as it is now."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn enable(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
    if_match: IfMatch,
) -> Result<Tagged<WebhookRead>, Problem> {
    change(&api, &scope, id, &if_match, "feedback-webhook.enable", |webhook| {
        webhook.settings.enabled = true;
        webhook.control.gone_at = None;
    })
    .await
}

/// Disables a webhook: its events are held.
#[utoipa::path(post, path = "/v1/feedback-webhooks/{id}/disable", operation_id = "disableFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, IfMatchHeader, ("id" = WebhookId, Path, description = "The webhook's id.")),
    responses((status = 200, body = WebhookRead, description = "The webhook as it is now."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn disable(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
    if_match: IfMatch,
) -> Result<Tagged<WebhookRead>, Problem> {
    change(&api, &scope, id, &if_match, "feedback-webhook.disable", |webhook| webhook.settings.enabled = false).await
}

/// Pauses a webhook: its events are held.
#[utoipa::path(post, path = "/v1/feedback-webhooks/{id}/pause", operation_id = "pauseFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, IfMatchHeader, ("id" = WebhookId, Path, description = "The webhook's id.")),
    responses((status = 200, body = WebhookRead, description = "The webhook as it is now."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn pause(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
    if_match: IfMatch,
) -> Result<Tagged<WebhookRead>, Problem> {
    change(&api, &scope, id, &if_match, "feedback-webhook.pause", |webhook| webhook.control.paused = true).await
}

/// Ends a pause: what was held goes out.
#[utoipa::path(post, path = "/v1/feedback-webhooks/{id}/resume", operation_id = "resumeFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, IfMatchHeader, ("id" = WebhookId, Path, description = "The webhook's id.")),
    responses((status = 200, body = WebhookRead, description = "The webhook as it is now."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn resume(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
    if_match: IfMatch,
) -> Result<Tagged<WebhookRead>, Problem> {
    change(&api, &scope, id, &if_match, "feedback-webhook.resume", |webhook| webhook.control.paused = false).await
}

/// Makes every delivery that waits for its next attempt due at once.
#[utoipa::path(post, path = "/v1/feedback-webhooks/{id}/drain", operation_id = "drainFeedbackWebhook", tag = "feedback-webhooks",
    params(SandboxHeaders, ("id" = WebhookId, Path, description = "The webhook's id.")),
    responses((status = 200, body = Drained, description = "How many deliveries became due.")))]
async fn drain(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
) -> Result<Json<Drained>, Problem> {
    let webhook = api.store.webhook(scope.sandbox.id, id).await?;
    let now = api.clock.now();
    let audit = scope.audit(&api, now, "feedback-webhook.drain", id, &WebhookRead::of(&webhook, now));
    let deliveries = api.store.drain_webhook(scope.sandbox.id, now, audit).await?;
    api.wake.hint(Hint::Drain(scope.sandbox.id));
    Ok(Json(Drained { deliveries }))
}

/// Makes a new signing secret, or a new key pair where `signing` is `v1a`. The former one signs beside it for a while.
#[utoipa::path(post, path = "/v1/feedback-webhooks/{id}/rotate-secret", operation_id = "rotateFeedbackWebhookSecret", tag = "feedback-webhooks",
    params(SandboxHeaders, IfMatchHeader, ("id" = WebhookId, Path, description = "The webhook's id.")),
    request_body = Option<RotationRequest>,
    responses((status = 200, body = WebhookWithSecret, description = "The webhook with its new secret, shown this once, or its new public key."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn rotate_secret(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
    if_match: IfMatch,
    OptionalJson(request): OptionalJson<RotationRequest>,
) -> Result<Tagged<WebhookWithSecret>, Problem> {
    let now = api.clock.now();
    let rotation = api.rotation(now, request.overlap()?);
    let mut webhook = api.webhook_to_change(&scope, id, &if_match, now).await?;
    let secret = webhook_keys::add_signing_key(&mut webhook, &rotation)?;
    api.save_webhook(&scope, &mut webhook, &if_match, "feedback-webhook.rotate-secret").await?;
    Ok(Tagged::ok(webhook.stamps.revision, WebhookWithSecret::of(&webhook, secret, now)))
}

/// Makes a new key pair for the webhook's tokens or assertions, where Esito made the present one. The former public key stays at
/// `/.well-known/jwks.json` for a while.
#[utoipa::path(post, path = "/v1/feedback-webhooks/{id}/rotate-key", operation_id = "rotateFeedbackWebhookKey", tag = "feedback-webhooks",
    params(SandboxHeaders, IfMatchHeader, ("id" = WebhookId, Path, description = "The webhook's id.")),
    request_body = Option<RotationRequest>,
    responses((status = 200, body = WebhookRead, description = "The webhook as it is now."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "The webhook has no key pair of Esito's own making."),
        (status = 412, body = ProblemDocument, content_type = "application/problem+json", description = "It was changed meanwhile.")))]
async fn rotate_key(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<WebhookId>,
    if_match: IfMatch,
    OptionalJson(request): OptionalJson<RotationRequest>,
) -> Result<Tagged<WebhookRead>, Problem> {
    let now = api.clock.now();
    let rotation = api.rotation(now, request.overlap()?);
    let mut webhook = api.webhook_to_change(&scope, id, &if_match, now).await?;
    webhook_keys::rotate_key_pair(&mut webhook, &rotation).await?;
    api.save_webhook(&scope, &mut webhook, &if_match, "feedback-webhook.rotate-key").await?;
    Ok(Tagged::ok(webhook.stamps.revision, WebhookRead::of(&webhook, now)))
}
