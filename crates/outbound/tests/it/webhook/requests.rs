//! What a request says.

use super::*;
use model::webhook::{JwtAlgorithm, JwtKey};
use secrecy::{ExposeSecret, SecretString};
use wire::jwt::{Expected, SigningKey, VerificationKey, generate_private_pem, key_id, verify};
use wire::standard_webhooks::{SigningKeyPair, verify_v1, verify_v1a};

struct Setting {
    receiver: Receiver,
    network: Arc<Network>,
}

async fn setting() -> Setting {
    let authority = Authority::new();
    let receiver = Receiver::answering("127.0.0.1", authority.server(&[HOOK], Validity::Good), OK).await;
    Setting { receiver, network: network(&authority) }
}

impl Setting {
    fn webhook(&self, more: Value) -> Webhook {
        webhook(&url(&self.receiver), more)
    }

    fn endpoint(&self, webhook: &Webhook) -> Endpoint {
        Endpoint::new(webhook, &self.network).unwrap()
    }
}

fn expected(algorithm: JwtAlgorithm, now: Timestamp) -> Expected<'static> {
    Expected { algorithm, issuer: Some("esito"), audience: Some("acme"), now_secs: now.seconds(), leeway_secs: 0 }
}

fn signs(seen: &receiver::Seen, secret: &SigningSecret) -> bool {
    let timestamp = seen.header("webhook-timestamp").unwrap();
    let signature = seen.header("webhook-signature").unwrap();
    let id = seen.header("webhook-id").unwrap();
    verify_v1(secret, id, timestamp, signature, &seen.body, NOW.seconds(), 0).is_ok()
}

#[tokio::test]
async fn every_header_is_as_documented() {
    let mut setting = setting().await;
    let webhook = setting.webhook(json!({"headers": [
        {"name": "X-Route", "value": "blue"}, {"name": "x-key", "value": "k3y", "secret": true},
    ]}));
    let endpoint = setting.endpoint(&webhook);
    let marks = [("esito-replay", "r-1".to_owned())];
    let body = "{\"name\":\"Zoë\"}";
    let reply = endpoint.post(Post { id: ID, body: body.into(), marks: &marks }, &TestClock::new()).await;
    assert_eq!((reply.verdict, reply.attempt.at, reply.attempt.error), (Verdict::Succeeded, NOW, None));

    let seen = setting.receiver.seen().await;
    assert_eq!(seen.line, "POST /feedback?tenant=a%20b HTTP/1.1");
    assert_eq!(seen.body, body.as_bytes());
    assert!(signs(&seen, &signing_secret()));
    let host = format!("{HOOK}:{}", setting.receiver.address.port());
    let length = body.len().to_string();
    let agent = format!("Esito/{}", env!("CARGO_PKG_VERSION"));
    let signature = seen.header("webhook-signature").unwrap().to_owned();
    let mut headers = seen.headers.clone();
    headers.sort();
    let expected = [
        ("content-length", length.as_str()),
        ("content-type", "application/json"),
        ("esito-replay", "r-1"),
        ("host", &host),
        ("user-agent", &agent),
        ("webhook-id", ID),
        ("webhook-signature", &signature),
        ("webhook-timestamp", "1769860800"),
        ("x-key", "k3y"),
        ("x-route", "blue"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn no_signature_where_none_is_wanted() {
    let mut setting = setting().await;
    let mut webhook = setting.webhook(json!({"signing": "none"}));
    webhook.keys.signing.clear();
    assert_eq!(post(&setting.endpoint(&webhook)).await.verdict, Verdict::Succeeded);
    let seen = setting.receiver.seen().await;
    assert_eq!(seen.header("webhook-signature"), None);
    assert_eq!(seen.header("webhook-id"), Some(ID));
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn on_rotation_both_secrets_sign_until_the_old_one_ends() {
    let mut setting = setting().await;
    let mut webhook = setting.webhook(json!({}));
    let old = SigningSecret::generate_from([3; 32]);
    let end = NOW + std::time::Duration::from_secs(60);
    webhook.keys.signing.push(SigningSecretEntry {
        secret: Some(Secret::new(old.reveal())),
        name: "old".to_owned(),
        public_key: None,
        expires_at: Some(end),
    });
    let endpoint = setting.endpoint(&webhook);
    post(&endpoint).await;
    let seen = setting.receiver.seen().await;
    assert!(signs(&seen, &signing_secret()) && signs(&seen, &old));

    let clock = TestClock::new();
    clock.advance_secs(60);
    endpoint.post(Post { id: ID, body: "{}".into(), marks: &[] }, &clock).await;
    let seen = setting.receiver.seen().await;
    assert_eq!(seen.header("webhook-signature").unwrap().split(' ').count(), 1);
    assert_eq!(seen.header("webhook-timestamp"), Some("1769860860"));
}

#[tokio::test]
async fn an_asymmetric_signature_verifies_with_the_public_key() {
    let mut setting = setting().await;
    let mut webhook = setting.webhook(json!({"signing": "v1a"}));
    let [new, old] = [[1; 32], [2; 32]].map(|seed| SigningKeyPair::generate_from(seed).unwrap());
    let entry = |pair: &SigningKeyPair, name: &str, expires_at| SigningSecretEntry {
        secret: Some(Secret::new(pair.reveal())),
        name: name.to_owned(),
        public_key: Some(pair.public_key().to_string()),
        expires_at,
    };
    // First a change from `v1`, then a rotation: each key signs until its end.
    webhook.keys.signing[0].expires_at = Some(NOW + std::time::Duration::from_secs(30));
    let end = NOW + std::time::Duration::from_secs(60);
    webhook.keys.signing.insert(0, entry(&old, "old", Some(end)));
    webhook.keys.signing.insert(0, entry(&new, "new", None));
    let (endpoint, clock) = (setting.endpoint(&webhook), TestClock::new());
    let mut counts = Vec::new();
    for secs in [0, 30, 30] {
        clock.advance_secs(secs);
        endpoint.post(Post { id: ID, body: "{}".into(), marks: &[] }, &clock).await;
        let seen = setting.receiver.seen().await;
        let [id, timestamp, signature] =
            ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| seen.header(name).unwrap());
        let verifies = |pair: &SigningKeyPair| {
            verify_v1a(&pair.public_key(), id, timestamp, signature, &seen.body, clock.now().seconds(), 0).is_ok()
        };
        assert!(verifies(&new));
        assert_eq!(verifies(&old), clock.now() < end);
        counts.push(signature.split(' ').count());
    }
    assert_eq!(counts, [3, 2, 1]);
}

#[tokio::test]
async fn an_hmac_token_verifies() {
    let mut setting = setting().await;
    let secret = "a secret of at least thirty-two characters";
    let webhook = setting.webhook(json!({"authentication": {
        "type": "jwt", "algorithm": "HS256", "secret": secret, "issuer": "esito", "audience": "acme", "subject": "s",
        "keyId": "k1", "claims": {"tenant": {"id": 7}}, "header": "X-Token", "prefix": "",
    }}));
    assert_eq!(post(&setting.endpoint(&webhook)).await.verdict, Verdict::Succeeded);
    let seen = setting.receiver.seen().await;
    let token = seen.header("x-token").unwrap();
    let key = VerificationKey::hmac(&SecretString::from(secret));
    let claims = verify(token, &key, &expected(JwtAlgorithm::HS256, NOW)).unwrap();
    assert_eq!(claims["iat"], NOW.seconds());
    assert_eq!(claims["exp"], NOW.seconds() + 300);
    assert_eq!((&claims["sub"], &claims["tenant"]), (&json!("s"), &json!({"id": 7})));
    assert_eq!(key_id(token).unwrap().as_deref(), Some("k1"));
}

fn key_pair(id: &str, algorithm: JwtAlgorithm, expires_at: Option<Timestamp>) -> JwtKey {
    let pem = generate_private_pem(algorithm).unwrap();
    let public_jwk = SigningKey::from_private_pem(algorithm, &pem).unwrap().public_jwk(id).unwrap();
    let private_key = Some(Secret::new(pem.expose_secret()));
    JwtKey { private_key, key_id: id.to_owned(), algorithm, own: true, public_jwk, expires_at }
}

#[tokio::test]
async fn a_token_of_the_current_key_pair_verifies() {
    for algorithm in [JwtAlgorithm::ES256, JwtAlgorithm::EdDSA] {
        let mut setting = setting().await;
        let mut webhook = setting.webhook(json!({"authentication": {
            "type": "jwt", "algorithm": algorithm, "issuer": "esito", "audience": "acme", "expiresInSeconds": 60,
        }}));
        let old = key_pair("old", algorithm, Some(NOW + std::time::Duration::from_secs(3600)));
        webhook.keys.jwt = vec![old, key_pair("new", algorithm, None)];
        assert_eq!(post(&setting.endpoint(&webhook)).await.verdict, Verdict::Succeeded);
        let seen = setting.receiver.seen().await;
        let token = seen.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
        let key = VerificationKey::from_jwk(&webhook.keys.jwt[1].public_jwk).unwrap();
        let claims = verify(token, &key, &expected(algorithm, NOW)).unwrap();
        assert_eq!(claims["exp"], NOW.seconds() + 60);
        assert_eq!(key_id(token).unwrap().as_deref(), Some("new"));
    }
}

#[tokio::test]
async fn a_token_is_used_for_the_first_half_of_its_life() {
    let mut setting = setting().await;
    let mut webhook = setting.webhook(json!({"authentication": {
        "type": "jwt", "algorithm": "HS256", "secret": "s", "expiresInSeconds": 100,
    }}));
    let (endpoint, clock) = (setting.endpoint(&webhook), TestClock::new());
    let mut tokens = Vec::new();
    for step in [0, 50, 1, -60] {
        clock.advance_secs(step);
        endpoint.post(Post { id: ID, body: "{}".into(), marks: &[] }, &clock).await;
        tokens.push(setting.receiver.seen().await.header("authorization").unwrap().to_owned());
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2], "past half of its life");
    assert_ne!(tokens[2], tokens[3], "the clock stepped back to before its issue");

    // Never one that could expire while the attempt runs: the timeout is 10 s.
    webhook.settings.authentication.expires_in_seconds = Some(15);
    let (endpoint, clock) = (setting.endpoint(&webhook), TestClock::new());
    let mut tokens = Vec::new();
    for step in [0, 4, 1] {
        clock.advance_secs(step);
        endpoint.post(Post { id: ID, body: "{}".into(), marks: &[] }, &clock).await;
        tokens.push(setting.receiver.seen().await.header("authorization").unwrap().to_owned());
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_named_and_not_shown() {
    let setting = setting().await;
    let mut broken = Vec::new();
    let jwt = |algorithm: &str| json!({"authentication": {"type": "jwt", "algorithm": algorithm, "secret": "hush"}});
    broken.push((setting.webhook(jwt("ES256")), "no current private key"));
    let mut webhook = setting.webhook(jwt("RS256"));
    webhook.keys.jwt = vec![JwtKey { algorithm: JwtAlgorithm::RS256, ..key_pair("k", JwtAlgorithm::ES256, None) }];
    broken.push((webhook, "needs an RSA key"));
    let mut webhook = setting.webhook(json!({}));
    webhook.keys.signing[0].secret = Some(Secret::new("whsec_hush"));
    broken.push((webhook, "signing"));
    let mut webhook = setting.webhook(json!({}));
    webhook.keys.signing[0].expires_at = Some(NOW);
    broken.push((webhook, "no current secret"));
    broken.push((setting.webhook(json!({"signing": "v1a"})), "no current key pair"));
    let mut webhook = setting.webhook(json!({"signing": "v1a"}));
    webhook.keys.signing[0].secret = Some(Secret::new("whsk_hush"));
    broken.push((webhook, "signing: the private key"));
    broken.push((setting.webhook(json!({"headers": [{"name": "x y", "value": "hush"}]})), "x y"));
    broken.push((setting.webhook(json!({"headers": [{"name": "x", "value": "hush\n"}]})), "x"));
    for (webhook, says) in broken {
        let error = Endpoint::new(&webhook, &setting.network).unwrap_err();
        assert_eq!(error.kind, AttemptErrorKind::Configuration);
        assert!(error.message.contains(says), "{} should say {says}", error.message);
        assert!(!error.message.contains("hush"), "{}", error.message);
    }
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let setting = setting().await;
    let webhook = setting.webhook(json!({
        "authentication": {"type": "jwt", "algorithm": "HS256", "secret": "hush"},
        "headers": [{"name": "x", "value": "hush", "secret": true}],
    }));
    let shown = format!("{:?} {:?}", setting.endpoint(&webhook), setting.network);
    assert!(!shown.contains("hush") && !shown.contains("whsec_"), "{shown}");
}

#[tokio::test]
async fn a_sample_is_marked_and_signed() {
    let mut setting = setting().await;
    let webhook = setting.webhook(json!({"channels": ["sms"], "events": ["bounce"], "payload": "extended"}));
    let reply = outbound::webhook::sample(&webhook, &setting.network, &TestClock::new(), &Sevens).await;
    assert_eq!((reply.verdict, reply.attempt.status), (Verdict::Succeeded, Some(200)));
    let seen = setting.receiver.seen().await;
    assert_eq!(seen.header("esito-test"), Some("true"));
    assert!(signs(&seen, &signing_secret()));
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["channel"], "sms");
    assert_eq!(body["messageDeliveryFeedback"]["feedbackStatus"]["value"], "bounce");
    assert_eq!(body["imsOrg"], "acme@EsitoOrg");
    let id: model::ids::EventId = seen.header("webhook-id").unwrap().parse().unwrap();
    assert_eq!(id.key(), None, "no real event's id");

    let refused = self::webhook("https://10.0.0.1/", json!({}));
    let reply = outbound::webhook::sample(&refused, &setting.network, &TestClock::new(), &Sevens).await;
    assert_failed(&reply, AttemptErrorKind::Guard, "private");
}
