//! The main path through the real surfaces: HTTP in, SMTP or the simulator, a TLS endpoint out.

use crate::support::backing::{Backing, on_every_store};
use crate::support::receiver::Reply;
use crate::support::relay::Relay;
use crate::support::world::{World, execution};
use serde_json::json;

const UNITARY: &str = "/ajo/im/executions/unitary";

on_every_store! {
    every_simulated_outcome_reaches_the_webhook_in_order,
    real_mail_goes_out_and_its_outcomes_come_back,
    a_failed_delivery_is_retried_with_the_same_id_and_logged,
    sigterm_drains_and_exits_0_and_a_restart_goes_on,
}

fn statuses(got: &[crate::support::receiver::Got], recipient: &str) -> Vec<String> {
    let of_recipient = got.iter().filter(|one| one.recipient() == recipient && one.status / 100 == 2);
    of_recipient.map(crate::support::receiver::Got::event_status).collect()
}

async fn every_simulated_outcome_reaches_the_webhook_in_order(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({"events": ["sent", "delivered", "bounce", "error", "exclude", "denylist", "delay"]})).await;
    let campaign = world.simulated_campaign().await;
    let expected = [
        ("sent", vec!["sent"]),
        ("delivered", vec!["sent", "delivered"]),
        ("bounce", vec!["bounce"]),
        ("softbounce", vec!["bounce"]),
        ("error", vec!["error"]),
        ("late-bounce", vec!["sent", "bounce"]),
        ("delay", vec!["delay", "sent"]),
        ("exclude", vec!["exclude"]),
    ];
    let addresses: Vec<String> = expected.iter().map(|(name, _)| format!("{name}+1@simulator.esito.test")).collect();
    let accepted = world.caller.post(UNITARY, &execution("r-1", &campaign, &addresses)).await.expect(202);
    let got = world.receiver.wait_for(11).await;
    for (i, (_, wanted)) in expected.iter().enumerate() {
        assert_eq!(&statuses(&got, &addresses[i]), wanted, "{}", addresses[i]);
    }
    assert!(got.iter().all(|one| one.json()["requestId"] == "r-1"));
    let id = accepted["executionId"].as_str().unwrap();
    let shown = world.caller.get(&format!("/v1/executions/{id}")).await.expect(200);
    assert_eq!(shown["recipients"].as_array().unwrap().len(), 8);
}

async fn real_mail_goes_out_and_its_outcomes_come_back(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({})).await;
    let relay = Relay::start().await;
    let campaign = world.relayed_campaign(relay.port).await;
    let addresses = ["jane@example.com", "refuse-x@example.com", "defer-1-y@example.com"];
    world.caller.post(UNITARY, &execution("r-1", &campaign, &addresses)).await.expect(202);
    let got = world.receiver.wait_for(3).await;
    assert_eq!(statuses(&got, "jane@example.com"), ["sent"]);
    assert_eq!(statuses(&got, "refuse-x@example.com"), ["bounce"]);
    assert_eq!(statuses(&got, "defer-1-y@example.com"), ["sent"]);
    let of = |address: &str| {
        got.iter().find(|one| one.recipient() == address).unwrap().json()["messageDeliveryFeedback"].clone()
    };
    let failure = &of("refuse-x@example.com")["messageFailure"];
    assert_eq!(
        failure,
        &json!({"category": "sync", "type": "Hard", "code": "10", "reason": "550 5.1.1 no such user here"})
    );
    assert_eq!(of("defer-1-y@example.com")["retryCount"], 1);
    let mails = relay.mails();
    assert_eq!(mails.len(), 2);
    let to_jane = mails.iter().find(|mail| mail.to == "jane@example.com").unwrap();
    assert!(
        to_jane.data.contains("Subject: Order A-1") && to_jane.data.contains("Thank you, Jane"),
        "{}",
        to_jane.data
    );
}

async fn a_failed_delivery_is_retried_with_the_same_id_and_logged(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.receiver.behave(|_, before| Reply::status(if before == 0 { 503 } else { 200 }));
    world.webhook(json!({"retry": {"firstDelaySeconds": 1}})).await;
    let campaign = world.simulated_campaign().await;
    world.caller.post(UNITARY, &execution("r-1", &campaign, &["delivered@simulator.esito.test"])).await.expect(202);
    let got = world.receiver.wait_for(2).await;
    let ids: Vec<&str> = got.iter().map(|one| one.id()).collect();
    assert_eq!(ids[0], ids[1], "the retry carries the id of the first attempt");
    assert_eq!(statuses(&got, "delivered@simulator.esito.test"), ["sent", "delivered"]);
    let delivery = world.caller.get(&format!("/v1/deliveries/{}", ids[0])).await.expect(200);
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.iter().map(|one| one["status"].as_u64().unwrap()).collect::<Vec<_>>(), [503, 200]);
}

async fn sigterm_drains_and_exits_0_and_a_restart_goes_on(backing: &Backing) {
    let mut world = World::start_on(backing).await;
    world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    world.caller.post(UNITARY, &execution("r-1", &campaign, &["sent@simulator.esito.test"])).await.expect(202);
    world.receiver.wait_for(1).await;
    assert!(world.server.stop().await.success());
    world.server.up().await;
    let caller = world.server.admin();
    let body = execution("r-1", &campaign, &["sent@simulator.esito.test"]);
    caller.post(UNITARY, &body).await.expect(202);
    caller.post(UNITARY, &execution("r-2", &campaign, &["bounce@simulator.esito.test"])).await.expect(202);
    let got = world.receiver.wait_for(2).await;
    assert_eq!(got.len(), 2, "a repeated requestId sends nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_refuses_executions_and_nothing_else() {
    // More than any disk has free: as if this one were full.
    let world = World::start_with(&[("limits.min_free_disk_mib", "1000000000")]).await;
    world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    let refused = world.caller.post(UNITARY, &execution("r-1", &campaign, &["sent@simulator.esito.test"])).await;
    assert!(refused.header("retry-after").parse::<u32>().is_ok());
    let problem = refused.expect(503);
    assert_eq!(problem["status"], 503, "{problem}");
    assert!(world.caller.get("/v1/executions").await.expect(200)["items"].as_array().unwrap().is_empty());
}
