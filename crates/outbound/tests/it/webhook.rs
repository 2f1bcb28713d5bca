//! The webhook client against receivers that behave and receivers that do not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod connections;
mod guard;
mod oauth2;
mod receiver;
mod requests;

use model::clock::{Clock, Entropy, Timestamp};
use model::delivery::{AttemptErrorKind, EXCERPT_BYTES};
use model::ids::{SandboxId, WebhookId};
use model::secret::Secret;
use model::webhook::{SandboxRef, SigningSecretEntry, Stamps, Webhook, WebhookControl, WebhookKeys};
use outbound::webhook::{Endpoint, Network, Post, Reply, Resolve, ResolveError, Verdict};
use receiver::{Authority, Receiver, Validity};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use wire::address::EgressPolicy;
use wire::standard_webhooks::SigningSecret;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const ID: &str = "01920000-0000-7000-8000-000000000001";
const HOOK: &str = "hook.example";
const NOW: Timestamp = Timestamp(1_769_860_800_000);

/// A clock that a test sets.
#[derive(Debug)]
struct TestClock(AtomicI64);

impl TestClock {
    fn new() -> Self {
        Self(AtomicI64::new(NOW.millis()))
    }

    fn advance_secs(&self, secs: i64) {
        self.0.fetch_add(secs * 1000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Debug)]
struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// DNS as a test wants it: answers in turn, the last one again and again.
#[derive(Debug)]
struct FakeDns(Mutex<VecDeque<Result<Vec<IpAddr>, ResolveError>>>);

impl FakeDns {
    fn answers(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |ips: &&[&str]| Ok(ips.iter().map(|ip| ip.parse().unwrap()).collect());
        Arc::new(Self(Mutex::new(answers.iter().map(parse).collect())))
    }

    fn fails(error: ResolveError) -> Arc<Self> {
        Arc::new(Self(Mutex::new(VecDeque::from([Err(error)]))))
    }
}

#[async_trait::async_trait]
impl Resolve for FakeDns {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let mut answers = self.0.lock().unwrap();
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }
}

/// Only 127.0.0.1 may be reached; 127.0.0.2 is as forbidden as it always is.
fn policy() -> EgressPolicy {
    EgressPolicy { allow_networks: vec!["127.0.0.1/32".parse().unwrap()], allow_http: false }
}

fn network(authority: &Authority) -> Arc<Network> {
    Network::with_resolver(policy(), vec![authority.root()], FakeDns::answers(&[&["127.0.0.1"]]))
}

fn url(receiver: &Receiver) -> String {
    url_of(HOOK, receiver.address)
}

fn url_of(host: &str, address: SocketAddr) -> String {
    format!("https://{host}:{}/feedback?tenant=a%20b", address.port())
}

fn signing_secret() -> SigningSecret {
    SigningSecret::generate_from([9; 32])
}

/// A webhook with these settings beside the required ones.
fn webhook(url: &str, more: Value) -> Webhook {
    let mut settings = json!({"name": "n", "channels": ["email"], "url": url, "timeoutSeconds": 10});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let secret = Secret::new(signing_secret().reveal());
    let signing = SigningSecretEntry { secret: Some(secret), name: "a".to_owned(), public_key: None, expires_at: None };
    Webhook {
        id: WebhookId::new(NOW, &Sevens),
        ims_org: "acme@EsitoOrg".to_owned(),
        sandbox: SandboxRef { id: SandboxId::new(NOW, &Sevens), name: "prod".to_owned() },
        settings: serde_json::from_value(settings).unwrap(),
        keys: WebhookKeys { signing: vec![signing], jwt: Vec::new() },
        control: WebhookControl::default(),
        stamps: Stamps::new(NOW, "test"),
    }
}

async fn post(endpoint: &Endpoint) -> Reply {
    endpoint.post(Post { id: ID, body: "{\"a\":1}".into(), marks: &[] }, &TestClock::new()).await
}

/// Starts a receiver that answers so, and posts once to it.
async fn post_to_answer(answer: &str) -> (Reply, Receiver) {
    let authority = Authority::new();
    let receiver = Receiver::answering("127.0.0.1", authority.server(&[HOOK], Validity::Good), answer).await;
    let endpoint = Endpoint::new(&webhook(&url(&receiver), json!({})), &network(&authority)).unwrap();
    (post(&endpoint).await, receiver)
}

#[track_caller]
fn assert_failed(reply: &Reply, kind: AttemptErrorKind, says: &str) {
    let error = reply.attempt.error.as_ref().unwrap();
    assert_eq!(error.kind, kind, "{}", error.message);
    assert!(error.message.contains(says), "{:?} should say {says:?}", error.message);
    assert!(matches!(reply.verdict, Verdict::Failed { .. }));
}
