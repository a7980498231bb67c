//! Parts that several programs have.

use serde_json::{Map, Value, json};

use crate::types::{Common, ReshardingStage, Shard, Topology};

/// Port of `/-/healthy` and `/metrics`.
pub(super) const DIAGNOSTICS_PORT: u16 = 9980;

/// Where a storage's pods are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The storage's name: that of its headless Service.
    pub(crate) storage: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) topology: &'a Topology,
    /// Largest tree that is checked.
    pub(crate) tree_bytes: i64,
}

pub(super) fn allow() -> Value {
    json!({"allow": {}})
}

/// Servers on one port; `policy` says who is who.
pub(super) fn servers(port: u16, policy: Option<&Value>) -> Value {
    json!([{"listenAddresses": [format!(":{port}")], "authenticationPolicy": policy.cloned().unwrap_or_else(allow)}])
}

/// Diagnostics and tracing.
pub(super) fn global(common: &Common, port: u16) -> Value {
    let mut global = json!({
        "diagnosticsHttpServer": {"httpServers": servers(port, None), "enablePrometheus": common.scraped()},
    });
    if let (Some(tracing), Some(map)) = (&common.tracing, global.as_object_mut()) {
        let sampler = json!({"parentBased": {
            "noParent": {"traceIdRatioBased": tracing.sample_rate.unwrap_or(1.0)},
            "localParentNotSampled": {"never": {}}, "localParentSampled": {"always": {}},
            "remoteParentNotSampled": {"never": {}}, "remoteParentSampled": {"always": {}},
        }});
        let backend = json!({
            "otlpSpanExporter": {"address": tracing.otlp_endpoint},
            "batchSpanProcessor": {},
        });
        map.insert("tracing".to_owned(), json!({"backends": [backend], "sampler": sampler}));
    }
    global
}

/// protojson's form of a duration.
pub(super) fn seconds(seconds: i64) -> String {
    format!("{seconds}s")
}

fn remote(place: &Place<'_>, pod: i32) -> Value {
    let Place { storage, namespace, .. } = place;
    json!({"grpc": {"client": {"address": format!("{storage}-{pod}.{storage}.{namespace}.svc:8981")}}})
}

/// One shard: a pod, or two that hold the same.
fn backend(place: &Place<'_>, shard: &Shard) -> Value {
    match shard.pods.as_slice() {
        [a, b] => json!({"mirrored": {
            "backendA": remote(place, *a), "backendB": remote(place, *b),
            "replicatorAToB": {"local": {}}, "replicatorBToA": {"local": {}},
        }}),
        pods => remote(place, pods.first().copied().unwrap_or_default()),
    }
}

fn sharding(shards: &[Shard], backend: impl Fn(&Shard) -> Value) -> Value {
    let map: Map<String, Value> = shards
        .iter()
        .map(|shard| (shard.key.clone(), json!({"backend": backend(shard), "weight": shard.weight})))
        .collect();
    json!({"sharding": {"shards": map}})
}

/// How a store of the storage is read and written now.
pub(super) fn store(place: &Place<'_>) -> Value {
    let Topology { stage, shards, previous, since: _ } = place.topology;
    let (primary, secondary) = match stage {
        ReshardingStage::Stable => return sharding(shards, |shard| backend(place, shard)),
        ReshardingStage::Growing => return sharding(previous, |shard| backend(place, shard)),
        ReshardingStage::Preparing => (previous, shards),
        ReshardingStage::Fallback => (shards, previous),
    };
    let labels: Map<String, Value> =
        shards.iter().chain(previous).map(|shard| (label(shard), backend(place, shard))).collect();
    let named = |shards: &[Shard]| sharding(shards, |shard| json!({"label": label(shard)}));
    json!({"withLabels": {
        "labels": labels,
        "backend": {"readFallback": {
            "primary": named(primary), "secondary": named(secondary), "replicator": {"local": {}},
        }},
    }})
}

/// Shards of both maps with the same pods are one connection.
fn label(shard: &Shard) -> String {
    let pods: Vec<String> = shard.pods.iter().map(ToString::to_string).collect();
    format!("pods-{}", pods.join("-"))
}

/// The AC: a result counts only if all that it names is in the CAS.
pub(super) fn action_cache(place: &Place<'_>) -> Value {
    json!({"completenessChecking": {
        "backend": store(place), "maximumTotalTreeSizeBytes": place.tree_bytes.to_string(),
    }})
}

/// CAS and AC as workers and browsers have them.
pub(super) fn blobstore(place: &Place<'_>) -> Value {
    json!({"contentAddressableStorage": store(place), "actionCache": action_cache(place)})
}

/// A name for what readers and writers do: it changes exactly when their configuration has to.
pub(crate) fn map_name(topology: &Topology) -> String {
    let Topology { stage, shards, previous, since: _ } = topology;
    let none = Vec::new();
    let (stage, shards, previous) = match stage {
        // Nobody reads the map that comes before its pods are there.
        ReshardingStage::Growing => (&ReshardingStage::Stable, previous, &none),
        ReshardingStage::Stable | ReshardingStage::Preparing | ReshardingStage::Fallback => {
            (stage, shards, previous)
        }
    };
    super::hash_text(&json!([stage, shards, previous]).to_string())
}

/// Puts what is there into a map.
pub(super) fn put(value: &mut Value, key: &str, inner: Option<Value>) {
    if let (Some(map), Some(inner)) = (value.as_object_mut(), inner) {
        map.insert(key.to_owned(), inner);
    }
}
