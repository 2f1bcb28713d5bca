//! Reads queries and ids in paths.

use super::Api;
use super::problem::Problem;
use super::shape::{self, Mode};
use axum::extract::{FromRequestParts, RawPathParams};
use http::request::Parts;
use model::fault::Faults;
use model::ids::BadId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::str::FromStr;
use std::sync::Arc;
use store::lookup::{Listed, Page};
use utoipa::{IntoParams, ToSchema};

/// The items of a page unless the caller says otherwise.
const DEFAULT_LIMIT: u32 = 50;
/// The most items of a page.
const MAX_LIMIT: u32 = 200;
/// The most characters of a cursor: Esito's own are far shorter.
const MAX_CURSOR: usize = 500;

/// The query, typed. An unknown parameter is refused: a filter that is ignored shows too much.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        read(parts.uri.query().unwrap_or("")).map(Self)
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let mut fields = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if fields.insert(name.clone().into_owned(), Value::String(value.into_owned())).is_some() {
            return Err(Problem::fault(format!("$query.{name}"), "is there twice"));
        }
    }
    shape::read(Value::Object(fields), Mode::Texts, "$query").map_err(|fault| Problem::fault(fault.path, fault.message))
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// The most items, 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

impl Paging {
    /// The page for the store.
    pub fn page(self) -> Result<Page, Problem> {
        page(self.limit, self.cursor)
    }
}

/// The page with these parameters.
pub fn page(limit: Option<u32>, cursor: Option<String>) -> Result<Page, Problem> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    let mut faults = Faults::default();
    faults.require((1..=MAX_LIMIT).contains(&limit), "$query.limit", "must be from 1 to 200");
    let fits = cursor.as_ref().is_none_or(|cursor| (1..=MAX_CURSOR).contains(&cursor.len()));
    faults.require(fits, "$query.cursor", "must be the nextCursor of the page before");
    faults.into_result()?;
    Ok(Page { limit: limit as usize, cursor })
}

/// The largest page: for what is walked through whole.
pub fn largest_page(cursor: Option<String>) -> Page {
    Page { limit: MAX_LIMIT as usize, cursor }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; null: this is the last. A page may have fewer items than `limit` and still not be the
    /// last: where what is looked for is rare, each page looks at a part of all there is.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// What the store listed, as it is read.
    pub fn of<S>(listed: Listed<S>, read: impl Fn(S) -> T) -> axum::Json<Self> {
        axum::Json(Self { items: listed.items.into_iter().map(read).collect(), next_cursor: listed.next })
    }
}

/// The id at the end of, or within, the path.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<T: FromStr<Err = BadId> + Send> FromRequestParts<Arc<Api>> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let text = NameInPath::from_request_parts(parts, api).await?.0;
        text.parse().map(Self).map_err(|BadId(_, what)| Problem::fault("$path.id", format!("must be {what}")))
    }
}

/// The name at the end of the path.
#[derive(Debug)]
pub struct NameInPath(pub String);

impl FromRequestParts<Arc<Api>> for NameInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, api).await;
        let unreadable = || Problem::fault("$path.id", "must be UTF-8");
        let params = params.map_err(|_| unreadable())?;
        params.iter().next().map(|(_, text)| Self(text.to_owned())).ok_or_else(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(query: &str) -> String {
        match read::<Paging>(query).and_then(Paging::page) {
            Ok(page) => format!("{page:?}"),
            Err(problem) => problem.document().detail,
        }
    }

    #[test]
    fn faults_name_the_parameter() {
        assert_eq!(problem("limit=0"), "$query.limit: must be from 1 to 200");
        assert_eq!(problem("limit=201"), "$query.limit: must be from 1 to 200");
        assert_eq!(problem("limit=-1"), "$query.limit: expected a whole number of at least 0");
        assert_eq!(problem("limit="), "$query.limit: expected a whole number of at least 0");
        assert_eq!(problem("limit=1&limit=2"), "$query.limit: is there twice");
        assert_eq!(problem("cursor="), "$query.cursor: must be the nextCursor of the page before");
        assert_eq!(problem("limits=1"), "$query.limits: there is no such field; did you mean limit?");
        assert_eq!(problem("cursor=a%20b&limit=2"), "Page { limit: 2, cursor: Some(\"a b\") }");
    }
}
