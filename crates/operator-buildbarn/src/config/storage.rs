//! `storage.jsonnet`: the stores of one shard.

use serde_json::{Value, json};

use super::{
    File,
    pieces::{DIAGNOSTICS_PORT, allow, global, put, servers},
};
use crate::{
    model::Program,
    types::{Common, Geometry},
    validate::StorePlan,
};

/// How often the state of blocks is written down: what a crash may lose.
const EPOCH: &str = "300s";

pub(crate) fn storage(
    common: &Common,
    stores: &[StorePlan],
    geometry: impl Fn(&StorePlan) -> Geometry,
    message_bytes: i64,
) -> File {
    let mut content = json!({
        "grpcServers": servers(8981, None),
        "maximumMessageSizeBytes": message_bytes.to_string(),
        "global": global(common, DIAGNOSTICS_PORT),
    });
    for plan in stores {
        let field = match plan.name {
            "cas" => "contentAddressableStorage",
            "ac" => "actionCache",
            "iscc" => "initialSizeClassCache",
            _ => "fileSystemAccessCache",
        };
        let mut store = json!({
            "backend": {"local": local(plan, geometry(plan))}, "getAuthorizer": allow(), "putAuthorizer": allow(),
        });
        put(&mut store, "findMissingAuthorizer", (plan.name == "cas").then(allow));
        put(&mut content, field, Some(store));
    }
    File { name: "storage.jsonnet".to_owned(), program: Program::Storage, overlay_key: "", content }
}

fn local(plan: &StorePlan, geometry: Geometry) -> Value {
    let Geometry {
        key_location_map_bytes,
        blocks_bytes,
        old_blocks,
        current_blocks,
        new_blocks,
        spare_blocks,
    } = geometry;
    let directory = format!("/storage-{}", plan.name);
    let file = |name: &str, bytes: i64| json!({"file": {"path": format!("{directory}/{name}"), "sizeBytes": bytes.to_string()}});
    let mut local = json!({
        "keyLocationMapOnBlockDevice": file("key_location_map", key_location_map_bytes),
        "keyLocationMapMaximumGetAttempts": 16,
        "keyLocationMapMaximumPutAttempts": "64",
        "oldBlocks": old_blocks, "currentBlocks": current_blocks, "newBlocks": new_blocks,
        "blocksOnBlockDevice": {"source": file("blocks", blocks_bytes), "spareBlocks": spare_blocks},
        "persistent": {
            "stateDirectoryPath": format!("{directory}/persistent_state"), "minimumEpochInterval": EPOCH,
        },
    });
    put(&mut local, "hierarchicalInstanceNames", plan.hierarchical.then(|| true.into()));
    local
}
