//! The console: the administration in a browser. Pages are made here, in the visitor's language, and work without
//! JavaScript; what they show and change goes through the API's own router ([`inside`]), so that rights, checks and the
//! audit log are the same.
//!
//! A page is a file here with its handlers and forms, a template in `templates/`, its texts in `locales/`, and a line in
//! [`page::NAVIGATION`].

mod administration;
mod asked;
mod assets;
mod campaigns;
mod channels;
mod events;
mod executions;
mod export;
mod form;
mod inside;
mod language;
mod live;
mod overview;
mod page;
mod preview;
mod receivers;
mod replays;
mod said;
mod search;
mod session;
mod settings;
mod sign_in;
mod webhooks;

use crate::api::{self, Api};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use export::Exported;
use http::{HeaderValue, header};
use inside::Inside;
use model::clock::{Clock, Entropy};
use model::ids::ApiKeyId;
use model::retention::Retention;
use session::Sessions;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What the pages work with.
#[derive(Debug)]
pub struct Console {
    api: Arc<Api>,
    inside: Inside,
    sessions: Sessions,
    /// A place for each export.
    exports: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    public_url: String,
    /// What holds for organizations that have nothing else.
    retention: Retention,
}

impl Console {
    /// A console over this API; `secret` is the installation's own, `public_url` where browsers reach it, `retention` what
    /// the operator sets.
    pub fn new(
        api: Arc<Api>,
        secret: &[u8; 32],
        public_url: &str,
        retention: Retention,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let sessions = Sessions::new(secret, public_url.starts_with("https:"));
        let inside = Inside(api::router(Arc::clone(&api)));
        let public_url = public_url.trim_end_matches('/').to_owned();
        let exports = Arc::new(Semaphore::new(export::MOST));
        Self { inside, api, sessions, exports, clock, entropy, public_url, retention }
    }

    /// The path of a link that signs in once, within a quarter of an hour, with the rights of this API key.
    pub fn link(&self, key: ApiKeyId) -> String {
        format!("/sign-in?once={}", self.sessions.link(key, self.clock.now(), &*self.entropy))
    }
}

/// The console's routes.
pub fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route("/", get(page::home))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/preferences", post(page::set_preferences))
        .route("/o/{organization}/{sandbox}/executions", get(executions::executions))
        .route("/o/{organization}/{sandbox}/executions/export", exporting(&export::EXECUTIONS))
        .route("/o/{organization}/{sandbox}/executions/{id}", get(executions::execution))
        .route("/o/{organization}/{sandbox}/messages", get(search::messages))
        .route("/o/{organization}/{sandbox}/messages/export", exporting(&export::MESSAGES))
        .route("/o/{organization}/{sandbox}/messages/{id}", get(search::message))
        .route("/o/{organization}/{sandbox}/feedback-events", get(events::events))
        .route("/o/{organization}/{sandbox}/feedback-events/export", exporting(&export::EVENTS))
        .route("/o/{organization}", get(page::organization))
        .route("/o/{organization}/{sandbox}/overview", get(overview::page))
        .route("/o/{organization}/{sandbox}/live", get(live::page))
        .route("/o/{organization}/{sandbox}/live/stream", get(live::stream))
        .route("/o/{organization}/{sandbox}/deliveries", get(search::deliveries))
        .route("/o/{organization}/{sandbox}/deliveries/export", exporting(&export::DELIVERIES))
        .route("/o/{organization}/{sandbox}/deliveries/{id}/{action}", post(search::act))
        .route("/o/{organization}/{sandbox}/replays", get(replays::replays).post(replays::create))
        .route("/o/{organization}/{sandbox}/replays/new", get(replays::new))
        .route("/o/{organization}/{sandbox}/replays/{id}", get(replays::replay))
        .route("/o/{organization}/{sandbox}/replays/{id}/cancel", post(replays::cancel))
        .route("/o/{organization}/{sandbox}/webhooks", get(webhooks::inventory).post(webhooks::create))
        .route("/o/{organization}/{sandbox}/webhooks/new", get(webhooks::new))
        .route("/o/{organization}/{sandbox}/webhooks/{id}", get(webhooks::edit).post(webhooks::replace))
        .route("/o/{organization}/{sandbox}/webhooks/{id}/receiver", get(receivers::page))
        .route("/o/{organization}/{sandbox}/webhooks/{id}/{action}", post(webhooks::act))
        .route("/o/{organization}/{sandbox}/channels", get(channels::inventory).post(channels::create))
        .route("/o/{organization}/{sandbox}/channels/new", get(channels::new))
        .route("/o/{organization}/{sandbox}/channels/{id}", get(channels::edit).post(channels::replace))
        .route("/o/{organization}/{sandbox}/channels/{id}/{action}", post(channels::act))
        .route("/o/{organization}/{sandbox}/campaigns", get(campaigns::inventory).post(campaigns::create))
        .route("/o/{organization}/{sandbox}/campaigns/new", get(campaigns::new))
        .route("/o/{organization}/{sandbox}/campaigns/{id}", get(campaigns::edit).post(campaigns::replace))
        .route("/o/{organization}/{sandbox}/campaigns/{id}/versions", get(campaigns::versions))
        .route("/o/{organization}/{sandbox}/campaigns/{id}/{action}", post(campaigns::act))
        .route("/o/{organization}/{sandbox}/keys", get(administration::keys).post(administration::make_key))
        .route("/o/{organization}/{sandbox}/keys/{id}/revoke", post(administration::revoke_key))
        .route("/o/{organization}/{sandbox}/audit-log", get(administration::audit_log))
        .route("/o/{organization}/{sandbox}/settings", get(settings::page).post(settings::replace))
        .route("/o/{organization}/{sandbox}/settings/sandboxes", get(settings::page).post(settings::make_sandbox))
        .layer(from_fn(guard))
        .route(assets::ROUTE, get(assets::serve))
        .with_state(console)
}

/// The route of a list as a file.
fn exporting(list: &'static Exported) -> MethodRouter<Arc<Console>> {
    get(move |console, visit| export::export(console, visit, list))
}

/// Nothing but what is the console's own runs in a page, no page is framed, and no copy is kept of what was shown.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

async fn guard(request: Request, next: Next) -> Response {
    let mut response = api::answer_panics(request, next).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
