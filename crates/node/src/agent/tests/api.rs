//! A small API server for driver tests: objects in a map, lists, watches, patches. No validation.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

type Answer = Response<BoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String, String), Value>,
    revision: u64,
    watchers: Vec<(String, mpsc::UnboundedSender<Value>)>,
    log: Vec<String>,
    removed: BTreeMap<(String, String, String), Value>,
    reports: Reports,
}

/// Statuses of pods on their way.
#[derive(Clone, Copy, Default)]
pub(super) struct Reports {
    /// They are refused with 429.
    pub(super) refused: bool,
    /// How many came.
    pub(super) count: usize,
    now: usize,
    /// How many were on their way at once.
    pub(super) most: usize,
}

/// How long a pod's status is on its way.
const REPORT_TAKES: std::time::Duration = std::time::Duration::from_millis(10);

#[derive(Clone)]
pub(super) struct Api {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Api {
    pub(super) fn new() -> Self {
        Self { state: Arc::default(), changed: watch::channel(0).0 }
    }

    pub(super) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub(super) fn put(&self, plural: &str, object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (plural.to_owned(), text("namespace"), text("name"));
        let stored = state.store(key, object);
        drop(state);
        self.tell();
        stored
    }

    pub(super) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.get(&key).cloned()
    }

    /// An object as it was when it was deleted.
    pub(super) fn last(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().unwrap().removed.get(&key).cloned()
    }

    /// The events about a pod that have this reason.
    pub(super) fn events(&self, pod: &str, reason: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let all = state.objects.iter().filter(|((plural, ..), _)| plural == "events").map(|(_, event)| event);
        all.filter(|event| event["involvedObject"]["name"] == pod && event["reason"] == reason)
            .cloned()
            .collect()
    }

    /// Requests that changed something, as `VERB path`.
    pub(super) fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }

    /// From now on; what was counted before is forgotten.
    pub(super) fn refuse_reports(&self, refused: bool) {
        self.state.lock().unwrap().reports = Reports { refused, ..Reports::default() };
    }

    pub(super) fn reports(&self) -> Reports {
        self.state.lock().unwrap().reports
    }

    /// Says whether there is room for the status of a pod.
    async fn report(&self) -> bool {
        {
            let reports = &mut self.state.lock().unwrap().reports;
            reports.count += 1;
            reports.now += 1;
            reports.most = reports.most.max(reports.now);
        }
        tokio::time::sleep(REPORT_TAKES).await;
        let reports = &mut self.state.lock().unwrap().reports;
        reports.now = reports.now.saturating_sub(1);
        !reports.refused
    }

    /// As a user's delete: with grace the object gets a deletion timestamp.
    pub(super) fn delete(&self, plural: &str, namespace: &str, name: &str, grace: Option<i64>) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock().unwrap();
        let Some(mut object) = state.objects.get(&key).cloned() else { return };
        match grace {
            Some(seconds) => {
                object["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:30Z");
                object["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
                state.store(key, object);
            }
            None => state.remove(&key),
        }
        drop(state);
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits until `check` finds what it looks for; panics after a (virtual) hour.
    pub(super) async fn until<T>(&self, what: &str, check: impl Fn(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = check(self) {
                    return found;
                }
                let _told =
                    tokio::time::timeout(std::time::Duration::from_millis(200), changed.changed()).await;
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(3600), wait).await {
            Ok(found) => found,
            Err(_) => {
                let state = self.state.lock().unwrap();
                let pods: Vec<_> = state.objects.iter().filter(|(key, _)| key.0 == "pods").collect();
                panic!(
                    "never happened: {what}\n{pods:#?}\n{:#?}",
                    state.log.iter().filter(|w| !w.contains("leases")).collect::<Vec<_>>()
                )
            }
        }
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        let path: Vec<&str> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let rest = if path[0] == "api" { &path[2..] } else { &path[3..] };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        if parts.method == Method::PATCH && matches!(rest, ["pods", _, "status"]) && !self.report().await {
            return status(429);
        }
        let plural = rest[0].to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let mut state = self.state.lock().unwrap();
        if parts.method != Method::GET {
            state.log.push(format!("{} {}", parts.method, parts.uri.path()));
        }
        let answer = match (&parts.method, rest) {
            (&Method::GET, [_]) if query.contains("watch=true") => state.watch(&plural, &query),
            (&Method::GET, [_]) => state.list(&plural, namespace),
            (&Method::GET, [_, name]) => state.read(&(plural, namespace.to_owned(), (*name).to_owned())),
            (&Method::POST, [_]) => {
                let mut object = body;
                object["metadata"]["namespace"] = json!(namespace);
                let key =
                    (plural, namespace.to_owned(), object["metadata"]["name"].as_str().unwrap().to_owned());
                if state.objects.contains_key(&key) { status(409) } else { value(&state.store(key, object)) }
            }
            (&Method::POST, ["serviceaccounts", _, "token"]) => {
                let mut answer = body;
                answer["status"] = json!({ "token": "jwt", "expirationTimestamp": "2099-01-01T00:00:00Z" });
                value(&answer)
            }
            (&Method::PATCH, [_, name, ..]) => {
                let key = (plural, namespace.to_owned(), (*name).to_owned());
                match state.objects.get(&key).cloned() {
                    None => status(404),
                    Some(old)
                        if !body["metadata"]["uid"].is_null()
                            && body["metadata"]["uid"] != old["metadata"]["uid"] =>
                    {
                        status(409)
                    }
                    Some(mut object) => {
                        merge(&mut object, &body);
                        value(&state.store(key, object))
                    }
                }
            }
            (&Method::DELETE, [_, name]) => {
                let key = (plural, namespace.to_owned(), (*name).to_owned());
                state.remove(&key);
                value(&json!({ "kind": "Status", "apiVersion": "v1", "status": "Success", "code": 200 }))
            }
            _ => status(405),
        };
        drop(state);
        self.tell();
        answer
    }
}

impl State {
    fn store(&mut self, key: (String, String, String), mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let kind =
            if self.objects.insert(key.clone(), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.publish(&key.0, kind, &object);
        object
    }

    fn remove(&mut self, key: &(String, String, String)) {
        if let Some(mut object) = self.objects.remove(key) {
            self.removed.insert(key.clone(), object.clone());
            self.revision += 1;
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            self.publish(&key.0, "DELETED", &object);
        }
    }

    fn publish(&mut self, plural: &str, kind: &str, object: &Value) {
        let event = json!({ "type": kind, "object": object });
        self.watchers.retain(|(of, sender)| of != plural || sender.send(event.clone()).is_ok());
    }

    fn list(&self, plural: &str, namespace: &str) -> Answer {
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(key, _)| key.0 == plural && (namespace.is_empty() || key.1 == namespace))
            .map(|(_, object)| object)
            .collect();
        value(&json!({ "metadata": { "resourceVersion": self.revision.to_string() }, "items": items }))
    }

    fn read(&self, key: &(String, String, String)) -> Answer {
        self.objects.get(key).map_or_else(|| status(404), value)
    }

    fn watch(&mut self, plural: &str, query: &str) -> Answer {
        let (sender, receiver) = mpsc::unbounded_channel();
        let from: u64 = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
            .and_then(|version| version.parse().ok())
            .unwrap_or_default();
        for (_, object) in self.objects.iter().filter(|(key, _)| key.0 == plural) {
            let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            if version > from {
                sender.send(json!({ "type": "MODIFIED", "object": object })).unwrap();
            }
        }
        self.watchers.push((plural.to_owned(), sender));
        let events = futures::stream::unfold(receiver, |mut receiver| async move {
            let event = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))), receiver))
        });
        // The frames are made sync by a channel of their own: a boxed body has to be.
        Response::new(BodyExt::boxed(StreamBody::new(events)))
    }
}

fn value(value: &Value) -> Answer {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed())
}

fn status(code: u16) -> Answer {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no", "reason": reason, "code": code
    });
    let mut response = value(&body);
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}

/// Merge patch; `conditions` by type, as the strategic one does.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let map = into.as_object_mut().unwrap();
    for (key, change) in patch {
        match (key.as_str(), change) {
            (_, Value::Null) => {
                map.remove(key);
            }
            ("conditions", Value::Array(changes)) => {
                let list = map.entry(key.clone()).or_insert_with(|| json!([])).as_array_mut().unwrap();
                for change in changes {
                    if change["$patch"] == "delete" {
                        list.retain(|had| had["type"] != change["type"]);
                        continue;
                    }
                    match list.iter_mut().find(|had| had["type"] == change["type"]) {
                        Some(had) => merge(had, change),
                        None => {
                            let mut new = json!({});
                            merge(&mut new, change);
                            list.push(new);
                        }
                    }
                }
            }
            (_, Value::Object(_)) => merge(map.entry(key.clone()).or_insert_with(|| json!({})), change),
            (_, Value::Array(items)) => {
                let items: Vec<Value> =
                    items.iter().filter(|item| item["$patch"].is_null()).cloned().collect();
                map.insert(key.clone(), Value::Array(items));
            }
            (_, other) => {
                map.insert(key.clone(), other.clone());
            }
        }
    }
}
