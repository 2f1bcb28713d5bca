//! Connections: kept, replaced, closed.

use super::*;
use futures_util::future::join_all;

async fn endpoint_for(receiver: &Receiver, authority: &Authority) -> Endpoint {
    Endpoint::new(&webhook(&url(receiver), json!({})), &network(authority)).unwrap()
}

#[tokio::test]
async fn ten_posts_take_one_connection() {
    for answer in
        [OK, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\nno"]
    {
        let authority = Authority::new();
        let tls = authority.server(&[HOOK], Validity::Good);
        let mut receiver = Receiver::answering("127.0.0.1", tls, answer).await;
        let endpoint = endpoint_for(&receiver, &authority).await;
        for _ in 0..10 {
            post(&endpoint).await;
            assert_eq!(receiver.seen().await.connection, 0);
        }
        assert_eq!(receiver.connections(), 1);
    }
}

#[tokio::test]
async fn posts_at_a_time_take_a_connection_each_and_leave_them_to_the_next() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let receiver = Receiver::answering("127.0.0.1", tls, OK).await;
    let endpoint = endpoint_for(&receiver, &authority).await;
    for _ in 0..5 {
        let replies = join_all((0..8).map(|_| post(&endpoint))).await;
        assert!(replies.iter().all(|reply| reply.verdict == Verdict::Succeeded));
    }
    assert!(receiver.connections() <= 8, "{}", receiver.connections());
}

#[tokio::test]
async fn endpoints_share_no_connection() {
    let authority = Authority::new();
    let receiver = Receiver::answering("127.0.0.1", authority.server(&[HOOK], Validity::Good), OK).await;
    let network = network(&authority);
    for _ in 0..2 {
        let endpoint = Endpoint::new(&webhook(&url(&receiver), json!({})), &network).unwrap();
        assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
    }
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_replaced() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let mut receiver = Receiver::start("127.0.0.1", Some(tls), |mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let endpoint = endpoint_for(&receiver, &authority).await;
    for number in 0..4 {
        assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
        assert_eq!(receiver.seen().await.connection, number);
    }
}

#[tokio::test]
async fn an_idle_connection_closed_without_notice_is_replaced() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let mut receiver = Receiver::start("127.0.0.1", Some(tls), |mut peer| async move {
        peer.request().await;
        peer.send(OK).await;
    })
    .await;
    let endpoint = endpoint_for(&receiver, &authority).await;
    for number in 0..4 {
        assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
        assert_eq!(receiver.ended().await, number);
    }
}

#[tokio::test]
async fn a_request_lost_on_a_reused_connection_goes_out_again_at_once() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let mut receiver = Receiver::start("127.0.0.1", Some(tls), |mut peer| async move {
        peer.request().await;
        peer.send(OK).await;
        // The second request is read and never answered, as when the receiver closes just as it arrives.
        peer.request().await;
    })
    .await;
    let endpoint = endpoint_for(&receiver, &authority).await;
    assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
    assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
    let (first, lost, again) = (receiver.seen().await, receiver.seen().await, receiver.seen().await);
    assert_eq!((first.connection, lost.connection, again.connection), (0, 0, 1));
    assert_eq!(lost.headers, again.headers);
    assert_eq!(lost.body, again.body);
}

#[tokio::test]
async fn a_busy_connection_is_renewed_after_five_minutes() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let mut receiver = Receiver::answering("127.0.0.1", tls, OK).await;
    let endpoint = endpoint_for(&receiver, &authority).await;
    let mut used = Vec::new();
    for _ in 0..8 {
        assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
        used.push(receiver.seen().await.connection);
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(50)).await;
        tokio::time::resume();
    }
    assert_eq!(used, [0, 0, 0, 0, 0, 0, 1, 1]);
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while_and_with_their_endpoint() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let mut receiver = Receiver::answering("127.0.0.1", tls, OK).await;
    let endpoint = endpoint_for(&receiver, &authority).await;
    assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
    // With nothing else to do, a paused clock runs on to the next timer: the one of the idle connections.
    tokio::time::pause();
    assert_eq!(receiver.ended().await, 0);
    tokio::time::resume();
    assert_eq!(post(&endpoint).await.verdict, Verdict::Succeeded);
    drop(endpoint);
    assert_eq!(receiver.ended().await, 1);
}

#[tokio::test]
async fn no_more_connections_wait_than_may_be_in_use() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let mut receiver = Receiver::answering("127.0.0.1", tls, OK).await;
    let webhook = webhook(&url(&receiver), json!({"maxConcurrency": 2}));
    let endpoint = Endpoint::new(&webhook, &network(&authority)).unwrap();
    let replies = join_all((0..3).map(|_| post(&endpoint))).await;
    assert!(replies.iter().all(|reply| reply.verdict == Verdict::Succeeded));
    for _ in 2..receiver.connections() {
        receiver.ended().await;
    }
}

#[tokio::test]
async fn a_post_that_is_dropped_closes_its_connection() {
    let authority = Authority::new();
    let tls = authority.server(&[HOOK], Validity::Good);
    let mut receiver = Receiver::start("127.0.0.1", Some(tls), |mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let endpoint = Arc::new(endpoint_for(&receiver, &authority).await);
    let posting = Arc::clone(&endpoint);
    let task = tokio::spawn(async move { post(&posting).await });
    receiver.seen().await;
    task.abort();
    assert_eq!(receiver.ended().await, 0);
}
