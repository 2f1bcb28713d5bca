//! How executions, messages, feedback events and deliveries are read.

use model::clock::Timestamp;
use model::delivery::{AttemptError, DeliveryState};
use model::execution::{ExecutionFacts, Priority};
use model::ids::{CampaignId, CampaignVersionId, EventId, ExecutionId, MessageId};
use model::message::MessageState;
use model::outcome::FeedbackStatus;
use model::webhook::{Channel, Payload};
use serde::Serialize;
use serde_json::Value;
use store::lookup::{AttemptView, DeliveryView, EventView, ExecutionView, MessageView};
use utoipa::ToSchema;

/// How an execution came in.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionMode {
    /// By the unitary call.
    Unitary,
    /// By the high-throughput call.
    HighThroughput,
}

/// An execution with what became of its recipients.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionRead {
    /// Its id.
    pub execution_id: ExecutionId,
    /// The caller's own id.
    pub request_id: String,
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The campaign's version when it was accepted.
    pub campaign_version_id: CampaignVersionId,
    /// The channel.
    pub channel: Channel,
    /// How it came in.
    pub mode: ExecutionMode,
    /// What is not handed over by then is not sent any more.
    pub expires_at: Option<Timestamp>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The name of the API key that sent it.
    pub created_by: String,
    /// Its messages, in the order of its recipients.
    pub recipients: Vec<MessageRead>,
}

/// A message: one recipient of one execution.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageRead {
    /// Its id.
    pub id: MessageId,
    /// Its execution.
    pub execution_id: ExecutionId,
    /// The caller's id of the execution.
    pub request_id: String,
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The channel.
    pub channel: Channel,
    /// The caller's id of the person.
    pub user_id: String,
    /// The namespace of that id.
    pub namespace: String,
    /// Where it goes; null: nowhere, the recipient is excluded.
    pub address: Option<String>,
    /// Where it stands.
    pub state: MessageState,
    /// The failed tries to send it.
    pub retry_count: u32,
    /// When it is tried next, where it waits.
    pub next_try_at: Option<Timestamp>,
    /// What was told about it, in the order recorded.
    pub feedback_events: Vec<EventRead>,
}

/// A feedback event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventRead {
    /// Its id; also `webhook-id` of its delivery.
    pub id: EventId,
    /// Its place in the feed.
    pub sequence: i64,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What happened.
    pub status: FeedbackStatus,
    /// The message.
    pub message_id: MessageId,
    /// The event itself, with the standard keys.
    #[schema(value_type = Object)]
    pub event: Value,
    /// Its delivery; null: no webhook wanted it.
    pub delivery: Option<DeliverySummary>,
}

/// Where an event's delivery stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySummary {
    /// Its id: the event's.
    pub id: EventId,
    /// Where it stands.
    pub state: DeliveryState,
    /// Whether it waits for an earlier event of its message.
    pub blocked: bool,
    /// The attempts so far.
    pub attempt_count: u32,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// When it succeeded, was given up or was cancelled.
    pub ended_at: Option<Timestamp>,
}

/// A delivery of a feedback event to the sandbox's webhook.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryRead {
    /// Where it stands.
    #[serde(flatten)]
    pub summary: DeliverySummary,
    /// The event.
    pub feedback_event: DeliveredEvent,
}

/// The event of a delivery, in short.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveredEvent {
    /// Its place in the feed.
    pub sequence: i64,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What happened.
    pub status: FeedbackStatus,
    /// The channel.
    pub channel: Channel,
    /// The message.
    pub message_id: MessageId,
    /// Its execution.
    pub execution_id: ExecutionId,
    /// The caller's id of the execution.
    pub request_id: String,
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The caller's id of the person.
    pub user_id: String,
    /// Where the message went.
    pub address: Option<String>,
}

/// A delivery with its attempts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryDetail {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: DeliveryRead,
    /// Its attempts, the first first.
    pub attempts: Vec<AttemptRead>,
}

/// One attempt.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptRead {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u32,
    /// Whether the endpoint took the event.
    pub succeeded: bool,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// The beginning of the answer's body.
    pub response_excerpt: Option<String>,
    /// Why it failed; null: it succeeded.
    pub error: Option<AttemptError>,
}

impl ExecutionRead {
    /// The view as it is read.
    pub fn of(view: ExecutionView) -> Self {
        let ExecutionFacts {
            id,
            request_id,
            campaign,
            version,
            channel,
            priority,
            expires_at,
            created_at,
            created_by,
            ..
        } = (*view.facts).clone();
        Self {
            execution_id: id,
            request_id,
            campaign_id: campaign,
            campaign_version_id: version,
            channel,
            mode: match priority {
                Priority::Unitary => ExecutionMode::Unitary,
                Priority::HighThroughput => ExecutionMode::HighThroughput,
            },
            expires_at,
            created_at,
            created_by,
            recipients: view.messages.into_iter().map(MessageRead::of).collect(),
        }
    }
}

impl MessageRead {
    /// The view as it is read.
    pub fn of(view: MessageView) -> Self {
        Self {
            id: view.key.id(),
            execution_id: view.execution.id,
            request_id: view.execution.request_id.clone(),
            campaign_id: view.execution.campaign,
            channel: view.execution.channel,
            user_id: view.recipient.user_id.clone(),
            namespace: view.recipient.namespace.clone(),
            address: view.recipient.address.clone(),
            state: view.state,
            retry_count: view.failures,
            next_try_at: view.next_try_at,
            feedback_events: view.events.into_iter().map(EventRead::of).collect(),
        }
    }
}

impl EventRead {
    /// The view as it is read.
    pub fn of(view: EventView) -> Self {
        let id = view.event.key.id();
        Self {
            id,
            sequence: view.sequence,
            recorded_at: view.event.recorded_at,
            status: view.event.outcome.verdict.status(),
            message_id: view.event.key.message.id(),
            event: view.event.to_json(Payload::Standard),
            delivery: view.delivery.map(|delivery| DeliverySummary::of(id, &delivery)),
        }
    }
}

impl DeliverySummary {
    fn of(id: EventId, view: &DeliveryView) -> Self {
        Self {
            id,
            state: view.state,
            blocked: view.blocked,
            attempt_count: view.attempts,
            next_attempt_at: view.next_attempt_at,
            ended_at: view.ended_at,
        }
    }
}

impl DeliveryRead {
    /// The view as it is read; none where the event has no delivery.
    pub fn of(view: EventView) -> Option<Self> {
        let event = view.event;
        let summary = DeliverySummary::of(event.key.id(), &view.delivery?);
        let feedback_event = DeliveredEvent {
            sequence: view.sequence,
            recorded_at: event.recorded_at,
            status: event.outcome.verdict.status(),
            channel: event.execution.channel,
            message_id: event.key.message.id(),
            execution_id: event.execution.id,
            request_id: event.execution.request_id.clone(),
            campaign_id: event.execution.campaign,
            user_id: event.recipient.user_id.clone(),
            address: event.recipient.address.clone(),
        };
        Some(Self { summary, feedback_event })
    }
}

impl AttemptRead {
    /// The attempt as it is read.
    pub fn of(attempt: AttemptView) -> Self {
        Self {
            at: attempt.at,
            duration_ms: attempt.duration_ms,
            succeeded: attempt.error.is_none(),
            status: attempt.status,
            response_excerpt: attempt.response_excerpt,
            error: attempt.error,
        }
    }
}
