//! A webhook endpoint over TLS that notes all it gets and answers as it is told.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use serde_json::Value;
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// A certificate authority of one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn write_pem(&self, file: &Path) {
        std::fs::write(file, self.0.pem()).unwrap();
    }

    /// A certificate and key as PEM for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        self.issue_with(names, |_| {})
    }

    /// The same, with something changed.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(names).unwrap();
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A TLS server for `localhost` and the loopback addresses.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_for(&["localhost", "127.0.0.1", "::1"])
    }

    /// A TLS server for these names and addresses.
    pub fn acceptor_for(&self, names: &[&str]) -> TlsAcceptor {
        acceptor(self.issue(names))
    }
}

/// A TLS server with this certificate and key.
pub fn acceptor((certificate, key): (String, String)) -> TlsAcceptor {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Got {
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// What was answered.
    pub status: u16,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn id(&self) -> &str {
        self.headers.get("webhook-id").map_or("", String::as_str)
    }

    pub fn event_status(&self) -> String {
        self.json()["messageDeliveryFeedback"]["feedbackStatus"]["value"].as_str().unwrap_or("").to_owned()
    }

    /// The first id in the identity map.
    pub fn recipient(&self) -> String {
        let json = self.json();
        let map = json["identityMap"].as_object().unwrap();
        map.values().next().unwrap()[0]["id"].as_str().unwrap().to_owned()
    }
}

/// After so long without anything new, what came is looked through.
const MOMENT: Duration = Duration::from_millis(100);
/// By so much each event that had not come before puts off the end of a wait.
const LONGER: Duration = Duration::from_millis(10);

/// What to answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    pub delay: Duration,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), delay: Duration::ZERO }
    }
}

/// How many requests came with each `webhook-id`.
type ById = Arc<Mutex<HashMap<String, usize>>>;

type Behave = dyn Fn(&Got, usize) -> Reply + Send + Sync;

/// The endpoint. It ends with the test's runtime.
pub struct Receiver {
    pub url: String,
    got: Arc<Mutex<Vec<Got>>>,
    by_id: ById,
    count: watch::Receiver<usize>,
    behave: Arc<Mutex<Arc<Behave>>>,
}

impl Receiver {
    /// An endpoint that answers 204 to everything.
    pub async fn start(authority: &Authority) -> Self {
        Self::start_with(authority, |_, _| Reply::status(204)).await
    }

    /// `behave` gets the request and how many came before with the same `webhook-id`.
    pub async fn start_with(
        authority: &Authority,
        behave: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/hook", listener.local_addr().unwrap().port());
        Self::serve(listener, authority.acceptor(), url, behave)
    }

    /// An endpoint at this URL, which leads to the listener.
    pub fn serve(
        listener: TcpListener,
        acceptor: TlsAcceptor,
        url: String,
        behave: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (told, count) = watch::channel(0);
        let behave: Arc<Behave> = Arc::new(behave);
        let shared = Shared {
            got: Arc::default(),
            by_id: Arc::default(),
            told: Arc::new(told),
            behave: Arc::new(Mutex::new(behave)),
        };
        let (got, by_id, behave) = (Arc::clone(&shared.got), Arc::clone(&shared.by_id), Arc::clone(&shared.behave));
        tokio::spawn(accept(listener, acceptor, shared));
        Self { url, got, by_id, count, behave }
    }

    pub fn behave(&self, behave: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static) {
        *self.behave.lock().unwrap() = Arc::new(behave);
    }

    /// All that came so far.
    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// How many different events came.
    fn events(&self) -> usize {
        self.by_id.lock().unwrap().len()
    }

    /// Waits until `enough` says so of all that came; each new event gives it a little longer. A long run is not looked
    /// through at each arrival: only when a twentieth more has come, or nothing for a moment.
    pub async fn wait_until(&self, what: &str, enough: impl Fn(&[Got]) -> bool) -> Vec<Got> {
        let mut count = self.count.clone();
        let (begun, before) = (Instant::now(), self.events());
        loop {
            let seen = *count.borrow_and_update();
            let got = self.got();
            if enough(&got) {
                return got;
            }
            let next_look = seen + seen / 20;
            let until = begun + super::HANG + LONGER * u32::try_from(self.events() - before).unwrap();
            if !came(&mut count, until.saturating_duration_since(Instant::now())).await {
                let told = |got: &Got| (got.recipient(), got.event_status(), got.status);
                let last: Vec<_> = got.iter().rev().take(10).map(told).collect();
                panic!("waited for {what}; got {} requests, the last {last:?}", got.len());
            }
            while *count.borrow() <= next_look && came(&mut count, MOMENT).await {}
        }
    }

    /// Waits for this many requests answered with 2xx.
    pub async fn wait_for(&self, count: usize) -> Vec<Got> {
        let ok = |got: &[Got]| got.iter().filter(|one| one.status / 100 == 2).count() >= count;
        self.wait_until(&format!("{count} events"), ok).await
    }
}

/// Whether something more comes within this time.
async fn came(count: &mut watch::Receiver<usize>, within: Duration) -> bool {
    match tokio::time::timeout(within, count.changed()).await {
        Ok(told) => told.map(|()| true).expect("the receiver lives as long as the test"),
        Err(_) => false,
    }
}

#[derive(Clone)]
struct Shared {
    got: Arc<Mutex<Vec<Got>>>,
    by_id: ById,
    told: Arc<watch::Sender<usize>>,
    behave: Arc<Mutex<Arc<Behave>>>,
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Shared) {
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let Ok(stream) = acceptor.accept(socket).await else { return };
            let service = service_fn(move |request| answer(request, shared.clone()));
            // A client that goes away is no fault of the endpoint.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or("").to_owned()))
        .collect();
    let Ok(body) = request.into_body().collect().await else { return Ok(Response::new(Full::default())) };
    let mut got = Got { headers, body: body.to_bytes().to_vec(), status: 0 };
    let before = {
        let mut by_id = shared.by_id.lock().unwrap();
        let count = by_id.entry(got.id().to_owned()).or_default();
        *count += 1;
        *count - 1
    };
    let behave = Arc::clone(&shared.behave.lock().unwrap());
    let reply = behave(&got, before);
    if !reply.delay.is_zero() {
        // The delay is what this endpoint does, not a way to wait for something.
        tokio::time::sleep(reply.delay).await;
    }
    got.status = reply.status;
    shared.got.lock().unwrap().push(got);
    shared.told.send_modify(|count| *count += 1);
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(reply.body)).unwrap())
}
