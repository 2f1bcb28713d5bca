//! Everything that leaves: messages through channels, feedback events to webhooks.
//!
//! The crate knows the [`store::Store`] and the wire formats; it knows nothing of the HTTP API, the console or the
//! configuration file.

pub mod admission;
pub mod channel;
pub mod driver;
pub mod engine;
pub mod erasure;
pub mod indexing;
pub mod ownership;
pub mod replay;
pub mod retention;
pub mod tls;
pub mod webhook;
