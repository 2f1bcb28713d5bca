//! The live view: feedback events as they are recorded.

use super::Console;
use super::asked::Asked;
use super::inside::List;
use super::page::{EVENTS, Frame, Visit, encoded, show};
use super::search::Event;
use askama::Template;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt as _;
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
    /// The place in the feed after which what comes is new to this page.
    place: i64,
}

impl Live {
    fn events(&self) -> [&'static str; 7] {
        EVENTS
    }

    /// Where the events come from that are recorded after this page was made.
    fn stream(&self) -> String {
        format!("{}?after={}&{}", self.f.to("live/stream"), self.place, only(&self.asked))
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
    // Before the list: what comes between the two is in the list, or comes by the stream.
    let newest: List<Event> = visit.get(&console, &format!("{PATH}?limit=1")).await?;
    let list: List<Event> = visit.get(&console, &format!("{PATH}?limit=50&{}", only(&asked))).await?;
    let seen = |list: &List<Event>| list.items.first().map_or(0, |event| event.sequence);
    let place = seen(&newest).max(seen(&list));
    Ok(show(StatusCode::OK, &Live { f: visit.frame, asked, list, place }))
}

/// The API's stream of events, for this page.
pub async fn stream(State(console): State<Arc<Console>>, visit: Visit, headers: HeaderMap) -> Response {
    let query = visit.frame.query();
    let last = headers.get("last-event-id");
    let answer = console.inside.stream(&visit.place, &format!("{PATH}/stream?latest=true&{query}"), last).await;
    // Whoever is signed in no longer is not shown more; a browser comes again, and is sent to sign in.
    let left = visit.session.until.since(visit.frame.now);
    answer.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(tokio::time::sleep(left)))))
}
