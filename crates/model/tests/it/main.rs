//! The feedback event's exact bytes, against golden files: a change of them is a change of what receivers get.

#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

use model::clock::Timestamp;
use model::execution::{ExecutionFacts, Priority, Recipient};
use model::feedback::{FeedbackEvent, Tenant};
use model::ids::{ApiKeyId, CampaignId, CampaignVersionId, EventKey, ExecutionId, MessageKey, SandboxId};
use model::outcome::{Exclusion, Failure, FailureCategory, FailureType, Outcome, Verdict};
use model::webhook::{Channel, Payload};
use std::sync::Arc;
use uuid::Uuid;

fn event(
    channel: Channel,
    recipient: Recipient,
    outcome: Outcome,
    retry_count: u32,
    payload: Payload,
) -> FeedbackEvent {
    let execution: ExecutionId = "HUMA-382252089344004096".parse().unwrap();
    FeedbackEvent {
        key: EventKey { message: MessageKey { execution, ordinal: 3 }, number: 1 },
        tenant: Arc::new(Tenant {
            ims_org: "acme@EsitoOrg".to_owned(),
            sandbox_id: SandboxId(Uuid::from_u128(0x3e1b_6a0e_7d0a_4a55_9a0e_6a2f_5b9d_1c11)),
            sandbox_name: "prod".to_owned(),
        }),
        execution: Arc::new(ExecutionFacts {
            id: execution,
            request_id: "8f0c2f6f1d4f4e1f".to_owned(),
            campaign: CampaignId(Uuid::from_u128(0xa1)),
            version: CampaignVersionId(Uuid::from_u128(0xa2)),
            channel,
            priority: Priority::Unitary,
            expires_at: None,
            created_at: Timestamp(1_795_000_000_000),
            created_by: "shop".to_owned(),
            created_by_key: ApiKeyId(Uuid::from_u128(0xa3)),
        }),
        recipient: recipient.into(),
        outcome,
        retry_count,
        recorded_at: Timestamp(1_795_000_001_000),
        payload,
    }
}

fn recipient(namespace: &str, user_id: &str, address: Option<&str>) -> Recipient {
    Recipient { user_id: user_id.to_owned(), namespace: namespace.to_owned(), address: address.map(str::to_owned) }
}

fn jane() -> Recipient {
    recipient("email", "jane.roe@example.com", Some("jane.roe@example.com"))
}

fn outcome(verdict: Verdict) -> Outcome {
    Outcome {
        response_code: Some(550),
        response_duration_ms: Some(12),
        ..Outcome::new(verdict, Timestamp(1_795_000_000_500))
    }
}

fn bounce() -> Verdict {
    Verdict::Bounce(Failure {
        category: FailureCategory::Sync,
        failure_type: FailureType::Hard,
        code: "10".to_owned(),
        reason: "550 5.1.1 no such user".to_owned(),
    })
}

/// Compares with `tests/golden/<name>.json`; with `UPDATE_GOLDEN=1` it writes the file instead.
fn golden(name: &str, event: &FeedbackEvent) {
    let file = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let mut body = String::from_utf8(event.body()).unwrap();
    body.push('\n');
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &body).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(body, expected, "{file} (UPDATE_GOLDEN=1 writes it anew)");
}

#[test]
fn standard_bodies() {
    let standard =
        |recipient, verdict, retries| event(Channel::Email, recipient, outcome(verdict), retries, Payload::Standard);
    golden("standard-bounce", &standard(jane(), bounce(), 0));
    golden("standard-sent", &standard(jane(), Verdict::Sent, 2));
    let other = recipient("ECID", "88123", Some("jane.roe@example.com"));
    golden("standard-other-namespace", &standard(other, Verdict::Delivered, 0));
    let nobody = recipient("ECID", "88123", None);
    let missing = Verdict::Exclude(Exclusion::no_email_address("neither channelData nor profile has one"));
    golden("standard-exclude", &standard(nobody, missing, 0));
}

#[test]
fn extended_bodies() {
    golden("extended-bounce", &event(Channel::Email, jane(), outcome(bounce()), 0, Payload::Extended));
    let number = recipient("Phone", "+39021234567", Some("+39021234567"));
    let sent = Outcome { encoding: Some("GSM".to_owned()), parts: Some(2), ..outcome(Verdict::Sent) };
    golden("extended-sms", &event(Channel::Sms, number, sent, 0, Payload::Extended));
}

#[test]
fn the_standard_body_has_the_documented_keys_and_no_others() {
    let body = event(Channel::Email, jane(), outcome(bounce()), 0, Payload::Standard).to_json(Payload::Standard);
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(
        keys(&body),
        [
            "channel",
            "eventType",
            "identityMap",
            "imsOrg",
            "messageDeliveryFeedback",
            "messageExecution",
            "requestId",
            "sandbox"
        ]
    );
    assert_eq!(
        keys(&body["messageExecution"]),
        ["campaignID", "campaignVersionID", "messageExecutionID", "messageType"]
    );
    assert_eq!(
        keys(&body["messageDeliveryFeedback"]),
        ["feedbackStatus", "messageExclusion", "messageFailure", "offers", "retryCount"]
    );
    assert_eq!(body["messageDeliveryFeedback"]["offers"], serde_json::Value::Null);
}
