//! The TLS side of a listener.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use crate::pki::{Pair, PkiError};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate could not be had.
    #[error("get certificate")]
    Pki(#[source] PkiError),
    /// A PEM text is not what it should be.
    #[error("{0} is not valid PEM")]
    Pem(&'static str),
    /// The client authority cannot verify anything.
    #[error("set up verification of client certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// Certificate and key do not fit together, or the library refuses them.
    #[error("set up tls")]
    Rustls(#[from] rustls::Error),
}

/// A server configuration: this certificate; client certificates of `client_ca_pem` are asked for, checked
/// and optional; HTTP/2 before HTTP/1.1.
pub fn tls_config(serving: &Pair, client_ca_pem: &str) -> Result<ServerConfig, TlsError> {
    // AES-128 first: half the rounds of the library's default, and nobody asks for more.
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
                | rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        )
    });
    let provider = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(client_ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|_| TlsError::Pem("client authority"))?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)?;
    let chain = CertificateDer::pem_slice_iter(serving.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::Pem("serving certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes())
        .map_err(|_| TlsError::Pem("serving key"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(config)
}
