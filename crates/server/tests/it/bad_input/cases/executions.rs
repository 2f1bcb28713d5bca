//! Executions: shape, campaigns, bodies.

use super::{HIGH_THROUGHPUT, NOBODY, Table, UNITARY, put};
use crate::bad_input::Case;
use crate::bad_input::stage::Stage;
use crate::support::world::execution;
use hyper::Method;
use serde_json::{Value, json};

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
    // The address stands twice in it.
    let huge = execution("bad", &stage.live, &["x".repeat(5_000_000)]).to_string();
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
