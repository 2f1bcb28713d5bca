//! `esito listen`.

use super::certificate;
use super::client::HttpClient;
use super::jwks::{Jwks, Place};
use super::receiver::{self, Answer, Checks, JwtCheck, KeySource, Policy, Received};
use super::{Failure, Outcome, print_line};
use crate::clock::SystemClock;
use crate::config::{JWT_SECRET_VARIABLE, WEBHOOK_SECRET_VARIABLE};
use crate::lifecycle::Lifecycle;
use crate::listener::{self, Bounds};
use model::clock::Clock as _;
use model::webhook::JwtAlgorithm;
use secrecy::SecretString;
use serde_json::json;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use wire::jwt::VerificationKey;
use wire::standard_webhooks::{PublicKey, SigningSecret};

/// How long the last answers may take to be read.
const END: Duration = Duration::from_secs(5);

/// What is answered to the events that `--fail-first` refuses.
const REFUSAL: u16 = 503;

/// The arguments of `esito listen`.
#[derive(Debug, clap::Args)]
pub struct Listen {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Plain HTTP, without TLS
    #[arg(long)]
    plain: bool,
    /// A certificate chain of your own, as PEM [default: one made for this run]
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "plain")]
    cert: Option<PathBuf>,
    /// The private key of --cert, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Writes the authority of the certificate made for this run, for egress.extra_ca_file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cert", "plain"])]
    ca_out: Option<PathBuf>,
    /// Verifies signatures with this secret (whsec_…); may be repeated, for a rotation
    #[arg(long, value_name = "SECRET", env = WEBHOOK_SECRET_VARIABLE, hide_env_values = true, value_delimiter = ',')]
    secret: Vec<String>,
    /// Verifies signatures with this public key (whpk_…), the webhook's signingPublicKey; may be repeated
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = PublicKey::parse)]
    public_key: Vec<PublicKey>,
    #[command(flatten)]
    jwt: Jwt,
    /// The status to answer
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
    /// How long to wait before the answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Answers 503 to the first N requests
    #[arg(long, value_name = "N", default_value_t = 0)]
    fail_first: u64,
    /// Ends after N events, not counting refusals by --fail-first
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
}

/// How tokens are verified.
#[derive(Debug, clap::Args)]
struct Jwt {
    /// Verifies tokens with this secret
    #[arg(long, value_name = "SECRET", env = JWT_SECRET_VARIABLE, hide_env_values = true, conflicts_with = "jwks")]
    jwt_secret: Option<SecretString>,
    /// Verifies tokens with the keys at this URL, or in this file
    #[arg(long, value_name = "URL|FILE")]
    jwks: Option<String>,
    /// An authority to trust for --jwks, as PEM
    #[arg(long, value_name = "FILE", requires = "jwks")]
    jwks_ca_file: Option<PathBuf>,
    /// The only algorithm accepted: HS256, HS384, HS512, RS256, PS256, ES256 or EdDSA [default: HS256 with a secret, ES256 with a key set]
    #[arg(long, value_name = "NAME", value_parser = algorithm)]
    jwt_algorithm: Option<JwtAlgorithm>,
    /// The header that carries the token
    #[arg(long, value_name = "NAME", default_value = "Authorization")]
    jwt_header: http::HeaderName,
    /// What stands before the token
    #[arg(long, value_name = "TEXT", default_value = "Bearer")]
    jwt_prefix: String,
    /// The issuer that the token must name
    #[arg(long, value_name = "TEXT")]
    jwt_issuer: Option<String>,
    /// The audience that the token must name
    #[arg(long, value_name = "TEXT")]
    jwt_audience: Option<String>,
}

fn algorithm(name: &str) -> Result<JwtAlgorithm, String> {
    serde_json::from_value(json!(name)).map_err(|_| "HS256, HS384, HS512, RS256, PS256, ES256 or EdDSA".to_owned())
}

impl Jwt {
    fn check(&self) -> Result<Option<JwtCheck>, String> {
        let (key, usual) = match (&self.jwt_secret, &self.jwks) {
            (None, None) => return Ok(None),
            (Some(secret), _) => (KeySource::Key(VerificationKey::hmac(secret)), JwtAlgorithm::HS256),
            (None, Some(place)) => (KeySource::Jwks(Jwks::new(self.place(place)?)), JwtAlgorithm::ES256),
        };
        Ok(Some(JwtCheck {
            algorithm: self.jwt_algorithm.unwrap_or(usual),
            key,
            header: self.jwt_header.clone(),
            prefix: self.jwt_prefix.clone(),
            issuer: self.jwt_issuer.clone(),
            audience: self.jwt_audience.clone(),
        }))
    }

    fn place(&self, place: &str) -> Result<Place, String> {
        if !place.starts_with("https://") && !place.starts_with("http://") {
            return Ok(Place::File(PathBuf::from(place)));
        }
        let client = HttpClient::new(self.jwks_ca_file.as_deref())?;
        Ok(Place::Url(place.to_owned(), client))
    }
}

impl Listen {
    /// Receives until it was told to stop, or all has come that was waited for.
    pub async fn run(self) -> Outcome {
        let life = Lifecycle::default();
        life.stop_on_signals().map_err(|error| Failure::new(error.to_string()))?;
        let public_keys = self.public_key.clone();
        let checks = Checks { secrets: self.secrets()?, public_keys, jwt: self.jwt.check().map_err(Failure::new)? };
        let tls = self.tls()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let bound = TcpListener::bind(self.listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) =
            bound.map_err(|error| Failure::new(format!("cannot listen on {}: {error}", self.listen)))?;
        let (router, received) = receiver::receiver(checks, self.policy(), Arc::new(SystemClock));
        life.spawn(listener::serve(listener, tls, router, Bounds::default(), life.clone()));
        let url = format!("{scheme}://{address}/");
        print_line(&if self.json { json!({"listening": url}).to_string() } else { format!("listening on {url}") })?;
        let seen = self.watch(received, &life).await;
        life.end(END).await;
        seen?.verdict(self.count)
    }

    fn secrets(&self) -> Result<Vec<SigningSecret>, Failure> {
        let read =
            |text: &String| SigningSecret::parse(text).map_err(|error| Failure::new(format!("--secret: {error}")));
        self.secret.iter().map(read).collect()
    }

    fn tls(&self) -> Result<Option<TlsAcceptor>, Failure> {
        if self.plain {
            return Ok(None);
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            return certificate::read(cert, key).map(Some).map_err(Failure::new);
        }
        let made = certificate::make().map_err(Failure::new)?;
        if let Some(path) = &self.ca_out {
            let written = std::fs::write(path, &made.ca_pem);
            written.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        }
        Ok(Some(made.acceptor))
    }

    fn policy(&self) -> Policy {
        let usual = Answer { status: self.status, delay: Duration::from_millis(self.delay), refuses: false };
        let (asked, fail_first) = (AtomicU64::new(0), self.fail_first);
        Box::new(move |_| match asked.fetch_add(1, Ordering::Relaxed) < fail_first {
            true => Answer { status: REFUSAL, refuses: true, ..usual },
            false => usual,
        })
    }

    async fn watch(&self, mut received: mpsc::Receiver<Received>, life: &Lifecycle) -> Result<Seen, Failure> {
        let mut seen = Seen::default();
        while self.count.is_none_or(|count| seen.events.len() < count) {
            let event = tokio::select! {
                event = received.recv() => event,
                () = life.stopping() => None,
            };
            let Some(event) = event else { break };
            print_line(&if self.json {
                serde_json::to_string(&event).expect("it has text keys")
            } else {
                describe(&event)
            })?;
            seen.unverified |= !event.is_verified();
            if self.count.is_some() && !event.refused {
                seen.events.insert(event.webhook_id);
            }
        }
        Ok(seen)
    }
}

#[derive(Debug, Default)]
struct Seen {
    /// The ids of the events that count, as far as they are counted.
    events: HashSet<Option<String>>,
    unverified: bool,
}

impl Seen {
    fn verdict(&self, count: Option<usize>) -> Outcome {
        if self.unverified {
            return Err(Failure::new("not every request was verified"));
        }
        match count {
            Some(count) if self.events.len() < count => {
                Err(Failure::new(format!("ended after {} of {count} events", self.events.len())))
            }
            _ => Ok(()),
        }
    }
}

/// The event in one line.
fn describe(event: &Received) -> String {
    let said = |result: Option<bool>| match result {
        None => "not checked",
        Some(true) => "ok",
        Some(false) => "WRONG",
    };
    let status = event.text("/messageDeliveryFeedback/feedbackStatus/value").unwrap_or("?");
    let recipient =
        ["email", "Phone"].iter().find_map(|namespace| event.text(&format!("/identityMap/{namespace}/0/id")));
    let faults: String = event.faults.iter().map(|fault| format!("; {fault}")).collect();
    format!(
        "{} {status:9} {} {} attempt {} signature {} jwt {} -> {}{faults}",
        SystemClock.now(),
        recipient.unwrap_or("?"),
        event.text("/messageExecution/messageExecutionID").unwrap_or("?"),
        event.attempt,
        said(event.verified.signature),
        said(event.verified.jwt),
        event.status,
    )
}
