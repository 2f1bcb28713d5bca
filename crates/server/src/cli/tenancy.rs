//! Organizations and API keys made on the store itself: at the first start, and by `esito api-key create`.

use super::Failure;
use super::master_key::{Existing, write_private};
use crate::api::auth::{hash_key, new_key};
use model::clock::{Clock, Entropy, Timestamp};
use model::ids::{ApiKeyId, AuditId, SandboxId};
use model::tenancy::{ApiKey, AuditEntry, DEFAULT_ORGANIZATION, DEFAULT_SANDBOX, Organization, Role, Sandbox};
use serde::Serialize;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use store::admin::NewOrganization;
use store::{Conflict, Store, StoreError};

/// Who makes what no API key made, in the audit log.
const ACTOR: &str = "esito";

/// Makes what is there before any API key.
#[derive(Clone, Debug)]
pub struct Founder {
    /// Where it is made.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives the keys and ids.
    pub entropy: Arc<dyn Entropy>,
}

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    /// The organization it belongs to.
    pub ims_org: String,
    /// What it may do.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// The sandboxes it may work in; none: all.
    pub sandboxes: Option<Vec<String>>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
}

/// A key with its text, before it is stored.
pub struct NewKey {
    /// What is kept of it.
    pub key: ApiKey,
    /// What is shown once.
    pub text: String,
}

impl Founder {
    /// Makes the default organization and its admin key, unless the store has a key already. `show` gets the key's text
    /// before it is stored: a key that nobody has seen would lock everybody out.
    pub async fn first_start(&self, show: impl FnOnce(&str) -> Result<(), Failure>) -> Result<(), Failure> {
        if self.store.has_api_keys().await? {
            return Ok(());
        }
        self.ensure_organization(DEFAULT_ORGANIZATION).await?;
        let request = KeyRequest {
            ims_org: DEFAULT_ORGANIZATION.to_owned(),
            role: Role::Admin,
            name: "first start".to_owned(),
            sandboxes: None,
            expires_at: None,
        };
        let new = self.new_key(request);
        show(&new.text)?;
        self.store_key(&new).await
    }

    /// Makes the organization with the sandbox `prod`, unless it is there.
    pub async fn ensure_organization(&self, id: &str) -> Result<(), Failure> {
        match self.store.organization(id).await {
            Ok(_) => return Ok(()),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let now = self.clock.now();
        let made_by = ACTOR.to_owned();
        let organization = Organization {
            id: id.to_owned(),
            name: id.to_owned(),
            retention: Default::default(),
            created_at: now,
            created_by: made_by.clone(),
        };
        let sandbox = Sandbox {
            id: SandboxId::new(now, &*self.entropy),
            ims_org: id.to_owned(),
            name: DEFAULT_SANDBOX.to_owned(),
            created_at: now,
            created_by: made_by,
        };
        let audit = self.audit(id, "organization.create", id, &organization);
        match self.store.create_organization(NewOrganization { organization, sandbox: Some(sandbox) }, audit).await {
            // Somebody else was quicker, and that is as good.
            Err(StoreError::Conflict(Conflict::Taken(_))) => Ok(()),
            other => Ok(other?),
        }
    }

    /// A new key, not stored yet.
    pub fn new_key(&self, request: KeyRequest) -> NewKey {
        let now = self.clock.now();
        let key = ApiKey {
            id: ApiKeyId::new(now, &*self.entropy),
            ims_org: request.ims_org,
            role: request.role,
            name: request.name,
            sandboxes: request.sandboxes,
            expires_at: request.expires_at,
            revoked_at: None,
            created_at: now,
            created_by: ACTOR.to_owned(),
        };
        NewKey { key, text: new_key(&*self.entropy) }
    }

    /// Stores a key: from now on it opens.
    pub async fn store_key(&self, new: &NewKey) -> Result<(), Failure> {
        let audit = self.audit(&new.key.ims_org, "api-key.create", new.key.id, &new.key);
        Ok(self.store.create_api_key(new.key.clone(), hash_key(&new.text), audit).await?)
    }

    fn audit(&self, ims_org: &str, action: &str, resource: impl Display, detail: &impl Serialize) -> AuditEntry {
        let now = self.clock.now();
        AuditEntry {
            id: AuditId::new(now, &*self.entropy),
            ims_org: ims_org.to_owned(),
            sandbox: None,
            at: now,
            actor: ACTOR.to_owned(),
            action: action.to_owned(),
            resource: resource.to_string(),
            detail: serde_json::to_value(detail).expect("what the API shows is JSON"),
        }
    }
}

/// Writes a key's text into a file for its owner alone, on disk when this returns. Replaces the key of a first start
/// that did not come to its end, but no other file.
pub fn write_key_file(path: &Path, text: &str) -> Result<(), Failure> {
    let fault = |why: &dyn Display| Failure::new(format!("--print-key-file {}: {why}", path.display()));
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Err(fault(&"is no plain file")),
        Ok(_) => {
            let content = std::fs::read(path).map_err(|error| fault(&error))?;
            if !content.is_empty() && !content.starts_with(b"esito_") {
                return Err(fault(&"is there already, and is no key of Esito's"));
            }
        }
        Err(_) => {}
    }
    write_private(path, format!("{text}\n").as_bytes(), Existing::Replace).map_err(|error| fault(&error))
}
