//! Volumes, claims and classes of storage.

use meta::{FieldError, Object, Status, Value, names};
use resource::{Context, Strategy};
use serde_json::{Map, json};

use crate::validate::{At, Errors, label_selector, node_selector, quantity, resource_list, storage_request};

/// Behaviour of `v1` PersistentVolumeClaim.
pub(crate) struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Object) {
        // The two data sources say the same when only one is given (KEP-1495).
        let (old, new) = (["spec", "dataSource"], ["spec", "dataSourceRef"]);
        let foreign = object.get(&["spec", "dataSourceRef", "namespace"]).is_some();
        if let (Some(value), None) = (object.get(&old).cloned(), object.get(&new)) {
            object.set(&new, value);
        } else if let (None, Some(value), false) = (object.get(&old), object.get(&new).cloned(), foreign) {
            object.set(&old, value);
        }
    }

    fn prepare(&self, _: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        if old.is_none() {
            new.set(&["status"], json!({"phase": "Pending"}));
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return resource_list(&At::root(new, "status").get("capacity"), errors);
        }
        claim_spec(&At::root(new, "spec"), errors);
        if let Some(old) = old {
            unchanged_claim(new, old, errors);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn claim_spec(spec: &At<'_>, errors: &mut Errors) {
    access_modes(spec, "at least 1 access mode is required", errors);
    label_selector(&spec.get("selector"), errors);
    storage_request(&spec.get("resources"), errors);
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.all(errors, names::dns1123_subdomain);
    }
    for source in ["dataSource", "dataSourceRef"] {
        let source = spec.get(source);
        if source.is_set() {
            for field in ["name", "kind"] {
                let field = source.get(field);
                if field.is_empty() {
                    field.required(errors, "");
                }
            }
        }
    }
}

fn access_modes(spec: &At<'_>, missing: &str, errors: &mut Errors) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.required(errors, missing);
    }
    let alone = modes.items().any(|mode| mode.text() == "ReadWriteOncePod");
    if alone && modes.len() > 1 {
        modes.forbidden(errors, "may not use ReadWriteOncePod with other access modes");
    }
}

const SIZE: [&str; 4] = ["spec", "resources", "requests", "storage"];

/// A claim binds once and then only grows.
fn unchanged_claim(new: &Object, old: &Object, errors: &mut Errors) {
    let bound = new.str(&["status", "phase"]) == Some("Bound");
    let comparable = |claim: &Object| {
        let mut spec = claim.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
        if old.str(&["spec", "volumeName"]).is_none_or(str::is_empty) {
            spec.remove("volumeName");
        }
        // A claim without a class may get one later (KEP-3333).
        if old.get(&["spec", "storageClassName"]).is_none() {
            spec.remove("storageClassName");
        }
        if bound {
            spec.remove("volumeAttributesClassName");
            if let Some(requests) = spec.get_mut("resources").and_then(|r| r.get_mut("requests")) {
                requests.as_object_mut().map(|requests| requests.remove("storage"));
            }
        }
        spec
    };
    if comparable(new) != comparable(old) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName \
                      for bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    let amount = |claim: &Object, path: &[&str]| claim.get(path).and_then(quantity).unwrap_or_default();
    let smaller = amount(new, &SIZE) < amount(old, &SIZE);
    if smaller && amount(new, &SIZE) <= amount(old, &["status", "capacity", "storage"]) {
        let detail = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
    At::root(new, "spec")
        .get("volumeMode")
        .named("volumeMode")
        .immutable(errors, &At::root(old, "spec").get("volumeMode"));
}

/// Behaviour of `v1` PersistentVolume.
pub(crate) struct PersistentVolume;

/// Fields of the spec that are not the source of the volume.
const NOT_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

impl Strategy for PersistentVolume {
    fn prepare(&self, _: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        if old.is_none() {
            new.set(&["status"], json!({"phase": "Pending"}));
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        access_modes(&spec, "", errors);
        let capacity = spec.get("capacity");
        if capacity.is_empty() {
            capacity.required(errors, "");
        } else if capacity.len() != 1 || !capacity.key("storage").is_set() {
            capacity.not_supported(errors, &["storage"]);
        }
        resource_list(&capacity, errors);
        let affinity = spec.at(&["nodeAffinity", "required"]);
        if spec.get("nodeAffinity").is_set() {
            if affinity.is_set() {
                node_selector(&affinity, errors);
            } else {
                affinity.required(errors, "must specify required node constraints");
            }
        }
        let source = sources(new);
        match source.len() {
            0 => spec.required(errors, "must specify a volume type"),
            1 => {}
            _ => source.keys().skip(1).for_each(|extra| {
                spec.get(extra).forbidden(errors, "may not specify more than 1 volume type");
            }),
        }
        if source.contains_key("local") && !spec.get("nodeAffinity").is_set() {
            errors.push(FieldError::required("metadata.annotations", "Local volume requires node affinity"));
        }
        if let Some(old) = old {
            if sources(old) != source {
                let detail = "spec.persistentvolumesource is immutable after creation";
                errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
            }
            spec.get("volumeMode")
                .named("volumeMode")
                .immutable(errors, &At::root(old, "spec").get("volumeMode"));
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn sources(volume: &Object) -> Map<String, Value> {
    let mut spec = volume.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    spec.retain(|key, value| !NOT_SOURCES.contains(&key.as_str()) && !value.is_null());
    spec
}

/// Behaviour of `storage.k8s.io/v1` StorageClass.
pub(crate) struct StorageClass;

impl Strategy for StorageClass {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let provisioner = At::root(new, "provisioner");
        provisioner.must(errors, |name| names::qualified_name(&name.to_lowercase()));
        for (key, value) in At::root(new, "parameters").entries() {
            if key.is_empty() {
                value.invalid_as(errors, &json!(key), "field can not be empty.");
            }
        }
        if let Some(old) = old {
            for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
                At::root(new, field).immutable(errors, &At::root(old, field));
            }
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// Behaviour of `storage.k8s.io/v1` CSINode.
pub(crate) struct CsiNode;

impl Strategy for CsiNode {
    fn validate(&self, _: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        for driver in At::root(new, "spec").get("drivers").items() {
            driver.get("name").must(errors, |name| names::dns1123_subdomain(&name.to_lowercase()));
            driver.get("nodeID").must(errors, |_| Vec::new());
            driver.at(&["allocatable", "count"]).not_negative(errors);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}
