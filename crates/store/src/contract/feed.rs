//! Lookups: the feed, lists, filters.

use super::Bench;
use super::fixtures::{START, at, hard_bounce, is_not_found, page, plain, recipient};
use super::world::World;
use crate::lookup::{EventFilter, ExecutionFilter, Listed, MessageFilter, Page};
use crate::work::NewExecution;
use model::execution::Priority;
use model::ids::{CampaignId, MessageKey};
use model::message::MessageState;
use model::outcome::{FailureCategory, FeedbackStatus, Verdict};
use model::webhook::Channel;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinSet;

const WRITERS: usize = 8;
const MESSAGES: usize = 12;

pub async fn the_feed_has_no_gaps_under_concurrent_writers(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let at_work = Arc::new(AtomicUsize::new(WRITERS));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (world, at_work) = (world.clone(), Arc::clone(&at_work));
        writers.spawn(async move {
            for i in 0..MESSAGES {
                let message = world.message(&format!("{writer}-{i}")).await;
                world.record(message, hard_bounce(FailureCategory::Async)).await;
            }
            at_work.fetch_sub(1, Ordering::SeqCst);
        });
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let all_written = at_work.load(Ordering::SeqCst) == 0;
        let filter = EventFilter { after: Some(0), ..world.events() };
        let part = world.store.events(filter, Page { limit: 7, cursor: cursor.take() }).await.unwrap();
        if all_written && part.items.is_empty() {
            break;
        }
        seen.extend(part.items.iter().map(|view| view.sequence));
        assert!(part.next.is_some(), "a feed has always a next page");
        cursor = part.next;
    }
    writers.join_all().await;
    assert!(seen.is_sorted_by(|a, b| a < b));
    assert_eq!(seen.len(), WRITERS * MESSAGES * 2);
    // The number of the last event works as a place to go on from as well.
    let filter = EventFilter { after: Some(seen[3]), ..world.events() };
    let rest = world.store.events(filter, page(2)).await.unwrap();
    assert_eq!(rest.items.iter().map(|view| view.sequence).collect::<Vec<_>>(), seen[4..6]);
}

pub async fn the_newest_come_first_and_cursors_are_stable_under_writes(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let mut all = Vec::new();
    for i in 0..7 {
        let message = world.message(&format!("r{i}")).await;
        world.record(message, Verdict::Sent).await;
        all.insert(0, message);
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    let mut sizes = Vec::new();
    loop {
        let part = world.store.events(world.events(), Page { limit: 3, cursor }).await.unwrap();
        sizes.push(part.items.len());
        seen.extend(part.items.iter().map(|view| view.event.key.message));
        cursor = part.next;
        // New events come before the first page: they move nothing that is still to be seen.
        let message = world.message(&format!("new {}", seen.len())).await;
        world.record(message, Verdict::Sent).await;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((seen, sizes), (all, vec![3, 3, 1]));
    let bad = Page { limit: 3, cursor: Some("x".to_owned()) };
    assert!(is_not_found(world.store.events(world.events(), bad).await));
}

pub async fn executions_and_messages_page_from_the_newest_on(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let mut executions = Vec::new();
    for i in 0..5 {
        let recipients = vec![recipient("a"), recipient("b"), recipient("c")];
        let new = NewExecution { recipients, ..world.execution(&format!("r{i}")) };
        executions.insert(0, world.accept(new).await.id);
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let part = world.store.executions(world.messages(), Page { limit: 2, cursor }).await.unwrap();
        assert!(part.items.iter().all(|view| view.messages.len() == 3));
        seen.extend(part.items.iter().map(|view| view.facts.id));
        cursor = part.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, executions);
    let mut seen = Vec::new();
    loop {
        let part = world.store.messages(world.messages(), Page { limit: 4, cursor }).await.unwrap();
        seen.extend(part.items.iter().map(|view| view.key));
        cursor = part.next;
        if cursor.is_none() {
            break;
        }
    }
    let of = |execution| (0..3).map(move |ordinal| MessageKey { execution, ordinal });
    assert_eq!(seen, executions.into_iter().flat_map(of).collect::<Vec<_>>());
}

/// Three executions that differ in everything that can be asked for.
struct Varied {
    world: World,
    sms_campaign: CampaignId,
    first: MessageKey,
    second: MessageKey,
    third: MessageKey,
}

async fn varied(bench: &dyn Bench) -> Varied {
    let world = World::new(bench).await;
    let other_key = world.add_key("other", [2; 32]).await;
    let mut sms = world.clone();
    sms.channel = world.add_channel(Channel::Sms).await;
    sms.campaign = world.add_campaign(json!({"channel": "sms", "channelConfigurationId": sms.channel})).await;
    let first = world.message("r1").await;
    let second = world
        .accept(NewExecution {
            recipients: vec![recipient("joe")],
            created_by: "other".to_owned(),
            created_by_key: other_key.id,
            priority: Priority::HighThroughput,
            ..world.execution_at(at(10), "r2")
        })
        .await;
    let second = MessageKey { execution: second.id, ordinal: 0 };
    let third = sms.accept(sms.execution_at(at(20), "r1")).await;
    let third = MessageKey { execution: third.id, ordinal: 0 };
    world.record_at(first, START, plain(Verdict::Sent)).await;
    world.record_at(second, at(10), plain(hard_bounce(FailureCategory::Sync))).await;
    world.record_at(third, at(20), plain(Verdict::Sent)).await;
    Varied { sms_campaign: sms.campaign, world, first, second, third }
}

pub async fn events_are_filtered(bench: &dyn Bench) {
    let Varied { world, sms_campaign, first, second, third } = varied(bench).await;
    let any = || world.events();
    let joe = "joe@example.com".to_owned();
    let other = second_key(&world, second).await;
    let cases = [
        (any(), vec![third, second, first]),
        (EventFilter { request_id: Some("r1".to_owned()), ..any() }, vec![third, first]),
        (EventFilter { request_id: Some("r9".to_owned()), ..any() }, vec![]),
        (EventFilter { campaign: Some(sms_campaign), ..any() }, vec![third]),
        (EventFilter { execution_id: Some(second.execution), ..any() }, vec![second]),
        (EventFilter { recipient: Some(joe), ..any() }, vec![second]),
        (EventFilter { recipient: Some("u-jane".to_owned()), ..any() }, vec![third, first]),
        (EventFilter { recipient: Some("+390212345".to_owned()), ..any() }, vec![third]),
        (EventFilter { status: Some(FeedbackStatus::Bounce), ..any() }, vec![second]),
        (EventFilter { channel: Some(Channel::Email), ..any() }, vec![second, first]),
        (EventFilter { from: Some(at(10)), ..any() }, vec![third, second]),
        (EventFilter { to: Some(at(10)), ..any() }, vec![first]),
        (EventFilter { from: Some(at(1)), to: Some(at(20)), ..any() }, vec![second]),
        (EventFilter { created_by: Some(other), ..any() }, vec![second]),
        (EventFilter { created_by: Some(world.key.id), ..any() }, vec![third, first]),
        (EventFilter { after: Some(0), channel: Some(Channel::Email), ..any() }, vec![first, second]),
        (EventFilter { request_id: Some("r1".to_owned()), channel: Some(Channel::Sms), ..any() }, vec![third]),
    ];
    for (filter, wanted) in cases {
        let found = world.store.events(filter.clone(), page(10)).await.unwrap();
        let found: Vec<_> = found.items.iter().map(|view| view.event.key.message).collect();
        assert_eq!(found, wanted, "{filter:?}");
    }
}

async fn second_key(world: &World, second: MessageKey) -> model::ids::ApiKeyId {
    world.view(second).await.execution.created_by_key
}

/// The first message of each execution found.
async fn first_keys(world: &World, filter: MessageFilter) -> Vec<MessageKey> {
    let found = world.store.executions(filter, page(10)).await.unwrap();
    found.items.iter().map(|view| view.messages[0].key).collect()
}

pub async fn executions_and_messages_are_filtered(bench: &dyn Bench) {
    let Varied { world, sms_campaign, first, second, third } = varied(bench).await;
    let other = second_key(&world, second).await;
    let any = || world.executions();
    let cases = [
        (any(), vec![third, second, first]),
        (ExecutionFilter { request_id: Some("r1".to_owned()), ..any() }, vec![third, first]),
        (ExecutionFilter { campaign: Some(sms_campaign), ..any() }, vec![third]),
        (ExecutionFilter { from: Some(at(10)), ..any() }, vec![third, second]),
        (ExecutionFilter { to: Some(at(20)), ..any() }, vec![second, first]),
        (ExecutionFilter { created_by: Some(other), ..any() }, vec![second]),
    ];
    for (filter, wanted) in cases {
        let filter = MessageFilter { execution: filter, ..world.messages() };
        assert_eq!(first_keys(&world, filter.clone()).await, wanted, "{filter:?}");
        assert_eq!(keys(&world, filter).await, wanted);
    }
    let any = || world.messages();
    let cases = [
        (MessageFilter { execution_id: Some(second.execution), ..any() }, vec![second]),
        (MessageFilter { recipient: Some("jane@example.com".to_owned()), ..any() }, vec![first]),
        (MessageFilter { recipient: Some("u-jane".to_owned()), ..any() }, vec![third, first]),
        (MessageFilter { state: Some(MessageState::Bounced), ..any() }, vec![second]),
        (MessageFilter { channel: Some(Channel::Sms), ..any() }, vec![third]),
    ];
    for (filter, wanted) in cases {
        assert_eq!(first_keys(&world, filter.clone()).await, wanted, "{filter:?}");
        assert_eq!(keys(&world, filter).await, wanted);
    }
}

async fn keys(world: &World, filter: MessageFilter) -> Vec<MessageKey> {
    let found: Listed<_> = world.store.messages(filter, page(10)).await.unwrap();
    found.items.iter().map(|view| view.key).collect()
}

pub async fn a_foreign_sandbox_sees_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    let (id, message) = (due.event.key.id(), due.event.key.message);
    let other = world.beside("stage").await;
    let of = other.sandbox.id;
    assert!(is_not_found(other.store.execution(of, message.execution).await));
    assert!(is_not_found(other.store.message(of, message).await));
    assert!(is_not_found(other.store.event(of, id).await));
    assert!(is_not_found(other.store.attempts(of, id).await));
    assert!(is_not_found(other.store.retry_delivery(of, id, START, other.audit("delivery.retry")).await));
    assert!(is_not_found(other.store.cancel_delivery(of, id, START, other.audit("delivery.cancel")).await));
    assert!(!other.record(message, Verdict::Delivered).await.done);
    assert!(other.store.events(other.events(), page(10)).await.unwrap().items.is_empty());
    assert!(other.store.messages(other.messages(), page(10)).await.unwrap().items.is_empty());
    assert!(other.store.executions(other.messages(), page(10)).await.unwrap().items.is_empty());
    assert!(other.deliveries(None).await.is_empty() && other.due_deliveries(at(9)).await.deliveries.is_empty());
    assert_eq!(world.told(message).await, [FeedbackStatus::Sent]);
}
