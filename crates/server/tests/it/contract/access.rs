//! What opens without a key, and with a new one.

use super::{SIMULATOR, UNITARY, text};
use crate::support::backing::{Backing, on_every_store};
use crate::support::server::Server;
use crate::support::world::{World, campaign_through, execution};
use hyper::Method;
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::process::Command;

on_every_store! {
    a_key_made_on_the_store_opens_the_running_server_at_once,
}

async fn a_key_made_on_the_store_opens_the_running_server_at_once(backing: &Backing) {
    let world = World::start_on(backing).await;
    let create = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_esito"));
        command.args(["api-key", "create", "--json", "--config"]).arg(world.server.file("esito.toml"));
        let made = command.args(arguments).stdin(Stdio::null()).output().await.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        serde_json::from_slice::<Value>(&made.stdout).unwrap()
    };
    let made = create(&["--org", "new@EsitoOrg", "--role", "operator"]).await;
    let caller = world.caller.with_key(&text(&made["key"])).in_sandbox("new@EsitoOrg", "prod");
    caller.get("/v1/campaigns").await.expect(200);
    let campaign = campaign_through(&caller, &json!({"name": "s", "channel": "email", "type": "simulator"})).await;
    let sender = create(&["--org", "new@EsitoOrg", "--role", "sender", "--sandboxes", "prod"]).await;
    let sender = caller.with_key(&text(&sender["key"]));
    sender.post(UNITARY, &execution("r-1", &campaign, &[format!("sent@{SIMULATOR}")])).await.expect(202);
    assert_eq!(sender.get("/v1/campaigns").await.status, 403);
    let default = caller.in_sandbox("default@EsitoOrg", "prod");
    assert_eq!(default.get("/v1/campaigns").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_key_and_everything_else_does() {
    let server = Server::start(&[]).await;
    let mut nobody = server.admin();
    nobody.key = None;
    for path in ["/healthz", "/readyz", "/ajo/im/health", "/openapi.json", "/.well-known/jwks.json", "/metrics"] {
        assert_eq!(nobody.get(path).await.status, 200, "{path}");
    }
    let refused = nobody.get("/v1/campaigns").await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"));
    let viewer = server.admin().post("/v1/api-keys", &json!({"role": "viewer", "name": "v"})).await.expect(201);
    let viewer = server.admin().with_key(&text(&viewer["key"]));
    let forbidden = viewer.post("/v1/sandboxes", &json!({"name": "x"})).await;
    assert_eq!((forbidden.status, forbidden.header("www-authenticate")), (403, ""));
    let wrong = viewer.call(Method::PATCH, "/v1/campaigns", None).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST,GET,HEAD"));
}
