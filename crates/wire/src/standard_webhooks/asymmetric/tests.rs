use super::super::{DEFAULT_TOLERANCE_SECS, SigningSecret, WebhookKey, sign, verify_v1};
use super::*;
use proptest::prelude::*;

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIMESTAMP: i64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const PRIVATE: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const SIGNATURE: &str = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

fn verify(key: &PublicKey, timestamp: &str, signature: &str) -> Result<(), VerifyError> {
    verify_v1a(key, ID, timestamp, signature, BODY, TIMESTAMP, DEFAULT_TOLERANCE_SECS)
}

fn public() -> PublicKey {
    PublicKey::parse(PUBLIC).unwrap()
}

#[test]
fn signs_and_verifies_the_standards_test_vector() {
    let pair = WebhookKey::parse(PRIVATE).unwrap();
    assert_eq!(pair.public_key(), Some(public()));
    assert_eq!(pair.public_key().unwrap().to_string(), PUBLIC);
    assert_eq!(sign([&pair], ID, TIMESTAMP, BODY), SIGNATURE);
    assert_eq!(verify(&public(), "1614265330", SIGNATURE), Ok(()));
}

#[test]
fn a_private_key_is_read_with_its_public_half_or_without() {
    let pair = SigningKeyPair::parse(PRIVATE).unwrap();
    assert_eq!(pair.reveal(), PRIVATE);
    let bytes = STANDARD.decode(PRIVATE.strip_prefix("whsk_").unwrap()).unwrap();
    let read =
        |bytes: &[u8]| SigningKeyPair::parse(&format!("whsk_{}", STANDARD.encode(bytes))).map(|one| one.reveal());
    assert_eq!(read(&bytes[..32]).unwrap(), PRIVATE);
    let mut other = bytes.clone();
    other[40] ^= 1;
    assert_eq!(read(&other), Err(KeyPairError::Halves));
    assert_eq!(read(&bytes[..31]), Err(KeyPairError::Length(31)));
    assert_eq!(read(&bytes[..33]), Err(KeyPairError::Length(33)));
    assert_eq!(SigningKeyPair::parse(PUBLIC).map(drop), Err(KeyPairError::Prefix));
    assert_eq!(SigningKeyPair::parse("whsk_%").map(drop), Err(KeyPairError::NotBase64));
}

#[test]
fn refuses_public_keys_that_are_none() {
    assert_eq!(PublicKey::parse(PRIVATE), Err(PublicKeyError::Prefix));
    assert_eq!(PublicKey::parse("whpk_%"), Err(PublicKeyError::NotBase64));
    assert_eq!(PublicKey::parse("whpk_AAAA"), Err(PublicKeyError::Length(3)));
    assert_eq!(PublicKey::parse(&format!("  {} ", PUBLIC.trim_end_matches('='))), Ok(public()));
}

#[test]
fn nothing_shows_a_private_key() {
    let shown = format!("{:?} {:?}", SigningKeyPair::parse(PRIVATE), WebhookKey::parse(PRIVATE));
    assert!(!shown.contains("6Xb/") && !shown.contains("whsk_"), "{shown}");
}

#[test]
fn a_change_of_scheme_signs_with_both_and_either_verifies() {
    let secret = SigningSecret::generate_from([7; 32]);
    let keys = [WebhookKey::parse(PRIVATE).unwrap(), WebhookKey::V1(Box::new(secret.clone()))];
    let header = sign(&keys, ID, TIMESTAMP, BODY);
    assert!(header.starts_with(&format!("{SIGNATURE} v1,")), "{header}");
    assert_eq!(verify(&public(), "1614265330", &header), Ok(()));
    assert_eq!(verify_v1(&secret, ID, "1614265330", &header, BODY, TIMESTAMP, 0), Ok(()));
}

#[test]
fn only_v1a_signatures_count() {
    for header in ["", "v1,AAAA", &SIGNATURE[4..], "v1 v2a,x"] {
        assert_eq!(verify(&public(), "1614265330", header), Err(VerifyError::NoV1aSignature), "{header}");
    }
    for header in ["v1a,", "v1a,AAAA", "v1a,%%%", &format!("v1a,{}", "A".repeat(4096))] {
        assert_eq!(verify(&public(), "1614265330", header), Err(VerifyError::MismatchedKey), "{header}");
    }
    assert_eq!(verify(&public(), "1614265330", &format!("v1,AAAA v1a,AAAA {SIGNATURE}")), Ok(()));
    assert_eq!(verify(&public(), "+1614265330", SIGNATURE), Err(VerifyError::Timestamp));
    assert_eq!(verify(&public(), "1614265000", SIGNATURE), Err(VerifyError::TooOld(330)));
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_nothing_else(
        seed: [u8; 32], id in "[a-zA-Z0-9_-]{1,40}", at in 0..i64::MAX, body in proptest::collection::vec(any::<u8>(), 1..200),
        index: prop::sample::Index, flip in 1..=255u8,
    ) {
        let pair = SigningKeyPair::generate_from(seed).unwrap();
        let key = PublicKey::parse(&pair.public_key().to_string()).unwrap();
        let again = WebhookKey::parse(&pair.reveal()).unwrap();
        let header = sign([&again], &id, at, &body);
        let verify = |key: &PublicKey, id: &str, at: i64, body: &[u8]| {
            verify_v1a(key, id, &at.to_string(), &header, body, at, 0)
        };
        prop_assert_eq!(verify(&key, &id, at, &body), Ok(()));
        let mut other_body = body.clone();
        other_body[index.index(body.len())] ^= flip;
        prop_assert_eq!(verify(&key, &id, at, &other_body), Err(VerifyError::MismatchedKey));
        prop_assert_eq!(verify(&key, "msg_other.", at, &body), Err(VerifyError::MismatchedKey));
        prop_assert_eq!(verify(&key, &id, at + 1, &body), Err(VerifyError::MismatchedKey));
        let mut other_seed = seed;
        other_seed[index.index(32)] ^= flip;
        let other = SigningKeyPair::generate_from(other_seed).unwrap().public_key();
        prop_assert_eq!(verify(&other, &id, at, &body), Err(VerifyError::MismatchedKey));
    }

    #[test]
    fn no_input_panics(timestamp: String, signature: String, text: String, body: Vec<u8>, now: i64) {
        let _ = (SigningKeyPair::parse(&text), PublicKey::parse(&text), WebhookKey::parse(&text));
        let _ = (SigningKeyPair::parse(&format!("whsk_{text}")), PublicKey::parse(&format!("whpk_{text}")));
        let _ = verify_v1a(&public(), &text, &timestamp, &signature, &body, now, 300);
        let _ = verify_v1a(&public(), &text, &timestamp, &format!("v1a,{signature}"), &body, now, 300);
    }
}
