//! A sender with everything it needs.

use super::relay::Relay;
use async_trait::async_trait;
use model::campaign::{Audience, CampaignSettings, Category, Content, Schedule};
use model::channel::{ChannelSettings, ChannelType, Mailbox, SmtpSettings, SmtpTls};
use model::clock::{Clock, Timestamp};
use model::execution::{DueMessage, ExecutionFacts, Priority, Recipient};
use model::ids::{ApiKeyId, CampaignId, CampaignVersionId, ChannelConfigurationId, ExecutionId, MessageKey};
use model::outcome::Outcome;
use model::secret::Secret;
use model::webhook::Channel;
use outbound::channel::email::SmtpSender;
use outbound::channel::{Gate, Sender, Sent};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use store::work::LiveVersion;
use tokio::sync::{Barrier, Notify};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
}

/// A gate that counts, and may look around, wait or stay shut.
#[derive(Clone, Default)]
pub struct Door(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_shut: bool,
    opened: AtomicUsize,
    look: Option<Box<dyn Fn() + Send + Sync>>,
    meeting: Option<Arc<Barrier>>,
    reached: Notify,
}

impl Door {
    pub fn shut() -> Self {
        Self(Arc::new(Inner { is_shut: true, ..Inner::default() }))
    }

    pub fn looking(look: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { look: Some(Box::new(look)), ..Inner::default() }))
    }

    pub fn meeting(barrier: Arc<Barrier>) -> Self {
        Self(Arc::new(Inner { meeting: Some(barrier), ..Inner::default() }))
    }

    pub fn opened(&self) -> usize {
        self.0.opened.load(Ordering::SeqCst)
    }

    /// Waits until someone stands before it.
    pub async fn reached(&self) {
        self.0.reached.notified().await;
    }
}

#[async_trait]
impl Gate for Door {
    async fn open(&self) -> bool {
        self.0.reached.notify_one();
        if let Some(look) = &self.0.look {
            look();
        }
        if let Some(barrier) = &self.0.meeting {
            barrier.wait().await;
        }
        self.0.opened.fetch_add(1, Ordering::SeqCst);
        !self.0.is_shut
    }
}

/// Settings for a relay, and the one sender that is made from them.
#[derive(Clone)]
pub struct Setup {
    pub version: LiveVersion,
    pub door: Door,
    settings: ChannelSettings,
    trusted: Vec<CertificateDer<'static>>,
    sender: OnceLock<Arc<SmtpSender>>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.settings)
    }
}

impl Setup {
    pub fn new(relay: &Relay) -> Self {
        let smtp = SmtpSettings {
            host: relay.address.ip().to_string(),
            port: relay.address.port(),
            tls: SmtpTls::None,
            username: None,
            password: None,
            max_connections: 2,
        };
        let settings = ChannelSettings {
            name: "mail".to_owned(),
            channel: Channel::Email,
            kind: ChannelType::Smtp,
            smtp: Some(smtp),
            from: Some(Mailbox { name: Some("Acme".to_owned()), address: "orders@acme.example".to_owned() }),
            reply_to: None,
            retry_hours: 1.0,
            max_per_second: None,
        };
        let trusted = vec![relay.certificate.clone()];
        Self { version: version(), door: Door::default(), settings, trusted, sender: OnceLock::new() }
    }

    fn changed(mut self, change: impl FnOnce(&mut SmtpSettings)) -> Self {
        change(self.settings.smtp.as_mut().unwrap());
        self.sender = OnceLock::new();
        self
    }

    pub fn with_tls(self, tls: SmtpTls) -> Self {
        self.changed(|smtp| smtp.tls = tls)
    }

    pub fn with_login(self, username: &str, password: &str) -> Self {
        self.changed(|smtp| {
            smtp.username = Some(username.to_owned());
            smtp.password = Some(Secret::new(password));
        })
    }

    pub fn with_connections(self, connections: u32) -> Self {
        self.changed(|smtp| smtp.max_connections = connections)
    }

    pub fn at_host(self, host: &str) -> Self {
        self.changed(|smtp| smtp.host = host.to_owned())
    }

    pub fn trusting_nobody(mut self) -> Self {
        self.trusted.clear();
        self.changed(|_| ())
    }

    pub fn with_door(mut self, door: Door) -> Self {
        self.door = door;
        self
    }

    pub fn sender(&self) -> Arc<SmtpSender> {
        let make = || {
            let tls = outbound::tls::client_config(&self.trusted);
            Arc::new(SmtpSender::new(&self.settings, Arc::default(), Arc::new(Still), tls).unwrap())
        };
        self.sender.get_or_init(make).clone()
    }

    pub async fn send(&self, message: &DueMessage) -> Sent {
        self.sender().send(message, &self.version, &self.door).await
    }
}

/// The outcome of a send that was decided.
pub fn outcome_of(sent: Sent) -> Outcome {
    match sent {
        Sent::Decided { outcome, planned: None } => outcome,
        other => panic!("{other:?}"),
    }
}

/// The delay of a send that was put off.
pub fn delay_of(sent: &Sent) -> &Outcome {
    match sent {
        Sent::Later { delay, .. } => delay,
        other => panic!("{other:?}"),
    }
}

fn version() -> LiveVersion {
    LiveVersion {
        id: CampaignVersionId(Uuid::from_u128(2)),
        campaign: CampaignId(Uuid::from_u128(3)),
        settings: CampaignSettings {
            name: "welcome".to_owned(),
            channel: Channel::Email,
            category: Category::Transactional,
            channel_configuration_id: ChannelConfigurationId(Uuid::from_u128(4)),
            content: Content {
                subject: Some("Hello".to_owned()),
                text: Some("Hello there".to_owned()),
                ..Content::default()
            },
            audience: Audience::default(),
            high_throughput_mode: false,
            schedule: Schedule::default(),
        },
    }
}

/// One of an execution's messages.
pub fn message(ordinal: u8) -> DueMessage {
    message_to(ordinal, Some("jane+tag@example.com"))
}

/// One of an execution's messages, to an address.
pub fn message_to(ordinal: u8, address: Option<&str>) -> DueMessage {
    let id = ExecutionId::floor_at(NOW);
    DueMessage {
        key: MessageKey { execution: id, ordinal },
        execution: Arc::new(ExecutionFacts {
            id,
            request_id: "r".to_owned(),
            campaign: CampaignId(Uuid::from_u128(3)),
            version: CampaignVersionId(Uuid::from_u128(2)),
            channel: Channel::Email,
            priority: Priority::Unitary,
            expires_at: None,
            created_at: NOW,
            created_by: "test".to_owned(),
            created_by_key: ApiKeyId(Uuid::from_u128(5)),
        }),
        recipient: Arc::new(Recipient {
            user_id: "jane".to_owned(),
            namespace: "crm".to_owned(),
            address: address.map(str::to_owned),
        }),
        personalization: None,
        failures: 0,
        first_due: NOW,
        due_at: NOW,
        may_have_been_sent: false,
        delayed: false,
        planned: None,
    }
}
