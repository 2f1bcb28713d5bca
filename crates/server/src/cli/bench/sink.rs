//! The endpoint of the bench: answers 200 to every POST, counts, and tells when asked.
//!
//! | request | answer |
//! |---|---|
//! | `POST /<group>/<queue>` | 200, counted for the group, and for the queue where it has a number |
//! | `POST /hang…` | none |
//! | `GET` | what was seen |
//! | `DELETE` | all counts begin again |

use super::super::certificate;
use super::super::{Failure, Outcome, print_line};
use super::ledger::{Ledger, Seen};
use crate::clock::SystemClock;
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// What the request ids of the bench begin with; the time of the call follows, in microseconds.
pub const REQUEST_ID_PREFIX: &str = "bench-";

/// The groups whose events are never answered begin with this.
pub const HANGING: &str = "hang";

/// The arguments of the endpoint.
#[derive(Debug, Args)]
pub struct Sink {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Takes TLS, with a certificate whose authority is written to this file
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// Counts every request, even one whose `webhook-id` came before
    #[arg(long)]
    count_repeats: bool,
}

type Shared = Arc<Mutex<Ledger>>;

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// Answers until the process is ended.
    pub async fn run(self) -> Outcome {
        let failed = |error: std::io::Error| Failure::new(error.to_string());
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let acceptor = match &self.ca_out {
            Some(path) => {
                let made = certificate::make().map_err(Failure::new)?;
                std::fs::write(path, &made.ca_pem).map_err(failed)?;
                Some(made.acceptor)
            }
            None => None,
        };
        print_line(&format!("listens on {address}"))?;
        let ledger = if self.count_repeats { Ledger::default() } else { Ledger::of_events() };
        let ledger = Arc::new(Mutex::new(ledger));
        loop {
            let (socket, _) = listener.accept().await.map_err(failed)?;
            let _ = socket.set_nodelay(true);
            let (acceptor, ledger) = (acceptor.clone(), Arc::clone(&ledger));
            tokio::spawn(async move {
                match acceptor {
                    None => serve(socket, ledger).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(socket).await {
                            serve(stream, ledger).await;
                        }
                    }
                }
            });
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, ledger: Shared) {
    let group = OnceLock::new();
    let service = service_fn(|request| answer(request, &ledger, &group));
    // A caller that goes away ends the connection; nothing is lost by it.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    if let Some(group) = group.get() {
        lock(&ledger).disconnect(group);
    }
}

async fn answer(
    request: Request<Incoming>,
    ledger: &Mutex<Ledger>,
    connected: &OnceLock<String>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    match *request.method() {
        Method::GET => return Ok(Response::new(Full::from(told(&lock(ledger).seen())))),
        Method::DELETE => lock(ledger).reset(),
        _ => take(request, ledger, connected).await,
    }
    Ok(Response::new(Full::default()))
}

fn told(seen: &Seen) -> Vec<u8> {
    serde_json::to_vec(seen).unwrap_or_default()
}

async fn take(request: Request<Incoming>, ledger: &Mutex<Ledger>, connected: &OnceLock<String>) {
    let (head, body) = request.into_parts();
    let (group, queue) = parse(head.uri.path());
    connected.get_or_init(|| {
        lock(ledger).connect(group);
        group.to_owned()
    });
    let Ok(body) = body.collect().await else { return };
    let body = body.to_bytes();
    lock(ledger).add(group, queue, &head.headers, &body, SystemClock::micros());
    if group.starts_with(HANGING) {
        std::future::pending::<()>().await;
    }
}

/// Group and queue of a path.
fn parse(path: &str) -> (&str, Option<usize>) {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (group, queue) = path.split_once('/').unwrap_or((path, ""));
    (group, queue.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_group_and_a_queue() {
        assert_eq!(parse("/hook/17"), ("hook", Some(17)));
        assert_eq!(parse("/hook"), ("hook", None));
        assert_eq!(parse("/"), ("", None));
    }
}
