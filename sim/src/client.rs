//! Callers and operators: they do what the plan says, and ask again where they get no answer.

use crate::plan::Action;
use crate::process::Process;
use crate::rng::Rng;
use crate::setup::{audit, webhook};
use crate::world::{START, Tenant, World, lock};
use model::clock::Timestamp;
use model::execution::{Personalization, Priority};
use model::ids::{ExecutionIds, MessageKey, ReplayId};
use model::replay::{Replay, ReplayFilter, ReplayProgress, ReplaySettings, ReplayState};
use model::webhook::{Stamps, Webhook};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::admin::Edit;
use store::lookup::{DeliveryFilter, EventFilter, EventView, Page};
use store::wake::{Hint, Wake};
use store::work::{NewExecution, NewRecipient};
use store::{Conflict, StoreError};

/// Whoever gets no answer asks again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Later than any run.
const FAR: Timestamp = Timestamp(4_000_000_000_000);

/// What the simulator's addresses begin with.
pub const BEHAVIORS: [&str; 8] =
    ["sent", "delivered", "bounce", "softbounce", "error", "late-bounce", "delay", "exclude"];

/// Those who use the program.
#[derive(Debug)]
pub struct Client {
    world: Arc<World>,
    ids: ExecutionIds,
    /// How many actions are done.
    done: AtomicUsize,
    processes: Mutex<Vec<Process>>,
}

impl Client {
    /// Nothing is done yet.
    pub fn new(world: Arc<World>) -> Self {
        Self { world, ids: ExecutionIds::new(1), done: AtomicUsize::new(0), processes: Mutex::default() }
    }

    /// Another process can be used.
    pub fn add(&self, process: Process) {
        lock(&self.processes).push(process);
    }

    /// All processes are gone.
    pub fn forget_processes(&self) {
        lock(&self.processes).clear();
    }

    /// The processes.
    pub fn processes(&self) -> Vec<Process> {
        lock(&self.processes).clone()
    }

    /// One that answers.
    fn process(&self) -> Option<Process> {
        self.processes().into_iter().find(|process| !process.state.stand.is_frozen())
    }

    fn hint(&self, hint: &Hint) {
        if let Hint::Webhook(sandbox) | Hint::Drain(sandbox) = hint {
            let place = self.world.tenants().iter().position(|tenant| tenant.sandbox == *sandbox);
            let now = self.world.now();
            self.world.ledger(|ledger| place.map(|place| ledger.told.insert(place, now)));
        }
        self.processes().iter().for_each(|process| process.engine.hint(hint.clone()));
    }

    /// Does what is planned, each at its time, until all is done.
    pub async fn act(&self) {
        loop {
            let place = self.done.load(Ordering::Relaxed);
            let Some((at, action)) = self.world.plan.actions.get(place).copied() else { return };
            let wait = at.saturating_sub(self.world.elapsed());
            tokio::time::sleep(wait).await;
            self.insist(place, action).await;
            self.done.store(place + 1, Ordering::Relaxed);
        }
    }

    /// Does something, however often it takes.
    pub async fn insist(&self, place: usize, action: Action) {
        for _ in 0..60 {
            if let Some(process) = self.process()
                && self.try_to(&process, place, action).await
            {
                self.world.note(format_args!("done {action:?}"));
                return;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        self.world.note(format_args!("given up {action:?}"));
    }

    async fn try_to(&self, process: &Process, place: usize, action: Action) -> bool {
        match action {
            Action::Execute { .. } => self.execute(process, place, action).await,
            Action::Pause(sandbox) => {
                // From the question to the answer either is right.
                self.world.ledger(|ledger| ledger.hold_asked.insert(sandbox, FAR));
                let done = self.edit_webhook(process, sandbox, |webhook| webhook.control.paused = true).await;
                if done {
                    let now = self.world.now();
                    let is_held = self.is_held(sandbox).await;
                    self.world.ledger(|ledger| {
                        ledger.hold_asked.insert(sandbox, now);
                        if is_held {
                            ledger.begin_hold(sandbox, now);
                        }
                    });
                }
                done
            }
            Action::Resume(sandbox) => {
                let now = self.world.now();
                self.world.ledger(|ledger| ledger.end_hold(sandbox, now));
                let resume = |webhook: &mut Webhook| {
                    webhook.control.paused = false;
                    webhook.control.gone_at = None;
                };
                self.edit_webhook(process, sandbox, resume).await
            }
            Action::Delete(sandbox) => self.delete(process, sandbox).await,
            Action::Create(number) => self.create(process, number).await,
            Action::Cancel(sandbox) => self.cancel(process, sandbox).await,
            Action::Retry(sandbox) => self.retry(process, sandbox).await,
            Action::Replay(sandbox) => self.replay(process, sandbox).await,
            Action::Drain(sandbox) => self.drain(process, sandbox).await,
            Action::PauseChannels(sandbox) => self.pause_channels(process, sandbox, true).await,
            Action::ResumeChannels(sandbox) => self.pause_channels(process, sandbox, false).await,
        }
    }

    fn tenant(&self, sandbox: usize) -> &Tenant {
        &self.world.tenants()[sandbox]
    }

    async fn execute(&self, process: &Process, place: usize, action: Action) -> bool {
        let Action::Execute { sandbox, relay, recipients, high, expires, twice } = action else { return true };
        let tenant = self.tenant(sandbox);
        let now = self.world.now();
        let addresses = addresses(place, relay, recipients);
        let recipient = |address: &String| NewRecipient {
            user_id: address.clone(),
            namespace: "email".to_owned(),
            email: Some(address.clone()),
            phone: None,
            personalization: Personalization::default(),
        };
        let new = NewExecution {
            id: self.ids.next(now),
            sandbox: tenant.sandbox,
            request_id: format!("r{place}"),
            campaign: tenant.campaigns[usize::from(relay)],
            body_digest: [u8::try_from(place % 200).unwrap_or(0); 16],
            priority: if high { Priority::HighThroughput } else { Priority::Unitary },
            expires_at: expires.map(|after| START + self.world.plan.actions[place].0 + after),
            now,
            created_by: "key".to_owned(),
            created_by_key: tenant.key,
            recipients: addresses.iter().map(recipient).collect(),
        };
        let execution = crate::ledger::Execution {
            sandbox,
            request_id: new.request_id.clone(),
            addresses,
            expires: expires.is_some(),
        };
        if !self.accept(process, new.clone(), &execution).await {
            return false;
        }
        // A caller that lost the answer sends the same again, under a new number.
        !twice || self.accept(process, NewExecution { id: self.ids.next(now), ..new }, &execution).await
    }

    async fn accept(&self, process: &Process, new: NewExecution, execution: &crate::ledger::Execution) -> bool {
        let sandbox = new.sandbox;
        let accepted = match process.ask(process.store.accept(new)).await {
            Some(Ok(Ok(accepted))) => accepted,
            Some(Ok(Err(refusal))) => {
                self.world.violation(format!("{} is refused: {refusal}", execution.request_id));
                return true;
            }
            _ => return false,
        };
        let first = self.world.ledger(|ledger| {
            ledger.executions.insert(accepted.id, execution.clone());
            *ledger.requests.entry(execution.request_id.clone()).or_insert(accepted.id)
        });
        if first != accepted.id {
            self.world.violation(format!("{} is {first} and {} at once", execution.request_id, accepted.id));
        }
        let lost = self.world.plan.hints_lost;
        if let Some((channel, due)) = accepted.work
            && !self.world.throw(|dice| dice.chance(lost))
        {
            self.hint(&Hint::Messages { sandbox, channel, due });
        }
        true
    }

    async fn edit_webhook(&self, process: &Process, sandbox: usize, edit: impl Fn(&mut Webhook)) -> bool {
        let tenant = self.tenant(sandbox);
        let mut webhook = match process.ask(process.store.webhook_of(tenant.sandbox)).await {
            Some(Ok(Some(webhook))) => webhook,
            Some(Ok(None)) => return true,
            _ => return false,
        };
        let now = self.world.now();
        edit(&mut webhook);
        webhook.stamps.touch(now, "sim");
        webhook.note_hold(now);
        let updated = process.ask(process.store.update_webhook(webhook, audit(&self.world, "webhook"))).await;
        if !matches!(updated, Some(Ok(()))) {
            return false;
        }
        self.hint(&Hint::Webhook(tenant.sandbox));
        true
    }

    /// Whether the sandbox's webhook is held.
    pub async fn is_held(&self, sandbox: usize) -> bool {
        self.webhook(sandbox).await.is_some_and(|webhook| webhook.is_held())
    }

    /// Whether the endpoint of the sandbox's webhook has said that it is gone.
    pub async fn is_gone(&self, sandbox: usize) -> bool {
        self.webhook(sandbox).await.is_some_and(|webhook| webhook.control.gone_at.is_some())
    }

    /// The sandbox's webhook as the store has it.
    async fn webhook(&self, sandbox: usize) -> Option<Webhook> {
        let store = self.world.truth()?;
        store.webhook_of(self.tenant(sandbox).sandbox).await.ok()?
    }

    async fn delete(&self, process: &Process, sandbox: usize) -> bool {
        let tenant = self.tenant(sandbox);
        let webhook = match process.ask(process.store.webhook_of(tenant.sandbox)).await {
            Some(Ok(Some(webhook))) => webhook,
            Some(Ok(None)) => return true,
            _ => return false,
        };
        let (number, now) = (number_of(&webhook), self.world.now());
        self.world.ledger(|ledger| {
            ledger.webhooks[number].end_asked.get_or_insert(now);
            ledger.end_hold(sandbox, now);
        });
        let edit = Edit { sandbox: tenant.sandbox, id: webhook.id, seen_revision: None };
        let deleted = process.store.delete_webhook(edit, now, audit(&self.world, "webhook"));
        if !matches!(process.ask(deleted).await, Some(Ok(()))) {
            return false;
        }
        self.hint(&Hint::Webhook(tenant.sandbox));
        let now = self.world.now();
        self.world.ledger(|ledger| *ledger.webhooks[number].ended.get_or_insert(now));
        true
    }

    async fn create(&self, process: &Process, number: usize) -> bool {
        let plan = &self.world.plan.webhooks[number];
        let tenant = self.tenant(plan.sandbox);
        let now = self.world.now();
        self.world.ledger(|ledger| *ledger.webhooks[number].asked.get_or_insert(now));
        let Ok(webhook) = webhook(&self.world, plan, now) else { return true };
        match process.ask(process.store.create_webhook(webhook, audit(&self.world, "webhook"))).await {
            Some(Ok(())) => {}
            Some(Err(StoreError::Conflict(Conflict::WebhookExists { .. }))) => {
                let present = process.ask(process.store.webhook_of(tenant.sandbox)).await;
                let Some(Ok(Some(present))) = present else { return false };
                if number_of(&present) != number {
                    // Another one was made first: this one never comes to be.
                    return true;
                }
            }
            _ => return false,
        }
        self.hint(&Hint::Webhook(tenant.sandbox));
        let now = self.world.now();
        self.world.ledger(|ledger| *ledger.webhooks[number].made.get_or_insert(now));
        true
    }

    /// Any delivery of the sandbox that `wanted` picks.
    async fn any_delivery(&self, sandbox: usize, wanted: impl Fn(&EventView) -> bool) -> Option<EventView> {
        let event = EventFilter::of(self.tenant(sandbox).sandbox);
        let page = Page { limit: 200, cursor: None };
        let listed = self.world.truth()?.deliveries(DeliveryFilter { event, state: None }, page).await.ok()?;
        let found: Vec<_> = listed.items.into_iter().filter(wanted).collect();
        let place = self.world.throw(|dice| dice.place(found.len()));
        found.into_iter().nth(place)
    }

    async fn cancel(&self, process: &Process, sandbox: usize) -> bool {
        let is_open = |view: &EventView| view.delivery.as_ref().is_some_and(|one| one.ended_at.is_none());
        let Some(view) = self.any_delivery(sandbox, is_open).await else { return true };
        let id = view.event.key.id();
        self.world.note(format_args!("cancels {}", crate::arrival::shown(Some(view.event.key))));
        self.world.ledger(|ledger| ledger.cancel_asked.insert(id));
        let tenant = self.tenant(sandbox);
        let cancelled =
            process.store.cancel_delivery(tenant.sandbox, id, self.world.now(), audit(&self.world, "delivery"));
        let answer = process.ask(cancelled).await;
        self.hint(&Hint::Deliveries { sandbox: tenant.sandbox, due: Vec::new() });
        matches!(answer, Some(Ok(_) | Err(StoreError::Conflict(_))))
    }

    async fn retry(&self, process: &Process, sandbox: usize) -> bool {
        let Some(view) = self.any_delivery(sandbox, |_| true).await else { return true };
        let key: MessageKey = view.event.key.message;
        self.world.note(format_args!("retries {}", crate::arrival::shown(Some(view.event.key))));
        self.world.ledger(|ledger| ledger.retried.insert(key));
        let tenant = self.tenant(sandbox);
        let id = view.event.key.id();
        let retried =
            process.store.retry_delivery(tenant.sandbox, id, self.world.now(), audit(&self.world, "delivery"));
        let answer = process.ask(retried).await;
        self.hint(&Hint::Deliveries { sandbox: tenant.sandbox, due: Vec::new() });
        matches!(answer, Some(Ok(_) | Err(StoreError::Conflict(_))))
    }

    /// Replays everything. Where another replay runs, or there is no webhook, there is nothing to do.
    async fn replay(&self, process: &Process, sandbox: usize) -> bool {
        let tenant = self.tenant(sandbox);
        let now = self.world.now();
        let replay = Replay {
            id: ReplayId::new(now, &*self.world.entropy),
            sandbox: tenant.sandbox,
            settings: ReplaySettings { filter: ReplayFilter::default(), per_second: 50 },
            state: ReplayState::Running,
            reason: None,
            progress: ReplayProgress::default(),
            ended_at: None,
            stamps: Stamps::new(now, "sim"),
        };
        // An event that has ended may come again, at once and in whatever turn it then has.
        self.world.ledger(|ledger| ledger.replayed.insert(sandbox));
        let created = process.store.create_replay(replay, audit(&self.world, "replay"));
        let answer = process.ask(created).await;
        self.hint(&Hint::Replay);
        matches!(answer, Some(Ok(_) | Err(StoreError::Conflict(_))))
    }

    async fn drain(&self, process: &Process, sandbox: usize) -> bool {
        let tenant = self.tenant(sandbox);
        self.world.ledger(|ledger| ledger.drained.insert(sandbox));
        let drained = process.store.drain_webhook(tenant.sandbox, self.world.now(), audit(&self.world, "webhook"));
        let answer = process.ask(drained).await;
        self.hint(&Hint::Drain(tenant.sandbox));
        matches!(answer, Some(Ok(_)))
    }

    async fn pause_channels(&self, process: &Process, sandbox: usize, paused: bool) -> bool {
        let tenant = self.tenant(sandbox);
        self.world.ledger(|ledger| match paused {
            true => drop(ledger.channels_pause_asked.insert(sandbox)),
            false => drop(ledger.channels_paused.remove(&sandbox)),
        });
        for id in tenant.channels {
            let Some(Ok(mut channel)) = process.ask(process.store.channel(tenant.sandbox, id)).await else {
                return false;
            };
            channel.paused = paused;
            channel.stamps.touch(self.world.now(), "sim");
            let updated = process.store.update_channel(channel, audit(&self.world, "channel"));
            if !matches!(process.ask(updated).await, Some(Ok(()))) {
                return false;
            }
            self.hint(&Hint::Channel(id));
        }
        let now = self.world.now();
        self.world.ledger(|ledger| match paused {
            true => drop(ledger.channels_paused.insert(sandbox, now)),
            false => drop(ledger.channels_pause_asked.remove(&sandbox)),
        });
        true
    }
}

/// The number of a webhook, by its URL.
pub fn number_of(webhook: &Webhook) -> usize {
    webhook.settings.url.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// To whom an execution goes: the same whenever it is asked for.
fn addresses(place: usize, relay: bool, recipients: usize) -> Vec<String> {
    let mut rng = Rng::new(place as u64);
    let mut address = |number: usize| match relay {
        true => format!("r{place}-{number}@example.com"),
        false => format!("{}+{place}-{number}@simulator.esito.test", rng.pick(&BEHAVIORS)),
    };
    (0..recipients).map(&mut address).collect()
}
