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
