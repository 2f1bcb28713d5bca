//! Tests with programs that others wrote: Postfix, aiosmtpd, nginx, Python's and Node.js's verifiers, Authlib, dnslib, strace, PostgreSQL,
//! Chromium.
//!
//! They are compiled with the feature `peers` only. `scripts/peers` installs what they need; a test that misses
//! something fails and says what. Every peer is a throwaway: started by the test that needs it, on a free port, in a
//! temporary folder, and gone with the test.

mod browser;
mod durability;
mod hostile_urls;
mod oauth2;
mod peer;
mod postfix;
mod receiver_code;
mod receivers;
mod relay;
mod restarts;
mod strace;

/// The crate's folder is two below the project's.
fn project_folder() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Where a program is. Postfix and nginx lie in folders that only root's PATH names.
fn program(name: &str) -> std::path::PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("these tests need {name}, which is not installed: run scripts/peers"))
}
