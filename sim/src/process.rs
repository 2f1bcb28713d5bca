//! A process: the real engine over the store, the network and the relay of the simulation.

use crate::ledger::ProcessState;
use crate::network::Net;
use crate::observed::Observed;
use crate::relay::make_sender;
use crate::world::{EndSwitch, SimClock, World};
use async_trait::async_trait;
use model::clock::Clock;
use model::delivery::AttemptDecision;
use model::outcome::FeedbackStatus;
use model::retention::Retention;
use outbound::engine::{Engine, Parts, Tally};
use outbound::webhook::Network;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Use;
use store::envelope::MasterKey;
use store::sqlite::{CommitSeam, Options, SqliteStore};
use store::work::Deleted;
use store::{Result, Store};
use tokio::time::timeout;
use wire::address::EgressPolicy;

/// After this long a process that does not answer is left.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process at work.
#[derive(Clone, Debug)]
pub struct Process {
    /// What the world knows of it.
    pub state: Arc<ProcessState>,
    /// Its store.
    pub store: Arc<dyn Store>,
    /// Its engine.
    pub engine: Arc<Engine>,
}

/// Opens the store of a life.
pub fn open_store(world: &Arc<World>, folder: &Path) -> Result<Arc<dyn Store>> {
    let options = Options {
        file: folder.join("sim.db"),
        master_key: MasterKey::new(&[7; 32]),
        usage: Use::Work,
        min_free_disk_bytes: 0,
        max_waiting_messages: 100_000,
    };
    Ok(Arc::new(SqliteStore::open_inline(options, Arc::new(Seam(Arc::clone(world))))?))
}

/// The commits.
#[derive(Debug)]
struct Seam(Arc<World>);

impl Seam {
    fn end(&self) -> &EndSwitch {
        &self.0.end
    }
}

#[async_trait]
impl CommitSeam for Seam {
    async fn before(&self) -> std::result::Result<(), String> {
        use crate::plan::Ending;
        self.0.step();
        let (most, refused) = (self.0.plan.store_slowness_ms, self.0.plan.commits_refused);
        let refused = if self.0.is_calm() { 0.0 } else { refused };
        let (pause, refused) = self.0.throw(|dice| (dice.millis(0, most / 4 + 1), dice.chance(refused)));
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.end().at(|ending| matches!(ending, Ending::BeforeCommit)).await;
        if refused { Err("the disk is full (simulated)".to_owned()) } else { Ok(()) }
    }

    async fn after(&self) {
        self.0.step();
        self.end().at(|ending| matches!(ending, crate::plan::Ending::AfterCommit)).await;
    }
}

#[derive(Debug)]
struct NoTally;

impl Tally for NoTally {
    fn recorded(&self, _: FeedbackStatus) {}
    fn delivered(&self, _: AttemptDecision) {}
    fn deleted(&self, _: &Deleted) {}
}

impl Process {
    /// Starts the process with this number; none where it does not get so far.
    pub async fn start(world: &Arc<World>, number: usize) -> Option<Self> {
        let state = Arc::new(ProcessState { number, stand: Default::default() });
        let inner = world.truth()?;
        let store: Arc<dyn Store> = Arc::new(Observed { world: Arc::clone(world), process: Arc::clone(&state), inner });
        let clock: Arc<dyn Clock> = Arc::new(SimClock(Arc::clone(world)));
        let net = Arc::new(Net { world: Arc::clone(world), process: Arc::clone(&state) });
        let policy = EgressPolicy { allow_networks: Vec::new(), allow_http: true };
        let make_parts = || Parts {
            store: Arc::clone(&store),
            network: Network::with(policy.clone(), Vec::new(), net.clone(), net.clone()),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&world.entropy) as _,
            tally: Arc::new(NoTally),
            hands: 2,
            retention: Retention::default(),
            make_sender: make_sender(world, &state, &clock),
        };
        loop {
            match Engine::start(make_parts()).await {
                Ok(engine) => {
                    world.note(format_args!("process {number} has started"));
                    return Some(Self { state, store, engine });
                }
                // Whoever watches over processes starts it again.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// Waits for an answer, but not for ever.
    pub async fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> Option<Result<T>> {
        timeout(PATIENCE, question).await.ok()
    }
}
