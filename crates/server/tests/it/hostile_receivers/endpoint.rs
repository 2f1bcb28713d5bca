//! An endpoint on raw sockets that does everything wrong, each in its own way.

use crate::support::receiver::{Authority, acceptor};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What an endpoint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Takes connections and says nothing, not even TLS.
    HangInHandshake,
    /// Speaks HTTP where TLS is due.
    SpeakPlainHttp,
    /// Closes each connection at once.
    CloseAtOnce,
    ShowExpired,
    ShowNotYetValid,
    ShowWrongName,
    ShowUnknownAuthority,
    ShowSelfSigned,
    /// Takes requests and never answers.
    SayNothing,
    /// A byte of the head each second.
    DripHead,
    /// Header after header.
    EndlessHead,
    /// One informational answer after another.
    EndlessHints,
    /// Something that is no HTTP, without end.
    Garbage,
    /// Goodbye in place of an answer, and still listening.
    HalfClose,
    /// TCP's own: a reset.
    Reset,
    /// To itself.
    RedirectInCircles,
    /// The body never ends, nor does it pause.
    EndlessBody(u16),
    /// 100 MB, as announced.
    HugeBody(u16),
    /// A byte of the body each second.
    DripBody(u16),
    /// Announces a body and half-closes the connection.
    HalfBody(u16),
}

/// The endpoint. It ends with the test's runtime.
pub struct Endpoint {
    pub does: Does,
    pub url: String,
    visits: watch::Receiver<usize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    pub async fn start(does: Does, authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}/hook", listener.local_addr().unwrap().port());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (told, visits) = watch::channel(0);
        let tls = certificate(does, authority);
        let (noted, location) = (Arc::clone(&requests), format!("{url}/again"));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                told.send_modify(|count| *count += 1);
                let (requests, told) = (Arc::clone(&noted), told.clone());
                let guest = Guest { does, location: location.clone(), requests, told };
                // What its guest does is the point; that it goes away is no fault.
                tokio::spawn(guest.meet(socket, tls.clone()));
            }
        });
        Self { does, url, visits, requests }
    }

    /// How many connections and requests it has seen.
    pub fn visits(&self) -> usize {
        *self.visits.borrow()
    }

    /// Waits until it has seen this many.
    pub async fn wait_for(&self, visits: usize) {
        let mut seen = self.visits.clone();
        let what = format!("visit {visits} to the endpoint that does {:?}", self.does);
        crate::support::must(&what, seen.wait_for(|count| *count >= visits)).await.unwrap();
    }

    /// The first lines of the requests that came.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn certificate(does: Does, authority: &Authority) -> TlsAcceptor {
    let names = ["localhost", "127.0.0.1"];
    let valid = |from: i32, to: i32| {
        move |parameters: &mut CertificateParams| {
            parameters.not_before = date_time_ymd(from, 1, 1);
            parameters.not_after = date_time_ymd(to, 1, 1);
        }
    };
    acceptor(match does {
        Does::ShowExpired => authority.issue_with(&names, valid(2019, 2020)),
        Does::ShowNotYetValid => authority.issue_with(&names, valid(2200, 2201)),
        Does::ShowWrongName => authority.issue(&["127.0.0.2", "other.example"]),
        Does::ShowUnknownAuthority => Authority::new().issue(&names),
        Does::ShowSelfSigned => {
            let key = KeyPair::generate().unwrap();
            let parameters = CertificateParams::new(names.map(str::to_owned)).unwrap();
            (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
        }
        _ => authority.issue(&names),
    })
}

/// One connection to it.
struct Guest {
    does: Does,
    location: String,
    requests: Arc<Mutex<Vec<String>>>,
    told: watch::Sender<usize>,
}

type Stream = BufReader<TlsStream<TcpStream>>;

impl Guest {
    /// None: the other side went away.
    async fn meet(self, mut socket: TcpStream, tls: TlsAcceptor) -> Option<()> {
        match self.does {
            Does::CloseAtOnce => return None,
            Does::HangInHandshake => return until_closed(&mut socket).await,
            Does::SpeakPlainHttp => {
                socket.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.ok()?;
                socket.shutdown().await.ok()?;
                return until_closed(&mut socket).await;
            }
            _ => {}
        }
        let mut stream = BufReader::new(tls.accept(socket).await.ok()?);
        loop {
            self.read_request(&mut stream).await?;
            self.answer(&mut stream).await?;
        }
    }

    async fn read_request(&self, stream: &mut Stream) -> Option<()> {
        let mut first = String::new();
        stream.read_line(&mut first).await.ok().filter(|read| *read > 0)?;
        self.requests.lock().unwrap().push(first.trim_end().to_owned());
        self.told.send_modify(|count| *count += 1);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        stream.read_exact(&mut vec![0; length]).await.ok().map(|_| ())
    }

    async fn answer(&self, stream: &mut Stream) -> Option<()> {
        match self.does {
            Does::SayNothing => until_closed(stream).await,
            Does::DripHead => {
                say(stream, "HTTP/1.1 200 OK\r\nx-slow: ").await?;
                drip(stream, "x").await
            }
            Does::EndlessHead => {
                say(stream, "HTTP/1.1 200 OK\r\n").await?;
                flood(stream, &format!("x-more: {}\r\n", "y".repeat(1000))).await
            }
            Does::EndlessHints => flood(stream, "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n").await,
            Does::Garbage => flood(stream, "\u{0}\u{1}220 mail.example ESMTP\r\n").await,
            Does::HalfClose => half_close(stream).await,
            Does::Reset => reset(stream),
            Does::RedirectInCircles => {
                say(stream, &format!("HTTP/1.1 308 R\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", self.location))
                    .await
            }
            Does::EndlessBody(status) => {
                say(stream, &format!("HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n")).await?;
                flood(stream, &format!("1000\r\n{}\r\n", "b".repeat(0x1000))).await
            }
            Does::HugeBody(status) => {
                const BYTES: usize = 100_000_000;
                say(stream, &format!("HTTP/1.1 {status} X\r\ncontent-length: {BYTES}\r\n\r\n")).await?;
                let part = "h".repeat(100_000);
                for _ in 0..BYTES / part.len() {
                    say(stream, &part).await?;
                }
                Some(())
            }
            Does::DripBody(status) => {
                say(stream, &format!("HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n")).await?;
                drip(stream, "1\r\nd\r\n").await
            }
            Does::HalfBody(status) => {
                say(stream, &format!("HTTP/1.1 {status} X\r\ncontent-length: 50\r\n\r\nhalf")).await?;
                half_close(stream).await
            }
            other => unreachable!("{other:?} has no answer: its handshake fails"),
        }
    }
}

async fn say(stream: &mut Stream, text: &str) -> Option<()> {
    stream.write_all(text.as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

/// As fast as the other side takes it.
async fn flood(stream: &mut Stream, text: &str) -> Option<()> {
    loop {
        say(stream, text).await?;
    }
}

/// The pauses are what this endpoint does, not a way to wait for something.
async fn drip(stream: &mut Stream, text: &str) -> Option<()> {
    loop {
        say(stream, text).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn half_close(stream: &mut Stream) -> Option<()> {
    stream.shutdown().await.ok()?;
    until_closed(stream).await
}

/// Has the socket reset its connection as it is dropped, by the caller that gets nothing.
fn reset(stream: &mut Stream) -> Option<()> {
    stream.get_ref().get_ref().0.set_zero_linger().ok()?;
    None
}

async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<()> {
    while stream.read_u8().await.is_ok() {}
    None
}
