//! What the programs check when they start that no type says. Each rule is the programs' own.

use std::path::Path;

use serde_json::{Map, Value};

use super::check::{Faults, integer, seconds};

type Object = Map<String, Value>;

/// Components that an instance name may not contain (`digest.NewInstanceName`).
const RESERVED: &[&str] =
    &["blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs"];

/// Blocks that LocalBlobAccess can tell apart, of all kinds together.
const BLOCKS_MAX: i128 = 100;

pub(super) fn check(name: &str, map: &Object, faults: &mut Faults) {
    match name {
        "reapi.Platform" => platform(map, faults),
        "bb_scheduler.PredeclaredPlatformQueueConfiguration" => predeclared(map, faults),
        "bb_scheduler.ApplicationConfiguration" => scheduler(map, faults),
        "bb_storage.ApplicationConfiguration" => storage(map, faults),
        "bb_worker.NativeBuildDirectoryConfiguration" => native(map, faults),
        "bb_worker.RunnerConfiguration" => instance_name(map, "instanceNamePrefix", faults),
        "bb_runner.ApplicationConfiguration" => absolute(map, "buildDirectoryPath", faults),
        "blobstore.LocalBlobAccessConfiguration" => local(map, faults),
        "blobstore.WithLabelsBlobAccessConfiguration" => labels(map, faults),
        "grpc.ServerConfiguration" => listens(map, faults),
        "scheduler.InitialSizeClassAnalyzerConfiguration" => timeouts(map, faults),
        _ => {}
    }
}

fn text<'a>(map: &'a Object, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(map: &Object, key: &str) -> i128 {
    map.get(key).and_then(integer).unwrap_or(0)
}

/// `platform.NewKey`: the order is part of a platform's identity.
fn platform(map: &Object, faults: &mut Faults) {
    let pairs: Vec<(&str, &str)> = map
        .get("properties")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .map(|property| (text(property, "name"), text(property, "value")))
        .collect();
    for (before, after) in pairs.iter().zip(pairs.iter().skip(1)) {
        if before >= after {
            faults.at("properties", |faults| {
                faults.add(format!(
                    "must be sorted by name and value, without duplicates: {}={} stands before {}={}",
                    before.0, before.1, after.0, after.1
                ));
            });
        }
    }
}

fn predeclared(map: &Object, faults: &mut Faults) {
    instance_name(map, "instanceNamePrefix", faults);
    let classes: Vec<i128> =
        map.get("sizeClasses").and_then(Value::as_array).into_iter().flatten().filter_map(integer).collect();
    faults.at("sizeClasses", |faults| {
        if classes.iter().zip(classes.iter().skip(1)).any(|(before, after)| before >= after) {
            faults.add("must be strictly ascending");
        }
        if classes.len() > 1 && classes.contains(&0) {
            faults.add("must all be greater than 0 when there are several");
        }
    });
}

fn instance_name(map: &Object, key: &str, faults: &mut Faults) {
    if let Some(why) = bad_instance_name(text(map, key)) {
        faults.at(key, |faults| faults.add(why));
    }
}

/// Why a text is no instance name (`digest.NewInstanceName`).
pub(crate) fn bad_instance_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    for part in name.split('/') {
        if part.is_empty() {
            return Some("must have no leading, trailing or double slash".to_owned());
        }
        if RESERVED.contains(&part) {
            return Some(format!("must not contain the component {part:?}, which the protocol uses itself"));
        }
    }
    None
}

fn scheduler(map: &Object, faults: &mut Faults) {
    let queues = map.get("predeclaredPlatformQueues").and_then(Value::as_array);
    let mut seen: Vec<String> = Vec::new();
    for queue in queues.into_iter().flatten().filter_map(Value::as_object) {
        let platform = queue.get("platform").map(Value::to_string).unwrap_or_default();
        let name = format!("{}|{platform}", text(queue, "instanceNamePrefix"));
        if seen.contains(&name) {
            faults.at("predeclaredPlatformQueues", |faults| {
                faults.add("two queues have the same instance name prefix and platform");
            });
        }
        seen.push(name);
    }
    let feedback = map.get("actionRouter").is_some_and(|router| has_key(router, "feedbackDriven"));
    if feedback && !map.contains_key("initialSizeClassCache") {
        faults.at("initialSizeClassCache", |faults| faults.add("must be set when feedbackDriven is"));
    }
}

fn has_key(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, inner)| key == wanted || has_key(inner, wanted)),
        Value::Array(list) => list.iter().any(|inner| has_key(inner, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// More than one new block lets blobs be written out of order, which only the CAS allows.
fn storage(map: &Object, faults: &mut Faults) {
    let schedulers = map.get("schedulers").and_then(Value::as_object);
    if schedulers.is_some_and(|schedulers| !schedulers.is_empty()) && !map.contains_key("executeAuthorizer") {
        faults.at("executeAuthorizer", |faults| faults.add("must be set when schedulers are"));
    }
    for store in ["actionCache", "initialSizeClassCache", "fileSystemAccessCache"] {
        let Some(backend) = map.get(store).and_then(|store| store.get("backend")) else { continue };
        faults.at(store, |faults| mutable_store(backend, faults));
    }
    if map.contains_key("actionCache") && !map.contains_key("contentAddressableStorage") {
        let complete = map.get("actionCache").is_some_and(|store| has_key(store, "completenessChecking"));
        if complete {
            faults.at("contentAddressableStorage", |faults| {
                faults.add("must be set when actionCache uses completenessChecking");
            });
        }
    }
}

fn mutable_store(value: &Value, faults: &mut Faults) {
    let Some(map) = value.as_object() else { return };
    if let Some(local) = map.get("local").and_then(Value::as_object) {
        faults.at("local", |faults| {
            if number(local, "newBlocks") != 1 {
                faults.at("newBlocks", |faults| faults.add("must be 1 for all stores but the CAS"));
            }
            if local.get("hierarchicalInstanceNames").and_then(Value::as_bool) == Some(true) {
                faults.at("hierarchicalInstanceNames", |faults| faults.add("is for the CAS only"));
            }
        });
    }
    // A replicator's `local` is no store.
    for (key, inner) in map.iter().filter(|(key, _)| !key.starts_with("replicator")) {
        match inner {
            Value::Object(_) => mutable_store(inner, faults),
            Value::Array(list) => list.iter().for_each(|inner| mutable_store(inner, faults)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        if key == "existenceCaching" || key == "hierarchicalInstanceNames" && inner.is_object() {
            faults.at(key, |faults| faults.add("is for the CAS only"));
        }
    }
}

fn absolute(map: &Object, key: &str, faults: &mut Faults) {
    if !Path::new(text(map, key)).is_absolute() {
        faults.at(key, |faults| faults.add("must be an absolute path"));
    }
}

fn native(map: &Object, faults: &mut Faults) {
    absolute(map, "buildDirectoryPath", faults);
    absolute(map, "cacheDirectoryPath", faults);
}

fn local(map: &Object, faults: &mut Faults) {
    let on_device = map.get("blocksOnBlockDevice").and_then(Value::as_object);
    let spare = on_device.map_or(0, |device| number(device, "spareBlocks"));
    let counts = ["oldBlocks", "currentBlocks", "newBlocks"].map(|key| number(map, key));
    let total: i128 = counts.iter().sum::<i128>() + spare;
    if counts.iter().any(|count| *count < 0) || spare < 0 {
        faults.add("numbers of blocks must not be negative");
    }
    if total > BLOCKS_MAX {
        faults
            .add(format!("old, current, new and spare blocks are {total}, at most {BLOCKS_MAX} are allowed"));
    }
    let devices = map.contains_key("keyLocationMapOnBlockDevice") && on_device.is_some();
    if map.contains_key("persistent") && !devices {
        faults.at("persistent", |faults| {
            faults.add("needs keyLocationMapOnBlockDevice and blocksOnBlockDevice");
        });
    }
    let size =
        on_device.and_then(|device| device.get("source")?.get("file")?.get("sizeBytes")).and_then(integer);
    if let Some(size) = size
        && total > 0
        && size / total < 4096
    {
        faults.at("blocksOnBlockDevice", |faults| {
            faults.add(format!("{size} bytes are too few for {total} blocks of at least 4096"));
        });
    }
}

/// Every label that is used has to be declared around it.
fn labels(map: &Object, faults: &mut Faults) {
    let declared = map.get("labels").and_then(Value::as_object);
    let known = |label: &str| declared.is_some_and(|declared| declared.contains_key(label));
    let mut used = Vec::new();
    map.get("backend").into_iter().for_each(|backend| collect_labels(backend, &mut used));
    for label in used {
        if !known(&label) {
            faults.at("backend", |faults| faults.add(format!("label {label:?} is not declared in labels")));
        }
    }
}

fn collect_labels(value: &Value, used: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::String(label) if key == "label" => used.push(label.clone()),
                    Value::Object(nested) if key == "withLabels" => {
                        // Its own labels are checked at its own level.
                        let _: &Object = nested;
                    }
                    other => collect_labels(other, used),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| collect_labels(inner, used)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn listens(map: &Object, faults: &mut Faults) {
    let some = |key: &str| map.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !some("listenAddresses") && !some("listenPaths") {
        faults.add("one of listenAddresses, listenPaths must be set");
    }
}

fn timeouts(map: &Object, faults: &mut Faults) {
    let of = |key: &str| seconds(text(map, key));
    if let (Some(default), Some(maximum)) = (of("defaultExecutionTimeout"), of("maximumExecutionTimeout"))
        && default > maximum
    {
        faults.at("defaultExecutionTimeout", |faults| {
            faults.add("must not be greater than maximumExecutionTimeout");
        });
    }
}
