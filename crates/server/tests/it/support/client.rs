//! A caller of the API.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A caller with a key, an organization and a sandbox.
#[derive(Clone)]
pub struct Caller {
    pub base: String,
    pub key: Option<String>,
    pub organization: String,
    pub sandbox: String,
    /// Where every answer is noted, where one wants them.
    pub record: Option<Record>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Answers with the request that each is to, such as `POST /v1/api-keys`.
pub type Record = Arc<Mutex<Vec<(String, Answer)>>>;

/// An answer of the API.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The JSON of an answer that must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }
}

impl Caller {
    pub fn new(base: &str, key: &str, organization: &str, sandbox: &str) -> Self {
        Self {
            base: base.to_owned(),
            key: Some(key.to_owned()),
            organization: organization.to_owned(),
            sandbox: sandbox.to_owned(),
            record: None,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    pub fn in_sandbox(&self, organization: &str, sandbox: &str) -> Self {
        Self { organization: organization.to_owned(), sandbox: sandbox.to_owned(), ..self.clone() }
    }

    /// The same caller in a sandbox that it makes.
    pub async fn in_new_sandbox(&self, name: &str) -> Self {
        self.post("/v1/sandboxes", &json!({"imsOrg": self.organization, "name": name})).await.expect(201);
        self.in_sandbox(&self.organization, name)
    }

    /// The same caller; all of its answers are noted there.
    pub fn recorded(&self, record: &Record) -> Self {
        Self { record: Some(Arc::clone(record)), ..self.clone() }
    }

    /// A request with these headers and body, as they are; an error where the connection broke.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let asked = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes().to_vec();
        let answer = Answer { status: head.status.as_u16(), headers: head.headers, body };
        if let Some(record) = &self.record {
            record.lock().unwrap().push((asked, answer.clone()));
        }
        Ok(answer)
    }

    /// A request as a well-behaved client makes it.
    pub async fn try_call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let mut headers =
            vec![("x-gw-ims-org-id", self.organization.as_str()), ("x-sandbox-name", self.sandbox.as_str())];
        if let Some(bearer) = &bearer {
            headers.push(("authorization", bearer));
        }
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        self.raw(method, path, &headers, body.map(Value::to_string).unwrap_or_default()).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.try_call(method.clone(), path, body).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// A POST without a body.
    pub async fn act(&self, path: &str) -> Answer {
        self.call(Method::POST, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }
}
