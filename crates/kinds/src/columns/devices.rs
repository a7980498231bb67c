//! Devices: claims and slices.

use meta::{Object, Timestamp, Value};

use super::{AGE, Col};

/// Columns of a ResourceClaim.
pub(crate) const RESOURCE_CLAIM: &[Col] = &[Col::text("State", state), AGE];

/// Columns of a ResourceSlice.
pub(crate) const RESOURCE_SLICE: &[Col] = &[
    Col::text_at("Node", "spec.nodeName", "<unset>"),
    Col::text_at("Driver", "spec.driver", ""),
    Col::text_at("Pool", "spec.pool.name", ""),
    AGE,
];

fn state(claim: &Object, _: Timestamp) -> Value {
    let states = [
        ("deleted", claim.is_deleting()),
        ("allocated", claim.get(&["status", "allocation"]).is_some()),
        ("reserved", !claim.list(&["status", "reservedFor"]).is_empty()),
    ];
    let held: Vec<&str> = states.into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name).collect();
    match held.as_slice() {
        [] => "pending".into(),
        held if held.contains(&"allocated") => held.join(",").into(),
        held => [held, &["pending"]].concat().join(",").into(),
    }
}
