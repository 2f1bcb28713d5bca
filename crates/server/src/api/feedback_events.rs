//! `/v1/feedback-events`: what was told, as a list and as a feed without gaps.

use super::Api;
use super::auth::{InSandbox, ReadsOwn, SandboxHeaders};
use super::problem::Problem;
use super::query::{Id, List, Query, page};
use super::views::EventRead;
use axum::Json;
use axum::extract::State;
use model::clock::Timestamp;
use model::ids::{ApiKeyId, CampaignId, EventId, ExecutionId, SandboxId};
use model::outcome::FeedbackStatus;
use model::webhook::Channel;
use serde::Deserialize;
use std::sync::Arc;
use store::lookup::EventFilter;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct EventQuery {
    /// With this requestId.
    request_id: Option<String>,
    /// Of this execution.
    execution_id: Option<ExecutionId>,
    /// Of this campaign.
    campaign_id: Option<CampaignId>,
    /// About this address or userId.
    recipient: Option<String>,
    /// With this status.
    status: Option<FeedbackStatus>,
    /// Of this channel.
    channel: Option<Channel>,
    /// Recorded at or after this.
    from: Option<Timestamp>,
    /// Recorded before this.
    to: Option<Timestamp>,
    /// Makes the list a feed: in the order of commit, without gaps, from after this on. `0` is the beginning; then
    /// `nextCursor` of each page, which a feed always has.
    after: Option<String>,
    /// The most items, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before; of a list that is no feed.
    cursor: Option<String>,
}

impl EventQuery {
    fn filter(&mut self, sandbox: SandboxId, created_by: Option<ApiKeyId>) -> Result<EventFilter, Problem> {
        Ok(EventFilter {
            sandbox,
            request_id: self.request_id.take(),
            campaign: self.campaign_id,
            execution_id: self.execution_id,
            recipient: self.recipient.take(),
            status: self.status,
            channel: self.channel,
            from: self.from,
            to: self.to,
            created_by,
            after: self.after()?,
        })
    }

    /// A feed's place. Whoever goes on with `cursor`, as with other lists, is understood too.
    fn after(&mut self) -> Result<Option<i64>, Problem> {
        let Some(after) = self.after.take() else {
            return Ok(None);
        };
        let (name, place) = match self.cursor.take() {
            Some(cursor) => ("cursor", cursor),
            None => ("after", after),
        };
        match place.parse() {
            Ok(place) if place >= 0 => Ok(Some(place)),
            _ => Err(Problem::fault(format!("$query.{name}"), "must be 0 or the nextCursor of a page of the feed")),
        }
    }
}

/// Lists feedback events: the newest first or, with `after`, as a feed.
#[utoipa::path(get, path = "/v1/feedback-events", operation_id = "listFeedbackEvents", tag = "lookups",
    params(SandboxHeaders, EventQuery),
    responses((status = 200, body = List<EventRead>, description = "A page of events.")))]
async fn list(
    State(api): State<Arc<Api>>,
    scope: InSandbox<ReadsOwn>,
    Query(mut query): Query<EventQuery>,
) -> Result<Json<List<EventRead>>, Problem> {
    let filter = query.filter(scope.sandbox.id, scope.own_only())?;
    let page = page(query.limit, query.cursor)?;
    Ok(List::of(api.store.events(filter, page).await?, EventRead::of))
}

/// Reads a feedback event.
#[utoipa::path(get, path = "/v1/feedback-events/{id}", operation_id = "getFeedbackEvent", tag = "lookups",
    params(SandboxHeaders, ("id" = EventId, Path, description = "The event's id.")),
    responses((status = 200, body = EventRead, description = "The event.")))]
async fn read(
    State(api): State<Arc<Api>>,
    scope: InSandbox<ReadsOwn>,
    Id(id): Id<EventId>,
) -> Result<Json<EventRead>, Problem> {
    let view = api.store.event(scope.sandbox.id, id).await?;
    if !scope.sees(view.event.execution.created_by_key) {
        return Err(Problem::NotFound("feedback event"));
    }
    Ok(Json(EventRead::of(view)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shape::{self, Mode};
    use serde_json::json;

    #[test]
    fn a_feed_begins_at_zero_and_goes_on_by_either_name() {
        let after = |query| shape::read::<EventQuery>(query, Mode::Texts, "$query").unwrap().after();
        assert_eq!(after(json!({})), Ok(None));
        assert_eq!(after(json!({"cursor": "x"})), Ok(None));
        assert_eq!(after(json!({"after": "0"})), Ok(Some(0)));
        assert_eq!(after(json!({"after": "0", "cursor": "17"})), Ok(Some(17)));
        assert!(after(json!({"after": "-1"})).is_err() && after(json!({"after": "x"})).is_err());
    }
}
