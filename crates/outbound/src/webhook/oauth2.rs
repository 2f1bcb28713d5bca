//! Access tokens from an OAuth 2.0 token endpoint (RFC 6749, RFC 7523), fetched once however many deliveries wait.
//!
//! | when | what a delivery does |
//! |---|---|
//! | there is a token | uses it; near its end one delivery has the next one fetched meanwhile |
//! | there is none | waits for the one request that runs, or begins it |
//! | the token endpoint failed a moment ago | fails the same way, without asking again |
//! | the endpoint answers 401 | drops the token that it sent, unless that one is new, and tries once more |

mod exchange;
mod grant;

use super::error::attempt_error;
use super::guard::Network;
use exchange::{Granted, fetch};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use grant::{Grant, Identity, TokenRequest};
use http::HeaderValue;
use lru::LruCache;
use model::clock::Timestamp;
use model::delivery::{AttemptError, AttemptErrorKind};
use model::ids::WebhookId;
use model::webhook::Webhook;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Ahead of a token's end by this, or by a fifth of its life if that is less, the next one is fetched.
const REFRESH_AHEAD: Duration = Duration::from_secs(60);

/// A token with less than this left, or than a tenth of its life if that is less, could end on the way.
const LEAST_LEFT: Duration = Duration::from_secs(2);

/// A token younger than this is not the reason of a 401: another one would be refused too.
const SURELY_FRESH: Duration = Duration::from_secs(5);

/// A failed request is not repeated for this long, twice as long after the next failure, and so on up to the most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How many webhooks' tokens outlive their endpoints.
const KEPT_SOURCES: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// The tokens of all webhooks: an endpoint that is made anew goes on with the one that its predecessor got.
pub(super) struct Tokens(Mutex<LruCache<WebhookId, Arc<Source>>>);

impl Default for Tokens {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEPT_SOURCES)))
    }
}

impl Tokens {
    /// The webhook's source: the present one while it would ask for the same.
    fn source(&self, webhook: &Webhook, network: &Network) -> Result<Arc<Source>, AttemptError> {
        let identity = Identity::of(webhook);
        let mut sources = lock(&self.0);
        if let Some(source) = sources.get(&webhook.id).filter(|source| source.grant.is_for(&identity)) {
            return Ok(Arc::clone(source));
        }
        let grant = Grant::of(webhook, identity, network.policy())?;
        let source = Arc::new(Source { grant, state: Mutex::default() });
        sources.put(webhook.id, Arc::clone(&source));
        Ok(source)
    }
}

/// The access tokens of one endpoint.
pub struct Oauth2 {
    network: Arc<Network>,
    source: Arc<Source>,
    /// How long a request may take: as long as an attempt.
    within: Duration,
}

impl Oauth2 {
    /// The tokens of a webhook that authenticates by OAuth 2.0.
    ///
    /// # Errors
    /// Where its key cannot be used ([`AttemptErrorKind::Configuration`]) or its token URL is not allowed (any more:
    /// [`AttemptErrorKind::Token`]).
    pub fn of(webhook: &Webhook, network: &Arc<Network>) -> Result<Self, AttemptError> {
        let source = network.tokens().source(webhook, network)?;
        let within = Duration::from_secs(u64::from(webhook.settings.timeout_seconds));
        Ok(Self { network: Arc::clone(network), source, within })
    }

    /// An access token, by the deadline of the attempt.
    ///
    /// # Errors
    /// Says why there is none ([`AttemptErrorKind::Token`]).
    pub async fn token(&self, now: Timestamp, deadline: Instant) -> Result<Arc<AccessToken>, AttemptError> {
        match self.find(now)? {
            Found::Token(token) => Ok(token),
            Found::Flight(flight) => match timeout_at(deadline, flight).await {
                Ok(answer) => answer,
                Err(_) => Err(self.source.no_answer(self.within)),
            },
        }
    }

    /// Drops a token that the endpoint refused; false: it is too new for another to fare better.
    pub fn refused(&self, token: &Arc<AccessToken>) -> bool {
        let mut state = self.source.state();
        match &state.token {
            Some(current) if Arc::ptr_eq(current, token) => {
                let is_old = token.received_at.elapsed() >= SURELY_FRESH;
                if is_old {
                    state.token = None;
                }
                is_old
            }
            // Somebody else dropped it, and may have the next one already.
            _ => true,
        }
    }

    fn find(&self, now: Timestamp) -> Result<Found, AttemptError> {
        let mut state = self.source.state();
        let moment = Instant::now();
        let usable = state.token.clone().filter(|token| moment < token.usable_until);
        if let Some(token) = usable {
            if moment >= token.refresh_at && state.may_ask(moment) {
                // Nobody waits for this one, and its failure is nobody's as long as the present token lasts.
                drop(self.begin(&mut state, now));
            }
            return Ok(Found::Token(token));
        }
        if let Some(flight) = state.running() {
            return Ok(Found::Flight(flight));
        }
        match &state.failure {
            Some(failure) if moment < failure.until => Err(failure.error.clone()),
            _ => self.begin(&mut state, now).map(Found::Flight),
        }
    }

    /// Begins the one request. It is a task of its own: whoever began it may be gone before it ends.
    fn begin(&self, state: &mut State, now: Timestamp) -> Result<Flight, AttemptError> {
        let request = self.source.grant.request(now)?;
        let task = tokio::spawn(Arc::clone(&self.source).ask(Arc::clone(&self.network), request, self.within));
        let gone = || Err(attempt_error(AttemptErrorKind::Token, "the request for an access token broke off"));
        let flight = task.map(move |answer| answer.unwrap_or_else(|_| gone())).boxed().shared();
        state.flight = Some(flight.clone());
        Ok(flight)
    }
}

impl std::fmt::Debug for Oauth2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oauth2").field("grant", &self.source.grant).finish_non_exhaustive()
    }
}

/// An access token, as the header that carries it.
pub struct AccessToken {
    /// `Bearer` and the token.
    pub header: HeaderValue,
    received_at: Instant,
    refresh_at: Instant,
    usable_until: Instant,
}

impl AccessToken {
    /// Its life is counted from before the question, the latest moment at which it had surely not begun.
    fn new(granted: Granted, asked_at: Instant) -> Self {
        let life = granted.life;
        Self {
            header: granted.header,
            received_at: Instant::now(),
            refresh_at: asked_at + (life - REFRESH_AHEAD.min(life / 5)),
            usable_until: asked_at + (life - LEAST_LEFT.min(life / 10)),
        }
    }
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

type Answer = Result<Arc<AccessToken>, AttemptError>;
type Flight = Shared<BoxFuture<'static, Answer>>;

enum Found {
    Token(Arc<AccessToken>),
    Flight(Flight),
}

struct Source {
    grant: Grant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<AccessToken>>,
    flight: Option<Flight>,
    failure: Option<Failure>,
}

struct Failure {
    error: AttemptError,
    pause: Duration,
    until: Instant,
}

impl State {
    fn running(&self) -> Option<Flight> {
        self.flight.clone().filter(|flight| flight.peek().is_none())
    }

    fn may_ask(&self, moment: Instant) -> bool {
        self.running().is_none() && self.failure.as_ref().is_none_or(|failure| moment >= failure.until)
    }

    fn fail(&mut self, error: AttemptError) {
        let pause = self.failure.as_ref().map_or(FIRST_PAUSE, |former| (former.pause * 2).min(MOST_PAUSE));
        self.failure = Some(Failure { error, pause, until: Instant::now() + pause });
    }
}

impl Source {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn no_answer(&self, within: Duration) -> AttemptError {
        self.grant.error(format!("no answer within {} s", within.as_secs()))
    }

    async fn ask(self: Arc<Self>, network: Arc<Network>, request: TokenRequest, within: Duration) -> Answer {
        let asked_at = Instant::now();
        let answer = timeout(within, fetch(&network, self.grant.place(), &request, within)).await;
        let answer = match answer {
            Ok(answer) => answer.map_err(|why| self.grant.error(request.redact(&why))),
            Err(_) => Err(self.no_answer(within)),
        };
        let mut state = self.state();
        state.flight = None;
        match answer {
            Ok(granted) => {
                let token = Arc::new(AccessToken::new(granted, asked_at));
                state.failure = None;
                state.token = Some(Arc::clone(&token));
                Ok(token)
            }
            Err(error) => {
                tracing::debug!(error = %error.message, "no access token");
                state.fail(error.clone());
                Err(error)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
