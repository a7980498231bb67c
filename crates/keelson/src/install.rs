//! `keelson install`: the manifests with which operators run on any cluster: CRDs, rights, a Deployment with
//! limits, a NetworkPolicy. The same for every operator of the table.

use serde_json::{Value, json};

use crate::{
    cli::InstallOptions,
    error::Failure,
    operators::{Operator, choose},
    term,
};

/// Where health and metrics are in the pod.
const PORT: u16 = 8081;

pub(crate) fn install(options: &InstallOptions) -> Result<(), Failure> {
    let operators = choose(&options.operator)?;
    if operators.is_empty() {
        return Err(Failure::usage("--operator none: there is nothing to install"));
    }
    let documents = manifests(&operators, &options.namespace, &options.image, options.replicas);
    let texts = documents
        .iter()
        .map(|document| serde_saphyr::to_string(document).map_err(|error| Failure::of("write yaml", error)));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    term::line(texts.join("---\n").trim_end());
    Ok(())
}

/// Everything, in the order in which it is applied.
fn manifests(operators: &[&Operator], namespace: &str, image: &str, replicas: u32) -> Vec<Value> {
    let mut documents = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace,
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})];
    documents.extend(operators.iter().flat_map(|operator| (operator.crds)()));
    documents.extend(operators.iter().flat_map(|operator| one(operator, namespace, image, replicas)));
    documents
}

fn one(operator: &Operator, namespace: &str, image: &str, replicas: u32) -> Vec<Value> {
    let name = format!("keelson-operator-{}", operator.name);
    let labels = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "keelson"});
    let meta = json!({"name": name, "namespace": namespace, "labels": labels});
    let wide = json!({"name": name, "labels": labels});
    let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]);
    let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let rules: Vec<Value> = (operator.rules)()
        .iter()
        .map(
            |(group, resources, verbs)| json!({"apiGroups": [group], "resources": resources, "verbs": verbs}),
        )
        .collect();
    let rbac = "rbac.authorization.k8s.io/v1";
    vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": wide, "rules": rules}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": wide, "roleRef": role("ClusterRole"),
            "subjects": subjects}),
        // Creation cannot be restricted to a name.
        json!({"apiVersion": rbac, "kind": "Role", "metadata": meta, "rules": [
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [name],
                "verbs": ["get", "update", "patch"]}]}),
        json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": meta, "roleRef": role("Role"),
            "subjects": subjects}),
        deployment(operator, &meta, image, replicas),
        network_policy(&meta),
    ]
}

fn deployment(operator: &Operator, meta: &Value, image: &str, replicas: u32) -> Value {
    let (name, labels) = (&meta["name"], &meta["labels"]);
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "health"}, "periodSeconds": 10});
    let memory = format!("{}Mi", operator.memory_mib);
    let container = json!({
        "name": "operator",
        "image": image,
        "args": ["operator", operator.name, "--namespace", meta["namespace"], "--health", format!("0.0.0.0:{PORT}")],
        "env": [
            {"name": "KEELSON_IDENTITY", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            // The allocator gives back at once what is free, of which it keeps as much again otherwise.
            {"name": "MIMALLOC_PURGE_DELAY", "value": "0"},
        ],
        "ports": [{"name": "health", "containerPort": PORT}],
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        "resources": {"requests": {"cpu": "50m", "memory": "48Mi"}, "limits": {"memory": memory}},
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]}},
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": name,
                    "terminationGracePeriodSeconds": 15,
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [container],
                },
            },
        },
    })
}

/// In: health and metrics. Out: names, the API server, platforms by HTTPS; private addresses too, since API
/// servers have them.
fn network_policy(meta: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta,
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": meta["name"]}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": PORT}]}],
            "egress": [
                {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
                {"ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 6443},
                    {"protocol": "TCP", "port": 8443}]},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::OPERATORS;

    #[test]
    fn every_operator_has_its_manifests() {
        let all: Vec<&Operator> = OPERATORS.iter().collect();
        let documents = manifests(&all, "keelson-system", "keelson:1", 2);
        let of =
            |kind: &str| documents.iter().filter(|document| document["kind"] == kind).collect::<Vec<_>>();
        for kind in ["Deployment", "ClusterRole", "Role", "NetworkPolicy", "ServiceAccount"] {
            assert_eq!(of(kind).len(), OPERATORS.len(), "{kind}");
        }
        assert!(of("CustomResourceDefinition").len() >= OPERATORS.len());
        for document in of("Deployment") {
            let container = &document["spec"]["template"]["spec"]["containers"][0];
            assert!(container["resources"]["limits"]["memory"].is_string());
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        }
    }

    #[test]
    fn obsyk_reads_and_writes_only_its_own_status() {
        let obsyk: Vec<&Operator> = OPERATORS.iter().filter(|operator| operator.name == "obsyk").collect();
        for (group, resources, verbs) in (obsyk[0].rules)() {
            let own = group == operator_obsyk::GROUP && resources == ["obsykagents/status"];
            let tells = resources == ["events"];
            let writes = verbs.iter().any(|verb| !matches!(*verb, "get" | "list" | "watch"));
            assert!(!writes || own || tells, "{group} {resources:?} {verbs:?}");
        }
    }
}
