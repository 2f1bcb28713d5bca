//! One question to a token endpoint, and what its answer says.

use super::grant::{Place, TokenRequest};
use crate::webhook::connection::open;
use crate::webhook::error::exchange_error;
use crate::webhook::guard::Network;
use crate::webhook::request::AGENT;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde_json::Value;
use std::time::Duration;

/// The longest answer that is read.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest access token: with it the request's head must stay within what receivers take.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A token that does not say how long it is good for is taken to be for this long.
const USUAL_LIFE: Duration = Duration::from_secs(300);

/// What an answer says of a token's life is brought between these: the one bounds how often tokens are asked for, the
/// other how long one is kept.
const LEAST_LIFE: Duration = Duration::from_secs(1);
const MOST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The most characters of each of the endpoint's own words in an error.
const MAX_WORDS: usize = 160;

/// What a token endpoint gave.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) header: HeaderValue,
    pub(super) life: Duration,
}

/// Asks once, on a connection of its own.
pub(super) async fn fetch(
    network: &Network,
    place: &Place,
    request: &TokenRequest,
    within: Duration,
) -> Result<Granted, String> {
    let mut sender = open(network, &place.origin, within).await.map_err(|error| error.message)?;
    let answer = sender.send_request(message(place, request)).await;
    let (head, body) = answer.map_err(|error| exchange_error(&error).message)?.into_parts();
    let body = match sender.read(Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Err(format!("its answer is longer than {} KiB", MAX_BODY_BYTES / 1024));
        }
        Err(_) => return Err("its answer broke off".to_owned()),
    };
    if head.status.is_success() { granted(&body) } else { Err(refusal(head.status, &body)) }
}

fn message(place: &Place, request: &TokenRequest) -> Request<Full<Bytes>> {
    let mut message = Request::new(Full::new(request.body.clone()));
    *message.method_mut() = Method::POST;
    *message.uri_mut() = place.target.clone();
    let headers = message.headers_mut();
    headers.insert(HOST, place.host.clone());
    headers.insert(USER_AGENT, AGENT);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(basic) = &request.basic {
        headers.insert(AUTHORIZATION, basic.clone());
    }
    message
}

/// RFC 6749 section 5.1. No error repeats any of the answer: all of it may be secret.
fn granted(body: &[u8]) -> Result<Granted, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| "its answer is not JSON".to_owned())?;
    let kind = answer["token_type"].as_str().ok_or("its answer has no token_type")?;
    if !kind.eq_ignore_ascii_case("bearer") {
        return Err("its answer has another token_type than Bearer".to_owned());
    }
    let token = answer["access_token"].as_str().ok_or("its answer has no access_token")?;
    let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !visible || !(1..=MAX_TOKEN_BYTES).contains(&token.len()) {
        return Err("its access_token cannot be sent in a header".to_owned());
    }
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    let mut header = header.map_err(|_| "its access_token cannot be sent in a header".to_owned())?;
    header.set_sensitive(true);
    Ok(Granted { header, life: life(&answer["expires_in"]) })
}

/// `expires_in`: a number of seconds, which some write as a text.
fn life(expires_in: &Value) -> Duration {
    let secs = match expires_in {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let stated = secs.filter(|secs| *secs >= 0.0).map(|secs| Duration::try_from_secs_f64(secs).unwrap_or(MOST_LIFE));
    stated.unwrap_or(USUAL_LIFE).clamp(LEAST_LIFE, MOST_LIFE)
}

/// RFC 6749 section 5.2, as far as the answer keeps to it.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let mut text = format!("it answered {}", status.as_u16());
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = |name: &str| answer[name].as_str().map(|words| words.chars().take(MAX_WORDS).collect::<String>());
    match (words("error"), words("error_description")) {
        (Some(error), Some(description)) => text.push_str(&format!(" {error}: {description}")),
        (Some(error), None) => text.push_str(&format!(" {error}")),
        (None, _) => text.push_str(&format!(" {}", status.canonical_reason().unwrap_or_default())),
    }
    if status.is_redirection() {
        text.push_str(", a redirect, which is not followed");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_read_as_rfc_6749_has_it() {
        let read = |answer: Value| granted(answer.to_string().as_bytes());
        let good = read(json!({"access_token": "a.b-c/d+e=", "token_type": "bearer", "expires_in": 120, "scope": "x"}));
        let good = good.unwrap();
        assert_eq!((good.header.to_str().unwrap(), good.life), ("Bearer a.b-c/d+e=", Duration::from_secs(120)));
        for (answer, says) in [
            (json!({"access_token": "t0ken"}), "no token_type"),
            (json!({"access_token": "t0ken", "token_type": "mac"}), "another token_type"),
            (json!({"token_type": "Bearer"}), "no access_token"),
            (json!({"access_token": 7, "token_type": "Bearer"}), "no access_token"),
            (json!({"access_token": "", "token_type": "Bearer"}), "cannot be sent"),
            (json!({"access_token": "t0ken\r\nx: y", "token_type": "Bearer"}), "cannot be sent"),
            (json!({"access_token": "t0ken".repeat(4000), "token_type": "Bearer"}), "cannot be sent"),
            (json!(["t0ken"]), "no token_type"),
        ] {
            let fault = read(answer).unwrap_err();
            assert!(fault.contains(says) && !fault.contains("t0ken"), "{fault}");
        }
        assert_eq!(granted(b"<html>").unwrap_err(), "its answer is not JSON");
    }

    #[test]
    fn a_life_is_bounded() {
        let secs = |expires_in: Value| life(&expires_in).as_secs_f64();
        assert_eq!(secs(json!(3600)), 3600.0);
        assert_eq!(secs(json!("3600")), 3600.0);
        assert_eq!(secs(json!(1.5)), 1.5);
        for unknown in [json!(null), json!("soon"), json!(-1), json!("NaN"), json!({})] {
            assert_eq!(secs(unknown.clone()), 300.0, "{unknown}");
        }
        assert_eq!((secs(json!(0)), secs(json!(1e300)), secs(json!("inf"))), (1.0, 86_400.0, 86_400.0));
    }

    #[test]
    fn a_refusal_is_told_in_the_endpoints_words() {
        let told = |status: u16, body: &str| refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(told(400, r#"{"error":"invalid_scope"}"#), "it answered 400 invalid_scope");
        let described = told(401, r#"{"error":"invalid_client","error_description":"no such client"}"#);
        assert_eq!(described, "it answered 401 invalid_client: no such client");
        assert_eq!(told(500, "<html>"), "it answered 500 Internal Server Error");
        assert_eq!(told(302, ""), "it answered 302 Found, a redirect, which is not followed");
        assert_eq!(told(599, r#"{"error":7}"#), "it answered 599");
    }
}
