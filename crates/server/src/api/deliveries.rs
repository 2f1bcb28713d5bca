//! `/v1/deliveries`: how feedback events reach the sandbox's webhook.

use super::Api;
use super::auth::{Edits, InSandbox, Reads, SandboxHeaders};
use super::problem::{Problem, ProblemDocument};
use super::query::{Id, List, Query, page};
use super::views::{AttemptRead, DeliveryDetail, DeliveryRead};
use axum::Json;
use axum::extract::State;
use model::clock::Timestamp;
use model::delivery::DeliveryState;
use model::ids::{CampaignId, EventId, ExecutionId};
use model::outcome::FeedbackStatus;
use model::webhook::Channel;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use store::StoreError;
use store::lookup::{DeliveryFilter, EventFilter, EventView, Listed, Page};
use store::wake::Hint;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read)).routes(routes!(retry)).routes(routes!(cancel))
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct DeliveryQuery {
    /// In this state.
    state: Option<DeliveryState>,
    /// Of events with this requestId.
    request_id: Option<String>,
    /// Of events of this execution.
    execution_id: Option<ExecutionId>,
    /// Of events of this campaign.
    campaign_id: Option<CampaignId>,
    /// Of events about this address or userId.
    recipient: Option<String>,
    /// Of events with this status.
    status: Option<FeedbackStatus>,
    /// Of events of this channel.
    channel: Option<Channel>,
    /// Of events recorded at or after this.
    from: Option<Timestamp>,
    /// Of events recorded before this.
    to: Option<Timestamp>,
    /// The most items, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

impl DeliveryQuery {
    fn split(self, scope: &InSandbox<Reads>) -> Result<(DeliveryFilter, Page), Problem> {
        let event = EventFilter {
            sandbox: scope.sandbox.id,
            request_id: self.request_id,
            campaign: self.campaign_id,
            execution_id: self.execution_id,
            recipient: self.recipient,
            status: self.status,
            channel: self.channel,
            from: self.from,
            to: self.to,
            created_by: scope.own_only(),
            after: None,
        };
        Ok((DeliveryFilter { event, state: self.state }, page(self.limit, self.cursor)?))
    }
}

/// A delivery has the id of its event; the store knows it by that.
fn unknown(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound(_) => Problem::NotFound("delivery"),
        error => error.into(),
    }
}

fn shown(view: EventView) -> Result<DeliveryRead, Problem> {
    DeliveryRead::of(view).ok_or(Problem::NotFound("delivery"))
}

/// Lists deliveries, the newest first.
#[utoipa::path(get, path = "/v1/deliveries", operation_id = "listDeliveries", tag = "deliveries",
    params(SandboxHeaders, DeliveryQuery),
    responses((status = 200, body = List<DeliveryRead>, description = "A page of deliveries.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Query(query): Query<DeliveryQuery>,
) -> Result<Json<List<DeliveryRead>>, Problem> {
    let (filter, page) = query.split(&scope)?;
    let Listed { items, next } = api.store.deliveries(filter, page).await?;
    let items = items.into_iter().filter_map(DeliveryRead::of).collect();
    Ok(Json(List { items, next_cursor: next }))
}

/// Reads a delivery with its attempts.
#[utoipa::path(get, path = "/v1/deliveries/{id}", operation_id = "getDelivery", tag = "deliveries",
    params(SandboxHeaders, ("id" = EventId, Path, description = "The delivery's id: the event's.")),
    responses((status = 200, body = DeliveryDetail, description = "The delivery.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Reads>,
    Id(id): Id<EventId>,
) -> Result<Json<DeliveryDetail>, Problem> {
    let delivery = shown(api.store.event(scope.sandbox.id, id).await.map_err(unknown)?)?;
    let attempts = api.store.attempts(scope.sandbox.id, id).await?;
    let attempts = attempts.into_iter().map(AttemptRead::of).collect();
    Ok(Json(DeliveryDetail { delivery, attempts }))
}

/// Makes a delivery due again that has ended, or one at once that waits for its next attempt.
#[utoipa::path(post, path = "/v1/deliveries/{id}/retry", operation_id = "retryDelivery", tag = "deliveries",
    params(SandboxHeaders, ("id" = EventId, Path, description = "The delivery's id: the event's.")),
    responses((status = 200, body = DeliveryRead, description = "The delivery, due now."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "Its state does not allow it.")))]
async fn retry(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<EventId>,
) -> Result<Json<DeliveryRead>, Problem> {
    let now = api.clock.now();
    let audit = scope.audit(&api, now, "delivery.retry", id, &json!({}));
    let view = api.store.retry_delivery(scope.sandbox.id, id, now, audit).await.map_err(unknown)?;
    api.wake.hint(Hint::Deliveries { sandbox: scope.sandbox.id, due: Vec::new() });
    shown(view).map(Json)
}

/// Cancels a delivery that has not ended; the next event of its message then goes out.
#[utoipa::path(post, path = "/v1/deliveries/{id}/cancel", operation_id = "cancelDelivery", tag = "deliveries",
    params(SandboxHeaders, ("id" = EventId, Path, description = "The delivery's id: the event's.")),
    responses((status = 200, body = DeliveryRead, description = "The delivery, cancelled."),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It has ended already.")))]
async fn cancel(
    State(api): State<Arc<Api>>,
    scope: InSandbox<Edits>,
    Id(id): Id<EventId>,
) -> Result<Json<DeliveryRead>, Problem> {
    let now = api.clock.now();
    let audit = scope.audit(&api, now, "delivery.cancel", id, &json!({}));
    let view = api.store.cancel_delivery(scope.sandbox.id, id, now, audit).await.map_err(unknown)?;
    api.wake.hint(Hint::Deliveries { sandbox: scope.sandbox.id, due: Vec::new() });
    shown(view).map(Json)
}
