//! Keys, roles, organizations, sandboxes, paths and methods.

use super::{CAMPAIGNS, CHANNELS, UNITARY, WEBHOOKS};
use crate::bad_input::Case;
use crate::bad_input::stage::{Stage, channel_body};
use crate::support::client::Caller;
use hyper::Method;
use serde_json::json;

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
