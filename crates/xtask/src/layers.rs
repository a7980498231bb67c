//! The layer rule: a crate imports only from lower layers; neighbours do not import each other.

use std::process::Command;

use serde_json::Value;

/// Every crate of the workspace and its layer (`docs`: ARCHITECTURE.md). A new crate has to be put here.
const LAYERS: &[(&str, u8)] = &[
    ("meta", 0),
    ("schema", 0),
    ("csr", 0),
    ("resource", 1),
    ("store", 1),
    ("runtime", 1),
    ("rpc", 1),
    ("apiserver", 2),
    ("kinds", 2),
    ("reconcile", 2),
    ("store-embedded", 2),
    ("store-postgres", 2),
    ("runtime-containerd", 2),
    ("controllers", 3),
    ("scheduler", 3),
    ("node", 3),
    ("network", 3),
    ("operator-buildbarn", 3),
    ("operator-database", 3),
    ("operator-obsyk", 3),
    ("obsyk-platform", 3),
    ("keelson", 4),
    ("sim", 4),
    ("keelson-test", 4),
    ("operator-test", 4),
    ("bench", 4),
    ("xtask", 4),
];

/// The exceptions, each with its reason in ARCHITECTURE.md.
const NEIGHBOURS: &[(&str, &str)] = &[("schema", "meta"), ("keelson-test", "sim")];

/// What cargo knows of the workspace.
pub(crate) fn metadata() -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(super::root())
        .output()
        .map_err(|error| format!("start cargo metadata: {error}"))?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("read cargo metadata: {error}"))
}

/// Every edge that the rule forbids, and every crate that the table does not know.
pub(crate) fn check(metadata: &Value) -> Result<Vec<String>, String> {
    let packages =
        metadata.get("packages").and_then(Value::as_array).ok_or("cargo metadata has no packages")?;
    let mut wrong = Vec::new();
    for package in packages {
        let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(layer) = layer(name) else {
            wrong.push(format!("crate {name} has no layer: add it to crates/xtask/src/layers.rs"));
            continue;
        };
        for dependency in package.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
            let on = dependency.get("name").and_then(Value::as_str).unwrap_or_default();
            let ours = dependency.get("path").is_some_and(Value::is_string);
            let test_only = dependency.get("kind").and_then(Value::as_str) == Some("dev");
            if ours && !allowed(name, layer, on, test_only) {
                wrong.push(format!("{name} (layer {layer}) must not import {on}"));
            }
        }
    }
    Ok(wrong)
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// Tests may use neighbours (a controller against the real server), never what is above.
fn allowed(name: &str, own: u8, on: &str, test_only: bool) -> bool {
    let Some(other) = layer(on) else { return false };
    other < own || NEIGHBOURS.contains(&(name, on)) || (test_only && other <= own)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_workspace_keeps_the_layers() {
        assert_eq!(check(&metadata().unwrap()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_edge_upwards_or_sideways_is_found() {
        let edge = |from: &str, on: &str, kind: Value| {
            let dependency = json!({"name": on, "path": "/x", "kind": kind});
            let package = json!({"name": from, "dependencies": [dependency]});
            check(&json!({ "packages": [package] })).unwrap().len()
        };
        assert_eq!(edge("schema", "meta", Value::Null), 0);
        assert_eq!(edge("meta", "schema", Value::Null), 1);
        assert_eq!(edge("kinds", "apiserver", Value::Null), 1);
        assert_eq!(edge("kinds", "apiserver", json!("dev")), 0);
        assert_eq!(edge("apiserver", "controllers", json!("dev")), 1);
        assert_eq!(edge("unheard-of", "meta", Value::Null), 1);
    }
}
