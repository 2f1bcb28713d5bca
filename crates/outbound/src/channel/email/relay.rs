//! How to reach a relay: connection, TLS, EHLO, AUTH.

use super::dialogue::{COMMAND_TIMEOUT, Dialogue, Io, Reply, Trouble};
use mail_builder::encoders::base64::base64_encode;
use model::channel::{SmtpSettings, SmtpTls};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// How long the relay's name may take to resolve, and each of its addresses to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How many of the relay's addresses are tried.
const MAX_ADDRESSES: usize = 4;

/// A relay and how to use it. Its host is the operator's own choice, so no address is forbidden.
pub(super) struct Relay {
    host: String,
    port: u16,
    tls: SmtpTls,
    credentials: Option<Credentials>,
    /// What is said with EHLO.
    name: String,
    config: Arc<ClientConfig>,
}

struct Credentials {
    username: String,
    password: SecretString,
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An open connection, ready for a message.
pub(super) struct Connection {
    pub(super) dialogue: Dialogue,
    pub(super) extensions: Extensions,
    /// Whether a transaction was begun and has not ended: RSET comes before the next one.
    pub(super) in_transaction: bool,
    /// When it was opened.
    pub(super) opened: Instant,
}

/// What the relay offers, of what is used (RFC 5321 section 4.1.1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    starttls: bool,
    auth_plain: bool,
    auth_login: bool,
    pub(super) pipelining: bool,
    pub(super) size: bool,
    pub(super) dsn: bool,
}

impl Relay {
    pub(super) fn new(smtp: &SmtpSettings, name: &str, config: Arc<ClientConfig>) -> Self {
        let credentials = smtp.username.as_ref().map(|username| Credentials {
            username: username.clone(),
            password: smtp.password.as_ref().and_then(|password| password.value().cloned()).unwrap_or_default(),
        });
        let host = smtp.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self { host, port: smtp.port, tls: smtp.tls, credentials, name: name.to_owned(), config }
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Connection, Trouble> {
        let stream = self.dial().await?;
        let mut dialogue = match self.tls {
            SmtpTls::Implicit => Dialogue::new(self.encrypt(stream).await?),
            SmtpTls::None | SmtpTls::Starttls => Dialogue::new(stream),
        };
        let greeting = dialogue.reply("greeting", COMMAND_TIMEOUT).await?;
        positive("the connection", greeting)?;
        let mut extensions = self.ehlo(&mut dialogue).await?;
        if self.tls == SmtpTls::Starttls {
            dialogue = self.starttls(dialogue, &extensions).await?;
            // What was offered in the clear may have been offered by anyone (RFC 3207 section 4.2).
            extensions = self.ehlo(&mut dialogue).await?;
        }
        if let Some(credentials) = &self.credentials {
            credentials.authenticate(&mut dialogue, &extensions).await?;
        }
        Ok(Connection { dialogue, extensions, in_transaction: false, opened: Instant::now() })
    }

    async fn dial(&self) -> Result<TcpStream, Trouble> {
        let resolving = timeout(CONNECT_TIMEOUT, lookup_host((self.host.as_str(), self.port))).await;
        let addresses = match resolving {
            Ok(Ok(addresses)) => addresses.take(MAX_ADDRESSES).collect::<Vec<_>>(),
            Ok(Err(error)) => return Err(Trouble::Dns(error.to_string())),
            Err(_) => return Err(Trouble::Dns("the name servers do not answer".to_owned())),
        };
        let mut trouble = Trouble::Dns("it has no address".to_owned());
        for address in addresses {
            match dial_address(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }

    async fn encrypt(&self, stream: impl Io + 'static) -> Result<impl Io + 'static, Trouble> {
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|_| Trouble::Tls(format!("{} is no name for a certificate", self.host)))?;
        let connecting = TlsConnector::from(self.config.clone()).connect(name, stream);
        match timeout(COMMAND_TIMEOUT, connecting).await {
            Ok(result) => result.map_err(|error| Trouble::Tls(error.to_string())),
            Err(_) => Err(Trouble::Timeout { stage: "TLS", seconds: COMMAND_TIMEOUT.as_secs() }),
        }
    }

    async fn starttls(&self, mut dialogue: Dialogue, offered: &Extensions) -> Result<Dialogue, Trouble> {
        if !offered.starttls {
            return Err(Trouble::NoStarttls);
        }
        let reply = dialogue.command("STARTTLS", "STARTTLS\r\n").await?;
        positive("STARTTLS", reply)?;
        Ok(Dialogue::new(self.encrypt(dialogue.into_stream()?).await?))
    }

    async fn ehlo(&self, dialogue: &mut Dialogue) -> Result<Extensions, Trouble> {
        let reply = dialogue.command("EHLO", &format!("EHLO {}\r\n", self.name)).await?;
        Ok(Extensions::of(&positive("EHLO", reply)?))
    }
}

async fn dial_address(address: SocketAddr) -> Result<TcpStream, Trouble> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(result) => result.map_err(Trouble::Connect),
        Err(_) => Err(Trouble::Timeout { stage: "connection", seconds: CONNECT_TIMEOUT.as_secs() }),
    }
}

fn positive(stage: &'static str, reply: Reply) -> Result<Reply, Trouble> {
    if reply.is_positive() { Ok(reply) } else { Err(Trouble::Refused { stage, reply }) }
}

impl Connection {
    /// Says goodbye. What the relay answers does not matter.
    pub(super) async fn quit(mut self) {
        let _ = self.dialogue.command("QUIT", "QUIT\r\n").await;
    }
}

impl Extensions {
    fn of(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines.iter().skip(1) {
            // Some relays write `AUTH=PLAIN`, an old form.
            let line = line.to_ascii_uppercase();
            let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
            match words.next() {
                Some("STARTTLS") => extensions.starttls = true,
                Some("PIPELINING") => extensions.pipelining = true,
                Some("SIZE") => extensions.size = true,
                Some("DSN") => extensions.dsn = true,
                Some("AUTH") => {
                    for mechanism in words {
                        extensions.auth_plain |= mechanism == "PLAIN";
                        extensions.auth_login |= mechanism == "LOGIN";
                    }
                }
                _ => {}
            }
        }
        extensions
    }
}

impl Credentials {
    async fn authenticate(&self, dialogue: &mut Dialogue, offered: &Extensions) -> Result<(), Trouble> {
        let reply = if offered.auth_plain {
            self.plain(dialogue).await?
        } else if offered.auth_login {
            self.login(dialogue).await?
        } else {
            return Err(Trouble::NoAuth);
        };
        if reply.code == 235 { Ok(()) } else { Err(Trouble::Auth(self.without_secrets(&reply))) }
    }

    /// RFC 4616, with the initial response of RFC 4954.
    async fn plain(&self, dialogue: &mut Dialogue) -> Result<Reply, Trouble> {
        dialogue.command("AUTH", &Zeroizing::new(format!("AUTH PLAIN {}\r\n", *self.plain_response()))).await
    }

    /// Never a standard, and the only one that some relays offer.
    async fn login(&self, dialogue: &mut Dialogue) -> Result<Reply, Trouble> {
        let mut reply = dialogue.command("AUTH", "AUTH LOGIN\r\n").await?;
        for answer in [self.username.as_str(), self.password.expose_secret()] {
            if reply.code != 334 {
                return Ok(reply);
            }
            let line = Zeroizing::new(format!("{}\r\n", *encoded(answer)));
            reply = dialogue.command("AUTH", &line).await?;
        }
        Ok(reply)
    }

    fn plain_response(&self) -> Zeroizing<String> {
        encoded(&Zeroizing::new(format!("\0{}\0{}", self.username, self.password.expose_secret())))
    }

    /// What the relay said, unless it repeats what it was told in confidence.
    fn without_secrets(&self, reply: &Reply) -> String {
        let told = reply.to_string();
        let password = self.password.expose_secret();
        let secrets = [password, &encoded(password), &self.plain_response()];
        if secrets.iter().any(|secret| !secret.is_empty() && told.contains(*secret)) {
            return format!("{} (its words repeat the credentials)", reply.code);
        }
        told
    }
}

fn encoded(text: &str) -> Zeroizing<String> {
    let encoded = base64_encode(text.as_bytes()).unwrap_or_default();
    Zeroizing::new(String::from_utf8(encoded).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_read_in_every_spelling() {
        let lines =
            ["mx.example greets you", "PIPELINING", "size 1000", "AUTH=LOGIN", "AUTH CRAM-MD5 plain", "DSN", "X"];
        let reply = Reply { code: 250, lines: lines.map(str::to_owned).to_vec() };
        let all =
            Extensions { starttls: false, auth_plain: true, auth_login: true, pipelining: true, size: true, dsn: true };
        assert_eq!(Extensions::of(&reply), all);
        let greeting = Reply { code: 250, lines: vec!["DSN".to_owned()] };
        assert_eq!(Extensions::of(&greeting), Extensions::default(), "the first line is the relay's name");
    }

    #[test]
    fn a_reply_that_repeats_the_password_is_not_told() {
        let credentials = Credentials { username: "u".to_owned(), password: "hunter2".into() };
        let told = |words: &str| credentials.without_secrets(&Reply { code: 535, lines: vec![words.to_owned()] });
        assert_eq!(told("5.7.8 no"), "535 5.7.8 no");
        for words in ["hunter2", "bad: aHVudGVyMg==", &format!("AUTH PLAIN {}?", *credentials.plain_response())] {
            assert_eq!(told(words), "535 (its words repeat the credentials)");
        }
    }
}
