//! Where a test's server keeps its data: a case that takes one runs on every store.

#[cfg(feature = "peers")]
use store::postgres::throwaway::Database;

pub enum Backing {
    /// A file in the server's folder.
    Sqlite,
    /// A database that goes with the test.
    #[cfg(feature = "peers")]
    Postgres(Database),
}

impl Backing {
    #[cfg(feature = "peers")]
    pub async fn postgres() -> Self {
        Self::Postgres(Database::new().await)
    }

    /// After a `kill -9`: waits until the database has noticed that the process is gone, which may have left a commit on
    /// its way. Then its leases are made to end, as they would by themselves after half a minute.
    pub async fn settle(&self) {
        #[cfg(feature = "peers")]
        if let Self::Postgres(database) = self {
            let client = database.client().await;
            let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                          AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
            let gone = || async {
                let left: i64 = client.query_one(others, &[]).await.unwrap().get(0);
                (left == 0).then_some(())
            };
            super::until("the database to notice", gone).await;
            client.batch_execute("UPDATE shard SET until = 0").await.unwrap();
        }
    }

    /// The server's setting, over those of the test.
    pub fn setting(&self) -> Option<(&'static str, String)> {
        match self {
            Self::Sqlite => None,
            #[cfg(feature = "peers")]
            Self::Postgres(database) => Some(("database.url", format!("\"{}\"", database.url()))),
        }
    }
}

/// Makes tests of cases that take a [`Backing`], one on each store.
macro_rules! on_every_store {
    ($($case:ident),+ $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$case(&$crate::support::backing::Backing::Sqlite).await;
                }
            )+
        }

        #[cfg(feature = "peers")]
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$case(&$crate::support::backing::Backing::postgres().await).await;
                }
            )+
        }
    };
}
pub(crate) use on_every_store;
