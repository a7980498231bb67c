//! A cluster that changes: objects of all twenty kinds, with values in every place where a value may be, and
//! canaries where none may leave the cluster.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use meta::{ObjectKey, Random, Seeded};
use reconcile::testkit::FakeApi;
use serde_json::{Value, json};

use crate::Kind;

/// What must be found nowhere outside the API server.
pub(super) const CANARY: &str = "CANARY";

/// A kind as the API server knows it.
pub(super) fn api_kind(kind: Kind) -> reconcile::Kind {
    reconcile::Kind::new(kind.group(), "v1", kind.name(), kind.plural())
}

/// See the module.
pub(super) struct Churn {
    pub(super) api: FakeApi,
    dice: Arc<Seeded>,
    version: u64,
}

impl Churn {
    pub(super) fn new(api: FakeApi, seed: u64) -> Self {
        for kind in Kind::ALL {
            api.register(api_kind(kind), kind.is_namespaced());
        }
        Self { api, dice: Arc::new(Seeded::new(seed)), version: 0 }
    }

    pub(super) fn fill(&mut self, count: usize) {
        (0..count).for_each(|_| self.change());
    }

    /// One random change: a creation, an update, an update that shows nothing, or a delete.
    pub(super) fn change(&mut self) {
        let kind = match self.dice.below(3) {
            0 => Kind::Pod,
            _ => Kind::ALL[usize::try_from(self.dice.below(20)).unwrap()],
        };
        let name = format!("o-{}", self.dice.below(8));
        let key = ObjectKey::new(if kind.is_namespaced() { "ns" } else { "" }, name.as_str());
        // A namespace ends by finalizers, which need a controller.
        let there = self.api.get(&api_kind(kind), &key).is_some() && kind != Kind::Namespace;
        match (there, self.dice.below(6)) {
            (true, 0) => self.api.delete(&api_kind(kind), &key),
            (true, 1) => {
                // The same name, another object.
                self.api.delete(&api_kind(kind), &key);
                self.put(kind, &name);
            }
            (true, 2) => {
                self.version += 1;
                let patch =
                    json!({"metadata": {"annotations": {"kubernetes.io/beat": self.version.to_string()}}});
                self.api.patch(&api_kind(kind), &key, "", &patch);
            }
            _ => self.put(kind, &name),
        }
    }

    fn put(&mut self, kind: Kind, name: &str) {
        self.version += 1;
        let mut object = self.object(kind);
        object["apiVersion"] =
            json!(if kind.group().is_empty() { "v1".to_owned() } else { format!("{}/v1", kind.group()) });
        object["kind"] = json!(kind.name());
        let mut meta = json!({
            "name": name,
            "labels": {"v": self.version.to_string(), "app": "<b>&"},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": CANARY,
                "app.kubernetes.io/note": "kept",
                "kapp.k14s.io/original": CANARY,
            },
        });
        if kind.is_namespaced() {
            meta["namespace"] = json!("ns");
        }
        if matches!(kind, Kind::Secret | Kind::ConfigMap) {
            meta["annotations"]["tool/copy"] = json!(format!("{{\"data\":{{\"k\":\"{CANARY}\"}}}}"));
            meta["annotations"]["tool/note"] = json!(format!("the password is {CANARY}"));
            meta["annotations"]["tool/packed"] = json!(packed(&format!("{CANARY}\n")));
            meta["annotations"]["tool/owner"] = json!("team-a");
        }
        if kind == Kind::Node && self.dice.below(2) == 0 {
            meta["labels"]["node-role.kubernetes.io/master"] = json!("");
        }
        if kind == Kind::Job {
            meta["ownerReferences"] =
                json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": "x"}]);
        }
        object["metadata"] = meta;
        self.api.put(&object);
    }

    /// A ConfigMap of whose names so many bytes are sent.
    pub(super) fn large(&mut self, name: &str, bytes: usize) {
        let key = "k".repeat(1000);
        let data: serde_json::Map<String, Value> =
            (0..bytes / 1000).map(|at| (format!("{key}-{at}"), json!(CANARY))).collect();
        self.api.put(&json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "ns"}, "data": data}));
    }

    /// It is deleted.
    pub(super) fn gone(&self, name: &str) {
        self.api.delete(&api_kind(Kind::ConfigMap), &ObjectKey::new("ns", name));
    }

    fn number(&self, below: u64) -> u64 {
        self.dice.below(below)
    }

    fn object(&self, kind: Kind) -> Value {
        let version = self.version;
        let n = self.number(4);
        match kind {
            Kind::Namespace => json!({"status": {"phase": if n == 0 { "Terminating" } else { "Active" }}}),
            Kind::Pod => self.pod(n),
            Kind::Service => json!({"spec": {"type": "ClusterIP", "clusterIP": format!("10.0.0.{n}"),
                "selector": {"app": "a"}, "ports": [
                    {"name": "http", "protocol": "TCP", "port": 80 + n, "targetPort": "web"},
                    {"protocol": "UDP", "port": 53, "targetPort": 5353}, {"protocol": "TCP", "port": 1}]}}),
            Kind::Node => json!({"status": {
                "conditions": [{"type": "Ready", "status": if n == 0 { "False" } else { "True" },
                    "lastHeartbeatTime": version.to_string()}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "architecture": "amd64"},
                "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"}}}),
            Kind::Deployment => json!({"spec": {"replicas": n, "strategy": {"type": "RollingUpdate"},
                "selector": {"matchLabels": {"app": "a"}}, "template": template(version)},
                "status": {"readyReplicas": n, "updatedReplicas": n}}),
            Kind::StatefulSet => json!({"spec": {"serviceName": "s", "updateStrategy": {"type": "OnDelete"},
                "selector": {"matchLabels": {"app": "a"}}, "template": template(version)}}),
            Kind::DaemonSet => json!({"spec": {"selector": {"matchLabels": {"app": "a"}},
                "template": template(version)}, "status": {"desiredNumberScheduled": n, "numberReady": n}}),
            Kind::Job => json!({"spec": {"parallelism": n}, "status": {"active": n,
                "startTime": "2026-01-01T00:00:00Z"}}),
            Kind::CronJob => json!({"spec": {"schedule": "* * * * *", "suspend": n == 0}, "status": {
                "active": [{"name": "j"}], "lastScheduleTime": "2026-01-01T00:00:00Z"}}),
            Kind::Ingress => json!({"spec": {"ingressClassName": "nginx",
                "tls": [{"hosts": ["h"], "secretName": "t"}],
                "rules": [{"host": "h", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80 + n}}}},
                    {"path": "/x", "backend": {"service": {"name": "s", "port": {"name": "web"}}}}]}}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "lb"}]}}}),
            Kind::NetworkPolicy => json!({"spec": {"podSelector": {"matchLabels": {"app": "a"}},
                "policyTypes": ["Ingress"], "ingress": [{}]}}),
            Kind::ConfigMap => json!({"data": {format!("key-{n}"): CANARY},
                "binaryData": {"bin": packed(CANARY)}}),
            Kind::Secret => {
                json!({"type": "Opaque", "immutable": n == 0,
                    "data": {format!("key-{n}"): packed(CANARY), "password": packed(&format!("{CANARY}\n"))}})
            }
            Kind::PersistentVolumeClaim => json!({"spec": {"storageClassName": "fast", "volumeName": "v",
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                "status": {"phase": "Bound"}}),
            Kind::ServiceAccount => {
                json!({"secrets": [{"name": "s"}], "automountServiceAccountToken": n == 0})
            }
            Kind::Role | Kind::ClusterRole => json!({"rules": [
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get"]}, {"resources": ["pods"]}]}),
            Kind::RoleBinding | Kind::ClusterRoleBinding => json!({
                "roleRef": {"apiGroup": "g", "kind": "Role", "name": format!("r-{n}")},
                "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "ns"}]}),
            Kind::Event => json!({"type": "Normal", "reason": "Started", "message": format!("message {n}"),
                "count": version, "source": {"component": "kubelet"}, "firstTimestamp": "2026-01-01T00:00:00Z",
                "involvedObject": {"kind": "Pod", "name": "p", "namespace": "ns", "uid": "u"}}),
        }
    }

    fn pod(&self, n: u64) -> Value {
        let padding = "x".repeat(usize::try_from(self.number(400)).unwrap());
        json!({
            "spec": {
                "nodeName": format!("node-{n}"), "serviceAccountName": "default",
                "containers": [{
                    "name": "main", "image": "registry/app:1", "args": [CANARY], "command": [CANARY],
                    "env": [{"name": "PASSWORD", "value": CANARY}, {"name": padding, "value": CANARY}],
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    "securityContext": {"runAsNonRoot": false, "capabilities": {"add": ["NET_ADMIN"]}},
                }],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "tmp", "emptyDir": {}},
                    {"name": "s", "secret": {"secretName": "s"}},
                ],
            },
            "status": {
                "phase": "Running", "qosClass": "Burstable", "podIP": format!("10.1.0.{n}"),
                "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": n.to_string()}],
                "containerStatuses": [{"name": "main", "ready": true, "restartCount": n,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
            },
        })
    }
}

fn packed(value: &str) -> String {
    STANDARD.encode(value)
}

fn template(version: u64) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": format!("image:{version}"),
        "env": [{"name": "E", "value": CANARY}]}], "nodeSelector": {"disk": "ssd"}}})
}
