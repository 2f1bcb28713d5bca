//! Seeded runs of the real drivers, ownership and SQLite store among simulated callers, endpoints and faults.
//!
//! A seed decides everything: the tenants and their traffic, what fails when, where a process crashes, which one
//! stands still while another takes over. Everything runs on one thread and on simulated time, so the same seed gives
//! the same trace, to the last line. The store runs its own SQL on a real file, without its threads.
//!
//! [`arrival`] holds what must be true whenever a request comes in, [`observed`] what must be true of leases,
//! [`relay`] of messages handed over, and [`checks`] what must be true in the end.

pub mod arrival;
pub mod checks;
pub mod client;
pub mod endpoint;
pub mod ledger;
pub mod network;
pub mod observed;
pub mod plan;
pub mod process;
pub mod relay;
pub mod rng;
pub mod run;
pub mod setup;
pub mod trace;
pub mod world;

pub use run::{Figures, Report, run};
