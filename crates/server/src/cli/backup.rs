//! `esito backup` and `esito restore`: of the SQLite database. PostgreSQL has programs of its own for it.

use super::{ConfigArgs, Failure, Outcome, master_key, print_line};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{Config, Database};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use model::clock::Clock as _;
use serde_json::json;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::StoreError;
use store::envelope::MasterKey;
use store::sqlite::backup::{self, Checked, Progress, Restored};
use tokio::time::Instant;

/// The arguments of `esito backup`.
#[derive(Debug, clap::Args)]
pub struct Backup {
    /// The copy
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    /// Replaces a file that is there
    #[arg(long)]
    force: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// The arguments of `esito restore`.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// A copy that `esito backup` made
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

fn database(config: &Config) -> Result<&Path, Failure> {
    match &config.database {
        Database::Sqlite(file) => Ok(file),
        Database::Postgres(_) => Err(Failure::new(
            "this is for SQLite; a PostgreSQL database is copied with pg_dump and restored with pg_restore, or kept by \
             continuous archiving: see \"Backup\" in the README",
        )),
    }
}

/// The key of a database that is there, or of a copy: none is made here.
async fn key(config: &Config, of: &Path) -> Result<MasterKey, Failure> {
    master_key::master_key(&config.secrets, Some(&of.display().to_string()), &SystemEntropy).await
}

/// Does the work on a thread of its own, with a bar, until it ends or is interrupted.
async fn work<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce(backup::Watch<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let bar = bar(what);
    let mut working = {
        let (stop, bar) = (Arc::clone(&stop), bar.clone());
        tokio::task::spawn_blocking(move || {
            work(&mut |progress| {
                show(&bar, progress);
                !stop.load(Ordering::Relaxed)
            })
        })
    };
    let ended = tokio::select! {
        ended = &mut working => ended,
        _ = tokio::signal::ctrl_c() => {
            // It leaves nothing behind, and that takes a moment.
            stop.store(true, Ordering::Relaxed);
            working.await
        }
    };
    bar.finish_and_clear();
    let done = ended.map_err(|error| Failure::new(error.to_string()))?;
    done.map_err(|error| match error {
        StoreError::Unavailable(why) | StoreError::Corrupt(why) => Failure::new(why),
        other => other.into(),
    })
}

fn bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:32} {bytes} of {total_bytes} {elapsed_precise}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(what)
}

fn show(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Copied(done, all) => {
            bar.set_length(all);
            bar.set_position(done);
        }
        Progress::Checking => bar.set_message("checking"),
    }
}

impl Backup {
    /// Copies and checks.
    pub async fn run(self) -> Outcome {
        let config = self.config.load()?.config;
        let database = database(&config)?.to_owned();
        if !database.exists() {
            return Err(Failure::new(format!("there is no database at {}", database.display())));
        }
        let key = key(&config, &database).await?;
        let (target, force, started) = (self.file.clone(), self.force, Instant::now());
        let copied = work("copying", move |watch| backup::back_up(&database, &target, force, &key, watch)).await;
        let copied = copied.map_err(|failure| hint_force(&failure, self.force))?;
        let seconds = started.elapsed().as_secs_f64();
        if self.json {
            let mut shown = shown(&copied);
            shown["file"] = json!(self.file);
            shown["seconds"] = json!((seconds * 1e3).round() / 1e3);
            return print_line(&shown.to_string());
        }
        print_line(&format!("{}: {} in {seconds:.1} s", self.file.display(), told(&copied)))?;
        print_line("The master key is not in it: keep a copy of that elsewhere, or its secrets are lost.")
    }
}

fn hint_force(failure: &Failure, forced: bool) -> Failure {
    let why = failure.to_string();
    let hint = if !forced && why.ends_with("is there already") { "; --force replaces it" } else { "" };
    Failure::new(format!("{why}{hint}"))
}

fn shown(checked: &Checked) -> serde_json::Value {
    let Checked { bytes, schema, executions, events } = checked;
    json!({"bytes": bytes, "schema": schema, "executions": executions, "events": events})
}

fn told(checked: &Checked) -> String {
    let Checked { bytes, schema, executions, events } = checked;
    format!("{}, {executions} executions, {events} events, schema {schema}", HumanBytes(*bytes))
}

impl Restore {
    /// Checks the copy, keeps the former database, and puts the copy in its place.
    pub async fn run(self) -> Outcome {
        let config = self.config.load()?.config;
        let database = database(&config)?.to_owned();
        if !self.file.exists() {
            return Err(Failure::new(format!("there is no file {}", self.file.display())));
        }
        let key = key(&config, &self.file).await?;
        let copy = self.file.clone();
        let suffix =
            Duration::from_millis(u64::try_from(SystemClock.now().millis()).unwrap_or(0)).as_secs().to_string();
        let target = database.clone();
        let restored = work("restoring", move |watch| backup::restore(&copy, &target, &suffix, &key, watch)).await?;
        let Restored { copy, former } = restored;
        if self.json {
            let mut shown = shown(&copy);
            shown["file"] = json!(database);
            shown["former"] = json!(former);
            return print_line(&shown.to_string());
        }
        print_line(&format!("{}: {}", database.display(), told(&copy)))?;
        match former {
            Some(former) => print_line(&format!("The former database is {}", former.display())),
            None => Ok(()),
        }
    }
}
