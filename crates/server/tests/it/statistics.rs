//! Statistics as their readers see them: what was sent, told and delivered is counted, and nothing else.

use crate::support::backing::{Backing, on_every_store};
use crate::support::client::Caller;
use crate::support::receiver::Reply;
use crate::support::until;
use crate::support::world::{World, execution};
use serde_json::{Value, json};

const UNITARY: &str = "/ajo/im/executions/unitary";

/// The totals once nothing waits, and no fewer attempts have succeeded.
async fn settled(caller: &Caller, succeeded: u64) -> Value {
    let ask = || async {
        let read = caller.get("/v1/statistics?window=1h").await.expect(200);
        let is_settled = read["backlog"]["waiting"] == 0 && read["totals"]["attempts"]["succeeded"] == succeeded;
        is_settled.then_some(read)
    };
    until("the statistics to settle", ask).await
}

on_every_store! {
    what_happens_is_counted_and_outlives_a_kill,
    a_webhook_shows_how_it_is_doing,
}

async fn what_happens_is_counted_and_outlives_a_kill(backing: &Backing) {
    let mut world = World::start_on(backing).await;
    world.webhook(json!({"retry": {"firstDelaySeconds": 1}})).await;
    // Each event is refused once.
    world.receiver.behave(|_, before| Reply::status(if before == 0 { 500 } else { 204 }));
    let campaign = world.simulated_campaign().await;
    let to: Vec<String> = ["sent", "delivered", "bounce"].map(|kind| format!("{kind}+1@simulator.esito.test")).into();
    let body = execution("r-1", &campaign, &to);
    world.caller.post(UNITARY, &body).await.expect(202);
    // The same once more is the same.
    world.caller.post(UNITARY, &body).await.expect(202);
    let read = settled(&world.caller, 4).await;
    let latency = &read["totals"]["latencyMs"];
    assert!(latency["p50"].as_u64().unwrap() >= 400, "the second try comes after half a second or more: {latency}");
    assert_eq!(
        read["totals"],
        json!({"accepted": 3, "attempts": {"succeeded": 4, "failed": 4}, "exhausted": 0, "latencyMs": latency,
            "outcomes": {"sent": 2, "delivered": 1, "bounce": 1, "bounceAfterSent": 0, "error": 0, "exclude": 0, "denylist": 0, "delay": 0}})
    );
    assert_eq!(read["backlog"], json!({"waiting": 0, "isAtLeast": false, "oldestDueAt": null}));

    world.server.kill().await;
    backing.settle().await;
    world.server.up().await;
    world.caller = world.server.admin();
    for (window, seconds, count) in [("1h", 60, 60), ("24h", 900, 96), ("7d", 7_200, 84)] {
        let again = world.caller.get(&format!("/v1/statistics?window={window}")).await.expect(200);
        assert_eq!((&again["totals"], &again["bucketSeconds"]), (&read["totals"], &json!(seconds)));
        let buckets = again["buckets"].as_array().unwrap();
        assert_eq!((buckets.len(), &buckets[0]["at"]), (count, &again["from"]));
        let sum: u64 = buckets.iter().map(|bucket| bucket["attempts"]["succeeded"].as_u64().unwrap()).sum();
        assert_eq!(sum, 4);
        assert_eq!((&buckets[0]["accepted"], &buckets[0]["latencyMs"]), (&json!(0), &Value::Null));
        assert!(buckets.iter().is_sorted_by_key(|bucket| bucket["at"].as_str().unwrap()));
    }
    let by_default = world.caller.get("/v1/statistics").await.expect(200);
    assert_eq!(by_default["bucketSeconds"], 900);
    let refused = world.caller.get("/v1/statistics?window=2h").await;
    assert!(refused.status == 400 && refused.text().contains("must be one of 1h, 24h, 7d"), "{}", refused.text());
}

async fn a_webhook_shows_how_it_is_doing(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.receiver.behave(|_, _| Reply::status(500));
    let retry = json!({"retry": {"firstDelaySeconds": 600}});
    let webhook = world.webhook(retry).await;
    let path = format!("/v1/feedback-webhooks/{}/statistics", webhook["id"].as_str().unwrap());
    let campaign = world.simulated_campaign().await;
    let to = ["sent+1@simulator.esito.test", "sent+2@simulator.esito.test"];
    world.caller.post(UNITARY, &execution("r-1", &campaign, &to)).await.expect(202);
    let failed = || async {
        let read = world.caller.get(&path).await.expect(200);
        (read["attempts"]["failed"] == 2).then_some(read)
    };
    let read = until("both attempts to fail", failed).await;
    assert_eq!((&read["lastSuccessAt"], &read["latencyMs"]), (&Value::Null, &Value::Null));
    assert_eq!((&read["backlog"]["waiting"], &read["backlog"]["isAtLeast"]), (&json!(2), &json!(false)));
    assert!(read["backlog"]["oldestDueAt"].as_str().unwrap() > webhook["createdAt"].as_str().unwrap());

    world.receiver.behave(|_, _| Reply::status(204));
    let drained = format!("/v1/feedback-webhooks/{}/drain", webhook["id"].as_str().unwrap());
    world.caller.act(&drained).await.expect(200);
    settled(&world.caller, 2).await;
    let read = world.caller.get(&format!("{path}?window=1h")).await.expect(200);
    assert_eq!((&read["attempts"], &read["exhausted"]), (&json!({"succeeded": 2, "failed": 2}), &json!(0)));
    assert!(read["lastSuccessAt"].as_str().unwrap() > webhook["createdAt"].as_str().unwrap());
    // Retried by hand they are attempts, and no faster or slower deliveries.
    let got = world.receiver.got();
    world.caller.act(&format!("/v1/deliveries/{}/retry", got[0].id())).await.expect(200);
    settled(&world.caller, 3).await;
    let again = world.caller.get(&path).await.expect(200);
    assert_eq!((&again["attempts"]["succeeded"], &again["latencyMs"]), (&json!(3), &read["latencyMs"]));
    // A new webhook has not succeeded yet.
    world.caller.delete(&format!("/v1/feedback-webhooks/{}", webhook["id"].as_str().unwrap())).await;
    assert_eq!(world.caller.get(&path).await.status, 404);
    let webhook = world.webhook(json!({})).await;
    let path = format!("/v1/feedback-webhooks/{}/statistics", webhook["id"].as_str().unwrap());
    assert_eq!(world.caller.get(&path).await.expect(200)["lastSuccessAt"], Value::Null);
}
