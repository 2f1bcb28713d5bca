//! Administration.

use super::Bench;
use super::fixtures::{ACME, START, at, is_changed, is_not_found, new_organization, page};
use super::world::World;
use crate::admin::{Edit, NewOrganization};
use crate::lookup::Page;
use crate::{Conflict, Result, StoreError};
use model::tenancy::{ApiKey, Sandbox};
use model::webhook::Channel;
use serde_json::json;

fn is_taken<T>(result: Result<T>) -> bool {
    matches!(result, Err(StoreError::Conflict(Conflict::Taken(_))))
}

pub async fn organizations_and_sandboxes_are_unique_and_listed(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let store = &world.store;
    let again = NewOrganization { organization: new_organization(ACME), sandbox: None };
    assert!(is_taken(store.create_organization(again, world.audit("organization.create")).await));
    let beta = NewOrganization { organization: new_organization("beta@EsitoOrg"), sandbox: None };
    store.create_organization(beta, world.audit("organization.create")).await.unwrap();
    assert_eq!(store.organization("beta@EsitoOrg").await.unwrap(), new_organization("beta@EsitoOrg"));
    assert!(is_not_found(store.organization("gamma@EsitoOrg").await));
    let ids: Vec<_> = store.organizations(page(9)).await.unwrap().items.into_iter().map(|one| one.id).collect();
    assert_eq!(ids, [ACME, "beta@EsitoOrg"]);

    let twin = Sandbox { id: world.beside("stage").await.sandbox.id, ..world.sandbox.clone() };
    assert!(is_taken(store.create_sandbox(twin, world.audit("sandbox.create")).await));
    let homeless = Sandbox { ims_org: "gamma@EsitoOrg".to_owned(), ..world.sandbox.clone() };
    assert!(is_not_found(store.create_sandbox(homeless, world.audit("sandbox.create")).await));
    assert_eq!(store.sandbox(ACME, "prod").await.unwrap(), world.sandbox);
    assert!(is_not_found(store.sandbox("beta@EsitoOrg", "prod").await));
    let names: Vec<_> = store.sandboxes(ACME, page(9)).await.unwrap().items.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["prod", "stage"]);
}

pub async fn a_key_is_found_by_its_hash_until_it_is_revoked_or_ends(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let store = &world.store;
    let key = ApiKey {
        id: model::ids::ApiKeyId(world.campaign.0),
        sandboxes: Some(vec!["prod".to_owned()]),
        expires_at: Some(at(60)),
        ..world.key.clone()
    };
    store.create_api_key(key.clone(), [9; 32], world.audit("api-key.create")).await.unwrap();
    assert!(store.has_api_keys().await.unwrap());
    let found = store.find_api_key([9; 32]).await.unwrap().unwrap();
    assert_eq!(found, key);
    assert!(found.is_live(at(59)) && !found.is_live(at(60)));
    assert_eq!(store.find_api_key([8; 32]).await.unwrap(), None);

    let revoked = store.revoke_api_key(key.id, at(5), world.audit("api-key.revoke")).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(at(5)));
    let again = store.revoke_api_key(key.id, at(9), world.audit("api-key.revoke")).await.unwrap();
    assert_eq!(again.revoked_at, Some(at(5)));
    assert!(!store.find_api_key([9; 32]).await.unwrap().unwrap().is_live(at(6)));
    assert_eq!(store.api_key(key.id).await.unwrap().revoked_at, Some(at(5)));
    let unknown = model::ids::ApiKeyId(world.sandbox.id.0);
    assert!(is_not_found(store.revoke_api_key(unknown, at(5), world.audit("api-key.revoke")).await));
    let names: Vec<_> = store.api_keys(ACME, page(9)).await.unwrap().items.into_iter().map(|key| key.id).collect();
    assert!(names.len() == 2 && names.contains(&key.id) && names.contains(&world.key.id));
    assert!(store.api_keys("beta@EsitoOrg", page(9)).await.unwrap().items.is_empty());
}

pub async fn every_change_is_audited_and_a_failed_one_is_not(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let actions = || async {
        let log = world.store.audit_log(ACME, page(100)).await.unwrap().items;
        let mut actions: Vec<String> = log.into_iter().map(|entry| entry.action).collect();
        actions.sort();
        actions
    };
    let of_world = ["api-key.create", "campaign.create", "channel-configuration.create", "organization.create"];
    assert_eq!(actions().await, of_world);

    let webhook = world.add_webhook(json!({})).await;
    let due = world.delivery("r1").await;
    world.cancel(&due, START).await.unwrap();
    world.retry(&due, START).await.unwrap();
    let mut all: Vec<&str> = of_world.to_vec();
    all.extend(["feedback-webhook.create", "delivery.cancel", "delivery.retry"]);
    all.sort_unstable();
    assert_eq!(actions().await, all);

    // Each of these fails, at the latest possible point.
    let again = world.new_webhook(json!({}));
    assert!(world.store.create_webhook(again, world.audit("failed")).await.is_err());
    assert!(world.store.update_webhook(webhook, world.audit("failed")).await.is_err());
    let edit = Edit { sandbox: world.sandbox.id, id: world.channel, seen_revision: None };
    assert!(world.store.delete_channel(edit, world.audit("failed")).await.is_err());
    let edit = Edit { sandbox: world.sandbox.id, id: world.campaign, seen_revision: None };
    assert!(world.store.delete_campaign(edit, world.audit("failed")).await.is_err());
    let version_then_refusal = {
        let mut campaign = world.store.campaign(world.sandbox.id, world.campaign).await.unwrap();
        campaign.live = Some(world.version(json!({})));
        campaign
    };
    let version = version_then_refusal.live.as_ref().unwrap().id;
    assert!(is_changed(world.store.update_campaign(version_then_refusal, world.audit("failed")).await));
    assert!(is_not_found(world.store.campaign_version(version).await), "its version went with it");
    let taken = NewOrganization { organization: new_organization(ACME), sandbox: None };
    assert!(world.store.create_organization(taken, world.audit("failed")).await.is_err());
    assert_eq!(actions().await, all);

    // An entry that cannot be written undoes its change.
    let used = world.store.audit_log(ACME, page(1)).await.unwrap().items.remove(0);
    let other = Sandbox { id: model::ids::SandboxId(world.key.id.0), name: "new".to_owned(), ..world.sandbox.clone() };
    assert!(world.store.create_sandbox(other, used).await.is_err());
    assert!(is_not_found(world.store.sandbox(ACME, "new").await));
}

pub async fn lists_have_pages(bench: &dyn Bench) {
    let world = World::new(bench).await;
    for name in ["a", "b", "c", "d"] {
        let id = format!("{name}@EsitoOrg");
        let new = NewOrganization { organization: new_organization(&id), sandbox: None };
        world.store.create_organization(new, world.audit("organization.create")).await.unwrap();
        world.add_channel(Channel::Email).await;
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let part = world.store.organizations(Page { limit: 2, cursor }).await.unwrap();
        seen.extend(part.items.into_iter().map(|one| one.id));
        cursor = part.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a@EsitoOrg", ACME, "b@EsitoOrg", "c@EsitoOrg", "d@EsitoOrg"]);
    let mut channels = Vec::new();
    loop {
        let part = world.store.channels(world.sandbox.id, Page { limit: 2, cursor }).await.unwrap();
        channels.extend(part.items.into_iter().map(|one| one.id));
        cursor = part.next;
        if cursor.is_none() {
            break;
        }
    }
    assert!(channels.len() == 5 && channels.is_sorted_by(|a, b| a < b));
    // The audit log begins with the newest.
    let first = world.store.audit_log(ACME, page(3)).await.unwrap();
    let second = world.store.audit_log(ACME, Page { limit: 100, cursor: first.next }).await.unwrap();
    let ids: Vec<_> = first.items.into_iter().chain(second.items).map(|entry| entry.id).collect();
    assert!(ids.is_sorted_by(|a, b| a > b));
    assert!(ids.len() > 8 && second.next.is_none());
}
