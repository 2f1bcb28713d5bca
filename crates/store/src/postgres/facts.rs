//! What never changes once it is stored: looked up once for all units of a batch that need it, then remembered. What is
//! missing is left out of the answer.

use super::rows::{byte, json};
use super::session::{Done, Session, col};
use crate::StoreError;
use crate::shared::facts::{ExecutionRow, KeyFacts, Memory, SandboxFacts, StoredExecution, VersionFacts};
use model::ids::{ApiKeyId, CampaignId, CampaignVersionId, ExecutionId, SandboxId};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use uuid::Uuid;

/// Facts by what names them.
pub(super) type Found<K, V> = HashMap<K, Arc<V>>;

/// All that is remembered. Only what was committed comes in here.
#[derive(Debug, Default)]
pub(super) struct Facts {
    sandboxes: Memory<SandboxId, SandboxFacts>,
    sandbox_ids: Memory<i64, SandboxId>,
    versions: Memory<i64, VersionFacts>,
    keys: Memory<i64, KeyFacts>,
    key_numbers: Memory<ApiKeyId, i64>,
    executions: Memory<(i64, ExecutionId), StoredExecution>,
}

/// What is known of `wanted`, and what is not.
fn divide<K: Eq + Hash + Copy + Ord, V>(
    memory: &Memory<K, V>,
    wanted: impl IntoIterator<Item = K>,
) -> (Found<K, V>, Vec<K>) {
    let (mut found, mut missing) = (HashMap::new(), Vec::new());
    for key in wanted {
        if found.contains_key(&key) {
            continue;
        }
        match memory.get(&key) {
            Some(known) => drop(found.insert(key, known)),
            None => missing.push(key),
        }
    }
    missing.sort_unstable();
    missing.dedup();
    (found, missing)
}

fn learn<K: Eq + Hash + Copy, V>(memory: &Memory<K, V>, found: &mut Found<K, V>, key: K, value: V) {
    let value = Arc::new(value);
    memory.put(key, Arc::clone(&value));
    found.insert(key, value);
}

impl Facts {
    pub async fn sandboxes(
        &self,
        session: &Session,
        wanted: impl IntoIterator<Item = SandboxId>,
    ) -> Done<Found<SandboxId, SandboxFacts>> {
        let (mut found, missing) = divide(&self.sandboxes, wanted);
        if !missing.is_empty() {
            let ids: Vec<Uuid> = missing.iter().map(|id| id.0).collect();
            for row in session.query("SELECT id, sbx, org, name FROM sandbox WHERE id = ANY($1)", &[&ids]).await? {
                let id = SandboxId(col(&row, 0)?);
                let facts = SandboxFacts::new(col(&row, 1)?, id, col(&row, 2)?, col(&row, 3)?);
                self.sandbox_ids.put(facts.sbx, Arc::new(id));
                learn(&self.sandboxes, &mut found, id, facts);
            }
        }
        Ok(found)
    }

    pub async fn sandbox(&self, session: &Session, id: SandboxId) -> Done<Arc<SandboxFacts>> {
        let found = self.sandboxes(session, [id]).await?.remove(&id);
        Ok(found.ok_or(StoreError::NotFound("sandbox"))?)
    }

    /// The same by their numbers.
    pub async fn sandboxes_of(
        &self,
        session: &Session,
        wanted: impl IntoIterator<Item = i64>,
    ) -> Done<Found<i64, SandboxFacts>> {
        let (mut ids, missing) = divide(&self.sandbox_ids, wanted);
        if !missing.is_empty() {
            for row in session.query("SELECT sbx, id FROM sandbox WHERE sbx = ANY($1)", &[&missing]).await? {
                learn(&self.sandbox_ids, &mut ids, col(&row, 0)?, SandboxId(col(&row, 1)?));
            }
        }
        let found = self.sandboxes(session, ids.into_values().map(|id| *id)).await?;
        Ok(found.into_values().map(|facts| (facts.sbx, facts)).collect())
    }

    pub async fn versions(
        &self,
        session: &Session,
        wanted: impl IntoIterator<Item = i64>,
    ) -> Done<Found<i64, VersionFacts>> {
        let (mut found, missing) = divide(&self.versions, wanted);
        if !missing.is_empty() {
            let sql = "SELECT ver, id, campaign, settings, q FROM campaign_version WHERE ver = ANY($1)";
            for row in session.query(sql, &[&missing]).await? {
                let facts = VersionFacts {
                    id: CampaignVersionId(col(&row, 1)?),
                    campaign: CampaignId(col(&row, 2)?),
                    settings: json(&row, 3)?,
                    q: col(&row, 4)?,
                };
                learn(&self.versions, &mut found, col(&row, 0)?, facts);
            }
        }
        Ok(found)
    }

    pub async fn key_numbers(
        &self,
        session: &Session,
        wanted: impl IntoIterator<Item = ApiKeyId>,
    ) -> Done<Found<ApiKeyId, i64>> {
        let (mut found, missing) = divide(&self.key_numbers, wanted);
        if !missing.is_empty() {
            let ids: Vec<Uuid> = missing.iter().map(|id| id.0).collect();
            for row in session.query("SELECT id, k FROM api_key WHERE id = ANY($1)", &[&ids]).await? {
                learn(&self.key_numbers, &mut found, ApiKeyId(col(&row, 0)?), col(&row, 1)?);
            }
        }
        Ok(found)
    }

    pub async fn keys(&self, session: &Session, wanted: impl IntoIterator<Item = i64>) -> Done<Found<i64, KeyFacts>> {
        let (mut found, missing) = divide(&self.keys, wanted);
        if !missing.is_empty() {
            for row in session.query("SELECT k, id, name FROM api_key WHERE k = ANY($1)", &[&missing]).await? {
                let facts = KeyFacts { id: ApiKeyId(col(&row, 1)?), name: col(&row, 2)? };
                learn(&self.keys, &mut found, col(&row, 0)?, facts);
            }
        }
        Ok(found)
    }

    /// Executions with their campaign versions.
    pub async fn executions(
        &self,
        session: &Session,
        wanted: impl IntoIterator<Item = (i64, ExecutionId)>,
    ) -> Done<Found<(i64, ExecutionId), StoredExecution>> {
        let (mut found, missing) = divide(&self.executions, wanted);
        if missing.is_empty() {
            return Ok(found);
        }
        let sandboxes: Vec<i64> = missing.iter().map(|(sbx, _)| *sbx).collect();
        let numbers: Vec<i64> = missing.iter().map(|(_, id)| id.number()).collect();
        let sql = "SELECT e.sbx, e.exec, e.request_id, e.prio, e.expires_at, e.created_at, e.ver, e.k \
                   FROM unnest($1::bigint[], $2::bigint[]) AS w (sbx, exec) \
                   JOIN execution e ON e.sbx = w.sbx AND e.exec = w.exec";
        let rows = session.query(sql, &[&sandboxes, &numbers]).await?;
        let (mut vers, mut ks) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for row in &rows {
            vers.push(col::<i64>(row, 6)?);
            ks.push(col::<i64>(row, 7)?);
        }
        let versions = self.versions(session, vers.iter().copied()).await?;
        let keys = self.keys(session, ks.iter().copied()).await?;
        for ((row, ver), k) in rows.iter().zip(&vers).zip(&ks) {
            let (Some(version), Some(key)) = (versions.get(ver), keys.get(k)) else { continue };
            let Some(id) = ExecutionId::from_number(col(row, 1)?) else { continue };
            let of_row = ExecutionRow {
                id,
                request_id: col(row, 2)?,
                priority: byte(row, 3)?,
                expires_at: col(row, 4)?,
                created_at: col(row, 5)?,
            };
            let stored = StoredExecution::new(of_row, Arc::clone(version), key);
            learn(&self.executions, &mut found, (col(row, 0)?, id), stored);
        }
        Ok(found)
    }

    /// Remembers an execution that has been committed.
    pub fn remember_execution(&self, sbx: i64, stored: Arc<StoredExecution>) {
        self.executions.put((sbx, stored.facts.id), stored);
    }
}
