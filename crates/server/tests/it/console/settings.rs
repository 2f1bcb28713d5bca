//! Settings: what of the organization, its sandboxes and the server is shown, and who may change it.

use super::{Browser, PROD, between};
use crate::support::client::Caller;
use crate::support::world::World;
use serde_json::{Value, json};

const ORGANIZATION: &str = "/v1/organizations/default@EsitoOrg";

fn settings() -> String {
    format!("{PROD}/settings")
}

/// Another key of the caller's organization.
async fn key(caller: &Caller, role: &str, sandboxes: Value) -> String {
    let body = json!({"role": role, "name": role, "sandboxes": sandboxes});
    caller.post("/v1/api-keys", &body).await.expect(201)["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_changes_what_the_organization_is_called_and_keeps() {
    let world = World::start_with(&[("retention.attempts_days", "77")]).await;
    let mut browser = Browser::signed_in(&world).await;
    let page = browser.get(&settings()).await.text();
    for text in [env!("CARGO_PKG_VERSION"), &world.server.base, "default@EsitoOrg", "as the server is set, 77 days"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(page.contains(&format!("href=\"{}\" aria-current=\"page\"", settings())), "it is in the navigation");

    let before = world.caller.get(ORGANIZATION).await.expect(200);
    for (events, audit) in [("7", "1"), ("soon", ""), ("8", "0")] {
        let fields = [("name", "Acme"), ("events-days", events), ("attempts-days", ""), ("audit-days", audit)];
        let wrong = browser.submit(&page, &settings(), &fields).await;
        assert_eq!(wrong.status, 400, "{events} {audit}");
        let wrong = wrong.text();
        assert!(wrong.contains(&format!("name=\"events-days\" value=\"{events}\"")), "what was typed stays: {wrong}");
        let field = if audit == "0" { "audit-days" } else { "events-days" };
        assert!(wrong.contains(&format!("id=\"fault-{field}\"")) && wrong.contains("value=\"Acme\""), "{wrong}");
    }
    let nameless = browser.submit(&page, &settings(), &[("name", "")]).await;
    assert!(nameless.status == 400 && nameless.text().contains("id=\"fault-name\""));
    assert_eq!(world.caller.get(ORGANIZATION).await.expect(200), before, "nothing was stored");

    let fields = [("name", "Acme <Orders>"), ("events-days", "30"), ("attempts-days", ""), ("audit-days", "1")];
    let saved = browser.submit(&page, &settings(), &fields).await;
    assert_eq!(saved.status, 200);
    let saved = saved.text();
    assert!(saved.contains("The settings are stored") && saved.contains("value=\"Acme &#60;Orders&#62;\""), "{saved}");
    let stored = world.caller.get(ORGANIZATION).await.expect(200);
    assert_eq!(stored["name"], "Acme <Orders>");
    assert_eq!(stored["retention"], json!({"eventsDays": 30, "attemptsDays": null, "auditLogDays": 1}));
    let logged = world.caller.get("/v1/audit-log").await.expect(200)["items"][0]["action"].clone();
    assert_eq!(logged, "organization.replace");

    // A viewer sees the same, and cannot change it.
    let mut viewer = Browser::signed_in_with(&world, &key(&world.caller, "viewer", Value::Null).await).await;
    let page = viewer.get(&settings()).await.text();
    for text in
        ["Acme &#60;Orders&#62;", "<dd>30 days</dd>", "<dd>77 days, as the server is set</dd>", "<dd>1 day</dd>"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("name=\"events-days\"") && !page.contains("Create sandbox"), "{page}");
    let page = viewer.get(&format!("{PROD}/webhooks/new")).await.text();
    assert_eq!(viewer.submit(&page, &settings(), &fields).await.status, 403);
    assert_eq!(viewer.submit(&page, &format!("{}/sandboxes", settings()), &[("name", "own")]).await.status, 403);
    assert_eq!(world.caller.get(ORGANIZATION).await.expect(200), stored);
    let mut sender = Browser::signed_in_with(&world, &key(&world.caller, "sender", Value::Null).await).await;
    assert_eq!(sender.get(&settings()).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_makes_sandboxes_where_the_api_lets_him() {
    let world = World::start().await;
    let mut operator = Browser::signed_in_with(&world, &key(&world.caller, "operator", Value::Null).await).await;
    let page = operator.get(&settings()).await.text();
    assert!(page.contains("Create sandbox") && !page.contains("name=\"events-days\""), "{page}");
    assert_eq!(operator.submit(&page, &settings(), &[("name", "Mine")]).await.status, 403);

    let make = format!("{}/sandboxes", settings());
    let wrong = operator.submit(&page, &make, &[("name", "no spaces")]).await;
    assert_eq!(wrong.status, 400);
    let wrong = wrong.text();
    assert!(wrong.contains("value=\"no spaces\"") && wrong.contains("id=\"fault-sandbox\""), "{wrong}");
    let made = operator.submit(&page, &make, &[("name", "staging")]).await;
    assert_eq!((made.status, made.header("location")), (303, &*format!("{}?made=staging", settings())));
    let page = operator.get(made.header("location")).await.text();
    let stored = world.caller.get("/v1/sandboxes").await.expect(200);
    let stored = stored["items"].as_array().unwrap().iter().find(|one| one["name"] == "staging").unwrap();
    assert!(page.contains("Sandbox staging is there") && page.contains(stored["id"].as_str().unwrap()), "{page}");
    let switcher = between(&page, "<details class=\"tenant\">", "</details>");
    let elsewhere = settings().replace("/prod/", "/staging/");
    assert!(switcher.contains(&format!("href=\"{elsewhere}\"")), "{switcher}");
    assert_eq!(operator.get(&elsewhere).await.status, 200);
    let again = operator.submit(&page, &make, &[("name", "staging")]).await;
    assert!(again.status == 409 && again.text().contains("id=\"fault-sandbox\""), "the name is taken");
    let unsaid = operator.get(&format!("{}?made=nothing", settings())).await.text();
    assert!(!unsaid.contains("nothing is there"), "{unsaid}");

    // A key for some sandboxes makes none, and sees its own.
    let bound = key(&world.caller, "operator", json!(["prod"])).await;
    let mut bound = Browser::signed_in_with(&world, &bound).await;
    let page = bound.get(&settings()).await.text();
    assert!(!page.contains("Create sandbox") && !page.contains("staging"), "{page}");
    let page = bound.get(&format!("{PROD}/webhooks/new")).await.text();
    assert_eq!(bound.submit(&page, &make, &[("name", "other")]).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organizations_admin_sees_and_makes_what_is_its_own() {
    let world = World::start().await;
    world.caller.post("/v1/organizations", &json!({"id": "acme@EsitoOrg", "name": "Acme"})).await.expect(201);
    world.caller.post("/v1/sandboxes", &json!({"imsOrg": "acme@EsitoOrg", "name": "prod"})).await.expect(201);
    let admin = json!({"imsOrg": "acme@EsitoOrg", "role": "admin", "name": "a"});
    let admin = world.caller.post("/v1/api-keys", &admin).await.expect(201)["key"].as_str().unwrap().to_owned();
    let mut browser = Browser::signed_in_with(&world, &admin).await;
    browser.language = "it";
    let own = settings().replace("default@", "acme@");
    let page = browser.get(&own).await.text();
    assert!(page.contains("Impostazioni") && page.contains("<dd>Acme</dd>") && page.contains("Crea sandbox"), "{page}");
    assert!(!page.contains("name=\"events-days\""), "an admin of default@EsitoOrg sets these");
    assert_eq!(browser.submit(&page, &own, &[("name", "Mine")]).await.status, 403);
    let made = browser.submit(&page, &format!("{own}/sandboxes"), &[("name", "test")]).await;
    assert_eq!(made.status, 303);
    let theirs = world.caller.get("/v1/sandboxes").await.expect(200);
    assert_eq!(theirs["items"].as_array().unwrap().len(), 1, "it is acme's, not the default organization's");
    assert_eq!(browser.get(&settings()).await.status, 403);
}
