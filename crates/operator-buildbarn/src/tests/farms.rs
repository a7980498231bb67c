//! Whole farms: children, files, restarts.

use super::*;

/// The three objects of the original's README, to the letter but for the namespace.
const ORIGINAL: &str = "
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnScheduler
metadata: {name: scheduler, namespace: buildbarn}
spec: {image: 'ghcr.io/buildbarn/bb-scheduler:latest', replicas: 1, configMapName: buildbarn-config, serviceType: ClusterIP}
---
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnWorker
metadata: {name: worker-ubuntu22-04, namespace: buildbarn}
spec:
  image: ghcr.io/buildbarn/bb-worker:latest
  runnerImage: ghcr.io/catthehacker/ubuntu:act-22.04
  runnerInstallerImage: ghcr.io/buildbarn/bb-runner-installer:latest
  replicas: 8
  instance: ubuntu22-04
  configMapName: buildbarn-config
---
apiVersion: buildbarn.io/v1alpha1
kind: BuildbarnStorage
metadata: {name: storage, namespace: buildbarn}
spec: {image: 'ghcr.io/buildbarn/bb-storage:latest', replicas: 2, configMapName: buildbarn-config}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: buildbarn-config, namespace: buildbarn}
data: {scheduler.jsonnet: '{}', storage.jsonnet: '{}', worker-ubuntu22-04.jsonnet: '{}', runner-ubuntu22-04.jsonnet: '{}'}
";

fn workloads(farm: &Farm) -> Value {
    let spec = |object: &Value| json!({"name": object["metadata"]["name"], "spec": object["spec"]});
    let deployments: Vec<Value> = farm.list::<Deployment>().iter().map(spec).collect();
    let sets: Vec<Value> = farm.list::<StatefulSet>().iter().map(spec).collect();
    json!({"deployments": deployments, "statefulSets": sets})
}

fn others(farm: &Farm) -> Value {
    let spec = |object: &Value| json!({"name": object["metadata"]["name"], "spec": object["spec"]});
    let all = |objects: Vec<Value>| objects.iter().map(spec).collect::<Vec<_>>();
    json!({
        "services": all(farm.list::<Service>()), "ingresses": all(farm.list::<Ingress>()),
        "budgets": all(farm.list::<PodDisruptionBudget>()),
    })
}

#[tokio::test]
async fn the_originals_samples_bring_their_own_configuration() {
    let farm = Farm::new(ORIGINAL);
    farm.settle().await;
    insta::assert_yaml_snapshot!(workloads(&farm));
    assert_eq!(farm.list::<ConfigMap>().len(), 1, "nothing is generated");
    farm.run().await;
    let status = farm.status::<BuildbarnWorker>("worker-ubuntu22-04");
    assert_eq!(
        (&status["state"], &status["replicas"], &status["readyReplicas"]),
        (&json!("Ready"), &json!(8), &json!(8))
    );
}

#[tokio::test]
async fn a_small_farm_is_whole() {
    let farm = Farm::new(FARM);
    farm.run().await;
    insta::assert_yaml_snapshot!("small_workloads", workloads(&farm));
    insta::assert_yaml_snapshot!("small_others", others(&farm));
    for component in ["storage", "scheduler", "ubuntu", "frontend", "browser"] {
        for (name, file) in farm.files(component) {
            insta::assert_json_snapshot!(format!("small_{name}"), file);
        }
    }
    for (kind, status) in [
        ("storage", farm.status::<BuildbarnStorage>("storage")),
        ("scheduler", farm.status::<BuildbarnScheduler>("scheduler")),
        ("worker", farm.status::<BuildbarnWorker>("ubuntu")),
        ("frontend", farm.status::<BuildbarnFrontend>("frontend")),
        ("browser", farm.status::<BuildbarnBrowser>("browser")),
    ] {
        assert_eq!(status["state"], "Ready", "{kind}: {status:#}");
        assert_eq!(status["conditions"][0]["status"], "True", "{kind}: {status:#}");
    }
    insta::assert_snapshot!(farm.status::<BuildbarnFrontend>("frontend")["bazelrc"].as_str().unwrap());
}

#[tokio::test]
async fn every_example_becomes_ready() {
    for example in [FARM, SHARDED, THREE] {
        let farm = Farm::new(example);
        farm.run().await;
        for (name, said) in farm.verdicts() {
            assert!(said.starts_with("True Ready: "), "{name}: {said}");
        }
    }
}

/// What a client has to know: where the frontend is from outside, and every platform that can be asked for.
#[tokio::test]
async fn clients_are_told_where_to_connect_and_what_to_ask_for() {
    let farm = Farm::new(THREE);
    farm.run().await;
    let told = |field: &str| farm.status::<BuildbarnFrontend>("frontend")[field].as_str().unwrap().to_owned();
    insta::assert_snapshot!("three_bazelrc", told("bazelrc"));
    farm.edit::<BuildbarnFrontend>(
        "frontend",
        json!({"serviceType": "NodePort", "schedulers": [
            {"instanceNamePrefix": "other", "address": "other:8982"},
            {"instanceNamePrefix": "ci", "schedulerRef": {"name": "scheduler"}},
        ]}),
    );
    farm.storage.api.put(&json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "192.0.2.7"}],
        },
    }));
    farm.run().await;
    let ports = json!({"spec": {"ports": [{"name": "grpc", "port": 8980, "nodePort": 31000}]}});
    farm.storage.api.patch(&Kind::of::<Service>(), &key("frontend"), "", &ports);
    farm.frontend.step(&key("frontend")).await;
    assert_eq!(told("endpoint"), "grpc://192.0.2.7:31000");
    assert!(told("bazelrc").contains("build:remote --remote_instance_name=ci\n"), "{}", told("bazelrc"));
    farm.edit::<BuildbarnFrontend>("frontend", json!({"externalHost": "bb.example.com:443"}));
    farm.frontend.step(&key("frontend")).await;
    assert_eq!(told("endpoint"), "grpc://bb.example.com:443");
}

/// A change restarts what it touches and nothing else.
#[tokio::test]
async fn a_change_of_one_component_leaves_the_others_alone() {
    let farm = Farm::new(FARM);
    farm.run().await;
    let hashes = |farm: &Farm| -> Vec<(String, Value)> {
        let all = farm.list::<Deployment>().into_iter().chain(farm.list::<StatefulSet>());
        all.map(|o| {
            (o["metadata"]["labels"]["app"].as_str().unwrap().to_owned(), o["spec"]["template"].clone())
        })
        .collect()
    };
    let before = hashes(&farm);
    farm.edit::<BuildbarnBrowser>("browser", json!({"requestMetadataLinks": "`{\"a\": \"b\"}`"}));
    farm.run().await;
    let changed: Vec<String> =
        hashes(&farm).into_iter().filter(|entry| !before.contains(entry)).map(|(app, _)| app).collect();
    assert_eq!(changed, ["browser"]);
    assert_eq!(farm.list::<ConfigMap>().len(), 5, "the earlier configuration is gone");
}

/// An overlay is applied last; a metadata or status change of another object changes nothing.
#[tokio::test]
async fn an_overlay_is_applied_and_checked() {
    let farm = Farm::new(FARM);
    farm.edit::<BuildbarnFrontend>(
        "frontend",
        json!({"configOverlay": {"maximumMessageSizeBytes": "4194304"}}),
    );
    farm.edit::<BuildbarnWorker>("ubuntu", json!({"configOverlay": {"runner": {"cleanProcessTable": true}}}));
    farm.run().await;
    assert_eq!(farm.files("frontend")[0].1["maximumMessageSizeBytes"], "4194304");
    assert_eq!(farm.files("ubuntu")[0].1["cleanProcessTable"], true);
}

/// Clearing the host takes the Ingress away (the original kept it).
#[tokio::test]
async fn what_is_not_wanted_any_more_goes() {
    let farm = Farm::new(SHARDED);
    farm.run().await;
    assert_eq!(farm.list::<Ingress>().len(), 1);
    farm.edit::<BuildbarnBrowser>("browser", json!({"ingressHost": null}));
    farm.run().await;
    assert_eq!(farm.list::<Ingress>().len(), 0);
}

/// A restart forgets the queue: it waits until nothing is queued or runs, or for the longest wait.
#[tokio::test]
async fn a_busy_scheduler_is_restarted_when_it_is_idle_or_the_wait_is_over() {
    let farm = Farm::new(FARM);
    farm.run().await;
    let template = |farm: &Farm| farm.get::<Deployment>("scheduler").unwrap()["spec"]["template"].clone();
    let before = template(&farm);
    farm.queue.submit(&queue(&[]), 1);
    farm.edit::<BuildbarnScheduler>("scheduler", json!({"fairness": ["ToolInvocationId"]}));
    farm.settle().await;
    assert_eq!(template(&farm), before);
    assert!(farm.condition::<BuildbarnScheduler>("scheduler", "RestartPending").starts_with("True Busy"));
    farm.scheduler.advance(601);
    farm.settle().await;
    assert_ne!(template(&farm), before);
    assert_eq!(farm.condition::<BuildbarnScheduler>("scheduler", "RestartPending"), "");
}

#[tokio::test]
async fn objects_of_others_are_left_alone() {
    let farm = Farm::new(FARM);
    let foreign = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "browser", "namespace": "buildbarn"},
        "spec": {"ports": [{"port": 1}]}});
    farm.storage.api.put(&foreign);
    farm.settle().await;
    let ready = farm.condition::<BuildbarnBrowser>("browser", "Ready");
    assert!(
        ready.starts_with("False NameTaken: Service \"browser\" exists and belongs to something else"),
        "{ready}"
    );
    assert!(farm.get::<Deployment>("browser").is_none());
}

/// The original's finalizer guards nothing and must not keep objects.
#[tokio::test]
async fn a_deleted_object_goes() {
    let farm = Farm::new(FARM);
    farm.run().await;
    let patch = json!({"metadata": {"finalizers": ["buildbarnbrowser.buildbarn.io"]}});
    farm.storage.api.patch(&Kind::of::<BuildbarnBrowser>(), &key("browser"), "", &patch);
    farm.storage.api.delete(&Kind::of::<BuildbarnBrowser>(), &key("browser"));
    farm.browser.settle(&key("browser")).await;
    assert!(farm.get::<BuildbarnBrowser>("browser").is_none());
}

#[tokio::test]
async fn paused_objects_keep_only_their_status() {
    let farm = Farm::new(FARM);
    farm.edit::<BuildbarnBrowser>("browser", json!({"paused": true}));
    farm.run().await;
    assert!(farm.get::<Deployment>("browser").is_none());
    assert!(farm.condition::<BuildbarnBrowser>("browser", "Ready").starts_with("False Paused"));
}
