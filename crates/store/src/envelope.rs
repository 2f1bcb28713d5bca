//! Envelopes for secrets at rest.
//!
//! Each row's secrets are sealed with a key of their own by AES-256-GCM, and that key is sealed with the master key.
//! The row's id is authenticated with both, so an envelope moved to another row does not open. The master key is never
//! in the database: a copy of the file alone gives nothing away.

use crate::{Result, StoreError};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use model::secret::SecretMap;
use secrecy::{ExposeSecret, SecretSlice};
use std::fmt;

/// The key that opens every envelope of a store.
pub struct MasterKey {
    key: RandomizedNonceKey,
    /// Tells keys apart without giving them away.
    fingerprint: [u8; FINGERPRINT_LEN],
    /// For digests that only the master key's holder can make.
    digests: hmac::Key,
}

const VERSION: u8 = 1;
const FINGERPRINT_LEN: usize = 4;
const KEY_LEN: usize = 32;
const TAG_LEN: usize = 16;
const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + TAG_LEN;
const HEAD_LEN: usize = 1 + FINGERPRINT_LEN;

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// The master key of these 32 bytes.
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        let named = digest(&SHA256, &[b"esito master key".as_slice(), bytes].concat());
        let fingerprint = named.as_ref()[..FINGERPRINT_LEN].try_into().expect("a digest is longer");
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), b"esito digests");
        let digests = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Self { key: aead_key(bytes).expect("32 bytes are a key"), fingerprint, digests }
    }

    /// A digest that tells nothing to whoever has not the key: HMAC-SHA-256 under a key derived from it.
    pub fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        hmac::sign(&self.digests, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Seals the secrets of the row `row_id`; none where there are none.
    pub fn seal(&self, row_id: &[u8], secrets: &SecretMap) -> Result<Option<Vec<u8>>> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let mut row_key = zeroizing_key()?;
        let mut envelope = vec![VERSION];
        envelope.extend_from_slice(&self.fingerprint);
        append_sealed(&mut envelope, &self.key, row_id, row_key.expose_secret())?;
        append_sealed(
            &mut envelope,
            &aead_key(row_key.expose_secret())?,
            row_id,
            secrets.to_plain_json().expose_secret(),
        )?;
        row_key = SecretSlice::default();
        drop(row_key);
        Ok(Some(envelope))
    }

    /// Opens what [`MasterKey::seal`] sealed for the same row.
    pub fn open(&self, row_id: &[u8], envelope: Option<&[u8]>) -> Result<SecretMap> {
        let Some(envelope) = envelope else { return Ok(SecretMap::default()) };
        let broken = || StoreError::Corrupt("an envelope of secrets is broken".to_owned());
        if envelope.len() < HEAD_LEN + WRAPPED_LEN + NONCE_LEN + TAG_LEN || envelope[0] != VERSION {
            return Err(broken());
        }
        if envelope[1..HEAD_LEN] != self.fingerprint {
            return Err(StoreError::Corrupt("secrets were sealed with another master key".to_owned()));
        }
        let (wrapped, sealed) = envelope[HEAD_LEN..].split_at(WRAPPED_LEN);
        let row_key = open_sealed(&self.key, row_id, wrapped).ok_or_else(broken)?;
        let plain = open_sealed(&aead_key(row_key.expose_secret())?, row_id, sealed).ok_or_else(broken)?;
        SecretMap::from_plain_json(plain.expose_secret()).map_err(|_| broken())
    }
}

fn aead_key(bytes: &[u8]) -> Result<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, bytes)
        .map_err(|_| StoreError::Corrupt("a key has the wrong length".to_owned()))
}

fn zeroizing_key() -> Result<SecretSlice<u8>> {
    let mut bytes = vec![0; KEY_LEN];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Unavailable("no random bytes to be had".to_owned()))?;
    Ok(bytes.into())
}

/// Appends nonce, ciphertext and tag.
fn append_sealed(out: &mut Vec<u8>, key: &RandomizedNonceKey, row_id: &[u8], plain: &[u8]) -> Result<()> {
    let mut buffer = plain.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(row_id), &mut buffer)
        .map_err(|_| StoreError::Unavailable("sealing failed".to_owned()))?;
    out.extend_from_slice(nonce.as_ref());
    out.extend_from_slice(&buffer);
    Ok(())
}

fn open_sealed(key: &RandomizedNonceKey, row_id: &[u8], sealed: &[u8]) -> Option<SecretSlice<u8>> {
    let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut buffer = ciphertext.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(row_id), &mut buffer).ok()?.to_vec();
    Some(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    #[test]
    fn an_envelope_opens_for_its_row_and_key_alone() {
        let master = MasterKey::new(&[7; 32]);
        let mut secrets = SecretMap::default();
        secrets.insert("authentication.secret", SecretString::from("correct horse".to_owned()));
        let envelope = master.seal(b"row 1", &secrets).unwrap().unwrap();
        assert!(!envelope.windows(7).any(|part| part == b"correct"));
        let opened = master.open(b"row 1", Some(&envelope)).unwrap();
        assert_eq!(opened.get("authentication.secret").unwrap().expose_secret(), "correct horse");
        assert!(master.open(b"row 2", Some(&envelope)).is_err());
        assert!(MasterKey::new(&[8; 32]).open(b"row 1", Some(&envelope)).is_err());
        for i in 0..envelope.len() {
            let mut bent = envelope.clone();
            bent[i] ^= 1;
            assert!(master.open(b"row 1", Some(&bent)).is_err(), "byte {i}");
        }
        assert!(master.open(b"row 1", Some(&envelope[..20])).is_err());
        assert!(master.seal(b"row 1", &SecretMap::default()).unwrap().is_none());
    }
}
