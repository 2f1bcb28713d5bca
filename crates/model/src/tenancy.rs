//! Organizations, sandboxes, API keys and the audit log.

use crate::clock::Timestamp;
use crate::ids::{ApiKeyId, AuditId, SandboxId};
use crate::retention::RetentionOverride;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The organization that exists from the first start on; its admins may manage the others.
pub const DEFAULT_ORGANIZATION: &str = "default@EsitoOrg";

/// The sandbox that every new organization of the first start has.
pub const DEFAULT_SANDBOX: &str = "prod";

/// Whether `id` can be an organization's: 1 to 128 letters, digits and `. _ - @`.
pub fn is_organization_id(id: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    (1..=128).contains(&id.len()) && id.bytes().all(usual)
}

/// A tenant (`imsOrg`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// The id that callers name, e.g. `acme@EsitoOrg`.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// How long its data is kept, where not as the operator sets.
    pub retention: RetentionOverride,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// A sandbox: the unit that owns campaigns, messages and at most one feedback webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// The sandbox's id.
    pub id: SandboxId,
    /// The organization.
    pub ims_org: String,
    /// The name that callers put into `x-sandbox-name`.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything in its organization.
    Admin,
    /// Everything but API keys and organizations.
    Operator,
    /// Executions only, and reading its own.
    Sender,
    /// Reads.
    Viewer,
}

impl Role {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Sender => "sender",
            Self::Viewer => "viewer",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Admin, Self::Operator, Self::Sender, Self::Viewer].into_iter().find(|role| role.as_str() == name)
    }
}

/// An API key, as far as it is kept: the key itself is shown once and only its hash is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// The key's id.
    pub id: ApiKeyId,
    /// The organization it belongs to.
    pub ims_org: String,
    /// What it may do.
    pub role: Role,
    /// A name for people; also what `createdBy` shows.
    pub name: String,
    /// The names of the sandboxes it may work in; null: all of the organization.
    pub sandboxes: Option<Vec<String>>,
    /// When it ends by itself; null: never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked; null: it was not.
    pub revoked_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

impl ApiKey {
    /// Whether the key may be used at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether the key may work in the sandbox of this name.
    pub fn reaches_sandbox(&self, name: &str) -> bool {
        self.sandboxes.as_ref().is_none_or(|names| names.iter().any(|one| one == name))
    }
}

/// An entry of the audit log: who changed what.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// The entry's id.
    pub id: AuditId,
    /// The organization concerned.
    pub ims_org: String,
    /// The sandbox concerned, by name; null for what concerns the organization.
    pub sandbox: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The API key's name, or `esito` for the program itself.
    pub actor: String,
    /// What was done, e.g. `feedback-webhook.create`.
    pub action: String,
    /// The id of what it was done to.
    pub resource: String,
    /// The resource after the change, without secrets.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}
