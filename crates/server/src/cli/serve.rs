//! `esito serve`: everything wired to one store and one engine.

use super::store::Opened;
use super::tenancy::{Founder, write_key_file};
use super::{ConfigArgs, Failure, Outcome, certificate, print_line};
use crate::api::{self, Api, ApiSettings, Outside};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::Config;
use crate::console::{self, Console};
use crate::front::Front;
use crate::lifecycle::Lifecycle;
use crate::listener::{self, Bounds};
use crate::logging;
use crate::metrics::Metrics;
use async_trait::async_trait;
use model::clock::{Clock, Entropy};
use model::delivery::{Attempt, AttemptDecision};
use model::ids::{ExecutionIds, SandboxId};
use model::outcome::FeedbackStatus;
use model::tenancy::{ApiKey, DEFAULT_ORGANIZATION, Role};
use model::webhook::Webhook;
use outbound::channel::work::MakeSender;
use outbound::channel::{Templates, sender_for};
use outbound::engine::{Engine, Parts, Tally};
use outbound::webhook::Network;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::lookup::Page;
use store::work::Deleted;
use store::{Store, Use};
use tokio::net::TcpListener;
use tokio::time::Instant;
use wire::address::EgressPolicy;

/// More tasks than this for one queue gain nothing: its own task hands out the work.
const MOST_HANDS: usize = 4;

/// The arguments of `esito serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where to listen, over the key `listen`; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Writes the admin key of the first start to this file, instead of printing it
    #[arg(long, value_name = "FILE")]
    print_key_file: Option<PathBuf>,
    /// Counts what the database is had to do, and shows it among the metrics: for the bench, as it costs time
    #[arg(long, hide = true)]
    count_effort: bool,
}

impl Serve {
    /// Serves until a signal ends it.
    pub async fn run(mut self) -> Outcome {
        self.config.set.extend(self.listen.map(|listen| ("listen".to_owned(), listen.to_string())));
        let config = self.config.load()?.config;
        logging::start(&config.log);
        if self.count_effort {
            store::effort::count();
        }
        let life = Lifecycle::default();
        life.stop_on_signals().map_err(|error| Failure::new(error.to_string()))?;
        let show = |key: &str| match &self.print_key_file {
            Some(path) => write_key_file(path, key),
            None => print_line(&format!("the admin key of default@EsitoOrg, shown this once: {key}")),
        };
        let server = Server::start(&config, life, show).await?;
        // Whoever has the key written to a file wants no secret printed.
        let link = if self.print_key_file.is_none() { server.console_link().await? } else { None };
        if let Some(link) = link {
            print_line(&format!("the console, signed in once and within 15 minutes: {link}"))?;
        }
        print_line(&format!("listening on http://{}", server.address))?;
        server.life.stopping().await;
        server.stop(config.shutdown.drain).await;
        Ok(())
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    life: Lifecycle,
    store: Arc<dyn Store>,
    engine: Arc<Engine>,
    console: Arc<Console>,
    public_url: String,
    clock: Arc<dyn Clock>,
}

impl Server {
    /// Opens the store, makes what a first start makes, and serves. `show` gets the admin key of a first start before it
    /// is stored.
    pub async fn start(
        config: &Config,
        life: Lifecycle,
        show: impl FnOnce(&str) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let world = World { clock: Arc::new(SystemClock), entropy: Arc::new(SystemEntropy) };
        let opened = super::store::open(config, Use::Work, &*world.entropy).await?;
        let store = opened.store.clone();
        let served = Self::serve(config, life, opened, world, show).await;
        if served.is_err() {
            store.close().await;
        }
        served
    }

    async fn serve(
        config: &Config,
        life: Lifecycle,
        opened: Opened,
        world: World,
        show: impl FnOnce(&str) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        // Before the first start, so that a port in use does not cost the only sight of the key.
        let bound = TcpListener::bind(config.listen).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) =
            bound.map_err(|error| Failure::new(format!("cannot listen on {}: {error}", config.listen)))?;
        let store = opened.store.clone();
        let founder = Founder { store: store.clone(), clock: world.clock.clone(), entropy: world.entropy.clone() };
        founder.first_start(show).await?;
        let clock = world.clock.clone();
        let (front, engine, console) = wire_up(config, address, life.clone(), opened, world).await?;
        life.spawn(listener::serve(listener, None, front, Bounds::default(), life.clone()));
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");
        let public_url = config.public_url(address);
        Ok(Self { address, life, store, engine, console, public_url, clock })
    }

    /// A link that signs in at the console once, soon, as an administrator of the default organization; none: it has no key
    /// that could.
    pub async fn console_link(&self) -> Result<Option<String>, Failure> {
        let now = self.clock.now();
        let is_admin = |key: &ApiKey| key.role == Role::Admin && key.sandboxes.is_none() && key.is_live(now);
        let keys = self.store.api_keys(DEFAULT_ORGANIZATION, Page { limit: 200, cursor: None }).await?;
        let key = keys.items.into_iter().find(is_admin);
        Ok(key.map(|key| format!("{}{}", self.public_url.trim_end_matches('/'), self.console.link(key.id))))
    }

    /// Takes no more, lets what was begun end within `limit`, and closes the store.
    pub async fn stop(self, limit: Duration) {
        let started = Instant::now();
        if !self.life.end(limit).await {
            tracing::warn!("requests were cut off: they did not end in time");
        }
        if !self.engine.stop(limit.saturating_sub(started.elapsed())).await {
            tracing::warn!("sends or deliveries did not end in time; the next start takes them up again");
        }
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// What time and randomness are.
struct World {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// Connects the parts: the one place that knows both the API and what leaves the house.
async fn wire_up(
    config: &Config,
    address: SocketAddr,
    life: Lifecycle,
    Opened { store, node, session_secret }: Opened,
    World { clock, entropy }: World,
) -> Result<(Front, Arc<Engine>, Arc<Console>), Failure> {
    let metrics = Metrics::new(clock.now());
    let extra_ca = extra_authorities(config)?;
    let network = network(config, extra_ca.clone())?;
    let parts = Parts {
        store: store.clone(),
        network: network.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        tally: Arc::new(Counting(metrics.clone())),
        hands: tokio::runtime::Handle::current().metrics().num_workers().min(MOST_HANDS),
        retention: config.retention,
        make_sender: make_sender(clock.clone(), &extra_ca),
    };
    let engine = Engine::start(parts).await?;
    let outside =
        Arc::new(Around { life, engine: engine.clone(), network, clock: clock.clone(), entropy: entropy.clone() });
    let public_url = config.public_url(address);
    let settings = ApiSettings {
        public_url: public_url.clone(),
        executions_per_second: config.limits.executions_per_second,
        ..ApiSettings::default()
    };
    let ids = Arc::new(ExecutionIds::new(node));
    let api = Arc::new(Api::new(store, engine.clone(), clock.clone(), entropy.clone(), ids, outside, settings));
    let console = Arc::new(Console::new(api.clone(), &session_secret, &public_url, config.retention, clock, entropy));
    let router = metrics.mount(api::router(api.clone()).merge(console::router(console.clone())));
    Ok((Front::with_executions(router, api, metrics), engine, console))
}

fn extra_authorities(config: &Config) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read = config.egress.extra_ca_file.as_deref().map(certificate::read_certificates).transpose();
    Ok(read.map_err(|error| Failure::new(format!("egress.extra_ca_file: {error}")))?.unwrap_or_default())
}

fn network(config: &Config, extra_ca: Vec<CertificateDer<'static>>) -> Result<Arc<Network>, Failure> {
    let egress = &config.egress;
    let policy = EgressPolicy { allow_networks: egress.allow_networks.clone(), allow_http: egress.allow_http };
    let network = Network::new(policy, extra_ca, &egress.dns_servers);
    network.map_err(|error| Failure::new(format!("names cannot be resolved: {error}")))
}

fn make_sender(clock: Arc<dyn Clock>, extra_ca: &[CertificateDer<'static>]) -> Box<MakeSender> {
    let (templates, tls) = (Arc::new(Templates::default()), outbound::tls::client_config(extra_ca));
    Box::new(move |configuration| sender_for(configuration, templates.clone(), clock.clone(), tls.clone()))
}

/// What the engine counts, for the metrics.
#[derive(Debug)]
struct Counting(Metrics);

impl Tally for Counting {
    fn recorded(&self, status: FeedbackStatus) {
        self.0.outcome_recorded(status);
    }

    fn delivered(&self, decision: AttemptDecision) {
        self.0.attempt_ended(decision);
    }

    fn deleted(&self, rows: &Deleted) {
        self.0.rows_deleted(rows);
    }
}

/// What the API needs of the program around it.
#[derive(Debug)]
struct Around {
    life: Lifecycle,
    engine: Arc<Engine>,
    network: Arc<Network>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

#[async_trait]
impl Outside for Around {
    fn is_stopping(&self) -> bool {
        self.life.is_stopping()
    }

    async fn admit(&self, sandbox: SandboxId, recipients: usize) {
        self.engine.admit(sandbox, recipients).await;
    }

    async fn check_url(&self, url: &str) -> Result<(), String> {
        self.network.check_url(url).await
    }

    async fn test_webhook(&self, webhook: &Webhook) -> Attempt {
        outbound::webhook::sample(webhook, &self.network, &*self.clock, &*self.entropy).await.attempt
    }
}
