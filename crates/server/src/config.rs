//! The configuration: a TOML file, environment variables over it, flags over both.
//!
//! Every key is one line of [`keys::KEYS`], and everything else follows from that table: what the file may say, the
//! names of the variables, what an error suggests, what `esito config check` prints.

mod keys;
#[cfg(test)]
mod tests;

use ipnet::IpNet;
use keys::{Input, KEYS, Key};
use model::retention::Retention;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// The file that is read where none is named and this one is there.
pub const DEFAULT_FILE: &str = "esito.toml";

/// What the names of environment variables begin with.
const PREFIX: &str = "ESITO_";

/// Variables that begin like a key's but belong to a command of its own.
pub const CONFIG_VARIABLE: &str = "ESITO_CONFIG";
/// The API key of the commands that call the API.
pub const API_KEY_VARIABLE: &str = "ESITO_API_KEY";
/// The webhook secret of `esito listen`.
pub const WEBHOOK_SECRET_VARIABLE: &str = "ESITO_WEBHOOK_SECRET";
/// The JWT secret of `esito listen`.
pub const JWT_SECRET_VARIABLE: &str = "ESITO_JWT_SECRET";

const OTHER_VARIABLES: &[&str] = &[CONFIG_VARIABLE, API_KEY_VARIABLE, WEBHOOK_SECRET_VARIABLE, JWT_SECRET_VARIABLE];

/// What the program is told by its operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API is served.
    pub listen: SocketAddr,
    /// The address that others reach the API at; none: the one it listens on.
    pub public_url: Option<Url>,
    /// The store.
    pub database: Database,
    /// Where the master key comes from.
    pub secrets: Secrets,
    /// What requests that leave may reach.
    pub egress: Egress,
    /// Bounds.
    pub limits: Limits,
    /// How long what is kept is kept, where an organization has nothing else.
    pub retention: Retention,
    /// The end of the program.
    pub shutdown: Shutdown,
    /// What is logged, and how.
    pub log: Log,
}

/// The store.
#[derive(Clone, Debug)]
pub enum Database {
    /// The file of a SQLite database.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL database, which may hold a password.
    Postgres(SecretString),
}

impl fmt::Display for Database {
    /// The URL, without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            Self::Postgres(url) => f.write_str(&without_password(url.expose_secret())),
        }
    }
}

/// A password may stand before the host, or among the parameters.
fn without_password(url: &str) -> String {
    let (url, parameters) = url.split_once('?').map_or((url, None), |(url, rest)| (url, Some(rest)));
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    let shown = parameters.map(|all| all.split('&').filter(|one| !one.starts_with("password")).collect::<Vec<_>>());
    let shown = shown.filter(|shown| !shown.is_empty()).map_or(String::new(), |shown| format!("?{}", shown.join("&")));
    format!("{scheme}://{rest}{shown}")
}

/// Where the master key comes from: the first of these that is set, the file last.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// The key itself, in base64; from the environment only.
    pub master_key: Option<SecretString>,
    /// A command for the shell that prints the key in base64; empty: none.
    pub master_key_command: SecretString,
    /// The file with the key in base64, made at the first start.
    pub master_key_file: PathBuf,
}

/// What requests that leave may reach beyond public addresses over HTTPS.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// Networks that are open although they are not public.
    pub allow_networks: Vec<IpNet>,
    /// Whether plain HTTP is open.
    pub allow_http: bool,
    /// Certificate authorities that are trusted besides the system's, as PEM.
    pub extra_ca_file: Option<PathBuf>,
    /// The DNS servers that know the names in URLs; none: the system's resolver.
    pub dns_servers: Vec<SocketAddr>,
}

/// Bounds.
#[derive(Clone, Debug)]
pub struct Limits {
    /// With more messages than these waiting to be sent, executions are answered 429.
    pub max_waiting_messages: u64,
    /// With less than this free on the disk under the database, in MiB, executions are answered 503.
    pub min_free_disk_mib: u64,
    /// The most executions a second in a sandbox; none: no limit.
    pub executions_per_second: Option<u32>,
}

/// The end of the program.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// How long work that was begun may take to end.
    pub drain: Duration,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// How a line is written.
    pub format: LogFormat,
    /// What is left out below it.
    pub level: tracing::level_filters::LevelFilter,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8025)),
            public_url: None,
            database: Database::Sqlite(PathBuf::from("./esito-data/esito.db")),
            secrets: Secrets {
                master_key: None,
                master_key_command: SecretString::default(),
                master_key_file: PathBuf::from("./esito-data/master.key"),
            },
            egress: Egress::default(),
            limits: Limits { max_waiting_messages: 1_000_000, min_free_disk_mib: 100, executions_per_second: None },
            retention: Retention::default(),
            shutdown: Shutdown { drain: Duration::from_secs(20) },
            log: Log { format: LogFormat::Text, level: tracing::level_filters::LevelFilter::INFO },
        }
    }
}

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The configuration file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// Something wrong with a setting. No text repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{source_of_it}: {message}")]
pub struct ConfigFault {
    /// Where it was set.
    #[serde(rename = "source")]
    pub source_of_it: Source,
    /// The key as it was written; none where the file as a whole is meant.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// All that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigFaults(pub Vec<ConfigFault>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The configuration with the file that it was read from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file, where there was one.
    pub file: Option<PathBuf>,
}

/// Reads the configuration: `file`, or [`DEFAULT_FILE`] where it is there; `environment` over it; `flags`, pairs of a
/// key and its text, over both.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[(String, String)],
) -> Result<Loaded, ConfigFaults> {
    let mut reading = Reading { config: Config::default(), faults: Vec::new() };
    let default = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| default.exists().then_some(default));
    if let Some(path) = file {
        reading.file(path);
    }
    let mut variables: Vec<_> = environment.into_iter().collect();
    variables.sort();
    for (name, value) in variables {
        reading.variable(&name, value);
    }
    for (key, text) in flags {
        reading.flag(key, text);
    }
    match reading.faults.is_empty() {
        true => Ok(Loaded { config: reading.config, file: file.map(Path::to_owned) }),
        false => Err(ConfigFaults(reading.faults)),
    }
}

impl Config {
    /// The address that others reach the API at, without a slash at its end, given the one that it is bound to.
    pub fn public_url(&self, bound: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("http://{bound}"),
        }
    }

    /// Every key with its value; a secret shows only whether it is set.
    pub fn to_json(&self) -> Value {
        let mut root = Map::new();
        for key in KEYS {
            let value = (key.show)(self);
            match key.path.split_once('.') {
                None => drop(root.insert(key.path.to_owned(), value)),
                Some((section, name)) => {
                    let section = root.entry(section).or_insert_with(|| Value::Object(Map::new()));
                    section[name] = value;
                }
            }
        }
        Value::Object(root)
    }

    /// The same as TOML; secrets are comments.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut current = "";
        for key in KEYS {
            let (section, name) = key.path.split_once('.').unwrap_or(("", key.path));
            if section != current {
                out.push_str(&format!("\n[{section}]\n"));
                current = section;
            }
            match (key.show)(self) {
                Value::Object(secret) if secret["set"] == true => out.push_str(&format!("# {name} is set\n")),
                Value::Object(_) => out.push_str(&format!("# {name} is not set\n")),
                // The texts, numbers and lists of JSON are spelt the same in TOML.
                value => out.push_str(&format!("{name} = {value}\n")),
            }
        }
        out
    }
}

struct Reading {
    config: Config,
    faults: Vec<ConfigFault>,
}

impl Reading {
    fn file(&mut self, path: &Path) {
        let source = Source::File(path.to_owned());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.fault(&source, None, format!("cannot be read: {error}")),
        };
        match text.parse::<toml::Table>() {
            Ok(table) => table.iter().for_each(|(name, value)| self.walk(&source, name, value)),
            Err(error) => {
                // Not the error's own text: it quotes the line, and that may hold a secret.
                let line =
                    error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
                let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
                self.fault(&source, None, format!("{place}{}", error.message()));
            }
        }
    }

    fn walk(&mut self, source: &Source, path: &str, value: &toml::Value) {
        if let Some(key) = find(path) {
            return self.set(source, key, &Input::Toml(value));
        }
        match value {
            toml::Value::Table(table) if !table.is_empty() => {
                table.iter().for_each(|(name, value)| self.walk(source, &format!("{path}.{name}"), value));
            }
            toml::Value::Table(_) if sections().contains(path) => {}
            _ if sections().contains(path) => {
                self.fault(source, Some(path), format!("{path} is a table of keys: write [{path}]"));
            }
            _ => self.unknown(source, path),
        }
    }

    fn variable(&mut self, name: &OsString, value: OsString) {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { return };
        if OTHER_VARIABLES.contains(&name) {
            return;
        }
        let source = Source::Environment(name.to_owned());
        let Some(key) = KEYS.iter().find(|key| variable_of(key.path) == name) else {
            let known =
                KEYS.iter().map(|key| variable_of(key.path)).chain(OTHER_VARIABLES.iter().map(|&n| n.to_owned()));
            let nearest = nearest(name, known);
            return self.fault(&source, Some(name), format!("there is no such setting; the nearest is {nearest}"));
        };
        match value.into_string() {
            Ok(text) => self.set(&source, key, &Input::Text(&text)),
            Err(_) => self.fault(&source, Some(key.path), format!("{} is not UTF-8", key.path)),
        }
    }

    fn flag(&mut self, path: &str, text: &str) {
        match find(path) {
            Some(key) => self.set(&Source::Flag, key, &Input::Text(text)),
            None => self.unknown(&Source::Flag, path),
        }
    }

    fn set(&mut self, source: &Source, key: &Key, input: &Input<'_>) {
        if key.environment_only && !matches!(source, Source::Environment(_)) {
            let (path, variable) = (key.path, variable_of(key.path));
            return self.fault(source, Some(path), format!("{path} is taken from the variable {variable} only"));
        }
        if (key.read)(&mut self.config, input).is_none() {
            let found = if key.secret { String::new() } else { format!(", found {input}") };
            self.fault(source, Some(key.path), format!("{}: expected {}{found}", key.path, key.expected));
        }
    }

    fn unknown(&mut self, source: &Source, path: &str) {
        let nearest = nearest(path, KEYS.iter().map(|key| key.path.to_owned()));
        self.fault(source, Some(path), format!("there is no key {path}; the nearest is {nearest}"));
    }

    fn fault(&mut self, source: &Source, key: Option<&str>, message: String) {
        let key = key.map(str::to_owned);
        self.faults.push(ConfigFault { source_of_it: source.clone(), key, message });
    }
}

fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

fn sections() -> BTreeSet<&'static str> {
    KEYS.iter().filter_map(|key| Some(key.path.split_once('.')?.0)).collect()
}

/// The environment variable of a key: `egress.allow_http` is `ESITO_EGRESS__ALLOW_HTTP`.
fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', "__"))
}

/// The known name that is most like `name`; a name without its section is compared with the keys of every section.
fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    let likeness = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(name, candidate);
        let last = candidate.rsplit('.').next().filter(|_| !name.contains('.'));
        last.map_or(whole, |last| whole.max(strsim::normalized_damerau_levenshtein(name, last)))
    };
    let scored = known.map(|candidate| (likeness(&candidate), candidate));
    scored.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, candidate)| candidate).unwrap_or_default()
}
