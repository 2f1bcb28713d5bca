//! Administration: organizations, keys, webhooks, channel configurations, campaigns, each change with its audit entry.

use super::rows::{id_from, json_from, moment};
use super::writer::Tx;
use crate::admin::{Edit, NewOrganization};
use crate::envelope::MasterKey;
use crate::lookup::{Listed, Page};
use crate::shared::facts::SandboxFacts;
use crate::shared::listing::{cursor_bytes, hex};
use crate::shared::rows::{from_json, json_of};
use crate::shared::sealing::{campaign_status, seal_webhook, status_text, unseal_webhook};
use crate::{Conflict, Result, StoreError};
use model::campaign::{Campaign, CampaignStatus, CampaignVersion};
use model::channel::ChannelConfiguration;
use model::clock::Timestamp;
use model::ids::{ApiKeyId, AuditId, CampaignId, CampaignVersionId, ChannelConfigurationId, SandboxId, WebhookId};
use model::secret::HasSecrets;
use model::tenancy::{ApiKey, AuditEntry, Organization, Role, Sandbox};
use model::webhook::{SandboxRef, Stamps, Webhook};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use std::sync::Arc;

/// A page of rows of `sql`, which ends in a `WHERE` clause and is ordered by the text or blob column `key`.
pub(super) fn page<T>(
    connection: &Connection,
    sql: &str,
    key: &str,
    values: &[&dyn ToSql],
    page: &Page,
    descending: bool,
    read: impl Fn(&Row<'_>) -> Result<(T, Vec<u8>)>,
) -> Result<Listed<T>> {
    let (than, order) = if descending { ("<", "DESC") } else { (">", "") };
    let after = page.cursor.as_deref().map(cursor_bytes).transpose()?;
    let bound =
        if after.is_some() { format!(" AND CAST({key} AS BLOB) {than} ?{}", values.len() + 1) } else { String::new() };
    let limit = page.limit + 1;
    let mut query = connection.prepare(&format!("{sql}{bound} ORDER BY CAST({key} AS BLOB) {order} LIMIT {limit}"))?;
    let mut all: Vec<&dyn ToSql> = values.to_vec();
    if let Some(after) = &after {
        all.push(after);
    }
    let mut rows = query.query(all.as_slice())?;
    let mut items = Vec::new();
    let mut last_key = None;
    while let Some(row) = rows.next()? {
        if items.len() == page.limit {
            return Ok(Listed { items, next: last_key.map(|key: Vec<u8>| hex(&key)) });
        }
        let (item, key) = read(row)?;
        items.push(item);
        last_key = Some(key);
    }
    Ok(Listed { items, next: None })
}

fn audit(tx: &Tx<'_>, entry: &AuditEntry) -> Result<()> {
    let mut insert = tx.connection.prepare_cached(
        "INSERT INTO audit_log (org, id, sandbox, at, actor, action, resource, detail) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let detail = entry.detail.to_string();
    insert.execute(params![
        entry.ims_org,
        entry.id.bytes(),
        entry.sandbox,
        entry.at.millis(),
        entry.actor,
        entry.action,
        entry.resource,
        detail
    ])?;
    Ok(())
}

pub(super) fn audit_only(tx: &Tx<'_>, entry: &AuditEntry) -> Result<()> {
    audit(tx, entry)
}

pub(super) fn audit_log(connection: &Connection, organization: &str, wanted: &Page) -> Result<Listed<AuditEntry>> {
    let sql = "SELECT id, org, sandbox, at, actor, action, resource, detail FROM audit_log WHERE org = ?1";
    page(connection, sql, "id", &[&organization], wanted, true, |row| {
        let id = id_from(row, 0, AuditId::from_bytes)?;
        let entry = AuditEntry {
            id,
            ims_org: row.get(1)?,
            sandbox: row.get(2)?,
            at: Timestamp(row.get(3)?),
            actor: row.get(4)?,
            action: row.get(5)?,
            resource: row.get(6)?,
            detail: json_from(row, 7)?,
        };
        Ok((entry, id.bytes().to_vec()))
    })
}

fn exists(connection: &Connection, sql: &str, values: &[&dyn ToSql]) -> Result<bool> {
    Ok(connection.prepare_cached(sql)?.exists(values)?)
}

// ---- organizations and sandboxes ----

pub(super) fn create_organization(tx: &Tx<'_>, new: &NewOrganization, entry: &AuditEntry) -> Result<()> {
    let organization = &new.organization;
    if exists(tx.connection, "SELECT 1 FROM organization WHERE id = ?1", &[&organization.id])? {
        return Err(StoreError::Conflict(Conflict::Taken(format!("the organization id {:?}", organization.id))));
    }
    tx.connection.execute(
        "INSERT INTO organization (id, name, created_at, created_by, retention) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            organization.id,
            organization.name,
            organization.created_at.millis(),
            organization.created_by,
            json_of(&organization.retention)?
        ],
    )?;
    if let Some(sandbox) = &new.sandbox {
        insert_sandbox(tx, sandbox)?;
    }
    audit(tx, entry)
}

pub(super) fn update_organization(tx: &Tx<'_>, organization: &Organization, entry: &AuditEntry) -> Result<()> {
    let changed = tx.connection.execute(
        "UPDATE organization SET name = ?2, retention = ?3 WHERE id = ?1",
        params![organization.id, organization.name, json_of(&organization.retention)?],
    )?;
    if changed == 0 {
        return Err(StoreError::NotFound("organization"));
    }
    audit(tx, entry)
}

fn read_organization(row: &Row<'_>) -> Result<(Organization, Vec<u8>)> {
    let id: String = row.get(0)?;
    let key = id.clone().into_bytes();
    let created_at = Timestamp(row.get(2)?);
    let retention: Option<String> = row.get(4)?;
    let retention = retention.as_deref().map(from_json).transpose()?.unwrap_or_default();
    Ok((Organization { id, name: row.get(1)?, retention, created_at, created_by: row.get(3)? }, key))
}

const ORGANIZATION: &str = "SELECT id, name, created_at, created_by, retention FROM organization WHERE";

pub(super) fn organization(connection: &Connection, id: &str) -> Result<Organization> {
    let mut query = connection.prepare_cached(&format!("{ORGANIZATION} id = ?1"))?;
    let mut rows = query.query([id])?;
    let row = rows.next()?.ok_or(StoreError::NotFound("organization"))?;
    Ok(read_organization(row)?.0)
}

pub(super) fn organizations(connection: &Connection, wanted: &Page) -> Result<Listed<Organization>> {
    page(connection, &format!("{ORGANIZATION} true"), "id", &[], wanted, false, read_organization)
}

fn insert_sandbox(tx: &Tx<'_>, sandbox: &Sandbox) -> Result<()> {
    tx.connection.execute(
        "INSERT INTO sandbox (id, org, name, created_at, created_by) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![sandbox.id.bytes(), sandbox.ims_org, sandbox.name, sandbox.created_at.millis(), sandbox.created_by],
    )?;
    Ok(())
}

pub(super) fn create_sandbox(tx: &Tx<'_>, sandbox: &Sandbox, entry: &AuditEntry) -> Result<()> {
    organization(tx.connection, &sandbox.ims_org)?;
    let sql = "SELECT 1 FROM sandbox WHERE org = ?1 AND name = ?2";
    if exists(tx.connection, sql, &[&sandbox.ims_org, &sandbox.name])? {
        return Err(StoreError::Conflict(Conflict::Taken(format!("the sandbox name {:?}", sandbox.name))));
    }
    insert_sandbox(tx, sandbox)?;
    audit(tx, entry)
}

fn read_sandbox(row: &Row<'_>) -> Result<(Sandbox, Vec<u8>)> {
    let name: String = row.get(2)?;
    let key = name.clone().into_bytes();
    let id = id_from(row, 0, SandboxId::from_bytes)?;
    let created_at = Timestamp(row.get(3)?);
    Ok((Sandbox { id, ims_org: row.get(1)?, name, created_at, created_by: row.get(4)? }, key))
}

const SANDBOX: &str = "SELECT id, org, name, created_at, created_by FROM sandbox WHERE org = ?1";

pub(super) fn sandboxes(connection: &Connection, organization: &str, wanted: &Page) -> Result<Listed<Sandbox>> {
    page(connection, SANDBOX, "name", &[&organization], wanted, false, read_sandbox)
}

pub(super) fn sandbox(connection: &Connection, organization: &str, name: &str) -> Result<Sandbox> {
    let mut query = connection.prepare_cached(&format!("{SANDBOX} AND name = ?2"))?;
    let mut rows = query.query([organization, name])?;
    let row = rows.next()?.ok_or(StoreError::NotFound("sandbox"))?;
    Ok(read_sandbox(row)?.0)
}

// ---- API keys ----

pub(super) fn create_api_key(tx: &Tx<'_>, key: &ApiKey, hash: &[u8; 32], entry: &AuditEntry) -> Result<()> {
    organization(tx.connection, &key.ims_org)?;
    let sandboxes = key.sandboxes.as_ref().map(json_of).transpose()?;
    tx.connection.execute(
        "INSERT INTO api_key (id, org, role, name, sandboxes, hash, expires_at, revoked_at, created_at, created_by) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            key.id.bytes(),
            key.ims_org,
            key.role.as_str(),
            key.name,
            sandboxes,
            hash.as_slice(),
            key.expires_at.map(Timestamp::millis),
            key.revoked_at.map(Timestamp::millis),
            key.created_at.millis(),
            key.created_by
        ],
    )?;
    audit(tx, entry)
}

const API_KEY: &str =
    "SELECT id, org, role, name, sandboxes, expires_at, revoked_at, created_at, created_by FROM api_key WHERE";

fn read_api_key(row: &Row<'_>) -> Result<(ApiKey, Vec<u8>)> {
    let id = id_from(row, 0, ApiKeyId::from_bytes)?;
    let role: String = row.get(2)?;
    let sandboxes: Option<String> = row.get(4)?;
    let sandboxes = sandboxes.map(|text| serde_json::from_str(&text)).transpose();
    let key = ApiKey {
        id,
        ims_org: row.get(1)?,
        role: Role::parse(&role).ok_or_else(|| StoreError::Corrupt(format!("the role {role:?}")))?,
        name: row.get(3)?,
        sandboxes: sandboxes.map_err(|error| StoreError::Corrupt(error.to_string()))?,
        expires_at: moment(row, 5)?,
        revoked_at: moment(row, 6)?,
        created_at: Timestamp(row.get(7)?),
        created_by: row.get(8)?,
    };
    Ok((key, id.bytes().to_vec()))
}

fn one_api_key(connection: &Connection, condition: &str, value: &dyn ToSql) -> Result<Option<ApiKey>> {
    let mut query = connection.prepare_cached(&format!("{API_KEY} {condition}"))?;
    let mut rows = query.query([value])?;
    rows.next()?.map(|row| read_api_key(row).map(|(key, _)| key)).transpose()
}

pub(super) fn find_api_key(connection: &Connection, hash: &[u8; 32]) -> Result<Option<ApiKey>> {
    one_api_key(connection, "hash = ?1", &hash.as_slice())
}

pub(super) fn api_key(connection: &Connection, id: ApiKeyId) -> Result<ApiKey> {
    one_api_key(connection, "id = ?1", &id.bytes())?.ok_or(StoreError::NotFound("API key"))
}

pub(super) fn api_keys(connection: &Connection, organization: &str, wanted: &Page) -> Result<Listed<ApiKey>> {
    page(connection, &format!("{API_KEY} org = ?1"), "id", &[&organization], wanted, false, read_api_key)
}

pub(super) fn revoke_api_key(tx: &Tx<'_>, id: ApiKeyId, now: Timestamp, entry: &AuditEntry) -> Result<ApiKey> {
    let sql = "UPDATE api_key SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
    if tx.connection.execute(sql, params![id.bytes(), now.millis()])? == 1 {
        audit(tx, entry)?;
    }
    api_key(tx.connection, id)
}

pub(super) fn has_api_keys(connection: &Connection) -> Result<bool> {
    exists(connection, "SELECT 1 FROM api_key", &[])
}

// ---- webhooks ----

const WEBHOOK: &str = "SELECT w.id, s.org, s.id, s.name, w.settings, w.keys, w.control, w.stamps, w.revision, w.sealed \
                       FROM webhook w JOIN sandbox s ON s.sbx = w.sbx WHERE w.deleting = 0";

/// The webhooks that are there: one that is being deleted is gone for everybody.
const WEBHOOKS: &str = "(SELECT id, sbx FROM webhook WHERE deleting = 0)";

/// Reads a webhook without its secrets, which come sealed beside it.
fn read_webhook(row: &Row<'_>) -> Result<(Webhook, Option<Vec<u8>>)> {
    let mut stamps: Stamps = json_from(row, 7)?;
    stamps.revision = row.get(8)?;
    let webhook = Webhook {
        id: id_from(row, 0, WebhookId::from_bytes)?,
        ims_org: row.get(1)?,
        sandbox: SandboxRef { id: id_from(row, 2, SandboxId::from_bytes)?, name: row.get(3)? },
        settings: json_from(row, 4)?,
        keys: json_from(row, 5)?,
        control: json_from(row, 6)?,
        stamps,
    };
    Ok((webhook, row.get(9)?))
}

pub(super) fn webhook(
    connection: &Connection,
    master: &MasterKey,
    sandbox: SandboxId,
    id: WebhookId,
) -> Result<Webhook> {
    let mut query = connection.prepare_cached(&format!("{WEBHOOK} AND w.id = ?1 AND s.id = ?2"))?;
    let mut rows = query.query([id.bytes(), sandbox.bytes()])?;
    let row = rows.next()?.ok_or(StoreError::NotFound("feedback webhook"))?;
    unseal_webhook(master, read_webhook(row)?)
}

pub(super) fn webhook_of(connection: &Connection, master: &MasterKey, sandbox: SandboxId) -> Result<Option<Webhook>> {
    let mut query = connection.prepare_cached(&format!("{WEBHOOK} AND s.id = ?1"))?;
    let mut rows = query.query([sandbox.bytes()])?;
    rows.next()?.map(|row| unseal_webhook(master, read_webhook(row)?)).transpose()
}

pub(super) fn webhooks(
    connection: &Connection,
    master: &MasterKey,
    sandboxes: &[SandboxId],
    wanted: &Page,
) -> Result<Listed<Webhook>> {
    let ids: Vec<String> = sandboxes.iter().map(|id| format!("x'{}'", hex(id.bytes()))).collect();
    let sql = format!("{WEBHOOK} AND s.id IN ({})", ids.join(","));
    page(connection, &sql, "w.id", &[], wanted, false, |row| {
        let webhook = unseal_webhook(master, read_webhook(row)?)?;
        let key = webhook.id.bytes().to_vec();
        Ok((webhook, key))
    })
}

pub(super) fn webhooks_with_keys(connection: &Connection) -> Result<Vec<Webhook>> {
    let mut query = connection.prepare_cached(&format!("{WEBHOOK} AND json_array_length(w.keys, '$.jwt') > 0"))?;
    let mut rows = query.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_webhook(row)?.0);
    }
    Ok(found)
}

/// The sandbox's webhook as the writer remembers it, without secrets.
pub(super) fn known_webhook(tx: &mut Tx<'_>, sandbox: &SandboxFacts) -> Result<Option<Arc<Webhook>>> {
    if let Some(known) = tx.state.memory.webhooks.get(&sandbox.sbx) {
        return Ok(known.clone());
    }
    let mut query = tx.connection.prepare_cached(&format!("{WEBHOOK} AND w.sbx = ?1"))?;
    let mut rows = query.query([sandbox.sbx])?;
    let found = rows.next()?.map(read_webhook).transpose()?.map(|(webhook, _)| Arc::new(webhook));
    tx.state.memory.webhooks.insert(sandbox.sbx, found.clone());
    Ok(found)
}

/// Writes what has been done to a webhook, and remembers it.
pub(super) fn store_control(tx: &mut Tx<'_>, sbx: i64, webhook: Webhook) -> Result<()> {
    let mut update = tx.connection.prepare_cached("UPDATE webhook SET control = ?2, revision = ?3 WHERE id = ?1")?;
    update.execute(params![webhook.id.bytes(), json_of(&webhook.control)?, webhook.stamps.revision])?;
    tx.state.memory.webhooks.insert(sbx, Some(Arc::new(webhook)));
    Ok(())
}

pub(super) fn create_webhook(
    tx: &mut Tx<'_>,
    master: &MasterKey,
    mut webhook: Webhook,
    entry: &AuditEntry,
) -> Result<()> {
    let facts = Arc::clone(&tx.state.facts);
    let sbx = facts.sandbox(tx.connection, webhook.sandbox.id)?.sbx;
    let mut first = tx.connection.prepare_cached("SELECT id, name FROM webhook WHERE sbx = ?1")?;
    let first = first
        .query_row([sbx], |row| Ok((id_from(row, 0, WebhookId::from_bytes)?, row.get::<_, String>(1)?)))
        .optional()?;
    if let Some((id, name)) = first {
        return Err(StoreError::Conflict(Conflict::WebhookExists { id, name }));
    }
    let sealed = seal_webhook(master, &mut webhook)?;
    tx.connection.execute(
        "INSERT INTO webhook (id, sbx, name, settings, keys, control, sealed, stamps, revision) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            webhook.id.bytes(),
            sbx,
            webhook.settings.name,
            json_of(&webhook.settings)?,
            json_of(&webhook.keys)?,
            json_of(&webhook.control)?,
            sealed,
            json_of(&webhook.stamps)?,
            webhook.stamps.revision
        ],
    )?;
    tx.state.memory.webhooks.remove(&sbx);
    audit(tx, entry)
}

pub(super) fn update_webhook(
    tx: &mut Tx<'_>,
    master: &MasterKey,
    mut webhook: Webhook,
    entry: &AuditEntry,
) -> Result<()> {
    let facts = Arc::clone(&tx.state.facts);
    let sandbox = facts.sandbox(tx.connection, webhook.sandbox.id)?;
    // What attempts have noted since the caller read it must not be undone by the caller's older copy.
    if let Some(known) = known_webhook(tx, &sandbox)? {
        webhook.control.failing_since = known.control.failing_since;
        webhook.control.last_error.clone_from(&known.control.last_error);
    }
    let sealed = seal_webhook(master, &mut webhook)?;
    let changed = tx.connection.execute(
        "UPDATE webhook SET name = ?3, settings = ?4, keys = ?5, control = ?6, sealed = ?7, stamps = ?8, revision = ?9 \
         WHERE id = ?1 AND sbx = ?2 AND revision = ?9 - 1 AND deleting = 0",
        params![
            webhook.id.bytes(),
            sandbox.sbx,
            webhook.settings.name,
            json_of(&webhook.settings)?,
            json_of(&webhook.keys)?,
            json_of(&webhook.control)?,
            sealed,
            json_of(&webhook.stamps)?,
            webhook.stamps.revision
        ],
    )?;
    if changed == 0 {
        return Err(missing_or_changed(tx, WEBHOOKS, webhook.id.bytes(), sandbox.sbx, "feedback webhook")?);
    }
    tx.state.memory.webhooks.remove(&sandbox.sbx);
    audit(tx, entry)
}

/// Marks a webhook as being deleted: from then on it gets nothing. Returns its sandbox's number.
pub(super) fn begin_delete_webhook(tx: &mut Tx<'_>, edit: Edit<WebhookId>, entry: &AuditEntry) -> Result<i64> {
    let facts = Arc::clone(&tx.state.facts);
    let sbx = facts.sandbox(tx.connection, edit.sandbox)?.sbx;
    let changed = tx.connection.execute(
        "UPDATE webhook SET deleting = 1 WHERE id = ?1 AND sbx = ?2 AND deleting = 0 AND revision = coalesce(?3, revision)",
        params![edit.id.bytes(), sbx, edit.seen_revision],
    )?;
    if changed == 0 {
        return Err(missing_or_changed(tx, WEBHOOKS, edit.id.bytes(), sbx, "feedback webhook")?);
    }
    tx.state.memory.webhooks.remove(&sbx);
    audit(tx, entry)?;
    Ok(sbx)
}

/// The sandboxes whose webhook is being deleted: an earlier process may have ended in the middle of it.
pub(super) fn webhooks_being_deleted(connection: &Connection) -> Result<Vec<i64>> {
    let mut query = connection.prepare("SELECT sbx FROM webhook WHERE deleting = 1")?;
    Ok(query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn end_delete_webhook(tx: &mut Tx<'_>, sbx: i64) -> Result<()> {
    tx.connection.execute("DELETE FROM webhook WHERE sbx = ?1 AND deleting = 1", [sbx])?;
    tx.state.memory.webhooks.remove(&sbx);
    Ok(())
}

/// Why a change of one row changed nothing.
fn missing_or_changed(tx: &Tx<'_>, table: &str, id: &[u8], sbx: i64, name: &'static str) -> Result<StoreError> {
    let there = exists(tx.connection, &format!("SELECT 1 FROM {table} WHERE id = ?1 AND sbx = ?2"), &[&id, &sbx])?;
    Ok(if there { StoreError::Changed } else { StoreError::NotFound(name) })
}

// ---- channel configurations ----

const CHANNEL: &str = "SELECT c.id, s.org, s.id, c.settings, c.paused, c.stamps, c.revision, c.sealed \
                       FROM channel_configuration c JOIN sandbox s ON s.sbx = c.sbx WHERE";

fn read_channel(master: &MasterKey, row: &Row<'_>) -> Result<(ChannelConfiguration, Vec<u8>)> {
    let mut stamps: Stamps = json_from(row, 5)?;
    stamps.revision = row.get(6)?;
    let id = id_from(row, 0, ChannelConfigurationId::from_bytes)?;
    let mut channel = ChannelConfiguration {
        id,
        ims_org: row.get(1)?,
        sandbox: id_from(row, 2, SandboxId::from_bytes)?,
        settings: json_from(row, 3)?,
        paused: row.get(4)?,
        stamps,
    };
    let sealed: Option<Vec<u8>> = row.get(7)?;
    channel.settings.fill_secrets(&master.open(id.bytes(), sealed.as_deref())?);
    Ok((channel, id.bytes().to_vec()))
}

pub(super) fn channel(
    connection: &Connection,
    master: &MasterKey,
    sandbox: Option<SandboxId>,
    id: ChannelConfigurationId,
) -> Result<ChannelConfiguration> {
    let mut query = connection.prepare_cached(&format!("{CHANNEL} c.id = ?1"))?;
    let mut rows = query.query([id.bytes()])?;
    let missing = || StoreError::NotFound("channel configuration");
    let row = rows.next()?.ok_or_else(missing)?;
    let (channel, _) = read_channel(master, row)?;
    if sandbox.is_some_and(|sandbox| sandbox != channel.sandbox) {
        return Err(missing());
    }
    Ok(channel)
}

pub(super) fn channels(
    connection: &Connection,
    master: &MasterKey,
    sandbox: SandboxId,
    wanted: &Page,
) -> Result<Listed<ChannelConfiguration>> {
    let sql = format!("{CHANNEL} s.id = ?1");
    page(connection, &sql, "c.id", &[&sandbox.bytes()], wanted, false, |row| read_channel(master, row))
}

pub(super) fn create_channel(
    tx: &Tx<'_>,
    master: &MasterKey,
    mut channel: ChannelConfiguration,
    entry: &AuditEntry,
) -> Result<()> {
    let sbx = tx.state.facts.sandbox(tx.connection, channel.sandbox)?.sbx;
    let sealed = master.seal(channel.id.bytes(), &channel.settings.take_secrets())?;
    tx.connection.execute(
        "INSERT INTO channel_configuration (id, sbx, settings, paused, sealed, stamps, revision) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            channel.id.bytes(),
            sbx,
            json_of(&channel.settings)?,
            channel.paused,
            sealed,
            json_of(&channel.stamps)?,
            channel.stamps.revision
        ],
    )?;
    audit(tx, entry)
}

pub(super) fn update_channel(
    tx: &Tx<'_>,
    master: &MasterKey,
    mut channel: ChannelConfiguration,
    entry: &AuditEntry,
) -> Result<()> {
    let sbx = tx.state.facts.sandbox(tx.connection, channel.sandbox)?.sbx;
    let sealed = master.seal(channel.id.bytes(), &channel.settings.take_secrets())?;
    let changed = tx.connection.execute(
        "UPDATE channel_configuration SET settings = ?3, paused = ?4, sealed = ?5, stamps = ?6, revision = ?7 \
         WHERE id = ?1 AND sbx = ?2 AND revision = ?7 - 1",
        params![
            channel.id.bytes(),
            sbx,
            json_of(&channel.settings)?,
            channel.paused,
            sealed,
            json_of(&channel.stamps)?,
            channel.stamps.revision
        ],
    )?;
    if changed == 0 {
        let name = "channel configuration";
        return Err(missing_or_changed(tx, "channel_configuration", channel.id.bytes(), sbx, name)?);
    }
    audit(tx, entry)
}

pub(super) fn delete_channel(tx: &Tx<'_>, edit: Edit<ChannelConfigurationId>, entry: &AuditEntry) -> Result<()> {
    let sbx = tx.state.facts.sandbox(tx.connection, edit.sandbox)?.sbx;
    let used = "SELECT 1 FROM channel_configuration c WHERE c.id = ?1 AND c.sbx = ?3 AND (EXISTS (SELECT 1 FROM campaign_version v \
                WHERE v.q = c.q) OR EXISTS (SELECT 1 FROM campaign p WHERE p.sbx = c.sbx AND \
                json_extract(p.draft, '$.settings.channelConfigurationId') = ?2))";
    if exists(tx.connection, used, &[&edit.id.bytes(), &edit.id.to_string(), &sbx])? {
        let why = "a campaign uses the channel configuration".to_owned();
        return Err(StoreError::Conflict(Conflict::InUse(why)));
    }
    let changed = tx.connection.execute(
        "DELETE FROM channel_configuration WHERE id = ?1 AND sbx = ?2 AND revision = coalesce(?3, revision)",
        params![edit.id.bytes(), sbx, edit.seen_revision],
    )?;
    if changed == 0 {
        let name = "channel configuration";
        return Err(missing_or_changed(tx, "channel_configuration", edit.id.bytes(), sbx, name)?);
    }
    audit(tx, entry)
}

// ---- campaigns ----

const CAMPAIGN: &str = "SELECT p.id, s.org, s.id, p.status, v.id, v.settings, p.draft, p.stamps, p.revision \
                        FROM campaign p JOIN sandbox s ON s.sbx = p.sbx \
                        LEFT JOIN campaign_version v ON v.ver = p.live WHERE";

fn read_campaign(row: &Row<'_>) -> Result<(Campaign, Vec<u8>)> {
    let id = id_from(row, 0, CampaignId::from_bytes)?;
    let mut stamps: Stamps = json_from(row, 7)?;
    stamps.revision = row.get(8)?;
    let is_live = !matches!(row.get_ref(4)?, rusqlite::types::ValueRef::Null);
    let live = if is_live {
        let id = id_from(row, 4, CampaignVersionId::from_bytes)?;
        Some(CampaignVersion { id, settings: json_from(row, 5)? })
    } else {
        None
    };
    let has_draft = !matches!(row.get_ref(6)?, rusqlite::types::ValueRef::Null);
    let campaign = Campaign {
        id,
        ims_org: row.get(1)?,
        sandbox: id_from(row, 2, SandboxId::from_bytes)?,
        status: campaign_status(&row.get::<_, String>(3)?)?,
        live,
        draft: if has_draft { Some(json_from(row, 6)?) } else { None },
        stamps,
    };
    Ok((campaign, id.bytes().to_vec()))
}

pub(super) fn campaign(connection: &Connection, sandbox: SandboxId, id: CampaignId) -> Result<Campaign> {
    let mut query = connection.prepare_cached(&format!("{CAMPAIGN} p.id = ?1 AND s.id = ?2"))?;
    let mut rows = query.query([id.bytes(), sandbox.bytes()])?;
    let row = rows.next()?.ok_or(StoreError::NotFound("campaign"))?;
    Ok(read_campaign(row)?.0)
}

pub(super) fn campaigns(connection: &Connection, sandbox: SandboxId, wanted: &Page) -> Result<Listed<Campaign>> {
    page(connection, &format!("{CAMPAIGN} s.id = ?1"), "p.id", &[&sandbox.bytes()], wanted, false, read_campaign)
}

pub(super) fn campaign_versions(
    connection: &Connection,
    sandbox: SandboxId,
    id: CampaignId,
    wanted: &Page,
) -> Result<Listed<CampaignVersion>> {
    let read = |row: &Row<'_>| {
        let id = id_from(row, 0, CampaignVersionId::from_bytes)?;
        Ok((CampaignVersion { id, settings: json_from(row, 1)? }, id.bytes().to_vec()))
    };
    let sql = "SELECT id, settings FROM campaign_version WHERE campaign = ?1";
    let listed = page(connection, sql, "id", &[&id.bytes()], wanted, true, read)?;
    campaign(connection, sandbox, id)?;
    Ok(listed)
}

pub(super) fn create_campaign(tx: &Tx<'_>, campaign: &Campaign, entry: &AuditEntry) -> Result<()> {
    let sbx = tx.state.facts.sandbox(tx.connection, campaign.sandbox)?.sbx;
    let live = store_live_version(tx, sbx, campaign)?;
    tx.connection.execute(
        "INSERT INTO campaign (id, sbx, status, live, draft, stamps, revision) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            campaign.id.bytes(),
            sbx,
            status_text(campaign.status),
            live,
            campaign.draft.as_ref().map(json_of).transpose()?,
            json_of(&campaign.stamps)?,
            campaign.stamps.revision
        ],
    )?;
    audit(tx, entry)
}

/// Keeps the live version for good, if it is not kept already; returns its number.
fn store_live_version(tx: &Tx<'_>, sbx: i64, campaign: &Campaign) -> Result<Option<i64>> {
    let Some(version) = &campaign.live else { return Ok(None) };
    let mut find = tx.connection.prepare_cached("SELECT ver FROM campaign_version WHERE id = ?1")?;
    if let Some(ver) = find.query_row([version.id.bytes()], |row| row.get(0)).optional()? {
        return Ok(Some(ver));
    }
    let channel = version.settings.channel_configuration_id;
    let mut q = tx.connection.prepare_cached("SELECT q FROM channel_configuration WHERE id = ?1 AND sbx = ?2")?;
    let q: Option<i64> = q.query_row(params![channel.bytes(), sbx], |row| row.get(0)).optional()?;
    let q = q.ok_or(StoreError::NotFound("channel configuration"))?;
    tx.connection.execute(
        "INSERT INTO campaign_version (id, campaign, sbx, q, settings) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![version.id.bytes(), campaign.id.bytes(), sbx, q, json_of(&version.settings)?],
    )?;
    Ok(Some(tx.connection.last_insert_rowid()))
}

pub(super) fn update_campaign(tx: &mut Tx<'_>, campaign: &Campaign, entry: &AuditEntry) -> Result<()> {
    let sbx = tx.state.facts.sandbox(tx.connection, campaign.sandbox)?.sbx;
    let live = store_live_version(tx, sbx, campaign)?;
    let changed = tx.connection.execute(
        "UPDATE campaign SET status = ?3, live = ?4, draft = ?5, stamps = ?6, revision = ?7 \
         WHERE id = ?1 AND sbx = ?2 AND revision = ?7 - 1",
        params![
            campaign.id.bytes(),
            sbx,
            status_text(campaign.status),
            live,
            campaign.draft.as_ref().map(json_of).transpose()?,
            json_of(&campaign.stamps)?,
            campaign.stamps.revision
        ],
    )?;
    if changed == 0 {
        return Err(missing_or_changed(tx, "campaign", campaign.id.bytes(), sbx, "campaign")?);
    }
    tx.state.memory.campaigns.remove(&(sbx, campaign.id));
    audit(tx, entry)
}

pub(super) fn delete_campaign(tx: &mut Tx<'_>, edit: Edit<CampaignId>, entry: &AuditEntry) -> Result<()> {
    let sbx = tx.state.facts.sandbox(tx.connection, edit.sandbox)?.sbx;
    let stored = campaign(tx.connection, edit.sandbox, edit.id)?;
    if stored.status != CampaignStatus::Draft {
        let why = "only a campaign that was never activated can be deleted; stop it instead".to_owned();
        return Err(StoreError::Conflict(Conflict::State(why)));
    }
    let sql = "DELETE FROM campaign WHERE id = ?1 AND revision = coalesce(?2, revision)";
    if tx.connection.execute(sql, params![edit.id.bytes(), edit.seen_revision])? == 0 {
        return Err(StoreError::Changed);
    }
    tx.state.memory.campaigns.remove(&(sbx, edit.id));
    audit(tx, entry)
}
