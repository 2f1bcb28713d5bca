//! A test send: a sample event, marked as such.

use super::guard::Network;
use super::reply::Reply;
use super::request::{Endpoint, Post};
use model::clock::{Clock, Entropy, Timestamp};
use model::execution::{ExecutionFacts, Priority, Recipient};
use model::feedback::{FeedbackEvent, Tenant};
use model::ids::{ApiKeyId, CampaignId, CampaignVersionId, EventId, EventKey, ExecutionId, MessageKey};
use model::outcome::{
    Exclusion, Failure, FailureCategory, FailureType, FeedbackStatus, Outcome, Verdict as MessageVerdict,
};
use model::webhook::{Channel, Webhook};
use std::sync::Arc;
use std::time::Duration;

/// Posts a sample event, marked `esito-test: true`, on a connection of its own, and says what the endpoint answered.
pub async fn sample(webhook: &Webhook, network: &Arc<Network>, clock: &dyn Clock, entropy: &dyn Entropy) -> Reply {
    let now = clock.now();
    let endpoint = match Endpoint::new(webhook, network) {
        Ok(endpoint) => endpoint,
        Err(error) => return Reply::failed(now, Duration::ZERO, error),
    };
    let body = event(webhook, now, entropy).body();
    // Not the id that the event's key spells: that could be a real event's, which the receiver would then pass over.
    let id = EventId::new(now, entropy).to_string();
    let marks = [("esito-test", "true".to_owned())];
    endpoint.post(Post { id: &id, body: body.into(), marks: &marks }, clock).await
}

/// An event such as the webhook gets: of its first channel and status, for nobody.
fn event(webhook: &Webhook, now: Timestamp, entropy: &dyn Entropy) -> FeedbackEvent {
    let channel = webhook.settings.channels.first().copied().unwrap_or(Channel::Email);
    let status = webhook.settings.events.first().copied().unwrap_or(FeedbackStatus::Sent);
    let execution = ExecutionFacts {
        id: ExecutionId::floor_at(now),
        request_id: "esito-test".to_owned(),
        campaign: CampaignId::new(now, entropy),
        version: CampaignVersionId::new(now, entropy),
        channel,
        priority: Priority::Unitary,
        expires_at: None,
        created_at: now,
        created_by: "esito-test".to_owned(),
        created_by_key: ApiKeyId::new(now, entropy),
    };
    let message = MessageKey { execution: execution.id, ordinal: 0 };
    FeedbackEvent {
        key: EventKey { message, number: 1 },
        tenant: Arc::new(Tenant {
            ims_org: webhook.ims_org.clone(),
            sandbox_id: webhook.sandbox.id,
            sandbox_name: webhook.sandbox.name.clone(),
        }),
        execution: Arc::new(execution),
        recipient: Arc::new(recipient(channel)),
        outcome: Outcome::new(verdict(status), now),
        retry_count: 0,
        recorded_at: now,
        payload: webhook.settings.payload,
    }
}

/// Addresses that are nobody's: RFC 2606, and the numbers kept for fiction by Ofcom.
fn recipient(channel: Channel) -> Recipient {
    let address = match channel {
        Channel::Email => "jane.roe@example.com",
        Channel::Sms => "+447700900123",
    };
    let namespace = channel.namespace().to_owned();
    Recipient { user_id: address.to_owned(), namespace, address: Some(address.to_owned()) }
}

fn verdict(status: FeedbackStatus) -> MessageVerdict {
    let reason = "a sample for a test";
    let failure = |failure_type, code: &str| Failure {
        category: FailureCategory::Sync,
        failure_type,
        code: code.to_owned(),
        reason: reason.to_owned(),
    };
    match status {
        FeedbackStatus::Sent => MessageVerdict::Sent,
        FeedbackStatus::Delivered => MessageVerdict::Delivered,
        FeedbackStatus::Delay => MessageVerdict::Delay,
        FeedbackStatus::Bounce => MessageVerdict::Bounce(failure(FailureType::Hard, "10")),
        FeedbackStatus::Error => MessageVerdict::Error(Failure::admin(reason)),
        FeedbackStatus::Exclude => MessageVerdict::Exclude(Exclusion::dispatch_error(reason)),
        FeedbackStatus::Denylist => MessageVerdict::Denylist(Exclusion::dispatch_error(reason)),
    }
}
