//! The service account that each controller acts as, where each acts as one of its own (upstream's
//! `--use-service-account-credentials`), and what those accounts may do beside upstream's policy.
//!
//! Names are upstream's (`cmd/kube-controller-manager/app`), so that the bindings `system:controller:*` of the
//! bootstrap policy are those of the accounts here. Caches are read by the controller manager's own user, as there.

use meta::{Object, Value};
use serde_json::json;

/// The namespace of the accounts.
pub const NAMESPACE: &str = "kube-system";

/// Who makes clients that act as an account of [`NAMESPACE`].
pub trait Accounts: Send + Sync {
    /// A client that acts as this account from its first request on.
    fn client(&self, account: &str) -> kube::Client;
}

/// Controllers and their accounts; one without acts as the controller manager's own user, as upstream's does.
const ACCOUNTS: &[(&str, Option<&str>)] = &[
    ("bootstrap-token-cleaner", Some("token-cleaner")),
    ("certificatesigningrequest-approving", Some("certificate-controller")),
    ("certificatesigningrequest-cleaner", Some("certificate-controller")),
    ("certificatesigningrequest-signing", Some("certificate-controller")),
    ("clusterrole-aggregation", Some("clusterrole-aggregation-controller")),
    ("cronjob", Some("cronjob-controller")),
    ("daemonset", Some("daemon-set-controller")),
    ("deployment", Some("deployment-controller")),
    ("disruption", Some("disruption-controller")),
    ("endpoint", Some("endpoint-controller")),
    ("endpointslice", Some("endpointslice-controller")),
    ("endpointslice-mirroring", Some("endpointslicemirroring-controller")),
    ("ephemeral-volume", Some("ephemeral-volume-controller")),
    ("garbage-collector", Some("generic-garbage-collector")),
    ("garbage-collector-monitors", Some("generic-garbage-collector")),
    ("horizontal-pod-autoscaler", Some("horizontal-pod-autoscaler")),
    ("job", Some("job-controller")),
    ("job-orphaned-pods", Some("job-controller")),
    ("legacy-serviceaccount-token-cleaner", Some("legacy-service-account-token-cleaner")),
    ("local-path-provisioner", Some("local-path-provisioner")),
    ("namespace", Some("namespace-controller")),
    ("node-ipam", Some("node-controller")),
    ("node-lifecycle", Some("node-controller")),
    ("persistentvolume-binder", Some("persistent-volume-binder")),
    ("persistentvolume-expander", Some("expand-controller")),
    ("persistentvolume-protection", Some("pv-protection-controller")),
    ("persistentvolume-reclaimer", Some("persistent-volume-binder")),
    ("persistentvolumeclaim-protection", Some("pvc-protection-controller")),
    ("pod-garbage-collector", Some("pod-garbage-collector")),
    ("replicaset", Some("replicaset-controller")),
    ("replicationcontroller", Some("replication-controller")),
    ("resourcequota", Some("resourcequota-controller")),
    ("root-ca-certificate-publisher", Some("root-ca-cert-publisher")),
    ("serviceaccount", Some("service-account-controller")),
    ("serviceaccount-token", None),
    ("service-cidr", Some("service-cidrs-controller")),
    ("statefulset", Some("statefulset-controller")),
    ("taint-eviction", Some("node-controller")),
    ("ttl-after-finished", Some("ttl-after-finished-controller")),
    ("validatingadmissionpolicy-status", Some("validatingadmissionpolicy-status-controller")),
    ("volumeattributesclass-protection", Some("volumeattributesclass-protection-controller")),
];

/// What accounts need beside upstream's policy and [`patches`]: verbs, group, resource.
const FURTHER: &[(&str, &str, &str, &str)] = &[
    // Upstream has no such provisioner; the rules are those of `system:persistent-volume-provisioner`.
    ("local-path-provisioner", "create,delete,get,list,watch", "", "persistentvolumes"),
    ("local-path-provisioner", "get,list,patch,update,watch", "", "persistentvolumeclaims"),
    ("local-path-provisioner", "create,patch,update", "events.k8s.io", "events"),
    // Whether the node of a released local volume is there at all, asked live.
    ("pv-protection-controller", "list", "", "nodes"),
];

/// The account of a controller; `None` for one that acts as the controller manager's own user.
pub(crate) fn account(controller: &str) -> Option<&'static str> {
    ACCOUNTS.iter().find(|(name, _)| *name == controller).and_then(|(_, account)| *account)
}

/// Roles and bindings that the accounts need beside `policy`, upstream's: its controllers write with `update`, ours
/// with `patch`. Who may update an object may change as much of it, so patching it is no further right.
pub fn roles(policy: &[Object]) -> Vec<Object> {
    let mut accounts: Vec<&str> = ACCOUNTS.iter().filter_map(|(_, account)| *account).collect();
    accounts.sort_unstable();
    accounts.dedup();
    let of_account = |account: &str| {
        let subject = json!({"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE});
        let mut rules = patches(policy, &format!("system:controller:{account}"));
        rules.extend(FURTHER.iter().filter(|(of, ..)| *of == account).map(|(_, verbs, group, resource)| {
            let verbs: Vec<&str> = verbs.split(',').collect();
            json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
        }));
        granted(&format!("system:keelson:controller:{account}"), rules, subject)
    };
    let manager = "system:kube-controller-manager";
    let subject = json!({"kind": "User", "apiGroup": GROUP, "name": manager});
    let own = granted("system:keelson:kube-controller-manager", patches(policy, manager), subject);
    accounts.into_iter().map(of_account).chain([own]).flatten().collect()
}

const GROUP: &str = "rbac.authorization.k8s.io";

/// `patch` on what a role lets update and not patch.
fn patches(policy: &[Object], role: &str) -> Vec<Value> {
    let role = policy.iter().find(|object| object.kind() == "ClusterRole" && object.name() == role);
    let rules = role.into_iter().flat_map(|role| role.list(&["rules"]));
    let has = |rule: &Value, verb: &str| {
        rule.get("verbs").and_then(Value::as_array).is_some_and(|verbs| verbs.iter().any(|one| one == verb))
    };
    rules
        .filter(|rule| has(rule, "update") && !has(rule, "patch"))
        .map(|rule| {
            let mut rule = rule.clone();
            if let Some(verbs) = rule.get_mut("verbs") {
                *verbs = json!(["patch"]);
            }
            rule
        })
        .collect()
}

/// A role with these rules and its binding; nothing without rules.
fn granted(name: &str, rules: Vec<Value>, subject: Value) -> Vec<Object> {
    if rules.is_empty() {
        return Vec::new();
    }
    let follows = "rbac.authorization.kubernetes.io/autoupdate";
    let metadata = json!({"name": name, "annotations": {follows: "true"}});
    let api_version = format!("{GROUP}/v1");
    let role_ref = json!({"apiGroup": GROUP, "kind": "ClusterRole", "name": name});
    let both = [
        json!({"apiVersion": api_version, "kind": "ClusterRole", "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": api_version, "kind": "ClusterRoleBinding", "metadata": metadata,
            "roleRef": role_ref, "subjects": [subject],
        }),
    ];
    both.into_iter().filter_map(|value| Object::from_value(value).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use meta::{Fixed, Seeded, Timestamp};

    use super::*;
    use crate::Options;

    fn policy() -> Vec<Object> {
        kinds::bootstrap(&kinds::Options::default())
    }

    #[test]
    fn each_controller_has_an_account_that_upstreams_policy_knows() {
        let options = Options::new(Arc::new(Fixed::new(Timestamp::UNIX_EPOCH)), Arc::new(Seeded::new(2)));
        let mut known: BTreeSet<&str> = ACCOUNTS.iter().map(|(name, _)| *name).collect();
        for controller in crate::all(&options) {
            assert!(known.remove(controller.name()), "{} has no account", controller.name());
        }
        // Only with somebody who signs, and where nodes are given ranges.
        let optional = ["certificatesigningrequest-signing", "node-ipam"];
        assert_eq!(known.into_iter().collect::<Vec<_>>(), optional);
        let policy = policy();
        for account in ACCOUNTS.iter().filter_map(|(_, account)| *account) {
            let subject = json!({"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE});
            let bound = policy.iter().any(|object| object.list(&["subjects"]).contains(&subject));
            assert_eq!(bound, account != "local-path-provisioner", "{account}");
        }
    }

    #[test]
    fn what_they_may_do_beside_it() {
        let all = roles(&policy());
        let rule = |rule: &Value| {
            let words = |field: &str| -> String {
                let list = rule.get(field).and_then(Value::as_array).into_iter().flatten();
                let words: Vec<&str> = list.filter_map(Value::as_str).collect();
                words
                    .iter()
                    .map(|word| if word.is_empty() { "-" } else { *word })
                    .collect::<Vec<_>>()
                    .join(",")
            };
            let names = words("resourceNames");
            let line = format!("{} {} {} {names}", words("verbs"), words("apiGroups"), words("resources"));
            line.trim_end().to_owned()
        };
        let lines: Vec<String> = all
            .iter()
            .filter(|object| object.kind() == "ClusterRole")
            .flat_map(|role| {
                let rules = role.list(&["rules"]).iter().map(|of| format!("  {}", rule(of)));
                std::iter::once(role.name().to_owned()).chain(rules)
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
        let bindings = all.iter().filter(|object| object.kind() == "ClusterRoleBinding").count();
        assert_eq!(bindings * 2, all.len());
    }
}
