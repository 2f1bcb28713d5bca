//! The callers of the bench: executions to the API, or the same request again and again to an endpoint.

use super::super::{Failure, Outcome};
use super::sink::REQUEST_ID_PREFIX;
use crate::clock::SystemClock;
use bytes::Bytes;
use clap::Args;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The arguments of the callers.
#[derive(Debug, Args)]
pub struct Load {
    /// Where to
    #[arg(long)]
    url: String,
    /// How many requests
    #[arg(long)]
    requests: u64,
    /// How many at a time
    #[arg(long)]
    concurrency: usize,
    /// Recipients of each execution; 0: the request of the file is repeated as it is
    #[arg(long)]
    recipients: usize,
    /// The campaign of the executions
    #[arg(long, default_value = "")]
    campaign: String,
    /// Headers and body, as JSON: {"headers":[[name,value]],"body":"…"}
    #[arg(long)]
    template: PathBuf,
    /// Authorities to trust, as PEM
    #[arg(long)]
    ca_file: Option<PathBuf>,
}

type HttpClient = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

struct Template {
    headers: http::HeaderMap,
    body: Bytes,
}

impl Load {
    /// Sends all requests; fails at the first answer that is no success.
    pub async fn run(self) -> Outcome {
        let template = Arc::new(self.read_template().map_err(Failure::new)?);
        let client = self.client().map_err(Failure::new)?;
        let (next, load) = (Arc::new(AtomicU64::new(0)), Arc::new(self));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..load.concurrency {
            let (load, client, template, next) = (load.clone(), client.clone(), template.clone(), next.clone());
            callers.spawn(async move { load.call_until_done(&client, &template, &next).await });
        }
        while let Some(done) = callers.join_next().await {
            done.map_err(|error| Failure::new(error.to_string()))?.map_err(Failure::new)?;
        }
        Ok(())
    }

    fn read_template(&self) -> Result<Template, String> {
        let text = std::fs::read_to_string(&self.template).map_err(|error| error.to_string())?;
        let (headers, body): (Vec<(String, String)>, String) =
            serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let mut map = http::HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().map_err(|_| "a header's name")?;
            // The client sets these itself.
            if name != http::header::HOST && name != http::header::CONTENT_LENGTH {
                map.insert(name, value.parse().map_err(|_| "a header's value")?);
            }
        }
        Ok(Template { headers: map, body: Bytes::from(body) })
    }

    fn client(&self) -> Result<HttpClient, String> {
        let extra = self.ca_file.as_deref().map(super::super::certificate::read_certificates).transpose()?;
        let tls = rustls::ClientConfig::clone(&outbound::tls::client_config(&extra.unwrap_or_default()));
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Client::builder(TokioExecutor::new()).build(connector))
    }

    async fn call_until_done(&self, client: &HttpClient, template: &Template, next: &AtomicU64) -> Result<(), String> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= self.requests {
                return Ok(());
            }
            let body =
                if self.recipients == 0 { template.body.clone() } else { Bytes::from(self.execution(n).to_string()) };
            let mut request = Request::post(&self.url).body(Full::from(body)).map_err(|error| error.to_string())?;
            *request.headers_mut() = template.headers.clone();
            let answer = client.request(request).await.map_err(|error| format!("{error:?}"))?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
            if !status.is_success() {
                return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
            }
        }
    }

    fn execution(&self, n: u64) -> Value {
        let recipient = |i: usize| {
            let address = format!("sent+{n}.{i}@simulator.esito.test");
            json!({"type": "external", "userId": format!("customer-{n}-{i}"), "namespace": "ECID",
                "channelData": {"emailAddress": address},
                "context": {"order": format!("A-{n}"), "total": "42.00", "currency": "EUR"},
                "profile": {"person": {"name": {"firstName": "Jane", "lastName": "Roe"}}}})
        };
        let recipients: Vec<Value> = (0..self.recipients).map(recipient).collect();
        let request_id = format!("{REQUEST_ID_PREFIX}{}-{n}", SystemClock::micros());
        json!({"requestId": request_id, "campaignId": self.campaign, "recipients": recipients})
    }
}
