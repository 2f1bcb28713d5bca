//! How Esito proves to a webhook's endpoint who it is.

use super::{is_field_value, is_forbidden_header, is_token};
use crate::fault::Faults;
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How Esito proves to the endpoint who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationType {
    /// Not at all.
    #[default]
    None,
    /// With a JSON Web Token in a header.
    Jwt,
    /// With an access token that an OAuth 2.0 token endpoint gives.
    Oauth2,
}

/// How Esito gets its access token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Oauth2Method {
    /// With its client secret (RFC 6749 section 4.4).
    #[default]
    ClientCredentials,
    /// With an assertion signed by its key pair (RFC 7523 section 2.1).
    JwtBearer,
}

/// The algorithms of a JWT (RFC 7518 section 3.1, RFC 8037 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDSA,
}

impl JwtAlgorithm {
    /// Whether the key is a shared secret.
    pub fn is_hmac(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// The authentication of a webhook. Each field says for which `type` it is; with any other it stays empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    /// `none`, `jwt` or `oauth2`.
    #[serde(rename = "type")]
    pub kind: AuthenticationType,
    /// JWT: the algorithm; required. OAuth 2.0 by `jwt_bearer`: the assertion's, one with a private key; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<JwtAlgorithm>,
    /// JWT by HMAC: the shared secret, used as its UTF-8 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// JWT by RSA, ECDSA or Ed25519, and the assertion of `jwt_bearer`: the private key as PEM. Without one Esito makes
    /// a key pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<Secret>,
    /// JWT and assertion: `kid`. Without one, asymmetric keys get one made from the webhook's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// JWT: `iss`. Assertion: `iss` where it is not the `clientId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// JWT: `sub`. Assertion: `sub` where it is not the `clientId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// JWT: `aud`. Assertion: `aud` where it is not the `tokenUrl`. OAuth 2.0 by `client_credentials`: the parameter
    /// `audience` of the token request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// JWT: how long a token is good for, 10 to 86,400 seconds; 300 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u32>,
    /// JWT and assertion: further claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    /// JWT: the header that carries the token; `Authorization` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// JWT: what stands before the token, with a space between; `Bearer` by default, none where empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// OAuth 2.0: where access tokens are asked for: HTTPS; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// OAuth 2.0: who Esito is to the token endpoint; required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// OAuth 2.0: the client's secret, sent by HTTP Basic; required for `client_credentials`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    /// OAuth 2.0: what is asked for; several with single spaces between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// OAuth 2.0: `client_credentials` by default, or `jwt_bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Oauth2Method>,
}

impl Authentication {
    /// The header that carries the credentials.
    pub fn header_name(&self) -> &str {
        self.header.as_deref().unwrap_or("Authorization")
    }

    /// What stands before the token.
    pub fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or("Bearer")
    }

    /// How long a token is good for, in seconds.
    pub fn expires_in_seconds(&self) -> u32 {
        self.expires_in_seconds.unwrap_or(300)
    }

    /// How the access token is got.
    pub fn oauth2_method(&self) -> Oauth2Method {
        self.method.unwrap_or_default()
    }

    /// Whether Esito signs with a private key: its own tokens, or its assertions at a token endpoint.
    pub fn is_asymmetric(&self) -> bool {
        self.takes_key() && self.algorithm.is_some_and(|algorithm| !algorithm.is_hmac())
    }

    /// Whether there is a token of Esito's own making, and so a key for it.
    fn takes_key(&self) -> bool {
        match self.kind {
            AuthenticationType::None => false,
            AuthenticationType::Jwt => true,
            AuthenticationType::Oauth2 => self.oauth2_method() == Oauth2Method::JwtBearer,
        }
    }

    pub(super) fn secret_fields(&mut self) -> Vec<(String, &mut Option<Secret>)> {
        let (kind, method, takes_key) = (self.kind, self.oauth2_method(), self.takes_key());
        let mut fields = Vec::new();
        // A secret belongs to its kind of algorithm: a change from HMAC to RSA must not carry the old one along.
        let is_hmac = kind == AuthenticationType::Jwt && self.algorithm.is_some_and(JwtAlgorithm::is_hmac);
        if is_hmac || self.secret.is_some() {
            fields.push(("authentication.secret".to_owned(), &mut self.secret));
        }
        if let Some(algorithm) = self.algorithm.filter(|algorithm| takes_key && !algorithm.is_hmac()) {
            fields.push((format!("authentication.privateKey.{algorithm:?}"), &mut self.private_key));
        } else if self.private_key.is_some() {
            fields.push(("authentication.privateKey".to_owned(), &mut self.private_key));
        }
        // For the same reason: `jwt_bearer` works without one.
        if kind == AuthenticationType::Oauth2 && method == Oauth2Method::JwtBearer {
            fields.push(("authentication.clientSecret.jwtBearer".to_owned(), &mut self.client_secret));
        } else if kind == AuthenticationType::Oauth2 || self.client_secret.is_some() {
            fields.push(("authentication.clientSecret".to_owned(), &mut self.client_secret));
        }
        fields
    }
}

/// The checks: which field belongs to which type, and what each may say.
impl Authentication {
    pub(super) fn check(&self, faults: &mut Faults) {
        match self.kind {
            AuthenticationType::None => {
                let plain = *self == Self::default();
                faults.require(plain, "$.authentication", "with type none no other field may be set");
            }
            AuthenticationType::Jwt => self.check_jwt(faults),
            AuthenticationType::Oauth2 => self.check_oauth2(faults),
        }
    }

    fn check_jwt(&self, faults: &mut Faults) {
        for (name, is_set) in self.oauth2_fields() {
            refuse(faults, name, is_set, "belongs to type oauth2, not to jwt");
        }
        let Some(algorithm) = self.algorithm else {
            faults.add("$.authentication.algorithm", "is required: HS256, HS384, HS512, RS256, PS256, ES256 or EdDSA");
            return;
        };
        if algorithm.is_hmac() {
            faults.require(has(&self.secret), "$.authentication.secret", "is required for an HMAC algorithm");
            let message = "an HMAC algorithm takes a secret, not a private key";
            refuse(faults, "privateKey", self.private_key.is_some(), message);
        } else {
            refuse(faults, "secret", self.secret.is_some(), "this algorithm takes a privateKey, not a secret");
        }
        let lifetime = (10..=86_400).contains(&self.expires_in_seconds());
        faults.require(lifetime, "$.authentication.expiresInSeconds", "must be from 10 to 86400");
        let name = self.header_name();
        let usable = is_token(name) && !is_forbidden_header(name);
        faults.require(usable, "$.authentication.header", "must be a header name that Esito does not use itself");
        faults.require(is_field_value(self.prefix()), "$.authentication.prefix", "must be printable ASCII");
        self.check_claims(faults, &["iss", "sub", "aud", "iat", "exp"]);
    }

    fn check_oauth2(&self, faults: &mut Faults) {
        faults.require(
            self.token_url.is_some(),
            "$.authentication.tokenUrl",
            "is required: where tokens are asked for",
        );
        let id = self.client_id.as_deref().unwrap_or_default();
        let fits = (1..=1024).contains(&id.len()) && !id.chars().any(char::is_control);
        faults.require(fits, "$.authentication.clientId", "is required: 1 to 1024 bytes, without control characters");
        let scopes = self.scope.as_deref().is_none_or(is_scope);
        faults.require(scopes, "$.authentication.scope", "must be printable ASCII words with single spaces between");
        for (name, is_set) in self.own_token_fields() {
            refuse(faults, name, is_set, "belongs to type jwt, not to oauth2");
        }
        match self.oauth2_method() {
            Oauth2Method::ClientCredentials => self.check_client_credentials(faults),
            Oauth2Method::JwtBearer => self.check_jwt_bearer(faults),
        }
    }

    fn check_client_credentials(&self, faults: &mut Faults) {
        let path = "$.authentication.clientSecret";
        faults.require(has(&self.client_secret), path, "is required for the method client_credentials");
        for (name, is_set) in self.assertion_fields() {
            refuse(faults, name, is_set, "belongs to the method jwt_bearer, not to client_credentials");
        }
    }

    fn check_jwt_bearer(&self, faults: &mut Faults) {
        let given = self.client_secret.is_none() || has(&self.client_secret);
        faults.require(given, "$.authentication.clientSecret", "must not be empty");
        let signs = self.algorithm.is_some_and(|algorithm| !algorithm.is_hmac());
        let path = "$.authentication.algorithm";
        faults.require(signs, path, "is required for the method jwt_bearer: RS256, PS256, ES256 or EdDSA");
        self.check_claims(faults, &["iss", "sub", "aud", "iat", "exp", "jti"]);
    }

    fn check_claims(&self, faults: &mut Faults, own: &[&str]) {
        for claim in self.claims.iter().flatten().map(|(name, _)| name).filter(|name| own.contains(&name.as_str())) {
            let message = "is set by Esito or by its own field, not as a further claim";
            faults.add(format!("$.authentication.claims.{claim}"), message);
        }
    }

    /// What only OAuth 2.0 has.
    fn oauth2_fields(&self) -> [(&'static str, bool); 5] {
        [
            ("tokenUrl", self.token_url.is_some()),
            ("clientId", self.client_id.is_some()),
            ("clientSecret", self.client_secret.is_some()),
            ("scope", self.scope.is_some()),
            ("method", self.method.is_some()),
        ]
    }

    /// What only a token of Esito's own making has.
    fn own_token_fields(&self) -> [(&'static str, bool); 4] {
        [
            ("secret", self.secret.is_some()),
            ("expiresInSeconds", self.expires_in_seconds.is_some()),
            ("header", self.header.is_some()),
            ("prefix", self.prefix.is_some()),
        ]
    }

    /// What a token and an assertion have, and client credentials do not.
    fn assertion_fields(&self) -> [(&'static str, bool); 6] {
        [
            ("algorithm", self.algorithm.is_some()),
            ("privateKey", self.private_key.is_some()),
            ("keyId", self.key_id.is_some()),
            ("issuer", self.issuer.is_some()),
            ("subject", self.subject.is_some()),
            ("claims", self.claims.is_some()),
        ]
    }
}

fn has(field: &Option<Secret>) -> bool {
    field.as_ref().is_some_and(|secret| !secret.expose().is_empty())
}

fn refuse(faults: &mut Faults, name: &str, is_set: bool, message: &str) {
    faults.require(!is_set, &format!("$.authentication.{name}"), message);
}

/// `scope` of RFC 6749 section 3.3.
fn is_scope(text: &str) -> bool {
    let is_word = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    text.len() <= 4096 && text.split(' ').all(|word| !word.is_empty() && word.bytes().all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::HasSecrets as _;
    use crate::webhook::WebhookSettings;
    use serde_json::{Value, json};

    fn settings(authentication: Value) -> WebhookSettings {
        let all =
            json!({"name": "n", "channels": ["email"], "url": "https://a.example/", "authentication": authentication});
        serde_json::from_value(all).unwrap()
    }

    fn fault_paths(authentication: Value) -> Vec<String> {
        let mut faults = Faults::default();
        settings(authentication).check(&mut faults);
        faults.list().iter().map(|fault| fault.path.replace("$.authentication.", "")).collect()
    }

    fn with(mut base: Value, more: Value) -> Value {
        base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        base
    }

    fn client_credentials() -> Value {
        json!({"type": "oauth2", "tokenUrl": "https://t.example/token", "clientId": "c", "clientSecret": "s3cret"})
    }

    fn jwt_bearer() -> Value {
        json!({"type": "oauth2", "method": "jwt_bearer", "tokenUrl": "https://t.example/token", "clientId": "c",
            "algorithm": "RS256"})
    }

    #[test]
    fn each_method_takes_its_fields() {
        let full = json!({"scope": "events:write a/b", "audience": "hooks", "method": "client_credentials"});
        assert_eq!(fault_paths(client_credentials()), [""; 0]);
        assert_eq!(fault_paths(with(client_credentials(), full)), [""; 0]);
        let full = json!({"scope": "a", "audience": "x", "issuer": "i", "subject": "s", "keyId": "k", "clientSecret": "s",
            "privateKey": "pem", "claims": {"tenant": 1}});
        assert_eq!(fault_paths(jwt_bearer()), [""; 0]);
        assert_eq!(fault_paths(with(jwt_bearer(), full)), [""; 0]);
    }

    #[test]
    fn every_fault_is_named() {
        assert_eq!(fault_paths(json!({"type": "oauth2"})), ["tokenUrl", "clientId", "clientSecret"]);
        let foreign = json!({"secret": "s", "expiresInSeconds": 60, "header": "X", "prefix": "", "algorithm": "ES256",
            "privateKey": "p", "keyId": "k", "issuer": "i", "subject": "s", "claims": {}});
        let paths = fault_paths(with(client_credentials(), foreign.clone()));
        assert_eq!(paths.len(), foreign.as_object().unwrap().len(), "{paths:?}");
        assert_eq!(
            fault_paths(with(jwt_bearer(), json!({"algorithm": "HS256", "secret": "s"}))),
            ["secret", "algorithm"]
        );
        assert_eq!(
            fault_paths(with(jwt_bearer(), json!({"claims": {"jti": 1, "exp": 2}}))),
            ["claims.exp", "claims.jti"]
        );
        for scope in ["", " a", "a  b", "a\"b", "é"] {
            assert_eq!(fault_paths(with(client_credentials(), json!({"scope": scope}))), ["scope"], "{scope:?}");
        }
        let empty = json!({"clientId": "", "clientSecret": ""});
        assert_eq!(fault_paths(with(client_credentials(), empty)), ["clientId", "clientSecret"]);
        let jwt = json!({"type": "jwt", "algorithm": "HS256", "secret": "s"});
        assert_eq!(fault_paths(with(jwt, json!({"scope": "a", "clientSecret": "s"}))), ["clientSecret", "scope"]);
        assert_eq!(fault_paths(json!({"type": "none", "tokenUrl": "https://t.example/"})), ["$.authentication"]);
    }

    #[test]
    fn an_edit_keeps_the_client_secret_but_not_for_another_method() {
        let mut old = settings(client_credentials());
        let shown = serde_json::to_value(&old.authentication).unwrap();
        assert_eq!(shown["clientSecret"], json!({"set": true}));
        let sealed = old.take_secrets();
        assert!(!serde_json::to_string(&old).unwrap().contains("s3cret"));
        let mut omitted = client_credentials();
        omitted.as_object_mut().unwrap().remove("clientSecret");
        for kept in [shown, omitted] {
            let mut same = settings(kept);
            same.fill_secrets(&sealed);
            assert_eq!(same.authentication.client_secret.unwrap().expose(), "s3cret");
        }
        for other in [jwt_bearer(), json!({"type": "jwt", "algorithm": "HS256"}), json!({"type": "none"})] {
            let mut other = settings(other);
            other.fill_secrets(&sealed);
            assert!(other.authentication.client_secret.is_none() && other.authentication.secret.is_none());
        }
        assert!(!format!("{:?}", settings(client_credentials())).contains("s3cret"));
    }
}
