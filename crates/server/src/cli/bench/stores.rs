//! `stores`: the same load on SQLite and on PostgreSQL, one after the other, and what each store does for an event.

use super::deliver::{HOOK, yardstick};
use super::report::{Report, count, ratio};
use super::server::Sandbox;
use super::stage::{Run, Stage};
use super::watched::{Log, Postgres, store_micros};
use super::{Settings, progress};
use serde::Serialize;

/// Recipients of an execution.
const RECIPIENTS: u64 = 20;

/// The arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Stores {
    /// An empty PostgreSQL database on this machine
    #[arg(long, value_name = "URL")]
    postgres: String,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// What one store came to. Everything but the rate is for one event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    events: u64,
    events_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// The processor time of the server; with SQLite the database's is in it.
    server_cpu_micros: f64,
    /// The processor time of all processes of PostgreSQL; of the threads that write SQLite's file.
    database_cpu_micros: f64,
    /// Bytes of the write-ahead log.
    wal_bytes: f64,
    /// Rows of tables inserted, changed and deleted.
    row_writes: f64,
    /// Statements that the database ran, beginnings and ends of transactions included.
    statements: f64,
    /// Transactions.
    #[serde(skip_serializing_if = "Option::is_none")]
    transactions: Option<f64>,
}

impl Stores {
    /// Measures both.
    pub async fn measure(&self) -> Result<Report, String> {
        let settings = &self.settings;
        let mut report = Report::new("stores", settings.tls);
        let sqlite = self.sqlite(&mut report).await?;
        let postgres = self.postgres().await?;
        let ratio = ratio(postgres.events_per_second, sqlite.events_per_second);
        tell("sqlite", "SQLite", &sqlite, &mut report);
        tell("postgres", "PostgreSQL", &postgres, &mut report);
        report.add_number("postgresToSqlite", "events/s, PostgreSQL / SQLite", ratio, 3);
        Ok(report)
    }

    fn events(&self) -> u64 {
        self.settings.events(200, 200_000, 1_000_000).next_multiple_of(RECIPIENTS)
    }

    async fn run(&self, stage: &Stage, events: u64) -> Result<Run, String> {
        let target = stage.server.make_one(Sandbox::new(HOOK, HOOK, stage.endpoint.url("hook/0"))).await?;
        let seconds = self.settings.size(5.0, 20.0, 120.0);
        let run = stage.at_full_speed(&[target], RECIPIENTS, events, seconds).await?;
        run.check(HOOK)?;
        Ok(run)
    }

    async fn sqlite(&self, report: &mut Report) -> Result<Found, String> {
        progress("SQLite");
        let stage = Stage::set(self.settings.tls).await?;
        let log = Log::watch(stage.folder.path().join("esito.db-shm"));
        let (store_before, log_before) = (store_micros(stage.server.pid()?), log.bytes());
        let run = self.run(&stage, self.events()).await?;
        let store = store_micros(stage.server.pid()?) - store_before;
        let wal_bytes = log.bytes() - log_before;
        run.report(HOOK, report);
        report.latency_from = Some("call");
        report.latency_ms = run.seen.group(HOOK).from_call;
        stage.end(report).await?;
        yardstick(&run.seen.sample, &self.settings, report).await?;

        progress("SQLite, its statements counted");
        let counted = Stage::set_counting(None, self.settings.tls).await?;
        let before = counted.server.effort().await?;
        let counted_run = self.run(&counted, self.events().min(self.settings.size(200, 40_000, 200_000))).await?;
        let effort = counted.server.effort().await?;
        let of = count(counted_run.seen.events().max(1));
        let mut found = found(&run, store, wal_bytes);
        found.row_writes = (effort.rows_written - before.rows_written) / of;
        found.statements = (effort.statements - before.statements) / of;
        Ok(found)
    }

    async fn postgres(&self) -> Result<Found, String> {
        progress("PostgreSQL");
        let database = Postgres::connect(&self.postgres).await?;
        let stage = Stage::set_counting(Some(&self.postgres), self.settings.tls).await?;
        let (before, effort_before) = (database.account().await?, stage.server.effort().await?);
        let run = self.run(&stage, self.events()).await?;
        let (after, effort) = (database.account().await?, stage.server.effort().await?);
        // The database knows what a session did when that has ended.
        stage.end(&mut Report::new("stores", self.settings.tls)).await?;
        let ended = database.account().await?;
        let of = count(run.seen.events().max(1));
        let mut found = found(&run, after.cpu_micros - before.cpu_micros, after.wal_bytes - before.wal_bytes);
        found.row_writes = (ended.rows_written - before.rows_written) / of;
        found.statements = (effort.statements - effort_before.statements) / of;
        found.transactions = Some((ended.transactions - before.transactions) / of);
        Ok(found)
    }
}

fn found(run: &Run, database_cpu: f64, wal_bytes: f64) -> Found {
    let group = run.seen.group(HOOK);
    let of = count(run.seen.events().max(1));
    Found {
        events: group.events,
        events_per_second: group.per_second(),
        p50_ms: group.from_call.p50,
        p99_ms: group.from_call.p99,
        server_cpu_micros: run.after.cpu_micros_since(&run.before) / of,
        database_cpu_micros: database_cpu / of,
        wal_bytes: wal_bytes / of,
        row_writes: 0.0,
        statements: 0.0,
        transactions: None,
    }
}

fn tell(key: &str, label: &str, found: &Found, report: &mut Report) {
    let text = format!(
        "{:.0}/s, p99 {:.0} ms; an event: {:.1} µs of CPU in the server, {:.1} in the database, {:.0} bytes of log, {:.2} \
         rows written, {:.3} statements",
        found.events_per_second,
        found.p99_ms,
        found.server_cpu_micros,
        found.database_cpu_micros,
        found.wal_bytes,
        found.row_writes,
        found.statements
    );
    report.add(key, label, found, text);
}
