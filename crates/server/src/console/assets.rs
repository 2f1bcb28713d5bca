//! What pages refer to: in the binary, under names that change with their contents, so that browsers keep them for good.

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, StatusCode, header};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::LazyLock;

struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

/// A library as its makers published it: see `assets/vendor/README.md`.
macro_rules! vendored {
    ($name:literal, $media_type:literal) => {
        Asset { name: $name, media_type: $media_type, bytes: include_bytes!(concat!("../../assets/vendor/", $name)) }
    };
}

const ASSETS: [Asset; 6] = [
    Asset { name: "style.css", media_type: "text/css; charset=utf-8", bytes: include_bytes!("../../assets/style.css") },
    Asset {
        name: "console.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../assets/console.js"),
    },
    Asset { name: "icon.svg", media_type: "image/svg+xml", bytes: include_bytes!("../../assets/icon.svg") },
    vendored!("htmx.js", "text/javascript; charset=utf-8"),
    vendored!("uplot.js", "text/javascript; charset=utf-8"),
    vendored!("uplot.css", "text/css; charset=utf-8"),
];

/// The beginning of the digest of all of them.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: Vec<u8> = ASSETS.iter().flat_map(|asset| asset.bytes).copied().collect();
    digest(&SHA256, &all).as_ref().iter().take(6).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
});

/// The path of an asset.
pub fn path(name: &str) -> String {
    debug_assert!(ASSETS.iter().any(|asset| asset.name == name), "no asset {name}");
    format!("/assets/{}/{name}", *VERSION)
}

/// The route of all of them.
pub const ROUTE: &str = "/assets/{version}/{name}";

/// Each of them compressed, in the same order, where that makes it smaller.
static COMPRESSED: LazyLock<Vec<Option<Vec<u8>>>> = LazyLock::new(|| {
    let compressed = |asset: &Asset| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(asset.bytes).and_then(|()| encoder.finish()).ok()
    };
    ASSETS.iter().map(|asset| compressed(asset).filter(|bytes| bytes.len() < asset.bytes.len())).collect()
});

/// Answers with an asset; one of another version is the present one all the same, but not to be kept. Pages are not
/// compressed: they have tokens in them beside what others wrote (BREACH).
pub async fn serve(Path((version, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let Some((place, asset)) = ASSETS.iter().enumerate().find(|(_, asset)| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kept = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    let described = [
        (header::CONTENT_TYPE, asset.media_type),
        (header::CACHE_CONTROL, kept),
        (header::VARY, "accept-encoding"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let compressed = COMPRESSED.get(place).and_then(Option::as_ref);
    match compressed.filter(|_| accepts_gzip(&headers)) {
        Some(bytes) => (described, [(header::CONTENT_ENCODING, "gzip")], bytes.as_slice()).into_response(),
        None => (described, asset.bytes).into_response(),
    }
}

/// Whether `Accept-Encoding` takes gzip (RFC 9110 section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|part| {
        let (coding, weight) = part.split_once(';').unwrap_or((part, ""));
        let is_refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
        coding.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn gzip_goes_to_those_who_take_it() {
        for (value, takes) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("", false)]
        {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(accepts_gzip(&headers), takes, "{value}");
        }
    }
}
