//! A small HTTP client for the commands that call a server.

use super::certificate;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Calls servers over HTTP/1.1, with or without TLS.
#[derive(Clone, Debug)]
pub struct HttpClient {
    inner: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body, whole.
    pub body: Bytes,
}

impl HttpClient {
    /// A client that trusts the system's authorities, and those of `ca_file` besides.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let extra = ca_file.map(certificate::read_certificates).transpose()?.unwrap_or_default();
        let tls = rustls::ClientConfig::clone(&outbound::tls::client_config(&extra));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self { inner: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Sends a request and reads the whole answer, all of it within `limit`.
    pub async fn call(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Answer, String> {
        let exchange = async {
            let answer = self.inner.request(request).await.map_err(|error| cause(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| format!("the answer cannot be read: {error}"))?.to_bytes();
            Ok(Answer { status: head.status, body })
        };
        let late = |_| Err(format!("no answer within {} s", limit.as_secs()));
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(late)
    }
}

/// The innermost cause: the outer ones say only that a request failed.
fn cause(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
