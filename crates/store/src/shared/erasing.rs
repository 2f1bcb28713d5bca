//! What erasures have in common in every store.

use crate::envelope::MasterKey;
use crate::{Result, StoreError};
use model::clock::Timestamp;
use model::ids::{ErasureId, ExecutionId, SandboxId};
use model::secret::SecretMap;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// The messages that are looked through in one go, and the most that are erased in one.
pub const WINDOW: usize = 20_000;
pub const MOST: usize = 200;

const ADDRESS: &str = "address";

/// The last message that was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub sbx: i64,
    pub exec: i64,
    pub ord: i64,
}

/// The address for as long as it is needed.
pub fn seal(master: &MasterKey, id: ErasureId, address: &str) -> Result<Option<Vec<u8>>> {
    let mut secrets = SecretMap::default();
    secrets.insert(ADDRESS, SecretString::from(address.to_owned()));
    master.seal(id.bytes(), &secrets)
}

pub fn unseal(master: &MasterKey, id: ErasureId, sealed: Option<&[u8]>) -> Result<String> {
    let secrets = master.open(id.bytes(), sealed)?;
    let address =
        secrets.get(ADDRESS).ok_or_else(|| StoreError::Corrupt("an erasure without an address".to_owned()))?;
    Ok(address.expose_secret().to_owned())
}

/// What the receipt has in the place of the address.
pub fn digest(master: &MasterKey, address: &str) -> String {
    let digest = master.digest(address.to_lowercase().as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Executions from here on were accepted after the erasure was asked for.
pub fn end(created_at: Timestamp) -> i64 {
    ExecutionId::floor_at(created_at + Duration::from_millis(1)).number()
}

/// What a step has done.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The sandbox that it was in.
    pub sandbox: Option<SandboxId>,
    /// There is nothing left to be looked through.
    pub is_over: bool,
}
