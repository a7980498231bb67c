//! What extension servers read to know whom to believe: `kube-system/extension-apiserver-authentication` (upstream
//! `clusterauthenticationtrust`).
//!
//! Several servers on one store may have authorities of their own: what is published is the union, without what has
//! expired.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderName;
use meta::{Object, ObjectKey, Status, Timestamp, Value};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use tokio::time::sleep;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{
    auth::FrontProxy,
    rest::{Caller, Duplicates, Rest, Target},
};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// How often it is looked at, upstream's.
const EVERY: Duration = Duration::from_secs(60);
/// The pause after a failure: at the start, before the namespace is there.
const RETRY: Duration = Duration::from_secs(1);
const END: &str = "-----END CERTIFICATE-----";

/// Whom this server believes.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// The authorities of client certificates, PEM.
    pub client_ca_pem: String,
    /// The authorities of front proxies, PEM.
    pub proxy_ca_pem: String,
    /// Which front proxies, and the headers in which they name users.
    pub proxies: FrontProxy,
}

impl Trusted {
    /// Keeps the ConfigMap, until it is dropped.
    pub(super) async fn keep(self, rest: &Rest) {
        loop {
            let pause = match self.publish(rest).await {
                Ok(()) => EVERY,
                Err(status) => {
                    tracing::debug!(%status, "publish {NAMESPACE}/{NAME}");
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    /// Writes the ConfigMap where it lacks something.
    async fn publish(&self, rest: &Rest) -> Result<(), Status> {
        let Some(resource) = rest.registry().resolve("", "v1", "configmaps") else { return Ok(()) };
        let key = ObjectKey::new(NAMESPACE, NAME);
        let there = rest.cache().kind(&resource.stored_as).get(&key);
        let there = there.map(|entry| entry.object()).transpose().map_err(Status::internal)?;
        let data = json!(self.data(there.as_ref(), rest.clock().now()));
        let Some(mut object) = there else {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data});
            let object = Object::from_value(object).map_err(Status::internal)?;
            return rest
                .create(&Caller::server(), &resource, NAMESPACE, object, Duplicates::default())
                .await
                .map(|_| ());
        };
        if object.get(&["data"]) == Some(&data) {
            return Ok(());
        }
        object.set(&["data"], data);
        let target = Target { key, subresource: String::new() };
        rest.update(&Caller::server(), &resource, &target, object, Duplicates::default()).await.map(|_| ())
    }

    /// The data: what is there already and what this server has to add.
    fn data(&self, there: Option<&Object>, now: Timestamp) -> BTreeMap<String, String> {
        let old = |key: &str| there.and_then(|there| there.str(&["data", key])).unwrap_or_default();
        let FrontProxy { allowed_names, username_headers, uid_headers, group_headers, extra_prefixes } =
            &self.proxies;
        let certificates = |key: &str, own: &str| (key.to_owned(), joined(old(key), own, now));
        let list = |key: &str, own: Vec<String>| {
            let mut all: Vec<String> = serde_json::from_str(old(key)).unwrap_or_default();
            for item in own {
                if !all.contains(&item) {
                    all.push(item);
                }
            }
            (key.to_owned(), Value::from(all).to_string())
        };
        let headers = |names: &[HeaderName]| names.iter().map(|name| shown(name.as_str())).collect();
        let mut data: BTreeMap<String, String> = BTreeMap::from([
            certificates("client-ca-file", &self.client_ca_pem),
            certificates("requestheader-client-ca-file", &self.proxy_ca_pem),
            list("requestheader-username-headers", headers(username_headers)),
            list("requestheader-uid-headers", headers(uid_headers)),
            list("requestheader-group-headers", headers(group_headers)),
            list(
                "requestheader-extra-headers-prefix",
                extra_prefixes.iter().map(|prefix| shown(prefix)).collect(),
            ),
        ]);
        // Everybody, if for one of the servers it is everybody.
        let everybody = allowed_names.is_empty() || old("requestheader-allowed-names") == "[]";
        let (key, names) = list("requestheader-allowed-names", allowed_names.clone());
        data.insert(key, if everybody { "[]".to_owned() } else { names });
        data
    }
}

/// The certificates of both that are still good, each once.
fn joined(old: &str, own: &str, now: Timestamp) -> String {
    let mut all: Vec<&str> = Vec::new();
    for pem in old.split_inclusive(END).chain(own.split_inclusive(END)).map(str::trim) {
        if pem.ends_with(END) && is_good(pem, now) && !all.contains(&pem) {
            all.push(pem);
        }
    }
    all.iter().map(|pem| format!("{pem}\n")).collect()
}

fn is_good(pem: &str, now: Timestamp) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    X509Certificate::from_der(&der).is_ok_and(|(_, c)| c.validity().not_after.timestamp() > now.as_second())
}

/// A header as upstream writes it.
fn shown(name: &str) -> String {
    let mut start = true;
    let letter = |c: char| {
        let c = if start { c.to_ascii_uppercase() } else { c };
        start = c == '-';
        c
    };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;

    #[test]
    fn servers_add_to_what_is_there() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let ca = |at: &str| Authority::create("ca", at.parse().unwrap()).unwrap().pair().cert_pem.clone();
        let (own, other, expired) =
            (ca("2026-01-01T00:00:00Z"), ca("2026-01-01T00:00:00Z"), ca("2010-01-01T00:00:00Z"));
        let trusted = Trusted {
            client_ca_pem: own.clone(),
            proxy_ca_pem: own.clone(),
            proxies: FrontProxy::standard(vec!["front-proxy-client".to_owned()]),
        };
        let fresh = trusted.data(None, now);
        assert_eq!(fresh["client-ca-file"].trim(), own.trim());
        assert_eq!(fresh["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
        assert_eq!(fresh["requestheader-username-headers"], r#"["X-Remote-User"]"#);
        assert_eq!(fresh["requestheader-extra-headers-prefix"], r#"["X-Remote-Extra-"]"#);
        let there = |names: &str| {
            let data = json!({"client-ca-file": format!("{other}{expired}"),
                "requestheader-allowed-names": names, "requestheader-group-headers": r#"["X-Group"]"#});
            Object::from_value(json!({"data": data})).unwrap()
        };
        let both = trusted.data(Some(&there(r#"["front"]"#)), now);
        assert_eq!(both["client-ca-file"].matches(END).count(), 2);
        assert!(!both["client-ca-file"].contains(expired.trim()));
        assert_eq!(both["requestheader-allowed-names"], r#"["front","front-proxy-client"]"#);
        assert_eq!(both["requestheader-group-headers"], r#"["X-Group","X-Remote-Group"]"#);
        assert_eq!(trusted.data(Some(&there("[]")), now)["requestheader-allowed-names"], "[]");
        let again = Object::from_value(json!({"data": both})).unwrap();
        assert_eq!(trusted.data(Some(&again), now), both);
    }
}
