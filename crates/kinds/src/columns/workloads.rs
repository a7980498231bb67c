//! Deployments, sets, jobs, autoscalers and what guards them.

use meta::{Object, Timestamp, Value};

use super::{
    AGE, CONTAINERS, Col, IMAGES, SELECTOR,
    age::{human, parse},
    containers_at, or, selector, since,
};

fn count(object: &Object, path: &[&str]) -> i64 {
    object.int(path).unwrap_or(0)
}

fn ready_of_desired(object: &Object, _: Timestamp) -> Value {
    format!("{}/{}", count(object, &["status", "readyReplicas"]), count(object, &["spec", "replicas"])).into()
}

/// Columns of a Deployment.
pub(crate) const DEPLOYMENT: &[Col] = &[
    Col::text("Ready", ready_of_desired),
    Col::text("Up-to-date", |o, _| count(o, &["status", "updatedReplicas"]).into()),
    Col::text("Available", |o, _| count(o, &["status", "availableReplicas"]).into()),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Columns of a ReplicaSet.
pub(crate) const REPLICA_SET: &[Col] = &[
    Col::int_at("Desired", "spec.replicas"),
    Col::int_at("Current", "status.replicas"),
    Col::int_at("Ready", "status.readyReplicas"),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Columns of a ReplicationController.
pub(crate) const REPLICATION_CONTROLLER: &[Col] = &[
    Col::int_at("Desired", "spec.replicas"),
    Col::int_at("Current", "status.replicas"),
    Col::int_at("Ready", "status.readyReplicas"),
    AGE,
    CONTAINERS,
    IMAGES,
    Col::text("Selector", |o, _| super::labels(o.get(&["spec", "selector"])).into()).wide(),
];

/// Columns of a StatefulSet.
pub(crate) const STATEFUL_SET: &[Col] = &[Col::text("Ready", ready_of_desired), AGE, CONTAINERS, IMAGES];

/// Columns of a DaemonSet.
pub(crate) const DAEMON_SET: &[Col] = &[
    Col::int_at("Desired", "status.desiredNumberScheduled"),
    Col::int_at("Current", "status.currentNumberScheduled"),
    Col::int_at("Ready", "status.numberReady"),
    Col::int_at("Up-to-date", "status.updatedNumberScheduled"),
    Col::int_at("Available", "status.numberAvailable"),
    Col::text("Node Selector", |o, _| {
        super::labels(o.get(&["spec", "template", "spec", "nodeSelector"])).into()
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Columns of a ControllerRevision.
pub(crate) const CONTROLLER_REVISION: &[Col] = &[
    Col::text("Controller", |revision, _| {
        let owners = revision.list(&["metadata", "ownerReferences"]).iter();
        let owner = owners.into_iter().find(|owner| owner["controller"] == true);
        owner.map_or_else(
            || "<none>".into(),
            |owner| {
                let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
                let kind = text("kind").to_lowercase();
                let group =
                    text("apiVersion").split_once('/').map_or(String::new(), |(g, _)| format!(".{g}"));
                format!("{kind}{group}/{}", text("name")).into()
            },
        )
    }),
    Col::text("Revision", |o, _| count(o, &["revision"]).into()),
    AGE,
];

/// Columns of a Job.
pub(crate) const JOB: &[Col] = &[
    Col::text("Status", job_status),
    Col::text("Completions", completions),
    Col::text("Duration", duration),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

fn job_status(job: &Object, _: Timestamp) -> Value {
    let holds = |kind: &str| meta::is_condition_true(job, kind);
    let ended = ["Complete", "Failed"].into_iter().find(|kind| holds(kind));
    let later = || ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| holds(kind));
    let deleting = job.is_deleting().then_some("Terminating");
    ended.or(deleting).or_else(later).unwrap_or("Running").into()
}

fn completions(job: &Object, _: Timestamp) -> Value {
    let succeeded = count(job, &["status", "succeeded"]);
    match (job.int(&["spec", "completions"]), count(job, &["spec", "parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, many) if many > 1 => format!("{succeeded}/1 of {many}"),
        (None, _) => format!("{succeeded}/1"),
    }
    .into()
}

fn duration(job: &Object, now: Timestamp) -> Value {
    let at = |field: &str| job.str(&["status", field]).and_then(parse);
    let Some(start) = at("startTime") else { return "".into() };
    human(at("completionTime").unwrap_or(now).as_second() - start.as_second()).into()
}

const JOB_CONTAINERS: [&str; 6] = ["spec", "jobTemplate", "spec", "template", "spec", "containers"];

/// Columns of a CronJob.
pub(crate) const CRON_JOB: &[Col] = &[
    Col::text_at("Schedule", "spec.schedule", ""),
    Col::text_at("Timezone", "spec.timeZone", "<none>"),
    Col::bool_at("Suspend", "spec.suspend"),
    Col::int("Active", |o, _| o.list(&["status", "active"]).len().into()),
    Col::text("Last Schedule", |o, now| {
        let at = o.str(&["status", "lastScheduleTime"]);
        if at.is_some() { since(at, now).into() } else { "<none>".into() }
    }),
    AGE,
    Col::text("Containers", |o, _| containers_at(o, &JOB_CONTAINERS, "name")).wide(),
    Col::text("Images", |o, _| containers_at(o, &JOB_CONTAINERS, "image")).wide(),
    Col::text("Selector", |o, _| {
        selector(o.get(&["spec", "jobTemplate", "spec", "selector"]), "<none>").into()
    })
    .wide(),
];

/// Columns of a PodDisruptionBudget.
pub(crate) const DISRUPTION_BUDGET: &[Col] = &[
    Col::text("Min Available", |o, _| amount(o.get(&["spec", "minAvailable"]))),
    Col::text("Max Unavailable", |o, _| amount(o.get(&["spec", "maxUnavailable"]))),
    Col::int_at("Allowed Disruptions", "status.disruptionsAllowed"),
    AGE,
];

fn amount(value: Option<&Value>) -> Value {
    match value {
        Some(Value::String(text)) => text.as_str().into(),
        Some(number @ Value::Number(_)) => number.to_string().into(),
        _ => "N/A".into(),
    }
}

/// Columns of a HorizontalPodAutoscaler.
pub(crate) const AUTOSCALER: &[Col] = &[
    Col::text("Reference", |o, _| {
        let text = |field| o.str(&["spec", "scaleTargetRef", field]).unwrap_or_default();
        format!("{}/{}", text("kind"), text("name")).into()
    }),
    Col::text("Targets", metrics),
    Col::text("MinPods", |o, _| {
        o.int(&["spec", "minReplicas"]).map_or_else(|| "<unset>".into(), |min| min.to_string().into())
    }),
    Col::text("MaxPods", |o, _| count(o, &["spec", "maxReplicas"]).into()),
    Col::text("Replicas", |o, _| count(o, &["status", "currentReplicas"]).into()),
    AGE,
];

/// As many metrics as are shown.
const METRICS_MAX: usize = 2;

fn metrics(autoscaler: &Object, _: Timestamp) -> Value {
    if autoscaler.api_version() == "autoscaling/v1" {
        return cpu_only(autoscaler).into();
    }
    let current = autoscaler.list(&["status", "currentMetrics"]);
    let specs = autoscaler.list(&["spec", "metrics"]).iter().enumerate();
    let shown: Vec<String> = specs.map(|(i, spec)| metric(spec, current.get(i))).collect();
    super::some_of(&shown, METRICS_MAX).into()
}

fn cpu_only(autoscaler: &Object) -> String {
    let percent = |path: &[&str], none: &str| {
        autoscaler.int(path).map_or_else(|| none.to_owned(), |percent| format!("{percent}%"))
    };
    let current = percent(&["status", "currentCPUUtilizationPercentage"], "<unknown>");
    format!("cpu: {current}/{}", percent(&["spec", "targetCPUUtilizationPercentage"], "<auto>"))
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let of = spec.get("type").and_then(Value::as_str).unwrap_or_default();
    let key = match of {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let target = |field: &str| spec.get(key)?.get("target")?.get(field);
    let current = |field: &str| status?.get(key)?.get("current")?.get(field);
    let text = |value: Option<&Value>| or(value.and_then(Value::as_str), "<unknown>").to_owned();
    let resource = spec.get(key).and_then(|m| m.get("name")?.as_str()).unwrap_or_default();
    let named = matches!(key, "resource" | "containerResource");
    let percent = |value: Option<&Value>, none: &str| {
        value.and_then(Value::as_i64).map_or_else(|| none.to_owned(), |percent| format!("{percent}%"))
    };
    match target("averageValue") {
        Some(average) if named => {
            format!("{resource}: {}/{}", text(current("averageValue")), text(Some(average)))
        }
        None if named => {
            let have = percent(current("averageUtilization"), "<unknown>");
            format!("{resource}: {have}/{}", percent(target("averageUtilization"), "<auto>"))
        }
        Some(average) if key == "pods" => {
            format!("{}/{}", text(current("averageValue")), text(Some(average)))
        }
        Some(average) => format!("{}/{} (avg)", text(current("averageValue")), text(Some(average))),
        None => format!("{}/{}", text(current("value")), text(target("value"))),
    }
}
