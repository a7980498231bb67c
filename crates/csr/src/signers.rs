//! What the built-in signers take (upstream `pkg/apis/certificates/helpers.go` and
//! `pkg/controller/certificates/signer`).

use crate::Request;

/// Client certificates of the API server's users. Approved by people.
pub const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of nodes.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of nodes.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Everything else of old; not for the server's authority.
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// Every usage that a CertificateSigningRequest may name.
pub const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Why a signer does not take a request, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

fn refuse(why: &str) -> Result<(), Refused> {
    Err(Refused(why.to_owned()))
}

/// Whether the signer takes the request with these usages. `None`: it is not a signer of ours.
pub fn accepts(signer: &str, request: &Request, usages: &[String]) -> Option<Result<(), Refused>> {
    match signer {
        API_CLIENT => Some(api_client(usages)),
        KUBELET_CLIENT => Some(kubelet_client(request, usages)),
        KUBELET_SERVING => Some(kubelet_serving(request, usages)),
        LEGACY_UNKNOWN => Some(Ok(())),
        _ => None,
    }
}

fn api_client(usages: &[String]) -> Result<(), Refused> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(Refused(format!("invalid usage for client certificate: {other}")));
    }
    if usages.iter().any(|usage| usage == "client auth") {
        Ok(())
    } else {
        refuse("missing required usage for client certificate: client auth")
    }
}

/// A node's client certificate: CN `system:node:NAME`, O `system:nodes` alone, no other names.
fn kubelet_client(request: &Request, usages: &[String]) -> Result<(), Refused> {
    organization(request)?;
    if !request.dns_names.is_empty() {
        return refuse("DNS subjectAltNames are not allowed");
    }
    if !request.ip_addresses.is_empty() {
        return refuse("IP subjectAltNames are not allowed");
    }
    node(request)?;
    exactly(usages, "client auth")
}

/// A node's serving certificate: the same subject, at least one DNS name or address, no other names.
fn kubelet_serving(request: &Request, usages: &[String]) -> Result<(), Refused> {
    organization(request)?;
    if request.dns_names.is_empty() && request.ip_addresses.is_empty() {
        return refuse("at least one DNS or IP subjectAltName is required");
    }
    node(request)?;
    exactly(usages, "server auth")
}

/// Whether a node's certificate names the node and nothing else.
pub fn is_for_own_name(request: &Request) -> bool {
    let own = request.common_name.strip_prefix(NODE_PREFIX).unwrap_or_default();
    let as_address: Option<std::net::IpAddr> = own.parse().ok();
    match as_address {
        Some(address) => request.dns_names.is_empty() && request.ip_addresses == [address],
        None => request.dns_names == [own] && request.ip_addresses.is_empty(),
    }
}

fn organization(request: &Request) -> Result<(), Refused> {
    if request.organizations == [NODES] { Ok(()) } else { refuse("subject organization is not system:nodes") }
}

fn node(request: &Request) -> Result<(), Refused> {
    if !request.emails.is_empty() {
        return refuse("email subjectAltNames are not allowed");
    }
    if !request.uris.is_empty() {
        return refuse("URI subjectAltNames are not allowed");
    }
    match request.common_name.strip_prefix(NODE_PREFIX) {
        Some(name) if !name.is_empty() => Ok(()),
        _ => refuse("subject common name does not begin with system:node:"),
    }
}

/// `digital signature`, `purpose`, and for RSA `key encipherment`.
fn exactly(usages: &[String], purpose: &str) -> Result<(), Refused> {
    let has = |usage: &str| usages.iter().any(|u| u == usage);
    let known = |usage: &String| [purpose, "digital signature", "key encipherment"].contains(&usage.as_str());
    if has(purpose) && has("digital signature") && usages.iter().all(known) {
        return Ok(());
    }
    Err(Refused(format!("usages did not match [digital signature, key encipherment, {purpose}]")))
}
