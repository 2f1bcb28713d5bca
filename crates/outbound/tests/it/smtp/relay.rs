//! A relay that answers as it is told to.

use model::channel::SmtpTls;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What the relay does at a point of the dialogue.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Says this, with line ends added.
    Say(&'static str),
    /// Says this and closes the connection.
    SayAndClose(&'static str),
    /// Closes the connection without a word.
    Close,
}

/// How the relay behaves. Points are the commands' names, and `GREETING`, `BODY` (the first line of a message) and
/// `END` (its end).
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub tls: SmtpTls,
    pub extensions: Vec<&'static str>,
    pub answers: HashMap<&'static str, VecDeque<Answer>>,
}

impl Script {
    pub fn plain() -> Self {
        Self {
            tls: SmtpTls::None,
            extensions: vec!["PIPELINING", "SIZE 10000000", "DSN", "8BITMIME"],
            ..Self::default()
        }
    }

    /// The answer at the next occurrence of a point; after the last one the usual answer comes.
    pub fn then(mut self, point: &'static str, answer: Answer) -> Self {
        self.answers.entry(point).or_default().push_back(answer);
        self
    }

    pub fn offering(mut self, extensions: &[&'static str]) -> Self {
        self.extensions = extensions.to_vec();
        self
    }
}

/// What the relay has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub connections: usize,
    pub open: usize,
    pub most_open: usize,
    pub commands: Vec<String>,
    /// The messages as they were before dots were doubled, whole ones only.
    pub messages: Vec<String>,
}

impl Seen {
    pub fn count(&self, verb: &str) -> usize {
        self.commands.iter().filter(|command| command.starts_with(verb)).count()
    }
}

/// A running relay; it stops when dropped.
pub struct Relay {
    pub address: SocketAddr,
    pub certificate: CertificateDer<'static>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Seen>,
    tls: TlsAcceptor,
}

impl Relay {
    pub async fn start(script: Script) -> Self {
        let names = vec!["127.0.0.1".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let shared = Arc::new(Shared { script: Mutex::new(script), seen: Mutex::default(), tls });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Self { address, certificate: cert.der().clone(), shared, _tasks: tasks }
    }

    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.shared.seen.lock().unwrap())
    }

    pub fn messages(&self) -> Vec<String> {
        self.seen(|seen| seen.messages.clone())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        {
            let mut seen = shared.seen.lock().unwrap();
            seen.connections += 1;
            seen.open += 1;
            seen.most_open = seen.most_open.max(seen.open);
        }
        let shared = shared.clone();
        connections.spawn(async move {
            serve(stream, &shared).await;
            shared.seen.lock().unwrap().open -= 1;
        });
    }
}

async fn serve(stream: TcpStream, shared: &Shared) {
    let tls = shared.script.lock().unwrap().tls;
    if tls == SmtpTls::Implicit {
        let Ok(stream) = shared.tls.accept(stream).await else {
            return;
        };
        Session::new(stream, shared).greet_and_converse().await;
        return;
    }
    let mut session = Session::new(stream, shared);
    if !session.greet_and_converse().await {
        return;
    }
    let Ok(stream) = shared.tls.accept(session.stream.into_inner()).await else {
        return;
    };
    Session::new(stream, shared).converse().await;
}

struct Session<'a, S> {
    stream: BufReader<S>,
    shared: &'a Shared,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(stream: S, shared: &'a Shared) -> Self {
        Self { stream: BufReader::new(stream), shared }
    }

    async fn greet_and_converse(&mut self) -> bool {
        self.answer("GREETING", "220 relay.test ESMTP").await && self.converse().await
    }

    /// Whether STARTTLS was said and allowed; false when the connection is over.
    async fn converse(&mut self) -> bool {
        loop {
            let Some(line) = self.line().await else {
                return false;
            };
            self.shared.seen.lock().unwrap().commands.push(line.clone());
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let goes_on = match verb.as_str() {
                "EHLO" => self.ehlo().await,
                "STARTTLS" => match self.next("STARTTLS") {
                    Some(answer) => self.give(answer).await,
                    None => return self.say("220 go ahead").await,
                },
                "AUTH" => self.auth(&line).await,
                "MAIL" => self.answer("MAIL", "250 2.1.0 ok").await,
                "RCPT" => self.answer("RCPT", "250 2.1.5 ok").await,
                "DATA" => self.data().await,
                "RSET" => self.answer("RSET", "250 2.0.0 ok").await,
                "QUIT" => {
                    self.answer("QUIT", "221 bye").await;
                    false
                }
                _ => self.say("500 5.5.1 unknown command").await,
            };
            if !goes_on {
                return false;
            }
        }
    }

    async fn ehlo(&mut self) -> bool {
        let extensions = self.shared.script.lock().unwrap().extensions.clone();
        let mut lines = vec!["relay.test"];
        lines.extend(extensions);
        let (last, others) = lines.split_last().unwrap();
        let text: String = others.iter().map(|line| format!("250-{line}\r\n")).collect();
        self.answer("EHLO", &format!("{text}250 {last}")).await
    }

    /// Knows one user: `user` with the password `secret`.
    async fn auth(&mut self, line: &str) -> bool {
        let right = match line {
            "AUTH PLAIN AHVzZXIAc2VjcmV0" => true,
            "AUTH LOGIN" => {
                let mut right = true;
                for (challenge, expected) in [("334 VXNlcm5hbWU6", "dXNlcg=="), ("334 UGFzc3dvcmQ6", "c2VjcmV0")] {
                    if !self.say(challenge).await {
                        return false;
                    }
                    let Some(line) = self.line().await else {
                        return false;
                    };
                    right &= line == expected;
                }
                right
            }
            _ => false,
        };
        self.say(if right { "235 2.7.0 welcome" } else { "535 5.7.8 authentication failed" }).await
    }

    async fn data(&mut self) -> bool {
        if let Some(answer) = self.next("DATA") {
            return self.give(answer).await;
        }
        if !self.say("354 go on").await {
            return false;
        }
        let mut message = String::new();
        loop {
            let Some(line) = self.line().await else {
                return false;
            };
            if message.is_empty()
                && let Some(answer) = self.next("BODY")
            {
                return self.give(answer).await;
            }
            if line == "." {
                break;
            }
            message.push_str(line.strip_prefix('.').unwrap_or(&line));
            message.push_str("\r\n");
        }
        self.shared.seen.lock().unwrap().messages.push(message);
        self.answer("END", "250 2.0.0 queued").await
    }

    /// The scripted answer at a point, used up by this.
    fn next(&self, point: &'static str) -> Option<Answer> {
        self.shared.script.lock().unwrap().answers.get_mut(point).and_then(VecDeque::pop_front)
    }

    /// False when the connection is to be closed.
    async fn give(&mut self, answer: Answer) -> bool {
        match answer {
            Answer::Say(text) => self.say(text).await,
            Answer::SayAndClose(text) => {
                self.say(text).await;
                false
            }
            Answer::Close => false,
        }
    }

    /// Gives the scripted answer or the usual one.
    async fn answer(&mut self, point: &'static str, usual: &str) -> bool {
        match self.next(point) {
            Some(answer) => self.give(answer).await,
            None => self.say(usual).await,
        }
    }

    async fn say(&mut self, text: &str) -> bool {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{text}\r\n").as_bytes()).await.is_ok() && stream.flush().await.is_ok()
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.unwrap_or(0);
        (read > 0).then(|| line.trim_end_matches("\r\n").to_owned())
    }
}
