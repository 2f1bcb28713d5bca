//! Recording outcomes.

use super::fixtures::{START, at, exclusion, hard_bounce, plain, retry_at};
use super::world::World;
use super::{Bench, contains};
use crate::work::{NewExecution, Record, Untouched, What};
use model::clock::Timestamp;
use model::ids::{MessageKey, SandboxId};
use model::message::MessageState;
use model::outcome::FeedbackStatus::{self, Bounce, Delay, Delivered, Sent};
use model::outcome::{Failure, FailureCategory, Outcome, Verdict};
use model::webhook::Payload;
use serde_json::json;

/// An outcome with another that follows by itself.
pub fn planned(verdict: Verdict, later: Timestamp, next: Verdict) -> What {
    What::Outcome { outcome: Outcome::new(verdict, START), planned: Some((later, Outcome::new(next, later))) }
}

pub async fn every_verdict_moves_the_message_and_becomes_an_event(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let cases = [
        (Verdict::Sent, MessageState::Sent),
        (Verdict::Delivered, MessageState::Delivered),
        (hard_bounce(FailureCategory::Sync), MessageState::Bounced),
        (Verdict::Error(Failure::admin("broken")), MessageState::Failed),
        (Verdict::Exclude(exclusion()), MessageState::Excluded),
        (Verdict::Denylist(exclusion()), MessageState::Denylisted),
        (Verdict::Delay, MessageState::Queued),
    ];
    let mut messages = Vec::new();
    for (i, (verdict, _)) in cases.iter().enumerate() {
        let message = world.message(&format!("r{i}")).await;
        assert!(world.record(message, verdict.clone()).await.done);
        messages.push(message);
    }
    let world = world.reopen(bench).await;
    for (message, (verdict, state)) in messages.into_iter().zip(cases) {
        let view = world.view(message).await;
        assert_eq!(view.state, state);
        assert_eq!(view.next_try_at.is_some(), state == MessageState::Queued, "{verdict:?}");
        assert_eq!(view.events.last().unwrap().event.outcome.verdict, verdict);
    }
    assert_eq!(world.due_messages(START).await.messages.len(), 1);
}

pub async fn an_event_has_the_facts_of_its_execution_and_its_outcome(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({"payload": "extended"})).await;
    let message = world.message("r1").await;
    let outcome = Outcome {
        verdict: hard_bounce(FailureCategory::Sync),
        occurred_at: at(3),
        response_code: Some(550),
        response_duration_ms: Some(40),
        encoding: Some("GSM".to_owned()),
        parts: Some(2),
    };
    let what = What::Outcome { outcome: outcome.clone(), planned: None };
    let mut recorded = world.record_at(message, at(4), what).await;
    let due = recorded.due.remove(0);
    assert_eq!((due.failures, due.first_due, due.due_at), (0, at(4), at(4)));
    let event = &*due.event;
    assert_eq!((event.key.message, event.key.number, event.recorded_at), (message, 1, at(4)));
    assert_eq!((&event.outcome, event.payload), (&outcome, Payload::Extended));
    assert_eq!(event.tenant.sandbox_id, world.sandbox.id);
    assert_eq!((event.execution.request_id.as_str(), event.execution.campaign), ("r1", world.campaign));
    assert_eq!(event.recipient.address.as_deref(), Some("jane@example.com"));

    // Read from the rows it is the same event, to the byte, whatever the webhook says by then.
    world.edit_webhook(at(5), |webhook| webhook.settings.payload = Payload::Standard).await;
    let world = world.reopen(bench).await;
    let read = world.due_deliveries(at(4)).await.deliveries.remove(0);
    assert_eq!((read.sequence, read.event.as_ref()), (due.sequence, event));
    assert_eq!((read.failures, read.first_due, read.due_at), (0, at(4), at(4)));
    assert_eq!(read.event.body(), event.body());
}

pub async fn what_is_personal_goes_once_no_try_can_need_it(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let ends = [Verdict::Sent, Verdict::Exclude(exclusion()), Verdict::Error(Failure::admin("broken"))];
    for (i, verdict) in ends.into_iter().enumerate() {
        let message = world.message(&format!("r{i}")).await;
        let before = bench.contents().await;
        assert!(contains(&before, "one-time-code-of-jane") && contains(&before, "profile-of-jane"));
        world.record(message, verdict).await;
        let after = bench.contents().await;
        assert!(!contains(&after, "one-time-code-of") && !contains(&after, "profile-of"), "{i}");
        assert!(contains(&after, "jane@example.com"));
    }
    // After a delay with a plan nothing is sent any more either.
    let message = world.message("planned").await;
    world.record_at(message, START, planned(Verdict::Delay, at(1), Verdict::Sent)).await;
    assert!(!contains(&bench.contents().await, "one-time-code-of"));
}

pub async fn a_retry_keeps_what_is_personal_and_tells_one_delay(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    for failures in 1..=3 {
        let next = at(u64::from(failures) * 10);
        assert!(world.store.hand_over(world.lease, vec![(world.sandbox.id, message)]).await.unwrap()[0]);
        assert!(world.record_at(message, START, retry_at(next)).await.done);
        let view = world.view(message).await;
        assert_eq!((view.state, view.failures, view.next_try_at), (MessageState::Queued, failures, Some(next)));
        assert_eq!(world.told(message).await, [Delay]);
        let early = world.due_messages(START).await;
        assert_eq!((early.messages.len(), early.next_at), (0, Some(next)));
        let due = world.due_messages(next).await.messages.remove(0);
        assert_eq!((due.failures, due.first_due, due.due_at, due.delayed), (failures, START, next, true));
        assert!(due.personalization.is_some() && !due.may_have_been_sent);
    }
}

pub async fn the_retry_count_is_that_of_the_failed_tries_before(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    world.record_at(message, START, retry_at(at(5))).await;
    world.record_at(message, START, retry_at(at(9))).await;
    world.record(message, Verdict::Sent).await;
    let counts: Vec<_> = world.view(message).await.events.iter().map(|view| view.event.retry_count).collect();
    assert_eq!(counts, [1, 2]);
}

pub async fn a_planned_outcome_becomes_due_and_is_recorded_once(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    let late = hard_bounce(FailureCategory::Async);
    world.record_at(message, START, planned(Verdict::Sent, at(1), late.clone())).await;
    assert_eq!(world.told(message).await, [Sent]);
    assert_eq!(world.view(message).await.next_try_at, None);
    let world = world.reopen(bench).await;
    assert_eq!(world.store.channels_with_due().await.unwrap()[0].at, at(1));
    assert!(world.due_messages(START).await.messages.is_empty());
    let due = world.due_messages(at(1)).await.messages.remove(0);
    assert_eq!(due.planned, Some(Outcome::new(late, at(1))));
    assert!(due.personalization.is_none());
    assert!(world.record_at(message, at(1), What::Planned).await.done);
    assert!(!world.record_at(message, at(1), What::Planned).await.done);
    assert_eq!(world.told(message).await, [Sent, Bounce]);
    assert!(world.due_messages(at(9)).await.messages.is_empty());
    assert!(world.store.channels_with_due().await.unwrap().is_empty());
}

pub async fn an_outcome_planned_with_a_delay_ends_the_message(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    world.store.hand_over(world.lease, vec![(world.sandbox.id, message)]).await.unwrap();
    world.record_at(message, START, planned(Verdict::Delay, at(1), Verdict::Sent)).await;
    let due = world.due_messages(at(1)).await.messages.remove(0);
    assert_eq!(due.planned.unwrap().verdict, Verdict::Sent);
    world.record_at(message, at(1), What::Planned).await;
    assert_eq!(world.told(message).await, [Delay, Sent]);
    assert!(world.due_messages(at(9)).await.messages.is_empty());
}

pub async fn an_outcome_that_comes_first_cancels_a_planned_one(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    world.record_at(message, START, planned(Verdict::Sent, at(1), hard_bounce(FailureCategory::Async))).await;
    // Repetitions and delays leave the plan as it is.
    world.record(message, Verdict::Sent).await;
    world.record(message, Verdict::Delay).await;
    assert_eq!(world.due_messages(at(1)).await.messages.len(), 1);
    world.record(message, Verdict::Delivered).await;
    assert!(world.due_messages(at(1)).await.messages.is_empty());
    assert!(!world.record_at(message, at(1), What::Planned).await.done);
    assert_eq!(world.told(message).await, [Sent, Delay, Delivered]);
}

pub async fn a_delay_alone_leaves_the_next_try_due(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    world.record(message, Verdict::Delay).await;
    assert!(!world.record_at(message, START, What::Planned).await.done);
    let due = world.due_messages(START).await.messages.remove(0);
    assert!(due.delayed && due.personalization.is_some());
}

pub async fn outcomes_late_twice_or_out_of_order_change_nothing(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    let story = [
        Verdict::Delivered,
        Verdict::Sent,
        Verdict::Delivered,
        Verdict::Delay,
        hard_bounce(FailureCategory::Async),
        hard_bounce(FailureCategory::Sync),
        Verdict::Error(Failure::admin("late")),
    ];
    for verdict in story {
        assert!(world.record(message, verdict).await.done);
    }
    world.record_at(message, START, retry_at(at(1))).await;
    assert_eq!(world.told(message).await, [Sent, Delivered]);
    assert_eq!(world.view(message).await.state, MessageState::Delivered);
    assert!(world.due_messages(at(9)).await.messages.is_empty());
}

pub async fn an_asynchronous_outcome_implies_sent(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let message = world.message("r1").await;
    let recorded = world.record(message, hard_bounce(FailureCategory::Async)).await;
    assert_eq!(world.told(message).await, [Sent, Bounce]);
    // The bounce waits for the sent.
    let due: Vec<FeedbackStatus> = recorded.due.iter().map(|due| due.event.outcome.verdict.status()).collect();
    assert_eq!(due, [Sent]);
    let sequences: Vec<_> = world.view(message).await.events.iter().map(|view| view.sequence).collect();
    assert!(sequences[0] < sequences[1]);
}

pub async fn a_message_is_handed_over_only_while_it_waits(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let (waits, sent) = (world.message("r1").await, world.message("r2").await);
    world.record(sent, Verdict::Sent).await;
    let unknown = MessageKey { execution: world.execution("").id, ordinal: 0 };
    let of = |message| (world.sandbox.id, message);
    let nowhere = (SandboxId(world.campaign.0), waits);
    let wanted = vec![of(sent), nowhere, of(unknown), of(waits), of(waits)];
    let marked = world.store.hand_over(world.lease, wanted).await.unwrap();
    assert_eq!(marked, [false, false, false, true, true]);
    assert_eq!(world.view(waits).await.state, MessageState::HandingOver);
    assert_eq!(world.view(sent).await.state, MessageState::Sent);
}

pub async fn a_refusal_makes_nobody_wiser_about_an_earlier_hand_over(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    assert!(world.store.hand_over(world.lease, vec![(world.sandbox.id, message)]).await.unwrap()[0]);
    let world = world.reopen(bench).await;
    let What::Retry { at: next, delay, .. } = retry_at(at(10)) else { unreachable!() };
    let retry = What::Retry { at: next, delay, may_have_been_sent: true };
    assert!(world.record_at(message, START, retry).await.done);
    assert_eq!(world.view(message).await.state, MessageState::HandingOver);
    let due = world.due_messages(next).await.messages.remove(0);
    assert!(due.may_have_been_sent && due.failures == 1);
}

pub async fn a_message_handed_over_before_a_crash_may_have_been_sent(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let message = world.message("r1").await;
    world.store.hand_over(world.lease, vec![(world.sandbox.id, message)]).await.unwrap();
    let world = world.reopen(bench).await;
    let due = world.due_messages(START).await.messages.remove(0);
    assert!(due.may_have_been_sent && due.personalization.is_some());
}

pub async fn one_bad_record_does_not_hide_the_others(bench: &dyn Bench) {
    let world = World::new(bench).await;
    let (first, second) = (world.message("r1").await, world.message("r2").await);
    let unknown = MessageKey { execution: world.execution("").id, ordinal: 0 };
    let no_such_recipient = MessageKey { ordinal: 7, ..first };
    let nowhere =
        Record { sandbox: SandboxId(world.campaign.0), ..world.record_of(first, START, plain(Verdict::Sent)) };
    let records = vec![
        world.record_of(first, START, plain(Verdict::Sent)),
        nowhere,
        world.record_of(unknown, START, plain(Verdict::Sent)),
        world.record_of(no_such_recipient, START, plain(Verdict::Sent)),
        world.record_of(second, START, plain(Verdict::Sent)),
    ];
    let recorded = world.store.record(records).await.unwrap();
    let done: Vec<_> = recorded.iter().map(|recorded| recorded.done).collect();
    assert_eq!(done, [true, false, false, false, true]);
    assert_eq!(world.told(second).await, [Sent]);
}

pub async fn a_batch_may_be_about_one_message(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let two = vec![super::fixtures::recipient("a"), super::fixtures::recipient("b")];
    let execution = world.accept(NewExecution { recipients: two, ..world.execution("r1") }).await.id;
    let (a, b) = (MessageKey { execution, ordinal: 0 }, MessageKey { execution, ordinal: 1 });
    let records = [(a, Verdict::Delay), (b, Verdict::Sent), (a, Verdict::Sent), (a, Verdict::Delivered)];
    let records = records.map(|(message, verdict)| world.record_of(message, START, plain(verdict)));
    let recorded = world.store.record(records.to_vec()).await.unwrap();
    let due: Vec<_> = recorded.iter().map(|recorded| recorded.due.len()).collect();
    assert_eq!(due, [1, 1, 0, 0]);
    assert_eq!(world.told(a).await, [Delay, Sent, Delivered]);
    assert_eq!(world.due_deliveries(START).await.deliveries.len(), 2);
}

pub async fn what_the_caller_knows_of_an_untouched_message_holds_only_while_it_is_so(bench: &dyn Bench) {
    let world = World::new(bench).await;
    world.add_webhook(json!({})).await;
    let due = world.accept(world.execution("r1")).await.work.unwrap().1.remove(0);
    let untouched = || Some(Untouched { recipient: due.recipient.clone(), due_at: due.due_at });
    let record = |verdict| Record { untouched: untouched(), ..world.record_of(due.key, START, plain(verdict)) };
    let recorded = world.store.record(vec![record(Verdict::Delay)]).await.unwrap().remove(0);
    assert!(recorded.done && recorded.due[0].event.recipient == due.recipient);
    assert_eq!(world.due_messages(START).await.messages.len(), 1, "a delay moves nothing");
    // Now it was touched: what the caller thinks is as good as nothing.
    let repeated = world.store.record(vec![record(Verdict::Delay), record(Verdict::Sent), record(Verdict::Sent)]);
    let dues: Vec<_> =
        repeated.await.unwrap().into_iter().map(|recorded| (recorded.done, recorded.due.len())).collect();
    assert_eq!(dues, [(true, 0), (true, 0), (true, 0)]);
    assert_eq!(world.told(due.key).await, [Delay, Sent]);
    assert_eq!(world.due_deliveries(START).await.deliveries.len(), 1, "the second waits for the first");
    let unknown = MessageKey { execution: world.execution("").id, ordinal: 0 };
    for message in [unknown, MessageKey { ordinal: 7, ..due.key }] {
        let recorded = world.store.record(vec![Record { message, ..record(Verdict::Sent) }]).await.unwrap();
        assert!(!recorded[0].done && recorded[0].due.is_empty());
    }
    assert_eq!(world.due_deliveries(START).await.deliveries.len(), 1);
}
