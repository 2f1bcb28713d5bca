//! A receiver for a webhook as it is set, to be copied: a short program that verifies what this webhook sends. It names the
//! environment's variables for secrets, and has none in it.

pub mod literal;

use super::Console;
use super::asked::Asked;
use super::page::{Frame, Visit, show};
use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Deserialize;
use std::sync::Arc;

const PATH: &str = "/v1/feedback-webhooks";

/// The languages: how a query names them, how people do, and the file's name.
const LANGUAGES: [(&str, &str, &str); 5] = [
    ("python", "Python", "receiver.py"),
    ("node", "Node.js", "receiver.mjs"),
    ("go", "Go", "receiver.go"),
    ("rust", "Rust", "main.rs"),
    ("curl", "curl", "try.sh"),
];

/// A webhook as the API shows it, as far as a receiver has to know it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    id: String,
    name: String,
    signing: String,
    signing_public_key: Option<String>,
    timeout_seconds: u64,
    authentication: Authentication,
    headers: Vec<Header>,
}

#[derive(Debug, Deserialize)]
struct Authentication {
    #[serde(rename = "type")]
    kind: String,
    algorithm: Option<String>,
    issuer: Option<String>,
    subject: Option<String>,
    audience: Option<String>,
    header: Option<String>,
    prefix: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Header {
    name: String,
}

/// What a receiver has to know: what the templates are filled in with.
#[derive(Debug)]
struct Receiver {
    id: String,
    signing: String,
    /// Empty where `signing` is not `v1a`.
    public_key: String,
    timeout: u64,
    token: Option<Token>,
    is_oauth2: bool,
    headers: Vec<String>,
    public_url: String,
    /// Where the public keys of this webhook alone are: another one's must not do.
    jwks: String,
    organization: String,
    sandbox: String,
}

/// The token that the webhook makes itself.
#[derive(Debug)]
struct Token {
    algorithm: String,
    issuer: Option<String>,
    subject: Option<String>,
    audience: Option<String>,
    header: String,
    prefix: String,
}

impl Receiver {
    fn of(webhook: Webhook, public_url: &str, visit: &Visit) -> Self {
        let Authentication { kind, algorithm, issuer, subject, audience, header, prefix } = webhook.authentication;
        let given = |text: Option<String>, usual: &str| text.unwrap_or_else(|| usual.to_owned());
        let token = algorithm.filter(|_| kind == "jwt").map(|algorithm| Token {
            algorithm,
            issuer,
            subject,
            audience,
            header: given(header, "Authorization"),
            prefix: given(prefix, "Bearer"),
        });
        Self {
            jwks: format!("{public_url}/.well-known/jwks.json?webhookId={}", webhook.id),
            id: webhook.id,
            signing: webhook.signing,
            public_key: webhook.signing_public_key.unwrap_or_default(),
            timeout: webhook.timeout_seconds,
            token,
            is_oauth2: kind == "oauth2",
            headers: webhook.headers.into_iter().map(|header| header.name).collect(),
            public_url: public_url.to_owned(),
            organization: visit.place.organization.clone(),
            sandbox: visit.place.sandbox.clone(),
        }
    }

    fn is_v1(&self) -> bool {
        self.signing == "v1"
    }

    fn is_v1a(&self) -> bool {
        self.signing == "v1a"
    }

    fn signs(&self) -> bool {
        self.is_v1() || self.is_v1a()
    }

    /// Whether nothing shows that a request is Esito's.
    fn is_open(&self) -> bool {
        !self.signs() && self.token.is_none() && !self.is_oauth2
    }

    fn needs_environment(&self) -> bool {
        self.is_v1() || self.token.as_ref().is_some_and(Token::is_hmac)
    }

    /// Whether a few lines of shell can make a request as the webhook does.
    fn is_sampled(&self) -> bool {
        self.is_v1() && self.token.is_none() && !self.is_oauth2
    }

    /// What the first comment of each program says.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.is_v1() {
            let note =
                "ESITO_WEBHOOK_SECRET: the whsec_… that was shown when the webhook was made or its secret rotated.";
            notes.push(note.to_owned());
        }
        if self.token.as_ref().is_some_and(Token::is_hmac) {
            notes.push("ESITO_JWT_SECRET: the secret that the webhook's tokens are signed with.".to_owned());
        }
        if self.is_oauth2 {
            notes.push("NOT CHECKED HERE: the access token in the header Authorization. Your own authorization server gives it".to_owned());
            notes.push("to Esito, and says how it is checked: by its key set, or by introspection.".to_owned());
        }
        if self.is_open() {
            notes.push(
                "THIS WEBHOOK PROVES NOTHING: it neither signs nor sends a token, so anybody can post events here."
                    .to_owned(),
            );
        }
        if !self.headers.is_empty() {
            // Names of headers are tokens (RFC 9110 section 5.1): they end no line.
            notes.push(format!("The webhook also sends, and nothing here looks at: {}.", self.headers.join(", ")));
        }
        notes
    }

    fn test_url(&self) -> String {
        format!("{}{PATH}/{}/test", self.public_url, self.id)
    }

    fn organization_header(&self) -> String {
        format!("x-gw-ims-org-id: {}", self.organization)
    }

    fn sandbox_header(&self) -> String {
        format!("x-sandbox-name: {}", self.sandbox)
    }

    fn python(&self, text: impl AsRef<str>) -> String {
        literal::python(text.as_ref())
    }

    fn javascript(&self, text: impl AsRef<str>) -> String {
        literal::javascript(text.as_ref())
    }

    fn go(&self, text: impl AsRef<str>) -> String {
        literal::go(text.as_ref())
    }

    fn rust(&self, text: impl AsRef<str>) -> String {
        literal::rust(text.as_ref())
    }

    fn shell(&self, text: impl AsRef<str>) -> String {
        literal::shell(text.as_ref())
    }

    /// The program in one of the [`LANGUAGES`].
    fn program(&self, language: &str) -> askama::Result<String> {
        let r = self;
        let program = match language {
            "node" => Node { r }.render(),
            "go" => Go { r }.render(),
            "rust" => Rust { r }.render(),
            "curl" => Curl { r }.render(),
            _ => Python { r }.render(),
        }?;
        Ok(program.trim_end().to_owned() + "\n")
    }
}

impl Token {
    fn is_hmac(&self) -> bool {
        self.algorithm.starts_with("HS")
    }

    /// What stands before the token in its header.
    fn start(&self) -> String {
        if self.prefix.is_empty() { String::new() } else { format!("{} ", self.prefix) }
    }

    fn lowercase_header(&self) -> String {
        self.header.to_ascii_lowercase()
    }

    /// The claims that must be there.
    fn claims(&self) -> Vec<&'static str> {
        let named = [("iss", &self.issuer), ("aud", &self.audience), ("sub", &self.subject)];
        let named = named.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name);
        std::iter::once("exp").chain(named).collect()
    }
}

#[derive(Template)]
#[template(path = "receivers/python.txt")]
struct Python<'a> {
    r: &'a Receiver,
}

#[derive(Template)]
#[template(path = "receivers/node.txt")]
struct Node<'a> {
    r: &'a Receiver,
}

#[derive(Template)]
#[template(path = "receivers/go.txt")]
struct Go<'a> {
    r: &'a Receiver,
}

#[derive(Template)]
#[template(path = "receivers/rust.txt")]
struct Rust<'a> {
    r: &'a Receiver,
}

#[derive(Template)]
#[template(path = "receivers/curl.txt")]
struct Curl<'a> {
    r: &'a Receiver,
}

#[derive(Template)]
#[template(path = "receiver.html")]
struct Page {
    f: Frame,
    webhook: String,
    language: &'static str,
    file: &'static str,
    code: String,
    r: Receiver,
}

impl Page {
    fn path(&self) -> String {
        self.f.to(&format!("webhooks/{}", self.r.id))
    }

    fn languages(&self) -> [(&'static str, &'static str, &'static str); 5] {
        LANGUAGES
    }
}

/// The program, in the language that the query names, as a page; or as a file.
pub async fn page(State(console): State<Arc<Console>>, visit: Visit) -> Result<Response, Response> {
    let webhook: Webhook = visit.get(&console, &visit.resource(PATH)).await?;
    let asked = Asked::of(&visit.frame.path);
    let known = LANGUAGES.iter().find(|one| asked.is("language", one.0)).unwrap_or(&LANGUAGES[0]);
    let (language, _, file) = *known;
    let name = webhook.name.clone();
    let r = Receiver::of(webhook, &console.public_url, &visit);
    let code = r.program(language).map_err(|error| {
        tracing::error!(%error, "a receiver could not be made");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })?;
    if asked.0.is_set("file") {
        let disposition = format!("attachment; filename=\"{file}\"");
        let headers = [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
            (header::CONTENT_DISPOSITION, disposition),
        ];
        return Ok((headers, code).into_response());
    }
    Ok(show(StatusCode::OK, &Page { f: visit.frame, webhook: name, language, file, code, r }))
}
