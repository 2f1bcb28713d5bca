//! The same request twice, and too many of them.

use super::{HIGH_THROUGHPUT, SIMULATOR, UNITARY, items, text};
use crate::support::backing::{Backing, on_every_store};
use crate::support::client::Caller;
use crate::support::server::Server;
use crate::support::until;
use crate::support::world::{World, campaign_through, execution};
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn post(caller: &Caller, path: &str, text: &str) -> (u16, Value) {
    let bearer = format!("Bearer {}", caller.key.as_ref().unwrap());
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-gw-ims-org-id", &caller.organization),
        ("x-sandbox-name", &caller.sandbox),
        ("content-type", "application/json; charset=utf-8"),
    ];
    let answer = caller.raw(Method::POST, path, &headers, text.to_owned()).await.unwrap();
    (answer.status, answer.json())
}

on_every_store! {
    a_repeated_request_is_the_same_execution,
    twenty_twins_are_one_execution,
}

async fn a_repeated_request_is_the_same_execution(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({})).await;
    let (campaign, other) = (world.simulated_campaign().await, world.simulated_campaign().await);
    let body = |campaign: &str, first: &str, second: &str| {
        let recipient = |name: &str| {
            format!(
                r#"{{"type":"external","userId":"{name}+x@{SIMULATOR}","namespace":"email","context":{{"n":1,"list":[1,2]}}}}"#
            )
        };
        format!(
            r#"{{"requestId":"r-1","campaignId":"{campaign}","recipients":[{},{}]}}"#,
            recipient(first),
            recipient(second)
        )
    };
    let plain = body(&campaign, "sent", "bounce");
    let (status, first) = post(&world.caller, UNITARY, &plain).await;
    assert_eq!(status, 202, "{first}");
    let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["createdAt", "createdBy", "executionId", "modifiedAt", "modifiedBy", "requestId"]);
    let id = text(&first["executionId"]);
    assert!(id.strip_prefix("HUMA-").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())), "{id}");
    let spaced = format!(
        "{{ \"recipients\" : [{{\"context\":{{\"list\":[1, 2],\"n\":1}}, \"namespace\":\"email\",\"userId\":\"sent\\u002bx@{SIMULATOR}\",\"type\":\"external\"}},\n\t{{\"type\":\"external\",\"userId\":\"bounce+x@{SIMULATOR}\",\"namespace\":\"email\",\"context\":{{\"n\":1,\"list\":[1,2]}}}}],\r\n\"campaignId\":\"{campaign}\",\"requestId\":\"r-1\"}}"
    );
    for again in [&plain, &spaced] {
        assert_eq!(post(&world.caller, UNITARY, again).await, (202, first.clone()));
    }
    assert_eq!(post(&world.caller, HIGH_THROUGHPUT, &plain).await, (202, first.clone()));
    for changed in
        [body(&campaign, "bounce", "sent"), plain.replace("[1,2]", "[2,1]"), plain.replace("\"n\":1", "\"n\":2")]
    {
        let (status, problem) = post(&world.caller, UNITARY, &changed).await;
        assert_eq!(
            (status, text(&problem["report"]["additionalContext"]["executionId"])),
            (409, id.clone()),
            "{problem}"
        );
    }
    let (status, of_other) = post(&world.caller, UNITARY, &body(&other, "sent", "bounce")).await;
    assert_eq!(status, 202, "another campaign's requests are others");
    world.caller.act(&format!("/v1/campaigns/{campaign}/stop")).await.expect(200);
    assert_eq!(post(&world.caller, UNITARY, &plain).await, (202, first));
    assert_eq!(post(&world.caller, UNITARY, &plain.replace("r-1", "r-2")).await.0, 409);
    world.receiver.wait_for(4).await;
    let found = world.caller.get("/v1/executions?requestId=r-1").await.expect(200);
    let ids: Vec<String> = items(&found).iter().map(|one| text(&one["executionId"])).collect();
    assert_eq!(ids, [text(&of_other["executionId"]), id.clone()], "the newest first");
    let of_campaign =
        world.caller.get(&format!("/v1/executions?requestId=r-1&campaignId={campaign}")).await.expect(200);
    assert_eq!(items(&of_campaign).len(), 1);
    assert_eq!(items(&of_campaign)[0]["recipients"].as_array().unwrap().len(), 2);
    assert_eq!(world.receiver.got().len(), 4, "nothing was sent twice");
}

async fn twenty_twins_are_one_execution(backing: &Backing) {
    let world = World::start_on(backing).await;
    world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    for round in 0..5 {
        let body = execution(&format!("twin-{round}"), &campaign, &[format!("sent+{round}@{SIMULATOR}")]);
        let twins: Vec<_> = (0..20)
            .map(|_| {
                let (caller, body) = (world.caller.clone(), body.clone());
                tokio::spawn(async move { text(&caller.post(UNITARY, &body).await.expect(202)["executionId"]) })
            })
            .collect();
        let mut ids = BTreeSet::new();
        for twin in twins {
            ids.insert(twin.await.unwrap());
        }
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
    world.receiver.wait_for(5).await;
    let all = world.caller.get("/v1/messages").await.expect(200);
    assert_eq!((items(&all).len(), world.receiver.got().len()), (5, 5));
}

fn sent_to(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("sent+{i}@{SIMULATOR}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_executions_are_put_off() {
    let settings = [("limits.executions_per_second", "3"), ("limits.max_waiting_messages", "5")];
    let server = Server::start(&settings).await;
    let caller = server.admin();
    let campaign = campaign_through(&caller, &json!({"name": "s", "channel": "email", "type": "simulator"})).await;
    let channel = text(&items(&caller.get("/v1/channel-configurations").await.expect(200))[0]["id"]);
    caller.act(&format!("/v1/channel-configurations/{channel}/pause")).await.expect(200);
    let mut problems = BTreeSet::new();
    let body = execution("first", &campaign, &sent_to(5));
    let first = text(&caller.post(UNITARY, &body).await.expect(202)["executionId"]);
    for n in 0..20 {
        let answer = caller.post(UNITARY, &execution(&format!("r-{n}"), &campaign, &sent_to(1))).await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, "1"), "{}", answer.text());
        problems.insert(text(&answer.json()["type"]));
    }
    let both = ["rate-limited", "too-much-waiting"].map(|name| format!("urn:esito:problem:{name}"));
    assert_eq!(problems, BTreeSet::from(both));
    let again = async || {
        let answer = caller.post(UNITARY, &body).await;
        (answer.status == 202).then(|| text(&answer.json()["executionId"]))
    };
    assert_eq!(until("the rate to allow another call", again).await, first, "a repetition waits for nothing");
}
