//! The objects that are written: ConfigMaps of a given size.

use bytes::Bytes;

/// The label `group` tells so many kinds of objects apart.
pub(crate) const GROUPS: u64 = 100;

/// Where ConfigMaps of a namespace are.
pub(crate) fn collection(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

/// The name of object number `index`.
pub(crate) fn name(index: u64) -> String {
    format!("object-{index:08}")
}

/// The object of a worker's `turn`-th request, when `count` objects are dealt out to `workers` of them, each
/// of which goes round its own. There is a worker for each object at most.
pub(crate) fn of_worker(worker: usize, workers: usize, turn: usize, count: usize) -> usize {
    let own = count.saturating_sub(worker).div_ceil(workers.max(1)).max(1);
    worker + workers * (turn % own)
}

/// The label `group` of object number `index`.
pub(crate) fn group(index: u64) -> u64 {
    index % GROUPS
}

/// A ConfigMap of `bytes` bytes of JSON, or of as few as it takes. `version` is the resourceVersion
/// to replace; 0 for none. `round` makes each version differ from the one before.
pub(crate) fn config_map(namespace: &str, index: u64, version: u64, round: u64, bytes: usize) -> Bytes {
    let name = name(index);
    let version = if version == 0 { String::new() } else { format!(r#","resourceVersion":"{version}""#) };
    let mut json = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"{namespace}","labels":{{"app":"bench","group":"{group}"}}{version}}},"data":{{"round":"{round}","text":""#,
        group = group(index),
    );
    const END: &str = "\"}}";
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round;
    while json.len() + END.len() < bytes {
        // Hexadecimal of a cheap generator: does not compress to nothing, needs no escapes.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let left = bytes - END.len() - json.len();
        let digits = format!("{state:016x}");
        json.push_str(digits.get(..left.min(16)).unwrap_or(&digits));
    }
    json.push_str(END);
    json.into()
}

/// A Namespace.
pub(crate) fn namespace(name: &str) -> Bytes {
    format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_belongs_to_one_worker() {
        for (workers, count) in [(1, 1), (1, 7), (3, 7), (16, 50), (7, 7)] {
            let mut owners = vec![None; count];
            for worker in 0..workers {
                for turn in 0..2 * count {
                    let owner = owners.get_mut(of_worker(worker, workers, turn, count)).unwrap();
                    assert_eq!(*owner.get_or_insert(worker), worker, "{workers} of {count}");
                }
            }
            assert!(owners.iter().all(Option::is_some), "{owners:?}");
        }
    }

    #[test]
    fn config_maps_have_their_size() {
        for bytes in [1024, 1025, 5000] {
            let json = config_map("bench", 7, 42, 3, bytes);
            assert_eq!(json.len(), bytes);
            let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(value["metadata"]["name"], "object-00000007");
            assert_eq!(value["metadata"]["resourceVersion"], "42");
        }
        let small: serde_json::Value = serde_json::from_slice(&config_map("bench", 7, 0, 3, 0)).unwrap();
        assert!(small["metadata"].get("resourceVersion").is_none());
        assert_ne!(config_map("bench", 7, 0, 3, 1024), config_map("bench", 7, 0, 4, 1024));
    }
}
