//! The callers' connections: HTTP/1.1, one request at a time on each, kept as long as they last.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use url::Url;

/// The most connections at a time; further calls wait for one, and their latency grows by it.
const MOST: usize = 1_024;

/// A connection, ready for a request.
pub type Connection = SendRequest<Full<Bytes>>;

/// The connections to one server.
pub struct Connections {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Connections {
    /// To the server of this URL, with the authorities of `ca_file` trusted besides the system's.
    pub fn new(url: &Url, ca_file: Option<&Path>) -> Result<Self, String> {
        let host = url.host_str().ok_or("a URL without host")?.to_owned();
        let port = url.port_or_known_default().ok_or("a URL without port")?;
        let tls = match url.scheme() {
            "https" => {
                let extra = ca_file.map(super::super::certificate::read_certificates).transpose()?.unwrap_or_default();
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                Some((TlsConnector::from(outbound::tls::client_config(&extra)), name))
            }
            _ => None,
        };
        Ok(Self { host, port, tls, idle: Mutex::default(), places: Semaphore::new(MOST) })
    }

    /// Opens a connection.
    pub async fn open(&self) -> Result<Connection, String> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => handshake(tcp).await,
            Some((connector, name)) => {
                handshake(connector.connect(name.clone(), tcp).await.map_err(|error| error.to_string())?).await
            }
        }
    }

    /// Sends on an idle connection, or a new one, and keeps it.
    pub async fn call(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String> {
        let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
        let mut connection = match self.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let answer = exchange(&mut connection, request).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(answer)
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|connection| connection.is_ready())
    }
}

async fn handshake(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Connection, String> {
    let (sender, connection) =
        Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the sender; what goes wrong before is told to the request.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Sends a request and reads the whole answer.
pub async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    connection.ready().await.map_err(|error| error.to_string())?;
    let answer = connection.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((status, body))
}
