//! The table.

use super::Case;
use super::stage::{PUBLIC_URL, Stage, campaign_body, channel_body, webhook_body};
use crate::support::client::Caller;
use crate::support::world::execution;
use hyper::Method;
use serde_json::{Value, json};

const UNITARY: &str = "/ajo/im/executions/unitary";
const HIGH_THROUGHPUT: &str = "/ajo/im/executions/highthroughput";
const WEBHOOKS: &str = "/v1/feedback-webhooks";
const CAMPAIGNS: &str = "/v1/campaigns";
const CHANNELS: &str = "/v1/channel-configurations";
const NOBODY: &str = "01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11";

macro_rules! test_key {
    ($name:literal) => {
        include_str!(concat!("../../../../wire/src/jwt/testdata/", $name, ".pem"))
    };
}

/// `base` with `value` at a path such as `recipients.0.type`.
fn put(base: &Value, path: &str, value: Value) -> Value {
    let mut changed = base.clone();
    let mut place = &mut changed;
    for step in path.split('.') {
        place = match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        };
    }
    *place = value;
    changed
}

/// `base` without the field at a path.
fn cut(base: &Value, path: &str) -> Value {
    let mut changed = base.clone();
    let (parent, field) = path.rsplit_once('.').map_or(("", path), |(parent, field)| (parent, field));
    let pointer: String = parent.split('.').filter(|step| !step.is_empty()).map(|step| format!("/{step}")).collect();
    let parent = changed.pointer_mut(&pointer).unwrap().as_object_mut().unwrap();
    parent.remove(field).unwrap();
    changed
}

/// How the detail writes a path: `$.recipients[0].type`.
fn shown(path: &str) -> String {
    let step = |step: &str| if step.parse::<usize>().is_ok() { format!("[{step}]") } else { format!(".{step}") };
    format!("${}: ", path.split('.').map(step).collect::<String>())
}

/// A body with faults of its own field: each is 400 and named by its path.
struct Table<'a> {
    caller: &'a Caller,
    method: Method,
    path: String,
    base: Value,
    cases: Vec<Case>,
}

impl<'a> Table<'a> {
    fn new(caller: &'a Caller, method: Method, path: &str, base: Value) -> Self {
        Self { caller, method, path: path.to_owned(), base, cases: Vec::new() }
    }

    fn body(&mut self, name: &str, body: &Value, says: &str) {
        let case = Case::new(name, self.caller, self.method.clone(), &self.path).json(body);
        self.cases.push(case.refused(400, "validation", says));
    }

    /// The field is not as it must be.
    fn wrong(&mut self, path: &str, value: Value) {
        let name = format!("{path} = {}", value.to_string().chars().take(60).collect::<String>());
        self.body(&name, &put(&self.base, path, value), &shown(path));
    }

    /// The same with the fault somewhere within the field, or beside it.
    fn wrong_at(&mut self, path: &str, value: Value, at: &str) {
        let name = format!("{path} = {}", value.to_string().chars().take(60).collect::<String>());
        self.body(&name, &put(&self.base, path, value), &shown(at));
    }

    fn missing(&mut self, paths: &[&str]) {
        for path in paths {
            self.body(&format!("no {path}"), &cut(&self.base, path), &format!("{}is required", shown(path)));
        }
    }

    fn all_wrong(&mut self, path: &str, values: &[Value]) {
        for value in values {
            self.wrong(path, value.clone());
        }
    }
}

fn recipients(count: usize) -> Value {
    (0..count).map(|i| json!({"type": "external", "userId": format!("u{i}@b.example"), "namespace": "email"})).collect()
}

pub fn executions(stage: &Stage) -> Vec<Case> {
    let base = execution("bad", &stage.live, &["sent@simulator.esito.test"]);
    let mut table = Table::new(&stage.admin, Method::POST, UNITARY, base.clone());
    table.missing(&["requestId", "campaignId", "recipients"]);
    table.missing(&["recipients.0.type", "recipients.0.userId", "recipients.0.namespace"]);
    table.all_wrong("requestId", &[json!(7), json!(""), json!("x".repeat(256)), json!("a\nb"), json!(["a"])]);
    table.all_wrong("campaignId", &[json!(7), json!("orders"), json!("HUMA-1")]);
    table.all_wrong("recipients", &[json!([]), recipients(21), json!({"0": {}}), json!("jane@example.com")]);
    table.wrong_at("recipients", json!([7]), "recipients.0");
    table.all_wrong("recipients.0.type", &[json!("internal"), json!(1)]);
    table.all_wrong("recipients.0.userId", &[json!(7), json!(" "), json!("x".repeat(1025)), json!("a\r\nb")]);
    table.all_wrong("recipients.0.namespace", &[json!(""), json!("e\nmail"), json!({})]);
    table.all_wrong("recipients.0.context", &[json!([]), json!("text"), json!({"text": "x".repeat(201_000)})]);
    table.wrong_at("recipients.0.context", json!({"system": {}}), "recipients.0.context.system");
    table.wrong("recipients.0.profile", json!("Jane"));
    table.wrong("recipients.0.channelData", json!("a@b.example"));
    let forged = json!("a@b.example\r\nBcc: x@y.example");
    table.all_wrong("recipients.0.channelData.emailAddress", &[forged.clone(), json!("a\u{0}@b.example"), json!(7)]);
    table.wrong("recipients.0.channelData.mobilePhoneNumber", json!("+39\n02"));
    let own = json!({"type": "external", "userId": forged, "namespace": "email"});
    table.wrong_at("recipients.0", own, "recipients.0.userId");
    for (address, at) in [(forged.clone(), "address"), (json!(7), "address")] {
        let profile = json!({"type": "aep", "userId": "1", "namespace": "ECID", "profile": {"personalEmail": {"address": address}}});
        table.wrong_at("recipients.0", profile, &format!("recipients.0.profile.personalEmail.{at}"));
    }
    let twice = json!([base["recipients"][0], base["recipients"][0]]);
    table.wrong_at("recipients", twice, "recipients.1.userId");
    table.all_wrong(
        "expiresAt",
        &[json!("tomorrow"), json!(1_700_000_000), json!("2026-13-01T00:00:00Z"), json!("2026-01-01")],
    );
    for body in [json!([]), json!("text"), json!(7), json!(null), json!([base])] {
        table.body(&format!("{body:.20}"), &body, "$: ");
    }
    let mut cases = table.cases;
    let known = put(&base, "recipients.0.type", json!("aep"));
    cases.push(Case::new("aep", &stage.admin, Method::POST, HIGH_THROUGHPUT).json(&known).refused(
        400,
        "validation",
        "$.recipients[0].type: ",
    ));
    for path in [UNITARY, HIGH_THROUGHPUT] {
        cases.extend(executions_of_wrong_campaigns(stage, path));
    }
    cases.extend(bodies(stage, &base));
    cases
}

fn executions_of_wrong_campaigns(stage: &Stage, path: &str) -> Vec<Case> {
    let of = |name: &str, request_id: &str, campaign: &str, address: &str| {
        Case::new(name, &stage.admin, Method::POST, path).json(&execution(request_id, campaign, &[address]))
    };
    let of_campaign = |name: &str, campaign: &str| of(name, "bad", campaign, "a@b.example");
    let [empty, acme] = &stage.elsewhere;
    let before = stage.accepted["executionId"].as_str().unwrap();
    vec![
        of_campaign("unknown campaign", NOBODY).refused(404, "unknown-campaign", NOBODY),
        of_campaign("another sandbox's campaign", &empty.campaign).refused(404, "unknown-campaign", "$.campaignId: "),
        of_campaign("another organization's", &acme.campaign).refused(404, "unknown-campaign", "$.campaignId: "),
        of_campaign("a channel's id", &stage.channel).refused(404, "unknown-campaign", "$.campaignId: "),
        of_campaign("draft", &stage.draft).refused(409, "campaign-not-live", "DRAFT"),
        of_campaign("stopped", &stage.stopped).refused(409, "campaign-not-live", "STOPPED"),
        of_campaign("not begun", &stage.early).refused(409, "outside-schedule", "2199-01-01"),
        of_campaign("ended", &stage.late).refused(409, "outside-schedule", "2020-01-01"),
        of("other body", "taken", &stage.live, "a@b.example").refused(409, "request-id-conflict", before),
    ]
}

fn bodies(stage: &Stage, base: &Value) -> Vec<Case> {
    let post = |name: &str| Case::new(name, &stage.admin, Method::POST, UNITARY);
    let text = base.to_string();
    let deep = text.replace("\"A-1\"", &format!("{}{}", "[".repeat(1000), "]".repeat(1000)));
    let (cut, surrogate) = (&text[..text.len() - 1], text.replace("A-1", "\\ud800"));
    let huge = execution("bad", &stage.live, &["x".repeat(10_000_000)]).to_string();
    let json = |name: &str, body: Vec<u8>, says: &str| post(name).raw(body).refused(400, "malformed-json", says);
    vec![
        json("no JSON", b"requestId=bad".to_vec(), "line 1 column 1"),
        json("cut off", cut.into(), "line 1"),
        json("trailing text", format!("{text} x").into(), "trailing"),
        json("empty", Vec::new(), "empty"),
        json("1000 deep", deep.into(), "recursion"),
        json("100,000 deep", "[".repeat(100_000).into(), "recursion"),
        json("not UTF-8", b"{\"requestId\":\"\xff\"}".to_vec(), "line 1"),
        json("half a surrogate pair", surrogate.into(), "line 1"),
        json("a number out of range", text.replace("\"A-1\"", "1e999").into(), "line 1"),
        json("a byte order mark", format!("\u{feff}{text}").into(), "line 1"),
        post("10 MB").raw(huge).refused(413, "body-too-large", "6291456"),
        post("another type").raw(text.clone()).without("content-type").with("content-type", "text/plain").refused(
            415,
            "unsupported-media-type",
            "application/json",
        ),
        post("a form")
            .raw("a=b")
            .without("content-type")
            .with("content-type", "application/x-www-form-urlencoded")
            .refused(415, "unsupported-media-type", "content-type"),
        post("no type").raw(text).without("content-type").refused(415, "unsupported-media-type", "content-type"),
    ]
}

pub fn access(stage: &Stage) -> Vec<Case> {
    let get = |name: &str| Case::new(name, &stage.admin, Method::GET, CAMPAIGNS);
    let bearing = |name: &str, value: &str| get(name).without("authorization").with("authorization", value);
    let of = |name: &str, caller: &Caller| Case::new(name, caller, Method::GET, CAMPAIGNS);
    let unknown = format!("Bearer esito_{}", "A".repeat(43));
    let key = stage.admin.key.as_ref().unwrap();
    let unauthenticated = [
        (get("no key").without("authorization"), "authorization: Bearer"),
        (get("x-api-key alone").without("authorization").with("x-api-key", key), "authorization: Bearer"),
        (bearing("no key's form", "Bearer hunter2"), "esito_"),
        (bearing("an unknown key", &unknown), "no such API key"),
        (bearing("a key cut off", &format!("Bearer {}", &key[..key.len() - 1])), "esito_"),
        (bearing("a key and more", &format!("Bearer {key}x")), "esito_"),
        (bearing("another scheme", &format!("Basic {key}")), "Bearer"),
        (bearing("the key alone", key), "Bearer"),
        (bearing("an empty key", "Bearer "), ""),
        (bearing("an expired key", &format!("Bearer {}", stage.expired)), "expired"),
        (bearing("a revoked key", &format!("Bearer {}", stage.revoked)), "revoked"),
    ];
    let mut cases: Vec<Case> =
        unauthenticated.into_iter().map(|(case, says)| case.refused(401, "unauthenticated", says)).collect();
    let without = |name: &'static str| get(&format!("no {name}")).without(name).refused(400, "missing-header", name);
    let instead = |name: &'static str, value: &str| get(value).without(name).with(name, value);
    let (org, sandbox) = ("x-gw-ims-org-id", "x-sandbox-name");
    cases.extend([
        without(org),
        without(sandbox),
        instead(org, "").refused(400, "missing-header", org),
        instead(sandbox, "").refused(400, "missing-header", sandbox),
        instead(org, "acmé@EsitoOrg").refused(400, "missing-header", org),
        get("two organizations").with(org, "acme@EsitoOrg").refused(400, "missing-header", org),
        get("two sandboxes").with(sandbox, "empty").refused(400, "missing-header", sandbox),
        instead(sandbox, "nowhere").refused(404, "unknown-sandbox", sandbox),
        instead(sandbox, "PROD").refused(404, "unknown-sandbox", sandbox),
        of("a foreign organization", &stage.acme.in_sandbox("default@EsitoOrg", "prod")).refused(
            403,
            "foreign-organization",
            org,
        ),
        of("an unknown organization", &stage.acme.in_sandbox("nobody@EsitoOrg", "prod")).refused(
            403,
            "foreign-organization",
            org,
        ),
        of("not the default's admin", &stage.operator.in_sandbox("acme@EsitoOrg", "prod")).refused(
            403,
            "foreign-organization",
            org,
        ),
        of("a key for another sandbox", &stage.narrow).refused(403, "foreign-sandbox", sandbox),
        of("a key for others, unknown", &stage.narrow.in_sandbox("default@EsitoOrg", "nowhere")).refused(
            403,
            "foreign-sandbox",
            sandbox,
        ),
        of("a sender", &stage.sender).refused(403, "role-forbids", "read this"),
        Case::new("a viewer", &stage.viewer, Method::POST, UNITARY).json(&json!({})).refused(
            403,
            "role-forbids",
            "send",
        ),
        Case::new("a viewer", &stage.viewer, Method::POST, CHANNELS).json(&channel_body()).refused(
            403,
            "role-forbids",
            "change",
        ),
        Case::new("a sender", &stage.sender, Method::POST, CAMPAIGNS).json(&json!({})).refused(
            403,
            "role-forbids",
            "change",
        ),
        Case::new("an operator", &stage.operator, Method::GET, "/v1/api-keys").refused(403, "role-forbids", "API keys"),
        Case::new("unknown path", &stage.admin, Method::GET, "/v1/campaign").refused(
            404,
            "unknown-path",
            "openapi.json",
        ),
        Case::new("unknown path", &stage.admin, Method::GET, "/v2/campaigns").refused(404, "unknown-path", ""),
        Case::new("a slash more", &stage.admin, Method::GET, "/v1/campaigns/").refused(404, "unknown-path", ""),
        Case::new("wrong method", &stage.admin, Method::PATCH, CAMPAIGNS).refused(405, "method-not-allowed", "Allow"),
        Case::new("wrong method", &stage.admin, Method::GET, UNITARY).refused(405, "method-not-allowed", "Allow"),
        Case::new("wrong method", &stage.admin, Method::DELETE, WEBHOOKS).refused(405, "method-not-allowed", "Allow"),
    ]);
    cases
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

pub fn campaigns(stage: &Stage) -> Vec<Case> {
    let mut table = Table::new(&stage.admin, Method::POST, CAMPAIGNS, campaign_body(&stage.channel));
    table.missing(&["name", "channel", "channelConfigurationId"]);
    table.all_wrong("name", &[json!(" "), json!("a\nb"), json!([])]);
    table.all_wrong("channel", &[json!("fax"), json!(null)]);
    let [empty, acme] = &stage.elsewhere;
    let others = [
        json!(NOBODY),
        json!(empty.channel),
        json!(acme.channel),
        json!(stage.sms_channel),
        json!(stage.live),
        json!("x"),
    ];
    table.all_wrong("channelConfigurationId", &others);
    table.all_wrong("content", &[json!("text")]);
    table.wrong_at("content", json!({}), "content.subject");
    table.wrong_at("content", json!({"subject": "s"}), "content.html");
    table.wrong_at("content", json!({"subject": " ", "text": "t"}), "content.subject");
    table.wrong_at("content", json!({"subject": "s", "text": "t", "htlm": "h"}), "content.htlm");
    for (field, broken) in [
        ("html", "{{#if context.a}}\nx"),
        ("subject", "{{context."),
        ("html", "a\n  {{/each}}"),
        ("html", "{{> partial}}"),
        ("html", "{{nohelper context.a}}"),
    ] {
        table.wrong(&format!("content.{field}"), json!(broken));
        let case = table.cases.pop().unwrap();
        table.cases.push(Case { says: format!("$.content.{field}: "), ..case });
    }
    table.body(
        "with its position",
        &put(&table.base, "content.html", json!("<p>\n  {{#each context.a}}</p>")),
        "line 2",
    );
    table.all_wrong("content.html", &[json!(7), json!("x".repeat(600_000))]);
    table.all_wrong("schedule", &[json!("always")]);
    table.wrong_at("schedule", json!({"startAt": "noon"}), "schedule.startAt");
    table.wrong_at(
        "schedule",
        json!({"startAt": "2026-01-02T00:00:00Z", "endAt": "2026-01-01T00:00:00Z"}),
        "schedule.endAt",
    );
    table.wrong_at("audience", json!({"enableWebhook": true}), "audience.enableWebhook");
    table.wrong_at("audience", json!({"enableWebhooks": "yes"}), "audience.enableWebhooks");
    table.all_wrong("category", &[json!("marketing")]);
    table.all_wrong("highThroughputMode", &[json!(1)]);
    table.base =
        json!({"name": "sms", "channel": "sms", "channelConfigurationId": stage.sms_channel, "content": {"text": "t"}});
    table.wrong("content.html", json!("<p>t</p>"));
    table.wrong("content.subject", json!("s"));
    table.wrong_at("content", json!({}), "content.text");
    table.wrong("channelConfigurationId", json!(stage.channel));
    let mut cases = table.cases;
    let of = |name: &str, method: Method, id: &str, rest: &str| {
        Case::new(name, &stage.admin, method, &format!("{CAMPAIGNS}/{id}{rest}"))
    };
    let body = campaign_body(&stage.channel);
    let broken = put(&body, "content.html", json!("{{#if"));
    let foreign = put(&body, "channelConfigurationId", json!(acme.channel));
    let stale = |case: Case| case.with("if-match", "\"7\"").refused(412, "precondition-failed", "If-Match");
    cases.extend([
        of("broken", Method::PUT, &stage.live, "").json(&broken).refused(400, "validation", "$.content.html: "),
        of("foreign channel", Method::PUT, &stage.draft, "").json(&foreign).refused(
            400,
            "validation",
            "$.channelConfigurationId: ",
        ),
        of("stopped", Method::PUT, &stage.stopped, "").json(&body).refused(409, "wrong-state", "stopped"),
        of("stopped", Method::POST, &stage.stopped, "/activate").refused(409, "wrong-state", "stopped"),
        of("never live", Method::POST, &stage.draft, "/stop").refused(409, "wrong-state", "never live"),
        of("live", Method::DELETE, &stage.live, "").refused(409, "wrong-state", ""),
        stale(of("stale", Method::PUT, &stage.draft, "").json(&body)),
        stale(of("stale", Method::DELETE, &stage.draft, "")),
        stale(of("stale", Method::POST, &stage.draft, "/activate")),
        stale(of("stale", Method::POST, &stage.live, "/stop")),
    ]);
    cases
}

pub fn channels(stage: &Stage) -> Vec<Case> {
    let mut table = Table::new(&stage.admin, Method::POST, CHANNELS, channel_body());
    table.missing(&["name", "channel", "type", "from", "smtp", "smtp.host", "smtp.port", "from.address"]);
    table.all_wrong("type", &[json!("sendmail"), json!(null)]);
    table.all_wrong("channel", &[json!("sms"), json!("letter")]);
    table.all_wrong("smtp", &[json!("mail.example.com"), json!([])]);
    table.all_wrong(
        "smtp.host",
        &[json!(""), json!("a b"), json!("mail\r\nx"), json!("mail/../x"), json!("x".repeat(254))],
    );
    table.all_wrong("smtp.port", &[json!(0), json!(65_536), json!("25"), json!(-1)]);
    table.all_wrong("smtp.tls", &[json!("ssl"), json!(true)]);
    table.all_wrong("smtp.maxConnections", &[json!(0), json!(101)]);
    table.wrong("smtp.users", json!("x"));
    table.wrong_at("smtp.username", json!("u"), "smtp.password");
    table.wrong("smtp.password", json!("p"));
    let credentials = |username: &str, password: &str| json!({"host": "mail.example.com", "port": 25, "username": username, "password": password});
    table.wrong_at("smtp", credentials("u\r\nRSET", "p"), "smtp.username");
    table.wrong_at("smtp", credentials("u", "p\r\nRSET"), "smtp.password");
    let forged = json!("orders@acme.example\r\nBcc: x@y.example");
    table.all_wrong(
        "from.address",
        &[forged.clone(), json!("orders"), json!("a b@acme.example"), json!("<orders@acme.example>"), json!(7)],
    );
    table.all_wrong("from.name", &[json!("Acme\r\nBcc: x@y.example"), json!("x".repeat(201))]);
    table.wrong_at("replyTo", json!({"address": forged}), "replyTo.address");
    table.wrong_at("replyTo", json!({"name": "a\nb", "address": "a@acme.example"}), "replyTo.name");
    table.all_wrong("replyTo", &[json!("a@acme.example")]);
    table.all_wrong("retryHours", &[json!(0), json!(85), json!("84"), json!(-1)]);
    table.all_wrong("maxPerSecond", &[json!(0), json!(1e9)]);
    table.wrong("passwort", json!("p"));
    table.base = json!({"name": "simulator", "channel": "email", "type": "simulator"});
    table.wrong("smtp", json!({"host": "mail.example.com", "port": 25}));
    let mut cases = table.cases;
    let of = |name: &str, method: Method, rest: &str| {
        Case::new(name, &stage.admin, method, &format!("{CHANNELS}/{}{rest}", stage.channel))
    };
    let sms = json!({"name": "sms", "channel": "sms", "type": "simulator"});
    let stale = |case: Case| case.with("if-match", "\"7\"").refused(412, "precondition-failed", "If-Match");
    cases.extend([
        of("no longer email", Method::PUT, "").json(&sms).refused(409, "wrong-state", "channel"),
        of("no name", Method::PUT, "").json(&json!({"channel": "email", "type": "simulator"})).refused(
            400,
            "validation",
            "$.name: ",
        ),
        of("in use", Method::DELETE, "").refused(409, "in-use", ""),
        stale(of("stale", Method::PUT, "").json(&channel_body())),
        stale(of("stale", Method::DELETE, "")),
        stale(of("stale", Method::POST, "/pause")),
    ]);
    cases
}

pub fn administration(stage: &Stage) -> Vec<Case> {
    let mut cases = Vec::new();
    let organization = json!({"id": "new@EsitoOrg", "name": "New"});
    let mut table = Table::new(&stage.admin, Method::POST, "/v1/organizations", organization.clone());
    table.missing(&["id", "name"]);
    table.all_wrong(
        "id",
        &[json!(""), json!("a b"), json!("a/b"), json!("é"), json!("x".repeat(129)), json!(7), json!("a\r\nb")],
    );
    table.all_wrong("name", &[json!(""), json!("a\nb")]);
    table.wrong("owner", json!("x"));
    cases.append(&mut table.cases);
    let mut table = Table::new(&stage.admin, Method::POST, "/v1/sandboxes", json!({"name": "stage"}));
    table.missing(&["name"]);
    table
        .all_wrong("name", &[json!(""), json!("a b"), json!("a/b"), json!("x".repeat(65)), json!("a\r\nb"), json!([])]);
    cases.append(&mut table.cases);
    let key = json!({"role": "sender", "name": "shop"});
    let mut table = Table::new(&stage.admin, Method::POST, "/v1/api-keys", key.clone());
    table.missing(&["role", "name"]);
    table.all_wrong("role", &[json!("root"), json!("Admin"), json!(1)]);
    table.all_wrong("sandboxes", &[json!([]), json!("prod")]);
    table.wrong_at("sandboxes", json!(["prod", "nowhere"]), "sandboxes.1");
    table.all_wrong("expiresAt", &[json!("2020-01-01T00:00:00Z"), json!("soon"), json!(7)]);
    table.wrong("roles", json!(["sender"]));
    cases.append(&mut table.cases);
    let post =
        |name: &str, caller: &Caller, path: &str, body: &Value| Case::new(name, caller, Method::POST, path).json(body);
    let in_organization = |body: &Value, id: &str| put(body, "imsOrg", json!(id));
    let all = json!({"role": "sender", "name": "all"});
    cases.extend([
        post("taken", &stage.admin, "/v1/organizations", &json!({"id": "acme@EsitoOrg", "name": "A"})).refused(
            409,
            "taken",
            "acme@EsitoOrg",
        ),
        post("not the default's", &stage.acme, "/v1/organizations", &organization).refused(
            403,
            "beyond-key",
            "default@EsitoOrg",
        ),
        post("taken", &stage.admin, "/v1/sandboxes", &json!({"name": "prod"})).refused(409, "taken", "prod"),
        post(
            "unknown organization",
            &stage.admin,
            "/v1/sandboxes",
            &in_organization(&json!({"name": "x"}), "nobody@EsitoOrg"),
        )
        .refused(404, "unknown-organization", ""),
        post(
            "foreign organization",
            &stage.acme,
            "/v1/sandboxes",
            &in_organization(&json!({"name": "x"}), "default@EsitoOrg"),
        )
        .refused(403, "foreign-organization", "imsOrg"),
        post("unknown organization", &stage.admin, "/v1/api-keys", &in_organization(&key, "nobody@EsitoOrg")).refused(
            404,
            "unknown-organization",
            "",
        ),
        post("foreign organization", &stage.acme, "/v1/api-keys", &in_organization(&key, "default@EsitoOrg")).refused(
            403,
            "foreign-organization",
            "imsOrg",
        ),
        post("more than its own", &stage.narrow, "/v1/api-keys", &all).refused(403, "beyond-key", "sandboxes"),
        post("more than its own", &stage.narrow, "/v1/sandboxes", &json!({"name": "x"})).refused(403, "beyond-key", ""),
        Case::new("foreign", &stage.acme, Method::GET, "/v1/organizations/default@EsitoOrg").refused(
            404,
            "unknown-organization",
            "",
        ),
        Case::new("unknown", &stage.admin, Method::GET, "/v1/organizations/nobody@EsitoOrg").refused(
            404,
            "unknown-organization",
            "",
        ),
        Case::new("not UTF-8", &stage.admin, Method::GET, "/v1/organizations/%ff").refused(
            400,
            "validation",
            "$path.id: ",
        ),
    ]);
    cases
}

pub fn lookups(stage: &Stage) -> Vec<Case> {
    let wrong = [
        ("executions?from=yesterday", "from"),
        ("executions?from=1700000000", "from"),
        ("executions?campaignId=orders", "campaignId"),
        ("executions?requestID=r", "requestID"),
        ("executions?requestId=a&requestId=b", "requestId"),
        ("messages?state=lost", "state"),
        ("messages?channel=fax", "channel"),
        ("messages?executionId=1203", "executionId"),
        ("messages?executionId=HUMA-x", "executionId"),
        ("feedback-events?status=opened", "status"),
        ("feedback-events?after=-1", "after"),
        ("feedback-events?after=x", "after"),
        ("feedback-events?after=0&cursor=x", "cursor"),
        ("deliveries?state=done", "state"),
        ("deliveries?to=", "to"),
        ("feedback-webhooks?allSandboxes=yes", "allSandboxes"),
        ("audit-log?limit=201", "limit"),
        ("audit-log?limit=1e2", "limit"),
    ];
    let mut cases: Vec<Case> = wrong
        .iter()
        .map(|(rest, at)| {
            Case::new("", &stage.admin, Method::GET, &format!("/v1/{rest}")).refused(
                400,
                "validation",
                &format!("$query.{at}: "),
            )
        })
        .collect();
    let of = |name: &str, method: Method, path: &str| Case::new(name, &stage.admin, method, path);
    cases.extend([
        of("not its form", Method::GET, "/v1/executions/1203").refused(400, "validation", "$path.id: "),
        of("too large", Method::GET, "/v1/executions/HUMA-99999999999999999999").refused(
            400,
            "validation",
            "$path.id: ",
        ),
        of("unknown", Method::GET, "/v1/executions/HUMA-1203").refused(404, "not-found", "execution"),
        of("unknown", Method::POST, &format!("/v1/deliveries/{NOBODY}/retry")).refused(404, "not-found", "delivery"),
        of("unknown", Method::GET, &format!("/.well-known/jwks.json?webhookId=x")).refused(
            400,
            "validation",
            "$query.webhookId: ",
        ),
    ]);
    cases
}
