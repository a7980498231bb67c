//! The plain API by short paths: `pods/NAME`, `deployments/NAME/scale`, `other:pods` in namespace `other`.

use keelson_test::{Cluster, Machine};
use serde_json::{Value, json};

/// Where each kind is served, and whether it is in a namespace.
const KINDS: &[(&str, bool, &str)] = &[
    (
        "/api/v1",
        true,
        "pods services configmaps secrets replicationcontrollers resourcequotas endpoints events",
    ),
    ("/api/v1", true, "serviceaccounts persistentvolumeclaims"),
    ("/api/v1", false, "namespaces nodes persistentvolumes"),
    ("/apis/apps/v1", true, "deployments replicasets statefulsets daemonsets controllerrevisions"),
    ("/apis/batch/v1", true, "jobs cronjobs"),
    ("/apis/policy/v1", true, "poddisruptionbudgets"),
    ("/apis/discovery.k8s.io/v1", true, "endpointslices"),
    ("/apis/scheduling.k8s.io/v1", false, "priorityclasses"),
    ("/apis/node.k8s.io/v1", false, "runtimeclasses"),
    ("/apis/admissionregistration.k8s.io/v1", false, "validatingadmissionpolicies"),
    ("/apis/apiextensions.k8s.io/v1", false, "customresourcedefinitions"),
];

/// A refusal: its code and what it says.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: u16,
    pub(crate) message: String,
}

pub(crate) struct Kit {
    pub(crate) cluster: Cluster,
}

impl Kit {
    pub(crate) async fn nodes(count: u32) -> Self {
        let cluster = Cluster::builder().nodes(count).start().await.unwrap();
        let kit = Self { cluster };
        let ready = |nodes: &[Value]| nodes.len() == count as usize && nodes.iter().all(is_ready);
        kit.until_list("nodes", "nodes are ready", ready).await;
        let account = "serviceaccounts/default";
        kit.until(account, "the account that pods run as", |_| true).await;
        kit
    }

    /// One node, as described.
    pub(crate) async fn machine(machine: Machine) -> Self {
        let cluster = Cluster::builder().nodes(0).node(machine).start().await.unwrap();
        let kit = Self { cluster };
        kit.until_list("nodes", "the node is ready", |nodes| nodes.len() == 1 && is_ready(&nodes[0])).await;
        kit.until("serviceaccounts/default", "the account that pods run as", |_| true).await;
        kit
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        at: &str,
        form: &str,
        body: &Value,
    ) -> Result<Value, Refused> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = http::Request::builder().method(method).uri(path(at)).header("content-type", form);
        match self.cluster.client().request_text(request.body(body).unwrap()).await {
            Ok(text) => Ok(serde_json::from_str(&text).unwrap()),
            Err(kube::Error::Api(status)) => Err(Refused { code: status.code, message: status.message }),
            Err(error) => panic!("{method} {at}: {error}"),
        }
    }

    pub(crate) async fn find(&self, at: &str) -> Option<Value> {
        match self.ask("GET", at, "application/json", &Value::Null).await {
            Ok(found) => Some(found),
            Err(refused) if refused.code == 404 => None,
            Err(refused) => panic!("get {at}: {refused:?}"),
        }
    }

    pub(crate) async fn get(&self, at: &str) -> Value {
        self.find(at).await.unwrap_or_else(|| panic!("{at} is not there"))
    }

    pub(crate) async fn list(&self, at: &str) -> Vec<Value> {
        self.get(at).await["items"].as_array().unwrap().clone()
    }

    pub(crate) async fn try_create(&self, at: &str, object: &Value) -> Result<Value, Refused> {
        self.ask("POST", at, "application/json", object).await
    }

    pub(crate) async fn create(&self, at: &str, object: Value) -> Value {
        self.try_create(at, &object).await.unwrap_or_else(|why| panic!("create {at} {object}: {why:?}"))
    }

    /// Changes the newest version, again when somebody else was faster.
    pub(crate) async fn update(&self, at: &str, mut change: impl FnMut(&mut Value)) -> Value {
        loop {
            let mut object = self.get(at).await;
            change(&mut object);
            match self.ask("PUT", at, "application/json", &object).await {
                Ok(updated) => return updated,
                Err(refused) if refused.code == 409 => {}
                Err(refused) => panic!("update {at}: {refused:?}"),
            }
        }
    }

    pub(crate) async fn merge(&self, at: &str, patch: Value) -> Value {
        let answer = self.ask("PATCH", at, "application/merge-patch+json", &patch).await;
        answer.unwrap_or_else(|why| panic!("patch {at} {patch}: {why:?}"))
    }

    pub(crate) async fn strategic(&self, at: &str, patch: Value) -> Value {
        let answer = self.ask("PATCH", at, "application/strategic-merge-patch+json", &patch).await;
        answer.unwrap_or_else(|why| panic!("patch {at} {patch}: {why:?}"))
    }

    pub(crate) async fn delete(&self, at: &str) {
        self.delete_with(at, Value::Null).await;
    }

    /// With `propagationPolicy` or the like.
    pub(crate) async fn delete_with(&self, at: &str, options: Value) {
        let answer = self.ask("DELETE", at, "application/json", &options).await;
        answer.unwrap_or_else(|why| panic!("delete {at}: {why:?}"));
    }

    pub(crate) async fn until(&self, at: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let what = format!("{at}: {what}");
        let waited = self.cluster.eventually(&what, async || match self.find(at).await {
            Some(object) if holds(&object) => Ok(object),
            other => Err(other.map(|object| object.to_string())),
        });
        waited.await.unwrap()
    }

    pub(crate) async fn until_list(
        &self,
        at: &str,
        what: &str,
        holds: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let what = format!("{at}: {what}");
        let waited = self.cluster.eventually(&what, async || {
            let items = self.list(at).await;
            if holds(&items) { Ok(items) } else { Err(json!(items).to_string()) }
        });
        waited.await.unwrap()
    }

    pub(crate) async fn gone(&self, at: &str) {
        let what = format!("{at} goes");
        let waited = self.cluster.eventually(&what, async || match self.find(at).await {
            None => Ok(()),
            Some(object) => Err(object.to_string()),
        });
        waited.await.unwrap();
    }

    /// Lets so many seconds of the cluster pass.
    pub(crate) async fn seconds(&self, seconds: u64) {
        self.cluster.advance(std::time::Duration::from_secs(seconds)).await;
    }

    /// Creates a workload and waits until its pods are ready.
    pub(crate) async fn ready(&self, at: &str, object: Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let replicas = object["spec"]["replicas"].as_u64().unwrap();
        self.create(at, object).await;
        let ready = |object: &Value| {
            let status = &object["status"];
            !status["replicas"].is_null() && status["readyReplicas"].as_u64().unwrap_or(0) == replicas
        };
        self.until(&format!("{at}/{name}"), "all replicas are ready", ready).await
    }
}

/// The whole path of a short one.
fn path(at: &str) -> String {
    let (namespace, rest) = at.split_once(':').unwrap_or(("default", at));
    let plural = rest.split(['/', '?']).next().unwrap();
    let served = KINDS.iter().find(|(_, _, plurals)| plurals.split(' ').any(|known| known == plural));
    let (prefix, namespaced, _) = served.unwrap_or_else(|| panic!("where are {plural} served?"));
    match namespaced {
        true if namespace == "*" => format!("{prefix}/{rest}"),
        true => format!("{prefix}/namespaces/{namespace}/{rest}"),
        false => format!("{prefix}/{rest}"),
    }
}

/// Whether a node or a pod has the condition Ready.
pub(crate) fn is_ready(object: &Value) -> bool {
    condition(object, "Ready")["status"] == "True"
}

/// A condition of an object; null when it has none of that type.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

pub(crate) fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

pub(crate) fn names(objects: &[Value]) -> Vec<String> {
    let mut names: Vec<_> = objects.iter().map(name).collect();
    names.sort();
    names
}

/// A pod's template with the label `app`.
pub(crate) fn template(app: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": { "containers": [{ "name": "c", "image": "image:1" }] },
    })
}

/// A Deployment, ReplicaSet or StatefulSet of that name, which is also the label of its pods.
pub(crate) fn workload(name: &str, replicas: u32) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": template(name),
        },
    })
}

/// A ReplicationController, likewise.
pub(crate) fn controller(name: &str, replicas: u32) -> Value {
    let mut object = workload(name, replicas);
    object["spec"]["selector"] = json!({ "app": name });
    object
}

/// A bare pod with the label `app` of its name.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": { "containers": [{ "name": "c", "image": "image:1" }] },
    })
}

/// Who owns an object, as controller or not.
pub(crate) fn owners(object: &Value) -> Vec<String> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().map(|owner| owner["name"].as_str().unwrap().to_owned()).collect()
}

/// A list, a label patched on to one, and the deletion of all that have it: what nearly every kind is asked for.
pub(crate) async fn collection(kit: &Kit, plural: &str, object: &Value) {
    let count = 3;
    for n in 0..count {
        let mut one = object.clone();
        one["metadata"]["name"] = json!(format!("one-{n}"));
        one["metadata"]["labels"]["set"] = json!("mine");
        kit.create(plural, one).await;
    }
    let selected = format!("{plural}?labelSelector=set%3Dmine");
    assert_eq!(kit.list(&selected).await.len(), count);
    kit.merge(&format!("{plural}/one-1"), json!({ "metadata": { "labels": { "picked": "yes" } } })).await;
    assert_eq!(kit.list(&format!("{plural}?labelSelector=picked%3Dyes")).await.len(), 1);
    kit.delete(&selected).await;
    kit.until_list(&selected, "all are gone", <[Value]>::is_empty).await;
}

/// The subresource `status`, read, replaced and patched: `set` and `patch` are what `status` is to contain.
pub(crate) async fn status(kit: &Kit, at: &str, set: Value, patch: Value) {
    let whole = format!("{at}/status");
    assert_eq!(name(&kit.get(&whole).await), at.split_once('/').unwrap().1);
    let updated = kit.update(&whole, |object| merge(&mut object["status"], &set)).await;
    contains(&updated["status"], &set);
    let annotated = json!({ "metadata": { "annotations": { "patched": "yes" } }, "status": patch });
    let patched = kit.merge(&whole, annotated).await;
    contains(&patched["status"], &patch);
    assert_eq!(patched["metadata"]["annotations"]["patched"], "yes");
}

fn merge(into: &mut Value, from: &Value) {
    if into.is_null() {
        *into = json!({});
    }
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn contains(whole: &Value, part: &Value) {
    for (key, value) in part.as_object().unwrap() {
        assert_eq!(&whole[key], value, "{key}");
    }
}
