//! The ConfigMap with the engine's files.

use serde_json::{Value, json};

use super::{Names, metadata};
use crate::{types::Database, validate::Valid};

pub(crate) fn config_map(database: &Database, valid: &Valid) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": metadata(database, valid, &Names::config(&valid.name)),
        "data": valid.engine.traits(valid).files,
    })
}
