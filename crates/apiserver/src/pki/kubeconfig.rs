//! A kubeconfig file that works with any client.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Pair, PkiError, files::write_private};

/// How the user of a kubeconfig proves who it is.
#[derive(Clone, Debug)]
pub enum Login {
    /// Client certificate.
    Certificate(Pair),
    /// Bearer token.
    Token(String),
}

/// One cluster, one user, one context.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    /// Name of cluster and context, such as `keelson`.
    pub cluster: String,
    /// Name of the user entry.
    pub user: String,
    /// `https://127.0.0.1:6443`.
    pub server: String,
    /// The authority to trust, PEM.
    pub ca_pem: String,
    /// Credentials.
    pub login: Login,
}

impl Kubeconfig {
    /// The file's content as a tree (clientcmd `v1.Config`).
    pub fn to_value(&self) -> Value {
        let credentials = match &self.login {
            Login::Certificate(pair) => json!({
                "client-certificate-data": STANDARD.encode(&pair.cert_pem),
                "client-key-data": STANDARD.encode(&pair.key_pem),
            }),
            Login::Token(token) => json!({ "token": token }),
        };
        json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {},
            "clusters": [{ "name": self.cluster, "cluster": {
                "certificate-authority-data": STANDARD.encode(&self.ca_pem), "server": self.server,
            } }],
            "users": [{ "name": self.user, "user": credentials }],
            "contexts": [{ "name": self.cluster, "context": {
                "cluster": self.cluster, "user": self.user,
            } }],
            "current-context": self.cluster,
        })
    }

    /// Writes it (0600, replaced whole). JSON is YAML, and every client reads it.
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        write_private(path, &format!("{:#}\n", self.to_value()))
    }
}
