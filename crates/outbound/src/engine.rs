//! The engine: both drivers and the ownership of shards, started and stopped together.

use crate::admission::Admission;
use crate::channel::work::{ChannelWork, MakeSender, Versions};
use crate::driver::{Budget, Driver, Leases, Places, Shared};
use crate::erasure::Erasing;
use crate::indexing::Indexing;
use crate::ownership::Ownership;
use crate::replay::Replays;
use crate::retention::Retaining;
use crate::webhook::Network;
use crate::webhook::work::WebhookWork;
use model::clock::{Clock, Entropy};
use model::delivery::AttemptDecision;
use model::ids::{OwnerId, SandboxId};
use model::outcome::FeedbackStatus;
use model::retention::Retention;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::Store;
use store::wake::{Hint, Wake};
use store::work::Deleted;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most steps under way at a time, for each driver: what bounds sockets and memory however many queues there are.
const STEPS_AT_A_TIME: usize = 4_096;
/// The most bytes of rows in memory, for each driver. Rows of few queues fill it; thousands hold a few rows each.
const BYTES_IN_MEMORY: usize = 48 * 1024 * 1024;

/// Counts what happens, for whoever shows it.
pub trait Tally: Send + Sync + std::fmt::Debug {
    /// An outcome was recorded for a message.
    fn recorded(&self, status: FeedbackStatus);
    /// An attempt to deliver an event has ended.
    fn delivered(&self, decision: AttemptDecision);
    /// Rows were deleted because of their age.
    fn deleted(&self, rows: &Deleted);
}

/// What an engine needs.
pub struct Parts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The way out for webhooks.
    pub network: Arc<Network>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Counts.
    pub tally: Arc<dyn Tally>,
    /// The most tasks that poll the steps of one queue: as many as there are processors serves one busy webhook best.
    pub hands: usize,
    /// How long what is kept is kept.
    pub retention: Retention,
    /// Makes the sender of a channel configuration.
    pub make_sender: Box<MakeSender>,
}

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    channels: Arc<Driver<ChannelWork>>,
    webhooks: Arc<Driver<WebhookWork>>,
    replays: Arc<Replays>,
    erasures: Arc<Notify>,
    ownership: Arc<Ownership>,
    admission: Arc<Admission>,
    stop: CancellationToken,
    abandon: CancellationToken,
    tasks: TaskTracker,
}

impl Engine {
    /// Takes the shards and starts working: on what is due from before, and on what is hinted.
    pub async fn start(parts: Parts) -> store::Result<Arc<Self>> {
        let Parts { store, network, clock, entropy, tally, hands, retention, make_sender } = parts;
        let owner = OwnerId::new(clock.now(), &*entropy);
        let ownership = Ownership::new(owner, Arc::clone(&store), Arc::clone(&clock));
        ownership.renew().await?;
        let (stop, abandon, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let admission = Arc::<Admission>::default();
        let shared = || {
            Arc::new(Shared {
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
                leases: Arc::clone(&ownership) as Arc<dyn Leases>,
                places: Places::new(STEPS_AT_A_TIME),
                budget: Budget::new(BYTES_IN_MEMORY),
                hands,
                stop: stop.clone(),
                tasks: tasks.clone(),
            })
        };
        let deliver = WebhookWork {
            store: Arc::clone(&store),
            network,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            tally: Arc::clone(&tally),
            abandon: abandon.clone(),
            admission: Arc::clone(&admission),
        };
        let webhooks = Driver::new(Arc::new(deliver), shared());
        let replays = Arc::new(Replays {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            leases: Arc::clone(&ownership) as Arc<dyn Leases>,
            webhooks: Arc::clone(&webhooks),
            stop: stop.clone(),
            tasks: tasks.clone(),
            under_way: Mutex::default(),
            told: Notify::new(),
        });
        let erasures = Arc::<Notify>::default();
        let retaining = Retaining {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            leases: Arc::clone(&ownership) as Arc<dyn Leases>,
            tally: Arc::clone(&tally),
            retention,
            stop: stop.clone(),
        };
        let indexing = Indexing { store: Arc::clone(&store), clock: Arc::clone(&clock), stop: stop.clone() };
        let erasing = |tell| Erasing {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            leases: Arc::clone(&ownership) as Arc<dyn Leases>,
            told: Arc::clone(&erasures),
            tell,
            stop: stop.clone(),
        };
        let send = ChannelWork {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            tally,
            make_sender,
            versions: Versions::default(),
            webhooks: Arc::clone(&webhooks),
            abandon: abandon.clone(),
            admission: Arc::clone(&admission),
        };
        let channels = Driver::new(Arc::new(send), shared());
        tasks.spawn(Arc::clone(&ownership).keep(stop.clone()));
        tasks.spawn(Arc::clone(&channels).poll());
        tasks.spawn(Arc::clone(&webhooks).poll());
        tasks.spawn(Arc::clone(&replays).keep());
        tasks.spawn(retaining.keep());
        tasks.spawn(indexing.keep());
        let (messages, deliveries) = (Arc::clone(&channels), Arc::clone(&webhooks));
        tasks.spawn(erasing(Box::new(move |hint| tell_queues(&messages, &deliveries, hint))).keep());
        Ok(Arc::new(Self { channels, webhooks, replays, erasures, ownership, admission, stop, abandon, tasks }))
    }

    /// Waits until an execution for so many recipients may be taken.
    pub async fn admit(&self, sandbox: SandboxId, recipients: usize) {
        self.admission.admit(sandbox, recipients).await;
    }

    /// Takes nothing new, waits up to `limit` for what is under way, and gives the shards back. True where everything
    /// under way ended in time.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        let drained = tokio::time::timeout(limit, self.tasks.wait()).await.is_ok();
        self.abandon.cancel();
        self.ownership.release().await;
        drained
    }
}

impl Wake for Engine {
    fn hint(&self, hint: Hint) {
        match hint {
            Hint::Replay => self.replays.look(),
            Hint::Erasure => self.erasures.notify_one(),
            hint => tell_queues(&self.channels, &self.webhooks, hint),
        }
    }
}

fn tell_queues(channels: &Arc<Driver<ChannelWork>>, webhooks: &Arc<Driver<WebhookWork>>, hint: Hint) {
    match hint {
        Hint::Messages { channel, due, .. } if due.is_empty() => channels.rows_changed(channel),
        Hint::Messages { channel, due, .. } => channels.rows(channel, due),
        Hint::Deliveries { sandbox, due } if due.is_empty() => webhooks.rows_changed(sandbox),
        Hint::Deliveries { sandbox, due } => webhooks.rows(sandbox, due),
        Hint::Drain(sandbox) => webhooks.drain(sandbox),
        Hint::Webhook(sandbox) => webhooks.changed(sandbox),
        Hint::Channel(channel) => channels.changed(channel),
        Hint::Replay | Hint::Erasure => {}
    }
}
