//! Values of the lookups: filters, pages and what they show.

use model::clock::Timestamp;
use model::delivery::{Attempt, DeliveryState};
use model::execution::{ExecutionFacts, Recipient};
use model::feedback::FeedbackEvent;
use model::ids::{ApiKeyId, CampaignId, ExecutionId, MessageKey, SandboxId};
use model::message::MessageState;
use model::outcome::FeedbackStatus;
use model::webhook::Channel;
use std::sync::Arc;

/// Which part of a list is wanted.
#[derive(Clone, Debug)]
pub struct Page {
    /// The most items, 1 or more.
    pub limit: usize,
    /// Where the page before ended, as its `next` said.
    pub cursor: Option<String>,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; none: this was the last. A feed always gives one.
    pub next: Option<String>,
}

/// Which executions.
#[derive(Clone, Debug)]
pub struct ExecutionFilter {
    /// Of this sandbox.
    pub sandbox: SandboxId,
    /// With this requestId.
    pub request_id: Option<String>,
    /// Of this campaign.
    pub campaign: Option<CampaignId>,
    /// Accepted at or after this.
    pub from: Option<Timestamp>,
    /// Accepted before this.
    pub to: Option<Timestamp>,
    /// Sent with this key.
    pub created_by: Option<ApiKeyId>,
}

/// Which messages; or which executions, by having such a message.
#[derive(Clone, Debug)]
pub struct MessageFilter {
    /// Which executions they belong to.
    pub execution: ExecutionFilter,
    /// Of this execution.
    pub execution_id: Option<ExecutionId>,
    /// To this address, or with this userId.
    pub recipient: Option<String>,
    /// In this state.
    pub state: Option<MessageState>,
    /// Of this channel.
    pub channel: Option<Channel>,
}

/// Which feedback events. `from` and `to` are about when they were recorded.
#[derive(Clone, Debug)]
pub struct EventFilter {
    /// Of this sandbox.
    pub sandbox: SandboxId,
    /// With this requestId.
    pub request_id: Option<String>,
    /// Of this campaign.
    pub campaign: Option<CampaignId>,
    /// Of this execution.
    pub execution_id: Option<ExecutionId>,
    /// About this address or userId.
    pub recipient: Option<String>,
    /// With this status.
    pub status: Option<FeedbackStatus>,
    /// Of this channel.
    pub channel: Option<Channel>,
    /// Recorded at or after this.
    pub from: Option<Timestamp>,
    /// Recorded before this.
    pub to: Option<Timestamp>,
    /// Of executions sent with this key.
    pub created_by: Option<ApiKeyId>,
    /// In commit order, from after this cursor on (`0`: from the beginning).
    pub after: Option<i64>,
}

impl EventFilter {
    /// All of a sandbox.
    pub fn of(sandbox: SandboxId) -> Self {
        Self {
            sandbox,
            request_id: None,
            campaign: None,
            execution_id: None,
            recipient: None,
            status: None,
            channel: None,
            from: None,
            to: None,
            created_by: None,
            after: None,
        }
    }
}

/// Which deliveries.
#[derive(Clone, Debug)]
pub struct DeliveryFilter {
    /// Of events such as these.
    pub event: EventFilter,
    /// In this state.
    pub state: Option<DeliveryState>,
}

/// An execution as shown.
#[derive(Clone, Debug)]
pub struct ExecutionView {
    /// Its facts.
    pub facts: Arc<ExecutionFacts>,
    /// Its messages in the order of its recipients.
    pub messages: Vec<MessageView>,
}

/// A message as shown.
#[derive(Clone, Debug)]
pub struct MessageView {
    /// Which one.
    pub key: MessageKey,
    /// Its execution.
    pub execution: Arc<ExecutionFacts>,
    /// Who it is for.
    pub recipient: Arc<Recipient>,
    /// Where it stands.
    pub state: MessageState,
    /// The failed tries to send it.
    pub failures: u32,
    /// When it is tried next, where it waits.
    pub next_try_at: Option<Timestamp>,
    /// Its events in the order recorded.
    pub events: Vec<EventView>,
}

/// A feedback event as shown.
#[derive(Clone, Debug)]
pub struct EventView {
    /// Its place in the feed.
    pub sequence: i64,
    /// The event.
    pub event: FeedbackEvent,
    /// Its delivery; none: no webhook wanted it.
    pub delivery: Option<DeliveryView>,
}

/// A delivery as shown.
#[derive(Clone, Debug)]
pub struct DeliveryView {
    /// Where it stands.
    pub state: DeliveryState,
    /// Whether it waits for an earlier event of its message.
    pub blocked: bool,
    /// The attempts so far.
    pub attempts: u32,
    /// When it is tried next.
    pub next_attempt_at: Option<Timestamp>,
    /// When it succeeded, was given up or was cancelled.
    pub ended_at: Option<Timestamp>,
}

/// An attempt as shown.
pub type AttemptView = Attempt;
