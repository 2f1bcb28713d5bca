//! What the demo runs on: a folder, a server, a receiver, a webhook and a campaign.

use super::super::certificate::{self, Made};
use super::super::client::HttpClient;
use super::super::jwks::{Jwks, Place};
use super::super::receiver::{self, Checks, JwtCheck, KeySource, Policy, Received};
use super::super::serve::Server;
use super::super::{Failure, Outcome};
use super::caller::{Caller, text};
use crate::config::{Config, Database, Egress};
use crate::lifecycle::Lifecycle;
use crate::listener::{self, Bounds};
use http::header::AUTHORIZATION;
use model::clock::Clock;
use model::webhook::JwtAlgorithm;
use secrecy::SecretString;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use wire::standard_webhooks::SigningSecret;

/// How long what was begun may take to end.
const END: Duration = Duration::from_secs(5);

/// Whom the tokens are for.
const AUDIENCE: &str = "esito-demo";

/// A free port of this machine alone.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// All that the demo runs on.
pub struct Stage {
    /// Calls the server.
    pub api: Caller,
    /// Where the receiver is.
    pub receiver_url: String,
    /// The campaign's id.
    pub campaign: String,
    /// What the receiver gets.
    pub events: mpsc::Receiver<Received>,
    folder: TempDir,
    server: Server,
    receiver: Lifecycle,
}

/// The receiver before it knows the keys: its address has to be known first.
struct Endpoint {
    listener: TcpListener,
    url: String,
    certificate: Made,
}

impl Endpoint {
    async fn bind() -> Result<Self, Failure> {
        let bound = TcpListener::bind(ANY_PORT).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) =
            bound.map_err(|error| Failure::new(format!("there is no port for the receiver: {error}")))?;
        let certificate = certificate::make().map_err(Failure::new)?;
        Ok(Self { listener, url: format!("https://{address}/feedback"), certificate })
    }
}

/// What the receiver verifies requests with.
struct Trust {
    signing_secret: SigningSecret,
    jwks: Jwks,
    issuer: String,
}

impl From<Trust> for Checks {
    fn from(trust: Trust) -> Self {
        let jwt = JwtCheck {
            algorithm: JwtAlgorithm::ES256,
            key: KeySource::Jwks(trust.jwks),
            header: AUTHORIZATION,
            prefix: "Bearer".to_owned(),
            issuer: Some(trust.issuer),
            audience: Some(AUDIENCE.to_owned()),
        };
        Self { secrets: vec![trust.signing_secret], jwt: Some(jwt), ..Self::default() }
    }
}

impl Stage {
    /// Starts everything. It has a life of its own: what the demo has begun may end before the server does.
    pub async fn set(clock: Arc<dyn Clock>, policy: Policy) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("esito-demo-").tempdir();
        let folder = folder.map_err(|error| Failure::new(format!("there is no temporary folder: {error}")))?;
        let endpoint = Endpoint::bind().await?;
        let config = config(folder.path(), &endpoint.certificate)?;
        let (server, key) = start_server(&config).await?;
        let furnished = furnish(&config, &server, key, &endpoint.url).await;
        let (api, campaign, trust) = match furnished {
            Ok(furnished) => furnished,
            Err(failure) => {
                server.stop(END).await;
                return Err(failure);
            }
        };
        let (router, events) = receiver::receiver(trust.into(), policy, clock);
        let Endpoint { listener, url: receiver_url, certificate } = endpoint;
        let receiver = Lifecycle::default();
        let tls = Some(certificate.acceptor);
        receiver.spawn(listener::serve(listener, tls, router, Bounds::default(), receiver.clone()));
        Ok(Self { api, receiver_url, campaign, events, folder, server, receiver })
    }

    /// The folder that all of it is in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A link that signs in at the console.
    pub async fn console_link(&self) -> Result<Option<String>, Failure> {
        self.server.console_link().await
    }

    /// Ends everything and removes the folder.
    pub async fn strike(self) -> Outcome {
        // Nobody looks any more, so nobody may have to wait for being looked at.
        drop(self.events);
        self.server.stop(END).await;
        self.receiver.end(END).await;
        let path = self.folder.path().display().to_string();
        self.folder.close().map_err(|error| Failure::new(format!("{path} cannot be removed: {error}")))
    }
}

/// Everything in the folder, and open towards this machine alone.
fn config(folder: &Path, certificate: &Made) -> Result<Config, Failure> {
    let authority = folder.join("authority.pem");
    let written = std::fs::write(&authority, &certificate.ca_pem);
    written.map_err(|error| Failure::new(format!("{}: {error}", authority.display())))?;
    let mut config = Config { listen: ANY_PORT, ..Config::default() };
    config.database = Database::Sqlite(folder.join("esito.db"));
    config.secrets.master_key_file = folder.join("master.key");
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).ip().into();
    config.egress = Egress { allow_networks: vec![loopback], extra_ca_file: Some(authority), ..Egress::default() };
    Ok(config)
}

async fn start_server(config: &Config) -> Result<(Server, SecretString), Failure> {
    let mut key = SecretString::default();
    let server = Server::start(config, Lifecycle::default(), |text| {
        key = SecretString::from(text);
        Ok(())
    });
    let server = server.await?;
    Ok((server, key))
}

/// Makes the webhook and the campaign through the API.
async fn furnish(
    config: &Config,
    server: &Server,
    key: SecretString,
    receiver_url: &str,
) -> Result<(Caller, String, Trust), Failure> {
    let client = HttpClient::new(None).map_err(Failure::new)?;
    let base = config.public_url(server.address);
    let api = Caller { client: client.clone(), base: base.clone(), key };
    let signing_secret = create_webhook(&api, receiver_url).await?;
    let campaign = create_campaign(&api).await?;
    let jwks = Jwks::new(Place::Url(format!("{base}/.well-known/jwks.json"), client));
    Ok((api, campaign, Trust { signing_secret, jwks, issuer: base }))
}

async fn create_webhook(api: &Caller, url: &str) -> Result<SigningSecret, Failure> {
    let webhook = json!({
        "name": "Demo", "channels": ["email", "sms"], "url": url,
        "authentication": {"type": "jwt", "algorithm": "ES256", "issuer": api.base, "audience": AUDIENCE},
        "events": ["sent", "delivered", "bounce", "error", "exclude", "denylist", "delay"],
        "retry": {"firstDelaySeconds": 1},
    });
    let created = api.post("/v1/feedback-webhooks", &webhook).await?;
    let secret = SigningSecret::parse(&text(&created, "signingSecret")?);
    secret.map_err(|error| Failure::new(format!("the webhook's signing secret: {error}")))
}

async fn create_campaign(api: &Caller) -> Result<String, Failure> {
    let channel = json!({"name": "Simulator", "channel": "email", "type": "simulator"});
    let channel = text(&api.post("/v1/channel-configurations", &channel).await?, "id")?;
    let campaign = json!({
        "name": "Order confirmation", "channel": "email", "channelConfigurationId": channel,
        "content": {
            "subject": "Your order {{context.order}}",
            "html": "<p>Thank you, {{profile.person.name.firstName}}: we have your order {{context.order}}.</p>",
        },
        "audience": {"identityNamespace": "email", "enableWebhooks": true},
    });
    let campaign = text(&api.post("/v1/campaigns", &campaign).await?, "id")?;
    api.post(&format!("/v1/campaigns/{campaign}/activate"), &json!({})).await?;
    Ok(campaign)
}
