use super::super::super::receiver::Verified;
use super::super::script::answer;
use super::*;
use model::clock::Timestamp;
use serde_json::{Value, json};

/// An event as the receiver tells of it.
fn event(request_id: &str, recipient: &str, outcome: &str, id: &str, attempt: u32) -> Received {
    let words: Vec<&str> = outcome.split([' ', '/']).collect();
    let (failure, exclusion) = match words[..] {
        [_, category, kind, code] => (json!({"category": category, "type": kind, "code": code}), Value::Null),
        [_, code] => (Value::Null, json!({"code": code})),
        _ => (Value::Null, Value::Null),
    };
    let body = json!({
        "requestId": request_id,
        "messageDeliveryFeedback":
            {"feedbackStatus": {"value": words[0]}, "messageFailure": failure, "messageExclusion": exclusion},
        "identityMap": {"email": [{"id": recipient, "primary": true}]},
    });
    let mut received = Received {
        webhook_id: Some(id.to_owned()),
        verified: Verified { signature: Some(true), jwt: Some(true) },
        status: 0,
        attempt,
        faults: Vec::new(),
        body,
        refused: false,
        at: Timestamp(0),
    };
    let answered = answer(&received);
    (received.status, received.refused) = (answered.status, answered.refuses);
    received
}

/// All that has to come, in order.
fn everything() -> Vec<Received> {
    let mut events = Vec::new();
    for execution in &EXECUTIONS {
        for recipient in execution.recipients {
            for outcome in recipient.outcomes {
                let id = events.len().to_string();
                let first = event(execution.request_id, recipient.address, outcome, &id, 1);
                let refused = first.refused;
                events.push(first);
                if refused {
                    events.push(event(execution.request_id, recipient.address, outcome, &id, 2));
                }
            }
        }
    }
    events
}

fn ledger(events: &[Received]) -> Ledger {
    let mut ledger = Ledger::new(false);
    events.iter().for_each(|event| ledger.record(event));
    ledger
}

fn faults(events: &[Received]) -> String {
    ledger(events).verdict(Duration::ZERO).unwrap_err()
}

#[test]
fn all_that_has_to_come_is_right() {
    let events = everything();
    assert_eq!(events.len(), 12);
    assert!(ledger(&events).is_complete());
    assert!(ledger(&events).verdict(Duration::ZERO).unwrap().starts_with("11 of 11 events came, all verified"));
    let all_but_the_last = ledger(&events[..11]);
    assert!(!all_but_the_last.is_complete());
}

#[test]
fn each_deviation_is_named() {
    let last = |change: fn(&mut Received)| {
        let mut events = everything();
        change(&mut events[11]);
        faults(&events)
    };
    let missing = faults(&everything()[..11]);
    assert_eq!(
        missing,
        "10 of 11 events came; not as they had to:\n  missing: sent of delay@simulator.esito.test, demo-4"
    );
    let other = last(|event| event.body["messageDeliveryFeedback"]["feedbackStatus"]["value"] = json!("delivered"));
    assert!(
        other.contains("missing: sent of delay@") && other.contains("not expected: delivered of delay@"),
        "{other}"
    );
    assert!(
        last(|event| event.faults.push("too old".to_owned()))
            .contains("sent of delay@simulator.esito.test was not verified: too old")
    );
    assert!(last(|event| event.body["requestId"] = json!("other")).contains("was not asked for"));
    assert!(last(|event| event.webhook_id = None).contains("has no webhook-id"));

    let mut events = everything();
    events.swap(10, 11);
    assert!(faults(&events).contains("out of order: sent before delay of delay@"));
    let mut events = everything();
    events.push(events[11].clone());
    assert!(faults(&events).contains("came again"));
}

#[test]
fn a_retry_carries_the_same_id() {
    let mut events = everything();
    let retried = events.iter().position(|event| event.attempt == 2).unwrap();
    assert_eq!(events[retried - 1].status, 503);
    events[retried].webhook_id = Some("another".to_owned());
    assert!(faults(&events).contains("was retried with another webhook-id"));
}

#[test]
fn a_forgetful_one_misses_one_event() {
    let mut ledger = Ledger::new(true);
    let kept: Vec<Received> = everything().into_iter().filter(|event| !ledger.forgets(event)).collect();
    assert_eq!(kept.len(), 11);
    kept.iter().for_each(|event| ledger.record(event));
    assert!(ledger.verdict(Duration::ZERO).unwrap_err().contains("missing: error sync Ignored/25 of error@"));
}
