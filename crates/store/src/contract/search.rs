//! Searches for a recipient: they find the same, whatever of it is in the index by now.

use super::Bench;
use super::fixtures::{START, at, page, plain, recipient};
use super::world::World;
use crate::lookup::{DeliveryFilter, EventFilter, Listed, MessageFilter, Page};
use crate::shared::searching::RUN;
use crate::work::{NewExecution, RetainStep, RetainWhat};
use model::ids::{ExecutionId, MessageKey};
use model::outcome::Verdict;
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Long after everything was accepted.
pub const LATER: u64 = 1_000_000;

impl World {
    /// Executions with enough messages to others for a run.
    pub async fn crowd(&self, name: &str) -> Vec<MessageKey> {
        let executions = (0..RUN.div_ceil(250)).map(|n| {
            let mut execution = self.execution(&format!("{name}-{n}"));
            execution.recipients = (0..250).map(|i| recipient(&format!("{name}-{n}-{i}"))).collect();
            execution
        });
        let ids = self.accept_all(executions.collect()).await;
        ids.into_iter().flat_map(|id| (0..250).map(move |ordinal| MessageKey { execution: id, ordinal })).collect()
    }

    /// Takes all at the same time; their ids in order.
    async fn accept_all(&self, executions: Vec<NewExecution>) -> Vec<ExecutionId> {
        let mut accepting = JoinSet::new();
        for execution in executions {
            let store = Arc::clone(&self.store);
            accepting.spawn(async move { store.accept(execution).await.unwrap().unwrap().id });
        }
        let mut ids = accepting.join_all().await;
        ids.sort_unstable();
        ids
    }

    pub async fn index(&self) -> usize {
        let mut steps = 0;
        while self.store.index_step(at(LATER)).await.unwrap() {
            steps += 1;
        }
        steps
    }

    async fn executions_to(&self, text: &str) -> Vec<ExecutionId> {
        let filter = MessageFilter { recipient: Some(text.to_owned()), ..self.messages() };
        let found = all(async |page| self.store.executions(filter.clone(), page).await.unwrap()).await;
        found.into_iter().map(|execution| execution.facts.id).collect()
    }

    pub async fn messages_to(&self, text: &str) -> Vec<MessageKey> {
        let filter = MessageFilter { recipient: Some(text.to_owned()), ..self.messages() };
        let found = all(async |page| self.store.messages(filter.clone(), page).await.unwrap()).await;
        found.into_iter().map(|message| message.key).collect()
    }

    fn events_about(&self, text: &str) -> EventFilter {
        EventFilter { recipient: Some(text.to_owned()), ..self.events() }
    }

    async fn events_to(&self, text: &str) -> Vec<i64> {
        let filter = self.events_about(text);
        let found = all(async |page| self.store.events(filter.clone(), page).await.unwrap()).await;
        let filter = DeliveryFilter { event: filter, state: None };
        let deliveries = all(async |page| self.store.deliveries(filter.clone(), page).await.unwrap()).await;
        let found: Vec<i64> = found.into_iter().map(|event| event.sequence).collect();
        assert_eq!(deliveries.into_iter().map(|event| event.sequence).collect::<Vec<_>>(), found);
        let feed =
            self.store.events(EventFilter { after: Some(0), ..self.events_about(text) }, page(40)).await.unwrap();
        assert_eq!(feed.items.into_iter().rev().map(|event| event.sequence).collect::<Vec<_>>(), found);
        found
    }

    /// Whether the rare recipient is found by all lists, by its address and by its id.
    async fn expect_rare(&self, name: &str, expected: &[MessageKey], events: &[i64]) {
        for text in [format!("{name}@example.com"), format!("u-{name}")] {
            assert_eq!(self.messages_to(&text).await, expected);
            let executions: Vec<ExecutionId> = expected.iter().map(|key| key.execution).collect();
            assert_eq!(self.executions_to(&text).await, executions);
            assert_eq!(self.events_to(&text).await, events);
        }
    }
}

/// All pages of a list.
async fn all<T>(list: impl AsyncFn(Page) -> Listed<T>) -> Vec<T> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let listed = list(Page { limit: 40, cursor }).await;
        all.extend(listed.items);
        cursor = listed.next;
        if cursor.is_none() {
            return all;
        }
    }
}

pub async fn a_rare_recipient_is_found_whatever_is_indexed(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let beside = world.beside("beside").await;
    let (early, later) = (world.execution("early"), world.execution("late-1"));
    let to_rare = |mut execution: NewExecution| {
        execution.recipients = ["joe", "rare"].map(recipient).into();
        execution
    };
    let rare = |id| MessageKey { execution: id, ordinal: 1 };
    let first = rare(world.accept(to_rare(early)).await.id);
    let mut crowd = world.crowd("one").await;
    crowd.extend(world.crowd("two").await);
    let second = rare(world.accept(to_rare(world.execution("second"))).await.id);
    let mut events: Vec<i64> = Vec::new();
    let sent = |key: &MessageKey| world.record_of(*key, START, plain(Verdict::Sent));
    events.extend(world.record(first, Verdict::Sent).await.due.iter().map(|due| due.sequence));
    for some in crowd.chunks(1_000) {
        world.store.record(some.iter().map(sent).collect()).await.unwrap();
    }
    events.extend(world.record(second, Verdict::Sent).await.due.iter().map(|due| due.sequence));
    events.reverse();
    world.expect_rare("rare", &[second, first], &events).await;
    // On one page, though there are more messages and events between than one window has.
    let listed = world.store.events(world.events_about("u-rare"), page(10)).await.unwrap();
    assert_eq!((listed.items.len(), listed.next), (2, None));
    assert!(!world.store.index_step(at(0)).await.unwrap(), "what has just been accepted may not be all there is");
    assert_eq!(world.index().await, 2);
    world.expect_rare("rare", &[second, first], &events).await;
    // At once, however much lies between.
    let filter = MessageFilter { recipient: Some("u-rare".to_owned()), ..world.messages() };
    let listed = world.store.messages(filter, page(10)).await.unwrap();
    assert_eq!((listed.items.len(), listed.next), (2, None));
    // Accepted when a run had gone past its number.
    let late = rare(world.accept(to_rare(later)).await.id);
    let newest = rare(world.accept(to_rare(world.execution("newest"))).await.id);
    world.expect_rare("rare", &[newest, second, late, first], &events).await;
    assert!(beside.messages_to("u-rare").await.is_empty());
    let world = world.reopen(bench).await;
    world.expect_rare("rare", &[newest, second, late, first], &events).await;
    world.crowd("three").await;
    assert_eq!(world.index().await, 1);
    world.expect_rare("rare", &[newest, second, late, first], &events).await;
    for text in ["nobody", "RARE", "a\0b"] {
        world.expect_rare(text, &[], &[]).await;
    }
    world.store.begin_index_anew(world.sandbox.id).await.unwrap();
    world.expect_rare("rare", &[newest, second, late, first], &events).await;
    assert_eq!(world.index().await, 3);
    world.expect_rare("rare", &[newest, second, late, first], &events).await;
}

pub async fn a_frequent_recipient_is_listed_to_the_end(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let executions = (0..520).map(|n| {
        let mut execution = world.execution(&format!("often-{n}"));
        execution.recipients = (0..30).map(|i| recipient(&format!("{n}-{i}"))).collect();
        execution.recipients.push(recipient("often"));
        execution
    });
    let mut ids = world.accept_all(executions.collect()).await;
    ids.reverse();
    for _ in 0..2 {
        assert_eq!(world.executions_to("u-often").await, ids);
        let messages = world.messages_to("often@example.com").await;
        assert_eq!(messages.into_iter().map(|key| key.execution).collect::<Vec<_>>(), ids);
        world.index().await;
    }
}

pub async fn what_is_accepted_while_a_run_is_made_is_found(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let early: Vec<_> = (0..20).map(|n| world.execution(&format!("early-{n}"))).collect();
    world.crowd("one").await;
    let between: Vec<_> = (0..20).map(|n| world.execution(&format!("between-{n}"))).collect();
    world.crowd("two").await;
    let racers: Vec<_> = early.into_iter().chain(between).collect();
    let keys: Vec<MessageKey> = racers.iter().rev().map(|new| MessageKey { execution: new.id, ordinal: 0 }).collect();
    let accepting = async {
        for some in racers.chunks(4) {
            world.accept_all(some.to_vec()).await;
        }
    };
    tokio::join!(accepting, world.index());
    assert_eq!(world.messages_to("u-jane").await, keys);
}

pub async fn what_was_erased_or_is_old_is_not_found(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let mut execution = world.execution("rare");
    execution.recipients = ["jane", "joe"].map(recipient).into();
    let id = world.accept(execution).await.id;
    let [jane, joe] = [0, 1].map(|ordinal| MessageKey { execution: id, ordinal });
    let crowd = world.crowd("one").await;
    assert_eq!(world.index().await, 1);
    let entries = bench.count("search_entry").await;
    assert!(entries >= 2 * RUN as u64);
    world.erase_wholly("jane@example.com").await;
    assert!(world.store.message(world.sandbox.id, jane).await.is_err());
    assert!(world.messages_to("jane@example.com").await.is_empty());
    assert_eq!(world.messages_to("joe@example.com").await, [joe]);
    assert_eq!(bench.count("search_entry").await, entries - 2);
    let sent = |key| world.record_of(key, START, plain(Verdict::Sent));
    for some in std::iter::once(joe).chain(crowd).collect::<Vec<_>>().chunks(1_000) {
        let recorded = world.store.record(some.iter().copied().map(sent).collect()).await.unwrap();
        assert!(recorded.iter().all(|recorded| recorded.done));
    }
    let step = |after| RetainStep {
        sandbox: world.sandbox.id,
        what: RetainWhat::Executions,
        before: at(LATER),
        after,
        most: 2_000,
    };
    let (mut next, mut left) = (Some(0), entries - 2);
    while let Some(after) = next {
        let retained = world.store.retain(step(after)).await.unwrap();
        next = retained.next;
        left -= 2 * retained.deleted.messages;
        assert_eq!(bench.count("search_entry").await, left, "what is entered goes with its message");
    }
    assert!(world.messages_to("joe@example.com").await.is_empty());
    assert_eq!((bench.count("search_entry").await, bench.count("search_run").await), (0, 0));
    let again = world.message("again").await;
    assert_eq!(world.messages_to("jane@example.com").await, [again]);
}
