//! The webhook client: posts one feedback event to one endpoint.
//!
//! | module | what |
//! |---|---|
//! | [`guard`] | connections that go only where the operator allows |
//! | [`auth`] | signing keys and tokens |
//! | [`oauth2`] | access tokens from a token endpoint |
//! | [`request`] | the request, the answer, the verdict |
//! | [`sample()`] | a test send |
//! | [`work`] | deliveries as work for the driver: its `limits`, and what an attempt tells its `circuit` |
//!
//! All but [`work`] know no store and no schedule: whether and when to try again is decided there, from the [`Verdict`].

pub mod auth;
mod circuit;
mod connection;
mod error;
pub mod guard;
mod limits;
pub mod oauth2;
mod reply;
pub mod request;
mod resolve;
mod sample;
pub mod work;

pub use guard::Network;
pub use reply::{Reply, Verdict};
pub use request::{Endpoint, Post};
pub use resolve::{Resolve, ResolveError};
pub use sample::sample;
