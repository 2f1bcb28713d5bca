//! Webhook requests, judged by a receiver that shares no code with us: Python's `standardwebhooks`, `PyJWT` and
//! `jsonschema`, behind nginx with TLS.

use super::peer::{Peer, free_port};
use super::project_folder;
use crate::support::client::Caller;
use crate::support::receiver::Authority;
use crate::support::world::{World, merge};
use hyper::Method;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Map, Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// An outcome of the simulator.
struct Simulated {
    /// Its name in email addresses.
    name: &'static str,
    /// Its digit in phone numbers.
    digit: u8,
    /// The events that it makes: status, then category, type and code of a failure.
    events: &'static [(&'static str, &'static str)],
}

const OUTCOMES: [Simulated; 7] = [
    Simulated { name: "sent", digit: 1, events: &[("sent", "")] },
    Simulated { name: "delivered", digit: 2, events: &[("sent", ""), ("delivered", "")] },
    Simulated { name: "bounce", digit: 3, events: &[("bounce", "sync Hard 10")] },
    Simulated { name: "softbounce", digit: 4, events: &[("bounce", "sync Soft 22")] },
    Simulated { name: "error", digit: 5, events: &[("error", "sync Ignored 25")] },
    Simulated { name: "late-bounce", digit: 6, events: &[("sent", ""), ("bounce", "async Hard 10")] },
    Simulated { name: "exclude", digit: 8, events: &[("exclude", "")] },
];

/// Events of one sandbox: two of the seven outcomes make two, and there are two channels.
const EVENTS_EACH: usize = 9 * 2;

/// The Python receiver, nginx before it, and the file that tells the receiver what it knows of each endpoint.
struct Front {
    receiver: Peer,
    receiver_port: u16,
    _nginx: Peer,
    port: u16,
    folder: TempDir,
}

impl Front {
    async fn start(jwks: &str, authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // nginx's workers are of another user.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let schema = project_folder().join("tests/peers/feedback_event.schema.json");
        let endpoints = folder.path().join("endpoints.json");
        let receiver = Peer::python("receiver.py", &[endpoints.as_os_str(), jwks.as_ref(), schema.as_os_str()]);
        let receiver_port = receiver.port().await;
        let (certificate, key) = authority.issue(&["localhost", "127.0.0.1"]);
        std::fs::write(folder.path().join("front.crt"), certificate).unwrap();
        std::fs::write(folder.path().join("front.key"), key).unwrap();
        for _ in 0..10 {
            let port = free_port();
            if let Some(nginx) = try_nginx(folder.path(), port, receiver_port).await {
                return Self { receiver, receiver_port, _nginx: nginx, port, folder };
            }
        }
        panic!("nginx did not come up on any of ten ports");
    }

    fn write_endpoints(&self, endpoints: Map<String, Value>) {
        std::fs::write(self.folder.path().join("endpoints.json"), Value::Object(endpoints).to_string()).unwrap();
    }

    /// Posts what a request was, as it is now told, to the receiver; what it makes of it.
    async fn post_again(&self, request: &Value) -> (u16, Value) {
        let direct = Caller::new(&format!("http://127.0.0.1:{}", self.receiver_port), "", "", "");
        let headers = request["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
        let kept: Vec<(&str, &str)> =
            headers.filter(|(name, _)| !["host", "content-length", "connection"].contains(name)).collect();
        let (path, body) = (request["path"].as_str().unwrap(), request["body"].as_str().unwrap().to_owned());
        let before = self.requests().len();
        let answer = direct.raw(Method::POST, path, &kept, body).await.unwrap();
        let told = self.receiver.wait_for(before + 1, is_request).await;
        (answer.status, told.last().unwrap().clone())
    }

    fn requests(&self) -> Vec<Value> {
        self.receiver.told().into_iter().filter(is_request).collect()
    }
}

async fn try_nginx(folder: &Path, port: u16, receiver: u16) -> Option<Peer> {
    let shown = folder.display();
    let configuration = format!(
        "daemon off;
worker_processes 1;
pid {shown}/nginx.pid;
error_log /dev/stdout notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {shown}/body;
    proxy_temp_path {shown}/proxy;
    fastcgi_temp_path {shown}/fastcgi;
    uwsgi_temp_path {shown}/uwsgi;
    scgi_temp_path {shown}/scgi;
    upstream receiver {{ server 127.0.0.1:{receiver}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {shown}/front.crt;
        ssl_certificate_key {shown}/front.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://receiver;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let nginx = Peer::start("nginx", &["-p".as_ref(), folder.as_os_str(), "-c".as_ref(), file.as_os_str()]);
    // It says so once it listens; where the port is taken it tries for a while, says that, and ends.
    let up = |lines: &[String]| {
        let said = |words: &str| lines.iter().any(|line| line.contains(words));
        (said("start worker processes") || said("[emerg]")).then(|| !said("[emerg]"))
    };
    let is_up = nginx.look_for("its start", up).await.unwrap_or(false);
    if is_up || nginx.lines().iter().any(|line| line.contains("bind()")) {
        is_up.then_some(nginx)
    } else {
        panic!("nginx does not start: {}", nginx.last_words())
    }
}

fn is_request(told: &Value) -> bool {
    told["endpoint"].is_string()
}

/// How a webhook of this algorithm authenticates: with a key pair of Esito's own where nothing is given.
fn authentication(algorithm: &str) -> Value {
    let mut authentication = json!({"type": "jwt", "algorithm": algorithm, "issuer": format!("esito-{algorithm}"),
        "audience": "receiver.example", "subject": "feedback", "expiresInSeconds": 240, "claims": {"tenant": algorithm}});
    let given = match algorithm {
        "HS256" | "HS384" | "HS512" => {
            json!({"secret": format!("planted secret of {algorithm}, wíth ünïcode, and long enough to sign with it: {}", "0".repeat(32))})
        }
        "ES256" => {
            json!({"privateKey": KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem(), "keyId": "given-by-us"})
        }
        _ => json!({}),
    };
    merge(&mut authentication, given);
    authentication
}

/// A sandbox of this name with a webhook at the front and two live campaigns; what the receiver is to know of it, and
/// the campaigns.
async fn sandbox(world: &World, front: &Front, algorithm: &str, payload: &str) -> (Caller, Value, [String; 2]) {
    let name = algorithm.to_lowercase();
    let caller = world.caller.in_new_sandbox(&name).await;
    let authentication = authentication(algorithm);
    let webhook = json!({"name": algorithm, "channels": ["email", "sms"], "url": format!("https://localhost:{}/hook/{name}", front.port),
        "payload": payload, "authentication": authentication,
        "headers": [{"name": "x-configured", "value": "as it was set"}]});
    let webhook = caller.post("/v1/feedback-webhooks", &webhook).await.expect(201);
    let mut known = json!({"signingSecret": webhook["signingSecret"], "payload": payload});
    for name in ["algorithm", "secret", "issuer", "audience", "subject", "expiresInSeconds"] {
        if let Some(value) = authentication.get(name) {
            known[name] = value.clone();
        }
    }
    let email = campaign(&caller, "email", json!({"subject": "Order", "html": "<p>Thank you</p>"})).await;
    let sms = campaign(&caller, "sms", json!({"text": "Thank you"})).await;
    (caller, known, [email, sms])
}

async fn campaign(caller: &Caller, channel: &str, content: Value) -> String {
    let configuration = json!({"name": format!("simulator-{channel}"), "channel": channel, "type": "simulator"});
    let configuration = caller.post("/v1/channel-configurations", &configuration).await.expect(201);
    let campaign = json!({"name": "orders", "channel": channel, "channelConfigurationId": configuration["id"],
        "content": content, "audience": {"identityNamespace": "ECID", "enableWebhooks": true}});
    let campaign = caller.post("/v1/campaigns", &campaign).await.expect(201);
    let id = campaign["id"].as_str().unwrap().to_owned();
    caller.call(Method::POST, &format!("/v1/campaigns/{id}/activate"), None).await.expect(200);
    id
}

/// One recipient for each outcome; of every second one the namespace is not the channel's.
fn recipients(channel: &str) -> Vec<Value> {
    let recipient = |(i, outcome): (usize, &Simulated)| {
        let address = outcome.address(channel);
        let (namespace, field) =
            if channel == "email" { ("email", "emailAddress") } else { ("phone", "mobilePhoneNumber") };
        let (namespace, user) = if i % 2 == 0 { (namespace, address.clone()) } else { ("ECID", format!("user-{i}")) };
        json!({"type": "external", "userId": user, "namespace": namespace, "channelData": {field: address}})
    };
    OUTCOMES.iter().enumerate().map(recipient).collect()
}

impl Simulated {
    fn address(&self, channel: &str) -> String {
        let Self { name, digit, .. } = self;
        if channel == "email" { format!("{name}+1@simulator.esito.test") } else { format!("+99900000{digit}") }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_verifies_for_each_of_the_seven_algorithms() {
    let algorithms = ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA"];
    let world = World::start().await;
    let jwks = format!("{}/.well-known/jwks.json", world.server.base);
    let front = Front::start(&jwks, &world.authority).await;
    let (mut endpoints, mut sandboxes) = (Map::new(), Vec::new());
    for (i, algorithm) in algorithms.iter().enumerate() {
        let payload = if i % 2 == 0 { "standard" } else { "extended" };
        let (caller, known, campaigns) = sandbox(&world, &front, algorithm, payload).await;
        endpoints.insert(algorithm.to_lowercase(), known);
        sandboxes.push((caller, campaigns));
    }
    front.write_endpoints(endpoints);
    for (caller, campaigns) in &sandboxes {
        for (channel, campaign) in ["email", "sms"].into_iter().zip(campaigns) {
            let body =
                json!({"requestId": format!("r-{channel}"), "campaignId": campaign, "recipients": recipients(channel)});
            caller.post("/ajo/im/executions/unitary", &body).await.expect(202);
        }
    }

    let all = EVENTS_EACH * algorithms.len();
    let refused = |lines: &[String]| {
        let told: Vec<Value> =
            lines.iter().filter_map(|line| serde_json::from_str(line).ok()).filter(is_request).collect();
        (told.len() >= all || told.iter().any(|one| one["status"] != 204)).then_some(())
    };
    front.receiver.wait_until("all events, or one that it refuses", refused).await;
    let requests = front.requests();
    for request in &requests {
        for check in ["signature", "jwt", "schema", "transport"] {
            assert_eq!(request[check], "ok", "{check} of {request}");
        }
    }
    assert_eq!(requests.len(), all, "each event came once");
    for algorithm in algorithms {
        check_events(&requests, &algorithm.to_lowercase());
    }
    println!("{all} requests verified: {} for each of {algorithms:?}", EVENTS_EACH);
    tampered_requests_are_refused(&front, &requests).await;
}

/// Every recipient's events, in order.
fn check_events(requests: &[Value], endpoint: &str) {
    for channel in ["email", "sms"] {
        for outcome in &OUTCOMES {
            let address = outcome.address(channel);
            let namespace = if channel == "email" { "email" } else { "Phone" };
            let of_recipient = requests.iter().filter(|one| {
                let event = &one["event"];
                let id = &event["identityMap"][namespace][0]["id"];
                one["endpoint"] == endpoint && event["channel"] == channel && *id == address
            });
            let told: Vec<_> = of_recipient.map(|one| told_of(&one["event"]["messageDeliveryFeedback"])).collect();
            let told: Vec<_> = told.iter().map(|(status, failure)| (status.as_str(), failure.as_str())).collect();
            assert_eq!(told, outcome.events, "{endpoint} {channel} {}", outcome.name);
        }
    }
}

fn told_of(feedback: &Value) -> (String, String) {
    let failure = &feedback["messageFailure"];
    let words: Vec<&str> = ["category", "type", "code"].iter().filter_map(|name| failure[name].as_str()).collect();
    (feedback["feedbackStatus"]["value"].as_str().unwrap().to_owned(), words.join(" "))
}

/// A receiver that takes everything would have passed the test too.
async fn tampered_requests_are_refused(front: &Front, requests: &[Value]) {
    for endpoint in ["hs256", "rs256", "eddsa"] {
        let honest = requests.iter().find(|one| one["endpoint"] == endpoint).unwrap();
        let (status, told) = front.post_again(honest).await;
        assert_eq!(status, 204, "as it was, it still verifies: {told}");

        let mut with_key = honest.clone();
        with_key["body"] = honest["body"].as_str().unwrap().replacen('{', "{\"planted\":1,", 1).into();
        let (status, told) = front.post_again(&with_key).await;
        assert_eq!((status, &told["jwt"]), (401, &json!("ok")), "{told}");
        assert!(told["signature"].as_str().unwrap().starts_with("WebhookVerificationError"), "{told}");
        assert!(told["schema"].as_str().unwrap().starts_with("ValidationError: Additional properties"), "{told}");

        let mut with_token = honest.clone();
        let token = honest["headers"]["authorization"].as_str().unwrap();
        let (claims, signature) = token.rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        with_token["headers"]["authorization"] = format!("{claims}.{first}{}", &signature[1..]).into();
        let (status, told) = front.post_again(&with_token).await;
        assert_eq!((status, &told["signature"]), (401, &json!("ok")), "{told}");
        assert!(told["jwt"].as_str().unwrap().starts_with("InvalidSignatureError"), "{told}");
    }
}
