//! The log: to the standard error, as text or JSON.

use crate::config::{Log, LogFormat};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The crates whose lines the level is about.
const OWN_CRATES: [&str; 5] = ["esito", "model", "outbound", "store", "wire"];

/// Starts the log of this process. `main` alone may do so: a library that logs does not know where to.
pub fn start(log: &Log) {
    let text = (log.format == LogFormat::Text).then(|| fmt::layer().with_writer(std::io::stderr));
    let json =
        (log.format == LogFormat::Json).then(|| fmt::layer().json().flatten_event(true).with_writer(std::io::stderr));
    // Other people's crates never get below `warn`: at `debug` some of them log what they send, secrets included.
    let filter = Targets::new()
        .with_default(log.level.min(LevelFilter::WARN))
        .with_targets(OWN_CRATES.map(|name| (name, log.level)));
    // Fails only where a log was started before.
    let _ = tracing_subscriber::registry().with(text).with(json).with(filter).try_init();
}
