//! A server that may reach one address, a DNS server that lies to it, and canaries on what it may not reach.
//!
//! The canaries listen on the port that the URLs name, at forbidden addresses of this machine, and see who connects.
//! For the addresses that are not of this machine strace looks at where the server's calls went to.

use crate::peers::peer::{Peer, free_port};
use crate::peers::strace::Tracer;
use crate::support::client::Caller;
use crate::support::must;
use crate::support::receiver::{Authority, Got, Receiver, Reply};
use crate::support::server::Server;
use crate::support::world::{self, merge, simulate};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// The one address that is open.
pub const ALLOWED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// As egress.allow_networks has it.
pub const OPEN: &str = "[\"127.0.0.9/32\"]";

/// What the names that the DNS server knows end in.
pub const DOMAIN: &str = "hostile.test";

/// The network calls that name an address.
const TRACED: &str = "trace=connect,sendto,sendmsg,sendmmsg";

/// A port that is free on one loopback address most often is on the others.
const PORTS_TRIED: usize = 100;

pub struct Stage {
    pub server: Server,
    pub caller: Caller,
    pub receiver: Receiver,
    /// Where the receiver listens at the allowed address, and the canaries at the others.
    pub port: u16,
    /// Where nothing listens at the allowed address, and canaries do at the others.
    pub dead_port: u16,
    /// Keeps the dead port from being anybody else's.
    _dead: TcpSocket,
    canaries: Vec<Canary>,
    dns: Peer,
    dns_address: SocketAddr,
    zone_file: PathBuf,
    authority_file: PathBuf,
    tracers: Vec<Tracer>,
    _folder: TempDir,
}

fn settings<'a>(texts: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    texts.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

/// The configuration of a server that may reach these networks, asks this DNS server and trusts this authority.
fn texts(networks: &str, dns: SocketAddr, authority: &Path) -> [(&'static str, String); 3] {
    [
        ("egress.allow_networks", networks.to_owned()),
        ("egress.dns_servers", format!("[\"{dns}\"]")),
        ("egress.extra_ca_file", format!("\"{}\"", authority.display())),
    ]
}

impl Stage {
    /// With these networks open.
    pub async fn start(networks: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let zone_file = folder.path().join("zone.json");
        write_zone(&zone_file, Map::new());
        let authority = Authority::new();
        let authority_file = folder.path().join("authority.pem");
        authority.write_pem(&authority_file);
        let dns = Peer::python("rebinding_dns.py", &[&zone_file]);
        let dns_address = SocketAddr::from((Ipv4Addr::LOCALHOST, dns.port().await));
        let (listener, mut canaries) = listen();
        let port = listener.local_addr().unwrap().port();
        let (dead, more) = hold_dead_port();
        canaries.extend(more);
        let acceptor = authority.acceptor_for(&["127.0.0.9", "*.hostile.test"]);
        let receiver = Receiver::serve(listener, acceptor, url_of("control", port), answer_once(port));
        let tracer = Tracer::new(&["-s", "0", "-e", TRACED]);
        let texts = texts(networks, dns_address, &authority_file);
        let server = Server::start_under(&tracer.prefix(), &settings(&texts)).await;
        Self {
            caller: server.admin(),
            server,
            receiver,
            port,
            dead_port: dead.local_addr().unwrap().port(),
            _dead: dead,
            canaries,
            dns,
            dns_address,
            zone_file,
            authority_file,
            tracers: vec![tracer],
            _folder: folder,
        }
    }

    /// Stops the server, and starts it with other networks open.
    pub async fn restart(&mut self, networks: &str) {
        assert!(self.server.stop().await.success());
        let texts = texts(networks, self.dns_address, &self.authority_file);
        self.server.configure(&settings(&texts));
        let tracer = Tracer::new(&["-s", "0", "-e", TRACED]);
        self.server.run_under(&tracer.prefix());
        self.tracers.push(tracer);
        self.server.up().await;
        self.caller = self.server.admin();
    }

    /// What the DNS server answers from now on: for each name, without the domain, its records by type.
    pub fn answer(&self, names: impl IntoIterator<Item = (String, Value)>) {
        write_zone(&self.zone_file, names.into_iter().map(|(name, types)| (name_of(&name), types)).collect());
    }

    /// Sends events to the sandbox's webhook.
    pub async fn send(&self, caller: &Caller, events: usize) {
        let to: Vec<String> = (0..events).map(|i| format!("sent+{i}@simulator.esito.test")).collect();
        simulate(caller, &to).await;
    }

    /// What the receiver got for this name.
    pub fn got(&self, name: &str) -> Vec<Got> {
        let host = format!("{}:{}", name_of(name), self.port);
        self.receiver.got().into_iter().filter(|got| got.headers["host"] == host).collect()
    }

    /// Looks whether all is well with what is open, then ends the server and looks for traces of anything else.
    pub async fn strike(mut self) {
        self.control().await;
        assert!(self.server.stop().await.success());
        for canary in &self.canaries {
            canary.saw_nobody().await;
        }
        let questions = self.dns.stop().await.len();
        let mut went = BTreeSet::new();
        for tracer in self.tracers {
            went.extend(destinations(&tracer.trace().await));
        }
        let receiver = SocketAddr::from((ALLOWED, self.port));
        let dead = SocketAddr::from((ALLOWED, self.dead_port));
        assert!(went.contains(&receiver) && went.contains(&self.dns_address), "the trace shows too little: {went:?}");
        let others: Vec<_> = went.iter().filter(|one| ![receiver, dead, self.dns_address].contains(one)).collect();
        assert!(others.is_empty(), "the server went to {others:?}");
        println!("{} canaries saw nobody; {questions} lines of the DNS server", self.canaries.len());
    }

    /// The allowed address gets its event, by name and as it stands.
    async fn control(&self) {
        self.answer([("control".to_owned(), json!({"A": [[ALLOWED.to_string()]]}))]);
        for (i, url) in
            [url_of("control", self.port), format!("https://{ALLOWED}:{}/hook", self.port)].iter().enumerate()
        {
            let caller = self.caller.in_new_sandbox(&format!("control-{i}")).await;
            caller.post("/v1/feedback-webhooks", &webhook(url, json!({}))).await.expect(201);
            self.send(&caller, 1).await;
            let host = url.split('/').nth(2).unwrap();
            self.receiver.wait_until(url, |got| got.iter().any(|one| one.headers["host"] == host)).await;
        }
    }
}

/// A webhook at this URL, with `changes` over the plain settings.
pub fn webhook(url: &str, changes: Value) -> Value {
    let mut body = json!({"name": "hostile", "channels": ["email"], "url": url});
    merge(&mut body, changes);
    body
}

pub fn name_of(name: &str) -> String {
    format!("{name}.{DOMAIN}")
}

pub fn url_of(name: &str, port: u16) -> String {
    format!("https://{}:{port}/hook", name_of(name))
}

/// The attempts of the sandbox's deliveries, once all of these are in this state.
pub async fn attempts(caller: &Caller, state: &str, deliveries: usize) -> Vec<Vec<Value>> {
    world::attempts(caller, state, |found| found == deliveries).await
}

/// Ends each connection with its answer, so that each delivery asks DNS anew. What goes to `redirect` is sent on to a
/// canary.
fn answer_once(port: u16) -> impl Fn(&Got, usize) -> Reply + Send + Sync {
    move |got, before| {
        let close = ("connection", "close".to_owned());
        if !got.headers["host"].starts_with("redirect.") {
            return Reply { headers: vec![close], ..Reply::status(204) };
        }
        let places = ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433"];
        let location = format!("https://{}:{port}/hook", places[before % places.len()]);
        Reply { headers: vec![close, ("location", location)], ..Reply::status([301, 302, 303, 307, 308][before % 5]) }
    }
}

/// All at once: the DNS server reads it at any time.
fn write_zone(file: &Path, zone: Map<String, Value>) {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, Value::Object(zone).to_string()).unwrap();
    std::fs::rename(&fresh, file).unwrap();
}

/// A port that is free at the allowed address and at all forbidden ones: the receiver's listener and canaries.
fn listen() -> (TcpListener, Vec<Canary>) {
    with_canaries(|address| {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    })
}

/// The same without a listener: whoever connects is refused.
fn hold_dead_port() -> (TcpSocket, Vec<Canary>) {
    with_canaries(|address| {
        let socket = TcpSocket::new_v4()?;
        socket.bind(address)?;
        Ok(socket)
    })
}

fn with_canaries<T>(take: impl Fn(SocketAddr) -> std::io::Result<T>) -> (T, Vec<Canary>) {
    for _ in 0..PORTS_TRIED {
        // None that the system may have given to another test's endpoint, whose callers could come here later.
        let port = free_port();
        let is_taken = |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse;
        match take(SocketAddr::from((ALLOWED, port))).and_then(|taken| Ok((taken, canaries(port)?))) {
            Ok(found) => return found,
            Err(error) => assert!(is_taken(&error), "port {port}: {error}"),
        }
    }
    panic!("no port is free on all loopback addresses");
}

fn canaries(port: u16) -> std::io::Result<Vec<Canary>> {
    let forbidden = ["127.0.0.1", "127.0.0.2", "127.0.0.8", "127.0.0.10", "127.1.1.1", "::1"];
    let mut canaries = Vec::new();
    for ip in forbidden {
        match Canary::bind(SocketAddr::new(ip.parse().unwrap(), port)) {
            // A machine without IPv6 has nothing there that could be reached.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && ip.contains(':') => {}
            bound => canaries.push(bound?),
        }
    }
    Ok(canaries)
}

/// Somebody listening where nobody may come.
struct Canary {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    count: watch::Receiver<usize>,
}

impl Canary {
    fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (told, count) = watch::channel(0);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((_, peer)) = listener.accept().await {
                noted.lock().unwrap().push(peer);
                told.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { address, seen, count })
    }

    /// Connects to it: whoever came before stands before this connection in the listener's queue, so that once this one
    /// is seen, nobody else was there; and it shows that the canary does see who comes.
    async fn saw_nobody(&self) {
        let ours = TcpStream::connect(self.address).await.unwrap().local_addr().unwrap();
        let mut count = self.count.clone();
        must("the canary to see us", count.wait_for(|count| *count > 0)).await.unwrap();
        let is_there = |seen: &[SocketAddr]| seen.contains(&ours);
        while !is_there(&self.seen.lock().unwrap()) {
            must("the canary to see us", count.changed()).await.unwrap();
        }
        assert_eq!(*self.seen.lock().unwrap(), [ours], "somebody came to {}", self.address);
    }
}

/// The internet addresses that a trace's calls name.
fn destinations(trace: &str) -> BTreeSet<SocketAddr> {
    let v4 = trace.split("sin_port=htons(").skip(1).map(|rest| (rest, "sin_addr=inet_addr(\""));
    let v6 = trace.split("sin6_port=htons(").skip(1).map(|rest| (rest, "inet_pton(AF_INET6, \""));
    v4.chain(v6).map(|(rest, before)| destination(rest, before)).collect()
}

fn destination(rest: &str, before: &str) -> SocketAddr {
    let port = rest.split(')').next().and_then(|port| port.parse().ok());
    let ip = rest.split(before).nth(1).and_then(|rest| rest.split('"').next()).and_then(|ip| ip.parse().ok());
    match (ip, port) {
        // A v4-mapped address is the v4 one to the kernel.
        (Some(ip), Some(port)) => SocketAddr::new(IpAddr::to_canonical(&ip), port),
        _ => panic!("strace writes addresses in another form: {}", rest.lines().next().unwrap_or_default()),
    }
}

#[test]
fn a_trace_shows_where_calls_went_to() {
    let trace = r#"7 connect(12, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("10.0.0.1")}, 16) = -1 EINPROGRESS (Operation now in progress)
8 connect(12, {sa_family=AF_INET6, sin6_port=htons(8443), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28 <unfinished ...>
7 sendto(13, ""..., 33, MSG_NOSIGNAL, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.1")}, 16) = 33
7 sendto(14, ""..., 90, MSG_NOSIGNAL, NULL, 0) = 90
7 connect(12, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0"#;
    let expected: [(IpAddr, u16); 3] = [
        (Ipv4Addr::new(10, 0, 0, 1).into(), 443),
        (Ipv6Addr::LOCALHOST.into(), 8443),
        (Ipv4Addr::LOCALHOST.into(), 53),
    ];
    assert_eq!(destinations(trace), expected.map(SocketAddr::from).into());
}

/// The kinds of error in these attempts, and how many there are of each; a success is `none`.
pub fn kinds(attempts: &[Vec<Value>]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for attempt in attempts.iter().flatten() {
        *kinds.entry(attempt["error"]["kind"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
    }
    kinds
}
