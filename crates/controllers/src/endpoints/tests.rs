use k8s_openapi::api::{
    core::v1::{Endpoints, Pod, Service},
    discovery::v1::EndpointSlice,
};
use meta::ObjectKey;
use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::{EndpointSlices, EndpointsController};

const FIXTURE: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: web, namespace: ns, uid: uid-svc, labels: { team: blue } }
spec:
  clusterIP: None
  selector: { app: web }
  ports: [ { name: http, port: 80, targetPort: http, protocol: TCP }, { name: admin, port: 9000, protocol: TCP } ]
---
apiVersion: v1
kind: Node
metadata: { name: n1, labels: { topology.kubernetes.io/zone: z1 } }
---
apiVersion: v1
kind: Pod
metadata: { name: ready, namespace: ns, uid: uid-1, labels: { app: web } }
spec: { nodeName: n1, hostname: ready, subdomain: web, containers: [ { name: c, ports: [ { name: http, containerPort: 8080 } ] } ] }
status: { phase: Running, podIP: 10.0.0.1, podIPs: [ { ip: 10.0.0.1 } ], conditions: [ { type: Ready, status: "True" } ] }
---
apiVersion: v1
kind: Pod
metadata: { name: starting, namespace: ns, uid: uid-2, labels: { app: web } }
spec: { nodeName: n2, containers: [ { name: c, ports: [ { name: http, containerPort: 8081 } ] } ] }
status: { phase: Running, podIP: 10.0.0.2, conditions: [ { type: Ready, status: "False" } ] }
---
apiVersion: v1
kind: Pod
metadata: { name: leaving, namespace: ns, uid: uid-3, deletionTimestamp: "2026-01-01T00:00:00Z", labels: { app: web } }
spec: { nodeName: n1, containers: [ { name: c, ports: [ { name: http, containerPort: 8080 } ] } ] }
status: { phase: Running, podIP: 10.0.0.3, conditions: [ { type: Ready, status: "True" } ] }
---
apiVersion: v1
kind: Pod
metadata: { name: finished, namespace: ns, uid: uid-4, labels: { app: web } }
spec: { containers: [ { name: c } ] }
status: { phase: Succeeded, podIP: 10.0.0.4 }
---
apiVersion: v1
kind: Pod
metadata: { name: other, namespace: ns, uid: uid-5, labels: { app: other } }
spec: { containers: [ { name: c } ] }
status: { phase: Running, podIP: 10.0.0.5, conditions: [ { type: Ready, status: "True" } ] }
"#;

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

#[tokio::test]
async fn slices_say_what_each_pod_serves_and_how_it_is() {
    let bench = Bench::new(EndpointSlices);
    bench.put_yaml(FIXTURE);
    insta::assert_yaml_snapshot!(bench.plan(&key()).await.unwrap().apply);
    bench.settle(&key()).await;
    bench.api.patch(
        &Kind::of::<Service>(),
        &key(),
        "",
        &json!({ "spec": { "publishNotReadyAddresses": true } }),
    );
    bench.settle(&key()).await;
    for slice in bench.api.list(&Kind::of::<EndpointSlice>(), "ns") {
        for endpoint in slice["endpoints"].as_array().unwrap() {
            assert_eq!(endpoint["conditions"]["ready"], true, "{endpoint}");
        }
    }
}

#[tokio::test]
async fn endpoints_have_the_ready_and_the_not_ready() {
    let bench = Bench::new(EndpointsController);
    bench.put_yaml(FIXTURE);
    insta::assert_yaml_snapshot!(bench.plan(&key()).await.unwrap().apply);
    bench.settle(&key()).await;
    bench.api.patch(
        &Kind::of::<Pod>(),
        &ObjectKey::new("ns", "starting"),
        "status",
        &json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
    bench.settle(&key()).await;
    let endpoints = bench.api.get(&Kind::of::<Endpoints>(), &key()).unwrap();
    assert!(
        endpoints["subsets"].as_array().unwrap().iter().all(|subset| subset["notReadyAddresses"].is_null())
    );
    bench.api.delete(&Kind::of::<Service>(), &key());
    bench.settle(&key()).await;
    assert_eq!(bench.api.get(&Kind::of::<Endpoints>(), &key()), None);
}

#[tokio::test]
async fn what_somebody_else_made_is_left_alone() {
    let slices = Bench::new(EndpointSlices);
    slices.put_yaml(FIXTURE);
    let foreign = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [], "ports": [],
        "metadata": { "name": "mine", "namespace": "ns", "labels": { "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "me" } },
    });
    slices.api.put(&foreign);
    slices.settle(&key()).await;
    let kept = slices.api.get(&Kind::of::<EndpointSlice>(), &ObjectKey::new("ns", "mine")).unwrap();
    assert_eq!(kept["metadata"]["generation"], 1);

    let endpoints = Bench::new(EndpointsController);
    endpoints.api.put(&json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": "kubernetes", "namespace": "default" } }));
    let plan = endpoints.plan(&ObjectKey::new("default", "kubernetes")).await.unwrap();
    assert!(plan.is_empty());
}

fn pod(n: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("p{n:03}"), "namespace": "ns", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
        "status": { "phase": "Running", "podIP": format!("10.1.{}.{}", n / 256, n % 256), "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

#[tokio::test]
async fn a_hundred_to_a_slice_and_few_writes() {
    let bench = Bench::new(EndpointSlices);
    bench.put_yaml(FIXTURE.split("\n---").next().unwrap());
    let sizes = || -> Vec<usize> {
        let slices = bench.api.list(&Kind::of::<EndpointSlice>(), "ns");
        let mut sizes: Vec<usize> =
            slices.iter().map(|slice| slice["endpoints"].as_array().unwrap().len()).collect();
        sizes.sort_unstable();
        sizes
    };
    bench.settle(&key()).await;
    assert_eq!(sizes(), [0], "a placeholder while there is nothing");
    for n in 0..250 {
        bench.api.put(&pod(n));
    }
    bench.settle(&key()).await;
    assert_eq!(sizes(), [50, 100, 100]);
    bench.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", "p000"));
    bench.api.put(&pod(400));
    let plan = bench.plan(&key()).await.unwrap();
    assert_eq!((plan.apply.len(), plan.delete.len()), (1, 0), "the new pod takes the place of the old one");
    bench.settle(&key()).await;
    assert_eq!(sizes(), [50, 100, 100]);
    for n in (1..250).chain([400]) {
        bench.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", format!("p{n:03}")));
    }
    bench.settle(&key()).await;
    assert_eq!(sizes(), [0]);
}
