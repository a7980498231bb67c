//! `scheduler.jsonnet`.

use serde_json::{Value, json};

use super::{
    File, Place,
    pieces::{DIAGNOSTICS_PORT, allow, global, put, seconds, servers, store},
};
use crate::{
    model::Program,
    types::{BuildbarnSchedulerSpec, Fairness, Platform, SizeClassAnalysis},
};

/// Learning runs that may wait at a time, of queues with several size classes (upstream's example).
const BACKGROUND_MAX: i32 = 1000;

/// A queue that exists without workers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Predeclared {
    pub(crate) prefix: String,
    pub(crate) platform: Platform,
    pub(crate) size_classes: Vec<u32>,
}

pub(crate) fn scheduler(
    spec: &BuildbarnSchedulerSpec,
    place: &Place<'_>,
    (default_timeout, maximum_timeout): (i64, i64),
    browser_url: Option<String>,
    queues: &[Predeclared],
) -> File {
    let auth = spec.auth.clone().unwrap_or_default();
    let or_allow = |given: &Option<Value>| given.clone().unwrap_or_else(allow);
    let fairness = spec
        .fairness
        .clone()
        .unwrap_or_else(|| vec![Fairness::CorrelatedInvocationsId, Fairness::ToolInvocationId]);
    let keys: Vec<Value> = fairness
        .iter()
        .map(|key| match key {
            Fairness::ToolInvocationId => json!({"toolInvocationId": {}}),
            Fairness::CorrelatedInvocationsId => json!({"correlatedInvocationsId": {}}),
            Fairness::AuthenticationMetadata => json!({"authenticationMetadata": {}}),
        })
        .collect();
    let mut analyzer = json!({
        "defaultExecutionTimeout": seconds(default_timeout), "maximumExecutionTimeout": seconds(maximum_timeout),
    });
    put(&mut analyzer, "feedbackDriven", spec.size_class_analysis.as_ref().map(feedback));
    let mut content = json!({
        "adminHttpServers": servers(7982, auth.admin.as_ref()),
        "clientGrpcServers": servers(8982, auth.client.as_ref()),
        "workerGrpcServers": servers(8983, auth.worker.as_ref()),
        "buildQueueStateGrpcServers": servers(8984, None),
        "contentAddressableStorage": store(place),
        "maximumMessageSizeBytes": spec.maximum_message_size_bytes.unwrap_or(2 << 20).to_string(),
        "global": global(&spec.common, DIAGNOSTICS_PORT),
        "executeAuthorizer": or_allow(&auth.execute),
        "modifyDrainsAuthorizer": or_allow(&auth.modify_drains),
        "killOperationsAuthorizer": or_allow(&auth.kill_operations),
        "synchronizeAuthorizer": or_allow(&auth.synchronize),
        "actionRouter": {"simple": {
            "platformKeyExtractor": {"action": {}},
            "invocationKeyExtractors": keys,
            "initialSizeClassAnalyzer": analyzer,
        }},
        "platformQueueWithNoWorkersTimeout":
            seconds(spec.platform_queue_with_no_workers_timeout_seconds.unwrap_or(900)),
    });
    put(&mut content, "browserUrl", browser_url.map(Value::from));
    put(&mut content, "initialSizeClassCache", spec.size_class_analysis.is_some().then(|| store(place)));
    let queues: Vec<Value> = queues.iter().map(predeclared).collect();
    put(&mut content, "predeclaredPlatformQueues", (!queues.is_empty()).then(|| queues.into()));
    File { name: "scheduler.jsonnet".to_owned(), program: Program::Scheduler, overlay_key: "", content }
}

fn predeclared(queue: &Predeclared) -> Value {
    let Predeclared { prefix, platform, size_classes } = queue;
    json!({
        "instanceNamePrefix": prefix, "platform": platform, "sizeClasses": size_classes,
        "maximumQueuedBackgroundLearningOperations": BACKGROUND_MAX,
    })
}

fn feedback(analysis: &SizeClassAnalysis) -> Value {
    let mut out = json!({
        "failureCacheDuration": seconds(analysis.failure_cache_duration_seconds.unwrap_or(86_400)),
        "historySize": analysis.history_size.unwrap_or(32),
    });
    let rank = analysis.page_rank.map(|rank| {
        json!({
            "acceptableExecutionTimeIncreaseExponent": rank.exponent.unwrap_or(0.2),
            "smallerSizeClassExecutionTimeoutMultiplier": rank.multiplier.unwrap_or(1.5),
            "minimumExecutionTimeout": seconds(rank.minimum_timeout_seconds.unwrap_or(10)),
            "maximumConvergenceError": rank.convergence.unwrap_or(0.002),
        })
    });
    put(&mut out, "pageRank", rank);
    out
}
