//! Why an attempt failed, decided where it failed.

use super::guard::{ConnectError, rustls_error, tls_fault};
use model::delivery::{AttemptError, AttemptErrorKind};
use std::error::Error;
use std::io;

/// The most characters of an error: parts of it, such as the names in a certificate, are the endpoint's to choose.
const MAX_CHARS: usize = 400;

/// An error of this kind. Control characters, which some databases refuse, are replaced.
pub(super) fn attempt_error(kind: AttemptErrorKind, message: impl Into<String>) -> AttemptError {
    let message: String = message.into();
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    AttemptError { kind, message: message.chars().take(MAX_CHARS).map(visible).collect() }
}

/// The webhook's own settings do not work.
pub(super) fn configuration(message: impl Into<String>) -> AttemptError {
    attempt_error(AttemptErrorKind::Configuration, message)
}

impl From<ConnectError> for AttemptError {
    fn from(error: ConnectError) -> Self {
        let kind = match &error {
            ConnectError::Guard { .. } => AttemptErrorKind::Guard,
            ConnectError::Dns { .. } => AttemptErrorKind::Dns,
            ConnectError::Connect(_) => AttemptErrorKind::Connect,
            ConnectError::Tls(_) => AttemptErrorKind::Tls,
            ConnectError::Timeout => AttemptErrorKind::Timeout,
        };
        attempt_error(kind, error.to_string())
    }
}

/// An exchange that broke after the connection was there.
pub(super) fn exchange_error(error: &hyper::Error) -> AttemptError {
    let io = io_error(error);
    if let Some(fault) = io.and_then(rustls_error) {
        // In TLS 1.3 a client hears only after its handshake that the server refused it.
        return attempt_error(AttemptErrorKind::Tls, format!("TLS: {}", tls_fault(fault)));
    }
    let message = match io {
        _ if error.is_parse_too_large() => "the head of the answer is too large".to_owned(),
        _ if error.is_parse_version_h2() => "the endpoint answers in HTTP/2, which was not agreed".to_owned(),
        _ if error.is_parse() => format!("the answer is not HTTP/1.1: {error}"),
        // The second is the same end without TLS's own goodbye.
        _ if error.is_incomplete_message() || io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof) => {
            "the endpoint closed the connection before it had answered".to_owned()
        }
        Some(io) => format!("the connection broke: {io}"),
        None => format!("the exchange failed: {error}"),
    };
    attempt_error(AttemptErrorKind::Protocol, message)
}

/// Whether the peer closed the connection without an answer, which on a reused one most often means that it had sat
/// idle for as long as the peer allows.
pub(super) fn closed_without_answer(error: &hyper::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let gone = |io: &io::Error| matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
    error.is_incomplete_message() || io_error(error).is_some_and(gone)
}

fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}
