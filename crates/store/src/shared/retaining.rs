//! What is old enough to go.

use crate::shared::change::sequence_at;
use crate::work::{Deleted, RetainStep, Retained};
use model::clock::Timestamp;
use model::delivery::StoredDelivery;
use model::ids::MessageKey;

/// A message that may go, as it was seen.
#[derive(Debug)]
pub struct Old {
    pub key: MessageKey,
    pub last_event: Option<i64>,
    /// Something is due for it: a try to send, or an outcome that was planned.
    pub is_due: bool,
    /// Its events, with where their deliveries stand.
    pub events: Vec<(i64, StoredDelivery)>,
}

/// An execution goes as a whole, or stays: nobody sees half of one. It stays while something is due, a delivery has not
/// ended, or its last event is not old enough. `messages` come in the order of their keys, `limit` at most: the last
/// execution may be cut off then. Also returned: the last execution that was looked at.
pub fn choose(messages: Vec<Old>, before: Timestamp, limit: usize) -> (Vec<Vec<Old>>, Option<i64>) {
    let is_cut = messages.len() >= limit;
    let mut executions: Vec<Vec<Old>> = Vec::new();
    for message in messages {
        match executions.last_mut() {
            Some(execution) if execution[0].key.execution == message.key.execution => execution.push(message),
            _ => executions.push(vec![message]),
        }
    }
    if is_cut && executions.len() > 1 {
        executions.pop();
    }
    let seen = executions.last().map(|execution| execution[0].key.execution.number());
    let end = sequence_at(before);
    let may_go = |message: &Old| {
        let ended = |(sequence, delivery): &(i64, StoredDelivery)| *sequence < end && !delivery.is_open();
        !message.is_due && message.events.iter().all(ended)
    };
    executions.retain(|execution| execution.iter().all(may_go));
    (executions, seen.filter(|_| is_cut))
}

/// What came of a step that has deleted these executions.
pub fn deleted(executions: &[Vec<Old>], attempts: u64, next: Option<i64>) -> Retained {
    let messages = executions.iter().flatten();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let deleted = Deleted {
        executions: count(executions.len()),
        messages: count(messages.clone().count()),
        events: messages.map(|message| count(message.events.len())).sum(),
        attempts,
        ..Deleted::default()
    };
    Retained { deleted, next }
}

/// A step that somebody was quicker than: the same once more comes out otherwise.
pub fn again(step: &RetainStep) -> Retained {
    Retained { deleted: Deleted::default(), next: Some(step.after) }
}

/// The first 16 bytes that an id made at this moment or later can have (RFC 9562 section 5.7).
pub fn id_floor(moment: Timestamp) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&u64::try_from(moment.millis()).unwrap_or(0).to_be_bytes()[2..]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ids::ExecutionId;

    fn old(exec: i64, ordinal: u8, events: &[(i64, StoredDelivery)]) -> Old {
        let key = MessageKey { execution: ExecutionId::from_number(exec).unwrap(), ordinal };
        Old { key, last_event: events.last().map(|event| event.0), is_due: false, events: events.to_vec() }
    }

    #[test]
    fn an_execution_goes_as_a_whole() {
        use StoredDelivery::{Blocked, Pending, Succeeded};
        let (before, end) = (Timestamp(1_000), sequence_at(Timestamp(1_000)));
        let gone = |messages, limit| {
            let (gone, seen) = choose(messages, before, limit);
            let ids: Vec<_> = gone.iter().map(|execution| execution[0].key.execution.number()).collect();
            (ids, seen)
        };
        assert_eq!(gone(vec![old(1, 0, &[(5, Succeeded)]), old(1, 1, &[]), old(2, 0, &[])], 9), (vec![1, 2], None));
        assert_eq!(gone(vec![old(1, 0, &[(5, Succeeded)]), old(1, 1, &[(6, Pending)])], 9), (vec![], None));
        assert_eq!(gone(vec![old(1, 0, &[(5, Succeeded), (7, Blocked)])], 9), (vec![], None));
        assert_eq!(gone(vec![old(1, 0, &[(end, Succeeded)]), old(2, 0, &[(end - 1, Succeeded)])], 9), (vec![2], None));
        let due = Old { is_due: true, ..old(1, 0, &[]) };
        assert_eq!(gone(vec![due, old(3, 0, &[])], 9), (vec![3], None));
        // The last one may have more messages than were read.
        assert_eq!(gone(vec![old(1, 0, &[]), old(2, 0, &[])], 2), (vec![1], Some(1)));
    }

    #[test]
    fn ids_of_a_moment_begin_with_it() {
        let floor = id_floor(Timestamp(0x0102_0304_0506));
        assert_eq!((&floor[..6], &floor[6..]), (&[1, 2, 3, 4, 5, 6][..], &[0; 10][..]));
    }
}
