//! What a token request says: who asks, for what, and with which proof.

use crate::webhook::auth::signing_key;
use crate::webhook::error::{attempt_error, configuration};
use crate::webhook::guard::Origin;
use crate::webhook::request::{host, target};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Uri};
use model::clock::Timestamp;
use model::delivery::{AttemptError, AttemptErrorKind};
use model::secret::Secret;
use model::webhook::{Authentication, Oauth2Method, Webhook};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::form_urlencoded::{Serializer, byte_serialize};
use wire::address::EgressPolicy;
use wire::jwt::{Claims, SigningKey, unique_id};

/// How long an assertion is good for, in seconds.
const ASSERTION_SECS: u32 = 300;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// What a webhook's tokens depend on: while it is the same, they go on being good.
#[derive(Clone, PartialEq)]
pub(super) struct Identity {
    /// The private key is told by its public half.
    settings: Authentication,
    public_jwk: Option<Value>,
}

impl Identity {
    pub(super) fn of(webhook: &Webhook) -> Self {
        let settings = Authentication { private_key: None, ..webhook.settings.authentication.clone() };
        let key = webhook.keys.jwt.iter().find(|key| key.expires_at.is_none());
        let public_jwk = key.filter(|_| settings.is_asymmetric()).map(|key| key.public_jwk.clone());
        Self { settings, public_jwk }
    }
}

/// Where tokens are asked for.
pub(super) struct Place {
    pub(super) origin: Origin,
    pub(super) host: HeaderValue,
    pub(super) target: Uri,
}

/// All that a token request is made of.
pub(super) struct Grant {
    identity: Identity,
    place: Place,
    /// The key of assertions, with its `kid`.
    key: Option<(SigningKey, Option<String>)>,
}

/// One token request.
pub(super) struct TokenRequest {
    /// The form.
    pub(super) body: Bytes,
    /// `Authorization`.
    pub(super) basic: Option<HeaderValue>,
    /// What no error may repeat: it comes from whoever runs the token endpoint, and may quote what it got.
    hidden: Vec<SecretString>,
}

impl Grant {
    /// Prepares what all requests have in common.
    pub(super) fn of(webhook: &Webhook, identity: Identity, policy: &EgressPolicy) -> Result<Self, AttemptError> {
        let settings = &identity.settings;
        let refused = |why: String| attempt_error(AttemptErrorKind::Token, format!("the token URL: {why}"));
        let url = policy.check_url(settings.token_url.as_deref().unwrap_or_default());
        let url = url.map_err(|refusal| refused(refusal.to_string()))?;
        let origin = Origin::of(&url).ok_or_else(|| refused("its host is no name for a certificate".to_owned()))?;
        let place = Place { origin, host: host(&url)?, target: target(&url)? };
        let key = match settings.oauth2_method() {
            Oauth2Method::ClientCredentials => None,
            Oauth2Method::JwtBearer => {
                let algorithm = settings.algorithm.filter(|algorithm| !algorithm.is_hmac());
                let algorithm = algorithm
                    .ok_or_else(|| configuration("authentication: there is no algorithm for the assertion"))?;
                Some(signing_key(webhook, algorithm)?)
            }
        };
        Ok(Self { identity, place, key })
    }

    pub(super) fn is_for(&self, identity: &Identity) -> bool {
        self.identity == *identity
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// A failure of the token endpoint.
    pub(super) fn error(&self, why: impl std::fmt::Display) -> AttemptError {
        let host = self.place.host.to_str().unwrap_or_default();
        attempt_error(AttemptErrorKind::Token, format!("the token endpoint {host}: {why}"))
    }

    /// A request of this moment.
    pub(super) fn request(&self, now: Timestamp) -> Result<TokenRequest, AttemptError> {
        let settings = &self.identity.settings;
        let mut hidden = Vec::new();
        let mut form = Serializer::new(String::new());
        match &self.key {
            None => {
                form.append_pair("grant_type", "client_credentials");
                append(&mut form, "audience", settings.audience.as_deref());
            }
            Some((key, key_id)) => {
                let assertion = self.assertion(key, key_id.as_deref(), now)?;
                form.append_pair("grant_type", JWT_BEARER).append_pair("assertion", assertion.expose_secret());
                hidden.push(assertion);
            }
        }
        append(&mut form, "scope", settings.scope.as_deref());
        let basic = match settings.client_secret.as_ref().and_then(Secret::value) {
            Some(secret) => Some(self.basic(secret, &mut hidden)?),
            None => {
                // A client without a secret says who it is in the form (RFC 6749 section 3.2.1).
                append(&mut form, "client_id", settings.client_id.as_deref());
                None
            }
        };
        Ok(TokenRequest { body: form.finish().into(), basic, hidden })
    }

    /// RFC 6749 section 2.3.1: both parts are form-encoded first.
    fn basic(&self, secret: &SecretString, hidden: &mut Vec<SecretString>) -> Result<HeaderValue, AttemptError> {
        // A space as `%20`: who decodes forms reads it, and so do servers that know percent signs only.
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let id = encode(self.identity.settings.client_id.as_deref().unwrap_or_default());
        let encoded = encode(secret.expose_secret());
        let credentials = STANDARD.encode(format!("{id}:{encoded}"));
        let mut value = HeaderValue::try_from(format!("Basic {credentials}"))
            .map_err(|_| configuration("authentication: the client's credentials are no header value"))?;
        value.set_sensitive(true);
        hidden.extend([credentials, encoded].map(SecretString::from));
        hidden.push(secret.clone());
        Ok(value)
    }

    /// RFC 7523 section 3.
    fn assertion(&self, key: &SigningKey, key_id: Option<&str>, now: Timestamp) -> Result<SecretString, AttemptError> {
        let settings = &self.identity.settings;
        let failed = |error| configuration(format!("authentication: {error}"));
        let client = settings.client_id.as_deref();
        let mut extra: Map<String, Value> = settings.claims.clone().unwrap_or_default();
        extra.insert("jti".to_owned(), unique_id().map_err(failed)?.into());
        let claims = Claims {
            issuer: settings.issuer.as_deref().or(client),
            subject: settings.subject.as_deref().or(client),
            audience: settings.audience.as_deref().or(settings.token_url.as_deref()),
            issued_at_secs: now.seconds(),
            expires_in_secs: ASSERTION_SECS,
            extra: &extra,
        };
        key.sign(key_id, &claims).map_err(failed)
    }
}

fn append(form: &mut Serializer<'_, String>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        form.append_pair(name, value);
    }
}

impl TokenRequest {
    /// The text without anything secret that the request says.
    pub(super) fn redact(&self, text: &str) -> String {
        let shown = |secret: &&SecretString| !secret.expose_secret().is_empty();
        let hidden = self.hidden.iter().filter(shown);
        hidden.fold(text.to_owned(), |text, secret| text.replace(secret.expose_secret(), "…"))
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("origin", &self.place.origin).finish_non_exhaustive()
    }
}
