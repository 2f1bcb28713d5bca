//! A run: life after life of processes, until all is done, then the checks.

use crate::checks;
use crate::client::Client;
use crate::plan::{Action, End, Ending};
use crate::process::{Process, open_store};
use crate::setup::set_up;
use crate::trace::Trace;
use crate::world::World;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::Store;
use tokio::sync::Notify;

/// How long what is left may take once the faults have stopped.
const LONGEST_END: Duration = Duration::from_secs(1_800);
/// How often it is looked whether all is through.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A second outcome may still be planned, which is told to nobody before it is due.
const LAST_WAIT: Duration = Duration::from_secs(15);
/// How long a process that is asked to stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What happened.
    pub trace: Trace,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// Figures, to see that there was something to check.
    pub figures: Figures,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Lives of processes.
    pub lives: usize,
    /// Messages accepted.
    pub messages: usize,
    /// Requests at endpoints.
    pub arrivals: usize,
    /// Those that were answered by a success.
    pub taken: usize,
    /// Messages mailed more than once.
    pub mailed_twice: usize,
    /// Shards that changed hands between processes of one life.
    pub takeovers: usize,
    /// Simulated seconds.
    pub seconds: u64,
}

/// Runs a seed. Its trace is shown as it grows, or not.
pub fn run(seed: u64, is_shown: bool) -> Report {
    let world = World::new(seed, is_shown);
    let run = Run {
        client: Client::new(Arc::clone(&world)),
        next_process: AtomicUsize::new(0),
        frozen: AtomicUsize::new(0),
        world: Arc::clone(&world),
    };
    let lives = match tempfile::tempdir() {
        Ok(folder) => run.live(folder.path()),
        Err(error) => {
            world.violation(format!("there is no folder for the store: {error}"));
            0
        }
    };
    let figures = figures(&world, lives);
    let (trace, violations) = world.take_report();
    Report { seed, trace, violations, figures }
}

fn figures(world: &World, lives: usize) -> Figures {
    let seconds = world.elapsed().as_secs();
    world.ledger(|ledger| Figures {
        lives,
        messages: ledger.executions.values().map(|execution| execution.addresses.len()).sum(),
        arrivals: ledger.arrivals.values().map(Vec::len).sum(),
        taken: ledger.answers.range(200..300).map(|(_, count)| *count as usize).sum(),
        mailed_twice: ledger.mailed.values().filter(|times| **times > 1).count(),
        takeovers: ledger.takeovers,
        seconds,
    })
}

struct Run {
    world: Arc<World>,
    client: Client,
    next_process: AtomicUsize,
    /// How many freezes there were.
    frozen: AtomicUsize,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Everything is through.
    Done,
    /// There is more to do.
    More,
}

impl Run {
    /// Lives until all is done; returns how many lives it took.
    fn live(&self, folder: &Path) -> usize {
        let mut lives = 0;
        loop {
            let end = self.world.plan.ends.get(lives).copied();
            lives += 1;
            self.world.end.reset();
            let after = match runtime() {
                Ok(runtime) => {
                    let after = runtime.block_on(async {
                        let after = self.one_life(folder, end).await;
                        // Time is the runtime's: it is asked once more in there.
                        self.world.end_life();
                        after
                    });
                    // Whatever the process was doing ends here.
                    drop(runtime);
                    after
                }
                Err(error) => {
                    self.world.violation(format!("there is no runtime: {error}"));
                    After::Done
                }
            };
            self.client.forget_processes();
            let now = self.world.now();
            self.world.ledger(|ledger| {
                ledger.upsets += 1;
                ledger.end_requests(None, now);
            });
            if after == After::Done || self.world.is_violated() {
                return lives;
            }
            self.world.pass(end.map_or(Duration::ZERO, |end| end.pause));
        }
    }

    async fn one_life(&self, folder: &Path, end: Option<End>) -> After {
        self.world.begin_life();
        let store = match open_store(&self.world, folder) {
            Ok(store) => store,
            Err(error) => {
                self.world.violation(format!("the store does not open: {error}"));
                return After::Done;
            }
        };
        self.world.set_truth(Arc::clone(&store));
        if self.world.tenants().is_empty() {
            if let Err(error) = set_up(&self.world, &*store).await {
                self.world.violation(format!("the tenants cannot be made: {error}"));
                return After::Done;
            }
            self.world.set_calm(false);
        }
        let stop = Notify::new();
        tokio::select! {
            biased;
            () = self.world.end.over() => {
                self.world.note(format_args!("CRASH"));
                After::More
            }
            after = self.work(&*store) => after,
            () = self.freeze() => After::Done,
            () = self.end_by(end, &stop) => After::Done,
            () = stop.notified() => {
                self.stop(&*store).await;
                After::More
            }
        }
    }

    /// Starts a process.
    async fn start(&self) -> Option<Process> {
        let number = self.next_process.fetch_add(1, Ordering::Relaxed);
        let process = Process::start(&self.world, number).await?;
        self.client.add(process.clone());
        Some(process)
    }

    async fn work(&self, store: &dyn Store) -> After {
        let first = self.next_process.load(Ordering::Relaxed);
        self.world.ledger(|ledger| ledger.first_of_life = first);
        if self.start().await.is_none() {
            return After::More;
        }
        self.client.act().await;
        tokio::time::sleep(self.world.plan.length.saturating_sub(self.world.elapsed())).await;
        self.calm_down().await;
        self.wait_for_the_rest(store).await;
        if !self.world.is_violated() {
            checks::check(&self.world, store).await;
        }
        self.stop(store).await;
        After::Done
    }

    /// From now on nothing fails, and nothing is held but what is to stay so.
    async fn calm_down(&self) {
        self.world.note(format_args!("calm"));
        self.world.set_calm(true);
        let now = self.world.now();
        self.client.processes().iter().for_each(|process| process.state.stand.thaw(now));
        for (sandbox, plan) in self.world.plan.sandboxes.iter().enumerate() {
            // Only what is paused: every change makes its queue look at the store, and that it must do by itself.
            let paused = self.world.ledger(|ledger| ledger.channels_pause_asked.contains(&sandbox));
            if paused {
                self.client.insist(usize::MAX, Action::ResumeChannels(sandbox)).await;
            }
            let is_held = self.client.is_held(sandbox).await;
            if is_held != plan.stays_paused {
                let hold = if plan.stays_paused { Action::Pause(sandbox) } else { Action::Resume(sandbox) };
                self.client.insist(usize::MAX, hold).await;
            }
        }
    }

    /// Resumes what an endpoint ended by a 410 that was under way when all became calm: it is recorded a little later.
    async fn resume_what_is_gone(&self) {
        for (sandbox, plan) in self.world.plan.sandboxes.iter().enumerate() {
            if !plan.stays_paused && self.client.is_gone(sandbox).await {
                self.client.insist(usize::MAX, Action::Resume(sandbox)).await;
            }
        }
    }

    async fn wait_for_the_rest(&self, store: &dyn Store) {
        let mut left: Vec<_> = self.world.ledger(|ledger| ledger.executions.keys().copied().collect());
        let deadline = tokio::time::Instant::now() + LONGEST_END;
        loop {
            self.resume_what_is_gone().await;
            left = checks::unsettled(&self.world, store, left).await;
            let is_over = left.is_empty() && checks::replays_are_over(&self.world, store).await;
            if tokio::time::Instant::now() >= deadline || self.world.is_violated() {
                return;
            }
            tokio::time::sleep(if is_over { LAST_WAIT } else { LOOK_EVERY }).await;
            if is_over {
                return;
            }
        }
    }

    async fn stop(&self, store: &dyn Store) {
        self.world.note(format_args!("stop"));
        for process in self.client.processes() {
            process.state.stand.thaw(self.world.now());
            process.engine.stop(STOP_WITHIN).await;
        }
        store.close().await;
    }

    /// Ends the life as planned. Returns only where that is never.
    async fn end_by(&self, end: Option<End>, stop: &Notify) {
        if let Some(end) = end {
            tokio::time::sleep(end.after).await;
            if !self.world.is_calm() {
                match end.how {
                    Ending::Stop => stop.notify_one(),
                    how => self.world.end.arm(how),
                }
            }
        }
        std::future::pending().await
    }

    /// Lets whoever owns the shards stand still, as often as planned; another process is there to take over.
    async fn freeze(&self) {
        while let Some(freeze) = self.world.plan.freezes.get(self.frozen.load(Ordering::Relaxed)).copied() {
            tokio::time::sleep(freeze.after).await;
            self.frozen.fetch_add(1, Ordering::Relaxed);
            let Some(process) = self.owner().filter(|_| !self.world.is_calm()) else { continue };
            self.world.note(format_args!("p{} stands still", process.state.number));
            process.state.stand.freeze();
            let thaw = tokio::time::Instant::now() + freeze.length;
            if self.client.processes().len() < 2 {
                self.start().await;
            }
            tokio::time::sleep_until(thaw).await;
            self.world.note(format_args!("p{} goes on", process.state.number));
            process.state.stand.thaw(self.world.now());
        }
        std::future::pending().await
    }

    /// The process that owns the first tenant's shard.
    fn owner(&self) -> Option<Process> {
        let tenant = self.world.tenants().first()?;
        let owner = self.world.ledger(|ledger| ledger.owner(tenant))?;
        self.client.processes().into_iter().find(|process| process.state.number == owner.process)
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    // One poll at a time, so that an end can come between any two.
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).event_interval(1).build()
}
