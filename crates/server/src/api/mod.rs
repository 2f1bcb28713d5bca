//! The HTTP API: the execution endpoints under `/ajo`, the management API under `/v1`, and what programs look for at
//! fixed places.
//!
//! One file for each resource, with its requests, answers, documentation and handlers; the rest is what they share:
//!
//! | file | what |
//! |---|---|
//! | [`problem`] | every refusal, in one enum |
//! | [`auth`] | keys, roles, organizations and sandboxes |
//! | [`body`], [`leftover`], [`shape`], [`query`], [`etag`] | what comes in |
//! | [`views`] | how messages, events and deliveries are read |
//! | [`document`] | the OpenAPI document |
//!
//! This module knows nothing of what leaves the house: sends and resolving reach it as [`Outside`].

#![expect(unused_qualifications, reason = "utoipa's macro qualifies the types in `params` of its operations")]

mod api_keys;
mod audit_log;
pub mod auth;
mod body;
mod cache;
mod campaigns;
mod channel_configurations;
mod deliveries;
mod digest;
mod document;
mod erasures;
mod etag;
mod event_stream;
mod executions;
mod feedback_events;
mod leftover;
mod limit;
mod lookups;
mod organizations;
pub mod problem;
mod query;
mod recipients;
mod replays;
mod sandboxes;
mod shape;
mod statistics;
mod views;
mod webhook_actions;
mod webhook_keys;
mod webhooks;
mod well_known;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use cache::Cache;
use futures_util::FutureExt;
use limit::RateLimit;
use model::clock::{Clock, Entropy};
use model::delivery::Attempt;
use model::execution::Priority;
use model::ids::{ExecutionIds, SandboxId};
use model::tenancy::{ApiKey, Sandbox};
use model::webhook::Webhook;
use problem::Problem;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::wake::Wake;
use utoipa_axum::router::OpenApiRouter;

/// What the API needs of the program around it.
#[async_trait]
pub trait Outside: Send + Sync + std::fmt::Debug {
    /// Whether the program is about to end.
    fn is_stopping(&self) -> bool;

    /// Waits, a little at most, until an execution for so many recipients may be taken: what was taken before comes first.
    async fn admit(&self, sandbox: SandboxId, recipients: usize);

    /// Whether a webhook may be at this URL; says why not, for the caller to mend it.
    async fn check_url(&self, url: &str) -> Result<(), String>;

    /// Posts a sample event to the webhook, marked `esito-test: true`, and says what came of it.
    async fn test_webhook(&self, webhook: &Webhook) -> Attempt;
}

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Where callers reach this server, for the OpenAPI document.
    pub public_url: String,
    /// The most executions a second in a sandbox; none: no limit.
    pub executions_per_second: Option<u32>,
    /// How long a former secret or key is good beside its successor, unless the caller says otherwise.
    pub rotation_overlap: Duration,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            public_url: "http://127.0.0.1:8025".to_owned(),
            executions_per_second: None,
            rotation_overlap: Duration::from_secs(24 * 3600),
        }
    }
}

/// How long a key found in the store is taken for good: so long may a revocation elsewhere take to be seen.
const KEY_LIFETIME: Duration = Duration::from_secs(1);
const SANDBOX_LIFETIME: Duration = Duration::from_secs(60);
const JWKS_LIFETIME: Duration = Duration::from_secs(5);

/// What the handlers work with.
#[derive(Debug)]
pub struct Api {
    store: Arc<dyn Store>,
    wake: Arc<dyn Wake>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    execution_ids: Arc<ExecutionIds>,
    outside: Arc<dyn Outside>,
    settings: ApiSettings,
    keys: Cache<[u8; 32], Arc<ApiKey>>,
    sandboxes: Cache<(String, String), Arc<Sandbox>>,
    jwks: Cache<(), Bytes>,
    rate: RateLimit,
    /// A place for each stream of events.
    streams: Arc<event_stream::Streams>,
}

impl Api {
    /// An API over this store.
    pub fn new(
        store: Arc<dyn Store>,
        wake: Arc<dyn Wake>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        execution_ids: Arc<ExecutionIds>,
        outside: Arc<dyn Outside>,
        settings: ApiSettings,
    ) -> Self {
        Self {
            store,
            wake,
            clock,
            entropy,
            execution_ids,
            outside,
            keys: Cache::new(10_000, KEY_LIFETIME),
            sandboxes: Cache::new(10_000, SANDBOX_LIFETIME),
            jwks: Cache::new(1, JWKS_LIFETIME),
            rate: RateLimit::new(settings.executions_per_second),
            streams: Arc::default(),
            settings,
        }
    }

    /// Whether the program is about to end: what answers for long then breaks off.
    pub fn is_stopping(&self) -> bool {
        self.outside.is_stopping()
    }
}

fn routes() -> OpenApiRouter<Arc<Api>> {
    let administration = OpenApiRouter::new()
        .merge(organizations::routes())
        .merge(sandboxes::routes())
        .merge(api_keys::routes())
        .merge(audit_log::routes())
        .merge(webhooks::routes())
        .merge(webhook_actions::routes())
        .merge(channel_configurations::routes())
        .merge(campaigns::routes())
        .merge(lookups::routes())
        .merge(feedback_events::routes())
        .merge(event_stream::routes())
        .merge(deliveries::routes())
        .merge(replays::routes())
        .merge(erasures::routes())
        .merge(statistics::routes())
        .layer(from_fn(carry_through));
    // Executions do without: messages that no driver was told of are found in the store within seconds.
    OpenApiRouter::with_openapi(document::base())
        .merge(executions::routes())
        .merge(administration)
        .merge(well_known::routes())
}

/// The API as a router: with a fallback for unknown paths, without `/metrics`.
pub fn router(api: Arc<Api>) -> axum::Router {
    let (router, _) = routes().split_for_parts();
    router
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .fallback(async || Problem::UnknownPath)
        .layer(from_fn(surround))
        .with_state(api)
}

/// The OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    document::finish(routes().into_openapi())
}

/// What changes something goes on to its end though its caller goes away: between a commit and what the drivers are then
/// told of it, a pause or a new URL would be known to the store alone.
async fn carry_through(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

pub use executions::route as execution_route;

/// Takes an execution without the router, whose layers cost more than the work; what every request has around it is here
/// too.
pub async fn execute_directly(api: Arc<Api>, priority: Priority, request: Request) -> Response {
    let execute = |request: Request| async move {
        let executed = AssertUnwindSafe(executions::execute_request(&api, priority, request)).catch_unwind().await;
        executed.unwrap_or_else(|_| end_in_panic("an execution"))
    };
    leftover::read(request, execute).await
}

/// What every request has around it. In one layer: each costs a box, and clones of all that is within.
async fn surround(request: Request, next: Next) -> Response {
    leftover::read(request, |request| answer_panics(request, next)).await
}

/// A panic in a handler is a fault of ours: the caller gets a problem document, not a broken connection.
pub async fn answer_panics(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| end_in_panic(&path))
}

fn end_in_panic(path: &str) -> Response {
    tracing::error!(path, "a request ended in a panic");
    Problem::Internal.into_response()
}
