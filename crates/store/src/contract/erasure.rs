//! Erasures: everything of one address goes, whatever its state, and nothing of anybody else.

use super::Bench;
use super::fixtures::{ACME, START, at, hard_bounce, is_not_found, new_organization, new_sandbox, page, recipient};
use super::world::World;
use crate::admin::NewOrganization;
use crate::work::NewErasure;
use model::clock::Timestamp;
use model::delivery::AttemptDecision;
use model::erasure::{Erased, Erasure, ErasureState};
use model::ids::{ErasureId, MessageKey};
use model::outcome::{FailureCategory, Verdict};
use serde_json::json;
use std::time::Duration;

/// Later than all that the cases accept.
const ASKED: Timestamp = Timestamp(START.0 + 1_000_000);

impl World {
    async fn erase(&self, address: &str) -> ErasureId {
        let later = u64::try_from(self.execution("none").id.number()).unwrap();
        let id = ErasureId(uuid::Uuid::from_u64_pair(later, 0));
        let new = NewErasure {
            id,
            ims_org: ACME.to_owned(),
            address: address.to_owned(),
            now: ASKED,
            created_by: "ops".to_owned(),
        };
        let made = self.store.create_erasure(new, self.audit("erasure.create")).await.unwrap();
        assert_eq!((made.state, made.erased), (ErasureState::Running, Erased::default()));
        id
    }

    /// Steps until it is over.
    pub async fn erase_wholly(&self, address: &str) -> Erasure {
        let id = self.erase(address).await;
        while self.store.erase_step(id, at(2_000)).await.unwrap().running {}
        let done = self.store.erasure(ACME, id).await.unwrap();
        assert_eq!((done.state, done.completed_at), (ErasureState::Completed, Some(at(2_000))));
        assert!(self.store.running_erasures().await.unwrap().is_empty());
        done
    }

    /// The messages of an execution for these people.
    async fn to(&self, request_id: &str, names: &[&str]) -> Vec<MessageKey> {
        let mut execution = self.execution(request_id);
        execution.recipients = names.iter().map(|name| recipient(name)).collect();
        let id = self.accept(execution).await.id;
        (0..names.len()).map(|i| MessageKey { execution: id, ordinal: u8::try_from(i).unwrap() }).collect()
    }
}

pub async fn all_of_an_address_goes_and_nothing_else(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    // Alone and among others; sent and bounced; waiting; tried in vain.
    let alone = world.to("alone", &["jane"]).await[0];
    let due = world.record(alone, hard_bounce(FailureCategory::Sync)).await.due.remove(0);
    world.finish(&due, at(1), AttemptDecision::RetryAt(at(2))).await;
    let among = world.to("among", &["joe", "jane", "jim"]).await;
    for key in &among {
        let due = world.record(*key, Verdict::Sent).await.due.remove(0);
        world.finish(&due, at(1), AttemptDecision::Succeeded).await;
        let bounced = world.record(*key, hard_bounce(FailureCategory::Async)).await.due.remove(0);
        world.finish(&bounced, at(1), AttemptDecision::Exhausted).await;
    }
    let waiting = world.to("waiting", &["jane", "joe"]).await;
    let done = world.erase_wholly("JANE@Example.com").await;
    assert_eq!(done.erased, Erased { executions: 1, messages: 3, feedback_events: 3, attempts: 2 });
    for key in [alone, among[1], waiting[0]] {
        assert!(is_not_found(world.store.message(world.sandbox.id, key).await));
    }
    assert!(is_not_found(world.store.execution(world.sandbox.id, alone.execution).await));
    let left = world.store.execution(world.sandbox.id, among[0].execution).await.unwrap();
    assert_eq!(left.messages.iter().map(|message| message.key).collect::<Vec<_>>(), [among[0], among[2]]);
    assert!(left.messages.iter().all(|message| message.events.len() == 2));
    let due = world.due_messages(at(99)).await.messages;
    assert_eq!(due.iter().map(|message| message.key).collect::<Vec<_>>(), [waiting[1]], "nobody is mailed who is gone");
    assert!(world.due_deliveries(at(99)).await.deliveries.is_empty());
    let mut feed = world.events();
    feed.after = Some(0);
    assert_eq!(world.store.events(feed, page(100)).await.unwrap().items.len(), 4);
    let contents = bench.contents().await;
    let lower = contents.to_ascii_lowercase();
    assert!(!super::contains(&lower, "jane@example.com") && super::contains(&lower, "joe@example.com"));
}

pub async fn what_was_under_way_changes_nothing_any_more(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let queued = world.to("queued", &["jane", "joe"]).await[0];
    let handed_over = world.to("handed-over", &["jane", "joe"]).await[0];
    let marked = world.store.hand_over(world.lease, vec![(world.sandbox.id, handed_over)]).await.unwrap();
    assert_eq!(marked, [true]);
    let posting = world.to("posting", &["jane", "joe"]).await[0];
    let due = world.record(posting, Verdict::Sent).await.due.remove(0);
    world.erase_wholly("jane@example.com").await;
    let marked = world.store.hand_over(world.lease, vec![(world.sandbox.id, queued)]).await.unwrap();
    assert_eq!(marked, [false], "it is not sent any more");
    assert!(!world.record(handed_over, Verdict::Sent).await.done);
    assert!(!world.finish(&due, at(1), AttemptDecision::Succeeded).await.done);
    let mut feed = world.events();
    feed.after = Some(0);
    assert!(world.store.events(feed, page(100)).await.unwrap().items.is_empty());
    // The others' work goes on.
    let joe = MessageKey { ordinal: 1, ..posting };
    assert!(world.record(joe, Verdict::Sent).await.done);
}

pub async fn an_erasure_is_of_one_organization_and_of_the_time_before(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let here = world.to("here", &["jane", "joe"]).await[0];
    let stage = world.beside("stage").await;
    let there = stage.to("there", &["jane"]).await[0];
    let entropy = super::fixtures::Seeded::default();
    let mut other = world.clone();
    other.sandbox = new_sandbox(&entropy, "prod");
    other.sandbox.ims_org = "beta@EsitoOrg".to_owned();
    other.sandbox.id.0 = uuid::Uuid::from_u128(77);
    let organization = new_organization("beta@EsitoOrg");
    let new = NewOrganization { organization, sandbox: Some(other.sandbox.clone()) };
    world.store.create_organization(new, world.audit("organization.create")).await.unwrap();
    other.channel = other.add_channel(model::webhook::Channel::Email).await;
    other.campaign = other.add_campaign(json!({})).await;
    let foreign = other.to("foreign", &["jane"]).await[0];
    let id = world.erase("jane@example.com").await;
    let mut later = world.execution_at(ASKED + Duration::from_secs(1), "later");
    later.recipients = vec![recipient("jane")];
    let later = MessageKey { execution: world.accept(later).await.id, ordinal: 0 };
    while world.store.erase_step(id, at(2_000)).await.unwrap().running {}
    assert!(is_not_found(world.store.message(world.sandbox.id, here).await));
    assert!(is_not_found(stage.store.message(stage.sandbox.id, there).await));
    assert!(other.store.message(other.sandbox.id, foreign).await.is_ok());
    assert!(world.store.message(world.sandbox.id, later).await.is_ok());
    assert!(is_not_found(world.store.erasure("beta@EsitoOrg", id).await));
    assert!(world.store.erasures("beta@EsitoOrg", page(9)).await.unwrap().items.is_empty());
}

pub async fn an_erasure_broken_off_goes_on(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    // More than one step takes.
    for i in 0..30 {
        world.to(&format!("r{i}"), &["jane"; 10].map(|name| name)).await;
    }
    let id = world.erase("jane@example.com").await;
    let (mut steps, mut touched) = (0, 0);
    while world
        .store
        .erase_step(id, at(2_000))
        .await
        .map(|stepped| {
            touched += usize::from(stepped.touched.is_some());
            stepped.running
        })
        .unwrap()
    {
        steps += 1;
        world = world.reopen(bench).await;
        if steps == 1 {
            let seen = world.store.erasure(ACME, id).await.unwrap();
            assert_eq!((seen.state, seen.completed_at), (ErasureState::Running, None));
        }
    }
    let done = world.store.erasure(ACME, id).await.unwrap();
    assert_eq!((done.erased.messages, done.erased.executions), (300, 30));
    assert!(steps >= 2 && touched >= 2, "{steps} steps");
    let again = world.store.erase_step(id, at(3_000)).await.unwrap();
    assert!(!again.running && again.touched.is_none());
    assert!(world.store.messages(world.messages(), page(9)).await.unwrap().items.is_empty());
}

pub async fn a_receipt_tells_who_it_was_about_to_those_who_know(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let first = world.erase_wholly("jane@example.com").await;
    let second = world.erase_wholly("Jane@EXAMPLE.com").await;
    let other = world.erase_wholly("joe@example.com").await;
    assert_eq!(first.address_digest, second.address_digest);
    assert_ne!(first.address_digest, other.address_digest);
    assert_eq!((first.address_digest.len(), first.created_by.as_str()), (64, "ops"));
    let listed = world.store.erasures(ACME, page(2)).await.unwrap();
    assert_eq!(listed.items, [other, second], "the newest first");
    let rest = world.store.erasures(ACME, crate::lookup::Page { limit: 2, cursor: listed.next }).await.unwrap();
    assert_eq!(rest.items, [first]);
    let contents = bench.contents().await;
    assert!(!super::contains(&contents, "jane@example.com") && !super::contains(&contents, "joe@example.com"));
}
