//! Revisions of resources, and versions of campaigns.

use super::{UNITARY, items, text};
use crate::support::backing::{Backing, on_every_store};
use crate::support::relay::Relay;
use crate::support::world::{World, execution, merge};
use hyper::Method;
use serde_json::json;
use std::collections::BTreeSet;

on_every_store! {
    if_match_refuses_what_was_changed_meanwhile,
    accepted_messages_keep_their_campaigns_version,
}

async fn if_match_refuses_what_was_changed_meanwhile(backing: &Backing) {
    let world = World::start_on(backing).await;
    let channel = json!({"name": "simulator", "channel": "email", "type": "simulator"});
    let campaign = world.campaign_through(&channel).await;
    let made = world.webhook(json!({})).await;
    let channel_id = text(&items(&world.caller.get("/v1/channel-configurations").await.expect(200))[0]["id"]);
    let of_campaign = json!({"name": "n", "channel": "email", "channelConfigurationId": channel_id, "content": {"subject": "s", "text": "t"}});
    let webhook = json!({"name": "n", "channels": ["email"], "url": world.receiver.url});
    for (path, body) in [
        (format!("/v1/feedback-webhooks/{}", text(&made["id"])), webhook),
        (format!("/v1/campaigns/{campaign}"), of_campaign),
        (format!("/v1/channel-configurations/{channel_id}"), channel),
    ] {
        let put = async |etag: &str| {
            let bearer = format!("Bearer {}", world.caller.key.as_ref().unwrap());
            let headers = [
                ("authorization", bearer.as_str()),
                ("x-gw-ims-org-id", "default@EsitoOrg"),
                ("x-sandbox-name", "prod"),
                ("content-type", "application/json"),
                ("if-match", etag),
            ];
            world.caller.raw(Method::PUT, &path, &headers, body.to_string()).await.unwrap()
        };
        let etag = world.caller.get(&path).await.header("etag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        let changed = put(&etag).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        let current = changed.header("etag").to_owned();
        assert_ne!(current, etag);
        assert_eq!(world.caller.get(&path).await.header("etag"), current);
        let stale = put(&etag).await.expect(412);
        assert_eq!(stale["report"]["additionalContext"]["etag"], current.as_str());
        assert_eq!(put("*").await.status, 200);
        let current = world.caller.get(&path).await.header("etag").to_owned();
        let (one, other) = tokio::join!(put(&current), put(&current));
        let statuses = BTreeSet::from([one.status, other.status]);
        assert_eq!(statuses, BTreeSet::from([200, 412]), "one of two at a time wins: {path}");
    }
}

async fn accepted_messages_keep_their_campaigns_version(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({})).await;
    let relay = Relay::start().await;
    let campaign = world.relayed_campaign(relay.port).await;
    let path = format!("/v1/campaigns/{campaign}");
    let channel = text(&items(&world.caller.get("/v1/channel-configurations").await.expect(200))[0]["id"]);
    let mut settings = world.caller.get(&path).await.expect(200);
    let first = text(&settings["versionId"]);
    world.caller.act(&format!("/v1/channel-configurations/{channel}/pause")).await.expect(200);
    let send = async |name: &str| {
        let body = execution(name, &campaign, &[format!("{name}@example.com")]);
        world.caller.post(UNITARY, &body).await.expect(202);
    };
    send("before").await;
    merge(&mut settings, json!({"content": {"subject": "Second version"}}));
    let draft = world.caller.put(&path, &settings).await.expect(200);
    assert_eq!(
        (&draft["status"], &draft["hasDraft"], text(&draft["versionId"])),
        (&json!("LIVE"), &json!(true), first.clone())
    );
    send("draft").await;
    let live = world.caller.act(&format!("{path}/activate")).await.expect(200);
    let second = text(&live["versionId"]);
    assert!(second != first && live["hasDraft"] == false);
    send("after").await;
    let waiting = world.caller.get("/v1/messages?status=queued").await.expect(200);
    assert_eq!((items(&waiting).len(), relay.mails().len()), (3, 0), "a paused channel's messages wait");
    world.caller.act(&format!("/v1/channel-configurations/{channel}/resume")).await.expect(200);
    let mails = relay.wait_for(3).await;
    let got = world.receiver.wait_for(3).await;
    for (name, subject, version) in
        [("before", "Order A-1", &first), ("draft", "Order A-1", &first), ("after", "Second version", &second)]
    {
        let address = format!("{name}@example.com");
        let mail = mails.iter().find(|mail| mail.to == address).unwrap();
        assert!(mail.data.contains(&format!("Subject: {subject}\r\n")), "{}", mail.data);
        let event = got.iter().find(|got| got.recipient() == address).unwrap().json();
        assert_eq!(event["messageExecution"]["campaignVersionID"], version.as_str());
    }
}
