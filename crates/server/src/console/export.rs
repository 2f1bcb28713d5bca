//! Lists as files: what a list shows with its filters, all of it, read from the API page by page as fast as it is taken.
//!
//! NDJSON has the API's items as they are. CSV (RFC 4180) has the columns below: those of the API's fields, flat. A text
//! that a spreadsheet would take for a formula begins with an apostrophe there.

use super::Console;
use super::asked::Asked;
use super::inside::{LARGEST_PAGE, List, Place, Refusal};
use super::page::Visit;
use crate::api::auth::Caller;
use crate::event_body::recipient_of;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt as _};
use http::{StatusCode, header};
use serde_json::Value;
use std::sync::Arc;

/// A list that can be had as a file.
#[derive(Debug)]
pub struct Exported {
    /// What it is called in the file's name.
    name: &'static str,
    /// Where the API has it.
    path: &'static str,
    columns: &'static [(&'static str, Cell)],
}

/// What a column has of an item.
#[derive(Clone, Copy, Debug)]
enum Cell {
    /// The value at a place (RFC 6901).
    At(&'static str),
    /// The value at a place in the item's last feedback event.
    OfLast(&'static str),
    /// Whom an event is about.
    Recipient,
    /// How many recipients there are.
    Recipients,
    /// How many of them are in this state.
    Count(&'static str),
}
use Cell::{At, Count, OfLast, Recipient, Recipients};

/// A row for each message.
pub const MESSAGES: Exported = Exported {
    name: "messages",
    path: "/v1/messages",
    columns: &[
        ("id", At("/id")),
        ("executionId", At("/executionId")),
        ("requestId", At("/requestId")),
        ("campaignId", At("/campaignId")),
        ("channel", At("/channel")),
        ("userId", At("/userId")),
        ("namespace", At("/namespace")),
        ("address", At("/address")),
        ("state", At("/state")),
        ("retryCount", At("/retryCount")),
        ("nextTryAt", At("/nextTryAt")),
        ("lastEventId", OfLast("/id")),
        ("lastEventStatus", OfLast("/status")),
        ("lastEventRecordedAt", OfLast("/recordedAt")),
        ("lastDeliveryState", OfLast("/delivery/state")),
    ],
};

/// A row for each execution.
pub const EXECUTIONS: Exported = Exported {
    name: "executions",
    path: "/v1/executions",
    columns: &[
        ("executionId", At("/executionId")),
        ("requestId", At("/requestId")),
        ("campaignId", At("/campaignId")),
        ("campaignVersionId", At("/campaignVersionId")),
        ("channel", At("/channel")),
        ("mode", At("/mode")),
        ("createdAt", At("/createdAt")),
        ("createdBy", At("/createdBy")),
        ("expiresAt", At("/expiresAt")),
        ("recipients", Recipients),
        ("queued", Count("queued")),
        ("handingOver", Count("handing-over")),
        ("sent", Count("sent")),
        ("delivered", Count("delivered")),
        ("bounced", Count("bounced")),
        ("failed", Count("failed")),
        ("excluded", Count("excluded")),
        ("denylisted", Count("denylisted")),
    ],
};

/// A row for each feedback event.
pub const EVENTS: Exported = Exported {
    name: "feedback-events",
    path: "/v1/feedback-events",
    columns: &[
        ("id", At("/id")),
        ("sequence", At("/sequence")),
        ("recordedAt", At("/recordedAt")),
        ("status", At("/status")),
        ("messageId", At("/messageId")),
        ("requestId", At("/event/requestId")),
        ("campaignId", At("/event/messageExecution/campaignID")),
        ("campaignVersionId", At("/event/messageExecution/campaignVersionID")),
        ("channel", At("/event/channel")),
        ("recipient", Recipient),
        ("retryCount", At("/event/messageDeliveryFeedback/retryCount")),
        ("failureCategory", At("/event/messageDeliveryFeedback/messageFailure/category")),
        ("failureType", At("/event/messageDeliveryFeedback/messageFailure/type")),
        ("failureCode", At("/event/messageDeliveryFeedback/messageFailure/code")),
        ("failureReason", At("/event/messageDeliveryFeedback/messageFailure/reason")),
        ("exclusionCode", At("/event/messageDeliveryFeedback/messageExclusion/code")),
        ("exclusionReason", At("/event/messageDeliveryFeedback/messageExclusion/reason")),
        ("deliveryState", At("/delivery/state")),
        ("deliveryAttemptCount", At("/delivery/attemptCount")),
        ("deliveryEndedAt", At("/delivery/endedAt")),
    ],
};

/// A row for each webhook delivery.
pub const DELIVERIES: Exported = Exported {
    name: "deliveries",
    path: "/v1/deliveries",
    columns: &[
        ("id", At("/id")),
        ("state", At("/state")),
        ("blocked", At("/blocked")),
        ("attemptCount", At("/attemptCount")),
        ("nextAttemptAt", At("/nextAttemptAt")),
        ("endedAt", At("/endedAt")),
        ("sequence", At("/feedbackEvent/sequence")),
        ("recordedAt", At("/feedbackEvent/recordedAt")),
        ("status", At("/feedbackEvent/status")),
        ("channel", At("/feedbackEvent/channel")),
        ("messageId", At("/feedbackEvent/messageId")),
        ("executionId", At("/feedbackEvent/executionId")),
        ("requestId", At("/feedbackEvent/requestId")),
        ("campaignId", At("/feedbackEvent/campaignId")),
        ("userId", At("/feedbackEvent/userId")),
        ("address", At("/feedbackEvent/address")),
    ],
};

impl Cell {
    /// The text of this cell for an item; empty where there is none.
    fn of(self, item: &Value) -> String {
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let recipients = || item["recipients"].as_array().into_iter().flatten();
        match self {
            Self::At(place) => text(item.pointer(place)),
            Self::OfLast(place) => {
                let last = item["feedbackEvents"].as_array().and_then(|events| events.last());
                text(last.and_then(|event| event.pointer(place)))
            }
            Self::Recipient => recipient_of(&item["event"]).unwrap_or_default().to_owned(),
            Self::Recipients => recipients().count().to_string(),
            Self::Count(state) => recipients().filter(|message| message["state"] == state).count().to_string(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Csv,
    Ndjson,
}

impl Format {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "csv" => Some(Self::Csv),
            "ndjson" => Some(Self::Ndjson),
            _ => None,
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    /// What comes before the items.
    fn head(self, list: &Exported) -> String {
        match self {
            Self::Csv => row(list.columns.iter().map(|column| column.0.to_owned())),
            Self::Ndjson => String::new(),
        }
    }

    /// A page's items.
    fn lines(self, list: &Exported, items: &[Value]) -> String {
        match self {
            Self::Csv => items.iter().map(|item| row(list.columns.iter().map(|column| column.1.of(item)))).collect(),
            Self::Ndjson => items.iter().map(|item| format!("{item}\n")).collect(),
        }
    }
}

/// A line of CSV (RFC 4180 section 2).
fn row(cells: impl Iterator<Item = String>) -> String {
    let mut line = cells.map(|cell| quoted(&harmless(cell))).collect::<Vec<_>>().join(",");
    line.push_str("\r\n");
    line
}

/// What a spreadsheet does not take for a formula (OWASP, CSV Injection).
fn harmless(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell }
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

/// The most files that are written at once: each reads the store as fast as it can.
pub const MOST: usize = 4;

/// The file of a list: all pages of it, from the first on, which is there already. Each further page is asked for when
/// the one before was taken; where one cannot be had the body breaks, so that nobody takes a part for the whole.
fn body<F>(
    list: &'static Exported,
    format: Format,
    first: List<Value>,
    ask: impl Fn(String) -> F + Send + 'static,
) -> Body
where
    F: Future<Output = Result<List<Value>, Refusal>> + Send + 'static,
{
    let beginning = format.head(list) + &format.lines(list, &first.items);
    let beginning = Ok::<_, std::io::Error>(Bytes::from(beginning));
    let rest = stream::try_unfold(first.next, move |cursor| {
        let page = cursor.map(&ask);
        async move {
            let Some(page) = page else { return Ok(None) };
            let page = page.await.map_err(|refusal| {
                let Refusal { status, detail, .. } = refusal;
                tracing::warn!(list = list.name, %status, detail, "an export was broken off");
                std::io::Error::other(detail)
            })?;
            Ok(Some((Bytes::from(format.lines(list, &page.items)), page.next)))
        }
    });
    Body::from_stream(stream::iter([beginning]).chain(rest))
}

/// A page of a list. The key is looked at anew with each, so that a revocation ends an export too; and no export holds
/// the end of the program up.
async fn page(console: &Console, place: &Place, list: &Exported, query: &str) -> Result<List<Value>, Refusal> {
    if console.api.is_stopping() {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the program is about to end"));
    }
    let caller = Caller::of_id(&console.api, place.caller.key.id).await?;
    let place = Place { caller, ..place.clone() };
    console.inside.get(&place, &format!("{}?{query}", list.path)).await
}

/// Answers with a list as a file.
pub async fn export(
    State(console): State<Arc<Console>>,
    visit: Visit,
    list: &'static Exported,
) -> Result<Response, Response> {
    let Visit { frame, place, .. } = visit;
    let asked = Asked::of(&frame.path);
    let format = Format::parse(asked.text("format"));
    let format = format.ok_or_else(|| frame.trouble(&Refusal::new(StatusCode::NOT_FOUND, "format=csv|ndjson")))?;
    let busy = |_| frame.trouble(&Refusal::new(StatusCode::TOO_MANY_REQUESTS, frame.t("exports-busy")));
    let permit = Arc::clone(&console.exports).try_acquire_owned().map_err(busy)?;
    let limit = LARGEST_PAGE.to_string();
    let first = page(&console, &place, list, &asked.query(&limit, "")).await;
    let first = first.map_err(|refusal| frame.trouble(&refusal))?;
    let day = frame.now.to_string().chars().take(10).collect::<String>();
    let name = format!("esito-{}-{}-{day}.{}", list.name, place.sandbox, format.extension());
    // The place is given back when the file has ended, or its client is gone.
    let shared = Arc::new((console, place, asked, permit));
    let body = body(list, format, first, move |cursor| {
        let (shared, query) = (Arc::clone(&shared), shared.2.query(&limit, &cursor));
        async move { page(&shared.0, &shared.1, list, &query).await }
    });
    let disposition = format!("attachment; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, format.media_type().to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use serde_json::json;

    #[test]
    fn cells_are_quoted_and_harmless() {
        let cells = ["a", "", "a,b", "say \"x\"", "two\r\nlines", "=cmd()", "+39 02", "-1", "@x", "\tx", "\rx", "a=b"];
        let line = row(cells.into_iter().map(str::to_owned));
        assert_eq!(line, "a,,\"a,b\",\"say \"\"x\"\"\",\"two\r\nlines\",'=cmd(),'+39 02,'-1,'@x,'\tx,\"'\rx\",a=b\r\n");
    }

    #[test]
    fn executions_have_their_counts_and_messages_their_last_event() {
        let execution =
            json!({"requestId": "r", "recipients": [{"state": "sent"}, {"state": "bounced"}, {"state": "sent"}]});
        let lines = Format::Csv.lines(&EXECUTIONS, &[execution]);
        assert_eq!(lines, ",r,,,,,,,,3,0,0,2,0,1,0,0,0\r\n");
        let events = json!([{"status": "sent"}, {"status": "bounce", "delivery": {"state": "failing"}}]);
        let lines = Format::Csv.lines(&MESSAGES, &[json!({"retryCount": 0, "feedbackEvents": events})]);
        assert_eq!(lines, ",,,,,,,,,0,,,bounce,,failing\r\n");
    }

    #[test]
    fn events_have_their_recipient_and_why_they_failed() {
        let identities = json!({"crm": [{"id": "77", "primary": false}], "email": [{"id": "a@b.c", "primary": true}]});
        let failure = json!({"category": "sync", "type": "Hard", "code": "10", "reason": "550, no \"such\" user"});
        let feedback = json!({"retryCount": 2, "messageFailure": failure, "messageExclusion": null});
        let event = json!({"requestId": "r", "identityMap": identities, "messageDeliveryFeedback": feedback});
        let lines = Format::Csv.lines(&EVENTS, &[json!({"sequence": 7, "event": event, "delivery": null})]);
        assert_eq!(lines, ",7,,,,r,,,,a@b.c,2,sync,Hard,10,\"550, no \"\"such\"\" user\",,,,,\r\n");
    }

    fn list(item: u32, next: Option<&str>) -> List<Value> {
        List { items: vec![json!({ "id": item })], next: next.map(str::to_owned) }
    }

    #[tokio::test]
    async fn all_pages_are_in_it() {
        let ask = async |cursor: String| {
            Ok(if cursor == "2" { list(2, Some("3")) } else { List { items: Vec::new(), ..list(3, None) } })
        };
        let whole = body(&MESSAGES, Format::Ndjson, list(1, Some("2")), ask).collect().await.unwrap().to_bytes();
        assert_eq!(whole, "{\"id\":1}\n{\"id\":2}\n");
    }

    #[tokio::test]
    async fn a_page_that_cannot_be_had_breaks_it() {
        let ask = async |_| Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer"));
        let mut body = body(&MESSAGES, Format::Csv, list(1, Some("2")), ask);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"id,executionId,") && first.ends_with(b"\r\n1,,,,,,,,,,,,,,\r\n"));
        assert!(body.frame().await.unwrap().is_err(), "nobody takes it for whole");
    }
}
