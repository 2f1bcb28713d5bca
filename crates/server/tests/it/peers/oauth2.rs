//! OAuth 2.0 with a server that shares no code with us: Authlib gives the tokens and checks them at the endpoint, and
//! Python's `cryptography` checks the `v1a` signatures there.

use super::peer::Peer;
use crate::support::world::{World, campaign_through, execution};
use hyper::Method;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const SECRET: &str = "planted s3cr:t/+% é";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The authorization server and what lies in its folder.
struct Authlib {
    peer: Peer,
    port: u16,
    folder: TempDir,
}

impl Authlib {
    async fn start(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = world.authority.issue(&["localhost", "127.0.0.1"]);
        let clients = json!({
            "secret client": {"grant": "client_credentials", "secret": SECRET},
            "RS256": {"grant": JWT_BEARER},
            "ES256": {"grant": JWT_BEARER},
        });
        let file = |name: &str, content: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.into_os_string()
        };
        let jwks = format!("{}/.well-known/jwks.json", world.server.base);
        let arguments = [
            file("server.crt", certificate),
            file("server.key", key),
            jwks.into(),
            file("clients.json", clients.to_string()),
            file("keys.json", json!({}).to_string()),
        ];
        let peer = Peer::python("oauth2_server.py", &arguments);
        let port = peer.port().await;
        Self { peer, port, folder }
    }

    /// Tells the endpoints which keys sign. They read the file at each request, so it changes all at once.
    fn write_keys(&self, keys: &Map<String, Value>) {
        let (file, new) = (self.folder.path().join("keys.json"), self.folder.path().join("keys.json.new"));
        std::fs::write(&new, Value::Object(keys.clone()).to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    fn webhook(&self, name: &str, more: Value) -> Value {
        let base = format!("https://localhost:{}", self.port);
        let mut authentication = json!({"type": "oauth2", "tokenUrl": format!("{base}/token"), "scope": "feedback"});
        authentication.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": name, "channels": ["email"], "url": format!("{base}/hook/{name}"),
            "signing": "v1a", "authentication": authentication})
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_gives_tokens_by_both_methods_and_takes_them() {
    let world = World::start().await;
    let authlib = Authlib::start(&world).await;
    let methods = [
        ("credentials", json!({"clientId": "secret client", "clientSecret": SECRET})),
        ("rs256", json!({"clientId": "RS256", "method": "jwt_bearer", "algorithm": "RS256"})),
        ("es256", json!({"clientId": "ES256", "method": "jwt_bearer", "algorithm": "ES256"})),
    ];
    let addresses: Vec<String> = (0..20).map(|i| format!("sent+{i}@simulator.esito.test")).collect();
    let (mut keys, mut sandboxes) = (Map::new(), Vec::new());
    for (name, more) in &methods {
        let caller = world.caller.in_new_sandbox(name).await;
        let made = caller.post("/v1/feedback-webhooks", &authlib.webhook(name, more.clone())).await.expect(201);
        keys.insert((*name).to_owned(), json!([made["signingPublicKey"]]));
        authlib.write_keys(&keys);
        let channel = json!({"name": "simulator", "channel": "email", "type": "simulator"});
        let campaign = campaign_through(&caller, &channel).await;
        caller.post("/ajo/im/executions/unitary", &execution("r", &campaign, &addresses)).await.expect(202);
        sandboxes.push((caller, campaign, made));
    }
    let events = authlib.peer.wait_for(60, |told| told["hook"].is_string()).await;
    assert!(events.iter().all(|event| event["status"] == 204 && event["signed"] == json!([true])), "{events:?}");
    let asked: Vec<Value> = authlib.peer.told().into_iter().filter(|told| told["token"].is_string()).collect();
    for (name, more) in &methods {
        let client = &more["clientId"];
        assert_eq!(events.iter().filter(|one| one["hook"] == *name && one["client"] == *client).count(), 20, "{name}");
        assert_eq!(asked.iter().filter(|one| one["token"] == *client && one["status"] == 200).count(), 1, "{name}");
    }
    assert_eq!(asked.len(), 3, "{asked:?}");

    // A rotation: the former key and the new one sign each event, and none else.
    let (caller, campaign, made) = &sandboxes[0];
    let path = format!("/v1/feedback-webhooks/{}/rotate-secret", made["id"].as_str().unwrap());
    let rotated = caller.call(Method::POST, &path, None).await.expect(200);
    assert_eq!(rotated["formerSigningPublicKeys"][0]["publicKey"], made["signingPublicKey"]);
    let stranger = keys["es256"][0].clone();
    keys["credentials"] = json!([made["signingPublicKey"], rotated["signingPublicKey"], stranger]);
    authlib.write_keys(&keys);
    caller.post("/ajo/im/executions/unitary", &execution("r2", campaign, &addresses)).await.expect(202);
    let events = authlib.peer.wait_for(80, |told| told["hook"].is_string()).await;
    let signed = events[60..].iter().map(|event| &event["signed"]);
    assert!(signed.clone().all(|signed| *signed == json!([true, true, false])), "{:?}", signed.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_told_as_authlib_says_it_and_shown_nowhere() {
    let world = World::start().await;
    let authlib = Authlib::start(&world).await;
    let wrong = json!({"clientId": "secret client", "clientSecret": "planted wr0ng/secret"});
    let made = world.caller.post("/v1/feedback-webhooks", &authlib.webhook("wrong", wrong)).await.expect(201);
    let path = format!("/v1/feedback-webhooks/{}/test", made["id"].as_str().unwrap());
    let attempt = world.caller.call(Method::POST, &path, None).await.expect(200);
    assert_eq!((&attempt["succeeded"], &attempt["error"]["kind"]), (&json!(false), &json!("token")), "{attempt}");
    let message = attempt["error"]["message"].as_str().unwrap();
    assert!(message.contains("it answered 401 invalid_client: not secret client:… (Basic …)"), "{message}");
    assert!(authlib.peer.told().iter().all(|told| told["hook"].is_null()), "the endpoint was not asked");
    let log = world.server.log();
    for hidden in ["wr0ng", "cGxhbnRlZ", "d3IwbmcvU"] {
        assert!(!log.contains(hidden) && !message.contains(hidden), "{hidden}");
    }
}
