//! Endpoints: the older form, one object per Service with its name, at most 1000 addresses.
//!
//! One difference from upstream: when a Service goes, only Endpoints with our managed-by label go with
//! it; upstream deletes any of that name, which takes hand-made ones too.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{Change, Child, Context, Plan, Precondition, Reconciler, Result, Watches, key_of};

use super::backends::{self, Port};
use crate::{pods, spec::HasSpec};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OURS: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Upstream `maxCapacity`.
const ADDRESSES_MAX: usize = 1000;

/// The controller.
pub struct EndpointsController;

/// What one plan looks at.
pub struct World {
    /// `None`: the Service is gone.
    service: Option<Arc<Service>>,
    pods: Vec<Arc<Pod>>,
    endpoints: Option<Arc<Endpoints>>,
}

impl Reconciler for EndpointsController {
    type World = World;
    const NAME: &'static str = "endpoint";

    fn watches(&self) -> Watches {
        let same_key = |change: &Change<Endpoints>, _: &reconcile::Stores| {
            change.object().map(|endpoints| key_of(&**endpoints)).into_iter().collect()
        };
        Watches::of::<Service>().also::<Pod>(backends::services_of_pod).also::<Endpoints>(same_key)
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let service = cx.stores.ready::<Service>().await.get(key);
        let endpoints = cx.stores.ready::<Endpoints>().await.get(key);
        let Some(live) = &service else { return Ok(Some(World { service, pods: Vec::new(), endpoints })) };
        if backends::selector(live).is_none() {
            return Ok(None);
        }
        let pods = cx.stores.ready::<Pod>().await.in_namespace(&key.namespace);
        let mut pods = backends::select(live, pods);
        pods.retain(|pod| !pods::is_deleting(pod) || backends::publishes_not_ready(live));
        Ok(Some(World { service, pods, endpoints }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let present = world.endpoints.as_deref();
        let Some(service) = &world.service else {
            let ours = present.filter(|e| e.labels().get(MANAGED_BY).is_some_and(|by| by == OURS));
            plan.delete.extend(ours.map(Precondition::of));
            return plan;
        };
        let wanted = wanted(service, &world.pods);
        match present {
            None => plan.apply.push(Child::create(&wanted)),
            Some(present) => {
                let mut next = present.clone();
                next.metadata.labels = wanted.metadata.labels;
                let annotations = next.metadata.annotations.get_or_insert_default();
                annotations.remove(OVER_CAPACITY);
                annotations.extend(wanted.metadata.annotations.unwrap_or_default());
                if annotations.is_empty() {
                    next.metadata.annotations =
                        present.metadata.annotations.as_ref().map(|_| BTreeMap::new());
                }
                if next.subsets.as_deref().unwrap_or_default()
                    != wanted.subsets.as_deref().unwrap_or_default()
                {
                    next.subsets = wanted.subsets;
                }
                plan.change(present, &next);
            }
        }
        plan
    }
}

fn wanted(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let (subsets, truncated) = truncate(subsets(service, pods));
    let mut labels = backends::labels(service);
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.namespace(),
            labels: Some(labels),
            annotations: truncated.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into()),
            ..ObjectMeta::default()
        },
        subsets: (!subsets.is_empty()).then_some(subsets),
    }
}

/// Addresses with the same ports and readiness in one subset, in upstream's canonical way
/// (`RepackSubsets`): every address appears once for each set of ports it serves.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let ipv6 = service.spec().ip_families.as_ref().and_then(|f| f.first()).is_some_and(|f| f == "IPv6");
    let no_ports = service.spec().ports.iter().flatten().next().is_none();
    let mut by_ports: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in pods {
        let Some(ip) = backends::addresses(pod).into_iter().find(|ip| ip.is_ipv6() == ipv6) else { continue };
        let ports = backends::ports(service, pod);
        if ports.is_empty() && !(no_ports && backends::is_headless(service)) {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: backends::hostname(service, pod),
            node_name: pod.spec().node_name.clone(),
            target_ref: Some(backends::reference(pod)),
        };
        let (ready, not_ready) = by_ports.entry(ports).or_default();
        let is_ready = backends::publishes_not_ready(service) || pods::is_ready(pod);
        if is_ready { ready.push(address) } else { not_ready.push(address) }
    }
    by_ports.into_iter().map(|(ports, (ready, not_ready))| subset(&ports, ready, not_ready)).collect()
}

fn subset(
    ports: &[Port],
    mut ready: Vec<EndpointAddress>,
    mut not_ready: Vec<EndpointAddress>,
) -> EndpointSubset {
    for addresses in [&mut ready, &mut not_ready] {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
    }
    let wire = |port: &Port| EndpointPort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    EndpointSubset {
        addresses: (!ready.is_empty()).then_some(ready),
        not_ready_addresses: (!not_ready.is_empty()).then_some(not_ready),
        ports: (!ports.is_empty()).then(|| ports.iter().map(wire).collect()),
    }
}

/// Cuts to the bound: not-ready addresses go first. Upstream cuts all subsets in proportion; here the
/// later ones lose first.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let mut room = ADDRESSES_MAX;
    let mut truncated = false;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            truncated |= addresses.len() > room;
            addresses.truncate(room);
            room -= addresses.len();
        }
    };
    subsets.iter_mut().for_each(|subset| cut(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| cut(&mut subset.not_ready_addresses));
    (subsets, truncated)
}
