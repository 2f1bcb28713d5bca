//! A connection to the database, how it is made, and what goes wrong with it.

use super::tls::Tls;
use crate::{StoreError, effort};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Config, Row, Statement};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// After this long the database gives a statement up.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(10);
/// After this long nothing more is waited for: the database should have given up before, so the way to it is broken.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// What goes wrong inside the store.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is told to the caller as it is.
    Store(StoreError),
    /// The database or the way to it.
    Db(tokio_postgres::Error),
    /// Nothing was heard for too long.
    Late,
    /// Somebody else was quicker: the same once more comes out otherwise.
    Again,
}

/// What a part of a unit comes to.
pub(super) type Done<T> = Result<T, Fault>;

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Db(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    fn code(&self) -> Option<&SqlState> {
        if let Self::Db(error) = self { error.code() } else { None }
    }

    /// Whether the same transaction may succeed at once: it was in another's way.
    pub fn is_passing(&self) -> bool {
        let is_passing =
            |code: &SqlState| [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code);
        matches!(self, Self::Again) || self.code().is_some_and(is_passing)
    }

    /// Whether it lies with what was to be written (data exceptions, constraints, sizes): one unit of a batch then
    /// fails it for all.
    pub fn is_of_a_unit(&self) -> bool {
        self.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)))
    }

    /// Whether the connection is still good.
    pub fn leaves_the_session(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Again) || self.code().is_some()
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(error) => error,
            Fault::Db(error) => match error.as_db_error() {
                // A statement that the schema does not know: it will not get better by itself.
                Some(told) if told.code().code().starts_with("42") => Self::Corrupt(told.message().to_owned()),
                Some(told) => Self::Unavailable(format!("{} ({})", told.message(), told.code().code())),
                // A column that is not of its type, or null.
                None if is_about_a_column(&error) => Self::Corrupt(error.to_string()),
                None => Self::Unavailable(with_causes(&error)),
            },
            Fault::Late => Self::Unavailable("the database does not answer".to_owned()),
            Fault::Again => Self::Unavailable("others change the same all the time".to_owned()),
        }
    }
}

fn is_about_a_column(error: &tokio_postgres::Error) -> bool {
    use std::error::Error as _;
    error.source().is_some_and(|source| {
        source.is::<tokio_postgres::types::WrongType>() || source.is::<tokio_postgres::types::WasNull>()
    })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Where the database is, and how to get there.
#[derive(Debug)]
pub(super) struct Target {
    config: Config,
    tls: Tls,
}

/// What holds for every session. Plans are made while tables may still be empty: nothing here is ever better read whole, so
/// plans go by indexes, and in their order: what goes by a bitmap is sorted whole before a page of it is seen. A process that stands still must not hold its locks for long. A commit is durable,
/// whatever the database's default is.
pub(super) const SET_UP: &str = "SET idle_in_transaction_session_timeout = '10s'; SET client_min_messages = warning; SET jit = off; \
     SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; \
     SET enable_mergejoin = off; SET enable_bitmapscan = off; SET default_transaction_isolation = 'read committed'; \
     SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

impl Target {
    /// The database that this URL names.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (url, tls) = Tls::of_url(url)?;
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| with_causes(&error))?;
        tls.ask(&mut config);
        config.connect_timeout(CONNECT_LIMIT).keepalives_idle(Duration::from_secs(30));
        config.tcp_user_timeout(ANSWER_LIMIT);
        if config.get_application_name().is_none() {
            config.application_name("esito");
        }
        Ok(Self { config, tls })
    }

    /// A new connection whose statements may take `limit`.
    pub async fn connect(&self, limit: Duration) -> Done<Session> {
        let connecting = async {
            let client = self.tls.connect(&self.config).await?;
            client.batch_execute(SET_UP).await?;
            client.batch_execute(&format!("SET statement_timeout = {}", limit.as_millis())).await?;
            Ok(Session { client, statements: Mutex::default() })
        };
        // The limit of the configuration is one for each address, and holds no longer once there is a connection.
        tokio::time::timeout(CONNECT_LIMIT * 2, connecting).await.map_err(|_| Fault::Late)?
    }
}

/// A connection with the statements that it has prepared.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
}

/// The values of a statement.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Session {
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Prepares statements, so that each of them is later sent in the moment in which it is asked for.
    pub async fn prepare(&self, all: &[&'static str]) -> Done<()> {
        for sql in all {
            self.statement(sql).await?;
        }
        Ok(())
    }

    async fn statement(&self, sql: &'static str) -> Done<Statement> {
        if let Some(known) = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql) {
            return Ok(known.clone());
        }
        let made = self.client.prepare(sql).await?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(sql, made.clone());
        Ok(made)
    }

    pub async fn query(&self, sql: &'static str, values: Values<'_>) -> Done<Vec<Row>> {
        let statement = self.statement(sql).await?;
        effort::add_statements(1);
        Ok(self.client.query(&statement, values).await?)
    }

    pub async fn query_opt(&self, sql: &'static str, values: Values<'_>) -> Done<Option<Row>> {
        Ok(self.query(sql, values).await?.into_iter().next())
    }

    /// The same for a statement that was put together for this once.
    pub async fn query_once(&self, sql: &str, values: &[(&(dyn ToSql + Sync), Type)]) -> Done<Vec<Row>> {
        effort::add_statements(1);
        Ok(self.client.query_typed(sql, values).await?)
    }

    pub async fn execute(&self, sql: &'static str, values: Values<'_>) -> Done<u64> {
        let statement = self.statement(sql).await?;
        effort::add_statements(1);
        Ok(self.client.execute(&statement, values).await?)
    }

    /// Runs statements without values.
    pub async fn run(&self, sql: &str) -> Done<()> {
        effort::add_script(sql);
        Ok(self.client.batch_execute(sql).await?)
    }

    pub async fn begin(&self) -> Done<()> {
        self.run("BEGIN").await
    }

    /// Commits. After a statement that failed this is the end of the transaction too, and no error: whoever sends it
    /// along with other statements must look at theirs.
    pub async fn commit(&self) -> Done<()> {
        self.run("COMMIT").await
    }
}

/// A column of a row.
pub(super) fn col<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Done<T> {
    Ok(row.try_get(column)?)
}
