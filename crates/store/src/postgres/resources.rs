//! Channel configurations and campaigns as resources. Each change comes with its audit entry.

use super::admin::{By, audit, page};
use super::facts::Facts;
use super::rows::{big, json, revision};
use super::session::{Done, Session, Values, col};
use crate::admin::Edit;
use crate::envelope::MasterKey;
use crate::lookup::{Listed, Page};
use crate::shared::rows::{from_json, json_of};
use crate::shared::sealing::{campaign_status, status_text};
use crate::{Conflict, StoreError};
use model::campaign::{Campaign, CampaignStatus, CampaignVersion};
use model::channel::ChannelConfiguration;
use model::ids::{CampaignId, CampaignVersionId, ChannelConfigurationId, SandboxId};
use model::secret::HasSecrets;
use model::tenancy::AuditEntry;
use model::webhook::Stamps;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

// ---- channel configurations ----

macro_rules! channels {
    ($condition:literal) => {
        concat!(
            "SELECT c.id, s.org, s.id, c.settings, c.paused, c.stamps, c.revision, c.sealed \
             FROM channel_configuration c JOIN sandbox s ON s.sbx = c.sbx WHERE ",
            $condition
        )
    };
}

fn read_channel(master: &MasterKey, row: &Row) -> Done<(ChannelConfiguration, Vec<u8>)> {
    let mut stamps: Stamps = json(row, 5)?;
    stamps.revision = revision(row, 6)?;
    let id = ChannelConfigurationId(col(row, 0)?);
    let mut channel = ChannelConfiguration {
        id,
        ims_org: col(row, 1)?,
        sandbox: SandboxId(col(row, 2)?),
        settings: json(row, 3)?,
        paused: col(row, 4)?,
        stamps,
    };
    channel.settings.fill_secrets(&master.open(id.bytes(), col(row, 7)?)?);
    Ok((channel, id.bytes().to_vec()))
}

pub(super) async fn channel(
    session: &Session,
    master: &MasterKey,
    sandbox: Option<SandboxId>,
    id: ChannelConfigurationId,
) -> Done<ChannelConfiguration> {
    let missing = || StoreError::NotFound("channel configuration");
    let row = session.query_opt(channels!("c.id = $1"), &[&id.0]).await?.ok_or_else(missing)?;
    if sandbox.is_some_and(|sandbox| col(&row, 2).ok() != Some(sandbox.0)) {
        return Err(missing().into());
    }
    Ok(read_channel(master, &row)?.0)
}

pub(super) async fn channels(
    session: &Session,
    master: &MasterKey,
    sandbox: SandboxId,
    wanted: &Page,
) -> Done<Listed<ChannelConfiguration>> {
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&sandbox.0, Type::UUID)];
    page(session, channels!("s.id = $1"), By::Id("c.id"), &values, wanted, |row| read_channel(master, row)).await
}

pub(super) async fn create_channel(
    session: &Session,
    (facts, master): (&Facts, &MasterKey),
    mut channel: ChannelConfiguration,
    entry: &AuditEntry,
) -> Done<()> {
    let sbx = facts.sandbox(session, channel.sandbox).await?.sbx;
    let sealed = master.seal(channel.id.bytes(), &channel.settings.take_secrets())?;
    let sql = "INSERT INTO channel_configuration (id, sbx, settings, paused, sealed, stamps, revision) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (settings, stamps) = (json_of(&channel.settings)?, json_of(&channel.stamps)?);
    let values: Values<'_> =
        &[&channel.id.0, &sbx, &settings, &channel.paused, &sealed, &stamps, &big(channel.stamps.revision)];
    session.execute(sql, values).await?;
    audit(session, entry).await
}

pub(super) async fn update_channel(
    session: &Session,
    (facts, master): (&Facts, &MasterKey),
    mut channel: ChannelConfiguration,
    entry: &AuditEntry,
) -> Done<()> {
    let sbx = facts.sandbox(session, channel.sandbox).await?.sbx;
    let sealed = master.seal(channel.id.bytes(), &channel.settings.take_secrets())?;
    let sql = "UPDATE channel_configuration SET settings = $3, paused = $4, sealed = $5, stamps = $6, revision = $7 \
               WHERE id = $1 AND sbx = $2 AND revision = $7::bigint - 1";
    let (settings, stamps) = (json_of(&channel.settings)?, json_of(&channel.stamps)?);
    let values: Values<'_> =
        &[&channel.id.0, &sbx, &settings, &channel.paused, &sealed, &stamps, &big(channel.stamps.revision)];
    if session.execute(sql, values).await? == 0 {
        return Err(channel_missing_or_changed(session, channel.id, sbx).await?.into());
    }
    audit(session, entry).await
}

/// Locks the configuration first: a campaign that is made or goes live with it meanwhile holds its key.
pub(super) async fn delete_channel(
    session: &Session,
    facts: &Facts,
    edit: Edit<ChannelConfigurationId>,
    entry: &AuditEntry,
) -> Done<()> {
    let sbx = facts.sandbox(session, edit.sandbox).await?.sbx;
    let locked = "SELECT FROM channel_configuration WHERE id = $1 AND sbx = $2 FOR UPDATE";
    session.query(locked, &[&edit.id.0, &sbx]).await?;
    let used = "SELECT FROM channel_configuration c WHERE c.id = $1 AND c.sbx = $2 AND (\
                EXISTS (SELECT FROM campaign_version v WHERE v.q = c.q) \
                OR EXISTS (SELECT FROM campaign p WHERE p.sbx = c.sbx AND p.draft_channel = c.id))";
    if session.query_opt(used, &[&edit.id.0, &sbx]).await?.is_some() {
        let why = "a campaign uses the channel configuration".to_owned();
        return Err(StoreError::Conflict(Conflict::InUse(why)).into());
    }
    let sql = "DELETE FROM channel_configuration WHERE id = $1 AND sbx = $2 \
               AND revision = coalesce($3::bigint, revision)";
    if session.execute(sql, &[&edit.id.0, &sbx, &edit.seen_revision.map(big)]).await? == 0 {
        return Err(channel_missing_or_changed(session, edit.id, sbx).await?.into());
    }
    audit(session, entry).await
}

async fn channel_missing_or_changed(session: &Session, id: ChannelConfigurationId, sbx: i64) -> Done<StoreError> {
    let there = "SELECT FROM channel_configuration WHERE id = $1 AND sbx = $2";
    let there = session.query_opt(there, &[&id.0, &sbx]).await?.is_some();
    Ok(if there { StoreError::Changed } else { StoreError::NotFound("channel configuration") })
}

// ---- campaigns ----

macro_rules! campaigns {
    ($condition:literal) => {
        concat!(
            "SELECT p.id, s.org, s.id, p.status, v.id, v.settings, p.draft, p.stamps, p.revision \
             FROM campaign p JOIN sandbox s ON s.sbx = p.sbx LEFT JOIN campaign_version v ON v.ver = p.live WHERE ",
            $condition
        )
    };
}

fn read_campaign(row: &Row) -> Done<(Campaign, Vec<u8>)> {
    let id = CampaignId(col(row, 0)?);
    let mut stamps: Stamps = json(row, 7)?;
    stamps.revision = revision(row, 8)?;
    let live = match col::<Option<Uuid>>(row, 4)? {
        Some(id) => Some(CampaignVersion { id: CampaignVersionId(id), settings: json(row, 5)? }),
        None => None,
    };
    let draft: Option<&str> = col(row, 6)?;
    let campaign = Campaign {
        id,
        ims_org: col(row, 1)?,
        sandbox: SandboxId(col(row, 2)?),
        status: campaign_status(col(row, 3)?)?,
        live,
        draft: draft.map(from_json).transpose()?,
        stamps,
    };
    Ok((campaign, id.bytes().to_vec()))
}

pub(super) async fn campaign(session: &Session, sandbox: SandboxId, id: CampaignId) -> Done<Campaign> {
    let row = session.query_opt(campaigns!("p.id = $1 AND s.id = $2"), &[&id.0, &sandbox.0]).await?;
    Ok(read_campaign(row.as_ref().ok_or(StoreError::NotFound("campaign"))?)?.0)
}

pub(super) async fn campaigns(session: &Session, sandbox: SandboxId, wanted: &Page) -> Done<Listed<Campaign>> {
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&sandbox.0, Type::UUID)];
    page(session, campaigns!("s.id = $1"), By::Id("p.id"), &values, wanted, read_campaign).await
}

pub(super) async fn campaign_versions(
    session: &Session,
    sandbox: SandboxId,
    id: CampaignId,
    wanted: &Page,
) -> Done<Listed<CampaignVersion>> {
    let read = |row: &Row| {
        let id = CampaignVersionId(col(row, 0)?);
        Ok((CampaignVersion { id, settings: json(row, 1)? }, id.bytes().to_vec()))
    };
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&id.0, Type::UUID)];
    let sql = "SELECT id, settings FROM campaign_version WHERE campaign = $1";
    let listed = page(session, sql, By::IdFromTheNewest("id"), &values, wanted, read).await?;
    campaign(session, sandbox, id).await?;
    Ok(listed)
}

/// What is written of a campaign besides its live version.
struct Draft {
    json: Option<String>,
    channel: Option<Uuid>,
    stamps: String,
}

impl Draft {
    /// Holds the key of the channel configuration that the draft names, so that it is not deleted meanwhile. One that
    /// is missing is found missing when the draft goes live.
    async fn new(session: &Session, sbx: i64, campaign: &Campaign) -> Done<Self> {
        let channel = campaign.draft.as_ref().map(|draft| draft.settings.channel_configuration_id.0);
        if let Some(channel) = channel {
            let held = "SELECT FROM channel_configuration WHERE id = $1 AND sbx = $2 FOR KEY SHARE";
            session.query(held, &[&channel, &sbx]).await?;
        }
        let json = campaign.draft.as_ref().map(json_of).transpose()?;
        Ok(Self { json, channel, stamps: json_of(&campaign.stamps)? })
    }
}

pub(super) async fn create_campaign(
    session: &Session,
    facts: &Facts,
    campaign: &Campaign,
    entry: &AuditEntry,
) -> Done<()> {
    let sbx = facts.sandbox(session, campaign.sandbox).await?.sbx;
    let live = store_live_version(session, sbx, campaign).await?;
    let draft = Draft::new(session, sbx, campaign).await?;
    let sql = "INSERT INTO campaign (id, sbx, status, live, draft, draft_channel, stamps, revision) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let status = status_text(campaign.status);
    let values: Values<'_> = &[
        &campaign.id.0,
        &sbx,
        &status,
        &live,
        &draft.json,
        &draft.channel,
        &draft.stamps,
        &big(campaign.stamps.revision),
    ];
    session.execute(sql, values).await?;
    audit(session, entry).await
}

/// Keeps the live version for good, if it is not kept already; returns its number.
async fn store_live_version(session: &Session, sbx: i64, campaign: &Campaign) -> Done<Option<i64>> {
    let Some(version) = &campaign.live else { return Ok(None) };
    let known = session.query_opt("SELECT ver FROM campaign_version WHERE id = $1", &[&version.id.0]).await?;
    if let Some(known) = known {
        return Ok(Some(col(&known, 0)?));
    }
    let sql = "INSERT INTO campaign_version (id, campaign, sbx, q, channel, settings) \
               SELECT $1, $2, c.sbx, c.q, $5, $6 FROM channel_configuration c WHERE c.id = $3 AND c.sbx = $4 RETURNING ver";
    let channel = version.settings.channel_configuration_id;
    let (name, settings) = (version.settings.channel.as_str(), json_of(&version.settings)?);
    let values: Values<'_> = &[&version.id.0, &campaign.id.0, &channel.0, &sbx, &name, &settings];
    let stored = session.query_opt(sql, values).await?;
    Ok(Some(col(&stored.ok_or(StoreError::NotFound("channel configuration"))?, 0)?))
}

pub(super) async fn update_campaign(
    session: &Session,
    facts: &Facts,
    campaign: &Campaign,
    entry: &AuditEntry,
) -> Done<()> {
    let sbx = facts.sandbox(session, campaign.sandbox).await?.sbx;
    let live = store_live_version(session, sbx, campaign).await?;
    let draft = Draft::new(session, sbx, campaign).await?;
    let sql = "UPDATE campaign SET status = $3, live = $4, draft = $5, draft_channel = $6, stamps = $7, revision = $8 \
               WHERE id = $1 AND sbx = $2 AND revision = $8::bigint - 1";
    let status = status_text(campaign.status);
    let values: Values<'_> = &[
        &campaign.id.0,
        &sbx,
        &status,
        &live,
        &draft.json,
        &draft.channel,
        &draft.stamps,
        &big(campaign.stamps.revision),
    ];
    if session.execute(sql, values).await? == 0 {
        let there = "SELECT FROM campaign WHERE id = $1 AND sbx = $2";
        let there = session.query_opt(there, &[&campaign.id.0, &sbx]).await?.is_some();
        return Err(if there { StoreError::Changed } else { StoreError::NotFound("campaign") }.into());
    }
    audit(session, entry).await
}

pub(super) async fn delete_campaign(session: &Session, edit: Edit<CampaignId>, entry: &AuditEntry) -> Done<()> {
    let stored = campaign(session, edit.sandbox, edit.id).await?;
    if stored.status != CampaignStatus::Draft {
        let why = "only a campaign that was never activated can be deleted; stop it instead".to_owned();
        return Err(StoreError::Conflict(Conflict::State(why)).into());
    }
    // Made live since it was looked at it stays.
    let sql = "DELETE FROM campaign WHERE id = $1 AND status = 'DRAFT' AND revision = coalesce($2::bigint, revision)";
    if session.execute(sql, &[&edit.id.0, &edit.seen_revision.map(big)]).await? == 0 {
        return Err(StoreError::Changed.into());
    }
    audit(session, entry).await
}
