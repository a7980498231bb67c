//! `apiregistration.k8s.io/v1`: which server answers for a version of a group. Asking other servers is the API
//! server's.

use meta::Object;
use resource::Resource;
use serde_json::json;

use crate::{columns::API_SERVICE, entry::Group, strategy::ApiService};

/// Group, version, `groupPriorityMinimum` and `versionPriority` of what this server answers for itself, upstream's
/// (`pkg/controlplane/apiserver/aggregator.go`); those of `metrics.k8s.io` are metrics-server's.
const LOCAL: &[(&str, &str, i32, i32)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("resource.k8s.io", "v1", 15_900, 15),
    ("metrics.k8s.io", "v1beta1", 100, 100),
];

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .cluster("APIService", "apiservices")
            .category("api-extensions")
            .columns(API_SERVICE)
            .strategy(ApiService)
            .status()
            .done(),
    ]
}

/// The APIServices of the built-in groups. That of `apiregistration.k8s.io` itself is missing, as upstream.
pub(crate) fn local() -> impl Iterator<Item = Object> {
    LOCAL.iter().filter_map(|(group, version, group_priority, version_priority)| {
        let object = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
            },
            "spec": {
                "group": group, "version": version,
                "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
            },
        });
        Object::from_value(object).ok()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_group_that_is_served_is_registered() {
        let table = crate::all(&crate::Options::default(), &crate::Acts::default());
        // Those are served where somebody answers their reviews, as in every whole server.
        let mut served: BTreeSet<(&str, &str)> =
            BTreeSet::from([("authentication.k8s.io", "v1"), ("authorization.k8s.io", "v1")]);
        let kinds = table.iter().filter(|kind| !kind.verbs.is_empty());
        served.extend(kinds.map(|kind| (&*kind.group, &*kind.version)));
        served.remove(&("apiregistration.k8s.io", "v1"));
        assert_eq!(served, LOCAL.iter().map(|(group, version, ..)| (*group, *version)).collect());
    }
}
