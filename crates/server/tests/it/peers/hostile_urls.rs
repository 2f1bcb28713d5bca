//! The guard against whoever chooses the URL, or what its name means: no byte reaches an address that is not open.

mod list;
mod stage;

use crate::support::client::Answer;
use hyper::Method;
use list::{ADDRESSES, FORMS, NAMES};
use serde_json::{Value, json};
use stage::{ALLOWED, OPEN, Stage, attempts, kinds, name_of, url_of, webhook};
use std::collections::BTreeMap;

const WEBHOOKS: &str = "/v1/feedback-webhooks";

/// Retries soon, so that a name that is refused half of the time is there in a few seconds.
fn eager() -> Value {
    json!({"maxConcurrency": 4, "retry": {"firstDelaySeconds": 1, "maxDelaySeconds": 1}})
}

/// Tries once.
fn once() -> Value {
    json!({"retry": {"giveUpAfterSeconds": 0}})
}

/// What the API says about this field of a request that it refuses.
#[track_caller]
fn refusal(answer: Answer, field: &str, about: &str) -> String {
    assert_eq!(answer.status, 400, "{about:?}: {}", answer.text());
    let problem = answer.json();
    let faults = problem["report"]["additionalContext"]["faults"].as_array().unwrap().iter();
    let fault = faults.clone().find(|fault| fault["path"] == field);
    fault.unwrap_or_else(|| panic!("{about:?}: {problem}"))["message"].as_str().unwrap().to_owned()
}

/// An answer with these records each time.
fn always(a: &[&str], aaaa: &[&str]) -> Value {
    let answers = |records: &[&str]| if records.is_empty() { json!([]) } else { json!([records]) };
    json!({"A": answers(a), "AAAA": answers(aaaa)})
}

fn allowed() -> Value {
    always(&[&ALLOWED.to_string()], &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_urls_are_refused_at_create_at_replace_and_as_token_urls() {
    assert!(ADDRESSES.len() + FORMS.len() >= 150);
    let stage = Stage::start(OPEN).await;
    stage.answer([("control".to_owned(), allowed())]);
    let other = stage.caller.in_new_sandbox("other").await;
    let good = url_of("control", stage.port);
    let made = other.post(WEBHOOKS, &webhook(&good, json!({}))).await.expect(201);
    let existing = format!("{WEBHOOKS}/{}", made["id"].as_str().unwrap());
    for (urls, says) in [(ADDRESSES, "egress.allow_networks"), (FORMS, "")] {
        for url in urls {
            let url = url.replace("{p}", &stage.port.to_string());
            let why = refusal(stage.caller.post(WEBHOOKS, &webhook(&url, json!({}))).await, "$.url", &url);
            assert!(why.contains(says), "{url:?}: {why}");
            assert!(!why.contains("pass@") && !why.contains("user:"), "{url:?}: {why}");
            refusal(other.put(&existing, &webhook(&url, json!({}))).await, "$.url", &url);
            let token =
                json!({"authentication": {"type": "oauth2", "tokenUrl": url, "clientId": "c", "clientSecret": "s"}});
            refusal(stage.caller.post(WEBHOOKS, &webhook(&good, token)).await, "$.authentication.tokenUrl", &url);
        }
    }
    let untouched = other.get(&existing).await.expect(200);
    assert_eq!(untouched["url"], good);
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_forbidden_addresses_get_no_event_even_if_they_turn_so_later() {
    let stage = Stage::start(OPEN).await;
    let inner = ("inner".to_owned(), always(&["127.0.0.1"], &["::1"]));
    let hostile = || NAMES.iter().map(|(name, a, aaaa)| ((*name).to_owned(), always(a, aaaa)));
    stage.answer(hostile().chain([inner.clone()]));
    for (name, ..) in NAMES {
        let url = url_of(name, stage.port);
        let why = refusal(stage.caller.post(WEBHOOKS, &webhook(&url, json!({}))).await, "$.url", name);
        assert!(why.contains("not allowed to connect"), "{name}: {why}");
    }

    let token_host = ("token".to_owned(), allowed());
    // A third of the names is allowed now, a third has no address yet, a third is not there: all may be registered.
    let harmless = NAMES.iter().enumerate().filter(|(i, _)| i % 3 < 2);
    let harmless = harmless.map(|(i, (name, ..))| ((*name).to_owned(), if i % 3 == 0 { allowed() } else { json!({}) }));
    stage.answer(harmless.chain([token_host]));
    let mut sandboxes = Vec::new();
    for (name, ..) in NAMES {
        let caller = stage.caller.in_new_sandbox(name).await;
        let made = caller.post(WEBHOOKS, &webhook(&url_of(name, stage.port), once())).await.expect(201);
        sandboxes.push((*name, caller, made["id"].as_str().unwrap().to_owned(), "guard"));
    }
    let mut behind_token = once();
    behind_token["authentication"] = json!({"type": "oauth2", "tokenUrl": url_of("token", stage.port), "clientId": "c",
        "clientSecret": "s"});
    let caller = stage.caller.in_new_sandbox("token").await;
    let literal = format!("https://{ALLOWED}:{}/hook", stage.port);
    let made = caller.post(WEBHOOKS, &webhook(&literal, behind_token)).await.expect(201);
    sandboxes.push(("token", caller, made["id"].as_str().unwrap().to_owned(), "token"));

    let token_host = ("token".to_owned(), always(&["127.0.0.1"], &["::1"]));
    stage.answer(hostile().chain([inner, token_host]));
    for (name, caller, id, kind) in &sandboxes {
        let sample = caller.call(Method::POST, &format!("{WEBHOOKS}/{id}/test"), None).await.expect(200);
        assert_eq!(sample["error"]["kind"], **kind, "{name}: {sample}");
        stage.send(caller, 1).await;
    }
    for (name, caller, _, kind) in &sandboxes {
        let tried = attempts(caller, "exhausted", 1).await;
        assert_eq!(kinds(&tried), BTreeMap::from([((*kind).to_owned(), 1)]), "{name}: {tried:?}");
        let why = tried[0][0]["error"]["message"].as_str().unwrap();
        assert!(why.contains("not allowed to connect"), "{name}: {why}");
    }
    assert_eq!(stage.receiver.got().len(), 0);
    stage.strike().await;
}

/// A name, the answers that its questions get in turn, and whether some of them hold nothing that is allowed.
fn rebinding() -> Vec<(&'static str, Value, bool)> {
    let ok = ALLOWED.to_string();
    let mapped = format!("::ffff:{ALLOWED}");
    let crowd = [
        "127.0.0.1",
        "127.0.0.2",
        "127.0.0.8",
        "127.0.0.10",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.0.1",
        "100.64.0.1",
        &ok,
    ];
    vec![
        ("flips", json!({"A": [[ok], ["127.0.0.1"]]}), true),
        ("flips-late", json!({"A": [[ok], [ok], ["127.0.0.2"], ["169.254.169.254"]]}), true),
        ("flips-family", json!({"A": [[ok], []], "AAAA": [["::1"]]}), true),
        ("flips-mapped", json!({"AAAA": [[mapped], ["::ffff:127.0.0.1"]]}), true),
        ("flips-alias", json!({"A": [["CNAME a.hostile.test", ok], ["CNAME a.hostile.test", "127.0.0.1"]]}), true),
        ("flips-its-alias", json!({"A": [["CNAME good.hostile.test"], ["CNAME evil.hostile.test"]]}), true),
        ("mixed", json!({"A": [["127.0.0.1", ok], [ok, "127.0.0.2"]]}), false),
        ("mixed-families", json!({"A": [[ok]], "AAAA": [["::1", "::ffff:127.0.0.1"]]}), false),
        ("mixed-alias", json!({"A": [["CNAME a.hostile.test", "127.0.0.1", ok]]}), false),
        ("in-a-crowd", json!({"A": [crowd]}), false),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_address_reaches_the_allowed_one_or_nothing() {
    const EVENTS: usize = 40;
    let stage = Stage::start(OPEN).await;
    let names = rebinding();
    let also = ["dead", "redirect"];
    let at_first = names.iter().map(|(name, ..)| *name).chain(also);
    stage.answer(at_first.map(|name| (name.to_owned(), allowed())));
    let mut callers = BTreeMap::new();
    for (name, ..) in &names {
        let caller = stage.caller.in_new_sandbox(name).await;
        caller.post(WEBHOOKS, &webhook(&url_of(name, stage.port), eager())).await.expect(201);
        callers.insert(*name, caller);
    }
    for (name, port) in [("dead", stage.dead_port), ("redirect", stage.port)] {
        let caller = stage.caller.in_new_sandbox(name).await;
        caller.post(WEBHOOKS, &webhook(&url_of(name, port), once())).await.expect(201);
        callers.insert(name, caller);
    }

    let fixed = [
        ("good", allowed()),
        ("evil", always(&["127.0.0.1"], &[])),
        // The allowed one does not answer; the canaries would.
        ("dead", always(&[&ALLOWED.to_string(), "127.0.0.1", "127.0.0.2"], &["::1"])),
        ("redirect", allowed()),
    ];
    let fixed = fixed.into_iter().map(|(name, answers)| (name.to_owned(), answers));
    stage.answer(names.iter().map(|(name, answers, _)| ((*name).to_owned(), answers.clone())).chain(fixed));
    for (name, caller) in &callers {
        stage.send(caller, if also.contains(name) { 5 } else { EVENTS }).await;
    }
    for (name, _, refuses) in &names {
        let tried = attempts(&callers[name], "succeeded", EVENTS).await;
        let kinds = kinds(&tried);
        println!("{name}: {kinds:?}");
        assert_eq!(kinds["none"], EVENTS, "{name}");
        assert!(kinds.keys().all(|kind| ["none", "guard"].contains(&kind.as_str())), "{name}: {kinds:?}");
        assert_eq!(kinds.contains_key("guard"), *refuses, "{name}: {kinds:?}");
        assert_eq!(stage.got(name).len(), EVENTS, "{name}");
    }
    for (name, kind) in [("dead", "connect"), ("redirect", "status")] {
        let tried = attempts(&callers[name], "exhausted", 5).await;
        assert_eq!(kinds(&tried), BTreeMap::from([(kind.to_owned(), 5)]), "{name}: {tried:?}");
    }
    assert_eq!(stage.got("redirect").len(), 5, "none was followed");
    stage.strike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_closes_again_gets_no_event() {
    let open = "[\"127.0.0.0/8\", \"::1/128\", \"0.0.0.0/32\"]";
    let mut stage = Stage::start(open).await;
    stage.answer([("inside".to_owned(), always(&["127.0.0.1"], &["::1"]))]);
    let name = name_of("inside");
    let hosts = ["127.0.0.1", "127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "0x7f000001", "0", "localhost", &name];
    for (i, host) in hosts.iter().enumerate() {
        let caller = stage.caller.in_new_sandbox(&format!("inside-{i}")).await;
        let url = format!("https://{host}:{}/hook", stage.port);
        caller.post(WEBHOOKS, &webhook(&url, once())).await.expect(201);
    }
    stage.restart(OPEN).await;
    for (i, host) in hosts.iter().enumerate() {
        let caller = stage.caller.in_sandbox(&stage.caller.organization, &format!("inside-{i}"));
        stage.send(&caller, 2).await;
        let tried = attempts(&caller, "exhausted", 2).await;
        assert_eq!(kinds(&tried), BTreeMap::from([("guard".to_owned(), 2)]), "{host}: {tried:?}");
    }
    stage.strike().await;
}
