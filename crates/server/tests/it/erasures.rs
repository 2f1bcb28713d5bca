//! Erasures as an auditor checks them: by searching every byte that is left.

use crate::support::backing::{Backing, on_every_store};
use crate::support::client::Caller;
use crate::support::receiver::Reply;
use crate::support::until;
use crate::support::world::{World, execution};
use serde_json::{Value, json};
use std::path::Path;

const UNITARY: &str = "/ajo/im/executions/unitary";

/// Long, so that pages have to be split.
fn address(n: usize) -> String {
    let kind = ["sent", "bounce", "delivered"][n % 3];
    format!("{kind}+Person.{n}.{}@simulator.esito.test", "long".repeat(1 + n % 9))
}

/// The files of a folder that hold the text, in any case.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let wanted = text.to_ascii_lowercase().into_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.make_ascii_lowercase();
        if bytes.windows(wanted.len()).any(|part| part == wanted) {
            found.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    found
}

async fn completed(caller: &Caller, id: &str) -> Value {
    let path = format!("/v1/erasures/{id}");
    let ask = || async {
        let receipt = caller.get(&path).await.expect(200);
        (receipt["state"] == "completed").then_some(receipt)
    };
    until("the erasure to be completed", ask).await
}

/// Wherever the store keeps its rows.
async fn where_it_is(world: &World, backing: &Backing, text: &str) -> Vec<String> {
    match backing {
        Backing::Sqlite => holding(world.server.folder.path(), text),
        #[cfg(feature = "peers")]
        Backing::Postgres(database) => {
            let contents = database.contents().await.to_ascii_lowercase();
            let wanted = text.to_ascii_lowercase().into_bytes();
            let in_tables = contents.windows(wanted.len()).any(|part| part == wanted);
            let mut found = holding(world.server.folder.path(), text);
            found.extend(in_tables.then(|| "a table".to_owned()));
            found
        }
    }
}

on_every_store! { no_byte_is_left_of_an_erased_address }

async fn no_byte_is_left_of_an_erased_address(backing: &Backing) {
    let mut world = World::start_on(backing).await;
    // The endpoint says what it was told: attempts keep that.
    world.receiver.behave(|got, before| Reply {
        body: String::from_utf8(got.body.clone()).unwrap(),
        ..Reply::status(if before == 0 && got.id().ends_with('0') { 500 } else { 200 })
    });
    world.webhook(json!({"retry": {"firstDelaySeconds": 1}})).await;
    let campaign = world.simulated_campaign().await;
    let everybody: Vec<String> = (0..1_200).map(address).collect();
    for (i, part) in everybody.chunks(20).enumerate() {
        world.caller.post(UNITARY, &execution(&format!("r-{i}"), &campaign, part)).await.expect(202);
    }
    world.receiver.wait_until("all events", |got| got.iter().filter(|got| got.status == 200).count() >= 1_600).await;
    let gone: Vec<String> = [7, 8, 9, 600, 601, 1_199].map(address).into();
    for address in &gone {
        assert!(!where_it_is(&world, backing, address).await.is_empty(), "{address} is there before");
        // Asked for in another case; and killed under way.
        let asked = json!({"address": address.to_uppercase()});
        let receipt = world.caller.post("/v1/erasures", &asked).await.expect(201);
        let id = receipt["id"].as_str().unwrap().to_owned();
        if address == &gone[0] {
            world.server.kill().await;
            backing.settle().await;
            world.server.up().await;
            world.caller = world.server.admin();
        }
        let receipt = completed(&world.caller, &id).await;
        assert_eq!(receipt["erased"]["messages"], 1, "{receipt}");
    }
    for address in &gone {
        assert_eq!(where_it_is(&world, backing, address).await, Vec::<String>::new(), "{address}");
        let query = address.replace('+', "%2B");
        for list in ["messages", "feedback-events", "deliveries", "executions"] {
            let found = world.caller.get(&format!("/v1/{list}?recipient={query}")).await.expect(200);
            assert_eq!(found["items"], json!([]), "{list}");
        }
    }
    // The others are whole, and all goes on.
    for n in [6, 10, 599, 602] {
        let query = address(n).replace('+', "%2B");
        let found = world.caller.get(&format!("/v1/messages?recipient={query}")).await.expect(200);
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{n}");
    }
    world.caller.post(UNITARY, &execution("again", &campaign, &[address(7)])).await.expect(202);
    let feed = world.caller.get("/v1/feedback-events?after=0&limit=200").await.expect(200);
    assert_eq!(feed["items"].as_array().unwrap().len(), 200);
    if matches!(backing, Backing::Sqlite) {
        crate::support::must("the server to stop", world.server.stop()).await;
        let connection = rusqlite::Connection::open(world.server.file("esito.db")).unwrap();
        let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_waits_is_not_sent_any_more() {
    let world = World::start().await;
    world.webhook(json!({})).await;
    let campaign = world.simulated_campaign().await;
    let channels = world.caller.get("/v1/channel-configurations").await.expect(200);
    let channel = channels["items"][0]["id"].as_str().unwrap().to_owned();
    world.caller.act(&format!("/v1/channel-configurations/{channel}/pause")).await.expect(200);
    let to = ["sent+jane@simulator.esito.test", "sent+joe@simulator.esito.test"];
    world.caller.post(UNITARY, &execution("r-1", &campaign, &to)).await.expect(202);
    let receipt = world.caller.post("/v1/erasures", &json!({"address": to[0]})).await.expect(201);
    completed(&world.caller, receipt["id"].as_str().unwrap()).await;
    world.caller.act(&format!("/v1/channel-configurations/{channel}/resume")).await.expect(200);
    let got = world.receiver.wait_for(1).await;
    assert_eq!(got[0].recipient(), to[1]);
    let log = world.caller.get("/v1/audit-log").await.expect(200).to_string();
    assert!(log.contains("erasure.create") && !log.contains("jane"), "{log}");
    for wrong in [json!({}), json!({"address": "a b"}), json!({"address": ""}), json!({"adress": "jane@example.com"})] {
        let answer = world.caller.post("/v1/erasures", &wrong).await;
        assert!(answer.status == 400 && answer.text().contains("address"), "{}", answer.text());
    }
}
