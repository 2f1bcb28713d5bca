//! Who gets a message, and who is left out.

use super::{SIMULATOR, UNITARY, text};
use crate::support::backing::{Backing, on_every_store};
use crate::support::receiver::Got;
use crate::support::relay::Relay;
use crate::support::world::{World, execution, merge};
use serde_json::{Value, json};

fn feedback(got: &Got) -> Value {
    got.json()["messageDeliveryFeedback"].clone()
}

on_every_store! {
    what_expires_before_it_is_handed_over_is_excluded,
    addresses_come_from_channel_data_profile_or_user_id,
}

async fn what_expires_before_it_is_handed_over_is_excluded(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({})).await;
    let relay = Relay::start().await;
    let campaign = world.relayed_campaign(relay.port).await;
    let mut body = execution("r-1", &campaign, &["jane@example.com"]);
    body["expiresAt"] = json!("2020-01-01T00:00:00Z");
    world.caller.post(UNITARY, &body).await.expect(202);
    let got = world.receiver.wait_for(1).await;
    let feedback = feedback(&got[0]);
    assert_eq!(feedback["feedbackStatus"]["value"], "exclude");
    let keys: Vec<&String> = feedback["messageExclusion"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["code", "details", "reason"]);
    assert_eq!(feedback["messageFailure"], Value::Null);
    assert!(relay.mails().is_empty());
}

async fn addresses_come_from_channel_data_profile_or_user_id(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({})).await;
    let email = world.simulated_campaign().await;
    let sms = world.campaign_through(&json!({"name": "sms", "channel": "sms", "type": "simulator"})).await;
    let at = |name: &str| format!("sent+{name}@{SIMULATOR}");
    let profile = json!({"personalEmail": {"address": at("profile")}, "mobilePhone": {"number": "+999000001"}});
    let identity = |namespace: &str, id: &str, primary: bool| json!({namespace: [{"id": id, "primary": primary}]});
    let both = |namespace: &str, address: &str, other: &str, id: &str| {
        let mut map = identity(namespace, address, true);
        merge(&mut map, identity(other, id, false));
        map
    };
    let recipient = |user: &str, namespace: &str, more: Value| {
        let mut recipient = json!({"type": "external", "userId": user, "namespace": namespace});
        merge(&mut recipient, more);
        recipient
    };
    let cases = [
        (&email, recipient(&at("user"), "email", json!({})), identity("email", &at("user"), true), "sent"),
        (
            &email,
            recipient(&at("data"), "Email", json!({"channelData": {"emailAddress": at("data")}, "profile": profile})),
            identity("email", &at("data"), true),
            "sent",
        ),
        (
            &email,
            recipient("1", "ECID", json!({"profile": profile})),
            both("email", &at("profile"), "ECID", "1"),
            "sent",
        ),
        (
            &email,
            recipient("2", "CRM", json!({"channelData": {"emailAddress": at("data")}, "profile": profile})),
            both("email", &at("data"), "CRM", "2"),
            "sent",
        ),
        (&email, recipient("3", "ECID", json!({})), identity("ECID", "3", false), "exclude"),
        (&email, recipient("no address", "email", json!({})), identity("email", "no address", true), "exclude"),
        (&sms, recipient("+999000001", "phone", json!({})), identity("Phone", "+999000001", true), "sent"),
        (&sms, recipient("4", "ECID", json!({"profile": profile})), both("Phone", "+999000001", "ECID", "4"), "sent"),
        (&sms, recipient(&at("user"), "email", json!({})), identity("email", &at("user"), false), "exclude"),
    ];
    for (n, (campaign, recipient, ..)) in cases.iter().enumerate() {
        let body = json!({"requestId": format!("r-{n}"), "campaignId": campaign, "recipients": [recipient]});
        world.caller.post(UNITARY, &body).await.expect(202);
    }
    let got = world.receiver.wait_for(cases.len()).await;
    for (n, (_, recipient, identities, status)) in cases.iter().enumerate() {
        let one = got.iter().find(|got| got.json()["requestId"] == format!("r-{n}")).unwrap();
        assert_eq!((&one.json()["identityMap"], one.event_status().as_str()), (identities, *status), "{recipient}");
    }
    let code = |n: usize| {
        let one = got.iter().find(|got| got.json()["requestId"] == format!("r-{n}")).unwrap();
        text(&feedback(one)["messageExclusion"]["code"])
    };
    assert_eq!([code(4), code(5), code(8)], ["050020", "050024", "050153"]);
}
