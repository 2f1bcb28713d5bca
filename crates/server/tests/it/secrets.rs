//! Planted secrets: after traffic with every failure that could tell them they are in no log, no output, no answer but
//! the one that shows a new secret once, and in no byte of the database.

use crate::support::client::{Answer, Caller, Record};
use crate::support::receiver::{Authority, Receiver, Reply};
use crate::support::relay::{Credentials, Relay};
use crate::support::until;
use crate::support::world::{World, campaign_through, execution, merge};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hyper::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

const UNITARY: &str = "/ajo/im/executions/unitary";
const HMAC: &str = "planted/hmac+\"7f3a9c\"&<5d1e>";
const HMAC_LATER: &str = "planted/hmac+later\\e8b2&%20";
const HEADER: &str = "planted header/\"value\" + 91c4<b7>";
const HEADER_LATER: &str = "planted header/later + 40aa<d2>";
const PASSWORD: &str = "planted:smtp/pass+word\"6e0f&";
const PASSWORD_WRONG: &str = "planted:wrong/pass+word\"c3d8&";
const DECOY: &str = "decoy header/value + 2b6d";
/// A key of the tests alone.
const PRIVATE_KEY: &str = include_str!("../../../wire/src/jwt/testdata/ec_pkcs8.pem");

/// Bytes as characters of the same number, so that a search for text finds any byte.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// A secret in every form in which it might be found.
struct Planted {
    name: String,
    forms: Vec<(String, String)>,
    /// The one answer that shows it, by its request.
    shown_by: Option<&'static str>,
}

impl Planted {
    fn new(name: &str, secret: &[u8]) -> Self {
        assert!(secret.len() >= 12, "{name} is too short to be found by");
        let mut forms = vec![("itself".to_owned(), latin1(secret))];
        for offset in 0..3 {
            for (alphabet, engine) in [("base64", STANDARD_NO_PAD), ("base64url", URL_SAFE_NO_PAD)] {
                forms.push((format!("{alphabet}, {offset} bytes before"), base64_within(&engine, secret, offset)));
            }
        }
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        forms.extend([("HEX".to_owned(), hex.to_uppercase()), ("hex".to_owned(), hex)]);
        let percent = |keeps: fn(u8) -> bool| {
            secret
                .iter()
                .map(|&byte| if keeps(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
                .collect()
        };
        forms.push((
            "percent-encoded".to_owned(),
            percent(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)),
        ));
        forms.push((
            "percent-encoded, lazily".to_owned(),
            percent(|byte| byte.is_ascii_graphic() && !b"\"<>%&+".contains(&byte)),
        ));
        if let Ok(text) = std::str::from_utf8(secret) {
            let quoted = Value::from(text).to_string();
            forms.push(("JSON".to_owned(), quoted[1..quoted.len() - 1].to_owned()));
            let twice = Value::from(quoted.as_str()).to_string();
            forms.push(("JSON in JSON".to_owned(), twice[3..twice.len() - 3].to_owned()));
        }
        Self { name: name.to_owned(), forms, shown_by: None }
    }

    fn shown_by(self, request: &'static str) -> Self {
        Self { shown_by: Some(request), ..self }
    }

    /// The form in which it is in the text.
    fn found_in(&self, text: &str) -> Option<&str> {
        self.forms.iter().find(|(_, form)| text.contains(form)).map(|(name, _)| name.as_str())
    }
}

/// What stands in the base64 of a longer text for `secret`, with so many bytes (modulo 3) before it.
fn base64_within(engine: &impl base64::Engine, secret: &[u8], offset: usize) -> String {
    let padded = [vec![0; offset], secret.to_vec()].concat();
    let encoded = engine.encode(&padded);
    encoded[(offset * 8).div_ceil(6)..padded.len() * 8 / 6].to_owned()
}

#[test]
fn the_search_finds_every_form() {
    let secret = "planted & so/on+\"7f3a9c\"";
    let planted = Planted::new("secret", secret.as_bytes());
    for before in ["", "a", "ab", "abc"] {
        let within = format!("{before}{secret}after");
        for text in [
            within.clone(),
            STANDARD.encode(&within),
            URL_SAFE_NO_PAD.encode(&within),
            url::form_urlencoded::byte_serialize(within.as_bytes()).collect::<String>().replace('+', "%20"),
            Value::from(within.as_str()).to_string(),
            json!({"log": Value::from(within.as_str()).to_string()}).to_string(),
        ] {
            assert!(planted.found_in(&text).is_some(), "{text}");
        }
    }
    assert_eq!(planted.found_in("planted & so/on+7f3a9c"), None);
}

/// Where secrets may not be: each place with its text.
struct Places(Vec<(String, String)>);

impl Places {
    fn add(&mut self, name: impl Into<String>, bytes: &[u8]) {
        self.0.push((name.into(), latin1(bytes)));
    }

    /// Every file of the folder but those that are secret by nature.
    fn add_folder(&mut self, folder: &Path) {
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_file() && !["key", "master.key"].contains(&name.as_str()) {
                self.add(format!("file {name}"), &std::fs::read(path).unwrap());
                files += 1;
            }
        }
        assert!(files >= 3, "the database and the log are there");
    }

    fn add_answers(&mut self, record: &Record) {
        for (request, answer) in record.lock().unwrap().iter() {
            let Answer { status, headers, body } = answer;
            self.add(request, format!("{status} {headers:?} {}", String::from_utf8_lossy(body)).as_bytes());
        }
    }

    fn with(&self, planted: &Planted) -> Vec<(&str, String)> {
        let found =
            self.0.iter().filter_map(|(place, text)| Some((place.as_str(), planted.found_in(text)?.to_owned())));
        found.collect()
    }

    /// Each secret is nowhere but in the one answer that shows it.
    fn check(&self, secrets: &[Planted]) {
        let mut leaks = Vec::new();
        for planted in secrets {
            let mut found = self.with(planted);
            if let Some(request) = planted.shown_by {
                let shown = found.iter().position(|(place, form)| *place == request && form == "itself");
                found.remove(shown.unwrap_or_else(|| panic!("{} was not shown by {request}", planted.name)));
            }
            leaks.extend(found.into_iter().map(|(place, form)| format!("{} ({form}) in {place}", planted.name)));
        }
        assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    }

    fn assert_holds(&self, start: &str, text: &str) {
        let decoy = Planted::new(text, text.as_bytes());
        assert!(
            self.with(&decoy).iter().any(|(place, _)| place.starts_with(start)),
            "the search finds nothing: {text} is not in {start}"
        );
    }
}

/// A world with secrets in it.
struct Stage {
    world: World,
    /// In the sandboxes `prod`, `keys` and `tls`.
    callers: [Caller; 3],
    secrets: Vec<Planted>,
    strangers: Receiver,
}

fn jwt(more: Value) -> Value {
    let mut authentication = json!({"type": "jwt", "issuer": "esito"});
    merge(&mut authentication, more);
    authentication
}

fn headers(value: &str) -> Value {
    json!([{"name": "x-planted", "value": value, "secret": true}, {"name": "x-decoy", "value": DECOY}])
}

fn webhook(url: &str, authentication: Value, header: &str) -> Value {
    json!({"name": "a webhook for planted secrets", "channels": ["email"], "url": url, "authentication": authentication,
        "headers": headers(header), "retry": {"firstDelaySeconds": 1}})
}

fn relay_channel(relay: &Relay, password: &str) -> Value {
    json!({"name": "relay", "channel": "email", "type": "smtp", "from": {"address": "orders@acme.example"},
        "smtp": {"host": "127.0.0.1", "port": relay.port, "tls": "none", "username": "acme", "password": password}})
}

async fn relay(mechanism: &'static str) -> Relay {
    Relay::start_for(Some(Credentials { username: "acme".to_owned(), password: PASSWORD.to_owned(), mechanism })).await
}

fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap().to_owned()
}

impl Stage {
    async fn set(format: &str) -> Self {
        let world = World::start_with(&[("log.format", format)]).await;
        let root = world.caller.recorded(&Record::default());
        let mut secrets = vec![Planted::new("the first admin key", root.key.as_ref().unwrap().as_bytes())];
        let master = std::fs::read_to_string(world.server.file("master.key")).unwrap();
        secrets.push(Planted::new("the master key", &STANDARD.decode(master.trim()).unwrap()));
        for (name, secret) in [
            ("HMAC secret", HMAC),
            ("later HMAC secret", HMAC_LATER),
            ("header value", HEADER),
            ("later header value", HEADER_LATER),
            ("SMTP password", PASSWORD),
            ("wrong SMTP password", PASSWORD_WRONG),
        ] {
            secrets.push(Planted::new(name, secret.as_bytes()));
        }
        secrets.extend(private_key_parts());
        for name in ["keys", "tls"] {
            root.post("/v1/sandboxes", &json!({"name": name})).await.expect(201);
        }
        let callers = ["prod", "keys", "tls"].map(|name| root.in_sandbox("default@EsitoOrg", name));
        let strangers = Receiver::start(&Authority::new()).await;
        Self { world, callers, secrets, strangers }
    }

    fn root(&self) -> &Caller {
        &self.callers[0]
    }

    /// A webhook whose signing secret, shown once, is a planted secret from now on.
    async fn webhook(&mut self, caller: usize, body: &Value) -> String {
        let made = self.callers[caller].post("/v1/feedback-webhooks", body).await.expect(201);
        self.plant_signing_secret("signing secret", &made, "POST /v1/feedback-webhooks");
        id(&made)
    }

    fn plant_signing_secret(&mut self, name: &str, shown: &Value, by: &'static str) {
        let secret = shown["signingSecret"].as_str().unwrap();
        let bytes = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        self.secrets.push(Planted::new(name, secret.as_bytes()).shown_by(by));
        // In the answer that shows it the bytes are in base64 anyway, so these are looked for everywhere else.
        let raw = Planted::new(&format!("{name}, its bytes"), &bytes);
        let forms = raw.forms.into_iter().filter(|(form, _)| !form.starts_with("base64")).collect();
        self.secrets.push(Planted { forms, ..raw });
    }

    /// Every failure there is, and some successes.
    async fn run(&mut self) {
        let (plain, login) = (relay("PLAIN").await, relay("LOGIN").await);
        let url = self.world.receiver.url.clone();
        self.world.receiver.behave(|_, before| Reply::status(if before == 0 { 500 } else { 204 }));
        let hmac = webhook(&url, jwt(json!({"algorithm": "HS256", "secret": HMAC})), HEADER);
        let first = self.webhook(0, &hmac).await;
        let pem =
            webhook(&url, jwt(json!({"algorithm": "ES256", "privateKey": PRIVATE_KEY, "header": "x-token"})), HEADER);
        let second = self.webhook(1, &pem).await;
        let unverified = webhook(&self.strangers.url.clone(), jwt(json!({"algorithm": "EdDSA"})), HEADER);
        let third = self.webhook(2, &unverified).await;
        self.send(&plain, &login).await;
        self.rotate(&first, &hmac).await;
        for (caller, id) in self.callers.iter().zip([&first, &second, &third]) {
            caller.act(&format!("/v1/feedback-webhooks/{id}/test")).await.expect(200);
        }
        self.keys().await;
        self.mistakes(&first, &second).await;
        self.read_everything().await;
    }

    /// Mail with the right password and with a wrong one; events to an endpoint that fails first and to one that is not
    /// who it says.
    async fn send(&self, plain: &Relay, login: &Relay) {
        let [prod, keys, tls] = &self.callers;
        for (caller, relay) in [(prod, plain), (keys, login)] {
            let campaign = campaign_through(caller, &relay_channel(relay, PASSWORD)).await;
            caller
                .post(UNITARY, &execution("a request for planted secrets", &campaign, &["jane@example.com"]))
                .await
                .expect(202);
            relay.wait_for(1).await;
        }
        for (caller, relay) in [(prod, plain), (keys, login)] {
            let campaign = campaign_through(caller, &relay_channel(relay, PASSWORD_WRONG)).await;
            caller.post(UNITARY, &execution("refused", &campaign, &["jane@example.com"])).await.expect(202);
            let told = async || {
                let messages = caller.get("/v1/messages?requestId=refused").await.expect(200);
                let message = messages["items"][0].clone();
                (message["state"] != "queued" || message["retryCount"].as_u64() > Some(0)).then_some(())
            };
            until("the relay to refuse the password", told).await;
        }
        let campaign =
            campaign_through(tls, &json!({"name": "simulator", "channel": "email", "type": "simulator"})).await;
        tls.post(UNITARY, &execution("r", &campaign, &["sent@simulator.esito.test"])).await.expect(202);
        let failed = async || {
            let deliveries = tls.get("/v1/deliveries?state=failing").await.expect(200);
            let delivery = deliveries["items"][0]["id"].as_str()?.to_owned();
            let delivery = tls.get(&format!("/v1/deliveries/{delivery}")).await.expect(200);
            (delivery["attempts"][0]["error"]["kind"] == "tls").then_some(())
        };
        until("the handshake to fail", failed).await;
        self.world.receiver.wait_for(2).await;
    }

    async fn rotate(&mut self, first: &str, body: &Value) {
        let path: &'static str = Box::leak(format!("/v1/feedback-webhooks/{first}/rotate-secret").into_boxed_str());
        let rotated = self.root().act(path).await.expect(200);
        let request: &'static str = Box::leak(format!("POST {path}").into_boxed_str());
        self.plant_signing_secret("rotated signing secret", &rotated, request);
        let path = format!("/v1/feedback-webhooks/{first}");
        let mut kept = body.clone();
        kept["authentication"].as_object_mut().unwrap().remove("secret");
        kept["headers"] = json!([{"name": "x-planted", "secret": true}, {"name": "x-decoy", "value": DECOY}]);
        self.root().put(&path, &kept).await.expect(200);
        let later =
            webhook(&self.world.receiver.url, jwt(json!({"algorithm": "HS512", "secret": HMAC_LATER})), HEADER_LATER);
        self.root().put(&path, &later).await.expect(200);
        let read = self.root().get(&path).await.expect(200);
        self.root().put(&path, &read).await.expect(200);
        // A flag that is taken away does not lay the value open.
        let mut open = read.clone();
        open["headers"][0]["secret"] = json!(false);
        let refused = self.root().put(&path, &open).await.expect(400);
        assert!(refused["detail"].as_str().unwrap().starts_with("$.headers[0].value: "), "{refused}");
        let simulator = json!({"name": "simulator", "channel": "email", "type": "simulator"});
        let campaign = campaign_through(self.root(), &simulator).await;
        self.root().post(UNITARY, &execution("rotated", &campaign, &["bounce@simulator.esito.test"])).await.expect(202);
        self.world.receiver.wait_for(3).await;
    }

    /// Keys that are made, used, revoked and mistaken.
    async fn keys(&mut self) {
        let made = self.root().post("/v1/api-keys", &json!({"role": "admin", "name": "made"})).await.expect(201);
        let key = made["key"].as_str().unwrap().to_owned();
        self.secrets.push(Planted::new("an API key", key.as_bytes()).shown_by("POST /v1/api-keys"));
        let used = self.root().with_key(&key);
        used.get("/v1/api-keys").await.expect(200);
        used.get(&format!("/v1/api-keys/{}", id(&made))).await.expect(200);
        assert_eq!(self.root().delete(&format!("/v1/api-keys/{}", id(&made))).await.status, 204);
        let admin = self.root().key.clone().unwrap();
        for wrong in [key.as_str(), &format!("{admin}x"), &admin.to_lowercase(), &admin[..admin.len() - 1]] {
            assert_eq!(self.root().with_key(wrong).get("/v1/campaigns").await.status, 401);
        }
        let raw = async |headers: &[(&str, &str)], path: &str| {
            let answer = self.root().raw(Method::GET, path, headers, "").await.unwrap();
            assert!((400..=404).contains(&answer.status), "{}", answer.text());
        };
        let bearer = format!("Bearer {admin}");
        raw(&[("x-api-key", &admin)], "/v1/campaigns").await;
        raw(&[("authorization", &format!("Basic {admin}"))], "/v1/campaigns").await;
        raw(&[("authorization", &bearer), ("x-gw-ims-org-id", &admin), ("x-sandbox-name", "prod")], "/v1/campaigns")
            .await;
        raw(
            &[("authorization", &bearer), ("x-gw-ims-org-id", "default@EsitoOrg"), ("x-sandbox-name", &admin)],
            "/v1/campaigns",
        )
        .await;
        let (id, text) = self.create_on_the_store().await;
        self.secrets.push(Planted::new("a key made on the store", text.as_bytes()));
        self.root().with_key(&text).get(&format!("/v1/api-keys/{id}")).await.expect(200);
    }

    async fn create_on_the_store(&self) -> (String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esito"));
        command.args(["api-key", "create", "--org", "default@EsitoOrg", "--role", "admin", "--json", "--config"]);
        command.arg(self.world.server.file("esito.toml")).stdin(Stdio::null());
        let made = command.output().await.unwrap();
        assert!(made.status.success());
        let shown: Value = serde_json::from_slice(&made.stdout).unwrap();
        let key = shown["key"].as_str().unwrap().to_owned();
        assert!(!String::from_utf8_lossy(&made.stderr).contains(&key));
        (id(&shown), key)
    }

    /// Secrets in the wrong place, of the wrong type, or beside a fault.
    async fn mistakes(&self, first: &str, second: &str) {
        let url = &self.world.receiver.url;
        let mut bodies = Vec::new();
        for wrong in [
            json!({"algorithm": HMAC}),
            json!({"algorithm": "HS256", "secret": [HMAC]}),
            json!({"algorithm": "HS256", "secret": {"set": HMAC}}),
            json!({"algorithm": "HS256", "secret": {HMAC_LATER: 1}}),
            json!({"algorithm": "ES256", "secret": HMAC}),
            json!({"algorithm": "RS256", "privateKey": PRIVATE_KEY}),
            json!({"algorithm": "ES256", "privateKey": PRIVATE_KEY.replace('\n', "")}),
            json!({"algorithm": "ES256", "privateKey": HMAC}),
            json!({"algorithm": "HS256", "secret": HMAC, "privateKey": PRIVATE_KEY}),
            json!({"algorithm": "HS256", "secret": HMAC, "expiresInSeconds": HMAC}),
            json!({"algorithm": "HS256", "secret": HMAC, "prefix": format!("{HMAC}\n")}),
            json!({"type": HMAC}),
            json!({"type": "none", "secret": HMAC}),
        ] {
            bodies.push(webhook(url, jwt(wrong), HEADER));
        }
        for value in [json!(format!("{HEADER}\r\n")), json!([HEADER]), json!({"set": HEADER})] {
            let mut body = webhook(url, json!({"type": "none"}), HEADER);
            body["headers"][0]["value"] = value;
            bodies.push(body);
        }
        let mut secret = webhook(url, json!({"type": "none"}), HEADER);
        secret["headers"][0]["secret"] = json!(HEADER);
        bodies.push(secret);
        bodies.push(webhook(
            &format!("https://acme:{}@127.0.0.1/", "planted%3Asmtp%2Fpass%2Bword%226e0f%26"),
            json!({"type": "none"}),
            HEADER,
        ));
        for body in &bodies {
            for path in [first, second].map(|id| format!("/v1/feedback-webhooks/{id}")) {
                self.root().put(&path, body).await;
            }
            let refused = self.callers[1].post("/v1/feedback-webhooks", body).await;
            assert!((400..500).contains(&refused.status), "{} {body}", refused.text());
        }
        for wrong in [
            json!({"password": [PASSWORD]}),
            json!({"password": format!("{PASSWORD}\r\n")}),
            json!({"username": null}),
            json!({"tls": PASSWORD}),
            json!({"port": PASSWORD}),
        ] {
            let relay = Relay::start().await;
            let mut body = relay_channel(&relay, PASSWORD);
            merge(&mut body["smtp"], wrong);
            self.root().post("/v1/channel-configurations", &body).await.expect(400);
        }
        let cut = webhook(url, jwt(json!({"algorithm": "HS256", "secret": HMAC})), HEADER).to_string();
        let headers =
            [("content-type", "application/json"), ("x-gw-ims-org-id", "default@EsitoOrg"), ("x-sandbox-name", "prod")];
        let bearer = format!("Bearer {}", self.root().key.as_ref().unwrap());
        let headers = [headers.as_slice(), &[("authorization", bearer.as_str())]].concat();
        for broken in
            [cut[..cut.len() - 1].to_owned(), cut.replace("\"secret\":", "\"secret\""), cut.replace(HEADER, "\u{1}")]
        {
            let refused = self.root().raw(Method::POST, "/v1/feedback-webhooks", &headers, broken).await.unwrap();
            assert!((400..500).contains(&refused.status), "{}", refused.text());
        }
    }

    /// Every list and every resource in it, the metrics and the documents.
    async fn read_everything(&self) {
        for caller in &self.callers {
            for list in [
                "executions",
                "messages",
                "feedback-events",
                "deliveries",
                "feedback-webhooks",
                "campaigns",
                "channel-configurations",
            ] {
                let items = caller.get(&format!("/v1/{list}?limit=200")).await.expect(200);
                for item in items["items"].as_array().unwrap() {
                    let id = item["id"].as_str().or(item["executionId"].as_str()).unwrap();
                    caller.get(&format!("/v1/{list}/{id}")).await.expect(200);
                }
            }
        }
        for path in [
            "/v1/api-keys?limit=200",
            "/v1/audit-log?limit=200",
            "/v1/organizations",
            "/v1/sandboxes",
            "/metrics",
            "/openapi.json",
            "/.well-known/jwks.json",
        ] {
            assert_eq!(self.root().get(path).await.status, 200, "{path}");
        }
    }

    /// The tokens that the endpoints got: whoever has one may post as Esito for some minutes.
    fn plant_tokens(&mut self) {
        let mut tokens = 0;
        for got in self.world.receiver.got() {
            let token = ["authorization", "x-token"].iter().find_map(|name| got.headers.get(*name)).unwrap();
            assert!([HEADER, HEADER_LATER].contains(&got.headers["x-planted"].as_str()), "the secret header is sent");
            self.secrets.push(Planted::new("a token", token.strip_prefix("Bearer ").unwrap().as_bytes()));
            tokens += 1;
        }
        assert!(tokens >= 4, "{tokens} tokens");
    }
}

/// The key's text without its frame, and the private number in it: 32 bytes at a fixed place (RFC 5958, RFC 5915).
fn private_key_parts() -> Vec<Planted> {
    let lines: Vec<&str> = PRIVATE_KEY.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(lines.concat()).unwrap();
    vec![
        Planted::new("private key, as PEM", PRIVATE_KEY.trim().as_bytes()),
        Planted::new("private key, a line", lines[1].as_bytes()),
        Planted::new("private key, its number", &der[36..68]),
    ]
}

async fn secrets_stay_secret(format: &str) {
    let mut stage = Stage::set(format).await;
    stage.run().await;
    stage.plant_tokens();
    let mut places = Places(Vec::new());
    // While it runs much of the database is in its log still.
    places.add_folder(stage.world.server.folder.path());
    assert!(stage.world.server.stop().await.success());
    stage.world.server.up().await;
    assert!(stage.world.server.stop().await.success());
    places.add_folder(stage.world.server.folder.path());
    places.add("what it prints", stage.world.server.printed().as_bytes());
    places.add_answers(stage.callers[0].record.as_ref().unwrap());
    places.check(&stage.secrets);
    places.assert_holds("GET /v1/feedback-webhooks/", DECOY);
    places.assert_holds("GET /v1/audit-log", DECOY);
    places.assert_holds("file esito.db", "a webhook for planted secrets");
    places.assert_holds("file esito.db", "a request for planted secrets");
    let address = stage.world.caller.base.strip_prefix("http://").unwrap().to_owned();
    places.assert_holds("file log", &format!("{address:?}").replace('"', ""));
    println!("{} secrets, {} places", stage.secrets.len(), places.0.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_are_nowhere_with_a_log_for_people() {
    secrets_stay_secret("\"text\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_secrets_are_nowhere_with_a_log_for_programs() {
    secrets_stay_secret("\"json\"").await;
}
