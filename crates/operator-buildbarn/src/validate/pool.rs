//! A pool of workers.

use std::collections::BTreeMap;

use kube::ResourceExt;
use serde_json::Value;

use crate::{
    catalogue::RELEASE,
    farm::Farm,
    model,
    types::{BuildbarnScheduler, BuildbarnWorker, DrainMode, Platform, Property, Runner},
    validate,
    verdict::Wrong,
};

/// Slack after the longest action for its outputs to be stored; an absent scheduler adds 70 s.
const UPLOAD_SLACK_S: i64 = 300;
/// Most pods of a pool.
const REPLICAS_MAX: i32 = 10_000;

/// A pool whose spec can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pool {
    pub(crate) instance: String,
    pub(crate) prefix: String,
    pub(crate) runners: Vec<RunnerPlan>,
    /// Pods that are wanted when nothing is autoscaled.
    pub(crate) replicas: i32,
    pub(crate) autoscaling: Option<crate::autoscale::Limits>,
    /// The longest that an action is waited for.
    pub(crate) drain_seconds: i64,
    pub(crate) drain_mode: DrainMode,
    pub(crate) cache_files: u64,
    pub(crate) cache_bytes: i64,
}

/// One runner of every pod of the pool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunnerPlan {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) concurrency: u32,
    pub(crate) platform: Platform,
    pub(crate) size_class: u32,
    pub(crate) resources: Option<Value>,
    pub(crate) security_context: Option<Value>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) user: i64,
}

/// Checks a pool. `scheduler` says how long actions may take.
pub(crate) fn pool(
    worker: &BuildbarnWorker,
    scheduler: Option<&BuildbarnScheduler>,
    wrong: &mut Wrong,
) -> Pool {
    let spec = &worker.spec;
    validate::common(&worker.name_any(), &spec.common, wrong);
    validate::image("spec.runnerInstallerImage", spec.runner_installer_image.as_deref(), wrong);
    let instance = spec.instance.clone().unwrap_or_else(|| "ubuntu22-04".to_owned());
    for why in meta::names::label_value(&instance) {
        wrong.add("spec.instance", why);
    }
    let prefix = spec.instance_name_prefix.clone().unwrap_or_default();
    if let Some(why) = model::bad_instance_name(&prefix) {
        wrong.add("spec.instanceNamePrefix", why);
    }
    if spec.autoscaling.is_some() && spec.replicas.is_some() {
        wrong.add("spec.replicas", "is decided by autoscaling: remove one of the two");
    }
    let concurrency = spec.input_download_concurrency.map(i64::from);
    wrong.range("spec.inputDownloadConcurrency", concurrency, 10, 1, 10_000);
    let concurrency = spec.output_upload_concurrency.map(i64::from);
    wrong.range("spec.outputUploadConcurrency", concurrency, 11, 1, 10_000);
    let directory = spec.build_directory.clone().unwrap_or_default();
    let drain = spec.drain.unwrap_or_default();
    let (_, maximum) =
        validate::execution(scheduler.and_then(|scheduler| scheduler.spec.execution), &mut Wrong::default());
    Pool {
        runners: runners(worker, wrong),
        replicas: wrong.range("spec.replicas", spec.replicas, 8, 0, REPLICAS_MAX),
        autoscaling: spec.autoscaling.map(|given| crate::autoscale::limits(&given, REPLICAS_MAX, wrong)),
        drain_seconds: wrong.range(
            "spec.drain.timeoutSeconds",
            drain.timeout_seconds,
            maximum.saturating_add(UPLOAD_SLACK_S),
            0,
            14 * 86_400,
        ),
        drain_mode: drain.mode.unwrap_or_default(),
        cache_files: wrong.range(
            "spec.buildDirectory.cacheFiles",
            directory.cache_files,
            10_000,
            1,
            u64::MAX,
        ),
        cache_bytes: wrong.bytes("spec.buildDirectory.cacheSize", directory.cache_size.as_deref(), 1 << 30),
        instance,
        prefix,
    }
}

fn runners(worker: &BuildbarnWorker, wrong: &mut Wrong) -> Vec<RunnerPlan> {
    let spec = &worker.spec;
    let only =
        Runner { name: "runner".to_owned(), resources: spec.runner_resources.clone(), ..Runner::default() };
    let given = if spec.runners.is_empty() { std::slice::from_ref(&only) } else { spec.runners.as_slice() };
    let single = spec.runners.is_empty();
    let mut plans: Vec<RunnerPlan> = Vec::new();
    for (at, runner) in given.iter().enumerate() {
        let field =
            |name: &str| if single { format!("spec.{name}") } else { format!("spec.runners.{at}.{name}") };
        if !single {
            for why in meta::names::dns1123_label(&runner.name) {
                wrong.add(&field("name"), why);
            }
        }
        if plans.iter().any(|plan| plan.name == runner.name) {
            wrong.add(&field("name"), format!("{:?} is used twice", runner.name));
        }
        if ["worker", "volume-init", "bb-runner-installer"].contains(&runner.name.as_str()) {
            wrong.add(
                &field("name"),
                format!("{:?} is the name of another container of the pod", runner.name),
            );
        }
        let image = runner.image.clone().or_else(|| spec.runner_image.clone());
        let image_field = if runner.image.is_some() { field("image") } else { "spec.runnerImage".to_owned() };
        validate::image(&image_field, image.as_deref(), wrong);
        let image = image.unwrap_or_else(|| RELEASE.runner.to_owned());
        let platform = runner.platform.clone().or_else(|| spec.platform.clone());
        if let Some(platform) = &platform {
            let at_runner = runner.platform.is_some();
            check_platform(
                &if at_runner { field("platform") } else { "spec.platform".to_owned() },
                platform,
                wrong,
            );
        }
        let resources = if single { "spec.runnerResources".to_owned() } else { field("resources") };
        validate::resources(&resources, runner.resources.as_ref(), wrong);
        let concurrency = runner.concurrency.or(spec.concurrency);
        plans.push(RunnerPlan {
            name: runner.name.clone(),
            concurrency: wrong.range(&field("concurrency"), concurrency, 8, 1, 1024),
            platform: platform.unwrap_or_else(|| default_platform(&image)),
            size_class: runner.size_class.or(spec.size_class).unwrap_or(0),
            resources: runner.resources.clone(),
            security_context: runner.security_context.clone(),
            env: runner.env.clone(),
            user: wrong.range(&field("runAsUser"), runner.run_as_user, 65_534, 0, i64::from(u32::MAX)),
            image,
        });
    }
    plans
}

/// What upstream's examples ask of clients.
fn default_platform(image: &str) -> Platform {
    let property = |name: &str, value: String| Property { name: name.to_owned(), value };
    Platform {
        properties: vec![
            property("OSFamily", "linux".to_owned()),
            property("container-image", format!("docker://{image}")),
        ],
    }
}

fn check_platform(field: &str, platform: &Platform, wrong: &mut Wrong) {
    let list = &platform.properties;
    for (at, property) in list.iter().enumerate() {
        if property.name.is_empty() {
            wrong.add(&format!("{field}.properties.{at}.name"), "must not be empty");
        }
    }
    for (before, after) in list.iter().zip(list.iter().skip(1)) {
        if before == after {
            wrong.add(
                &format!("{field}.properties"),
                format!("{}={} is given twice", after.name, after.value),
            );
        } else if before > after {
            wrong.add(
                &format!("{field}.properties"),
                format!(
                    "must be sorted by name and value, {}={} comes before {}={}",
                    after.name, after.value, before.name, before.value
                ),
            );
        }
    }
}

/// Pools of the same scheduler that this one cannot live beside. Of two that clash, the later by name is told.
pub(crate) fn conflicts(worker: &BuildbarnWorker, own: &Pool, farm: &Farm, wrong: &mut Wrong) {
    let Ok(scheduler) = farm.scheduler(worker.spec.scheduler_ref.as_ref()).map(ResourceExt::name_any) else {
        return;
    };
    for (at, runner) in own.runners.iter().enumerate() {
        let twin = own.runners.iter().take(at).find(|other| {
            other.platform == runner.platform
                && other.size_class != runner.size_class
                && (other.size_class == 0 || runner.size_class == 0)
        });
        if twin.is_some() {
            wrong.add(
                &format!("spec.runners.{at}.sizeClass"),
                "must be greater than 0 where a platform has several",
            );
        }
    }
    let earlier = farm.workers.iter().filter(|other| other.name_any() < worker.name_any());
    for other in earlier {
        let same =
            farm.scheduler(other.spec.scheduler_ref.as_ref()).is_ok_and(|of| of.name_any() == scheduler);
        let mut faults = Wrong::default();
        let theirs = pool(other, None, &mut faults);
        if !same || !faults.0.is_empty() || theirs.prefix != own.prefix {
            continue;
        }
        for runner in &own.runners {
            let Some(twin) = theirs.runners.iter().find(|twin| twin.platform == runner.platform) else {
                continue;
            };
            if twin.size_class == runner.size_class {
                wrong.add(
                    "spec.platform",
                    format!(
                        "overlaps with BuildbarnWorker {:?}: give one another platform, instanceNamePrefix or sizeClass",
                        other.name_any()
                    ),
                );
            } else if twin.size_class == 0 || runner.size_class == 0 {
                wrong.add(
                    "spec.sizeClass",
                    format!(
                        "must be greater than 0 here and in BuildbarnWorker {:?}, which has the same platform",
                        other.name_any()
                    ),
                );
            }
        }
    }
}

/// A platform on one line, as the status shows it.
pub(crate) fn queue_platform(platform: &Platform) -> String {
    let pairs: Vec<String> =
        platform.properties.iter().map(|property| format!("{}={}", property.name, property.value)).collect();
    pairs.join(",")
}
