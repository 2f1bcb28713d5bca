//! What a request is signed with, over rotations and PUTs.

use super::{SIMULATOR, UNITARY, items, text};
use crate::support::backing::{Backing, on_every_store};
use crate::support::receiver::{Got, Reply};
use crate::support::relay::{Credentials, Relay};
use crate::support::world::{World, campaign_through, execution};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The signatures that a request has, and the one that each secret makes (Standard Webhooks 1.0).
fn signatures(got: &Got, secrets: &[&str]) -> (BTreeSet<String>, BTreeSet<String>) {
    let signed = [got.id().as_bytes(), b".", got.headers["webhook-timestamp"].as_bytes(), b".", &got.body].concat();
    let of = |secret: &&str| {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
        format!("v1,{}", STANDARD.encode(tag))
    };
    let present = got.headers["webhook-signature"].split(' ').map(str::to_owned).collect();
    (present, secrets.iter().map(of).collect())
}

#[track_caller]
fn assert_signed(got: &Got, secrets: &[&str]) {
    let (present, wanted) = signatures(got, secrets);
    assert_eq!(present, wanted);
}

on_every_store! {
    a_rotated_secret_signs_beside_its_successor,
    an_omitted_secret_stays_and_an_omitted_field_takes_its_default,
    an_omitted_password_stays,
    a_test_is_marked_and_answers_what_the_endpoint_said,
}

async fn a_rotated_secret_signs_beside_its_successor(backing: &Backing) {
    let world = World::start_on(backing).await;
    let made = world.webhook(json!({})).await;
    let (id, first) = (text(&made["id"]), text(&made["signingSecret"]));
    let campaign = world.simulated_campaign().await;
    let send = async |n: usize| {
        world
            .caller
            .post(UNITARY, &execution(&format!("r-{n}"), &campaign, &[format!("sent@{SIMULATOR}")]))
            .await
            .expect(202);
        world.receiver.wait_for(n).await[n - 1].clone()
    };
    let path = format!("/v1/feedback-webhooks/{id}/rotate-secret");
    assert_signed(&send(1).await, &[&first]);
    let second = text(&world.caller.act(&path).await.expect(200)["signingSecret"]);
    assert_ne!(first, second);
    assert_signed(&send(2).await, &[&first, &second]);
    let third = text(&world.caller.post(&path, &json!({"overlapSeconds": 0})).await.expect(200)["signingSecret"]);
    assert_signed(&send(3).await, &[&first, &third]);
    let read = world.caller.get(&format!("/v1/feedback-webhooks/{id}")).await.expect(200);
    assert_eq!(read["signingSecret"], Value::Null);
    // A PUT does not touch it.
    world.caller.put(&format!("/v1/feedback-webhooks/{id}"), &read).await.expect(200);
    assert_signed(&send(4).await, &[&first, &third]);
}

/// Whether the token of a request is signed with this HMAC secret (RFC 7515).
fn is_token_by(got: &Got, secret: &str) -> bool {
    let token = got.headers["authorization"].strip_prefix("Bearer ").unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).is_ok()
}

async fn an_omitted_secret_stays_and_an_omitted_field_takes_its_default(backing: &Backing) {
    let world = World::start_on(backing).await;
    let authentication = json!({"type": "jwt", "algorithm": "HS256", "secret": "first secret", "issuer": "esito"});
    let secret_header = json!([{"name": "x-team", "value": "hidden", "secret": true}]);
    let made =
        world.webhook(json!({"authentication": authentication, "headers": secret_header, "timeoutSeconds": 3})).await;
    let path = format!("/v1/feedback-webhooks/{}", text(&made["id"]));
    let campaign = world.simulated_campaign().await;
    let send = async |n: usize| {
        world
            .caller
            .post(UNITARY, &execution(&format!("r-{n}"), &campaign, &[format!("sent@{SIMULATOR}")]))
            .await
            .expect(202);
        world.receiver.wait_for(n).await[n - 1].clone()
    };
    let set = json!({"set": true});
    assert_eq!((&made["authentication"]["secret"], &made["headers"][0]["value"]), (&set, &set));
    assert!(is_token_by(&send(1).await, "first secret"));
    let omitted = json!({"name": "n", "channels": ["email"], "url": world.receiver.url,
        "authentication": {"type": "jwt", "algorithm": "HS256"}, "headers": [{"name": "X-Team", "secret": true}]});
    let read = world.caller.put(&path, &omitted).await.expect(200);
    assert_eq!((&read["timeoutSeconds"], &read["authentication"]["issuer"]), (&json!(15), &Value::Null));
    let got = send(2).await;
    assert!(is_token_by(&got, "first secret") && got.headers["x-team"] == "hidden");
    world.caller.put(&path, &read).await.expect(200);
    assert!(is_token_by(&send(3).await, "first secret"), "what was read may be written back");
    let mut changed = omitted.clone();
    changed["authentication"]["secret"] = json!("second secret");
    world.caller.put(&path, &changed).await.expect(200);
    assert!(is_token_by(&send(4).await, "second secret"));
    let none = json!({"name": "n", "channels": ["email"], "url": world.receiver.url});
    world.caller.put(&path, &none).await.expect(200);
    let got = send(5).await;
    assert!(!got.headers.contains_key("authorization") && !got.headers.contains_key("x-team"));
    let again = world.caller.put(&path, &omitted).await;
    assert_eq!(again.status, 400, "a secret that was given up is gone: {}", again.text());
}

async fn an_omitted_password_stays(backing: &Backing) {
    let world = World::start_on(backing).await;
    let credentials =
        Credentials { username: "acme".to_owned(), password: "open sesame".to_owned(), mechanism: "PLAIN" };
    let relay = Relay::start_for(Some(credentials)).await;
    let smtp =
        json!({"host": "127.0.0.1", "port": relay.port, "tls": "none", "username": "acme", "password": "open sesame"});
    let mut channel = json!({"name": "relay", "channel": "email", "type": "smtp", "smtp": smtp, "from": {"address": "a@acme.example"}});
    let campaign = campaign_through(&world.caller, &channel).await;
    let made = world.caller.get("/v1/channel-configurations").await.expect(200);
    assert_eq!(items(&made)[0]["smtp"]["password"], json!({"set": true}));
    channel["smtp"].as_object_mut().unwrap().remove("password");
    channel["name"] = json!("renamed");
    let path = format!("/v1/channel-configurations/{}", text(&items(&made)[0]["id"]));
    world.caller.put(&path, &channel).await.expect(200);
    world.caller.post(UNITARY, &execution("r-1", &campaign, &["jane@example.com"])).await.expect(202);
    relay.wait_for(1).await;
}

async fn a_test_is_marked_and_answers_what_the_endpoint_said(backing: &Backing) {
    let world = World::start_on(backing).await;
    let made = world.webhook(json!({"headers": [{"name": "x-team", "value": "orders"}]})).await;
    let path = format!("/v1/feedback-webhooks/{}/test", text(&made["id"]));
    world.receiver.behave(|_, _| Reply { body: "thank you".to_owned(), ..Reply::status(202) });
    let attempt = world.caller.act(&path).await.expect(200);
    assert_eq!(
        (&attempt["succeeded"], &attempt["status"], &attempt["responseExcerpt"]),
        (&json!(true), &json!(202), &json!("thank you"))
    );
    let got = world.receiver.got();
    assert_eq!((got[0].headers["esito-test"].as_str(), got[0].headers["x-team"].as_str()), ("true", "orders"));
    assert_signed(&got[0], &[&text(&made["signingSecret"])]);
    assert_eq!(got[0].json()["eventType"], "message.feedback");
    world.receiver.behave(|_, _| Reply::status(503));
    let attempt = world.caller.act(&path).await.expect(200);
    assert_eq!(
        (&attempt["succeeded"], &attempt["status"], &attempt["error"]["kind"]),
        (&json!(false), &json!(503), &json!("status"))
    );
    let list = world.caller.get("/v1/deliveries").await.expect(200);
    assert!(items(&list).is_empty(), "a test is no delivery");
    assert_ne!(world.receiver.got()[0].id(), world.receiver.got()[1].id());
}
