//! Campaigns and their versions.

use crate::clock::Timestamp;
use crate::fault::Faults;
use crate::ids::{CampaignId, CampaignVersionId, ChannelConfigurationId, SandboxId};
use crate::webhook::{Channel, Stamps};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a campaign is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// The messages answer something that the person did.
    #[default]
    Transactional,
}

/// The content, as Handlebars templates over `context` and `profile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Content {
    /// Email: the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Email: the HTML body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Email: the text body, made from the HTML where absent. SMS: the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether a missing variable excludes the recipient instead of rendering empty.
    pub strict_variables: bool,
}

/// Who is addressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Audience {
    /// The namespace of the recipients' ids.
    pub identity_namespace: Option<String>,
    /// Whether the messages' events go to the sandbox's webhook.
    pub enable_webhooks: bool,
}

/// When executions are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Schedule {
    /// Not before.
    pub start_at: Option<Timestamp>,
    /// Not from then on.
    pub end_at: Option<Timestamp>,
}

/// What a caller sets on a campaign.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignSettings {
    /// A name for people.
    pub name: String,
    /// The channel.
    pub channel: Channel,
    /// What it is for.
    #[serde(default)]
    pub category: Category,
    /// Through what it is sent.
    pub channel_configuration_id: ChannelConfigurationId,
    /// The content.
    #[serde(default)]
    pub content: Content,
    /// Who is addressed.
    #[serde(default)]
    pub audience: Audience,
    /// Whether executions come by the high-throughput call.
    #[serde(default)]
    pub high_throughput_mode: bool,
    /// When executions are taken.
    #[serde(default)]
    pub schedule: Schedule,
}

/// The most bytes of one template.
const MAX_TEMPLATE_BYTES: usize = 512 * 1024;

impl CampaignSettings {
    /// Checks everything but the templates' syntax and the channel configuration's existence.
    pub fn check(&self, faults: &mut Faults) {
        faults.check_name("$.name", &self.name);
        let content = &self.content;
        let empty = |text: &Option<String>| text.as_deref().is_none_or(|text| text.trim().is_empty());
        match self.channel {
            Channel::Email => {
                faults.require(!empty(&content.subject), "$.content.subject", "is required for email");
                let body = !empty(&content.html) || !empty(&content.text);
                faults.require(body, "$.content.html", "html or text is required for email");
            }
            Channel::Sms => {
                faults.require(!empty(&content.text), "$.content.text", "is required for SMS");
                faults.require(content.subject.is_none(), "$.content.subject", "SMS has no subject; remove it");
                faults.require(content.html.is_none(), "$.content.html", "SMS has no HTML; remove it");
            }
        }
        for (path, text) in [("subject", &content.subject), ("html", &content.html), ("text", &content.text)] {
            let fits = text.as_ref().is_none_or(|text| text.len() <= MAX_TEMPLATE_BYTES);
            faults.require(fits, &format!("$.content.{path}"), "must have at most 512 KiB");
        }
        if let (Some(start), Some(end)) = (self.schedule.start_at, self.schedule.end_at) {
            faults.require(start < end, "$.schedule.endAt", "must be later than startAt");
        }
    }
}

/// Where a campaign stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum CampaignStatus {
    /// Never activated; may be deleted.
    Draft,
    /// Takes executions.
    Live,
    /// Stopped for good.
    Stopped,
}

/// A campaign: its draft, if there is one, and what is live.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// Its organization.
    pub ims_org: String,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Where it stands.
    pub status: CampaignStatus,
    /// The live version (the last live one of a stopped campaign).
    pub live: Option<CampaignVersion>,
    /// A version that is not activated yet.
    pub draft: Option<CampaignVersion>,
    /// Who made and changed it, and when.
    pub stamps: Stamps,
}

/// A version of a campaign. Once it has been live it never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignVersion {
    /// Its id.
    pub id: CampaignVersionId,
    /// What a caller set.
    pub settings: CampaignSettings,
}

impl Campaign {
    /// The version that an edit changes: the draft, or else what is live.
    pub fn current(&self) -> Option<&CampaignVersion> {
        self.draft.as_ref().or(self.live.as_ref())
    }
}
