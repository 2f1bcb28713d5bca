//! Which events there are, in which order, and which of them a webhook gets.

use super::{SIMULATOR, UNITARY, items, text};
use crate::support::backing::{Backing, on_every_store};
use crate::support::client::Caller;
use crate::support::until;
use crate::support::world::{World, execution};
use serde_json::json;
use std::collections::BTreeSet;

/// Reads on from `after` until there is nothing new.
async fn read_feed(caller: &Caller, after: &mut String, got: &mut Vec<(i64, String)>) {
    loop {
        let page = caller.get(&format!("/v1/feedback-events?after={after}&limit=7")).await.expect(200);
        *after = text(&page["nextCursor"]);
        if items(&page).is_empty() {
            return;
        }
        got.extend(items(&page).iter().map(|event| (event["sequence"].as_i64().unwrap(), text(&event["id"]))));
    }
}

on_every_store! {
    the_feed_has_no_gaps_while_it_grows,
    only_events_that_are_wanted_are_delivered,
}

async fn the_feed_has_no_gaps_while_it_grows(backing: &Backing) {
    let world = World::start_on(backing).await;
    let campaign = world.simulated_campaign().await;
    let (callers, each, recipients) = (4, 10, 5);
    let posting: Vec<_> = (0..callers)
        .map(|n| {
            let (caller, campaign) = (world.caller.clone(), campaign.clone());
            tokio::spawn(async move {
                for i in 0..each {
                    let kinds = ["sent", "delivered", "bounce", "exclude", "late-bounce"];
                    let addresses = kinds.map(|kind| format!("{kind}+{n}-{i}@{SIMULATOR}"));
                    caller.post(UNITARY, &execution(&format!("r-{n}-{i}"), &campaign, &addresses)).await.expect(202);
                }
            })
        })
        .collect();
    let wanted = callers * each * (recipients + 2);
    let (mut after, mut got) = ("0".to_owned(), Vec::new());
    crate::support::must("all events in the feed", async {
        while got.len() < wanted {
            read_feed(&world.caller, &mut after, &mut got).await;
        }
    })
    .await;
    for posting in posting {
        posting.await.unwrap();
    }
    assert!(got.is_sorted_by(|a, b| a.0 < b.0), "in the order of commit");
    assert_eq!(got.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), wanted);
    let (mut after, mut again) = ("0".to_owned(), Vec::new());
    read_feed(&world.caller, &mut after, &mut again).await;
    assert_eq!(again, got, "whoever read along missed nothing");
    let bounces = world.caller.get("/v1/feedback-events?after=0&status=bounce&limit=200").await.expect(200);
    assert_eq!(items(&bounces).len(), 2 * callers * each);
    let listed = world.caller.get("/v1/feedback-events?limit=200").await.expect(200);
    assert_eq!(text(&items(&listed)[0]["id"]), got.last().unwrap().1, "a list that is no feed has the newest first");
}

async fn only_events_that_are_wanted_are_delivered(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({"channels": ["email"]})).await;
    let campaign = world.simulated_campaign().await;
    let sms = world.campaign_through(&json!({"name": "sms", "channel": "sms", "type": "simulator"})).await;
    let mut silent = world.caller.get(&format!("/v1/campaigns/{campaign}")).await.expect(200);
    silent["audience"]["enableWebhooks"] = json!(false);
    let silent = text(&world.caller.post("/v1/campaigns", &silent).await.expect(201)["id"]);
    world.caller.act(&format!("/v1/campaigns/{silent}/activate")).await.expect(200);
    let phone = json!({"type": "external", "userId": "+999000001", "namespace": "phone"});
    world
        .caller
        .post(UNITARY, &json!({"requestId": "sms", "campaignId": sms, "recipients": [phone]}))
        .await
        .expect(202);
    world.caller.post(UNITARY, &execution("silent", &silent, &[format!("sent@{SIMULATOR}")])).await.expect(202);
    world.caller.post(UNITARY, &execution("delay", &campaign, &[format!("delay@{SIMULATOR}")])).await.expect(202);
    let recorded = async || {
        let list = world.caller.get("/v1/feedback-events").await.expect(200);
        (items(&list).len() == 4).then_some(list)
    };
    let list = until("all events", recorded).await;
    for event in items(&list) {
        let wanted = event["event"]["requestId"] == "delay" && event["status"] == "sent";
        assert_eq!(event["delivery"].is_object(), wanted, "{event}");
    }
    let got = world.receiver.wait_for(1).await;
    assert_eq!((got.len(), got[0].event_status().as_str()), (1, "sent"));
}
