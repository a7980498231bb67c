//! What the programs would refuse, one case a line.

use serde_json::{Value, json};

use super::{Program, check, message};

/// A frontend that passes.
fn frontend() -> Value {
    let shard = json!({"backend": {"grpc": {"client": {"address": "a:1"}}}, "weight": 1});
    let backend = json!({"sharding": {"shards": {"0": shard}}});
    let all = json!({"allow": {}});
    json!({
        "grpcServers": [{"listenAddresses": [":8980"], "authenticationPolicy": all}],
        "maximumMessageSizeBytes": "2097152",
        "contentAddressableStorage": {"backend": backend, "getAuthorizer": all, "putAuthorizer": all, "findMissingAuthorizer": all},
        "schedulers": {"": {"endpoint": {"address": "s:1"}}},
        "executeAuthorizer": all,
    })
}

fn faults(pointer: &str, value: Value) -> Vec<String> {
    let mut frontend = frontend();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = frontend.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value == json!("REMOVE") {
        parent.remove(key)
    } else {
        parent.insert(key.to_owned(), value)
    };
    check(Program::Storage, &frontend)
}

#[test]
fn what_is_right_passes() {
    assert_eq!(check(Program::Storage, &frontend()), Vec::<String>::new());
}

#[test]
fn what_the_programs_refuse_is_refused_with_its_path() {
    let shards = "/contentAddressableStorage/backend/sharding/shards";
    let cases = [
        ("/grpcServer", json!([]), "grpcServer: unknown field"),
        ("/maximumMessageSizeBytes", json!("2Mi"), "maximumMessageSizeBytes: must be an integer from"),
        ("/maximumMessageSizeBytes", json!(0), "maximumMessageSizeBytes: must be set"),
        ("/grpcServers", json!([]), "grpcServers: must be set"),
        ("/executeAuthorizer", json!("REMOVE"), "executeAuthorizer: must be set when schedulers are"),
        ("/executeAuthorizer", json!({}), "executeAuthorizer: one of allow, instanceNamePrefix, deny"),
        (
            "/executeAuthorizer",
            json!({"allow": {}, "deny": {}}),
            "executeAuthorizer: only one of allow, deny may be set",
        ),
        ("/executeAuthorizer", json!({"allow": true}), "executeAuthorizer.allow: must be {}"),
        (
            "/contentAddressableStorage/putAuthorizer",
            json!("REMOVE"),
            "contentAddressableStorage.putAuthorizer: must be set",
        ),
        (
            "/contentAddressableStorage/findMissingAuthorizer",
            json!(null),
            "findMissingAuthorizer: must be set",
        ),
        (shards, json!({}), "backend.sharding.shards: must be set"),
        (&format!("{shards}/0/weight"), json!(0), "shards.\"0\".weight: must be set"),
        (&format!("{shards}/0/weight"), json!(-1), "must be an integer from 0 to 4294967295"),
        (&format!("{shards}/0/backend"), json!({"grpc": {"address": "a:1"}}), "grpc.address: unknown field"),
        ("/schedulers//endpoint", json!({}), "endpoint.address: must be set"),
    ];
    for (pointer, value, wanted) in cases {
        let found = faults(pointer, value.clone());
        assert!(found.iter().any(|fault| fault.contains(wanted)), "{pointer} = {value}: {found:?}");
    }
}

/// The `local` of a replicator is not the `local` of a store.
#[test]
fn a_replicator_is_no_store() {
    let pair = json!({"mirrored": {
        "backendA": {"grpc": {"client": {"address": "a:1"}}}, "backendB": {"grpc": {"client": {"address": "b:1"}}},
        "replicatorAToB": {"local": {}}, "replicatorBToA": {"local": {}},
    }});
    let store =
        |backend| json!({"backend": backend, "getAuthorizer": {"allow": {}}, "putAuthorizer": {"allow": {}}});
    assert_eq!(faults("/actionCache", store(pair)), Vec::<String>::new());
    let one = json!({"local": {"oldBlocks": 8, "currentBlocks": 24, "newBlocks": 3}});
    let found = faults("/actionCache", store(one));
    assert!(found.iter().any(|fault| fault.contains("must be 1 for all stores but the CAS")), "{found:?}");
}

fn local(changes: Value) -> Value {
    let mut local = json!({
        "keyLocationMapOnBlockDevice": {"file": {"path": "/k", "sizeBytes": "66000"}},
        "keyLocationMapMaximumGetAttempts": 16, "keyLocationMapMaximumPutAttempts": "64",
        "oldBlocks": 8, "currentBlocks": 24, "newBlocks": 3,
        "blocksOnBlockDevice": {"source": {"file": {"path": "/b", "sizeBytes": "1000000"}}, "spareBlocks": 3},
        "persistent": {"stateDirectoryPath": "/p", "minimumEpochInterval": "300s"},
    });
    schema::patch::merge(&mut local, &changes);
    local
}

#[test]
fn rules_of_single_messages() {
    let platform = |pairs: &[(&str, &str)]| -> Value {
        json!({"properties": pairs.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>()})
    };
    let (local_name, platform_name) = ("blobstore.LocalBlobAccessConfiguration", "reapi.Platform");
    let cases: [(&str, Value, &str); 17] = [
        (local_name, local(json!({})), ""),
        (local_name, local(json!({"currentBlocks": 90})), "are 104, at most 100 are allowed"),
        (
            local_name,
            local(json!({"keyLocationMapOnBlockDevice": null, "keyLocationMapInMemory": {"entries": 1}})),
            "persistent: needs",
        ),
        (
            local_name,
            local(json!({"persistent": {"minimumEpochInterval": "15m"}})),
            "must be a duration in seconds",
        ),
        (
            local_name,
            local(json!({"persistent": {"minimumEpochInterval": null}})),
            "minimumEpochInterval: must be set",
        ),
        (
            local_name,
            local(json!({"blocksOnBlockDevice": {"source": {"file": {"sizeBytes": "1000"}}}})),
            "are too few for 38 blocks",
        ),
        (platform_name, platform(&[("a", "1"), ("b", "1")]), ""),
        (platform_name, platform(&[("b", "1"), ("a", "1")]), "properties: must be sorted"),
        (platform_name, platform(&[("a", "1"), ("a", "1")]), "without duplicates"),
        (
            "cas.CachingDirectoryFetcherConfiguration",
            json!({"maximumCount": 1, "maximumSizeBytes": 1, "cacheReplacementPolicy": "LRU"}),
            "must be one of FIRST_IN_FIRST_OUT",
        ),
        (
            "cas.CachingDirectoryFetcherConfiguration",
            json!({"maximumCount": 1, "maximumSizeBytes": 1}),
            "cacheReplacementPolicy: must be set",
        ),
        (
            "bb_scheduler.PredeclaredPlatformQueueConfiguration",
            json!({"platform": {}, "sizeClasses": [4, 4]}),
            "strictly ascending",
        ),
        (
            "bb_scheduler.PredeclaredPlatformQueueConfiguration",
            json!({"platform": {}, "sizeClasses": [0, 4]}),
            "greater than 0",
        ),
        (
            "bb_scheduler.PredeclaredPlatformQueueConfiguration",
            json!({"platform": {}, "sizeClasses": [1], "instanceNamePrefix": "a//b"}),
            "double slash",
        ),
        (
            "scheduler.InitialSizeClassAnalyzerConfiguration",
            json!({"defaultExecutionTimeout": "9s", "maximumExecutionTimeout": "8s"}),
            "must not be greater",
        ),
        (
            "blobstore.WithLabelsBlobAccessConfiguration",
            json!({"labels": {"a": {"label": "x"}}, "backend": {"label": "b"}}),
            "label \"b\" is not declared",
        ),
        (
            "grpc.ServerConfiguration",
            json!({"authenticationPolicy": {"allow": {}}}),
            "one of listenAddresses, listenPaths",
        ),
    ];
    for (name, value, wanted) in cases {
        let found = message(name, &value).join("; ");
        assert!(
            if wanted.is_empty() { found.is_empty() } else { found.contains(wanted) },
            "{name} {value}: {found}"
        );
    }
}
