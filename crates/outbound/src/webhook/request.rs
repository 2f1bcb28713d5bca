//! The request to an endpoint, and one exchange of it.

use super::auth::{Credentials, Pass, Signer};
use super::connection::{Pool, Sender, open};
use super::error::{attempt_error, closed_without_answer, configuration, exchange_error};
use super::guard::{Network, Origin};
use super::reply::{Head, Reply, excerpt_text, read_body};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use model::clock::{Clock, Timestamp};
use model::delivery::{AttemptError, AttemptErrorKind};
use model::secret::Secret;
use model::webhook::{HeaderParameter, Webhook};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use url::Url;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("Esito/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Holds the place of a header whose value each request has of its own, so that the copied map need not grow.
const PLACE: HeaderValue = HeaderValue::from_static("");

/// How long the body of a 401 may take before the request goes out again on another connection.
const MAX_REFUSAL_TIME: Duration = Duration::from_secs(1);

/// The head of an answer, and the connection that its body comes on.
type Exchanged = (Response<Incoming>, Sender);

/// An exchange, and the credentials that went with it.
type Answered = (Exchanged, Option<Pass>);

/// One revision of a webhook, ready for requests, with connections of its own.
pub struct Endpoint {
    network: Arc<Network>,
    origin: Origin,
    pool: Pool,
    /// Path and query: what stands in the request line.
    target: Uri,
    /// Every header, those of each request with an empty value.
    headers: HeaderMap,
    signer: Option<Signer>,
    credentials: Option<Credentials>,
    timeout: Duration,
}

/// What is posted.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// `webhook-id`: the event's id, the same on every attempt.
    pub id: &'a str,
    /// The event.
    pub body: Bytes,
    /// Further headers of this request alone, such as `esito-test: true`.
    pub marks: &'a [(&'static str, String)],
}

impl Endpoint {
    /// Prepares what all requests have in common.
    ///
    /// # Errors
    /// Where the webhook's key, secret or a header cannot be used ([`AttemptErrorKind::Configuration`]), or its URL is
    /// not allowed (any more: [`AttemptErrorKind::Guard`]). [`Reply::failed`] makes an attempt of it.
    pub fn new(webhook: &Webhook, network: &Arc<Network>) -> Result<Self, AttemptError> {
        let settings = &webhook.settings;
        let refused = |refusal: wire::address::UrlRefusal| attempt_error(AttemptErrorKind::Guard, refusal.to_string());
        let url = network.policy().check_url(&settings.url).map_err(refused)?;
        let origin = Origin::of(&url).ok_or_else(|| configuration("the URL's host is no name for a certificate"))?;
        let signer = Signer::of(webhook)?;
        let credentials = Credentials::of(webhook, network)?;
        let headers = template(&url, &settings.headers, signer.is_some(), credentials.as_ref())?;
        Ok(Self {
            network: Arc::clone(network),
            origin,
            pool: Pool::new(usize::try_from(settings.max_concurrency).unwrap_or(usize::MAX)),
            target: target(&url)?,
            headers,
            signer,
            credentials,
            timeout: Duration::from_secs(u64::from(settings.timeout_seconds)),
        })
    }

    /// Posts once. All of it lies within the webhook's timeout.
    pub async fn post(&self, post: Post<'_>, clock: &dyn Clock) -> Reply {
        let at = clock.now();
        let started = Instant::now();
        let deadline = started + self.timeout;
        let ((response, sender), pass) = match self.attempt(&post, at, deadline).await {
            Ok(answered) => answered,
            Err(error) => return Reply::failed(at, started.elapsed(), error),
        };
        let head = Head::of(response.status(), response.headers(), || clock.now());
        let (excerpt, end) = self.finish(response.into_body(), sender, deadline).await;
        let excerpt = excerpt.map(|text| self.without_secrets(text, pass.as_ref()));
        let mut reply = Reply::answered(at, started.elapsed(), &head, excerpt);
        if let (BodyEnd::Late, Some(error)) = (end, &mut reply.attempt.error) {
            error.message.push_str(&format!("; its body was not finished within {} s", self.timeout.as_secs()));
        }
        reply
    }

    /// Sends, and once more with another access token where the endpoint refuses the one that it was sent.
    async fn attempt(&self, post: &Post<'_>, at: Timestamp, deadline: Instant) -> Result<Answered, AttemptError> {
        let mut draft = self.draft(post, at)?;
        draft.pass = self.pass(at, deadline).await?;
        let (response, sender) = self.send(&draft, deadline).await?;
        let refused = draft.pass.clone().filter(|_| response.status() == StatusCode::UNAUTHORIZED);
        let can_renew = |pass: &Pass| self.credentials.as_ref().is_some_and(|credentials| credentials.can_renew(pass));
        if !refused.as_ref().is_some_and(can_renew) {
            return Ok(((response, sender), draft.pass));
        }
        self.finish(response.into_body(), sender, deadline.min(Instant::now() + MAX_REFUSAL_TIME)).await;
        draft.pass = self.pass(at, deadline).await?;
        let exchanged = self.send(&draft, deadline).await?;
        Ok((exchanged, draft.pass))
    }

    /// An answer's text without what was sent as a secret: endpoints echo requests, and the text is kept and shown.
    fn without_secrets(&self, text: String, pass: Option<&Pass>) -> String {
        let sensitive = self.headers.values().filter(|value| value.is_sensitive());
        let values = sensitive.chain(pass.map(|pass| &pass.value)).filter_map(|value| value.to_str().ok());
        // Behind a prefix such as `Bearer`, the credentials alone are the secret.
        let secrets = values.flat_map(|value| [value, value.rsplit(' ').next().unwrap_or(value)]);
        secrets.filter(|secret| !secret.is_empty()).fold(text, without)
    }

    async fn pass(&self, at: Timestamp, deadline: Instant) -> Result<Option<Pass>, AttemptError> {
        match &self.credentials {
            Some(credentials) => credentials.pass(at, deadline).await.map(Some),
            None => Ok(None),
        }
    }

    async fn send(&self, draft: &Draft<'_>, deadline: Instant) -> Result<Exchanged, AttemptError> {
        timeout_at(deadline, self.exchange(draft, deadline)).await.unwrap_or_else(|_| Err(self.no("answer")))
    }

    fn no(&self, what: &str) -> AttemptError {
        attempt_error(AttemptErrorKind::Timeout, format!("no {what} within {} s", self.timeout.as_secs()))
    }

    async fn open(&self, deadline: Instant) -> Result<Sender, AttemptError> {
        let opened = timeout_at(deadline, open(&self.network, &self.origin, self.timeout)).await;
        opened.unwrap_or_else(|_| Err(self.no("connection (name, TCP and TLS together)")))
    }

    /// Reads what is wanted of the body. A connection whose answer is at its end is kept, any other closed by dropping
    /// both of its halves.
    async fn finish(&self, mut body: Incoming, mut sender: Sender, deadline: Instant) -> (Option<String>, BodyEnd) {
        if body.is_end_stream() {
            self.pool.put(sender);
            return (None, BodyEnd::Read);
        }
        let mut excerpt = Vec::new();
        let end = match timeout_at(deadline, sender.read(read_body(&mut body, &mut excerpt))).await {
            Ok(true) => {
                self.pool.put(sender);
                BodyEnd::Read
            }
            Ok(false) => BodyEnd::CutOff,
            Err(_) => BodyEnd::Late,
        };
        (excerpt_text(&excerpt), end)
    }

    /// Sends on an idle connection while there is one that works, else on a new one.
    async fn exchange(&self, draft: &Draft<'_>, deadline: Instant) -> Result<Exchanged, AttemptError> {
        let mut request = draft.request();
        while let Some(mut sender) = self.pool.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(failed) => failed,
            };
            match failed.take_message() {
                Some(unsent) => request = unsent,
                // The connection had most likely sat idle for as long as the endpoint allows. If not, the endpoint gets
                // the event twice with one `webhook-id`, as it may with any retry; once more, on a new connection.
                None if closed_without_answer(failed.error()) => {
                    request = draft.request();
                    break;
                }
                None => return Err(exchange_error(failed.error())),
            }
        }
        let mut sender = self.open(deadline).await?;
        match sender.send_request(request).await {
            Ok(response) => Ok((response, sender)),
            Err(error) => Err(exchange_error(&error)),
        }
    }

    fn draft<'a>(&'a self, post: &'a Post<'_>, at: Timestamp) -> Result<Draft<'a>, AttemptError> {
        let signature = self.signer.as_ref().map(|signer| signer.sign(post.id, at, &post.body)).transpose()?;
        Ok(Draft {
            endpoint: self,
            post,
            id: HeaderValue::try_from(post.id).map_err(|_| configuration("webhook-id is no header value"))?,
            timestamp: HeaderValue::from(at.seconds()),
            signature,
            pass: None,
            marks: post.marks.iter().map(|(name, value)| header(name, value)).collect::<Result<_, _>>()?,
        })
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("origin", &self.origin).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// The text without a secret, and without the part of one that it was cut off in.
fn without(text: String, secret: &str) -> String {
    let mut text = text.replace(secret, "…");
    let cut = (1..secret.len()).rev().filter(|&end| secret.is_char_boundary(end));
    if let Some(end) = cut.filter(|&end| end >= 4).find(|&end| text.ends_with(&secret[..end])) {
        text.truncate(text.len() - end);
    }
    text
}

/// How the body of an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyEnd {
    Read,
    /// Too long, or broken off.
    CutOff,
    /// Not within the time of the attempt.
    Late,
}

/// What an attempt says, however often its connection makes it say so.
struct Draft<'a> {
    endpoint: &'a Endpoint,
    post: &'a Post<'a>,
    id: HeaderValue,
    timestamp: HeaderValue,
    signature: Option<HeaderValue>,
    pass: Option<Pass>,
    marks: Vec<(HeaderName, HeaderValue)>,
}

impl Draft<'_> {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.post.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.target.clone();
        let headers = request.headers_mut();
        *headers = self.endpoint.headers.clone();
        headers.insert(WEBHOOK_ID, self.id.clone());
        headers.insert(WEBHOOK_TIMESTAMP, self.timestamp.clone());
        if let Some(signature) = &self.signature {
            headers.insert(WEBHOOK_SIGNATURE, signature.clone());
        }
        if let (Some(credentials), Some(pass)) = (&self.endpoint.credentials, &self.pass) {
            headers.insert(credentials.header(), pass.value.clone());
        }
        for (name, value) in &self.marks {
            headers.insert(name.clone(), value.clone());
        }
        request
    }
}

fn template(
    url: &Url,
    parameters: &[HeaderParameter],
    signed: bool,
    credentials: Option<&Credentials>,
) -> Result<HeaderMap, AttemptError> {
    let mut headers = HeaderMap::with_capacity(parameters.len() + 8);
    headers.insert(HOST, host(url)?);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(WEBHOOK_ID, PLACE);
    headers.insert(WEBHOOK_TIMESTAMP, PLACE);
    if signed {
        headers.insert(WEBHOOK_SIGNATURE, PLACE);
    }
    for parameter in parameters {
        let value = parameter.value.as_ref().map_or("", Secret::expose);
        let (name, mut value) = header(&parameter.name, value)?;
        value.set_sensitive(parameter.secret);
        headers.insert(name, value);
    }
    if let Some(credentials) = credentials {
        headers.insert(credentials.header().clone(), PLACE);
    }
    Ok(headers)
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), AttemptError> {
    match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(configuration(format!("the header {name} cannot be sent: its name or value is malformed"))),
    }
}

pub(super) fn host(url: &Url) -> Result<HeaderValue, AttemptError> {
    let host = url.host_str().unwrap_or_default();
    let text = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    HeaderValue::try_from(text).map_err(|_| configuration("the URL's host is no header value"))
}

pub(super) fn target(url: &Url) -> Result<Uri, AttemptError> {
    let text = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Uri::try_from(text).map_err(|_| configuration("the URL's path or query cannot be sent in a request"))
}
