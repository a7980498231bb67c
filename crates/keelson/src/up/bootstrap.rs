//! Objects that every cluster begins with.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use apiserver::{
    pki::Pki,
    rest::{Caller, Duplicates, FieldValidation, Rest, Target},
};
use futures::{StreamExt, TryStreamExt, stream};
use meta::{Object, Reason, Status, Value};
use resource::{Resource, User};
use serde_json::json;
use tokio::time::Instant;

use crate::{error::Failure, term};

/// The address of the Service `default/kubernetes`, as upstream the first of the service range.
pub(crate) const KUBERNETES_IP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 1);
/// The address of the Service `kube-system/kube-dns`, as upstream the tenth.
pub(crate) const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);

/// Says that an object of the bootstrap policy follows the release (upstream RBAC reconciliation).
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The same of priority levels and flow schemas.
const AUTOUPDATE_SPEC: &str = "apf.kubernetes.io/autoupdate-spec";

/// How long another server may take over what both begin with: longer than the repair of claims needs, should it die.
const OTHERS_MAX: Duration = Duration::from_secs(180);
/// For so long such a wait is not worth a word.
const QUIET: Duration = Duration::from_secs(3);
/// Between two looks at what another server makes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Writes side by side, so that they share commits.
const PARALLEL: usize = 64;

fn caller() -> Caller {
    Caller {
        user: User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
            ..User::default()
        },
        field_manager: "keelson".to_owned(),
        field_validation: FieldValidation::Strict,
        ..Caller::default()
    }
}

/// Creates what is missing and brings policy objects that follow the release up to date. Namespaces come
/// first: others live in them.
pub(crate) async fn objects(rest: &Rest, objects: Vec<Object>) -> Result<(), Failure> {
    let (namespaces, others): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| object.kind() == "Namespace");
    for group in [namespaces, others] {
        stream::iter(group)
            .map(|object| ensure(rest, object))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

/// Another server that starts on the same store may be making the same: an address that it has claimed is taken
/// before the Service is there. What is refused for that is tried again.
async fn ensure(rest: &Rest, object: Object) -> Result<(), Failure> {
    let (begun, mut said) = (Instant::now(), false);
    loop {
        match try_ensure(rest, &object).await? {
            Ok(()) => return Ok(()),
            Err(status) if [409, 422].contains(&status.code) && begun.elapsed() < OTHERS_MAX => {
                if begun.elapsed() > QUIET && !std::mem::replace(&mut said, true) {
                    let what =
                        format!("waiting for another server to make {} {}", object.kind(), object.key());
                    term::note(&Failure::of(what, status).to_string());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(status) => {
                return Err(Failure::of(format!("bootstrap {} {}", object.kind(), object.key()), status));
            }
        }
    }
}

async fn try_ensure(rest: &Rest, object: &Object) -> Result<Result<(), Status>, Failure> {
    let resource = resource_of(rest, object)?;
    let kind = rest.cache().kind(&resource.stored_as);
    let Some(entry) = kind.get(&object.key()) else {
        let namespace = object.namespace().to_owned();
        return Ok(
            match rest.create(&caller(), &resource, &namespace, object.clone(), Duplicates::default()).await {
                Ok(_) => Ok(()),
                Err(status) if status.reason == Some(Reason::AlreadyExists) => Ok(()),
                Err(status) => Err(status),
            },
        );
    };
    let current = match entry.object() {
        Ok(current) => current,
        Err(error) => return Ok(Err(Status::internal(error))),
    };
    let follows = [AUTOUPDATE, AUTOUPDATE_SPEC].iter().any(|note| current.annotation(note) == Some("true"));
    let same = object.0.iter().all(|(key, value)| key == "metadata" || current.0.get(key) == Some(value));
    if !follows || same {
        return Ok(Ok(()));
    }
    let target = Target { key: object.key(), subresource: String::new() };
    let updated = rest.update(&caller(), &resource, &target, object.clone(), Duplicates::default()).await;
    Ok(updated.map(|_| ()))
}

fn resource_of(rest: &Rest, object: &Object) -> Result<Arc<Resource>, Failure> {
    let version = object.group_version().unwrap_or_else(|| meta::GroupVersion::new("", "v1"));
    rest.registry()
        .by_kind(&version.group, &version.version, object.kind())
        .ok_or_else(|| Failure::new(format!("bootstrap {}: kind {version} is not served", object.kind())))
}

/// The class that makes volumes in a directory of the node, default for claims that name none.
pub(crate) fn storage_class() -> Object {
    object(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {
            "name": "local-path",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": controllers::volume::PROVISIONER,
        "allowVolumeExpansion": true,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }))
}

/// Says what the authority and the token key of the cluster are, so that a server with others is noticed:
/// half of all requests would fail at it. Who has the store alone may change them.
pub(crate) async fn authority(rest: &Rest, pki: &Pki, shared: bool) -> Result<(), Failure> {
    let failed = |error| Failure::of("read the token key", error);
    let key = ring::digest::digest(&ring::digest::SHA256, pki.token_key().map_err(failed)?.as_bytes());
    let key: String = key.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let wanted = object(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "keelson-authority", "namespace": "kube-system"},
        "data": {"ca.crt": pki.ca_pem(), "tokenKeyDigest": key},
    }));
    if !shared {
        return replace(rest, wanted).await;
    }
    ensure(rest, wanted.clone()).await?;
    let kind = rest.cache().kind(&resource_of(rest, &wanted)?.stored_as);
    let there = kind.get(&wanted.key()).and_then(|entry| entry.object().ok());
    if there.as_ref().and_then(|there| there.get(&["data"])) == wanted.get(&["data"]) {
        return Ok(());
    }
    Err(Failure::new("another API server on this store has another authority or token key").advise(
        "give all of them the same --pki-dir, or copy ca.crt, ca.key and sa.key from the first one's pki directory; \
         to change them for good, delete ConfigMap kube-system/keelson-authority",
    ))
}

/// Bootstrap tokens of this group are for new nodes, whose certificates are approved at once.
const NEW_NODES: &str = "system:bootstrappers:nodes";
const NODE_CLIENT: &str = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";

/// Who removes the directories of released local volumes on the nodes: more than a node may do by itself.
pub(crate) const LOCAL_VOLUMES: &str = "system:keelson:local-volumes";

/// The role of [`LOCAL_VOLUMES`].
pub(crate) fn local_volumes() -> Vec<Object> {
    let verbs = ["get", "list", "watch", "patch", "update"];
    let rules = json!([{"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": verbs}]);
    vec![
        cluster_role(LOCAL_VOLUMES, rules),
        cluster_role_binding(LOCAL_VOLUMES, LOCAL_VOLUMES, &[subject("User", LOCAL_VOLUMES)]),
    ]
}

const NODES: &str = "system:nodes";
const RBAC: &str = "rbac.authorization.k8s.io";

fn policy_metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {AUTOUPDATE: "true"}})
}

fn cluster_role(name: &str, rules: Value) -> Object {
    object(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": policy_metadata(name),
        "rules": rules,
    }))
}

fn cluster_role_binding(name: &str, role: &str, subjects: &[Value]) -> Object {
    object(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": policy_metadata(name),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    }))
}

fn subject(kind: &str, name: &str) -> Value {
    json!({"apiGroup": RBAC, "kind": kind, "name": name})
}

/// What nodes in processes of their own may do beside upstream's policy: take the finalizer off the local volumes that
/// they have removed, read what Services and the pod network are made of, and ask for certificates.
pub(crate) fn nodes() -> Vec<Object> {
    let serving = "system:keelson:serving-certificates-of-nodes";
    let ask = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["create"],
        "resources": ["certificatesigningrequests/selfnodeserver"]}]);
    let binding =
        |name: &str, role: &str, group: &str| cluster_role_binding(name, role, &[subject("Group", group)]);
    vec![
        binding("system:keelson:local-volumes-of-nodes", LOCAL_VOLUMES, NODES),
        // Of kube-proxy: on a node, the node's agent is it.
        binding("system:keelson:services-of-nodes", "system:node-proxier", NODES),
        // As kubeadm has it: not every bootstrap token is for nodes.
        binding("system:keelson:new-nodes", "system:node-bootstrapper", NEW_NODES),
        binding("system:keelson:certificates-of-new-nodes", NODE_CLIENT, NEW_NODES),
        cluster_role(serving, ask),
        binding(serving, serving, NODES),
    ]
}

/// What parts in processes of their own may do beside upstream's policy. The controller manager is one user, which
/// has the roles that upstream gives to the service accounts of its controllers, for as long as nobody takes them
/// away because each controller acts as its account.
pub(crate) fn parts() -> Vec<Object> {
    let (user, controllers) = ("system:kube-controller-manager", "system:keelson:controller-manager");
    let policy = kinds::bootstrap(&kinds::Options::default());
    let of_controllers =
        |object: &&Object| object.kind() == "ClusterRole" && object.name().starts_with("system:controller:");
    let mut rules: Vec<Value> = Vec::new();
    for rule in policy.iter().filter(of_controllers).flat_map(|role| role.list(&["rules"])) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    let serving = "system:keelson:approver-of-serving-certificates";
    let approve = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["approve"], "resources": ["signers"],
        "resourceNames": [csr::KUBELET_SERVING]}]);
    let account =
        json!({"kind": "ServiceAccount", "namespace": "kube-system", "name": "certificate-controller"});
    let others = [
        cluster_role(controllers, rules.into()),
        cluster_role_binding(controllers, controllers, &[subject("User", user)]),
        cluster_role(serving, approve),
        cluster_role_binding(serving, serving, &[subject("User", user), account]),
    ];
    controllers::accounts::roles(&policy).into_iter().chain(others).collect()
}

/// Where the API server and the DNS server are reached from pods; `None` where they are not: pods that only exist in
/// memory call nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) api: Option<SocketAddr>,
    pub(crate) dns: Option<SocketAddr>,
}

/// The Services `kubernetes` and `kube-dns`, and what is behind them.
pub(crate) async fn services(rest: &Rest, addresses: Addresses) -> Result<(), Failure> {
    let kubernetes = json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]);
    let dns = json!([
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]);
    let wanted = [
        (
            "default",
            "kubernetes",
            KUBERNETES_IP,
            json!({"component": "apiserver", "provider": "kubernetes"}),
            kubernetes,
        ),
        (
            "kube-system",
            "kube-dns",
            DNS_IP,
            json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}),
            dns,
        ),
    ];
    for (namespace, name, ip, labels, ports) in wanted {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"clusterIP": ip, "ports": ports, "type": "ClusterIP"},
        });
        ensure(rest, object(service)).await?;
        let ports: &[(&str, &str)] = match name {
            "kubernetes" => &[("https", "TCP")],
            _ => &[("dns", "UDP"), ("dns-tcp", "TCP")],
        };
        let address = if name == "kubernetes" { addresses.api } else { addresses.dns };
        if let Some(address) = address {
            endpoints(rest, namespace, name, address, ports).await?;
        }
    }
    Ok(())
}

async fn endpoints(
    rest: &Rest,
    namespace: &str,
    name: &str,
    address: SocketAddr,
    ports: &[(&str, &str)],
) -> Result<(), Failure> {
    let host = address.ip();
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, protocol)| json!({"name": name, "port": address.port(), "protocol": protocol}))
        .collect();
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": name, "namespace": namespace,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": host.to_string()}], "ports": ports}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": if host.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [host.to_string()], "conditions": {"ready": true}}],
        "ports": ports,
    });
    for wanted in [endpoints, slice] {
        replace(rest, object(wanted)).await?;
    }
    Ok(())
}

/// Creates an object or makes the present one say the same.
pub(crate) async fn replace(rest: &Rest, wanted: Object) -> Result<(), Failure> {
    let resource = resource_of(rest, &wanted)?;
    let failed = |status: Status| Failure::of(format!("publish {} {}", wanted.kind(), wanted.key()), status);
    if rest.cache().kind(&resource.stored_as).get(&wanted.key()).is_none() {
        return ensure(rest, wanted).await;
    }
    let target = Target { key: wanted.key(), subresource: String::new() };
    rest.update(&caller(), &resource, &target, wanted.clone(), Duplicates::default())
        .await
        .map(|_| ())
        .map_err(failed)
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use apiserver::{Cache, Registry, rest::Parts};
    use meta::{Fixed, GroupResource, ObjectKey, Seeded};

    use super::*;

    async fn rest() -> Rest {
        let registry = Arc::new(Registry::new());
        registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
        let store = store::Memory::new();
        let cache = Cache::load(&store, &registry).await.unwrap();
        let (rest, _task) = Rest::start(Parts {
            store: Arc::new(store),
            cache: Arc::new(cache),
            registry,
            admission: Vec::new(),
            clock: Arc::new(Fixed::new("2026-01-01T00:00:00Z".parse().unwrap())),
            random: Arc::new(Seeded::new(1)),
        });
        rest
    }

    /// The address of the first Service, claimed by somebody.
    fn claim() -> Object {
        object(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": KUBERNETES_IP},
            "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}},
        }))
    }

    /// As two servers that make a new cluster at the same time.
    #[tokio::test(start_paused = true)]
    async fn what_another_server_has_half_made_is_waited_for() {
        let rest = rest().await;
        objects(&rest, kinds::bootstrap(&kinds::Options::default())).await.unwrap();
        let claim = claim();
        ensure(&rest, claim.clone()).await.unwrap();
        let making = tokio::spawn({
            let rest = rest.clone();
            async move { services(&rest, Addresses::default()).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!making.is_finished());
        let resource = resource_of(&rest, &claim).unwrap();
        rest.delete(
            &caller(),
            &resource,
            &ObjectKey::new("", KUBERNETES_IP.to_string()),
            &Default::default(),
        )
        .await
        .unwrap();
        making.await.unwrap().unwrap();
        let made = rest.cache().kind(&GroupResource::new("", "services")).snapshot();
        assert_eq!(made.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_makes_is_given_up() {
        let rest = rest().await;
        objects(&rest, kinds::bootstrap(&kinds::Options::default())).await.unwrap();
        ensure(&rest, claim()).await.unwrap();
        let failed = services(&rest, Addresses::default()).await.unwrap_err().to_string();
        assert!(failed.starts_with("bootstrap Service default/kubernetes: "), "{failed}");
    }
}
