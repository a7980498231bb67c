//! The metrics API: what the nodes of this process put on a board, and what the kubelets of others say when asked.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use apiserver::{cache::Take, rest::Rest};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt as _, Limited};
use kube::{Client, client::Body};
use meta::{Entry, GroupResource, ObjectKey, Value};
use node::{
    summary::Summary,
    usage::{Board, Report, SAMPLE_EVERY, Sampler},
};
use resource::View;
use tokio_util::sync::CancellationToken;

use super::{actors::MASTERS, server::ApiServer};

/// Kubelets asked at once.
const ASKED_MAX: usize = 16;
/// How long one may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest answer that is read. A node's largest, of 110 pods with ten containers, has a tenth of it.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Serves the metrics API. Returns the board for the nodes of this process, and what asks those of others until the
/// cluster stops.
pub(crate) fn show(
    server: &ApiServer,
    stop: CancellationToken,
) -> (Arc<Board>, impl Future<Output = ()> + Send + use<>) {
    let board = Arc::new(Board::default());
    let measure = |plural: &str, each: fn(&Board, Take<'_>)| {
        let (shown, changed, clock) = (board.clone(), board.clone(), server.rest.clock().clone());
        let measured = (move || changed.version(clock.now()), move |take: Take<'_>| each(&shown, take));
        server.rest.cache().measure(&GroupResource::new("metrics.k8s.io", plural), Arc::new(measured));
    };
    measure("nodes", Board::nodes);
    measure("pods", Board::pods);
    let client = server.client("system:apiserver", &[MASTERS]);
    let (rest, asked) = (server.rest.clone(), board.clone());
    let asking = async move {
        let mut samplers = HashMap::new();
        while !stop.is_cancelled() {
            tokio::select! {
                () = ask(&rest, &client, &asked, &mut samplers) => {}
                () = stop.cancelled() => {}
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(SAMPLE_EVERY) => {}
            }
        }
    };
    (board, asking)
}

/// Asks the kubelets that serve their API, apart from those that report by themselves. Who does not answer is left
/// out, and shown no more when its last report is old. Of what it says of pods, only what is of pods that are there is
/// taken: a node knows the UIDs of its own ones alone.
async fn ask(rest: &Rest, client: &Client, board: &Board, samplers: &mut HashMap<String, Sampler>) {
    let nodes = rest.cache().list(&GroupResource::new("", "nodes"), None);
    let served = nodes.iter().filter(|node| !board.reports(&node.header.key.name) && serves(node));
    let asked: Vec<_> = served.map(|node| summary(client.clone(), node.clone())).collect();
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(ASKED_MAX).collect().await;
    samplers.retain(|name, _| nodes.iter().any(|node| *node.header.key.name == **name));
    for (node, mut summary) in answers.into_iter().flatten() {
        let name = node.header.key.name.to_string();
        summary.pods.retain_mut(|pod| {
            let key = ObjectKey::new(
                pod.metadata.namespace.clone().unwrap_or_default(),
                pod.metadata.name.clone().unwrap_or_default(),
            );
            let known = rest.cache().get(&GroupResource::new("", "pods"), &key.namespace, &key.name);
            let known = known.filter(|known| Some(&known.header.uid) == pod.metadata.uid.as_ref());
            pod.metadata.labels = known.as_deref().map(labels);
            known.is_some()
        });
        let sampler = samplers.entry(name.clone()).or_default();
        let Summary { at, measured, containers, pods } = summary;
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        if let Some(report) = sampler.sample(at, &measured, &containers, &pods, labels(&node)) {
            // How old it is goes by our clock: the node's may be another one.
            board.put_asked(&name, Report { at: rest.clock().now(), ..report });
        }
    }
}

/// What a node says when asked, through the API server as anybody would.
async fn summary(client: Client, node: Arc<Entry>) -> Option<(Arc<Entry>, Summary)> {
    let path = format!("/api/v1/nodes/{}/proxy/stats/summary", node.header.key.name);
    let request = http::Request::get(path).body(Body::empty()).ok()?;
    let why = match tokio::time::timeout(ANSWER_MAX, answer(&client, request)).await {
        Ok(Ok(answer)) => return Some((node, Summary::read(&answer)?)),
        Ok(Err(why)) => why,
        Err(_) => "no answer".to_owned(),
    };
    tracing::debug!(node = %node.header.key.name, why, "cannot ask what a node uses");
    None
}

/// The answer, where it is one and not too long; else why there is none.
async fn answer(client: &Client, request: http::Request<Body>) -> Result<Value, String> {
    let (parts, body) = client.send(request).await.map_err(|error| reconcile::text(&error))?.into_parts();
    if !parts.status.is_success() {
        return Err(format!("it answers {}", parts.status));
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}

fn labels(entry: &Entry) -> std::collections::BTreeMap<String, String> {
    entry.header.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Whether the node says where its kubelet API is.
fn serves(node: &Entry) -> bool {
    let port = |object: meta::Object| {
        object.get(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64)
    };
    node.object().ok().and_then(port).is_some_and(|port| port > 0)
}
