//! Server-side apply (upstream `structured-merge-diff/merge/update.go` and the managers around it).

use meta::{Cause, Details, GroupResource, Object, Reason, Status, Value, format_second};
use serde_json::Map;

use super::{
    Request,
    entries::{self, Entry, Operation},
    fieldset::FieldSet,
    merge::{check, merge, remove, with_named_parents},
    own, update,
};
use crate::{Schema, path::Path};

/// Who owns the fields of an object that nobody managed before it was first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// kubectl's client-side apply keeps its last configuration here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Bytes that all annotations of an object may have together (upstream `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// What [`apply`] made.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The new object, `managedFields` included.
    pub object: Object,
    /// False when nothing changed, managed fields included: the write can be skipped.
    pub changed: bool,
}

/// One field that another manager owns and the applied configuration would change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The owner's name.
    pub manager: String,
    /// The owner's subresource; empty for the object itself.
    pub subresource: String,
    /// The version an updating owner wrote in; empty when the owner applies.
    pub api_version: String,
    /// Field in upstream's form, with a leading dot: `.spec.replicas`.
    pub field: String,
}

/// Why [`apply`] refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Fields owned by others (409, one `FieldManagerConflict` cause each).
    #[error("{}", summary(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied configuration may not say this (400).
    #[error("{0}")]
    Invalid(String),
    /// The applied configuration does not fit the schema, or the stored `managedFields` cannot be read
    /// (upstream answers 500 to both).
    #[error("{0}")]
    Untyped(String),
}

impl Conflict {
    /// The owner as upstream prints it: `"kubectl-client-side-apply" using apps/v1`.
    pub fn owner(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.api_version.is_empty() {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

impl ApplyError {
    /// The answer to the client.
    pub fn status(&self, resource: &GroupResource, name: &str) -> Status {
        match self {
            Self::Invalid(why) => Status::bad_request(why),
            Self::Untyped(why) => Status { reason: None, ..Status::new(500, Reason::InternalError, why) },
            Self::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|conflict| Cause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: format!("conflict with {}", conflict.owner()),
                    field: conflict.field.clone(),
                });
                let mut status = Status::new(409, Reason::Conflict, self.to_string());
                status.details = Some(Box::new(Details { causes: causes.collect(), ..Details::default() }));
                status.about(resource, name)
            }
        }
    }
}

fn summary(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.owner(), one.field);
    }
    let mut lines = Vec::new();
    let mut owner = String::new();
    for conflict in conflicts {
        let next = conflict.owner();
        if next != owner {
            lines.push(format!("conflicts with {next}:"));
            owner = next;
        }
        lines.push(format!("- {}", conflict.field));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Merges `applied` into `live` on behalf of a field manager and records who owns what. `live` is absent
/// when the object does not exist yet. What the manager applied before and does not any more goes, unless
/// someone else owns it. Without `force`, changing a field that someone else owns is a conflict.
///
/// The manager `kubectl` may take over what `kubectl apply` (client side) set before, and keeps that
/// command's annotation in step, as upstream.
pub fn apply(
    schema: &Schema,
    live: Option<&Object>,
    applied: &Object,
    request: &Request<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let config = prepare(schema, applied, request)?;
    let mut managers = entries::read(live.and_then(|live| live.get(&["metadata", "managedFields"])))
        .map_err(|why| ApplyError::Untyped(format!("failed to decode managed fields: {why}")))?;
    let nothing = Object::default();
    let mut base = live.unwrap_or(&nothing).clone();
    base.remove(&["metadata", "managedFields"]);
    if managers.is_empty() && live.is_some() {
        let first = Request { manager: BEFORE_FIRST_APPLY, subresource: "", ..*request };
        let all = own::compare(schema.set(), schema.root(), &Map::new(), &base.0, request.reset);
        update::record(&mut managers, &all, &first);
    }
    let attempt = Attempt { schema, request, base: &base, config: &config, managers };
    let (object, managers) = match attempt.run(force) {
        Err(ApplyError::Conflicts(conflicts)) if request.manager == "kubectl" => {
            let allowed = allowed_by_last_applied(schema, &base, request);
            let left: Vec<Conflict> = match &allowed {
                Some(allowed) => conflicts.into_iter().filter(|c| !allowed.contains(&c.field)).collect(),
                None => conflicts,
            };
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(left));
            }
            attempt.run(true)?
        }
        result => result?,
    };
    finish(live, object, managers, applied, request)
}

/// The configuration without what it cannot set.
fn prepare(schema: &Schema, applied: &Object, request: &Request<'_>) -> Result<Object, ApplyError> {
    if applied.api_version() != request.api_version {
        return Err(ApplyError::Invalid(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
            applied.api_version(),
            request.api_version
        )));
    }
    if applied.get(&["metadata", "managedFields"]).is_some_and(|managed| !managed.is_null()) {
        return Err(ApplyError::Invalid("metadata.managedFields must be nil".to_owned()));
    }
    let mut config = applied.clone();
    config.0.retain(|name, _| !request.reset.contains(&name.as_str()));
    if let Some(Value::Object(metadata)) = config.get_mut(&["metadata"]) {
        // `creationTimestamp: null`, as generated manifests have it, means nothing.
        metadata.retain(|_, value| !value.is_null());
    }
    let mut errors = Vec::new();
    let value = Value::Object(config.0);
    check(schema.set(), schema.root(), &value, &Path::Root, &mut errors);
    let Value::Object(map) = value else { return Ok(Object::default()) };
    let config = Object(map);
    if errors.is_empty() {
        return Ok(config);
    }
    errors.truncate(20);
    let list =
        if errors.len() == 1 { errors.concat() } else { format!("errors:\n  {}", errors.join("\n  ")) };
    Err(ApplyError::Untyped(format!(
        "failed to create typed patch object ({}; {}, Kind={}): {list}",
        config.key(),
        config.api_version(),
        config.kind()
    )))
}

/// One try, which may be repeated with force.
struct Attempt<'a> {
    schema: &'a Schema,
    request: &'a Request<'a>,
    base: &'a Object,
    config: &'a Object,
    managers: Vec<Entry>,
}

impl Attempt<'_> {
    fn run(&self, force: bool) -> Result<(Object, Vec<Entry>), ApplyError> {
        let (set, root) = (self.schema.set(), self.schema.root());
        let Request { manager, api_version, subresource, reset, now: _ } = *self.request;
        let mut managers = self.managers.clone();
        let is_mine = |e: &Entry| e.is(Operation::Apply, manager, api_version, subresource);
        let mine = managers.iter().position(is_mine).map(|at| managers.remove(at));
        let fields = own::owned(set, root, &self.config.0, reset);
        let last = mine.as_ref().map(|entry| entry.fields.clone()).unwrap_or_default();
        let base = Value::Object(self.base.0.clone());
        let config = Value::Object(self.config.0.clone());
        let merged = merge(set, root, Some(&base), Some(&config)).unwrap_or(Value::Null);
        let everyones = managers.iter().fold(fields.clone(), |all, entry| all.union(&entry.fields));
        let pruned = prune(self.schema, merged, last, everyones);
        let object = Object::from_value(pruned).unwrap_or_default();

        let comparison = own::compare(set, root, &self.base.0, &object.0, reset);
        let taken = comparison.modified.clone().union(&comparison.added);
        let mut conflicts = Vec::new();
        for entry in &mut managers {
            let lost = entry.fields.intersection(&taken);
            conflicts.extend(lost.paths().into_iter().map(|field| Conflict {
                manager: entry.manager.clone(),
                subresource: entry.subresource.clone(),
                api_version: match entry.operation {
                    Operation::Apply => String::new(),
                    Operation::Update => entry.api_version.clone(),
                },
                field,
            }));
            entry.fields = entry.fields.difference(&lost).difference(&comparison.removed);
        }
        if !force && !conflicts.is_empty() {
            conflicts.sort();
            return Err(ApplyError::Conflicts(conflicts));
        }
        managers.push(Entry {
            operation: Operation::Apply,
            time: mine.map(|entry| entry.time).unwrap_or_default(),
            manager: manager.to_owned(),
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
            fields,
        });
        Ok((object, managers))
    }
}

/// Takes out of `merged` what is in `last` and in nobody's set any more.
fn prune(schema: &Schema, merged: Value, last: FieldSet, everyones: FieldSet) -> Value {
    if last.is_empty() {
        return merged;
    }
    let (set, root) = (schema.set(), schema.root());
    let named = |fields: FieldSet| with_named_parents(set, root, fields);
    let all = |value: &Value| named(own::all_fields(set, root, value));
    let without = |gone: &FieldSet| {
        if gone.is_empty() { merged.clone() } else { remove(set, root, &merged, gone).unwrap_or(Value::Null) }
    };
    let (last, everyones) = (named(last), named(everyones));
    let present = all(&merged);
    // Without my last configuration; then with what someone owns after all; then with what was never mine.
    let pruned = without(&last);
    let pruned = without(&present.difference(&all(&pruned).union(&everyones)));
    without(&present.difference(&all(&pruned)).intersection(&last))
}

/// Sets the time where something changed, and writes the managers into the object.
fn finish(
    live: Option<&Object>,
    mut object: Object,
    mut managers: Vec<Entry>,
    applied: &Object,
    request: &Request<'_>,
) -> Result<Applied, ApplyError> {
    if request.manager == "kubectl" && object.annotation(LAST_APPLIED).is_some_and(|text| !text.is_empty()) {
        set_last_applied(&mut object, applied)?;
    }
    let stored = live.and_then(|live| live.get(&["metadata", "managedFields"]));
    let same = live.is_some_and(|live| equal_but_managed(live, &object));
    if !same {
        let Request { manager, api_version, subresource, .. } = *request;
        let mine = managers.iter_mut().find(|e| e.is(Operation::Apply, manager, api_version, subresource));
        if let Some(mine) = mine {
            mine.time = format_second(request.now);
        }
    }
    entries::store(&mut object, managers);
    let changed = !same || object.get(&["metadata", "managedFields"]) != stored;
    Ok(Applied { object, changed })
}

fn equal_but_managed(live: &Object, new: &Object) -> bool {
    let metadata = |object: &Object| {
        let mut metadata = object.get(&["metadata"]).and_then(Value::as_object).cloned().unwrap_or_default();
        metadata.remove("managedFields");
        metadata
    };
    live.0.len() == new.0.len()
        && live.0.iter().all(|(name, value)| name == "metadata" || new.0.get(name) == Some(value))
        && metadata(live) == metadata(new)
}

/// Fields that `kubectl apply` set and nobody has changed since; `None` where it never did.
fn allowed_by_last_applied(schema: &Schema, live: &Object, request: &Request<'_>) -> Option<Vec<String>> {
    let text = live.annotation(LAST_APPLIED)?;
    let last = Object::from_value(serde_json::from_str(text).ok()?).ok()?;
    if last.api_version() != request.api_version {
        return None;
    }
    let (set, root) = (schema.set(), schema.root());
    let comparison = own::compare(set, root, &last.0, &live.0, &[]);
    let owned = own::owned(set, root, &last.0, &[]);
    let owned =
        owned.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed);
    Some(owned.paths())
}

fn set_last_applied(object: &mut Object, applied: &Object) -> Result<(), ApplyError> {
    let mut config = applied.clone();
    config.remove(&["metadata", "annotations", LAST_APPLIED]);
    let mut text = serde_json::to_string(&config.0)
        .map_err(|error| ApplyError::Untyped(format!("failed to build last-applied annotation: {error}")))?;
    text.push('\n');
    let annotations = object.map_at(&["metadata", "annotations"]);
    annotations.insert(LAST_APPLIED.to_owned(), Value::from(text));
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATIONS_MAX {
        annotations.remove(LAST_APPLIED);
    }
    Ok(())
}
