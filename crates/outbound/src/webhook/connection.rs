//! One endpoint's connections: opened when none is idle, kept while in use, shared with no other endpoint.

use super::guard::{Network, Origin, Stream};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use model::delivery::AttemptError;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// How long a connection may wait for its next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The most bytes of an answer that lie in memory: its head must fit.
const MAX_BUFFER_BYTES: usize = 32 * 1024;

/// After this long a connection is renewed, however busy: what stands behind the name, and what the guard thinks of
/// it, may have changed.
const MAX_AGE: Duration = Duration::from_secs(300);

/// What moves a connection on: what is to be sent, and what comes.
type Driven = Box<Connection<TokioIo<Stream>, Full<Bytes>>>;

/// A connection, ready for a request.
///
/// Whoever waits for an answer drives the connection too: as a task of its own it cost two switches between tasks for
/// each request.
#[derive(Debug)]
pub(super) struct Sender {
    requests: SendRequest<Full<Bytes>>,
    connection: Option<Driven>,
    opened: Instant,
}

impl Sender {
    /// Waits until the next request can be sent. An idle connection that the peer has closed is noticed here.
    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        drive_once(&mut self.connection).await;
        drive(&mut self.connection, self.requests.ready()).await
    }

    /// Sends a request; an error says whether it was sent at all.
    pub(super) async fn try_send_request(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        drive(&mut self.connection, self.requests.try_send_request(request)).await
    }

    /// Sends a request.
    pub(super) async fn send_request(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        drive(&mut self.connection, self.requests.send_request(request)).await
    }

    /// Reads of an answer that came on this connection.
    pub(super) async fn read<T>(&mut self, reading: impl Future<Output = T>) -> T {
        drive(&mut self.connection, reading).await
    }

    fn is_usable(&self, now: Instant) -> bool {
        !self.requests.is_closed() && now < self.opened + MAX_AGE
    }
}

impl Drop for Sender {
    /// Lets the connection close in order: it ends by itself once there is nothing to send on it.
    fn drop(&mut self) {
        if let (Some(connection), Ok(runtime)) = (self.connection.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async { note_end(connection.await) });
        }
    }
}

/// Waits for what comes over a connection, and moves the connection on meanwhile.
async fn drive<T>(connection: &mut Option<Driven>, waiting: impl Future<Output = T>) -> T {
    let mut waiting = pin!(waiting);
    poll_fn(|context| {
        // What is to be sent, then the connection, then what it may have brought.
        if let Poll::Ready(done) = waiting.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        advance(connection, context);
        waiting.as_mut().poll(context)
    })
    .await
}

async fn drive_once(connection: &mut Option<Driven>) {
    poll_fn(|context| {
        advance(connection, context);
        Poll::Ready(())
    })
    .await;
}

fn advance(connection: &mut Option<Driven>, context: &mut Context<'_>) {
    if let Some(Poll::Ready(ended)) = connection.as_mut().map(|running| Pin::new(running).poll(context)) {
        note_end(ended);
        *connection = None;
    }
}

fn note_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection to an endpoint ended");
    }
}

/// Opens a connection.
pub(super) async fn open(network: &Network, origin: &Origin, within: Duration) -> Result<Sender, AttemptError> {
    let stream = network.connect(origin, within).await?;
    start(stream).await.map_err(|error| super::error::exchange_error(&error))
}

async fn start(stream: Stream) -> Result<Sender, hyper::Error> {
    let opened = Instant::now();
    let (requests, connection) = Builder::new().max_buf_size(MAX_BUFFER_BYTES).handshake(TokioIo::new(stream)).await?;
    Ok(Sender { requests, connection: Some(Box::new(connection)), opened })
}

/// The idle connections. How many are in use is the caller's to bound; this bounds how many wait.
///
/// Not the pool of hyper-util's client: that one races a new connection against the next idle one, and lets the loser
/// finish behind the caller's back, past any limit on the endpoint's connections; and it does not tell whether a
/// connection that broke was a reused one, which decides whether the request may go out again at once.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Mutex<Idle>>,
    most: usize,
}

#[derive(Debug, Default)]
struct Idle {
    /// Those longest idle in front.
    senders: VecDeque<(Instant, Sender)>,
    reaper: Option<AbortOnDropHandle<()>>,
}

impl Pool {
    /// A pool that keeps at most this many.
    pub(super) fn new(most: usize) -> Self {
        Self { shared: Arc::default(), most }
    }

    /// The connection used last, so that the others can grow old where fewer suffice.
    pub(super) fn take(&self) -> Option<Sender> {
        let now = Instant::now();
        let mut idle = lock(&self.shared);
        while let Some((_, sender)) = idle.senders.pop_back() {
            if sender.is_usable(now) {
                return Some(sender);
            }
        }
        None
    }

    /// Takes back a connection whose answer has been read to its end.
    pub(super) fn put(&self, sender: Sender) {
        let now = Instant::now();
        if !sender.is_usable(now) {
            return;
        }
        let mut idle = lock(&self.shared);
        if idle.senders.len() >= self.most {
            idle.senders.retain(|(_, sender)| sender.is_usable(now));
        }
        if idle.senders.len() < self.most {
            idle.senders.push_back((now, sender));
            if idle.reaper.is_none() {
                let reaper = tokio::spawn(reap(Arc::downgrade(&self.shared), now + IDLE_TIMEOUT));
                idle.reaper = Some(AbortOnDropHandle::new(reaper));
            }
        }
    }
}

fn lock(shared: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes connections that have been idle too long, until none is left.
async fn reap(shared: Weak<Mutex<Idle>>, mut next: Instant) {
    loop {
        tokio::time::sleep_until(next).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut idle = lock(&shared);
        let now = Instant::now();
        while idle.senders.front().is_some_and(|(since, _)| now >= *since + IDLE_TIMEOUT) {
            idle.senders.pop_front();
        }
        match idle.senders.front() {
            Some((since, _)) => next = *since + IDLE_TIMEOUT,
            None => {
                // Detached rather than dropped: dropping would abort this very task.
                drop(idle.reaper.take().map(AbortOnDropHandle::detach));
                return;
            }
        }
    }
}
