use super::*;
use crate::testing::Objects;
use meta::FieldSelector;
use serde_json::json;

fn world() -> Objects {
    let pod = |name: &str, node: &str, secret: &str| {
        json!({
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {
                "nodeName": node, "serviceAccountName": format!("{name}-sa"),
                "imagePullSecrets": [{"name": format!("{secret}-pull")}],
                "containers": [{
                    "env": [{"valueFrom": {"secretKeyRef": {"name": format!("{secret}-env")}}}],
                    "envFrom": [{"configMapRef": {"name": format!("{secret}-map")}}],
                }],
                "volumes": [
                    {"secret": {"secretName": secret}},
                    {"projected": {"sources": [{"secret": {"name": format!("{secret}-projected")}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
                    {"persistentVolumeClaim": {"claimName": format!("{name}-claim")}},
                    {"name": "scratch", "ephemeral": {}},
                ],
            },
        })
    };
    let of = |resource: &str| GroupResource::new("", resource);
    Objects::default()
        .with(&of("pods"), pod("mine", "n1", "one"))
        .with(&of("pods"), pod("theirs", "n2", "two"))
        .with(&of("persistentvolumeclaims"), json!({"metadata": {"name": "mine-claim", "namespace": "ns"}, "spec": {"volumeName": "pv1"}}))
        .with(&of("persistentvolumes"), json!({"metadata": {"name": "pv1"}, "spec": {"claimRef": {"namespace": "ns", "name": "mine-claim"}}}))
        // One that names a claim that is not bound to it.
        .with(&of("persistentvolumes"), json!({"metadata": {"name": "pv2"}, "spec": {"claimRef": {"namespace": "ns", "name": "mine-claim"}}}))
        .with(&GroupResource::new("storage.k8s.io", "volumeattachments"), json!({"metadata": {"name": "a1"}, "spec": {"nodeName": "n1"}}))
}

fn node(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(|g| (*g).to_owned()).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

fn check(user: &User, verb: &str, what: (&str, &str, &str, &str, &str), fields: &str, expected: bool) {
    let services =
        Rule::from_value(&json!({"verbs": ["list"], "apiGroups": [""], "resources": ["services"]}));
    let authorizer = NodeAuthorizer::new(Arc::new(world()), vec![services]);
    let (group, resource, subresource, namespace, name) = what;
    let fields = FieldSelector::parse(fields).unwrap();
    let object = Asked::Resource { group, version: "v1", resource, subresource, namespace, name };
    let ask = Ask { fields: Some(&fields), ..Ask::new(user, verb, object) };
    assert_eq!(authorizer.allows(&ask), expected, "{verb} {what:?} {:?}", authorizer.decide(&ask));
}

#[test]
fn a_node_reads_what_its_pods_need() {
    let n1 = node("system:node:n1", &["system:nodes", "system:authenticated"]);
    for (verb, what, expected) in [
        ("get", ("", "secrets", "", "ns", "one"), true),
        ("watch", ("", "secrets", "", "ns", "one-pull"), true),
        ("list", ("", "secrets", "", "ns", "one-env"), true),
        ("get", ("", "secrets", "", "ns", "one-projected"), true),
        ("get", ("", "secrets", "", "ns", "two"), false),
        ("get", ("", "secrets", "", "other", "one"), false),
        ("get", ("", "secrets", "", "", "one"), false),
        ("list", ("", "secrets", "", "ns", ""), false),
        ("update", ("", "secrets", "", "ns", "one"), false),
        ("delete", ("", "secrets", "", "ns", "one"), false),
        ("get", ("", "configmaps", "", "ns", "one-map"), true),
        ("get", ("", "configmaps", "", "ns", "kube-root-ca.crt"), true),
        ("get", ("", "configmaps", "", "ns", "two-map"), false),
        ("get", ("", "persistentvolumeclaims", "", "ns", "mine-claim"), true),
        ("get", ("", "persistentvolumeclaims", "", "ns", "mine-scratch"), true),
        ("get", ("", "persistentvolumeclaims", "", "ns", "theirs-claim"), false),
        ("patch", ("", "persistentvolumeclaims", "status", "ns", "mine-claim"), true),
        ("update", ("", "persistentvolumeclaims", "", "ns", "mine-claim"), false),
        ("get", ("", "persistentvolumes", "", "", "pv1"), true),
        ("get", ("", "persistentvolumes", "", "", "pv2"), false),
        ("list", ("", "persistentvolumes", "", "", ""), false),
        ("get", ("storage.k8s.io", "volumeattachments", "", "", "a1"), true),
        ("create", ("", "serviceaccounts", "token", "ns", "mine-sa"), true),
        ("create", ("", "serviceaccounts", "token", "ns", "theirs-sa"), false),
        ("get", ("", "serviceaccounts", "", "ns", "mine-sa"), true),
        ("list", ("", "services", "", "ns", ""), true),
        ("delete", ("", "services", "", "ns", "s"), false),
    ] {
        check(&n1, verb, what, "", expected);
    }
}

#[test]
fn a_node_has_its_own_objects() {
    let n1 = node("system:node:n1", &["system:nodes"]);
    let lease = "coordination.k8s.io";
    for (verb, what, fields, expected) in [
        ("get", ("", "nodes", "", "", "n1"), "", true),
        ("get", ("", "nodes", "", "", "n2"), "", false),
        ("list", ("", "nodes", "", "", ""), "", false),
        ("patch", ("", "nodes", "status", "", "n1"), "", true),
        ("delete", ("", "nodes", "", "", "n1"), "", false),
        ("update", (lease, "leases", "", "kube-node-lease", "n1"), "", true),
        ("create", (lease, "leases", "", "kube-node-lease", ""), "", true),
        ("update", (lease, "leases", "", "kube-node-lease", "n2"), "", false),
        ("update", (lease, "leases", "", "kube-system", "n1"), "", false),
        ("get", ("storage.k8s.io", "csinodes", "", "", "n1"), "", true),
        ("get", ("storage.k8s.io", "csinodes", "", "", "n2"), "", false),
        ("get", ("", "pods", "", "ns", "mine"), "", true),
        ("get", ("", "pods", "", "ns", "theirs"), "", false),
        ("watch", ("", "pods", "", "", ""), "spec.nodeName=n1", true),
        ("watch", ("", "pods", "", "", ""), "spec.nodeName=n2", false),
        ("list", ("", "pods", "", "", ""), "spec.nodeName!=n1", false),
        ("list", ("", "pods", "", "", ""), "", false),
        ("patch", ("", "pods", "status", "ns", "mine"), "", true),
        ("update", ("", "pods", "", "ns", "mine"), "", false),
        ("create", ("", "pods", "exec", "ns", "mine"), "", false),
        ("create", ("", "pods", "binding", "ns", "mine"), "", false),
    ] {
        check(&n1, verb, what, fields, expected);
    }
}

#[test]
fn nobody_else_is_a_node() {
    for user in [
        node("system:node:n1", &["system:authenticated"]),
        node("system:node:", &["system:nodes"]),
        node("ann", &["system:nodes"]),
        node("system:nodes:n1", &["system:nodes"]),
    ] {
        check(&user, "get", ("", "secrets", "", "ns", "one"), "", false);
        check(&user, "get", ("", "nodes", "", "", "n1"), "", false);
        check(&user, "list", ("", "services", "", "ns", ""), "", false);
    }
}
