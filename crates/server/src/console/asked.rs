//! What a list is asked for: its filters, from the query of its page to that of the API.

use super::Console;
use super::inside::{LARGEST_PAGE, List, Refusal};
use super::page::{Fields, ITEMS, Visit, query_of};
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded::Serializer;

/// The filters of all lists, as the API calls them.
pub const FILTERS: [&str; 9] =
    ["requestId", "executionId", "campaignId", "recipient", "status", "state", "channel", "from", "to"];

/// The states of deliveries that have ended: what can be replayed.
pub const ENDED: [&str; 3] = ["exhausted", "cancelled", "succeeded"];

/// The filters as they were typed.
#[derive(Clone, Debug)]
pub struct Asked(pub Fields);

impl Asked {
    /// Those of a page's path.
    pub fn of(path: &str) -> Self {
        Self(Fields(url::form_urlencoded::parse(query_of(path).as_bytes()).into_owned().collect()))
    }

    pub fn text(&self, name: &str) -> &str {
        self.0.text(name)
    }

    pub fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == value
    }

    /// Whether any filter is set.
    pub fn is_narrow(&self) -> bool {
        self.set().next().is_some()
    }

    /// The filters that are set, as they were typed.
    pub fn set(&self) -> impl Iterator<Item = (&'static str, &str)> {
        FILTERS.into_iter().map(|name| (name, self.text(name))).filter(|(_, text)| !text.is_empty())
    }

    /// The filters that are set, as the API takes them.
    pub fn filters(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.set().map(|(name, text)| (name, moment(name, text)))
    }

    /// The query for the API: so many items, from this cursor on.
    pub fn query(&self, limit: &str, cursor: &str) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", limit).extend_pairs(self.filters());
        if !cursor.is_empty() {
            query.append_pair("cursor", cursor);
        }
        query.finish()
    }

    /// The same list from a cursor on.
    pub fn further(&self, cursor: &str) -> String {
        self.with("cursor", cursor)
    }

    /// All of the list as a file.
    pub fn export(&self, format: &str) -> String {
        self.with("format", format)
    }

    fn with(&self, name: &str, value: &str) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.set()).append_pair(name, value);
        format!("?{}", query.finish())
    }

    /// The query of the form that replays what the list shows; none where that has not ended, and is delivered anyway.
    pub fn replay(&self) -> Option<String> {
        let state = self.text("state");
        let can_be = state.is_empty() || ENDED.contains(&state);
        can_be.then(|| format!("?{}", Serializer::new(String::new()).extend_pairs(self.set()).finish()))
    }
}

/// What a browser's field for a moment gives has no seconds and no zone: it is taken as UTC.
fn moment(name: &str, text: &str) -> String {
    match (name, text.len()) {
        ("from" | "to", 16) => format!("{text}:00Z"),
        ("from" | "to", 19) => format!("{text}Z"),
        _ => text.to_owned(),
    }
}

/// A page of a list, or why there is none: a filter that is not as it should be is the visitor's to mend.
pub async fn list<T: DeserializeOwned>(
    console: &Console,
    visit: &Visit,
    path: &str,
    asked: &Asked,
) -> Result<(List<T>, Option<String>), Response> {
    let query = asked.query(ITEMS, asked.text("cursor"));
    match console.inside.get(&visit.place, &format!("{path}?{query}")).await {
        Ok(list) => Ok((list, None)),
        Err(Refusal { status: StatusCode::BAD_REQUEST, detail, .. }) => {
            Ok((List { items: Vec::new(), next: None }, Some(visit.frame.said(detail))))
        }
        Err(refusal) => Err(visit.frame.trouble(&refusal)),
    }
}

/// The campaigns that a filter offers by name: a page of them. Others are found by their id.
#[derive(Clone, Debug)]
pub struct Campaigns(pub Vec<Campaign>);

#[derive(Clone, Debug, Deserialize)]
pub struct Campaign {
    pub id: String,
    pub name: String,
}

impl Campaigns {
    /// Those of the sandbox.
    pub async fn of(console: &Console, visit: &Visit) -> Result<Self, Response> {
        let path = format!("/v1/campaigns?limit={LARGEST_PAGE}");
        Ok(Self(visit.get::<List<Campaign>>(console, &path).await?.items))
    }

    /// The name of a campaign, or its id.
    pub fn name<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.iter().find(|campaign| campaign.id == id).map_or(id, |campaign| campaign.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_go_to_the_api_as_it_takes_them() {
        let asked = Asked::of(
            "/o/a/b/messages?recipient=a%2Bb%40c.d&status=&from=2026-01-02T03%3A04&to=2026-01-02T03%3A04%3A05Z&x=1",
        );
        let (typed, end) = ("recipient=a%2Bb%40c.d&from=2026-01-02T03%3A04", "to=2026-01-02T03%3A04%3A05Z");
        assert_eq!(asked.query("50", ""), format!("limit=50&{typed}%3A00Z&{end}"));
        assert_eq!(asked.query("9", "c"), format!("limit=9&{typed}%3A00Z&{end}&cursor=c"));
        assert_eq!(asked.further("c/1"), format!("?{typed}&{end}&cursor=c%2F1"));
        assert_eq!(asked.export("csv"), format!("?{typed}&{end}&format=csv"));
        assert_eq!(asked.replay(), Some(format!("?{typed}&{end}")));
        assert!(asked.is_narrow() && !Asked::of("/messages?cursor=1").is_narrow());
    }

    #[test]
    fn what_has_not_ended_is_not_replayed() {
        let replay = |state| Asked::of(&format!("/deliveries?state={state}")).replay();
        assert_eq!(replay("exhausted").as_deref(), Some("?state=exhausted"));
        assert!(replay("").is_some() && replay("failing").is_none() && replay("held").is_none());
    }
}
