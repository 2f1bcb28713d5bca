//! Where connections may go, and whom they trust.

use super::*;

async fn receiver_for(names: &[&str], authority: &Authority) -> Receiver {
    Receiver::answering("127.0.0.1", authority.server(names, Validity::Good), OK).await
}

fn network_with(dns: Arc<FakeDns>, authority: &Authority) -> Arc<Network> {
    Network::with_resolver(policy(), vec![authority.root()], dns)
}

async fn post_over(network: &Arc<Network>, url: &str) -> Reply {
    match Endpoint::new(&webhook(url, json!({"timeoutSeconds": 5})), network) {
        Ok(endpoint) => post(&endpoint).await,
        Err(error) => Reply::failed(NOW, std::time::Duration::ZERO, error),
    }
}

#[tokio::test]
async fn literals_are_refused_unless_opened() {
    let authority = Authority::new();
    let receiver = receiver_for(&["127.0.0.1"], &authority).await;
    let port = receiver.address.port();
    let closed = Network::with_resolver(EgressPolicy::default(), vec![authority.root()], FakeDns::answers(&[&[]]));
    for host in ["127.0.0.1", "0", "2130706433", "0x7f.1", "017700000001", "[::1]", "[::ffff:127.0.0.1]"] {
        let reply = post_over(&closed, &format!("https://{host}:{port}/")).await;
        assert_failed(&reply, AttemptErrorKind::Guard, "an operator can open it");
    }
    assert_eq!(receiver.connections(), 0);
    for host in ["127.0.0.1", "2130706433", "0x7f.1"] {
        let reply = post_over(&network(&authority), &format!("https://{host}:{port}/")).await;
        assert_eq!(reply.verdict, Verdict::Succeeded);
    }
    let reply = post_over(&network(&authority), "https://127.0.0.2/").await;
    assert_failed(&reply, AttemptErrorKind::Guard, "loopback");
}

#[tokio::test]
async fn only_the_allowed_addresses_of_a_name_are_dialled() {
    let authority = Authority::new();
    let allowed = receiver_for(&[HOOK], &authority).await;
    let forbidden = tokio::net::TcpListener::bind(("127.0.0.2", allowed.address.port())).await.unwrap();
    let dns = FakeDns::answers(&[&["127.0.0.2", "169.254.169.254", "10.0.0.1", "127.0.0.1", "::1"]]);
    let reply = post_over(&network_with(dns, &authority), &url(&allowed)).await;
    assert_eq!(reply.verdict, Verdict::Succeeded);
    assert_eq!(allowed.connections(), 1);
    let dialled = futures_util::FutureExt::now_or_never(forbidden.accept());
    assert!(dialled.is_none(), "a forbidden address was dialled");
}

#[tokio::test]
async fn a_name_with_forbidden_addresses_only_is_refused() {
    let authority = Authority::new();
    let receiver = receiver_for(&[HOOK], &authority).await;
    let dns = FakeDns::answers(&[&["127.0.0.2", "10.0.0.1"]]);
    let reply = post_over(&network_with(dns, &authority), &url(&receiver)).await;
    assert_failed(&reply, AttemptErrorKind::Guard, "127.0.0.2");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_at_each_connection() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let receiver = Receiver::start("127.0.0.1", Some(tls), |mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let network = network_with(FakeDns::answers(&[&["127.0.0.1"], &["127.0.0.1"], &["127.0.0.2"]]), &authority);
    network.check_url(&url(&receiver)).await.unwrap();
    let endpoint = Endpoint::new(&webhook(&url(&receiver), json!({})), &network).unwrap();
    assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
    assert_failed(&post(&endpoint).await, AttemptErrorKind::Guard, "127.0.0.2");
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let authority = Authority::new();
    let receiver = receiver_for(&[HOOK], &authority).await;
    let open = EgressPolicy { allow_networks: vec!["127.0.0.0/8".parse().unwrap()], allow_http: false };
    // Nothing listens on the first one.
    let dns = FakeDns::answers(&[&["127.0.0.3", "127.0.0.1"]]);
    let network = Network::with_resolver(open.clone(), vec![authority.root()], dns);
    assert_eq!(post_over(&network, &url(&receiver)).await.verdict, Verdict::Succeeded);
    let dns = FakeDns::answers(&[&["127.0.0.3", "127.0.0.4"]]);
    let network = Network::with_resolver(open, vec![authority.root()], dns);
    let reply = post_over(&network, &url(&receiver)).await;
    assert_failed(&reply, AttemptErrorKind::Connect, "127.0.0.4");
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_dns_failure() {
    let authority = Authority::new();
    for error in [ResolveError::NotFound, ResolveError::Timeout, ResolveError::Failed("SERVFAIL".to_owned())] {
        let says = error.to_string();
        let reply = post_over(&network_with(FakeDns::fails(error), &authority), "https://hook.example/").await;
        assert_failed(&reply, AttemptErrorKind::Dns, &says);
    }
    let reply = post_over(&network_with(FakeDns::answers(&[&[]]), &authority), "https://hook.example/").await;
    assert_failed(&reply, AttemptErrorKind::Dns, "no address");
}

#[tokio::test]
async fn plain_http_only_where_it_is_allowed() {
    let script = |mut peer: receiver::Peer| async move { while peer.request().await && peer.send(OK).await {} };
    let mut receiver = Receiver::start("127.0.0.1", None, script).await;
    let authority = Authority::new();
    let url = format!("http://127.0.0.1:{}/", receiver.address.port());
    assert_failed(&post_over(&network(&authority), &url).await, AttemptErrorKind::Guard, "plain http");
    assert_eq!(receiver.connections(), 0);
    let open = EgressPolicy { allow_http: true, ..policy() };
    let network = Network::with_resolver(open, Vec::new(), FakeDns::answers(&[&[]]));
    assert_eq!(post_over(&network, &url).await.verdict, Verdict::Succeeded);
    assert_eq!(receiver.seen().await.line, "POST / HTTP/1.1");
}

#[tokio::test]
async fn urls_are_checked_at_create() {
    let authority = Authority::new();
    let check = |dns: Arc<FakeDns>, url: &'static str| {
        let network = network_with(dns, &authority);
        async move { network.check_url(url).await }
    };
    let public = || FakeDns::answers(&[&["93.184.215.14"]]);
    check(public(), "https://hook.example/a?b=c").await.unwrap();
    check(FakeDns::answers(&[&["10.0.0.1", "93.184.215.14"]]), "https://hook.example/").await.unwrap();
    check(FakeDns::fails(ResolveError::NotFound), "https://hook.example/").await.unwrap();
    check(FakeDns::answers(&[&[]]), "https://hook.example/").await.unwrap();
    let inside = check(FakeDns::answers(&[&["10.0.0.1"]]), "https://hook.example/").await.unwrap_err();
    assert!(inside.contains("10.0.0.1"), "{inside}");
    for bad in ["http://hook.example/", "https://u:p@hook.example/", "https://[::1]/", "https://10.1.2.3/", "nonsense"]
    {
        let refused = check(public(), bad).await.unwrap_err();
        assert!(!refused.contains("u:p"), "{refused}");
    }
}

#[tokio::test]
async fn the_certificate_s_fault_is_named() {
    let authority = Authority::new();
    let cases = [
        (authority.server(&["other.example"], Validity::Good), "wrong host name"),
        (authority.server(&[HOOK], Validity::Expired), "has expired: it was valid until 2020-01-01T00:00:00"),
        (Authority::named("Another CA").server(&[HOOK], Validity::Good), "unknown issuer"),
    ];
    for (tls, says) in cases {
        let mut receiver = Receiver::answering("127.0.0.1", tls, OK).await;
        let reply = post_over(&network(&authority), &url(&receiver)).await;
        assert_failed(&reply, AttemptErrorKind::Tls, says);
        receiver.ended().await;
        assert!(receiver.seen_so_far().is_none());
    }
}

#[tokio::test]
async fn what_is_no_tls_is_a_tls_failure() {
    let authority = Authority::new();
    let plain = |greeting: &'static str| async move {
        Receiver::start("127.0.0.1", None, move |mut peer| async move {
            peer.send(greeting).await;
            peer.half_close().await;
            peer.closed().await;
        })
        .await
    };
    let receiver = plain("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let reply = post_over(&network(&authority), &url(&receiver)).await;
    assert_failed(&reply, AttemptErrorKind::Tls, "not TLS");
    let receiver = plain("").await;
    let reply = post_over(&network(&authority), &url(&receiver)).await;
    assert_failed(&reply, AttemptErrorKind::Tls, "closed the connection during the handshake");
}

#[tokio::test]
async fn a_handshake_that_hangs_is_a_timeout() {
    let authority = Authority::new();
    let mut receiver = Receiver::start("127.0.0.1", None, |mut peer| async move { peer.closed().await }).await;
    let webhook = webhook(&url(&receiver), json!({"timeoutSeconds": 1}));
    let endpoint = Endpoint::new(&webhook, &network(&authority)).unwrap();
    assert_failed(&post(&endpoint).await, AttemptErrorKind::Timeout, "within 1 s");
    receiver.ended().await;
}

#[tokio::test]
async fn nothing_listens() {
    let authority = Authority::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reply = post_over(&network(&authority), &url_of(HOOK, address)).await;
    assert_failed(&reply, AttemptErrorKind::Connect, &address.to_string());
}

#[tokio::test]
async fn the_system_s_resolver_knows_localhost() {
    let authority = Authority::new();
    let receiver = receiver_for(&["localhost"], &authority).await;
    let network = Network::new(policy(), vec![authority.root()], &[]).unwrap();
    let reply = post_over(&network, &url_of("localhost", receiver.address)).await;
    assert_eq!(reply.attempt.error, None);
}

/// A name server that knows the same v4 address for each name, and no v6 one.
async fn name_server(ip: [u8; 4]) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut question).await {
            // RFC 1035, section 4.1: 12 bytes of header; a name of parts with lengths, ended by 0; type and class.
            let mut end = 12;
            while question[end] != 0 {
                end += 1 + usize::from(question[end]);
            }
            let is_a = question[end + 1..end + 3] == [0, 1];
            let mut answer = question[..end + 5].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, is_a.into(), 0, 0, 0, 0]);
            if is_a {
                // The name is the one at byte 12; an A record, class IN, a TTL of 0, four bytes.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                answer.extend(ip);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

#[tokio::test]
async fn name_servers_that_are_named_are_asked_and_the_guard_judges_what_they_say() {
    let authority = Authority::new();
    let receiver = receiver_for(&[HOOK], &authority).await;
    let over = |server| Network::new(policy(), vec![authority.root()], &[server]).unwrap();
    let reply = post_over(&over(name_server([127, 0, 0, 1]).await), &url(&receiver)).await;
    assert_eq!(reply.attempt.error, None);
    let reply = post_over(&over(name_server([127, 0, 0, 2]).await), &url(&receiver)).await;
    assert_failed(&reply, AttemptErrorKind::Guard, "127.0.0.2");
    assert_eq!(receiver.connections(), 1);
}

/// Counts lookups, and answers only when told to.
#[derive(Debug)]
struct SlowDns {
    asked: AtomicI64,
    answer: tokio::sync::Semaphore,
}

#[async_trait::async_trait]
impl Resolve for SlowDns {
    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _permit = self.answer.acquire().await;
        Ok(vec!["127.0.0.1".parse().unwrap()])
    }
}

#[tokio::test]
async fn connections_opened_at_once_share_a_lookup() {
    let authority = Authority::new();
    let receiver = receiver_for(&[HOOK], &authority).await;
    let dns = Arc::new(SlowDns { asked: AtomicI64::new(0), answer: tokio::sync::Semaphore::new(0) });
    let network = Network::with_resolver(policy(), vec![authority.root()], Arc::clone(&dns) as Arc<dyn Resolve>);
    let endpoint = Endpoint::new(&webhook(&url(&receiver), json!({})), &network).unwrap();
    let posts = futures_util::future::join_all((0..20).map(|_| post(&endpoint)));
    // Polled in order: the posts all wait for the answer before it is let through.
    let (replies, ()) = tokio::join!(posts, async { dns.answer.add_permits(1) });
    assert!(replies.iter().all(|reply| reply.verdict == Verdict::Succeeded));
    assert_eq!(dns.asked.load(Ordering::SeqCst), 1);
}
