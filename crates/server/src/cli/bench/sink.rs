//! The endpoint of the bench: answers 200 to every POST, counts, and tells when asked.

use super::super::{Failure, Outcome, certificate, print_line};
use super::Percentiles;
use crate::clock::SystemClock;
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// The arguments of the endpoint.
#[derive(Debug, Args)]
pub struct Sink {
    /// Takes TLS, with a certificate whose authority is written to this file
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
}

/// What the endpoint has seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    pub events: u64,
    pub body_bytes: u64,
    /// When the first and the last came, in microseconds since the Unix epoch.
    pub first: u64,
    pub last: u64,
    pub latency: Percentiles,
    /// One request as it came: what `raw` repeats.
    pub sample_headers: Vec<(String, String)>,
    pub sample_body: String,
}

struct Count {
    seen: Seen,
    micros: Histogram<u64>,
}

/// What the request ids of the bench begin with; the time of the call follows, in microseconds.
pub(super) const REQUEST_ID_PREFIX: &str = "bench-";

impl Sink {
    /// Answers until the process is ended.
    pub async fn run(self) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| Failure::new(error.to_string()))?;
        let port = listener.local_addr().map_err(|error| Failure::new(error.to_string()))?.port();
        let acceptor = match &self.ca_out {
            Some(path) => {
                let made = certificate::make().map_err(Failure::new)?;
                std::fs::write(path, &made.ca_pem).map_err(|error| Failure::new(error.to_string()))?;
                Some(made.acceptor)
            }
            None => None,
        };
        print_line(&port.to_string())?;
        let micros = Histogram::new_with_bounds(1, 600_000_000, 3).map_err(|error| Failure::new(error.to_string()))?;
        let count = Arc::new(Mutex::new(Count { seen: Seen::default(), micros }));
        loop {
            let (socket, _) = listener.accept().await.map_err(|error| Failure::new(error.to_string()))?;
            let _ = socket.set_nodelay(true);
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                match acceptor {
                    None => serve(socket, count).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(socket).await {
                            serve(stream, count).await;
                        }
                    }
                }
            });
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, count: Arc<Mutex<Count>>) {
    let service = service_fn(|request| answer(request, &count));
    // A caller that goes away ends the connection; nothing is lost by it.
    let _ = http1::Builder::new().pipeline_flush(true).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, count: &Mutex<Count>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        let told = serde_json::to_vec(&count.told()).unwrap_or_default();
        return Ok(Response::new(Full::from(told)));
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Ok(Response::new(Full::default())) };
    let body = body.to_bytes();
    count.lock().unwrap_or_else(PoisonError::into_inner).add(&head.headers, &body, SystemClock::micros());
    Ok(Response::new(Full::default()))
}

impl Count {
    fn add(&mut self, headers: &http::HeaderMap, body: &Bytes, now: u64) {
        let seen = &mut self.seen;
        if seen.events == 0 {
            seen.first = now;
            seen.body_bytes = body.len() as u64;
            let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
            seen.sample_headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            seen.sample_body = String::from_utf8_lossy(body).into_owned();
        }
        seen.events += 1;
        seen.last = now;
        if let Some(began) = began(body) {
            self.micros.saturating_record(now.saturating_sub(began).max(1));
        }
    }

    fn told(&self) -> Seen {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of minutes fit")]
        let at = |quantile: f64| self.micros.value_at_quantile(quantile) as f64 / 1000.0;
        let latency = Percentiles { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) };
        Seen { latency, ..self.seen.clone() }
    }
}

/// When the call began that this event is about: its request id says so.
fn began(body: &[u8]) -> Option<u64> {
    let head = std::str::from_utf8(body.get(..80)?).ok()?;
    let digits = head.split_once(REQUEST_ID_PREFIX)?.1;
    digits.split('-').next()?.parse().ok()
}
