//! Feedback webhooks as resources. Each change comes with its audit entry.

use super::admin::{By, audit, page};
use super::facts::Facts;
use super::rows::{big, json, moment, revision};
use super::session::{Done, Session, Values, col};
use crate::admin::Edit;
use crate::envelope::MasterKey;
use crate::lookup::{Listed, Page};
use crate::shared::rows::json_of;
use crate::shared::sealing::{seal_webhook, unseal_webhook};
use crate::{Conflict, StoreError};
use model::ids::{SandboxId, WebhookId};
use model::tenancy::AuditEntry;
use model::webhook::{SandboxRef, Stamps, Webhook, WebhookControl};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

macro_rules! webhooks {
    ($condition:literal) => {
        concat!(
            "SELECT w.id, s.org, s.id, s.name, w.settings, w.keys, w.control, w.failing_since, w.last_error, w.stamps, \
             w.revision, w.sealed FROM webhook w JOIN sandbox s ON s.sbx = w.sbx WHERE NOT w.deleting AND ",
            $condition
        )
    };
}

/// The webhook of a sandbox by its number.
pub(super) const WEBHOOK_OF: &str = webhooks!("w.sbx = $1");

/// Reads a webhook without its secrets, which come sealed beside it.
pub(super) fn read_webhook(row: &Row) -> Done<(Webhook, Option<Vec<u8>>)> {
    let mut stamps: Stamps = json(row, 9)?;
    stamps.revision = revision(row, 10)?;
    let mut control: WebhookControl = json(row, 6)?;
    (control.failing_since, control.last_error) = (moment(row, 7)?, col(row, 8)?);
    let webhook = Webhook {
        id: WebhookId(col(row, 0)?),
        ims_org: col(row, 1)?,
        sandbox: SandboxRef { id: SandboxId(col(row, 2)?), name: col(row, 3)? },
        settings: json(row, 4)?,
        keys: json(row, 5)?,
        control,
        stamps,
    };
    Ok((webhook, col(row, 11)?))
}

pub(super) async fn webhook(session: &Session, master: &MasterKey, sandbox: SandboxId, id: WebhookId) -> Done<Webhook> {
    let row = session.query_opt(webhooks!("w.id = $1 AND s.id = $2"), &[&id.0, &sandbox.0]).await?;
    Ok(unseal_webhook(master, read_webhook(row.as_ref().ok_or(StoreError::NotFound("feedback webhook"))?)?)?)
}

pub(super) async fn webhook_of(session: &Session, master: &MasterKey, sandbox: SandboxId) -> Done<Option<Webhook>> {
    let row = session.query_opt(webhooks!("s.id = $1"), &[&sandbox.0]).await?;
    row.as_ref().map(|row| Ok(unseal_webhook(master, read_webhook(row)?)?)).transpose()
}

pub(super) async fn webhooks(
    session: &Session,
    master: &MasterKey,
    sandboxes: &[SandboxId],
    wanted: &Page,
) -> Done<Listed<Webhook>> {
    let ids: Vec<Uuid> = sandboxes.iter().map(|id| id.0).collect();
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] = [(&ids, Type::UUID_ARRAY)];
    page(session, webhooks!("s.id = ANY($1)"), By::Id("w.id"), &values, wanted, |row| {
        let webhook = unseal_webhook(master, read_webhook(row)?)?;
        let key = webhook.id.bytes().to_vec();
        Ok((webhook, key))
    })
    .await
}

pub(super) async fn webhooks_with_keys(session: &Session) -> Done<Vec<Webhook>> {
    let rows = session.query(webhooks!("w.has_jwt_keys"), &[]).await?;
    rows.iter().map(|row| read_webhook(row).map(|(webhook, _)| webhook)).collect()
}

/// What is done to a webhook, without what attempts note.
fn control_of(webhook: &Webhook) -> Result<String, StoreError> {
    json_of(&WebhookControl { failing_since: None, last_error: None, ..webhook.control.clone() })
}

pub(super) async fn create_webhook(
    session: &Session,
    (facts, master): (&Facts, &MasterKey),
    mut webhook: Webhook,
    entry: &AuditEntry,
) -> Done<()> {
    let sbx = facts.sandbox(session, webhook.sandbox.id).await?.sbx;
    let sealed = seal_webhook(master, &mut webhook)?;
    let sql = "INSERT INTO webhook (id, sbx, name, settings, keys, has_jwt_keys, control, sealed, stamps, revision) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (sbx) DO NOTHING";
    let values: Values<'_> = &[
        &webhook.id.0,
        &sbx,
        &webhook.settings.name,
        &json_of(&webhook.settings)?,
        &json_of(&webhook.keys)?,
        &!webhook.keys.jwt.is_empty(),
        &control_of(&webhook)?,
        &sealed,
        &json_of(&webhook.stamps)?,
        &big(webhook.stamps.revision),
    ];
    if session.execute(sql, values).await? == 0 {
        let first = session.query_opt("SELECT id, name FROM webhook WHERE sbx = $1", &[&sbx]).await?;
        // It may be gone again.
        let first = first.ok_or(StoreError::Changed)?;
        let (id, name) = (WebhookId(col(&first, 0)?), col(&first, 1)?);
        return Err(StoreError::Conflict(Conflict::WebhookExists { id, name }).into());
    }
    audit(session, entry).await
}

/// What attempts have noted has columns of its own: a caller's older copy undoes nothing of it.
pub(super) async fn update_webhook(
    session: &Session,
    (facts, master): (&Facts, &MasterKey),
    mut webhook: Webhook,
    entry: &AuditEntry,
) -> Done<()> {
    let sbx = facts.sandbox(session, webhook.sandbox.id).await?.sbx;
    let sealed = seal_webhook(master, &mut webhook)?;
    let sql = "UPDATE webhook SET name = $3, settings = $4, keys = $5, has_jwt_keys = $6, control = $7, sealed = $8, \
               stamps = $9, revision = $10 WHERE id = $1 AND sbx = $2 AND revision = $10::bigint - 1 AND NOT deleting";
    let values: Values<'_> = &[
        &webhook.id.0,
        &sbx,
        &webhook.settings.name,
        &json_of(&webhook.settings)?,
        &json_of(&webhook.keys)?,
        &!webhook.keys.jwt.is_empty(),
        &control_of(&webhook)?,
        &sealed,
        &json_of(&webhook.stamps)?,
        &big(webhook.stamps.revision),
    ];
    if session.execute(sql, values).await? == 0 {
        return Err(missing_or_changed(session, webhook.id, sbx).await?.into());
    }
    audit(session, entry).await
}

/// Marks a webhook as being deleted: from then on it gets nothing. Whoever records with it holds its key, and is waited
/// for. Returns its sandbox's number.
pub(super) async fn begin_delete(
    session: &Session,
    facts: &Facts,
    edit: Edit<WebhookId>,
    entry: &AuditEntry,
) -> Done<i64> {
    let sbx = facts.sandbox(session, edit.sandbox).await?.sbx;
    session.query("SELECT FROM webhook WHERE id = $1 AND sbx = $2 FOR UPDATE", &[&edit.id.0, &sbx]).await?;
    let sql = "UPDATE webhook SET deleting = true WHERE id = $1 AND sbx = $2 AND NOT deleting \
               AND revision = coalesce($3::bigint, revision)";
    if session.execute(sql, &[&edit.id.0, &sbx, &edit.seen_revision.map(big)]).await? == 0 {
        return Err(missing_or_changed(session, edit.id, sbx).await?.into());
    }
    audit(session, entry).await?;
    Ok(sbx)
}

/// The sandboxes whose webhook is being deleted, with their latest place in the feed: a process may have ended in the
/// middle of it.
pub(super) async fn being_deleted(session: &Session) -> Done<Vec<(i64, i64)>> {
    let sql = "SELECT w.sbx, f.last FROM webhook w JOIN feed f ON f.sbx = w.sbx WHERE w.deleting";
    session.query(sql, &[]).await?.iter().map(|row| Ok((col(row, 0)?, col(row, 1)?))).collect()
}

pub(super) async fn end_delete(session: &Session, sbx: i64) -> Done<()> {
    session.execute("DELETE FROM webhook WHERE sbx = $1 AND deleting", &[&sbx]).await.map(drop)
}

/// Why a change of a webhook changed nothing. One that is being deleted is gone for everybody.
async fn missing_or_changed(session: &Session, id: WebhookId, sbx: i64) -> Done<StoreError> {
    let there = "SELECT FROM webhook WHERE id = $1 AND sbx = $2 AND NOT deleting";
    let there = session.query_opt(there, &[&id.0, &sbx]).await?.is_some();
    Ok(if there { StoreError::Changed } else { StoreError::NotFound("feedback webhook") })
}
