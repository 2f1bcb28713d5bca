//! The live view: feedback events as they are recorded.

use super::Console;
use super::asked::Asked;
use super::inside::List;
use super::page::{EVENTS, Frame, Visit, encoded, show};
use super::search::Event;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

const PATH: &str = "/v1/feedback-events";

#[derive(Template)]
#[template(path = "live.html")]
struct Live {
    f: Frame,
    asked: Asked,
    /// The latest events, for browsers without scripts too.
    list: List<Event>,
}

impl Live {
    fn events(&self) -> [&'static str; 7] {
        EVENTS
    }

    /// The place in the feed after which what comes is new to this page; none: from now on.
    fn place(&self) -> Option<i64> {
        self.list.items.first().map(|event| event.sequence)
    }

    /// Where the events come from that are recorded after this page was made.
    fn stream(&self) -> String {
        let mut path = format!("{}?", self.f.to("live/stream"));
        if let Some(place) = self.place() {
            path += &format!("after={place}&");
        }
        path + &only(&self.asked)
    }
}

/// The filter of the page, for the API.
fn only(asked: &Asked) -> String {
    match asked.text("status") {
        "" => String::new(),
        status => format!("status={}", encoded(status)),
    }
}

/// The latest events, which the page's script goes on with.
pub async fn page(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let asked = Asked::of(&visit.frame.path);
    let list = visit.get(&console, &format!("{PATH}?limit=50&{}", only(&asked))).await?;
    Ok(show(StatusCode::OK, &Live { f: visit.frame, asked, list }))
}

/// The API's stream of events, for this page.
pub async fn stream(State(console): State<Arc<Console>>, visit: Visit, headers: HeaderMap) -> Response {
    let query = visit.frame.path.split_once('?').map_or("", |(_, query)| query);
    let last = headers.get("last-event-id");
    console.inside.stream(&visit.place, &format!("{PATH}/stream?latest=true&{query}"), last).await
}
