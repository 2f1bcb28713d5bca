//! A server with one of everything that a bad request can be about. Its guard is closed, as an operator's is.

use crate::support::client::Caller;
use crate::support::server::Server;
use crate::support::until;
use crate::support::world::{execution, merge};
use model::clock::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// A public address: nothing is ever sent there, and no name has to be looked up.
pub const PUBLIC_URL: &str = "https://93.184.215.14/hook";

pub struct Stage {
    pub server: Server,
    /// The first admin, in the sandbox `prod` of the default organization, which has one of everything.
    pub admin: Caller,
    /// The same in the sandbox `empty`.
    pub empty: Caller,
    /// An admin of another organization, in its sandbox `prod`.
    pub acme: Caller,
    pub viewer: Caller,
    pub operator: Caller,
    pub sender: Caller,
    /// A key for the sandbox `empty` alone.
    pub narrow: Caller,
    pub expired: String,
    pub revoked: String,
    pub channel: String,
    pub sms_channel: String,
    pub live: String,
    pub draft: String,
    pub stopped: String,
    pub early: String,
    pub late: String,
    pub webhook: String,
    /// What the sandbox `empty` and the other organization have.
    pub elsewhere: [Elsewhere; 2],
    pub accepted: Value,
    /// What [`Self::trace`] was before the first bad request.
    pub trace_before: Value,
}

pub struct Elsewhere {
    pub channel: String,
    pub campaign: String,
}

pub fn webhook_body() -> Value {
    json!({"name": "feedback", "channels": ["email"], "url": PUBLIC_URL})
}

pub fn channel_body() -> Value {
    json!({"name": "mail", "channel": "email", "type": "smtp", "smtp": {"host": "mail.example.com", "port": 25},
        "from": {"name": "Acme", "address": "orders@acme.example"}})
}

pub fn campaign_body(channel: &str) -> Value {
    json!({"name": "orders", "channel": "email", "channelConfigurationId": channel,
        "content": {"subject": "Order {{context.order}}", "html": "<p>Thank you</p>"}})
}

async fn created(caller: &Caller, path: &str, body: &Value) -> String {
    caller.post(path, body).await.expect(201)["id"].as_str().unwrap().to_owned()
}

async fn campaign(caller: &Caller, channel: &str, changes: Value, acts: &[&str]) -> String {
    let mut body = campaign_body(channel);
    merge(&mut body, changes);
    let id = created(caller, "/v1/campaigns", &body).await;
    for act in acts {
        caller.act(&format!("/v1/campaigns/{id}/{act}")).await.expect(200);
    }
    id
}

async fn key(caller: &Caller, body: Value) -> Value {
    caller.post("/v1/api-keys", &body).await.expect(201)
}

async fn caller_with(admin: &Caller, body: Value) -> Caller {
    admin.with_key(key(admin, body).await["key"].as_str().unwrap())
}

async fn elsewhere(caller: &Caller) -> Elsewhere {
    let simulator = json!({"name": "simulator", "channel": "email", "type": "simulator"});
    let channel = created(caller, "/v1/channel-configurations", &simulator).await;
    let campaign = campaign(caller, &channel, json!({}), &["activate"]).await;
    Elsewhere { channel, campaign }
}

/// A key that has expired, and one that was revoked.
async fn ended_keys(admin: &Caller) -> (String, String) {
    let made = key(admin, json!({"role": "admin", "name": "revoked"})).await;
    let revoked = made["key"].as_str().unwrap().to_owned();
    let revoking = admin.delete(&format!("/v1/api-keys/{}", made["id"].as_str().unwrap())).await;
    assert_eq!(revoking.status, 204);
    let now = Timestamp::parse(made["createdAt"].as_str().unwrap()).unwrap();
    let end = (now + Duration::from_millis(1500)).to_string();
    let short = key(admin, json!({"role": "admin", "name": "short", "expiresAt": end})).await;
    let short = admin.with_key(short["key"].as_str().unwrap());
    until("the key to expire", async || (short.get("/v1/campaigns").await.status == 401).then_some(())).await;
    (short.key.unwrap(), revoked)
}

impl Stage {
    pub async fn set() -> Self {
        let server = Server::start(&[("egress.allow_networks", "[]")]).await;
        let admin = server.admin();
        created(&admin, "/v1/sandboxes", &json!({"name": "empty"})).await;
        created(&admin, "/v1/organizations", &json!({"id": "acme@EsitoOrg", "name": "Acme"})).await;
        created(&admin, "/v1/sandboxes", &json!({"imsOrg": "acme@EsitoOrg", "name": "prod"})).await;
        let acme = json!({"imsOrg": "acme@EsitoOrg", "role": "admin", "name": "acme"});
        let acme = caller_with(&admin, acme).await.in_sandbox("acme@EsitoOrg", "prod");
        let empty = admin.in_sandbox("default@EsitoOrg", "empty");
        let role = |role: &'static str| caller_with(&admin, json!({"role": role, "name": role}));
        let narrow = caller_with(&admin, json!({"role": "admin", "name": "narrow", "sandboxes": ["empty"]})).await;
        let (expired, revoked) = ended_keys(&admin).await;
        let simulator = json!({"name": "simulator", "channel": "email", "type": "simulator"});
        let channel = created(&admin, "/v1/channel-configurations", &simulator).await;
        let sms = json!({"name": "sms", "channel": "sms", "type": "simulator"});
        let sms_channel = created(&admin, "/v1/channel-configurations", &sms).await;
        let live = campaign(&admin, &channel, json!({}), &["activate"]).await;
        let draft = campaign(&admin, &channel, json!({}), &[]).await;
        let stopped = campaign(&admin, &channel, json!({}), &["activate", "stop"]).await;
        let early = json!({"schedule": {"startAt": "2199-01-01T00:00:00Z"}});
        let early = campaign(&admin, &channel, early, &["activate"]).await;
        let late = json!({"schedule": {"endAt": "2020-01-01T00:00:00Z"}});
        let late = campaign(&admin, &channel, late, &["activate"]).await;
        let webhook = created(&admin, "/v1/feedback-webhooks", &webhook_body()).await;
        let body = execution("taken", &live, &["sent@simulator.esito.test"]);
        let accepted = admin.post("/ajo/im/executions/unitary", &body).await.expect(202);
        let elsewhere = [elsewhere(&empty).await, elsewhere(&acme).await];
        let (viewer, operator, sender) = (role("viewer").await, role("operator").await, role("sender").await);
        let trace_before = Value::Null;
        let mut stage = Self {
            server,
            admin,
            empty,
            acme,
            viewer,
            operator,
            sender,
            narrow,
            expired,
            revoked,
            channel,
            sms_channel,
            live,
            draft,
            stopped,
            early,
            late,
            webhook,
            elsewhere,
            accepted,
            trace_before,
        };
        stage.settled().await;
        stage.trace_before = stage.trace().await;
        stage
    }

    /// Waits until the one execution that was sent moves no more.
    async fn settled(&self) {
        let sent = async || {
            let messages = self.admin.get("/v1/messages?status=sent").await.expect(200);
            (messages["items"].as_array().unwrap().len() == 1).then_some(())
        };
        until("the message to be sent", sent).await;
    }

    fn callers(&self) -> [&Caller; 3] {
        [&self.admin, &self.empty, &self.acme]
    }

    /// The ids of the last things that changes left behind: an entry in the audit log, or an execution.
    pub async fn trace(&self) -> Value {
        let mut trace = Vec::new();
        for caller in self.callers() {
            for (path, id) in [("/v1/audit-log?limit=1", "id"), ("/v1/executions?limit=1", "executionId")] {
                trace.push(caller.get(path).await.expect(200)["items"][0][id].clone());
            }
        }
        Value::Array(trace)
    }

    /// Every list that there is, in full.
    pub async fn everything(&self) -> Value {
        let mut all = Vec::new();
        for caller in self.callers() {
            for list in [
                "executions",
                "messages",
                "feedback-events",
                "deliveries",
                "feedback-webhooks",
                "campaigns",
                "replays",
                "erasures",
                "channel-configurations",
                "api-keys",
                "sandboxes",
                "organizations",
                "audit-log",
            ] {
                let items = caller.get(&format!("/v1/{list}?limit=200")).await.expect(200);
                assert_eq!(items["nextCursor"], Value::Null, "{list}: one page is not all");
                all.push(json!({"list": list, "items": items["items"]}));
            }
        }
        Value::Array(all)
    }
}
