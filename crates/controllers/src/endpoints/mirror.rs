//! Mirrors Endpoints that a user keeps for a Service without selector as EndpointSlices, which is what
//! everybody reads (upstream `pkg/controller/endpointslicemirroring`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Child, Context, Plan, Precondition, Reconciler, Result, Stores, Watches, key_of, owner_reference,
};

use super::{
    backends::{self, Port},
    placement::{Group, place},
    slice::{MANAGED_BY, SERVICE_NAME},
};

const OURS: &str = "endpointslicemirroring-controller.k8s.io";
/// A user's wish that this object is left alone.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that are locks of an old form of leader election.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say nothing about the slices.
const NOT_COPIED: [&str; 3] = [
    "endpoints.kubernetes.io/last-change-trigger-time",
    "endpoints.kubernetes.io/over-capacity",
    "kubectl.kubernetes.io/last-applied-configuration",
];
/// Upstream `mirroring-max-endpoints-per-subset`.
const SUBSET_MAX: usize = 1000;

/// The controller.
pub struct EndpointSliceMirroring;

/// What one plan looks at.
pub struct World {
    /// `None`: nothing is to be mirrored.
    endpoints: Option<Arc<Endpoints>>,
    /// Our slices of this name.
    slices: Vec<Arc<EndpointSlice>>,
}

impl Reconciler for EndpointSliceMirroring {
    type World = World;
    const NAME: &'static str = "endpointslice-mirroring";

    fn watches(&self) -> Watches {
        let same_key = |change: &Change<Service>, _: &Stores| {
            change.object().map(|service| key_of(&**service)).into_iter().collect()
        };
        Watches::of::<Endpoints>().also::<Service>(same_key).also::<EndpointSlice>(|change, _| {
            change.versions().filter_map(|slice| source_of(slice)).collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let service = cx.stores.ready::<Service>().await.get(key);
        let by_hand = service.is_some_and(|service| backends::selector(&service).is_none());
        let endpoints = cx.stores.ready::<Endpoints>().await.get(key);
        let endpoints = endpoints.filter(|endpoints| by_hand && is_mirrored(endpoints));
        let slices = cx.stores.ready::<EndpointSlice>().await.in_namespace(&key.namespace);
        let slices = slices.into_iter().filter(|slice| source_of(slice).as_ref() == Some(key)).collect();
        Ok(Some(World { endpoints, slices }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(endpoints) = &world.endpoints else {
            plan.delete.extend(world.slices.iter().map(|slice| Precondition::of(&**slice)));
            return plan;
        };
        let placement = place(wanted(endpoints), &[], &world.slices);
        for (group, placed) in placement.create {
            plan.apply.push(Child::create(&new_slice(endpoints, &group, placed)));
        }
        for slice in &world.slices {
            if let Some(placed) = placement.keep.get(&slice.name_any()) {
                let mut next = (**slice).clone();
                next.metadata.labels = Some(labels(endpoints));
                next.metadata.annotations = annotations(endpoints);
                if next.endpoints.as_deref().unwrap_or_default() != placed.as_slice() {
                    next.endpoints = Some(placed.clone());
                }
                plan.change(&**slice, &next);
            } else {
                plan.delete.push(Precondition::of(&**slice));
            }
        }
        plan
    }
}

fn source_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let ours = slice.labels().get(MANAGED_BY).is_some_and(|by| by == OURS);
    let name = slice.labels().get(SERVICE_NAME).filter(|_| ours)?;
    Some(ObjectKey::new(slice.namespace().unwrap_or_default(), name))
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIP).is_none_or(|skip| skip != "true")
        && !endpoints.annotations().contains_key(LEADER)
        && endpoints.metadata.deletion_timestamp.is_none()
}

/// The addresses by family and ports. One that is named twice in a group counts once; ready wins.
fn wanted(endpoints: &Endpoints) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut wanted: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    let mut seen: BTreeSet<(Group, IpAddr)> = BTreeSet::new();
    for subset in endpoints.subsets.iter().flatten() {
        let EndpointSubset { addresses, not_ready_addresses, ports } = subset;
        let mut ports: Vec<Port> = ports.iter().flatten().map(port).collect();
        ports.sort();
        let ready = addresses.iter().flatten().map(|address| (address, true));
        let not_ready = not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(not_ready).take(SUBSET_MAX) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let address_type = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
            let group = Group { address_type, ports: ports.clone() };
            if seen.insert((group.clone(), ip)) {
                wanted.entry(group).or_default().push(endpoint(address, ready));
            }
        }
    }
    wanted
}

fn port(port: &EndpointPort) -> Port {
    Port {
        name: port.name.clone().unwrap_or_default(),
        port: port.port,
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    let EndpointAddress { ip, hostname, node_name, target_ref } = address;
    Endpoint {
        addresses: vec![ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: hostname.clone().filter(|name| !name.is_empty()),
        node_name: node_name.clone(),
        target_ref: target_ref.clone(),
        ..Endpoint::default()
    }
}

fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    labels
}

fn annotations(endpoints: &Endpoints) -> Option<BTreeMap<String, String>> {
    let mut annotations = endpoints.annotations().clone();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    Some(annotations).filter(|annotations| !annotations.is_empty())
}

fn new_slice(source: &Endpoints, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", source.name_any())),
            namespace: source.namespace(),
            labels: Some(labels(source)),
            annotations: annotations(source),
            owner_references: Some(vec![owner_reference(source)]),
            ..ObjectMeta::default()
        },
        address_type: group.address_type.to_owned(),
        ports: Some(group.slice_ports()),
        endpoints: Some(endpoints),
    }
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::{Value, json};

    use super::*;

    const FIXTURE: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: db, namespace: ns }
spec: { ports: [ { port: 5432, protocol: TCP } ] }
---
apiVersion: v1
kind: Endpoints
metadata:
  name: db
  namespace: ns
  uid: uid-e
  labels: { team: blue }
  annotations: { note: x, kubectl.kubernetes.io/last-applied-configuration: "{}" }
subsets:
  - addresses: [ { ip: 192.0.2.1 }, { ip: 192.0.2.1 }, { ip: "2001:db8::1" } ]
    notReadyAddresses: [ { ip: 192.0.2.2, hostname: b } ]
    ports: [ { name: pg, port: 5432, protocol: TCP } ]
"#;

    fn key() -> ObjectKey {
        ObjectKey::new("ns", "db")
    }

    fn bench() -> Bench<EndpointSliceMirroring> {
        let bench = Bench::new(EndpointSliceMirroring);
        bench.put_yaml(FIXTURE);
        bench
    }

    /// Address family, addresses and readiness of each slice.
    fn slices(bench: &Bench<EndpointSliceMirroring>) -> Vec<Value> {
        let slices = bench.api.list(&Kind::of::<EndpointSlice>(), "ns");
        let of_endpoint = |e: &Value| json!([e["addresses"][0], e["conditions"]["ready"]]);
        let shown = slices.iter().map(|slice| {
            let endpoints: Vec<Value> =
                slice["endpoints"].as_array().unwrap().iter().map(of_endpoint).collect();
            json!([slice["addressType"], endpoints])
        });
        let mut shown: Vec<Value> = shown.collect();
        shown.sort_by_key(Value::to_string);
        shown
    }

    #[tokio::test]
    async fn what_a_user_keeps_is_mirrored_and_followed() {
        let bench = bench();
        bench.settle(&key()).await;
        let six = json!(["IPv6", [["2001:db8::1", true]]]);
        assert_eq!(
            slices(&bench),
            [json!(["IPv4", [["192.0.2.1", true], ["192.0.2.2", false]]]), six.clone()]
        );
        let slice = &bench.api.list(&Kind::of::<EndpointSlice>(), "ns")[0];
        assert_eq!(slice["metadata"]["annotations"], json!({ "note": "x" }));
        assert_eq!(
            slice["metadata"]["labels"],
            json!({ "team": "blue", SERVICE_NAME: "db", MANAGED_BY: OURS })
        );
        assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
        let fewer = json!({ "subsets": [{ "addresses": [{ "ip": "192.0.2.9" }], "ports": [{ "name": "pg", "port": 5432, "protocol": "TCP" }] }] });
        bench.api.patch(&Kind::of::<Endpoints>(), &key(), "", &fewer);
        bench.settle(&key()).await;
        assert_eq!(slices(&bench), [json!(["IPv4", [["192.0.2.9", true]]])]);
    }

    async fn check_gone(change: impl FnOnce(&Bench<EndpointSliceMirroring>)) {
        let bench = bench();
        bench.settle(&key()).await;
        assert_eq!(slices(&bench).len(), 2);
        change(&bench);
        bench.settle(&key()).await;
        assert_eq!(slices(&bench).len(), 0);
    }

    #[tokio::test]
    async fn what_is_not_to_be_mirrored_is_not() {
        let labelled = json!({ "metadata": { "labels": { SKIP: "true" } } });
        check_gone(|bench| bench.api.patch(&Kind::of::<Endpoints>(), &key(), "", &labelled)).await;
        let selecting = json!({ "spec": { "selector": { "app": "db" } } });
        check_gone(|bench| bench.api.patch(&Kind::of::<Service>(), &key(), "", &selecting)).await;
        check_gone(|bench| bench.api.delete(&Kind::of::<Service>(), &key())).await;
        check_gone(|bench| bench.api.delete(&Kind::of::<Endpoints>(), &key())).await;
    }
}
