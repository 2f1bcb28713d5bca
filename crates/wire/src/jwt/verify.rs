//! The receiver's side: checks a token with a secret or a public JWK.

use super::name;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use model::webhook::JwtAlgorithm;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use std::fmt;

/// A key that checks tokens.
pub struct VerificationKey {
    key: DecodingKey,
    /// What the JWK's own `alg` says it is for.
    intended: Option<String>,
}

impl VerificationKey {
    /// A shared secret, by its UTF-8 bytes.
    pub fn hmac(secret: &SecretString) -> Self {
        let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self { key, intended: None }
    }

    /// A public JWK: `RSA`, `EC` on P-256, or `OKP` with Ed25519. `None` for any other, or one with members missing.
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let member = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(member(name)?).ok();
        let coordinate = |name: &str| bytes(name).filter(|bytes| bytes.len() == 32);
        let key = match (member("kty")?, member("crv")) {
            ("RSA", None) => DecodingKey::from_rsa_raw_components(&bytes("n")?, &bytes("e")?),
            ("EC", Some("P-256")) => {
                // An uncompressed point (SEC 1, section 2.3.3).
                let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
                DecodingKey::from_ec_der(&point)
            }
            ("OKP", Some("Ed25519")) => DecodingKey::from_ed_der(&coordinate("x")?),
            _ => return None,
        };
        Some(Self { key, intended: member("alg").map(str::to_owned) })
    }

    fn fits(&self, algorithm: JwtAlgorithm) -> bool {
        let family = match algorithm {
            JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512 => AlgorithmFamily::Hmac,
            JwtAlgorithm::RS256 | JwtAlgorithm::PS256 => AlgorithmFamily::Rsa,
            JwtAlgorithm::ES256 => AlgorithmFamily::Ec,
            JwtAlgorithm::EdDSA => AlgorithmFamily::Ed,
        };
        let intended = self.intended.as_deref().is_none_or(|alg| alg == name(algorithm));
        self.key.family() == family && intended
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerificationKey(…)")
    }
}

/// What a token must say to be accepted. `exp` must be there and ahead; `nbf`, where it is there, behind.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The only algorithm accepted, whatever the token's header says.
    pub algorithm: JwtAlgorithm,
    /// `iss`; not checked where none.
    pub issuer: Option<&'a str>,
    /// One of the values of `aud`; not checked where none.
    pub audience: Option<&'a str>,
    /// Now, in seconds since 1970.
    pub now_secs: i64,
    /// How far the two clocks may differ.
    pub leeway_secs: u32,
}

/// Checks a token's signature and claims; its claims, if all is well.
///
/// # Errors
/// Says which check failed.
pub fn verify(token: &str, key: &VerificationKey, expected: &Expected<'_>) -> Result<Map<String, Value>, VerifyError> {
    if !key.fits(expected.algorithm) {
        return Err(VerifyError::Key(name(expected.algorithm)));
    }
    let parts = Parts::of(token).ok_or(VerifyError::Malformed)?;
    let header = jsonwebtoken::decode_header(token).map_err(|_| VerifyError::Malformed)?;
    let algorithm = library_algorithm(expected.algorithm);
    if header.alg != algorithm {
        return Err(VerifyError::Algorithm(name(expected.algorithm)));
    }
    // RFC 7515 section 4.1.11: what is critical and not understood must not be accepted.
    if header.crit.is_some() {
        return Err(VerifyError::Critical);
    }
    parts.check_signature(&key.key, algorithm)?;
    let claims = parts.claims().ok_or(VerifyError::Malformed)?;
    check_times(&claims, expected)?;
    check_parties(&claims, expected)?;
    Ok(claims)
}

/// The `kid` in a token's header, to choose the key by. Nothing is verified yet.
///
/// # Errors
/// When the text is no token.
pub fn key_id(token: &str) -> Result<Option<String>, VerifyError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| VerifyError::Malformed)?;
    Ok(header.kid)
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not three parts of base64url with JSON objects in the first two, or an unknown algorithm.
    #[error("this is no JSON Web Token in compact form")]
    Malformed,
    /// The key is not for the algorithm that is expected.
    #[error("the key at hand is not for {0}")]
    Key(&'static str),
    /// The header names another algorithm.
    #[error("the token is not signed by {0}")]
    Algorithm(&'static str),
    /// The signature is not of this key.
    #[error("the signature does not match; compare the key")]
    Signature,
    /// The header asks for extensions to be understood.
    #[error("the token has critical header parameters, and none are understood here")]
    Critical,
    /// `exp` is missing, or a time is not a number.
    #[error("the claim `{0}` is not a number of seconds since 1970")]
    Time(&'static str),
    /// `exp` has passed.
    #[error("the token expired {0} s ago")]
    Expired(u64),
    /// `nbf` is ahead.
    #[error("the token is not valid for another {0} s")]
    NotYet(u64),
    /// `iss` is another.
    #[error("the token's issuer is not the expected one")]
    Issuer,
    /// `aud` does not name the receiver.
    #[error("the token is meant for another audience")]
    Audience,
}

/// A token's pieces. The library's own `decode` is not used: its checks of the claims read the system's clock.
struct Parts<'a> {
    /// Header and payload, as they were signed.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let three = !header.is_empty() && !payload.contains('.');
        three.then_some(Self { message, payload, signature })
    }

    fn check_signature(&self, key: &DecodingKey, algorithm: Algorithm) -> Result<(), VerifyError> {
        match crypto::verify(self.signature, self.message.as_bytes(), key, algorithm) {
            Ok(true) => Ok(()),
            Ok(false) => Err(VerifyError::Signature),
            Err(_) => Err(VerifyError::Malformed),
        }
    }

    fn claims(&self) -> Option<Map<String, Value>> {
        let json = URL_SAFE_NO_PAD.decode(self.payload).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

fn library_algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::HS256 => Algorithm::HS256,
        JwtAlgorithm::HS384 => Algorithm::HS384,
        JwtAlgorithm::HS512 => Algorithm::HS512,
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

fn check_times(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), VerifyError> {
    let leeway = i64::from(expected.leeway_secs);
    let expires = seconds(claims, "exp")?.ok_or(VerifyError::Time("exp"))?;
    if expected.now_secs >= expires.saturating_add(leeway) {
        return Err(VerifyError::Expired(expected.now_secs.abs_diff(expires)));
    }
    match seconds(claims, "nbf")? {
        Some(start) if expected.now_secs < start.saturating_sub(leeway) => {
            Err(VerifyError::NotYet(start.abs_diff(expected.now_secs)))
        }
        _ => Ok(()),
    }
}

/// A NumericDate of RFC 7519 section 2, which may have a fraction.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, VerifyError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    // The cast saturates, and drops what lies under a second.
    let whole = value.as_i64().or_else(|| value.as_f64().map(|secs| secs as i64));
    whole.map(Some).ok_or(VerifyError::Time(name))
}

fn check_parties(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), VerifyError> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    if expected.issuer.is_some_and(|expected| issuer != Some(expected)) {
        return Err(VerifyError::Issuer);
    }
    let audience = claims.get("aud");
    if expected.audience.is_some_and(|expected| !names(audience, expected)) {
        return Err(VerifyError::Audience);
    }
    Ok(())
}

/// Whether `aud`, a string or an array of them (RFC 7519 section 4.1.3), names the receiver.
fn names(audience: Option<&Value>, receiver: &str) -> bool {
    match audience {
        Some(Value::String(one)) => one == receiver,
        Some(Value::Array(several)) => several.iter().any(|one| one == receiver),
        _ => false,
    }
}
