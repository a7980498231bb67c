//! Reads where the server is and how to be let in: from a kubeconfig, flags, or both.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::Engine as _;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use serde::Deserialize;

use crate::{
    cli::TargetOptions,
    failure::{Failure, Result},
};

/// A server and how to connect to it.
#[derive(Clone)]
pub(crate) struct Target {
    /// Host as in the certificate.
    pub(crate) name: ServerName<'static>,
    /// `host:port`, for the connection and the request's authority.
    pub(crate) authority: String,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) token: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<Named>,
    clusters: Vec<Named>,
    users: Vec<Named>,
}

/// Any of the three lists' elements.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    context: Context,
    cluster: Cluster,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

impl Target {
    /// Reads the files that the options name.
    pub(crate) fn read(options: &TargetOptions) -> Result<Self> {
        let (mut cluster, mut user, folder) = match &options.kubeconfig {
            Some(path) => current(path)?,
            None => (Cluster::default(), User::default(), PathBuf::new()),
        };
        if let Some(server) = &options.server {
            cluster.server.clone_from(server);
        }
        cluster.insecure_skip_tls_verify |= options.insecure_skip_tls_verify;
        replace(
            &mut cluster.certificate_authority,
            &options.certificate_authority,
            &mut cluster.certificate_authority_data,
        );
        replace(&mut user.client_certificate, &options.client_certificate, &mut user.client_certificate_data);
        replace(&mut user.client_key, &options.client_key, &mut user.client_key_data);
        let token = match (&options.token, user.token.take(), &user.token_file) {
            (Some(token), _, _) => Some(token.clone()),
            (None, Some(token), _) => Some(token),
            (None, None, Some(path)) => {
                Some(String::from_utf8_lossy(&read(&folder.join(path))?).trim().to_owned())
            }
            (None, None, None) => None,
        };
        let (name, authority) = address(&cluster.server)?;
        Ok(Self { name, authority, tls: Arc::new(tls(&cluster, &user, &folder)?), token })
    }
}

/// A file given as a flag takes the place of what the kubeconfig has.
fn replace(file: &mut Option<PathBuf>, flag: &Option<PathBuf>, data: &mut Option<String>) {
    if let Some(path) = flag {
        // Relative to where the user is, not to the kubeconfig.
        *file = Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        *data = None;
    }
}

fn current(path: &Path) -> Result<(Cluster, User, PathBuf)> {
    let wrong = |why: String| Failure::Kubeconfig { path: path.to_owned(), why };
    let text = String::from_utf8(read(path)?).map_err(|_| wrong("it is not text".into()))?;
    let config: Kubeconfig = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let find = |list: &'_ [Named], kind: &str, name: &str| {
        list.iter()
            .position(|item| item.name == name)
            .ok_or_else(|| wrong(format!("it has no {kind} {name:?}")))
    };
    let at = find(&config.contexts, "context", &config.current_context)?;
    let Some(Named { context, .. }) = config.contexts.get(at) else { return Err(wrong("no context".into())) };
    let cluster = find(&config.clusters, "cluster", &context.cluster)?;
    let user = find(&config.users, "user", &context.user)?;
    match (config.clusters.get(cluster), config.users.get(user)) {
        (Some(cluster), Some(user)) => {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            Ok((cluster.cluster.clone(), user.user.clone(), folder))
        }
        _ => Err(wrong("no cluster or user".into())),
    }
}

fn address(server: &str) -> Result<(ServerName<'static>, String)> {
    let wrong = |why: &str| Failure::Address { url: server.to_owned(), why: why.to_owned() };
    let uri: http::Uri = server.parse().map_err(|_| wrong("it is no URL"))?;
    if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
        return Err(wrong("it must begin with https://"));
    }
    let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(bare).map_err(|_| wrong("its host is no name or address"))?;
    Ok((name, format!("{host}:{}", uri.port_u16().unwrap_or(443))))
}

fn tls(cluster: &Cluster, user: &User, folder: &Path) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(Failure::Tls)?;
    let builder = if cluster.insecure_skip_tls_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        let what = "certificate authority";
        let pem = pem(what, &cluster.certificate_authority_data, &cluster.certificate_authority, folder)?;
        let pem = pem.ok_or_else(|| Failure::Credential {
            what,
            why: "give one, or --insecure-skip-tls-verify".into(),
        })?;
        for certificate in certificates(what, &pem)? {
            roots.add(certificate).map_err(Failure::Tls)?;
        }
        builder.with_root_certificates(roots)
    };
    let certificate =
        pem("client certificate", &user.client_certificate_data, &user.client_certificate, folder)?;
    let key = pem("client key", &user.client_key_data, &user.client_key, folder)?;
    let mut config = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("client certificate", &certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|error| Failure::Credential { what: "client key", why: error.to_string() })?;
            builder.with_client_auth_cert(chain, key).map_err(Failure::Tls)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Failure::Credential { what, why: error.to_string() })
}

fn pem(
    what: &'static str,
    data: &Option<String>,
    file: &Option<PathBuf>,
    folder: &Path,
) -> Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => base64::engine::general_purpose::STANDARD
            .decode(data.trim())
            .map(Some)
            .map_err(|error| Failure::Credential { what, why: error.to_string() }),
        (None, Some(file)) => read(&folder.join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Failure::Read { path: path.to_owned(), source })
}

/// Believes any certificate, as the user asked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let schemes = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
