//! Ownership of shards.

use super::Bench;
use super::fixtures::{START, all_shards, at, plain, retry_at};
use super::world::World;
use crate::work::{Finish, Lease, Record};
use model::delivery::{AttemptDecision, DeliveryState};
use model::ids::{SHARDS, Shard};
use model::message::MessageState;
use model::outcome::Verdict;
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;
use tokio::task::JoinSet;

const LEASE: Duration = Duration::from_secs(30);

pub async fn eight_owners_race_and_each_shard_has_one(bench: &dyn Bench) {
    let world = World::new(bench).await;
    // The world's own owner has gone.
    let late = at(60);
    let mut race = JoinSet::new();
    for first in 0..8 {
        let (store, owner) = (world.store.clone(), world.new_owner());
        race.spawn(async move {
            // Each begins elsewhere and asks in small portions, so that all get some.
            let mut shards = all_shards();
            shards.rotate_left(first * 32);
            let mut held = Vec::new();
            for portion in shards.chunks(16) {
                held = store.claim_shards(owner, portion.to_vec(), late, LEASE).await.unwrap();
                tokio::task::yield_now().await;
            }
            held
        });
    }
    let held = race.join_all().await;
    let shards: Vec<Shard> = held.iter().flatten().map(|lease| lease.shard).collect();
    assert_eq!(shards.len(), usize::from(SHARDS));
    assert_eq!(shards.iter().collect::<HashSet<_>>().len(), usize::from(SHARDS));
    assert!(held.iter().flatten().all(|lease| lease.epoch == world.lease.epoch + 1 && lease.until == late + LEASE));
}

pub async fn a_lease_that_ends_is_taken_over_with_a_higher_epoch(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let other = world.new_owner();
    let wanted = vec![world.lease.shard];
    let early = world.store.claim_shards(other, wanted.clone(), at(29), LEASE).await.unwrap();
    assert_eq!(early, []);
    let taken = world.store.claim_shards(other, wanted, at(30), LEASE).await.unwrap();
    let lease = Lease { shard: world.lease.shard, epoch: world.lease.epoch + 1, until: at(60) };
    assert_eq!(taken, [lease]);
    // The first keeps the others.
    let kept = world.store.claim_shards(world.owner, vec![], at(31), LEASE).await.unwrap();
    assert_eq!(kept.len(), usize::from(SHARDS) - 1);
    assert!(kept.iter().all(|lease| lease.shard != world.lease.shard));
}

pub async fn a_renewed_lease_is_not_taken_over(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let renewed = world.store.claim_shards(world.owner, vec![], at(20), LEASE).await.unwrap();
    assert_eq!(renewed.len(), usize::from(SHARDS));
    assert!(renewed.iter().all(|lease| lease.until == at(50) && lease.epoch == 1));
    let other = world.store.claim_shards(world.new_owner(), all_shards(), at(40), LEASE).await.unwrap();
    assert_eq!(other, []);
    // Late, but nobody was faster: it keeps the epoch, and what it has under way stays good.
    let renewed = world.store.claim_shards(world.owner, all_shards(), at(90), LEASE).await.unwrap();
    assert!(renewed.iter().all(|lease| lease.epoch == 1));
}

pub async fn an_owner_frozen_past_its_lease_changes_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.delivery("r0").await;
    let (waits, handed) = (world.message("r1").await, world.message("r2").await);
    let of = world.sandbox.id;
    assert_eq!(world.store.hand_over(world.lease, vec![(of, handed)]).await.unwrap(), [true]);
    let lease = world.store.claim_shards(world.new_owner(), all_shards(), at(30), LEASE).await.unwrap();
    let lease = *lease.iter().find(|lease| lease.shard == world.lease.shard).unwrap();

    let frozen = Some(world.lease);
    assert_eq!(world.store.hand_over(world.lease, vec![(of, waits)]).await.unwrap(), [false]);
    let records = [plain(Verdict::Sent), retry_at(at(40))];
    let records = records.map(|what| Record { lease: frozen, ..world.record_of(handed, at(31), what) });
    let recorded = world.store.record(records.to_vec()).await.unwrap();
    assert!(recorded.iter().all(|recorded| !recorded.done && recorded.due.is_empty()));
    for decision in [AttemptDecision::Succeeded, AttemptDecision::RetryAt(at(40)), AttemptDecision::Gone] {
        let finished = world.finish(&due, at(31), decision).await;
        assert!(!finished.done && !finished.webhook_changed);
    }
    assert_eq!(world.view(waits).await.state, MessageState::Queued);
    assert_eq!(world.view(handed).await.state, MessageState::HandingOver);
    assert!(world.view(handed).await.events.is_empty());
    assert_eq!(world.state(&due).await, DeliveryState::Pending);
    assert!(world.store.attempts(of, due.event.key.id()).await.unwrap().is_empty());

    // What needs no lease still goes, and so does the new owner.
    assert!(world.record(waits, Verdict::Sent).await.done);
    let record = Record { lease: Some(lease), ..world.record_of(handed, at(32), plain(Verdict::Sent)) };
    assert!(world.store.record(vec![record]).await.unwrap()[0].done);
    let finish = Finish { lease, ..world.finish_of(&due, at(32), AttemptDecision::Succeeded) };
    assert!(world.finish_this(finish).await.done);
}

pub async fn a_lease_holds_for_its_own_shard_only(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    let elsewhere = Lease { shard: Shard((world.lease.shard.0 + 1) % SHARDS), ..world.lease };
    let ahead = Lease { epoch: world.lease.epoch + 1, ..world.lease };
    for lease in [elsewhere, ahead] {
        let of = (world.sandbox.id, message);
        assert_eq!(world.store.hand_over(lease, vec![of]).await.unwrap(), [false]);
        let record = Record { lease: Some(lease), ..world.record_of(message, START, plain(Verdict::Sent)) };
        assert!(!world.store.record(vec![record]).await.unwrap()[0].done);
    }
}

pub async fn released_shards_are_free(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let other = world.new_owner();
    world.store.release_shards(other).await.unwrap();
    assert_eq!(world.store.claim_shards(other, all_shards(), at(1), LEASE).await.unwrap(), []);
    world.store.release_shards(world.owner).await.unwrap();
    let taken = world.store.claim_shards(other, all_shards(), at(1), LEASE).await.unwrap();
    assert_eq!(taken.len(), usize::from(SHARDS));
    assert!(taken.iter().all(|lease| lease.epoch == 2));
    assert_eq!(world.store.claim_shards(world.owner, vec![], at(2), LEASE).await.unwrap(), []);
}

pub async fn a_reopen_frees_the_shards_and_raises_their_epochs(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    let before = world.lease;
    // Without waiting for the end of the former lease.
    let world = world.reopen(bench).await;
    assert_eq!(world.lease.epoch, before.epoch + 1);
    let of = (world.sandbox.id, message);
    assert_eq!(world.store.hand_over(before, vec![of]).await.unwrap(), [false]);
    assert_eq!(world.store.hand_over(world.lease, vec![of]).await.unwrap(), [true]);
    let held = world.store.claim_shards(world.owner, vec![], at(1), LEASE).await.unwrap();
    assert_eq!(held.len(), usize::from(SHARDS));
}
