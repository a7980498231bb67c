//! Storage: the default class of claims, protection of what is in use, and growth
//! (`plugin/pkg/admission/storage`).

use meta::{Object, Status, Value};
use resource::{Context, Operation};
use serde_json::json;

use super::{Plugin, find, forbidden, list};
use crate::validate::quantity;

const CLASSES: (&str, &str) = ("storage.k8s.io", "storageclasses");
/// Either marks the class that claims without one get.
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

fn class_of(claim: &Object) -> Option<&str> {
    let beta = claim.annotation("volume.beta.kubernetes.io/storage-class");
    beta.or_else(|| claim.str(&["spec", "storageClassName"]))
}

/// The newest of what is marked default with one of these annotations; by name among equals.
pub(super) fn newest_default(candidates: Vec<Object>, marks: &[&str]) -> Option<Object> {
    let marked = |object: &Object| marks.iter().any(|mark| object.annotation(mark) == Some("true"));
    let age = |object: &Object| object.str(&["metadata", "creationTimestamp"]).unwrap_or_default().to_owned();
    let marked = candidates.into_iter().filter(marked);
    marked.min_by(|a, b| age(b).cmp(&age(a)).then_with(|| a.name().cmp(b.name())))
}

pub(super) struct DefaultStorageClass;

impl Plugin for DefaultStorageClass {
    const NAME: &'static str = "DefaultStorageClass";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        resource == "persistentvolumeclaims" && operation == Operation::Create && subresource.is_empty()
    }

    fn mutate(&self, cx: &Context<'_>, claim: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        if class_of(claim).is_none() {
            let classes = list(cx, CLASSES.0, CLASSES.1, None)?;
            if let Some(class) = newest_default(classes, &DEFAULT) {
                claim.set(&["spec", "storageClassName"], class.name());
            }
        }
        Ok(())
    }
}

pub(super) struct ObjectInUseProtection;

impl Plugin for ObjectInUseProtection {
    const NAME: &'static str = "StorageObjectInUseProtection";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        matches!(resource, "persistentvolumeclaims" | "persistentvolumes")
            && operation == Operation::Create
            && subresource.is_empty()
    }

    fn mutate(&self, cx: &Context<'_>, object: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        let volume = cx.attributes.resource.resource == "persistentvolumes";
        let protection = if volume { "kubernetes.io/pv-protection" } else { "kubernetes.io/pvc-protection" };
        let mut finalizers = object.list(&["metadata", "finalizers"]).to_vec();
        if !finalizers.contains(&json!(protection)) {
            finalizers.push(json!(protection));
            object.set(&["metadata", "finalizers"], finalizers);
        }
        Ok(())
    }
}

pub(super) struct ClaimResize;

impl Plugin for ClaimResize {
    const NAME: &'static str = "PersistentVolumeClaimResize";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        resource == "persistentvolumeclaims" && operation == Operation::Update && subresource.is_empty()
    }

    fn validate(&self, cx: &Context<'_>, claim: &Object, old: Option<&Object>) -> Result<(), Status> {
        let Some(old) = old else { return Ok(()) };
        let size = |claim: &Object| {
            let asked = claim.get(&["spec", "resources", "requests", "storage"]);
            asked.and_then(|value: &Value| quantity(value)).unwrap_or_default()
        };
        if size(claim) <= size(old) {
            return Ok(());
        }
        if old.str(&["status", "phase"]) != Some("Bound") {
            return Err(forbidden(cx, claim.name(), "Only bound persistent volume claims can be expanded"));
        }
        let class = class_of(claim).filter(|class| !class.is_empty() && class_of(old) == Some(*class));
        let class = class.map(|class| find(cx, CLASSES.0, CLASSES.1, "", class)).transpose()?.flatten();
        if class.is_some_and(|class| class.bool(&["allowVolumeExpansion"]) == Some(true)) {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the \
                   pvc must support resize";
        Err(forbidden(cx, claim.name(), why))
    }
}
