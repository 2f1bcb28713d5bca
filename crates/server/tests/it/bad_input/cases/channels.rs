//! Channel configurations.

use super::{CHANNELS, Table};
use crate::bad_input::Case;
use crate::bad_input::stage::{Stage, channel_body};
use hyper::Method;
use serde_json::json;

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
