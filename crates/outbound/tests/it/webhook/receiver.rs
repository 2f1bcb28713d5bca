//! A receiver on a raw TLS socket: it does what a test tells it, however wrong, and notes what it got.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

/// A certificate authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server certificate's faults.
#[derive(Clone, Copy, PartialEq)]
pub enum Validity {
    Good,
    Expired,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("Test CA")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub fn server(&self, names: &[&str], validity: Validity) -> TlsAcceptor {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The number of its connection, from 0.
    pub connection: usize,
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(key, _)| key == name);
        let value = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} is there twice");
        value
    }
}

/// The receiver's end of a connection.
pub struct Peer {
    number: usize,
    stream: BufReader<Either<TcpStream, tokio_rustls::server::TlsStream<TcpStream>>>,
    seen: UnboundedSender<Seen>,
}

impl Peer {
    /// Reads a request and notes it; false: the client closed the connection.
    pub async fn request(&mut self) -> bool {
        self.take().await.is_some()
    }

    /// Reads a request, notes it, and gives it; none: the client closed the connection.
    pub async fn take(&mut self) -> Option<Seen> {
        let request = self.read().await?;
        self.seen.send(request.clone()).is_ok().then_some(request)
    }

    async fn read(&mut self) -> Option<Seen> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let pair = |line: &String| line.split_once(": ").map(|(key, value)| (key.to_owned(), value.to_owned()));
        let headers: Vec<_> = head[1..].iter().map(|line| pair(line).unwrap()).collect();
        let length = headers.iter().find(|(key, _)| key == "content-length").unwrap().1.parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Seen { connection: self.number, line: head[0].clone(), headers, body })
    }

    /// Sends bytes; false: the client closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.stream.write_all(bytes.as_ref()).await;
        sent.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Closes the receiver's half.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends when the client has closed the connection.
    pub async fn closed(&mut self) {
        let mut rest = [0; 256];
        while self.stream.read(&mut rest).await.unwrap_or(0) > 0 {}
    }
}

/// A running receiver.
pub struct Receiver {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: UnboundedReceiver<Seen>,
    ended: UnboundedReceiver<usize>,
}

impl Receiver {
    /// Listens on `ip` and runs `script` for each connection, over TLS where there is an acceptor.
    pub async fn start<F, Fut>(ip: &str, tls: Option<TlsAcceptor>, script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (note, seen) = unbounded_channel();
        let (end, ended) = unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let (tls, note, end, script) = (tls.clone(), note.clone(), end.clone(), Arc::clone(&script));
                tokio::spawn(async move {
                    let stream = match tls {
                        None => Some(Either::Left(tcp)),
                        Some(tls) => tls.accept(tcp).await.ok().map(Either::Right),
                    };
                    if let Some(stream) = stream {
                        script(Peer { number, stream: BufReader::new(stream), seen: note }).await;
                    }
                    let _ = end.send(number);
                });
            }
        });
        Self { address, connections, seen, ended }
    }

    /// Answers every request with `reply`.
    pub async fn answering(ip: &str, tls: TlsAcceptor, reply: impl Into<String>) -> Self {
        let reply = Arc::new(reply.into());
        Self::start(ip, Some(tls), move |mut peer| {
            let reply = Arc::clone(&reply);
            async move { while peer.request().await && peer.send(reply.as_bytes()).await {} }
        })
        .await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next request.
    pub async fn seen(&mut self) -> Seen {
        self.seen.recv().await.unwrap()
    }

    /// A request that came already.
    pub fn seen_so_far(&mut self) -> Option<Seen> {
        self.seen.try_recv().ok()
    }

    /// Waits until the script of one more connection has ended, and says which.
    pub async fn ended(&mut self) -> usize {
        self.ended.recv().await.unwrap()
    }
}
