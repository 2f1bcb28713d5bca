//! The secrets of a webhook in and out of its envelope, and how a campaign's status is written.

use crate::envelope::MasterKey;
use crate::{Result, StoreError};
use model::campaign::CampaignStatus;
use model::secret::{HasSecrets, SecretMap};
use model::webhook::Webhook;

/// Puts the secrets of the envelope back into a webhook.
pub fn unseal_webhook(master: &MasterKey, (mut webhook, sealed): (Webhook, Option<Vec<u8>>)) -> Result<Webhook> {
    let secrets = master.open(webhook.id.bytes(), sealed.as_deref())?;
    webhook.settings.fill_secrets(&secrets);
    webhook.keys.fill_secrets(&secrets);
    Ok(webhook)
}

/// Takes a webhook's secrets out of it into an envelope.
pub fn seal_webhook(master: &MasterKey, webhook: &mut Webhook) -> Result<Option<Vec<u8>>> {
    let mut secrets: SecretMap = webhook.settings.take_secrets();
    secrets.extend(webhook.keys.take_secrets());
    master.seal(webhook.id.bytes(), &secrets)
}

pub fn campaign_status(text: &str) -> Result<CampaignStatus> {
    match text {
        "DRAFT" => Ok(CampaignStatus::Draft),
        "LIVE" => Ok(CampaignStatus::Live),
        "STOPPED" => Ok(CampaignStatus::Stopped),
        _ => Err(StoreError::Corrupt(format!("the campaign status {text:?}"))),
    }
}

pub fn status_text(status: CampaignStatus) -> &'static str {
    match status {
        CampaignStatus::Draft => "DRAFT",
        CampaignStatus::Live => "LIVE",
        CampaignStatus::Stopped => "STOPPED",
    }
}
