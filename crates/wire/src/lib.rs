//! Bytes to values and back, and nothing else: the standards that Esito speaks, as pure functions.
//!
//! | module | standard |
//! |---|---|
//! | [`address`] | which addresses and URLs a request may go to (the endpoint guard's rules) |
//! | [`standard_webhooks`] | Standard Webhooks 1.0, symmetric and asymmetric signatures |
//! | [`jwt`] | JSON Web Tokens and Keys (RFC 7515, 7517, 7518, 7519, 8037) |
//! | [`smtp_reply`] | SMTP replies (RFC 5321, RFC 3463) to failure types and codes |
//!
//! # What this crate must not know
//! - No input or output: no socket, file, resolver or environment. Whoever resolves a name asks [`address`] about
//!   the answers; whoever dials decides when.
//! - No store, no queue, no async: nothing here waits.
//! - No clock: every "now" is a parameter. No randomness either, but for what `aws-lc-rs` makes itself: keys,
//!   probabilistic signatures, and the `jti` that is signed in an assertion.
//! - No secret in a `Debug` or `Display` text, and none in an error.
//!
//! Input comes from strangers (endpoints, relays, customers), so no function here panics on any input, and each takes
//! time linear in its length.

pub mod address;
pub mod jwt;
pub mod smtp_reply;
pub mod standard_webhooks;
pub mod template;
