//! Standard Webhooks 1.0: symmetric signatures (`v1`, HMAC-SHA256) and asymmetric ones (`v1a`, Ed25519).
//!
//! The signed text is `<webhook-id>.<webhook-timestamp>.<body>`; the header holds one signature for each key,
//! separated by spaces, so that a receiver with either key of a rotation is content. See
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
//!
//! Neither the id nor the timestamp may hold a full stop, or two different requests could sign the same text; Esito's
//! ids are UUIDs.

mod asymmetric;

pub use asymmetric::{
    KeyPairError, PRIVATE_KEY_PREFIX, PUBLIC_KEY_PREFIX, PublicKey, PublicKeyError, SigningKeyPair, verify_v1a,
};

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice};
use std::fmt;
use std::ops::RangeInclusive;

/// How secrets are written, so that they are known for what they are when they leak.
pub const SECRET_PREFIX: &str = "whsec_";

/// The lengths of a secret, decoded, that the standard allows.
pub const SECRET_BYTES: RangeInclusive<usize> = 24..=64;

/// The tolerance for clocks that the standard's own libraries use.
pub const DEFAULT_TOLERANCE_SECS: u32 = 300;

const VERSION_PREFIX: &str = "v1,";

/// The length of one signature in the header: the version, 32 bytes in base64, and a space.
const SIGNATURE_CHARS: usize = VERSION_PREFIX.len() + 44 + 1;

/// A webhook's secret, prepared for signing. Its content is erased from memory when it goes.
#[derive(Clone)]
pub struct SigningSecret {
    bytes: SecretSlice<u8>,
    key: hmac::Key,
}

impl SigningSecret {
    /// A new secret from the caller's random bytes.
    pub fn generate_from(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self::from_bytes(bytes.to_vec())
    }

    /// Reads a secret as users write it: `whsec_` and base64, or the base64 alone, padded or not.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let encoded = text.strip_prefix(SECRET_PREFIX).unwrap_or(text);
        let bytes = UNPADDED_TOO.decode(encoded).map(Zeroizing::new);
        let mut bytes = bytes.map_err(|_| SecretError::NotBase64)?;
        match bytes.len() {
            len if SECRET_BYTES.contains(&len) => Ok(Self::from_bytes(std::mem::take(&mut *bytes))),
            len => Err(SecretError::Length(len)),
        }
    }

    /// The secret as it is shown to the customer, once: `whsec_` and base64.
    pub fn reveal(&self) -> String {
        let mut text = String::with_capacity(SECRET_PREFIX.len() + 88);
        text.push_str(SECRET_PREFIX);
        STANDARD.encode_string(self.bytes.expose_secret(), &mut text);
        text
    }

    fn from_bytes(bytes: Vec<u8>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Self { bytes: SecretSlice::from(bytes), key }
    }

    fn tag(&self, id: &str, timestamp: &str, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            context.update(part);
        }
        context.sign()
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

/// A key of either scheme, prepared for signing.
#[derive(Debug)]
pub enum WebhookKey {
    /// A shared secret: `v1`. Boxed: the prepared state of the key takes over a kilobyte.
    V1(Box<SigningSecret>),
    /// A key pair: `v1a`.
    V1a(SigningKeyPair),
}

impl WebhookKey {
    /// Reads a key by its prefix: `whsk_` is a private key, all else a secret.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, WebhookKeyError> {
        match text.trim().starts_with(PRIVATE_KEY_PREFIX) {
            true => Ok(Self::V1a(SigningKeyPair::parse(text)?)),
            false => Ok(Self::V1(Box::new(SigningSecret::parse(text)?))),
        }
    }

    /// The public half of a key pair.
    pub fn public_key(&self) -> Option<PublicKey> {
        match self {
            Self::V1(_) => None,
            Self::V1a(pair) => Some(pair.public_key()),
        }
    }
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookKeyError {
    /// It is no secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It is no private key.
    #[error(transparent)]
    KeyPair(#[from] KeyPairError),
}

/// The value of `webhook-signature`: one `v1` signature for each secret, in their order.
pub fn sign_v1<'a>(
    secrets: impl IntoIterator<Item = &'a SigningSecret>,
    id: &str,
    timestamp_secs: i64,
    body: &[u8],
) -> String {
    let timestamp = timestamp_secs.to_string();
    let secrets = secrets.into_iter();
    let mut header = String::with_capacity(secrets.size_hint().0 * SIGNATURE_CHARS);
    for secret in secrets {
        push(&mut header, VERSION_PREFIX, secret.tag(id, &timestamp, body));
    }
    header
}

/// The value of `webhook-signature`: one signature for each key, in their order, of the key's scheme.
pub fn sign<'a>(keys: impl IntoIterator<Item = &'a WebhookKey>, id: &str, timestamp_secs: i64, body: &[u8]) -> String {
    let timestamp = timestamp_secs.to_string();
    let keys = keys.into_iter();
    let mut header = String::with_capacity(keys.size_hint().0 * asymmetric::SIGNATURE_CHARS);
    for key in keys {
        match key {
            WebhookKey::V1(secret) => push(&mut header, VERSION_PREFIX, secret.tag(id, &timestamp, body)),
            WebhookKey::V1a(pair) => {
                let message = asymmetric::signed_text(id, &timestamp, body);
                push(&mut header, asymmetric::VERSION_PREFIX, pair.signature(&message));
            }
        }
    }
    header
}

fn push(header: &mut String, version: &str, signature: impl AsRef<[u8]>) {
    if !header.is_empty() {
        header.push(' ');
    }
    header.push_str(version);
    STANDARD.encode_string(signature, header);
}

/// Checks a request as a receiver does: the timestamp is within the tolerance of now, and one of the signatures is
/// ours. Signatures of other versions are passed over, as the standard asks.
///
/// # Errors
/// Says which check failed.
pub fn verify_v1(
    secret: &SigningSecret,
    id: &str,
    timestamp_header: &str,
    signature_header: &str,
    body: &[u8],
    now_secs: i64,
    tolerance_secs: u32,
) -> Result<(), VerifyError> {
    check_timestamp(timestamp_header, now_secs, tolerance_secs)?;
    let tag = secret.tag(id, timestamp_header, body);
    let mut seen = false;
    for encoded in signature_header.split(' ').filter_map(|part| part.strip_prefix(VERSION_PREFIX)) {
        seen = true;
        if is_tag(encoded, &tag) {
            return Ok(());
        }
    }
    Err(if seen { VerifyError::Mismatch } else { VerifyError::NoSignature })
}

/// Why a text is no webhook secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not base64, with or without the prefix.
    #[error("the secret is not base64; write `whsec_` and 24 to 64 bytes in standard base64")]
    NotBase64,
    /// Too short to be safe, or too long for the standard.
    #[error("the secret has {0} bytes; the standard asks for 24 to 64")]
    Length(usize),
}

/// Why a request does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The timestamp is not a whole number of seconds.
    #[error("webhook-timestamp is not a number of seconds since 1970")]
    Timestamp,
    /// The timestamp is older than the tolerance: a replay, or a slow clock at the sender.
    #[error("webhook-timestamp is {0} s in the past, more than the tolerance; compare the clocks")]
    TooOld(u64),
    /// The timestamp is further ahead than the tolerance.
    #[error("webhook-timestamp is {0} s in the future, more than the tolerance; compare the clocks")]
    TooNew(u64),
    /// The header holds no `v1` signature.
    #[error("webhook-signature holds no v1 signature")]
    NoSignature,
    /// The header holds no `v1a` signature.
    #[error("webhook-signature holds no v1a signature")]
    NoV1aSignature,
    /// No signature is of this key, id, timestamp and body.
    #[error("no signature matches; compare the public key, and verify the body's bytes as received")]
    MismatchedKey,
    /// No signature is of this secret, id, timestamp and body.
    #[error("no signature matches; compare the secret, and verify the body's bytes as received")]
    Mismatch,
}

const UNPADDED_TOO: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn check_timestamp(header: &str, now_secs: i64, tolerance_secs: u32) -> Result<(), VerifyError> {
    // `parse` would take a plus sign, which the signature of the same instant does not.
    if header.starts_with('+') {
        return Err(VerifyError::Timestamp);
    }
    let timestamp: i64 = header.parse().map_err(|_| VerifyError::Timestamp)?;
    let distance = timestamp.abs_diff(now_secs);
    if distance <= u64::from(tolerance_secs) {
        return Ok(());
    }
    Err(if timestamp < now_secs { VerifyError::TooOld(distance) } else { VerifyError::TooNew(distance) })
}

/// Compares in a time that does not depend on where the two differ.
fn is_tag(encoded: &str, tag: &hmac::Tag) -> bool {
    let mut decoded = [0; 48];
    match STANDARD.decode_slice(encoded, &mut decoded) {
        Ok(len) => constant_time::verify_slices_are_equal(&decoded[..len], tag.as_ref()).is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
