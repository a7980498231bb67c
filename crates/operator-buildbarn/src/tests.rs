//! The operator against the in-memory API.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, Pod, Service},
    networking::v1::Ingress,
    policy::v1::PodDisruptionBudget,
};
use meta::ObjectKey;
use reconcile::{
    Kind,
    testkit::{Bench, yaml_documents},
};
use serde_json::{Value, json};

use crate::{
    BuildbarnBrowser, BuildbarnFrontend, BuildbarnScheduler, BuildbarnStorage, BuildbarnWorker,
    component::Component,
    queue::{QueueName, StandIn, fake::FakeScheduler},
    reconciler::Loop,
    types::{Platform, Property},
};

mod bad_input;
mod definitions;
mod farms;
mod lossless;
mod options;
mod resharding;
mod storage;

const FARM: &str = include_str!("../../../examples/buildbarn/small.yaml");
const SHARDED: &str = include_str!("../../../examples/buildbarn/sharded-mirrored.yaml");
const THREE: &str = include_str!("../../../examples/buildbarn/three-pools.yaml");

/// The five controllers at one API, with one scheduler.
struct Farm {
    storage: Bench<Loop<BuildbarnStorage>>,
    scheduler: Bench<Loop<BuildbarnScheduler>>,
    worker: Bench<Loop<BuildbarnWorker>>,
    frontend: Bench<Loop<BuildbarnFrontend>>,
    browser: Bench<Loop<BuildbarnBrowser>>,
    queue: Arc<FakeScheduler>,
}

fn controller<K>(queue: &Arc<FakeScheduler>) -> Loop<K> {
    Loop::new(Arc::new(StandIn(Arc::clone(queue))))
}

impl Farm {
    fn new(manifests: &str) -> Self {
        let queue = Arc::new(FakeScheduler::default());
        let storage = Bench::new(controller::<BuildbarnStorage>(&queue));
        for (kind, plural) in [
            ("BuildbarnStorage", "buildbarnstorages"),
            ("BuildbarnScheduler", "buildbarnschedulers"),
            ("BuildbarnWorker", "buildbarnworkers"),
            ("BuildbarnFrontend", "buildbarnfrontends"),
            ("BuildbarnBrowser", "buildbarnbrowsers"),
        ] {
            storage.api.register(Kind::new("buildbarn.io", "v1alpha1", kind, plural), true);
        }
        for (kind, plural) in [("Ingress", "ingresses"), ("NetworkPolicy", "networkpolicies")] {
            storage.api.register(Kind::new("networking.k8s.io", "v1", kind, plural), true);
        }
        let farm = Self {
            scheduler: storage.beside(controller(&queue)),
            worker: storage.beside(controller(&queue)),
            frontend: storage.beside(controller(&queue)),
            browser: storage.beside(controller(&queue)),
            storage,
            queue,
        };
        farm.put(manifests);
        farm
    }

    fn put(&self, manifests: &str) {
        for mut object in yaml_documents(manifests) {
            if object["kind"] == "Namespace" {
                continue;
            }
            object["metadata"]["namespace"] = json!("buildbarn");
            if let Some(schema) = schema_of(&object["kind"]) {
                schema::default::apply(&schema, &mut object);
            }
            self.storage.api.put(&object);
        }
    }

    /// Lets every controller come to rest on every object, as often as one may tell another something new.
    async fn settle(&self) {
        for _ in 0..4 {
            for key in self.keys::<BuildbarnStorage>() {
                self.storage.settle(&key).await;
            }
            for key in self.keys::<BuildbarnScheduler>() {
                self.address(&key);
                self.scheduler.settle(&key).await;
            }
            for key in self.keys::<BuildbarnWorker>() {
                self.worker.settle(&key).await;
            }
            for key in self.keys::<BuildbarnFrontend>() {
                self.frontend.settle(&key).await;
            }
            for key in self.keys::<BuildbarnBrowser>() {
                self.browser.settle(&key).await;
            }
        }
    }

    /// Nobody gives Services addresses here.
    fn address(&self, key: &ObjectKey) {
        if let Some(service) = self.get::<Service>(&key.name)
            && service.pointer("/spec/clusterIP").is_none()
        {
            self.storage.api.patch(
                &Kind::of::<Service>(),
                key,
                "",
                &json!({"spec": {"clusterIP": "10.0.0.1"}}),
            );
        }
    }

    fn keys<K: Component>(&self) -> Vec<ObjectKey> {
        let all = self.storage.api.list(&Kind::of::<K>(), "buildbarn");
        all.iter().map(|object| key(object["metadata"]["name"].as_str().unwrap())).collect()
    }

    fn get<K: kube::Resource<DynamicType = ()>>(&self, name: &str) -> Option<Value> {
        self.storage.api.get(&Kind::of::<K>(), &key(name))
    }

    fn list<K: kube::Resource<DynamicType = ()>>(&self) -> Vec<Value> {
        self.storage.api.list(&Kind::of::<K>(), "buildbarn")
    }

    fn edit<K: kube::Resource<DynamicType = ()>>(&self, name: &str, spec: Value) {
        self.storage.api.patch(&Kind::of::<K>(), &key(name), "", &json!({ "spec": spec }));
    }

    fn status<K: kube::Resource<DynamicType = ()>>(&self, name: &str) -> Value {
        self.get::<K>(name).unwrap()["status"].clone()
    }

    /// What is said of every object of the farm.
    fn verdicts(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        macro_rules! verdicts {
            ($($kind:ty),*) => {$(
                let said = |key: ObjectKey| (key.name.clone(), self.condition::<$kind>(&key.name, "Ready"));
                out.extend(self.keys::<$kind>().into_iter().map(said));
            )*};
        }
        verdicts!(BuildbarnStorage, BuildbarnScheduler, BuildbarnWorker, BuildbarnFrontend, BuildbarnBrowser);
        out
    }

    /// The message of a condition, after its status and reason.
    fn condition<K: kube::Resource<DynamicType = ()>>(&self, name: &str, kind: &str) -> String {
        let status = self.status::<K>(name);
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|condition| condition["type"] == kind);
        found.map_or_else(String::new, |c| {
            let text = |key: &str| c[key].as_str().unwrap().to_owned();
            format!("{} {}: {}", text("status"), text("reason"), text("message"))
        })
    }

    /// Plays the Deployment, ReplicaSet and StatefulSet controllers and the nodes: everything is rolled out and ready.
    fn run_pods(&self) {
        self.list::<Deployment>().iter().for_each(|deployment| self.roll_deployment(deployment));
        self.list::<StatefulSet>().iter().for_each(|set| self.roll_set(set));
    }

    fn roll_deployment(&self, deployment: &Value) {
        let replicas = deployment["spec"]["replicas"].as_i64().unwrap();
        let name = deployment["metadata"]["name"].as_str().unwrap();
        if deployment["metadata"]["labels"]["app"] == "worker" {
            self.run_replicas(name, deployment, replicas);
        }
        let status = json!({
            "observedGeneration": deployment["metadata"]["generation"], "replicas": replicas,
            "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
        });
        let status = json!({ "status": status });
        self.storage.api.patch(&Kind::of::<Deployment>(), &key(name), "status", &status);
    }

    fn roll_set(&self, set: &Value) {
        let replicas = set["spec"]["replicas"].as_i64().unwrap();
        let name = set["metadata"]["name"].as_str().unwrap();
        let status = json!({
            "observedGeneration": set["metadata"]["generation"], "replicas": replicas, "readyReplicas": replicas,
            "updatedReplicas": replicas, "currentRevision": "r", "updateRevision": "r",
        });
        let status = json!({ "status": status });
        self.storage.api.patch(&Kind::of::<StatefulSet>(), &key(name), "status", &status);
    }

    /// A ReplicaSet controller: the least costly of its pods go first.
    fn run_replicas(&self, name: &str, deployment: &Value, replicas: i64) {
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let cost = |pod: &Value| {
            let annotation = &pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"];
            annotation.as_str().map_or(0, |cost| cost.parse::<i64>().unwrap())
        };
        let mut pods: Vec<Value> = self.list::<Pod>();
        pods.retain(|pod| {
            pod["metadata"]["labels"]["buildbarn.io/template"] == labels["buildbarn.io/template"]
        });
        pods.sort_by_key(cost);
        let replicas = usize::try_from(replicas).unwrap();
        for pod in pods.iter().take(pods.len().saturating_sub(replicas)) {
            let name = pod["metadata"]["name"].as_str().unwrap();
            assert!(!self.queue.busy(name), "{name} is taken away and runs an action");
            self.queue.vanish(name);
            self.storage.api.delete(&Kind::of::<Pod>(), &key(name));
        }
        for number in pods.len()..replicas {
            let free =
                (0..).map(|n| format!("{name}-{number}-{n}")).find(|n| self.get::<Pod>(n).is_none()).unwrap();
            self.storage.api.put(&json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": free, "namespace": "buildbarn", "labels": labels,
                    "annotations": deployment["spec"]["template"]["metadata"]["annotations"]},
                "spec": {"nodeName": "n1"},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            }));
        }
    }

    /// Rolls out and settles until the whole farm is at rest.
    async fn run(&self) {
        for _ in 0..6 {
            self.settle().await;
            self.run_pods();
        }
        self.settle().await;
    }

    /// The files of a component, parsed; what Jsonnet would put in for names is a text.
    fn files(&self, component: &str) -> Vec<(String, Value)> {
        let maps = self.list::<ConfigMap>();
        let map = maps.iter().find(|map| map["metadata"]["labels"]["component"] == component).unwrap();
        map["data"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, text)| (name.clone(), parse(text.as_str().unwrap())))
            .collect()
    }
}

/// What an API server would default and check an object of the operator by.
fn schema_of(kind: &Value) -> Option<schema::Schema> {
    let crd = crate::crds().into_iter().find(|crd| crd["spec"]["names"]["kind"] == *kind)?;
    let json = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
    Some(schema::openapi::from_crd(json, "spec.validation").unwrap())
}

fn parse(text: &str) -> Value {
    let text =
        text.replace("std.extVar(\"POD_NAME\")", "\"pod\"").replace("std.extVar(\"NODE_NAME\")", "\"node\"");
    serde_json::from_str(&text).unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("buildbarn", name)
}

/// The queue of the small farm's pool.
fn queue(properties: &[(&str, &str)]) -> QueueName {
    let properties = properties
        .iter()
        .map(|(name, value)| Property { name: (*name).to_owned(), value: (*value).to_owned() });
    QueueName {
        prefix: String::new(),
        platform: Platform { properties: properties.collect() },
        size_class: 0,
    }
}

#[test]
fn the_crds_are_structural_and_their_rules_compile() {
    for crd in crate::crds() {
        let json = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        let schema = schema::openapi::from_crd(json, "spec.validation").unwrap();
        assert_eq!(schema::cel::Rules::check(&schema), Vec::new());
        // Clients of typed objects cannot read one without a spec, and one such would stop them for all.
        let mut empty = json!({});
        schema::default::apply(&schema, &mut empty);
        assert_eq!(empty, json!({"spec": {}}));
        assert!(schema::validate::value(&schema, &empty, None).is_empty());
    }
}
