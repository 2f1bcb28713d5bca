//! Names to addresses.

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// An address is asked for anew at least this often, so that an endpoint that moves is found.
const MAX_TTL: Duration = Duration::from_secs(300);

/// A name that was not there is asked for anew at least this often: records get added because they were missing.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// How many answers are kept.
const CACHED_ANSWERS: u64 = 4096;

/// Looks up the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync + fmt::Debug {
    /// The addresses of `name`, those to be tried first in front.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError>;
}

/// Why a name gave no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no such name, or it has no address.
    #[error("there is no address for this name; check its spelling and its DNS records")]
    NotFound,
    /// No answer in time.
    #[error("no answer from DNS within {} s", LOOKUP_TIMEOUT.as_secs())]
    Timeout,
    /// The name servers failed.
    #[error("the lookup failed: {0}")]
    Failed(String),
}

/// Name servers with a bounded cache before them.
pub(super) struct DnsResolver(TokioResolver);

impl DnsResolver {
    /// The system's resolver: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
    pub(super) fn of_system() -> Result<Self, ResolveError> {
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
            // Address literals, `localhost` and /etc/hosts work without a name server: enough for a first try.
            tracing::warn!(%error, "the system names no DNS server; only /etc/hosts is used");
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        });
        set_options(builder.options_mut());
        Self::of(builder.build())
    }

    /// These name servers and nothing else: what `/etc/hosts`, the search list and `/etc/resolv.conf` say holds for the
    /// machine's own programs, and whoever names the servers wants their view of the names instead.
    pub(super) fn of_servers(servers: &[SocketAddr]) -> Result<Self, ResolveError> {
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().copied().map(name_server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        set_options(builder.options_mut());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        Self::of(builder.build())
    }

    fn of(built: Result<TokioResolver, NetError>) -> Result<Self, ResolveError> {
        built.map(Self).map_err(|error| ResolveError::Failed(error.to_string()))
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

fn set_options(options: &mut ResolverOpts) {
    options.cache_size = CACHED_ANSWERS;
    // Long answers come over one TCP connection, on which the default of 32 would turn a restart into errors.
    options.max_active_requests = 1024;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    // Addresses are tried in turn, and hosts with a v6 address but no way out over v6 are more common than the reverse.
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
}

impl fmt::Debug for DnsResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DnsResolver")
    }
}

#[async_trait]
impl Resolve for DnsResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match self.0.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if error.is_no_records_found() => Err(ResolveError::NotFound),
            Err(NetError::Timeout) => Err(ResolveError::Timeout),
            Err(error) => Err(ResolveError::Failed(error.to_string())),
        }
    }
}

type Answer = Result<Arc<[IpAddr]>, ResolveError>;
type Lookup = BoxFuture<'static, Answer>;

/// One lookup a name at a time, its answer shared by all who wait: an endpoint's many connections, opened at once
/// after a restart, ask once.
#[derive(Debug)]
pub(super) struct SharedLookups {
    resolver: Arc<dyn Resolve>,
    running: Mutex<HashMap<String, WeakShared<Lookup>>>,
}

impl SharedLookups {
    pub(super) fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, running: Mutex::default() }
    }

    /// The addresses of `name`, within [`LOOKUP_TIMEOUT`].
    pub(super) async fn resolve(&self, name: &str) -> Answer {
        self.join(name).await
    }

    fn join(&self, name: &str) -> Shared<Lookup> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has its answer is over: whoever comes later asks again, and the resolver's cache knows how long it holds.
        let unfinished = |lookup: &WeakShared<Lookup>| lookup.upgrade().filter(|lookup| lookup.peek().is_none());
        if let Some(lookup) = running.get(name).and_then(unfinished) {
            return lookup;
        }
        running.retain(|_, lookup| unfinished(lookup).is_some());
        let lookup = look_up(Arc::clone(&self.resolver), name.to_owned()).boxed().shared();
        if let Some(weak) = lookup.downgrade() {
            running.insert(name.to_owned(), weak);
        }
        lookup
    }
}

async fn look_up(resolver: Arc<dyn Resolve>, name: String) -> Answer {
    match tokio::time::timeout(LOOKUP_TIMEOUT, resolver.resolve(&name)).await {
        Ok(Ok(found)) if found.is_empty() => Err(ResolveError::NotFound),
        Ok(answer) => answer.map(Arc::from),
        Err(_) => Err(ResolveError::Timeout),
    }
}
