//! The platform's directory and the file of its clients.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use obsyk_platform::{Client, Clients, public_key_pem};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::{cli, data_dir::DataDir, error::Failure, term};

/// Where the platform keeps what it keeps.
pub(super) fn directory(asked: Option<&Path>) -> Result<PathBuf, Failure> {
    match asked {
        Some(path) => {
            std::path::absolute(path).map_err(|error| Failure::of(format!("find {}", path.display()), error))
        }
        None => {
            let clusters = DataDir::locate(&cli::DataDir { data_dir: None })?;
            // Beside a cluster's own directory, not in it.
            Ok(clusters.path().with_file_name("keelson-obsyk-platform"))
        }
    }
}

/// The file of clients.
pub(super) struct Registry {
    directory: PathBuf,
    file: PathBuf,
}

impl Registry {
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), file: directory.join("clients.json") }
    }

    /// Makes the directory, private to its owner.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|error| {
            Failure::of(format!("prepare the directory {}", self.directory.display()), error)
                .advise("choose another place with --data-dir DIR")
        })
    }

    /// Those registered; none when there is no file.
    pub(super) fn read(&self) -> Result<Clients, Failure> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Failure::of(format!("read {}", self.file.display()), error)
        };
        match fs::read(&self.file) {
            Ok(text) => Clients::from_json(&text).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Clients::default()),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Changes when the file does.
    pub(super) fn stamp(&self) -> Option<(SystemTime, u64)> {
        let metadata = fs::metadata(&self.file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    fn write(&self, clients: &Clients) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::of(format!("write {}", self.file.display()), error);
        let new = self.file.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut to =
            options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
        to.write_all(clients.to_json().as_bytes()).and_then(|()| to.sync_all()).map_err(failed)?;
        fs::rename(&new, &self.file).map_err(failed)
    }

    /// Adds a client. With a public key it is taken in beside one that is there; else a key pair is made and
    /// printed as the Secret that an ObsykAgent names: it is kept nowhere else.
    pub(super) fn register(
        &self,
        client_id: &str,
        public_key: Option<&Path>,
        namespace: &str,
        secret: &str,
    ) -> Result<(), Failure> {
        self.prepare()?;
        let mut clients = self.read()?;
        let refused = |error: obsyk_platform::ClientError| Failure::usage(error.to_string());
        let mut known = clients.get(client_id).map(|client| client.public_keys.clone()).unwrap_or_default();
        let (public, private) = match public_key {
            Some(path) => {
                let pem = fs::read_to_string(path)
                    .map_err(|error| Failure::of(format!("read {}", path.display()), error))?;
                (pem, None)
            }
            None => {
                let (public, private) = generate()?;
                (public, Some(private))
            }
        };
        if !known.contains(&public) {
            known.push(public);
        }
        // The newest two: the one before stays good while the client rotates.
        let public_keys = known.split_off(known.len().saturating_sub(2));
        let client = Client { client_id: client_id.to_owned(), public_keys, revoked: false };
        clients.register(client).map_err(refused)?;
        self.write(&clients)?;
        match private {
            None => term::note(&format!("registered {client_id}")),
            Some(private) => {
                let ca = fs::read_to_string(self.directory.join("pki/ca.crt")).ok();
                if ca.is_none() {
                    term::note("start the platform before this, and the Secret has its ca.crt too");
                }
                term::line(&manifest(client_id, &private, ca.as_deref(), namespace, secret));
            }
        }
        Ok(())
    }

    pub(super) fn revoke(&self, client_id: &str) -> Result<(), Failure> {
        let mut clients = self.read()?;
        clients.revoke(client_id).map_err(|error| Failure::usage(error.to_string()))?;
        self.write(&clients)?;
        term::note(&format!("revoked {client_id}"));
        Ok(())
    }
}

/// A new P-256 key: public and private part, PEM.
fn generate() -> Result<(String, String), Failure> {
    let failed = |_| Failure::new("the system could not make a key");
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref(), &random)
        .map_err(|_| Failure::new("the system could not make a key"))?;
    let private = pem("PRIVATE KEY", PrivatePkcs8KeyDer::from(der.as_ref()).secret_pkcs8_der());
    Ok((public_key_pem(pair.public_key().as_ref()), private))
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines = (0..text.len()).step_by(64).filter_map(|at| text.get(at..text.len().min(at + 64)));
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.collect::<Vec<_>>().join("\n"))
}

/// The Secret that an ObsykAgent names.
fn manifest(client_id: &str, private: &str, ca: Option<&str>, namespace: &str, secret: &str) -> String {
    let block = |text: &str| text.trim_end().lines().map(|line| format!("    {line}\n")).collect::<String>();
    let ca = ca.map(|ca| format!("  ca.crt: |\n{}", block(ca))).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {secret}\n  namespace: {namespace}\nstringData:\n  \
         client_id: {client_id}\n  private_key: |\n{}{ca}",
        block(private)
    )
    .trim_end()
    .to_owned()
}
