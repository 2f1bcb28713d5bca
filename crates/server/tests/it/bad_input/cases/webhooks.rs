//! Feedback webhooks.

use super::{Table, WEBHOOKS, put};
use crate::bad_input::Case;
use crate::bad_input::stage::{PUBLIC_URL, Stage, webhook_body};
use hyper::Method;
use serde_json::{Value, json};

macro_rules! test_key {
    ($name:literal) => {
        include_str!(concat!("../../../../../wire/src/jwt/testdata/", $name, ".pem"))
    };
}

const FORBIDDEN_URLS: &[&str] = &[
    "http://93.184.215.14/hook",
    "ftp://93.184.215.14/hook",
    "https://user:secret@93.184.215.14/hook",
    "https://user@93.184.215.14/hook",
    "https://:secret@93.184.215.14/",
    "//93.184.215.14/hook",
    "93.184.215.14",
    "",
    "hook",
    "https://",
    "https://10.0.0.1/",
    "https://172.16.3.4/",
    "https://192.168.1.1/",
    "https://127.0.0.1/",
    "https://localhost/",
    "https://LOCALHOST./",
    "https://a.localhost/",
    "https://0.0.0.0/",
    "https://0/",
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://017700000001/",
    "https://127.1/",
    "https://１２７.0.0.1/",
    "https://100.64.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[fd00::1]/",
    "https://[fe80::1]/",
    "https://[ff02::1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[fd00:ec2::254]/",
    "https://93.184.215.14:0x1/",
    "https://exa mple.com/",
    "https://256.1.1.1/",
];

const FORBIDDEN_HEADERS: &[&str] = &[
    "Connection",
    "Keep-Alive",
    "Proxy-Authorization",
    "Proxy-Authenticate",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Host",
    "Content-Length",
    "webhook-id",
    "Webhook-Signature",
    "webhook-other",
    "esito-test",
    "Esito-Other",
    "content-type",
    "",
    "x y",
    "x:y",
    "x\r\nhost: evil.example",
    "x\n",
    "é",
    "x\u{0}",
];

pub fn webhooks(stage: &Stage) -> Vec<Case> {
    let mut table = Table::new(&stage.empty, Method::POST, WEBHOOKS, webhook_body());
    table.missing(&["name", "channels", "url"]);
    table.all_wrong("name", &[json!(""), json!("x".repeat(201)), json!("a\r\nb"), json!(7)]);
    table.all_wrong("channels", &[json!([]), json!(["email", "email"]), json!("email")]);
    table.wrong_at("channels", json!(["fax"]), "channels.0");
    for url in FORBIDDEN_URLS {
        table.wrong("url", json!(url));
    }
    table.all_wrong("url", &[json!(7), json!(format!("{PUBLIC_URL}?{}", "x".repeat(3000)))]);
    for name in FORBIDDEN_HEADERS {
        table.wrong_at("headers", json!([{"name": name, "value": "v"}]), "headers.0.name");
    }
    for value in [json!("a\r\nx-evil: 1"), json!("a\nb"), json!("é"), json!("\u{0}"), json!("x".repeat(8193)), json!(7)]
    {
        table.wrong_at("headers", json!([{"name": "x-team", "value": value}]), "headers.0.value");
    }
    table.wrong_at("headers", json!([{"name": "x-team"}]), "headers.0.value");
    table.wrong_at("headers", json!([{"value": "v"}]), "headers.0.name");
    table.wrong_at("headers", json!([{"name": "x-team", "value": {"set": true}}]), "headers.0.value");
    table.wrong_at("headers", json!([{"name": "x-a", "value": "1"}, {"name": "X-A", "value": "2"}]), "headers.1.name");
    table.wrong_at("headers", json!([{"name": "x-a", "value": "1", "hidden": true}]), "headers.0.hidden");
    let many: Value = (0..33).map(|i| json!({"name": format!("x-{i}"), "value": "v"})).collect();
    table.all_wrong("headers", &[many, json!({"x-team": "v"})]);
    table.all_wrong("events", &[json!([]), json!(["sent", "sent"]), json!("sent")]);
    table.wrong_at("events", json!(["opened"]), "events.0");
    table.all_wrong("payload", &[json!("full"), json!(true)]);
    table.all_wrong("signing", &[json!("v2"), json!([])]);
    table.all_wrong(
        "timeoutSeconds",
        &[json!(0), json!(31), json!("15"), json!(1.5), json!(-1), json!(4_294_967_296_u64)],
    );
    table.all_wrong("maxConcurrency", &[json!(0), json!(1001), json!({})]);
    table.all_wrong("maxPerSecond", &[json!(0), json!(100_001)]);
    table.wrong_at("retry", json!({"firstDelaySeconds": 0}), "retry.firstDelaySeconds");
    table.wrong_at("retry", json!({"giveUpAfterSeconds": -1}), "retry.giveUpAfterSeconds");
    table.wrong_at("retry", json!({"giveUpSeconds": 1}), "retry.giveUpSeconds");
    table.wrong("enabled", json!("yes"));
    table.all_wrong("urls", &[json!([PUBLIC_URL])]);
    table.all_wrong("authentication", &[json!("none"), json!({"type": "none", "secret": "s"})]);
    for (authentication, at) in wrong_authentications() {
        table.wrong_at("authentication", authentication, &format!("authentication.{at}"));
    }
    let token = json!({"type": "jwt", "algorithm": "HS256", "secret": "s"});
    table.base = put(&table.base, "authentication", token.clone());
    table.wrong_at("headers", json!([{"name": "AUTHORIZATION", "value": "v"}]), "headers.0.name");
    table.base = put(&table.base, "authentication.header", json!("x-token"));
    table.wrong_at("headers", json!([{"name": "X-Token", "value": "v"}]), "headers.0.name");
    let mut cases = table.cases;
    let one = format!("{WEBHOOKS}/{}", stage.webhook);
    let mut changes = Table::new(&stage.admin, Method::PUT, &one, webhook_body());
    changes.missing(&["name", "channels", "url"]);
    changes.all_wrong("url", &[json!("http://93.184.215.14/"), json!("https://127.0.0.1/")]);
    changes.wrong_at("authentication", json!({"type": "jwt", "algorithm": "HS256"}), "authentication.secret");
    changes.wrong_at(
        "authentication",
        json!({"type": "jwt", "algorithm": "HS256", "secret": {"set": true}}),
        "authentication.secret",
    );
    changes.wrong_at("headers", json!([{"name": "x-team", "value": {"set": true}}]), "headers.0.value");
    cases.extend(changes.cases);
    cases.extend(webhook_actions(stage, &one));
    cases
}

fn wrong_authentications() -> Vec<(Value, &'static str)> {
    let jwt = |algorithm: &str, more: Value| {
        let mut authentication = json!({"type": "jwt", "algorithm": algorithm});
        crate::support::world::merge(&mut authentication, more);
        authentication
    };
    let key = |algorithm: &str, pem: &str| (jwt(algorithm, json!({"privateKey": pem})), "privateKey");
    vec![
        (json!({"type": "basic"}), "type"),
        (json!({"type": "jwt"}), "algorithm"),
        (json!({"type": "jwt", "secret": "s"}), "algorithm"),
        (jwt("none", json!({})), "algorithm"),
        (jwt("hs256", json!({"secret": "s"})), "algorithm"),
        (jwt("HS256", json!({})), "secret"),
        (jwt("HS256", json!({"secret": ""})), "secret"),
        (jwt("HS256", json!({"secret": 7})), "secret"),
        (jwt("HS256", json!({"secret": {"set": true}})), "secret"),
        (jwt("HS256", json!({"secret": "s", "privateKey": test_key!("ec_pkcs8")})), "privateKey"),
        (jwt("ES256", json!({"secret": "s"})), "secret"),
        (jwt("ES256", json!({"secret": "s", "privateKey": test_key!("ec_pkcs8")})), "secret"),
        key("ES256", "hunter2"),
        key("ES256", ""),
        key("ES256", "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"),
        key("ES256", test_key!("rsa_pkcs8")),
        key("ES256", test_key!("ec_p384_pkcs8")),
        key("RS256", test_key!("rsa_1024_traditional")),
        key("RS256", test_key!("ec_pkcs8")),
        key("PS256", test_key!("ec_sec1")),
        key("EdDSA", test_key!("ed448")),
        key("ES256", test_key!("encrypted_pkcs8")),
        (jwt("HS256", json!({"secret": "s", "expiresInSeconds": 9})), "expiresInSeconds"),
        (jwt("HS256", json!({"secret": "s", "expiresInSeconds": 86_401})), "expiresInSeconds"),
        (jwt("HS256", json!({"secret": "s", "header": "host"})), "header"),
        (jwt("HS256", json!({"secret": "s", "header": "x\r\ny"})), "header"),
        (jwt("HS256", json!({"secret": "s", "prefix": "a\r\nb"})), "prefix"),
        (jwt("HS256", json!({"secret": "s", "claims": {"exp": 1}})), "claims.exp"),
        (jwt("HS256", json!({"secret": "s", "claims": []})), "claims"),
        (jwt("HS256", json!({"secret": "s", "audiences": ["a"]})), "audiences"),
    ]
}

fn webhook_actions(stage: &Stage, one: &str) -> Vec<Case> {
    let act = |name: &str, act: &str| Case::new(name, &stage.admin, Method::POST, &format!("{one}/{act}"));
    let stale = |case: Case| case.with("if-match", "\"7\"").refused(412, "precondition-failed", "If-Match");
    let overlap = |seconds: Value| {
        let body = json!({"overlapSeconds": seconds});
        act("overlap", "rotate-secret").json(&body).refused(400, "validation", "$.overlapSeconds: ")
    };
    let put = Case::new("stale", &stage.admin, Method::PUT, one).json(&webhook_body());
    let mut cases = vec![
        Case::new("the second", &stage.admin, Method::POST, WEBHOOKS).json(&webhook_body()).refused(
            409,
            "feedback-webhook-exists",
            &stage.webhook,
        ),
        stale(put),
        stale(Case::new("stale", &stage.admin, Method::DELETE, one)),
        overlap(json!(604_801)),
        overlap(json!(-1)),
        overlap(json!("1 d")),
        act("no key of Esito's own", "rotate-key").refused(409, "wrong-state", "key pair"),
        act("unknown action", "flush").refused(404, "unknown-path", ""),
    ];
    cases.extend(
        ["enable", "disable", "pause", "resume", "rotate-secret", "rotate-key"].map(|name| stale(act("stale", name))),
    );
    cases
}
