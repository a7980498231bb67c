//! The smallest useful object of every kind that is served, or that may be.

use serde_json::{Value, json};

/// Group and version, plural, and all of the object but its identity.
pub(crate) fn samples() -> Vec<(&'static str, &'static str, Value)> {
    let mut all = core();
    all.extend(workloads());
    all.extend(cluster());
    all.extend(policies());
    all
}

fn template() -> Value {
    json!({"metadata": {"labels": {"of": "every"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
}

fn selector() -> Value {
    json!({"matchLabels": {"of": "every"}})
}

fn core() -> Vec<(&'static str, &'static str, Value)> {
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    vec![
        ("v1", "configmaps", json!({"data": {"k": "v"}, "binaryData": {"b": "AQI="}})),
        (
            "v1",
            "endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.9.9.9"}], "ports": [{"port": 80}]}]}),
        ),
        (
            "v1",
            "events",
            json!({"involvedObject": {"namespace": "every", "name": "x"}, "reason": "R", "message": "m", "type": "Normal"}),
        ),
        (
            "v1",
            "limitranges",
            json!({"spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "100Gi"}}]}}),
        ),
        ("v1", "namespaces", json!({})),
        ("v1", "nodes", json!({"spec": {"unschedulable": true}})),
        ("v1", "persistentvolumeclaims", json!({"spec": claim})),
        (
            "v1",
            "persistentvolumes",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/every"},
                "storageClassName": "every", "persistentVolumeReclaimPolicy": "Retain"}}),
        ),
        (
            "v1",
            "pods",
            json!({"spec": {"containers": [{"name": "c", "image": "i:1"}], "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"none": "such"}}}),
        ),
        ("v1", "podtemplates", json!({"template": template()})),
        (
            "v1",
            "replicationcontrollers",
            json!({"spec": {"replicas": 0, "selector": {"of": "every"}, "template": template()}}),
        ),
        ("v1", "resourcequotas", json!({"spec": {"hard": {"count/widgets.example.com": "5"}}})),
        ("v1", "secrets", json!({"data": {"k": "AQI="}, "type": "Opaque"})),
        ("v1", "serviceaccounts", json!({})),
        (
            "v1",
            "services",
            json!({"spec": {"ports": [{"port": 80, "targetPort": "http"}], "selector": {"of": "every"}}}),
        ),
        (
            "events.k8s.io/v1",
            "events",
            json!({"eventTime": "2026-01-02T03:04:05.000006Z", "reason": "R", "action": "A", "type": "Normal",
                "reportingController": "example.com/c", "reportingInstance": "i", "regarding": {"namespace": "every", "name": "x"}}),
        ),
        (
            "discovery.k8s.io/v1",
            "endpointslices",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.9.9.8"]}], "ports": [{"port": 80, "name": "p"}]}),
        ),
        (
            "coordination.k8s.io/v1",
            "leases",
            json!({"spec": {"holderIdentity": "h", "leaseDurationSeconds": 10}}),
        ),
    ]
}

fn workloads() -> Vec<(&'static str, &'static str, Value)> {
    let apps = || json!({"replicas": 0, "selector": selector(), "template": template()});
    let mut set = apps();
    set["serviceName"] = json!("every");
    let mut job = template();
    job["spec"]["restartPolicy"] = json!("Never");
    let daemon = json!({"selector": selector(), "template": template()});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"});
    vec![
        ("apps/v1", "controllerrevisions", json!({"revision": 1, "data": {"a": 1}})),
        ("apps/v1", "daemonsets", json!({"spec": daemon})),
        ("apps/v1", "deployments", json!({"spec": apps()})),
        ("apps/v1", "replicasets", json!({"spec": apps()})),
        ("apps/v1", "statefulsets", json!({"spec": set})),
        ("batch/v1", "jobs", json!({"spec": {"suspend": true, "template": job}})),
        (
            "batch/v1",
            "cronjobs",
            json!({"spec": {"suspend": true, "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": job}}}}),
        ),
        (
            "autoscaling/v2",
            "horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": target, "maxReplicas": 2}}),
        ),
        (
            "autoscaling/v1",
            "horizontalpodautoscalers",
            json!({"spec": {"scaleTargetRef": target, "maxReplicas": 2}}),
        ),
        (
            "policy/v1",
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": "50%", "selector": selector()}}),
        ),
    ]
}

fn cluster() -> Vec<(&'static str, &'static str, Value)> {
    let role = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let reference = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "x"});
    let devices =
        json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "d.example.com"}}]}});
    let subjects = json!([{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}]);
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let definition = json!({"group": "every.test", "scope": "Namespaced", "names": {"plural": "every", "kind": "Every"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]});
    vec![
        ("networking.k8s.io/v1", "ingressclasses", json!({"spec": {"controller": "example.com/c"}})),
        ("networking.k8s.io/v1", "ingresses", json!({"spec": {"defaultBackend": backend}})),
        (
            "networking.k8s.io/v1",
            "ipaddresses",
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "every", "name": "x"}}}),
        ),
        (
            "networking.k8s.io/v1",
            "networkpolicies",
            json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}),
        ),
        ("networking.k8s.io/v1", "servicecidrs", json!({"spec": {"cidrs": ["10.250.0.0/24"]}})),
        ("rbac.authorization.k8s.io/v1", "clusterroles", json!({"rules": role})),
        ("rbac.authorization.k8s.io/v1", "roles", json!({"rules": role})),
        (
            "rbac.authorization.k8s.io/v1",
            "clusterrolebindings",
            json!({"roleRef": reference("ClusterRole"), "subjects": subjects}),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "rolebindings",
            json!({"roleRef": reference("Role"), "subjects": subjects}),
        ),
        ("resource.k8s.io/v1", "deviceclasses", json!({"spec": {}})),
        ("resource.k8s.io/v1", "resourceclaims", json!({"spec": devices})),
        ("resource.k8s.io/v1", "resourceclaimtemplates", json!({"spec": {"spec": devices}})),
        (
            "resource.k8s.io/v1",
            "resourceslices",
            json!({"spec": {"driver": "d.example.com", "nodeName": "none", "pool": {"name": "p", "resourceSliceCount": 1}}}),
        ),
        ("storage.k8s.io/v1", "csidrivers", json!({"spec": {"attachRequired": false}})),
        ("storage.k8s.io/v1", "csinodes", json!({"spec": {"drivers": []}})),
        (
            "storage.k8s.io/v1",
            "csistoragecapacities",
            json!({"storageClassName": "every", "capacity": "1Gi"}),
        ),
        ("storage.k8s.io/v1", "storageclasses", json!({"provisioner": "example.com/p"})),
        (
            "storage.k8s.io/v1",
            "volumeattachments",
            json!({"spec": {"attacher": "example.com/a", "nodeName": "n", "source": {"persistentVolumeName": "x"}}}),
        ),
        (
            "storage.k8s.io/v1",
            "volumeattributesclasses",
            json!({"driverName": "example.com/d", "parameters": {"a": "b"}}),
        ),
        ("apiextensions.k8s.io/v1", "customresourcedefinitions", json!({"spec": definition})),
        ("scheduling.k8s.io/v1", "priorityclasses", json!({"value": 10})),
        ("node.k8s.io/v1", "runtimeclasses", json!({"handler": "h"})),
    ]
}

fn policies() -> Vec<(&'static str, &'static str, Value)> {
    let client = json!({"url": "https://127.0.0.1:1/hook"});
    let rule = json!([{"apiGroups": ["every.test"], "apiVersions": ["v1"], "resources": ["none"], "operations": ["CREATE"]}]);
    let hook = json!([{"name": "a.every.test", "clientConfig": client, "rules": rule, "sideEffects": "None", "admissionReviewVersions": ["v1"]}]);
    let matching = json!({"resourceRules": rule});
    let apply = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]);
    let registration = "admissionregistration.k8s.io/v1";
    let subjects = json!([{"kind": "User", "user": {"name": "nobody"}}]);
    let flow = json!({"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 9000, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": subjects, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/every"]}]}]});
    vec![
        (registration, "validatingwebhookconfigurations", json!({"webhooks": hook})),
        (registration, "mutatingwebhookconfigurations", json!({"webhooks": hook})),
        (
            registration,
            "validatingadmissionpolicies",
            json!({"spec": {"matchConstraints": matching, "validations": [{"expression": "true"}]}}),
        ),
        (
            registration,
            "validatingadmissionpolicybindings",
            json!({"spec": {"policyName": "x", "validationActions": ["Deny"]}}),
        ),
        (
            registration,
            "mutatingadmissionpolicies",
            json!({"spec": {"matchConstraints": matching, "mutations": apply, "reinvocationPolicy": "Never"}}),
        ),
        (registration, "mutatingadmissionpolicybindings", json!({"spec": {"policyName": "x"}})),
        ("flowcontrol.apiserver.k8s.io/v1", "flowschemas", json!({"spec": flow})),
        (
            "flowcontrol.apiserver.k8s.io/v1",
            "prioritylevelconfigurations",
            json!({"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}}),
        ),
        (
            "apiregistration.k8s.io/v1",
            "apiservices",
            json!({"spec": {"group": "every.test", "version": "v9", "groupPriorityMinimum": 1000, "versionPriority": 15,
                "insecureSkipTLSVerify": true, "service": {"namespace": "every", "name": "none"}}}),
        ),
    ]
}

/// Kinds whose objects cannot be made up: a test of their own makes them, or nobody but the server does.
pub(crate) const ELSEWHERE: &[(&str, &str)] = &[
    // A request has to be signed.
    ("certificates.k8s.io/v1", "certificatesigningrequests"),
    ("claims.keelson.internal/v1", "nodeports"),
];

/// What the name of an object of a kind has to be, where that is not free.
pub(crate) fn name(plural: &str) -> Option<&'static str> {
    Some(match plural {
        "ipaddresses" => "10.96.200.200",
        "customresourcedefinitions" => "every.every.test",
        "apiservices" => "v9.every.test",
        _ => return None,
    })
}
