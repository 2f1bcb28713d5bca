//! A receiver of feedback events, as a customer would write one: verifies each request, and answers as it is told.

use super::jwks::Jwks;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use lru::LruCache;
use model::clock::{Clock, Timestamp};
use model::webhook::JwtAlgorithm;
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use wire::jwt::{self, Expected, VerificationKey};
use wire::standard_webhooks::{DEFAULT_TOLERANCE_SECS, PublicKey, SigningSecret, verify_v1, verify_v1a};

/// The longest body taken; a feedback event has about one kilobyte.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How many events are remembered, to number their attempts.
const REMEMBERED_EVENTS: NonZeroUsize = NonZeroUsize::new(100_000).expect("it is not zero");

/// How many received events may wait for whoever looks at them; then the next answers wait too.
const WAITING_EVENTS: usize = 1024;

/// How far the token's clock may be off.
const JWT_LEEWAY_SECS: u32 = 30;

/// What is verified.
#[derive(Debug, Default)]
pub struct Checks {
    /// The signature must be of one of these secrets or public keys; none: signatures are not looked at.
    pub secrets: Vec<SigningSecret>,
    /// Public keys of key pairs: `v1a`.
    pub public_keys: Vec<PublicKey>,
    /// How the token must be; none: tokens are not looked at.
    pub jwt: Option<JwtCheck>,
}

/// How a token must be.
#[derive(Debug)]
pub struct JwtCheck {
    /// The only algorithm accepted.
    pub algorithm: JwtAlgorithm,
    /// Where the key is.
    pub key: KeySource,
    /// The header that carries the token.
    pub header: http::HeaderName,
    /// What stands before it.
    pub prefix: String,
    /// `iss`; not checked where none.
    pub issuer: Option<String>,
    /// `aud`; not checked where none.
    pub audience: Option<String>,
}

/// Where the key of a token is.
#[derive(Debug)]
pub enum KeySource {
    /// Here.
    Key(VerificationKey),
    /// In a key set, by the token's `kid`.
    Jwks(Jwks),
}

/// What is answered to a request that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// How long after the request it is answered.
    pub delay: Duration,
    /// Whether the receiver wants the event again.
    pub refuses: bool,
}

/// Decides on the answer. Only requests that verify are asked about; others are answered 401.
pub type Policy = Box<dyn Fn(&Received) -> Answer + Send + Sync>;

/// A request as it came.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// The event's id.
    pub webhook_id: Option<String>,
    /// What was verified.
    pub verified: Verified,
    /// What it was answered.
    pub status: u16,
    /// How many requests with this id came so far.
    pub attempt: u32,
    /// Why it did not verify.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// The event; a text where it is no JSON.
    pub body: Value,
    /// Whether it was asked to come again.
    #[serde(skip)]
    pub refused: bool,
    /// When it came.
    #[serde(skip)]
    pub at: Timestamp,
}

/// What was verified: null where there was nothing to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The Standard Webhooks signature.
    pub signature: Option<bool>,
    /// The token.
    pub jwt: Option<bool>,
}

impl Received {
    /// Whether everything that was to be checked was right.
    pub fn is_verified(&self) -> bool {
        self.faults.is_empty()
    }

    /// A text of the event, by its JSON pointer.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.body.pointer(pointer).and_then(Value::as_str)
    }

    /// The address of the event's recipient.
    pub fn recipient(&self) -> Option<&str> {
        ["/identityMap/email/0/id", "/identityMap/Phone/0/id"].into_iter().find_map(|pointer| self.text(pointer))
    }
}

struct Receiver {
    checks: Checks,
    policy: Policy,
    clock: Arc<dyn Clock>,
    attempts: Mutex<LruCache<String, u32>>,
    out: mpsc::Sender<Received>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("checks", &self.checks).finish_non_exhaustive()
    }
}

/// A receiver at any path, and what it receives, in order.
pub fn receiver(checks: Checks, policy: Policy, clock: Arc<dyn Clock>) -> (Router, mpsc::Receiver<Received>) {
    let (out, received) = mpsc::channel(WAITING_EVENTS);
    let attempts = Mutex::new(LruCache::new(REMEMBERED_EVENTS));
    let receiver = Arc::new(Receiver { checks, policy, clock, attempts, out });
    (Router::new().fallback(receive).with_state(receiver), received)
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    if request.method() != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::<Body>::new(body, MAX_BODY_BYTES).collect().await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let mut received = receiver.examine(&head.headers, &body.to_bytes()).await;
    let refusal = Answer { status: 401, delay: Duration::ZERO, refuses: false };
    let answer = if received.is_verified() { (receiver.policy)(&received) } else { refusal };
    received.status = answer.status;
    received.refused = answer.refuses;
    // Fails only where nobody looks any more: the end has come.
    let _ = receiver.out.send(received).await;
    tokio::time::sleep(answer.delay).await;
    StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response()
}

impl Receiver {
    async fn examine(&self, headers: &HeaderMap, body: &Bytes) -> Received {
        let at = self.clock.now();
        let signs = !self.checks.secrets.is_empty() || !self.checks.public_keys.is_empty();
        let signature = signs.then(|| self.signature(headers, body));
        let jwt = match &self.checks.jwt {
            Some(check) => Some(self.token(check, headers).await),
            None => None,
        };
        let verified =
            Verified { signature: signature.as_ref().map(Result::is_ok), jwt: jwt.as_ref().map(Result::is_ok) };
        let faults = [signature, jwt].into_iter().flatten().filter_map(Result::err).collect();
        let webhook_id = text(headers, "webhook-id").map(str::to_owned);
        let attempt = webhook_id.as_ref().map_or(1, |id| self.count(id));
        let body = serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into());
        Received { webhook_id, verified, status: 0, attempt, faults, body, refused: false, at }
    }

    fn count(&self, id: &str) -> u32 {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = attempts.get_or_insert_mut(id.to_owned(), || 0);
        *attempt += 1;
        *attempt
    }

    fn signature(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
        let header = |name| text(headers, name).ok_or_else(|| format!("the header {name} is missing"));
        let (id, timestamp, signature) =
            (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
        let now = self.clock.now().seconds();
        let by_secret = self
            .checks
            .secrets
            .iter()
            .map(|secret| verify_v1(secret, id, timestamp, signature, body, now, DEFAULT_TOLERANCE_SECS));
        let by_key = self
            .checks
            .public_keys
            .iter()
            .map(|key| verify_v1a(key, id, timestamp, signature, body, now, DEFAULT_TOLERANCE_SECS));
        let mut result = Err("there is nothing to verify it with".to_owned());
        for verified in by_secret.chain(by_key) {
            result = verified.map_err(|error| error.to_string());
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn token(&self, check: &JwtCheck, headers: &HeaderMap) -> Result<(), String> {
        let value = text(headers, check.header.as_str());
        let value = value.ok_or_else(|| format!("the header {}, which carries the token, is missing", check.header))?;
        let token = value.strip_prefix(check.prefix.as_str()).map(str::trim_start);
        let token = token.ok_or_else(|| format!("the header {} does not begin with {}", check.header, check.prefix))?;
        let expected = Expected {
            algorithm: check.algorithm,
            issuer: check.issuer.as_deref(),
            audience: check.audience.as_deref(),
            now_secs: self.clock.now().seconds(),
            leeway_secs: JWT_LEEWAY_SECS,
        };
        let looked_up;
        let key = match &check.key {
            KeySource::Key(key) => key,
            KeySource::Jwks(jwks) => {
                let kid = jwt::key_id(token).map_err(|error| error.to_string())?;
                looked_up = jwks.find(kid.as_deref()).await?;
                &looked_up
            }
        };
        jwt::verify(token, key, &expected).map(drop).map_err(|error| error.to_string())
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
