use super::*;
use model::webhook::WebhookSettings;
use serde_json::json;

fn fault(value: Value) -> String {
    let fault = read::<WebhookSettings>(value, Mode::Strict, "$").unwrap_err();
    format!("{}: {}", fault.path, fault.message)
}

fn webhook() -> Value {
    json!({"name": "n", "channels": ["email"], "url": "https://a.example/", "retry": null, "color": null,
        "authentication": {"type": "jwt", "algorithm": "ES256", "claims": {"kept": null, "n": 7}}})
}

#[test]
fn null_counts_as_omitted_but_not_inside_free_objects() {
    let settings: WebhookSettings = read(webhook(), Mode::Strict, "$").unwrap();
    assert_eq!(settings.retry.first_delay_seconds, 5);
    let claims = settings.authentication.claims.unwrap();
    assert_eq!(Value::Object(claims), json!({"kept": null, "n": 7}));
}

#[test]
fn every_fault_has_its_path_and_repeats_no_value() {
    let with = |pointer: &str, value: Value| {
        let mut body = webhook();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[key] = value;
        fault(body)
    };
    assert_eq!(with("/url", json!(null)), "$.url: is required");
    assert_eq!(
        with("/maxConcurrency", json!("hunter2")),
        "$.maxConcurrency: expected a whole number of at least 0, within the range, found a string"
    );
    assert_eq!(
        with("/maxConcurrency", json!(-1)),
        "$.maxConcurrency: expected a whole number of at least 0, within the range"
    );
    assert_eq!(with("/authentication", json!("hunter2")), "$.authentication: expected an object, found a string");
    assert_eq!(
        with("/authentication/algorithm", json!("none")),
        "$.authentication.algorithm: must be one of HS256, HS384, HS512, RS256, PS256, ES256, EdDSA"
    );
    assert_eq!(with("/channels", json!(["email", 7])), "$.channels[1]: must be one of email, sms");
    assert_eq!(with("/headers", json!([{"name": "x"}, {"value": "x"}])), "$.headers[1].name: is required");
    assert_eq!(
        with("/timeoutSecond", json!(7)),
        "$.timeoutSecond: there is no such field; did you mean timeoutSeconds?"
    );
    assert_eq!(with("/authentication/color", json!(7)), "$.authentication.color: there is no such field; remove it");
    assert_eq!(fault(json!([])), "$: expected an object, found a list");
}

#[test]
fn texts_are_read_as_what_they_mean() {
    #[derive(serde::Deserialize)]
    struct Query {
        limit: Option<u32>,
        all: Option<bool>,
    }
    let query: Query = read(json!({"limit": "7", "all": "true"}), Mode::Texts, "$query").unwrap();
    assert_eq!((query.limit, query.all), (Some(7), Some(true)));
    let fault = read::<Query>(json!({"limit": "x"}), Mode::Texts, "$query").err().unwrap();
    assert_eq!(
        (fault.path.as_str(), fault.message.as_str()),
        ("$query.limit", "expected a whole number of at least 0")
    );
}
