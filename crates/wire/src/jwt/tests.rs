use super::*;
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::json;

const ALL: [JwtAlgorithm; 7] = [
    JwtAlgorithm::HS256,
    JwtAlgorithm::HS384,
    JwtAlgorithm::HS512,
    JwtAlgorithm::RS256,
    JwtAlgorithm::PS256,
    JwtAlgorithm::ES256,
    JwtAlgorithm::EdDSA,
];

/// Keys of these tests alone, made with OpenSSL.
macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("testdata/", $name, ".pem"))
    };
}

const NOW: i64 = 1_700_000_000;

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn hmac_secret() -> SecretString {
    secret("a shared secret of some length: ü")
}

fn test_pem(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::ES256 => pem!("ec_pkcs8"),
        JwtAlgorithm::EdDSA => pem!("ed25519"),
        _ => pem!("rsa_pkcs8"),
    }
}

fn key(algorithm: JwtAlgorithm) -> SigningKey {
    let key = match algorithm.is_hmac() {
        true => SigningKey::hmac(algorithm, &hmac_secret()),
        false => SigningKey::from_private_pem(algorithm, &secret(test_pem(algorithm))),
    };
    key.expect("a good key")
}

fn verification(key: &SigningKey) -> VerificationKey {
    match key.public_jwk("k1") {
        Some(jwk) => VerificationKey::from_jwk(&jwk).expect("our own JWK"),
        None => VerificationKey::hmac(&hmac_secret()),
    }
}

fn expected(algorithm: JwtAlgorithm) -> Expected<'static> {
    Expected { algorithm, issuer: None, audience: None, now_secs: NOW, leeway_secs: 0 }
}

fn claims(extra: &Map<String, Value>) -> Claims<'_> {
    Claims {
        issuer: Some("esito"),
        subject: None,
        audience: Some("https://example.com"),
        issued_at_secs: NOW,
        expires_in_secs: 300,
        extra,
    }
}

fn token(key: &SigningKey, claims: &Claims<'_>) -> String {
    key.sign(Some("k1"), claims).expect("a token").expose_secret().to_owned()
}

fn decoded(part: &str) -> Value {
    let json = URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&json).expect("JSON")
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

#[test]
fn every_algorithm_signs_and_verifies() {
    for algorithm in ALL {
        let key = key(algorithm);
        let extra = object(json!({"tenant": "acme", "scope": ["a", "b"]}));
        let token = token(&key, &claims(&extra));
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let header = json!({"alg": name(algorithm), "typ": "JWT", "kid": "k1"});
        assert_eq!(decoded(parts[0]), header);
        let said = json!({
            "iss": "esito", "aud": "https://example.com", "iat": NOW, "exp": NOW + 300,
            "tenant": "acme", "scope": ["a", "b"],
        });
        let verified = verify(&token, &verification(&key), &expected(algorithm));
        assert_eq!(verified, Ok(object(said)), "{algorithm:?}");
        assert_eq!(key_id(&token), Ok(Some("k1".to_owned())));
        assert_eq!(key.algorithm(), algorithm);
    }
}

/// With no backend, or two, `jsonwebtoken` panics at its first use.
#[test]
fn the_library_has_exactly_one_backend() {
    let key = jsonwebtoken::EncodingKey::from_ec_pem(pem!("ec_pkcs8").as_bytes()).expect("a key");
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    let token = jsonwebtoken::encode(&header, &json!({"exp": NOW + 1}), &key).expect("a token");
    let ours = verification(&self::key(JwtAlgorithm::ES256));
    assert!(verify(&token, &ours, &expected(JwtAlgorithm::ES256)).is_ok());
}

#[test]
fn deterministic_algorithms_sign_as_the_library_does() {
    for algorithm in [JwtAlgorithm::HS256, JwtAlgorithm::HS384, JwtAlgorithm::HS512] {
        check_against_library(
            algorithm,
            jsonwebtoken::EncodingKey::from_secret(hmac_secret().expose_secret().as_bytes()),
        );
    }
    let rsa = jsonwebtoken::EncodingKey::from_rsa_pem(pem!("rsa_pkcs8").as_bytes());
    check_against_library(JwtAlgorithm::RS256, rsa.expect("a key"));
    let ed = jsonwebtoken::EncodingKey::from_ed_pem(pem!("ed25519").as_bytes());
    check_against_library(JwtAlgorithm::EdDSA, ed.expect("a key"));
}

fn check_against_library(algorithm: JwtAlgorithm, theirs: jsonwebtoken::EncodingKey) {
    let extra = Map::new();
    let token = token(&key(algorithm), &claims(&extra));
    let (message, signature) = token.rsplit_once('.').expect("three parts");
    let library_algorithm = name(algorithm).parse().expect("a name of the library");
    let signed = jsonwebtoken::crypto::sign(message.as_bytes(), &theirs, library_algorithm);
    assert_eq!(signed.expect("a signature"), signature, "{algorithm:?}");
}

/// RFC 8037, appendix A.1 to A.4.
#[test]
fn the_example_of_rfc_8037() {
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("base64url");
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = [&prefix[..], &seed].concat();
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{encoded}\n-----END PRIVATE KEY-----\n");
    let key = SigningKey::from_private_pem(JwtAlgorithm::EdDSA, &secret(&pem)).expect("a key");
    let jwk = key.public_jwk("x").expect("a public key");
    assert_eq!(jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = key.signature_of(message).expect("a signature");
    assert_eq!(
        URL_SAFE_NO_PAD.encode(signature),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn public_keys_have_the_members_of_their_rfcs() {
    for (algorithm, members, kty) in [
        (JwtAlgorithm::RS256, ["e", "n"].as_slice(), "RSA"),
        (JwtAlgorithm::PS256, ["e", "n"].as_slice(), "RSA"),
        (JwtAlgorithm::ES256, ["crv", "x", "y"].as_slice(), "EC"),
        (JwtAlgorithm::EdDSA, ["crv", "x"].as_slice(), "OKP"),
    ] {
        let jwk = key(algorithm).public_jwk("k1").expect("a public key");
        let mut wanted = [members, &["alg", "kid", "kty", "use"]].concat();
        wanted.sort_unstable();
        let mut found: Vec<_> = jwk.as_object().expect("an object").keys().collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
        assert_eq!((&jwk["kty"], &jwk["alg"]), (&json!(kty), &json!(name(algorithm))));
        assert_eq!((&jwk["use"], &jwk["kid"]), (&json!("sig"), &json!("k1")));
    }
    let rsa = key(JwtAlgorithm::RS256).public_jwk("k1").expect("a public key");
    assert_eq!(rsa["e"], "AQAB");
    // 2048 bits without a leading zero byte (RFC 7518 section 6.3.1.1).
    assert_eq!(rsa["n"].as_str().map(str::len), Some(342));
    assert_eq!(key(JwtAlgorithm::HS256).public_jwk("k1"), None);
}

#[test]
fn private_keys_are_read_in_every_form() {
    for (algorithm, one, other) in [
        (JwtAlgorithm::RS256, pem!("rsa_pkcs8"), pem!("rsa_traditional")),
        (JwtAlgorithm::PS256, pem!("rsa_pkcs8"), pem!("rsa_traditional")),
        (JwtAlgorithm::ES256, pem!("ec_pkcs8"), pem!("ec_sec1")),
        (JwtAlgorithm::EdDSA, pem!("ed25519"), &pem!("ed25519").replace('\n', "\r\n")),
    ] {
        let read = |pem: &str| SigningKey::from_private_pem(algorithm, &secret(pem)).expect("a key");
        let (one, other) = (read(one), read(other));
        assert_eq!(one.public_jwk("k"), other.public_jwk("k"), "{algorithm:?}");
        let extra = Map::new();
        let token = token(&other, &claims(&extra));
        assert!(verify(&token, &verification(&one), &expected(algorithm)).is_ok());
    }
}

#[test]
fn a_key_restricted_to_pss_signs_ps256_alone() {
    let pem = secret(pem!("rsa_pss"));
    let key = SigningKey::from_private_pem(JwtAlgorithm::PS256, &pem).expect("a key");
    let extra = Map::new();
    let token = token(&key, &claims(&extra));
    assert!(verify(&token, &verification(&key), &expected(JwtAlgorithm::PS256)).is_ok());
    let refused = SigningKey::from_private_pem(JwtAlgorithm::RS256, &pem).map(|_| ());
    assert!(matches!(refused, Err(KeyError::WrongType { .. })));
}

#[test]
fn key_pairs_are_made_and_read_back() {
    for algorithm in ALL {
        let made = generate_private_pem(algorithm);
        if algorithm.is_hmac() {
            assert_eq!(made.map(|_| ()), Err(KeyError::NeedsSecret(algorithm)));
            continue;
        }
        let pem = made.expect("a key pair");
        assert!(pem.expose_secret().starts_with("-----BEGIN PRIVATE KEY-----\nM"));
        assert!(pem.expose_secret().lines().all(|line| line.len() <= 64));
        let key = SigningKey::from_private_pem(algorithm, &pem).expect("our own key");
        let extra = Map::new();
        let token = token(&key, &claims(&extra));
        assert!(verify(&token, &verification(&key), &expected(algorithm)).is_ok());
        let stranger = verify(&token, &verification(&self::key(algorithm)), &expected(algorithm));
        assert_eq!(stranger, Err(VerifyError::Signature));
    }
}

#[test]
fn faults_of_keys_are_named() {
    use JwtAlgorithm::{ES256, EdDSA, HS256, PS256, RS256};
    let wrong = |algorithm, found| KeyError::WrongType { algorithm, found };
    for (algorithm, pem, fault) in [
        (RS256, "", KeyError::NotPem),
        (RS256, "hunter2", KeyError::NotPem),
        (RS256, "-----BEGIN PRIVATE KEY-----\nhunter2", KeyError::NotPem),
        (RS256, "-----BEGIN hunter2-----\n-----END hunter2-----", KeyError::NotPem),
        (RS256, "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----", KeyError::Invalid),
        (RS256, "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", KeyError::Invalid),
        (RS256, "-----BEGIN RSA PRIVATE KEY-----\nMAA=\n-----END RSA PRIVATE KEY-----", KeyError::Invalid),
        (EdDSA, pem!("ed25519_public"), KeyError::NotPrivate("PUBLIC KEY".to_owned())),
        (ES256, pem!("encrypted_pkcs8"), KeyError::Encrypted),
        (RS256, pem!("encrypted_traditional"), KeyError::Encrypted),
        (RS256, pem!("rsa_1024"), KeyError::RsaTooShort(1024)),
        (PS256, pem!("rsa_1024_traditional"), KeyError::RsaTooShort(1024)),
        (RS256, pem!("ec_pkcs8"), wrong(RS256, "an EC key")),
        (PS256, pem!("ed25519"), wrong(PS256, "an Ed25519 key")),
        (ES256, pem!("rsa_traditional"), wrong(ES256, "an RSA key")),
        (ES256, pem!("ed25519"), wrong(ES256, "an Ed25519 key")),
        (EdDSA, pem!("ec_sec1"), wrong(EdDSA, "an EC key")),
        (EdDSA, pem!("ed448"), wrong(EdDSA, "a key of another kind")),
        (ES256, pem!("ec_p384_pkcs8"), KeyError::NotP256),
        (ES256, pem!("ec_p384_sec1"), KeyError::NotP256),
        (HS256, pem!("rsa_pkcs8"), KeyError::NeedsSecret(HS256)),
    ] {
        let found = SigningKey::from_private_pem(algorithm, &secret(pem)).map(|_| ());
        let shown = format!("{found:?}");
        assert_eq!(found, Err(fault), "{algorithm:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(SigningKey::hmac(HS256, &secret("")).map(|_| ()), Err(KeyError::EmptySecret));
    assert_eq!(SigningKey::hmac(RS256, &secret("x")).map(|_| ()), Err(KeyError::NeedsPrivateKey(RS256)));
    assert!(SigningKey::hmac(HS256, &secret("x")).is_ok());
    let text = wrong(ES256, "an RSA key").to_string();
    assert_eq!(text, "ES256 needs an EC key on P-256, but this is an RSA key");
}

#[test]
fn a_damaged_private_key_is_refused() {
    let sound = pem!("rsa_pkcs8");
    let (at, _) = sound.match_indices('\n').nth(12).expect("a long key");
    let other = if &sound[at + 5..at + 6] == "A" { "B" } else { "A" };
    let damaged = format!("{}{other}{}", &sound[..at + 5], &sound[at + 6..]);
    let found = SigningKey::from_private_pem(JwtAlgorithm::RS256, &secret(&damaged)).map(|_| ());
    assert_eq!(found, Err(KeyError::Invalid));
}

#[test]
fn nothing_shows_a_key() {
    let key = SigningKey::hmac(JwtAlgorithm::HS256, &secret("hunter2")).expect("a key");
    let shown = format!("{key:?} {:?}", VerificationKey::hmac(&secret("hunter2")));
    assert_eq!(shown, "SigningKey(HS256, …) VerificationKey(…)");
}

#[test]
fn extra_claims_never_replace_what_is_set() {
    let extra = object(json!({
        "iat": 1, "exp": 2, "iss": "other", "sub": "kept", "aud": ["other"], "nbf": NOW, "jti": "x",
    }));
    let key = key(JwtAlgorithm::HS256);
    let token = token(&key, &claims(&extra));
    let verified = verify(&token, &verification(&key), &expected(JwtAlgorithm::HS256));
    let said = json!({
        "iss": "esito", "sub": "kept", "aud": "https://example.com",
        "iat": NOW, "exp": NOW + 300, "nbf": NOW, "jti": "x",
    });
    assert_eq!(verified, Ok(object(said)));
}

#[test]
fn without_a_key_id_the_header_has_none() {
    let extra = Map::new();
    let token = key(JwtAlgorithm::HS256).sign(None, &claims(&extra)).expect("a token");
    let header = decoded(token.expose_secret().split('.').next().expect("a first part"));
    assert_eq!(header, json!({"alg": "HS256", "typ": "JWT"}));
    assert_eq!(key_id(token.expose_secret()), Ok(None));
    assert_eq!(key_id("no token"), Err(VerifyError::Malformed));
}

/// A token with any header and claims, signed by the shared secret.
fn raw_token(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = key(JwtAlgorithm::HS256).signature_of(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.expect("a signature")))
}

fn verify_claims(claims: &Value, expected: &Expected<'_>) -> Result<(), VerifyError> {
    let token = raw_token(&json!({"alg": "HS256"}), claims);
    verify(&token, &VerificationKey::hmac(&hmac_secret()), expected).map(|_| ())
}

#[test]
fn times_are_checked_against_the_given_now() {
    let at = |now_secs, leeway_secs| Expected { now_secs, leeway_secs, ..expected(JwtAlgorithm::HS256) };
    let claims = json!({"exp": NOW, "nbf": NOW - 100});
    for (now, leeway, verdict) in [
        (NOW - 1, 0, Ok(())),
        (NOW, 0, Err(VerifyError::Expired(0))),
        (NOW + 9, 10, Ok(())),
        (NOW + 10, 10, Err(VerifyError::Expired(10))),
        (NOW - 100, 0, Ok(())),
        (NOW - 101, 0, Err(VerifyError::NotYet(1))),
        (NOW - 110, 10, Ok(())),
        (i64::MAX, u32::MAX, Err(VerifyError::Expired(i64::MAX.abs_diff(NOW)))),
        (i64::MIN, 0, Err(VerifyError::NotYet(i64::MIN.abs_diff(NOW - 100)))),
    ] {
        assert_eq!(verify_claims(&claims, &at(now, leeway)), verdict, "{now} {leeway}");
    }
    let now = at(NOW, 0);
    assert_eq!(verify_claims(&json!({"exp": 1.7e9 + 1.5}), &now), Ok(()));
    assert_eq!(verify_claims(&json!({"exp": 1e300}), &now), Ok(()));
    assert_eq!(verify_claims(&json!({}), &now), Err(VerifyError::Time("exp")));
    assert_eq!(verify_claims(&json!({"exp": "soon"}), &now), Err(VerifyError::Time("exp")));
    let nbf = json!({"exp": NOW + 1, "nbf": null});
    assert_eq!(verify_claims(&nbf, &now), Err(VerifyError::Time("nbf")));
}

#[test]
fn issuer_and_audience_are_checked_where_expected() {
    let of = |issuer, audience| Expected { issuer, audience, ..expected(JwtAlgorithm::HS256) };
    let one = json!({"exp": NOW + 1, "iss": "esito", "aud": "a"});
    let several = json!({"exp": NOW + 1, "aud": ["a", "b", 3]});
    for (claims, issuer, audience, verdict) in [
        (&one, None, None, Ok(())),
        (&one, Some("esito"), Some("a"), Ok(())),
        (&one, Some("other"), None, Err(VerifyError::Issuer)),
        (&one, None, Some("b"), Err(VerifyError::Audience)),
        (&several, None, Some("b"), Ok(())),
        (&several, None, Some("3"), Err(VerifyError::Audience)),
        (&several, Some("esito"), None, Err(VerifyError::Issuer)),
        (&json!({"exp": NOW + 1}), None, Some("a"), Err(VerifyError::Audience)),
    ] {
        assert_eq!(verify_claims(claims, &of(issuer, audience)), verdict, "{claims}");
    }
}

#[test]
fn forged_tokens_are_refused() {
    let extra = Map::new();
    let hs256 = key(JwtAlgorithm::HS256);
    let good = token(&hs256, &claims(&extra));
    let check = |token: &str, algorithm| {
        verify(token, &VerificationKey::hmac(&hmac_secret()), &expected(algorithm)).map(|_| ())
    };
    let (message, _) = good.rsplit_once('.').expect("three parts");
    assert_eq!(check(&good, JwtAlgorithm::HS256), Ok(()));
    assert_eq!(check(&good, JwtAlgorithm::HS512), Err(VerifyError::Algorithm("HS512")));
    assert_eq!(check(&good, JwtAlgorithm::RS256), Err(VerifyError::Key("RS256")));
    assert_eq!(check(&format!("{message}."), JwtAlgorithm::HS256), Err(VerifyError::Signature));
    let claims = json!({"exp": NOW + 1});
    let none = raw_token(&json!({"alg": "none"}), &claims);
    assert_eq!(check(&none, JwtAlgorithm::HS256), Err(VerifyError::Malformed));
    let critical = raw_token(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &claims);
    assert_eq!(check(&critical, JwtAlgorithm::HS256), Err(VerifyError::Critical));
    for text in ["", ".", "..", "a.b.c", "a.b.c.d", &format!("{good}.x"), &good[1..]] {
        assert_eq!(check(text, JwtAlgorithm::HS256), Err(VerifyError::Malformed), "{text}");
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let rsa = verification(&key(JwtAlgorithm::RS256));
    let extra = Map::new();
    let token = token(&key(JwtAlgorithm::HS256), &claims(&extra));
    assert_eq!(verify(&token, &rsa, &expected(JwtAlgorithm::RS256)), Err(VerifyError::Algorithm("RS256")));
    assert_eq!(verify(&token, &rsa, &expected(JwtAlgorithm::HS256)), Err(VerifyError::Key("HS256")));
    // The JWK says what it is for.
    assert_eq!(verify(&token, &rsa, &expected(JwtAlgorithm::PS256)), Err(VerifyError::Key("PS256")));
}

#[test]
fn only_whole_public_keys_of_known_kinds_are_read() {
    let sound = key(JwtAlgorithm::ES256).public_jwk("k").expect("a public key");
    let with = |member: &str, value: Value| {
        let mut jwk = sound.clone();
        jwk[member] = value;
        jwk
    };
    assert!(VerificationKey::from_jwk(&sound).is_some());
    for jwk in [
        json!(null),
        json!({}),
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!({"kty": "RSA", "n": "AQAB"}),
        json!({"kty": "OKP", "crv": "X25519", "x": sound["x"]}),
        with("crv", json!("P-384")),
        with("x", json!("AAAA")),
        with("x", json!("not base64url")),
        with("y", json!(7)),
    ] {
        assert!(VerificationKey::from_jwk(&jwk).is_none(), "{jwk}");
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::collection::vec(any::<u32>(), 0..4).prop_map(Value::from),
    ]
}

prop_compose! {
    fn claim_parts()(
        issuer: Option<String>, subject: Option<String>, audience: Option<String>,
        issued in 0..=1i64 << 40, expires in 1..=u32::MAX,
        extra in prop::collection::btree_map("iss|sub|aud|iat|exp|[a-z]{1,8}|\\PC{1,8}", json_value(), 0..8),
    ) -> (Option<String>, Option<String>, Option<String>, i64, u32, Map<String, Value>) {
        (issuer, subject, audience, issued, expires, extra.into_iter().collect())
    }
}

proptest! {
    #[test]
    fn any_claims_survive_the_journey(
        (issuer, subject, audience, issued_at_secs, expires_in_secs, mut extra) in claim_parts(),
        kid: Option<String>,
        algorithm in prop::sample::select(vec![JwtAlgorithm::HS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA]),
    ) {
        // A `nbf` of chance may lie ahead; what it does is tested above.
        extra.remove("nbf");
        let claims = Claims {
            issuer: issuer.as_deref(), subject: subject.as_deref(), audience: audience.as_deref(),
            issued_at_secs, expires_in_secs, extra: &extra,
        };
        let key = key(algorithm);
        let token = key.sign(kid.as_deref(), &claims).expect("a token");
        let expected = Expected {
            issuer: issuer.as_deref(), audience: audience.as_deref(),
            now_secs: issued_at_secs, ..expected(algorithm)
        };
        let found = verify(token.expose_secret(), &verification(&key), &expected).expect("verified");
        let mut wanted = extra.clone();
        for (name, value) in [("iss", &issuer), ("sub", &subject), ("aud", &audience)] {
            if let Some(value) = value {
                wanted.insert(name.to_owned(), Value::from(value.as_str()));
            }
        }
        wanted.insert("iat".to_owned(), issued_at_secs.into());
        wanted.insert("exp".to_owned(), claims.expires_at_secs().into());
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(key_id(token.expose_secret()), Ok(kid));
    }

    #[test]
    fn no_input_panics(
        text: String, bytes: Vec<u8>, label in "(RSA |EC )?PRIVATE KEY", now: i64,
        parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5),
    ) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
        let pem = secret(&format!("-----BEGIN {label}-----\n{encoded}\n-----END {label}-----\n"));
        for algorithm in ALL {
            let _ = SigningKey::from_private_pem(algorithm, &pem);
            let _ = SigningKey::from_private_pem(algorithm, &secret(&text));
        }
        let expected = Expected { now_secs: now, ..expected(JwtAlgorithm::HS256) };
        let key = VerificationKey::hmac(&hmac_secret());
        let _ = verify(&text, &key, &expected);
        let _ = verify(&parts.join("."), &key, &expected);
    }
}
