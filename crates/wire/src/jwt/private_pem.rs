//! Private keys as PEM (RFC 7468): PKCS#8 (RFC 5958), and the traditional forms of RSA (RFC 8017) and EC (RFC 5915).

use super::{KeyError, der};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::webhook::JwtAlgorithm;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::zeroize::{Zeroize as _, Zeroizing};
use secrecy::{ExposeSecret as _, SecretString};

/// Makes a key pair: RSA of 2048 bits, P-256 or Ed25519; its private half, as PKCS#8 PEM.
///
/// # Errors
/// When the algorithm signs with a secret, or the cryptographic library fails.
pub fn generate_private_pem(algorithm: JwtAlgorithm) -> Result<SecretString, KeyError> {
    match algorithm {
        JwtAlgorithm::RS256 | JwtAlgorithm::PS256 => generate_rsa(),
        JwtAlgorithm::ES256 => generate_p256(),
        JwtAlgorithm::EdDSA => generate_ed25519(),
        JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512 => Err(KeyError::NeedsSecret(algorithm)),
    }
}

fn generate_rsa() -> Result<SecretString, KeyError> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generation)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generation)?;
    Ok(write_pem(der.as_ref()))
}

fn generate_p256() -> Result<SecretString, KeyError> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let der = pair.and_then(|pair| pair.to_pkcs8v1()).map_err(|_| KeyError::Generation)?;
    Ok(write_pem(der.as_ref()))
}

/// Version 1 of PKCS#8, without the public half: version 2 is read by fewer programs.
fn generate_ed25519() -> Result<SecretString, KeyError> {
    let pair = Ed25519KeyPair::generate();
    let der = pair.and_then(|pair| pair.to_pkcs8v1()).map_err(|_| KeyError::Generation)?;
    Ok(write_pem(der.as_ref()))
}

/// What a PEM's private key is, by its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa,
    /// RSA with the identifier that restricts it to RSASSA-PSS (RFC 4055).
    RsaPss,
    Ec,
    Ed25519,
    Other,
}

impl Kind {
    /// The kind in words, with its article.
    pub(super) fn phrase(self) -> &'static str {
        match self {
            Self::Rsa => "an RSA key",
            Self::RsaPss => "an RSA key for PSS only",
            Self::Ec => "an EC key",
            Self::Ed25519 => "an Ed25519 key",
            Self::Other => "a key of another kind",
        }
    }
}

/// A private key out of a PEM. Its bytes are erased when it goes.
pub(super) struct PrivateKey {
    der: PrivateKeyDer<'static>,
    kind: Kind,
}

impl PrivateKey {
    /// Reads the first private key in a PEM text; other blocks (such as `EC PARAMETERS`) may stand around it.
    pub(super) fn read(pem: &SecretString) -> Result<Self, KeyError> {
        let text = pem.expose_secret();
        // Encrypted PKCS#8 (RFC 5958 section 3), and the older headers of RFC 1421.
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        // The parser's own error may quote the text, and with it the secret.
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| fault_of(text))?;
        let kind = match &der {
            PrivateKeyDer::Pkcs1(_) => Kind::Rsa,
            PrivateKeyDer::Sec1(_) => Kind::Ec,
            other => kind_of_pkcs8(other.secret_der()).ok_or(KeyError::Invalid)?,
        };
        Ok(Self { der, kind })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The PKCS#8 form, if it came in that.
    pub(super) fn pkcs8(&self) -> Option<&[u8]> {
        match &self.der {
            PrivateKeyDer::Pkcs8(der) => Some(der.secret_pkcs8_der()),
            _ => None,
        }
    }

    /// The key in the form of its own algorithm: PKCS#1 of an RSA key, RFC 5915 of an EC key.
    pub(super) fn bare(&self) -> Option<&[u8]> {
        match self.pkcs8() {
            Some(der) => Some(pkcs8_fields(der)?.1),
            None => Some(self.der.secret_der()),
        }
    }

    /// The bits of an RSA key's modulus.
    pub(super) fn rsa_bits(&self) -> Option<usize> {
        let fields = der::content(self.bare()?, der::SEQUENCE)?;
        let (_version, fields) = der::element(fields, der::INTEGER)?;
        let (modulus, _) = der::unsigned(fields)?;
        let unused = modulus.first()?.leading_zeros();
        Some(modulus.len() * 8 - usize::try_from(unused).ok()?)
    }

    /// Whether the identifier of P-256 stands in the key. Only good for naming a fault.
    pub(super) fn names_p256(&self) -> bool {
        self.der.secret_der().windows(P256.len()).any(|window| window == P256)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.der.zeroize();
    }
}

// Contents of object identifiers: RFC 8017 (rsaEncryption, id-RSASSA-PSS), RFC 5480 (id-ecPublicKey, secp256r1),
// RFC 8410 (id-Ed25519).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

fn kind_of_pkcs8(input: &[u8]) -> Option<Kind> {
    let (identifier, _) = pkcs8_fields(input)?;
    Some(match identifier {
        RSA => Kind::Rsa,
        RSA_PSS => Kind::RsaPss,
        EC => Kind::Ec,
        ED25519 => Kind::Ed25519,
        _ => Kind::Other,
    })
}

/// The algorithm's identifier, and the key inside.
fn pkcs8_fields(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let fields = der::content(input, der::SEQUENCE)?;
    let (_version, fields) = der::element(fields, der::INTEGER)?;
    let (algorithm, fields) = der::element(fields, der::SEQUENCE)?;
    let identifier = der::content(algorithm, der::OBJECT_IDENTIFIER)?;
    Some((identifier, der::content(fields, der::OCTET_STRING)?))
}

/// Why a text holds no private key. Only the label of its first block is named.
fn fault_of(text: &str) -> KeyError {
    let label = text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----"));
    match label {
        Some((label, _)) if is_label(label) && !label.ends_with("PRIVATE KEY") => {
            KeyError::NotPrivate(label.to_owned())
        }
        _ => KeyError::NotPem,
    }
}

/// Short and of the letters that labels are made of, so that no pasted secret is shown as one.
fn is_label(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    text.len() <= 30 && text.bytes().all(letter)
}

fn write_pem(der: &[u8]) -> SecretString {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut pem = String::with_capacity(encoded.len() * 66 / 64 + 64);
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    SecretString::from(pem)
}
