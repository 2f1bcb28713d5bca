//! Who is signed in: a cookie that only this installation can make. It names an API key, so that what the key may do is
//! asked anew with each page, and its revocation ends the session; nothing is kept in memory, so that any node serves it.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use model::clock::{Entropy, Timestamp};
use model::ids::ApiKeyId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a session lasts.
const LASTS: Duration = Duration::from_secs(12 * 3600);
/// How long a link to sign in is good.
const LINK_LASTS: Duration = Duration::from_secs(15 * 60);
const COOKIE: &str = "esito-session";
/// Key id, end, nonce, tag.
const LENGTH: usize = 16 + 8 + 16 + 32;

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose rights it has.
    pub key: ApiKeyId,
    /// When it ends.
    pub until: Timestamp,
    nonce: [u8; 16],
}

/// Makes sessions and knows its own.
#[derive(Debug)]
pub struct Sessions {
    key: hmac::Key,
    is_secure: bool,
    links: Mutex<HashMap<[u8; 32], (ApiKeyId, Timestamp)>>,
}

impl Sessions {
    /// `secret` is the installation's; `is_secure`: browsers reach it over TLS.
    pub fn new(secret: &[u8; 32], is_secure: bool) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), is_secure, links: Mutex::default() }
    }

    /// Begins a session with the rights of an API key: the cookie to be set.
    pub fn begin(&self, key: ApiKeyId, now: Timestamp, entropy: &dyn Entropy) -> HeaderValue {
        let mut nonce = [0; 16];
        entropy.fill(&mut nonce);
        let session = Session { key, until: now + LASTS, nonce };
        let mut bytes = session.bytes();
        bytes.extend_from_slice(hmac::sign(&self.key, &bytes).as_ref());
        self.cookie(&URL_SAFE_NO_PAD.encode(bytes), LASTS.as_secs())
    }

    /// The cookie that ends a session.
    pub fn end(&self) -> HeaderValue {
        self.cookie("", 0)
    }

    fn cookie(&self, value: &str, seconds: u64) -> HeaderValue {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        HeaderValue::from_str(&text).expect("a cookie of plain characters")
    }

    /// The session of a request.
    pub fn of(&self, headers: &HeaderMap, now: Timestamp) -> Option<Session> {
        let bytes = URL_SAFE_NO_PAD.decode(cookie_of(headers, COOKIE)?).ok().filter(|bytes| bytes.len() == LENGTH)?;
        let (bytes, tag) = bytes.split_at(LENGTH - 32);
        hmac::verify(&self.key, bytes, tag).ok()?;
        let (key, rest) = bytes.split_first_chunk::<16>()?;
        let (until, nonce) = rest.split_first_chunk::<8>()?;
        let until = Timestamp(i64::from_be_bytes(*until));
        let session = Session { key: ApiKeyId::from_bytes(key)?, until, nonce: nonce.try_into().ok()? };
        (now < session.until).then_some(session)
    }

    /// What each form of this session carries, and no other site knows.
    pub fn form_token(&self, session: &Session) -> String {
        let mut bytes = b"form ".to_vec();
        bytes.extend(session.bytes());
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, &bytes))
    }

    /// Whether a form came from a page of this session.
    pub fn owns(&self, session: &Session, token: &str) -> bool {
        verify_slices_are_equal(self.form_token(session).as_bytes(), token.as_bytes()).is_ok()
    }

    /// A token that signs in once, soon, with the rights of an API key.
    pub fn link(&self, key: ApiKeyId, now: Timestamp, entropy: &dyn Entropy) -> String {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, (_, until)| now < *until);
        links.insert(self.mark(&bytes), (key, now + LINK_LASTS));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose token this is; from then on nobody's.
    pub fn redeem(&self, token: &str, now: Timestamp) -> Option<ApiKeyId> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, until) = links.remove(&self.mark(&bytes))?;
        (now < until).then_some(key)
    }

    /// What a token is found by: not the token, whose comparison would tell how much of it is right.
    fn mark(&self, token: &[u8]) -> [u8; 32] {
        let mut mark = [0; 32];
        mark.copy_from_slice(hmac::sign(&self.key, token).as_ref());
        mark
    }
}

impl Session {
    fn bytes(&self) -> Vec<u8> {
        [self.key.bytes(), &self.until.millis().to_be_bytes()[..], &self.nonce[..]].concat()
    }
}

/// The value of a cookie (RFC 6265 section 5.4).
pub fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split("; "))
        .filter_map(|one| one.split_once('='))
        .find(|one| one.0 == name)
        .map(|one| one.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    fn headers(set: &HeaderValue) -> HeaderMap {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(header::COOKIE, format!("theme=dark; {pair}").parse().unwrap())])
    }

    #[test]
    fn a_session_is_known_until_its_end_and_by_its_maker_alone() {
        let (entropy, now) = (SystemEntropy, Timestamp(1_000));
        let (sessions, others) = (Sessions::new(&[1; 32], true), Sessions::new(&[2; 32], true));
        let key = ApiKeyId::from_bytes(&[9; 16]).unwrap();
        let set = sessions.begin(key, now, &entropy);
        assert!(set.to_str().unwrap().ends_with("; HttpOnly; SameSite=Strict; Secure"));
        let session = sessions.of(&headers(&set), now).unwrap();
        assert_eq!(session.key, key);
        assert_eq!(sessions.of(&headers(&set), now + LASTS), None);
        assert_eq!(others.of(&headers(&set), now), None);
        assert_eq!(sessions.of(&headers(&sessions.end()), now), None);
        let token = sessions.form_token(&session);
        assert!(sessions.owns(&session, &token));
        let other = sessions.of(&headers(&sessions.begin(key, now, &entropy)), now).unwrap();
        assert!(!sessions.owns(&other, &token), "another session's form");
        assert!(!sessions.owns(&session, ""));
    }

    #[test]
    fn any_changed_character_of_a_cookie_ends_the_session() {
        let sessions = Sessions::new(&[1; 32], false);
        let set = sessions.begin(ApiKeyId::from_bytes(&[9; 16]).unwrap(), Timestamp(0), &SystemEntropy);
        let text = set.to_str().unwrap().split(';').next().unwrap().to_owned();
        for i in COOKIE.len() + 1..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[i] = if changed[i] == b'A' { b'B' } else { b'A' };
            let changed = HeaderValue::from_bytes(&changed).unwrap();
            assert_eq!(sessions.of(&headers(&changed), Timestamp(0)), None, "character {i}");
        }
    }

    #[test]
    fn a_link_signs_in_once_and_not_late() {
        let sessions = Sessions::new(&[1; 32], false);
        let (entropy, now, key) = (SystemEntropy, Timestamp(0), ApiKeyId::from_bytes(&[9; 16]).unwrap());
        let token = sessions.link(key, now, &entropy);
        assert_eq!(sessions.redeem("x", now), None);
        assert_eq!(sessions.redeem(&token, now), Some(key));
        assert_eq!(sessions.redeem(&token, now), None);
        let late = sessions.link(key, now, &entropy);
        assert_eq!(sessions.redeem(&late, now + LINK_LASTS), None);
    }
}
