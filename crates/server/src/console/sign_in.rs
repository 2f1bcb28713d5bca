//! Signing in, with an API key or by a link that is good once, and out.

use super::Console;
use super::page::{Fields, Frame, Taste, is_from_elsewhere, local, show as show_page};
use crate::api::auth::Caller;
use crate::api::problem::Problem;
use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, StatusCode, header};
use model::ids::ApiKeyId;
use serde::Deserialize;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignIn {
    f: Frame,
    next: String,
    /// The token of a link: no key is asked for then.
    once: String,
    error: Option<String>,
}

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    next: String,
    #[serde(default)]
    once: String,
}

fn frame(console: &Console, headers: &HeaderMap) -> Frame {
    let path = "/sign-in".to_owned();
    Frame { taste: Taste::of(headers), now: console.clock.now(), path, tenant: None, token: String::new() }
}

/// The form. A link is not used up by looking at it: programs do, before the person does.
pub async fn show(State(console): State<Arc<Console>>, headers: HeaderMap, Query(asked): Query<Asked>) -> Response {
    let page = SignIn { f: frame(&console, &headers), next: asked.next, once: asked.once, error: None };
    show_page(StatusCode::OK, &page)
}

/// Begins a session.
pub async fn sign_in(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Form(fields): Form<Vec<(String, String)>>,
) -> Response {
    let (fields, f) = (Fields(fields), frame(&console, &headers));
    // Nobody is to find himself signed in with another's key.
    let found = if is_from_elsewhere(&headers) { Err("error-foreign-form") } else { key_of(&console, &fields).await };
    match found {
        Ok(key) => {
            let cookie = console.sessions.begin(key, console.clock.now(), &*console.entropy);
            ([(header::SET_COOKIE, cookie)], Redirect::to(local(fields.text("next")))).into_response()
        }
        Err(why) => {
            let error = Some(f.t(why));
            let page = SignIn { f, next: fields.text("next").to_owned(), once: String::new(), error };
            show_page(StatusCode::UNAUTHORIZED, &page)
        }
    }
}

async fn key_of(console: &Console, fields: &Fields) -> Result<ApiKeyId, &'static str> {
    let once = fields.text("once");
    if !once.is_empty() {
        let key = console.sessions.redeem(once, console.clock.now()).ok_or("error-link-used")?;
        return Caller::of_id(&console.api, key).await.map(|caller| caller.key.id).map_err(|_| "error-link-used");
    }
    match Caller::of(&console.api, fields.text("key")).await {
        Ok(caller) => Ok(caller.key.id),
        Err(Problem::Unauthenticated(_)) => Err("error-no-key"),
        Err(_) => Err("error-unavailable"),
    }
}

/// Ends a session: nobody but its own pages ask for that, and it would harm nobody.
pub async fn sign_out(State(console): State<Arc<Console>>) -> Response {
    ([(header::SET_COOKIE, console.sessions.end())], Redirect::to("/sign-in")).into_response()
}
