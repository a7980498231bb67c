//! Why a pod goes where.

use rpc::scheduler::{ExplainResponse, NodeVerdict, PluginScore, Refusal};

use crate::{
    core::Core,
    decide::{Decision, Verdict, decide, explain as verdicts},
    pod::PodInfo,
    preempt::{NoRoom, preempt},
};

/// Judges every node for a pod as the API server has it. A pod that has a node is judged without itself.
pub(super) fn explain(core: &mut Core, pod: &PodInfo) -> ExplainResponse {
    let mut out = ExplainResponse {
        namespace: pod.key.namespace.clone(),
        name: pod.key.name.clone(),
        scheduler_name: pod.scheduler_name.to_string(),
        ..ExplainResponse::default()
    };
    let node = core.snapshot().node_of(&pod.uid).cloned().or_else(|| pod.node_name.clone());
    out.node = node.as_deref().unwrap_or_default().to_owned();
    let nominated = core.snapshot().nominees().node_of(&pod.uid).or(pod.nominated.as_ref());
    out.nominated_node = nominated.map(ToString::to_string).unwrap_or_default();
    if let Some(place) = core.queue().place_of(&pod.uid) {
        place.clone_into(&mut out.queue);
    }
    if !pod.gates.is_empty() {
        out.message = format!("waits for its scheduling gates: {}", pod.gates.join(", "));
    }
    let Some(profile) = core.profile(&pod.scheduler_name).cloned() else {
        out.message = format!("left to scheduler {:?}, which this one is not", pod.scheduler_name);
        return out;
    };
    let judged = PodInfo { node_name: None, nominated: None, ..pod.clone() };
    let taken_out = core.take_out(&pod.uid);
    let snapshot = core.snapshot();
    match verdicts(&judged, snapshot, &profile) {
        Ok(all) => out.nodes = all.into_iter().map(verdict).collect(),
        Err(refusal) => out.refusal = refusal.into_owned(),
    }
    if node.is_none()
        && out.message.is_empty()
        && let Decision::Unfit(why) = decide(&judged, snapshot, &profile)
    {
        out.message = match preempt(&judged, snapshot, &profile, &why) {
            Ok(room) => {
                let victims: Vec<String> = room.victims.iter().map(|v| v.key.to_string()).collect();
                format!(
                    "{why} preemption: room can be made on {} by deleting {}.",
                    room.node,
                    victims.join(", ")
                )
            }
            Err(NoRoom::Off) => why.to_string(),
            Err(NoRoom::NotNow(sentence) | NoRoom::Hopeless(sentence)) => {
                format!("{why} preemption: {sentence}")
            }
        };
    }
    core.put_back(taken_out);
    out.nodes.sort_by(|a, b| {
        b.fits.cmp(&a.fits).then_with(|| b.total.cmp(&a.total)).then_with(|| a.node.cmp(&b.node))
    });
    out
}

fn verdict(from: Verdict) -> NodeVerdict {
    let Verdict { node, refused, scores } = from;
    NodeVerdict {
        node: node.to_string(),
        fits: refused.is_empty(),
        total: scores.iter().map(|(_, score)| score).sum(),
        refused: refused
            .into_iter()
            .map(|(plugin, reasons)| Refusal {
                plugin: plugin.to_owned(),
                reasons: reasons.into_iter().map(std::borrow::Cow::into_owned).collect(),
            })
            .collect(),
        scores: scores
            .into_iter()
            .map(|(plugin, score)| PluginScore { plugin: plugin.to_owned(), score })
            .collect(),
    }
}
