//! `/v1/executions` and `/v1/messages`: what became of what was sent.

use super::Api;
use super::auth::{InSandbox, ReadsOwn, SandboxHeaders};
use super::problem::Problem;
use super::query::{Id, List, Query, page};
use super::views::{ExecutionRead, MessageRead};
use axum::Json;
use axum::extract::State;
use model::clock::Timestamp;
use model::ids::{CampaignId, ExecutionId, MessageId};
use model::message::MessageState;
use model::webhook::Channel;
use serde::{Deserialize, Deserializer};
use std::sync::Arc;
use store::lookup::{ExecutionFilter, MessageFilter, Page};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list_executions))
        .routes(routes!(read_execution))
        .routes(routes!(list_messages))
        .routes(routes!(read_message))
}

/// Which messages, or which executions, by having such a message.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct MessageQuery {
    /// With this requestId.
    request_id: Option<String>,
    /// Of this execution.
    execution_id: Option<ExecutionId>,
    /// Of this campaign.
    campaign_id: Option<CampaignId>,
    /// To this address, or with this userId.
    recipient: Option<String>,
    /// Where the message stands: `queued`, `handing-over`, or the status of its last event, `delay` aside.
    #[serde(default, deserialize_with = "message_state")]
    #[param(value_type = Option<String>, example = "bounce")]
    status: Option<MessageState>,
    /// Of this channel.
    channel: Option<Channel>,
    /// Accepted at or after this.
    from: Option<Timestamp>,
    /// Accepted before this.
    to: Option<Timestamp>,
    /// The most items, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

fn message_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MessageState>, D::Error> {
    const NAMES: &[&str] = &["queued", "handing-over", "sent", "delivered", "bounce", "error", "exclude", "denylist"];
    let name = String::deserialize(deserializer)?;
    let named = NAMES.iter().position(|one| *one == name).and_then(|index| MessageState::ALL.get(index).copied());
    named.map(Some).ok_or_else(|| serde::de::Error::unknown_variant(&name, NAMES))
}

impl MessageQuery {
    fn split(self, scope: &InSandbox<ReadsOwn>) -> Result<(MessageFilter, Page), Problem> {
        let execution = ExecutionFilter {
            sandbox: scope.sandbox.id,
            request_id: self.request_id,
            campaign: self.campaign_id,
            from: self.from,
            to: self.to,
            created_by: scope.own_only(),
        };
        let filter = MessageFilter {
            execution,
            execution_id: self.execution_id,
            recipient: self.recipient,
            state: self.status,
            channel: self.channel,
        };
        Ok((filter, page(self.limit, self.cursor)?))
    }
}

/// Lists executions, the newest first.
#[utoipa::path(get, path = "/v1/executions", operation_id = "listExecutions", tag = "lookups",
    params(SandboxHeaders, MessageQuery),
    responses((status = 200, body = List<ExecutionRead>, description = "A page of executions.")))]
async fn list_executions(
    State(api): State<Arc<Api>>,
    scope: InSandbox<ReadsOwn>,
    Query(query): Query<MessageQuery>,
) -> Result<Json<List<ExecutionRead>>, Problem> {
    let (filter, page) = query.split(&scope)?;
    Ok(List::of(api.store.executions(filter, page).await?, ExecutionRead::of))
}

/// Reads an execution: every recipient with its feedback events and their deliveries.
#[utoipa::path(get, path = "/v1/executions/{executionId}", operation_id = "getExecution", tag = "lookups",
    params(SandboxHeaders, ("executionId" = ExecutionId, Path, description = "The execution's id.")),
    responses((status = 200, body = ExecutionRead, description = "The execution.")))]
async fn read_execution(
    State(api): State<Arc<Api>>,
    scope: InSandbox<ReadsOwn>,
    Id(id): Id<ExecutionId>,
) -> Result<Json<ExecutionRead>, Problem> {
    let view = api.store.execution(scope.sandbox.id, id).await?;
    if !scope.sees(view.facts.created_by_key) {
        return Err(Problem::NotFound("execution"));
    }
    Ok(Json(ExecutionRead::of(view)))
}

/// Lists messages with their feedback events, the newest first.
#[utoipa::path(get, path = "/v1/messages", operation_id = "listMessages", tag = "lookups",
    params(SandboxHeaders, MessageQuery),
    responses((status = 200, body = List<MessageRead>, description = "A page of messages.")))]
async fn list_messages(
    State(api): State<Arc<Api>>,
    scope: InSandbox<ReadsOwn>,
    Query(query): Query<MessageQuery>,
) -> Result<Json<List<MessageRead>>, Problem> {
    let (filter, page) = query.split(&scope)?;
    Ok(List::of(api.store.messages(filter, page).await?, MessageRead::of))
}

/// Reads a message with its feedback events.
#[utoipa::path(get, path = "/v1/messages/{id}", operation_id = "getMessage", tag = "lookups",
    params(SandboxHeaders, ("id" = MessageId, Path, description = "The message's id.")),
    responses((status = 200, body = MessageRead, description = "The message.")))]
async fn read_message(
    State(api): State<Arc<Api>>,
    scope: InSandbox<ReadsOwn>,
    Id(id): Id<MessageId>,
) -> Result<Json<MessageRead>, Problem> {
    let unknown = Problem::NotFound("message");
    let Some(key) = id.key() else {
        return Err(unknown);
    };
    let view = api.store.message(scope.sandbox.id, key).await?;
    if !scope.sees(view.execution.created_by_key) {
        return Err(unknown);
    }
    Ok(Json(MessageRead::of(view)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shape::{self, Mode};
    use serde_json::json;

    #[test]
    fn statuses_are_those_of_events_and_of_what_comes_before() {
        let read = |status: &str| shape::read::<MessageQuery>(json!({ "status": status }), Mode::Texts, "$query");
        assert_eq!(read("bounce").unwrap().status, Some(MessageState::Bounced));
        assert_eq!(read("handing-over").unwrap().status, Some(MessageState::HandingOver));
        assert_eq!(read("lost").unwrap_err().path, "$query.status");
    }
}
