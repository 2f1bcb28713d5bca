//! What the endpoint of the bench counts.

use super::report::{Percentiles, count, histogram, ratio};
use super::sink::REQUEST_ID_PREFIX;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// What the endpoint has seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// By group: the first part of the path.
    pub groups: BTreeMap<String, Group>,
    /// The first request of all, as it came.
    pub sample: Sample,
}

/// A request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// The events of a group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Group {
    /// How many came, each counted once.
    pub events: u64,
    /// How many came again, but for replays.
    pub repeats: u64,
    /// How many came as replays, each counted once.
    #[serde(default)]
    pub replayed: u64,
    /// How many came again as replays.
    #[serde(default)]
    pub replayed_again: u64,
    /// When the first one came, in microseconds since the Unix epoch.
    pub first: u64,
    /// When the last one came.
    pub last: u64,
    /// From the intended time of the call to the arrival.
    pub from_call: Percentiles,
    /// From the outcome to the arrival. The event tells the outcome's time in whole milliseconds, cut off: the true values
    /// are up to one smaller.
    pub from_outcome: Percentiles,
    /// The most connections at a time.
    pub most_connections: u64,
    /// The most events in ten successive tenths of a second.
    pub most_in_a_second: u64,
    /// From the outcome to the arrival: the mean of each queue.
    pub queues: Option<Waits>,
}

/// The mean waits of queues.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Waits {
    /// How many queues have had events.
    pub queues: u64,
    /// Among the queues.
    pub mean_ms: Percentiles,
}

impl Group {
    /// From the first to the last event.
    pub fn seconds(&self) -> f64 {
        count(self.last.saturating_sub(self.first)) / 1e6
    }

    /// Events in these seconds.
    pub fn per_second(&self) -> f64 {
        ratio(count(self.events), self.seconds())
    }
}

impl Seen {
    /// All events.
    pub fn events(&self) -> u64 {
        self.groups.values().map(|group| group.events).sum()
    }

    /// A group; an empty one where nothing came.
    pub fn group(&self, name: &str) -> Group {
        self.groups.get(name).cloned().unwrap_or_default()
    }
}

/// All counts.
#[derive(Debug, Default)]
pub struct Ledger {
    groups: HashMap<String, Counts>,
    sample: Option<Sample>,
    /// Hashes of the ids that came; none: every request counts, as the bare client's all have one id.
    known: Option<HashSet<u64>>,
    /// The same of those that came as replays.
    replayed: HashSet<u64>,
}

#[derive(Debug)]
struct Counts {
    events: u64,
    repeats: u64,
    replayed: u64,
    replayed_again: u64,
    first: u64,
    last: u64,
    from_call: Histogram<u64>,
    from_outcome: Histogram<u64>,
    connections: u64,
    most_connections: u64,
    tenths: Tenths,
    queues: HashMap<usize, Wait>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    events: u64,
    micros: u64,
}

/// Events by tenths of a second.
#[derive(Debug, Default)]
struct Tenths {
    current: u64,
    last_ten: [u64; 10],
    most: u64,
}

impl Tenths {
    fn add(&mut self, micros: u64) {
        let tenth = micros / 100_000;
        let passed = tenth.saturating_sub(self.current).min(10);
        self.last_ten.rotate_left(usize::try_from(passed).unwrap_or_default());
        self.last_ten.iter_mut().rev().zip(0..passed).for_each(|(events, _)| *events = 0);
        self.current = self.current.max(tenth);
        self.last_ten[9] += 1;
        self.most = self.most.max(self.last_ten.iter().sum());
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            events: 0,
            repeats: 0,
            replayed: 0,
            replayed_again: 0,
            first: 0,
            last: 0,
            from_call: histogram(),
            from_outcome: histogram(),
            connections: 0,
            most_connections: 0,
            tenths: Tenths::default(),
            queues: HashMap::new(),
        }
    }
}

impl Ledger {
    /// Counts each event once.
    pub fn of_events() -> Self {
        Self { known: Some(HashSet::new()), ..Self::default() }
    }

    /// Notes a connection whose first request is of this group.
    pub fn connect(&mut self, group: &str) {
        let counts = self.group(group);
        counts.connections += 1;
        counts.most_connections = counts.most_connections.max(counts.connections);
    }

    /// Notes its end.
    pub fn disconnect(&mut self, group: &str) {
        let counts = self.group(group);
        counts.connections = counts.connections.saturating_sub(1);
    }

    fn group(&mut self, name: &str) -> &mut Counts {
        if !self.groups.contains_key(name) {
            self.groups.insert(name.to_owned(), Counts::default());
        }
        self.groups.get_mut(name).expect("it was just put there")
    }

    /// Notes an event that has come.
    pub fn add(&mut self, group: &str, queue: Option<usize>, headers: &HeaderMap, body: &Bytes, now: u64) {
        if self.sample.is_none() {
            self.sample = Some(sample(headers, body));
        }
        let id = headers.get("webhook-id").map(hash);
        if headers.contains_key(REPLAY_MARK) {
            let is_first = id.is_none_or(|id| self.replayed.insert(id));
            let counts = self.group(group);
            *(if is_first { &mut counts.replayed } else { &mut counts.replayed_again }) += 1;
            return;
        }
        let is_known = match (&mut self.known, id) {
            (Some(known), Some(id)) => !known.insert(id),
            _ => false,
        };
        match is_known {
            true => self.group(group).repeats += 1,
            false => self.group(group).add(queue, body, now),
        }
    }

    /// Begins all counts again. Connections stay what they are, and events that come again stay repeats; a replay that
    /// comes after this is another one.
    pub fn reset(&mut self) {
        self.replayed.clear();
        for counts in self.groups.values_mut() {
            let connections = counts.connections;
            *counts = Counts { connections, most_connections: connections, ..Counts::default() };
        }
    }

    /// All of it.
    pub fn seen(&self) -> Seen {
        let groups = self.groups.iter().map(|(name, counts)| (name.clone(), counts.told())).collect();
        Seen { groups, sample: self.sample.clone().unwrap_or_default() }
    }
}

/// What tells a replay from the delivery before it.
const REPLAY_MARK: &str = "esito-replay";

fn hash(id: &http::HeaderValue) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.as_bytes().hash(&mut hasher);
    hasher.finish()
}

fn sample(headers: &HeaderMap, body: &Bytes) -> Sample {
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Sample { headers, body: String::from_utf8_lossy(body).into_owned() }
}

impl Counts {
    fn add(&mut self, queue: Option<usize>, body: &[u8], now: u64) {
        if self.events == 0 {
            self.first = now;
        }
        self.events += 1;
        self.last = now;
        self.tenths.add(now);
        if let Some(called) = called_at(body) {
            self.from_call.saturating_record(now.saturating_sub(called).max(1));
        }
        if let Some(waited) = since_outcome(body, now) {
            self.from_outcome.saturating_record(waited.max(1));
            if let Some(queue) = queue {
                let wait = self.queues.entry(queue).or_default();
                *wait = Wait { events: wait.events + 1, micros: wait.micros + waited };
            }
        }
    }

    fn told(&self) -> Group {
        Group {
            events: self.events,
            repeats: self.repeats,
            replayed: self.replayed,
            replayed_again: self.replayed_again,
            first: self.first,
            last: self.last,
            from_call: Percentiles::of(&self.from_call),
            from_outcome: Percentiles::of(&self.from_outcome),
            most_connections: self.most_connections,
            most_in_a_second: self.tenths.most,
            queues: (self.queues.len() > 1).then(|| waits(self.queues.values())),
        }
    }
}

fn waits<'a>(queues: impl Iterator<Item = &'a Wait>) -> Waits {
    let mut means = histogram();
    queues.for_each(|wait| means.saturating_record((wait.micros / wait.events.max(1)).max(1)));
    Waits { queues: means.len(), mean_ms: Percentiles::of(&means) }
}

/// When the call was to be made that this event is about: its request id, the first of the body's keys, says so.
fn called_at(body: &[u8]) -> Option<u64> {
    let head = std::str::from_utf8(body.get(..80)?).ok()?;
    let digits = head.split_once(REQUEST_ID_PREFIX)?.1;
    digits.split('-').next()?.parse().ok()
}

const DAY_MICROS: u64 = 86_400_000_000;

/// How long ago the outcome was that this event is about: `…T11:06:40.500Z` in one of the body's last keys.
fn since_outcome(body: &[u8], now: u64) -> Option<u64> {
    const KEY: &[u8] = br#"deliveryTimestamp":""#;
    let at = body.windows(KEY.len()).rposition(|window| window[0] == KEY[0] && window == KEY)?;
    let time = std::str::from_utf8(body.get(at + KEY.len() + 11..)?.get(..12)?).ok()?;
    let number = |digits: &str| digits.parse::<u64>().ok();
    let (hours, minutes) = (number(&time[..2])?, number(&time[3..5])?);
    let (seconds, millis) = (number(&time[6..8])?, number(&time[9..])?);
    let in_day = (((hours * 60 + minutes) * 60 + seconds) * 1000 + millis) * 1000;
    // A moment of the future is one of yesterday: the event came after midnight.
    Some((now % DAY_MICROS + DAY_MICROS - in_day) % DAY_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"requestId":"bench-1700000000000000-7","imsOrg":"default@EsitoOrg","sandbox":{"id":"x","name":"y"},"messageDeliveryFeedback":{"retryCount":0,"deliveryTimestamp":"2023-11-14T22:13:20.250Z"},"identityMap":{}}"#;

    #[test]
    fn an_event_tells_its_call_and_its_outcome() {
        assert_eq!(called_at(BODY.as_bytes()), Some(1_700_000_000_000_000));
        assert_eq!(since_outcome(BODY.as_bytes(), 1_700_000_000_300_400), Some(50_400));
        assert_eq!(since_outcome(b"{}", 1), None);
        let late = BODY.replace("22:13:20.250", "23:59:59.999");
        assert_eq!(since_outcome(late.as_bytes(), DAY_MICROS + 2_000), Some(3_000));
    }

    #[test]
    fn counts_by_group_and_queue() {
        let mut ledger = Ledger::default();
        let body = Bytes::from(BODY);
        let start = 1_700_000_000_300_000;
        for n in 0..100 {
            let queue = usize::try_from(n % 4).unwrap();
            ledger.add("hook", Some(queue), &HeaderMap::new(), &body, start + n * 20_000);
        }
        let hook = ledger.seen().group("hook");
        assert_eq!((hook.events, hook.first, hook.last), (100, start, start + 99 * 20_000));
        assert_eq!(hook.most_in_a_second, 50);
        assert_eq!(hook.queues.unwrap().queues, 4);
        assert_eq!(ledger.seen().group("other").events, 0);
        ledger.connect("hook");
        ledger.reset();
        let hook = ledger.seen().group("hook");
        assert_eq!((hook.events, hook.most_connections), (0, 1));
    }

    #[test]
    fn an_event_that_comes_again_counts_once() {
        let mut ledger = Ledger::of_events();
        let mut headers = HeaderMap::new();
        for id in ["a", "b", "a"] {
            headers.insert("webhook-id", id.parse().unwrap());
            ledger.add("hook", None, &headers, &Bytes::from(BODY), 1_700_000_000_300_000);
        }
        let hook = ledger.seen().group("hook");
        assert_eq!((hook.events, hook.repeats), (2, 1));
        ledger.reset();
        ledger.add("hook", None, &headers, &Bytes::from(BODY), 1_700_000_000_300_000);
        assert_eq!(ledger.seen().group("hook").repeats, 1);
    }

    #[test]
    fn a_replay_is_no_event_and_no_repeat() {
        let mut ledger = Ledger::of_events();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "a".parse().unwrap());
        let add = |ledger: &mut Ledger, headers: &HeaderMap| {
            ledger.add("hook", None, headers, &Bytes::from(BODY), 1_700_000_000_300_000);
        };
        add(&mut ledger, &headers);
        headers.insert(REPLAY_MARK, "x".parse().unwrap());
        add(&mut ledger, &headers);
        add(&mut ledger, &headers);
        let hook = ledger.seen().group("hook");
        assert_eq!((hook.events, hook.repeats, hook.replayed, hook.replayed_again), (1, 0, 1, 1));
        ledger.reset();
        add(&mut ledger, &headers);
        let hook = ledger.seen().group("hook");
        assert_eq!((hook.events, hook.repeats, hook.replayed, hook.replayed_again), (0, 0, 1, 0));
    }

    #[test]
    fn a_pause_empties_the_second() {
        let mut tenths = Tenths::default();
        (0..5).for_each(|_| tenths.add(1_000_000));
        (0..3).for_each(|_| tenths.add(9_000_000));
        assert_eq!((tenths.most, tenths.last_ten.iter().sum::<u64>()), (5, 3));
    }
}
