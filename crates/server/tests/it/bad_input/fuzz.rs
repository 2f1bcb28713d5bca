//! A small seeded fuzz: mutated bodies of every operation that takes one are taken or refused as the document says.

use super::problem_fault;
use super::stage::{Stage, campaign_body, channel_body, webhook_body};
use crate::support::Random;
use crate::support::client::{Answer, Caller};
use crate::support::openapi::Operation;
use crate::support::world::{execution, merge};
use hyper::Method;
use serde_json::{Value, json};
use std::collections::HashMap;

const SEED: u64 = 20_260_117;
const ROUNDS: usize = 40;

/// A body that the operation takes; the path has an id where it needs one.
struct Valid<'a> {
    caller: &'a Caller,
    path: String,
    body: Value,
}

fn valid<'a>(stage: &'a Stage, operation: &Operation, other_webhook: &str) -> Valid<'a> {
    let authenticated = json!({"headers": [{"name": "x-team", "value": "orders", "secret": true}], "events": ["sent"],
        "authentication": {"type": "jwt", "algorithm": "ES256", "keyId": "k", "issuer": "esito", "claims": {"a": 1}},
        "retry": {"firstDelaySeconds": 5}, "payload": "extended", "timeoutSeconds": 3, "maxPerSecond": 100});
    let mut webhook = webhook_body();
    merge(&mut webhook, authenticated);
    let mut campaign = campaign_body(&stage.channel);
    merge(
        &mut campaign,
        json!({"schedule": {"startAt": "2026-01-01T00:00:00Z"}, "audience": {"enableWebhooks": true}}),
    );
    let mut channel = channel_body();
    merge(&mut channel, json!({"replyTo": {"address": "a@acme.example"}, "smtp": {"username": "u", "password": "p"}}));
    let mut sent = execution("fuzz", &stage.live, &["sent@simulator.esito.test", "bounce@simulator.esito.test"]);
    sent["expiresAt"] = json!("2199-01-01T00:00:00Z");
    let key = json!({"role": "sender", "name": "fuzz", "sandboxes": ["prod"], "expiresAt": "2199-01-01T00:00:00Z"});
    let replay = json!({"filter": {"requestId": "fuzz", "executionId": "HUMA-1", "status": "sent", "channel": "email",
        "recipient": "a@acme.example", "state": "exhausted", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z",
        "campaignId": "01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11"}, "perSecond": 10});
    let admin = &stage.admin;
    let (caller, id, body) = match (operation.method.as_str(), operation.path.as_str()) {
        ("POST", "/ajo/im/executions/unitary" | "/ajo/im/executions/highthroughput") => (admin, "", sent),
        ("POST", "/v1/organizations") => (admin, "", json!({"id": "fuzz@EsitoOrg", "name": "Fuzz"})),
        ("PUT", "/v1/organizations/{id}") => (
            admin,
            "acme@EsitoOrg",
            json!({"name": "Fuzz", "retention": {"eventsDays": 9, "attemptsDays": 1, "auditLogDays": 1}}),
        ),
        ("POST", "/v1/sandboxes") => (admin, "", json!({"name": "fuzz", "imsOrg": "acme@EsitoOrg"})),
        ("POST", "/v1/api-keys") => (admin, "", key),
        ("POST", "/v1/erasures") => (admin, "", json!({"address": "fuzz@acme.example"})),
        ("POST", "/v1/replays") => (&stage.empty, "", replay),
        ("POST", "/v1/feedback-webhooks") => (&stage.acme, "", webhook),
        ("PUT", "/v1/feedback-webhooks/{id}") => (admin, stage.webhook.as_str(), webhook),
        ("POST", "/v1/feedback-webhooks/{id}/rotate-secret" | "/v1/feedback-webhooks/{id}/rotate-key") => {
            (&stage.empty, other_webhook, json!({"overlapSeconds": 60}))
        }
        ("POST", "/v1/campaigns") => (admin, "", campaign),
        ("PUT", "/v1/campaigns/{id}") => (admin, stage.draft.as_str(), campaign),
        ("POST", "/v1/channel-configurations") => (admin, "", channel),
        ("PUT", "/v1/channel-configurations/{id}") => (admin, stage.channel.as_str(), channel),
        (method, path) => panic!("{method} {path} takes a body that this test does not know"),
    };
    Valid { caller, path: operation.path_with(id), body }
}

/// One to three changes anywhere in the body.
fn mutated(body: &Value, random: &mut Random) -> Value {
    let mut body = body.clone();
    for _ in 0..=random.below(3) {
        let mut pointers = Vec::new();
        collect(&body, String::new(), &mut pointers);
        let pointer = random.pick(&pointers).clone();
        match (random.below(8), pointer.rsplit_once('/')) {
            (0 | 1, Some((parent, key))) => remove(body.pointer_mut(parent).unwrap(), key),
            (2, _) => {
                let place = body.pointer_mut(&pointer).unwrap();
                *place = json!({"nested": [place.clone()]});
            }
            _ => *body.pointer_mut(&pointer).unwrap() = odd_value(random),
        }
    }
    body
}

fn collect(value: &Value, at: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| collect(value, format!("{at}/{key}"), pointers)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| collect(value, format!("{at}/{i}"), pointers))
        }
        _ => {}
    }
    pointers.push(at);
}

fn remove(parent: &mut Value, key: &str) {
    match parent {
        Value::Object(fields) => drop(fields.remove(key)),
        Value::Array(items) => drop(items.remove(key.parse().unwrap())),
        _ => {}
    }
}

fn odd_value(random: &mut Random) -> Value {
    let odd = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!(" "),
        json!("\u{0}"),
        json!("\r\n"),
        json!("é\u{202e}"),
        json!("x".repeat(300)),
        json!("x".repeat(300_000)),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"set": true}),
        json!({"set": false}),
        json!("{{#if"),
        json!("9999-12-31T23:59:59Z"),
        json!("-262143-01-01T00:00:00Z"),
        json!("HUMA-1"),
        json!("01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11"),
        json!("ES256"),
        json!("HS256"),
        json!("sms"),
        json!("https://[::1]/"),
        json!("authorization"),
    ];
    random.pick(&odd).clone()
}

/// Whether the document names this answer to the operation.
fn check(operation: &Operation, body: &Value, answer: &Answer) {
    let shown: String = body.to_string().chars().take(2000).collect();
    let what = format!("{} {}: {shown}\n{} {}", operation.method, operation.path, answer.status, answer.text());
    assert!(answer.status < 500, "{what}");
    assert!(operation.described["responses"][answer.status.to_string()].is_object(), "not documented: {what}");
    if answer.status >= 400 {
        let fault = problem_fault(answer);
        assert!(fault.is_none(), "{what}\n{}", fault.unwrap_or_default());
    }
}

pub async fn run(stage: &Stage) {
    println!("seed {SEED}");
    let document = stage.admin.get("/openapi.json").await.expect(200);
    let mut other = webhook_body();
    other["authentication"] = json!({"type": "jwt", "algorithm": "EdDSA"});
    let other = stage.empty.post("/v1/feedback-webhooks", &other).await.expect(201);
    let other_webhook = other["id"].as_str().unwrap();
    let mut random = Random(SEED);
    let mut seen: HashMap<u16, usize> = HashMap::new();
    for operation in Operation::all(&document).iter().filter(|operation| operation.takes_body()) {
        let valid = valid(stage, operation, other_webhook);
        let send = async |body: &Value| valid.caller.call(operation.method.clone(), &valid.path, Some(body)).await;
        let good = send(&valid.body).await;
        assert!((200..300).contains(&good.status), "{} {}: {}", operation.method, operation.path, good.text());
        for _ in 0..ROUNDS {
            let body = mutated(&valid.body, &mut random);
            let before = stage.trace().await;
            let answer = send(&body).await;
            check(operation, &body, &answer);
            *seen.entry(answer.status).or_default() += 1;
            if answer.status >= 400 {
                assert_eq!(stage.trace().await, before, "refused and yet stored: {body}");
            }
            clear(stage, operation, &answer).await;
        }
    }
    println!("{seen:?}");
    assert!(
        seen[&400] > 100 && seen.keys().any(|status| *status < 300),
        "the mutations are too tame or too wild: {seen:?}"
    );
}

/// A sandbox has one webhook at most, so the next round needs the place.
async fn clear(stage: &Stage, operation: &Operation, answer: &Answer) {
    if operation.method == Method::POST && operation.path == "/v1/feedback-webhooks" && answer.status == 201 {
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(stage.acme.delete(&format!("/v1/feedback-webhooks/{id}")).await.status, 204);
    }
}
