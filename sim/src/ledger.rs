//! What callers, operators, endpoints and the relay know: the other side of what the store says.

use crate::world::{Stand, Tenant};
use model::clock::Timestamp;
use model::ids::{EventId, ExecutionId, MessageKey, Shard};
use std::collections::{BTreeMap, BTreeSet};

/// What was seen from outside.
#[derive(Debug)]
pub struct Ledger {
    /// The executions that were acknowledged.
    pub executions: BTreeMap<ExecutionId, Execution>,
    /// The execution of each requestId.
    pub requests: BTreeMap<String, ExecutionId>,
    /// Every webhook's life, by its number.
    pub webhooks: Vec<WebhookLife>,
    /// Deliveries that somebody asked to cancel.
    pub cancel_asked: BTreeSet<EventId>,
    /// Messages with a delivery that somebody asked to retry.
    pub retried: BTreeSet<MessageKey>,
    /// Sandboxes whose events are replayed.
    pub replayed: BTreeSet<usize>,
    /// What came in at endpoints.
    pub arrivals: BTreeMap<EventId, Vec<Arrival>>,
    /// The requests of each process to each webhook.
    pub load: BTreeMap<(usize, usize), Vec<Request>>,
    /// The times that a message was about to be handed over.
    pub openings: BTreeMap<MessageKey, Vec<Opening>>,
    /// How often a message was mailed.
    pub mailed: BTreeMap<MessageKey, u32>,
    /// Who owns each shard since when, as far as processes were told.
    pub owners: BTreeMap<Shard, Owner>,
    /// When a webhook was last about to be held, by sandbox: by hand or by its answer 410.
    pub hold_asked: BTreeMap<usize, Timestamp>,
    /// From when to when a webhook was held for certain, by sandbox.
    pub holds: BTreeMap<usize, Vec<(Timestamp, Option<Timestamp>)>>,
    /// The last pause that an endpoint asked a process for, by process and webhook: from when, until when.
    pub pauses: BTreeMap<(usize, usize), (Timestamp, Timestamp)>,
    /// When the processes were last told of a change to a webhook, by sandbox: it ends a pause.
    pub told: BTreeMap<usize, Timestamp>,
    /// Sandboxes whose webhook was drained.
    pub drained: BTreeSet<usize>,
    /// When sending was last paused, by sandbox, until it was resumed.
    pub channels_paused: BTreeMap<usize, Timestamp>,
    /// Sandboxes where somebody asked to pause sending, and nobody to resume it.
    pub channels_pause_asked: BTreeSet<usize>,
    /// Crashes and takeovers so far: each may make what was under way happen again.
    pub upsets: u32,
    /// The first process of the present life.
    pub first_of_life: usize,
    /// Times that a process took shards over from another that was still there.
    pub takeovers: usize,
    /// What answers were, counted by status; 0: none.
    pub answers: BTreeMap<u16, u32>,
}

/// An execution that was acknowledged.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Whose.
    pub sandbox: usize,
    /// The caller's id.
    pub request_id: String,
    /// To whom.
    pub addresses: Vec<String>,
    /// Whether it may expire.
    pub expires: bool,
}

/// From when to when a webhook was there.
#[derive(Clone, Debug, Default)]
pub struct WebhookLife {
    /// It was asked for.
    pub asked: Option<Timestamp>,
    /// It was made for certain.
    pub made: Option<Timestamp>,
    /// Its end was asked for.
    pub end_asked: Option<Timestamp>,
    /// It was gone for certain.
    pub ended: Option<Timestamp>,
}

/// A request at an endpoint.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When it was taken.
    pub at: Timestamp,
    /// When its attempt began, by its own header: to the second.
    pub began: Timestamp,
    /// The process.
    pub process: usize,
    /// A digest of the body.
    pub body: u64,
    /// What was answered, once it was.
    pub answered: Option<u16>,
    /// The least pause that the answer asked for, in seconds.
    pub asked_pause: u64,
    /// How many upsets there had been.
    pub upsets: u32,
}

/// How long a request kept an endpoint busy.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// From.
    pub from: Timestamp,
    /// Until; none: it has not ended.
    pub until: Option<Timestamp>,
    /// On which connection.
    pub line: u64,
    /// Whether it says when its attempt began: not so the second one of an attempt whose connection broke, and one whose
    /// connection took long to open.
    pub is_rated: bool,
}

/// A message that was about to be handed over.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Whether the relay said for certain that it did not take it.
    pub is_resolved: bool,
}

/// Who owns a shard.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The process.
    pub process: usize,
    /// The epoch.
    pub epoch: u64,
    /// Since when at the latest.
    pub since: Timestamp,
}

impl Ledger {
    /// Whether an event of this message that has ended may come again.
    pub fn comes_again(&self, sandbox: usize, message: MessageKey) -> bool {
        self.replayed.contains(&sandbox) || self.retried.contains(&message)
    }

    /// An empty ledger.
    pub fn new(webhooks: usize) -> Self {
        Self {
            executions: BTreeMap::new(),
            requests: BTreeMap::new(),
            webhooks: vec![WebhookLife::default(); webhooks],
            cancel_asked: BTreeSet::new(),
            retried: BTreeSet::new(),
            replayed: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            load: BTreeMap::new(),
            openings: BTreeMap::new(),
            mailed: BTreeMap::new(),
            owners: BTreeMap::new(),
            hold_asked: BTreeMap::new(),
            holds: BTreeMap::new(),
            pauses: BTreeMap::new(),
            told: BTreeMap::new(),
            drained: BTreeSet::new(),
            channels_paused: BTreeMap::new(),
            channels_pause_asked: BTreeSet::new(),
            upsets: 0,
            first_of_life: 0,
            takeovers: 0,
            answers: BTreeMap::new(),
        }
    }

    /// A webhook is held from now on.
    pub fn begin_hold(&mut self, sandbox: usize, now: Timestamp) {
        let holds = self.holds.entry(sandbox).or_default();
        if holds.last().is_none_or(|(_, until)| until.is_some()) {
            holds.push((now, None));
        }
    }

    /// A webhook may be held no more.
    pub fn end_hold(&mut self, sandbox: usize, now: Timestamp) {
        if let Some((_, until)) = self.holds.get_mut(&sandbox).and_then(|holds| holds.last_mut()) {
            until.get_or_insert(now);
        }
    }

    /// For how long a webhook was held between these moments, at least; in milliseconds.
    pub fn held_ms(&self, sandbox: usize, from: Timestamp, until: Timestamp) -> i64 {
        let overlap = |(begin, end): &(Timestamp, Option<Timestamp>)| {
            let end = end.map_or(until, |end| end.min(until));
            (end.millis() - (*begin).max(from).millis()).max(0)
        };
        self.holds.get(&sandbox).map_or(0, |holds| holds.iter().map(overlap).sum())
    }

    /// The owner of a tenant's shard.
    pub fn owner(&self, tenant: &Tenant) -> Option<Owner> {
        self.owners.get(&tenant.shard).copied()
    }

    /// Ends every request that is under way, on this connection or on all: the other side is gone.
    pub fn end_requests(&mut self, line: Option<u64>, now: Timestamp) {
        let all = self.load.values_mut().flatten();
        for request in all.filter(|request| line.is_none_or(|line| line == request.line)) {
            request.until.get_or_insert(now);
        }
    }
}

/// A process, as the rest of the world knows it.
#[derive(Debug)]
pub struct ProcessState {
    /// Its number.
    pub number: usize,
    /// Whether it stands still.
    pub stand: Stand,
}
