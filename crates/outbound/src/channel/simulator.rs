//! The simulator: yields the outcome that the address asks for, and sends nothing.
//!
//! | email `…@simulator.esito.test` | SMS | yields |
//! |---|---|---|
//! | `sent` | `+999000001` | sent |
//! | `delivered` | `+999000002` | sent, then delivered |
//! | `bounce` | `+999000003` | sync bounce Hard/10 |
//! | `softbounce` | `+999000004` | sync bounce Soft/22 |
//! | `error` | `+999000005` | error Ignored/25 |
//! | `late-bounce` | `+999000006` | sent, then async bounce Hard/10 |
//! | `delay` | `+999000007` | delay, then sent |
//! | `exclude` | `+999000008` | exclude 050024, for SMS 050153 |
//!
//! A local part may have a tag (`bounce+42@…`), a number further digits. Every other address yields sent.

use super::prepare::{Templates, prepare};
use super::{Gate, Sender, Sent};
use async_trait::async_trait;
use model::clock::Clock;
use model::execution::DueMessage;
use model::outcome::{Exclusion, Failure, FailureCategory, FailureType, Outcome, Verdict};
use model::webhook::Channel;
use std::sync::Arc;
use std::time::Duration;
use store::work::LiveVersion;

/// The domain of the simulator's email addresses.
pub const DOMAIN: &str = "simulator.esito.test";

/// What the simulator's numbers begin with.
pub const NUMBER_PREFIX: &str = "+99900000";

/// How long after the first outcome the second one follows.
const SECOND_AFTER: Duration = Duration::from_millis(300);

/// What an address asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    Sent,
    Delivered,
    Bounce,
    SoftBounce,
    Error,
    LateBounce,
    Delay,
    Exclude,
}

/// In the order of the numbers, from 1.
const BEHAVIORS: [(&str, Behavior); 8] = [
    ("sent", Behavior::Sent),
    ("delivered", Behavior::Delivered),
    ("bounce", Behavior::Bounce),
    ("softbounce", Behavior::SoftBounce),
    ("error", Behavior::Error),
    ("late-bounce", Behavior::LateBounce),
    ("delay", Behavior::Delay),
    ("exclude", Behavior::Exclude),
];

impl Behavior {
    fn of(channel: Channel, address: &str) -> Self {
        let found = match channel {
            Channel::Email => Self::of_email(address),
            Channel::Sms => Self::of_number(address),
        };
        found.unwrap_or(Self::Sent)
    }

    fn of_email(address: &str) -> Option<Self> {
        let (local, domain) = address.rsplit_once('@')?;
        let name = local.split('+').next().unwrap_or(local);
        let known = BEHAVIORS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        known.filter(|_| domain.eq_ignore_ascii_case(DOMAIN)).map(|(_, behavior)| *behavior)
    }

    fn of_number(number: &str) -> Option<Self> {
        let digit = number.strip_prefix(NUMBER_PREFIX)?.chars().next()?.to_digit(10)?;
        let index = usize::try_from(digit).ok()?.checked_sub(1)?;
        BEHAVIORS.get(index).map(|(_, behavior)| *behavior)
    }

    /// What happens at once, and what follows.
    fn verdicts(self, channel: Channel) -> (Verdict, Option<Verdict>) {
        let no_such_user = |category| simulated(category, FailureType::Hard, "10", "550 5.1.1 no such user");
        match self {
            Self::Sent => (Verdict::Sent, None),
            Self::Delivered => (Verdict::Sent, Some(Verdict::Delivered)),
            Self::Bounce => (Verdict::Bounce(no_such_user(FailureCategory::Sync)), None),
            Self::SoftBounce => {
                let full = simulated(FailureCategory::Sync, FailureType::Soft, "22", "552 5.2.2 mailbox full");
                (Verdict::Bounce(full), None)
            }
            Self::Error => (Verdict::Error(Failure::admin("simulated: the relay cannot be used")), None),
            Self::LateBounce => (Verdict::Sent, Some(Verdict::Bounce(no_such_user(FailureCategory::Async)))),
            Self::Delay => (Verdict::Delay, Some(Verdict::Sent)),
            Self::Exclude => {
                let exclusion = match channel {
                    Channel::Email => Exclusion::malformed_email_address("simulated"),
                    Channel::Sms => Exclusion::no_phone_number("simulated"),
                };
                (Verdict::Exclude(exclusion), None)
            }
        }
    }
}

fn simulated(category: FailureCategory, failure_type: FailureType, code: &str, reason: &str) -> Failure {
    Failure { category, failure_type, code: code.to_owned(), reason: format!("{reason} (simulated)") }
}

/// The sender of a channel configuration of type `simulator`.
#[derive(Debug)]
pub struct Simulator {
    templates: Arc<Templates>,
    clock: Arc<dyn Clock>,
}

impl Simulator {
    /// A simulator for either channel.
    pub fn new(templates: Arc<Templates>, clock: Arc<dyn Clock>) -> Self {
        Self { templates, clock }
    }
}

#[async_trait]
impl Sender for Simulator {
    /// Leaves the gate shut: nothing leaves the process, so after a crash everything may be done again.
    async fn send(&self, message: &DueMessage, version: &LiveVersion, _gate: &dyn Gate) -> Sent {
        let now = self.clock.now();
        let prepared = match prepare(message, version, &self.templates, now) {
            Ok(prepared) => prepared,
            Err(sent) => return *sent,
        };
        let channel = version.settings.channel;
        let (first, second) = Behavior::of(channel, prepared.address).verdicts(channel);
        let planned = second.map(|verdict| {
            let at = now + SECOND_AFTER;
            (at, Outcome::new(verdict, at))
        });
        Sent::Decided { outcome: Outcome::new(first, now), planned }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Still, message, version};
    use super::*;
    use model::clock::Timestamp;
    use model::outcome::FeedbackStatus;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    struct Shut;

    #[async_trait]
    impl Gate for Shut {
        async fn open(&self) -> bool {
            panic!("the simulator opened the gate")
        }
    }

    /// The outcomes of a send, as `status type/code`.
    async fn outcomes(channel: Channel, address: &str) -> Vec<String> {
        let simulator = Simulator::new(Arc::default(), Arc::new(Still(NOW)));
        let sent = simulator.send(&message(Some(address)), &version(channel), &Shut).await;
        let Sent::Decided { outcome, planned } = sent else { panic!("{sent:?}") };
        assert_eq!(outcome.occurred_at, NOW);
        let (at, second) = planned.unzip();
        assert!(at.is_none_or(|at| at > NOW && at.since(NOW) < Duration::from_secs(1)));
        let tell = |verdict: &Verdict| match (verdict.failure(), verdict.exclusion()) {
            (Some(f), _) => format!("{} {:?} {:?}/{}", verdict.status().as_str(), f.category, f.failure_type, f.code),
            (_, Some(exclusion)) => format!("exclude {}", exclusion.code),
            _ => verdict.status().as_str().to_owned(),
        };
        std::iter::once(outcome).chain(second).map(|outcome| tell(&outcome.verdict)).collect()
    }

    #[tokio::test]
    async fn each_address_yields_what_it_asks_for() {
        let expected: [&[&str]; 8] = [
            &["sent"],
            &["sent", "delivered"],
            &["bounce Sync Hard/10"],
            &["bounce Sync Soft/22"],
            &["error Sync Ignored/25"],
            &["sent", "bounce Async Hard/10"],
            &["delay", "sent"],
            &["exclude 050024"],
        ];
        for (index, ((name, _), expected)) in BEHAVIORS.into_iter().zip(expected).enumerate() {
            for address in [format!("{name}@{DOMAIN}"), format!("{}+42@Simulator.Esito.Test", name.to_uppercase())] {
                assert_eq!(outcomes(Channel::Email, &address).await, expected, "{address}");
            }
            for number in [format!("{NUMBER_PREFIX}{}", index + 1), format!("{NUMBER_PREFIX}{}0042", index + 1)] {
                let expected: Vec<_> = expected.iter().map(|one| one.replace("050024", "050153")).collect();
                assert_eq!(outcomes(Channel::Sms, &number).await, expected, "{number}");
            }
        }
    }

    #[tokio::test]
    async fn other_addresses_yield_sent() {
        for address in ["bounce@example.com", "jane@simulator.esito.test", "bounces@simulator.esito.test"] {
            assert_eq!(outcomes(Channel::Email, address).await, ["sent"], "{address}");
        }
        for number in ["+999000009", "+999000000", "+99900001", "+39021234567"] {
            assert_eq!(outcomes(Channel::Sms, number).await, ["sent"], "{number}");
        }
        assert_eq!(outcomes(Channel::Email, "no address").await, ["exclude 050024"]);
    }

    #[tokio::test]
    async fn what_does_not_render_is_excluded() {
        let mut version = version(Channel::Email);
        version.settings.content.strict_variables = true;
        version.settings.content.subject = Some("{{context.missing}}".to_owned());
        let simulator = Simulator::new(Arc::default(), Arc::new(Still(NOW)));
        let sent = simulator.send(&message(Some("sent@simulator.esito.test")), &version, &Shut).await;
        let Sent::Decided { outcome, .. } = sent else { panic!("{sent:?}") };
        assert_eq!(outcome.verdict.status(), FeedbackStatus::Exclude);
        assert_eq!(outcome.verdict.exclusion().unwrap().code, "050302");
    }
}
