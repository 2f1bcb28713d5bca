//! Access tokens, from token endpoints that behave and token endpoints that do not.

use super::*;
use model::webhook::{JwtAlgorithm, JwtKey};
use receiver::{Peer, Seen};
use secrecy::ExposeSecret;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::task::JoinSet;
use wire::jwt::{Expected, SigningKey, VerificationKey, generate_private_pem, key_id, verify};

const TOKENS: &str = "token.example";
/// It needs the form-encoding of RFC 6749 section 2.3.1.
const SECRET: &str = "s3cr:t/+ é";
/// `esito client:s3cr:t/+ é`, each half form-encoded.
const BASIC: &str = "Basic ZXNpdG8lMjBjbGllbnQ6czNjciUzQXQlMkYlMkIlMjAlQzMlQTk=";

struct Setting {
    endpoint: Receiver,
    tokens: Receiver,
    network: Arc<Network>,
}

/// A receiver that takes the tokens from this number on, and a token endpoint.
async fn setting<F, Fut>(from: usize, script: F) -> Setting
where
    F: Fn(Peer, usize) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let authority = Authority::new();
    let acceptor = authority.server(&[HOOK, TOKENS], Validity::Good);
    let endpoint = Receiver::start("127.0.0.1", Some(acceptor.clone()), move |mut peer| async move {
        while let Some(seen) = peer.take().await {
            let number = seen.header("authorization").unwrap().strip_prefix("Bearer token-").unwrap();
            let taken = number.parse::<usize>().unwrap() >= from;
            peer.send(if taken { OK } else { "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n" }).await;
        }
    })
    .await;
    let asked = AtomicUsize::new(0);
    let tokens = Receiver::start("127.0.0.1", Some(acceptor), move |peer| {
        script(peer, asked.fetch_add(1, Ordering::SeqCst) + 1)
    })
    .await;
    Setting { endpoint, tokens, network: network(&authority) }
}

/// Takes a request and grants `token-<number>`.
async fn grant(mut peer: Peer, number: usize, expires_in: u32) {
    if peer.request().await {
        let body = json!({"access_token": format!("token-{number}"), "token_type": "Bearer", "expires_in": expires_in});
        peer.send(answer("200 OK", &body.to_string())).await;
    }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

impl Setting {
    fn webhook(&self, more: Value) -> Webhook {
        let url = format!("https://{TOKENS}:{}/oauth/token?realm=a", self.tokens.address.port());
        let mut authentication = json!({"type": "oauth2", "tokenUrl": url, "clientId": "esito client"});
        authentication.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        webhook(&url_of(HOOK, self.endpoint.address), json!({"authentication": authentication, "timeoutSeconds": 5}))
    }

    fn with_secret(&self) -> Webhook {
        self.webhook(json!({"clientSecret": SECRET}))
    }

    fn endpoint(&self, webhook: &Webhook) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(webhook, &self.network).unwrap())
    }

    fn asked(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.tokens.seen_so_far()).collect()
    }

    /// The tokens of the requests so far.
    fn used(&mut self) -> Vec<String> {
        let seen = std::iter::from_fn(|| self.endpoint.seen_so_far());
        seen.map(|seen| seen.header("authorization").unwrap().replace("Bearer token-", "")).collect()
    }
}

async fn posts(endpoint: &Arc<Endpoint>, count: usize) -> Vec<Reply> {
    let mut running = JoinSet::new();
    for _ in 0..count {
        let endpoint = Arc::clone(endpoint);
        running.spawn(async move { post(&endpoint).await });
    }
    running.join_all().await
}

fn all_succeeded(replies: &[Reply]) -> bool {
    replies.iter().all(|reply| reply.verdict == Verdict::Succeeded)
}

/// Lets time pass at once, and only then.
async fn pass(secs: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(secs)).await;
    tokio::time::resume();
}

fn form(seen: &Seen) -> Vec<(String, String)> {
    url::form_urlencoded::parse(&seen.body).into_owned().collect()
}

fn text(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn sixty_four_deliveries_ask_once() {
    let mut setting = setting(1, |peer, number| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        grant(peer, number, 3600).await;
    })
    .await;
    let endpoint = setting.endpoint(&setting.with_secret());
    assert!(all_succeeded(&posts(&endpoint, 64).await));
    assert_eq!((setting.asked().len(), setting.used().len()), (1, 64));
    assert!(all_succeeded(&posts(&endpoint, 64).await));
    assert_eq!(setting.asked().len(), 0);
}

#[tokio::test]
async fn client_credentials_are_sent_as_rfc_6749_has_it() {
    let mut setting = setting(1, |peer, number| grant(peer, number, 3600)).await;
    let more = json!({"clientSecret": SECRET, "scope": "events:write x", "audience": "https://hook.example/"});
    assert_eq!(post(&setting.endpoint(&setting.webhook(more))).await.verdict, Verdict::Succeeded);
    let seen = &setting.asked()[0];
    assert_eq!(seen.line, "POST /oauth/token?realm=a HTTP/1.1");
    assert_eq!(seen.header("authorization"), Some(BASIC));
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("host").unwrap(), format!("{TOKENS}:{}", setting.tokens.address.port()));
    let fields =
        [("grant_type", "client_credentials"), ("audience", "https://hook.example/"), ("scope", "events:write x")];
    assert_eq!(form(seen), text(&fields));
    assert_eq!(setting.endpoint.seen().await.header("authorization"), Some("Bearer token-1"));
}

fn with_key(mut webhook: Webhook, algorithm: JwtAlgorithm) -> Webhook {
    let pem = generate_private_pem(algorithm).unwrap();
    let public_jwk = SigningKey::from_private_pem(algorithm, &pem).unwrap().public_jwk("k7").unwrap();
    let private_key = Some(Secret::new(pem.expose_secret()));
    let key = JwtKey { private_key, key_id: "k7".to_owned(), algorithm, own: true, public_jwk, expires_at: None };
    webhook.keys.jwt = vec![key];
    webhook
}

#[tokio::test]
async fn an_assertion_verifies_with_the_public_key() {
    for algorithm in [JwtAlgorithm::RS256, JwtAlgorithm::PS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA] {
        let mut setting = setting(1, |peer, number| grant(peer, number, 3600)).await;
        let webhook = setting.webhook(json!({"method": "jwt_bearer", "algorithm": algorithm, "scope": "x",
            "claims": {"tenant": 7}}));
        let webhook = with_key(webhook, algorithm);
        assert_eq!(post(&setting.endpoint(&webhook)).await.verdict, Verdict::Succeeded);
        let seen = setting.asked().remove(0);
        assert_eq!(seen.header("authorization"), None);
        let fields = form(&seen);
        assert_eq!(fields[0], text(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")])[0]);
        assert_eq!(fields[2..], text(&[("scope", "x"), ("client_id", "esito client")]));
        let (name, assertion) = &fields[1];
        let audience = webhook.settings.authentication.token_url.as_deref();
        let issuer = Some("esito client");
        let expected = Expected { algorithm, issuer, audience, now_secs: NOW.seconds(), leeway_secs: 0 };
        let key = VerificationKey::from_jwk(&webhook.keys.jwt[0].public_jwk).unwrap();
        let claims = verify(assertion, &key, &expected).unwrap();
        assert_eq!((name.as_str(), key_id(assertion).unwrap().as_deref()), ("assertion", Some("k7")));
        assert_eq!((&claims["sub"], &claims["tenant"]), (&json!("esito client"), &json!(7)));
        assert_eq!(claims["exp"], NOW.seconds() + 300);
        assert_eq!(claims["jti"].as_str().unwrap().len(), 22);
    }
}

#[tokio::test]
async fn each_assertion_is_another_and_its_parts_can_be_set() {
    let mut setting = setting(1, |peer, number| grant(peer, number, 1)).await;
    let more = json!({"method": "jwt_bearer", "algorithm": "EdDSA", "clientSecret": SECRET, "issuer": "i",
        "subject": "s", "audience": "a"});
    let webhook = with_key(setting.webhook(more), JwtAlgorithm::EdDSA);
    let endpoint = setting.endpoint(&webhook);
    post(&endpoint).await;
    pass(2).await;
    post(&endpoint).await;
    let key = VerificationKey::from_jwk(&webhook.keys.jwt[0].public_jwk).unwrap();
    let algorithm = JwtAlgorithm::EdDSA;
    let mut ids = Vec::new();
    for seen in setting.asked() {
        assert_eq!(seen.header("authorization"), Some(BASIC), "a client with a secret authenticates by it, too");
        let expected =
            Expected { algorithm, issuer: Some("i"), audience: Some("a"), now_secs: NOW.seconds(), leeway_secs: 0 };
        let claims = verify(&form(&seen)[1].1, &key, &expected).unwrap();
        assert_eq!(claims["sub"], "s");
        ids.push(claims["jti"].clone());
    }
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn near_its_end_one_fetches_the_next_while_the_others_go_on() {
    let mut setting = setting(1, |mut peer, number| async move {
        if number == 2 && peer.request().await {
            // The old one must do meanwhile.
            tokio::time::sleep(Duration::from_millis(300)).await;
            peer.send(answer("200 OK", r#"{"access_token":"token-2","token_type":"bearer","expires_in":100}"#)).await;
        } else if number != 2 {
            grant(peer, number, 100).await;
        }
    })
    .await;
    let endpoint = setting.endpoint(&setting.with_secret());
    post(&endpoint).await;
    pass(79).await;
    post(&endpoint).await;
    assert_eq!((setting.asked().len(), setting.used()), (1, vec!["1".to_owned(); 2]), "a fifth of its life is left");
    pass(2).await;
    assert!(all_succeeded(&posts(&endpoint, 20).await));
    assert_eq!(setting.used(), vec!["1"; 20], "nobody waits");
    setting.tokens.ended().await;
    setting.tokens.ended().await;
    assert_eq!(setting.asked().len(), 1);
    while setting.used() != ["2"] {
        post(&endpoint).await;
    }
    // Nobody came by in time: the next one waits.
    pass(99).await;
    assert!(all_succeeded(&posts(&endpoint, 20).await));
    assert_eq!((setting.asked().len(), setting.used()), (1, vec!["3".to_owned(); 20]));
}

#[tokio::test]
async fn a_refresh_that_fails_leaves_the_old_one_in_use() {
    let mut setting = setting(1, |mut peer, number| async move {
        match number {
            1 => grant(peer, 1, 100).await,
            _ if peer.request().await => drop(peer.send(answer("503 Service Unavailable", "")).await),
            _ => {}
        }
    })
    .await;
    let endpoint = setting.endpoint(&setting.with_secret());
    post(&endpoint).await;
    pass(85).await;
    assert!(all_succeeded(&posts(&endpoint, 5).await));
    setting.tokens.ended().await;
    setting.tokens.ended().await;
    assert!(all_succeeded(&posts(&endpoint, 5).await));
    assert_eq!(setting.asked().len(), 2);
    pass(20).await;
    assert_failed(&post(&endpoint).await, AttemptErrorKind::Token, "it answered 503 Service Unavailable");
}

#[tokio::test]
async fn a_refused_token_is_replaced_within_the_attempt() {
    let mut setting = setting(2, |peer, number| grant(peer, number, 3600)).await;
    let endpoint = setting.endpoint(&setting.with_secret());
    // One that is new is not the reason.
    assert_failed(&post(&endpoint).await, AttemptErrorKind::Status, "401 Unauthorized");
    assert_eq!((setting.asked().len(), setting.used()), (1, vec!["1".to_owned()]));
    pass(6).await;
    let clock = TestClock::new();
    clock.advance_secs(6);
    let reply = endpoint.post(Post { id: ID, body: "{}".into(), marks: &[] }, &clock).await;
    assert_eq!((reply.verdict, reply.attempt.status, &reply.attempt.error), (Verdict::Succeeded, Some(200), &None));
    let (first, second) = (setting.endpoint.seen().await, setting.endpoint.seen().await);
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert_eq!(first.header(name), second.header(name));
    }
    assert_eq!(second.header("authorization"), Some("Bearer token-2"));
    assert_eq!((first.connection, second.connection), (0, 0), "the connection was kept");
    assert_eq!(setting.asked().len(), 1);
}

#[tokio::test]
async fn many_refusals_at_once_are_one_new_token() {
    let mut setting = setting(2, |peer, number| grant(peer, number, 3600)).await;
    let endpoint = setting.endpoint(&setting.with_secret());
    post(&endpoint).await;
    pass(6).await;
    assert!(all_succeeded(&posts(&endpoint, 32).await));
    assert_eq!(setting.asked().len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_refuses_all_tokens_makes_few_of_them() {
    let mut setting = setting(usize::MAX, |peer, number| grant(peer, number, 3600)).await;
    let endpoint = setting.endpoint(&setting.with_secret());
    for _ in 0..10 {
        assert_failed(&post(&endpoint).await, AttemptErrorKind::Status, "401");
    }
    assert_eq!((setting.asked().len(), setting.used().len()), (1, 10));
    pass(6).await;
    for _ in 0..10 {
        assert_failed(&post(&endpoint).await, AttemptErrorKind::Status, "401");
    }
    assert_eq!((setting.asked().len(), setting.used().len()), (1, 11));
}

/// What a failing token endpoint answers, and what is said of it.
fn failures() -> Vec<(String, &'static str)> {
    let echo =
        json!({"error": "invalid_client", "error_description": format!("{SECRET}, {BASIC}, s3cr%3At%2F%2B%20%C3%A9")});
    let huge = format!("{{\"access_token\":\"{}\"}}", "x".repeat(70_000));
    vec![
        (answer("500 Internal Server Error", "<html>"), "it answered 500 Internal Server Error"),
        (answer("401 Unauthorized", &echo.to_string()), "it answered 401 invalid_client: …, Basic …, …"),
        (answer("400 Bad Request", r#"{"error":"invalid_scope"}"#), "it answered 400 invalid_scope"),
        (answer("302 Found\r\nlocation: https://elsewhere.example/", ""), "a redirect, which is not followed"),
        (answer("200 OK", "token-1 is no JSON"), "its answer is not JSON"),
        (answer("200 OK", r#"{"access_token":"token-1","token_type":"mac"}"#), "another token_type"),
        (answer("200 OK", &huge), "longer than 64 KiB"),
        (format!("HTTP/1.1 200 OK\r\n\r\n{huge}"), "longer than 64 KiB"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access_token\"".to_owned(), "its answer broke off"),
        ("SSH-2.0-OpenSSH_9.9\r\n".to_owned(), "not HTTP/1.1"),
        (String::new(), "closed the connection"),
    ]
}

#[tokio::test]
async fn a_failing_token_endpoint_is_a_failure_of_its_own_kind() {
    for (bytes, says) in failures() {
        let bytes = Arc::new(bytes);
        let mut setting = setting(1, move |mut peer, _| {
            let bytes = Arc::clone(&bytes);
            async move {
                peer.request().await;
                peer.send(bytes.as_bytes()).await;
            }
        })
        .await;
        let endpoint = setting.endpoint(&setting.with_secret());
        for reply in posts(&endpoint, 64).await {
            assert_failed(&reply, AttemptErrorKind::Token, says);
            let message = reply.attempt.error.unwrap().message;
            let place = format!("the token endpoint {TOKENS}:{}: ", setting.tokens.address.port());
            assert!(message.starts_with(&place), "{message}");
            assert!(
                !message.contains("s3cr") && !message.contains("ZXNpd") && !message.contains("token-1"),
                "{message}"
            );
        }
        assert_eq!((setting.asked().len(), setting.endpoint.connections()), (1, 0), "{says}");
    }
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_short_and_growing_while() {
    let mut setting = setting(1, |mut peer, number| async move {
        if number < 4 && peer.request().await {
            peer.send(answer("503 Service Unavailable", "")).await;
        } else {
            grant(peer, number, 3600).await;
        }
    })
    .await;
    let endpoint = setting.endpoint(&setting.with_secret());
    let mut asked = Vec::new();
    for secs in [0, 1, 1, 1, 3, 1] {
        pass(secs).await;
        posts(&endpoint, 8).await;
        asked.push(setting.asked().len());
    }
    assert_eq!(asked, [1, 1, 0, 1, 0, 1], "again after 1 s, 2 s, 4 s");
    assert!(all_succeeded(&posts(&endpoint, 8).await));
}

#[tokio::test]
async fn a_slow_token_endpoint_takes_no_more_than_the_attempts_time() {
    let mut setting = setting(1, |mut peer, _| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let mut webhook = setting.with_secret();
    webhook.settings.timeout_seconds = 1;
    let endpoint = setting.endpoint(&webhook);
    let replies = posts(&endpoint, 8).await;
    for reply in &replies {
        assert_failed(reply, AttemptErrorKind::Token, "no answer within 1 s");
        assert!(reply.attempt.duration_ms < 2000);
    }
    assert_eq!(setting.asked().len(), 1);
    setting.tokens.ended().await;
}

#[tokio::test]
async fn the_request_outlives_who_began_it() {
    let mut setting = setting(1, |peer, number| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        grant(peer, number, 3600).await;
    })
    .await;
    let endpoint = setting.endpoint(&setting.with_secret());
    let first = tokio::spawn({
        let endpoint = Arc::clone(&endpoint);
        async move { post(&endpoint).await }
    });
    tokio::task::yield_now().await;
    let others = tokio::spawn({
        let endpoint = Arc::clone(&endpoint);
        async move { posts(&endpoint, 4).await }
    });
    tokio::task::yield_now().await;
    first.abort();
    assert!(all_succeeded(&others.await.unwrap()));
    assert_eq!(setting.asked().len(), 1);
}

#[tokio::test]
async fn a_token_url_is_guarded_at_each_connect() {
    let authority = Authority::new();
    let acceptor = authority.server(&[HOOK, TOKENS], Validity::Good);
    let hidden = Receiver::answering("127.0.0.2", acceptor.clone(), OK).await;
    let endpoint = Receiver::answering("127.0.0.1", acceptor, OK).await;
    let oauth2 = |url: &str| json!({"authentication": {"type": "oauth2", "tokenUrl": url, "clientId": "c", "clientSecret": SECRET}});
    let dns = FakeDns::answers(&[&["127.0.0.2"]]);
    let network = Network::with_resolver(policy(), vec![authority.root()], dns);
    let rebound = webhook(&url(&endpoint), oauth2(&url_of(TOKENS, hidden.address)));
    let reply = post(&Endpoint::new(&rebound, &network).unwrap()).await;
    assert_failed(&reply, AttemptErrorKind::Token, "not allowed to connect to token.example: 127.0.0.2");
    assert_eq!((hidden.connections(), endpoint.connections()), (0, 0));
    for (refused, says) in [
        ("https://10.0.0.1/token", "private"),
        ("http://token.example/token", "plain http"),
        ("https://user:s3cr@token.example/token", "user"),
    ] {
        let error = Endpoint::new(&webhook(&url(&endpoint), oauth2(refused)), &network).unwrap_err();
        assert_eq!(error.kind, AttemptErrorKind::Token);
        assert!(error.message.contains(says) && !error.message.contains("s3cr"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_token_outlives_the_endpoint_but_not_a_change_of_its_settings() {
    let mut setting = setting(1, |peer, number| grant(peer, number, 3600)).await;
    let mut webhook = setting.with_secret();
    post(&setting.endpoint(&webhook)).await;
    webhook.settings.max_concurrency = 7;
    post(&setting.endpoint(&webhook)).await;
    outbound::webhook::sample(&webhook, &setting.network, &TestClock::new(), &Sevens).await;
    assert_eq!((setting.asked().len(), setting.used()), (1, vec!["1".to_owned(); 3]));
    webhook.settings.authentication.client_secret = Some(Secret::new("another"));
    post(&setting.endpoint(&webhook)).await;
    webhook.settings.authentication.scope = Some("narrow".to_owned());
    post(&setting.endpoint(&webhook)).await;
    assert_eq!((setting.asked().len(), setting.used()), (2, vec!["2".to_owned(), "3".to_owned()]));
    let mut webhook = with_key(webhook, JwtAlgorithm::EdDSA);
    let bearer = json!({"method": "jwt_bearer", "algorithm": "EdDSA"});
    webhook.settings.authentication = setting.webhook(bearer).settings.authentication;
    post(&setting.endpoint(&webhook)).await;
    post(&setting.endpoint(&webhook)).await;
    let rotated = with_key(webhook, JwtAlgorithm::EdDSA);
    post(&setting.endpoint(&rotated)).await;
    assert_eq!((setting.asked().len(), setting.used().len()), (2, 3), "a new key pair, a new token");
}

#[tokio::test]
async fn debug_shows_neither_secret_nor_token() {
    let setting = setting(1, |peer, number| grant(peer, number, 3600)).await;
    let endpoint = setting.endpoint(&setting.with_secret());
    post(&endpoint).await;
    let shown = format!("{endpoint:?} {:?} {:?}", setting.network, setting.with_secret());
    assert!(!shown.contains("s3cr") && !shown.contains("token-1"), "{shown}");
}
