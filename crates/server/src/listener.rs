//! An HTTP/1.1 server with bounds: connections, headers, and the time that both may take.

use crate::front::Front;
use crate::lifecycle::Lifecycle;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

/// The bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most connections at a time; the next ones wait in the kernel's backlog.
    pub connections: usize,
    /// How long a request's header may take, and how long an idle connection is kept.
    pub header: Duration,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 10_000, header: Duration::from_secs(60), handshake: Duration::from_secs(10) }
    }
}

/// The most bytes of a request's header: 32 kB, and as much again while it is read.
const HEADER_BYTES: usize = 64 * 1024;

/// Whether the server can do without the connection that could not be taken: the process has no descriptor left, and
/// asking again at once would only burn a core.
const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);

/// Takes connections until the life ends; then lets requests that were begun end. Every connection is a task of `life`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    front: impl Into<Front>,
    bounds: Bounds,
    life: Lifecycle,
) {
    let front = front.into();
    let permits = Arc::new(Semaphore::new(bounds.connections));
    let tls = tls.map(Arc::new);
    loop {
        let (stream, permit) = tokio::select! {
            biased;
            () = life.stopping() => return,
            taken = take(&listener, &permits) => taken,
        };
        // A response is one write, so waiting for more to send would only delay it. If it fails, the stream is dead.
        let _ = stream.set_nodelay(true);
        life.spawn(connection(stream, tls.clone(), front.clone(), bounds, life.clone(), permit));
    }
}

async fn take(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<TlsAcceptor>>,
    front: Front,
    bounds: Bounds,
    life: Lifecycle,
    _permit: OwnedSemaphorePermit,
) {
    let Some(tls) = tls else { return requests(stream, front, bounds, life).await };
    match tokio::time::timeout(bounds.handshake, tls.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, front, bounds, life).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin, front: Front, bounds: Bounds, life: Lifecycle) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(bounds.header).max_buf_size(HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), front));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = life.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
