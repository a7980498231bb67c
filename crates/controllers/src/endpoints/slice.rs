//! EndpointSlices: the pods of a Service, by address family and ports, at most 100 to a slice.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Node, Pod, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{Child, Context, Plan, Precondition, Reconciler, Result, Watches, owner_reference};

use super::{
    backends,
    placement::{Group, place},
};
use crate::{pods, spec::HasSpec};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const OURS: &str = "endpointslice-controller.k8s.io";

/// The controller.
pub struct EndpointSlices;

/// What one plan looks at.
pub struct World {
    service: Arc<Service>,
    pods: Vec<Arc<Pod>>,
    /// Our slices of this Service.
    slices: Vec<Arc<EndpointSlice>>,
    /// `topology.kubernetes.io/zone` of the nodes that run the pods.
    zones: HashMap<String, String>,
}

impl Reconciler for EndpointSlices {
    type World = World;
    const NAME: &'static str = "endpointslice";

    fn watches(&self) -> Watches {
        Watches::of::<Service>()
            .also::<Pod>(backends::services_of_pod)
            .also::<EndpointSlice>(|change, _| {
                change.versions().filter_map(|slice| service_of(slice)).collect()
            })
            .reads::<Node>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(service) = cx.stores.ready::<Service>().await.get(key) else { return Ok(None) };
        if backends::selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods = cx.stores.ready::<Pod>().await.in_namespace(&key.namespace);
        let pods = backends::select(&service, pods);
        let slices = cx.stores.ready::<EndpointSlice>().await.in_namespace(&key.namespace);
        let slices = slices.into_iter().filter(|slice| service_of(slice).as_ref() == Some(key)).collect();
        let nodes = cx.stores.ready::<Node>().await;
        let zone = |pod: &Arc<Pod>| {
            let name = pod.spec().node_name.clone()?;
            let node = nodes.get(&ObjectKey::new("", &name))?;
            Some((name, node.labels().get("topology.kubernetes.io/zone")?.clone()))
        };
        let zones = pods.iter().filter_map(zone).collect();
        Ok(Some(World { service, pods, slices, zones }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let families = families(&world.service);
        let mut wanted: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
        for pod in &world.pods {
            for address_type in &families {
                let of_family = |ip: &IpAddr| (*address_type == "IPv6") == ip.is_ipv6();
                if let Some(ip) = backends::addresses(pod).into_iter().find(of_family) {
                    let group = Group { address_type, ports: backends::ports(&world.service, pod) };
                    wanted.entry(group).or_default().push(endpoint(world, pod, ip));
                }
            }
        }
        let empty: Vec<Group> =
            families.iter().map(|address_type| Group { address_type, ports: Vec::new() }).collect();
        let placement = place(wanted, &empty, &world.slices);
        for (group, endpoints) in placement.create {
            plan.apply.push(Child::create(&new_slice(&world.service, &group, endpoints)));
        }
        for slice in &world.slices {
            if let Some(endpoints) = placement.keep.get(&slice.name_any()) {
                let mut next = (**slice).clone();
                next.metadata.labels = Some(labels(&world.service));
                if next.endpoints.as_deref().unwrap_or_default() != endpoints.as_slice() {
                    next.endpoints = Some(endpoints.clone());
                }
                plan.change(&**slice, &next);
            } else if placement.delete.contains(&slice.name_any()) {
                plan.delete.push(Precondition::of(&**slice));
            }
        }
        plan
    }
}

/// The Service of a slice of ours.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let ours = slice.labels().get(MANAGED_BY).is_some_and(|by| by == OURS);
    let name = slice.labels().get(SERVICE_NAME).filter(|_| ours)?;
    Some(ObjectKey::new(slice.namespace().unwrap_or_default(), name))
}

fn families(service: &Service) -> Vec<&'static str> {
    let known = |family: &String| if family == "IPv6" { "IPv6" } else { "IPv4" };
    let listed: Vec<&'static str> = service.spec().ip_families.iter().flatten().map(known).collect();
    if listed.is_empty() { vec!["IPv4"] } else { listed }
}

fn endpoint(world: &World, pod: &Pod, ip: IpAddr) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pods::is_deleting(pod));
    let ready = backends::publishes_not_ready(&world.service) || (serving && !terminating);
    let node_name = pod.spec().node_name.clone();
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: backends::hostname(&world.service, pod),
        zone: node_name.as_ref().and_then(|name| world.zones.get(name)).cloned(),
        node_name,
        target_ref: Some(backends::reference(pod)),
        ..Endpoint::default()
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = backends::labels(service);
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    labels
}

fn new_slice(service: &Service, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", service.name_any())),
            namespace: service.namespace(),
            labels: Some(labels(service)),
            owner_references: Some(vec![owner_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: group.address_type.to_owned(),
        ports: Some(group.slice_ports()),
        endpoints: Some(endpoints),
    }
}
