//! Asymmetric signatures (`v1a`, Ed25519): the receiver needs the public key only.

use super::{UNPADDED_TOO, VerifyError, check_timestamp};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretSlice};
use std::fmt;

/// How private keys are written, so that they are known for what they are when they leak.
pub const PRIVATE_KEY_PREFIX: &str = "whsk_";

/// How public keys are written.
pub const PUBLIC_KEY_PREFIX: &str = "whpk_";

pub(super) const VERSION_PREFIX: &str = "v1a,";

/// The length of one signature in the header: the version, 64 bytes in base64, and a space.
pub(super) const SIGNATURE_CHARS: usize = VERSION_PREFIX.len() + 88 + 1;

const SEED_BYTES: usize = 32;
const PUBLIC_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// A webhook's key pair, prepared for signing. The seed is erased from memory when it goes.
pub struct SigningKeyPair {
    seed: SecretSlice<u8>,
    pair: Ed25519KeyPair,
}

impl SigningKeyPair {
    /// A new key pair from the caller's random bytes.
    ///
    /// # Errors
    /// When the cryptographic library fails, which 32 bytes do not make it do.
    pub fn generate_from(seed: [u8; SEED_BYTES]) -> Result<Self, KeyPairError> {
        let seed = Zeroizing::new(seed);
        Self::from_seed(&*seed)
    }

    /// Reads a private key as users write it: `whsk_` and the base64 of the seed, with the public key behind it or not.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, KeyPairError> {
        let encoded = text.trim().strip_prefix(PRIVATE_KEY_PREFIX).ok_or(KeyPairError::Prefix)?;
        let bytes = UNPADDED_TOO.decode(encoded).map(Zeroizing::new).map_err(|_| KeyPairError::NotBase64)?;
        let (seed, public) = bytes.split_at_checked(SEED_BYTES).ok_or(KeyPairError::Length(bytes.len()))?;
        let pair = Self::from_seed(seed)?;
        match public.len() {
            0 => Ok(pair),
            PUBLIC_BYTES if pair.pair.public_key().as_ref() == public => Ok(pair),
            PUBLIC_BYTES => Err(KeyPairError::Halves),
            _ => Err(KeyPairError::Length(bytes.len())),
        }
    }

    /// The private key in the form that the standard's libraries read: `whsk_` and the base64 of seed and public key.
    pub fn reveal(&self) -> String {
        let bytes = Zeroizing::new([self.seed.expose_secret(), self.pair.public_key().as_ref()].concat());
        let mut text = String::with_capacity(PRIVATE_KEY_PREFIX.len() + 88);
        text.push_str(PRIVATE_KEY_PREFIX);
        STANDARD.encode_string(&*bytes, &mut text);
        text
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; PUBLIC_BYTES];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    pub(super) fn signature(&self, message: &[u8]) -> impl AsRef<[u8]> {
        self.pair.sign(message)
    }

    fn from_seed(seed: &[u8]) -> Result<Self, KeyPairError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyPairError::Library)?;
        Ok(Self { seed: SecretSlice::from(seed.to_vec()), pair })
    }
}

impl fmt::Debug for SigningKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKeyPair({}, …)", self.public_key())
    }
}

/// The public half of a key pair. It is written `whpk_` and base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC_BYTES]);

impl PublicKey {
    /// Reads a public key as Esito shows it.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PublicKeyError> {
        let encoded = text.trim().strip_prefix(PUBLIC_KEY_PREFIX).ok_or(PublicKeyError::Prefix)?;
        let bytes = UNPADDED_TOO.decode(encoded).map_err(|_| PublicKeyError::NotBase64)?;
        let length = PublicKeyError::Length(bytes.len());
        bytes.try_into().map(Self).map_err(|_| length)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_KEY_PREFIX}{}", STANDARD.encode(self.0))
    }
}

/// Checks a request as a receiver does: the timestamp is within the tolerance of now, and one of the `v1a` signatures
/// is of the key's private half. Signatures of other versions are passed over, as the standard asks.
///
/// # Errors
/// Says which check failed.
pub fn verify_v1a(
    key: &PublicKey,
    id: &str,
    timestamp_header: &str,
    signature_header: &str,
    body: &[u8],
    now_secs: i64,
    tolerance_secs: u32,
) -> Result<(), VerifyError> {
    check_timestamp(timestamp_header, now_secs, tolerance_secs)?;
    let message = signed_text(id, timestamp_header, body);
    let key = UnparsedPublicKey::new(&ED25519, key.0);
    let mut seen = false;
    for encoded in signature_header.split(' ').filter_map(|part| part.strip_prefix(VERSION_PREFIX)) {
        seen = true;
        let mut decoded = [0; SIGNATURE_BYTES + 4];
        let length = STANDARD.decode_slice(encoded, &mut decoded).unwrap_or(0);
        if key.verify(&message, &decoded[..length]).is_ok() {
            return Ok(());
        }
    }
    Err(if seen { VerifyError::MismatchedKey } else { VerifyError::NoV1aSignature })
}

pub(super) fn signed_text(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

/// Why a text is no private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPairError {
    /// Something else.
    #[error("the private key does not begin with `whsk_`")]
    Prefix,
    /// Not base64 behind the prefix.
    #[error("the private key is not base64; write `whsk_` and the key in standard base64")]
    NotBase64,
    /// Neither a seed nor a seed with its public key.
    #[error("the private key has {0} bytes; Ed25519 has 32, or 64 with its public key")]
    Length(usize),
    /// The public key is of another seed.
    #[error("the private key's two halves do not belong together")]
    Halves,
    /// The cryptographic library failed.
    #[error("the cryptographic library could not read the private key")]
    Library,
}

/// Why a text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Something else: a secret, perhaps.
    #[error("the public key does not begin with `whpk_`")]
    Prefix,
    /// Not base64 behind the prefix.
    #[error("the public key is not base64; write `whpk_` and 32 bytes in standard base64")]
    NotBase64,
    /// Too short or too long.
    #[error("the public key has {0} bytes; Ed25519 has 32")]
    Length(usize),
}

#[cfg(test)]
mod tests;
