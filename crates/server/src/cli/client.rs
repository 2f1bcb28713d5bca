//! A small HTTP client for the commands that call a server.

use super::{Failure, certificate};
use crate::config::API_KEY_VARIABLE;
use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The longest line that is read of an answer without an end.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// Which server is called, and in whose name: arguments that several commands have.
#[derive(Debug, clap::Args)]
pub struct Remote {
    /// Where the server is
    #[arg(long, default_value = "http://127.0.0.1:8025")]
    url: Url,
    /// The API key, with the rights that the command needs
    #[arg(long, env = API_KEY_VARIABLE, hide_env_values = true)]
    key: SecretString,
    /// The organization
    #[arg(long, value_name = "ID")]
    org: String,
    /// The sandbox
    #[arg(long, value_name = "NAME", default_value = "prod")]
    sandbox: String,
    /// Authorities to trust besides the system's, as PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Remote {
    /// A client that trusts what is to be trusted.
    pub fn client(&self) -> Result<HttpClient, Failure> {
        HttpClient::new(self.ca_file.as_deref()).map_err(Failure::new)
    }

    /// A call of the API; `path` has a slash at its beginning.
    pub fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, Failure> {
        let base = self.url.as_str().trim_end_matches('/');
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(AUTHORIZATION, format!("Bearer {}", self.key.expose_secret()))
            .header(CONTENT_TYPE, "application/json")
            .header("x-gw-ims-org-id", &self.org)
            .header("x-sandbox-name", &self.sandbox)
            .body(Full::from(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()))));
        // Not the error's text: it may be about the key.
        request
            .map_err(|_| Failure::new("the URL, key, organization or sandbox has characters that HTTP does not take"))
    }
}

/// What a problem document says, in one line.
pub fn refusal(status: StatusCode, body: &[u8]) -> String {
    let document: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    format!("{status}: {} {}", text("title"), text("detail"))
}

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
        within(limit, async {
            let (head, body) = self.begin(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| format!("the answer cannot be read: {error}"))?.to_bytes();
            Ok(Answer { status: head.status, body })
        })
        .await
    }

    /// Sends a request, and returns as soon as the answer begins, which it does within `limit`.
    pub async fn open(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Response<Incoming>, String> {
        within(limit, self.begin(request)).await
    }

    async fn begin(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        self.inner.request(request).await.map_err(|error| cause(&error))
    }
}

async fn within<T>(limit: Duration, exchange: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {} s", limit.as_secs()));
    tokio::time::timeout(limit, exchange).await.unwrap_or_else(late)
}

/// An answer, line by line.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    read: BytesMut,
}

impl Lines {
    /// Those of this body.
    pub fn new(body: Incoming) -> Self {
        Self { body, read: BytesMut::new() }
    }

    /// The next line, without its end; none: there is no other.
    pub async fn next(&mut self) -> Result<Option<String>, String> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.read[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(searched + end);
                self.read.advance(1);
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.strip_suffix('\r').unwrap_or(&line).to_owned()));
            }
            searched = self.read.len();
            if searched > MAX_LINE_BYTES {
                return Err("the answer has a line that is too long".to_owned());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("the answer cannot be read: {error}")),
                Some(Ok(frame)) => self.read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            }
        }
    }

    /// All that is left of a short answer.
    pub async fn rest(self) -> Vec<u8> {
        let rest = Limited::new(self.body, MAX_LINE_BYTES).collect().await;
        let rest = rest.map(|rest| rest.to_bytes()).unwrap_or_default();
        [&self.read[..], &rest[..]].concat()
    }
}

/// The innermost cause: the outer ones say only that a request failed.
fn cause(mut error: &(dyn Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
