//! A node's first credentials: it asks for them with a bootstrap token (upstream `kubelet/certificate/bootstrap`), and then
//! for the certificate of its kubelet API.
//!
//! Guarantees: a key is made here and leaves this machine never; a request that waits for approval is waited for
//! again after a restart, not made anew; the kubeconfig appears whole, readable by its owner only. A certificate that is
//! soon over is replaced at the next start.

use std::path::{Path, PathBuf};

use apiserver::pki::{Kubeconfig, Login, Pair, create_private, read_if_there, write_private};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
};
use kube::{Api, Client, api::PostParams};
use meta::Clock;
use ring::digest::{SHA256, digest};
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, pem::parse_x509_pem};

use crate::{error::Failure, parts, term};

/// A certificate that is over sooner than this is not worth starting with.
const LEFT_MIN_SECONDS: i64 = 30 * 24 * 3600;
/// Between two looks at a request that waits.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be known to the API server.
    Client,
    /// To be known by the API server, under the node's name.
    Server,
}

impl Purpose {
    fn signer(self) -> &'static str {
        match self {
            Self::Client => csr::KUBELET_CLIENT,
            Self::Server => csr::KUBELET_SERVING,
        }
    }

    /// What whoever asks has to be allowed.
    fn needs(self) -> &'static str {
        match self {
            Self::Client => {
                "the group of a bootstrap token needs the role system:node-bootstrapper, as system:bootstrappers:nodes has it"
            }
            Self::Server => {
                "the user of the kubeconfig has to be system:node:NAME in the group system:nodes, NAME being that of --name"
            }
        }
    }

    fn usages(self) -> Vec<String> {
        let auth = match self {
            Self::Client => "client auth",
            Self::Server => "server auth",
        };
        vec!["digital signature".to_owned(), auth.to_owned()]
    }
}

/// Makes `kubeconfig` with the credentials of the node, unless it is there; false when told to stop meanwhile.
pub(crate) async fn credentials(
    node: &str,
    kubeconfig: &Path,
    bootstrap: &Path,
    clock: &dyn Clock,
    stop: &CancellationToken,
) -> Result<bool, Failure> {
    if lasts(kubeconfig, clock)? {
        return Ok(true);
    }
    let key_path = PathBuf::from(format!("{}.key", kubeconfig.display()));
    let key = key(&key_path)?;
    let client = parts::client(bootstrap).await?;
    if !parts::reach(&client, bootstrap, stop).await? {
        return Ok(false);
    }
    let Some(certificate) = ask(client, node, &key, Purpose::Client, stop).await? else { return Ok(false) };
    let made = Kubeconfig {
        cluster: "keelson".to_owned(),
        user: format!("system:node:{node}"),
        server: parts::cluster(bootstrap)?.server.unwrap_or_default(),
        ca_pem: parts::authority(bootstrap)?,
        login: Login::Certificate(Pair { cert_pem: certificate, key_pem: key.serialize_pem() }),
    };
    made.write(kubeconfig).map_err(|error| Failure::of(format!("write {}", kubeconfig.display()), error))?;
    // It is in the kubeconfig now; what is left over would only be used again.
    drop(std::fs::remove_file(key_path));
    Ok(true)
}

/// The certificate of the node's kubelet API: that of its kubeconfig where it will do, as an API server writes it, else
/// one that is asked for and kept in `directory`. `None` when told to stop meanwhile.
pub(crate) async fn serving(
    node: &str,
    kubeconfig: &Path,
    directory: &Path,
    client: Client,
    clock: &dyn Clock,
    stop: &CancellationToken,
) -> Result<Option<Pair>, Failure> {
    if let Some(pair) = pair_of(kubeconfig)?
        && serves(&pair.cert_pem, node, clock)
    {
        return Ok(Some(pair));
    }
    let doing = || format!("keep the certificate of the kubelet API in {}", directory.display());
    std::fs::create_dir_all(directory).map_err(|error| Failure::of(doing(), error))?;
    let path = directory.join("kubelet.crt");
    let key = key(&directory.join("kubelet.key"))?;
    let kept = read_if_there(&path).map_err(|error| Failure::of(doing(), error))?;
    let cert_pem = match kept.filter(|kept| serves(kept, node, clock) && is_of(kept, &key)) {
        Some(kept) => kept,
        None => {
            let Some(made) = ask(client, node, &key, Purpose::Server, stop).await? else { return Ok(None) };
            write_private(&path, &made).map_err(|error| Failure::of(doing(), error))?;
            made
        }
    };
    Ok(Some(Pair { cert_pem, key_pem: key.serialize_pem() }))
}

/// The certificate and key in a kubeconfig, where it has them in itself.
fn pair_of(kubeconfig: &Path) -> Result<Option<Pair>, Failure> {
    let doing = || format!("read {}", kubeconfig.display());
    let file =
        kube::config::Kubeconfig::read_from(kubeconfig).map_err(|error| Failure::of(doing(), error))?;
    let decoded = |text: &str| String::from_utf8(STANDARD.decode(text).ok()?).ok();
    let context = file.current_context;
    let context = file.contexts.into_iter().find(|named| Some(&named.name) == context.as_ref());
    let user = context.and_then(|named| named.context?.user);
    let user = file.auth_infos.into_iter().find(|named| Some(&named.name) == user.as_ref());
    let user = user.and_then(|named| named.auth_info);
    Ok(user.and_then(|user| {
        let key = user.client_key_data?;
        Some(Pair {
            cert_pem: decoded(&user.client_certificate_data?)?,
            key_pem: decoded(key.expose_secret())?,
        })
    }))
}

fn with_certificate<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> Option<T>) -> Option<T> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    look(&pem.parse_x509().ok()?)
}

/// Whether a server can show this certificate under that name, for a while.
fn serves(pem: &str, name: &str, clock: &dyn Clock) -> bool {
    let found = with_certificate(pem, |certificate| {
        let purposes = certificate.extended_key_usage().ok()??;
        let names = certificate.subject_alternative_name().ok()??;
        let address: Option<std::net::IpAddr> = name.parse().ok();
        let named = names.value.general_names.iter().any(|other| match other {
            GeneralName::DNSName(other) => *other == name,
            GeneralName::IPAddress(bytes) => address.is_some_and(|address| match address {
                std::net::IpAddr::V4(address) => address.octets() == **bytes,
                std::net::IpAddr::V6(address) => address.octets() == **bytes,
            }),
            _ => false,
        });
        let left = certificate.validity().not_after.timestamp() - clock.now().as_second();
        Some(purposes.value.server_auth && named && left > LEFT_MIN_SECONDS)
    });
    found.unwrap_or(false)
}

/// Whether the certificate is of this key.
fn is_of(pem: &str, key: &rcgen::KeyPair) -> bool {
    let same = with_certificate(pem, |certificate| {
        Some(*certificate.public_key().subject_public_key.data == *key.public_key_raw())
    });
    same.unwrap_or(false)
}

/// Whether there is a kubeconfig that serves for a while. Its certificate may be somebody else's making.
fn lasts(path: &Path, clock: &dyn Clock) -> Result<bool, Failure> {
    let doing = || format!("read {}", path.display());
    let Some(text) = read_if_there(path).map_err(|error| Failure::of(doing(), error))? else {
        return Ok(false);
    };
    let file = kube::config::Kubeconfig::from_yaml(&text).map_err(|error| Failure::of(doing(), error))?;
    let users = file.auth_infos.into_iter().filter_map(|user| user.auth_info?.client_certificate_data);
    let left = users.filter_map(|data| {
        let pem = String::from_utf8(STANDARD.decode(data).ok()?).ok()?;
        let until = with_certificate(&pem, |certificate| Some(certificate.validity().not_after.timestamp()))?;
        Some(until - clock.now().as_second())
    });
    Ok(left.min().is_none_or(|left| left > LEFT_MIN_SECONDS))
}

/// The key of a request under way, or a new one.
fn key(path: &Path) -> Result<rcgen::KeyPair, Failure> {
    let doing = || format!("keep the node's key in {}", path.display());
    let kept = read_if_there(path).map_err(|error| Failure::of(doing(), error))?;
    if let Some(pem) = kept {
        return rcgen::KeyPair::from_pem(&pem)
            .map_err(|error| Failure::of(doing(), error).advise("remove the file to have a new key made"));
    }
    let key = rcgen::KeyPair::generate().map_err(|error| Failure::of(doing(), error))?;
    create_private(path, &key.serialize_pem()).map_err(|error| Failure::of(doing(), error))?;
    Ok(key)
}

fn request(node: &str, key: &rcgen::KeyPair, purpose: Purpose) -> Result<String, Failure> {
    let names = match purpose {
        Purpose::Client => Vec::new(),
        Purpose::Server => vec![node.to_owned()],
    };
    let params = rcgen::CertificateParams::new(names);
    let mut params = params.map_err(|error| Failure::of("make the certificate request", error))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("system:node:{node}"));
    let pem = params.serialize_request(key).and_then(|request| request.pem());
    pem.map_err(|error| Failure::of("make the certificate request", error))
}

/// The same for the same key, node and purpose, so that a restart finds its request.
fn name(node: &str, key: &rcgen::KeyPair, purpose: Purpose) -> String {
    let of = [key.public_key_raw(), purpose.signer().as_bytes(), node.as_bytes()];
    let digest = digest(&SHA256, &of.concat());
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("node-csr-{hex}")
}

/// Asks until there is a certificate; `None` when told to stop.
async fn ask(
    client: Client,
    node: &str,
    key: &rcgen::KeyPair,
    purpose: Purpose,
    stop: &CancellationToken,
) -> Result<Option<String>, Failure> {
    tokio::select! {
        made = certificate(client, node, key, purpose) => made.map(Some),
        () = stop.cancelled() => Ok(None),
    }
}

/// Asks until there is a certificate. Who drops it asks for the same again.
async fn certificate(
    client: Client,
    node: &str,
    key: &rcgen::KeyPair,
    purpose: Purpose,
) -> Result<String, Failure> {
    let (api, name): (Api<CertificateSigningRequest>, _) = (Api::all(client), name(node, key, purpose));
    let failed =
        |error| Failure::of(format!("ask for the certificate of node {node}"), error).advise(purpose.needs());
    let mut new = CertificateSigningRequest::default();
    new.metadata.name = Some(name.clone());
    new.spec = CertificateSigningRequestSpec {
        request: ByteString(request(node, key, purpose)?.into_bytes()),
        signer_name: purpose.signer().to_owned(),
        usages: Some(purpose.usages()),
        ..CertificateSigningRequestSpec::default()
    };
    let mut said = "";
    loop {
        let status = match look(&api, &name, &new).await {
            Ok(found) => found.status.unwrap_or_default(),
            Err(kube::Error::Api(status)) if status.code < 500 && ![409, 429].contains(&status.code) => {
                return Err(failed(kube::Error::Api(status)));
            }
            Err(error) => {
                tracing::debug!(error = reconcile::text(&error), "cannot ask for the certificate yet");
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        if let Some(certificate) = status.certificate.filter(|certificate| !certificate.0.is_empty()) {
            return String::from_utf8(certificate.0)
                .map_err(|error| Failure::of("read the certificate", error));
        }
        let conditions = status.conditions.unwrap_or_default();
        let has = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
        for kind in ["Denied", "Failed"] {
            if let Some(condition) = has(kind) {
                let why = condition.message.clone().unwrap_or_default();
                return Err(Failure::new(format!(
                    "the request {name} of node {node} was {}: {why}",
                    kind.to_lowercase()
                ))
                .advise(format!("delete it to ask again: kubectl delete certificatesigningrequest {name}")));
            }
        }
        let waits = if has("Approved").is_some() { "signature" } else { "approval" };
        if said != waits {
            said = waits;
            let who = match waits {
                "approval" => format!("kubectl certificate approve {name}"),
                _ => "a controller manager with --cluster-signing-cert-file".to_owned(),
            };
            term::note(&format!("waiting for the {waits} of {name}: {who}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The request as it is; made where it is not there, or not any more: what nobody approves goes after a while.
async fn look(
    api: &Api<CertificateSigningRequest>,
    name: &str,
    new: &CertificateSigningRequest,
) -> Result<CertificateSigningRequest, kube::Error> {
    match api.get_opt(name).await? {
        Some(found) => Ok(found),
        None => api.create(&PostParams::default(), new).await,
    }
}
