//! The ConfigMap with the files of a component, named by what is in it.

use serde_json::{Value, json};

use super::Base;
use crate::config::Files;

/// Other files are another ConfigMap, so that what runs keeps what it was started with.
pub(crate) fn config_map_name(name: &str, files: &Files) -> String {
    format!("{name}-config-{}", files.hash)
}

pub(crate) fn config_map(base: &Base<'_>, files: &Files) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": base.metadata(&config_map_name(base.name, files)),
        "immutable": true,
        "data": files.texts,
    })
}
