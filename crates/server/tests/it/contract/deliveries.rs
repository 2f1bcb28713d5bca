//! The states of a delivery: held, gone, cancelled, given up, retried.

use super::{SIMULATOR, UNITARY, items, text};
use crate::support::backing::{Backing, on_every_store};
use crate::support::client::Caller;
use crate::support::receiver::{Got, Reply};
use crate::support::until;
use crate::support::world::{World, execution};
use serde_json::{Value, json};

/// The one delivery of the sandbox in this state, with its attempts; waits for it.
async fn delivery_in(caller: &Caller, state: &str) -> Value {
    let found = async || {
        let list = caller.get(&format!("/v1/deliveries?state={state}")).await.expect(200);
        let id = text(&items(&list).first()?["id"]);
        Some(caller.get(&format!("/v1/deliveries/{id}")).await.expect(200))
    };
    until(&format!("a delivery that is {state}"), found).await
}

async fn webhook_state(caller: &Caller, id: &str) -> (String, Value) {
    let webhook = caller.get(&format!("/v1/feedback-webhooks/{id}")).await.expect(200);
    (text(&webhook["state"]), webhook["stateReason"].clone())
}

on_every_store! {
    a_held_webhooks_events_wait_without_using_up_attempts,
    an_endpoint_that_is_gone_disables_the_webhook_until_it_is_enabled,
    deliveries_are_cancelled_and_retried_by_hand,
    what_was_given_up_is_kept_and_goes_out_when_retried,
    deleting_a_webhook_cancels_its_deliveries_visibly,
}

async fn a_held_webhooks_events_wait_without_using_up_attempts(backing: &Backing) {
    let world = World::start_on(backing).await;
    let id = text(&world.webhook(json!({})).await["id"]);
    let campaign = world.simulated_campaign().await;
    let act = async |act: &str| world.caller.act(&format!("/v1/feedback-webhooks/{id}/{act}")).await.expect(200);
    for (n, (hold, state, release)) in
        [("pause", "paused", "resume"), ("disable", "disabled", "enable")].into_iter().enumerate()
    {
        act(hold).await;
        let (now, reason) = webhook_state(&world.caller, &id).await;
        assert!(now == state && reason.is_string(), "{now} {reason}");
        let body = execution(hold, &campaign, &[format!("delivered+{n}@{SIMULATOR}")]);
        world.caller.post(UNITARY, &body).await.expect(202);
        let held = async || {
            let list = world.caller.get("/v1/deliveries?state=held").await.expect(200);
            (items(&list).len() == 2).then_some(list)
        };
        let held = until("both events to be held", held).await;
        for delivery in items(&held) {
            assert_eq!((&delivery["attemptCount"], &delivery["state"]), (&json!(0), &json!("held")));
        }
        assert_eq!(world.receiver.got().len(), 2 * n, "nothing goes out");
        act(release).await;
        assert_eq!(webhook_state(&world.caller, &id).await, ("active".to_owned(), Value::Null));
        let got = world.receiver.wait_for(2 * (n + 1)).await;
        assert_eq!(got[2 * n..].iter().map(Got::event_status).collect::<Vec<_>>(), ["sent", "delivered"]);
        let delivered = world.caller.get(&format!("/v1/deliveries/{}", got[2 * n].id())).await.expect(200);
        assert_eq!(delivered["attempts"].as_array().unwrap().len(), 1);
    }
}

async fn an_endpoint_that_is_gone_disables_the_webhook_until_it_is_enabled(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.receiver.behave(|_, _| Reply::status(410));
    let id = text(&world.webhook(json!({"retry": {"giveUpAfterSeconds": 0}})).await["id"]);
    let campaign = world.simulated_campaign().await;
    world.caller.post(UNITARY, &execution("r-1", &campaign, &[format!("sent@{SIMULATOR}")])).await.expect(202);
    let disabled = async || {
        let (state, reason) = webhook_state(&world.caller, &id).await;
        (state == "disabled").then(|| text(&reason))
    };
    assert!(until("the webhook to be disabled", disabled).await.contains("410"));
    let held = delivery_in(&world.caller, "held").await;
    assert_eq!(held["attempts"][0]["status"], 410);
    world.receiver.behave(|_, _| Reply::status(200));
    world.caller.act(&format!("/v1/feedback-webhooks/{id}/enable")).await.expect(200);
    let got = world.receiver.wait_for(1).await;
    assert_eq!(got.last().unwrap().id(), text(&held["id"]));
    let succeeded = delivery_in(&world.caller, "succeeded").await;
    assert_eq!(succeeded["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(webhook_state(&world.caller, &id).await.0, "active");
}

async fn deliveries_are_cancelled_and_retried_by_hand(backing: &Backing) {
    let world = World::start_on(backing).await;
    let id = text(&world.webhook(json!({})).await["id"]);
    let campaign = world.simulated_campaign().await;
    let act = async |path: String| world.caller.act(&path).await;
    act(format!("/v1/feedback-webhooks/{id}/pause")).await.expect(200);
    world.caller.post(UNITARY, &execution("r-1", &campaign, &[format!("delivered@{SIMULATOR}")])).await.expect(202);
    let both = async || {
        let list = world.caller.get("/v1/deliveries").await.expect(200);
        (items(&list).len() == 2).then_some(list)
    };
    let list = until("both deliveries", both).await;
    let (second, first) = (text(&items(&list)[0]["id"]), text(&items(&list)[1]["id"]));
    assert_eq!((&items(&list)[0]["blocked"], &items(&list)[1]["blocked"]), (&json!(true), &json!(false)));
    let cancelled = act(format!("/v1/deliveries/{first}/cancel")).await.expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    assert_eq!(act(format!("/v1/deliveries/{first}/cancel")).await.status, 409);
    act(format!("/v1/feedback-webhooks/{id}/resume")).await.expect(200);
    let got = world.receiver.wait_for(1).await;
    assert_eq!((got.len(), got[0].id(), got[0].event_status().as_str()), (1, second.as_str(), "delivered"));
    act(format!("/v1/deliveries/{first}/retry")).await.expect(200);
    let got = world.receiver.wait_for(2).await;
    assert_eq!((got[1].id(), got[1].event_status().as_str()), (first.as_str(), "sent"));
    let ended = async || {
        let delivery = world.caller.get(&format!("/v1/deliveries/{first}")).await.expect(200);
        (delivery["state"] == "succeeded").then_some(())
    };
    until("the delivery to have succeeded", ended).await;
    assert_eq!(act(format!("/v1/deliveries/{first}/cancel")).await.status, 409);
    act(format!("/v1/deliveries/{first}/retry")).await.expect(200);
    assert_eq!(world.receiver.wait_for(3).await[2].id(), first, "the same id again");
}

async fn what_was_given_up_is_kept_and_goes_out_when_retried(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.receiver.behave(|_, _| Reply::status(500));
    world.webhook(json!({"retry": {"firstDelaySeconds": 1, "giveUpAfterSeconds": 0}})).await;
    let campaign = world.simulated_campaign().await;
    world.caller.post(UNITARY, &execution("r-1", &campaign, &[format!("sent@{SIMULATOR}")])).await.expect(202);
    let exhausted = delivery_in(&world.caller, "exhausted").await;
    assert_eq!((&exhausted["attemptCount"], &exhausted["nextAttemptAt"]), (&json!(1), &Value::Null));
    assert!(exhausted["endedAt"].is_string() && exhausted["attempts"][0]["status"] == 500);
    world.receiver.behave(|_, _| Reply::status(204));
    let id = text(&exhausted["id"]);
    world.caller.act(&format!("/v1/deliveries/{id}/retry")).await.expect(200);
    assert_eq!(world.receiver.wait_for(1).await.last().unwrap().id(), id);
    delivery_in(&world.caller, "succeeded").await;
}

async fn deleting_a_webhook_cancels_its_deliveries_visibly(backing: &Backing) {
    let world = World::start_on(backing).await;
    let id = text(&world.webhook(json!({"enabled": false})).await["id"]);
    let campaign = world.simulated_campaign().await;
    world.caller.post(UNITARY, &execution("r-1", &campaign, &[format!("sent@{SIMULATOR}")])).await.expect(202);
    delivery_in(&world.caller, "held").await;
    assert_eq!(world.caller.delete(&format!("/v1/feedback-webhooks/{id}")).await.status, 204);
    delivery_in(&world.caller, "cancelled").await;
    world.caller.post(UNITARY, &execution("r-2", &campaign, &[format!("sent@{SIMULATOR}")])).await.expect(202);
    let recorded = async || {
        let list = world.caller.get("/v1/feedback-events?requestId=r-2").await.expect(200);
        items(&list).first().cloned()
    };
    assert_eq!(until("the event", recorded).await["delivery"], Value::Null, "no webhook, no delivery");
    world.webhook(json!({})).await;
    world.caller.post(UNITARY, &execution("r-3", &campaign, &[format!("sent@{SIMULATOR}")])).await.expect(202);
    let got = world.receiver.wait_for(1).await;
    assert_eq!((got.len(), got[0].json()["requestId"].clone()), (1, json!("r-3")));
}
