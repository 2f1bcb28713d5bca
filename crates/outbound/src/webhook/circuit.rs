//! What an attempt tells of its endpoint.

use super::{Reply, Verdict};
use model::circuit::Sign;
use model::delivery::AttemptErrorKind;

/// Whether the endpoint is well, in trouble whatever it is given, or has said something about this one event.
pub(super) fn sign(reply: &Reply) -> Sign {
    match (reply.verdict, &reply.attempt.error) {
        (Verdict::Succeeded, _) => Sign::Good,
        (Verdict::Failed { .. }, Some(error)) if error.kind != AttemptErrorKind::Status => Sign::Bad,
        (Verdict::Failed { .. }, _) if reply.attempt.status.is_some_and(means_trouble) => Sign::Bad,
        _ => Sign::Neutral,
    }
}

/// The answers that a receiver gives to everything: it knows nobody, has no such path, is too busy or broken.
fn means_trouble(status: u16) -> bool {
    matches!(status, 401 | 403 | 404 | 429 | 500..=599)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::error::attempt_error;
    use http::StatusCode;
    use http::header::HeaderMap;
    use model::clock::Timestamp;
    use std::time::Duration;

    fn answered(status: u16) -> Sign {
        let status = StatusCode::from_u16(status).unwrap();
        let head = crate::webhook::reply::Head::of(status, &HeaderMap::new(), || Timestamp(0));
        sign(&Reply::answered(Timestamp(0), Duration::ZERO, &head, None))
    }

    #[test]
    fn answers() {
        for status in [200, 204, 299] {
            assert_eq!(answered(status), Sign::Good, "{status}");
        }
        for status in [401, 403, 404, 429, 500, 502, 503, 504, 599] {
            assert_eq!(answered(status), Sign::Bad, "{status}");
        }
        for status in [301, 400, 405, 409, 410, 413, 415, 422] {
            assert_eq!(answered(status), Sign::Neutral, "{status}");
        }
    }

    #[test]
    fn what_has_no_answer_lies_with_the_endpoint_or_its_settings() {
        use AttemptErrorKind::{Configuration, Connect, Dns, Guard, Protocol, Timeout, Tls, Token};
        for kind in [Configuration, Guard, Token, Dns, Connect, Tls, Timeout, Protocol] {
            let reply = Reply::failed(Timestamp(0), Duration::ZERO, attempt_error(kind, "no"));
            assert_eq!(sign(&reply), Sign::Bad, "{kind:?}");
        }
    }
}
