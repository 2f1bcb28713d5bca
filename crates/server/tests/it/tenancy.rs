//! Two organizations with two sandboxes each cannot see, name or change anything of each other's; a key may do what its
//! role says. Generated over every operation of the served OpenAPI document: one that is added has to be added here.

use crate::support::backing::{Backing, on_every_store};
use crate::support::client::{Answer, Caller};
use crate::support::openapi::Operation;
use crate::support::receiver::Receiver;
use crate::support::until;
use crate::support::world::{World, campaign_through, execution};
use hyper::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a role may do: `A`dmin, `O`perator, `S`ender (its own only), `V`iewer.
const RIGHTS: &[(&str, &str, &str)] = &[
    ("POST", "/ajo/im/executions/highthroughput", "AOS"),
    ("POST", "/ajo/im/executions/unitary", "AOS"),
    ("GET", "/v1/api-keys", "A"),
    ("POST", "/v1/api-keys", "A"),
    ("GET", "/v1/api-keys/{id}", "A"),
    ("DELETE", "/v1/api-keys/{id}", "A"),
    ("GET", "/v1/audit-log", "AOV"),
    ("GET", "/v1/campaigns", "AOV"),
    ("POST", "/v1/campaigns", "AO"),
    ("GET", "/v1/campaigns/{id}", "AOV"),
    ("PUT", "/v1/campaigns/{id}", "AO"),
    ("DELETE", "/v1/campaigns/{id}", "AO"),
    ("GET", "/v1/campaigns/{id}/versions", "AOV"),
    ("POST", "/v1/campaigns/{id}/activate", "AO"),
    ("POST", "/v1/campaigns/{id}/stop", "AO"),
    ("GET", "/v1/channel-configurations", "AOV"),
    ("POST", "/v1/channel-configurations", "AO"),
    ("GET", "/v1/channel-configurations/{id}", "AOV"),
    ("PUT", "/v1/channel-configurations/{id}", "AO"),
    ("DELETE", "/v1/channel-configurations/{id}", "AO"),
    ("POST", "/v1/channel-configurations/{id}/pause", "AO"),
    ("POST", "/v1/channel-configurations/{id}/resume", "AO"),
    ("GET", "/v1/deliveries", "AOV"),
    ("GET", "/v1/deliveries/{id}", "AOV"),
    ("POST", "/v1/deliveries/{id}/cancel", "AO"),
    ("POST", "/v1/deliveries/{id}/retry", "AO"),
    ("GET", "/v1/erasures", "AOV"),
    ("POST", "/v1/erasures", "AO"),
    ("GET", "/v1/erasures/{id}", "AOV"),
    ("GET", "/v1/executions", "AOSV"),
    ("GET", "/v1/executions/{executionId}", "AOSV"),
    ("GET", "/v1/feedback-events", "AOSV"),
    ("GET", "/v1/feedback-events/{id}", "AOSV"),
    ("GET", "/v1/feedback-webhooks", "AOV"),
    ("POST", "/v1/feedback-webhooks", "AO"),
    ("GET", "/v1/feedback-webhooks/{id}", "AOV"),
    ("PUT", "/v1/feedback-webhooks/{id}", "AO"),
    ("DELETE", "/v1/feedback-webhooks/{id}", "AO"),
    ("POST", "/v1/feedback-webhooks/{id}/disable", "AO"),
    ("POST", "/v1/feedback-webhooks/{id}/drain", "AO"),
    ("POST", "/v1/feedback-webhooks/{id}/enable", "AO"),
    ("POST", "/v1/feedback-webhooks/{id}/pause", "AO"),
    ("POST", "/v1/feedback-webhooks/{id}/resume", "AO"),
    ("POST", "/v1/feedback-webhooks/{id}/rotate-key", "AO"),
    ("POST", "/v1/feedback-webhooks/{id}/rotate-secret", "AO"),
    ("GET", "/v1/feedback-webhooks/{id}/statistics", "AOV"),
    ("POST", "/v1/feedback-webhooks/{id}/test", "AO"),
    ("GET", "/v1/messages", "AOSV"),
    ("GET", "/v1/messages/{id}", "AOSV"),
    ("GET", "/v1/organizations", "AOV"),
    // An admin key of the default organization alone.
    ("POST", "/v1/organizations", ""),
    ("GET", "/v1/organizations/{id}", "AOV"),
    ("PUT", "/v1/organizations/{id}", ""),
    ("GET", "/v1/replays", "AOV"),
    ("POST", "/v1/replays", "AO"),
    ("GET", "/v1/replays/{id}", "AOV"),
    ("POST", "/v1/replays/{id}/cancel", "AO"),
    ("GET", "/v1/sandboxes", "AOV"),
    ("POST", "/v1/sandboxes", "AO"),
    ("GET", "/v1/statistics", "AOV"),
];

/// What everybody may read, without a key: nothing of it is a tenant's, but for public keys.
const OPEN: &[&str] = &["/.well-known/jwks.json", "/ajo/im/health", "/healthz", "/openapi.json", "/readyz"];

/// What belongs to the organization, not to one of its sandboxes.
fn is_organizations(path: &str) -> bool {
    ["/v1/api-keys", "/v1/erasures", "/v1/organizations", "/v1/sandboxes", "/v1/audit-log"]
        .iter()
        .any(|start| path.starts_with(start))
}

struct Tenant {
    admin: Caller,
    sender: Caller,
    /// The id of one of each resource, by its segment of the path.
    ids: BTreeMap<&'static str, String>,
    sandbox_id: String,
    request_id: String,
    address: String,
    url: String,
}

impl Tenant {
    /// One of everything, at rest.
    async fn settle(root: &Caller, organization: &str, sandbox: &str, receiver: &Receiver) -> Self {
        let key = |role: &'static str, sandboxes: Value| json!({"imsOrg": organization, "role": role, "name": role, "sandboxes": sandboxes});
        let admin = root.post("/v1/api-keys", &key("admin", Value::Null)).await.expect(201);
        let admin = root.with_key(admin["key"].as_str().unwrap()).in_sandbox(organization, sandbox);
        let sender = admin.post("/v1/api-keys", &key("sender", json!([sandbox]))).await.expect(201);
        let spare = admin.post("/v1/api-keys", &key("viewer", json!([sandbox]))).await.expect(201);
        let sender = admin.with_key(sender["key"].as_str().unwrap());
        let tag = format!("{}-{sandbox}", organization.split('@').next().unwrap());
        let webhook = json!({"name": format!("webhook of {tag}"), "channels": ["email"], "url": receiver.url,
            "authentication": {"type": "jwt", "algorithm": "EdDSA"}});
        let webhook = admin.post("/v1/feedback-webhooks", &webhook).await.expect(201);
        let campaign = campaign_through(&admin, &json!({"name": tag, "channel": "email", "type": "simulator"})).await;
        let channel = text(&admin.get("/v1/channel-configurations").await.expect(200)["items"][0]["id"]);
        let (request_id, address) = (format!("request-{tag}"), format!("sent+{tag}@simulator.esito.test"));
        let accepted = sender.post(UNITARY, &execution(&request_id, &campaign, &[&address])).await.expect(202);
        let execution_id = text(&accepted["executionId"]);
        let rest = async || {
            let execution = admin.get(&format!("/v1/executions/{execution_id}")).await.expect(200);
            let event = execution["recipients"][0]["feedbackEvents"][0].clone();
            (event["delivery"]["state"] == "succeeded").then_some(event)
        };
        let event = until("the event to be delivered", rest).await;
        let nothing = json!({"filter": {"requestId": format!("none-{tag}")}});
        let replay = text(&admin.post("/v1/replays", &nothing).await.expect(201)["id"]);
        let completed = async |path: String| (admin.get(&path).await.expect(200)["state"] == "completed").then_some(());
        until("the replay to end", || completed(format!("/v1/replays/{replay}"))).await;
        let nobody = json!({"address": format!("nobody-{tag}@example.com")});
        let erasure = text(&admin.post("/v1/erasures", &nobody).await.expect(201)["id"]);
        until("the erasure to end", || completed(format!("/v1/erasures/{erasure}"))).await;
        let sandboxes = admin.get("/v1/sandboxes").await.expect(200);
        let own = sandboxes["items"].as_array().unwrap().iter().find(|one| one["name"] == sandbox).unwrap();
        let ids = BTreeMap::from([
            ("api-keys", text(&spare["id"])),
            ("campaigns", campaign),
            ("channel-configurations", channel),
            ("deliveries", text(&event["id"])),
            ("erasures", erasure),
            ("executions", execution_id),
            ("feedback-events", text(&event["id"])),
            ("feedback-webhooks", text(&webhook["id"])),
            ("messages", text(&event["messageId"])),
            ("organizations", organization.to_owned()),
            ("replays", replay),
        ]);
        let url = receiver.url.clone();
        Self { admin, sender, ids, sandbox_id: text(&own["id"]), request_id, address, url }
    }

    /// The operation's path with this tenant's id in it.
    fn path(&self, operation: &Operation) -> String {
        let segment = operation.path.split('/').nth(2).unwrap_or("");
        match self.ids.get(segment) {
            Some(id) => operation.path_with(id),
            None if operation.parameters("path").is_empty() => operation.path.clone(),
            None => panic!("{} {}: no id of this resource is known here", operation.method, operation.path),
        }
    }

    /// A body that the operation takes, with this tenant's ids and names in it.
    fn body(&self, operation: &Operation) -> Option<Value> {
        let organization = &self.admin.organization;
        let campaign = json!({"name": "orders", "channel": "email", "channelConfigurationId": self.ids["channel-configurations"],
            "content": {"subject": "s", "text": "t"}, "audience": {"enableWebhooks": true}});
        let webhook = json!({"name": "webhook", "channels": ["email"], "url": self.url,
            "authentication": {"type": "jwt", "algorithm": "EdDSA"}});
        let channel = json!({"name": "simulator", "channel": "email", "type": "simulator"});
        if !operation.takes_body() {
            return None;
        }
        Some(match (operation.method.as_str(), operation.path.as_str()) {
            ("POST", UNITARY | "/ajo/im/executions/highthroughput") => {
                execution(&format!("{}-again", self.request_id), &self.ids["campaigns"], &[&self.address])
            }
            ("POST", "/v1/api-keys") => {
                json!({"imsOrg": organization, "role": "viewer", "name": "v", "sandboxes": [self.admin.sandbox]})
            }
            ("POST", "/v1/sandboxes") => json!({"imsOrg": organization, "name": "another"}),
            ("PUT", "/v1/organizations/{id}") => json!({"name": "another", "retention": {"eventsDays": 9}}),
            ("POST", "/v1/organizations") => json!({"id": "another@EsitoOrg", "name": "another"}),
            ("POST", "/v1/erasures") => json!({"address": "nobody@example.com"}),
            ("POST", "/v1/replays") => json!({"filter": {"requestId": "none"}}),
            ("POST" | "PUT", "/v1/campaigns" | "/v1/campaigns/{id}") => campaign,
            ("POST" | "PUT", "/v1/channel-configurations" | "/v1/channel-configurations/{id}") => channel,
            ("POST" | "PUT", "/v1/feedback-webhooks" | "/v1/feedback-webhooks/{id}") => webhook,
            ("POST", "/v1/feedback-webhooks/{id}/rotate-key" | "/v1/feedback-webhooks/{id}/rotate-secret") => json!({}),
            (method, path) => panic!("{method} {path}: what it takes is not known here"),
        })
    }

    /// What nobody else may ever read.
    fn marks(&self) -> Vec<&str> {
        // Those of the organization are its other sandboxes' to read.
        let own = |segment: &str| !["organizations", "erasures"].contains(&segment);
        let ids = self.ids.iter().filter(|(segment, _)| own(segment)).map(|(_, id)| id.as_str());
        ids.chain([self.sandbox_id.as_str(), &self.request_id, &self.address]).collect()
    }

    /// All that can be read here.
    async fn everything(&self, operations: &[Operation]) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        for operation in operations.iter().filter(|one| one.method == Method::GET && !is_apart(one)) {
            let path = self.path(operation);
            let mut read = self.admin.get(&path).await.expect(200);
            // What it says goes on with the time of day.
            if path.ends_with("/statistics") {
                read.as_object_mut().unwrap().retain(|name, _| !["from", "to", "buckets"].contains(&name.as_str()));
            }
            all.push((path, read));
        }
        all
    }
}

const UNITARY: &str = "/ajo/im/executions/unitary";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// What is for everybody; and the stream of events, which has no end: `tail` tries that one with others' keys.
fn is_apart(operation: &Operation) -> bool {
    OPEN.contains(&operation.path.as_str()) || operation.path == "/v1/feedback-events/stream"
}

fn has_id(operation: &Operation) -> bool {
    !operation.parameters("path").is_empty()
}

struct Tenants {
    world: World,
    operations: Vec<Operation>,
    /// Of one organization, `prod` and `stage`.
    acme: [Tenant; 2],
    /// The same names in another organization.
    zeta: [Tenant; 2],
}

async fn organization(root: &Caller, id: &str, receiver: &Receiver) -> [Tenant; 2] {
    root.post("/v1/organizations", &json!({"id": id, "name": id})).await.expect(201);
    for name in ["prod", "stage"] {
        root.post("/v1/sandboxes", &json!({"imsOrg": id, "name": name})).await.expect(201);
    }
    [Tenant::settle(root, id, "prod", receiver).await, Tenant::settle(root, id, "stage", receiver).await]
}

impl Tenants {
    async fn settle(backing: &Backing) -> Self {
        let world = World::start_on(backing).await;
        let document = world.caller.get("/openapi.json").await.expect(200);
        let operations = Operation::all(&document);
        let acme = organization(&world.caller, "acme@EsitoOrg", &world.receiver).await;
        let zeta = organization(&world.caller, "zeta@EsitoOrg", &world.receiver).await;
        Self { world, operations, acme, zeta }
    }
}

/// Counts what was asked of each operation, so that none is left out.
#[derive(Default)]
struct Covered(BTreeMap<String, usize>);

impl Covered {
    fn note(&mut self, operation: &Operation) {
        *self.0.entry(format!("{} {}", operation.method, operation.path)).or_default() += 1;
    }

    fn check(&self, operations: &[Operation]) {
        for operation in operations {
            let name = format!("{} {}", operation.method, operation.path);
            assert!(self.0.contains_key(&name) || is_apart(operation), "{name} was not tried");
        }
        println!("{} operations, {} attempts", operations.len(), self.0.values().sum::<usize>());
    }
}

#[track_caller]
fn assert_refused(what: &str, answer: &Answer, statuses: &[u16]) {
    assert!(statuses.contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
}

/// The problem may repeat what the caller wrote, nothing else of the victim's.
fn assert_tells_nothing(what: &str, answer: &Answer, victim: &Tenant, asked: &str) {
    let told = answer.text();
    for mark in victim.marks() {
        assert!(!told.contains(mark) || asked.contains(mark), "{what} tells {mark}: {told}");
    }
}

/// Tries every operation as `attacker` with what is `victim`'s: its ids in the path, in the body and in filters.
async fn attack(operations: &[Operation], attacker: &Tenant, caller: &Caller, victim: &Tenant, covered: &mut Covered) {
    let same_organization = caller.organization == victim.admin.organization;
    for operation in operations.iter().filter(|one| !is_apart(one)) {
        let of_organization = ["/v1/organizations", "/v1/erasures"];
        let shared = same_organization && of_organization.iter().any(|start| operation.path.starts_with(start));
        let what = format!("{} {} of {}", operation.method, operation.path, victim.request_id);
        if has_id(operation) && !shared {
            let (path, body) = (victim.path(operation), attacker.body(operation));
            let answer = caller.call(operation.method.clone(), &path, body.as_ref()).await;
            assert_refused(&what, &answer, &[404]);
            assert_tells_nothing(&what, &answer, victim, &path);
            covered.note(operation);
        }
        let (own, foreign) = (attacker.body(operation), victim.body(operation));
        if own != foreign {
            let answer = caller.call(operation.method.clone(), &attacker.path(operation), foreign.as_ref()).await;
            assert_refused(&what, &answer, &[400, 403, 404]);
            covered.note(operation);
        }
        if operation.method == Method::GET && !has_id(operation) {
            assert_lists_nothing(operation, caller, attacker, victim).await;
            covered.note(operation);
        }
    }
}

async fn assert_lists_nothing(operation: &Operation, caller: &Caller, attacker: &Tenant, victim: &Tenant) {
    let path = &operation.path;
    let mut lists = vec![if operation.takes_query("limit") { format!("{path}?limit=200") } else { path.clone() }];
    if operation.takes_query("allSandboxes") && caller.organization != victim.admin.organization {
        lists.push(format!("{path}?allSandboxes=true"));
    }
    if operation.takes_query("after") {
        lists.push(format!("{path}?after=0&limit=200"));
    }
    for list in &lists {
        let answer = caller.get(list).await;
        assert_eq!(answer.status, 200, "{list}: {}", answer.text());
        assert_tells_nothing(list, &answer, victim, "");
    }
    let filters = [
        ("campaignId", &victim.ids["campaigns"], &attacker.ids["campaigns"]),
        ("executionId", &victim.ids["executions"], &attacker.ids["executions"]),
        ("requestId", &victim.request_id, &attacker.request_id),
        ("recipient", &victim.address, &attacker.address),
    ];
    for (name, foreign, own) in filters.into_iter().filter(|(name, ..)| operation.takes_query(name)) {
        let count = async |value: &str| {
            let value = value.replace('+', "%2B");
            caller.get(&format!("{path}?{name}={value}")).await.expect(200)["items"].as_array().unwrap().len()
        };
        assert_eq!(count(foreign).await, 0, "{path} by {name}");
        assert!(count(own).await > 0, "{path} by {name} finds nothing at all");
    }
}

/// Tries every operation with the ids of `attacker`, but with the headers of `victim`.
async fn knock(operations: &[Operation], attacker: &Tenant, caller: &Caller, victim: &Tenant, covered: &mut Covered) {
    let elsewhere = caller.in_sandbox(&victim.admin.organization, &victim.admin.sandbox);
    let same_organization = caller.organization == victim.admin.organization;
    for operation in operations.iter().filter(|one| !is_apart(one)) {
        if same_organization && is_organizations(&operation.path) {
            continue;
        }
        for owner in [attacker, victim] {
            let what = format!("{} {} with another's headers", operation.method, operation.path);
            let body = owner.body(operation);
            let answer = elsewhere.call(operation.method.clone(), &owner.path(operation), body.as_ref()).await;
            assert_refused(&what, &answer, &[403]);
            assert_tells_nothing(&what, &answer, victim, &owner.path(operation));
            covered.note(operation);
        }
    }
}

on_every_store! {
    nothing_of_another_tenant_can_be_seen_named_or_changed,
    only_admins_of_the_default_organization_cross,
    a_role_may_do_what_the_contract_says_and_nothing_else,
    a_sender_reads_its_own_only,
    a_key_for_some_sandboxes_reaches_those_alone,
    what_is_ones_own_is_found,
}

async fn nothing_of_another_tenant_can_be_seen_named_or_changed(backing: &Backing) {
    let tenants = Tenants::settle(backing).await;
    let operations = &tenants.operations;
    let mut covered = Covered::default();
    let [acme, acme_stage] = &tenants.acme;
    let [zeta, zeta_stage] = &tenants.zeta;
    let narrow = json!({"role": "admin", "name": "narrow", "sandboxes": ["prod"]});
    let narrow = acme.admin.post("/v1/api-keys", &narrow).await.expect(201);
    let narrow = acme.admin.with_key(narrow["key"].as_str().unwrap());
    let mut before = Vec::new();
    for tenant in [acme_stage, zeta, zeta_stage] {
        before.push(tenant.everything(operations).await);
    }
    for victim in [zeta, zeta_stage] {
        attack(operations, acme, &acme.admin, victim, &mut covered).await;
        knock(operations, acme, &acme.admin, victim, &mut covered).await;
    }
    attack(operations, acme, &narrow, acme_stage, &mut covered).await;
    knock(operations, acme, &narrow, acme_stage, &mut covered).await;
    for (tenant, before) in [acme_stage, zeta, zeta_stage].into_iter().zip(before) {
        let mut after = tenant.everything(operations).await;
        let mut before = before;
        // The audit log and the sandboxes of the organization have what the attacker did in its own sandbox.
        if tenant.admin.organization == acme.admin.organization {
            before.retain(|(path, _)| !is_organizations(path));
            after.retain(|(path, _)| !is_organizations(path));
        }
        for (before, after) in before.iter().zip(&after) {
            assert_eq!(before, after, "changed from outside");
        }
    }
    covered.check(operations);
    let keys = tenants.world.caller.get("/.well-known/jwks.json").await.expect(200);
    for key in keys["keys"].as_array().unwrap() {
        assert!(key["x"].is_string() && key.get("d").is_none(), "{key}");
    }
}

async fn only_admins_of_the_default_organization_cross(backing: &Backing) {
    let tenants = Tenants::settle(backing).await;
    let root = &tenants.world.caller;
    let tenant = &tenants.acme[0];
    let mut keys = Vec::new();
    for role in ["operator", "sender", "viewer"] {
        let key = json!({"role": role, "name": role});
        keys.push(text(&root.post("/v1/api-keys", &key).await.expect(201)["key"]));
    }
    let narrow = json!({"role": "admin", "name": "narrow", "sandboxes": ["prod"]});
    keys.push(text(&root.post("/v1/api-keys", &narrow).await.expect(201)["key"]));
    for operation in tenants.operations.iter().filter(|one| !is_apart(one)) {
        let what = format!("{} {}", operation.method, operation.path);
        let (path, body) = (tenant.path(operation), tenant.body(operation));
        for key in &keys {
            let caller = root.with_key(key).in_sandbox(&tenant.admin.organization, "prod");
            let answer = caller.call(operation.method.clone(), &path, body.as_ref()).await;
            assert_refused(&what, &answer, &[403]);
        }
        if operation.method == Method::GET {
            let crossing = root.in_sandbox(&tenant.admin.organization, "prod").get(&path).await;
            assert_eq!(crossing.status, 200, "{what}: {}", crossing.text());
        }
    }
    let key = json!({"imsOrg": "zeta@EsitoOrg", "role": "viewer", "name": "v"});
    root.post("/v1/api-keys", &key).await.expect(201);
    assert_refused("another's key", &tenant.admin.post("/v1/api-keys", &key).await, &[403]);
}

/// A valid call of every operation by a key of each role, the ones that delete last.
async fn a_role_may_do_what_the_contract_says_and_nothing_else(backing: &Backing) {
    let tenants = Tenants::settle(backing).await;
    let tenant = &tenants.acme[0];
    let known: BTreeSet<_> = RIGHTS.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let served = tenants.operations.iter().filter(|one| !is_apart(one));
    let served: BTreeSet<_> = served.map(|one| format!("{} {}", one.method, one.path)).collect();
    assert_eq!(served, known, "the table of rights has every operation");
    let mut callers = vec![("S", tenant.sender.clone())];
    for (letter, role) in [("V", "viewer"), ("O", "operator"), ("A", "admin")] {
        let key = tenant.admin.post("/v1/api-keys", &json!({"role": role, "name": role})).await.expect(201);
        callers.push((letter, tenant.admin.with_key(key["key"].as_str().unwrap())));
    }
    let mut table = RIGHTS.to_vec();
    table.sort_by_key(|(method, ..)| *method == "DELETE");
    for (method, path, rights) in table {
        let operation = tenants.operations.iter().find(|one| one.method == method && one.path == path).unwrap();
        for (letter, caller) in &callers {
            let (path, body) = (tenant.path(operation), tenant.body(operation));
            let answer = caller.call(operation.method.clone(), &path, body.as_ref()).await;
            let what = format!("{letter}: {method} {path}");
            match rights.contains(letter) {
                true => assert!(
                    ![400, 401, 403].contains(&answer.status) && answer.status < 500,
                    "{what}: {} {}",
                    answer.status,
                    answer.text()
                ),
                false => assert_refused(&what, &answer, &[403]),
            }
        }
    }
}

async fn a_sender_reads_its_own_only(backing: &Backing) {
    let tenants = Tenants::settle(backing).await;
    let tenant = &tenants.acme[0];
    let other = tenant.admin.post("/v1/api-keys", &json!({"role": "sender", "name": "sender"})).await.expect(201);
    let other = tenant.admin.with_key(other["key"].as_str().unwrap());
    let mut tried = 0;
    for operation in tenants.operations.iter().filter(|one| one.method == Method::GET) {
        let right = RIGHTS.iter().find(|(method, path, _)| *method == "GET" && *path == operation.path);
        if !right.is_some_and(|(.., rights)| rights.contains('S')) {
            continue;
        }
        let path = tenant.path(operation);
        let (own, foreign) = (tenant.sender.get(&path).await, other.get(&path).await);
        assert_eq!(own.status, 200, "{path}: {}", own.text());
        if has_id(operation) {
            assert_refused(&path, &foreign, &[404]);
        } else {
            assert!(!own.json()["items"].as_array().unwrap().is_empty(), "{path}");
            assert_eq!(foreign.expect(200)["items"], json!([]), "{path}");
        }
        tried += 1;
    }
    assert_eq!(tried, 6);
}

async fn a_key_for_some_sandboxes_reaches_those_alone(backing: &Backing) {
    let tenants = Tenants::settle(backing).await;
    let [prod, stage] = &tenants.acme;
    for role in ["admin", "operator", "viewer"] {
        let key = json!({"role": role, "name": role, "sandboxes": ["stage"]});
        let key = prod.admin.post("/v1/api-keys", &key).await.expect(201);
        let narrow = stage.admin.with_key(key["key"].as_str().unwrap());
        let names = |list: &Value, key: &str| {
            list["items"].as_array().unwrap().iter().map(|one| text(&one[key])).collect::<Vec<_>>()
        };
        assert_eq!(names(&narrow.get("/v1/sandboxes").await.expect(200), "name"), ["stage"]);
        let webhooks = narrow.get("/v1/feedback-webhooks?allSandboxes=true").await.expect(200);
        assert_eq!(names(&webhooks, "id"), [stage.ids["feedback-webhooks"].clone()]);
        let audit = narrow.get("/v1/audit-log?limit=200").await;
        assert_tells_nothing("audit-log", &audit, prod, "");
        let entries = audit.expect(200);
        assert!(entries["items"].as_array().unwrap().iter().all(|entry| entry["sandbox"] == "stage"));
        for unreachable in ["prod", "nowhere"] {
            let there = narrow.in_sandbox("acme@EsitoOrg", unreachable).get("/v1/campaigns").await;
            assert_refused(unreachable, &there, &[403]);
        }
    }
    let all = prod.admin.get("/v1/feedback-webhooks?allSandboxes=true").await.expect(200);
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
}

/// The search that the other tests rely on finds what is there.
async fn what_is_ones_own_is_found(backing: &Backing) {
    let world = World::start_on(backing).await;
    let tenant = &organization(&world.caller, "acme@EsitoOrg", &world.receiver).await[0];
    let document = world.caller.get("/openapi.json").await.expect(200);
    let everything = tenant.everything(&Operation::all(&document)).await;
    let told: String = everything.iter().map(|(_, value)| value.to_string()).collect();
    for mark in tenant.marks() {
        assert!(told.contains(mark), "{mark} is nowhere");
    }
}
