//! What pages refer to: in the binary, under names that change with their contents, so that browsers keep them for good.

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use std::fmt::Write as _;
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

/// Answers with an asset; one of another version is the present one all the same, but not to be kept.
pub async fn serve(Path((version, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kept = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    ([(header::CONTENT_TYPE, asset.media_type), (header::CACHE_CONTROL, kept)], asset.bytes).into_response()
}
