//! The whole scheduler against an API server that answers from a table and records what is written.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

type Reply = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// Lists what `objects` says, then keeps watches open and silent; sends every write to `writes`.
async fn answer(
    objects: Arc<BTreeMap<&'static str, Vec<Value>>>,
    refused: &'static [&'static str],
    writes: mpsc::UnboundedSender<(String, Value)>,
    request: Request<Body>,
) -> Result<Reply, std::io::Error> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if parts.method == Method::GET {
        if parts.uri.query().unwrap_or_default().contains("watch=true") {
            let silent = StreamBody::new(futures::stream::pending::<Result<http_body::Frame<Bytes>, _>>());
            return Ok(Response::new(silent.boxed_unsync()));
        }
        let items = objects.get(path.as_str()).cloned().unwrap_or_default();
        let list =
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
        return Ok(reply(StatusCode::OK, &list));
    }
    let sent: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    let refuse = refused.iter().any(|p| path.ends_with(p));
    writes.send((format!("{} {path}", parts.method), sent.clone())).unwrap();
    if refuse {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "no", "reason": "Conflict", "code": 409});
        return Ok(reply(StatusCode::CONFLICT, &status));
    }
    Ok(reply(StatusCode::CREATED, &sent))
}

fn reply(code: StatusCode, body: &Value) -> Reply {
    let bytes = Bytes::from(serde_json::to_vec(body).unwrap());
    let full = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).body(full).unwrap()
}

fn node(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}
    })
}

/// Runs the scheduler until as many writes as wanted have come, and gives them sorted by path.
async fn writes(
    objects: Vec<(&'static str, Vec<Value>)>,
    refused: &'static [&'static str],
    wanted: usize,
) -> Vec<(String, Value)> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let objects = Arc::new(objects.into_iter().collect::<BTreeMap<_, _>>());
    let service = tower::service_fn(move |request| answer(objects.clone(), refused, sender.clone(), request));
    let client = kube::Client::new(service, "default");
    let clock = Arc::new(meta::Fixed::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let options = scheduler::Options::new("test", clock, Arc::new(meta::Seeded::new(1)));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(scheduler::run(client, options, async { stopped.await.unwrap() }));
    let mut got = Vec::new();
    while got.len() < wanted {
        got.push(receiver.recv().await.unwrap());
    }
    stop.send(()).unwrap();
    running.await.unwrap();
    // What was under way at the stop was still carried out.
    while let Ok(write) = receiver.try_recv() {
        got.push(write);
    }
    got.sort_by(|a, b| a.0.cmp(&b.0));
    got
}

#[tokio::test]
async fn binds_pods_and_says_so() {
    let objects = vec![("/api/v1/nodes", vec![node("n", "1")]), ("/api/v1/pods", vec![pod("a", "1")])];
    let got = writes(objects, &[], 2).await;
    let [(bind_path, binding), (event_path, event)] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!(bind_path, "POST /api/v1/namespaces/ns/pods/a/binding");
    assert_eq!(binding["target"], json!({"apiVersion": "v1", "kind": "Node", "name": "n"}));
    assert_eq!((&binding["metadata"]["uid"], &binding["kind"]), (&json!("uid-a"), &json!("Binding")));
    assert_eq!(event_path, "POST /apis/events.k8s.io/v1/namespaces/ns/events");
    assert_eq!((&event["reason"], &event["type"]), (&json!("Scheduled"), &json!("Normal")));
    assert_eq!(event["note"], "Successfully assigned ns/a to n");
    assert_eq!(event["eventTime"], "2026-01-02T03:04:05.000000Z");
    assert_eq!(event["regarding"]["uid"], "uid-a");
    assert_eq!(event["reportingController"], "default-scheduler");
}

#[tokio::test]
async fn says_why_a_pod_fits_nowhere() {
    let objects = vec![("/api/v1/nodes", vec![node("n", "1")]), ("/api/v1/pods", vec![pod("a", "2")])];
    let got = writes(objects, &[], 2).await;
    let [(patch_path, patch), (_, event)] = got.as_slice() else { panic!("{got:?}") };
    let message = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(patch_path, "PATCH /api/v1/namespaces/ns/pods/a/status");
    assert_eq!(patch["metadata"]["uid"], "uid-a");
    assert_eq!(
        patch["status"]["conditions"],
        json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastTransitionTime": "2026-01-02T03:04:05Z"}])
    );
    assert_eq!((&event["reason"], &event["note"]), (&json!("FailedScheduling"), &json!(message)));
}

#[tokio::test(start_paused = true)]
async fn tries_again_when_binding_is_refused() {
    let objects = vec![("/api/v1/nodes", vec![node("n", "1")]), ("/api/v1/pods", vec![pod("a", "1")])];
    let got = writes(objects, &["/binding"], 6).await;
    let binds = got.iter().filter(|(path, _)| path.ends_with("/binding")).count();
    assert!(binds >= 2, "{got:?}");
    let told = got.iter().find(|(path, _)| path.ends_with("/events")).unwrap();
    assert_eq!(told.1["reason"], "FailedScheduling");
    assert!(told.1["note"].as_str().unwrap().contains("bind pod ns/a to node n"), "{told:?}");
}

#[tokio::test]
async fn asks_for_volumes_and_waits_for_them() {
    let class = json!({"metadata": {"name": "local"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"});
    let claim = json!({"metadata": {"name": "c", "namespace": "ns", "uid": "c"},
        "spec": {"storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}});
    let mut user = pod("a", "1");
    user["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    let objects = vec![
        ("/api/v1/nodes", vec![node("n", "1")]),
        ("/api/v1/pods", vec![user]),
        ("/api/v1/persistentvolumeclaims", vec![claim]),
        ("/apis/storage.k8s.io/v1/storageclasses", vec![class]),
    ];
    let got = writes(objects, &[], 1).await;
    let [(path, patch)] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!(path, "PATCH /api/v1/namespaces/ns/persistentvolumeclaims/c");
    assert_eq!(patch["metadata"]["annotations"], json!({"volume.kubernetes.io/selected-node": "n"}));
}
