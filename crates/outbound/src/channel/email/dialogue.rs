//! Commands and replies on a stream (RFC 5321 sections 4.1 and 4.2), bounded in time and length.
//!
//! Read here and not by a library: the ones at hand cut enhanced codes such as 5.7.509 to a byte, and a reply's own
//! words are what customers get to see.

use model::outcome::{CODE_ADMIN_FAILURE, Failure};
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use wire::smtp_reply::{Classified, EnhancedCode, parse_enhanced};

/// How long a reply to a command may take.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the message's text may take, and the reply to its end.
pub(super) const DATA_TIMEOUT: Duration = Duration::from_secs(120);

/// Lines have at most 512 bytes (RFC 5321 section 4.5.3.1.5); some relays write more.
const MAX_LINE_BYTES: u64 = 4096;

/// EHLO has the longest replies, with a line for each extension.
const MAX_LINES: usize = 200;

/// The most characters of a reply that are told.
const MAX_TOLD_CHARS: usize = 1000;

/// A byte stream, encrypted or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A conversation with a relay.
pub(super) struct Dialogue {
    stream: BufReader<Box<dyn Io>>,
}

impl Dialogue {
    pub(super) fn new(stream: impl Io + 'static) -> Self {
        Self { stream: BufReader::new(Box::new(stream)) }
    }

    /// Sends a command, which ends with CRLF, and reads the reply.
    pub(super) async fn command(&mut self, stage: &'static str, command: &str) -> Result<Reply, Trouble> {
        self.write(stage, command.as_bytes()).await?;
        self.reply(stage, COMMAND_TIMEOUT).await
    }

    /// Sends bytes.
    pub(super) async fn write(&mut self, stage: &'static str, bytes: &[u8]) -> Result<(), Trouble> {
        let stream = self.stream.get_mut();
        let writing = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        within(DATA_TIMEOUT, stage, writing).await
    }

    /// Reads a reply of one or more lines.
    pub(super) async fn reply(&mut self, stage: &'static str, limit: Duration) -> Result<Reply, Trouble> {
        within(limit, stage, self.read_reply()).await
    }

    async fn read_reply(&mut self) -> io::Result<Reply> {
        let mut reply = Reply { code: 0, lines: Vec::new() };
        loop {
            let (code, is_last, text) = parse_line(&self.read_line().await?)?;
            if reply.lines.is_empty() {
                reply.code = code;
            }
            reply.lines.push(text);
            if is_last {
                return Ok(reply);
            }
            if reply.lines.len() == MAX_LINES {
                return Err(no_smtp("a reply has too many lines"));
            }
        }
    }

    async fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
        match line.last() {
            Some(b'\n') => Ok(line),
            Some(_) if line.len() >= 4096 => Err(no_smtp("a reply has too long a line")),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the relay closed the connection")),
        }
    }

    /// The stream under the conversation, to be encrypted. Nothing that came in before may be read as if it had come
    /// encrypted (RFC 3207 section 6), so anything that waits is an error.
    pub(super) fn into_stream(self) -> Result<Box<dyn Io>, Trouble> {
        if self.stream.buffer().is_empty() {
            Ok(self.stream.into_inner())
        } else {
            Err(Trouble::Tls("the relay sent more after its reply to STARTTLS".to_owned()))
        }
    }
}

async fn within<T>(
    limit: Duration,
    stage: &'static str,
    doing: impl Future<Output = io::Result<T>>,
) -> Result<T, Trouble> {
    match timeout(limit, doing).await {
        Ok(result) => result.map_err(|error| Trouble::Broken { stage, error }),
        Err(_) => Err(Trouble::Timeout { stage, seconds: limit.as_secs() }),
    }
}

fn no_smtp(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Reads a reply's line: the code, whether it is the last one, and the words.
fn parse_line(line: &[u8]) -> io::Result<(u16, bool, String)> {
    let line = line.trim_ascii_end();
    let (code, rest) = line.split_at_checked(3).ok_or_else(|| no_smtp("a reply has no code"))?;
    let code = std::str::from_utf8(code).ok().filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    let code = code.and_then(|code| code.parse().ok()).ok_or_else(|| no_smtp("a reply has no code"))?;
    let (is_last, words) = match rest {
        [] => (true, rest),
        [b' ', words @ ..] => (true, words),
        [b'-', words @ ..] => (false, words),
        _ => {
            return Err(no_smtp("a reply's code is followed by neither a space nor a hyphen"));
        }
    };
    Ok((code, is_last, String::from_utf8_lossy(words).into_owned()))
}

/// What a relay said.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// The reply code.
    pub(super) code: u16,
    /// The words of each line.
    pub(super) lines: Vec<String>,
}

impl Reply {
    pub(super) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    pub(super) fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// With 421 the relay closes the connection, whatever the command was (RFC 5321 section 3.8).
    pub(super) fn is_closing(&self) -> bool {
        self.code == 421
    }

    /// The enhanced code (RFC 2034) of the first line.
    pub(super) fn enhanced(&self) -> Option<EnhancedCode> {
        parse_enhanced(self.lines.first()?.split_whitespace().next()?)
    }

    /// The words in one line, without the enhanced code that each line repeats.
    pub(super) fn text(&self) -> String {
        let mut words = Vec::new();
        for line in &self.lines {
            let mut of_line = line.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
            let first = of_line.next().filter(|word| parse_enhanced(word).is_none());
            words.extend(first);
            words.extend(of_line);
        }
        words.join(" ")
    }
}

impl fmt::Display for Reply {
    /// `550 5.1.1 no such user`: the code, the enhanced code and the words, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.enhanced() {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        let text = self.text();
        let told = text.char_indices().nth(MAX_TOLD_CHARS).map_or(text.as_str(), |(end, _)| &text[..end]);
        if told.is_empty() { Ok(()) } else { write!(f, " {told}") }
    }
}

/// Why the relay cannot be used. It says nothing about a recipient.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("the relay's name does not resolve: {0}")]
    Dns(String),
    #[error("no connection to the relay: {0}")]
    Connect(io::Error),
    #[error("the relay did not answer within {seconds} s ({stage})")]
    Timeout { stage: &'static str, seconds: u64 },
    #[error("the connection to the relay broke ({stage}): {error}")]
    Broken { stage: &'static str, error: io::Error },
    #[error("TLS with the relay failed: {0}")]
    Tls(String),
    #[error("the relay does not offer STARTTLS, and nothing is sent to it unencrypted")]
    NoStarttls,
    #[error("the relay offers neither AUTH PLAIN nor AUTH LOGIN")]
    NoAuth,
    #[error("the relay refuses the credentials: {0}")]
    Auth(String),
    #[error("the relay refuses {stage}: {reply}")]
    Refused { stage: &'static str, reply: Reply },
}

impl Trouble {
    /// What a message comes to when its time is up under this trouble.
    pub(super) fn failure(&self) -> Failure {
        let code = match self {
            Self::Timeout { .. } => Classified::TIMEOUT.code,
            _ => CODE_ADMIN_FAILURE,
        };
        Failure { code: code.to_owned(), ..Failure::admin(self.to_string()) }
    }

    /// The relay's reply code, where it said something.
    pub(super) fn response_code(&self) -> Option<u16> {
        match self {
            Self::Refused { reply, .. } => Some(reply.code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Reply, Trouble> {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(bytes).await.unwrap();
        drop(far);
        Dialogue::new(near).reply("test", COMMAND_TIMEOUT).await
    }

    #[tokio::test]
    async fn replies_of_every_form_are_read() {
        for (bytes, line) in [
            ("250 ok\r\n", "250 ok"),
            ("250\r\n", "250"),
            ("250 \n", "250"),
            (
                "550-5.7.509 Access denied,\r\n550 5.7.509 see\thttps://example.com\r\n",
                "550 5.7.509 Access denied, see https://example.com",
            ),
            ("550-no such\r\n550-\r\n550 user 5.1.1\r\n", "550 no such user 5.1.1"),
            ("450 4.2.0 gr\u{fc}ßt\u{7}x\r\n", "450 4.2.0 grüßt x"),
        ] {
            assert_eq!(read(bytes.as_bytes()).await.unwrap().to_string(), line);
        }
        let long = format!("550-{}\r\n550 end\r\n", "x".repeat(3000));
        assert_eq!(read(long.as_bytes()).await.unwrap().to_string().len(), 1004);
        assert_eq!(read(b"550 5.7.26 \xff\r\n").await.unwrap().enhanced(), Some((5, 7, 26)));
    }

    #[tokio::test]
    async fn what_is_no_reply_is_an_error_and_bounded() {
        let endless = "250-more\r\n".repeat(300);
        let wide = format!("250 {}", "x".repeat(10_000));
        for bytes in ["", "25", "hello\r\n", "2500 ok\r\n", "250-ok\r\n", "250 no end", &endless, &wide, "\r\n"] {
            assert!(matches!(read(bytes.as_bytes()).await, Err(Trouble::Broken { .. })), "{bytes:.40}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_timeout() {
        let (near, _far) = tokio::io::duplex(64);
        let trouble = Dialogue::new(near).reply("greeting", COMMAND_TIMEOUT).await.unwrap_err();
        assert_eq!(trouble.failure().code, "24");
        assert_eq!(trouble.to_string(), "the relay did not answer within 60 s (greeting)");
    }
}
