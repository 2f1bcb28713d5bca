//! Values that the cases have in common.

use crate::lookup::Page;
use crate::work::{NewRecipient, What};
use crate::{Conflict, Result, StoreError};
use model::clock::{Entropy, Timestamp};
use model::execution::Personalization;
use model::ids::{ApiKeyId, AuditId, SHARDS, SandboxId, Shard};
use model::outcome::{Exclusion, Failure, FailureCategory, FailureType, Outcome, Verdict};
use model::tenancy::{ApiKey, AuditEntry, Organization, Role, Sandbox};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When every case begins.
pub const START: Timestamp = Timestamp(1_800_000_000_000);

/// The organization of the cases.
pub const ACME: &str = "acme@EsitoOrg";

/// The moment so many seconds after [`START`].
pub fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

/// Bytes that look random and are the same in every run (splitmix64).
#[derive(Debug, Default)]
pub struct Seeded(AtomicU64);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(x ^ (x >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The first page with so many items.
pub fn page(limit: usize) -> Page {
    Page { limit, cursor: None }
}

pub fn all_shards() -> Vec<Shard> {
    (0..SHARDS).map(Shard).collect()
}

pub fn new_organization(id: &str) -> Organization {
    Organization {
        id: id.to_owned(),
        name: id.to_owned(),
        retention: Default::default(),
        created_at: START,
        created_by: "esito".to_owned(),
    }
}

pub fn new_sandbox(entropy: &Seeded, name: &str) -> Sandbox {
    Sandbox {
        id: SandboxId::new(START, entropy),
        ims_org: ACME.to_owned(),
        name: name.to_owned(),
        created_at: START,
        created_by: "esito".to_owned(),
    }
}

pub fn new_key(entropy: &Seeded, name: &str) -> ApiKey {
    ApiKey {
        id: ApiKeyId::new(START, entropy),
        ims_org: ACME.to_owned(),
        role: Role::Sender,
        name: name.to_owned(),
        sandboxes: None,
        expires_at: None,
        revoked_at: None,
        created_at: START,
        created_by: "esito".to_owned(),
    }
}

pub fn audit(entropy: &Seeded, action: &str) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(START, entropy),
        ims_org: ACME.to_owned(),
        sandbox: None,
        at: START,
        actor: "ops".to_owned(),
        action: action.to_owned(),
        resource: "r".to_owned(),
        detail: json!({"name": "n"}),
    }
}

/// A recipient by name, with an email address, a number and a one-time code.
pub fn recipient(name: &str) -> NewRecipient {
    let raw = |value: Value| Some(serde_json::value::to_raw_value(&value).unwrap());
    NewRecipient {
        user_id: format!("u-{name}"),
        namespace: "ECID".to_owned(),
        email: Some(format!("{name}@example.com")),
        phone: Some("+390212345".to_owned()),
        personalization: Personalization {
            context: raw(json!({"code": format!("one-time-code-of-{name}")})),
            profile: raw(json!({"person": format!("profile-of-{name}")})),
        },
    }
}

/// An outcome that came at the moment of its record.
pub fn plain(verdict: Verdict) -> What {
    What::Outcome { outcome: Outcome::new(verdict, START), planned: None }
}

pub fn hard_bounce(category: FailureCategory) -> Verdict {
    Verdict::Bounce(Failure {
        category,
        failure_type: FailureType::Hard,
        code: "10".to_owned(),
        reason: "550 5.1.1 no such user".to_owned(),
    })
}

pub fn exclusion() -> Exclusion {
    Exclusion::malformed_email_address("no at sign")
}

/// The channel's failed try, to be repeated at `at`.
pub fn retry_at(at: Timestamp) -> What {
    What::Retry { at, delay: Outcome::new(Verdict::Delay, START), may_have_been_sent: false }
}

pub fn is_not_found<T>(result: Result<T>) -> bool {
    matches!(result, Err(StoreError::NotFound(_)))
}

pub fn is_changed<T>(result: Result<T>) -> bool {
    matches!(result, Err(StoreError::Changed))
}

pub fn merge(settings: &mut Value, changes: Value) {
    let (Value::Object(settings), Value::Object(changes)) = (settings, changes) else {
        panic!("settings are objects");
    };
    settings.extend(changes);
}

pub fn is_state_conflict<T>(result: Result<T>) -> bool {
    matches!(result, Err(StoreError::Conflict(Conflict::State(_))))
}
