//! The objects of the fake API and what the verbs do to them. No HTTP here.

use std::{collections::BTreeMap, sync::Arc};

use meta::{Clock, FieldError, GroupResource, ObjectKey, Random, Status, format_second};
use serde_json::{Map, Value, json};

use crate::Kind;

/// One change, as watchers get it.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) revision: u64,
    pub(crate) plural: GroupResource,
    pub(crate) verb: &'static str,
    pub(crate) object: Arc<Value>,
}

/// Everything the fake API stores.
pub struct Objects {
    pub(crate) revision: u64,
    /// Up to where watchers have been told.
    pub(crate) sent: u64,
    pub(crate) kinds: BTreeMap<GroupResource, (Kind, bool)>,
    objects: BTreeMap<(GroupResource, ObjectKey), Arc<Value>>,
    applied: BTreeMap<(GroupResource, ObjectKey, String), Value>,
    pub(crate) log: Vec<Logged>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// What a DELETE is asked to respect.
#[derive(Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<String>,
}

impl Objects {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            revision: 0,
            sent: 0,
            kinds: BTreeMap::new(),
            objects: BTreeMap::new(),
            applied: BTreeMap::new(),
            log: Vec::new(),
            clock,
            random,
        }
    }

    /// Which object a body is.
    #[allow(clippy::panic, reason = "test kit: a kind nobody registered is a bug of the test")]
    pub(crate) fn locate(&self, object: &Value) -> (GroupResource, ObjectKey) {
        let api_version = text(object, "/apiVersion").unwrap_or_default();
        let kind = text(object, "/kind").unwrap_or_default();
        let found = self
            .kinds
            .iter()
            .find(|(_, (known, _))| known.kind == kind && known.api_version() == api_version);
        let Some((plural, _)) = found else { panic!("fake api does not know {api_version} {kind}") };
        let part = |path| text(object, path).unwrap_or_default();
        (plural.clone(), ObjectKey::new(part("/metadata/namespace"), part("/metadata/name")))
    }

    pub(crate) fn get(&self, plural: &GroupResource, key: &ObjectKey) -> Result<Arc<Value>, Status> {
        self.objects
            .get(&(plural.clone(), key.clone()))
            .cloned()
            .ok_or_else(|| Status::not_found(plural, &key.name))
    }

    /// All of a kind, of one namespace unless it is empty.
    pub(crate) fn list(&self, plural: &GroupResource, namespace: &str) -> Vec<Arc<Value>> {
        let of_kind = self.objects.iter().filter(|((kind, key), _)| {
            kind == plural && (namespace.is_empty() || key.namespace == namespace)
        });
        of_kind.map(|(_, object)| Arc::clone(object)).collect()
    }

    pub(crate) fn create(
        &mut self,
        plural: &GroupResource,
        namespace: &str,
        mut object: Value,
    ) -> Result<Arc<Value>, Status> {
        let (kind, _) = self.kinds.get(plural).cloned().ok_or_else(Status::no_such_path)?;
        if let Some(prefix) = text(&object, "/metadata/generateName").map(str::to_owned)
            && text(&object, "/metadata/name").is_none_or(str::is_empty)
        {
            let name = format!("{prefix}{}", self.random.suffix(5));
            metadata(&mut object).insert("name".into(), name.into());
        }
        let name = text(&object, "/metadata/name").unwrap_or_default().to_owned();
        if name.is_empty() {
            let error = FieldError::required("metadata.name", "name or generateName is required");
            return Err(Status::invalid(&kind.group, &kind.kind, "", &[error]));
        }
        let key = ObjectKey::new(namespace, &name);
        if self.get(plural, &key).is_ok() {
            return Err(Status::already_exists(plural, &name));
        }
        let (uid, now) = (self.random.uuid(), format_second(self.clock.now()));
        let meta = metadata(&mut object);
        if !namespace.is_empty() {
            meta.insert("namespace".into(), namespace.into());
        }
        meta.entry("uid").or_insert_with(|| uid.into());
        meta.entry("creationTimestamp").or_insert_with(|| now.into());
        meta.insert("generation".into(), json!(1));
        if let Some(root) = object.as_object_mut() {
            root.insert("apiVersion".into(), kind.api_version().into());
            root.insert("kind".into(), json!(kind.kind));
            if plural.resource == "namespaces" && plural.group.is_empty() {
                root.insert("spec".into(), json!({ "finalizers": ["kubernetes"] }));
                root.insert("status".into(), json!({ "phase": "Active" }));
            }
        }
        Ok(self.commit(plural, key, "ADDED", object))
    }

    /// Stores `new` over the live object: `status` only through its subresource and nothing but it there.
    pub(crate) fn update(
        &mut self,
        plural: &GroupResource,
        key: &ObjectKey,
        subresource: &str,
        mut new: Value,
    ) -> Result<Arc<Value>, Status> {
        let live = self.get(plural, key)?;
        check_precondition(plural, key, &live, "uid", text(&new, "/metadata/uid"))?;
        check_precondition(plural, key, &live, "resourceVersion", text(&new, "/metadata/resourceVersion"))?;
        let mut next = (*live).clone();
        match subresource {
            "status" => set_or_remove(&mut next, "status", new.get("status").cloned()),
            "finalize" => {
                let finalizers = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
                next["spec"]["finalizers"] = finalizers;
            }
            _ => {
                set_or_remove(&mut new, "status", live.get("status").cloned());
                for fixed in [
                    "uid",
                    "creationTimestamp",
                    "generation",
                    "deletionTimestamp",
                    "deletionGracePeriodSeconds",
                ] {
                    match live.pointer(&format!("/metadata/{fixed}")) {
                        Some(value) => metadata(&mut new).insert(fixed.into(), value.clone()),
                        None => metadata(&mut new).remove(fixed),
                    };
                }
                next = new;
                if desired(&next) != desired(&live) {
                    let generation =
                        live.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
                    metadata(&mut next).insert("generation".into(), json!(generation + 1));
                }
            }
        }
        metadata(&mut next).insert("resourceVersion".into(), live["metadata"]["resourceVersion"].clone());
        if next == *live {
            return Ok(live);
        }
        if is_finished(&next) {
            return Ok(self.remove(plural, key.clone(), next));
        }
        Ok(self.commit(plural, key.clone(), "MODIFIED", next))
    }

    /// JSON merge patch.
    pub(crate) fn merge(
        &mut self,
        plural: &GroupResource,
        key: &ObjectKey,
        subresource: &str,
        patch: &Value,
    ) -> Result<Arc<Value>, Status> {
        let mut next = (*self.get(plural, key)?).clone();
        json_patch::merge(&mut next, patch);
        self.update(plural, key, subresource, next)
    }

    /// Server-side apply, simplified as the module header of `testkit` says.
    pub(crate) fn apply(
        &mut self,
        plural: &GroupResource,
        key: &ObjectKey,
        subresource: &str,
        manager: &str,
        body: &Value,
    ) -> Result<Arc<Value>, Status> {
        let slot = (plural.clone(), key.clone(), format!("{manager}/{subresource}"));
        let answer = if self.get(plural, key).is_ok() {
            let mut patch = body.clone();
            if let Some(before) = self.applied.get(&slot) {
                null_removed(before, body, &mut patch);
            }
            self.merge(plural, key, subresource, &patch)?
        } else {
            self.create(plural, &key.namespace, body.clone())?
        };
        self.applied.insert(slot, body.clone());
        Ok(answer)
    }

    /// The object where it stays (finalizers, grace), `None` where it is gone.
    pub(crate) fn delete(
        &mut self,
        plural: &GroupResource,
        key: &ObjectKey,
        options: &DeleteOptions,
    ) -> Result<Option<Arc<Value>>, Status> {
        let live = self.get(plural, key)?;
        check_precondition(plural, key, &live, "uid", options.uid.as_deref())?;
        check_precondition(plural, key, &live, "resourceVersion", options.resource_version.as_deref())?;
        let mut next = (*live).clone();
        match options.propagation.as_deref() {
            Some("Foreground") => add_finalizer(&mut next, "foregroundDeletion"),
            Some("Orphan") => add_finalizer(&mut next, "orphan"),
            _ => {}
        }
        let namespace = plural.resource == "namespaces" && plural.group.is_empty();
        let running =
            plural.resource == "pods" && text(&live, "/spec/nodeName").is_some_and(|n| !n.is_empty());
        let grace = if running { options.grace.unwrap_or(30) } else { 0 };
        let first = live.pointer("/metadata/deletionTimestamp").is_none();
        if first {
            let now = format_second(self.clock.now());
            metadata(&mut next).insert("deletionTimestamp".into(), now.into());
        }
        metadata(&mut next).insert("deletionGracePeriodSeconds".into(), json!(grace));
        if namespace {
            next["status"]["phase"] = json!("Terminating");
        }
        if grace == 0 && is_finished(&next) {
            self.remove(plural, key.clone(), next);
            return Ok(None);
        }
        if first || grace == 0 && next != *live {
            return Ok(Some(self.commit(plural, key.clone(), "MODIFIED", next)));
        }
        Ok(Some(live))
    }

    fn commit(
        &mut self,
        plural: &GroupResource,
        key: ObjectKey,
        verb: &'static str,
        mut object: Value,
    ) -> Arc<Value> {
        self.revision += 1;
        metadata(&mut object).insert("resourceVersion".into(), self.revision.to_string().into());
        let object = Arc::new(object);
        self.objects.insert((plural.clone(), key), Arc::clone(&object));
        self.log(plural, verb, &object);
        object
    }

    fn remove(&mut self, plural: &GroupResource, key: ObjectKey, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        metadata(&mut object).insert("resourceVersion".into(), self.revision.to_string().into());
        self.applied.retain(|(kind, applied, _), _| kind != plural || *applied != key);
        self.objects.remove(&(plural.clone(), key));
        let object = Arc::new(object);
        self.log(plural, "DELETED", &object);
        object
    }

    fn log(&mut self, plural: &GroupResource, verb: &'static str, object: &Arc<Value>) {
        let object = Arc::clone(object);
        self.log.push(Logged { revision: self.revision, plural: plural.clone(), verb, object });
    }
}

fn check_precondition(
    plural: &GroupResource,
    key: &ObjectKey,
    live: &Value,
    field: &str,
    wanted: Option<&str>,
) -> Result<(), Status> {
    let is = text(live, &format!("/metadata/{field}")).unwrap_or_default();
    match wanted {
        Some(wanted) if !wanted.is_empty() && wanted != is => {
            Err(Status::conflict(plural, &key.name, &format!("{field} is {is}, not {wanted}")))
        }
        _ => Ok(()),
    }
}

/// Puts a null into `patch` for every field of `before` that `now` no longer has.
fn null_removed(before: &Value, now: &Value, patch: &mut Value) {
    let (Value::Object(before), Value::Object(now), Value::Object(patch)) = (before, now, patch) else {
        return;
    };
    for (field, old) in before {
        match (now.get(field), patch.get_mut(field)) {
            (Some(new), Some(inner)) => null_removed(old, new, inner),
            _ => {
                patch.insert(field.clone(), Value::Null);
            }
        }
    }
}

/// What a generation counts: everything but metadata and status.
fn desired(object: &Value) -> Map<String, Value> {
    let mut fields = object.as_object().cloned().unwrap_or_default();
    fields.remove("metadata");
    fields.remove("status");
    fields
}

/// Being deleted, with no finalizer left.
fn is_finished(object: &Value) -> bool {
    let empty = |path| object.pointer(path).and_then(Value::as_array).is_none_or(Vec::is_empty);
    let namespace = text(object, "/kind") == Some("Namespace");
    object.pointer("/metadata/deletionTimestamp").is_some()
        && object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
        && empty("/metadata/finalizers")
        && (!namespace || empty("/spec/finalizers"))
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    let list = metadata(object).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut()
        && !list.iter().any(|present| present == finalizer)
    {
        list.push(finalizer.into());
    }
}

fn set_or_remove(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(root) = object.as_object_mut() {
        match value {
            Some(value) => root.insert(field.to_owned(), value),
            None => root.remove(field),
        };
    }
}

pub(crate) fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str)
}

#[allow(clippy::expect_used, reason = "test kit: a body that is not an object is a bug of the test")]
fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    let root = object.as_object_mut().expect("an object");
    let metadata = root.entry("metadata").or_insert_with(|| json!({}));
    metadata.as_object_mut().expect("metadata is a map")
}
