//! Email through a real Postfix, read by Python's email package at the sink behind it.

use super::relay::{MailSystem, is_mail};
use crate::support::receiver::Got;
use crate::support::world::{World, execution, merge};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

const UNITARY: &str = "/ajo/im/executions/unitary";

/// Umlauts, a dash, an emoji and what HTML must escape; long enough to be folded in a header.
const ORDER: &str = "Größe 42 – żółć, Ελληνικά & <日本語> 🎉 and a tail that is long enough to be folded";

fn smtp(port: u16, changes: Value) -> Value {
    let mut channel = json!({"name": "postfix", "channel": "email", "type": "smtp",
        "smtp": {"host": "127.0.0.1", "port": port, "tls": "none"}, "from": {"name": "Äcme Orders", "address": "orders@acme.example"}});
    merge(&mut channel, changes);
    channel
}

fn feedback(got: &Got) -> Value {
    got.json()["messageDeliveryFeedback"].clone()
}

fn of<'a>(got: &'a [Got], recipient: &str) -> &'a Got {
    let found: Vec<&Got> = got.iter().filter(|one| one.recipient() == recipient).collect();
    assert_eq!(found.len(), 1, "{recipient} has one event: {found:?}");
    found[0]
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_of_20_recipients_sends_20_mails_that_parse_clean() {
    let world = World::start().await;
    world.webhook(json!({})).await;
    let mail = MailSystem::start().await;
    let campaign = world.campaign_through(&smtp(mail.postfix.port, json!({}))).await;
    let addresses: Vec<String> = (1..=20).map(|i| format!("jane.roe+{i}@example.com")).collect();
    let mut body = execution("r-1", &campaign, &addresses);
    for recipient in body["recipients"].as_array_mut().unwrap() {
        recipient["context"]["order"] = ORDER.into();
    }
    world.caller.post(UNITARY, &body).await.expect(202);

    let got = world.receiver.wait_for(20).await;
    for address in &addresses {
        let event = of(&got, address);
        assert_eq!(event.event_status(), "sent");
        assert_eq!(feedback(event)["retryCount"], 0);
    }
    let mails = mail.mails(20).await;
    let to: HashSet<&str> = mails.iter().map(|mail| mail["to"].as_str().unwrap()).collect();
    assert_eq!((mails.len(), to.len()), (20, 20), "one mail for each");
    let ids: HashSet<&str> = mails.iter().map(|mail| strings(&mail["messageId"])[0]).collect();
    assert_eq!(ids.len(), 20, "a Message-ID for each");
    mails.iter().for_each(check_mail);
}

fn check_mail(mail: &Value) {
    let raw = mail["raw"].as_str().unwrap();
    assert_eq!(strings(&mail["defects"]), [""; 0], "{raw}");
    assert_eq!(strings(&mail["tos"]), [mail["to"].as_str().unwrap()], "{raw}");
    let ids = strings(&mail["messageId"]);
    assert!(ids.len() == 1 && ids[0].starts_with('<') && ids[0].ends_with('>'), "{ids:?}");
    assert_eq!(mail["from"], "orders@acme.example");
    assert_eq!(mail["fromHeader"], "Äcme Orders <orders@acme.example>");
    assert_eq!(mail["subject"], format!("Order {ORDER}"));
    assert_eq!(strings(&mail["contentTypes"]), ["multipart/alternative", "text/plain", "text/html"]);
    let escaped = ORDER.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    assert_eq!(mail["html"].as_str().unwrap().trim_end(), format!("<p>Thank you, Jane: {escaped}</p>"));
    // Derived from the HTML: no tags, nothing escaped, perhaps wrapped.
    let words: Vec<&str> = mail["text"].as_str().unwrap().split_whitespace().collect();
    assert_eq!(words.join(" "), format!("Thank you, Jane: {ORDER}"));
    assert_ne!(mail["date"], "None", "{raw}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_refused_at_rcpt_bounces_hard_with_the_relays_words() {
    let world = World::start().await;
    world.webhook(json!({"payload": "extended"})).await;
    let mail = MailSystem::start().await;
    let campaign = world.campaign_through(&smtp(mail.postfix.port, json!({}))).await;
    let addresses = ["refuse-john@example.com", "jane@example.com", "refuse-mary@example.com"];
    world.caller.post(UNITARY, &execution("r-1", &campaign, &addresses)).await.expect(202);

    let got = world.receiver.wait_for(3).await;
    for address in [addresses[0], addresses[2]] {
        let event = of(&got, address);
        assert_eq!(event.event_status(), "bounce");
        let said = format!("550 5.1.1 <{address}>: Recipient address rejected: no such user here");
        let failure = json!({"category": "sync", "type": "Hard", "code": "10", "reason": said});
        assert_eq!(feedback(event)["messageFailure"], failure);
        assert_eq!(feedback(event)["responseCode"], 550);
        assert!(mail.postfix.log().iter().any(|line| line.contains(&said)), "Postfix logs what it said");
    }
    assert_eq!(of(&got, "jane@example.com").event_status(), "sent");
    let mails = mail.mails(1).await;
    assert_eq!(mails.len(), 1, "only the one that was not refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_recipient_is_tried_again_and_the_event_counts_it() {
    let world = World::start().await;
    world.webhook(json!({"events": ["sent", "bounce", "error", "delay"]})).await;
    let mail = MailSystem::start().await;
    let campaign = world.campaign_through(&smtp(mail.postfix.port, json!({}))).await;
    let addresses = ["defer-1-jane@example.com", "defer-2-john@example.com", "mary@example.com"];
    world.caller.post(UNITARY, &execution("r-1", &campaign, &addresses)).await.expect(202);

    let got = world.receiver.wait_for(5).await;
    let told: Vec<(String, Value)> = got.iter().map(|one| (one.recipient(), feedback(one))).collect();
    for (address, count) in addresses.iter().zip([1, 2, 0]) {
        let events: Vec<&Value> = told.iter().filter(|(to, _)| to == address).map(|(_, feedback)| feedback).collect();
        let statuses: Vec<&str> =
            events.iter().map(|event| event["feedbackStatus"]["value"].as_str().unwrap()).collect();
        let expected: &[&str] = if count == 0 { &["sent"] } else { &["delay", "sent"] };
        assert_eq!(statuses, expected, "{address}: at most one delay, however often it is deferred");
        assert_eq!(events.last().unwrap()["retryCount"], count, "{address}");
    }
    let deferred = mail.postfix.log().iter().filter(|line| line.contains("450 4.2.0")).count();
    assert_eq!(deferred, 3);
    assert_eq!(mail.mails(3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_and_starts_under_load_loses_nothing_and_nobody_gets_two() {
    const CONNECTIONS: usize = 8;
    let world = World::start().await;
    world.webhook(json!({})).await;
    // Once 60 recipients were let through, all of Esito's conversations are caught between RCPT and DATA. What the relay
    // has taken it keeps in its queue over the restart, so that each mail at the sink is there by one delivery.
    let mut mail = MailSystem::start_with(&["60", &CONNECTIONS.to_string()], &[("defer_transports", "smtp")]).await;
    let settings = json!({"smtp": {"maxConnections": CONNECTIONS}});
    let campaign = world.campaign_through(&smtp(mail.postfix.port, settings)).await;
    let addresses: Vec<Vec<String>> =
        (0..15).map(|i| (0..20).map(|j| format!("user-{i}-{j}@example.com")).collect()).collect();
    let post = async |range: std::ops::Range<usize>| {
        for i in range {
            world.caller.post(UNITARY, &execution(&format!("r-{i}"), &campaign, &addresses[i])).await.expect(202);
        }
    };
    post(0..8).await;
    mail.policy.wait_for(1, |told| told["held"].is_u64()).await;
    mail.postfix.stop().await;
    let sent_before = world.receiver.got().len();
    post(8..12).await;
    mail.postfix.up(&[("defer_transports", "")]).await;
    post(12..15).await;

    let got = world.receiver.wait_for(300).await;
    assert!(got.iter().all(|one| one.event_status() == "sent"), "nothing is lost and nothing bounces");
    let told: HashSet<String> = got.iter().map(Got::recipient).collect();
    assert_eq!((got.len(), told.len()), (300, 300), "one event for each");
    let retried = got.iter().filter(|one| feedback(one)["retryCount"].as_u64().unwrap() > 0).count();
    assert!(retried >= CONNECTIONS, "those caught in the middle were tried again: {retried}");
    let mails = mail.mails(300).await;
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for mail in &mails {
        *counts.entry(mail["to"].as_str().unwrap()).or_default() += 1;
    }
    counts.retain(|_, count| *count > 1);
    assert_eq!((mails.len(), counts), (300, HashMap::new()), "one mail for each");
    println!("300 recipients, {sent_before} events before the stop, {retried} tried again, 300 mails");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_over_starttls_to_a_relay_whose_certificate_is_good() {
    let world = World::start().await;
    world.webhook(json!({})).await;
    let mail = MailSystem::start_tls(&world.authority).await;
    let campaign = world.campaign_through(&smtp(mail.postfix.port, json!({"smtp": {"tls": "starttls"}}))).await;
    world.caller.post(UNITARY, &execution("r-1", &campaign, &["jane@example.com"])).await.expect(202);
    let got = world.receiver.wait_for(1).await;
    assert_eq!(of(&got, "jane@example.com").event_status(), "sent");
    let mails = mail.mails(1).await;
    let raw = mails[0]["raw"].as_str().unwrap();
    assert!(raw.contains("using TLSv1."), "Postfix writes into the mail how it came: {raw}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_relay_whose_certificate_is_not_good() {
    let world = World::start().await;
    world.webhook(json!({"events": ["delay", "sent", "error", "bounce"]})).await;
    let stranger = crate::support::receiver::Authority::new();
    let mail = MailSystem::start_tls(&stranger).await;
    let campaign = world.campaign_through(&smtp(mail.postfix.port, json!({"smtp": {"tls": "starttls"}}))).await;
    world.caller.post(UNITARY, &execution("r-1", &campaign, &["jane@example.com"])).await.expect(202);
    let got = world.receiver.wait_for(1).await;
    assert_eq!(of(&got, "jane@example.com").event_status(), "delay");
    assert!(world.server.log().contains("TLS with the relay failed"), "it says why");
    assert!(!mail.sink.told().iter().any(is_mail));
    assert!(!mail.postfix.log().iter().any(|line| line.contains("client=")), "no transaction began");
}
