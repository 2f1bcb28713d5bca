//! The store that the configuration names: the one place where it matters which one it is.

use super::{Failure, master_key};
use crate::config::{Config, Database};
use model::clock::Entropy;
use std::path::Path;
use std::sync::Arc;
use store::envelope::MasterKey;
use store::postgres::{self, PostgresStore};
use store::sqlite::{self, SqliteStore};
use store::{Store, Use};

/// A store, open.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// This process' number among those that work on it, for the ids that it makes.
    pub node: u16,
    /// What the console's sessions are known by: the installation's own, on all nodes the same.
    pub session_secret: [u8; 32],
}

/// What [`Opened::session_secret`] is derived for.
const SESSIONS: &[u8] = b"console sessions";

/// The number of a node that is the only one.
const ONLY_NODE: u16 = 0;

/// Opens the store, with its master key.
pub async fn open(config: &Config, usage: Use, entropy: &dyn Entropy) -> Result<Opened, Failure> {
    let is_used = match &config.database {
        Database::Sqlite(file) => file.exists(),
        Database::Postgres(url) => postgres::is_used(url).await?,
    };
    let former = is_used.then(|| config.database.to_string());
    let master_key = master_key::master_key(&config.secrets, former.as_deref(), entropy).await?;
    let max_waiting_messages = config.limits.max_waiting_messages;
    let session_secret = master_key.digest(SESSIONS);
    match &config.database {
        Database::Sqlite(file) => {
            let store = open_file(config, file, master_key, usage).await?;
            Ok(Opened { store: Arc::new(store), node: ONLY_NODE, session_secret })
        }
        Database::Postgres(url) => {
            let options = postgres::Options { url: url.clone(), master_key, usage, max_waiting_messages };
            let store = PostgresStore::open(options).await?;
            Ok(Opened { node: store.node(), store: Arc::new(store), session_secret })
        }
    }
}

async fn open_file(config: &Config, file: &Path, master_key: MasterKey, usage: Use) -> Result<SqliteStore, Failure> {
    let folder = master_key::folder_of(file);
    master_key::make_folder(folder).map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    let limits = &config.limits;
    let (max_waiting_messages, min_free_disk_bytes) = (limits.max_waiting_messages, limits.min_free_disk_mib << 20);
    let options =
        sqlite::Options { file: file.to_owned(), master_key, usage, max_waiting_messages, min_free_disk_bytes };
    // Migrations may take long, and this is before anything else runs.
    let opened = tokio::task::spawn_blocking(|| SqliteStore::open(options)).await;
    Ok(opened.map_err(|error| Failure::new(format!("the store cannot be opened: {error}")))??)
}
