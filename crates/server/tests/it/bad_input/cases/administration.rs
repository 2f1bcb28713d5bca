//! Organizations, sandboxes, API keys, and what lists are asked.

use super::{NOBODY, Table, put};
use crate::bad_input::Case;
use crate::bad_input::stage::Stage;
use crate::support::client::Caller;
use hyper::Method;
use serde_json::{Value, json};

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
        ("messages?status=lost", "status"),
        ("messages?state=sent", "state"),
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
        of("unknown", Method::GET, "/.well-known/jwks.json?webhookId=x").refused(
            400,
            "validation",
            "$query.webhookId: ",
        ),
    ]);
    cases
}
