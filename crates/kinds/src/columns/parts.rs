//! Cells that several families share.

use meta::{LabelSelector, Object, Timestamp, Value};

use super::Col;

/// The texts in a list, joined by commas.
pub(crate) fn joined(list: &[Value]) -> String {
    list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

/// A text, or what to show in its place.
pub(crate) fn or<'a>(text: Option<&'a str>, none: &'a str) -> &'a str {
    text.filter(|text| !text.is_empty()).unwrap_or(none)
}

/// The first `max` of `all`, and how many more there are.
pub(crate) fn some_of(all: &[String], max: usize) -> String {
    let Some((first, rest)) = all.split_at_checked(max).filter(|(_, rest)| !rest.is_empty()) else {
        return if all.is_empty() { "<none>".to_owned() } else { all.join(",") };
    };
    format!("{} + {} more...", first.join(","), rest.len())
}

/// `key=value` of a plain map of labels.
pub(crate) fn labels(value: Option<&Value>) -> String {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    let shown: Vec<String> =
        entries.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    if shown.is_empty() { "<none>".to_owned() } else { shown.join(",") }
}

/// A label selector as kubectl takes it; `none` when it is absent or selects everything.
pub(crate) fn selector(value: Option<&Value>, none: &str) -> String {
    match LabelSelector::from_value(value.unwrap_or(&Value::Null)) {
        Ok(selector) => {
            let text = selector.to_string();
            if text.is_empty() { none.to_owned() } else { text }
        }
        Err(_) => "<error>".to_owned(),
    }
}

/// One field of all containers of the pod spec at `path`.
fn containers(object: &Object, path: &[&str], field: &str) -> Value {
    let list = object.get(path).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let shown: Vec<&str> =
        list.iter().map(|c| c.get(field).and_then(Value::as_str).unwrap_or_default()).collect();
    shown.join(",").into()
}

const TEMPLATE: [&str; 4] = ["spec", "template", "spec", "containers"];

fn names(object: &Object, _: Timestamp) -> Value {
    containers(object, &TEMPLATE, "name")
}

fn images(object: &Object, _: Timestamp) -> Value {
    containers(object, &TEMPLATE, "image")
}

fn selects(object: &Object, _: Timestamp) -> Value {
    selector(object.get(&["spec", "selector"]), "<none>").into()
}

/// Names of the template's containers.
pub(crate) const CONTAINERS: Col = Col::text("Containers", names).wide();
/// Images of the template's containers.
pub(crate) const IMAGES: Col = Col::text("Images", images).wide();
/// `spec.selector`.
pub(crate) const SELECTOR: Col = Col::text("Selector", selects).wide();

/// As [`CONTAINERS`] and [`IMAGES`] for a pod template elsewhere.
pub(crate) fn containers_at(object: &Object, path: &[&str], field: &str) -> Value {
    containers(object, path, field)
}

/// How many entries the maps have together.
pub(crate) fn entries(object: &Object, maps: &[&str]) -> Value {
    let count = |map: &&str| object.get(&[map]).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    maps.iter().map(count).sum::<usize>().to_string().into()
}
