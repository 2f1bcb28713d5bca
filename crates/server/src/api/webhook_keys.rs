//! The keys of a webhook: its signing secrets or key pairs, and the key pairs of its JWT or its assertions at a token
//! endpoint, kept in step with its settings.
//!
//! The current key of each kind comes first; former ones follow and are dropped once their time is over. A former key
//! pair keeps its public half only: it is still published, never used again.

use super::problem::Problem;
use model::clock::{Entropy, Timestamp};
use model::secret::Secret;
use model::webhook::{JwtAlgorithm, JwtKey, Signing, SigningSecretEntry, Webhook, WebhookKeys};
use secrecy::SecretString;
use std::time::Duration;
use wire::jwt::{SigningKey, generate_private_pem};
use wire::standard_webhooks::{SigningKeyPair, SigningSecret};

/// The most signing keys at a time: each makes the signature header longer.
const MAX_SIGNING_KEYS: usize = 5;

/// What a change of keys depends on besides the webhook.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// Now.
    pub now: Timestamp,
    /// How long former keys are good.
    pub overlap: Duration,
    /// Where new secrets come from.
    pub entropy: &'a dyn Entropy,
}

/// Brings the signing keys in step with the settings: where the scheme has changed, a new key, and the former ones sign
/// beside it for a while. A secret is returned to be shown this once.
pub fn align_signing_key(webhook: &mut Webhook, rotation: &Rotation<'_>) -> Result<Option<String>, Problem> {
    let current = webhook.keys.signing.first().filter(|key| key.expires_at.is_none());
    let fits = current.is_some_and(|key| match webhook.settings.signing {
        Signing::V1 => key.public_key.is_none(),
        Signing::V1a => key.public_key.is_some(),
        Signing::None => true,
    });
    if fits { Ok(None) } else { add_signing_key(webhook, rotation) }
}

/// A new signing key of the scheme that is set. Former ones sign beside it until their time is over. A secret is
/// returned to be shown this once.
pub fn add_signing_key(webhook: &mut Webhook, rotation: &Rotation<'_>) -> Result<Option<String>, Problem> {
    let mut bytes = [0; 32];
    rotation.entropy.fill(&mut bytes);
    if webhook.settings.signing == Signing::V1a {
        let pair = SigningKeyPair::generate_from(bytes).map_err(|_| Problem::Internal)?;
        insert_signing_key(webhook, pair.reveal(), Some(pair.public_key().to_string()), rotation);
        return Ok(None);
    }
    let secret = SigningSecret::generate_from(bytes).reveal();
    insert_signing_key(webhook, secret.clone(), None, rotation);
    Ok(Some(secret))
}

fn insert_signing_key(webhook: &mut Webhook, secret: String, public_key: Option<String>, rotation: &Rotation<'_>) {
    // The revision rises with every change, so the name is new.
    let name = format!("s{}", webhook.stamps.revision);
    let signing = &mut webhook.keys.signing;
    for former in signing.iter_mut() {
        former.expires_at.get_or_insert(rotation.now + rotation.overlap);
    }
    signing.retain(|former| is_good(former.expires_at, rotation.now));
    signing.insert(0, SigningSecretEntry { secret: Some(Secret::new(secret)), name, public_key, expires_at: None });
    signing.truncate(MAX_SIGNING_KEYS);
}

/// Brings the key pairs in step with the settings: makes, replaces or retires the current one.
pub async fn align_key_pair(webhook: &mut Webhook, rotation: &Rotation<'_>) -> Result<(), Problem> {
    webhook.keys.jwt.retain(|key| is_good(key.expires_at, rotation.now));
    let authentication = &webhook.settings.authentication;
    let Some(algorithm) = authentication.algorithm.filter(|_| authentication.is_asymmetric()) else {
        retire(&mut webhook.keys, rotation);
        return Ok(());
    };
    let given = authentication.private_key.clone();
    let current = current_of(&webhook.keys).filter(|key| key.algorithm == algorithm);
    let same = |key: &&JwtKey| {
        if given.is_some() { !key.own && key.private_key == given } else { key.own }
    };
    let kept = current.filter(same);
    if kept.is_some_and(|key| carries(&key.key_id, &base_of(webhook))) {
        return Ok(());
    }
    let private = given.clone().or_else(|| kept.and_then(|key| key.private_key.clone()));
    let key = KeyPair::make(algorithm, private).await?;
    add_key_pair(webhook, key, given.is_none(), rotation);
    Ok(())
}

/// A new key pair in place of one that Esito made.
pub async fn rotate_key_pair(webhook: &mut Webhook, rotation: &Rotation<'_>) -> Result<(), Problem> {
    let own = current_of(&webhook.keys).filter(|key| key.own).map(|key| key.algorithm);
    let Some(algorithm) = own else {
        let why = "the webhook has no key pair of Esito's own making; to change a key of yours, write it as authentication.privateKey or .secret";
        return Err(Problem::WrongState(why.to_owned()));
    };
    let key = KeyPair::make(algorithm, None).await?;
    add_key_pair(webhook, key, true, rotation);
    Ok(())
}

fn is_good(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_none_or(|end| now < end)
}

fn current_of(keys: &WebhookKeys) -> Option<&JwtKey> {
    keys.jwt.first().filter(|key| key.expires_at.is_none())
}

fn retire(keys: &mut WebhookKeys, rotation: &Rotation<'_>) {
    for key in &mut keys.jwt {
        key.expires_at.get_or_insert(rotation.now + rotation.overlap);
        key.private_key = None;
    }
    keys.jwt.retain(|key| is_good(key.expires_at, rotation.now));
}

struct KeyPair {
    private: SecretString,
    signing: SigningKey,
}

impl KeyPair {
    /// Reads the key, or makes one: RSA takes a second or so, which must not keep other requests waiting.
    async fn make(algorithm: JwtAlgorithm, private: Option<Secret>) -> Result<Self, Problem> {
        let made = tokio::task::spawn_blocking(move || {
            let private = match private.as_ref().and_then(Secret::value) {
                Some(private) => private.clone(),
                None => generate_private_pem(algorithm)?,
            };
            let signing = SigningKey::from_private_pem(algorithm, &private)?;
            Ok::<_, wire::jwt::KeyError>(Self { private, signing })
        });
        match made.await {
            Ok(Ok(pair)) => Ok(pair),
            Ok(Err(error)) => Err(Problem::fault("$.authentication.privateKey", error.to_string())),
            Err(_) => Err(Problem::Internal),
        }
    }
}

fn add_key_pair(webhook: &mut Webhook, pair: KeyPair, own: bool, rotation: &Rotation<'_>) {
    let key_id = next_key_id(webhook);
    retire(&mut webhook.keys, rotation);
    let public_jwk = pair.signing.public_jwk(&key_id).unwrap_or_default();
    let key = JwtKey {
        private_key: Some(Secret::from(pair.private)),
        key_id,
        algorithm: pair.signing.algorithm(),
        own,
        public_jwk,
        expires_at: None,
    };
    webhook.keys.jwt.insert(0, key);
}

fn base_of(webhook: &Webhook) -> String {
    webhook.settings.authentication.key_id.clone().unwrap_or_else(|| webhook.id.to_string())
}

/// A `kid` that no former key of the webhook had: receivers remember public keys by it. The first key has the id that the
/// caller gave; others have the webhook's revision added, as all keys without a given id.
fn next_key_id(webhook: &Webhook) -> String {
    let base = base_of(webhook);
    let given = webhook.settings.authentication.key_id.is_some();
    let used = webhook.keys.jwt.iter().any(|key| carries(&key.key_id, &base));
    if given && !used { base } else { format!("{base}-{}", webhook.stamps.revision) }
}

/// Whether `key_id` is `base`, with a number or without.
fn carries(key_id: &str, base: &str) -> bool {
    let Some(rest) = key_id.strip_prefix(base) else {
        return false;
    };
    let number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    rest.is_empty() || rest.strip_prefix('-').is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::{SandboxId, WebhookId};
    use model::webhook::{SandboxRef, Stamps, WebhookControl};
    use serde_json::{Value, json};
    use uuid::Uuid;

    #[derive(Debug)]
    struct Counting(std::sync::atomic::AtomicU8);
    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        }
    }

    fn webhook(authentication: Value) -> Webhook {
        let settings =
            json!({"name": "n", "channels": ["email"], "url": "https://a.example/", "authentication": authentication});
        Webhook {
            id: WebhookId(Uuid::nil()),
            ims_org: "a@EsitoOrg".to_owned(),
            sandbox: SandboxRef { id: SandboxId(Uuid::nil()), name: "prod".to_owned() },
            settings: serde_json::from_value(settings).unwrap(),
            keys: WebhookKeys::default(),
            control: WebhookControl::default(),
            stamps: Stamps::new(Timestamp(0), "k"),
        }
    }

    async fn edit(webhook: &mut Webhook, authentication: Value, rotation: &Rotation<'_>) -> Vec<(String, bool)> {
        webhook.stamps.touch(rotation.now, "k");
        webhook.settings.authentication = serde_json::from_value(authentication).unwrap();
        align_key_pair(webhook, rotation).await.unwrap();
        key_ids(webhook)
    }

    fn key_ids(webhook: &Webhook) -> Vec<(String, bool)> {
        webhook.keys.jwt.iter().map(|key| (key.key_id.clone(), key.private_key.is_some())).collect()
    }

    #[tokio::test]
    async fn key_pairs_follow_the_settings() {
        let entropy = Counting(0.into());
        let rotation = Rotation { now: Timestamp(1_000), overlap: Duration::from_secs(60), entropy: &entropy };
        let own = json!({"type": "jwt", "algorithm": "ES256"});
        let mut hook = webhook(own.clone());
        align_key_pair(&mut hook, &rotation).await.unwrap();
        let nil = Uuid::nil();
        assert_eq!(key_ids(&hook), [(format!("{nil}-1"), true)]);
        assert_eq!(hook.keys.jwt[0].public_jwk["kid"], json!(format!("{nil}-1")));
        // The same settings keep the key; another algorithm makes a new one and goes on publishing the former.
        assert_eq!(edit(&mut hook, own, &rotation).await, [(format!("{nil}-1"), true)]);
        let ed25519 = json!({"type": "jwt", "algorithm": "EdDSA", "keyId": "k"});
        assert_eq!(edit(&mut hook, ed25519, &rotation).await, [("k".to_owned(), true), (format!("{nil}-1"), false)]);
        // A rotation; then, after the overlap, only the current key is left.
        hook.stamps.touch(rotation.now, "k");
        rotate_key_pair(&mut hook, &rotation).await.unwrap();
        assert_eq!(key_ids(&hook)[..2], [("k-4".to_owned(), true), ("k".to_owned(), false)]);
        let later = Rotation { now: Timestamp(61_000), ..rotation };
        let ed25519 = json!({"type": "jwt", "algorithm": "EdDSA", "keyId": "k"});
        assert_eq!(edit(&mut hook, ed25519, &later).await, [("k-4".to_owned(), true)]);
        // No key pair any more: the last is published for a while.
        let hmac = json!({"type": "jwt", "algorithm": "HS256", "secret": "s"});
        assert_eq!(edit(&mut hook, hmac, &later).await, [("k-4".to_owned(), false)]);
        assert!(matches!(rotate_key_pair(&mut hook, &later).await, Err(Problem::WrongState(_))));
    }

    #[tokio::test]
    async fn a_key_of_the_caller_is_read_and_checked() {
        let entropy = Counting(0.into());
        let rotation = Rotation { now: Timestamp(1_000), overlap: Duration::from_secs(60), entropy: &entropy };
        let pem = generate_private_pem(JwtAlgorithm::ES256).unwrap();
        let given = |algorithm: &str, key: &str| json!({"type": "jwt", "algorithm": algorithm, "privateKey": key});
        let pem = secrecy::ExposeSecret::expose_secret(&pem);
        let mut hook = webhook(given("ES256", pem));
        align_key_pair(&mut hook, &rotation).await.unwrap();
        assert_eq!(edit(&mut hook, given("ES256", pem), &rotation).await.len(), 1);
        assert!(matches!(rotate_key_pair(&mut hook, &rotation).await, Err(Problem::WrongState(_))));
        for (algorithm, key) in [("RS256", pem), ("ES256", "hunter2")] {
            let refused = align_key_pair(&mut webhook(given(algorithm, key)), &rotation).await.unwrap_err();
            let detail = refused.document().detail;
            assert!(detail.starts_with("$.authentication.privateKey: ") && !detail.contains("hunter2"), "{detail}");
        }
    }

    #[test]
    fn former_secrets_sign_for_a_while() {
        let entropy = Counting(0.into());
        let rotation = Rotation { now: Timestamp(1_000), overlap: Duration::from_secs(60), entropy: &entropy };
        let mut hook = webhook(json!({"type": "none"}));
        let first = add_signing_key(&mut hook, &rotation).unwrap().unwrap();
        hook.stamps.touch(rotation.now, "k");
        let second = add_signing_key(&mut hook, &rotation).unwrap().unwrap();
        assert!(first.starts_with("whsec_") && first != second);
        let ends: Vec<_> = hook.keys.signing.iter().map(|entry| (entry.name.as_str(), entry.expires_at)).collect();
        assert_eq!(ends, [("s2", None), ("s1", Some(Timestamp(61_000)))]);
        hook.stamps.touch(rotation.now, "k");
        add_signing_key(&mut hook, &Rotation { overlap: Duration::ZERO, ..rotation }).unwrap();
        assert_eq!(hook.keys.signing.len(), 2, "s2 ended at once, s1 has its time");
    }

    #[test]
    fn signing_keys_follow_the_scheme() {
        let entropy = Counting(0.into());
        let rotation = Rotation { now: Timestamp(1_000), overlap: Duration::from_secs(60), entropy: &entropy };
        let mut hook = webhook(json!({"type": "none"}));
        let mut set = |signing: Signing| {
            hook.settings.signing = signing;
            hook.stamps.touch(rotation.now, "k");
            let shown = align_signing_key(&mut hook, &rotation).unwrap();
            let keys = hook.keys.signing.iter().map(|key| (key.public_key.is_some(), key.expires_at.is_none()));
            (shown.map(|secret| secret[..6].to_owned()), keys.collect::<Vec<_>>())
        };
        let whsec = Some("whsec_".to_owned());
        assert_eq!(set(Signing::V1), (whsec.clone(), vec![(false, true)]));
        assert_eq!(set(Signing::V1), (None, vec![(false, true)]));
        assert_eq!(set(Signing::V1a), (None, vec![(true, true), (false, false)]), "the private half is never shown");
        assert_eq!(set(Signing::None), (None, vec![(true, true), (false, false)]));
        assert_eq!(set(Signing::V1), (whsec, vec![(false, true), (true, false), (false, false)]));
        let pair = SigningKeyPair::parse(hook.keys.signing[1].secret.as_ref().unwrap().expose()).unwrap();
        assert_eq!(hook.keys.signing[1].public_key, Some(pair.public_key().to_string()));
    }

    #[tokio::test]
    async fn assertions_have_a_key_pair_like_tokens() {
        let entropy = Counting(0.into());
        let rotation = Rotation { now: Timestamp(1_000), overlap: Duration::from_secs(60), entropy: &entropy };
        let oauth2 = |method: &str, more: Value| {
            let mut all =
                json!({"type": "oauth2", "tokenUrl": "https://t.example/", "clientId": "c", "method": method});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let mut hook = webhook(oauth2("jwt_bearer", json!({"algorithm": "ES256", "keyId": "k"})));
        align_key_pair(&mut hook, &rotation).await.unwrap();
        hook.stamps.touch(rotation.now, "k");
        rotate_key_pair(&mut hook, &rotation).await.unwrap();
        assert_eq!(key_ids(&hook), [("k-2".to_owned(), true), ("k".to_owned(), false)]);
        let secret = oauth2("client_credentials", json!({"clientSecret": "s"}));
        assert_eq!(edit(&mut hook, secret, &rotation).await, [("k-2".to_owned(), false), ("k".to_owned(), false)]);
    }
}
