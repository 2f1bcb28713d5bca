//! What a refusal leaves unread of a request's body.
//!
//! A connection with unread bytes cannot be used again, and closing it over them makes the kernel reset it: a caller
//! that is still writing then sees a broken pipe in place of the answer. So the rest is read first, within bounds.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot;

/// The most bytes that are read for nothing; past these the connection is closed.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The longest that this may take.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Reads what the handler left of the body, or closes the connection after the answer.
pub async fn read<F: Future<Output = Response>>(request: Request, answer: impl FnOnce(Request) -> F) -> Response {
    if request.body().is_end_stream() {
        return answer(request).await;
    }
    let asks_first = request.headers().contains_key(header::EXPECT);
    let (give_back, mut left) = oneshot::channel();
    let lent = |body| Body::new(Lent { body: Some(body), is_touched: false, give_back: Some(give_back) });
    let mut response = answer(request.map(lent)).await;
    // The handler is done, so it has dropped the body: what it did not finish is here now.
    if let Ok(Leftover { body, is_touched }) = left.try_recv() {
        // Who asks first (RFC 9110 section 10.1.1) and was not told to go on sends no body.
        let comes = is_touched || !asks_first;
        if !comes || !is_read(body).await {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    response
}

/// Reads to the end; false: it is too long, too slow or broken.
async fn is_read(body: Body) -> bool {
    if body.size_hint().lower() > MAX_BYTES as u64 {
        return false;
    }
    let mut body = Limited::new(body, MAX_BYTES);
    let reading = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(MAX_TIME, reading).await.unwrap_or(false)
}

struct Leftover {
    body: Body,
    is_touched: bool,
}

/// A body that comes back when it is dropped before its end.
struct Lent {
    body: Option<Body>,
    is_touched: bool,
    give_back: Option<oneshot::Sender<Leftover>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_touched = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let unfinished = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(give_back)) = (unfinished, self.give_back.take()) {
            // Nobody waits for it where the caller has gone away.
            let _ = give_back.send(Leftover { body, is_touched: self.is_touched });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::middleware::{Next, from_fn};
    use axum::routing::post;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Sends chunks to a handler that reads none of them; how many were read, and whether the connection is closed.
    async fn send(chunks: usize, headers: &[(&str, &str)]) -> (usize, bool) {
        let read_chunks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read_chunks);
        let stream = futures_util::stream::iter((0..chunks).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1024 * 1024]))
        }));
        let mut request = Request::post("/").body(Body::from_stream(stream)).unwrap();
        for (name, value) in headers {
            let name = http::HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, HeaderValue::try_from(*value).unwrap());
        }
        let router = axum::Router::new()
            .route("/", post(async || "no"))
            .layer(from_fn(|request, next: Next| read(request, |request| next.run(request))));
        let response = TowerToHyperService::new(router).call(request).await.unwrap();
        (read_chunks.load(Ordering::Relaxed), response.headers().contains_key(header::CONNECTION))
    }

    #[tokio::test]
    async fn the_rest_is_read_within_bounds() {
        assert_eq!(send(10, &[]).await, (10, false));
        let (read, closed) = send(30, &[]).await;
        assert!((16..=18).contains(&read) && closed, "{read}");
        assert_eq!(send(10, &[("expect", "100-continue")]).await, (0, true));
    }
}
