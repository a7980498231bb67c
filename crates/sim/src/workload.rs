//! What users do to the cluster, at random.
//!
//! Guarantees: whatever is done, a cluster that is left alone afterwards (nodes usable, CronJobs
//! suspended, quotas gone: [`Users::leave`]) can come to rest with every workload as it asks.

#![allow(
    clippy::indexing_slicing,
    reason = "the trees are made here: a part that is missing is a bug of this file"
)]

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{Namespace, Node, Pod, ResourceQuota},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, EvictParams, Patch, PatchParams, PostParams, PropagationPolicy},
    core::{ApiResource, GroupVersionKind},
};
use meta::Random;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Namespaces that come and go.
const NAMESPACES: [&str; 3] = ["red", "green", "blue"];
/// Names of each kind in a namespace: few, so that what is done meets what is there.
const NAMES: u64 = 3;

/// The users, as one client with seeded whims.
pub(crate) struct Users {
    client: Client,
    random: Arc<dyn Random>,
    /// What was done, newest last; the report shows it.
    pub(crate) done: Vec<String>,
}

impl Users {
    pub(crate) fn new(client: Client, random: Arc<dyn Random>) -> Self {
        Self { client, random, done: Vec::new() }
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn pick<T: Copy>(&self, from: &[T]) -> Option<T> {
        let at = usize::try_from(self.below(from.len() as u64)).unwrap_or(0);
        from.get(at).copied()
    }

    /// Makes the namespaces.
    pub(crate) async fn arrive(&mut self) {
        for namespace in NAMESPACES {
            self.create_namespace(namespace).await;
        }
    }

    /// Does one thing. That it is refused is no failure: users do that.
    pub(crate) async fn act(&mut self) {
        let namespace = self.pick(&NAMESPACES).unwrap_or("red");
        let name = |kind: &str, n: u64| format!("{kind}-{n}");
        let n = self.below(NAMES);
        match self.below(100) {
            0..=21 => self.apply(namespace, "apps/v1", "Deployment", self.deployment(&name("web", n))).await,
            22..=31 => {
                self.apply(namespace, "apps/v1", "StatefulSet", self.stateful_set(&name("db", n))).await
            }
            32..=37 => {
                self.apply(namespace, "apps/v1", "DaemonSet", self.daemon_set(&name("agent", n))).await
            }
            38..=47 => self.apply(namespace, "batch/v1", "Job", self.job(&name("job", n))).await,
            48..=49 => self.apply(namespace, "batch/v1", "CronJob", self.cron_job(&name("tick", n))).await,
            50..=54 => self.apply(namespace, "v1", "Service", service(&name("web", n))).await,
            55..=58 => self.apply(namespace, "policy/v1", "PodDisruptionBudget", self.budget(n)).await,
            59..=64 => self.delete::<Deployment>(namespace, &name("web", n)).await,
            65..=67 => self.delete::<StatefulSet>(namespace, &name("db", n)).await,
            68..=69 => self.delete::<DaemonSet>(namespace, &name("agent", n)).await,
            70..=72 => self.delete::<Job>(namespace, &name("job", n)).await,
            73..=82 => self.disturb_pod(namespace).await,
            83..=92 => self.disturb_node().await,
            93..=94 => self.delete_namespace(namespace).await,
            _ => self.create_namespace(namespace).await,
        }
    }

    /// Undoes what would keep the cluster from coming to rest.
    pub(crate) async fn leave(&mut self) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for node in nodes.list(&Default::default()).await? {
            // The node's own conditions may have tainted it; those go by themselves.
            let taints: Vec<_> = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).collect();
            let kept: Vec<_> = taints.into_iter().filter(|taint| taint.key != "sim").collect();
            let patch = json!({ "spec": { "unschedulable": null, "taints": kept } });
            there(nodes.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await)?;
        }
        let quotas: Api<ResourceQuota> = Api::all(self.client.clone());
        for quota in quotas.list(&Default::default()).await? {
            let namespaced: Api<ResourceQuota> =
                Api::namespaced(self.client.clone(), &quota.namespace().unwrap_or_default());
            there(namespaced.delete(&quota.name_any(), &DeleteParams::default()).await)?;
        }
        let crons: Api<CronJob> = Api::all(self.client.clone());
        for cron in crons.list(&Default::default()).await? {
            let namespaced: Api<CronJob> =
                Api::namespaced(self.client.clone(), &cron.namespace().unwrap_or_default());
            let patch = Patch::Merge(json!({ "spec": { "suspend": true } }));
            there(namespaced.patch(&cron.name_any(), &PatchParams::default(), &patch).await)?;
        }
        Ok(())
    }

    fn note(&mut self, what: String, result: Result<(), kube::Error>) {
        self.done.push(match result {
            Ok(()) => what,
            Err(kube::Error::Api(status)) => format!("{what}: {}", status.reason),
            Err(error) => format!("{what}: {error}"),
        });
    }

    async fn create_namespace(&mut self, name: &str) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = Namespace {
            metadata: kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
            ..Default::default()
        };
        let result = api.create(&PostParams::default(), &namespace).await.map(drop);
        self.note(format!("create namespace {name}"), result);
        // Before anything else is in it, so that it holds from the beginning.
        let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), name);
        let hard = json!({ "metadata": { "name": "all" }, "spec": { "hard": { "pods": "14", "count/jobs.batch": "6" } } });
        let quota: ResourceQuota = serde_json::from_value(hard).unwrap_or_default();
        let result = api.create(&PostParams::default(), &quota).await.map(drop);
        self.note(format!("create quota of {name}"), result);
    }

    async fn delete_namespace(&mut self, name: &str) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let result = api.delete(name, &DeleteParams::default()).await.map(drop);
        self.note(format!("delete namespace {name}"), result);
    }

    async fn apply(&mut self, namespace: &str, version: &str, kind: &str, mut object: Value) {
        let (group, short) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, short, kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        if let Some(fields) = object.as_object_mut() {
            fields.insert("apiVersion".to_owned(), json!(version));
            fields.insert("kind".to_owned(), json!(kind));
        }
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let params = PatchParams::apply("user").force();
        let result = api.patch(&name, &params, &Patch::Apply(&object)).await.map(drop);
        let spec = object.get("spec").map(summary).unwrap_or_default();
        self.note(format!("apply {kind} {namespace}/{name} {spec}"), result);
    }

    async fn delete<K>(&mut self, namespace: &str, name: &str)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned,
        K: std::fmt::Debug,
    {
        let policies =
            [PropagationPolicy::Background, PropagationPolicy::Foreground, PropagationPolicy::Orphan];
        let at = usize::try_from(self.below(3)).unwrap_or(0);
        let policy = policies.into_iter().nth(at);
        let what = format!("delete {} {namespace}/{name} {policy:?}", K::kind(&()));
        let params = DeleteParams { propagation_policy: policy, ..DeleteParams::default() };
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let result = api.delete(name, &params).await.map(drop);
        self.note(what, result);
    }

    async fn disturb_pod(&mut self, namespace: &str) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let Ok(pods) = api.list(&Default::default()).await else { return };
        let at = usize::try_from(self.below(pods.items.len() as u64)).unwrap_or(0);
        let Some(pod) = pods.items.get(at) else { return };
        let name = pod.name_any();
        let (what, result) = match self.below(3) {
            0 => ("evict", api.evict(&name, &EvictParams::default()).await.map(drop)),
            1 => ("delete", api.delete(&name, &DeleteParams::default()).await.map(drop)),
            _ => {
                let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
                ("kill", api.delete(&name, &now).await.map(drop))
            }
        };
        self.note(format!("{what} pod {namespace}/{name}"), result);
    }

    async fn disturb_node(&mut self) {
        let api: Api<Node> = Api::all(self.client.clone());
        let Ok(nodes) = api.list(&Default::default()).await else { return };
        let at = usize::try_from(self.below(nodes.items.len() as u64)).unwrap_or(0);
        let Some(node) = nodes.items.get(at) else { return };
        let taints: Vec<_> = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).collect();
        let mut taints: Vec<Value> = taints.into_iter().map(|taint| json!(taint)).collect();
        let (what, spec) = match self.below(4) {
            0 => ("cordon", json!({ "unschedulable": true })),
            1 => ("uncordon", json!({ "unschedulable": null })),
            2 => {
                taints.retain(|taint| taint["key"] != "sim");
                taints.push(json!({ "key": "sim", "effect": "NoExecute" }));
                ("taint", json!({ "taints": taints }))
            }
            _ => {
                taints.retain(|taint| taint["key"] != "sim");
                ("untaint", json!({ "taints": taints }))
            }
        };
        let patch = Patch::Merge(json!({ "spec": spec }));
        let result = api.patch(&node.name_any(), &PatchParams::default(), &patch).await.map(drop);
        self.note(format!("{what} node {}", node.name_any()), result);
    }

    /// A template whose pods start after a while and may fail before they work.
    fn template(&self, app: &str) -> Value {
        let version = self.below(3);
        let mut annotations = json!({ "simulated.keelson.dev/start-delay": format!("{}s", self.below(5)) });
        if self.below(5) == 0 {
            annotations["simulated.keelson.dev/crash-loop"] = json!("1");
        }
        if self.below(4) == 0 {
            annotations["simulated.keelson.dev/stop-delay"] = json!(format!("{}s", self.below(20)));
        }
        json!({
            "metadata": { "labels": { "app": app }, "annotations": annotations },
            "spec": {
                "terminationGracePeriodSeconds": 10,
                "containers": [{
                    "name": "main", "image": format!("app:{version}"),
                    "resources": { "requests": { "cpu": format!("{}m", 100 * (1 + self.below(8))) } },
                }],
            },
        })
    }

    fn deployment(&self, name: &str) -> Value {
        let strategy = match self.below(3) {
            0 => json!({ "type": "Recreate" }),
            1 => json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } }),
            _ => {
                json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "50%", "maxUnavailable": 0 } })
            }
        };
        json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "replicas": self.below(6), "strategy": strategy, "revisionHistoryLimit": 2,
                "selector": { "matchLabels": { "app": name } }, "template": self.template(name),
            },
        })
    }

    fn stateful_set(&self, name: &str) -> Value {
        let policy = if self.below(2) == 0 { "Parallel" } else { "OrderedReady" };
        // The policy cannot be changed later, so it goes by the name.
        let policy = if name.ends_with('0') { "Parallel" } else { policy };
        json!({
            "metadata": { "name": name },
            "spec": {
                "replicas": self.below(4), "serviceName": name, "podManagementPolicy": policy,
                "selector": { "matchLabels": { "app": name } }, "template": self.template(name),
                "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete", "whenScaled": "Retain" },
                "volumeClaimTemplates": [{
                    "metadata": { "name": "data" },
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": { "requests": { "storage": "1Gi" } },
                    },
                }],
            },
        })
    }

    fn daemon_set(&self, name: &str) -> Value {
        let update = if self.below(2) == 0 {
            json!({ "maxSurge": 0, "maxUnavailable": 1 })
        } else {
            json!({ "maxSurge": 1, "maxUnavailable": 0 })
        };
        json!({
            "metadata": { "name": name },
            "spec": {
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": update },
                "selector": { "matchLabels": { "app": name } }, "template": self.template(name),
            },
        })
    }

    fn job(&self, name: &str) -> Value {
        let mut template = self.template(name);
        template["spec"]["restartPolicy"] = json!(if self.below(2) == 0 { "Never" } else { "OnFailure" });
        let annotations = json!({
            "simulated.keelson.dev/exit-after": format!("{}s", 1 + self.below(60)),
            "simulated.keelson.dev/exit-code": if self.below(4) == 0 { "1" } else { "0" },
        });
        template["metadata"]["annotations"] = annotations;
        json!({
            "metadata": { "name": name },
            "spec": {
                "parallelism": 1 + self.below(3), "completions": 1 + self.below(4),
                "backoffLimit": self.below(3), "template": template,
                "completionMode": if name.ends_with('0') { "Indexed" } else { "NonIndexed" },
            },
        })
    }

    fn cron_job(&self, name: &str) -> Value {
        let policy = self.pick(&["Allow", "Forbid", "Replace"]).unwrap_or("Allow");
        let job = self.job(name);
        json!({
            "metadata": { "name": name },
            "spec": {
                "schedule": "*/2 * * * *", "concurrencyPolicy": policy, "suspend": false,
                "jobTemplate": { "spec": job["spec"] },
            },
        })
    }

    fn budget(&self, n: u64) -> Value {
        let name = format!("web-{n}");
        let spec = match self.below(3) {
            0 => json!({ "minAvailable": self.below(4) }),
            1 => json!({ "maxUnavailable": 1 }),
            _ => json!({ "maxUnavailable": "40%" }),
        };
        let mut spec = spec;
        spec["selector"] = json!({ "matchLabels": { "app": name } });
        json!({ "metadata": { "name": name }, "spec": spec })
    }
}

/// What is gone with its namespace since it was listed keeps nothing from coming to rest.
fn there<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

fn service(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 }] },
    })
}

/// The part of a spec that reports are read for.
fn summary(spec: &Value) -> String {
    let shown = ["replicas", "parallelism", "completions", "backoffLimit", "minAvailable", "maxUnavailable"];
    let parts = shown.iter().filter_map(|key| Some(format!("{key}={}", spec.get(*key)?)));
    parts.collect::<Vec<_>>().join(" ")
}
