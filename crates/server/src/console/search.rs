//! Messages and webhook deliveries: found by what is known of them, and each with its whole story.

use super::Console;
use super::asked::{Asked, list};
use super::inside::{Attempt, List};
use super::page::{EVENTS, Frame, Posted, Visit, encoded, show};
use crate::event_body::recipient_of;
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use model::clock::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

const DELIVERIES: &str = "/v1/deliveries";

/// A message as the API shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub id: String,
    pub execution_id: String,
    pub request_id: String,
    pub campaign_id: String,
    pub channel: String,
    pub user_id: String,
    pub address: Option<String>,
    pub state: String,
    pub retry_count: u32,
    pub next_try_at: Option<Timestamp>,
    pub feedback_events: Vec<Event>,
}

impl Message {
    pub fn to(&self) -> &str {
        self.address.as_deref().unwrap_or(&self.user_id)
    }

    /// Where the delivery of its last event stands.
    pub fn last_delivery(&self) -> Option<&Delivery> {
        self.feedback_events.last().and_then(|event| event.delivery.as_ref())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Its place in the feed.
    pub sequence: i64,
    pub message_id: String,
    pub recorded_at: Timestamp,
    pub status: String,
    pub event: Value,
    pub delivery: Option<Delivery>,
}

impl Event {
    /// The address, or what stands for the recipient where there is none.
    pub fn recipient(&self) -> &str {
        recipient_of(&self.event).unwrap_or_default()
    }

    pub fn request_id(&self) -> &str {
        self.event["requestId"].as_str().unwrap_or_default()
    }

    /// Why it failed, or was left out.
    pub fn reason(&self) -> String {
        let feedback = &self.event["messageDeliveryFeedback"];
        let failure = &feedback["messageFailure"];
        if let Some(reason) = failure["reason"].as_str() {
            let text = |name: &str| failure[name].as_str().unwrap_or_default();
            return format!("{} {} ({}): {reason}", text("type"), text("code"), text("category"));
        }
        let exclusion = &feedback["messageExclusion"];
        let text = |name: &str| exclusion[name].as_str().unwrap_or_default();
        if exclusion.is_null() { String::new() } else { format!("{} {}", text("code"), text("reason")) }
    }

    pub fn campaign_id(&self) -> &str {
        self.event["messageExecution"]["campaignID"].as_str().unwrap_or_default()
    }

    pub fn pretty(&self) -> String {
        serde_json::to_string_pretty(&self.event).unwrap_or_default()
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    pub id: String,
    pub state: String,
    pub blocked: bool,
    pub attempt_count: u32,
    pub next_attempt_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

#[derive(Template)]
#[template(path = "messages.html")]
struct Messages {
    f: Frame,
    asked: Asked,
    list: List<Message>,
    trouble: Option<String>,
}

/// What messages are looked for by: where they stand, as their last event's status has it.
pub const MESSAGE_STATES: [&str; 8] =
    ["queued", "handing-over", "sent", "delivered", "bounce", "error", "exclude", "denylist"];

impl Messages {
    fn states(&self) -> [&'static str; 8] {
        MESSAGE_STATES
    }
}

/// Messages, the newest first.
pub async fn messages(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let asked = Asked::of(&visit.frame.path);
    let (list, trouble) = list(&console, &visit, "/v1/messages", &asked).await?;
    Ok(show(StatusCode::OK, &Messages { f: visit.frame, asked, list, trouble }))
}

/// A delivery with its attempts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    #[serde(flatten)]
    delivery: Delivery,
    feedback_event: Delivered,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivered {
    recorded_at: Timestamp,
    status: String,
    channel: String,
    message_id: String,
    request_id: String,
    user_id: String,
    address: Option<String>,
}

impl Delivered {
    fn to(&self) -> &str {
        self.address.as_deref().unwrap_or(&self.user_id)
    }
}

/// An event in a message's story, with its delivery.
struct Chapter {
    event: Event,
    detail: Option<Detail>,
}

#[derive(Template)]
#[template(path = "message.html")]
struct Story {
    f: Frame,
    message: Message,
    accepted_at: Timestamp,
    accepted_by: String,
    chapters: Vec<Chapter>,
}

impl Story {
    fn act(&self, detail: &Detail, action: &str) -> String {
        self.f.to(&format!("deliveries/{}/{action}", detail.delivery.id))
    }

    /// Whether something is still to happen by itself: the page looks again.
    fn is_under_way(&self) -> bool {
        let waits = |delivery: &Delivery| matches!(delivery.state.as_str(), "pending" | "failing" | "held");
        let states = self.chapters.iter().filter_map(|chapter| chapter.event.delivery.as_ref());
        matches!(self.message.state.as_str(), "queued" | "handing-over") || states.into_iter().any(waits)
    }

    /// How long after the acceptance.
    fn after(&self, at: &Timestamp) -> String {
        let millis = (at.millis() - self.accepted_at.millis()).max(0);
        match millis {
            0..1_000 => format!("+ {millis} ms"),
            1_000..60_000 => format!("+ {}.{} s", millis / 1_000, millis % 1_000 / 100),
            60_000..3_600_000 => format!("+ {} min", millis / 60_000),
            _ => format!("+ {} h", millis / 3_600_000),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Acceptance {
    created_at: Timestamp,
    created_by: String,
}

/// A message from its acceptance on.
pub async fn message(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let mut message: Message = visit.get(&console, &visit.resource("/v1/messages")).await?;
    let path = format!("/v1/executions/{}", encoded(&message.execution_id));
    let acceptance: Acceptance = visit.get(&console, &path).await?;
    let mut chapters = Vec::new();
    for event in std::mem::take(&mut message.feedback_events) {
        let detail = match &event.delivery {
            Some(delivery) => Some(visit.get(&console, &format!("{DELIVERIES}/{}", encoded(&delivery.id))).await?),
            None => None,
        };
        chapters.push(Chapter { event, detail });
    }
    let Acceptance { created_at, created_by } = acceptance;
    let page = Story { f: visit.frame, message, accepted_at: created_at, accepted_by: created_by, chapters };
    Ok(show(StatusCode::OK, &page))
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct Deliveries {
    f: Frame,
    asked: Asked,
    list: List<Detail>,
    trouble: Option<String>,
}

const DELIVERY_STATES: [&str; 6] = ["pending", "failing", "held", "succeeded", "exhausted", "cancelled"];

impl Deliveries {
    fn states(&self) -> [&'static str; 6] {
        DELIVERY_STATES
    }

    fn events(&self) -> [&'static str; 7] {
        EVENTS
    }
}

/// Webhook deliveries, the newest first.
pub async fn deliveries(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let asked = Asked::of(&visit.frame.path);
    let (list, trouble) = list(&console, &visit, DELIVERIES, &asked).await?;
    Ok(show(StatusCode::OK, &Deliveries { f: visit.frame, asked, list, trouble }))
}

/// Retries or cancels a delivery, and goes back to its message.
pub async fn act(State(console): State<Arc<Console>>, posted: Posted) -> Result<Response, Response> {
    let visit = posted.visit;
    let detail: Detail = visit.get(&console, &visit.resource(DELIVERIES)).await?;
    let done = visit.act(&console, DELIVERIES, &[("retry", ""), ("cancel", "")]).await;
    done.map_err(|refusal| visit.frame.trouble(&refusal))?;
    Ok(Redirect::to(&visit.frame.to(&format!("messages/{}", detail.feedback_event.message_id))).into_response())
}
