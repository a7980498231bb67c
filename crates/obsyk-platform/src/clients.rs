//! Who may speak: clients and their public keys, as a file that the operator of the platform keeps.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::{Deserialize, Serialize};

/// Two: the old key and the new one while a client rotates.
pub(crate) const KEYS_MAX: usize = 2;
/// Registered clients; a file is read into memory whole.
const CLIENTS_MAX: usize = 10_000;
/// What comes before the point in the DER of a P-256 key (RFC 5480): ecPublicKey, prime256v1, a bit string.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3,
    1, 7, 3, 0x42, 0,
];
/// An uncompressed point of the curve.
const POINT_BYTES: usize = 65;

/// One client.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// What it calls itself in `iss`.
    pub client_id: String,
    /// P-256 public keys, as PEM (`PUBLIC KEY`); at most two.
    pub public_keys: Vec<String>,
    /// It is known, and may not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoked: bool,
}

/// Registered clients.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    by_id: BTreeMap<String, Client>,
}

/// What is wrong with a client or the file of them. The texts are for the user.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not JSON of the form that is written here.
    #[error("the file of clients is not as it should be: {0}")]
    Form(#[from] serde_json::Error),
    /// A key of another type.
    #[error(
        "a public key of client {0} is no P-256 public key in PEM: get it with `openssl ec -in KEY -pubout`"
    )]
    Key(String),
    /// No identity, or one that makes trouble.
    #[error("{0:?} cannot be a client id: want 1 to 253 characters of A-Z a-z 0-9 . _ -")]
    Id(String),
    /// No keys, or too many.
    #[error("client {0} has to have one key, or two while it rotates")]
    Keys(String),
    /// Too many.
    #[error("there are more than {CLIENTS_MAX} clients")]
    Many,
    /// There is none.
    #[error("there is no client {0}")]
    Unknown(String),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    clients: Vec<Client>,
}

impl Clients {
    /// Reads what [`Clients::to_json`] wrote.
    pub fn from_json(text: &[u8]) -> Result<Self, ClientError> {
        let File { clients } = serde_json::from_slice(text)?;
        let mut all = Self::default();
        for client in clients {
            all.register(client)?;
        }
        Ok(all)
    }

    /// The file's content.
    pub fn to_json(&self) -> String {
        let file = File { clients: self.by_id.values().cloned().collect() };
        serde_json::to_string_pretty(&file).unwrap_or_default() + "\n"
    }

    /// Adds a client, or replaces the one with its id.
    pub fn register(&mut self, client: Client) -> Result<(), ClientError> {
        let id = &client.client_id;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if id.is_empty() || id.len() > 253 || !id.chars().all(plain) {
            return Err(ClientError::Id(id.clone()));
        }
        if client.public_keys.is_empty() || client.public_keys.len() > KEYS_MAX {
            return Err(ClientError::Keys(id.clone()));
        }
        if client.public_keys.iter().any(|pem| point(pem).is_none()) {
            return Err(ClientError::Key(id.clone()));
        }
        if self.by_id.len() >= CLIENTS_MAX {
            return Err(ClientError::Many);
        }
        self.by_id.insert(id.clone(), client);
        Ok(())
    }

    /// A client, revoked or not.
    pub fn get(&self, id: &str) -> Option<&Client> {
        self.by_id.get(id)
    }

    /// Takes a client's rights away, and keeps it known.
    pub fn revoke(&mut self, id: &str) -> Result<(), ClientError> {
        let client = self.by_id.get_mut(id).ok_or_else(|| ClientError::Unknown(id.to_owned()))?;
        client.revoked = true;
        Ok(())
    }

    /// Whether requests of this client are answered.
    pub(crate) fn is_active(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|client| !client.revoked)
    }

    /// The points of a client's keys.
    pub(crate) fn points(&self, id: &str) -> Vec<Vec<u8>> {
        let keys = self.by_id.get(id).map(|client| client.public_keys.as_slice()).unwrap_or_default();
        keys.iter().filter_map(|pem| point(pem)).collect()
    }
}

/// The point of a P-256 public key in PEM.
fn point(pem: &str) -> Option<Vec<u8>> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).ok()?;
    let point = der.as_ref().strip_prefix(&P256_HEAD)?;
    (point.len() == POINT_BYTES && point.first() == Some(&4)).then(|| point.to_vec())
}

/// PEM of the P-256 public key with this uncompressed point.
pub fn public_key_pem(point: &[u8]) -> String {
    let der = [P256_HEAD.as_slice(), point].concat();
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).filter_map(|at| text.get(at..text.len().min(at + 64))).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}
