//! What never changes once it is stored: looked up once, then remembered.

use super::rows::{id_from, json_from};
use crate::shared::facts::{ExecutionRow, KeyFacts, Memory, SandboxFacts, StoredExecution, VersionFacts};
use crate::{Result, StoreError};
use model::execution::ExecutionFacts;
use model::ids::{ApiKeyId, CampaignId, CampaignVersionId, ChannelConfigurationId, ExecutionId, SandboxId};
use rusqlite::{Connection, OptionalExtension};
use std::sync::Arc;

/// All that is remembered, shared by the writer and the readers.
#[derive(Debug, Default)]
pub(super) struct Facts {
    sandboxes: Memory<SandboxId, SandboxFacts>,
    sandbox_ids: Memory<i64, SandboxId>,
    versions: Memory<i64, VersionFacts>,
    keys: Memory<i64, KeyFacts>,
    key_numbers: Memory<ApiKeyId, i64>,
    channels: Memory<i64, (ChannelConfigurationId, SandboxId)>,
    executions: Memory<(i64, ExecutionId), StoredExecution>,
}

impl Facts {
    /// Forgets everything: after a commit that failed, what was seen in it may not exist.
    pub fn clear(&self) {
        self.sandboxes.clear();
        self.sandbox_ids.clear();
        self.versions.clear();
        self.keys.clear();
        self.key_numbers.clear();
        self.channels.clear();
        self.executions.clear();
    }

    pub fn sandbox(&self, connection: &Connection, id: SandboxId) -> Result<Arc<SandboxFacts>> {
        self.sandboxes.get_or(id, || {
            let mut query = connection.prepare_cached("SELECT sbx, org, name FROM sandbox WHERE id = ?1")?;
            let found = query
                .query_row([id.bytes()], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?)))
                .optional()?;
            let (sbx, ims_org, sandbox_name) = found.ok_or(StoreError::NotFound("sandbox"))?;
            Ok(SandboxFacts::new(sbx, id, ims_org, sandbox_name))
        })
    }

    pub fn sandbox_of(&self, connection: &Connection, sbx: i64) -> Result<Arc<SandboxFacts>> {
        let id = self.sandbox_ids.get_or(sbx, || {
            let mut query = connection.prepare_cached("SELECT id FROM sandbox WHERE sbx = ?1")?;
            Ok(query.query_row([sbx], |row| id_from(row, 0, SandboxId::from_bytes))?)
        })?;
        self.sandbox(connection, *id)
    }

    pub fn version(&self, connection: &Connection, ver: i64) -> Result<Arc<VersionFacts>> {
        self.versions.get_or(ver, || {
            let mut query =
                connection.prepare_cached("SELECT id, campaign, settings, q FROM campaign_version WHERE ver = ?1")?;
            Ok(query.query_row([ver], |row| {
                Ok(VersionFacts {
                    id: id_from(row, 0, CampaignVersionId::from_bytes)?,
                    campaign: id_from(row, 1, CampaignId::from_bytes)?,
                    settings: json_from(row, 2)?,
                    q: row.get(3)?,
                })
            })?)
        })
    }

    pub fn key_number(&self, connection: &Connection, id: ApiKeyId) -> Result<i64> {
        let number = self.key_numbers.get_or(id, || {
            let mut query = connection.prepare_cached("SELECT k FROM api_key WHERE id = ?1")?;
            let found = query.query_row([id.bytes()], |row| row.get(0)).optional()?;
            found.ok_or(StoreError::NotFound("API key"))
        })?;
        Ok(*number)
    }

    pub fn key(&self, connection: &Connection, k: i64) -> Result<Arc<KeyFacts>> {
        self.keys.get_or(k, || {
            let mut query = connection.prepare_cached("SELECT id, name FROM api_key WHERE k = ?1")?;
            Ok(query
                .query_row([k], |row| Ok(KeyFacts { id: id_from(row, 0, ApiKeyId::from_bytes)?, name: row.get(1)? }))?)
        })
    }

    /// A channel configuration's id and sandbox.
    pub fn channel(&self, connection: &Connection, q: i64) -> Result<Arc<(ChannelConfigurationId, SandboxId)>> {
        self.channels.get_or(q, || {
            let mut query = connection.prepare_cached(
                "SELECT c.id, s.id FROM channel_configuration c JOIN sandbox s ON s.sbx = c.sbx WHERE c.q = ?1",
            )?;
            Ok(query.query_row([q], |row| {
                let channel = id_from(row, 0, ChannelConfigurationId::from_bytes)?;
                Ok((channel, id_from(row, 1, SandboxId::from_bytes)?))
            })?)
        })
    }

    pub fn execution(&self, connection: &Connection, sbx: i64, id: ExecutionId) -> Result<Arc<ExecutionFacts>> {
        Ok(Arc::clone(&self.stored_execution(connection, sbx, id)?.facts))
    }

    /// An execution with its campaign version.
    pub fn stored_execution(&self, connection: &Connection, sbx: i64, id: ExecutionId) -> Result<Arc<StoredExecution>> {
        self.executions.get_or((sbx, id), || {
            let mut query = connection.prepare_cached(
                "SELECT request_id, ver, prio, expires_at, created_at, k FROM execution WHERE sbx = ?1 AND exec = ?2",
            )?;
            let mut rows = query.query((sbx, id.number()))?;
            let row = rows.next()?.ok_or(StoreError::NotFound("execution"))?;
            let version = self.version(connection, row.get(1)?)?;
            let key = self.key(connection, row.get(5)?)?;
            let row = ExecutionRow {
                id,
                request_id: row.get(0)?,
                priority: row.get(2)?,
                expires_at: row.get(3)?,
                created_at: row.get(4)?,
            };
            Ok(StoredExecution::new(row, version, &key))
        })
    }

    /// Remembers an execution that is being stored.
    pub fn remember_execution(&self, sbx: i64, facts: &Arc<ExecutionFacts>, version: &Arc<VersionFacts>) {
        let stored = StoredExecution { facts: Arc::clone(facts), version: Arc::clone(version) };
        self.executions.put((sbx, facts.id), Arc::new(stored));
    }
}
