//! Pods: how many containers are ready, and in one word what is going on.

use meta::{Object, Timestamp, Value};

use super::{AGE, Col, age::parse, or, since};

/// Columns of a Pod.
pub(crate) const POD: &[Col] = &[
    Col::text("Ready", |pod, now| Summary::of(pod, now).ready.into()),
    Col::text("Status", |pod, now| Summary::of(pod, now).status.into()),
    Col::text("Restarts", |pod, now| Summary::of(pod, now).restarts.into()),
    AGE,
    Col::text("IP", |pod, _| {
        let ip = pod.list(&["status", "podIPs"]).first().and_then(|ip| ip.get("ip")?.as_str());
        or(ip, "<none>").into()
    })
    .wide(),
    Col::text_at("Node", "spec.nodeName", "<none>").wide(),
    Col::text_at("Nominated Node", "status.nominatedNodeName", "<none>").wide(),
    Col::text("Readiness Gates", gates).wide(),
];

/// Columns of a PodTemplate.
pub(crate) const POD_TEMPLATE: &[Col] = &[
    Col::text("Containers", |o, _| super::containers_at(o, &["template", "spec", "containers"], "name")),
    Col::text("Images", |o, _| super::containers_at(o, &["template", "spec", "containers"], "image")),
    Col::text("Pod Labels", |o, _| super::labels(o.get(&["template", "metadata", "labels"])).into()),
];

fn gates(pod: &Object, _: Timestamp) -> Value {
    let gates = pod.list(&["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let conditions = pod.list(&["status", "conditions"]);
    let open = gates.iter().filter(|gate| {
        conditions.iter().any(|c| c.get("type") == gate.get("conditionType") && c["status"] == "True")
    });
    format!("{}/{}", open.count(), gates.len()).into()
}

struct Summary {
    ready: String,
    status: String,
    restarts: String,
}

/// What the containers say, gathered one by one.
#[derive(Default)]
struct Count {
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Count {
    fn restart(&mut self, status: &Value) {
        self.restarts += status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        let finished = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str);
        self.last_restart = self.last_restart.max(finished.and_then(parse));
    }
}

impl Summary {
    /// Upstream's `printPod`, step by step.
    fn of(pod: &Object, now: Timestamp) -> Self {
        let phase = pod.str(&["status", "phase"]).unwrap_or_default();
        let mut reason = or(pod.str(&["status", "reason"]), phase).to_owned();
        let conditions = pod.list(&["status", "conditions"]);
        let holds = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
        if conditions.iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut reason);
        }
        let sidecars = Sidecars(pod.list(&["spec", "initContainers"]));
        let total = pod.list(&["spec", "containers"]).len() + sidecars.count();
        let (mut count, of_sidecars, initializing) = init(pod, &sidecars, &mut reason);
        if initializing.is_none() || holds("Initialized") {
            let ready = count.ready;
            count = of_sidecars;
            count.ready = ready;
            main(pod, &mut count, &mut reason, holds("Ready"));
        }
        if pod.is_deleting() {
            if pod.str(&["status", "reason"]) == Some("NodeLost") {
                "Unknown".clone_into(&mut reason);
            } else if !matches!(phase, "Failed" | "Succeeded") {
                "Terminating".clone_into(&mut reason);
            }
        }
        let restarts = match count.last_restart.filter(|_| count.restarts != 0) {
            Some(at) => format!("{} ({} ago)", count.restarts, since(Some(&at.to_string()), now)),
            None => count.restarts.to_string(),
        };
        Self { ready: format!("{}/{total}", count.ready), status: reason, restarts }
    }
}

/// Init containers that keep running.
struct Sidecars<'a>(&'a [Value]);

impl Sidecars<'_> {
    fn is(&self, status: &Value) -> bool {
        self.0.iter().any(|c| c.get("name") == status.get("name") && restarts_always(c))
    }

    fn count(&self) -> usize {
        self.0.iter().filter(|container| restarts_always(container)).count()
    }
}

fn restarts_always(container: &Value) -> bool {
    container.get("restartPolicy").and_then(Value::as_str) == Some("Always")
}

/// Walks the init containers up to the first that is not through. Gives the counts of all, those of
/// sidecars alone, and whether one is not through.
fn init(pod: &Object, sidecars: &Sidecars<'_>, reason: &mut String) -> (Count, Count, Option<()>) {
    let (mut all, mut own) = (Count::default(), Count::default());
    for (i, status) in pod.list(&["status", "initContainerStatuses"]).iter().enumerate() {
        let sidecar = sidecars.is(status);
        all.restart(status);
        if sidecar {
            own.restart(status);
        }
        let terminated = status.pointer("/state/terminated");
        if terminated.is_some_and(|t| t.get("exitCode").and_then(Value::as_i64).unwrap_or(0) == 0) {
            continue;
        }
        if sidecar && status["started"] == true {
            all.ready += usize::from(status["ready"] == true);
            continue;
        }
        let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str);
        *reason = match (terminated, waiting.filter(|why| !why.is_empty() && *why != "PodInitializing")) {
            (Some(terminated), _) => format!("Init:{}", ended(terminated)),
            (None, Some(why)) => format!("Init:{why}"),
            (None, None) => format!("Init:{i}/{}", sidecars.0.len()),
        };
        return (all, own, Some(()));
    }
    (all, own, None)
}

/// Why a container ended.
fn ended(terminated: &Value) -> String {
    let number = |field: &str| terminated.get(field).and_then(Value::as_i64).unwrap_or(0);
    match terminated.get("reason").and_then(Value::as_str).filter(|reason| !reason.is_empty()) {
        Some(reason) => reason.to_owned(),
        None if number("signal") != 0 => format!("Signal:{}", number("signal")),
        None => format!("ExitCode:{}", number("exitCode")),
    }
}

/// Walks the regular containers, last first: the first one has the last word.
fn main(pod: &Object, count: &mut Count, reason: &mut String, pod_ready: bool) {
    let mut running = false;
    let mut failure: Option<String> = None;
    for status in pod.list(&["status", "containerStatuses"]).iter().rev() {
        count.restart(status);
        let waiting = status.pointer("/state/waiting/reason").and_then(Value::as_str);
        if let Some(why) = waiting.filter(|why| !why.is_empty()) {
            why.clone_into(reason);
        } else if let Some(terminated) = status.pointer("/state/terminated") {
            *reason = ended(terminated);
            if terminated.get("exitCode").and_then(Value::as_i64).unwrap_or(0) != 0 {
                failure = Some(reason.clone());
            }
        } else if status["ready"] == true && status.pointer("/state/running").is_some() {
            running = true;
            count.ready += 1;
        }
    }
    if reason == "Completed" {
        match failure {
            _ if running && pod_ready => "Running".clone_into(reason),
            Some(failure) => *reason = failure,
            None if running => "NotReady".clone_into(reason),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    fn check(spec: Value, status: Value, expected: (&str, &str, &str)) {
        let pod = object(json!({"metadata": {"name": "p"}, "spec": spec, "status": status}));
        let summary = Summary::of(&pod, "2024-01-01T00:10:00Z".parse().unwrap());
        assert_eq!((&*summary.ready, &*summary.status, &*summary.restarts), expected);
    }

    #[test]
    fn one_word_for_what_goes_on() {
        let two = || json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let running = || json!({"ready": true, "state": {"running": {}}});
        check(two(), json!({"phase": "Pending"}), ("0/2", "Pending", "0"));
        check(
            two(),
            json!({"phase": "Running", "containerStatuses": [running(), running()]}),
            ("2/2", "Running", "0"),
        );
        let crashing = json!({"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2024-01-01T00:05:00Z"}}});
        check(
            two(),
            json!({"phase": "Running", "containerStatuses": [running(), crashing]}),
            ("1/2", "CrashLoopBackOff", "3 (5m ago)"),
        );
        let done = json!({"state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
        check(
            two(),
            json!({"phase": "Running", "containerStatuses": [done, running()]}),
            ("1/2", "NotReady", "0"),
        );
        let killed = json!({"state": {"terminated": {"signal": 9, "exitCode": 137}}});
        check(two(), json!({"phase": "Failed", "containerStatuses": [killed]}), ("0/2", "Signal:9", "0"));
        check(two(), json!({"phase": "Failed", "reason": "Evicted"}), ("0/2", "Evicted", "0"));
    }

    #[test]
    fn init_containers_come_first() {
        let spec =
            || json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let status = |init: Value| json!({"phase": "Pending", "initContainerStatuses": init});
        let done = || json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        check(spec(), status(json!([{"name": "i", "state": {"running": {}}}])), ("0/1", "Init:0/2", "0"));
        check(
            spec(),
            status(json!([done(), {"name": "j", "state": {"running": {}}}])),
            ("0/1", "Init:1/2", "0"),
        );
        let failed = json!([done(), {"name": "j", "restartCount": 1, "state": {"terminated": {"reason": "Error", "exitCode": 1}}}]);
        check(spec(), status(failed), ("0/1", "Init:Error", "1"));
        let waiting = json!([{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]);
        check(spec(), status(waiting), ("0/1", "Init:ImagePullBackOff", "0"));

        let sidecar = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let status = json!({"phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"ready": true, "state": {"running": {}}}]});
        check(sidecar, status, ("2/2", "Running", "0"));
    }

    #[test]
    fn deletion_shows() {
        let pod = object(
            json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Running"}}),
        );
        assert_eq!(Summary::of(&pod, Timestamp::UNIX_EPOCH).status, "Terminating");
    }
}
