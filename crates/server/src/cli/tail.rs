//! `esito tail`.

use super::client::{HttpClient, Lines, Remote, refusal};
use super::{Failure, Outcome, print_line};
use crate::event_body::recipient_of;
use http::{Method, StatusCode};
use model::ids::CampaignId;
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

/// How long an answer may take to begin.
const LIMIT: Duration = Duration::from_secs(30);
/// The server says something at least every 15 s: after a longer silence the connection is taken for dead.
const SILENCE: Duration = Duration::from_secs(45);
/// The pauses between tries to reach a server that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The arguments of `esito tail`.
#[derive(Debug, clap::Args)]
pub struct Tail {
    #[command(flatten)]
    remote: Remote,
    /// With this status, such as bounce
    #[arg(long)]
    status: Option<String>,
    /// Of this campaign
    #[arg(long, value_name = "UUID")]
    campaign: Option<CampaignId>,
    /// With this requestId
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// About this address or userId
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// Of this channel: email or sms
    #[arg(long)]
    channel: Option<String>,
    /// From this place in the feed on, the `sequence` of an event; 0 is the beginning [default: what comes from now on]
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    /// Ends after N events
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Prints one JSON object a line, as the API reads an event
    #[arg(long)]
    json: bool,
}

/// How a stream ended.
enum End {
    /// As many came as were asked for.
    Enough,
    /// The connection was lost.
    Lost(String),
}

/// How far it has come.
struct Seen {
    events: usize,
    /// The place of the last one.
    place: Option<String>,
}

impl Tail {
    /// Prints events as they are recorded, until a signal or as many as were asked for. A server that is away for a while
    /// ends nothing: what it records meanwhile comes when it is back.
    pub async fn run(self) -> Outcome {
        tokio::select! {
            ended = self.follow() => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }

    async fn follow(&self) -> Outcome {
        let client = self.remote.client()?;
        let (mut seen, mut pause) = (Seen { events: 0, place: None }, FIRST_PAUSE);
        loop {
            let before = seen.place.clone();
            let why = match self.stream(&client, &mut seen).await? {
                End::Enough => return Ok(()),
                End::Lost(why) => why,
            };
            if before != seen.place {
                pause = FIRST_PAUSE;
            }
            eprintln!("esito: {why}; trying again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows one connection. An error is one that trying again does not mend.
    async fn stream(&self, client: &HttpClient, seen: &mut Seen) -> Result<End, Failure> {
        let mut request = self.remote.request(Method::GET, &self.path(), None)?;
        if let Some(value) = seen.place.as_deref().and_then(|place| place.parse().ok()) {
            request.headers_mut().insert("last-event-id", value);
        }
        let answer = match client.open(request, LIMIT).await {
            Ok(answer) => answer,
            // The first time nobody is there it may well be the wrong address.
            Err(why) if seen.place.is_none() => return Err(Failure::new(why)),
            Err(why) => return Ok(End::Lost(why)),
        };
        let status = answer.status();
        let mut lines = Lines::new(answer.into_body());
        if status != StatusCode::OK {
            let why = refusal(status, &lines.rest().await);
            let passes = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            return if passes { Ok(End::Lost(why)) } else { Err(Failure::new(why)) };
        }
        let (mut id, mut data) = (None, None);
        loop {
            let line = match tokio::time::timeout(SILENCE, lines.next()).await {
                Ok(Ok(Some(line))) => line,
                Ok(Ok(None)) => return Ok(End::Lost("the server ended the stream".to_owned())),
                Ok(Err(why)) => return Ok(End::Lost(why)),
                Err(_) => return Ok(End::Lost(format!("nothing came for {} s", SILENCE.as_secs()))),
            };
            // What the server writes has one line of data an item (WHATWG HTML section 9.2.6 allows several).
            match line.split_once(':').map(|(field, value)| (field, value.strip_prefix(' ').unwrap_or(value))) {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("data", value)) => data = Some(value.to_owned()),
                _ if line.is_empty() => {
                    if let Some(data) = data.take() {
                        self.show(&data)?;
                        seen.events += 1;
                    }
                    seen.place = id.take().or(seen.place.take());
                    if self.count == Some(seen.events) {
                        return Ok(End::Enough);
                    }
                }
                _ => {}
            }
        }
    }

    fn path(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new("/v1/feedback-events/stream?".to_owned());
        let texts = [
            ("status", self.status.clone()),
            ("campaignId", self.campaign.map(|id| id.to_string())),
            ("requestId", self.request_id.clone()),
            ("recipient", self.recipient.clone()),
            ("channel", self.channel.clone()),
            ("after", self.after.map(|place| place.to_string())),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                query.append_pair(name, &text);
            }
        }
        query.finish().trim_end_matches('?').to_owned()
    }

    fn show(&self, data: &str) -> Outcome {
        if self.json {
            return print_line(data);
        }
        let item: Value = serde_json::from_str(data).map_err(|error| Failure::new(error.to_string()))?;
        print_line(&line_of(&item))
    }
}

/// An event in one line: when, what, to whom, of which request, and why. Nothing in it reaches the terminal as a command.
fn line_of(item: &Value) -> String {
    let event = &item["event"];
    let recipient = recipient_of(event).unwrap_or("-");
    let feedback = &event["messageDeliveryFeedback"];
    let why = |value: &Value| value["reason"].as_str().map(|reason| format!("  {reason}"));
    let reason = why(&feedback["messageFailure"]).or_else(|| why(&feedback["messageExclusion"])).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = format!(
        "{}  {:<9}  {recipient}  {}{reason}",
        text(&item["recordedAt"]),
        text(&item["status"]),
        text(&event["requestId"])
    );
    line.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_tells_what_became_of_whom_and_commands_no_terminal() {
        let item = json!({"recordedAt": "2026-03-01T08:00:00.000Z", "status": "bounce", "event": {
            "requestId": "r-1", "identityMap": {"crm": [{"id": "42", "primary": false}],
                "email": [{"id": "jane@example.com", "primary": true}]},
            "messageDeliveryFeedback": {"messageFailure": {"reason": "550 \u{1b}[31mno\nsuch user"}}}});
        assert_eq!(
            line_of(&item),
            "2026-03-01T08:00:00.000Z  bounce     jane@example.com  r-1  550 \u{fffd}[31mno\u{fffd}such user"
        );
    }
}
