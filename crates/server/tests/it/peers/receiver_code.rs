//! The receivers that the console shows, as whoever copies them runs them: in Python and Node.js, with the libraries that
//! their first lines name.

use super::peer::{Peer, free_port};
use super::{program, project_folder};
use crate::cli::now_secs;
use crate::console::Browser;
use crate::support::client::Caller;
use crate::support::receiver::Got;
use crate::support::until;
use crate::support::world::{World, execution, merge};
use hyper::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tempfile::TempDir;
use wire::jwt::{Claims, JwtAlgorithm, SigningKey, generate_private_pem, key_id};

/// Says what is not to be taken for its own end.
const HOSTILE: &str = "a\"; import os #\\\n`${x}` 'é{}";
const SECRET: &str = "the secret of the token, wíth ünïcode, and long enough";

/// A program that listens.
struct Running {
    peer: Peer,
    port: u16,
    _folder: TempDir,
}

impl Running {
    async fn start(language: &str, code: &str, environment: &[(&str, &str)]) -> Self {
        for _ in 0..10 {
            let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
            let (runs, name) = match language {
                "node" => (program("node"), "receiver.mjs"),
                _ => (project_folder().join("target/peers-venv/bin/python"), "receiver.py"),
            };
            let modules = project_folder().join("target/peers-browser/node_modules");
            assert!(modules.join("jose").is_dir(), "jose is missing: run scripts/peers");
            std::os::unix::fs::symlink(modules.canonicalize().unwrap(), folder.path().join("node_modules")).unwrap();
            let file: PathBuf = folder.path().join(name);
            std::fs::write(&file, code).unwrap();
            let mut words = vec![format!("PORT={port}")];
            words.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
            words.extend([runs.display().to_string(), file.display().to_string()]);
            let peer = Peer::start("env", &words);
            let is_up = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok().then_some(());
            let ended = peer.look_for("its end", |_| None::<()>);
            tokio::select! {
                () = until("the receiver to listen", is_up) => return Self { peer, port, _folder: folder },
                // The port may have been another's.
                _ = ended => assert!(peer.last_words().contains("in use"), "{}", peer.last_words()),
            }
        }
        panic!("no port was free");
    }

    /// What it answers to a request.
    async fn answers(&self, headers: &[(String, String)], body: &[u8]) -> u16 {
        let caller = Caller::new(&format!("http://127.0.0.1:{}", self.port), "", "", "");
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        caller.raw(Method::POST, "/hook", &headers, body.to_vec()).await.unwrap().status
    }
}

/// The headers of a request as it came, without those of its connection.
fn headers_of(got: &Got) -> Vec<(String, String)> {
    let kept =
        got.headers.iter().filter(|(name, _)| !["host", "content-length", "connection"].contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn with(headers: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let kept = headers.iter().filter(|header| header.0 != name).cloned();
    kept.chain([(name.to_owned(), value.to_owned())]).collect()
}

/// How the test makes tokens as Esito does.
struct Tokens {
    key: SigningKey,
    header: &'static str,
    prefix: &'static str,
}

impl Tokens {
    fn header_value(&self, kid: Option<&str>, audience: &str, age_secs: i64) -> String {
        let issued_at_secs = now_secs() - age_secs;
        let (issuer, subject, extra) = (Some(HOSTILE), Some("feedback"), &Map::new());
        let claims = Claims { issuer, subject, audience: Some(audience), issued_at_secs, expires_in_secs: 300, extra };
        format!("{}{}", self.prefix, self.key.sign(kid, &claims).unwrap().expose_secret())
    }
}

/// A webhook with these settings, and its receiver in both languages: what is as it should be is taken, once; what was
/// changed is not.
async fn a_receiver_takes_what_is_right_alone(changes: Value, tokens: Option<Tokens>) {
    let world = World::start_with(&[("egress.allow_http", "true")]).await;
    let webhook = world.webhook(changes.clone()).await;
    let id = webhook["id"].as_str().unwrap();
    let path = format!("/v1/feedback-webhooks/{id}");
    let campaign = world.simulated_campaign().await;
    let run = async |request: &str| {
        let body = execution(request, &campaign, &["sent+1@simulator.esito.test"]);
        world.caller.post("/ajo/im/executions/unitary", &body).await.expect(202);
    };
    run("before").await;
    let got = world.receiver.wait_for(1).await.remove(0);
    let headers = headers_of(&got);
    let environment =
        [("ESITO_WEBHOOK_SECRET", webhook["signingSecret"].as_str().unwrap_or("")), ("ESITO_JWT_SECRET", SECRET)];
    for language in ["python", "node"] {
        let code = Browser::signed_in(&world).await.receiver(id, language).await;
        let receiver = Running::start(language, &code, &environment).await;

        // As it was; and again, which is told of once.
        for _ in 0..2 {
            assert_eq!(receiver.answers(&headers, &got.body).await, 204, "{language}: {}", receiver.peer.last_words());
        }
        let mut body = got.body.clone();
        let place = body.iter().position(|byte| *byte == b'b').unwrap();
        body[place] = b'B';
        let signs = changes["signing"] != "none";
        assert_eq!(
            receiver.answers(&headers, &body).await,
            if signs { 401 } else { 204 },
            "{language}: a byte was changed"
        );
        if signs {
            let mut others =
                vec![with(&headers, "webhook-id", "another"), with(&headers, "webhook-signature", "v1,AAAA v1a,AAAA")];
            others.push(with(&headers, "webhook-timestamp", "1700000000"));
            others.push(with(&headers, "webhook-timestamp", "soon"));
            others.push(headers.iter().filter(|header| header.0 != "webhook-signature").cloned().collect());
            for changed in others {
                assert_eq!(receiver.answers(&changed, &got.body).await, 401, "{language}: {changed:?}");
            }
            // As while a secret is being rotated.
            let signature = format!("v1,AAAA v1a,AAAA {} v9,x", got.headers["webhook-signature"]);
            assert_eq!(
                receiver.answers(&with(&headers, "webhook-signature", &signature), &got.body).await,
                204,
                "{language}"
            );
        }
        if let Some(tokens) = &tokens {
            let sent = got.headers[tokens.header].strip_prefix(tokens.prefix).unwrap();
            let kid = key_id(sent).unwrap();
            let cases = [("hooks \"'\\", 0, 204), ("hooks \"'\\", 331, 401), ("others", 0, 401)];
            for (audience, age, status) in cases {
                let value = tokens.header_value(kid.as_deref(), audience, age);
                let changed = with(&headers, tokens.header, &value);
                assert_eq!(receiver.answers(&changed, &got.body).await, status, "{language}: {audience} {age}");
            }
            let (start, signature) = sent.rsplit_once('.').unwrap();
            let first = if signature.starts_with('A') { 'B' } else { 'A' };
            let unsigned = "eyJhbGciOiJub25lIn0.".to_owned() + start.split_once('.').unwrap().1 + ".";
            for token in [format!("{start}.{first}{}", &signature[1..]), unsigned, String::new(), "x".to_owned()] {
                let changed = with(&headers, tokens.header, &format!("{}{token}", tokens.prefix));
                assert_eq!(receiver.answers(&changed, &got.body).await, 401, "{language}: {token}");
            }
        }
        let told = receiver.peer.told();
        assert_eq!(told.len(), 1, "{language}: one event, told of once: {}", receiver.peer.last_words());
        assert_eq!((&told[0]["requestId"], &told[0]["feedbackStatus"]), (&json!("before"), &json!("sent")));
        assert_eq!(told[0]["webhookId"], got.id());

        // The webhook's own events, from Esito to the program.
        let mut settings = json!({"name": "feedback", "channels": ["email", "sms"], "url": format!("http://127.0.0.1:{}/hook", receiver.port)});
        merge(&mut settings, changes.clone());
        world.caller.put(&path, &settings).await.expect(200);
        run(language).await;
        receiver.peer.wait_for(1, |told| told["requestId"] == *language && told["test"] == false).await;
        let delivered = async || {
            let list =
                world.caller.get(&format!("/v1/deliveries?state=succeeded&requestId={language}")).await.expect(200);
            (list["items"].as_array().unwrap().len() == 1).then_some(())
        };
        until("the delivery to have succeeded", delivered).await;
        let tried = world.caller.act(&format!("{path}/test")).await.expect(200);
        assert_eq!(tried["succeeded"], true, "{tried}");
        receiver.peer.wait_for(1, |told| told["test"] == true).await;
    }
}

fn authentication(more: Value) -> Value {
    let mut authentication = json!({"type": "jwt", "issuer": HOSTILE, "audience": "hooks \"'\\", "subject": "feedback", "expiresInSeconds": 240});
    merge(&mut authentication, more);
    authentication
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_by_es256_and_signatures_by_a_secret() {
    let pem = generate_private_pem(JwtAlgorithm::ES256).unwrap();
    let key = SigningKey::from_private_pem(JwtAlgorithm::ES256, &pem).unwrap();
    let authentication = authentication(json!({"algorithm": "ES256", "privateKey": pem.expose_secret()}));
    let tokens = Tokens { key, header: "authorization", prefix: "Bearer " };
    a_receiver_takes_what_is_right_alone(json!({"authentication": authentication, "signing": "v1"}), Some(tokens))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_by_hs256_in_a_header_of_their_own() {
    let key = SigningKey::hmac(JwtAlgorithm::HS256, &SecretString::from(SECRET)).unwrap();
    let authentication =
        authentication(json!({"algorithm": "HS256", "secret": SECRET, "header": "X-`$'!#&*|~", "prefix": "\"\\${`'"}));
    let tokens = Tokens { key, header: "x-`$'!#&*|~", prefix: "\"\\${`' " };
    a_receiver_takes_what_is_right_alone(json!({"authentication": authentication, "signing": "v1"}), Some(tokens))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_signatures_by_a_key_pair_alone() {
    a_receiver_takes_what_is_right_alone(json!({"signing": "v1a"}), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_by_eddsa_without_a_prefix_and_no_signature() {
    let pem = generate_private_pem(JwtAlgorithm::EdDSA).unwrap();
    let key = SigningKey::from_private_pem(JwtAlgorithm::EdDSA, &pem).unwrap();
    let authentication = authentication(json!({"algorithm": "EdDSA", "privateKey": pem.expose_secret(), "prefix": ""}));
    let tokens = Tokens { key, header: "authorization", prefix: "" };
    a_receiver_takes_what_is_right_alone(json!({"authentication": authentication, "signing": "none"}), Some(tokens))
        .await;
}
