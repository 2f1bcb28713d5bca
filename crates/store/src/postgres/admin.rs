//! Administration: organizations, sandboxes, API keys, the audit log. Each change comes with its audit entry.

use super::rows::{corrupt, json, moment};
use super::session::{Done, Session, Values, col};
use crate::admin::NewOrganization;
use crate::lookup::{Listed, Page};
use crate::shared::listing::{bad_cursor, cursor_bytes, hex};
use crate::shared::rows::{from_json, json_of};
use crate::{Conflict, StoreError};
use model::clock::Timestamp;
use model::ids::{ApiKeyId, AuditId, SandboxId};
use model::tenancy::{ApiKey, AuditEntry, Organization, Role, Sandbox};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

/// What a list is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Text(&'static str),
    Id(&'static str),
    IdFromTheNewest(&'static str),
}

/// A page of rows of `sql`, which ends in a `WHERE` clause with these values. `read` gives each item with the bytes of
/// what the list is ordered by.
pub(super) async fn page<T>(
    session: &Session,
    sql: &str,
    by: By,
    values: &[(&(dyn ToSql + Sync), Type)],
    page: &Page,
    read: impl Fn(&Row) -> Done<(T, Vec<u8>)>,
) -> Done<Listed<T>> {
    let (key, than, order) = match by {
        By::Text(key) | By::Id(key) => (key, ">", "ASC"),
        By::IdFromTheNewest(key) => (key, "<", "DESC"),
    };
    let after = page.cursor.as_deref().map(cursor_bytes).transpose()?;
    let after = after.map(|bytes| after_value(by, bytes)).transpose()?;
    let bound = after.as_ref().map_or(String::new(), |_| format!(" AND {key} {than} ${}", values.len() + 1));
    let sql = format!("{sql}{bound} ORDER BY {key} {order} LIMIT {}", page.limit + 1);
    let mut all = values.to_vec();
    all.extend(after.as_ref().map(|(value, of)| (&**value as &(dyn ToSql + Sync), of.clone())));
    let mut items = Vec::new();
    let mut last_key = None;
    for row in session.query_once(&sql, &all).await? {
        if items.len() == page.limit {
            return Ok(Listed { items, next: last_key.map(|key: Vec<u8>| hex(&key)) });
        }
        let (item, key) = read(&row)?;
        items.push(item);
        last_key = Some(key);
    }
    Ok(Listed { items, next: None })
}

type Owned = (Box<dyn ToSql + Sync + Send>, Type);

fn after_value(by: By, bytes: Vec<u8>) -> Result<Owned, StoreError> {
    match by {
        By::Text(_) => {
            let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(bad_cursor)?;
            Ok((Box::new(text), Type::TEXT))
        }
        By::Id(_) | By::IdFromTheNewest(_) => {
            Ok((Box::new(Uuid::from_slice(&bytes).map_err(|_| bad_cursor())?), Type::UUID))
        }
    }
}

pub(super) async fn audit(session: &Session, entry: &AuditEntry) -> Done<()> {
    let sql = "INSERT INTO audit_log (org, id, sandbox, at, actor, action, resource, detail) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let values: Values<'_> = &[
        &entry.ims_org,
        &entry.id.0,
        &entry.sandbox,
        &entry.at.millis(),
        &entry.actor,
        &entry.action,
        &entry.resource,
        &entry.detail.to_string(),
    ];
    session.execute(sql, values).await.map(drop)
}

pub(super) async fn audit_log(session: &Session, organization: &str, wanted: &Page) -> Done<Listed<AuditEntry>> {
    let sql = "SELECT id, org, sandbox, at, actor, action, resource, detail FROM audit_log WHERE org = $1";
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&organization, Type::TEXT)];
    page(session, sql, By::IdFromTheNewest("id"), &values, wanted, |row| {
        let id = AuditId(col(row, 0)?);
        let entry = AuditEntry {
            id,
            ims_org: col(row, 1)?,
            sandbox: col(row, 2)?,
            at: Timestamp(col(row, 3)?),
            actor: col(row, 4)?,
            action: col(row, 5)?,
            resource: col(row, 6)?,
            detail: json(row, 7)?,
        };
        Ok((entry, id.bytes().to_vec()))
    })
    .await
}

/// A name that cannot be in the database need not be looked for.
fn findable(name: &str, what: &'static str) -> Result<(), StoreError> {
    if name.contains('\0') { Err(StoreError::NotFound(what)) } else { Ok(()) }
}

// ---- organizations and sandboxes ----

pub(super) async fn create_organization(session: &Session, new: &NewOrganization, entry: &AuditEntry) -> Done<()> {
    let Organization { id, name, retention, created_at, created_by } = &new.organization;
    let sql = "INSERT INTO organization (id, name, created_at, created_by, retention) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT DO NOTHING";
    if session.execute(sql, &[id, name, &created_at.millis(), created_by, &json_of(retention)?]).await? == 0 {
        return Err(StoreError::Conflict(Conflict::Taken(format!("the organization id {id:?}"))).into());
    }
    if let Some(sandbox) = &new.sandbox {
        insert_sandbox(session, sandbox).await?;
    }
    audit(session, entry).await
}

fn read_organization(row: &Row) -> Done<(Organization, Vec<u8>)> {
    let id: String = col(row, 0)?;
    let key = id.clone().into_bytes();
    let created_at = Timestamp(col(row, 2)?);
    let retention: Option<&str> = col(row, 4)?;
    let retention = retention.map(from_json).transpose()?.unwrap_or_default();
    Ok((Organization { id, name: col(row, 1)?, retention, created_at, created_by: col(row, 3)? }, key))
}

pub(super) async fn update_organization(
    session: &Session,
    organization: &Organization,
    entry: &AuditEntry,
) -> Done<()> {
    let Organization { id, name, retention, .. } = organization;
    findable(id, "organization")?;
    let sql = "UPDATE organization SET name = $2, retention = $3 WHERE id = $1";
    if session.execute(sql, &[id, name, &json_of(retention)?]).await? == 0 {
        return Err(StoreError::NotFound("organization").into());
    }
    audit(session, entry).await
}

const ORGANIZATION: &str = "SELECT id, name, created_at, created_by, retention FROM organization WHERE id = $1";

pub(super) async fn organization(session: &Session, id: &str) -> Done<Organization> {
    findable(id, "organization")?;
    let row = session.query_opt(ORGANIZATION, &[&id]).await?;
    Ok(read_organization(row.as_ref().ok_or(StoreError::NotFound("organization"))?)?.0)
}

pub(super) async fn organizations(session: &Session, wanted: &Page) -> Done<Listed<Organization>> {
    let sql = "SELECT id, name, created_at, created_by, retention FROM organization WHERE true";
    page(session, sql, By::Text("id"), &[], wanted, read_organization).await
}

async fn insert_sandbox(session: &Session, sandbox: &Sandbox) -> Done<()> {
    let sql = "WITH made AS (INSERT INTO sandbox (id, org, name, created_at, created_by) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT (org, name) DO NOTHING RETURNING sbx) INSERT INTO feed (sbx, last) SELECT sbx, 0 FROM made";
    let Sandbox { id, ims_org, name, created_at, created_by } = sandbox;
    if session.execute(sql, &[&id.0, ims_org, name, &created_at.millis(), created_by]).await? == 0 {
        return Err(StoreError::Conflict(Conflict::Taken(format!("the sandbox name {name:?}"))).into());
    }
    Ok(())
}

pub(super) async fn create_sandbox(session: &Session, sandbox: &Sandbox, entry: &AuditEntry) -> Done<()> {
    organization(session, &sandbox.ims_org).await?;
    insert_sandbox(session, sandbox).await?;
    audit(session, entry).await
}

fn read_sandbox(row: &Row) -> Done<(Sandbox, Vec<u8>)> {
    let name: String = col(row, 2)?;
    let key = name.clone().into_bytes();
    let (id, created_at) = (SandboxId(col(row, 0)?), Timestamp(col(row, 3)?));
    Ok((Sandbox { id, ims_org: col(row, 1)?, name, created_at, created_by: col(row, 4)? }, key))
}

pub(super) async fn sandboxes(session: &Session, organization: &str, wanted: &Page) -> Done<Listed<Sandbox>> {
    let sql = "SELECT id, org, name, created_at, created_by FROM sandbox WHERE org = $1";
    page(session, sql, By::Text("name"), &[(&organization, Type::TEXT)], wanted, read_sandbox).await
}

pub(super) async fn sandbox(session: &Session, organization: &str, name: &str) -> Done<Sandbox> {
    findable(organization, "sandbox")?;
    findable(name, "sandbox")?;
    let sql = "SELECT id, org, name, created_at, created_by FROM sandbox WHERE org = $1 AND name = $2";
    let row = session.query_opt(sql, &[&organization, &name]).await?;
    Ok(read_sandbox(row.as_ref().ok_or(StoreError::NotFound("sandbox"))?)?.0)
}

// ---- API keys ----

pub(super) async fn create_api_key(session: &Session, key: &ApiKey, hash: &[u8; 32], entry: &AuditEntry) -> Done<()> {
    organization(session, &key.ims_org).await?;
    let sql = "INSERT INTO api_key (id, org, role, name, sandboxes, hash, expires_at, revoked_at, created_at, created_by) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let values: Values<'_> = &[
        &key.id.0,
        &key.ims_org,
        &key.role.as_str(),
        &key.name,
        &key.sandboxes.as_ref().map(json_of).transpose()?,
        &hash.as_slice(),
        &key.expires_at.map(Timestamp::millis),
        &key.revoked_at.map(Timestamp::millis),
        &key.created_at.millis(),
        &key.created_by,
    ];
    session.execute(sql, values).await?;
    audit(session, entry).await
}

macro_rules! api_key {
    ($condition:literal) => {
        concat!(
            "SELECT id, org, role, name, sandboxes, expires_at, revoked_at, created_at, created_by FROM api_key WHERE ",
            $condition
        )
    };
}

fn read_api_key(row: &Row) -> Done<(ApiKey, Vec<u8>)> {
    let id = ApiKeyId(col(row, 0)?);
    let sandboxes: Option<&str> = col(row, 4)?;
    let key = ApiKey {
        id,
        ims_org: col(row, 1)?,
        role: Role::parse(col(row, 2)?).ok_or_else(|| corrupt("not a role"))?,
        name: col(row, 3)?,
        sandboxes: sandboxes.map(from_json).transpose()?,
        expires_at: moment(row, 5)?,
        revoked_at: moment(row, 6)?,
        created_at: Timestamp(col(row, 7)?),
        created_by: col(row, 8)?,
    };
    Ok((key, id.bytes().to_vec()))
}

pub(super) async fn find_api_key(session: &Session, hash: &[u8; 32]) -> Done<Option<ApiKey>> {
    let row = session.query_opt(api_key!("hash = $1"), &[&hash.as_slice()]).await?;
    row.as_ref().map(|row| read_api_key(row).map(|(key, _)| key)).transpose()
}

pub(super) async fn api_key(session: &Session, id: ApiKeyId) -> Done<ApiKey> {
    let row = session.query_opt(api_key!("id = $1"), &[&id.0]).await?;
    Ok(read_api_key(row.as_ref().ok_or(StoreError::NotFound("API key"))?)?.0)
}

pub(super) async fn api_keys(session: &Session, organization: &str, wanted: &Page) -> Done<Listed<ApiKey>> {
    page(session, api_key!("org = $1"), By::Id("id"), &[(&organization, Type::TEXT)], wanted, read_api_key).await
}

pub(super) async fn revoke_api_key(
    session: &Session,
    id: ApiKeyId,
    now: Timestamp,
    entry: &AuditEntry,
) -> Done<ApiKey> {
    let sql = "UPDATE api_key SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
    if session.execute(sql, &[&id.0, &now.millis()]).await? == 1 {
        audit(session, entry).await?;
    }
    api_key(session, id).await
}

pub(super) async fn has_api_keys(session: &Session) -> Done<bool> {
    Ok(session.query_opt("SELECT FROM api_key LIMIT 1", &[]).await?.is_some())
}
