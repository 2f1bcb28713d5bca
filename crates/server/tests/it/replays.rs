//! Replays as their users see them: by the API and by `esito replay`, through kills, and at a dead endpoint.

use crate::support::backing::{Backing, on_every_store};
use crate::support::client::Caller;
use crate::support::receiver::{Got, Reply};
use crate::support::world::{World, execution};
use crate::support::{Random, esito, must, until};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::process::Stdio;
use std::time::Duration;

const UNITARY: &str = "/ajo/im/executions/unitary";
/// The posts of a webhook at a time, and the most that have ended and are not written down.
const UNDER_WAY: usize = 64 + 1024;

fn marked(got: &[Got]) -> Vec<&Got> {
    got.iter().filter(|got| got.headers.contains_key("esito-replay")).collect()
}

fn ids(got: &[Got]) -> BTreeSet<String> {
    got.iter().map(|got| got.id().to_owned()).collect()
}

/// So many messages that were sent, each with its one event delivered.
async fn sent(world: &World, count: usize) -> BTreeSet<String> {
    let campaign = world.simulated_campaign().await;
    let addresses: Vec<String> = (0..count).map(|i| format!("sent+{i}@simulator.esito.test")).collect();
    for (i, part) in addresses.chunks(20).enumerate() {
        world.caller.post(UNITARY, &execution(&format!("r-{i}"), &campaign, part)).await.expect(202);
    }
    let got = world.receiver.wait_for(count).await;
    succeeded(&world.caller, &got[0]).await;
    ids(&got)
}

/// Waits until the delivery of this event is written down as succeeded.
async fn succeeded(caller: &Caller, got: &Got) {
    let path = format!("/v1/deliveries/{}", got.id());
    let ask = || async { (caller.get(&path).await.expect(200)["state"] == "succeeded").then_some(()) };
    until("a delivery to have succeeded", ask).await;
}

async fn none_is_pending(caller: &Caller) {
    let ask = || async {
        let list = caller.get("/v1/deliveries?state=pending&limit=1").await.expect(200);
        list["items"].as_array().unwrap().is_empty().then_some(())
    };
    until("all deliveries to have ended", ask).await;
}

async fn ended(caller: &Caller, id: &str) -> Value {
    let path = format!("/v1/replays/{id}");
    let ask = || async {
        let replay = caller.get(&path).await.expect(200);
        (replay["state"] != "running").then_some(replay)
    };
    until("the replay to end", ask).await
}

on_every_store! {
    a_replay_killed_again_and_again_delivers_each_event_once_more,
    a_replay_to_a_dead_endpoint_waits_and_can_be_cancelled,
}

async fn a_replay_killed_again_and_again_delivers_each_event_once_more(backing: &Backing) {
    let mut world = World::start_on(backing).await;
    world.webhook(json!({"retry": {"firstDelaySeconds": 1}})).await;
    let events = sent(&world, 600).await;
    none_is_pending(&world.caller).await;
    let asked = json!({"filter": {"status": "sent"}, "perSecond": 400});
    let replay = world.caller.post("/v1/replays", &asked).await.expect(201);
    let id = replay["id"].as_str().unwrap().to_owned();
    assert_eq!((&replay["state"], &replay["perSecond"]), (&json!("running"), &json!(400)));
    let mut moments = Random(20_261_126);
    for _ in 0..5 {
        // The moment of the kill is the experiment, not a way to wait for something.
        tokio::time::sleep(Duration::from_millis(50 + moments.below(200) as u64)).await;
        world.server.kill().await;
        backing.settle().await;
        world.server.up().await;
        world.caller = world.server.admin();
    }
    let done = ended(&world.caller, &id).await;
    assert_eq!(
        (&done["state"], &done["replayed"], &done["skipped"], &done["outstanding"], &done["progress"]),
        (&json!("completed"), &json!(600), &json!(0), &json!(0), &json!(1.0)),
        "{done}"
    );
    let got = world.receiver.got();
    let mut times: HashMap<&str, usize> = HashMap::new();
    for got in marked(&got) {
        assert_eq!(got.headers["esito-replay"], id);
        *times.entry(got.id()).or_default() += 1;
    }
    assert_eq!(times.len(), 600, "each is replayed");
    assert_eq!(ids(&got), events, "under the id that it always had");
    let repeats: usize = times.values().map(|times| times - 1).sum();
    assert!(repeats <= 5 * UNDER_WAY, "{repeats} repeats");
    let by_hand = format!("/v1/deliveries/{}/retry", got[0].id());
    let before = got.len();
    world.caller.act(&by_hand).await.expect(200);
    let again = must("the retry", world.receiver.wait_until("one more", |got| got.len() > before)).await;
    assert!(!again.last().unwrap().headers.contains_key("esito-replay"), "a retry by hand is no replay");
}

async fn a_replay_to_a_dead_endpoint_waits_and_can_be_cancelled(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({"retry": {"firstDelaySeconds": 1}})).await;
    sent(&world, 100).await;
    none_is_pending(&world.caller).await;
    world.receiver.behave(|_, _| Reply::status(500));
    let replay = world.caller.post("/v1/replays", &json!({"filter": {}, "perSecond": 50})).await.expect(201);
    let path = format!("/v1/replays/{}", replay["id"].as_str().unwrap());
    // A fifth of a second's events, and no fewer than 16, may be open.
    let full = || async {
        let replay = world.caller.get(&path).await.expect(200);
        (replay["outstanding"] == 16).then_some(replay)
    };
    let full = until("the replay to have enough open", full).await;
    assert!(full["replayed"] == 16 && full["progress"].as_f64().unwrap() < 1.0, "{full}");
    let another = world.caller.post("/v1/replays", &json!({"filter": {}})).await;
    assert_eq!(another.status, 409, "{}", another.text());
    let cancelled = world.caller.act(&format!("{path}/cancel")).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(world.caller.act(&format!("{path}/cancel")).await.status, 409);
    world.receiver.behave(|_, _| Reply::status(204));
    none_is_pending(&world.caller).await;
    let replay = world.caller.get(&path).await.expect(200);
    assert_eq!((&replay["state"], &replay["replayed"]), (&json!("cancelled"), &json!(16)));
    let log = world.caller.get("/v1/audit-log").await.expect(200);
    let actions: Vec<_> = log["items"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert!(actions.contains(&json!("replay.create")) && actions.contains(&json!("replay.cancel")), "{actions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_checked() {
    let world = World::start().await;
    let refused = async |body: Value, field: &str| {
        let answer = world.caller.post("/v1/replays", &body).await;
        assert!(answer.status == 400 && answer.text().contains(field), "{body}: {}", answer.text());
    };
    refused(json!({}), "$.filter").await;
    refused(json!({"filter": {}, "perSecond": 0}), "$.perSecond").await;
    refused(json!({"filter": {}, "perSecond": 10_001}), "$.perSecond").await;
    refused(json!({"filter": {"state": "held"}}), "$.filter.state").await;
    refused(json!({"filter": {"state": "lost"}}), "$.filter.state").await;
    refused(json!({"filter": {"form": "2026-01-01T00:00:00Z"}}), "did you mean from?").await;
    refused(json!({"filter": {"from": "yesterday"}}), "$.filter.from").await;
    let (from, to) = ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z");
    refused(json!({"filter": {"from": from, "to": to}}), "$.filter.to").await;
    let no_webhook = world.caller.post("/v1/replays", &json!({"filter": {}})).await;
    assert!(no_webhook.status == 409 && no_webhook.text().contains("create one first"), "{}", no_webhook.text());
}

/// `esito replay` with these words; its exit code, what it printed and what it told.
async fn esito_replay(world: &World, words: &[&str]) -> (i32, String, String) {
    let mut command = esito();
    command.args(["replay", "--url", &world.server.base, "--org", "default@EsitoOrg"]).args(words);
    command.env("ESITO_API_KEY", &world.server.key).stdin(Stdio::null());
    let output = must("esito replay to end", command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_replays_and_tells_how_it_ended() {
    let world = World::start().await;
    world.receiver.behave(|_, _| Reply::status(500));
    world.webhook(json!({"retry": {"firstDelaySeconds": 1, "giveUpAfterSeconds": 0}})).await;
    let campaign = world.simulated_campaign().await;
    let to = ["sent+1@simulator.esito.test", "sent+2@simulator.esito.test"];
    world.caller.post(UNITARY, &execution("r-1", &campaign, &to)).await.expect(202);
    let exhausted = || async {
        let list = world.caller.get("/v1/deliveries?state=exhausted").await.expect(200);
        (list["items"].as_array().unwrap().len() == 2).then_some(())
    };
    until("both to be given up", exhausted).await;
    world.receiver.behave(|_, _| Reply::status(204));

    let (code, printed, told) = esito_replay(&world, &[]).await;
    assert!(code == 1 && printed.is_empty() && told.contains("--all"), "{code} {printed} {told}");
    let (code, _, told) = esito_replay(&world, &["--state", "held"]).await;
    assert!(code == 1 && told.contains("$.filter.state"), "{told}");
    let (code, printed, told) = esito_replay(&world, &["--state", "exhausted", "--json"]).await;
    let replay: Value = serde_json::from_str(&printed).unwrap();
    assert!(code == 0 && told.is_empty(), "{code} {told}");
    assert_eq!((&replay["state"], &replay["replayed"]), (&json!("completed"), &json!(2)));
    assert_eq!(marked(&world.receiver.got()).len(), 2);

    let (code, printed, _) = esito_replay(&world, &["--all", "--from", "2020-01-01T00:00:00Z"]).await;
    assert!(code == 1 && printed.is_empty(), "--all with a filter says two things");
    let slow = ["--all", "--per-second", "1", "--detach"];
    let (code, printed, _) = esito_replay(&world, &slow).await;
    assert!(code == 0 && printed.contains("running"), "{printed}");
    let id = printed.split(' ').next().unwrap().to_owned();
    let (code, printed, _) = esito_replay(&world, &["--cancel", &id]).await;
    assert!(code == 0 && printed.contains("cancelled"), "{printed}");
    let (code, printed, _) = esito_replay(&world, &["--watch", &id]).await;
    assert!(code == 1 && printed.contains("cancelled"), "what was cancelled is no success: {printed}");
}
