//! Connections that go only where the operator allows.
//!
//! The customer chooses the URL and whoever runs its DNS chooses the addresses, so the check comes last, right before
//! each dial: an address literal is judged as it stands, a name is resolved and its forbidden addresses are dropped,
//! and exactly the addresses that were judged are dialled. Nothing here follows a redirect or reads a proxy setting
//! from the environment.

use super::oauth2::Tokens;
use super::resolve::{DnsResolver, Resolve, ResolveError, SharedLookups};
use crate::tls;
use async_trait::async_trait;
use model::clock::Timestamp;
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use url::{Host, Url};
use wire::address::{AddressRefusal, EgressPolicy};

/// How long one address may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

/// A connection: plain where the operator allows that, else TLS.
pub type Stream = Either<RawStream, TlsStream<RawStream>>;

/// A connection as it was dialled: TCP, or what a simulation puts in its place.
pub type RawStream = Either<TcpStream, Box<dyn Simulated>>;

/// What stands for a TCP connection in a simulation.
pub trait Simulated: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Simulated for T {}

/// Opens connections to addresses that the guard has judged.
#[async_trait]
pub trait Dial: Send + Sync + std::fmt::Debug {
    /// Opens one, and says whom it in fact goes to.
    async fn dial(&self, address: SocketAddr) -> io::Result<(RawStream, IpAddr)>;
}

/// Dials by TCP.
#[derive(Debug)]
struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, address: SocketAddr) -> io::Result<(RawStream, IpAddr)> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?.ip();
        Ok((Either::Left(stream), peer))
    }
}

/// The way out: resolver, TLS and policy, shared by all endpoints.
pub struct Network {
    lookups: SharedLookups,
    dial: Arc<dyn Dial>,
    tls: TlsConnector,
    policy: EgressPolicy,
    tokens: Tokens,
}

/// Where a connection goes.
#[derive(Clone, Debug)]
pub struct Origin {
    host: Host,
    port: u16,
    /// The name that the certificate must have; none: plain `http`.
    server_name: Option<ServerName<'static>>,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Every address is forbidden.
    #[error("not allowed to connect to {host}: {refusal}")]
    Guard {
        /// The host of the URL.
        host: String,
        /// Why.
        refusal: AddressRefusal,
    },
    /// The name has no address, or DNS failed.
    #[error("{host}: {error}")]
    Dns {
        /// The name.
        host: String,
        /// Why.
        error: ResolveError,
    },
    /// No address took the connection.
    #[error("no connection to {0}")]
    Connect(String),
    /// The handshake failed: the certificate, most often.
    #[error("TLS: {0}")]
    Tls(String),
    /// The handshake was not finished in time.
    #[error("the TLS handshake was not finished within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
}

impl Origin {
    /// Where requests to this URL go; none where it has no host that a certificate could name.
    pub fn of(url: &Url) -> Option<Self> {
        let host = url.host()?.to_owned();
        let server_name = match url.scheme() {
            "https" => Some(server_name(&host)?),
            _ => None,
        };
        Some(Self { host, port: url.port_or_known_default()?, server_name })
    }
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone()).ok(),
        Host::Ipv4(ip) => Some(ServerName::from(IpAddr::from(*ip))),
        Host::Ipv6(ip) => Some(ServerName::from(IpAddr::from(*ip))),
    }
}

impl Network {
    /// The system's root certificates with `extra_ca` beside them; names are asked of `dns_servers`, or of the system's
    /// resolver where there are none.
    ///
    /// # Errors
    /// When the resolver cannot be built, from the system's configuration or over these servers.
    pub fn new(
        policy: EgressPolicy,
        extra_ca: Vec<CertificateDer<'static>>,
        dns_servers: &[SocketAddr],
    ) -> Result<Arc<Self>, ResolveError> {
        let resolver = match dns_servers {
            [] => DnsResolver::of_system()?,
            servers => DnsResolver::of_servers(servers)?,
        };
        Ok(Self::with_resolver(policy, extra_ca, Arc::new(resolver)))
    }

    /// The same with another resolver.
    pub fn with_resolver(
        policy: EgressPolicy,
        extra_ca: Vec<CertificateDer<'static>>,
        resolver: Arc<dyn Resolve>,
    ) -> Arc<Self> {
        Self::with(policy, extra_ca, resolver, Arc::new(Tcp))
    }

    /// The same with another way to dial, too.
    pub fn with(
        policy: EgressPolicy,
        extra_ca: Vec<CertificateDer<'static>>,
        resolver: Arc<dyn Resolve>,
        dial: Arc<dyn Dial>,
    ) -> Arc<Self> {
        let mut config = rustls::ClientConfig::clone(&tls::client_config(&extra_ca));
        // With HTTP/2 one connection would carry all requests to a host, and how many at a time would be the peer's to
        // say. With HTTP/1.1 a request has its connection to itself, and closing it ends that one request only.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        Arc::new(Self { lookups: SharedLookups::new(resolver), dial, tls, policy, tokens: Tokens::default() })
    }

    /// What the operator allows.
    pub fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// The access tokens for endpoints, which outlive the endpoints' revisions.
    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Checks a URL as far as it can be at create and edit. A name that does not resolve yet is accepted.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub async fn check_url(&self, url: &str) -> Result<(), String> {
        let url = self.policy.check_url(url).map_err(|refusal| refusal.to_string())?;
        let Some(Origin { host, .. }) = Origin::of(&url) else {
            return Err("the URL's host is no name that a certificate could be for".to_owned());
        };
        match self.addresses(&host).await {
            Err(refused @ ConnectError::Guard { .. }) => Err(refused.to_string()),
            _ => Ok(()),
        }
    }

    /// Opens a connection. `within` is how long the caller waits: several addresses share it.
    ///
    /// # Errors
    /// Says what kept it from opening.
    pub async fn connect(&self, origin: &Origin, within: Duration) -> Result<Stream, ConnectError> {
        let addresses = self.addresses(&origin.host).await?;
        let raw = self.dial(&addresses, origin, within).await?;
        match &origin.server_name {
            None => Ok(Either::Left(raw)),
            Some(name) => self.handshake(name.clone(), raw).await.map(Either::Right),
        }
    }

    async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, ConnectError> {
        let allowed = match host {
            Host::Ipv4(ip) => self.policy.filter([IpAddr::from(*ip)]),
            Host::Ipv6(ip) => self.policy.filter([IpAddr::from(*ip)]),
            Host::Domain(name) => {
                let found = self.lookups.resolve(name).await;
                let found = found.map_err(|error| ConnectError::Dns { host: name.clone(), error })?;
                self.policy.filter(found.iter().copied())
            }
        };
        allowed.map_err(|refusal| ConnectError::Guard { host: host.to_string(), refusal })
    }

    async fn dial(&self, ips: &[IpAddr], origin: &Origin, within: Duration) -> Result<RawStream, ConnectError> {
        let tried = ips.len().clamp(1, MAX_ADDRESSES);
        // An address that swallows packets must leave time for the next.
        let each = DIAL_TIMEOUT.min(within / u32::try_from(tried).unwrap_or(1));
        let mut failed = String::new();
        for ip in ips.iter().take(MAX_ADDRESSES) {
            let address = SocketAddr::new(*ip, origin.port);
            let error = match timeout(each, self.dial.dial(address)).await {
                Ok(Ok((stream, peer))) => return self.check_peer(stream, peer, origin),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} ms", each.as_millis()),
            };
            failed = format!("{address}: {error}");
        }
        if tried > 1 {
            failed.push_str(&format!(" (the last of {tried} addresses, all tried)"));
        }
        Err(ConnectError::Connect(failed))
    }

    /// Judges the address that the connection in fact has: the last moment before anything is said on it.
    fn check_peer(&self, stream: RawStream, peer: IpAddr, origin: &Origin) -> Result<RawStream, ConnectError> {
        let refused = |refusal| ConnectError::Guard { host: origin.host.to_string(), refusal };
        self.policy.allows_ip(peer).map_err(refused)?;
        Ok(stream)
    }

    async fn handshake(&self, name: ServerName<'static>, raw: RawStream) -> Result<TlsStream<RawStream>, ConnectError> {
        match timeout(HANDSHAKE_TIMEOUT, self.tls.connect(name, raw)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(ConnectError::Tls(handshake_fault(&error))),
            Err(_) => Err(ConnectError::Timeout),
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("lookups", &self.lookups).field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn handshake_fault(error: &io::Error) -> String {
    match (rustls_error(error), error.kind()) {
        (Some(error), _) => tls_fault(error),
        (None, io::ErrorKind::UnexpectedEof) => "the endpoint closed the connection during the handshake".to_owned(),
        (None, _) => format!("the connection broke during the handshake: {error}"),
    }
}

/// The TLS error inside an I/O error, where there is one.
pub(super) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What was wrong, in words for whoever runs the endpoint.
pub(super) fn tls_fault(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(fault) => certificate_fault(fault),
        rustls::Error::InvalidMessage(_) => {
            "the answer is not TLS; does the endpoint speak https on this port?".to_owned()
        }
        rustls::Error::AlertReceived(alert) => {
            format!("the endpoint refused the handshake with the alert {alert:?}")
        }
        other => other.to_string(),
    }
}

fn certificate_fault(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired => "the certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate has expired: it was valid until {}", moment(*not_after))
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is not valid yet: it begins at {}", moment(*not_before))
        }
        CertificateError::UnknownIssuer => {
            "the certificate has an unknown issuer: its CA is not trusted here, or the endpoint sends no intermediate \
             certificate"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("wrong host name: {fault}")
        }
        CertificateError::Revoked => "the certificate is revoked".to_owned(),
        other => format!("the certificate cannot be used: {other}"),
    }
}

fn moment(time: UnixTime) -> Timestamp {
    Timestamp(i64::try_from(time.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000))
}
