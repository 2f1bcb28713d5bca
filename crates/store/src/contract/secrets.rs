//! Secrets at rest.

use super::fixtures::{at, page};
use super::world::World;
use super::{Bench, Setup, contains};
use crate::StoreError;
use model::outcome::Verdict;
use model::secret::Secret;
use model::webhook::{Channel, JwtAlgorithm, JwtKey, SigningSecretEntry, Webhook};
use serde_json::json;

/// A webhook and a channel configuration with every kind of secret.
async fn plant_secrets(world: &World) -> Webhook {
    let mut webhook = world.new_webhook(json!({
        "authentication": {"type": "jwt", "algorithm": "HS256", "secret": "planted-hmac"},
        "headers": [{"name": "X-Key", "value": "planted-header", "secret": true}, {"name": "X-Open", "value": "open"}],
    }));
    webhook.keys.signing.push(SigningSecretEntry {
        secret: Some(Secret::new("planted-signing")),
        name: "s1".to_owned(),
        public_key: None,
        expires_at: None,
    });
    webhook.keys.jwt.push(JwtKey {
        private_key: Some(Secret::new("planted-private")),
        key_id: "k1".to_owned(),
        algorithm: JwtAlgorithm::ES256,
        own: true,
        public_jwk: json!({"kty": "EC"}),
        expires_at: None,
    });
    world.store.create_webhook(webhook.clone(), world.audit("feedback-webhook.create")).await.unwrap();
    let mut channel = world.new_channel(Channel::Email);
    channel.settings = serde_json::from_value(json!({
        "name": "relay", "channel": "email", "type": "smtp", "from": {"address": "a@b.example"},
        "smtp": {"host": "h", "port": 25, "username": "u", "password": "planted-password"},
    }))
    .unwrap();
    world.store.create_channel(channel, world.audit("channel-configuration.create")).await.unwrap();
    webhook
}

/// The passwords of the sandbox's relays.
async fn passwords(world: &World) -> Vec<String> {
    let channels = world.store.channels(world.sandbox.id, page(9)).await.unwrap().items;
    let relays = channels.into_iter().filter_map(|channel| channel.settings.smtp);
    relays.map(|smtp| smtp.password.unwrap().expose().to_owned()).collect()
}

pub async fn secrets_come_back_and_are_not_in_the_rows(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let planted = plant_secrets(&world).await;
    let world = world.reopen(bench).await;
    let read = world.webhook().await;
    assert_eq!(read.settings, planted.settings);
    assert_eq!(read.settings.headers[1].value.as_ref().unwrap().expose(), "open");
    assert_eq!(read.keys.signing[0].secret, planted.keys.signing[0].secret);
    assert_eq!(read.keys.jwt[0].private_key, planted.keys.jwt[0].private_key);
    assert_eq!(passwords(&world).await, ["planted-password"]);
    let published = world.store.webhooks_with_keys().await.unwrap();
    assert_eq!(published.len(), 1);
    assert!(published[0].keys.jwt[0].private_key.is_none(), "the JWKS needs no secret");

    // The state that attempts note does not touch them.
    let due = world.delivery("r1").await;
    world.finish(&due, at(1), model::delivery::AttemptDecision::RetryAt(at(2))).await;
    world.edit_webhook(at(3), |webhook| webhook.settings.name = "renamed".to_owned()).await;
    assert_eq!(world.webhook().await.settings.authentication, planted.settings.authentication);
    assert!(!contains(&bench.contents().await, "planted-"));
}

pub async fn another_master_key_opens_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let webhook = plant_secrets(&world).await;
    let world = world.reopen_with(bench, Setup { master_key: [8; 32], ..Setup::default() }).await;
    let corrupt = |told: Option<StoreError>| matches!(told, Some(StoreError::Corrupt(_)));
    assert!(corrupt(world.store.webhook(world.sandbox.id, webhook.id).await.err()));
    assert!(corrupt(world.store.webhook_of(world.sandbox.id).await.err()));
    assert!(corrupt(world.store.channels(world.sandbox.id, page(9)).await.err()));
    // What needs no secret still works: nothing that was accepted is lost.
    let message = world.message("r1").await;
    assert_eq!(world.record(message, Verdict::Sent).await.due.len(), 1);
}
