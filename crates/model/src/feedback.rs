//! The feedback event and its exact JSON.
//!
//! The body is a pure function of facts that never change once recorded, so it need not be stored: the same bytes come
//! out on the first attempt, on a retry a day later and after a restart. The golden files in `tests/golden` hold it.

use crate::clock::Timestamp;
use crate::execution::{ExecutionFacts, Recipient};
use crate::ids::{EventKey, SandboxId};
use crate::outcome::{Exclusion, Failure, Outcome};
use crate::webhook::{Channel, Payload};
use serde::Serialize;
use serde::ser::SerializeMap;
use std::sync::Arc;

/// Organization and sandbox of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The organization.
    pub ims_org: String,
    /// The sandbox's id.
    pub sandbox_id: SandboxId,
    /// The sandbox's name.
    pub sandbox_name: String,
}

/// What is told about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedbackEvent {
    /// Which one.
    pub key: EventKey,
    /// Whose.
    pub tenant: Arc<Tenant>,
    /// The execution that the message belongs to.
    pub execution: Arc<ExecutionFacts>,
    /// Who the message was for.
    pub recipient: Arc<Recipient>,
    /// What happened.
    pub outcome: Outcome,
    /// The failed send attempts before this event.
    pub retry_count: u32,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Which keys its body has: fixed when it was recorded.
    pub payload: Payload,
}

/// Most bodies need no more; a vector that grew to it would be copied three times.
const USUAL_BODY_BYTES: usize = 1_280;

impl FeedbackEvent {
    /// The body that the webhook gets.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(USUAL_BODY_BYTES);
        serde_json::to_writer(&mut body, &Body::of(self)).expect("the body has string keys only");
        body
    }

    /// The body as a JSON value with the keys of `payload`.
    pub fn to_json(&self, payload: Payload) -> serde_json::Value {
        let event = Self { payload, ..self.clone() };
        serde_json::to_value(Body::of(&event)).expect("the body has string keys only")
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    request_id: &'a str,
    ims_org: &'a str,
    sandbox: SandboxJson<'a>,
    channel: Channel,
    event_type: &'static str,
    message_execution: ExecutionJson<'a>,
    message_delivery_feedback: FeedbackJson<'a>,
    identity_map: IdentityMap<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_context: Option<ChannelContext<'a>>,
}

#[derive(Serialize)]
struct SandboxJson<'a> {
    id: SandboxId,
    name: &'a str,
}

#[derive(Serialize)]
struct ExecutionJson<'a> {
    #[serde(rename = "messageExecutionID")]
    message_execution_id: crate::ids::ExecutionId,
    #[serde(rename = "messageType")]
    message_type: &'static str,
    #[serde(rename = "campaignID")]
    campaign_id: crate::ids::CampaignId,
    #[serde(rename = "campaignVersionID")]
    campaign_version_id: crate::ids::CampaignVersionId,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    extension: Option<ExecutionExtension<'a>>,
}

#[derive(Serialize)]
struct ExecutionExtension<'a> {
    #[serde(rename = "campaignType")]
    campaign_type: &'static str,
    #[serde(rename = "messageID")]
    message_id: crate::ids::MessageId,
    #[serde(rename = "messageProfileID")]
    message_profile_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FeedbackJson<'a> {
    feedback_status: StatusJson,
    offers: (),
    message_exclusion: Option<&'a Exclusion>,
    message_failure: Option<&'a Failure>,
    retry_count: u32,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    extension: Option<FeedbackExtension<'a>>,
}

#[derive(Serialize)]
struct StatusJson {
    value: crate::outcome::FeedbackStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FeedbackExtension<'a> {
    response_code: Option<u16>,
    response_duration_millis: Option<u32>,
    encoding: Option<&'a str>,
    number_of_message_parts: Option<String>,
    delivery_timestamp: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChannelContext<'a> {
    profile_address: Option<&'a str>,
    profile_number: Option<&'a str>,
}

impl<'a> Body<'a> {
    fn of(event: &'a FeedbackEvent) -> Self {
        let execution = &*event.execution;
        let outcome = &event.outcome;
        let extended = event.payload == Payload::Extended;
        Self {
            request_id: &execution.request_id,
            ims_org: &event.tenant.ims_org,
            sandbox: SandboxJson { id: event.tenant.sandbox_id, name: &event.tenant.sandbox_name },
            channel: execution.channel,
            event_type: "message.feedback",
            message_execution: ExecutionJson {
                message_execution_id: execution.id,
                message_type: "transactional",
                campaign_id: execution.campaign,
                campaign_version_id: execution.version,
                extension: extended.then(|| ExecutionExtension {
                    campaign_type: "ApiTriggered",
                    message_id: event.key.message.id(),
                    message_profile_id: None,
                }),
            },
            message_delivery_feedback: FeedbackJson {
                feedback_status: StatusJson { value: outcome.verdict.status() },
                offers: (),
                message_exclusion: outcome.verdict.exclusion(),
                message_failure: outcome.verdict.failure(),
                retry_count: event.retry_count,
                extension: extended.then(|| FeedbackExtension {
                    response_code: outcome.response_code,
                    response_duration_millis: outcome.response_duration_ms,
                    encoding: outcome.encoding.as_deref(),
                    number_of_message_parts: outcome.parts.map(|parts| parts.to_string()),
                    delivery_timestamp: outcome.occurred_at,
                }),
            },
            identity_map: IdentityMap { channel: execution.channel, recipient: &event.recipient },
            channel_context: extended.then(|| ChannelContext::of(execution.channel, &event.recipient)),
        }
    }
}

impl<'a> ChannelContext<'a> {
    fn of(channel: Channel, recipient: &'a Recipient) -> Self {
        let address = |of: Channel| recipient.address.as_deref().filter(|_| channel == of);
        Self { profile_address: address(Channel::Email), profile_number: address(Channel::Sms) }
    }
}

/// The address under the channel's namespace, and the recipient's own namespace where it is another.
struct IdentityMap<'a> {
    channel: Channel,
    recipient: &'a Recipient,
}

#[derive(Serialize)]
struct Identity<'a> {
    id: &'a str,
    primary: bool,
}

impl Serialize for IdentityMap<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Recipient { user_id, namespace, address } = self.recipient;
        let of_channel = self.channel.namespace();
        let mut map = serializer.serialize_map(None)?;
        if let Some(address) = address {
            map.serialize_entry(of_channel, &[Identity { id: address, primary: true }])?;
        }
        if address.is_none() || !namespace.eq_ignore_ascii_case(of_channel) {
            map.serialize_entry(namespace, &[Identity { id: user_id, primary: false }])?;
        }
        map.end()
    }
}
