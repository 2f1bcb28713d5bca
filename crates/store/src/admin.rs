//! Values of the administrative use cases.

use model::ids::SandboxId;
use model::tenancy::{Organization, Sandbox};

/// A new organization, with its first sandbox where one is wanted.
#[derive(Clone, Debug)]
pub struct NewOrganization {
    /// The organization.
    pub organization: Organization,
    /// Its first sandbox.
    pub sandbox: Option<Sandbox>,
}

/// Which resource a change is about.
#[derive(Clone, Copy, Debug)]
pub struct Edit<Id> {
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Its id.
    pub id: Id,
    /// The revision that the caller saw; none: any.
    pub seen_revision: Option<u64>,
}
