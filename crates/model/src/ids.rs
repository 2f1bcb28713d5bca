//! Typed ids, all from one registry, so that a delivery's id cannot pass as a campaign's.
//!
//! Resources carry UUIDs of version 7 (RFC 9562 section 5.7). The ids of messages and feedback events are such UUIDs
//! too, but computed: they spell the execution, the recipient's place in it and the event's number. Whoever holds the
//! id can go straight to the row, so no random-key index has to be kept for them on the write path.

use crate::clock::{Entropy, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use uuid::Uuid;

/// A text that is no id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not {1}")]
pub struct BadId(pub String, pub &'static str);

macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, ordered by time.
            pub fn new(now: Timestamp, entropy: &dyn Entropy) -> Self {
                Self(new_uuid(now, entropy))
            }

            /// The 16 bytes that a store keeps.
            pub fn bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }

            /// The id with these 16 bytes.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Uuid::parse_str(text).map(Self).map_err(|_| BadId(text.to_owned(), "a UUID"))
            }
        }
    )*};
}

typed_ids! {
    /// A sandbox of an organization.
    SandboxId,
    /// A feedback webhook.
    WebhookId,
    /// A campaign.
    CampaignId,
    /// One version of a campaign.
    CampaignVersionId,
    /// A channel configuration.
    ChannelConfigurationId,
    /// A message: one recipient of one execution.
    MessageId,
    /// A feedback event; also the id of its webhook delivery and the `webhook-id` of every attempt.
    EventId,
    /// An API key.
    ApiKeyId,
    /// An entry of the audit log.
    AuditId,
    /// A node's name in the ownership of shards.
    OwnerId,
    /// A replay of feedback events.
    ReplayId,
    /// An erasure.
    ErasureId,
}

fn new_uuid(now: Timestamp, entropy: &dyn Entropy) -> Uuid {
    let mut random = [0; 10];
    entropy.fill(&mut random);
    let millis = u64::try_from(now.millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// An execution's id: 41 bits of milliseconds since 2024, 10 bits of node, 12 bits of sequence.
/// Written `HUMA-<digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutionId(i64);

/// 2024-01-01T00:00:00Z, where the milliseconds of an [`ExecutionId`] begin.
const EXECUTION_EPOCH_MS: i64 = 1_704_067_200_000;
const NODE_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 12;

impl ExecutionId {
    /// The number behind the digits.
    pub fn number(self) -> i64 {
        self.0
    }

    /// The id with this number, where it is one.
    pub fn from_number(number: i64) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The smallest id that could have been made at `moment`: for ranges of time.
    pub fn floor_at(moment: Timestamp) -> Self {
        let millis = moment.millis().saturating_sub(EXECUTION_EPOCH_MS).clamp(0, (1 << 41) - 1);
        Self((millis << (NODE_BITS + SEQUENCE_BITS)).max(1))
    }

    /// When the id was made.
    pub fn made_at(self) -> Timestamp {
        Timestamp((self.0 >> (NODE_BITS + SEQUENCE_BITS)) + EXECUTION_EPOCH_MS)
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HUMA-{}", self.0)
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ExecutionId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.to_owned(), "an execution id such as HUMA-1203");
        let digits = text.strip_prefix("HUMA-").ok_or_else(bad)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        digits.parse().ok().and_then(Self::from_number).ok_or_else(bad)
    }
}

impl Serialize for ExecutionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExecutionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for ExecutionId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^HUMA-[0-9]+$")).into()
    }
}
impl utoipa::ToSchema for ExecutionId {}

/// Makes the execution ids of one node: ordered by time, never twice, whatever the clock does.
#[derive(Debug)]
pub struct ExecutionIds {
    node: i64,
    last: AtomicI64,
}

impl ExecutionIds {
    /// Ids of the node with this number (its lowest 10 bits).
    pub fn new(node: u16) -> Self {
        Self { node: i64::from(node) & ((1 << NODE_BITS) - 1), last: AtomicI64::new(0) }
    }

    /// The next id. More than 4,096 in one millisecond, or a clock that steps back, borrow from the next one.
    pub fn next(&self, now: Timestamp) -> ExecutionId {
        let floor = (now.millis() - EXECUTION_EPOCH_MS).max(1) << SEQUENCE_BITS;
        let step = |last: i64| Some(floor.max(last + 1));
        let previous = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        let tick = floor.max(previous.unwrap_or_else(|last| last) + 1);
        let (millis, sequence) = (tick >> SEQUENCE_BITS, tick & ((1 << SEQUENCE_BITS) - 1));
        ExecutionId((millis << (NODE_BITS + SEQUENCE_BITS)) | (self.node << SEQUENCE_BITS) | sequence)
    }
}

/// Where a message's row is: its execution and the recipient's place in it, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    /// The execution.
    pub execution: ExecutionId,
    /// The recipient's place in the execution's list, from 0.
    pub ordinal: u8,
}

/// Where a feedback event's row is: its message and its number among the message's events, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// The message.
    pub message: MessageKey,
    /// The event's number, from 1, in the order recorded.
    pub number: u8,
}

impl MessageKey {
    /// The message's public id.
    pub fn id(self) -> MessageId {
        MessageId(spell(self, 0))
    }
}

impl EventKey {
    /// The event's public id.
    pub fn id(self) -> EventId {
        EventId(spell(self.message, self.number))
    }
}

impl MessageId {
    /// The key that the id spells; none for a UUID that Esito did not make.
    pub fn key(self) -> Option<MessageKey> {
        read(self.0).filter(|(_, number)| *number == 0).map(|(key, _)| key)
    }
}

impl EventId {
    /// The key that the id spells; none for a UUID that Esito did not make.
    pub fn key(self) -> Option<EventKey> {
        let (message, number) = read(self.0).filter(|(_, number)| *number > 0)?;
        Some(EventKey { message, number })
    }
}

/// A version-7 UUID: the execution's milliseconds, its sequence as `rand_a`, and as `rand_b` its node (10 bits),
/// the ordinal (8), the event's number (8) and a 36-bit check that keeps foreign UUIDs out and neighbours apart.
fn spell(key: MessageKey, number: u8) -> Uuid {
    let id = key.execution.number();
    let millis = u128::try_from(key.execution.made_at().millis()).unwrap_or(0);
    let sequence = u128::from(id.unsigned_abs() & 0xfff);
    let node = u128::from((id.unsigned_abs() >> SEQUENCE_BITS) & 0x3ff);
    let check = u128::from(check_of(id, key.ordinal, number));
    let low = (node << 52) | (u128::from(key.ordinal) << 44) | (u128::from(number) << 36) | check;
    Uuid::from_u128((millis << 80) | (0x7 << 76) | (sequence << 64) | (0b10 << 62) | low)
}

fn read(uuid: Uuid) -> Option<(MessageKey, u8)> {
    let bits = uuid.as_u128();
    let byte = |shift: u32| u8::try_from((bits >> shift) & 0xff).ok();
    let part = |shift: u32, mask: u128| i64::try_from((bits >> shift) & mask).ok();
    let millis = part(80, (1 << 48) - 1)?.checked_sub(EXECUTION_EPOCH_MS).filter(|ms| (0..1 << 41).contains(ms))?;
    let number = (millis << (NODE_BITS + SEQUENCE_BITS)) | (part(52, 0x3ff)? << SEQUENCE_BITS) | part(64, 0xfff)?;
    let key = MessageKey { execution: ExecutionId::from_number(number)?, ordinal: byte(44)? };
    let event = byte(36)?;
    (spell(key, event) == uuid).then_some((key, event))
}

/// The finalizer of splitmix64 over the parts: spreads well, and is no secret.
fn check_of(id: i64, ordinal: u8, number: u8) -> u64 {
    let mut x = id.unsigned_abs() ^ (u64::from(ordinal) << 48) ^ (u64::from(number) << 56);
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) & ((1 << 36) - 1)
}

/// How many shards the work is divided into.
pub const SHARDS: u16 = 256;

/// The part of the work that one owner holds: all of a sandbox's messages and deliveries lie in one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of a sandbox (FNV-1a over organization and sandbox id, modulo [`SHARDS`]). Must never change: rows are
    /// found by it.
    pub fn of(organization: &str, sandbox: SandboxId) -> Self {
        let bytes = organization.bytes().chain(sandbox.0.as_bytes().iter().copied());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(u16::try_from(hash % u64::from(SHARDS)).expect("a remainder of 256 fits 16 bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn message_and_event_ids_read_back(millis in 1_704_067_200_001_i64..3_000_000_000_000, node: u16, ordinal: u8, number in 1_u8..) {
            let execution = ExecutionIds::new(node).next(Timestamp(millis));
            let message = MessageKey { execution, ordinal };
            let event = EventKey { message, number };
            prop_assert_eq!(message.id().key(), Some(message));
            prop_assert_eq!(event.id().key(), Some(event));
            prop_assert_eq!(event.id().0.get_version_num(), 7);
            prop_assert_eq!(MessageId(event.id().0).key(), None);
            prop_assert_eq!(execution.to_string().parse::<ExecutionId>().unwrap(), execution);
            prop_assert_eq!(execution.made_at(), Timestamp(millis));
        }

        #[test]
        fn foreign_uuids_are_not_ours(bits: u128) {
            prop_assert_eq!(EventId(Uuid::from_u128(bits)).key(), None);
        }

        #[test]
        fn execution_ids_rise_whatever_the_clock_does(steps in proptest::collection::vec(-3_i64..3, 1..500)) {
            let ids = ExecutionIds::new(7);
            let mut now = 1_800_000_000_000;
            let mut last = 0;
            for step in steps {
                now += step;
                let id = ids.next(Timestamp(now)).number();
                prop_assert!(id > last);
                last = id;
            }
        }
    }

    #[test]
    fn shards_stay_where_they_are() {
        let sandbox = SandboxId(Uuid::from_u128(0x3e1b_6a0e_7d0a_4a55_9a0e_6a2f_5b9d_1c11));
        assert_eq!(Shard::of("acme@EsitoOrg", sandbox), Shard::of("acme@EsitoOrg", sandbox));
        assert!(Shard::of("acme@EsitoOrg", sandbox).0 < SHARDS);
    }
}
