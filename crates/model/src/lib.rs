//! The domain of Esito, pure: no I/O, no async, no ambient clock or randomness.
//!
//! Everything here is a value or a rule about values. The crate knows nothing of HTTP, SQL, sockets or files;
//! time and randomness reach it as parameters ([`clock`]).

pub mod campaign;
pub mod channel;
pub mod circuit;
pub mod clock;
pub mod delivery;
pub mod erasure;
pub mod execution;
pub mod fault;
pub mod feedback;
pub mod ids;
pub mod message;
pub mod outcome;
pub mod replay;
pub mod retention;
pub mod retry;
pub mod secret;
pub mod tenancy;
pub mod webhook;
