//! A PostgreSQL of the tests' own: made in a temporary folder, reached by a Unix socket there, gone with the tests.
//!
//! All test processes of a user share one server: the first starts it, and each gets databases of its own. Whoever uses
//! it holds a lock on a file, which the system takes back however a process ends; a shell that waits for that file stops
//! the server and removes the folder. A server that ran before is never touched.

#![expect(clippy::expect_used, reason = "tests")]

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// How long a server may take to start or to end.
const LIMIT: Duration = Duration::from_secs(30);

/// The role that the databases belong to.
const ROLE: &str = "esito";

/// Starts the server and stops it once nobody holds the file `users` any more.
const TETHER: &str = r#"
program=$1 folder=$2 then=$3
shift 3
"$program" -D "$folder/data" -c listen_addresses= -c unix_socket_directories="$folder" -c max_connections=300 \
  -c shared_buffers=64MB -c log_min_messages=warning "$@" >>"$folder/log" 2>&1 9>&- &
exec 9>>"$folder/users"
flock --exclusive 9
kill -INT $!
wait $!
[ "$then" = keep ] || rm -rf "$folder/data"
"#;

/// A program of PostgreSQL.
fn program(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var("PATH").unwrap_or_default()).collect();
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("these tests need PostgreSQL's {name}, which is not installed: run scripts/peers"))
}

/// Who the server runs as: PostgreSQL refuses root.
#[derive(Clone, Copy, Debug)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Another account where these tests run as root.
    fn other() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let accounts = std::fs::read_to_string("/etc/passwd").expect("the accounts can be read");
        let find = |wanted: &str| {
            accounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let (name, uid, gid) = (fields.first()?, fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
                (*name == wanted).then_some(Self { uid, gid })
            })
        };
        Some(find("postgres").or_else(|| find("nobody")).expect("there is an account besides root's"))
    }

    fn command(account: Option<Self>, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).current_dir("/").process_group(0);
        if let Some(Self { uid, gid }) = account {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// A server.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    account: Option<Account>,
    /// Settings besides the usual ones.
    settings: Vec<String>,
    /// Held shared: the server runs as long as this is open.
    _users: File,
    /// The folder of a server of one test's own.
    _own: Option<tempfile::TempDir>,
}

impl Cluster {
    /// The server that all tests share.
    fn shared() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let folder = std::env::temp_dir().join(format!("esito-peers-postgres-{uid}"));
        if let Err(error) = DirBuilder::new().mode(0o755).create(&folder) {
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{}: {error}", folder.display());
        }
        let start = File::options().create(true).append(true).open(folder.join("start")).expect("a lock file");
        start.lock().expect("one process starts the server");
        Self::enter(folder, None, Vec::new())
    }

    /// A server of the caller's own, to be stopped and started.
    pub async fn own() -> Arc<Self> {
        let cluster = tokio::task::spawn_blocking(|| {
            let own = tempfile::Builder::new().prefix("esito-pg-").tempdir().expect("a folder");
            std::fs::set_permissions(own.path(), Permissions::from_mode(0o755)).expect("a folder of ours");
            Self::enter(own.path().to_owned(), Some(own), Vec::new())
        });
        Arc::new(cluster.await.expect("a server"))
    }

    /// The same, which speaks TLS with this certificate and key on this port of 127.0.0.1.
    pub async fn with_tls(port: u16, certificate: String, key: String) -> Arc<Self> {
        let cluster = tokio::task::spawn_blocking(move || {
            let own = tempfile::Builder::new().prefix("esito-pg-").tempdir().expect("a folder");
            std::fs::set_permissions(own.path(), Permissions::from_mode(0o755)).expect("a folder of ours");
            for (name, content) in [("server.crt", certificate), ("server.key", key)] {
                let file = own.path().join(name);
                std::fs::write(&file, content).expect("a file");
                std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a file of ours");
                if let Some(Account { uid, gid }) = Account::other() {
                    chown(&file, Some(uid), Some(gid)).expect("a file can be given away");
                }
            }
            let file = |name: &str| own.path().join(name).display().to_string();
            let settings = [
                "ssl=on".to_owned(),
                "listen_addresses=127.0.0.1".to_owned(),
                format!("port={port}"),
                format!("ssl_cert_file={}", file("server.crt")),
                format!("ssl_key_file={}", file("server.key")),
            ];
            let settings = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]).collect();
            Self::enter(own.path().to_owned(), Some(own), settings)
        });
        Arc::new(cluster.await.expect("a server"))
    }

    fn enter(folder: PathBuf, own: Option<tempfile::TempDir>, settings: Vec<String>) -> Self {
        let account = Account::other();
        if let Some(Account { uid, gid }) = account {
            chown(&folder, Some(uid), Some(gid)).expect("a folder can be given away");
        }
        let users = File::options().create(true).append(true).open(folder.join("users")).expect("a lock file");
        users.set_permissions(Permissions::from_mode(0o666)).expect("a file of ours");
        // Waits where the one before is just ending.
        users.lock_shared().expect("a lock");
        let cluster = Self { folder, account, settings, _users: users, _own: own };
        if !cluster.answers() {
            cluster.make();
            cluster.start();
        }
        cluster
    }

    fn socket(&self) -> PathBuf {
        self.folder.join(format!(".s.PGSQL.{}", self.port()))
    }

    fn port(&self) -> u16 {
        let port = self.settings.iter().find_map(|setting| setting.strip_prefix("port="));
        port.map_or(5432, |port| port.parse().expect("a port"))
    }

    fn answers(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
    }

    fn make(&self) {
        let data = self.folder.join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data).expect("the remains of a former server can be removed");
        }
        let made = Account::command(self.account, &program("initdb"))
            .args(["--username", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .expect("initdb starts");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts the server, which has been stopped.
    pub fn start(&self) {
        let keep = if self._own.is_some() { "keep" } else { "remove" };
        let mut shell = Account::command(self.account, Path::new("/bin/sh"))
            .args(["-c", TETHER, "sh"])
            .arg(program("postgres"))
            .arg(&self.folder)
            .arg(keep)
            .args(&self.settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        std::thread::spawn(move || shell.wait());
        wait_until("the server to start", || self.answers());
    }

    /// Stops the server: `INT` is fast, `QUIT` immediate, as after a crash.
    pub fn stop(&self, signal: &str) {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("the server runs");
        let pid = file.lines().next().expect("its number").to_owned();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill starts");
        assert!(sent.success());
        // What has ended may still wait for its parent.
        let stat = PathBuf::from(format!("/proc/{pid}/stat"));
        wait_until("the server to end", || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
    }

    async fn client(&self, database: &str) -> Client {
        let url = self.url(database);
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            match tokio_postgres::connect(&url, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                // It takes connections a moment before it is ready.
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?user={ROLE}&port={}&host={}", self.port(), self.folder.display())
    }
}

#[expect(clippy::disallowed_methods, reason = "a helper of tests on a thread of its own")]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let mut left = LIMIT;
    while !is_so() {
        assert!(!left.is_zero(), "waited {} s for {what}", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(10));
        left = left.saturating_sub(Duration::from_millis(10));
    }
}

/// An empty database, which goes when this is dropped.
#[derive(Debug)]
pub struct Database {
    cluster: Arc<Cluster>,
    name: String,
    url: String,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

impl Database {
    /// A database of the server that all tests share.
    pub async fn new() -> Self {
        let cluster = tokio::task::spawn_blocking(Cluster::shared).await.expect("a server");
        Self::on(Arc::new(cluster)).await
    }

    /// A database of this server.
    pub async fn on(cluster: Arc<Cluster>) -> Self {
        let name = format!("esito_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = cluster.client("postgres").await;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.expect("a free name");
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database");
        let url = cluster.url(&name);
        Self { cluster, name, url }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection to it.
    pub async fn client(&self) -> Client {
        self.cluster.client(&self.name).await
    }

    /// The bytes of every value in every row, one after the other.
    pub async fn contents(&self) -> Vec<u8> {
        let client = self.client().await;
        let columns = "SELECT table_name, column_name, data_type FROM information_schema.columns \
                       WHERE table_schema = 'public' ORDER BY 1, ordinal_position";
        let mut bytes = Vec::new();
        for column in client.query(columns, &[]).await.expect("the columns") {
            let (table, name, of): (&str, &str, &str) = (column.get(0), column.get(1), column.get(2));
            let value = if of == "bytea" { name.to_owned() } else { format!("convert_to({name}::text, 'UTF8')") };
            for row in client.query(&format!("SELECT {value} FROM {table}"), &[]).await.expect("the rows") {
                bytes.extend(row.get::<_, Option<Vec<u8>>>(0).unwrap_or_default());
                bytes.push(0);
            }
        }
        bytes
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !self.cluster.answers() {
            return;
        }
        let (url, name) = (self.cluster.url("postgres"), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                // The folder goes anyway; this only keeps it small meanwhile.
                if let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await {
                    tokio::spawn(connection);
                    let _ = client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
                }
            });
        });
        let _ = dropping.join();
    }
}
