//! What records, attempts and people come to: pure, so that every store does the same.

use super::facts::{SandboxFacts, StoredExecution};
use super::rows::{EventRow, MessageRow};
#[cfg(feature = "planted-bugs")]
use crate::planted::{Bug, is_planted};
use crate::work::{Finish, What};
use crate::{Conflict, Result, StoreError};
use model::clock::Timestamp;
use model::delivery::{AttemptDecision, DueDelivery, StoredDelivery};
use model::feedback::FeedbackEvent;
use model::ids::EventKey;
use model::message::MessageState;
use model::outcome::{Outcome, Verdict};
use model::webhook::Webhook;
use std::sync::Arc;

/// The bits of a place in the feed below the milliseconds.
const SEQUENCE_BITS: u32 = 12;

/// The first place in the feed of this moment: places are about a quarter of a microsecond apart.
pub fn sequence_at(now: Timestamp) -> i64 {
    now.millis() << SEQUENCE_BITS
}

/// About when the event at this place in the feed was recorded.
pub fn recorded_at(sequence: i64) -> Timestamp {
    Timestamp(sequence >> SEQUENCE_BITS)
}

/// Something new to tell about a message.
#[derive(Debug)]
pub struct Told {
    pub outcome: Outcome,
    pub number: u8,
    pub retry_count: u32,
}

/// What a record tells, in order: the `sent` that an outcome implies, and the outcome.
pub type Tellings = [Option<Told>; 2];

impl MessageRow {
    /// Does what is to be recorded; none: there is nothing.
    pub fn apply(&mut self, what: What) -> Option<Tellings> {
        match what {
            What::Outcome { outcome, planned } => {
                let before = self.progress.state;
                let told = self.take(outcome);
                if told[1].is_some() {
                    self.plan(before, planned);
                }
                Some(told)
            }
            What::Planned => {
                let outcome = self.planned.take()?;
                self.due_at = None;
                Some(self.take(outcome))
            }
            What::Retry { at, delay, may_have_been_sent } => {
                if !self.progress.state.awaits_sending() {
                    return Some([None, None]);
                }
                self.failures += 1;
                self.progress.state = if may_have_been_sent { MessageState::HandingOver } else { MessageState::Queued };
                (self.due_at, self.planned) = (Some(at), None);
                Some(self.take(delay))
            }
        }
    }

    /// Applies an outcome; the second is told where it was not a repetition, late or contradicting.
    fn take(&mut self, outcome: Outcome) -> Tellings {
        let taken = self.progress.take(&outcome.verdict);
        let sent = taken.sent_first.then(|| self.tell(Outcome::new(Verdict::Sent, outcome.occurred_at)));
        let told = taken.recorded.then(|| self.tell(outcome));
        self.progress = taken.progress;
        [sent, told]
    }

    fn tell(&mut self, outcome: Outcome) -> Told {
        self.events += 1;
        Told { outcome, number: self.events, retry_count: self.failures }
    }

    /// What is due after an outcome that was recorded: what is planned, or nothing once the message has moved on. A
    /// `delay` alone moves nothing: what was due before it stays due.
    fn plan(&mut self, before: MessageState, planned: Option<(Timestamp, Outcome)>) {
        if let Some((at, outcome)) = planned {
            (self.due_at, self.planned) = (Some(at), Some(outcome));
        } else if self.progress.state != before {
            (self.due_at, self.planned) = (None, None);
        }
    }

    /// What is personal goes as soon as no try can need it.
    pub fn keeps_personal(&self) -> bool {
        self.progress.state.awaits_sending() && self.planned.is_none()
    }
}

/// The webhook, if it is to get this event.
pub fn wanting<'a>(
    webhook: Option<&'a Webhook>,
    execution: &StoredExecution,
    outcome: &Outcome,
) -> Option<&'a Webhook> {
    let enabled = execution.version.settings.audience.enable_webhooks;
    webhook.filter(|webhook| enabled && webhook.settings.selects(execution.facts.channel, outcome.verdict.status()))
}

/// A feedback event to be stored, with its delivery.
#[derive(Debug)]
pub struct NewEvent {
    pub event: FeedbackEvent,
    pub delivery: StoredDelivery,
    pub first_due: Option<Timestamp>,
}

impl NewEvent {
    /// `follows`: an earlier event of the message has a delivery that has not ended.
    pub fn new(
        told: Told,
        (sandbox, execution, row): (&SandboxFacts, &StoredExecution, &MessageRow),
        wanted: Option<&Webhook>,
        follows: bool,
        now: Timestamp,
    ) -> Self {
        let delivery = match (wanted, follows) {
            (None, _) => StoredDelivery::None,
            (Some(_), true) => StoredDelivery::Blocked,
            (Some(_), false) => StoredDelivery::Pending,
        };
        let event = FeedbackEvent {
            key: EventKey { message: row.key, number: told.number },
            tenant: Arc::clone(&sandbox.tenant),
            execution: Arc::clone(&execution.facts),
            recipient: Arc::clone(&row.recipient),
            outcome: told.outcome,
            retry_count: told.retry_count,
            recorded_at: now,
            payload: wanted.map_or_else(Default::default, |webhook| webhook.settings.payload),
        };
        Self { event, delivery, first_due: wanted.map(|webhook| webhook.active_time(now)) }
    }

    /// When its delivery is due; none: there is none, or it waits for another.
    pub fn due_at(&self) -> Option<Timestamp> {
        (self.delivery == StoredDelivery::Pending).then_some(self.event.recorded_at)
    }

    /// Its delivery, if it is due.
    pub fn into_due(self, sequence: i64) -> Option<DueDelivery> {
        let (due_at, first_due) = (self.due_at()?, self.first_due?);
        Some(DueDelivery { sequence, event: Arc::new(self.event), failures: 0, first_due, due_at, replay: None })
    }
}

/// After an event of a message has ended: the first one that still waits, unless another is under way. The message's
/// events come the newest first.
pub fn next_to_go<E>(
    newest_first: impl IntoIterator<Item = std::result::Result<(i64, StoredDelivery), E>>,
) -> std::result::Result<Option<i64>, E> {
    let mut first_blocked = None;
    for event in newest_first {
        match event? {
            #[cfg(feature = "planted-bugs")]
            (_, StoredDelivery::Pending) if is_planted(Bug::EarlyPromotion) => {}
            (_, StoredDelivery::Pending) => return Ok(None),
            (sequence, StoredDelivery::Blocked) => first_blocked = Some(sequence),
            _ => {}
        }
    }
    Ok(first_blocked)
}

/// What an attempt does to the webhook, which is `failing` from the first failure to the next success and `disabled`
/// after a 410; none: nothing.
pub fn health(webhook: &Webhook, finish: &Finish) -> Option<Webhook> {
    let failing = webhook.control.failing_since.is_some();
    let succeeded = finish.decision == AttemptDecision::Succeeded;
    let gone = finish.decision == AttemptDecision::Gone;
    if !gone && failing != succeeded {
        return None;
    }
    // An attempt from before somebody enabled the webhook again, or changed its URL, says nothing of how it is now.
    if gone && finish.attempt.at < webhook.stamps.modified_at {
        return None;
    }
    let mut changed = webhook.clone();
    let control = &mut changed.control;
    if succeeded {
        (control.failing_since, control.last_error) = (None, None);
    } else {
        control.failing_since.get_or_insert(finish.now);
        control.last_error = finish.attempt.error.as_ref().map(|error| error.message.clone());
    }
    if gone {
        control.gone_at = Some(finish.now);
        changed.note_hold(finish.now);
        // Whoever is about to write back what was read before this must not undo it.
        changed.stamps.revision += 1;
    }
    Some(changed)
}

/// What a delivery becomes that somebody wants retried.
#[derive(Debug)]
pub struct ByHand {
    pub delivery: StoredDelivery,
    pub due_at: Option<Timestamp>,
    pub first_due: Timestamp,
    /// The attempt that succeeded is in the event's row, and goes to the others before the delivery starts again.
    pub had_succeeded: bool,
}

fn not_in_this_state(why: &str) -> StoreError {
    StoreError::Conflict(Conflict::State(why.to_owned()))
}

/// Makes a delivery due again. It waits where another event of its message is under way.
pub fn retry(row: &EventRow, webhook: Option<&Webhook>, beside_another: bool, now: Timestamp) -> Result<ByHand> {
    let (Some(webhook), false) = (webhook, row.delivery == StoredDelivery::None) else {
        let why = "there is no webhook delivery to retry: no webhook wanted this event, or it was deleted";
        return Err(not_in_this_state(why));
    };
    if row.delivery == StoredDelivery::Blocked {
        return Err(not_in_this_state("the delivery waits for an earlier event of its message; retry that one"));
    }
    let delivery = if beside_another { StoredDelivery::Blocked } else { StoredDelivery::Pending };
    let first_due = match row.delivery {
        StoredDelivery::Pending => row.first_due.unwrap_or(now),
        _ => webhook.active_time(now),
    };
    let had_succeeded = row.delivery == StoredDelivery::Succeeded;
    Ok(ByHand { delivery, due_at: (!beside_another).then_some(now), first_due, had_succeeded })
}

/// Whether a delivery can be cancelled.
pub fn check_cancel(delivery: StoredDelivery) -> Result<()> {
    match delivery.is_open() {
        true => Ok(()),
        false => Err(not_in_this_state("the delivery has ended already, or there is none")),
    }
}

/// What came of each unit of a batch. One that cannot be done must not hide the others: what is missing or unreadable
/// counts as not done. Where the store is in trouble the whole batch is.
pub fn each_done<T: Default>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let done = |result| match result {
        Err(StoreError::NotFound(_)) => Ok(T::default()),
        Err(error @ StoreError::Corrupt(_)) => {
            tracing::error!(%error, "a row of a batch cannot be read and is left as it is");
            Ok(T::default())
        }
        other => other,
    };
    results.into_iter().map(done).collect()
}
