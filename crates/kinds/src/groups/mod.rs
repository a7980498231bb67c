//! One file for each API group: its entries in the table.

use std::sync::Arc;

use ::resource::Resource;
use schema::TypeSet;

use crate::{
    Acts, Options,
    canonical::{Canonical, Zeros},
    entry::Group,
    inert,
    strategy::NODE_PORTS,
};

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod events;
mod flowcontrol;
mod metrics;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;

pub(crate) use apiregistration::local as api_services;

/// Every kind of every group.
pub(crate) fn all(types: &Arc<TypeSet>, zeros: &Arc<Zeros>, options: &Options, acts: &Acts) -> Vec<Resource> {
    let group = |name, version, package| Group { name, version, package, types };
    let mut kinds = vec![
        core::kinds(&group("", "v1", "io.k8s.api.core.v1"), options, acts),
        apps::kinds(&group("apps", "v1", "io.k8s.api.apps.v1")),
        events::kinds(&group("events.k8s.io", "v1", "io.k8s.api.events.v1")),
        authentication::kinds(&group("authentication.k8s.io", "v1", "io.k8s.api.authentication.v1"), acts),
        authorization::kinds(&group("authorization.k8s.io", "v1", "io.k8s.api.authorization.v1"), acts),
        autoscaling::kinds_v2(&group("autoscaling", "v2", "io.k8s.api.autoscaling.v2")),
        autoscaling::kinds_v1(&group("autoscaling", "v1", "io.k8s.api.autoscaling.v1")),
        batch::kinds(&group("batch", "v1", "io.k8s.api.batch.v1")),
        certificates::kinds(&group("certificates.k8s.io", "v1", "io.k8s.api.certificates.v1")),
        networking::kinds(&group("networking.k8s.io", "v1", "io.k8s.api.networking.v1")),
        policy::kinds(&group("policy", "v1", "io.k8s.api.policy.v1")),
        rbac::kinds(&group("rbac.authorization.k8s.io", "v1", "io.k8s.api.rbac.v1")),
        resource::kinds(&group("resource.k8s.io", "v1", "io.k8s.api.resource.v1")),
        storage::kinds(&group("storage.k8s.io", "v1", "io.k8s.api.storage.v1")),
        apiextensions::kinds(&group(
            "apiextensions.k8s.io",
            "v1",
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        )),
        apiregistration::kinds(&group(
            "apiregistration.k8s.io",
            "v1",
            "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
        )),
        admissionregistration::kinds(&group(
            "admissionregistration.k8s.io",
            "v1",
            "io.k8s.api.admissionregistration.v1",
        )),
        scheduling::kinds(&group("scheduling.k8s.io", "v1", "io.k8s.api.scheduling.v1")),
        coordination::kinds(&group("coordination.k8s.io", "v1", "io.k8s.api.coordination.v1")),
        node::kinds(&group("node.k8s.io", "v1", "io.k8s.api.node.v1")),
        networking::claims(&group(NODE_PORTS.0, "v1", "")),
        metrics::kinds(&group("metrics.k8s.io", "v1beta1", "")),
        flowcontrol::kinds(&group("flowcontrol.apiserver.k8s.io", "v1", "io.k8s.api.flowcontrol.v1")),
        discovery::kinds(&group("discovery.k8s.io", "v1", "io.k8s.api.discovery.v1")),
    ];
    for group in &mut kinds {
        group.sort_by(|a, b| a.plural.cmp(&b.plural));
    }
    let canonical = |mut kind: Resource| {
        let notice = inert::notice(&kind);
        let (inner, schema) = (kind.strategy, kind.schema.clone());
        kind.strategy = Arc::new(Canonical { inner, schema, zeros: zeros.clone(), notice });
        kind
    };
    kinds.into_iter().flatten().map(canonical).collect()
}
