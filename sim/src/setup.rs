//! The tenants of a run.

use crate::plan::WebhookPlan;
use crate::world::{ACME, START, Tenant, World};
use model::campaign::{Campaign, CampaignSettings, CampaignStatus, CampaignVersion};
use model::channel::{ChannelConfiguration, ChannelSettings};
use model::clock::Timestamp;
use model::ids::{
    ApiKeyId, AuditId, CampaignId, CampaignVersionId, ChannelConfigurationId, SandboxId, Shard, WebhookId,
};
use model::tenancy::{ApiKey, AuditEntry, Organization, Role, Sandbox};
use model::webhook::{SandboxRef, Stamps, Webhook};
use serde_json::{Value, json};
use store::admin::NewOrganization;
use store::{Result, Store, StoreError};

/// Makes them.
pub async fn set_up(world: &World, store: &dyn Store) -> Result<()> {
    let organization = Organization {
        id: ACME.to_owned(),
        name: ACME.to_owned(),
        retention: Default::default(),
        created_at: START,
        created_by: "sim".to_owned(),
    };
    store.create_organization(NewOrganization { organization, sandbox: None }, audit(world, "organization")).await?;
    let mut tenants = Vec::new();
    for number in 0..world.plan.sandboxes.len() {
        tenants.push(tenant(world, store, number).await?);
    }
    world.set_tenants(tenants);
    for number in 0..world.plan.sandboxes.len() {
        let plan = &world.plan.webhooks[number];
        store.create_webhook(webhook(world, plan, START)?, audit(world, "webhook")).await?;
        world.ledger(|ledger| {
            let life = &mut ledger.webhooks[number];
            (life.asked, life.made) = (Some(START), Some(START));
        });
    }
    Ok(())
}

/// An entry for the audit log.
pub fn audit(world: &World, resource: &str) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(world.now(), &*world.entropy),
        ims_org: ACME.to_owned(),
        sandbox: None,
        at: world.now(),
        actor: "sim".to_owned(),
        action: "sim".to_owned(),
        resource: resource.to_owned(),
        detail: json!({}),
    }
}

fn from_json<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// A webhook as planned.
pub fn webhook(world: &World, plan: &WebhookPlan, now: Timestamp) -> Result<Webhook> {
    let tenant = &world.tenants()[plan.sandbox];
    Ok(Webhook {
        id: WebhookId::new(now, &*world.entropy),
        ims_org: ACME.to_owned(),
        sandbox: SandboxRef { id: tenant.sandbox, name: tenant.name.clone() },
        settings: from_json(plan.settings.clone())?,
        keys: Default::default(),
        control: Default::default(),
        stamps: Stamps::new(now, "sim"),
    })
}

async fn tenant(world: &World, store: &dyn Store, number: usize) -> Result<Tenant> {
    let entropy = &*world.entropy;
    let (id, name) = (SandboxId::new(START, entropy), format!("sandbox-{number}"));
    let (ims_org, created_by) = (ACME.to_owned(), "sim".to_owned());
    let sandbox = Sandbox { id, ims_org, name: name.clone(), created_at: START, created_by };
    store.create_sandbox(sandbox, audit(world, "sandbox")).await?;
    let key = key(ApiKeyId::new(START, entropy), number);
    let key_id = key.id;
    let hash = [u8::try_from(number).unwrap_or(0); 32];
    store.create_api_key(key, hash, audit(world, "key")).await?;
    let channels = [channel(world, store, id, false).await?, channel(world, store, id, true).await?];
    let campaigns = [campaign(world, store, id, channels[0]).await?, campaign(world, store, id, channels[1]).await?];
    Ok(Tenant { sandbox: id, name, shard: Shard::of(ACME, id), key: key_id, channels, campaigns })
}

fn key(id: ApiKeyId, number: usize) -> ApiKey {
    ApiKey {
        id,
        ims_org: ACME.to_owned(),
        role: Role::Sender,
        name: format!("key {number}"),
        sandboxes: None,
        expires_at: None,
        revoked_at: None,
        created_at: START,
        created_by: "sim".to_owned(),
    }
}

async fn channel(world: &World, store: &dyn Store, sandbox: SandboxId, relay: bool) -> Result<ChannelConfigurationId> {
    let settings = match relay {
        false => json!({"name": "sim", "channel": "email", "type": "simulator"}),
        true => json!({"name": "relay", "channel": "email", "type": "smtp", "retryHours": 0.1667,
            "smtp": {"host": "relay.example", "port": 25, "maxConnections": 4}, "from": {"address": "a@example.com"}}),
    };
    let configuration = ChannelConfiguration {
        id: ChannelConfigurationId::new(START, &*world.entropy),
        ims_org: ACME.to_owned(),
        sandbox,
        settings: from_json::<ChannelSettings>(settings)?,
        paused: false,
        stamps: Stamps::new(START, "sim"),
    };
    let id = configuration.id;
    store.create_channel(configuration, audit(world, "channel")).await?;
    Ok(id)
}

async fn campaign(
    world: &World,
    store: &dyn Store,
    sandbox: SandboxId,
    channel: ChannelConfigurationId,
) -> Result<CampaignId> {
    let settings = json!({"name": "orders", "channel": "email", "channelConfigurationId": channel,
        "content": {"subject": "s", "text": "t"}, "audience": {"enableWebhooks": true}});
    let settings = from_json::<CampaignSettings>(settings)?;
    let version = CampaignVersion { id: CampaignVersionId::new(START, &*world.entropy), settings };
    let campaign = Campaign {
        id: CampaignId::new(START, &*world.entropy),
        ims_org: ACME.to_owned(),
        sandbox,
        status: CampaignStatus::Live,
        live: Some(version),
        draft: None,
        stamps: Stamps::new(START, "sim"),
    };
    let id = campaign.id;
    store.create_campaign(campaign, audit(world, "campaign")).await?;
    Ok(id)
}
