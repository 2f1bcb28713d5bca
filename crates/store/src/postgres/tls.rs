//! TLS on the way to the database, as the URL's `sslmode` says: `disable`; `prefer`, the default, where the server
//! speaks it, against listeners alone; `require` (and `verify-ca`, `verify-full`), with the server's certificate checked
//! against the system's authorities or those of the file `sslrootcert`.

use super::session::{Done, Fault};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_rustls::TlsConnector;

/// What the URL says of TLS.
#[derive(Debug)]
pub(super) struct Tls {
    mode: SslMode,
    config: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// Takes what is about TLS out of a URL.
    pub fn of_url(url: &str) -> Result<(String, Self), String> {
        let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut authorities, mut rest) = ("prefer", None, Vec::new());
        for parameter in parameters.split('&').filter(|one| !one.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = value,
                Some(("sslrootcert", value)) => authorities = Some(value.replace("%2F", "/")),
                _ => rest.push(parameter),
            }
        }
        let (mode, config) = match mode {
            "disable" => (SslMode::Disable, None),
            "allow" | "prefer" => (SslMode::Prefer, Some(unchecked()?)),
            "require" | "verify-ca" | "verify-full" => (SslMode::Require, Some(checked(authorities.as_deref())?)),
            other => return Err(format!("sslmode={other}: expected disable, prefer, require or verify-full")),
        };
        let url = if rest.is_empty() { address.to_owned() } else { format!("{address}?{}", rest.join("&")) };
        Ok((url, Self { mode, config }))
    }

    pub fn ask(&self, config: &mut Config) {
        config.ssl_mode(self.mode);
    }

    /// Connects; a task keeps the connection going until the client is dropped. What ends it is told to whoever asks
    /// next.
    pub async fn connect(&self, config: &Config) -> Done<Client> {
        match &self.config {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(Fault::from)?;
                tokio::spawn(connection);
                Ok(client)
            }
            Some(tls) => {
                let (client, connection) = config.connect(Connector(Arc::clone(tls))).await.map_err(Fault::from)?;
                tokio::spawn(connection);
                Ok(client)
            }
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn with_verifier(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Arc::new(config))
}

/// With the certificate checked.
fn checked(authorities: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        Some(file) => {
            let fault = |error: &dyn std::fmt::Display| format!("sslrootcert={file}: {error}");
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| fault(&error))? {
                let certificate = certificate.map_err(|error| fault(&error))?;
                roots.add(certificate).map_err(|error| fault(&error))?;
            }
        }
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    with_verifier(verifier.map_err(|error| error.to_string())?)
}

/// With any certificate: what `prefer` is in all of PostgreSQL's clients.
fn unchecked() -> Result<Arc<ClientConfig>, String> {
    with_verifier(Arc::new(AnyCertificate(provider())))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes handshakes for tokio-postgres.
#[derive(Clone)]
struct Connector(Arc<ClientConfig>);

struct Handshake {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        // A Unix socket has no name, and no certificate either.
        let host = if host.is_empty() { "localhost" } else { host };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Handshake { config: Arc::clone(&self.0), name })
    }
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move { Ok(Stream(TlsConnector::from(self.config).connect(self.name, socket).await?)) })
    }
}

struct Stream(tokio_rustls::client::TlsStream<Socket>);

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_tls_is_taken_out_of_the_url() {
        let (url, tls) = Tls::of_url("postgres://u:p@h/d?sslmode=disable&connect_timeout=1").unwrap();
        assert_eq!((url.as_str(), tls.mode), ("postgres://u:p@h/d?connect_timeout=1", SslMode::Disable));
        let (url, tls) = Tls::of_url("postgres://h/d?sslmode=verify-full").unwrap();
        assert_eq!((url.as_str(), tls.mode), ("postgres://h/d", SslMode::Require));
        assert_eq!(Tls::of_url("postgres://h/d").unwrap().1.mode, SslMode::Prefer);
        assert!(Tls::of_url("postgres://h/d?sslmode=maybe").unwrap_err().contains("expected disable"));
        assert!(Tls::of_url("postgres://h/d?sslmode=require&sslrootcert=/nowhere.pem").is_err());
    }
}
