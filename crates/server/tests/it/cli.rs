//! The commands, run as processes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;
use wire::jwt::{Claims, JwtAlgorithm, SigningKey};
use wire::standard_webhooks::{SigningSecret, WebhookKey, sign, sign_v1};

/// The program in a folder of its own, without any of the caller's settings.
fn esito(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_esito"));
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ESITO_")) {
        command.env_remove(name);
    }
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    esito(folder).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A process that is ended when the test ends.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The address after the line that begins with `listening on`, and the lines before it.
    fn address(&mut self) -> (String, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "it ended without listening");
            match line.strip_prefix("listening on http://") {
                Some(address) => return (address.trim_end_matches('/').to_owned(), before),
                None => before.push(line),
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one request over a connection of its own; returns the status and the body.
fn exchange(stream: &mut (impl Read + Write), request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A TLS peer that closes without a goodbye is an error that comes after all was read.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn get(address: &str, path: &str, headers: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
    exchange(&mut TcpStream::connect(address).unwrap(), &request)
}

fn post(address: &str, headers: &[(&str, String)], body: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    format!(
        "POST /hook HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
}

#[test]
fn help_names_every_command_and_nothing_unfinished() {
    let folder = folder();
    let help = run(folder.path(), &["--help"]);
    assert!(help.status.success());
    let text = stdout(&help);
    let commands: Vec<&str> = text
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for command in &commands {
        if *command != "help" {
            assert!(run(folder.path(), &[command, "--help"]).status.success(), "{command}");
        }
    }
    assert!(
        ["serve", "listen", "send", "tail", "replay", "backup", "restore", "api-key", "config", "openapi"]
            .iter()
            .all(|name| commands.contains(name))
    );
    for unfinished in ["classify", "import"] {
        assert!(!commands.contains(&unfinished), "{unfinished}");
    }
}

#[test]
fn config_check_prints_what_counts_or_what_is_wrong() {
    let folder = folder();
    std::fs::write(folder.path().join("esito.toml"), "[egress]\nallow_http = true\n").unwrap();
    let mut command = esito(folder.path());
    command
        .args(["config", "check", "--json", "--set", "log.level=warn"])
        .env("ESITO_EGRESS__ALLOW_NETWORKS", "127.0.0.0/8");
    let checked = command.output().unwrap();
    assert!(checked.status.success());
    let shown: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(shown["file"], "esito.toml");
    assert_eq!(
        shown["config"]["egress"],
        json!({"allow_networks": ["127.0.0.0/8"], "allow_http": true, "extra_ca_file": "", "dns_servers": []})
    );
    assert_eq!(shown["config"]["log"]["level"], "warn");

    let mut command = esito(folder.path());
    command.args(["config", "check"]).env("ESITO_EGRESS_ALLOW_HTTP", "true");
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stdout.is_empty());
    assert!(
        stderr(&refused)
            .contains("ESITO_EGRESS_ALLOW_HTTP: there is no such setting; the nearest is ESITO_EGRESS__ALLOW_HTTP")
    );

    let refused = run(folder.path(), &["config", "check", "--json", "--set", "egress.alow_http=1"]);
    assert_eq!(refused.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(told["faults"][0]["message"], "there is no key egress.alow_http; the nearest is egress.allow_http");
    let missing = run(folder.path(), &["config", "check", "--config", "other.toml"]);
    assert!(stderr(&missing).contains("other.toml: cannot be read"));
}

#[test]
fn openapi_prints_the_document() {
    let folder = folder();
    let printed = run(folder.path(), &["openapi"]);
    assert!(printed.status.success());
    let document: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/ajo/im/executions/unitary"].is_object());
}

#[test]
fn api_key_create_makes_the_organization_and_shows_the_key_once() {
    let folder = folder();
    let arguments = [
        "api-key",
        "create",
        "--org",
        "acme@EsitoOrg",
        "--role",
        "sender",
        "--expires-in-days",
        "7",
        "--sandboxes",
        "prod",
        "--json",
    ];
    let made = run(folder.path(), &arguments);
    assert!(made.status.success(), "{}", stderr(&made));
    let shown: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(
        (&shown["imsOrg"], &shown["role"], &shown["sandboxes"]),
        (&json!("acme@EsitoOrg"), &json!("sender"), &json!(["prod"]))
    );
    let key = shown["key"].as_str().unwrap();
    assert!(key.starts_with("esito_") && key.len() == 49, "{key}");
    let data = folder.path().join("esito-data");
    for entry in std::fs::read_dir(&data).unwrap() {
        let content = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!content.windows(key.len()).any(|part| part == key.as_bytes()));
    }
    let mode = std::fs::metadata(data.join("master.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let second = run(folder.path(), &["api-key", "create", "--org", "acme@EsitoOrg", "--role", "viewer"]);
    assert!(second.status.success() && stdout(&second).starts_with("esito_") && stdout(&second).lines().count() == 1);
    let unknown = run(
        folder.path(),
        &["api-key", "create", "--org", "acme@EsitoOrg", "--role", "viewer", "--sandboxes", "nowhere"],
    );
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("acme@EsitoOrg has no sandbox \"nowhere\""));
    for wrong in [["--role", "boss", "--org", "a"], ["--role", "admin", "--org", "a b"]] {
        let refused = run(folder.path(), &[&["api-key", "create"][..], &wrong].concat());
        assert_eq!(refused.status.code(), Some(2));
    }
}

#[test]
fn serve_starts_serves_and_ends() {
    let folder = folder();
    let mut command = esito(folder.path());
    command.args(["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
    let mut server = Running::start(command);
    let (address, before) = server.address();
    let key = before[0].rsplit(' ').next().unwrap().to_owned();
    assert!(key.starts_with("esito_"), "{before:?}");
    assert_eq!(get(&address, "/readyz", "").0, 200);
    assert!(get(&address, "/metrics", "").1.contains("esito_build_info"));
    let headers =
        format!("authorization: Bearer {key}\r\nx-gw-ims-org-id: default@EsitoOrg\r\nx-sandbox-name: prod\r\n");
    let (status, body) = get(&address, "/v1/sandboxes", &headers);
    assert!(status == 200 && body.contains("\"prod\""), "{body}");

    // A key made beside the running server is known to it at once.
    let made = run(folder.path(), &["api-key", "create", "--org", "acme@EsitoOrg", "--role", "admin"]);
    let headers = format!("authorization: Bearer {}\r\nx-gw-ims-org-id: acme@EsitoOrg\r\n", stdout(&made).trim());
    assert_eq!(get(&address, "/v1/sandboxes", &headers).0, 200);
    let second = run(folder.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1), "two servers on one store: {}", stderr(&second));

    let mut idle = TcpStream::connect(&address).unwrap();
    server.signal("-TERM");
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(idle.read(&mut [0; 1]).unwrap_or(0), 0);
    let mut log = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("ready") && log.contains("stopped") && !log.contains(&key), "{log}");

    let mut command = esito(folder.path());
    command.args(["serve", "--listen", "127.0.0.1:0", "--print-key-file", "key"]);
    let mut again = Running::start(command);
    assert!(again.address().1.is_empty(), "a store with a key gets no other");
    assert!(!folder.path().join("key").exists());
}

#[test]
fn the_first_key_goes_into_a_file_for_its_owner_alone() {
    let folder = folder();
    let path = folder.path().join("keys/admin");
    let serve = || {
        let mut command = esito(folder.path());
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--print-key-file",
            "keys/admin",
            "--set",
            "log.format=json",
        ]);
        Running::start(command)
    };
    let mut server = serve();
    let (address, before) = server.address();
    assert!(before.is_empty(), "{before:?}");
    let key = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let headers = format!("authorization: Bearer {}\r\nx-gw-ims-org-id: default@EsitoOrg\r\n", key.trim());
    assert_eq!(get(&address, "/v1/sandboxes", &headers).0, 200);
    server.signal("-INT");
    assert_eq!(server.exit_code(), Some(0));
    serve().address();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), key);
}

#[test]
fn a_file_that_is_no_key_is_not_overwritten() {
    let folder = folder();
    std::fs::write(folder.path().join("notes"), "dear diary").unwrap();
    let refused = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--print-key-file", "notes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("no key of Esito's"));
    assert_eq!(std::fs::read_to_string(folder.path().join("notes")).unwrap(), "dear diary");
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const JWT_SECRET: &str = "a secret of thirty-two characters";
const BODY: &str = r#"{"requestId":"r1","messageDeliveryFeedback":{"feedbackStatus":{"value":"sent"}}}"#;

pub fn now_secs() -> i64 {
    let output = Command::new("date").arg("+%s").output().unwrap();
    stdout(&output).trim().parse().unwrap()
}

fn signed(id: &str) -> Vec<(&'static str, String)> {
    let now = now_secs();
    let key = SigningKey::hmac(JwtAlgorithm::HS256, &SecretString::from(JWT_SECRET)).unwrap();
    let none = Map::new();
    let claims = Claims {
        issuer: Some("esito"),
        subject: None,
        audience: None,
        issued_at_secs: now,
        expires_in_secs: 60,
        extra: &none,
    };
    let token = key.sign(None, &claims).unwrap();
    let secret = SigningSecret::parse(SECRET).unwrap();
    vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", now.to_string()),
        ("webhook-signature", sign_v1([&secret], id, now, BODY.as_bytes())),
        ("authorization", format!("Bearer {}", secrecy::ExposeSecret::expose_secret(&token))),
    ]
}

fn listen(folder: &Path, arguments: &[&str]) -> Running {
    let mut command = esito(folder);
    command.args([
        "listen",
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--secret",
        SECRET,
        "--jwt-secret",
        JWT_SECRET,
        "--jwt-issuer",
        "esito",
    ]);
    command.args(arguments);
    Running::start(command)
}

fn listening(receiver: &mut Running) -> String {
    let first: Value = serde_json::from_str(&receiver.line()).unwrap();
    let url = first["listening"].as_str().unwrap();
    url.split("://").nth(1).unwrap().trim_end_matches('/').to_owned()
}

#[test]
fn listen_verifies_counts_and_ends() {
    let folder = folder();
    let mut receiver = listen(folder.path(), &["--plain", "--fail-first", "1", "--count", "2", "--status", "204"]);
    let address = listening(&mut receiver);
    let mut send = |id: &str| {
        let status = exchange(&mut TcpStream::connect(&address).unwrap(), &post(&address, &signed(id), BODY)).0;
        (status, serde_json::from_str::<Value>(&receiver.line()).unwrap())
    };
    let (status, seen) = send("one");
    assert_eq!(status, 503);
    assert_eq!(seen["status"], 503);
    let (status, seen) = send("one");
    assert_eq!(status, 204);
    let expected = json!({"webhookId": "one", "verified": {"signature": true, "jwt": true}, "status": 204, "attempt": 2,
        "body": serde_json::from_str::<Value>(BODY).unwrap()});
    assert_eq!(seen, expected);
    assert_eq!(send("two").0, 204);
    assert_eq!(receiver.exit_code(), Some(0));
}

#[test]
fn listen_refuses_what_does_not_verify() {
    let folder = folder();
    let mut receiver = listen(folder.path(), &["--plain", "--count", "1"]);
    let address = listening(&mut receiver);
    let mut headers = signed("one");
    headers[0].1 = "another".to_owned();
    headers.pop();
    let status = exchange(&mut TcpStream::connect(&address).unwrap(), &post(&address, &headers, BODY)).0;
    assert_eq!(status, 401);
    let seen: Value = serde_json::from_str(&receiver.line()).unwrap();
    assert_eq!(seen["verified"], json!({"signature": false, "jwt": false}));
    assert!(seen["faults"][0].as_str().unwrap().contains("no signature matches"));
    assert!(seen["faults"][1].as_str().unwrap().contains("authorization"));
    assert_eq!(receiver.exit_code(), Some(1));
}

#[test]
fn listen_speaks_tls_with_a_certificate_of_its_own_authority() {
    let folder = folder();
    let mut receiver = listen(folder.path(), &["--ca-out", "ca.pem", "--count", "1"]);
    let address = listening(&mut receiver);
    let authority = CertificateDer::from_pem_file(folder.path().join("ca.pem")).unwrap();
    let config = outbound::tls::client_config(&[authority]);
    let client =
        rustls::ClientConnection::new(Arc::clone(&config), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let mut stream = rustls::StreamOwned::new(client, TcpStream::connect(&address).unwrap());
    assert_eq!(exchange(&mut stream, &post(&address, &signed("one"), BODY)).0, 200);
    assert_eq!(receiver.exit_code(), Some(0));
}

#[test]
fn listen_takes_keys_from_a_key_set() {
    let folder = folder();
    let pem = wire::jwt::generate_private_pem(JwtAlgorithm::ES256).unwrap();
    let key = SigningKey::from_private_pem(JwtAlgorithm::ES256, &pem).unwrap();
    std::fs::write(folder.path().join("keys.json"), json!({"keys": [key.public_jwk("k1").unwrap()]}).to_string())
        .unwrap();
    let mut command = esito(folder.path());
    command.args([
        "listen",
        "--listen",
        "127.0.0.1:0",
        "--plain",
        "--jwks",
        "keys.json",
        "--jwt-header",
        "x-token",
        "--jwt-prefix",
        "",
        "--count",
        "1",
    ]);
    let mut receiver = Running::start(command);
    let address = receiver.address().0;
    let none = Map::new();
    let claims = Claims {
        issuer: None,
        subject: None,
        audience: None,
        issued_at_secs: now_secs(),
        expires_in_secs: 60,
        extra: &none,
    };
    let token = key.sign(Some("k1"), &claims).unwrap();
    let headers =
        [("x-token", secrecy::ExposeSecret::expose_secret(&token).to_owned()), ("webhook-id", "one".to_owned())];
    assert_eq!(exchange(&mut TcpStream::connect(&address).unwrap(), &post(&address, &headers, BODY)).0, 200);
    assert!(receiver.line().contains("signature not checked jwt ok -> 200"));
    assert_eq!(receiver.exit_code(), Some(0));
}

#[test]
fn listen_verifies_with_a_public_key() {
    let folder = folder();
    let mut command = esito(folder.path());
    command.args(["listen", "--listen", "127.0.0.1:0", "--plain", "--count", "1"]);
    command.args(["--public-key", "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="]);
    let mut receiver = Running::start(command);
    let address = receiver.address().0;
    let pair = WebhookKey::parse(
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
    );
    let now = now_secs();
    let signature = sign([&pair.unwrap()], "one", now, BODY.as_bytes());
    let headers =
        [("webhook-id", "one".to_owned()), ("webhook-timestamp", now.to_string()), ("webhook-signature", signature)];
    assert_eq!(exchange(&mut TcpStream::connect(&address).unwrap(), &post(&address, &headers, BODY)).0, 200);
    assert!(receiver.line().contains("signature ok jwt not checked -> 200"));
    assert_eq!(receiver.exit_code(), Some(0));
    let refused = run(folder.path(), &["listen", "--public-key", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
    assert!(stderr(&refused).contains("does not begin with `whpk_`"), "{}", stderr(&refused));
}

#[test]
fn a_master_key_from_the_environment_leaves_no_file() {
    let folder = folder();
    let mut command = esito(folder.path());
    command.args(["api-key", "create", "--org", "acme@EsitoOrg", "--role", "admin"]);
    let made = command.env("ESITO_SECRETS__MASTER_KEY", STANDARD.encode([7; 32])).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    assert!(!folder.path().join("esito-data/master.key").exists());
}

#[test]
fn send_tells_how_to_repeat_what_nobody_knows_of() {
    let folder = folder();
    let mut command = esito(folder.path());
    command.args([
        "send",
        "--url",
        "http://127.0.0.1:1",
        "--org",
        "a",
        "--campaign",
        "01912d3c-7d0a-7a55-9a0e-6a2f5b9d1c11",
    ]);
    command.args(["--to", "sent@simulator.esito.test"]).env("ESITO_API_KEY", "esito_planted");
    let failed = command.output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    let told = stderr(&failed);
    assert!(
        told.contains("refused") && told.contains("repeat it with --request-id") && !told.contains("planted"),
        "{told}"
    );
}
