//! Reads JSON bodies, bounded in size and depth, and says where they are wrong.

use super::Api;
use super::problem::Problem;
use super::shape::{self, Mode};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::fault::Faults;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The most bytes of an execution's body: 20 recipients with the largest context each, and room for the rest.
pub const MAX_EXECUTION_BYTES: usize = 6 * 1024 * 1024;

/// The most bytes of every other body.
pub const MAX_BYTES: usize = 1024 * 1024;

/// How long a body may pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// What a caller may send as a body.
pub trait Input: DeserializeOwned {
    /// The fields that a read shows besides; they are ignored, so that what was read can be written back.
    const READ_ONLY: &'static [&'static str] = &[];
}

/// The fields of [`model::webhook::Stamps`].
macro_rules! read_only {
    ($($name:literal),*) => {
        &["createdAt", "createdBy", "modifiedAt", "modifiedBy", $($name),*]
    };
}
pub(super) use read_only;

/// A required JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: Input> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, Problem> {
        check_content_type(request.headers())?;
        let bytes = read(request, MAX_BYTES).await?;
        typed(parse(&bytes)?).map(Self)
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<T: Input + Default> FromRequest<Arc<Api>> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, Problem> {
        let declared = check_content_type(request.headers());
        let bytes = read(request, MAX_BYTES).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        declared?;
        typed(parse(&bytes)?).map(Self)
    }
}

/// The body's bytes, at most `limit`.
pub async fn read(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::BodyTooLarge(limit);
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > limit as u64) {
        return Err(too_large());
    }
    let mut body = Limited::<Body>::new(request.into_body(), limit);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    // The pause is watched here and not by a layer around the body: such a body no longer says that it is empty, or how
    // long it is.
    while let Some(frame) = timeout(MAX_PAUSE, body.frame()).await.map_err(|_| Problem::IncompleteBody)? {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) if first.is_empty() => first = data,
                Ok(data) => more.extend_from_slice(&data),
                // Trailers, which nobody asked for.
                Err(_) => {}
            },
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
            Err(_) => return Err(Problem::IncompleteBody),
        }
    }
    // Most bodies are one frame, which need not be copied.
    Ok(if more.is_empty() { first } else { [&first[..], &more[..]].concat().into() })
}

/// Whether the body is declared as JSON.
pub fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = declared.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(Problem::UnsupportedMediaType) }
}

/// The bytes as JSON. The parser's own limit on depth (128) bounds whatever walks the value later.
pub fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Err(Problem::MalformedJson("it is empty".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| Problem::MalformedJson(error.to_string()))
}

fn typed<T: Input>(mut value: Value) -> Result<T, Problem> {
    if let Value::Object(fields) = &mut value {
        fields.retain(|name, _| !T::READ_ONLY.contains(&name.as_str()));
    }
    shape::read(value, Mode::Strict, "$").map_err(|fault| {
        let mut faults = Faults::default();
        faults.add(fault.path, fault.message);
        Problem::Validation(faults)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[derive(Debug, serde::Deserialize)]
    struct Named {
        name: String,
    }
    impl Input for Named {
        const READ_ONLY: &'static [&'static str] = read_only!("id");
    }

    fn request(content_type: &str, body: impl Into<Body>) -> Request {
        Request::builder().header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap()
    }

    #[test]
    fn what_was_read_can_be_written_back() {
        let named: Named = typed(serde_json::json!({"id": 7, "name": "n", "createdAt": "x"})).unwrap();
        assert_eq!(named.name, "n");
        assert!(typed::<Named>(serde_json::json!({"ids": 7, "name": "n"})).is_err());
    }

    #[test]
    fn content_types() {
        let declared = |value: &str| check_content_type(request(value, "").headers()).is_ok();
        assert!(declared("application/json") && declared("Application/JSON; charset=utf-8"));
        assert!(!declared("text/plain") && !declared("application/jsonx") && !declared(""));
    }

    #[test]
    fn syntax_errors_say_where_and_depth_is_bounded() {
        let Problem::MalformedJson(why) = parse(b"{\n  \"a\": ]").unwrap_err() else { panic!("another problem") };
        assert!(why.contains("line 2 column 8"), "{why}");
        assert!(parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(parse(b"").is_err());
    }

    #[tokio::test]
    async fn bodies_are_bounded_whether_announced_or_not() {
        assert_eq!(read(request("application/json", vec![b'x'; 11]), 10).await, Err(Problem::BodyTooLarge(10)));
        let chunks = ["123456", "789012"].map(Ok::<_, std::io::Error>);
        let streamed = request("application/json", Body::from_stream(futures_util::stream::iter(chunks)));
        assert_eq!(read(streamed, 10).await, Err(Problem::BodyTooLarge(10)));
        assert_eq!(read(request("application/json", "1234"), 10).await.unwrap().len(), 4);
        let chunks = ["123", "45", "678"].map(Ok::<_, std::io::Error>);
        let streamed = request("application/json", Body::from_stream(futures_util::stream::iter(chunks)));
        assert_eq!(read(streamed, 10).await.unwrap(), "12345678");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up() {
        let begun = futures_util::stream::iter([Ok::<_, std::io::Error>("{")]);
        let stuck = begun.chain(futures_util::stream::pending());
        let answer = read(request("application/json", Body::from_stream(stuck)), 10).await;
        assert_eq!(answer, Err(Problem::IncompleteBody));
    }
}
