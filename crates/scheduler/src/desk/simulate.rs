//! Where pods would go.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use rpc::scheduler::{SimulateResponse, SimulatedPod};

use crate::{
    core::Core,
    decide::{Decision, decide},
    pod::PodInfo,
    preempt::{NoRoom, preempt},
};

/// A pod to place: with a name, a namespace and a UID that no real pod has.
pub(super) fn imagined(pod: &Pod, at: usize) -> PodInfo {
    let mut pod = pod.clone();
    let metadata = &mut pod.metadata;
    metadata.uid = Some(format!("simulated/{at}"));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let generated = metadata.generate_name.clone().unwrap_or_else(|| "pod-".to_owned());
    metadata.name.get_or_insert_with(|| format!("{generated}{at}"));
    pod.status = None;
    PodInfo::read(&pod)
}

/// Places the pods one after the other, counting each where it goes, then takes all back.
pub(super) fn simulate(core: &mut Core, pods: &[PodInfo]) -> SimulateResponse {
    let mut placed: Vec<(Arc<str>, crate::Bindings)> = Vec::new();
    let mut out = SimulateResponse::default();
    for pod in pods {
        let mut answer = SimulatedPod {
            namespace: pod.key.namespace.clone(),
            name: pod.key.name.clone(),
            ..SimulatedPod::default()
        };
        match core.profile(&pod.scheduler_name).cloned() {
            None => {
                answer.message = format!("left to scheduler {:?}, which this one is not", pod.scheduler_name);
            }
            Some(_) if !pod.gates.is_empty() => {
                answer.message = format!("waits for its scheduling gates: {}", pod.gates.join(", "));
            }
            Some(profile) => match decide(pod, core.snapshot(), &profile) {
                Decision::Place(placement) => {
                    answer.node = placement.node.to_string();
                    answer.score = placement.score;
                    answer.feasible = i64::try_from(placement.feasible).unwrap_or(i64::MAX);
                    core.imagine(pod, &placement);
                    placed.push((Arc::clone(&pod.uid), placement.bindings));
                }
                Decision::Unfit(why) => match preempt(pod, core.snapshot(), &profile, &why) {
                    Ok(room) => {
                        answer.message = format!("{why} Room can be made on {}.", room.node);
                        answer.victims = room.victims.iter().map(|v| v.key.to_string()).collect();
                    }
                    Err(NoRoom::Off) => answer.message = why.to_string(),
                    Err(NoRoom::NotNow(sentence) | NoRoom::Hopeless(sentence)) => {
                        answer.message = format!("{why} preemption: {sentence}");
                    }
                },
            },
        }
        out.pods.push(answer);
    }
    for (uid, bindings) in placed.iter().rev() {
        core.unimagine(uid, bindings);
    }
    out
}
