//! A key that signs tokens, prepared once.

use super::private_pem::{Kind, PrivateKey};
use super::{KeyError, der, name};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::webhook::JwtAlgorithm;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::fmt;

/// A key that signs tokens by one algorithm. Nothing shows its content.
pub struct SigningKey {
    algorithm: JwtAlgorithm,
    key: Key,
}

impl SigningKey {
    /// A shared secret, by its UTF-8 bytes. Any length but zero: receivers that exist may use short ones.
    ///
    /// # Errors
    /// When the secret is empty, or the algorithm signs with a key pair.
    pub fn hmac(algorithm: JwtAlgorithm, secret: &SecretString) -> Result<Self, KeyError> {
        let digest = match algorithm {
            JwtAlgorithm::HS256 => hmac::HMAC_SHA256,
            JwtAlgorithm::HS384 => hmac::HMAC_SHA384,
            JwtAlgorithm::HS512 => hmac::HMAC_SHA512,
            _ => return Err(KeyError::NeedsPrivateKey(algorithm)),
        };
        if secret.expose_secret().is_empty() {
            return Err(KeyError::EmptySecret);
        }
        let key = hmac::Key::new(digest, secret.expose_secret().as_bytes());
        let key = Key::Hmac(Box::new(key));
        Ok(Self { algorithm, key })
    }

    /// A private key out of a PEM: PKCS#8, or the traditional `RSA PRIVATE KEY` and `EC PRIVATE KEY`.
    ///
    /// # Errors
    /// Names what is wrong with the PEM or with its key, without repeating any of it.
    pub fn from_private_pem(algorithm: JwtAlgorithm, pem: &SecretString) -> Result<Self, KeyError> {
        if algorithm.is_hmac() {
            return Err(KeyError::NeedsSecret(algorithm));
        }
        let private = PrivateKey::read(pem)?;
        let key = match (algorithm, private.kind()) {
            (JwtAlgorithm::RS256, Kind::Rsa) => Key::Rsa(read_rsa(&private)?, &RSA_PKCS1_SHA256),
            (JwtAlgorithm::PS256, Kind::Rsa | Kind::RsaPss) => Key::Rsa(read_rsa(&private)?, &RSA_PSS_SHA256),
            (JwtAlgorithm::ES256, Kind::Ec) => Key::P256(read_p256(&private)?),
            (JwtAlgorithm::EdDSA, Kind::Ed25519) => Key::Ed25519(read_ed25519(&private)?),
            (_, kind) => {
                return Err(KeyError::WrongType { algorithm, found: kind.phrase() });
            }
        };
        Ok(Self { algorithm, key })
    }

    /// The algorithm that the key signs by.
    pub fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    /// The public half as a JWK (RFC 7517, 7518 section 6, 8037 section 2); none for a shared secret.
    pub fn public_jwk(&self, kid: &str) -> Option<Value> {
        let mut jwk = match &self.key {
            Key::Hmac(_) => return None,
            Key::Rsa(pair, _) => rsa_jwk(pair.public_key().as_ref()),
            Key::P256(pair) => p256_jwk(pair.public_key().as_ref()),
            Key::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref())})
            }
        };
        jwk["use"] = json!("sig");
        jwk["alg"] = json!(name(self.algorithm));
        jwk["kid"] = json!(kid);
        Some(jwk)
    }

    pub(super) fn signature_of(&self, message: &[u8]) -> Option<Vec<u8>> {
        match &self.key {
            Key::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Key::Rsa(pair, padding) => rsa_signature(pair, *padding, message),
            Key::P256(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message).ok()?;
                Some(signature.as_ref().to_vec())
            }
            Key::Ed25519(pair) => Some(pair.try_sign(message).ok()?.as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, …)", name(self.algorithm))
    }
}

enum Key {
    /// Boxed: the prepared state of a key takes over a kilobyte.
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

fn read_rsa(private: &PrivateKey) -> Result<RsaKeyPair, KeyError> {
    let bits = private.rsa_bits().ok_or(KeyError::Invalid)?;
    if bits < 2048 {
        return Err(KeyError::RsaTooShort(bits));
    }
    // The bare form serves keys restricted to PSS too, which the library does not read from PKCS#8.
    let bare = private.bare().ok_or(KeyError::Invalid)?;
    RsaKeyPair::from_der(bare).map_err(|_| KeyError::Invalid)
}

fn read_p256(private: &PrivateKey) -> Result<EcdsaKeyPair, KeyError> {
    if !private.names_p256() {
        return Err(KeyError::NotP256);
    }
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = match (private.pkcs8(), private.bare()) {
        (Some(pkcs8), _) => EcdsaKeyPair::from_pkcs8(algorithm, pkcs8),
        (None, Some(bare)) => EcdsaKeyPair::from_private_key_der(algorithm, bare),
        (None, None) => return Err(KeyError::Invalid),
    };
    pair.map_err(|_| KeyError::Invalid)
}

fn read_ed25519(private: &PrivateKey) -> Result<Ed25519KeyPair, KeyError> {
    let pkcs8 = private.pkcs8().ok_or(KeyError::Invalid)?;
    Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| KeyError::Invalid)
}

fn rsa_signature(pair: &RsaKeyPair, padding: &'static dyn RsaEncoding, message: &[u8]) -> Option<Vec<u8>> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature).ok()?;
    Some(signature)
}

/// From `RSAPublicKey` of RFC 8017: a sequence of the modulus and the exponent.
fn rsa_jwk(public: &[u8]) -> Value {
    let numbers = || {
        let (modulus, rest) = der::unsigned(der::content(public, der::SEQUENCE)?)?;
        let (exponent, _) = der::unsigned(rest)?;
        Some((modulus, exponent))
    };
    let (modulus, exponent) = numbers().expect("the library writes its public keys as RSAPublicKey");
    json!({"kty": "RSA", "n": base64url(modulus), "e": base64url(exponent)})
}

/// From an uncompressed point (SEC 1, section 2.3.3): 4, x, y.
fn p256_jwk(public: &[u8]) -> Value {
    let (x, y) = public[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "x": base64url(x), "y": base64url(y)})
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
