//! `esito api-key create`.

use super::tenancy::{Founder, KeyRequest, NewKey};
use super::{ConfigArgs, Failure, Outcome, print_line, store};
use crate::clock::{SystemClock, SystemEntropy};
use ::store::{Store, StoreError, Use};
use model::clock::Clock as _;
use model::tenancy::{DEFAULT_SANDBOX, Role, is_organization_id};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The arguments of `esito api-key create`.
#[derive(Debug, clap::Args)]
pub struct ApiKeyCreate {
    /// The organization, such as acme@EsitoOrg; made with the sandbox prod where it is missing
    #[arg(long, value_name = "ID", value_parser = organization_id)]
    org: String,
    /// What the key may do: admin, operator, sender or viewer
    #[arg(long, value_parser = role)]
    role: Role,
    /// A name for people, also what createdBy shows [default: the role]
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// The sandboxes that the key may work in, with commas [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 1)]
    sandboxes: Option<Vec<String>>,
    /// Ends the key after so many days [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_in_days: Option<u32>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

fn role(name: &str) -> Result<Role, String> {
    Role::parse(name).ok_or_else(|| "admin, operator, sender or viewer".to_owned())
}

fn organization_id(id: &str) -> Result<String, String> {
    if is_organization_id(id) {
        Ok(id.to_owned())
    } else {
        Err("1 to 128 letters, digits and . _ - @, such as acme@EsitoOrg".to_owned())
    }
}

fn name(name: &str) -> Result<String, String> {
    let mut faults = model::fault::Faults::default();
    faults.check_name("name", name);
    match faults.list().first() {
        None => Ok(name.to_owned()),
        Some(fault) => Err(fault.message.clone()),
    }
}

impl ApiKeyCreate {
    /// Makes the key on the store itself, beside a server that may be running, and prints it.
    pub async fn run(self) -> Outcome {
        let config = self.config.load()?.config;
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let store = store::open(&config, Use::Administration, &*entropy).await?.store;
        let made = self.make(&Founder { store: store.clone(), clock, entropy }).await;
        store.close().await;
        let NewKey { key, text } = made?;
        if !self.json {
            return print_line(&text);
        }
        let mut shown = json!(key);
        shown["key"] = Value::String(text);
        print_line(&shown.to_string())
    }

    async fn make(&self, founder: &Founder) -> Result<NewKey, Failure> {
        self.check_sandboxes(&*founder.store).await?;
        founder.ensure_organization(&self.org).await?;
        let lifetime = self.expires_in_days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
        let new = founder.new_key(KeyRequest {
            ims_org: self.org.clone(),
            role: self.role,
            name: self.name.clone().unwrap_or_else(|| self.role.as_str().to_owned()),
            sandboxes: self.sandboxes.clone(),
            expires_at: lifetime.map(|lifetime| SystemClock.now() + lifetime),
        });
        founder.store_key(&new).await?;
        Ok(new)
    }

    async fn check_sandboxes(&self, store: &dyn Store) -> Result<(), Failure> {
        let exists = !matches!(store.organization(&self.org).await, Err(StoreError::NotFound(_)));
        for name in self.sandboxes.iter().flatten() {
            let there = match store.sandbox(&self.org, name).await {
                Ok(_) => true,
                Err(StoreError::NotFound(_)) => !exists && name == DEFAULT_SANDBOX,
                Err(error) => return Err(error.into()),
            };
            if !there {
                return Err(Failure::new(format!("{} has no sandbox {name:?}", self.org)));
            }
        }
        Ok(())
    }
}
