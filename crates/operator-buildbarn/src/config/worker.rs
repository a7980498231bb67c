//! `worker-INSTANCE.jsonnet` and one `runner-INSTANCE*.jsonnet` for each runner of a pod.

use serde_json::{Map, Value, json};

use super::{
    File, NODE_NAME, POD_NAME, Place,
    pieces::{DIAGNOSTICS_PORT, allow, blobstore, global, put, store},
};
use crate::{
    model::Program,
    types::{BuildbarnWorkerSpec, Common},
    validate::{Pool, RunnerPlan},
};

/// Bits of a path in the filter of prefetched paths, and the filter's largest size (upstream's example).
const BLOOM: (u32, u32) = (14, 65_536);

/// Below which directory a runner works. With one runner it is upstream's.
pub(crate) fn directory(pool: &Pool, runner: &RunnerPlan) -> String {
    if pool.runners.len() == 1 { "/worker".to_owned() } else { format!("/worker/{}", runner.name) }
}

/// Name of the file of a runner.
pub(crate) fn runner_file(pool: &Pool, runner: &RunnerPlan) -> String {
    if pool.runners.len() == 1 {
        format!("runner-{}.jsonnet", pool.instance)
    } else {
        format!("runner-{}-{}.jsonnet", pool.instance, runner.name)
    }
}

/// Diagnostics of runners stand beside the worker's: they share the pod's network.
pub(crate) fn runner_port(at: usize) -> u16 {
    DIAGNOSTICS_PORT.saturating_add(1).saturating_add(u16::try_from(at).unwrap_or(u16::MAX))
}

pub(crate) fn worker(
    spec: &BuildbarnWorkerSpec,
    pool: &Pool,
    place: &Place<'_>,
    scheduler: &str,
    message_bytes: i64,
    browser_url: Option<String>,
) -> File {
    let mut global = global(&spec.common, DIAGNOSTICS_PORT);
    // The runner's user has to write what the worker creates.
    put(&mut global, "setUmask", Some(json!({"umask": 0})));
    let cache = spec.directory_cache.unwrap_or_default();
    let directories: Vec<Value> =
        pool.runners.iter().map(|runner| build_directory(spec, pool, runner)).collect();
    let mut content = json!({
        "blobstore": blobstore(place),
        "maximumMessageSizeBytes": message_bytes.to_string(),
        "scheduler": {"address": scheduler},
        "global": global,
        "buildDirectories": directories,
        "inputDownloadConcurrency": spec.input_download_concurrency.unwrap_or(10).to_string(),
        "outputUploadConcurrency": spec.output_upload_concurrency.unwrap_or(11).to_string(),
        "directoryCache": {
            "maximumCount": cache.maximum_count.unwrap_or(1000).to_string(),
            "maximumSizeBytes": cache.maximum_size_bytes.unwrap_or(1_024_000).to_string(),
            "cacheReplacementPolicy": "LEAST_RECENTLY_USED",
        },
    });
    put(&mut content, "browserUrl", browser_url.map(Value::from));
    let prefetching = spec.prefetching.unwrap_or(false).then(|| {
        json!({
            "fileSystemAccessCache": store(place),
            "bloomFilterBitsPerPath": BLOOM.0, "bloomFilterMaximumSizeBytes": BLOOM.1,
        })
    });
    put(&mut content, "prefetching", prefetching);
    let name = format!("worker-{}.jsonnet", pool.instance);
    File { name, program: Program::Worker, overlay_key: "worker", content }
}

fn build_directory(spec: &BuildbarnWorkerSpec, pool: &Pool, runner: &RunnerPlan) -> Value {
    let base = directory(pool, runner);
    let mut id = json!({"pod": POD_NAME, "node": NODE_NAME});
    // Two runners of a pod must not have the same name in one queue.
    put(&mut id, "runner", (pool.runners.len() > 1).then(|| runner.name.as_str().into()));
    let mut entry = json!({
        "endpoint": {"address": format!("unix://{base}/runner")},
        "concurrency": runner.concurrency.to_string(),
        "instanceNamePrefix": pool.prefix,
        "platform": runner.platform,
        "sizeClass": runner.size_class,
        "workerId": id,
    });
    put(&mut entry, "environmentVariables", (!runner.env.is_empty()).then(|| json!(runner.env)));
    let costs: Map<String, Value> =
        spec.costs_per_second.iter().map(|(name, cost)| (name.clone(), json!(cost))).collect();
    put(&mut entry, "costsPerSecond", (!costs.is_empty()).then(|| costs.into()));
    json!({
        "native": {
            "buildDirectoryPath": format!("{base}/build"), "cacheDirectoryPath": format!("{base}/cache"),
            "maximumCacheFileCount": pool.cache_files.to_string(),
            "maximumCacheSizeBytes": pool.cache_bytes.to_string(),
            "cacheReplacementPolicy": "LEAST_RECENTLY_USED",
        },
        "runners": [entry],
    })
}

pub(crate) fn runner(common: &Common, pool: &Pool, at: usize, runner: &RunnerPlan) -> File {
    let base = directory(pool, runner);
    let content = json!({
        "buildDirectoryPath": format!("{base}/build"),
        // Told to end, it finishes what it runs.
        "grpcServers": [{
            "listenPaths": [format!("{base}/runner")], "authenticationPolicy": allow(), "stopGracefully": true,
        }],
        "global": global(common, runner_port(at)),
    });
    File { name: runner_file(pool, runner), program: Program::Runner, overlay_key: "runner", content }
}
