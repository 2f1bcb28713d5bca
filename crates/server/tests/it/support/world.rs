//! A server with a receiver, a webhook and a campaign: what most tests begin with.

use super::backing::Backing;
use super::client::Caller;
use super::receiver::{Authority, Receiver};
use super::server::{Server, Settings};
use super::until;
use serde_json::{Value, json};

pub struct World {
    pub server: Server,
    pub authority: Authority,
    pub receiver: Receiver,
    pub caller: Caller,
    /// Where the authority's certificate lies.
    _folder: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server on this store.
    pub async fn start_on(backing: &Backing) -> Self {
        let setting = backing.setting();
        let settings: Vec<(&str, &str)> = setting.iter().map(|(key, value)| (*key, value.as_str())).collect();
        Self::start_with(&settings).await
    }

    /// A server that trusts the test's authority.
    pub async fn start_with(settings: Settings<'_>) -> Self {
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authority.pem");
        authority.write_pem(&file);
        let quoted = format!("\"{}\"", file.display());
        let mut all = vec![("egress.extra_ca_file", quoted.as_str())];
        all.extend_from_slice(settings);
        let server = Server::start(&all).await;
        let receiver = Receiver::start(&authority).await;
        let caller = server.admin();
        Self { server, authority, receiver, caller, _folder: folder }
    }

    /// A webhook at the receiver, with `changes` over the plain settings; the answer to its creation.
    pub async fn webhook(&self, changes: Value) -> Value {
        let mut body = json!({"name": "feedback", "channels": ["email", "sms"], "url": self.receiver.url});
        merge(&mut body, changes);
        self.caller.post("/v1/feedback-webhooks", &body).await.expect(201)
    }

    /// A live email campaign with webhooks enabled, sent through the simulator; its id.
    pub async fn simulated_campaign(&self) -> String {
        self.campaign_through(&simulator()).await
    }

    /// A live email campaign with webhooks enabled, sent through a relay on this port; its id.
    pub async fn relayed_campaign(&self, port: u16) -> String {
        let channel = json!({"name": "relay", "channel": "email", "type": "smtp",
            "smtp": {"host": "127.0.0.1", "port": port, "tls": "none"}, "from": {"name": "Acme", "address": "orders@acme.example"}});
        self.campaign_through(&channel).await
    }

    pub async fn campaign_through(&self, channel: &Value) -> String {
        campaign_through(&self.caller, channel).await
    }
}

pub async fn campaign_through(caller: &Caller, channel: &Value) -> String {
    let channel = caller.post("/v1/channel-configurations", channel).await.expect(201);
    let content = match channel["channel"].as_str() {
        Some("sms") => json!({"text": "Your code is {{context.code}}"}),
        _ => {
            json!({"subject": "Order {{context.order}}", "html": "<p>Thank you, {{profile.person.name.firstName}}: {{context.order}}</p>"})
        }
    };
    let campaign = json!({"name": "orders", "channel": channel["channel"], "channelConfigurationId": channel["id"],
        "content": content, "audience": {"identityNamespace": "email", "enableWebhooks": true}});
    let campaign = caller.post("/v1/campaigns", &campaign).await.expect(201);
    let id = campaign["id"].as_str().unwrap().to_owned();
    let activated = caller.call(hyper::Method::POST, &format!("/v1/campaigns/{id}/activate"), None).await;
    assert_eq!(activated.status, 200, "{}", activated.text());
    id
}

/// Messages to these addresses, through a simulator of their own.
pub async fn simulate(caller: &Caller, addresses: &[String]) {
    let campaign = campaign_through(caller, &simulator()).await;
    for (i, to) in addresses.chunks(20).enumerate() {
        let body = execution(&format!("r-{i}"), &campaign, to);
        caller.post("/ajo/im/executions/unitary", &body).await.expect(202);
    }
}

/// The attempts of each of the sandbox's deliveries in this state, once there are enough of those.
pub async fn attempts(caller: &Caller, state: &str, are_enough: impl Fn(usize) -> bool) -> Vec<Vec<Value>> {
    let path = format!("/v1/deliveries?limit=200&state={state}");
    let ask = || async {
        let items = caller.get(&path).await.expect(200)["items"].as_array().unwrap().clone();
        are_enough(items.len()).then_some(items)
    };
    let mut found = Vec::new();
    for item in until(&format!("deliveries of {} that are {state}", caller.sandbox), ask).await {
        let delivery = caller.get(&format!("/v1/deliveries/{}", item["id"].as_str().unwrap())).await.expect(200);
        found.push(delivery["attempts"].as_array().unwrap().clone());
    }
    found
}

fn simulator() -> Value {
    json!({"name": "simulator", "channel": "email", "type": "simulator"})
}

/// An execution for these addresses.
pub fn execution(request_id: &str, campaign: &str, addresses: &[impl AsRef<str>]) -> Value {
    let recipients: Vec<Value> = addresses
        .iter()
        .map(|address| {
            let address = address.as_ref();
            json!({"type": "external", "userId": address, "namespace": "email", "channelData": {"emailAddress": address},
                "context": {"order": "A-1"}, "profile": {"person": {"name": {"firstName": "Jane"}}}})
        })
        .collect();
    json!({"requestId": request_id, "campaignId": campaign, "recipients": recipients})
}

/// Puts the keys of `changes` over those of `base`.
pub fn merge(base: &mut Value, changes: Value) {
    match (base, changes) {
        (Value::Object(base), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, changes) => *base = changes,
    }
}
