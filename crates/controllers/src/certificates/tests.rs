use std::sync::Arc;

use k8s_openapi::ByteString;
use meta::ObjectKey;
use rcgen::{CertificateParams, DnType, KeyPair};
use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::*;

const NODE: &str = "system:node:n1";

fn pem(common_name: &str, organization: &str) -> String {
    pem_for(common_name, organization, &[])
}

fn pem_for(common_name: &str, organization: &str, names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn request(pem: &str, signer: &str, username: &str, conditions: Value) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": { "name": "r" },
        "spec": {
            "request": ByteString(pem.as_bytes().to_vec()), "signerName": signer, "username": username,
            "usages": ["digital signature", "client auth"],
        },
        "status": { "conditions": conditions },
    })
}

fn typed(value: Value) -> CertificateSigningRequest {
    serde_json::from_value(value).unwrap()
}

/// Signs with a text that says what it was asked.
struct Stamp;

impl Signer for Stamp {
    fn sign(&self, r: &csr::Request, _: &[String], s: Option<i64>, _: Timestamp) -> Result<String, String> {
        if r.common_name == "broken" {
            Err("no key".to_owned())
        } else {
            Ok(format!("{} {s:?}", r.common_name))
        }
    }
}

#[test]
fn only_requests_of_nodes_for_nodes_are_considered() {
    let permissions = |value: Value| -> Vec<&str> {
        approve::permissions(&typed(value)).iter().map(|(subresource, _)| *subresource).collect()
    };
    let good = pem(NODE, "system:nodes");
    let none = json!([]);
    let of = |pem: &str, signer: &str, user: &str| permissions(request(pem, signer, user, none.clone()));
    assert_eq!(of(&good, csr::KUBELET_CLIENT, NODE), ["selfnodeclient", "nodeclient"]);
    assert_eq!(of(&good, csr::KUBELET_CLIENT, "system:bootstrap:abcdef"), ["nodeclient"]);
    assert_eq!(of(&good, csr::KUBELET_CLIENT, "system:node:other"), ["nodeclient"]);
    assert!(of(&good, csr::API_CLIENT, NODE).is_empty());
    assert!(of(&good, csr::KUBELET_SERVING, NODE).is_empty());
    assert!(of(&pem(NODE, "system:masters"), csr::KUBELET_CLIENT, NODE).is_empty());
    assert!(of(&pem("admin", "system:nodes"), csr::KUBELET_CLIENT, "admin").is_empty());
    assert!(of("no pem", csr::KUBELET_CLIENT, NODE).is_empty());
    let mut server = request(&good, csr::KUBELET_CLIENT, NODE, none);
    server["spec"]["usages"] = json!(["server auth"]);
    assert!(permissions(server).is_empty());
}

/// A node that could have a certificate for another's name or address could be taken for it.
#[test]
fn a_node_may_serve_under_its_own_name_alone() {
    for (names, user, expected) in [
        (&["n1"][..], NODE, &["selfnodeserver"][..]),
        (&["n1"], "system:node:n2", &[]),
        (&["n2"], NODE, &[]),
        (&["n1", "n2"], NODE, &[]),
        (&["n1", "192.0.2.1"], NODE, &[]),
        (&["192.0.2.1"], NODE, &[]),
        (&[], NODE, &[]),
    ] {
        let pem = pem_for(NODE, "system:nodes", names);
        let mut request = request(&pem, csr::KUBELET_SERVING, user, json!([]));
        request["spec"]["usages"] = json!(["digital signature", "server auth"]);
        let permissions: Vec<&str> =
            approve::permissions(&typed(request)).iter().map(|(subresource, _)| *subresource).collect();
        assert_eq!(permissions, expected, "{names:?} {user}");
    }
}

#[test]
fn an_approval_is_written_only_when_who_asks_may() {
    let request = Arc::new(typed(request(&pem(NODE, "system:nodes"), csr::KUBELET_CLIENT, NODE, json!([]))));
    let plan = |because| {
        let world = approve::World { request: Arc::clone(&request), because };
        reconcile::Reconciler::plan(&CertificateApprover, &world, Timestamp::UNIX_EPOCH)
    };
    let approved = plan(Some("because"));
    assert_eq!(approved.apply[0].write, reconcile::Write::Patch(Some("approval")));
    assert_eq!(approved.apply[0].body["status"]["conditions"][0]["type"], "Approved");
    let waiting = plan(None);
    assert!(waiting.is_empty() && waiting.recheck_after.is_some());
}

#[tokio::test]
async fn approved_requests_are_signed_and_bad_ones_fail() {
    let approved = json!([{ "type": "Approved", "status": "True" }]);
    let good = pem("ann", "dev");
    for (pem, signer, conditions, certificate, failed) in [
        (&good, csr::API_CLIENT, approved.clone(), Some("ann None"), None),
        (&good, csr::API_CLIENT, json!([]), None, None),
        (&good, "example.com/mine", approved.clone(), None, None),
        (
            &good,
            csr::KUBELET_CLIENT,
            approved.clone(),
            None,
            Some("subject organization is not system:nodes"),
        ),
        (
            &"x".to_owned(),
            csr::API_CLIENT,
            approved,
            None,
            Some("PEM block type must be CERTIFICATE REQUEST"),
        ),
    ] {
        let bench = Bench::new(CertificateSigner { signer: Arc::new(Stamp) });
        let (key, kind) = (ObjectKey::new("", "r"), Kind::of::<CertificateSigningRequest>());
        bench.api.register(kind.clone(), false);
        bench.api.put(&request(pem, signer, "ann", conditions));
        bench.settle(&key).await;
        let done = typed(bench.api.get(&kind, &key).unwrap());
        assert_eq!(super::certificate(&done), certificate.map(str::as_bytes), "{signer}");
        let condition = condition(&done, "Failed").and_then(|failed| failed.message.as_deref());
        assert_eq!(condition, failed, "{signer}");
    }
}

#[tokio::test]
async fn old_requests_go() {
    let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
    let ends = |kind: &str, issued: bool| {
        let time = Time(at(100));
        let mut value = request("x", csr::API_CLIENT, "ann", json!([]));
        value["metadata"]["creationTimestamp"] = json!(Time(at(0)));
        if !kind.is_empty() {
            value["status"]["conditions"] =
                json!([{ "type": kind, "status": "True", "lastUpdateTime": time }]);
        }
        if issued {
            value["status"]["certificate"] = json!(ByteString(b"x".to_vec()));
        }
        let world = clean::World { request: Arc::new(typed(value)) };
        let plan = |now| reconcile::Reconciler::plan(&CertificateCleaner, &world, now);
        let left = plan(at(0)).recheck_after.unwrap().as_secs();
        let end = at(i64::try_from(left).unwrap());
        assert_eq!(plan(end).delete.len(), 1);
        left
    };
    assert_eq!(ends("", false), 24 * 3600);
    assert_eq!(ends("Approved", false), 24 * 3600);
    assert_eq!(ends("Approved", true), 3700);
    assert_eq!(ends("Denied", false), 3700);
    assert_eq!(ends("Failed", false), 3700);
}
