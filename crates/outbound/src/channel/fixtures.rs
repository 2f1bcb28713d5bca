//! Messages and versions for tests.

use model::campaign::{Audience, CampaignSettings, Category, Content, Schedule};
use model::clock::{Clock, Timestamp};
use model::execution::{DueMessage, ExecutionFacts, Priority, Recipient};
use model::ids::{ApiKeyId, CampaignId, CampaignVersionId, ChannelConfigurationId, ExecutionId, MessageKey};
use model::webhook::Channel;
use std::sync::Arc;
use store::work::LiveVersion;
use uuid::Uuid;

/// A clock that stands still.
#[derive(Debug)]
pub(crate) struct Still(pub Timestamp);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// A campaign version whose text says hello.
pub(crate) fn version(channel: Channel) -> LiveVersion {
    let email = channel == Channel::Email;
    LiveVersion {
        id: CampaignVersionId(Uuid::from_u128(2)),
        campaign: CampaignId(Uuid::from_u128(3)),
        settings: CampaignSettings {
            name: "welcome".to_owned(),
            channel,
            category: Category::Transactional,
            channel_configuration_id: ChannelConfigurationId(Uuid::from_u128(4)),
            content: Content {
                subject: email.then(|| "Hello".to_owned()),
                text: Some("Hello there".to_owned()),
                ..Content::default()
            },
            audience: Audience::default(),
            high_throughput_mode: false,
            schedule: Schedule::default(),
        },
    }
}

/// A message to an address.
pub(crate) fn message(address: Option<&str>) -> DueMessage {
    let id = ExecutionId::floor_at(Timestamp(1_800_000_000_000));
    DueMessage {
        key: MessageKey { execution: id, ordinal: 0 },
        execution: Arc::new(ExecutionFacts {
            id,
            request_id: "r".to_owned(),
            campaign: CampaignId(Uuid::from_u128(3)),
            version: CampaignVersionId(Uuid::from_u128(2)),
            channel: Channel::Email,
            priority: Priority::Unitary,
            expires_at: None,
            created_at: Timestamp(0),
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
        first_due: Timestamp(0),
        due_at: Timestamp(0),
        may_have_been_sent: false,
        delayed: false,
        planned: None,
    }
}
