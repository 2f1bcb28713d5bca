//! The contract on PostgreSQL, and what is PostgreSQL's own: several nodes, batches, a database that goes away.

use super::throwaway::Database;
use super::*;
use crate::contract::fixtures::{START, all_shards, at, hard_bounce, page, plain, recipient};
use crate::contract::world::World;
use crate::contract::{Bench, Setup};
use crate::lookup::EventFilter;
use crate::work::What;
use model::delivery::{AttemptDecision, DeliveryState};
use model::ids::SHARDS;
use model::outcome::{FailureCategory, Verdict};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

/// A database that goes with the test.
#[derive(Default)]
struct Throwaway(OnceCell<Database>);

impl Throwaway {
    async fn database(&self) -> &Database {
        self.0.get_or_init(Database::new).await
    }

    async fn node(&self, setup: Setup) -> Result<Arc<PostgresStore>> {
        open(self.database().await.url(), setup).await
    }
}

async fn open(url: &str, setup: Setup) -> Result<Arc<PostgresStore>> {
    let store = PostgresStore::open(Options {
        url: url.into(),
        master_key: MasterKey::new(&setup.master_key),
        usage: Use::Work,
        max_waiting_messages: setup.max_waiting_messages,
    });
    Ok(Arc::new(store.await?))
}

#[async_trait]
impl Bench for Throwaway {
    async fn open(&self, setup: Setup) -> Result<Arc<dyn Store>> {
        Ok(self.node(setup).await? as Arc<dyn Store>)
    }

    async fn contents(&self) -> Vec<u8> {
        self.database().await.contents().await
    }
}

crate::contract_suite!(Throwaway::default());
