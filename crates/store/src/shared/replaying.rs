//! What a step of a replay comes to.

use crate::lookup::{DeliveryFilter, EventFilter};
use crate::shared::change::sequence_at;
use crate::shared::rows::EventRow;
use crate::{Conflict, StoreError};
use model::clock::Timestamp;
use model::delivery::StoredDelivery;
use model::ids::ReplayId;
use model::replay::{Replay, ReplayProgress, ReplayState};
use model::webhook::{Payload, Webhook};

/// How many rows of the feed are looked at in one go, and in how many goes while none is chosen: short enough for a
/// reader, long enough that a rare event among millions is found in seconds.
pub const WINDOW: usize = 2_000;
pub const WINDOWS: usize = 5;

/// Why a replay ends by itself.
pub const NO_WEBHOOK: &str = "the webhook was deleted; once there is another, what is left can be replayed to it";

/// The filter as that of a list.
pub fn filter_of(replay: &Replay) -> DeliveryFilter {
    let filter = &replay.settings.filter;
    let event = EventFilter {
        sandbox: replay.sandbox,
        request_id: filter.request_id.clone(),
        campaign: filter.campaign_id,
        execution_id: filter.execution_id,
        recipient: filter.recipient.clone(),
        status: filter.status,
        channel: filter.channel,
        from: filter.from,
        to: filter.to,
        created_by: None,
        after: None,
    };
    DeliveryFilter { event, state: filter.state }
}

/// The part of a feed from `first` to `last` that can hold what is asked for: a place is never before the time of its
/// recording.
pub fn part_of_feed(first: Option<i64>, last: Option<i64>, from: Option<Timestamp>) -> ReplayProgress {
    // Times far from any that a feed can have are those of its ends.
    let from = from.map_or(0, |from| sequence_at(Timestamp(from.millis().clamp(0, 1 << 48))));
    let start = first.unwrap_or(1).max(from) - 1;
    ReplayProgress { start, position: start, until: last.unwrap_or(0).max(start), ..ReplayProgress::default() }
}

/// What a step has seen before its transaction.
#[derive(Debug)]
pub struct Seen {
    pub replay: Replay,
    /// Of the deliveries that were open, those that still are.
    pub open: Vec<i64>,
    /// Events to be replayed, in the order of the feed.
    pub chosen: Vec<i64>,
    /// Up to here the feed was looked at.
    pub position: i64,
}

impl Seen {
    /// Whether there is anything to be written down.
    pub fn is_news(&self) -> bool {
        let before = &self.replay.progress;
        self.position != before.position || self.open.len() != before.open.len() || before.is_over()
    }
}

/// How many events may be added.
pub fn room(most: usize, most_open: usize, open: usize) -> usize {
    most.min(most_open.saturating_sub(open))
}

/// A delivery that becomes due again.
#[derive(Debug)]
pub struct Again {
    pub sequence: i64,
    pub delivery: StoredDelivery,
    pub due_at: Option<Timestamp>,
    pub first_due: Timestamp,
    /// The attempt that succeeded is in the event's row, and goes to the others before the delivery starts again.
    pub had_succeeded: bool,
    pub payload: Payload,
    /// Others of its message wait for it, or it for another.
    pub followed: bool,
}

impl Again {
    /// The event's row as it then is.
    pub fn applied_to(&self, row: EventRow, replay: ReplayId) -> EventRow {
        EventRow {
            delivery: self.delivery,
            due_at: self.due_at,
            first_due: Some(self.first_due),
            ended_at: None,
            payload: self.payload,
            replay: Some(replay),
            ..row
        }
    }
}

/// What a replay does to one message.
#[derive(Debug, Default)]
pub struct OfMessage {
    pub again: Vec<Again>,
    /// The event that was under way and has others waiting for it now.
    pub followed: Option<i64>,
    pub skipped: u64,
}

/// `events`: all of the message, in the order recorded. An event that had no delivery gets one where the webhook selects
/// it, and the body that the webhook's payload asks for: it has had none before.
pub fn of_message(
    events: &[EventRow],
    chosen: &[i64],
    webhook: &Webhook,
    is_wanted: impl Fn(&EventRow) -> bool,
    now: Timestamp,
) -> OfMessage {
    let mut done = OfMessage::default();
    let under_way = events.iter().find(|event| event.delivery == StoredDelivery::Pending).map(|event| event.sequence);
    let mut is_free = under_way.is_none();
    for event in events.iter().filter(|event| chosen.contains(&event.sequence)) {
        let had_none = event.delivery == StoredDelivery::None;
        if event.delivery.is_open() || (had_none && !is_wanted(event)) {
            done.skipped += 1;
            continue;
        }
        let delivery = if std::mem::take(&mut is_free) { StoredDelivery::Pending } else { StoredDelivery::Blocked };
        done.again.push(Again {
            sequence: event.sequence,
            delivery,
            due_at: (delivery == StoredDelivery::Pending).then_some(now),
            first_due: webhook.active_time(now),
            had_succeeded: event.delivery == StoredDelivery::Succeeded,
            payload: if had_none { webhook.settings.payload } else { event.payload },
            followed: true,
        });
    }
    if let (None, [only]) = (under_way, done.again.as_mut_slice()) {
        only.followed = false;
    }
    done.followed = under_way.filter(|_| !done.again.is_empty());
    done
}

/// The replay after a step.
pub fn after_step(seen: Seen, made_due: &[i64], skipped: u64, now: Timestamp) -> Replay {
    let mut replay = seen.replay;
    let progress = &mut replay.progress;
    progress.position = seen.position;
    progress.open = seen.open;
    progress.open.extend_from_slice(made_due);
    progress.replayed += u64::try_from(made_due.len()).unwrap_or(0);
    progress.skipped += skipped;
    if progress.is_over() {
        replay.state = ReplayState::Completed;
        replay.ended_at = Some(now);
    }
    replay
}

/// Ends a replay that is running.
pub fn cancel(replay: &mut Replay, reason: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
    if replay.state != ReplayState::Running {
        return Err(StoreError::Conflict(Conflict::State("the replay has ended already".to_owned())));
    }
    replay.state = ReplayState::Cancelled;
    replay.reason = reason.map(str::to_owned);
    replay.ended_at = Some(now);
    Ok(())
}

pub fn no_webhook() -> StoreError {
    let why = "the sandbox has no feedback webhook to replay to; create one first";
    StoreError::Conflict(Conflict::State(why.to_owned()))
}

pub fn already_running(id: impl std::fmt::Display) -> StoreError {
    let why = format!("the replay {id} of this sandbox is still running; cancel it or wait for its end");
    StoreError::Conflict(Conflict::State(why))
}
