//! The fake API as a `tower` service behind a real [`kube::Client`]: paths, verbs, watches, discovery.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, channel::mpsc, stream};
use http::{Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use kube::{
    client::Body,
    core::{Selector, SelectorExt},
};
use meta::{Clock, GroupResource, ObjectKey, Random, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::service_fn;

use super::objects::{DeleteOptions, Logged, Objects, text};
use crate::{Kind, Progress, stores::Cache};

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// An API server in memory. Clones are one server.
#[derive(Clone)]
pub struct FakeApi {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    objects: Objects,
    watchers: Vec<Watcher>,
    faults: Vec<Fault>,
    requests: Vec<(Method, String)>,
    /// A kind that was listed or watched and is not registered.
    unknown: watch::Sender<Option<GroupResource>>,
}

struct Watcher {
    target: Target,
    filter: Filter,
    events: mpsc::UnboundedSender<Bytes>,
}

struct Fault {
    verb: Method,
    path_part: String,
    status: Status,
}

/// What a path names.
#[derive(Clone, Debug)]
struct Target {
    plural: GroupResource,
    key: ObjectKey,
    subresource: String,
}

/// Which of the objects a list or watch is about, and in which form.
#[derive(Clone, Debug, Default)]
struct Filter {
    labels: Selector,
    fields: Vec<(String, String, bool)>,
    metadata_only: bool,
}

impl FakeApi {
    /// An empty server that knows the built-in kinds the project's controllers touch.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let mut objects = Objects::new(clock, random);
        for (group, kind, plural, namespaced) in BUILT_IN {
            let plural_key = GroupResource::new(*group, *plural);
            objects.kinds.insert(plural_key, (Kind::new(group, "v1", kind, plural), *namespaced));
        }
        let shared = Shared {
            objects,
            watchers: Vec::new(),
            faults: Vec::new(),
            requests: Vec::new(),
            unknown: watch::Sender::new(None),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Also knows `kind` (a CRD's).
    pub fn register(&self, kind: Kind, namespaced: bool) {
        let plural = GroupResource::new(kind.group.clone(), kind.plural.clone());
        self.shared.lock().objects.kinds.insert(plural, (kind, namespaced));
    }

    /// A client of this server. Must be called within a tokio runtime.
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.serve(request).await }
        });
        kube::Client::new(service, "default")
    }

    /// Stores an object as it is given: `status` and `uid` included, metadata filled in.
    pub fn put(&self, object: &Value) {
        let mut shared = self.shared.lock();
        let (plural, key) = shared.objects.locate(object);
        if shared.objects.get(&plural, &key).is_ok() {
            must(shared.objects.update(&plural, &key, "", object.clone()));
            if object.get("status").is_some() {
                must(shared.objects.update(&plural, &key, "status", object.clone()));
            }
        } else {
            must(shared.objects.create(&plural, &key.namespace, object.clone()));
        }
        shared.publish();
    }

    /// Changes a stored object as another client would; `subresource` may be `status`.
    pub fn patch(&self, kind: &Kind, key: &ObjectKey, subresource: &str, patch: &Value) {
        let mut shared = self.shared.lock();
        must(shared.objects.merge(&plural_of(kind), key, subresource, patch));
        shared.publish();
    }

    /// Deletes as another client would, in the background; force-deletes a pod at once.
    pub fn delete(&self, kind: &Kind, key: &ObjectKey) {
        let mut shared = self.shared.lock();
        let options = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
        must(shared.objects.delete(&plural_of(kind), key, &options));
        shared.publish();
    }

    /// One object, if it is there.
    pub fn get(&self, kind: &Kind, key: &ObjectKey) -> Option<Value> {
        self.shared.lock().objects.get(&plural_of(kind), key).ok().map(|object| (*object).clone())
    }

    /// All of a kind, in key order; of all namespaces when `namespace` is empty.
    pub fn list(&self, kind: &Kind, namespace: &str) -> Vec<Value> {
        let objects = self.shared.lock().objects.list(&plural_of(kind), namespace);
        objects.iter().map(|object| (**object).clone()).collect()
    }

    /// The newest revision: it stands still while nothing is written.
    pub fn revision(&self) -> u64 {
        self.shared.lock().objects.revision
    }

    /// The newest revision of anything but Leases, which are renewed for ever.
    pub fn revision_of_all_but_leases(&self) -> u64 {
        let shared = self.shared.lock();
        let mut newest = shared.objects.log.iter().rev().filter(|logged| logged.plural.resource != "leases");
        newest.next().map_or(0, |logged| logged.revision)
    }

    /// Whether a cache has seen everything that happened to its kind: the newest live version, and
    /// every deletion (a list shows deletions only by what is not there).
    pub(crate) fn is_shown(&self, kind: &Kind, cache: &dyn Cache, progress: Progress) -> bool {
        let plural = plural_of(kind);
        let shared = self.shared.lock();
        let mut of_kind = shared.objects.log.iter().filter(|logged| logged.plural == plural);
        of_kind.all(|logged| {
            let key = shared.objects.locate(&logged.object).1;
            if logged.verb == "DELETED" {
                let uid = text(&logged.object, "/metadata/uid").unwrap_or_default();
                cache.life(&key).is_none_or(|(live, _)| live != uid)
            } else {
                let live =
                    shared.objects.get(&plural, &key).is_ok_and(|live| Arc::ptr_eq(&live, &logged.object));
                !live || progress.revision >= logged.revision
            }
        })
    }

    /// Ends all watches, as a server that goes away does.
    pub fn break_watches(&self) {
        self.shared.lock().watchers.clear();
    }

    /// Fails the next request with this verb whose path contains `path_part`.
    pub fn fail_next(&self, verb: Method, path_part: &str, status: Status) {
        self.shared.lock().faults.push(Fault { verb, path_part: path_part.to_owned(), status });
    }

    /// Takes the log of requests so far: verb and path.
    pub fn take_requests(&self) -> Vec<(Method, String)> {
        std::mem::take(&mut self.shared.lock().requests)
    }

    /// Waits until somebody asks for a kind that is not registered: a watch of it would be tried for ever.
    pub(crate) async fn unknown(&self) -> GroupResource {
        let mut unknown = self.shared.lock().unknown.subscribe();
        let found = unknown.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        match found {
            Some(kind) => kind,
            None => std::future::pending().await,
        }
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Answer>, kube::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut shared = self.shared.lock();
        shared.requests.push((parts.method.clone(), parts.uri.path().to_owned()));
        let answer =
            shared.answer(&parts, &body).unwrap_or_else(|status| reply(status.code, &status.to_json()));
        shared.publish();
        Ok(answer)
    }
}

impl Shared {
    fn answer(&mut self, parts: &http::request::Parts, body: &[u8]) -> Result<Response<Answer>, Status> {
        let path = parts.uri.path();
        let fault = self.faults.iter().position(|f| f.verb == parts.method && path.contains(&f.path_part));
        if let Some(at) = fault {
            return Err(self.faults.remove(at).status);
        }
        if let Some(found) = self.discovery(path) {
            return Ok(reply(200, &found));
        }
        let target = Target::parse(path).ok_or_else(Status::no_such_path)?;
        let Some((kind, _)) = self.objects.kinds.get(&target.plural).cloned() else {
            if parts.method == Method::GET && target.key.name.is_empty() {
                self.unknown.send_replace(Some(target.plural));
            }
            return Err(Status::no_such_path());
        };
        let query = query_of(parts.uri.query().unwrap_or_default());
        let filter = Filter::parse(parts, &query)?;
        let parsed =
            || serde_json::from_slice::<Value>(body).map_err(|error| Status::bad_request(error.to_string()));
        let Target { plural, key, subresource } = &target;
        match (&parts.method, key.name.is_empty()) {
            (&Method::GET, true) if query.get("watch").is_some_and(|w| w == "true" || w == "1") => {
                Ok(self.watch(&target, filter, &query))
            }
            (&Method::GET, true) => Ok(self.list(&kind, &target, &filter)),
            (&Method::GET, false) => Ok(reply(200, &filter.shape(&*self.objects.get(plural, key)?))),
            (&Method::POST, true) => {
                let made = self.objects.create(plural, &key.namespace, parsed()?)?;
                Ok(reply(201, &made))
            }
            (&Method::PUT, false) => {
                Ok(reply(200, &*self.objects.update(plural, key, subresource, parsed()?)?))
            }
            (&Method::PATCH, false) => {
                let manager = query.get("fieldManager").map_or("", String::as_str);
                Ok(reply(200, &*self.patch(&target, parts, manager, &parsed()?)?))
            }
            (&Method::DELETE, false) => {
                let options = delete_options(body, &query)?;
                let left = self.objects.delete(plural, key, &options)?;
                Ok(reply(200, &left.map_or_else(success, |object| (*object).clone())))
            }
            (&Method::DELETE, true) => {
                let options = delete_options(body, &query)?;
                for object in self.objects.list(plural, &key.namespace).iter().filter(|o| filter.admits(o)) {
                    let (_, key) = self.objects.locate(object);
                    self.objects.delete(plural, &key, &options)?;
                }
                Ok(reply(200, &success()))
            }
            _ => Err(Status::method_not_allowed(plural, parts.method.as_str())),
        }
    }

    fn patch(
        &mut self,
        target: &Target,
        parts: &http::request::Parts,
        manager: &str,
        body: &Value,
    ) -> Result<Arc<Value>, Status> {
        let Target { plural, key, subresource } = target;
        let form = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        match form {
            "application/merge-patch+json" => self.objects.merge(plural, key, subresource, body),
            "application/apply-patch+yaml" => self.objects.apply(plural, key, subresource, manager, body),
            "application/json-patch+json" => {
                let mut next = (*self.objects.get(plural, key)?).clone();
                let operations: json_patch::Patch =
                    serde_json::from_value(body.clone()).map_err(|e| Status::bad_request(e.to_string()))?;
                json_patch::patch(&mut next, &operations).map_err(|e| Status::bad_request(e.to_string()))?;
                self.objects.update(plural, key, subresource, next)
            }
            other => Err(Status::new(
                415,
                meta::Reason::UnsupportedMediaType,
                format!("fake api cannot patch by {other}"),
            )),
        }
    }

    fn list(&self, kind: &Kind, target: &Target, filter: &Filter) -> Response<Answer> {
        let objects = self.objects.list(&target.plural, &target.key.namespace);
        let items: Vec<Value> =
            objects.iter().filter(|o| filter.admits(o)).map(|o| filter.shape(o)).collect();
        reply(
            200,
            &json!({
                "apiVersion": kind.api_version(), "kind": format!("{}List", kind.kind),
                "metadata": { "resourceVersion": self.objects.revision.to_string() }, "items": items,
            }),
        )
    }

    fn watch(
        &mut self,
        target: &Target,
        filter: Filter,
        query: &BTreeMap<String, String>,
    ) -> Response<Answer> {
        let from: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let (events, receiver) = mpsc::unbounded();
        let watcher = Watcher { target: target.clone(), filter, events };
        for logged in self.objects.log.iter().filter(|logged| logged.revision > from) {
            watcher.offer(logged);
        }
        self.watchers.push(watcher);
        let frames = receiver.map(|line| Ok(Frame::data(line)));
        answer(200, StreamBody::new(frames).boxed_unsync())
    }

    /// Sends what is new to the watchers. The log is kept: a watch may begin at any revision.
    fn publish(&mut self) {
        let sent = self.published();
        let fresh: Vec<Logged> = self.objects.log.iter().filter(|l| l.revision > sent).cloned().collect();
        for logged in &fresh {
            self.watchers.retain(|watcher| watcher.offer(logged));
        }
        self.objects.sent = self.objects.revision;
    }

    fn published(&self) -> u64 {
        self.objects.sent
    }

    fn discovery(&self, path: &str) -> Option<Value> {
        let kinds = || self.objects.kinds.values();
        let groups =
            || kinds().map(|(kind, _)| (&kind.group, &kind.version)).filter(|(group, _)| !group.is_empty());
        match path {
            "/api" => Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
            "/apis" => {
                let unique: BTreeMap<_, _> = groups().collect();
                let list: Vec<Value> = unique
                    .iter()
                    .map(|(group, version)| {
                        let version =
                            json!({ "groupVersion": format!("{group}/{version}"), "version": version });
                        json!({ "name": group, "versions": [version], "preferredVersion": version })
                    })
                    .collect();
                Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": list }))
            }
            _ => {
                let api_version = path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"))?;
                let resources: Vec<Value> = kinds()
                    .filter(|(kind, _)| kind.api_version() == api_version)
                    .map(|(kind, namespaced)| {
                        json!({
                            "name": kind.plural, "singularName": "", "namespaced": namespaced, "kind": kind.kind,
                            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                        })
                    })
                    .collect();
                let known = api_version == "v1" || !resources.is_empty();
                known.then(|| json!({ "kind": "APIResourceList", "groupVersion": api_version, "resources": resources }))
            }
        }
    }
}

impl Watcher {
    /// Whether the watcher is still there.
    fn offer(&self, logged: &Logged) -> bool {
        let namespace = &self.target.key.namespace;
        let inside = namespace.is_empty() || text(&logged.object, "/metadata/namespace") == Some(namespace);
        if logged.plural == self.target.plural && inside && self.filter.admits(&logged.object) {
            let event = json!({ "type": logged.verb, "object": self.filter.shape(&logged.object) });
            return self.events.unbounded_send(Bytes::from(format!("{event}\n"))).is_ok();
        }
        !self.events.is_closed()
    }
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let mut steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
        let group = match *steps.first()? {
            "api" => {
                steps.drain(..2.min(steps.len()));
                ""
            }
            "apis" => {
                let group = *steps.get(1)?;
                steps.drain(..3.min(steps.len()));
                group
            }
            _ => return None,
        };
        let (namespace, rest) = match steps.as_slice() {
            ["namespaces", namespace, plural, ..] if *plural != "status" && *plural != "finalize" => {
                (*namespace, steps.get(2..)?)
            }
            _ => ("", steps.as_slice()),
        };
        let at = |index: usize| rest.get(index).copied().unwrap_or_default();
        Some(Self {
            plural: GroupResource::new(group, *rest.first()?),
            key: ObjectKey::new(namespace, at(1)),
            subresource: at(2).to_owned(),
        })
    }
}

impl Filter {
    fn parse(parts: &http::request::Parts, query: &BTreeMap<String, String>) -> Result<Self, Status> {
        let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
        let labels = match query.get("labelSelector") {
            Some(selector) => parse_labels(selector).map_err(|error| bad(&error))?,
            None => Selector::default(),
        };
        let fields =
            query.get("fieldSelector").into_iter().flat_map(|text| text.split(',')).filter_map(|term| {
                let (path, value) = term.split_once('=')?;
                let (path, equal) = path.strip_suffix('!').map_or((path, true), |path| (path, false));
                Some((
                    format!("/{}", path.replace('.', "/")),
                    value.trim_start_matches('=').to_owned(),
                    equal,
                ))
            });
        let accept = parts.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Self {
            labels,
            fields: fields.collect(),
            metadata_only: accept.contains("as=PartialObjectMetadata"),
        })
    }

    fn admits(&self, object: &Value) -> bool {
        let labels: BTreeMap<String, String> = object
            .pointer("/metadata/labels")
            .and_then(|labels| serde_json::from_value(labels.clone()).ok())
            .unwrap_or_default();
        let fields = self
            .fields
            .iter()
            .all(|(path, value, equal)| (text(object, path).unwrap_or_default() == value) == *equal);
        fields && self.labels.matches(&labels)
    }

    fn shape(&self, object: &Value) -> Value {
        if self.metadata_only {
            json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] })
        } else {
            object.clone()
        }
    }
}

/// The `a=b,c!=d,e,!f` subset that the project's clients send.
fn parse_labels(text: &str) -> Result<Selector, String> {
    let mut selector = Selector::default();
    for term in text.split(',').filter(|term| !term.is_empty()) {
        let expression = match (term.split_once("!="), term.split_once('='), term.strip_prefix('!')) {
            (Some((key, value)), _, _) => kube::core::Expression::NotEqual(key.into(), value.into()),
            (_, Some((key, value)), _) => kube::core::Expression::Equal(
                key.trim_end_matches('=').into(),
                value.trim_start_matches('=').into(),
            ),
            (_, _, Some(key)) => kube::core::Expression::DoesNotExist(key.into()),
            _ if term.contains(' ') => return Err(format!("fake api does not know the selector {term}")),
            _ => kube::core::Expression::Exists(term.into()),
        };
        selector.extend([expression]);
    }
    Ok(selector)
}

fn query_of(text: &str) -> BTreeMap<String, String> {
    let decode = |part: &str| {
        let mut bytes = Vec::new();
        let mut rest = part.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match (first, after) {
                (b'%', [high, low, tail @ ..]) => {
                    let digit = |d: &u8| char::from(*d).to_digit(16).unwrap_or(0);
                    bytes.push(u8::try_from(digit(high) * 16 + digit(low)).unwrap_or(b'?'));
                    rest = tail;
                }
                (b'+', _) => bytes.push(b' '),
                (byte, _) => bytes.push(*byte),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (decode(k), decode(v))).collect()
}

fn delete_options(body: &[u8], query: &BTreeMap<String, String>) -> Result<DeleteOptions, Status> {
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).map_err(|error| Status::bad_request(error.to_string()))?
    };
    let owned = |path: &str| text(&body, path).map(str::to_owned);
    Ok(DeleteOptions {
        uid: owned("/preconditions/uid"),
        resource_version: owned("/preconditions/resourceVersion"),
        grace: body.pointer("/gracePeriodSeconds").and_then(Value::as_i64),
        propagation: owned("/propagationPolicy").or_else(|| query.get("propagationPolicy").cloned()),
    })
}

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })
}

fn reply(code: u16, body: &Value) -> Response<Answer> {
    let frame = Ok(Frame::data(Bytes::from(body.to_string())));
    answer(code, StreamBody::new(stream::iter([frame])).boxed_unsync())
}

fn answer(code: u16, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn plural_of(kind: &Kind) -> GroupResource {
    GroupResource::new(kind.group.clone(), kind.plural.clone())
}

#[allow(clippy::panic, reason = "test kit: a request of the test itself that fails is a bug of the test")]
fn must<T>(result: Result<T, Status>) -> T {
    result.unwrap_or_else(|status| panic!("fake api refused the test's own write: {status}"))
}

/// Group, kind, plural, whether namespaced; all version v1.
const BUILT_IN: &[(&str, &str, &str, bool)] = &[
    ("", "ConfigMap", "configmaps", true),
    ("", "Endpoints", "endpoints", true),
    ("", "Event", "events", true),
    ("", "Namespace", "namespaces", false),
    ("", "Node", "nodes", false),
    ("", "PersistentVolume", "persistentvolumes", false),
    ("", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("", "Pod", "pods", true),
    ("", "Secret", "secrets", true),
    ("", "Service", "services", true),
    ("", "ServiceAccount", "serviceaccounts", true),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false),
    ("apps", "ControllerRevision", "controllerrevisions", true),
    ("apps", "DaemonSet", "daemonsets", true),
    ("apps", "Deployment", "deployments", true),
    ("apps", "ReplicaSet", "replicasets", true),
    ("apps", "StatefulSet", "statefulsets", true),
    ("batch", "CronJob", "cronjobs", true),
    ("batch", "Job", "jobs", true),
    ("coordination.k8s.io", "Lease", "leases", true),
    ("discovery.k8s.io", "EndpointSlice", "endpointslices", true),
    ("events.k8s.io", "Event", "events", true),
    ("networking.k8s.io", "IPAddress", "ipaddresses", false),
    ("networking.k8s.io", "ServiceCIDR", "servicecidrs", false),
    ("policy", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("storage.k8s.io", "StorageClass", "storageclasses", false),
    ("storage.k8s.io", "VolumeAttributesClass", "volumeattributesclasses", false),
];
