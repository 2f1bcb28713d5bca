//! Taking executions.

use super::fixtures::{START, at, page, recipient};
use super::world::World;
use super::{Bench, Setup, record};
use crate::work::{AcceptError, NewExecution};
use model::campaign::CampaignStatus;
use model::clock::Timestamp;
use model::execution::Priority;
use model::ids::{ApiKeyId, CampaignId, MessageKey, SandboxId};
use model::message::MessageState;
use model::outcome::Verdict;
use model::webhook::Channel;
use serde_json::json;
use std::time::Duration;
use tokio::task::JoinSet;

const DAY: u64 = 86_400;

pub async fn a_new_execution_is_durable_and_its_messages_are_due(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let mut nobody = recipient("nobody");
    nobody.email = None;
    let new =
        NewExecution { recipients: vec![recipient("jane"), nobody], expires_at: Some(at(60)), ..world.execution("r1") };
    let accepted = world.accept(new.clone()).await;
    assert_eq!((accepted.id, accepted.created_at, accepted.created_by.as_str()), (new.id, START, "shop"));
    let (channel, work) = accepted.work.unwrap();
    assert_eq!(channel, world.channel);

    let world = world.reopen(bench).await;
    let due = world.store.channels_with_due().await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!((due[0].id, due[0].at, due[0].shard), (world.channel, START, world.lease.shard));
    let read = world.due_messages(START).await;
    assert_eq!(read.next_at, None);
    // What the owner reads after a restart is what it is handed at once.
    assert_eq!(format!("{:?}", read.messages), format!("{work:?}"));
    let jane = &read.messages[0];
    assert_eq!(jane.key, MessageKey { execution: new.id, ordinal: 0 });
    assert_eq!((jane.failures, jane.first_due, jane.due_at, jane.may_have_been_sent), (0, START, START, false));
    assert_eq!((jane.execution.request_id.as_str(), jane.execution.expires_at), ("r1", Some(at(60))));
    assert_eq!((jane.execution.campaign, jane.execution.created_by_key), (world.campaign, world.key.id));
    let personal = jane.personalization.as_ref().unwrap();
    assert_eq!(personal.context.as_ref().unwrap().get(), r#"{"code":"one-time-code-of-jane"}"#);
    assert_eq!(read.messages[1].recipient.address, None);
    assert_eq!(read.messages[1].recipient.user_id, "u-nobody");
}

pub async fn a_recipient_has_the_address_of_the_campaigns_channel(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    let (_, work) = world.accept(world.execution("r1")).await.work.unwrap();
    assert_eq!(work[0].recipient.address.as_deref(), Some("jane@example.com"));
    world.channel = world.add_channel(Channel::Sms).await;
    world.campaign = world.add_campaign(json!({"channel": "sms", "content": {"text": "t"}})).await;
    let (_, work) = world.accept(world.execution("r1")).await.work.unwrap();
    assert_eq!(work[0].recipient.address.as_deref(), Some("+390212345"));
    assert_eq!(work[0].execution.channel, Channel::Sms);
}

pub async fn unitary_messages_are_due_before_high_throughput_ones(bench: &dyn Bench) {
    let world = World::new(bench).await;
    for (request, priority) in [("bulk", Priority::HighThroughput), ("one", Priority::Unitary)] {
        world.accept(NewExecution { priority, ..world.execution(request) }).await;
    }
    world.accept(world.execution_at(at(5), "later")).await;
    let names = |due: &crate::work::DueMessages| -> Vec<String> {
        due.messages.iter().map(|message| message.execution.request_id.clone()).collect()
    };
    let now = world.due_messages(START).await;
    assert_eq!((names(&now), now.next_at), (vec!["one".to_owned(), "bulk".to_owned()], Some(at(5))));
    let one = world.store.due_messages(world.channel, START, 1).await.unwrap();
    assert_eq!((names(&one), one.next_at), (vec!["one".to_owned()], Some(START)));
    let all = world.due_messages(at(5)).await;
    assert_eq!((names(&all), all.next_at), (["one", "later", "bulk"].map(str::to_owned).to_vec(), None));
}

pub async fn the_same_body_again_gets_the_first_id_and_sends_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let first = world.accept(world.execution("r1")).await;
    let other = world.add_key("other", [2; 32]).await;
    let again =
        NewExecution { created_by: "other".to_owned(), created_by_key: other.id, ..world.execution_at(at(60), "r1") };
    let again = world.accept(again).await;
    assert_eq!((again.id, again.created_at, again.created_by.as_str()), (first.id, START, "shop"));
    assert!(again.work.is_none());
    assert_eq!(world.due_messages(at(60)).await.messages.len(), 1);
}

pub async fn another_body_under_the_same_request_id_conflicts(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let first = world.accept(world.execution("r1")).await;
    let other = NewExecution { body_digest: [6; 16], ..world.execution("r1") };
    let refused = world.store.accept(other).await.unwrap().unwrap_err();
    assert_eq!(refused, AcceptError::RequestIdConflict(first.id));
    assert_eq!(world.due_messages(START).await.messages.len(), 1);
}

pub async fn fifty_concurrent_twins_are_one_execution(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let mut twins = JoinSet::new();
    for _ in 0..50 {
        let (store, twin) = (world.store.clone(), world.execution("r1"));
        twins.spawn(async move { store.accept(twin).await.unwrap().unwrap() });
    }
    let answers = twins.join_all().await;
    assert!(answers.iter().all(|answer| answer.id == answers[0].id));
    assert_eq!(answers.iter().filter(|answer| answer.work.is_some()).count(), 1);
    assert_eq!(world.due_messages(START).await.messages.len(), 1);
}

pub async fn a_request_id_is_new_in_another_campaign_and_in_another_sandbox(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let other = world.beside("stage").await;
    let second = world.add_campaign(json!({})).await;
    let mut ids = vec![
        world.accept(world.execution("r1")).await.id,
        world.accept(NewExecution { campaign: second, ..world.execution("r1") }).await.id,
        other.accept(other.execution("r1")).await.id,
    ];
    ids.dedup();
    assert_eq!(ids.len(), 3);
    assert_eq!(world.due_messages(START).await.messages.len(), 2);
    assert_eq!(other.due_messages(START).await.messages.len(), 1);
}

pub async fn an_unknown_campaign_and_one_of_another_sandbox_are_refused(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let other = world.beside("stage").await;
    for campaign in [CampaignId(SandboxId::new(START, &super::fixtures::Seeded::default()).0), other.campaign] {
        let new = NewExecution { campaign, ..world.execution("r1") };
        let refused = world.store.accept(new).await.unwrap().unwrap_err();
        assert_eq!(refused, AcceptError::UnknownCampaign(campaign));
    }
}

pub async fn an_unknown_sandbox_or_key_is_not_found_and_leaves_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let nowhere = NewExecution { sandbox: SandboxId(world.campaign.0), ..world.execution("r1") };
    assert!(super::fixtures::is_not_found(world.store.accept(nowhere).await));
    let nobody = NewExecution { created_by_key: ApiKeyId(world.campaign.0), ..world.execution("r1") };
    assert!(super::fixtures::is_not_found(world.store.accept(nobody).await));
    assert!(world.due_messages(START).await.messages.is_empty());
    assert!(world.store.executions(world.messages(), page(10)).await.unwrap().items.is_empty());
    // The request id is not taken by what was refused.
    assert!(world.accept(world.execution("r1")).await.work.is_some());
}

pub async fn a_draft_and_a_stopped_campaign_are_refused(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    world.accept(world.execution("r1")).await;
    world.stop_campaign().await;
    let refused = world.store.accept(world.execution("r2")).await.unwrap().unwrap_err();
    assert_eq!(refused, AcceptError::NotLive("STOPPED"));
    let mut draft = world.new_campaign(CampaignStatus::Draft, json!({}));
    world.campaign = draft.id;
    world.store.create_campaign(draft.clone(), world.audit("campaign.create")).await.unwrap();
    let refused = world.store.accept(world.execution("r2")).await.unwrap().unwrap_err();
    assert_eq!(refused, AcceptError::NotLive("DRAFT"));
    // A refusal is no memory: once the campaign is live the same request goes through.
    draft.live = draft.draft.take();
    draft.status = CampaignStatus::Live;
    draft.stamps.touch(START, "ops");
    world.store.update_campaign(draft, world.audit("campaign.activate")).await.unwrap();
    assert!(world.accept(world.execution("r2")).await.work.is_some());
}

pub async fn a_campaign_is_refused_outside_its_schedule(bench: &dyn Bench) {
    let mut world = World::new(bench).await;
    world.campaign = world.add_campaign(json!({"schedule": {"startAt": at(10), "endAt": at(20)}})).await;
    for (second, taken) in [(9, false), (10, true), (19, true), (20, false)] {
        let new = world.execution_at(at(second), &format!("r{second}"));
        let answer = world.store.accept(new).await.unwrap();
        assert_eq!(answer.is_ok(), taken, "{second}");
        assert!(taken || matches!(answer, Err(AcceptError::OutsideSchedule(_))), "{answer:?}");
    }
}

pub async fn a_repetition_is_answered_though_the_campaign_has_stopped(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let first = world.accept(world.execution("r1")).await;
    world.stop_campaign().await;
    assert_eq!(world.accept(world.execution("r1")).await.id, first.id);
    let other = NewExecution { body_digest: [6; 16], ..world.execution("r1") };
    let refused = world.store.accept(other).await.unwrap().unwrap_err();
    assert_eq!(refused, AcceptError::RequestIdConflict(first.id));
}

pub async fn a_request_id_is_remembered_for_seven_days_and_across_a_reopen(bench: &dyn Bench) {
    let world = World::new(bench).await;
    // The last millisecond of a day: the memory must not end with calendar days.
    let late = Timestamp((START.millis() / 86_400_000 + 1) * 86_400_000 - 1);
    let first = world.accept(world.execution_at(late, "r1")).await;
    for day in 1..=7 {
        world.accept(world.execution_at(late + Duration::from_secs(day * DAY), &format!("day {day}"))).await;
    }
    let week = late + Duration::from_secs(7 * DAY);
    assert_eq!(world.accept(world.execution_at(week, "r1")).await.id, first.id);
    let world = world.reopen(bench).await;
    assert_eq!(world.accept(world.execution_at(week, "r1")).await.id, first.id);
    let other = NewExecution { body_digest: [6; 16], ..world.execution_at(week, "r1") };
    let refused = world.store.accept(other).await.unwrap().unwrap_err();
    assert_eq!(refused, AcceptError::RequestIdConflict(first.id));
}

pub async fn past_the_limit_executions_are_refused_until_messages_are_sent(bench: &dyn Bench) {
    let setup = Setup { max_waiting_messages: 3, ..Setup::default() };
    let world = World::with(bench, setup).await;
    let two = NewExecution { recipients: vec![recipient("a"), recipient("b")], ..world.execution("r1") };
    let first = world.accept(two.clone()).await;
    let more = NewExecution { id: world.execution("").id, request_id: "r2".to_owned(), ..two };
    let refused = world.store.accept(more.clone()).await.unwrap().unwrap_err();
    assert_eq!(refused, AcceptError::TooMuchWaiting { waiting: 2 });
    assert_eq!(world.accept(world.execution("r1")).await.id, first.id);

    let message = MessageKey { execution: first.id, ordinal: 0 };
    // A retry still waits, a planned outcome does not.
    world.record_at(message, START, super::fixtures::retry_at(at(5))).await;
    assert!(world.store.accept(more.clone()).await.unwrap().is_err());
    world.record_at(message, START, record::planned(Verdict::Sent, at(9), Verdict::Delivered)).await;
    world.record(message, Verdict::Sent).await;
    let world = world.reopen_with(bench, setup).await;
    assert!(world.accept(more).await.work.is_some());
    let refused = world.store.accept(world.execution("r3")).await.unwrap().unwrap_err();
    assert_eq!(refused, AcceptError::TooMuchWaiting { waiting: 3 });
    assert_eq!(world.view(message).await.state, MessageState::Sent);
}
