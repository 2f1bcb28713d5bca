//! Lanes: tasks that write, each on a connection of its own, whatever has gathered in one transaction.
//!
//! While one transaction is under way the next units gather, so that many share its round trips and its commit. Nobody
//! hears of success before the commit was answered; where its answer is lost the callers are told to come again, and
//! each kind of unit notices that it was done already. A transaction in another's way is tried again; one that fails for
//! a unit's own reason is redone unit by unit.

use super::pool::{TRIES, in_time};
use super::session::{Done, STATEMENT_LIMIT, Session, Target};
use crate::{Result, StoreError};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The most units of a transaction, unless one job alone has more.
const UNITS_AT_A_TIME: usize = 512;
/// The most bytes of a transaction, unless one job alone has more.
const BYTES_AT_A_TIME: usize = 8 * 1024 * 1024;
/// The most jobs that wait; past it callers wait in turn.
const JOBS_WAITING: usize = 4096;
/// The pauses between tries to reach the database.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Plans are made anew this often, so that none from when a table was empty lasts.
const PLANS_LAST: Duration = Duration::from_secs(10);

/// What a lane does.
#[async_trait]
pub(super) trait Work: Send + Sync + 'static {
    /// What is to be done.
    type Unit: Send + Sync + 'static;
    /// What came of it.
    type Answer: Send + 'static;
    /// The statements that are sent without waiting for those before them: these are prepared at first.
    const STATEMENTS: &'static [&'static str];

    /// The bytes of a unit, where they matter.
    fn bytes(_unit: &Self::Unit) -> usize {
        0
    }

    /// Does all units in one transaction, and returns after its commit: an answer for each.
    async fn run(&self, session: &Session, units: &[&Self::Unit]) -> Done<Vec<Result<Self::Answer>>>;
}

struct Job<W: Work> {
    units: Vec<W::Unit>,
    reply: oneshot::Sender<Vec<Result<W::Answer>>>,
}

/// The way to a lane.
#[derive(Debug)]
pub(super) struct Lane<W: Work> {
    jobs: mpsc::Sender<Job<W>>,
}

impl<W: Work> Clone for Lane<W> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone() }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

impl<W: Work> Lane<W> {
    /// Starts a lane; its task ends when the last way to it is gone.
    pub fn start(work: W, target: Arc<Target>) -> (Self, JoinHandle<()>) {
        let (jobs, waiting) = mpsc::channel(JOBS_WAITING);
        let line = Line {
            target,
            session: None,
            pause: Duration::ZERO,
            next_try: Instant::now(),
            plans_until: Instant::now(),
        };
        (Self { jobs }, tokio::spawn(work_until_closed(work, line, waiting)))
    }

    /// Does `units`; an answer for each.
    pub async fn each(&self, units: Vec<W::Unit>) -> Result<Vec<Result<W::Answer>>> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { units, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }
}

async fn work_until_closed<W: Work>(work: W, mut line: Line, mut waiting: mpsc::Receiver<Job<W>>) {
    let mut batch: Vec<Job<W>> = Vec::new();
    while let Some(first) = waiting.recv().await {
        let (mut count, mut bytes) = (first.units.len(), first.units.iter().map(W::bytes).sum::<usize>());
        batch.push(first);
        while count < UNITS_AT_A_TIME && bytes < BYTES_AT_A_TIME {
            let Ok(job) = waiting.try_recv() else { break };
            count += job.units.len();
            bytes += job.units.iter().map(W::bytes).sum::<usize>();
            batch.push(job);
        }
        let units: Vec<&W::Unit> = batch.iter().flat_map(|job| &job.units).collect();
        let mut answers = do_all(&work, &mut line, &units).await.into_iter();
        for job in batch.drain(..) {
            let of_job = answers.by_ref().take(job.units.len()).collect();
            // A caller that went away does not care; what was committed stays.
            let _ = job.reply.send(of_job);
        }
    }
}

/// Does units together, or one by one where one of them is in the way of the others.
async fn do_all<W: Work>(work: &W, line: &mut Line, units: &[&W::Unit]) -> Vec<Result<W::Answer>> {
    let fault = match do_once(work, line, units).await {
        Ok(answers) => return answers,
        Err(fault) => fault,
    };
    if !fault.is_of_a_unit() {
        let why = StoreError::from(fault).to_string();
        tracing::warn!(units = units.len(), why, "a transaction failed");
        return units.iter().map(|_| Err(StoreError::Unavailable(why.clone()))).collect();
    }
    let mut answers = Vec::with_capacity(units.len());
    for unit in units {
        match do_once(work, line, &[unit]).await {
            Ok(done) => answers.extend(done),
            // It will not get better: whoever waits for it must not come again for ever, nor the others with it.
            Err(fault) if fault.is_of_a_unit() => {
                let error = StoreError::Corrupt(StoreError::from(fault).to_string());
                tracing::error!(%error, "a unit cannot be written");
                answers.push(Err(error));
            }
            Err(fault) => {
                let error = StoreError::from(fault);
                tracing::warn!(%error, "a unit failed alone");
                answers.push(Err(error));
            }
        }
    }
    answers
}

async fn do_once<W: Work>(work: &W, line: &mut Line, units: &[&W::Unit]) -> Done<Vec<Result<W::Answer>>> {
    let mut tries = TRIES;
    loop {
        let session = line.session(W::STATEMENTS).await?;
        let fault = match in_time(work.run(session, units)).await {
            Ok(answers) => return Ok(answers),
            Err(fault) => fault,
        };
        if !fault.leaves_the_session() || in_time(session.run("ROLLBACK")).await.is_err() {
            line.session = None;
        }
        tries -= 1;
        if !fault.is_passing() || tries == 0 {
            return Err(fault);
        }
    }
}

/// A lane's connection, made anew where it is gone.
struct Line {
    target: Arc<Target>,
    session: Option<Session>,
    pause: Duration,
    next_try: Instant,
    plans_until: Instant,
}

impl Line {
    /// The connection. While the database is away whoever comes is told so at once, and only now and then one try is
    /// made.
    async fn session(&mut self, statements: &[&'static str]) -> Done<&Session> {
        if self.session.as_ref().is_some_and(Session::is_closed) {
            self.session = None;
        }
        let session = match self.session.take() {
            Some(session) => session,
            None => self.connect(statements).await?,
        };
        if Instant::now() >= self.plans_until {
            in_time(session.run("DISCARD PLANS")).await?;
            self.plans_until = Instant::now() + PLANS_LAST;
        }
        Ok(self.session.insert(session))
    }

    async fn connect(&mut self, statements: &[&'static str]) -> Done<Session> {
        if Instant::now() < self.next_try {
            return Err(StoreError::Unavailable("the database is away".to_owned()).into());
        }
        let connecting = async {
            let session = self.target.connect(STATEMENT_LIMIT).await?;
            session.prepare(statements).await?;
            Ok(session)
        };
        match in_time(connecting).await {
            Ok(session) => {
                self.pause = Duration::ZERO;
                Ok(session)
            }
            Err(fault) => {
                self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                self.next_try = Instant::now() + self.pause;
                Err(fault)
            }
        }
    }
}
