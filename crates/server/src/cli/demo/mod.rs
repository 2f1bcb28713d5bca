//! `esito demo`: all of Esito on one machine, with nothing configured and nothing left behind.
//!
//! Nothing is shown that is not real: the server listens on a port of its own, executions go in through its API, and
//! the events come out over TLS to a receiver that verifies them with the public keys that the server publishes.

mod caller;
mod ledger;
mod script;
mod stage;
mod transcript;

use super::receiver::Received;
use super::{Failure, Outcome, print_line};
use crate::clock::SystemClock;
use crate::config::{Log, LogFormat};
use crate::lifecycle::Lifecycle;
use crate::logging;
use ledger::Ledger;
use model::clock::{Clock, Timestamp};
use script::EXECUTIONS;
use stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use transcript::{event_line, execution_line, introduction, invitation};

/// How long the events may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long nothing more may come once all has come: an event too many would be a fault too.
const QUIET: Duration = Duration::from_millis(300);

/// The arguments of `esito demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Ends after the last event; fails unless every event came and was verified
    #[arg(long)]
    once: bool,
    /// Answers one event with 200 and forgets it: to see that the demo notices
    #[arg(long, hide = true)]
    drop_one: bool,
}

impl Demo {
    /// Shows the events of the script, and then those of whoever tries it, until a signal comes.
    pub async fn run(self) -> Outcome {
        logging::start(&Log { format: LogFormat::Text, level: LevelFilter::WARN });
        let life = Lifecycle::default();
        life.stop_on_signals().map_err(|error| Failure::new(error.to_string()))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let started = clock.now();
        let stage = Stage::set(clock.clone(), Box::new(script::answer)).await?;
        let mut show = Show { stage, clock, life, started, ledger: Ledger::new(self.drop_one) };
        let played = show.play(self.once).await;
        let struck = show.stage.strike().await;
        played.and(struck)
    }
}

/// A run of the demo.
struct Show {
    stage: Stage,
    clock: Arc<dyn Clock>,
    life: Lifecycle,
    started: Timestamp,
    ledger: Ledger,
}

impl Show {
    async fn play(&mut self, once: bool) -> Outcome {
        print_line(&introduction(&self.stage))?;
        self.run_executions().await?;
        let stopped = self.await_events().await?;
        if stopped {
            let why = "ended before all events came";
            return if once { Err(Failure::new(why)) } else { print_line(&format!("\n{why}")) };
        }
        let verdict = self.ledger.verdict(self.clock.now().since(self.started));
        if once {
            return verdict.map_err(Failure::new).and_then(|summary| print_line(&format!("\n{summary}")));
        }
        print_line(&format!("\n{}", verdict.as_ref().unwrap_or_else(|faults| faults)))?;
        print_line(&invitation(&self.stage, self.stage.console_link().await?.as_deref()))?;
        self.show_further_events().await?;
        verdict.map(drop).map_err(|_| Failure::told())
    }

    async fn run_executions(&self) -> Outcome {
        for execution in EXECUTIONS.iter().take_while(|_| !self.life.is_stopping()) {
            let accepted = self.stage.api.post(script::PATH, &execution.body(&self.stage.campaign)).await?;
            print_line(&execution_line(execution, &accepted, self.clock.now().since(self.started)))?;
        }
        print_line("")
    }

    /// Shows what comes until all of the script has come, or it takes too long; true where the demo was told to stop.
    async fn await_events(&mut self) -> Result<bool, Failure> {
        let (mut until, mut complete) = (Instant::now() + PATIENCE, false);
        loop {
            let event = tokio::select! {
                biased;
                () = self.life.stopping() => return Ok(true),
                event = self.stage.events.recv() => event,
                () = tokio::time::sleep_until(until) => return Ok(false),
            };
            let Some(event) = event else { return Ok(false) };
            self.record(&event)?;
            if !complete && self.ledger.is_complete() {
                (until, complete) = (Instant::now() + QUIET, true);
            }
        }
    }

    fn record(&mut self, event: &Received) -> Outcome {
        if self.ledger.forgets(event) {
            return Ok(());
        }
        self.ledger.record(event);
        print_line(&event_line(event, self.started))
    }

    async fn show_further_events(&mut self) -> Outcome {
        loop {
            let event = tokio::select! {
                event = self.stage.events.recv() => event,
                () = self.life.stopping() => None,
            };
            let Some(event) = event else { return Ok(()) };
            print_line(&event_line(&event, self.started))?;
        }
    }
}
