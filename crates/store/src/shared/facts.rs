//! What never changes once it is stored, and the bounded memories of it.

use model::campaign::CampaignSettings;
use model::clock::Timestamp;
use model::execution::{ExecutionFacts, Priority};
use model::feedback::Tenant;
use model::ids::{ApiKeyId, CampaignId, CampaignVersionId, ExecutionId, SandboxId, Shard};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// A sandbox as the rows know it.
#[derive(Debug)]
pub struct SandboxFacts {
    pub sbx: i64,
    pub tenant: Arc<Tenant>,
    pub shard: Shard,
}

impl SandboxFacts {
    pub fn new(sbx: i64, id: SandboxId, ims_org: String, sandbox_name: String) -> Self {
        let shard = Shard::of(&ims_org, id);
        Self { sbx, shard, tenant: Arc::new(Tenant { ims_org, sandbox_id: id, sandbox_name }) }
    }
}

/// A campaign version as the rows know it.
#[derive(Debug)]
pub struct VersionFacts {
    pub id: CampaignVersionId,
    pub campaign: CampaignId,
    pub settings: CampaignSettings,
    pub q: i64,
}

/// An API key as the rows know it.
#[derive(Debug)]
pub struct KeyFacts {
    pub id: ApiKeyId,
    pub name: String,
}

/// An execution as the rows know it.
#[derive(Debug)]
pub struct StoredExecution {
    pub facts: Arc<ExecutionFacts>,
    pub version: Arc<VersionFacts>,
}

/// The columns of an execution's row that are its own.
#[derive(Debug)]
pub struct ExecutionRow {
    pub id: ExecutionId,
    pub request_id: String,
    pub priority: u8,
    pub expires_at: Option<i64>,
    pub created_at: i64,
}

impl StoredExecution {
    pub fn new(row: ExecutionRow, version: Arc<VersionFacts>, key: &KeyFacts) -> Self {
        let facts = ExecutionFacts {
            id: row.id,
            request_id: row.request_id,
            campaign: version.campaign,
            version: version.id,
            channel: version.settings.channel,
            priority: Priority::from_code(row.priority),
            expires_at: row.expires_at.map(Timestamp),
            created_at: Timestamp(row.created_at),
            created_by: key.name.clone(),
            created_by_key: key.id,
        };
        Self { facts: Arc::new(facts), version }
    }
}

/// A bounded memory of values by key.
#[derive(Debug)]
pub struct Memory<K, V>(Mutex<HashMap<K, Arc<V>>>);

/// Past this many a memory starts anew, which costs a lookup each and nothing else.
const REMEMBERED: usize = 20_000;

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Copy, V> Memory<K, V> {
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(Arc::clone)
    }

    pub fn get_or(&self, key: K, load: impl FnOnce() -> crate::Result<V>) -> crate::Result<Arc<V>> {
        if let Some(known) = self.get(&key) {
            return Ok(known);
        }
        let value = Arc::new(load()?);
        self.put(key, Arc::clone(&value));
        Ok(value)
    }

    pub fn put(&self, key: K, value: Arc<V>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= REMEMBERED {
            map.clear();
        }
        map.insert(key, value);
    }

    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
