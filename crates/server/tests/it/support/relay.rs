//! A small SMTP relay that notes what it gets. Recipients named `refuse-…` are refused, `defer-N-…` deferred N times;
//! `mark-…` are refused with words that a page must not take for its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What would become a part of a page that takes it for one.
pub const MARK: &str = r#"<img src=x onerror=alert(1)>" autofocus onfocus="alert(2)' x=y <script>alert(3)</script>"#;

/// A mail as it was accepted.
#[derive(Clone, Debug)]
pub struct Mail {
    pub from: String,
    pub to: String,
    pub data: String,
}

impl Mail {
    pub fn message_id(&self) -> String {
        let line = self.data.lines().find(|line| line.to_ascii_lowercase().starts_with("message-id:"));
        line.map(|line| line[11..].trim().to_owned()).unwrap_or_default()
    }
}

/// Who may send, and how they have to say so.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// `PLAIN` or `LOGIN`.
    pub mechanism: &'static str,
}

#[derive(Clone, Default)]
struct Shared {
    mails: Arc<Mutex<Vec<Mail>>>,
    deferred: Arc<Mutex<HashMap<String, usize>>>,
    credentials: Option<Credentials>,
}

/// The relay. It ends with the test's runtime, or is shut down earlier.
pub struct Relay {
    pub port: u16,
    shared: Shared,
    count: watch::Receiver<usize>,
}

impl Relay {
    pub async fn start() -> Self {
        Self::start_for(None).await
    }

    /// A relay that takes mail from these alone. Like some real ones it repeats wrong credentials in its refusal.
    pub async fn start_for(credentials: Option<Credentials>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (told, count) = watch::channel(0);
        let shared = Shared { credentials, ..Shared::default() };
        tokio::spawn(accept(listener, shared.clone(), Arc::new(told)));
        Self { port, shared, count }
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.shared.mails.lock().unwrap().clone()
    }

    pub async fn wait_for(&self, count: usize) -> Vec<Mail> {
        let mut told = self.count.clone();
        super::must(&format!("{count} mails"), async { told.wait_for(|now| *now >= count).await.map(|_| ()) })
            .await
            .unwrap();
        self.mails()
    }
}

async fn accept(listener: TcpListener, shared: Shared, told: Arc<watch::Sender<usize>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let (shared, told) = (shared.clone(), Arc::clone(&told));
        tokio::spawn(async move {
            // A client that breaks off is what some tests are about.
            let _ = converse(socket, &shared, &told).await;
        });
    }
}

fn address(line: &str) -> String {
    let start = line.find('<').map_or(0, |at| at + 1);
    let end = line.find('>').unwrap_or(line.len());
    line[start..end].to_owned()
}

async fn converse(socket: TcpStream, shared: &Shared, told: &watch::Sender<usize>) -> std::io::Result<()> {
    let mut stream = BufReader::new(socket);
    stream.write_all(b"220 relay.test ESMTP\r\n").await?;
    let (mut from, mut to) = (String::new(), String::new());
    let mut is_known = shared.credentials.is_none();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.get(..4).unwrap_or("").to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => {
                let offered = shared.credentials.as_ref().map(|one| format!("250-AUTH {}\r\n", one.mechanism));
                let offered = offered.unwrap_or_default();
                format!("250-relay.test\r\n250-PIPELINING\r\n{offered}250-DSN\r\n250 8BITMIME\r\n")
            }
            "AUTH" => {
                let given = read_credentials(&mut stream, &line).await?;
                is_known = shared
                    .credentials
                    .as_ref()
                    .is_some_and(|one| given == format!("{}\0{}", one.username, one.password));
                match is_known {
                    true => "235 2.7.0 welcome\r\n".to_owned(),
                    false => format!("535 5.7.8 not {} nor {}\r\n", given.replace('\0', " "), line.trim()),
                }
            }
            "MAIL" if !is_known => "530 5.7.0 who are you?\r\n".to_owned(),
            "MAIL" => {
                from = address(&line);
                "250 2.1.0 ok\r\n".to_owned()
            }
            "RCPT" => {
                to = address(&line);
                judge(shared, &to)
            }
            "DATA" => {
                stream.write_all(b"354 go ahead\r\n").await?;
                let data = read_data(&mut stream).await?;
                // A relay that writes to disk takes a while to say so.
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                shared.mails.lock().unwrap().push(Mail { from: from.clone(), to: to.clone(), data });
                told.send_modify(|count| *count += 1);
                "250 2.0.0 queued\r\n".to_owned()
            }
            "QUIT" => {
                stream.write_all(b"221 2.0.0 bye\r\n").await?;
                return Ok(());
            }
            _ => "250 ok\r\n".to_owned(),
        };
        stream.write_all(reply.as_bytes()).await?;
    }
}

/// Name and password, with a NUL between (RFC 4616, and the LOGIN that was never a standard).
async fn read_credentials(stream: &mut BufReader<TcpStream>, line: &str) -> std::io::Result<String> {
    let decoded = |text: &str| String::from_utf8_lossy(&STANDARD.decode(text.trim()).unwrap_or_default()).into_owned();
    if let Some(given) = line.trim().strip_prefix("AUTH PLAIN ") {
        return Ok(decoded(given).trim_start_matches('\0').to_owned());
    }
    let mut answers = Vec::new();
    for question in ["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n"] {
        stream.write_all(question.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        answers.push(decoded(&answer));
    }
    Ok(answers.join("\0"))
}

fn judge(shared: &Shared, to: &str) -> String {
    if to.starts_with("refuse-") {
        return "550 5.1.1 no such user here\r\n".to_owned();
    }
    if to.starts_with("mark-") {
        return format!("550 5.1.1 {MARK}\r\n");
    }
    let times =
        to.strip_prefix("defer-").and_then(|rest| rest.split('-').next()).and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut deferred = shared.deferred.lock().unwrap();
    let so_far = deferred.entry(to.to_owned()).or_default();
    if *so_far < times {
        *so_far += 1;
        return "451 4.7.1 try again later\r\n".to_owned();
    }
    "250 2.1.5 ok\r\n".to_owned()
}

async fn read_data(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut data = String::new();
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(data);
        }
        let line = line.strip_prefix(b".").unwrap_or(&line);
        data.push_str(&String::from_utf8_lossy(line));
    }
}
