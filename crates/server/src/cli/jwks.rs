//! Key sets (RFC 7517): from a URL or a file, read again when a token names a key that is not in them yet.

use super::client::HttpClient;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use wire::jwt::VerificationKey;

/// How long an answer may take.
const FETCH_LIMIT: Duration = Duration::from_secs(10);

/// How often the set is read at most: a stranger's tokens must not make this a way to hammer its server.
const PAUSE: Duration = Duration::from_secs(2);

/// Where a key set is.
#[derive(Debug)]
pub enum Place {
    /// In a file.
    File(PathBuf),
    /// At a URL.
    Url(String, HttpClient),
}

/// A key set, read when it is needed.
#[derive(Debug)]
pub struct Jwks {
    place: Place,
    cached: Mutex<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    keys: HashMap<Option<String>, Arc<VerificationKey>>,
    read_at: Option<Instant>,
}

impl Jwks {
    /// The key set at this place.
    pub fn new(place: Place) -> Self {
        Self { place, cached: Mutex::default() }
    }

    /// The key with this `kid`.
    pub async fn find(&self, kid: Option<&str>) -> Result<Arc<VerificationKey>, String> {
        let mut cached = self.cached.lock().await;
        let wanted = kid.map(str::to_owned);
        if !cached.keys.contains_key(&wanted) && cached.read_at.is_none_or(|at| at.elapsed() > PAUSE) {
            cached.read_at = Some(Instant::now());
            cached.keys = self.read().await?;
        }
        let missing = || format!("the key set has no key {}", kid.unwrap_or("without a name"));
        cached.keys.get(&wanted).cloned().ok_or_else(missing)
    }

    async fn read(&self) -> Result<HashMap<Option<String>, Arc<VerificationKey>>, String> {
        let bytes = match &self.place {
            Place::File(path) => {
                Bytes::from(tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))?)
            }
            Place::Url(url, client) => fetch(url, client).await?,
        };
        let set: Value = serde_json::from_slice(&bytes).map_err(|error| format!("the key set is no JSON: {error}"))?;
        let keys = set["keys"].as_array().ok_or("the key set has no list of keys")?;
        let readable = keys
            .iter()
            .filter_map(|jwk| Some((jwk["kid"].as_str().map(str::to_owned), VerificationKey::from_jwk(jwk)?)));
        Ok(readable.map(|(kid, key)| (kid, Arc::new(key))).collect())
    }
}

async fn fetch(url: &str, client: &HttpClient) -> Result<Bytes, String> {
    let request = Request::get(url).body(Full::default()).map_err(|error| format!("{url}: {error}"))?;
    let answer = client.call(request, FETCH_LIMIT).await.map_err(|error| format!("{url}: {error}"))?;
    if answer.status.is_success() { Ok(answer.body) } else { Err(format!("{url} answered {}", answer.status)) }
}
