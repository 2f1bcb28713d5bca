//! The customers' endpoints: an HTTP server each, with moods, that checks all that comes in.

use crate::arrival::{self, Taken};
use crate::ledger::ProcessState;
use crate::world::World;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use model::clock::Timestamp;
use model::ids::EventId;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::time::Sleep;

/// The far side of a connection.
#[derive(Debug)]
pub struct Server {
    /// The world.
    pub world: Arc<World>,
    /// The process at the near side.
    pub process: Arc<ProcessState>,
    /// The sandbox whose endpoint this is.
    pub sandbox: usize,
    /// Names the connection.
    pub line: u64,
}

impl Server {
    /// Serves until either side ends it.
    pub async fn serve(self, stream: DuplexStream) {
        let keeps = self.world.throw(|dice| dice.chance(0.9));
        let service = service_fn(|request| self.answer(request));
        let mut server = http1::Builder::new();
        server.auto_date_header(false).keep_alive(keeps);
        if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
            tracing::trace!(%error, "a connection at an endpoint ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<AnswerBody>> {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| reset())?.to_bytes();
        self.world.step();
        let Some(received) = read(self, head.uri.path(), &head.headers, body) else {
            self.world.violation(format!("a request is malformed: {head:?}"));
            return Err(reset());
        };
        let Taken { under_way, place } = arrival::take(&self.world, &self.process, &received).await;
        let (answer, latency) = Answer::thrown(&self.world, self.sandbox);
        tokio::time::sleep(latency).await;
        let (status, pause) = answer.status();
        arrival::answered(&self.world, self.process.number, &received, place, status, pause);
        match (answer, status) {
            (Answer::Hang, _) => std::future::pending().await,
            (_, None) => Err(reset()),
            (answer, Some(status)) => respond(answer, status, pause, under_way),
        }
    }
}

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// This status, with a pause asked for.
    Status(u16, Option<u64>),
    /// Nothing, ever.
    Hang,
    /// 200 and a body that never ends.
    Drip,
    /// 200 and a long body.
    Long,
    /// The connection ends, though the request was taken.
    Reset,
}

impl Answer {
    fn thrown(world: &World, sandbox: usize) -> (Self, Duration) {
        let trouble = world.trouble(sandbox);
        world.throw(|dice| {
            let latency = if dice.chance(0.1) { dice.millis(200, 900) } else { dice.millis(0, 40) };
            let pause = Some(dice.between(1, 30));
            let bad = match dice.between(0, 24) {
                0..5 => Self::Status(500, None),
                5 | 6 => Self::Status(503, pause),
                7 | 8 => Self::Status(429, pause),
                9 => Self::Status(503, None),
                10..13 => Self::Status(dice.pick(&[400, 401, 404, 301]), None),
                13..17 => Self::Hang,
                17 => Self::Drip,
                18 => Self::Long,
                19 if dice.chance(0.1) => Self::Status(410, None),
                _ => Self::Reset,
            };
            let good = Self::Status(dice.pick(&[200, 202, 204]), None);
            (if dice.chance(trouble) { bad } else { good }, latency)
        })
    }

    /// The status that is sent, and the pause that it asks for.
    fn status(self) -> (Option<u16>, Option<u64>) {
        match self {
            Self::Status(status, pause) => (Some(status), pause),
            Self::Drip | Self::Long => (Some(200), None),
            Self::Hang | Self::Reset => (None, None),
        }
    }
}

/// Keeps account of a request under way.
#[derive(Debug)]
pub struct UnderWay {
    world: Arc<World>,
    key: (usize, usize),
    place: usize,
}

impl UnderWay {
    /// It has begun; `place` is its place among the requests of its process to its webhook.
    pub fn new(world: &Arc<World>, key: (usize, usize), place: usize) -> Self {
        Self { world: Arc::clone(world), key, place }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let now = self.world.now();
        self.world.ledger(|ledger| {
            let request = ledger.load.get_mut(&self.key).and_then(|requests| requests.get_mut(self.place));
            if let Some(request) = request {
                request.until.get_or_insert(now);
            }
        });
    }
}

/// The parts of a request that count.
#[derive(Debug)]
pub struct Received {
    /// The sandbox of the endpoint.
    pub sandbox: usize,
    /// The connection.
    pub line: u64,
    /// The number of the webhook, by the path.
    pub webhook: usize,
    /// `webhook-id`.
    pub event: EventId,
    /// `webhook-timestamp`.
    pub began: Timestamp,
    /// The body.
    pub body: Bytes,
}

fn read(server: &Server, path: &str, headers: &HeaderMap, body: Bytes) -> Option<Received> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let seconds: i64 = text("webhook-timestamp")?.parse().ok()?;
    Some(Received {
        sandbox: server.sandbox,
        line: server.line,
        webhook: path.strip_prefix('/')?.parse().ok()?,
        event: text("webhook-id")?.parse().ok()?,
        began: Timestamp(seconds * 1000),
        body,
    })
}

fn respond(answer: Answer, status: u16, pause: Option<u64>, under_way: UnderWay) -> io::Result<Response<AnswerBody>> {
    let part = Bytes::from_static(&[b'x'; 1024]);
    let (parts, between) = match answer {
        Answer::Drip => (u32::MAX, Some(Duration::from_secs(1))),
        Answer::Long => (40, None),
        _ if status == 204 => (0, None),
        _ => (1, None),
    };
    let body = AnswerBody { part, left: parts, between, next: None, _under_way: under_way };
    let mut response = Response::builder().status(StatusCode::from_u16(status).map_err(io::Error::other)?);
    if let Some(pause) = pause {
        response = response.header("retry-after", pause);
    }
    response.body(body).map_err(io::Error::other)
}

/// The body of an answer. The request is under way until it ends.
#[derive(Debug)]
struct AnswerBody {
    part: Bytes,
    left: u32,
    between: Option<Duration>,
    next: Option<Pin<Box<Sleep>>>,
    _under_way: UnderWay,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(between) = self.between {
            let next = self.next.get_or_insert_with(|| Box::pin(tokio::time::sleep(between)));
            ready!(next.as_mut().poll(cx));
            self.next = None;
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.part.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}
