//! Webhooks, channel configurations and campaigns.

use super::Bench;
use super::fixtures::{START, at, is_changed, is_not_found, is_state_conflict, page};
use super::world::World;
use crate::admin::Edit;
use crate::{Conflict, Result, StoreError};
use model::campaign::CampaignStatus;
use model::webhook::Channel;
use serde_json::json;
use tokio::task::JoinSet;

fn first_of(result: Result<()>) -> Option<(model::ids::WebhookId, String)> {
    match result {
        Err(StoreError::Conflict(Conflict::WebhookExists { id, name })) => Some((id, name)),
        _ => None,
    }
}

pub async fn a_sandbox_has_one_webhook(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let first = world.add_webhook(json!({})).await;
    let second = world.new_webhook(json!({"name": "second"}));
    let refused = world.store.create_webhook(second, world.audit("feedback-webhook.create")).await;
    assert_eq!(first_of(refused), Some((first.id, "crm".to_owned())));
    let other = world.beside("stage").await;
    other.add_webhook(json!({})).await;
    let both = world.store.webhooks(vec![world.sandbox.id, other.sandbox.id], page(9)).await.unwrap();
    assert_eq!(both.items.len(), 2);
    assert_eq!(both.items.iter().filter(|webhook| webhook.sandbox.name == "stage").count(), 1);
    assert!(world.store.webhooks(vec![], page(9)).await.unwrap().items.is_empty());
}

pub async fn twenty_concurrent_creates_make_one_webhook(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let mut race = JoinSet::new();
    for i in 0..20 {
        let (store, audit) = (world.store.clone(), world.audit("feedback-webhook.create"));
        let webhook = world.new_webhook(json!({"name": format!("number {i}")}));
        race.spawn(async move { (webhook.id, store.create_webhook(webhook, audit).await) });
    }
    let answers = race.join_all().await;
    let winner = world.webhook().await;
    assert_eq!(answers.iter().filter(|(_, answer)| answer.is_ok()).count(), 1);
    for (id, answer) in answers {
        let first = Some((winner.id, winner.settings.name.clone()));
        assert!(if id == winner.id { answer.is_ok() } else { first_of(answer) == first });
    }
}

pub async fn an_edit_of_an_older_revision_is_refused(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let store = &world.store;
    let mut webhook = world.add_webhook(json!({})).await;
    webhook.settings.name = "renamed".to_owned();
    webhook.stamps.touch(at(1), "ops");
    store.update_webhook(webhook.clone(), world.audit("feedback-webhook.update")).await.unwrap();
    assert!(is_changed(store.update_webhook(webhook.clone(), world.audit("feedback-webhook.update")).await));
    let read = world.webhook().await;
    assert_eq!((read.stamps.revision, read.settings.name.as_str()), (2, "renamed"));
    assert_eq!((read.stamps.modified_at, read.stamps.created_at), (at(1), START));
    let stale = Edit { sandbox: world.sandbox.id, id: webhook.id, seen_revision: Some(1) };
    assert!(is_changed(store.delete_webhook(stale, at(2), world.audit("feedback-webhook.delete")).await));

    let mut channel = store.channel(world.sandbox.id, world.channel).await.unwrap();
    channel.paused = true;
    channel.stamps.touch(at(1), "ops");
    store.update_channel(channel.clone(), world.audit("channel-configuration.pause")).await.unwrap();
    assert!(is_changed(store.update_channel(channel, world.audit("channel-configuration.pause")).await));
    let read = store.channel(world.sandbox.id, world.channel).await.unwrap();
    assert!(read.paused && read.stamps.revision == 2);

    let mut campaign = store.campaign(world.sandbox.id, world.campaign).await.unwrap();
    campaign.stamps.touch(at(1), "ops");
    store.update_campaign(campaign.clone(), world.audit("campaign.update")).await.unwrap();
    assert!(is_changed(store.update_campaign(campaign, world.audit("campaign.update")).await));
    let draft = world.new_campaign(CampaignStatus::Draft, json!({}));
    store.create_campaign(draft.clone(), world.audit("campaign.create")).await.unwrap();
    let stale = Edit { sandbox: world.sandbox.id, id: draft.id, seen_revision: Some(7) };
    assert!(is_changed(store.delete_campaign(stale, world.audit("campaign.delete")).await));
    let spare = world.add_channel(Channel::Email).await;
    let stale = Edit { sandbox: world.sandbox.id, id: spare, seen_revision: Some(7) };
    assert!(is_changed(store.delete_channel(stale, world.audit("channel-configuration.delete")).await));
}

pub async fn a_foreign_sandbox_finds_no_resource(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let other = world.beside("stage").await;
    let (store, of) = (&world.store, other.sandbox.id);
    let mut webhook = world.add_webhook(json!({})).await;
    assert!(is_not_found(store.webhook(of, webhook.id).await));
    let edit = Edit { sandbox: of, id: webhook.id, seen_revision: None };
    assert!(is_not_found(store.delete_webhook(edit, START, world.audit("feedback-webhook.delete")).await));
    webhook.sandbox.id = of;
    webhook.stamps.touch(START, "ops");
    assert!(is_not_found(store.update_webhook(webhook, world.audit("feedback-webhook.update")).await));

    assert!(is_not_found(store.channel(of, world.channel).await));
    let edit = Edit { sandbox: of, id: world.channel, seen_revision: None };
    assert!(is_not_found(store.delete_channel(edit, world.audit("channel-configuration.delete")).await));
    let mut channel = store.any_channel(world.channel).await.unwrap();
    assert_eq!(channel.sandbox, world.sandbox.id);
    channel.sandbox = of;
    channel.stamps.touch(START, "ops");
    assert!(is_not_found(store.update_channel(channel, world.audit("channel-configuration.update")).await));

    assert!(is_not_found(store.campaign(of, world.campaign).await));
    assert!(is_not_found(store.campaign_versions(of, world.campaign, page(9)).await));
    let edit = Edit { sandbox: of, id: world.campaign, seen_revision: None };
    assert!(is_not_found(store.delete_campaign(edit, world.audit("campaign.delete")).await));
    let mut campaign = store.campaign(world.sandbox.id, world.campaign).await.unwrap();
    campaign.sandbox = of;
    campaign.stamps.touch(START, "ops");
    assert!(is_not_found(store.update_campaign(campaign, world.audit("campaign.update")).await));
    // Nor can a campaign send through a foreign channel configuration.
    let through = json!({"channelConfigurationId": other.channel});
    let campaign = world.new_campaign(CampaignStatus::Live, through);
    assert!(is_not_found(store.create_campaign(campaign, world.audit("campaign.create")).await));

    for list in [
        store.channels(of, page(9)).await.unwrap().items.len(),
        store.campaigns(of, page(9)).await.unwrap().items.len(),
    ] {
        assert_eq!(list, 1);
    }
    assert_eq!(store.campaign(world.sandbox.id, world.campaign).await.unwrap().stamps.revision, 1);
}

pub async fn a_channel_configuration_in_use_stays(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    let delete = |world: &World| {
        let edit = Edit { sandbox: world.sandbox.id, id: world.channel, seen_revision: None };
        let (store, audit) = (world.store.clone(), world.audit("channel-configuration.delete"));
        async move { store.delete_channel(edit, audit).await }
    };
    let in_use = |result| matches!(result, Err(StoreError::Conflict(Conflict::InUse(_))));
    assert!(in_use(delete(&world).await), "a live version sends through it");
    world.stop_campaign().await;
    assert!(in_use(delete(&world).await), "messages may still wait to be sent");
    world.channel = world.add_channel(Channel::Email).await;
    let draft = world.new_campaign(CampaignStatus::Draft, json!({}));
    world.store.create_campaign(draft.clone(), world.audit("campaign.create")).await.unwrap();
    assert!(in_use(delete(&world).await), "a draft names it");
    let edit = Edit { sandbox: world.sandbox.id, id: draft.id, seen_revision: Some(1) };
    world.store.delete_campaign(edit, world.audit("campaign.delete")).await.unwrap();
    delete(&world).await.unwrap();
    assert!(is_not_found(delete(&world).await));
    assert!(is_not_found(world.store.any_channel(world.channel).await));
}

pub async fn a_campaigns_versions_are_kept(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let store = &world.store;
    let mut campaign = store.campaign(world.sandbox.id, world.campaign).await.unwrap();
    let first = campaign.live.clone().unwrap();
    let before = world.message("r1").await;
    let second = world.version(json!({"name": "second", "content": {"subject": "s2", "text": "t2"}}));
    campaign.draft = Some(second.clone());
    campaign.stamps.touch(at(1), "ops");
    store.update_campaign(campaign.clone(), world.audit("campaign.update")).await.unwrap();
    let read = store.campaign(world.sandbox.id, world.campaign).await.unwrap();
    assert_eq!((read.live, read.draft), (Some(first.clone()), Some(second.clone())));
    assert_eq!((read.status, read.stamps.clone()), (CampaignStatus::Live, campaign.stamps.clone()));
    let during = world.message("r2").await;
    assert!(is_not_found(store.campaign_version(second.id).await), "a draft is not sent");

    campaign.live = campaign.draft.take();
    campaign.stamps.touch(at(2), "ops");
    store.update_campaign(campaign, world.audit("campaign.activate")).await.unwrap();
    let after = world.message("r3").await;
    let world = world.reopen(bench).await;
    for (message, version) in [(before, &first), (during, &first), (after, &second)] {
        let execution = world.view(message).await.execution;
        assert_eq!(execution.version, version.id);
        let sent = world.store.campaign_version(version.id).await.unwrap();
        assert_eq!((sent.id, sent.campaign, &sent.settings), (version.id, world.campaign, &version.settings));
    }
    let read = world.store.campaign(world.sandbox.id, world.campaign).await.unwrap();
    assert_eq!((read.live, read.draft), (Some(second.clone()), None));
    let id = world.campaign;
    let newest = world.store.campaign_versions(world.sandbox.id, id, page(1)).await.unwrap();
    assert_eq!(newest.items, [second]);
    let next = crate::lookup::Page { limit: 9, cursor: newest.next };
    let rest = world.store.campaign_versions(world.sandbox.id, id, next).await.unwrap();
    assert_eq!((rest.items, rest.next), (vec![first], None));
}

pub async fn a_campaign_that_was_live_cannot_be_deleted(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let edit = Edit { sandbox: world.sandbox.id, id: world.campaign, seen_revision: None };
    assert!(is_state_conflict(world.store.delete_campaign(edit, world.audit("campaign.delete")).await));
    world.stop_campaign().await;
    assert!(is_state_conflict(world.store.delete_campaign(edit, world.audit("campaign.delete")).await));
    assert!(world.store.campaign(world.sandbox.id, world.campaign).await.is_ok());
}
