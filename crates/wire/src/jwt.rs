//! JSON Web Tokens that prove to an endpoint who calls, and the keys behind them.
//!
//! Tokens are JWS in compact form (RFC 7515) with the claims of RFC 7519; algorithms are those of RFC 7518 section 3.1
//! and, for `EdDSA`, RFC 8037; public keys are shown as JWK (RFC 7517).
//!
//! Signing uses `aws-lc-rs` with keys prepared once: `jsonwebtoken` reads an RSA key anew for each token, which takes
//! longer than the signature itself. Verifying, which only a receiver does, uses `jsonwebtoken`, so the two sides
//! check each other in the tests.

mod der;
mod private_pem;
mod signing_key;
mod verify;

pub use model::webhook::JwtAlgorithm;
pub use private_pem::generate_private_pem;
pub use signing_key::SigningKey;
pub use verify::{Expected, VerificationKey, VerifyError, key_id, verify};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

/// What a token says.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// `iss`.
    pub issuer: Option<&'a str>,
    /// `sub`.
    pub subject: Option<&'a str>,
    /// `aud`.
    pub audience: Option<&'a str>,
    /// `iat`, in seconds since 1970.
    pub issued_at_secs: i64,
    /// How long after `iat` the token's `exp` is.
    pub expires_in_secs: u32,
    /// Further claims. They never replace `iat` and `exp`, nor the fields above that are set.
    pub extra: &'a Map<String, Value>,
}

impl Claims<'_> {
    /// `exp`, in seconds since 1970: from then on the token is not to be used.
    pub fn expires_at_secs(&self) -> i64 {
        self.issued_at_secs.saturating_add(i64::from(self.expires_in_secs))
    }

    fn named(&self) -> [(&'static str, Option<&str>); 3] {
        [("iss", self.issuer), ("sub", self.subject), ("aud", self.audience)]
    }

    fn takes_extra(&self, name: &str) -> bool {
        let set = |(key, value): (&str, Option<&str>)| key == name && value.is_some();
        !matches!(name, "iat" | "exp") && !self.named().into_iter().any(set)
    }
}

impl Serialize for Claims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.named() {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("iat", &self.issued_at_secs)?;
        map.serialize_entry("exp", &self.expires_at_secs())?;
        for (name, value) in self.extra.iter().filter(|(name, _)| self.takes_extra(name)) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl SigningKey {
    /// A token in compact form, with the header `alg`, `typ` and, where given, `kid`.
    ///
    /// # Errors
    /// When the cryptographic library fails, which a key that was read whole does not make it do.
    pub fn sign(&self, kid: Option<&str>, claims: &Claims<'_>) -> Result<SecretString, SignError> {
        let header = Header { alg: self.algorithm(), typ: "JWT", kid };
        let mut token = String::with_capacity(512);
        push_json(&header, &mut token);
        token.push('.');
        push_json(claims, &mut token);
        let signature = self.signature_of(token.as_bytes()).ok_or(SignError::Failed)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(SecretString::from(token))
    }
}

/// A `jti` (RFC 7519 section 4.1.7) that no other token has: 128 random bits.
///
/// # Errors
/// When the cryptographic library has none.
pub fn unique_id() -> Result<String, SignError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| SignError::Failed)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An HMAC secret without a byte.
    #[error("the secret is empty; set one of at least 32 characters")]
    EmptySecret,
    /// A secret was given for an algorithm of key pairs.
    #[error("{} signs with a private key, not with a secret", name(*.0))]
    NeedsPrivateKey(JwtAlgorithm),
    /// A private key was given, or asked for, with an HMAC algorithm.
    #[error("{} signs with a secret, not with a private key", name(*.0))]
    NeedsSecret(JwtAlgorithm),
    /// No PEM block with a private key.
    #[error("the private key is not PEM; paste it whole, from `-----BEGIN … PRIVATE KEY-----` to its end line")]
    NotPem,
    /// A PEM block that holds something else, such as a certificate.
    #[error("the PEM holds no private key but a `{0}`; paste the private key")]
    NotPrivate(String),
    /// A key under a passphrase.
    #[error("the private key is encrypted; decrypt it first, e.g. with `openssl pkey -in key.pem`")]
    Encrypted,
    /// A key of another kind than the algorithm signs with.
    #[error("{} needs {}, but this is {found}", name(*.algorithm), wanted(*.algorithm))]
    WrongType {
        /// The algorithm asked for.
        algorithm: JwtAlgorithm,
        /// What the PEM holds.
        found: &'static str,
    },
    /// RSA under 2048 bits, which RFC 7518 section 3.3 forbids.
    #[error("the RSA key has {0} bits; RFC 7518 asks for at least 2048")]
    RsaTooShort(usize),
    /// An elliptic curve that ES256 is not defined for.
    #[error("the EC key is not on the curve P-256 (prime256v1), the only one ES256 is defined for")]
    NotP256,
    /// The right kind of key, but broken.
    #[error("the private key cannot be read: its content is damaged or inconsistent")]
    Invalid,
    /// A new key pair could not be made.
    #[error("the cryptographic library could not make a key pair")]
    Generation,
}

/// Why no token could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The cryptographic library failed.
    #[error("the cryptographic library could not make the signature")]
    Failed,
}

#[derive(serde::Serialize)]
struct Header<'a> {
    alg: JwtAlgorithm,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

fn push_json(part: &impl Serialize, token: &mut String) {
    let json = serde_json::to_vec(part).expect("string keys and JSON values always serialize");
    URL_SAFE_NO_PAD.encode_string(json, token);
}

/// The algorithm's name in RFC 7518 and RFC 8037.
fn name(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::HS256 => "HS256",
        JwtAlgorithm::HS384 => "HS384",
        JwtAlgorithm::HS512 => "HS512",
        JwtAlgorithm::RS256 => "RS256",
        JwtAlgorithm::PS256 => "PS256",
        JwtAlgorithm::ES256 => "ES256",
        JwtAlgorithm::EdDSA => "EdDSA",
    }
}

/// The key that the algorithm signs with, with its article.
fn wanted(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512 => "a secret",
        JwtAlgorithm::RS256 | JwtAlgorithm::PS256 => "an RSA key",
        JwtAlgorithm::ES256 => "an EC key on P-256",
        JwtAlgorithm::EdDSA => "an Ed25519 key",
    }
}

#[cfg(test)]
mod tests;
