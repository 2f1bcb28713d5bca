//! TLS for everything that leaves.

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// A client's TLS: version 1.2 or later, the peer's certificate checked against the system's roots and `extra`.
///
/// The provider is named here, not taken from the process: a library that installs another default changes nothing.
pub fn client_config(extra: &[CertificateDer<'static>]) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has cipher suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots(extra))
        .with_no_client_auth();
    Arc::new(config)
}

fn roots(extra: &[CertificateDer<'static>]) -> RootCertStore {
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a root certificate of the system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    // Systems carry a few old roots that no longer parse; they are no reason to have none.
    roots.add_parsable_certificates(system.certs);
    let (_, refused) = roots.add_parsable_certificates(extra.iter().cloned());
    if refused > 0 {
        tracing::warn!(refused, "extra CA certificates cannot be used as roots");
    }
    if roots.is_empty() {
        tracing::warn!("there is no root certificate: no TLS certificate can be verified");
    }
    roots
}
