//! What came, held against what had to come.

use super::super::receiver::Received;
use super::script::{EXECUTIONS, Key, Recipient, is_forgotten, is_refused_once, outcome};
use std::time::Duration;

/// What came so far.
#[derive(Debug)]
pub struct Ledger {
    stories: Vec<Story>,
    /// The id of the event that was refused.
    refused: Option<String>,
    /// What came, but should not have, or not so.
    faults: Vec<String>,
    forgetful: bool,
}

/// What came of one recipient.
#[derive(Debug)]
struct Story {
    request_id: &'static str,
    recipient: &'static Recipient,
    came: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    webhook_id: String,
    outcome: String,
}

impl Ledger {
    /// An empty one; a forgetful one misses an event.
    pub fn new(forgetful: bool) -> Self {
        let stories = EXECUTIONS.iter().flat_map(|execution| {
            let story = |recipient| Story { request_id: execution.request_id, recipient, came: Vec::new() };
            execution.recipients.iter().map(story)
        });
        Self { stories: stories.collect(), refused: None, faults: Vec::new(), forgetful }
    }

    /// Whether this event is not recorded although it was answered 200.
    pub fn forgets(&self, event: &Received) -> bool {
        self.forgetful && is_forgotten(event)
    }

    /// Records an event.
    pub fn record(&mut self, event: &Received) {
        if let Err(fault) = self.try_record(event) {
            let who = event.recipient().unwrap_or("nobody");
            self.faults.push(format!("{} of {who} {fault}", outcome(event)));
        }
    }

    fn try_record(&mut self, event: &Received) -> Result<(), String> {
        if !event.is_verified() {
            return Err(format!("was not verified: {}", event.faults.join("; ")));
        }
        let webhook_id = event.webhook_id.clone().ok_or("has no webhook-id")?;
        if event.refused {
            self.refused = Some(webhook_id);
            return Ok(());
        }
        if is_refused_once(event) && self.refused.as_ref() != Some(&webhook_id) {
            return Err("was retried with another webhook-id".to_owned());
        }
        let story = Key::of(event).and_then(|key| self.stories.iter_mut().find(|story| story.is_of(key)));
        let story = story.ok_or("was not asked for")?;
        if story.came.iter().any(|entry| entry.webhook_id == webhook_id) {
            return Err("came again although it was answered 200".to_owned());
        }
        story.came.push(Entry { webhook_id, outcome: outcome(event) });
        Ok(())
    }

    /// Whether as many events came of every recipient as have to.
    pub fn is_complete(&self) -> bool {
        self.stories.iter().all(|story| story.came.len() >= story.recipient.outcomes.len())
    }

    /// How it went, `after` this long; an error where it did not go exactly as it had to.
    pub fn verdict(&self, after: Duration) -> Result<String, String> {
        let faults: Vec<String> =
            self.stories.iter().flat_map(Story::faults).chain(self.faults.iter().cloned()).collect();
        let expected: usize = self.stories.iter().map(|story| story.recipient.outcomes.len()).sum();
        let missing: usize = self.stories.iter().map(|story| story.missing().len()).sum();
        let count = format!("{} of {expected} events came", expected - missing);
        if faults.is_empty() {
            let seconds = after.as_secs_f32();
            return Ok(format!(
                "{count}, all verified, each once and in order; one after a 503, with the same webhook-id. {seconds:.1} s."
            ));
        }
        let faults: String = faults.iter().map(|fault| format!("\n  {fault}")).collect();
        Err(format!("{count}; not as they had to:{faults}"))
    }
}

impl Story {
    fn is_of(&self, key: Key<'_>) -> bool {
        key == Key { request_id: self.request_id, recipient: self.recipient.address }
    }

    fn outcomes(&self) -> Vec<&str> {
        self.came.iter().map(|entry| entry.outcome.as_str()).collect()
    }

    fn missing(&self) -> Vec<&str> {
        without(self.recipient.outcomes, &self.outcomes())
    }

    fn faults(&self) -> Vec<String> {
        let (came, expected) = (self.outcomes(), self.recipient.outcomes);
        let told = |what: &str, outcomes: &[&str]| {
            outcomes
                .iter()
                .map(|one| format!("{what}: {one} of {}, {}", self.recipient.address, self.request_id))
                .collect()
        };
        let (missing, surplus): (Vec<String>, Vec<String>) =
            (told("missing", &self.missing()), told("not expected", &without(&came, expected)));
        if missing.is_empty() && surplus.is_empty() && came != expected {
            return told("out of order", &[came.join(" before ").as_str()]);
        }
        [missing, surplus].concat()
    }
}

/// What is in `all` beyond what is in `part`, each as often as it is there too often.
fn without<'a>(all: &[&'a str], part: &[&str]) -> Vec<&'a str> {
    let mut rest = all.to_vec();
    for one in part {
        if let Some(index) = rest.iter().position(|other| other == one) {
            rest.remove(index);
        }
    }
    rest
}

#[cfg(test)]
mod tests;
