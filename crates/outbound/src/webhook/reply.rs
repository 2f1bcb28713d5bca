//! What came of a post.

use super::error::attempt_error;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use model::clock::Timestamp;
use model::delivery::{Attempt, AttemptError, AttemptErrorKind, EXCERPT_BYTES};
use std::time::{Duration, UNIX_EPOCH};

/// The longest pause that an endpoint may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The most bytes of an answer's body that are read.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// What came of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What is written down.
    pub attempt: Attempt,
    /// What follows.
    pub verdict: Verdict,
}

/// What follows a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint took it.
    Succeeded,
    /// The endpoint wants no events any more: 410.
    Gone,
    /// It is to be tried again.
    Failed {
        /// The least pause that the endpoint asked for, by `Retry-After` on 429 and 503.
        retry_after: Option<Duration>,
    },
}

impl Reply {
    /// A failure without an answer; also what a webhook whose [`Endpoint`](super::Endpoint) cannot be made comes to.
    pub fn failed(at: Timestamp, took: Duration, error: AttemptError) -> Self {
        let attempt =
            Attempt { at, duration_ms: millis(took), status: None, response_excerpt: None, error: Some(error) };
        Self { attempt, verdict: Verdict::Failed { retry_after: None } }
    }

    /// An answer: its status line decides.
    pub(super) fn answered(at: Timestamp, took: Duration, head: &Head, excerpt: Option<String>) -> Self {
        let Head { status, .. } = *head;
        let verdict = match status {
            _ if status.is_success() => Verdict::Succeeded,
            StatusCode::GONE => Verdict::Gone,
            _ => Verdict::Failed { retry_after: head.retry_after },
        };
        let error = (!status.is_success()).then(|| attempt_error(AttemptErrorKind::Status, head.fault()));
        let status = Some(status.as_u16());
        Self { attempt: Attempt { at, duration_ms: millis(took), status, response_excerpt: excerpt, error }, verdict }
    }
}

fn millis(took: Duration) -> u32 {
    u32::try_from(took.as_millis()).unwrap_or(u32::MAX)
}

/// What counts in the head of an answer.
pub(super) struct Head {
    status: StatusCode,
    retry_after: Option<Duration>,
    location: Option<String>,
}

impl Head {
    /// Reads it; `now` is what a date in `Retry-After` is compared with.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, now: impl FnOnce() -> Timestamp) -> Self {
        let pauses = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let retry_after = if pauses { text(RETRY_AFTER).and_then(|text| pause(text, now())) } else { None };
        let location = if status.is_redirection() { text(LOCATION).map(str::to_owned) } else { None };
        Self { status, retry_after, location }
    }

    fn fault(&self) -> String {
        let answered = match self.status.canonical_reason() {
            Some(reason) => format!("the endpoint answered {} {reason}", self.status.as_u16()),
            None => format!("the endpoint answered {}", self.status.as_u16()),
        };
        match &self.location {
            Some(location) => {
                format!("{answered}, a redirect, which is not followed; its target is {location}")
            }
            None => answered,
        }
    }
}

/// The pause of a `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for 64 bits is a long pause all the same.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Timestamp(i64::try_from(date.as_millis()).ok()?).since(now)
    };
    Some(asked.min(MAX_RETRY_AFTER)).filter(|pause| !pause.is_zero())
}

/// Reads the body as far as the bound; true: to its end. Its first bytes are in `excerpt` then, and also where the
/// reading breaks off or is cancelled.
pub(super) async fn read_body(body: &mut Incoming, excerpt: &mut Vec<u8>) -> bool {
    let mut read = 0;
    while !body.is_end_stream() {
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(&[][..], |data| data.as_ref());
                let wanted = EXCERPT_BYTES.saturating_sub(excerpt.len()).min(data.len());
                excerpt.extend_from_slice(&data[..wanted]);
                read += data.len();
            }
        }
        if read > MAX_BODY_BYTES {
            return false;
        }
    }
    true
}

/// The beginning of a body as text. A character that the bound cuts in two is left out.
pub(super) fn excerpt_text(mut bytes: &[u8]) -> Option<String> {
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
        && bytes.len() == EXCERPT_BYTES
    {
        bytes = &bytes[..error.valid_up_to()];
    }
    // PostgreSQL has no NUL in its text.
    let text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let now = Timestamp::parse("2026-01-31T12:00:00.400Z").unwrap();
        let secs = |secs| Some(Duration::from_secs(secs));
        assert_eq!(pause("120", now), secs(120));
        assert_eq!(pause(" 120 ", now), secs(120));
        assert_eq!(pause("7200", now), secs(3600));
        assert_eq!(pause("99999999999999999999999999", now), secs(3600));
        assert_eq!(pause("Sat, 31 Jan 2026 12:01:00 GMT", now), Some(Duration::from_millis(59_600)));
        assert_eq!(pause("Saturday, 31-Jan-26 12:01:00 GMT", now), Some(Duration::from_millis(59_600)));
        assert_eq!(pause("Sun, 01 Feb 2026 12:00:00 GMT", now), secs(3600));
        for none in ["", "0", "-5", "1.5", "soon", "Sat, 31 Jan 2026 11:59:00 GMT", "Thu, 01 Jan 1960 00:00:00 GMT"] {
            assert_eq!(pause(none, now), None, "{none:?}");
        }
    }

    #[test]
    fn excerpts_are_text() {
        assert_eq!(excerpt_text(b""), None);
        assert_eq!(excerpt_text(b"ok").as_deref(), Some("ok"));
        assert_eq!(excerpt_text(b"a\0b\xff").as_deref(), Some("a\u{fffd}b\u{fffd}"));
        let long = "é".repeat(EXCERPT_BYTES);
        assert_eq!(excerpt_text(&long.as_bytes()[..EXCERPT_BYTES]).unwrap(), "é".repeat(EXCERPT_BYTES / 2));
        let odd = format!("x{long}");
        assert_eq!(excerpt_text(&odd.as_bytes()[..EXCERPT_BYTES]).unwrap().chars().count(), EXCERPT_BYTES / 2);
        assert_eq!(excerpt_text("é".as_bytes().split_last().unwrap().1).as_deref(), Some("\u{fffd}"));
    }
}
