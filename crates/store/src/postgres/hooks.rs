//! The webhooks that a batch needs, as they are in its transaction. Their settings are read anew only where the revision
//! is another than the remembered one's.

use super::rows::{json, moment, revision};
use super::session::{Done, Session, col};
use super::webhooks::{WEBHOOK_OF, read_webhook};
use crate::shared::facts::Memory;
use model::ids::WebhookId;
use model::webhook::{Webhook, WebhookControl};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::Row;

/// Webhooks by sandbox, to be told apart by their revision. Their deletion waits for the end of the transaction.
pub(super) const HELD: &str = "SELECT sbx, id, revision, failing_since, last_error FROM webhook \
     WHERE sbx = ANY($1) AND NOT deleting ORDER BY sbx FOR KEY SHARE";

/// The same without holding anything up.
pub(super) const SEEN: &str =
    "SELECT sbx, id, revision, failing_since, last_error FROM webhook WHERE sbx = ANY($1) AND NOT deleting";

/// Webhooks without secrets and without what attempts have noted: these change with their revision alone.
#[derive(Debug, Default)]
pub(super) struct Hooks(Memory<(WebhookId, u64), Webhook>);

impl Hooks {
    /// The webhooks of rows of [`HELD`] or [`SEEN`], by sandbox.
    pub async fn read(&self, session: &Session, rows: &[Row]) -> Done<HashMap<i64, Arc<Webhook>>> {
        let mut found = HashMap::new();
        for row in rows {
            let sbx: i64 = col(row, 0)?;
            let known = self.0.get(&(WebhookId(col(row, 1)?), revision(row, 2)?));
            let webhook = match known {
                Some(known) => known,
                None => match self.load(session, sbx).await? {
                    Some(loaded) => loaded,
                    None => continue,
                },
            };
            let noted = WebhookControl {
                failing_since: moment(row, 3)?,
                last_error: col(row, 4)?,
                ..WebhookControl::default()
            };
            found.insert(sbx, with_notes(webhook, noted));
        }
        Ok(found)
    }

    async fn load(&self, session: &Session, sbx: i64) -> Done<Option<Arc<Webhook>>> {
        let Some(row) = session.query_opt(WEBHOOK_OF, &[&sbx]).await? else { return Ok(None) };
        let (mut webhook, _) = read_webhook(&row)?;
        (webhook.control.failing_since, webhook.control.last_error) = (None, None);
        let webhook = Arc::new(webhook);
        self.0.put((webhook.id, webhook.stamps.revision), Arc::clone(&webhook));
        Ok(Some(webhook))
    }
}

fn with_notes(webhook: Arc<Webhook>, noted: WebhookControl) -> Arc<Webhook> {
    if noted.failing_since.is_none() && noted.last_error.is_none() {
        return webhook;
    }
    let mut noting = Webhook::clone(&webhook);
    (noting.control.failing_since, noting.control.last_error) = (noted.failing_since, noted.last_error);
    Arc::new(noting)
}

/// Whether the sandbox's webhook is paused or disabled.
pub(super) async fn is_held(session: &Session, sbx: i64) -> Done<bool> {
    let Some(row) = session.query_opt("SELECT settings, control FROM webhook WHERE sbx = $1", &[&sbx]).await? else {
        return Ok(false);
    };
    let settings: model::webhook::WebhookSettings = json(&row, 0)?;
    let control: WebhookControl = json(&row, 1)?;
    Ok(!settings.enabled || control.paused || control.gone_at.is_some())
}
