//! Feedback webhooks: who wants which events, where, and how they are signed.

mod authentication;

pub use authentication::{Authentication, AuthenticationType, JwtAlgorithm, Oauth2Method};

use crate::clock::Timestamp;
use crate::fault::Faults;
use crate::ids::{SandboxId, WebhookId};
use crate::outcome::FeedbackStatus;
use crate::retry::RetrySchedule;
use crate::secret::{HasSecrets, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a message reaches a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Email.
    Email,
    /// Text messages.
    Sms,
}

impl Channel {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }

    /// The channel of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Email, Self::Sms].into_iter().find(|channel| channel.as_str() == name)
    }

    /// The identity namespace whose ids are this channel's addresses.
    pub fn namespace(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "Phone",
        }
    }
}

/// Which keys the body has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// The documented keys and no others.
    #[default]
    Standard,
    /// The newer public fields as well, null where unknown.
    Extended,
}

/// How requests are signed, besides the authentication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signing {
    /// Standard Webhooks 1.0, symmetric (HMAC-SHA256).
    #[default]
    V1,
    /// Standard Webhooks 1.0, asymmetric (Ed25519) with a key pair that Esito makes.
    V1a,
    /// No signature.
    None,
}

/// A header parameter.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
pub struct HeaderParameter {
    /// The header's name.
    pub name: String,
    /// The header's value; read back as `{"set":true}` where it is secret.
    #[schema(value_type = Option<Secret>)]
    pub value: Option<Secret>,
    /// Whether the value is a secret.
    #[serde(default)]
    pub secret: bool,
}

impl Serialize for HeaderParameter {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut out = serializer.serialize_struct("HeaderParameter", 3)?;
        out.serialize_field("name", &self.name)?;
        match &self.value {
            Some(value) if !self.secret && value.value().is_some() => out.serialize_field("value", value.expose())?,
            value => out.serialize_field("value", value)?,
        }
        out.serialize_field("secret", &self.secret)?;
        out.end()
    }
}

/// What a caller sets on a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSettings {
    /// A name for people.
    pub name: String,
    /// Which channels' events it gets: at least one.
    pub channels: Vec<Channel>,
    /// Where they are posted: HTTPS.
    pub url: String,
    /// How Esito proves who it is.
    #[serde(default)]
    pub authentication: Authentication,
    /// Header parameters sent with each request.
    #[serde(default)]
    pub headers: Vec<HeaderParameter>,
    /// Which statuses it gets; all but `delay` by default.
    #[serde(default = "default_events")]
    pub events: Vec<FeedbackStatus>,
    /// Which keys the body has.
    #[serde(default)]
    pub payload: Payload,
    /// How requests are signed.
    #[serde(default)]
    pub signing: Signing,
    /// How long an answer may take, 1 to 30 seconds.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u32,
    /// The most requests at a time, 1 to 1,000.
    #[serde(default = "default_concurrency")]
    pub max_concurrency: u32,
    /// The most requests a second, 1 to 100,000; null: no limit.
    #[serde(default)]
    pub max_per_second: Option<u32>,
    /// When failed deliveries are tried again.
    #[serde(default)]
    pub retry: RetrySchedule,
    /// A disabled webhook's events are held.
    #[serde(default = "default_enabled")]
    pub enabled: bool,
}

/// The statuses that a webhook gets unless it says otherwise.
pub fn default_events() -> Vec<FeedbackStatus> {
    FeedbackStatus::ALL.into_iter().filter(|status| *status != FeedbackStatus::Delay).collect()
}

fn default_timeout() -> u32 {
    15
}

fn default_concurrency() -> u32 {
    64
}

fn default_enabled() -> bool {
    true
}

impl HasSecrets for WebhookSettings {
    fn secret_fields(&mut self) -> Vec<(String, &mut Option<Secret>)> {
        let mut fields = self.authentication.secret_fields();
        let headers = self.headers.iter_mut();
        fields
            .extend(headers.map(|header| (format!("headers.{}", header.name.to_ascii_lowercase()), &mut header.value)));
        fields
    }
}

/// Header names that a header parameter may not have: hop-by-hop (RFC 9110 section 7.6.1), framing, and Esito's own.
const FORBIDDEN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
const FORBIDDEN_HEADER_PREFIXES: &[&str] = &["webhook-", "esito-"];

/// A `token` of RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=256).contains(&name.len()) && name.bytes().all(tchar)
}

/// A field value of RFC 9110 section 5.5, of visible ASCII, spaces and tabs.
fn is_field_value(value: &str) -> bool {
    value.len() <= 8192 && value.bytes().all(|byte| (0x20..0x7f).contains(&byte) || byte == b'\t')
}

fn is_forbidden_header(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    FORBIDDEN_HEADERS.contains(&lower.as_str()) || FORBIDDEN_HEADER_PREFIXES.iter().any(|p| lower.starts_with(p))
}

impl WebhookSettings {
    /// Checks everything but the URL, whose rules are the guard's, and the keys, which need cryptography.
    pub fn check(&self, faults: &mut Faults) {
        faults.check_name("$.name", &self.name);
        check_set(faults, "$.channels", &self.channels);
        check_set(faults, "$.events", &self.events);
        let range = |faults: &mut Faults, path: &str, value: u32, least: u32, most: u32| {
            faults.require((least..=most).contains(&value), path, &format!("must be from {least} to {most}"));
        };
        range(faults, "$.timeoutSeconds", self.timeout_seconds, 1, 30);
        range(faults, "$.maxConcurrency", self.max_concurrency, 1, 1000);
        range(faults, "$.maxPerSecond", self.max_per_second.unwrap_or(1), 1, 100_000);
        range(faults, "$.retry.firstDelaySeconds", self.retry.first_delay_seconds, 1, 3600);
        range(faults, "$.retry.maxDelaySeconds", self.retry.max_delay_seconds, 1, 86_400);
        range(faults, "$.retry.giveUpAfterSeconds", self.retry.give_up_after_seconds, 0, 2_592_000);
        self.authentication.check(faults);
        self.check_headers(faults);
    }

    fn check_headers(&self, faults: &mut Faults) {
        faults.require(self.headers.len() <= 32, "$.headers", "at most 32 header parameters");
        let carries_token = self.authentication.kind != AuthenticationType::None;
        for (i, header) in self.headers.iter().enumerate() {
            let path = format!("$.headers[{i}].name");
            let name = header.name.as_str();
            if !is_token(name) {
                faults.add(path, "must be a header name: letters, digits and - only, no spaces or line breaks");
            } else if is_forbidden_header(name) {
                faults.add(path, format!("{name} is set by Esito or by HTTP itself; choose another name"));
            } else if carries_token && name.eq_ignore_ascii_case(self.authentication.header_name()) {
                faults.add(path, format!("{name} carries the authentication; remove it here"));
            } else if self.headers[..i].iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
                faults.add(path, format!("{name} is there twice"));
            }
            let path = format!("$.headers[{i}].value");
            match header.value.as_ref().and_then(Secret::value) {
                None => faults.add(path, "is required"),
                Some(_) => {
                    let fits = is_field_value(header.value.as_ref().map_or("", Secret::expose));
                    faults.require(fits, &path, "must be printable ASCII without line breaks, at most 8192 bytes");
                }
            }
        }
    }

    /// Whether the webhook wants events of this channel and status.
    pub fn selects(&self, channel: Channel, status: FeedbackStatus) -> bool {
        self.channels.contains(&channel) && self.events.contains(&status)
    }
}

fn check_set<T: PartialEq>(faults: &mut Faults, path: &str, set: &[T]) {
    faults.require(!set.is_empty(), path, "at least one is required");
    let doubled = set.iter().enumerate().any(|(i, one)| set[..i].contains(one));
    faults.require(!doubled, path, "each may be there once only");
}

/// A key of the Standard Webhooks signature: a secret, or a key pair. On rotation the former one signs beside the new one for a while.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningSecretEntry {
    /// `whsec_…`, or `whsk_…` for the private half of a key pair; held by the store in an envelope.
    #[serde(skip)]
    pub secret: Option<Secret>,
    /// A name for the place in the envelope.
    pub name: String,
    /// The public half of a key pair: `whpk_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// When it stops signing; none: it is the current one.
    pub expires_at: Option<Timestamp>,
}

/// A key pair for the webhook's JWT, or for its assertions at a token endpoint. On rotation the former public key stays published for a while.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtKey {
    /// The private key as PKCS#8 PEM; held by the store in an envelope.
    #[serde(skip)]
    pub private_key: Option<Secret>,
    /// `kid`.
    pub key_id: String,
    /// The algorithm it is for.
    pub algorithm: JwtAlgorithm,
    /// Whether Esito made it.
    pub own: bool,
    /// The public half (RFC 7517).
    pub public_jwk: serde_json::Value,
    /// When it stops being published; none: it is the current one.
    pub expires_at: Option<Timestamp>,
}

/// The keys of a webhook.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WebhookKeys {
    /// Signing secrets and key pairs, the current one first.
    pub signing: Vec<SigningSecretEntry>,
    /// JWT key pairs, the current one first.
    pub jwt: Vec<JwtKey>,
}

impl HasSecrets for WebhookKeys {
    fn secret_fields(&mut self) -> Vec<(String, &mut Option<Secret>)> {
        let signing = self.signing.iter_mut().map(|one| (format!("signing.{}", one.name), &mut one.secret));
        let jwt = self.jwt.iter_mut().map(|one| (format!("jwt.{}", one.key_id), &mut one.private_key));
        signing.chain(jwt).collect()
    }
}

/// Whether a webhook's events go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WebhookState {
    /// They do.
    Active,
    /// They do, but the last attempts failed.
    Failing,
    /// Held by hand, for a while.
    Paused,
    /// Held by its setting, or because the endpoint answered 410.
    Disabled,
}

/// What has been done to the webhook besides its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookControl {
    /// Paused by hand.
    pub paused: bool,
    /// The endpoint answered 410 at this time.
    pub gone_at: Option<Timestamp>,
    /// Attempts have failed since then without a success.
    pub failing_since: Option<Timestamp>,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
    /// Since when events are held, where they are.
    pub held_since: Option<Timestamp>,
    /// How long events were held before, in milliseconds. Held time counts towards no deadline.
    pub held_ms: i64,
}

/// The sandbox of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SandboxRef {
    /// The id.
    pub id: SandboxId,
    /// The name.
    pub name: String,
}

/// A feedback webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Its organization.
    pub ims_org: String,
    /// Its sandbox; each has at most one webhook.
    pub sandbox: SandboxRef,
    /// What a caller set.
    pub settings: WebhookSettings,
    /// Its keys.
    pub keys: WebhookKeys,
    /// What has been done to it.
    pub control: WebhookControl,
    /// Who made and changed it, and when.
    pub stamps: Stamps,
}

/// Who made and changed a resource, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stamps {
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it was last changed.
    pub modified_at: Timestamp,
    /// By whom.
    pub modified_by: String,
    /// The number of its changes: what an `ETag` shows.
    #[serde(skip)]
    pub revision: u64,
}

impl Stamps {
    /// The stamps of a new resource.
    pub fn new(now: Timestamp, by: &str) -> Self {
        Self { created_at: now, created_by: by.to_owned(), modified_at: now, modified_by: by.to_owned(), revision: 1 }
    }

    /// Notes a change.
    pub fn touch(&mut self, now: Timestamp, by: &str) {
        self.modified_at = now;
        by.clone_into(&mut self.modified_by);
        self.revision += 1;
    }
}

impl Webhook {
    /// The state, and the reason where it is not `active`.
    pub fn state(&self) -> (WebhookState, Option<String>) {
        if let Some(at) = self.control.gone_at {
            return (WebhookState::Disabled, Some(format!("the endpoint answered 410 Gone at {at}; enable it again")));
        }
        if !self.settings.enabled {
            return (WebhookState::Disabled, Some("disabled by its setting enabled".to_owned()));
        }
        if self.control.paused {
            return (WebhookState::Paused, Some("paused by hand".to_owned()));
        }
        match self.control.failing_since {
            Some(_) => (WebhookState::Failing, self.control.last_error.clone()),
            None => (WebhookState::Active, None),
        }
    }

    /// Whether its events are held.
    pub fn is_held(&self) -> bool {
        matches!(self.state().0, WebhookState::Paused | WebhookState::Disabled)
    }

    /// Brings the account of held time up to date with the state; to be called after every change of it.
    pub fn note_hold(&mut self, now: Timestamp) {
        match (self.is_held(), self.control.held_since) {
            (true, None) => self.control.held_since = Some(now),
            (false, Some(since)) => {
                self.control.held_ms += (now.millis() - since.millis()).max(0);
                self.control.held_since = None;
            }
            _ => {}
        }
    }

    /// `moment` on a clock that stands still while events are held. Deadlines are kept on this clock.
    pub fn active_time(&self, moment: Timestamp) -> Timestamp {
        let running = self.control.held_since.map_or(0, |since| (moment.millis() - since.millis()).max(0));
        Timestamp(moment.millis() - self.control.held_ms - running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: serde_json::Value) -> WebhookSettings {
        serde_json::from_value(json).unwrap()
    }

    fn fault_paths(settings: &WebhookSettings) -> Vec<String> {
        let mut faults = Faults::default();
        settings.check(&mut faults);
        faults.list().iter().map(|fault| fault.path.clone()).collect()
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let webhook = settings(serde_json::json!({"name": "n", "channels": ["email"], "url": "https://a.example/"}));
        assert_eq!(fault_paths(&webhook), [""; 0]);
        assert_eq!((webhook.timeout_seconds, webhook.max_concurrency, webhook.max_per_second), (15, 64, None));
        assert_eq!(webhook.events.len(), 6);
        assert!(!webhook.selects(Channel::Sms, FeedbackStatus::Sent));
        assert!(!webhook.selects(Channel::Email, FeedbackStatus::Delay));
    }

    #[test]
    fn every_fault_is_named() {
        let webhook = settings(serde_json::json!({
            "name": "", "channels": [], "url": "https://a.example/", "timeoutSeconds": 31, "maxConcurrency": 0,
            "authentication": {"type": "jwt", "algorithm": "HS256", "privateKey": "x", "claims": {"exp": 1}},
            "headers": [{"name": "webhook-id", "value": "x"}, {"name": "a b", "value": "x"}, {"name": "authorization", "value": "x"},
                {"name": "x", "value": "a\r\nb"}, {"name": "X"}],
        }));
        assert_eq!(
            fault_paths(&webhook),
            [
                "$.name",
                "$.channels",
                "$.timeoutSeconds",
                "$.maxConcurrency",
                "$.authentication.secret",
                "$.authentication.privateKey",
                "$.authentication.claims.exp",
                "$.headers[0].name",
                "$.headers[1].name",
                "$.headers[2].name",
                "$.headers[3].value",
                "$.headers[4].name",
                "$.headers[4].value",
            ]
        );
    }

    #[test]
    fn an_edit_that_omits_a_secret_keeps_it_and_one_that_changes_the_algorithm_does_not() {
        let mut old = settings(serde_json::json!({"name": "n", "channels": ["email"], "url": "https://a.example/",
            "authentication": {"type": "jwt", "algorithm": "HS256", "secret": "s3cret"}, "headers": [{"name": "X-Key", "value": "k", "secret": true}]}));
        let shown = serde_json::to_value(&old).unwrap();
        assert_eq!(shown["headers"][0]["value"], serde_json::json!({"set": true}));
        let sealed = old.take_secrets();
        assert!(!serde_json::to_string(&old).unwrap().contains("s3cret"));

        let mut same: WebhookSettings = serde_json::from_value(shown.clone()).unwrap();
        same.fill_secrets(&sealed);
        assert_eq!(same.authentication.secret.as_ref().unwrap().expose(), "s3cret");
        assert_eq!(same.headers[0].value.as_ref().unwrap().expose(), "k");

        let mut other = shown;
        other["authentication"] = serde_json::json!({"type": "jwt", "algorithm": "RS256"});
        let mut other = settings(other);
        other.fill_secrets(&sealed);
        assert!(other.authentication.secret.is_none() && other.authentication.private_key.is_none());
    }
}
