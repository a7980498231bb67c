//! TLS towards PostgreSQL: the server's name and certificate are always checked.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use crate::fault::Fault;

/// What a URL may name.
#[derive(Debug, Default)]
pub(crate) struct TlsFiles {
    pub(crate) roots: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

pub(crate) fn client(files: &TlsFiles) -> Result<ClientConfig, Fault> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Tls(error.to_string()))?
        .with_root_certificates(roots(files.roots.as_ref())?);
    match (&files.certificate, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("key", key, error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(|error| Fault::Tls(error.to_string()))
        }
        _ => Err(Fault::Tls("sslcert and sslkey go together".into())),
    }
}

fn roots(file: Option<&PathBuf>) -> Result<RootCertStore, Fault> {
    let mut store = RootCertStore::empty();
    let found = match file {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    store.add_parsable_certificates(found);
    if store.is_empty() {
        return Err(Fault::Tls(match file {
            Some(path) => format!("{} holds no certificate that can be used", path.display()),
            None => "this machine has no certificate authorities: name one with sslrootcert".into(),
        }));
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable("certificate", path, error))
}

fn unreadable(what: &'static str, path: &Path, error: pem::Error) -> Fault {
    match error {
        pem::Error::Io(error) => Fault::File { what, path: path.to_owned(), source: Arc::new(error) },
        error => Fault::Tls(format!("{} is no PEM file with a {what}: {error}", path.display())),
    }
}
