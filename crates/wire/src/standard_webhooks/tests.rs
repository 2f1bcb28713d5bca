use super::*;
use proptest::prelude::*;

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIMESTAMP: i64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn secret() -> SigningSecret {
    SigningSecret::parse(SECRET).expect("the standard's own secret")
}

fn verify_at(now_secs: i64, timestamp: &str, signature: &str) -> Result<(), VerifyError> {
    verify_v1(&secret(), ID, timestamp, signature, BODY, now_secs, DEFAULT_TOLERANCE_SECS)
}

#[test]
fn signs_the_standards_test_vector() {
    assert_eq!(sign_v1([&secret()], ID, TIMESTAMP, BODY), SIGNATURE);
    assert_eq!(verify_at(TIMESTAMP, "1614265330", SIGNATURE), Ok(()));
}

#[test]
fn a_rotation_signs_with_both_secrets_and_either_verifies() {
    let other = SigningSecret::generate_from([7; 32]);
    let header = sign_v1([&other, &secret()], ID, TIMESTAMP, BODY);
    assert_eq!(header.split(' ').count(), 2);
    assert!(header.ends_with(SIGNATURE));
    for key in [&other, &secret()] {
        let verdict = verify_v1(key, ID, "1614265330", &header, BODY, TIMESTAMP, 0);
        assert_eq!(verdict, Ok(()));
    }
}

#[test]
fn no_secret_gives_no_signature() {
    assert_eq!(sign_v1([], ID, TIMESTAMP, BODY), "");
}

#[test]
fn the_header_is_written_into_one_allocation() {
    let header = sign_v1(&[secret(), secret()], ID, TIMESTAMP, BODY);
    assert_eq!(header.capacity(), 2 * SIGNATURE_CHARS);
    assert_eq!(header.len(), header.capacity() - 1);
}

#[test]
fn reads_secrets_as_users_write_them() {
    let prefixed = format!("{SECRET_PREFIX}{SECRET}");
    for text in [SECRET, &prefixed, &format!("  {prefixed}\n")] {
        assert_eq!(SigningSecret::parse(text).map(|s| s.reveal()), Ok(prefixed.clone()));
    }
    let padded = SigningSecret::generate_from([1; 32]).reveal();
    assert!(padded.ends_with('='));
    let unpadded = SigningSecret::parse(padded.trim_end_matches('=')).map(|s| s.reveal());
    assert_eq!(unpadded, Ok(padded));
}

#[test]
fn refuses_secrets_that_are_none() {
    let parse = |text: &str| SigningSecret::parse(text).map(|_| ());
    assert_eq!(parse("whsec_not base64!"), Err(SecretError::NotBase64));
    assert_eq!(parse("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="), Err(SecretError::NotBase64));
    assert_eq!(parse(""), Err(SecretError::Length(0)));
    assert_eq!(parse("whsec_"), Err(SecretError::Length(0)));
    for (len, expected) in [(23, false), (24, true), (64, true), (65, false)] {
        assert_eq!(parse(&STANDARD.encode(vec![9; len])).is_ok(), expected, "{len} bytes");
    }
}

#[test]
fn nothing_shows_a_secret() {
    let shown = format!("{:?} {:?}", secret(), SigningSecret::parse("whsec_hunter2hunter2"));
    assert!(!shown.contains("MfKQ") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_timestamp_out_of_tolerance_is_refused() {
    assert_eq!(verify_at(TIMESTAMP + 300, "1614265330", SIGNATURE), Ok(()));
    assert_eq!(verify_at(TIMESTAMP - 300, "1614265330", SIGNATURE), Ok(()));
    assert_eq!(verify_at(TIMESTAMP + 301, "1614265330", SIGNATURE), Err(VerifyError::TooOld(301)));
    assert_eq!(verify_at(TIMESTAMP - 301, "1614265330", SIGNATURE), Err(VerifyError::TooNew(301)));
    for timestamp in ["", " 1614265330", "+1614265330", "1614265330.0", "0x60", "99999999999999999999"] {
        assert_eq!(verify_at(TIMESTAMP, timestamp, SIGNATURE), Err(VerifyError::Timestamp));
    }
    assert!(verify_at(i64::MIN, "9223372036854775807", SIGNATURE).is_err());
}

#[test]
fn another_spelling_of_the_timestamp_does_not_verify() {
    assert_eq!(verify_at(TIMESTAMP, "01614265330", SIGNATURE), Err(VerifyError::Mismatch));
}

#[test]
fn only_v1_signatures_count() {
    let now = TIMESTAMP;
    for header in ["", "v1a,abc", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v2,x v1"] {
        assert_eq!(verify_at(now, "1614265330", header), Err(VerifyError::NoSignature), "{header}");
    }
    for header in ["v1,", "v1,AAAA", "v1,%%%", &format!("v1,{}", "A".repeat(4096))] {
        assert_eq!(verify_at(now, "1614265330", header), Err(VerifyError::Mismatch), "{header}");
    }
    let mixed = format!("v1a,xyz v1,AAAA {SIGNATURE} v3,q");
    assert_eq!(verify_at(now, "1614265330", &mixed), Ok(()));
}

proptest! {
    #[test]
    fn what_is_signed_verifies(
        key: [u8; 32], id in "[a-zA-Z0-9_-]{1,40}", at in 0..=i64::MAX, body: Vec<u8>,
    ) {
        let secret = SigningSecret::generate_from(key);
        let header = sign_v1([&secret], &id, at, &body);
        let again = SigningSecret::parse(&secret.reveal()).expect("a revealed secret");
        prop_assert_eq!(verify_v1(&again, &id, &at.to_string(), &header, &body, at, 0), Ok(()));
    }

    #[test]
    fn tampering_is_noticed(
        key: [u8; 32], at in 0..i64::MAX, body in proptest::collection::vec(any::<u8>(), 1..200),
        index: prop::sample::Index, flip in 1..=255u8,
    ) {
        let secret = SigningSecret::generate_from(key);
        let header = sign_v1([&secret], ID, at, &body);
        let verify = |key: &SigningSecret, id: &str, at: i64, body: &[u8]| {
            verify_v1(key, id, &at.to_string(), &header, body, at, 0)
        };
        let mut other_body = body.clone();
        other_body[index.index(body.len())] ^= flip;
        let mut other_key = key;
        other_key[index.index(32)] ^= flip;
        let other_key = SigningSecret::generate_from(other_key);
        prop_assert_eq!(verify(&secret, ID, at, &other_body), Err(VerifyError::Mismatch));
        prop_assert_eq!(verify(&secret, "msg_other", at, &body), Err(VerifyError::Mismatch));
        prop_assert_eq!(verify(&secret, ID, at + 1, &body), Err(VerifyError::Mismatch));
        prop_assert_eq!(verify(&other_key, ID, at, &body), Err(VerifyError::Mismatch));
    }

    #[test]
    fn no_input_panics(timestamp: String, signature: String, text: String, body: Vec<u8>, now: i64) {
        let _ = SigningSecret::parse(&text);
        let _ = verify_v1(&secret(), &text, &timestamp, &signature, &body, now, 300);
    }

    #[test]
    fn agrees_with_the_standards_library(key: [u8; 32], at in 0..=i64::MAX, body: String) {
        let secret = SigningSecret::generate_from(key);
        let oracle = standardwebhooks::Webhook::new(&secret.reveal()).expect("a secret");
        let theirs = oracle.sign(ID, at, body.as_bytes()).expect("a signature");
        prop_assert_eq!(sign_v1([&secret], ID, at, body.as_bytes()), theirs);
    }
}
