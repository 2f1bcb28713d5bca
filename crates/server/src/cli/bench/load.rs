//! The callers of the bench: executions to the API, or the same request again and again to an endpoint.

use super::super::{Failure, Outcome, print_line};
use super::account::Account;
use super::caller::Caller;
use super::pace::{Calls, Job};
use super::plan::{Done, Plan, Recipients, Work};
use super::report::{Percentiles, count, histogram};
use crate::clock::SystemClock;
use clap::Args;
use hdrhistogram::Histogram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// The arguments of the callers.
#[derive(Debug, Args)]
pub struct Load {
    /// What to call and how fast, as JSON
    #[arg(long)]
    plan: PathBuf,
}

impl Load {
    /// Makes all calls and prints what came of them.
    pub async fn run(self) -> Outcome {
        let text = std::fs::read(&self.plan).map_err(|error| Failure::new(error.to_string()))?;
        let plan = serde_json::from_slice(&text).map_err(|error| Failure::new(error.to_string()))?;
        let done = drive(plan).await.map_err(Failure::new)?;
        print_line(&serde_json::to_string(&done).map_err(|error| Failure::new(error.to_string()))?)
    }
}

/// What the callers note while they call.
struct Notes {
    done: Done,
    micros: Histogram<u64>,
}

/// Callers at work.
struct Crew {
    caller: Caller,
    notes: Mutex<Notes>,
}

async fn drive(plan: Plan) -> Result<Done, String> {
    let recipients = match &plan.work {
        Work::Post(_) => Recipients::Exactly(1),
        Work::Execute(execute) => execute.recipients,
    };
    let notes = Mutex::new(Notes { done: Done::default(), micros: histogram() });
    let is_open = matches!(plan.pace, super::plan::Pace::Open { .. });
    let crew = Arc::new(Crew { caller: Caller::new(plan.work, plan.ca_file.as_deref(), is_open)?, notes });
    let (before, started) = (Account::own()?, SystemClock::micros());
    match Calls::of(plan.pace, recipients) {
        Calls::Closed(callers, taken) => {
            let taken = Arc::new(taken);
            let closed = |_| {
                let (crew, taken) = (Arc::clone(&crew), Arc::clone(&taken));
                async move {
                    let mut connection = crew.caller.connect().await?;
                    while let Some(job) = taken.take() {
                        let called = crew.caller.call_on(&mut connection, job).await;
                        crew.note(job, job.intended, called)?;
                    }
                    Ok(())
                }
            };
            all((0..callers).map(closed).collect()).await?;
        }
        Calls::Open(mut jobs) => {
            let mut calls = JoinSet::new();
            while let Some(job) = jobs.recv().await {
                let crew = Arc::clone(&crew);
                calls.spawn(async move {
                    let at = SystemClock::micros();
                    let called = crew.caller.call(job).await;
                    // What failed has been noted; an open loop goes on.
                    let _ = crew.note(job, at, called);
                });
                while calls.try_join_next().is_some() {}
            }
            while calls.join_next().await.is_some() {}
        }
    }
    let seconds = count(SystemClock::micros() - started) / 1e6;
    let cpu_micros = Account::own()?.cpu_micros_since(&before);
    let notes = crew.notes.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Done { seconds, cpu_micros, answer_ms: Percentiles::of(&notes.micros), ..notes.done.clone() })
}

async fn all(mut callers: JoinSet<Result<(), String>>) -> Result<(), String> {
    while let Some(done) = callers.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(())
}

impl Crew {
    /// Writes down what came of a call; an error where it failed.
    fn note(&self, job: Job, at: u64, called: Result<(), String>) -> Result<(), String> {
        let now = SystemClock::micros();
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let late = count(at.saturating_sub(job.intended)) / 1000.0;
        notes.done.latest_call_ms = notes.done.latest_call_ms.max(late);
        match &called {
            Ok(()) => {
                notes.micros.saturating_record(now.saturating_sub(job.intended).max(1));
                notes.done.requests += 1;
                let group = self.caller.group(job.n);
                match notes.done.events.get_mut(group) {
                    Some(events) => *events += job.recipients,
                    None => drop(notes.done.events.insert(group.to_owned(), job.recipients)),
                }
            }
            Err(what) => *notes.done.failed.entry(what.clone()).or_default() += 1,
        }
        called
    }
}
