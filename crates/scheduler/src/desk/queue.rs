//! The pods that wait.

use rpc::scheduler::{QueueResponse, QueuedPod};

use crate::core::Core;

pub(super) fn queue(core: &Core, limit: usize) -> QueueResponse {
    let mut out = QueueResponse::default();
    for waiting in core.queue().list() {
        let count = match waiting.place {
            "active" => &mut out.active,
            "backoff" => &mut out.backoff,
            "unschedulable" => &mut out.unschedulable,
            "gated" => &mut out.gated,
            _ => &mut out.binding,
        };
        *count += 1;
        if out.pods.len() < limit {
            let pod = waiting.pod;
            let nominated = core.snapshot().nominees().node_of(&pod.uid);
            let gates =
                (!pod.gates.is_empty()).then(|| format!("scheduling gates: {}", pod.gates.join(", ")));
            let why = waiting.why.filter(|_| waiting.place != "binding");
            out.pods.push(QueuedPod {
                namespace: pod.key.namespace.clone(),
                name: pod.key.name.clone(),
                queue: waiting.place.to_owned(),
                priority: pod.priority,
                attempts: waiting.attempts,
                plugins: why.map(|w| w.by.iter().map(ToString::to_string).collect()).unwrap_or_default(),
                nominated_node: nominated.map(ToString::to_string).unwrap_or_default(),
                message: gates.or_else(|| why.map(ToString::to_string)).unwrap_or_default(),
            });
        }
    }
    out
}
