//! The relay behind the channel configurations of type `smtp`: takes messages, refuses some, and counts.

use crate::ledger::{Opening, ProcessState};
use crate::world::World;
use async_trait::async_trait;
use model::channel::{ChannelConfiguration, ChannelType};
use model::clock::{Clock, Timestamp};
use model::execution::DueMessage;
use model::ids::MessageKey;
use model::message::MessageState;
use model::outcome::{Failure, FailureCategory, FailureType, Outcome, Verdict};
use outbound::channel::simulator::Simulator;
use outbound::channel::work::MakeSender;
use outbound::channel::{Gate, Sender, Sent, Templates};
use std::sync::Arc;
use store::work::LiveVersion;

/// Makes the senders of a process.
pub fn make_sender(world: &Arc<World>, process: &Arc<ProcessState>, clock: &Arc<dyn Clock>) -> Box<MakeSender> {
    let (world, process, clock) = (Arc::clone(world), Arc::clone(process), Arc::clone(clock));
    let templates = Arc::new(Templates::default());
    Box::new(move |configuration: &ChannelConfiguration| -> Arc<dyn Sender> {
        if configuration.settings.kind == ChannelType::Simulator {
            return Arc::new(Simulator::new(Arc::clone(&templates), Arc::clone(&clock)));
        }
        let sandbox = world.tenants().iter().position(|tenant| tenant.sandbox == configuration.sandbox);
        Arc::new(Relay { world: Arc::clone(&world), process: Arc::clone(&process), sandbox: sandbox.unwrap_or(0) })
    })
}

#[derive(Debug)]
struct Relay {
    world: Arc<World>,
    process: Arc<ProcessState>,
    sandbox: usize,
}

/// What the relay says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Not now.
    NotNow,
    /// Never.
    Never,
    /// It takes it.
    Yes,
}

impl Relay {
    async fn take_time(&self, least: u64, most: u64) {
        self.world.step();
        self.process.stand.pass().await;
        tokio::time::sleep(self.world.throw(|dice| dice.millis(least, most))).await;
        self.process.stand.pass().await;
    }

    fn says(&self) -> Says {
        let trouble = self.world.plan.sandboxes.get(self.sandbox).map_or(0.0, |plan| plan.relay_trouble);
        let trouble = if self.world.is_calm() { 0.0 } else { trouble };
        self.world.throw(|dice| match dice.chance(trouble) {
            false if dice.chance(0.05) => Says::Never,
            false => Says::Yes,
            true if dice.chance(0.2) => Says::Never,
            true => Says::NotNow,
        })
    }

    fn sent(&self, says: Says) -> Sent {
        let now = self.world.now();
        match says {
            Says::Yes => Sent::decided(Verdict::Sent, now),
            Says::Never => Sent::decided(Verdict::Bounce(refusal(FailureType::Hard)), now),
            Says::NotNow => Sent::Later {
                delay: Outcome::new(Verdict::Delay, now),
                at_the_end: Verdict::Bounce(refusal(FailureType::Soft)),
            },
        }
    }

    /// The gate has opened: what must be true now. Returns the opening's place among those of its message.
    async fn check_opening(&self, message: &DueMessage, began: Timestamp) -> usize {
        let key = message.key;
        let (unresolved, place) = self.world.ledger(|ledger| {
            let openings = ledger.openings.entry(key).or_default();
            openings.push(Opening { is_resolved: false });
            (openings.iter().rev().skip(1).take_while(|one| !one.is_resolved).count(), openings.len() - 1)
        });
        // Whoever stands still right after the mark comes late: others have found the mark and did what follows.
        let stood = self.process.stand.stood_since(began);
        if unresolved > 0 && !message.may_have_been_sent && !stood {
            self.world.violation(format!("{} is handed over again, and nobody knows that it was", shown(key)));
        }
        let upsets = self.world.ledger(|ledger| ledger.upsets);
        if u32::try_from(unresolved).unwrap_or(u32::MAX) > upsets {
            self.world.violation(format!("{} was handed over {unresolved} times before", shown(key)));
        }
        let (Some(store), Some(tenant)) = (self.world.truth(), self.world.tenants().get(self.sandbox)) else {
            return place;
        };
        let state = store.message(tenant.sandbox, key).await.map(|view| view.state);
        if !stood && !matches!(state, Ok(MessageState::HandingOver)) {
            self.world.violation(format!("{} is sent though it is {state:?}", shown(key)));
        }
        place
    }
}

/// A message, short enough for a trace.
pub fn shown(key: MessageKey) -> String {
    format!("{}/{}", key.execution, key.ordinal)
}

fn refusal(failure_type: FailureType) -> Failure {
    Failure { category: FailureCategory::Sync, failure_type, code: "20".to_owned(), reason: "refused".to_owned() }
}

#[async_trait]
impl Sender for Relay {
    async fn send(&self, message: &DueMessage, _version: &LiveVersion, gate: &dyn Gate) -> Sent {
        let (key, number) = (message.key, self.process.number);
        let now = self.world.now();
        let paused = self.world.ledger(|ledger| ledger.channels_paused.get(&self.sandbox).copied());
        let stood = self.process.stand.stood_since(now);
        if !stood && paused.is_some_and(|paused| now > paused + crate::arrival::SLACK) {
            self.world.violation(format!("{} is sent though sending is paused", shown(key)));
        }
        self.take_time(0, 60).await;
        let before = self.says();
        if before != Says::Yes && self.world.throw(|dice| dice.chance(0.7)) {
            self.world.note(format_args!("relay p{number} {} {before:?} before", shown(key)));
            return self.sent(before);
        }
        if !gate.open().await {
            self.world.note(format_args!("relay p{number} {} withheld", shown(key)));
            return Sent::Withheld;
        }
        let place = self.check_opening(message, now).await;
        self.take_time(0, 200).await;
        self.world.note(format_args!("relay p{number} {} {before:?} after", shown(key)));
        self.world.ledger(|ledger| match before {
            Says::Yes => *ledger.mailed.entry(key).or_default() += 1,
            _ => {
                if let Some(opening) = ledger.openings.get_mut(&key).and_then(|all| all.get_mut(place)) {
                    opening.is_resolved = true;
                }
            }
        });
        self.take_time(0, 60).await;
        self.sent(before)
    }
}
