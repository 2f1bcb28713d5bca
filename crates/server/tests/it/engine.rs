//! The engine against endpoints in trouble, through the real surfaces.

use crate::support::receiver::{Got, Reply};
use crate::support::until;
use crate::support::world::{World, execution};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const UNITARY: &str = "/ajo/im/executions/unitary";

/// Executions of twenty recipients each, whose messages yield one event.
async fn send(world: &World, campaign: &str, executions: usize) {
    for n in 0..executions {
        let to: Vec<String> = (0..20).map(|i| format!("sent+{n}-{i}@simulator.esito.test")).collect();
        world.caller.post(UNITARY, &execution(&format!("r-{n}"), campaign, &to)).await.expect(202);
    }
}

fn ids(got: &[Got]) -> HashSet<&str> {
    got.iter().map(Got::id).collect()
}

async fn state_of(world: &World, id: &Value) -> Value {
    let path = format!("/v1/feedback-webhooks/{}", id.as_str().unwrap());
    world.caller.get(&path).await.expect(200)["state"].clone()
}

async fn act(world: &World, id: &Value, action: &str) {
    let path = format!("/v1/feedback-webhooks/{}/{action}", id.as_str().unwrap());
    world.caller.call(hyper::Method::POST, &path, None).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_probed_and_gets_everything_when_it_is_back() {
    let world = World::start().await;
    let is_up = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_up);
    world.receiver.behave(move |_, _| Reply::status(if switch.load(Ordering::SeqCst) { 204 } else { 503 }));
    let webhook = world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    send(&world, &campaign, 20).await;
    let seen = world.receiver.wait_until("two probes", |got| got.len() >= 7).await;
    // Five failures open the circuit; a few were under way beside them.
    assert!(seen.len() <= 12, "{} requests to a dead endpoint", seen.len());
    assert_eq!(ids(&seen).len(), seen.len(), "each with another event");
    assert_eq!(state_of(&world, &webhook["id"]).await, "failing");
    is_up.store(true, Ordering::SeqCst);
    let got = world.receiver.wait_for(400).await;
    let taken: Vec<Got> = got.into_iter().filter(|one| one.status == 204).collect();
    assert_eq!((taken.len(), ids(&taken).len()), (400, 400), "each once");
    assert_eq!(state_of(&world, &webhook["id"]).await, "active");
    // What waited used up no attempts.
    let failed: Vec<_> = world.receiver.got().into_iter().filter(|one| one.status == 503).collect();
    let waited = taken.iter().find(|one| failed.iter().all(|other| other.id() != one.id())).unwrap();
    let delivery = world.caller.get(&format!("/v1/deliveries/{}", waited.id())).await.expect(200);
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_does_not_wait_for_the_next_probe() {
    let world = World::start().await;
    world.receiver.behave(|_, _| Reply::status(500));
    let webhook = world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    send(&world, &campaign, 5).await;
    // The next probe is due two to four seconds after the second.
    world.receiver.wait_until("two probes", |got| got.len() >= 7).await;
    world.receiver.behave(|_, _| Reply::status(204));
    act(&world, &webhook["id"], "drain").await;
    world.receiver.wait_for(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_pauses_the_whole_webhook() {
    let world = World::start().await;
    let first = Arc::new(AtomicBool::new(true));
    world.receiver.behave(move |_, _| match first.swap(false, Ordering::SeqCst) {
        true => Reply { headers: vec![("retry-after", "3".to_owned())], ..Reply::status(429) },
        false => Reply::status(204),
    });
    world.webhook(json!({"maxConcurrency": 1})).await;
    let campaign = world.simulated_campaign().await;
    send(&world, &campaign, 2).await;
    world.receiver.wait_until("the first", |got| !got.is_empty()).await;
    let paused = Instant::now();
    world.receiver.wait_until("the next", |got| got.len() > 1).await;
    assert!(paused.elapsed() > Duration::from_millis(2_500), "{:?}", paused.elapsed());
    let got = world.receiver.wait_for(40).await;
    assert_eq!(got.len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_disables_the_webhook_and_enabling_it_goes_on() {
    let world = World::start().await;
    world.receiver.behave(|_, _| Reply::status(410));
    let webhook = world.webhook(json!({"maxConcurrency": 2})).await;
    let campaign = world.simulated_campaign().await;
    send(&world, &campaign, 3).await;
    world.receiver.wait_until("a 410", |got| !got.is_empty()).await;
    let is_disabled = || async { (state_of(&world, &webhook["id"]).await == "disabled").then_some(()) };
    until("the webhook to be disabled", is_disabled).await;
    let asked = world.receiver.got().len();
    assert!(asked <= 2, "{asked} requests to an endpoint that wants none");
    world.receiver.behave(|_, _| Reply::status(204));
    act(&world, &webhook["id"], "enable").await;
    let got = world.receiver.wait_for(60).await;
    assert_eq!(got.len(), 60 + asked);
}
