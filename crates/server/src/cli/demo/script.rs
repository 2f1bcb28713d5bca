//! What the demo sends, and what must come of it.

use super::super::receiver::{Answer, Received};
use serde_json::{Value, json};
use std::time::Duration;

/// Where executions go.
pub const PATH: &str = "/ajo/im/executions/unitary";

/// Whose first event is refused once, so that a retry is seen; what follows it has to wait.
const REFUSED: Key<'static> = Key { request_id: "demo-1", recipient: "delivered@simulator.esito.test" };

/// Which event a forgetful receiver forgets.
const FORGOTTEN: Key<'static> = Key { request_id: "demo-3", recipient: "error@simulator.esito.test" };

/// A recipient of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// The execution's request.
    pub request_id: &'a str,
    /// The address.
    pub recipient: &'a str,
}

impl<'a> Key<'a> {
    /// Whom this event is about.
    pub fn of(event: &'a Received) -> Option<Self> {
        Some(Self { request_id: event.text("/requestId")?, recipient: event.recipient()? })
    }
}

/// An execution of the demo.
#[derive(Debug)]
pub struct Execution {
    /// Its request.
    pub request_id: &'static str,
    /// Its recipients.
    pub recipients: &'static [Recipient],
}

/// A recipient, with the outcomes that must come of it, in order.
#[derive(Debug)]
pub struct Recipient {
    /// The address.
    pub address: &'static str,
    /// As [`outcome`] writes them.
    pub outcomes: &'static [&'static str],
}

const fn recipient(address: &'static str, outcomes: &'static [&'static str]) -> Recipient {
    Recipient { address, outcomes }
}

/// All of them, in the order in which they go in.
pub const EXECUTIONS: [Execution; 4] = [
    Execution {
        request_id: "demo-1",
        recipients: &[
            recipient("sent@simulator.esito.test", &["sent"]),
            recipient("delivered@simulator.esito.test", &["sent", "delivered"]),
        ],
    },
    Execution {
        request_id: "demo-2",
        recipients: &[
            recipient("bounce@simulator.esito.test", &["bounce sync Hard/10"]),
            recipient("softbounce@simulator.esito.test", &["bounce sync Soft/22"]),
        ],
    },
    Execution {
        request_id: "demo-3",
        recipients: &[
            recipient("late-bounce@simulator.esito.test", &["sent", "bounce async Hard/10"]),
            recipient("error@simulator.esito.test", &["error sync Ignored/25"]),
        ],
    },
    Execution {
        request_id: "demo-4",
        recipients: &[
            recipient("exclude@simulator.esito.test", &["exclude 050024"]),
            recipient("delay@simulator.esito.test", &["delay", "sent"]),
        ],
    },
];

impl Execution {
    /// The body of its call.
    pub fn body(&self, campaign: &str) -> Value {
        let recipient = |recipient: &Recipient| {
            json!({"type": "external", "userId": recipient.address, "namespace": "email",
                "channelData": {"emailAddress": recipient.address},
                "profile": {"person": {"name": {"firstName": "Jane"}}},
                "context": {"order": "A-1203"}})
        };
        let recipients: Vec<Value> = self.recipients.iter().map(recipient).collect();
        json!({"requestId": self.request_id, "campaignId": campaign, "recipients": recipients})
    }
}

/// What the event says in a few words: `sent`, `bounce sync Hard/10`, `exclude 050024`.
pub fn outcome(event: &Received) -> String {
    let text = |name: &str| event.text(&format!("/messageDeliveryFeedback/{name}"));
    let status = text("feedbackStatus/value").unwrap_or("?");
    if let Some(code) = text("messageExclusion/code") {
        return format!("{status} {code}");
    }
    match (text("messageFailure/category"), text("messageFailure/type"), text("messageFailure/code")) {
        (Some(category), Some(kind), Some(code)) => format!("{status} {category} {kind}/{code}"),
        _ => status.to_owned(),
    }
}

/// What the receiver answers: 503 to one event when it comes for the first time, 200 to all else.
pub fn answer(event: &Received) -> Answer {
    let refuses = event.attempt == 1 && is_refused_once(event);
    Answer { status: if refuses { 503 } else { 200 }, delay: Duration::ZERO, refuses }
}

/// Whether this is the event that is refused when it comes for the first time.
pub fn is_refused_once(event: &Received) -> bool {
    Key::of(event) == Some(REFUSED) && outcome(event) == "sent"
}

/// Whether a forgetful receiver forgets this event.
pub fn is_forgotten(event: &Received) -> bool {
    Key::of(event) == Some(FORGOTTEN)
}
