//! Samples what pods and machine use, for the metrics API.

use std::sync::Arc;

use super::Agent;
use crate::usage::{Board, SAMPLE_EVERY, Sampler};

/// Puts a report on the board after each sample. One that fails is left out: the last report grows old.
pub(super) async fn run(agent: Arc<Agent>, board: Arc<Board>) {
    let mut sampler = Sampler::default();
    loop {
        let (measured, stats) = (agent.options.host.measure().await, agent.runtime.stats().await);
        match (measured, stats) {
            (Ok(measured), Ok(stats)) => {
                let labels = agent.view().node.labels;
                let pods = agent.pods.list();
                if let Some(report) = sampler.sample(agent.now(), &measured, &stats.containers, &pods, labels)
                {
                    board.put(&agent.options.name, report);
                }
            }
            (Err(error), _) => tracing::debug!(%error, "cannot measure this machine"),
            (_, Err(error)) => tracing::debug!(%error, "cannot measure the pods"),
        }
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}
