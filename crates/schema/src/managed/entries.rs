//! `metadata.managedFields` read into field sets and written back (upstream
//! `apimachinery/pkg/util/managedfields/internal/managedfields.go`, `capmanagers.go`).

use meta::Object;
use serde_json::{Map, Value, json};

use super::fieldset::FieldSet;

/// Update managers an object may have before the oldest are merged into one.
const UPDATERS_MAX: usize = 10;

/// Where the oldest updates end up.
const OLDEST: &str = "ancient-changes";

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// One element of `managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) operation: Operation,
    /// As on the wire; empty when unknown.
    pub(crate) time: String,
    pub(crate) manager: String,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    pub(crate) fields: FieldSet,
}

impl Entry {
    /// Whether both are the same manager: appliers whatever version they use, updaters by version.
    pub(crate) fn is(
        &self,
        operation: Operation,
        manager: &str,
        api_version: &str,
        subresource: &str,
    ) -> bool {
        self.operation == operation
            && self.manager == manager
            && self.subresource == subresource
            && (operation == Operation::Apply || self.api_version == api_version)
    }

    fn read(value: &Value) -> Result<Self, String> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType").as_str() {
            "FieldsV1" => {}
            "" => return Err("missing fieldsType in managed fields entry".to_owned()),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry")),
        }
        let fields = match value.get("fieldsV1") {
            None | Some(Value::Null) => FieldSet::default(),
            Some(fields) => FieldSet::from_value(fields).map_err(|error| error.to_string())?,
        };
        Ok(Self {
            operation,
            time: text("time"),
            manager: text("manager"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            fields,
        })
    }
}

/// One entry as JSON, its fields already in FieldsV1.
pub(crate) fn write(
    operation: Operation,
    [manager, api_version, subresource, time]: [&str; 4],
    fields: Value,
) -> Value {
    let mut map = Map::new();
    map.insert("apiVersion".to_owned(), Value::from(api_version));
    map.insert("fieldsType".to_owned(), Value::from("FieldsV1"));
    map.insert("fieldsV1".to_owned(), fields);
    map.insert("manager".to_owned(), Value::from(manager));
    let operation = match operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    map.insert("operation".to_owned(), Value::from(operation));
    for (name, value) in [("subresource", subresource), ("time", time)] {
        if !value.is_empty() {
            map.insert(name.to_owned(), Value::from(value));
        }
    }
    Value::Object(map)
}

/// Reads all entries; of two for the same manager the later counts.
pub(crate) fn read(managed: Option<&Value>) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    for value in managed.and_then(Value::as_array).into_iter().flatten() {
        let entry = Entry::read(value)?;
        entries.retain(|e| !e.is(entry.operation, &entry.manager, &entry.api_version, &entry.subresource));
        entries.push(entry);
    }
    Ok(entries)
}

/// Sorts, drops empty entries, and puts the rest into the object; no entries means no `managedFields`.
pub(crate) fn store(object: &mut Object, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    if entries.is_empty() {
        object.remove(&["metadata", "managedFields"]);
        return;
    }
    entries.sort_by(|a, b| {
        let key = |e: &'_ Entry| (e.operation, e.time.clone(), e.manager.clone(), e.api_version.clone());
        key(a).cmp(&key(b)).then_with(|| a.subresource.cmp(&b.subresource))
    });
    let values = entries.iter().map(|entry| {
        let names = [&*entry.manager, &*entry.api_version, &*entry.subresource, &*entry.time];
        write(entry.operation, names, entry.fields.to_value())
    });
    object.set(&["metadata", "managedFields"], Value::Array(values.collect()));
}

/// Whether a user asks to start anew: `managedFields: []` or `[{}]`.
pub(crate) fn is_reset(managed: &Value) -> bool {
    match managed.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty) || *one == json!({"fieldsV1": null}),
        _ => false,
    }
}

/// Merges the oldest update managers of one version into [`OLDEST`] until at most [`UPDATERS_MAX`] are left.
pub(crate) fn cap(entries: &mut Vec<Entry>) {
    let updaters = |entries: &[Entry]| entries.iter().filter(|e| e.operation == Operation::Update).count();
    if updaters(entries) <= UPDATERS_MAX {
        return;
    }
    entries.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let mut at = 0;
    while updaters(entries) > UPDATERS_MAX && at < entries.len() {
        let Some(entry) = entries.get(at).filter(|e| e.operation == Operation::Update).cloned() else {
            at += 1;
            continue;
        };
        // The first entry before it of the same version is the bucket or becomes it.
        let bucket = entries
            .iter_mut()
            .take(at)
            .find(|e| e.operation == Operation::Update && e.api_version == entry.api_version);
        match bucket {
            None => at += 1,
            Some(bucket) => {
                OLDEST.clone_into(&mut bucket.manager);
                bucket.subresource.clear();
                bucket.time.clone_from(&entry.time);
                bucket.fields = std::mem::take(&mut bucket.fields).union(&entry.fields);
                entries.remove(at);
            }
        }
    }
}
