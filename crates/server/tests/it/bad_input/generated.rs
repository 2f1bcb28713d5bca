//! What every operation of the served document must refuse.

use super::Case;
use super::stage::Stage;
use crate::support::openapi::Operation;

const NOBODY: &str = "01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11";

pub async fn cases(stage: &Stage) -> Vec<Case> {
    let document = stage.admin.get("/openapi.json").await.expect(200);
    let operations = Operation::all(&document);
    assert!(operations.len() >= 50, "{} operations", operations.len());
    operations.iter().flat_map(|operation| of(stage, operation)).collect()
}

fn of(stage: &Stage, operation: &Operation) -> Vec<Case> {
    let known = match operation.path.as_str() {
        "/v1/organizations/{id}" => "default@EsitoOrg",
        path if path.contains("executionId") => "HUMA-1203",
        _ => NOBODY,
    };
    let path = operation.path_with(known);
    let case = |name: &str| Case::new(name, &stage.admin, operation.method.clone(), &path);
    let mut cases = Vec::new();
    if !operation.is_open() {
        cases.push(case("no key").without("authorization").refused(401, "unauthenticated", "authorization"));
        cases.push(
            case("unknown organization")
                .without("x-gw-ims-org-id")
                .with("x-gw-ims-org-id", "a")
                .with("x-gw-ims-org-id", "b")
                .refused(400, "missing-header", "x-gw-ims-org-id"),
        );
    }
    let needs =
        |name: &str| operation.parameters("header").iter().any(|one| one["name"] == name && one["required"] == true);
    for header in ["x-gw-ims-org-id", "x-sandbox-name"].into_iter().filter(|header| needs(header)) {
        cases.push(case(&format!("no {header}")).without(header).refused(400, "missing-header", header));
    }
    if operation.takes_query("limit") {
        for (rest, at) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=x", "limit"),
            ("cursor=", "cursor"),
            ("cursor=%00%20nonsense", "cursor"),
            ("unknown=1", "unknown"),
        ] {
            let page = Case::new("", &stage.admin, operation.method.clone(), &format!("{path}?{rest}"));
            cases.push(page.refused(400, "validation", &format!("$query.{at}: ")));
        }
    }
    cases.extend(ids(stage, operation));
    if operation.takes_body() {
        cases.extend(bodies(&case, operation));
    }
    cases
}

fn ids(stage: &Stage, operation: &Operation) -> Vec<Case> {
    if operation.parameters("path").is_empty() || operation.path.starts_with("/v1/organizations/") {
        return Vec::new();
    }
    let case = |id: &str| Case::new("", &stage.admin, operation.method.clone(), &operation.path_with(id));
    let wrong = ["x", "1", "%20", "..%2f..", "01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c1g"];
    let mut cases: Vec<Case> = wrong.iter().map(|id| case(id).refused(400, "validation", "$path.id: ")).collect();
    if !operation.needs_body() {
        let known = if operation.path.contains("executionId") { "HUMA-1203" } else { NOBODY };
        cases.push(case(known).refused(404, "not-found", "there is no such"));
    }
    cases
}

fn bodies(case: &dyn Fn(&str) -> Case, operation: &Operation) -> Vec<Case> {
    let limit = if operation.path.starts_with("/ajo/") { 6 * 1024 * 1024 } else { 1024 * 1024 };
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(limit));
    let text = case("another type").raw("{}").without("content-type").with("content-type", "text/plain");
    let mut cases = vec![
        text.refused(415, "unsupported-media-type", "content-type"),
        case("no JSON").raw("{name: 1}").refused(400, "malformed-json", "line 1 column 2"),
        case("deep").raw(format!("{{\"name\":{}", "[".repeat(1000))).refused(400, "malformed-json", "recursion"),
        case("not UTF-8").raw(b"\"\xff\"".to_vec()).refused(400, "malformed-json", "line 1"),
        case("too long").raw(long).refused(413, "body-too-large", &limit.to_string()),
        case("a list").raw("[]").refused(400, "validation", "$: "),
        case("a text").raw("\"x\"").refused(400, "validation", "$: "),
    ];
    if operation.needs_body() {
        cases.push(case("nothing").raw("").refused(400, "malformed-json", "empty"));
        cases.push(case("no field").raw("{}").refused(400, "validation", "is required"));
    }
    cases
}
