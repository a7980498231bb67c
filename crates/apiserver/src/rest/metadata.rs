//! What the engine does with `metadata`, the same for every kind.

use meta::{FieldError, Object, ObjectKey, Status, Value, format_second};
use resource::{Resource, Scope};

use super::Rest;

/// Characters added to `generateName`, as upstream.
const SUFFIX_LENGTH: usize = 5;
/// What remains of `generateName` so that the name stays below 64 characters, as upstream.
const GENERATE_BASE_MAX: usize = 58;

/// Metadata that only the server sets: taken from the stored object on every update.
const SYSTEM: &[&str] = &[
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// The body's namespace must be the path's; cluster-scoped kinds have none.
pub(super) fn settle_namespace(
    resource: &Resource,
    key: &ObjectKey,
    object: &mut Object,
) -> Result<(), Status> {
    match resource.scope {
        Scope::Cluster => {
            object.remove(&["metadata", "namespace"]);
        }
        Scope::Namespaced => {
            if key.namespace.is_empty() {
                return Err(Status::bad_request("an empty namespace may not be set during creation"));
            }
            let given = object.namespace();
            if !given.is_empty() && given != key.namespace {
                return Err(Status::bad_request(format!(
                    "the namespace of the provided object does not match the namespace sent on the request: \
                     {given:?} is not {:?}",
                    key.namespace
                )));
            }
            object.set(&["metadata", "namespace"], key.namespace.as_str());
        }
    }
    Ok(())
}

/// The body's name must be the path's; an absent one is taken from it.
pub(super) fn settle_name(key: &ObjectKey, object: &mut Object) -> Result<(), Status> {
    let given = object.name();
    if !given.is_empty() && given != key.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({})",
            key.name
        )));
    }
    object.set(&["metadata", "name"], key.name.as_str());
    Ok(())
}

impl Rest {
    /// Sets what a new object gets from the server, except its name.
    pub(super) fn begin(&self, resource: &Resource, object: &mut Object) {
        let now = format_second(self.clock.now());
        let metadata = object.map_at(&["metadata"]);
        for field in SYSTEM.iter().chain(&["resourceVersion"]) {
            metadata.remove(*field);
        }
        metadata.insert("uid".to_owned(), self.random.uuid().into());
        metadata.insert("creationTimestamp".to_owned(), now.into());
        if resource.strategy.has_generation() {
            metadata.insert("generation".to_owned(), 1.into());
        }
    }

    /// Gives a new object with `generateName` its name. Runs after mutating admission, as upstream.
    pub(super) fn generate_name(&self, object: &mut Object) {
        if !object.name().is_empty() {
            return;
        }
        let Some(base) = object.str(&["metadata", "generateName"]).filter(|base| !base.is_empty()) else {
            return;
        };
        let kept: String = base.chars().take(GENERATE_BASE_MAX).collect();
        object.set(&["metadata", "name"], format!("{kept}{}", self.random.suffix(SUFFIX_LENGTH)));
    }
}

/// Takes over from `old` what only the server sets.
pub(super) fn keep_system_fields(old: &Object, new: &mut Object) {
    let metadata = new.map_at(&["metadata"]);
    for field in SYSTEM {
        match old.get(&["metadata", field]) {
            Some(value) => metadata.insert((*field).to_owned(), value.clone()),
            None => metadata.remove(*field),
        };
    }
    metadata.remove("resourceVersion");
    // A client that knows nothing of managed fields does not reset them by leaving them out.
    if metadata.get("managedFields").is_none_or(Value::is_null) {
        match old.get(&["metadata", "managedFields"]) {
            Some(value) => metadata.insert("managedFields".to_owned(), value.clone()),
            None => metadata.remove("managedFields"),
        };
    }
}

/// +1 when something outside metadata and status differs.
pub(super) fn bump_generation(resource: &Resource, old: &Object, new: &mut Object) {
    if !resource.strategy.has_generation() {
        return;
    }
    let ignored =
        |key: &str| key == "metadata" || key == "apiVersion" || (key == "status" && resource.has_status());
    let differs = old.0.iter().any(|(key, value)| !ignored(key) && new.0.get(key) != Some(value))
        || new.0.keys().any(|key| !ignored(key) && !old.0.contains_key(key));
    if differs {
        let generation = old.int(&["metadata", "generation"]).unwrap_or(0).saturating_add(1);
        new.set(&["metadata", "generation"], generation);
    }
}

/// Checks metadata as upstream's `ValidateObjectMeta` and `ValidateObjectMetaUpdate`.
pub(super) fn validate(
    resource: &Resource,
    new: &Object,
    old: Option<&Object>,
    errors: &mut Vec<FieldError>,
) {
    let name = new.name();
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if old.is_none() {
        let checked = match name {
            "." | ".." => Err(format!("may not be '{name}'")),
            _ if name.contains('/') => Err("may not contain '/'".to_owned()),
            _ if name.contains('%') => Err("may not contain '%'".to_owned()),
            _ => resource.strategy.validate_name(name),
        };
        if let Err(why) = checked {
            errors.push(FieldError::invalid("metadata.name", &name.into(), why));
        }
    }
    if resource.scope == Scope::Namespaced && old.is_none() {
        let wrong = meta::names::dns1123_label(new.namespace());
        invalid(errors, "metadata.namespace", &new.namespace().into(), wrong);
    }
    labels(new, errors);
    annotations(new, errors);
    owners(new, errors);
    finalizers(new, old, errors);
}

fn invalid(errors: &mut Vec<FieldError>, field: &str, value: &Value, wrong: Vec<String>) {
    errors.extend(wrong.into_iter().map(|why| FieldError::invalid(field, value, why)));
}

fn labels(new: &Object, errors: &mut Vec<FieldError>) {
    let Some(labels) = new.get(&["metadata", "labels"]).and_then(Value::as_object) else { return };
    for (key, value) in labels {
        invalid(errors, "metadata.labels", &key.as_str().into(), meta::names::qualified_name(key));
        match value.as_str() {
            Some(text) => invalid(errors, "metadata.labels", value, meta::names::label_value(text)),
            None => errors.push(FieldError::invalid("metadata.labels", value, "must be a string")),
        }
    }
}

/// All annotations of an object together, as upstream (`TotalAnnotationSizeLimitB`).
const ANNOTATION_BYTES_MAX: usize = 256 << 10;

fn annotations(new: &Object, errors: &mut Vec<FieldError>) {
    let Some(annotations) = new.get(&["metadata", "annotations"]).and_then(Value::as_object) else { return };
    let mut total = 0;
    for (key, value) in annotations {
        let wrong = meta::names::qualified_name(&key.to_lowercase());
        invalid(errors, "metadata.annotations", &key.as_str().into(), wrong);
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATION_BYTES_MAX {
        errors.push(FieldError {
            kind: meta::FieldErrorKind::TooLong,
            field: "metadata.annotations".to_owned(),
            value: None,
            detail: format!("may not be more than {ANNOTATION_BYTES_MAX} bytes"),
        });
    }
}

fn owners(new: &Object, errors: &mut Vec<FieldError>) {
    let mut controllers: Vec<&str> = Vec::new();
    for (at, owner) in new.list(&["metadata", "ownerReferences"]).iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                let path = format!("metadata.ownerReferences[{at}].{field}");
                errors.push(FieldError::invalid(path, &"".into(), "must not be empty"));
            }
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            controllers.push(owner.get("name").and_then(Value::as_str).unwrap_or_default());
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        let value = new.get(&["metadata", "ownerReferences"]).cloned().unwrap_or_default();
        errors.push(FieldError::invalid("metadata.ownerReferences", &value, detail));
    }
}

fn finalizers(new: &Object, old: Option<&Object>, errors: &mut Vec<FieldError>) {
    let list = new.list(&["metadata", "finalizers"]);
    for finalizer in list {
        match finalizer.as_str().map(meta::names::qualified_name) {
            Some(wrong) => invalid(errors, "metadata.finalizers", finalizer, wrong),
            None => errors.push(FieldError::invalid("metadata.finalizers", finalizer, "must be a string")),
        }
    }
    let Some(old) = old.filter(|old| old.is_deleting()) else { return };
    let before = old.list(&["metadata", "finalizers"]);
    let added: Vec<_> =
        list.iter().filter(|finalizer| !before.contains(finalizer)).map(Value::to_string).collect();
    if !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers [{}]",
            added.join(" ")
        );
        errors.push(FieldError::forbidden("metadata.finalizers", detail));
    }
}
