//! What proves to an endpoint who calls: the signature of the request, and the token in a header.

use super::error::configuration;
use super::guard::Network;
use super::oauth2::{AccessToken, Oauth2};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use model::clock::Timestamp;
use model::delivery::AttemptError;
use model::secret::Secret;
use model::webhook::{Authentication, AuthenticationType, JwtAlgorithm, Signing, Webhook};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use wire::jwt::{Claims, SigningKey};
use wire::standard_webhooks::{WebhookKey, sign};

/// The secrets and key pairs that sign requests.
#[derive(Debug)]
pub struct Signer(Vec<Signature>);

#[derive(Debug)]
struct Signature {
    key: WebhookKey,
    /// When it stops signing.
    expires_at: Option<Timestamp>,
}

impl Signer {
    /// The signing keys of a webhook; none where it does not sign.
    ///
    /// # Errors
    /// Where a key cannot be used, or none of the scheme that is set is there.
    pub fn of(webhook: &Webhook) -> Result<Option<Self>, AttemptError> {
        if webhook.settings.signing == Signing::None {
            return Ok(None);
        }
        let signatures: Vec<Signature> = webhook
            .keys
            .signing
            .iter()
            .map(|entry| {
                let text = entry.secret.as_ref().map_or("", Secret::expose);
                let key = WebhookKey::parse(text).map_err(|error| configuration(format!("signing: {error}")))?;
                Ok(Signature { key, expires_at: entry.expires_at })
            })
            .collect::<Result<_, AttemptError>>()?;
        let is_v1a = webhook.settings.signing == Signing::V1a;
        let is_current = |one: &Signature| one.expires_at.is_none() && one.key.public_key().is_some() == is_v1a;
        match signatures.iter().any(is_current) {
            true => Ok(Some(Self(signatures))),
            false if is_v1a => Err(configuration("signing: there is no current key pair; rotate it")),
            false => Err(configuration("signing: there is no current secret; rotate it")),
        }
    }

    /// The value of `webhook-signature`.
    ///
    /// # Errors
    /// Never for keys that [`Signer::of`] took: base64 is a header value.
    pub fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> Result<HeaderValue, AttemptError> {
        let live = |one: &&Signature| one.expires_at.is_none_or(|end| at < end);
        let text = match self.0.as_slice() {
            // Not through the filter: the exact length lets the text be allocated once.
            [only] => sign([&only.key], id, at.seconds(), body),
            all => sign(all.iter().filter(live).map(|one| &one.key), id, at.seconds(), body),
        };
        HeaderValue::try_from(text).map_err(|_| configuration("signing: the signature is no header value"))
    }
}

/// What proves to the endpoint who calls, in a header of its own.
#[derive(Debug)]
pub enum Credentials {
    /// A token of Esito's own making.
    Token(Box<TokenAuth>),
    /// A token that a token endpoint gives.
    Oauth2(Oauth2),
}

/// The credentials of one request.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The header's value.
    pub value: HeaderValue,
    /// The access token that it is, if it is one.
    access: Option<Arc<AccessToken>>,
}

impl Credentials {
    /// The credentials of a webhook; none where it needs none.
    ///
    /// # Errors
    /// Where its key cannot be used, or its token URL is not allowed.
    pub fn of(webhook: &Webhook, network: &Arc<Network>) -> Result<Option<Self>, AttemptError> {
        match webhook.settings.authentication.kind {
            AuthenticationType::None => Ok(None),
            AuthenticationType::Jwt => TokenAuth::of(webhook).map(|token| Some(Self::Token(Box::new(token)))),
            AuthenticationType::Oauth2 => Oauth2::of(webhook, network).map(|oauth2| Some(Self::Oauth2(oauth2))),
        }
    }

    /// The header that carries them.
    pub fn header(&self) -> &HeaderName {
        match self {
            Self::Token(token) => token.header(),
            Self::Oauth2(_) => &AUTHORIZATION,
        }
    }

    /// What a request of this moment carries.
    ///
    /// # Errors
    /// When a token cannot be made, or the token endpoint gives none by the deadline.
    pub async fn pass(&self, now: Timestamp, deadline: Instant) -> Result<Pass, AttemptError> {
        match self {
            Self::Token(token) => Ok(Pass { value: token.value(now)?, access: None }),
            Self::Oauth2(oauth2) => {
                let access = oauth2.token(now, deadline).await?;
                Ok(Pass { value: access.header.clone(), access: Some(access) })
            }
        }
    }

    /// Whether another pass may fare better, now that the endpoint has answered this one 401.
    pub fn can_renew(&self, pass: &Pass) -> bool {
        match (self, &pass.access) {
            (Self::Oauth2(oauth2), Some(access)) => oauth2.refused(access),
            _ => false,
        }
    }
}

/// The token in a header, made anew only when it must be: a signature by RSA costs more than all the rest of an attempt.
pub struct TokenAuth {
    header: HeaderName,
    settings: Authentication,
    key: SigningKey,
    key_id: Option<String>,
    /// A token with no more left than an attempt may take could expire on the way.
    least_left_secs: i64,
    current: Mutex<Option<Token>>,
}

struct Token {
    value: HeaderValue,
    issued_at_secs: i64,
    expires_at_secs: i64,
}

impl TokenAuth {
    /// The tokens of a webhook that authenticates by JWT.
    ///
    /// # Errors
    /// Where its key cannot be used.
    pub fn of(webhook: &Webhook) -> Result<Self, AttemptError> {
        let settings = &webhook.settings.authentication;
        let algorithm = settings.algorithm.ok_or_else(|| configuration("authentication: there is no algorithm"))?;
        let (key, key_id) = signing_key(webhook, algorithm)?;
        let header = HeaderName::try_from(settings.header_name())
            .map_err(|_| configuration("authentication: the header's name is not one"))?;
        // The secrets are in the prepared key; a copy of their text would only be one more to lose.
        let settings = Authentication { secret: None, private_key: None, ..settings.clone() };
        let least_left_secs = i64::from(webhook.settings.timeout_seconds);
        Ok(Self { header, settings, key, key_id, least_left_secs, current: Mutex::default() })
    }

    /// The header that carries the token.
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The value of that header: the token in use while at least half of its life and more than an attempt's time
    /// remain, else a new one.
    ///
    /// # Errors
    /// When the token cannot be made.
    pub fn value(&self, now: Timestamp) -> Result<HeaderValue, AttemptError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match current.as_ref().filter(|token| self.is_fresh(token, now)) {
            Some(token) => Ok(token.value.clone()),
            None => Ok(current.insert(self.issue(now)?).value.clone()),
        }
    }

    fn is_fresh(&self, token: &Token, now: Timestamp) -> bool {
        let left = token.expires_at_secs - now.seconds();
        let life = i64::from(self.settings.expires_in_seconds());
        // After a step back of the clock the token would come from the receiver's future.
        left * 2 >= life && left > self.least_left_secs && now.seconds() >= token.issued_at_secs
    }

    fn issue(&self, now: Timestamp) -> Result<Token, AttemptError> {
        let none = Map::<String, Value>::new();
        let claims = Claims {
            issuer: self.settings.issuer.as_deref(),
            subject: self.settings.subject.as_deref(),
            audience: self.settings.audience.as_deref(),
            issued_at_secs: now.seconds(),
            expires_in_secs: self.settings.expires_in_seconds(),
            extra: self.settings.claims.as_ref().unwrap_or(&none),
        };
        let token = self.key.sign(self.key_id.as_deref(), &claims);
        let token = token.map_err(|error| configuration(format!("authentication: {error}")))?;
        let value = header_value(self.settings.prefix(), &token)?;
        Ok(Token { value, issued_at_secs: now.seconds(), expires_at_secs: claims.expires_at_secs() })
    }
}

fn header_value(prefix: &str, token: &SecretString) -> Result<HeaderValue, AttemptError> {
    let text = match prefix {
        "" => token.expose_secret().to_owned(),
        prefix => format!("{prefix} {}", token.expose_secret()),
    };
    let value = HeaderValue::try_from(text);
    let mut value = value.map_err(|_| configuration("authentication: the prefix is no header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The key that signs at present, with its `kid`.
pub(super) fn signing_key(
    webhook: &Webhook,
    algorithm: JwtAlgorithm,
) -> Result<(SigningKey, Option<String>), AttemptError> {
    let settings = &webhook.settings.authentication;
    let unusable = |error| configuration(format!("authentication: {error}"));
    if algorithm.is_hmac() {
        let secret = settings.secret.as_ref().and_then(Secret::value);
        let secret = secret.ok_or_else(|| configuration("authentication: there is no secret"))?;
        return Ok((SigningKey::hmac(algorithm, secret).map_err(unusable)?, settings.key_id.clone()));
    }
    let current = webhook.keys.jwt.iter().find(|key| key.algorithm == algorithm && key.expires_at.is_none());
    let pem = current.and_then(|key| key.private_key.as_ref()).and_then(Secret::value);
    let (Some(current), Some(pem)) = (current, pem) else {
        return Err(configuration("authentication: there is no current private key; rotate it"));
    };
    Ok((SigningKey::from_private_pem(algorithm, pem).map_err(unusable)?, Some(current.key_id.clone())))
}

impl std::fmt::Debug for TokenAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let life = Duration::from_secs(u64::from(self.settings.expires_in_seconds()));
        f.debug_struct("TokenAuth").field("header", &self.header).field("life", &life).finish_non_exhaustive()
    }
}
