//! What the callers are told, and what they tell when they are done.

use super::report::Percentiles;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What to call, and how fast.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What is called.
    pub work: Work,
    /// How fast.
    pub pace: Pace,
    /// Authorities to trust besides the system's, as PEM.
    pub ca_file: Option<String>,
}

/// What is called.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// The same request again and again.
    Post(Post),
    /// Executions to the API.
    Execute(Execute),
}

/// A request to repeat.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// Its headers, as they came at the endpoint.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

/// Executions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Execute {
    /// The server.
    pub base: String,
    /// The API key.
    pub key: String,
    /// Whose campaigns, in turn.
    pub targets: Vec<Target>,
    /// Recipients of each execution.
    pub recipients: Recipients,
}

/// A sandbox with a live campaign.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// Its name.
    pub sandbox: String,
    /// The campaign's id.
    pub campaign: String,
    /// Which of the endpoint's groups its events go to.
    pub group: String,
}

/// How many recipients an execution has.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Recipients {
    /// Always this many.
    Exactly(u64),
    /// From 1 to this many, all equally likely.
    UpTo(u64),
}

impl Recipients {
    /// Those of the `n`th execution.
    pub fn of(self, n: u64) -> u64 {
        match self {
            Self::Exactly(recipients) => recipients,
            Self::UpTo(most) => 1 + scramble(n) % most.max(1),
        }
    }
}

/// splitmix64: numbers that look random and are the same in every run.
fn scramble(n: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How fast.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Pace {
    /// Each caller calls again when it has its answer.
    Closed {
        /// How many callers.
        callers: usize,
        /// Until so many events are on their way,
        events: u64,
        /// or so much time is over.
        seconds: f64,
    },
    /// Each call has its time, whatever became of the ones before: what waits behind a slow one counts as late.
    Open {
        /// How many events a second.
        events_per_second: f64,
        /// How many in all.
        events: u64,
    },
}

/// What the callers tell.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Requests answered with success.
    pub requests: u64,
    /// Events on their way, by group.
    pub events: BTreeMap<String, u64>,
    /// Other answers, by what they were.
    pub failed: BTreeMap<String, u64>,
    /// From the first call to the last answer.
    pub seconds: f64,
    /// The callers' processor time.
    pub cpu_micros: f64,
    /// From the intended time of a call to its answer.
    pub answer_ms: Percentiles,
    /// How late the calls themselves were, at most.
    pub latest_call_ms: f64,
}

impl Done {
    /// Events on their way to a group.
    pub fn of(&self, group: &str) -> u64 {
        self.events.get(group).copied().unwrap_or_default()
    }

    /// All events on their way.
    pub fn all(&self) -> u64 {
        self.events.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_from_one_to_the_most() {
        let drawn: Vec<u64> = (0..10_000).map(|n| Recipients::UpTo(20).of(n)).collect();
        assert!((1..=20).all(|size| drawn.contains(&size)) && drawn.iter().all(|size| (1..=20).contains(size)));
        let sum: u64 = drawn.iter().sum();
        assert!((100_000..110_000).contains(&sum), "the mean is 10.5: {sum}");
    }
}
