//! What the endpoint answers, and what it comes to.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Posts once, with a timeout of one second, to a receiver that does this after the request.
async fn post_to_script<F, Fut>(script: F) -> (Reply, Receiver)
where
    F: Fn(receiver::Peer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let receiver = Receiver::start("127.0.0.1", Some(tls), script).await;
    let webhook = webhook(&url(&receiver), json!({"timeoutSeconds": 1}));
    let endpoint = Endpoint::new(&webhook, &network(&authority)).unwrap();
    (post(&endpoint).await, receiver)
}

#[tokio::test]
async fn any_2xx_is_success() {
    for status in ["200 OK", "201 Created", "202 Accepted", "299 Whatever"] {
        let (reply, _) = post_to_answer(&format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nhello")).await;
        assert_eq!(reply.verdict, Verdict::Succeeded);
        assert_eq!(reply.attempt.status, status[..3].parse().ok());
        assert_eq!(reply.attempt.response_excerpt.as_deref(), Some("hello"));
        assert_eq!(reply.attempt.error, None);
    }
    let (reply, _) = post_to_answer("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!((reply.verdict, reply.attempt.response_excerpt), (Verdict::Succeeded, None));
}

#[tokio::test]
async fn an_echo_of_what_was_secret_is_not_kept() {
    let long = "x".repeat(EXCERPT_BYTES - 10);
    for (echo, kept) in [("got hush-hush-hush!", "got …!".to_owned()), (&format!("{long}hush-hush-hush"), long.clone())]
    {
        let authority = Authority::new();
        let answer = format!("HTTP/1.1 500 No\r\ncontent-length: {}\r\n\r\n{echo}", echo.len());
        let receiver = Receiver::answering("127.0.0.1", authority.server(&[HOOK], Validity::Good), &answer).await;
        let secret = json!({"headers": [{"name": "x-key", "value": "hush-hush-hush", "secret": true}]});
        let endpoint = Endpoint::new(&webhook(&url(&receiver), secret), &network(&authority)).unwrap();
        assert_eq!(post(&endpoint).await.attempt.response_excerpt, Some(kept));
    }
}

#[tokio::test]
async fn an_informational_answer_is_passed_over() {
    let (reply, _) = post_to_answer(&format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{OK}")).await;
    assert_eq!((reply.verdict, reply.attempt.status), (Verdict::Succeeded, Some(200)));
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_not_followed() {
    let authority = Authority::new();
    let other = Receiver::answering("127.0.0.1", authority.server(&[HOOK], Validity::Good), OK).await;
    for status in [301, 302, 303, 307, 308] {
        let location = url(&other);
        let (reply, _) =
            post_to_answer(&format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"))
                .await;
        assert_failed(&reply, AttemptErrorKind::Status, &location);
        assert_eq!(reply.attempt.status, Some(status));
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn gone_and_other_refusals() {
    let (reply, _) = post_to_answer("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(reply.verdict, Verdict::Gone);
    assert_eq!(reply.attempt.error.unwrap().kind, AttemptErrorKind::Status);
    let (reply, _) = post_to_answer("HTTP/1.1 404 Nope\r\ncontent-length: 6\r\n\r\nno\0one").await;
    assert_failed(&reply, AttemptErrorKind::Status, "404 Not Found");
    assert_eq!(reply.attempt.response_excerpt.as_deref(), Some("no\u{fffd}one"));
    let (reply, _) =
        post_to_answer("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
    assert!(matches!(reply.verdict, Verdict::Failed { retry_after: None }));
}

#[tokio::test]
async fn retry_after_counts_on_429_and_503_only() {
    let retry_after = |status: u16, value: &'static str| async move {
        let answer = format!("HTTP/1.1 {status} X\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n");
        match post_to_answer(&answer).await.0.verdict {
            Verdict::Failed { retry_after } => retry_after.map(|pause| pause.as_secs()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(retry_after(429, "7").await, Some(7));
    assert_eq!(retry_after(503, "86400").await, Some(3600));
    // NOW is Sat, 31 Jan 2026 12:00:00 GMT.
    assert_eq!(retry_after(503, "Sat, 31 Jan 2026 12:02:00 GMT").await, Some(120));
    assert_eq!(retry_after(429, "later").await, None);
    assert_eq!(retry_after(500, "7").await, None);
}

#[tokio::test]
async fn a_long_body_is_not_read_to_its_end() {
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let (reply, mut receiver) = post_to_script(move |mut peer| {
        let counted = Arc::clone(&counted);
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n").await;
            let part = [b'x'; 65536];
            while peer.send(part).await && counted.fetch_add(part.len(), Ordering::SeqCst) < 104_857_600 {}
        }
    })
    .await;
    assert_eq!(reply.verdict, Verdict::Succeeded);
    assert_eq!(reply.attempt.response_excerpt.unwrap(), "x".repeat(EXCERPT_BYTES));
    receiver.ended().await;
    // What the kernel's buffers took, at most.
    assert!(written.load(Ordering::SeqCst) < 32 << 20, "{written:?} bytes left the receiver");
}

#[tokio::test]
async fn sixteen_kib_keep_the_connection_and_a_byte_more_closes_it() {
    for (length, connections) in [(16 * 1024, 1), (16 * 1024 + 1, 2)] {
        let body = "y".repeat(length);
        let authority = Authority::new();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        let receiver = Receiver::answering("127.0.0.1", authority.server(&[HOOK], Validity::Good), answer).await;
        let endpoint = Endpoint::new(&webhook(&url(&receiver), json!({})), &network(&authority)).unwrap();
        for _ in 0..2 {
            assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
        }
        assert_eq!(receiver.connections(), connections, "{length} bytes");
    }
}

#[tokio::test]
async fn success_stands_whatever_the_body_does() {
    // Endless, and slow: the first bytes come, the rest never does.
    let (reply, mut receiver) = post_to_script(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nslow\r\n").await;
        peer.closed().await;
    })
    .await;
    assert_eq!((reply.verdict, reply.attempt.response_excerpt.as_deref()), (Verdict::Succeeded, Some("slow")));
    assert!((1000..3000).contains(&reply.attempt.duration_ms), "{}", reply.attempt.duration_ms);
    receiver.ended().await;

    // Broken off before its announced end.
    let (reply, _) = post_to_script(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nbroken").await;
    })
    .await;
    assert_eq!((reply.verdict, reply.attempt.response_excerpt.as_deref()), (Verdict::Succeeded, Some("broken")));

    // Not chunked as it says.
    let (reply, _) = post_to_answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nthis is no chunk").await;
    assert_eq!((reply.verdict, reply.attempt.response_excerpt), (Verdict::Succeeded, None));
}

#[tokio::test]
async fn a_half_closed_connection_still_gives_its_answer() {
    let (reply, _) = post_to_script(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
        peer.half_close().await;
        peer.closed().await;
    })
    .await;
    assert_eq!((reply.verdict, reply.attempt.response_excerpt.as_deref()), (Verdict::Succeeded, Some("until the end")));
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_a_timeout_and_closes_the_connection() {
    let (reply, mut receiver) = post_to_script(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nx-slow: ").await;
        peer.closed().await;
    })
    .await;
    assert_failed(&reply, AttemptErrorKind::Timeout, "no answer within 1 s");
    assert_eq!(reply.attempt.status, None);
    assert!((1000..3000).contains(&reply.attempt.duration_ms), "{}", reply.attempt.duration_ms);
    receiver.ended().await;
}

#[tokio::test]
async fn a_failure_whose_body_comes_too_slowly_says_so() {
    let (reply, mut receiver) = post_to_script(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 500 X\r\ncontent-length: 50\r\n\r\nslow").await;
        peer.closed().await;
    })
    .await;
    assert_failed(&reply, AttemptErrorKind::Status, "; its body was not finished within 1 s");
    assert_eq!((reply.attempt.status, reply.attempt.response_excerpt.as_deref()), (Some(500), Some("slow")));
    receiver.ended().await;
}

#[tokio::test]
async fn what_is_no_http_is_a_protocol_error() {
    let (reply, _) = post_to_answer("220 mail.example ESMTP\r\n").await;
    assert_failed(&reply, AttemptErrorKind::Protocol, "not HTTP/1.1");
    let (reply, _) = post_to_answer("\u{0}\u{1}\u{2}garbage garbage garbage\r\n\r\n").await;
    assert_failed(&reply, AttemptErrorKind::Protocol, "not HTTP/1.1");
    let (reply, _) = post_to_answer(&format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "z".repeat(100_000))).await;
    assert_failed(&reply, AttemptErrorKind::Protocol, "too large");
    let many = "x: y\r\n".repeat(500);
    let (reply, _) = post_to_answer(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).await;
    assert_failed(&reply, AttemptErrorKind::Protocol, "too large");
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_a_protocol_error() {
    let (reply, receiver) = post_to_script(|mut peer| async move {
        peer.request().await;
    })
    .await;
    assert_failed(&reply, AttemptErrorKind::Protocol, "closed the connection");
    assert_eq!(receiver.connections(), 1, "a new connection that breaks is not tried again");
    let (reply, _) = post_to_script(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 20").await;
    })
    .await;
    assert_failed(&reply, AttemptErrorKind::Protocol, "closed the connection");
}

#[tokio::test]
async fn the_timeout_holds_for_an_answer_that_drips() {
    let (reply, _) = post_to_script(|mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while peer.send("1\r\nd\r\n").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(reply.verdict, Verdict::Succeeded);
    assert!((1000..3000).contains(&reply.attempt.duration_ms), "{}", reply.attempt.duration_ms);
}
