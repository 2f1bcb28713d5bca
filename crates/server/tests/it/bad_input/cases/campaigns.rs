//! Campaigns.

use super::{CAMPAIGNS, NOBODY, Table, put};
use crate::bad_input::Case;
use crate::bad_input::stage::{Stage, campaign_body};
use hyper::Method;
use serde_json::json;

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
