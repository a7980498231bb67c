//! TLS of the kubelet API: who may connect, and who it is.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use super::{ServerError, ServerOptions};

/// Accepts clients with a certificate of the given CA.
pub(super) fn acceptor(options: &ServerOptions) -> Result<TlsAcceptor, ServerError> {
    let fail = |what: &'static str| {
        move |error: &dyn std::fmt::Display| ServerError::Tls(format!("{what}: {error}"))
    };
    let certificates = |pem: &str, what: &'static str| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(fail(what)(&"no certificate in it")),
            Err(error) => Err(fail(what)(&error)),
        }
    };
    let chain = certificates(&options.certificate_pem, "the kubelet's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(options.key_pem.as_bytes())
        .map_err(|e| fail("the kubelet's key")(&e))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&options.client_ca_pem, "the client CA")? {
        roots.add(certificate).map_err(|error| fail("the client CA")(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| fail("the client CA")(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fail("the protocol")(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| fail("the kubelet's certificate")(&error))?;
    // Upgrades (exec, port-forward) exist in HTTP/1.1 only.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The user a client certificate stands for: its common name.
pub(super) fn user(certificates: Option<&[CertificateDer<'_>]>) -> Option<String> {
    let leaf = certificates?.first()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let name = parsed.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}
