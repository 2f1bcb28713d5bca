//! What a webhook proves itself with: signing keys, key pairs, and who it is to a token endpoint.

use super::house::{Answer, House};
use http::Method;
use model::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

const WEBHOOKS: &str = "/v1/feedback-webhooks";

async fn make(house: &House, more: Value) -> Answer {
    house.post(&house.admin, WEBHOOKS, settings(more)).await
}

fn settings(more: Value) -> Value {
    let mut all = json!({"name": "hook", "channels": ["email"], "url": "https://a.example/"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

async fn put(house: &House, id: &str, body: Value) -> Answer {
    house.in_prod(&house.admin, Method::PUT, &format!("{WEBHOOKS}/{id}"), Some(body)).await
}

async fn rotate(house: &House, id: &str, what: &str, overlap_secs: u32) -> Answer {
    let body = json!({"overlapSeconds": overlap_secs});
    house.post(&house.admin, &format!("{WEBHOOKS}/{id}/{what}"), body).await
}

async fn read(house: &House, id: &str) -> Value {
    house.get(&house.admin, &format!("{WEBHOOKS}/{id}")).await.body
}

async fn published(house: &House) -> Vec<Value> {
    let keys = house.get("", "/.well-known/jwks.json").await;
    keys.body["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
}

#[tokio::test]
async fn a_key_pair_shows_its_public_half_and_the_former_one_until_its_end() {
    let house = House::new().await;
    let made = make(&house, json!({"signing": "v1a"})).await;
    assert_eq!((made.status.as_u16(), &made.body["signingSecret"]), (201, &Value::Null), "{}", made.body);
    let (id, first) = (made.text("id"), made.text("signingPublicKey"));
    assert!(first.starts_with("whpk_"));
    assert_eq!(read(&house, &id).await["signingPublicKey"], json!(first));

    let rotated = rotate(&house, &id, "rotate-secret", 60).await;
    let second = rotated.text("signingPublicKey");
    assert_ne!(first, second);
    let end = house.clock.now() + Duration::from_secs(60);
    let former = json!([{"publicKey": first, "expiresAt": end}]);
    assert_eq!((&rotated.body["formerSigningPublicKeys"], &rotated.body["signingSecret"]), (&former, &Value::Null));
    let shown = read(&house, &id).await;
    let kept = put(&house, &id, shown.clone()).await;
    assert_eq!(kept.text("signingPublicKey"), second, "a PUT of what was read keeps the key");
    house.clock.0.store(end.millis(), Ordering::Relaxed);
    let shown = read(&house, &id).await;
    assert_eq!((&shown["signingPublicKey"], shown.get("formerSigningPublicKeys")), (&json!(second), None));

    let log = house.get(&house.admin, "/v1/audit-log").await.body.to_string();
    assert!(log.contains(&second) && !log.contains("whsk_"), "{log}");
}

#[tokio::test]
async fn a_change_of_scheme_shows_what_verifies_the_new_one() {
    let house = House::new().await;
    let made = make(&house, json!({})).await;
    assert_eq!(made.body.get("signingPublicKey"), None);
    let id = made.text("id");
    let changed = put(&house, &id, settings(json!({"signing": "v1a"}))).await;
    assert!(changed.text("signingPublicKey").starts_with("whpk_"), "{}", changed.body);
    assert_eq!(changed.body.get("signingSecret"), None);
    let back = put(&house, &id, settings(json!({"signing": "v1"}))).await;
    assert!(back.text("signingSecret").starts_with("whsec_"), "{}", back.body);
    assert_ne!(back.text("signingSecret"), made.text("signingSecret"));
    assert_eq!(back.body["formerSigningPublicKeys"][0]["publicKey"], changed.body["signingPublicKey"]);
    let same = put(&house, &id, settings(json!({"signing": "v1"}))).await;
    assert_eq!(same.body.get("signingSecret"), None);
}

fn oauth2(more: Value) -> Value {
    let mut all = json!({"type": "oauth2", "tokenUrl": "https://tokens.example/oauth/token", "clientId": "esito"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"authentication": all})
}

#[tokio::test]
async fn a_client_secret_is_kept_and_never_shown() {
    let house = House::new().await;
    let made = make(&house, oauth2(json!({"clientSecret": "planted-client", "scope": "a b"}))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.text("id");
    let shown = json!({"type": "oauth2", "tokenUrl": "https://tokens.example/oauth/token", "clientId": "esito",
        "clientSecret": {"set": true}, "scope": "a b"});
    assert_eq!(made.body["authentication"], shown);
    let kept = put(&house, &id, settings(oauth2(json!({})))).await;
    assert_eq!((kept.status.as_u16(), &kept.body["authentication"]["clientSecret"]), (200, &json!({"set": true})));
    let bearer = put(&house, &id, settings(oauth2(json!({"method": "jwt_bearer", "algorithm": "ES256"})))).await;
    assert_eq!(bearer.body["authentication"].get("clientSecret"), None, "another method does not inherit it");
    let dropped = put(&house, &id, settings(oauth2(json!({})))).await;
    assert_eq!(dropped.detail(), (400, "$.authentication.clientSecret: is required for the method client_credentials"));
    let log = house.get(&house.admin, "/v1/audit-log").await.body.to_string();
    assert!(!log.contains("planted-client"), "{log}");
}

#[tokio::test]
async fn a_token_url_is_checked_like_the_webhooks() {
    let house = House::new().await;
    let refused = make(&house, oauth2(json!({"clientSecret": "s", "tokenUrl": "http://tokens.example/"}))).await;
    assert_eq!(refused.detail(), (400, "$.authentication.tokenUrl: must be https"));
}

#[tokio::test]
async fn a_former_public_key_is_published_until_its_end() {
    for authentication in [
        json!({"authentication": {"type": "jwt", "algorithm": "ES256", "keyId": "k"}}),
        oauth2(json!({"method": "jwt_bearer", "algorithm": "EdDSA", "keyId": "k"})),
    ] {
        let house = House::new().await;
        let made = make(&house, authentication).await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!(published(&house).await, [json!("k")]);
        let rotated = rotate(&house, &made.text("id"), "rotate-key", 60).await;
        assert_eq!(rotated.status, 200, "{}", rotated.body);
        assert_eq!(published(&house).await, [json!("k-2"), json!("k")]);
        let end = house.clock.now() + Duration::from_secs(60);
        house.clock.0.store(end.millis() - 1, Ordering::Relaxed);
        assert_eq!(published(&house).await, [json!("k-2"), json!("k")]);
        // By time alone, and by the key set that is kept for some seconds.
        house.clock.0.store((end + Duration::from_secs(5)).millis(), Ordering::Relaxed);
        assert_eq!(published(&house).await, [json!("k-2")]);
    }
}

#[tokio::test]
async fn an_overlap_of_nothing_ends_the_former_one_at_once() {
    let house = House::new().await;
    let made = make(&house, json!({"signing": "v1a", "authentication": {"type": "jwt", "algorithm": "EdDSA"}})).await;
    let id = made.text("id");
    let rotated = rotate(&house, &id, "rotate-secret", 0).await;
    assert_eq!(rotated.body.get("formerSigningPublicKeys"), None);
    rotate(&house, &id, "rotate-key", 0).await;
    assert_eq!(published(&house).await.len(), 1);
    assert!(house.clock.now() > Timestamp(0));
}
