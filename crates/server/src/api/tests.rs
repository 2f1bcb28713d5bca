//! Tests of the whole, in process.

mod house;
mod webhook_proofs;

use futures_util::FutureExt;
use house::{House, PROD};
use http::{Method, header};
use model::clock::{Clock, Timestamp};
use model::tenancy::DEFAULT_ORGANIZATION;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use store::Store;
use store::wake::Hint;

/// The committed document is the generated one: whoever changes the API sees it in the diff.
#[test]
fn the_committed_openapi_document_is_up_to_date() {
    let generated = super::openapi().to_pretty_json().unwrap() + "\n";
    let committed = include_str!("../../../../openapi.json");
    let how = "the API changed: run `cargo run -- openapi > openapi.json` at the root and commit it";
    assert!(generated == committed, "{how}");
}

#[tokio::test]
async fn an_execution_is_taken_once_and_read_back() {
    let house = House::new().await;
    let campaign = house.campaign().await;
    let body = json!({"requestId": "r1", "campaignId": campaign, "unknown": {"to": "Esito"}, "recipients": [
        {"type": "aep", "userId": "jane@simulator.esito.test", "namespace": "email", "context": {"n": 1}},
        {"type": "external", "userId": "42", "namespace": "ECID"}]});
    let path = "/ajo/im/executions/unitary";
    let first = house.post(&house.admin, path, body.clone()).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let fields = ["createdAt", "createdBy", "executionId", "modifiedAt", "modifiedBy", "requestId"];
    assert!(first.body.as_object().unwrap().keys().eq(fields), "{}", first.body);
    let again = house.post(&house.admin, path, body.clone()).await;
    assert_eq!((again.status.as_u16(), again.text("executionId")), (202, first.text("executionId")));
    let messages = |hint: &Hint| {
        if let Hint::Messages { due, .. } = hint { due.len() } else { 0 }
    };
    assert_eq!(house.hints.0.lock().unwrap().iter().map(messages).sum::<usize>(), 2);

    let mut other = body.clone();
    other["recipients"][0]["context"]["n"] = json!(2);
    assert_eq!(house.post(&house.admin, path, other).await.problem(), (409, "request-id-conflict"));
    let mut unknown = body.clone();
    unknown["campaignId"] = json!("01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11");
    assert_eq!(house.post(&house.admin, path, unknown).await.problem(), (404, "unknown-campaign"));
    let external = house.post(&house.admin, "/ajo/im/executions/highthroughput", body).await;
    assert_eq!(external.detail(), (400, "$.recipients[0].type: must be external for high throughput"));

    let read = house.get(&house.admin, &format!("/v1/executions/{}", first.text("executionId"))).await;
    assert_eq!(read.body["recipients"][0]["state"], json!("queued"), "{}", read.body);
    assert_eq!(read.body["recipients"][1]["address"], Value::Null);
    let listed = house.get(&house.admin, "/v1/messages?recipient=42&limit=1").await;
    assert_eq!(listed.body["items"][0]["userId"], json!("42"), "{}", listed.body);
    let feed = house.get(&house.admin, "/v1/feedback-events?after=0").await;
    assert!(feed.body["nextCursor"].is_string(), "{}", feed.body);

    let sender = house.new_key(json!({"role": "sender", "name": "shop"})).await;
    let foreign = house.get(&sender, &format!("/v1/executions/{}", first.text("executionId"))).await;
    assert_eq!(foreign.problem(), (404, "not-found"));
    assert_eq!(house.get(&sender, "/v1/executions").await.body["items"], json!([]));
    assert_eq!(house.get(&sender, "/v1/campaigns").await.problem(), (403, "role-forbids"));
}

#[tokio::test]
async fn a_webhook_lives_and_its_secrets_are_shown_once() {
    let house = House::new().await;
    let settings = json!({"name": "hook", "channels": ["email"], "url": "https://a.example/",
        "authentication": {"type": "jwt", "algorithm": "ES256"},
        "headers": [{"name": "x-key", "value": "planted-header", "secret": true}]});
    let made = house.post(&house.admin, "/v1/feedback-webhooks", settings.clone()).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let (id, secret) = (made.text("id"), made.text("signingSecret"));
    let second = house.post(&house.admin, "/v1/feedback-webhooks", settings).await;
    assert_eq!(second.problem(), (409, "feedback-webhook-exists"));
    assert_eq!(second.body["report"]["additionalContext"], json!({"id": id, "name": "hook"}));

    let path = format!("/v1/feedback-webhooks/{id}");
    let read = house.get(&house.admin, &path).await;
    assert_eq!(read.headers[header::ETAG], "\"1\"");
    let put = |body: Value, tag: &'static str| {
        let headers = [PROD[0], PROD[1], ("if-match", tag)];
        let house = &house;
        let path = &path;
        async move { house.with(&house.admin, Method::PUT, path, Some(body), &headers).await }
    };
    let same = put(read.body.clone(), "\"1\"").await;
    assert_eq!((same.status.as_u16(), &same.headers[header::ETAG]), (200, &"\"2\"".parse().unwrap()), "{}", same.body);
    assert_eq!(put(read.body, "\"1\"").await.problem(), (412, "precondition-failed"));

    let keys = house.get("", "/.well-known/jwks.json").await;
    assert_eq!(keys.body["keys"][0]["kid"], json!(format!("{id}-1")), "a PUT of what was read keeps the key");
    for (action, state) in [("pause", "paused"), ("disable", "disabled"), ("enable", "paused"), ("resume", "active")] {
        let done = house.in_prod(&house.admin, Method::POST, &format!("{path}/{action}"), None).await;
        assert_eq!((done.status.as_u16(), &done.body["state"]), (200, &json!(state)), "{action}");
    }
    let rotated = house.in_prod(&house.admin, Method::POST, &format!("{path}/rotate-secret"), None).await;
    assert_ne!(rotated.text("signingSecret"), secret);
    let rotated = house.in_prod(&house.admin, Method::POST, &format!("{path}/rotate-key"), None).await;
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    assert_eq!(house.get("", "/.well-known/jwks.json").await.body["keys"].as_array().unwrap().len(), 2);
    assert_eq!(
        house.in_prod(&house.admin, Method::POST, &format!("{path}/test"), None).await.body["succeeded"],
        json!(true)
    );
    assert_eq!(
        house.in_prod(&house.admin, Method::POST, &format!("{path}/drain"), None).await.body,
        json!({"deliveries": 0})
    );

    let deleted = house.in_prod(&house.admin, Method::DELETE, &path, None).await;
    assert_eq!(deleted.status, 204);
    assert_eq!(house.get(&house.admin, &path).await.problem(), (404, "not-found"));
    let log = house.get(&house.admin, "/v1/audit-log").await.body.to_string();
    assert!(log.contains("feedback-webhook.rotate-key") && log.contains("feedback-webhook.delete"));
    for planted in [secret.as_str(), "planted-header", "PRIVATE KEY"] {
        assert!(!log.contains(planted), "{planted} in {log}");
    }
}

/// Where the store knows of a change that the drivers were not told of, a paused webhook goes on being called.
#[tokio::test]
async fn a_change_is_told_to_the_drivers_though_its_caller_goes_away() {
    let house = House::new().await;
    let settings = json!({"name": "hook", "channels": ["email"], "url": "https://a.example/"});
    let made = house.post(&house.admin, "/v1/feedback-webhooks", settings).await;
    let path = format!("/v1/feedback-webhooks/{}", made.text("id"));
    let told = || house.hints.0.lock().unwrap().iter().filter(|hint| matches!(hint, Hint::Webhook(_))).count();
    for polls in 1..8 {
        let before = told();
        let action = if polls % 2 == 1 { "pause" } else { "resume" };
        let action = format!("{path}/{action}");
        let mut call = Box::pin(house.in_prod(&house.admin, Method::POST, &action, None));
        for _ in 0..polls {
            if call.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        let hinted = async {
            while told() == before {
                tokio::task::yield_now().await;
            }
        };
        let hinted = tokio::time::timeout(std::time::Duration::from_secs(20), hinted).await;
        assert!(hinted.is_ok(), "after {polls} polls: {}", house.get(&house.admin, &path).await.body);
    }
}

#[tokio::test]
async fn nobody_crosses_but_the_founder() {
    let house = House::new().await;
    let admin = house.admin.as_str();
    let made = house
        .with(admin, Method::POST, "/v1/organizations", Some(json!({"id": "acme@EsitoOrg", "name": "Acme"})), &[])
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    for name in ["prod", "dev"] {
        let made = house
            .with(admin, Method::POST, "/v1/sandboxes", Some(json!({"imsOrg": "acme@EsitoOrg", "name": name})), &[])
            .await;
        assert_eq!(made.status, 201, "{}", made.body);
    }
    let acme = house.new_key(json!({"imsOrg": "acme@EsitoOrg", "role": "admin", "name": "acme"})).await;
    let dev =
        house.new_key(json!({"imsOrg": "acme@EsitoOrg", "role": "admin", "name": "dev", "sandboxes": ["dev"]})).await;

    assert_eq!(house.get(&acme, "/v1/campaigns").await.problem(), (403, "foreign-organization"));
    let at = |org: &'static str, sandbox: &'static str| [("x-gw-ims-org-id", org), ("x-sandbox-name", sandbox)];
    let campaigns =
        async |key: &str, headers: &[(&str, &str)]| house.with(key, Method::GET, "/v1/campaigns", None, headers).await;
    assert_eq!(campaigns(&acme, &at("acme@EsitoOrg", "prod")).await.status, 200);
    assert_eq!(campaigns(admin, &at("acme@EsitoOrg", "prod")).await.status, 200);
    assert_eq!(campaigns(&acme, &at("acme@EsitoOrg", "none")).await.problem(), (404, "unknown-sandbox"));
    assert_eq!(campaigns(admin, &at("none@EsitoOrg", "prod")).await.problem(), (404, "unknown-sandbox"));
    assert_eq!(campaigns(&dev, &at("acme@EsitoOrg", "prod")).await.problem(), (403, "foreign-sandbox"));
    assert_eq!(campaigns(&dev, &at("acme@EsitoOrg", "none")).await.problem(), (403, "foreign-sandbox"));
    assert_eq!(campaigns(&acme, &at("acme@EsitoOrg", "prod")[..1]).await.detail().0, 400);

    // What a key for some sandboxes may see, and give away.
    let names = house.with(&dev, Method::GET, "/v1/sandboxes", None, &[]).await;
    assert_eq!(names.body["items"].as_array().unwrap().len(), 1, "{}", names.body);
    let more = house.with(&dev, Method::POST, "/v1/api-keys", Some(json!({"role": "viewer", "name": "x"})), &[]).await;
    assert_eq!(more.problem(), (403, "beyond-key"));
    let elsewhere = house
        .with(
            &acme,
            Method::POST,
            "/v1/api-keys",
            Some(json!({"imsOrg": DEFAULT_ORGANIZATION, "role": "viewer", "name": "x"})),
            &[],
        )
        .await;
    assert_eq!(elsewhere.problem(), (403, "foreign-organization"));
    let organizations = house.with(&acme, Method::GET, "/v1/organizations", None, &[]).await;
    assert_eq!(organizations.body["items"].as_array().unwrap().len(), 1, "{}", organizations.body);
    let foreign = house.with(&acme, Method::GET, "/v1/organizations/default@EsitoOrg", None, &[]).await;
    assert_eq!(foreign.problem(), (404, "unknown-organization"));
    let all = house.with(&acme, Method::GET, "/v1/feedback-webhooks?allSandboxes=true", None, &[]).await;
    assert_eq!((all.status.as_u16(), &all.body["items"]), (200, &json!([])));
}

#[tokio::test]
async fn a_revoked_or_expired_key_ends_at_once() {
    let house = House::new().await;
    let soon = Timestamp(house.clock.now().millis() + 500);
    let made =
        house.post(&house.admin, "/v1/api-keys", json!({"role": "viewer", "name": "v", "expiresAt": soon})).await;
    let key = made.text("key");
    assert_eq!(house.get(&key, "/v1/campaigns").await.status, 200);
    house.clock.0.fetch_add(500, Ordering::Relaxed);
    assert_eq!(house.get(&key, "/v1/campaigns").await.detail(), (401, "the API key has expired"));
    let key = house.post(&house.admin, "/v1/api-keys", json!({"role": "viewer", "name": "v"})).await;
    assert_eq!(house.get(&key.text("key"), "/v1/campaigns").await.status, 200);
    let revoked = house.in_prod(&house.admin, Method::DELETE, &format!("/v1/api-keys/{}", key.text("id")), None).await;
    assert_eq!(revoked.status, 204);
    let answer = house.get(&key.text("key"), "/v1/campaigns").await;
    assert_eq!(answer.detail(), (401, "the API key was revoked"));
    assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
    for bad in ["", "nonsense", "esito_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(house.get(bad, "/v1/campaigns").await.problem(), (401, "unauthenticated"), "{bad}");
    }
}

#[tokio::test]
async fn campaigns_have_versions() {
    let house = House::new().await;
    let id = house.campaign().await;
    let path = format!("/v1/campaigns/{id}");
    let live = house.get(&house.admin, &path).await;
    let mut edited = live.body.clone();
    edited["content"]["text"] = json!("{{#if context.x}}open");
    let broken = house.in_prod(&house.admin, Method::PUT, &path, Some(edited.clone())).await;
    assert!(broken.detail().1.starts_with("$.content.text: "), "{}", broken.body);
    edited["content"]["text"] = json!("other");
    let draft = house.in_prod(&house.admin, Method::PUT, &path, Some(edited)).await;
    assert_eq!((&draft.body["status"], &draft.body["hasDraft"]), (&json!("LIVE"), &json!(true)), "{}", draft.body);
    assert_eq!(draft.body["versionId"], live.body["versionId"]);
    let published = house.in_prod(&house.admin, Method::POST, &format!("{path}/activate"), None).await;
    assert_ne!(published.body["versionId"], live.body["versionId"], "{}", published.body);
    assert_eq!(house.in_prod(&house.admin, Method::DELETE, &path, None).await.status, 409);
    let stopped = house.in_prod(&house.admin, Method::POST, &format!("{path}/stop"), None).await;
    assert_eq!(stopped.body["status"], json!("STOPPED"), "{}", stopped.body);
    let again = house.in_prod(&house.admin, Method::POST, &format!("{path}/activate"), None).await;
    assert_eq!(again.problem(), (409, "wrong-state"));
}

#[tokio::test]
async fn what_is_wrong_is_told_in_problem_documents() {
    let house = House::new().await;
    assert_eq!(house.get(&house.admin, "/v1/nothing").await.problem(), (404, "unknown-path"));
    let method = house.in_prod(&house.admin, Method::PATCH, "/v1/campaigns", None).await;
    assert_eq!(method.problem(), (405, "method-not-allowed"));
    assert!(method.headers[header::ALLOW].to_str().unwrap().contains("POST"), "{:?}", method.headers);
    assert_eq!(
        house.in_prod(&house.admin, Method::POST, "/v1/campaigns", None).await.problem(),
        (415, "unsupported-media-type")
    );
    let path = "/v1/campaigns";
    assert_eq!(house.post(&house.admin, path, json!("x".repeat(1 << 20))).await.problem(), (413, "body-too-large"));
    assert_eq!(house.post(&house.admin, path, json!({})).await.detail(), (400, "$.name: is required"));
    assert_eq!(
        house.get(&house.admin, "/v1/campaigns?limit=0").await.detail(),
        (400, "$query.limit: must be from 1 to 200")
    );
    assert_eq!(house.get(&house.admin, "/v1/messages?cursor=nonsense").await.detail().0, 400);
    assert_eq!(house.get(&house.admin, "/v1/campaigns?cursor=%ff").await.detail().0, 400);
    assert_eq!(house.get(&house.admin, "/v1/campaigns/7").await.detail(), (400, "$path.id: must be a UUID"));
    let url = json!({"name": "n", "channels": [], "url": "http://a.example/"});
    let faults = house.post(&house.admin, "/v1/feedback-webhooks", url).await;
    let faults = &faults.body["report"]["additionalContext"]["faults"];
    assert_eq!((&faults[0]["path"], &faults[1]["path"]), (&json!("$.channels"), &json!("$.url")));
    house.store.close().await;
    let down = house.get(&house.admin, "/v1/campaigns").await;
    assert!(down.status == 503 || down.status == 200, "{}", down.body);
    assert_eq!(house.get("", "/healthz").await.status, 200);
    assert_eq!(house.get("", "/readyz").await.problem(), (503, "unavailable"));
}

#[tokio::test]
async fn a_server_that_stops_is_alive_and_not_ready() {
    let house = House::new().await;
    assert_eq!(house.get("", "/readyz").await.status, 200);
    house.outside.is_stopping.store(true, Ordering::SeqCst);
    assert_eq!(house.get("", "/readyz").await.problem(), (503, "unavailable"));
    assert_eq!(house.get("", "/healthz").await.status, 200);
}

#[tokio::test]
async fn an_execution_is_taken_when_it_is_admitted() {
    let house = House::new().await;
    let body = json!({"requestId": "r1", "campaignId": house.campaign().await, "recipients": [
        {"type": "external", "userId": "1", "namespace": "ECID"},
        {"type": "external", "userId": "2", "namespace": "ECID"}]});
    let door = house.outside.door.write().await;
    let call = house.post(&house.admin, "/ajo/im/executions/highthroughput", body);
    let meanwhile = async {
        while house.outside.asked.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(house.get(&house.admin, "/v1/executions").await.body["items"], json!([]));
        house.clock.0.fetch_add(200, Ordering::Relaxed);
        drop(door);
    };
    let both = async { tokio::join!(call, meanwhile) };
    let (answer, ()) = tokio::time::timeout(std::time::Duration::from_secs(20), both).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.body["createdAt"], json!(house.clock.now()), "it waited before it was made");
    assert_eq!(*house.outside.asked.lock().unwrap(), [2]);
}
