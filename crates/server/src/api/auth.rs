//! Who calls, what the key's role allows, and in which organization and sandbox the call works.
//!
//! A handler takes [`InSandbox`] or [`InOrganization`] with the right that it needs; there is no other way to a sandbox, so
//! a handler cannot forget to ask. Checks come in this order: key (401), role (403), organization (400, 403), sandbox
//! (400, 403, 404). Whether something exists in a foreign organization or sandbox is never told.

use super::Api;
use super::problem::Problem;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::FromRequestParts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderMap, header};
use model::clock::{Entropy, Timestamp};
use model::ids::{ApiKeyId, AuditId};
use model::tenancy::{ApiKey, AuditEntry, DEFAULT_ORGANIZATION, Role, Sandbox};
use serde::Serialize;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use store::StoreError;
use utoipa::IntoParams;

/// How API keys begin, so that they are known for what they are when they leak.
const KEY_PREFIX: &str = "esito_";
/// The length of an API key: the prefix and 32 bytes in base64url.
const KEY_CHARS: usize = KEY_PREFIX.len() + 43;

const ORGANIZATION_HEADER: &str = "x-gw-ims-org-id";
const SANDBOX_HEADER: &str = "x-sandbox-name";

/// A new API key: to be shown once and kept by its hash only.
pub fn new_key(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// What an API key is found by. 256 random bits need no slow hash.
pub fn hash_key(key: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    hash
}

/// What a call may do.
pub trait Right: Send + Sync + 'static {
    /// The roles that have it.
    const ROLES: &'static [Role];
    /// What it is, as the end of "may".
    const WHAT: &'static str;
}

macro_rules! rights {
    ($($(#[$doc:meta])* $name:ident: $($role:ident)* = $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;
        impl Right for $name {
            const ROLES: &'static [Role] = &[$(Role::$role),*];
            const WHAT: &'static str = $what;
        }
    )*};
}

rights! {
    /// Sends executions.
    Sends: Admin Operator Sender = "send executions";
    /// Reads executions and what became of them; a sender only its own.
    ReadsOwn: Admin Operator Sender Viewer = "read";
    /// Reads everything but API keys.
    Reads: Admin Operator Viewer = "read this";
    /// Makes sandboxes and changes what they have.
    Edits: Admin Operator = "change this";
    /// Manages organizations and API keys.
    Administers: Admin = "manage organizations and API keys";
}

/// The headers of a call in an organization.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct OrganizationHeader {
    /// The organization; the key's own by default.
    #[param(rename = "x-gw-ims-org-id", example = "acme@EsitoOrg")]
    #[expect(dead_code, reason = "read from the headers; the type is its documentation")]
    organization: Option<String>,
}

/// The headers of a call in a sandbox.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read from the headers; the type is its documentation")]
pub struct SandboxHeaders {
    /// The organization.
    #[param(rename = "x-gw-ims-org-id", example = "acme@EsitoOrg")]
    organization: String,
    /// The sandbox.
    #[param(rename = "x-sandbox-name", example = "prod")]
    sandbox: String,
}

/// Who calls.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key, which is live.
    pub key: Arc<ApiKey>,
}

impl Caller {
    /// The caller with this key.
    pub async fn of(api: &Api, key: &str) -> Result<Self, Problem> {
        if key.len() != KEY_CHARS || !key.starts_with(KEY_PREFIX) {
            return Err(Problem::Unauthenticated("the bearer token is no API key: those begin with esito_"));
        }
        let (hash, now) = (hash_key(key), api.clock.now());
        let found = match api.keys.get(&hash, now) {
            Some(key) => key,
            None => {
                let key = api.store.find_api_key(hash).await?;
                let key = Arc::new(key.ok_or(Problem::Unauthenticated("there is no such API key"))?);
                api.keys.put(hash, Arc::clone(&key), now);
                key
            }
        };
        Self::live(found, now)
    }

    /// The caller whose key has this id: somebody who is signed in at the console.
    pub async fn of_id(api: &Api, id: ApiKeyId) -> Result<Self, Problem> {
        match api.store.api_key(id).await {
            Ok(key) => Self::live(Arc::new(key), api.clock.now()),
            Err(StoreError::NotFound(_)) => Err(Problem::Unauthenticated("there is no such API key")),
            Err(error) => Err(error.into()),
        }
    }

    fn live(key: Arc<ApiKey>, now: Timestamp) -> Result<Self, Problem> {
        if key.is_live(now) {
            return Ok(Self { key });
        }
        Err(Problem::Unauthenticated(match key.revoked_at {
            Some(_) => "the API key was revoked",
            None => "the API key has expired",
        }))
    }

    /// Who makes this call: by its header, or known already, where the console makes it from within.
    async fn of_parts(api: &Api, parts: &Parts) -> Result<Self, Problem> {
        match parts.extensions.get::<Self>() {
            Some(known) => Ok(known.clone()),
            None => Self::of_headers(api, &parts.headers).await,
        }
    }

    async fn of_headers(api: &Api, headers: &HeaderMap) -> Result<Self, Problem> {
        let missing = Problem::Unauthenticated("send the header authorization: Bearer <API key>");
        let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return Err(missing);
        };
        match value.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Self::of(api, key.trim()).await,
            _ => Err(missing),
        }
    }

    /// Whether the key may act in every organization.
    pub fn crosses_organizations(&self) -> bool {
        self.key.role == Role::Admin && self.key.ims_org == DEFAULT_ORGANIZATION && self.key.sandboxes.is_none()
    }

    /// Whether the key may do `R` at all.
    pub fn check<R: Right>(&self) -> Result<(), Problem> {
        if R::ROLES.contains(&self.key.role) { Ok(()) } else { Err(Problem::RoleForbids(R::WHAT)) }
    }

    /// Whether the key may work in the organization.
    pub fn check_organization(&self, id: &str) -> Result<(), Problem> {
        let reaches = self.key.ims_org == id || self.crosses_organizations();
        if reaches { Ok(()) } else { Err(Problem::ForeignOrganization) }
    }
}

/// A call in an organization by a key that has the right `R`.
pub struct InOrganization<R> {
    /// Who calls.
    pub caller: Caller,
    /// The organization.
    pub ims_org: String,
    right: PhantomData<fn() -> R>,
}

/// A call in a sandbox by a key that has the right `R`.
pub struct InSandbox<R> {
    /// Who calls.
    pub caller: Caller,
    /// The sandbox, which is one of the organization's.
    pub sandbox: Arc<Sandbox>,
    right: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for InOrganization<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InOrganization").field("ims_org", &self.ims_org).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for InSandbox<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InSandbox").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl<R: Right> InOrganization<R> {
    /// A call in the organization `ims_org`; none: in the key's own.
    pub fn enter(caller: Caller, ims_org: Option<&str>) -> Result<Self, Problem> {
        caller.check::<R>()?;
        let ims_org = ims_org.unwrap_or(&caller.key.ims_org);
        caller.check_organization(ims_org)?;
        Ok(Self { ims_org: ims_org.to_owned(), caller, right: PhantomData })
    }

    /// The same call in the organization that its body names, where it names one.
    pub fn named_in_body(self, ims_org: Option<&str>) -> Result<Self, Problem> {
        match ims_org {
            None => Ok(self),
            Some(_) => Self::enter(self.caller, ims_org),
        }
    }

    /// The organization's sandbox of this name.
    pub async fn sandbox(self, api: &Api, name: &str) -> Result<InSandbox<R>, Problem> {
        // A key for some sandboxes is told the same about any other, whether it exists or not.
        if !self.caller.key.reaches_sandbox(name) {
            return Err(Problem::ForeignSandbox);
        }
        let sandbox = api.sandbox(&self.ims_org, name).await?;
        Ok(InSandbox { caller: self.caller, sandbox, right: PhantomData })
    }

    /// The entry in the audit log for a change that this call makes to the organization.
    pub fn audit(
        &self,
        api: &Api,
        now: Timestamp,
        action: &str,
        resource: impl fmt::Display,
        detail: &impl Serialize,
    ) -> AuditEntry {
        entry(api, &self.caller, &self.ims_org, None, now, action, resource.to_string(), detail)
    }
}

impl InSandbox<Edits> {
    /// The same call with no more than the right to read, which whoever edits has too.
    pub fn narrowed(self) -> InSandbox<Reads> {
        InSandbox { caller: self.caller, sandbox: self.sandbox, right: PhantomData }
    }
}

impl<R: Right> InSandbox<R> {
    /// For a key that may see its own executions only: its id.
    pub fn own_only(&self) -> Option<ApiKeyId> {
        (self.caller.key.role == Role::Sender).then_some(self.caller.key.id)
    }

    /// Whether the caller may see what was sent with `key`.
    pub fn sees(&self, key: ApiKeyId) -> bool {
        self.own_only().is_none_or(|own| own == key)
    }

    /// The name that `createdBy` and the audit log show.
    pub fn by(&self) -> &str {
        &self.caller.key.name
    }

    /// The entry in the audit log for a change that this call makes to the sandbox.
    pub fn audit(
        &self,
        api: &Api,
        now: Timestamp,
        action: &str,
        resource: impl fmt::Display,
        detail: &impl Serialize,
    ) -> AuditEntry {
        let Sandbox { ims_org, name, .. } = &*self.sandbox;
        entry(api, &self.caller, ims_org, Some(name), now, action, resource.to_string(), detail)
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of an entry, each once")]
fn entry(
    api: &Api,
    caller: &Caller,
    ims_org: &str,
    sandbox: Option<&str>,
    now: Timestamp,
    action: &str,
    resource: String,
    detail: &impl Serialize,
) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(now, &*api.entropy),
        ims_org: ims_org.to_owned(),
        sandbox: sandbox.map(str::to_owned),
        at: now,
        actor: caller.key.name.clone(),
        action: action.to_owned(),
        resource,
        detail: serde_json::to_value(detail).expect("what is read through the API is JSON"),
    }
}

/// The value of a header that may be there once.
fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Problem::MissingHeader(name)),
        _ => Err(Problem::MissingHeader(name)),
    }
}

fn required<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Problem> {
    text(headers, name)?.filter(|value| !value.is_empty()).ok_or(Problem::MissingHeader(name))
}

impl<R: Right> FromRequestParts<Arc<Api>> for InOrganization<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let caller = Caller::of_parts(api, parts).await?;
        caller.check::<R>()?;
        Self::enter(caller, text(&parts.headers, ORGANIZATION_HEADER)?)
    }
}

impl<R: Right> FromRequestParts<Arc<Api>> for InSandbox<R> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let caller = Caller::of_parts(api, parts).await?;
        caller.check::<R>()?;
        let ims_org = required(&parts.headers, ORGANIZATION_HEADER)?;
        let organization = InOrganization::<R>::enter(caller, Some(ims_org))?;
        organization.sandbox(api, required(&parts.headers, SANDBOX_HEADER)?).await
    }
}

impl Api {
    /// The sandbox of this name. Sandboxes are never renamed or deleted, so a known one stays known for a while.
    async fn sandbox(&self, ims_org: &str, name: &str) -> Result<Arc<Sandbox>, Problem> {
        let key = (ims_org.to_owned(), name.to_owned());
        let now = self.clock.now();
        if let Some(sandbox) = self.sandboxes.get(&key, now) {
            return Ok(sandbox);
        }
        let sandbox = match self.store.sandbox(ims_org, name).await {
            Ok(sandbox) => Arc::new(sandbox),
            Err(StoreError::NotFound(_)) => return Err(Problem::UnknownSandbox),
            Err(error) => return Err(error.into()),
        };
        self.sandboxes.put(key, Arc::clone(&sandbox), now);
        Ok(sandbox)
    }
}

#[cfg(test)]
mod tests;
