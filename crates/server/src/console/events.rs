//! Feedback events: what was told, of whichever message.

use super::Console;
use super::asked::{Asked, Campaigns, list};
use super::inside::List;
use super::page::{EVENTS, Frame, Visit, show};
use super::search::Event;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "feedback-events.html")]
struct Events {
    f: Frame,
    asked: Asked,
    campaigns: Campaigns,
    list: List<Event>,
    trouble: Option<String>,
}

impl Events {
    fn statuses(&self) -> [&'static str; 7] {
        EVENTS
    }
}

/// Feedback events, the newest first.
pub async fn events(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let asked = Asked::of(&visit.frame.path);
    let campaigns = Campaigns::of(&console, &visit).await?;
    let (list, trouble) = list(&console, &visit, "/v1/feedback-events", &asked).await?;
    Ok(show(StatusCode::OK, &Events { f: visit.frame, asked, campaigns, list, trouble }))
}
