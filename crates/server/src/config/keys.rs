//! The keys: one entry each.

use super::{Config, Database, LogFormat};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::retention::{LEAST_EVENTS_DAYS, MOST_DAYS};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use url::Url;

const DNS_PORT: u16 = 53;

/// One key of the configuration.
pub(super) struct Key {
    /// Its place in the file, such as `egress.allow_http`.
    pub path: &'static str,
    /// What a value must look like, for the error.
    pub expected: &'static str,
    /// Whether an error may not repeat the value.
    pub secret: bool,
    /// Whether it may not stand in a file.
    pub environment_only: bool,
    /// Takes the value over; none where it is not as expected.
    pub read: fn(&mut Config, &Input<'_>) -> Option<()>,
    /// The value that counts.
    pub show: fn(&Config) -> Value,
}

/// A value as it was written.
pub(super) enum Input<'a> {
    /// In the file, with a type.
    Toml(&'a toml::Value),
    /// In the environment or a flag.
    Text(&'a str),
}

impl Input<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }

    fn boolean(&self) -> Option<bool> {
        match self {
            Self::Toml(value) => value.as_bool(),
            Self::Text(text) => text.parse().ok(),
        }
    }

    fn whole(&self) -> Option<u64> {
        match self {
            Self::Toml(value) => u64::try_from(value.as_integer()?).ok(),
            Self::Text(text) => text.parse().ok(),
        }
    }

    fn list(&self) -> Option<Vec<&str>> {
        match self {
            Self::Toml(value) => value.as_array()?.iter().map(toml::Value::as_str).collect(),
            Self::Text(text) => Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        self.text().filter(|text| !text.is_empty()).map(PathBuf::from)
    }
}

impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml(toml::Value::Table(_)) => f.write_str("a table"),
            Self::Toml(value) => value.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

const fn key(
    path: &'static str,
    expected: &'static str,
    read: fn(&mut Config, &Input<'_>) -> Option<()>,
    show: fn(&Config) -> Value,
) -> Key {
    Key { path, expected, secret: false, environment_only: false, read, show }
}

/// All keys, in the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key(
        "listen",
        "an IP address and a port such as \"127.0.0.1:8025\"",
        |config, input| put(&mut config.listen, input.text()?.parse().ok()),
        |config| json!(config.listen.to_string()),
    ),
    key(
        "public_url",
        "an http or https URL without query such as \"https://esito.example.com\", or \"\"",
        |config, input| put(&mut config.public_url, optional(input.text()?, base_url)),
        |config| json!(config.public_url.as_ref().map_or("", Url::as_str)),
    ),
    Key {
        // It may hold a password.
        secret: true,
        ..key(
            "database.url",
            "\"sqlite:\" and the path of a file such as \"sqlite:./esito-data/esito.db\", or the URL of a PostgreSQL \
             database such as \"postgres://esito:password@db.example/esito\"",
            |config, input| put(&mut config.database, database(input.text()?)),
            |config| json!(config.database.to_string()),
        )
    },
    Key {
        secret: true,
        environment_only: true,
        ..key(
            "secrets.master_key",
            "32 bytes in base64, as `head -c 32 /dev/urandom | base64` prints them",
            |config, input| put(&mut config.secrets.master_key, optional(input.text()?, master_key)),
            |config| json!({"set": config.secrets.master_key.is_some()}),
        )
    },
    Key {
        secret: true,
        ..key(
            "secrets.master_key_command",
            "a command for the shell, or \"\"",
            |config, input| put(&mut config.secrets.master_key_command, input.text().map(SecretString::from)),
            |config| json!({"set": !config.secrets.master_key_command.expose_secret().is_empty()}),
        )
    },
    key(
        "secrets.master_key_file",
        "the path of a file such as \"./esito-data/master.key\"",
        |config, input| put(&mut config.secrets.master_key_file, input.path()),
        |config| json!(config.secrets.master_key_file.display().to_string()),
    ),
    key(
        "egress.allow_networks",
        "a list of networks such as [\"127.0.0.0/8\", \"::1/128\"]",
        |config, input| {
            let networks = input.list()?.into_iter().map(|text| text.parse().ok()).collect();
            put(&mut config.egress.allow_networks, networks)
        },
        |config| json!(config.egress.allow_networks.iter().map(ToString::to_string).collect::<Vec<_>>()),
    ),
    key(
        "egress.allow_http",
        "true or false",
        |config, input| put(&mut config.egress.allow_http, input.boolean()),
        |config| json!(config.egress.allow_http),
    ),
    key(
        "egress.extra_ca_file",
        "the path of a PEM file, or \"\"",
        |config, input| {
            put(&mut config.egress.extra_ca_file, optional(input.text()?, |text| Some(PathBuf::from(text))))
        },
        |config| json!(config.egress.extra_ca_file.as_deref().map_or(String::new(), |path| path.display().to_string())),
    ),
    key(
        "egress.dns_servers",
        "a list of IP addresses, each with a port where it is not 53, such as [\"10.0.0.2\", \"[fd00::2]:5353\"]",
        |config, input| put(&mut config.egress.dns_servers, input.list()?.into_iter().map(dns_server).collect()),
        |config| json!(config.egress.dns_servers.iter().map(ToString::to_string).collect::<Vec<_>>()),
    ),
    key(
        "limits.max_waiting_messages",
        "a whole number, 1 or more",
        |config, input| put(&mut config.limits.max_waiting_messages, input.whole().filter(|number| *number > 0)),
        |config| json!(config.limits.max_waiting_messages),
    ),
    key(
        "limits.min_free_disk_mib",
        "a whole number of MiB up to 1000000000; 0: the disk is not watched",
        |config, input| {
            put(&mut config.limits.min_free_disk_mib, input.whole().filter(|number| *number <= 1_000_000_000))
        },
        |config| json!(config.limits.min_free_disk_mib),
    ),
    key(
        "limits.executions_per_second",
        "a whole number up to 1000000; 0: no limit",
        |config, input| {
            let number =
                input.whole().filter(|number| *number <= 1_000_000).and_then(|number| u32::try_from(number).ok());
            put(&mut config.limits.executions_per_second, number.map(|number| (number > 0).then_some(number)))
        },
        |config| json!(config.limits.executions_per_second.unwrap_or(0)),
    ),
    key(
        "retention.events_days",
        "a whole number of days from 8 to 36500: a requestId is remembered for eight days",
        |config, input| put(&mut config.retention.events_days, days(input, LEAST_EVENTS_DAYS)),
        |config| json!(config.retention.events_days),
    ),
    key(
        "retention.attempts_days",
        "a whole number of days from 1 to 36500",
        |config, input| put(&mut config.retention.attempts_days, days(input, 1)),
        |config| json!(config.retention.attempts_days),
    ),
    key(
        "retention.audit_log_days",
        "a whole number of days from 1 to 36500",
        |config, input| put(&mut config.retention.audit_log_days, days(input, 1)),
        |config| json!(config.retention.audit_log_days),
    ),
    key(
        "shutdown.drain_seconds",
        "a whole number of seconds up to 3600",
        |config, input| {
            put(&mut config.shutdown.drain, input.whole().filter(|secs| *secs <= 3600).map(Duration::from_secs))
        },
        |config| json!(config.shutdown.drain.as_secs()),
    ),
    key(
        "log.format",
        "\"text\" or \"json\"",
        |config, input| put(&mut config.log.format, log_format(input.text()?)),
        |config| json!(if config.log.format == LogFormat::Json { "json" } else { "text" }),
    ),
    key(
        "log.level",
        "\"off\", \"error\", \"warn\", \"info\" or \"debug\"",
        |config, input| put(&mut config.log.level, log_level(input.text()?)),
        |config| json!(config.log.level.to_string()),
    ),
];

fn put<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

/// An empty text is none; another must be read.
fn optional<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

fn base_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain =
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    (plain && matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

fn database(url: &str) -> Option<Database> {
    let postgres = || store::postgres::is_url(url).then(|| Database::Postgres(SecretString::from(url)));
    sqlite_file(url).map(Database::Sqlite).or_else(postgres)
}

/// A database in memory would lose what was answered 202, so `:memory:` is no file.
fn sqlite_file(text: &str) -> Option<PathBuf> {
    let rest = text.strip_prefix("sqlite:")?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    (!path.is_empty() && !path.starts_with(':')).then(|| PathBuf::from(path))
}

fn master_key(text: &str) -> Option<SecretString> {
    let bytes = STANDARD.decode(text.trim()).ok().filter(|bytes| bytes.len() == 32);
    bytes.map(|_| SecretString::from(text))
}

/// A name is none: who would resolve it? Nor is an address with a scope, which the resolver would drop.
fn dns_server(text: &str) -> Option<SocketAddr> {
    let with_default_port = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DNS_PORT));
    let address = text.parse().ok().or_else(with_default_port)?;
    let has_scope = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
    (address.port() != 0 && !has_scope).then_some(address)
}

fn days(input: &Input<'_>, least: u32) -> Option<u32> {
    let days = u32::try_from(input.whole()?).ok()?;
    (least..=MOST_DAYS).contains(&days).then_some(days)
}

fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    }
}

fn log_level(text: &str) -> Option<LevelFilter> {
    ["off", "error", "warn", "info", "debug"].contains(&text).then(|| text.parse().ok()).flatten()
}
