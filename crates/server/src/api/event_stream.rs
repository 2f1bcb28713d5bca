//! `/v1/feedback-events/stream`: feedback events as they are recorded, to whoever looks on (Server-Sent Events, WHATWG
//! HTML section 9.2).
//!
//! The stream is the feed, followed: the id of each item is its place, so that a client that was cut off goes on where
//! it was (`Last-Event-ID`). With `latest` it is for people: where more comes than can be read, the newest are shown and
//! an item `skipped` says that others are not.

use super::Api;
use super::auth::{Caller, InSandbox, ReadsOwn, SandboxHeaders};
use super::problem::Problem;
use super::query::Query;
use super::views::EventRead;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::stream::{Stream, unfold};
use http::HeaderMap;
use model::ids::{ApiKeyId, CampaignId, SandboxId};
use model::outcome::FeedbackStatus;
use model::webhook::Channel;
use serde::Deserialize;
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::StoreError;
use store::lookup::{EventFilter, EventView, Page};
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The most streams of a node: each reads the store a few times a second.
const MOST_STREAMS: usize = 100;
/// The most of them for one key: nobody takes all.
const MOST_OF_A_KEY: usize = 20;
/// How often it is looked whether something came.
const LOOK: Duration = Duration::from_millis(250);
/// The same where what comes is never what is looked for.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// After so long a silence something is sent, so that whoever is gone is noticed, and so that proxies keep the connection.
const SILENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether the key is still good, as long as any other call may take to find out.
const KEY_CHECK: Duration = Duration::from_secs(1);
/// The pause where the store does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// The events that are read at once.
const AT_ONCE: usize = 100;

pub fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(stream))
}

/// Which events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// With this requestId.
    request_id: Option<String>,
    /// Of this campaign.
    campaign_id: Option<CampaignId>,
    /// About this address or userId.
    recipient: Option<String>,
    /// With this status.
    status: Option<FeedbackStatus>,
    /// Of this channel.
    channel: Option<Channel>,
    /// From this place in the feed on: `0` is the beginning, or the `sequence` of the last event that was seen. By default
    /// what is recorded from now on. The header `Last-Event-ID` counts more.
    after: Option<String>,
    /// Where more comes than can be read, only the newest are sent, and an item `skipped` says so.
    latest: Option<bool>,
}

/// Sends feedback events as they are recorded (`text/event-stream`): items `feedback` with the event as
/// `GET /v1/feedback-events/{id}` reads it and its place in the feed as the id; with `latest` also `skipped`.
#[utoipa::path(get, path = "/v1/feedback-events/stream", operation_id = "streamFeedbackEvents", tag = "lookups",
    params(SandboxHeaders, StreamQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last item that was seen.")),
    responses((status = 200, content_type = "text/event-stream", body = String, description = "Events, without an end.")))]
async fn stream(
    State(api): State<Arc<Api>>,
    scope: InSandbox<ReadsOwn>,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
) -> Result<([(&'static str, &'static str); 1], Sse<impl Stream<Item = Result<Event, Infallible>>>), Problem> {
    let place = match headers.get("last-event-id") {
        Some(id) => Some(parsed(id.to_str().unwrap_or_default(), "Last-Event-ID")?),
        None => query.after.as_deref().map(|after| parsed(after, "$query.after")).transpose()?,
    };
    let seat = Streams::seat(&api.streams, scope.caller.key.id).ok_or(Problem::TooManyStreams)?;
    let filter = EventFilter {
        request_id: query.request_id,
        campaign: query.campaign_id,
        recipient: query.recipient,
        status: query.status,
        channel: query.channel,
        created_by: scope.own_only(),
        ..EventFilter::of(scope.sandbox.id)
    };
    let place = match place {
        Some(place) => place,
        None => end_of(&api, filter.sandbox).await?,
    };
    let follower = Follower {
        key: scope.caller.key.id,
        filter,
        is_latest: query.latest == Some(true),
        place,
        ready: VecDeque::new(),
        pause: LOOK,
        checked: Instant::now(),
        spoke: Instant::now(),
        api,
        _seat: seat,
    };
    // A client that is cut off comes again soon, and even before anything came it knows where it was.
    let first = Event::default().retry(Duration::from_secs(1)).id(place.to_string()).comment("the feed follows");
    let items = unfold((follower, Some(first)), |(mut follower, first)| async move {
        let item = match first {
            Some(first) => first,
            None => follower.next().await?,
        };
        Some((Ok(item), (follower, None)))
    });
    // Proxies that gather what they pass on would make it late (nginx does unless it is told not to).
    Ok(([("x-accel-buffering", "no")], Sse::new(items)))
}

/// The streams that are open, by their keys.
#[derive(Debug, Default)]
pub struct Streams(Mutex<HashMap<ApiKeyId, usize>>);

impl Streams {
    /// A place for one more, until it is dropped; none: there are enough.
    fn seat(streams: &Arc<Self>, key: ApiKeyId) -> Option<Seat> {
        let mut open = streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (open.values().sum::<usize>(), open.get(&key).copied().unwrap_or(0));
        if all >= MOST_STREAMS || own >= MOST_OF_A_KEY {
            return None;
        }
        open.insert(key, own + 1);
        Some(Seat { streams: Arc::clone(streams), key })
    }
}

struct Seat {
    streams: Arc<Streams>,
    key: ApiKeyId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.streams.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.key)),
        }
    }
}

fn parsed(place: &str, name: &str) -> Result<i64, Problem> {
    match place.parse() {
        Ok(place) if place >= 0 => Ok(place),
        _ => Err(Problem::fault(name, "must be 0 or the sequence of an event")),
    }
}

/// Where the feed of a sandbox ends.
async fn end_of(api: &Api, sandbox: SandboxId) -> Result<i64, StoreError> {
    let newest = api.store.events(EventFilter::of(sandbox), Page { limit: 1, cursor: None }).await?;
    Ok(newest.items.first().map_or(0, |event| event.sequence))
}

/// Who follows the feed.
struct Follower {
    api: Arc<Api>,
    key: ApiKeyId,
    filter: EventFilter,
    is_latest: bool,
    /// What comes after this is new.
    place: i64,
    ready: VecDeque<Event>,
    /// Until it is looked again.
    pause: Duration,
    checked: Instant,
    spoke: Instant,
    _seat: Seat,
}

impl Follower {
    /// The next item; none: the server ends, or the key does.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.ready.is_empty() && !self.read().await {
                tokio::time::sleep(self.pause).await;
            }
            if self.api.outside.is_stopping() || !self.is_welcome().await {
                return None;
            }
            let item = self.ready.pop_front().or_else(|| self.sign_of_life());
            if item.is_some() {
                self.spoke = Instant::now();
                return item;
            }
        }
    }

    /// After a long silence, with how far the feed was read: whoever comes again need not look through it again.
    fn sign_of_life(&self) -> Option<Event> {
        let item = || Event::default().id(self.place.to_string()).comment("nothing new");
        (self.spoke.elapsed() >= SILENCE).then(item)
    }

    async fn is_welcome(&mut self) -> bool {
        if self.checked.elapsed() < KEY_CHECK {
            return true;
        }
        self.checked = Instant::now();
        !matches!(Caller::of_id(&self.api, self.key).await, Err(Problem::Unauthenticated(_)))
    }

    /// Reads on; whether there is more to be read at once.
    async fn read(&mut self) -> bool {
        match self.read_page().await {
            Ok(is_more) => is_more,
            // The stream stays: a browser whose stream ends with an error does not come again.
            Err(error) => {
                tracing::warn!(%error, "the feed cannot be read now");
                tokio::time::sleep(PAUSE).await;
                false
            }
        }
    }

    async fn read_page(&mut self) -> Result<bool, StoreError> {
        // What is asked for may come seldom among others, which are not to be looked through again each time. Up to here
        // all is visible: places are given in the order of commit.
        let end = end_of(&self.api, self.filter.sandbox).await?;
        if end <= self.place {
            return Ok(false);
        }
        let filter = EventFilter { after: Some(self.place), ..self.filter.clone() };
        let read = self.api.store.events(filter, Page { limit: AT_ONCE, cursor: None }).await?;
        if self.is_latest && read.items.len() == AT_ONCE && self.skip().await? {
            return Ok(true);
        }
        let found = read.items.len();
        let last = read.items.last().map_or(self.place, |event| event.sequence);
        let next = read.next.and_then(|next| next.parse().ok()).unwrap_or(last);
        self.ready.extend(read.items.into_iter().map(item_of));
        let is_more = found == AT_ONCE || next > last;
        self.place = if is_more { next } else { end.max(next) };
        self.pause = if found > 0 { LOOK } else { (self.pause * 2).min(LONGEST_LOOK) };
        Ok(is_more)
    }

    /// Goes on with the newest; false: those that come next are as new as any that are found at once.
    async fn skip(&mut self) -> Result<bool, StoreError> {
        let newest = self.api.store.events(self.filter.clone(), Page { limit: AT_ONCE / 2, cursor: None }).await?;
        let events = newest.items.into_iter().rev().filter(|event| event.sequence > self.place);
        let events: Vec<EventView> = events.collect();
        let Some(last) = events.last().map(|event| event.sequence) else { return Ok(false) };
        let skipped = json!({"after": self.place, "at": self.api.clock.now()});
        self.ready.push_back(Event::default().event("skipped").data(skipped.to_string()));
        self.ready.extend(events.into_iter().map(item_of));
        self.place = last;
        // People do not read faster.
        tokio::time::sleep(LOOK).await;
        Ok(true)
    }
}

fn item_of(event: EventView) -> Event {
    let place = event.sequence.to_string();
    let data = serde_json::to_string(&EventRead::of(event)).expect("an event has string keys only");
    Event::default().event("feedback").id(place).data(data)
}
