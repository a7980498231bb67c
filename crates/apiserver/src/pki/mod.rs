//! The cluster's own certificates: an authority, serving and client certificates, kubeconfig files.
//!
//! Guarantees: private keys are created once, readable by their owner only (0600), and written so that a
//! crash leaves the old file or the new one; a certificate is issued anew when its names, its expiry or
//! its issuer no longer fit. Deliberately unaware of TLS connections and of who is allowed to do what.

mod files;
mod issue;
mod kubeconfig;
mod sign;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use meta::Clock;

pub use files::{create_private, read_if_there, write_private};
pub(crate) use issue::not_after;
pub use issue::{Authority, Identity, Leaf, Pair};
pub use kubeconfig::{Kubeconfig, Login};
pub use sign::SignError;

/// Why a certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that should hold a key or certificate does not; delete it to have it made anew.
    #[error("{path} holds no valid {what}; delete it (and what it signed) to have it created again")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The certificate library refused.
    #[error("issue certificate for {subject}")]
    Issue {
        /// For whom.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// Who vouches for users in headers, as kubeadm names it.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// The certificates under one directory.
#[derive(Debug)]
pub struct Pki {
    /// Of the authority and the token key.
    shared: PathBuf,
    /// Of certificates that were issued.
    directory: PathBuf,
    authority: Arc<Authority>,
    /// Of those who vouch for users in headers.
    front_proxy: Authority,
    now: meta::Timestamp,
}

impl Pki {
    /// Opens `directory`, creating it (0700) and the authority (`ca.crt`, `ca.key`) when missing. Expiry
    /// is judged at the time of this call.
    pub fn open(directory: &Path, clock: &dyn Clock) -> Result<Self, PkiError> {
        Self::open_beside(directory, directory, clock)
    }

    /// The same, with the authority and the token key in `shared`, which several servers may open at once,
    /// and what is issued by it in `directory`, which is this server's own.
    pub fn open_beside(shared: &Path, directory: &Path, clock: &dyn Clock) -> Result<Self, PkiError> {
        files::private_directory(shared)?;
        files::private_directory(directory)?;
        let _making = files::lock(shared)?;
        let now = clock.now();
        let authority = Arc::new(open_authority(shared, "ca", "keelson-ca", now)?);
        let front_proxy = open_authority(shared, "front-proxy-ca", "keelson-front-proxy-ca", now)?;
        Ok(Self { shared: shared.to_owned(), directory: directory.to_owned(), authority, front_proxy, now })
    }

    /// The authority, for those who sign requests with it.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.clone()
    }

    /// The authority's certificate, PEM: what clients trust and what client certificates are checked with.
    pub fn ca_pem(&self) -> &str {
        &self.authority.pair().cert_pem
    }

    /// A certificate kept as `NAME.crt` and `NAME.key`: the one on disk while it fits `leaf` and is valid
    /// for another 30 days, else a new one with the same key file name.
    pub fn keep(&self, name: &str, leaf: &Leaf) -> Result<Pair, PkiError> {
        self.keep_of(&self.authority, name, leaf)
    }

    fn keep_of(&self, authority: &Authority, name: &str, leaf: &Leaf) -> Result<Pair, PkiError> {
        let cert_path = self.directory.join(format!("{name}.crt"));
        let key_path = self.directory.join(format!("{name}.key"));
        if let (Some(cert_pem), Some(key_pem)) = (read_if_there(&cert_path)?, read_if_there(&key_path)?) {
            let pair = Pair { cert_pem, key_pem };
            if authority.still_fits(&pair, leaf, self.now) {
                return Ok(pair);
            }
        }
        let pair = authority.issue(leaf, self.now)?;
        write_private(&key_path, &pair.key_pem)?;
        write_private(&cert_path, &pair.cert_pem)?;
        Ok(pair)
    }

    /// The API server's serving certificate for these DNS names and addresses.
    pub fn serving(&self, names: &[String]) -> Result<Pair, PkiError> {
        self.keep("apiserver", &Leaf::server("kube-apiserver", names))
    }

    /// The administrator: `system:masters`, who passes every authorization.
    pub fn admin(&self) -> Result<Pair, PkiError> {
        self.keep("admin", &Leaf::client("kubernetes-admin", Some("system:masters")))
    }

    /// A component such as `kube-scheduler`, known as `system:NAME`.
    pub fn component(&self, name: &str) -> Result<Pair, PkiError> {
        self.keep(name, &Leaf::client(&format!("system:{name}"), None))
    }

    /// A node: CN `system:node:NAME`, O `system:nodes`. One certificate serves as the node's client
    /// certificate and, for `names`, as that of its kubelet endpoint.
    pub fn node(&self, name: &str, names: &[String]) -> Result<Pair, PkiError> {
        let mut leaf = Leaf::client(&format!("system:node:{name}"), Some("system:nodes"));
        leaf.names = names.to_vec();
        leaf.server = true;
        self.keep(&format!("node-{name}"), &leaf)
    }

    /// The client certificate with which the API server calls kubelets.
    pub fn kubelet_client(&self) -> Result<Pair, PkiError> {
        self.keep(
            "apiserver-kubelet-client",
            &Leaf::client("kube-apiserver-kubelet-client", Some("system:masters")),
        )
    }

    /// The certificate, PEM, of the authority of those who vouch for users in headers.
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy.pair().cert_pem
    }

    /// The client certificate with which the API server vouches for users to extension servers. It names
    /// [`FRONT_PROXY`], who is nobody at this server's own endpoints.
    pub fn front_proxy_client(&self) -> Result<Pair, PkiError> {
        self.keep_of(&self.front_proxy, FRONT_PROXY, &Leaf::client(FRONT_PROXY, None))
    }

    /// The key that signs service-account tokens (`sa.key`, PKCS#8 PEM, P-256), created once.
    pub fn token_key(&self) -> Result<String, PkiError> {
        let _making = files::lock(&self.shared)?;
        let path = self.shared.join("sa.key");
        if let Some(pem) = read_if_there(&path)? {
            return match rcgen::KeyPair::from_pem(&pem) {
                Ok(_) => Ok(pem),
                Err(_) => Err(PkiError::Damaged { path, what: "private key" }),
            };
        }
        let key = rcgen::KeyPair::generate()
            .map_err(|source| PkiError::Issue { subject: "service-account tokens".into(), source })?;
        let pem = key.serialize_pem();
        write_private(&path, &pem)?;
        Ok(pem)
    }
}

/// The authority kept as `NAME.crt` and `NAME.key`, made when missing.
fn open_authority(
    directory: &Path,
    name: &str,
    common_name: &str,
    now: meta::Timestamp,
) -> Result<Authority, PkiError> {
    let (cert_path, key_path) =
        (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
    match (read_if_there(&cert_path)?, read_if_there(&key_path)?) {
        (Some(cert), Some(key)) => Authority::from_pem(&cert, &key)
            .map_err(|_| PkiError::Damaged { path: cert_path, what: "certificate authority" }),
        (cert, key) => {
            if cert.is_some() || key.is_some() {
                let path = if cert.is_some() { key_path } else { cert_path };
                return Err(PkiError::Damaged { path, what: "half of the certificate authority" });
            }
            let made = Authority::create(common_name, now)?;
            write_private(&key_path, &made.pair().key_pem)?;
            write_private(&cert_path, &made.pair().cert_pem)?;
            Ok(made)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(at: &str) -> meta::Fixed {
        meta::Fixed::new(at.parse().unwrap())
    }

    #[test]
    fn keeps_what_fits_and_renews_what_does_not() {
        let home = tempfile::tempdir().unwrap();
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (early, late) = (clock("2026-01-01T00:00:00Z"), clock("2026-12-20T00:00:00Z"));
        let first = Pki::open(home.path(), &early).unwrap();
        let served = first.serving(&names(&["localhost", "127.0.0.1"])).unwrap();
        let again = Pki::open(home.path(), &early).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        assert_eq!(served, again.serving(&names(&["127.0.0.1", "localhost"])).unwrap());
        let wider = again.serving(&names(&["localhost", "127.0.0.1", "::1"])).unwrap();
        assert_ne!(served, wider);
        let renewed = Pki::open(home.path(), &late).unwrap();
        assert_ne!(wider, renewed.serving(&names(&["localhost", "127.0.0.1", "::1"])).unwrap());
        assert_eq!(first.token_key().unwrap(), renewed.token_key().unwrap());
    }

    #[test]
    fn servers_that_begin_at_once_come_to_one_authority() {
        let home = tempfile::tempdir().unwrap();
        let begin = |name: String| {
            let (shared, own) = (home.path().join("shared"), home.path().join(name));
            let pki = Pki::open_beside(&shared, &own, &clock("2026-01-01T00:00:00Z")).unwrap();
            (pki.ca_pem().to_owned(), pki.token_key().unwrap())
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let begun: Vec<_> = (0..6).map(|at| scope.spawn(move || begin(format!("s{at}")))).collect();
            begun.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(all.iter().all(|one| *one == all[0]));
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let pki = Pki::open(&home.path().join("pki"), &clock("2026-01-01T00:00:00Z")).unwrap();
        pki.admin().unwrap();
        for file in ["ca.key", "admin.key"] {
            let mode = std::fs::metadata(home.path().join("pki").join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn damage_is_told_not_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let at = clock("2026-01-01T00:00:00Z");
        Pki::open(home.path(), &at).unwrap();
        std::fs::write(home.path().join("ca.crt"), "no certificate").unwrap();
        assert!(matches!(Pki::open(home.path(), &at), Err(PkiError::Damaged { .. })));
        std::fs::remove_file(home.path().join("ca.crt")).unwrap();
        assert!(matches!(Pki::open(home.path(), &at), Err(PkiError::Damaged { .. })));
    }
}
