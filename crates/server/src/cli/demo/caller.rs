//! Calls the demo's own server, as its users would.

use super::super::Failure;
use super::super::client::HttpClient;
use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http_body_util::Full;
use model::tenancy::{DEFAULT_ORGANIZATION, DEFAULT_SANDBOX};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::time::Duration;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A caller with the admin key, in the sandbox of the first start.
#[derive(Debug)]
pub struct Caller {
    /// The HTTP client.
    pub client: HttpClient,
    /// Where the server is, without a slash at its end.
    pub base: String,
    /// The key.
    pub key: SecretString,
}

impl Caller {
    /// The body of the answer, which must be a success.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let failed = |why: String| Failure::new(format!("POST {path}: {why}"));
        let request = Request::post(format!("{}{path}", self.base))
            .header(AUTHORIZATION, format!("Bearer {}", self.key.expose_secret()))
            .header(CONTENT_TYPE, "application/json")
            .header("x-gw-ims-org-id", DEFAULT_ORGANIZATION)
            .header("x-sandbox-name", DEFAULT_SANDBOX)
            .body(Full::new(Bytes::from(body.to_string())));
        // Not the error's text: it may be about the key.
        let request = request.map_err(|_| failed("the request cannot be made".to_owned()))?;
        let answer = self.client.call(request, LIMIT).await.map_err(failed)?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status.is_success() {
            return Ok(body);
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        Err(failed(format!("{}: {} {}", answer.status, text("title"), text("detail"))))
    }
}

/// A text of an answer.
pub fn text(answer: &Value, name: &str) -> Result<String, Failure> {
    let missing = || Failure::new(format!("the server's answer has no {name}"));
    answer[name].as_str().map(str::to_owned).ok_or_else(missing)
}
