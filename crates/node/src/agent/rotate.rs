//! Keeping container logs bounded: 10 MiB a file, five files (upstream's `containerLogMaxSize` and
//! `containerLogMaxFiles`).
//!
//! Guarantees: nothing that a container has said is lost at the moment of rotation; the runtime goes
//! on writing to the moved file until it is told to reopen.

use std::{path::Path, sync::Arc, time::Duration};

use super::Agent;

const BYTES_MAX: u64 = 10 << 20;
/// Older files beside the one that is written to.
const KEEP: usize = 4;
/// Upstream's `containerLogMonitorInterval`.
const EVERY: Duration = Duration::from_secs(10);

/// Looks at the logs of running containers from time to time. Nothing to do on a simulated machine.
pub(super) async fn run(agent: Arc<Agent>) {
    if agent.options.host.is_simulated() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        match agent.runtime.observe().await {
            Ok(pods) => {
                let containers = pods.iter().flat_map(|pod| pod.containers.iter());
                for container in
                    containers.filter(|container| container.is_running() && !container.log_path.is_empty())
                {
                    rotate(&agent, &container.id, Path::new(&container.log_path)).await;
                }
            }
            Err(error) => tracing::debug!(%error, "cannot look for logs to rotate"),
        }
    }
}

async fn rotate(agent: &Agent, id: &str, path: &Path) {
    match agent.options.host.rotate_log(path, BYTES_MAX, KEEP).await {
        Ok(false) => {}
        Ok(true) => {
            if let Err(error) = agent.runtime.reopen_log(id).await {
                tracing::warn!(container = id, path = %path.display(), %error, "the runtime did not reopen a rotated log");
            }
        }
        Err(error) => tracing::warn!(container = id, path = %path.display(), %error, "cannot rotate a log"),
    }
}
