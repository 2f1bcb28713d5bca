//! What programs look for at fixed places: public keys, the OpenAPI document, health.

use super::Api;
use super::problem::{Problem, ProblemDocument};
use super::query::Query;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::header;
use model::clock::Timestamp;
use model::ids::WebhookId;
use model::webhook::Webhook;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use store::StoreError;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(jwks)).routes(routes!(health)).routes(routes!(ready)).routes(routes!(openapi))
}

/// Whether the server is up.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// It is.
pub const OK: axum::Json<Health> = axum::Json(Health { status: "ok" });

/// Whose keys.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct JwksQuery {
    /// Only the keys of this webhook.
    webhook_id: Option<WebhookId>,
}

/// Public keys (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
pub struct Jwks {
    /// The keys.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<Value>,
}

impl Jwks {
    fn of<'a>(webhooks: impl Iterator<Item = &'a Webhook>, now: Timestamp) -> Self {
        let keys = webhooks.flat_map(|webhook| &webhook.keys.jwt);
        let published = keys.filter(|key| key.expires_at.is_none_or(|end| now < end));
        Self { keys: published.map(|key| key.public_jwk.clone()).collect() }
    }
}

/// The public keys that the webhooks' tokens are verified with; former ones too for a while after a rotation.
#[utoipa::path(get, path = "/.well-known/jwks.json", operation_id = "getJwks", tag = "well-known", params(JwksQuery),
    security(()), responses(
    (status = 200, body = Jwks, content_type = "application/jwk-set+json", description = "A JSON Web Key Set."),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json", description = "The store does not answer.")))]
async fn jwks(State(api): State<Arc<Api>>, Query(query): Query<JwksQuery>) -> Result<impl IntoResponse, Problem> {
    let now = api.clock.now();
    let cached = api.jwks.get(&(), now).filter(|_| query.webhook_id.is_none());
    let body = match cached {
        Some(body) => body,
        None => read_jwks(&api, query.webhook_id, now).await?,
    };
    let headers = [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, "public, max-age=60")];
    Ok((headers, body))
}

async fn read_jwks(api: &Api, only: Option<WebhookId>, now: Timestamp) -> Result<Bytes, Problem> {
    let webhooks = api.store.webhooks_with_keys().await?;
    let wanted = webhooks.iter().filter(|webhook| only.is_none_or(|id| webhook.id == id));
    let body = serde_json::to_vec(&Jwks::of(wanted, now)).expect("public keys are JSON");
    let body = Bytes::from(body);
    if only.is_none() {
        api.jwks.put((), body.clone(), now);
    }
    Ok(body)
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", operation_id = "getHealth", tag = "well-known", security(()),
    responses((status = 200, body = Health, description = "It is.")))]
async fn health() -> axum::Json<Health> {
    OK
}

/// Whether the store answers, and the server is not about to stop: then a load balancer takes it out.
#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "well-known", security(()), responses(
    (status = 200, body = Health, description = "So it is."),
    (status = 503, body = ProblemDocument, content_type = "application/problem+json", description = "It is not so.")))]
async fn ready(State(api): State<Arc<Api>>) -> Result<axum::Json<Health>, Problem> {
    if api.outside.is_stopping() {
        return Err(StoreError::Unavailable("the server stops".to_owned()).into());
    }
    api.store.ping().await?;
    Ok(OK)
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "getOpenApi", tag = "well-known", security(()),
    responses((status = 200, body = Object, description = "The OpenAPI document.")))]
async fn openapi(State(api): State<Arc<Api>>) -> impl IntoResponse {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    let generate = || serde_json::to_value(super::openapi()).expect("the document is JSON");
    let mut document = DOCUMENT.get_or_init(generate).clone();
    document["servers"] = json!([{ "url": api.settings.public_url }]);
    axum::Json(document)
}
