//! Telling the API server, and collecting what only the machine knows of an end.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use meta::Timestamp;
use runtime::{ContainerState, log::Log};

use super::Worker;
use crate::{log, pod, status};

/// A status patch that takes longer is given up and tried again.
const PATCH_MAX: Duration = Duration::from_secs(15);
/// Most of a log that stands in for a termination message (upstream `kuberuntime_manager.go`).
const FALLBACK_BYTES_MAX: usize = 2048;
/// Most lines of it.
const FALLBACK_LINES_MAX: usize = 80;

/// What came of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reported {
    Same,
    Changed,
    Failed,
}

impl Worker {
    /// Patches the status when it changed; one pod of the node after the other.
    pub(super) async fn report(&mut self) -> Reported {
        if self.have.gone || self.status_patch().is_none() {
            return Reported::Same;
        }
        let agent = Arc::clone(&self.agent);
        // It is never closed.
        let _turn = agent.reports.acquire().await;
        let Some(patch) = self.status_patch() else { return Reported::Same };
        let pods: Api<Pod> = Api::namespaced(self.agent.client.clone(), pod::namespace(&self.pod));
        tracing::debug!(pod = %pod::long_name(&self.pod), %patch, "reporting the status");
        let (params, patch) = (PatchParams::default(), Patch::Strategic(patch));
        let sent =
            tokio::time::timeout(PATCH_MAX, pods.patch_status(pod::name(&self.pod), &params, &patch)).await;
        match sent {
            Ok(Ok(updated)) => {
                // A server that does not keep what it was sent must not be asked again and again.
                let kept = updated.status != self.pod.status;
                self.pod = pod::lean(updated);
                if kept { Reported::Changed } else { Reported::Same }
            }
            // It is gone or was replaced under the same name; the watch will say so.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Reported::Failed,
            Ok(Err(error)) => {
                tracing::warn!(pod = %pod::long_name(&self.pod), error = reconcile::text(&error), "cannot report the status");
                Reported::Failed
            }
            Err(_) => {
                tracing::warn!(pod = %pod::long_name(&self.pod), "the API server does not answer a status patch");
                Reported::Failed
            }
        }
    }

    fn status_patch(&self) -> Option<serde_json::Value> {
        let status = status::derive(&self.pod, &self.have, &self.agent.facts(), self.agent.now());
        status::patch(&self.pod, &status)
    }

    /// Whether the API server has the status that says how a deleted pod ended.
    pub(super) fn is_end_reported(&self, now: Timestamp) -> bool {
        let running = self.have.containers().any(runtime::ObservedContainer::is_running);
        if running || !pod::is_deleting(&self.pod) {
            return false;
        }
        let status = status::derive(&self.pod, &self.have, &self.agent.facts(), now);
        status::patch(&self.pod, &status).is_none()
    }

    /// Reads the message of each container that ended since the last look.
    pub(super) async fn read_termination_messages(&mut self) {
        if self.agent.options.host.is_simulated() {
            return;
        }
        let ephemeral: Vec<_> = pod::ephemeral(&self.pod).collect();
        let ended: Vec<(String, String, u32, i32)> = pod::members(&self.pod)
            .chain(ephemeral.iter().map(pod::Ephemeral::member))
            .filter_map(|member| {
                let seen = self.have.container(&member.container.name)?;
                let ContainerState::Exited { exit_code, .. } = seen.state else { return None };
                let known =
                    self.have.facts.get(&seen.name).and_then(|facts| facts.termination_message.as_ref());
                let read = known.is_some_and(|(id, _)| *id == seen.id);
                (!read).then(|| (seen.name.clone(), seen.id.clone(), seen.attempt, exit_code))
            })
            .collect();
        for (name, id, attempt, code) in ended {
            let text = match self.termination_message(&name, &id, attempt, code).await {
                Ok(text) => text,
                Err(why) => {
                    tracing::warn!(pod = %pod::long_name(&self.pod), container = name, why, "no termination message");
                    String::new()
                }
            };
            self.facts(&name).termination_message = Some((id, text));
        }
    }

    async fn termination_message(
        &self,
        name: &str,
        id: &str,
        attempt: u32,
        code: i32,
    ) -> Result<String, String> {
        let host = &self.agent.options.host;
        let text =
            host.termination_message(pod::uid(&self.pod), name, attempt).await.map_err(|e| e.to_string())?;
        let container = pod::member(&self.pod, name).map(|member| member.container);
        let policy = container.and_then(|container| container.termination_message_policy.as_deref());
        if !text.is_empty() || code == 0 || policy != Some("FallbackToLogsOnError") {
            return Ok(text);
        }
        match self.agent.runtime.log(id).await.map_err(|error| error.to_string())? {
            Log::Lines(lines) => Ok(log::plain_tail(&lines, FALLBACK_LINES_MAX, FALLBACK_BYTES_MAX)),
            Log::File(path) => {
                // Each entry has a header of about fifty bytes, which is not counted.
                let raw = FALLBACK_BYTES_MAX + FALLBACK_LINES_MAX * 64;
                let read = tokio::task::spawn_blocking(move || log::tail_of_file(&path, raw)).await;
                let text = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                let lines: Vec<_> =
                    text.lines().filter_map(|line| runtime::log::Line::parse(line.as_bytes())).collect();
                Ok(log::plain_tail(&lines, FALLBACK_LINES_MAX, FALLBACK_BYTES_MAX))
            }
        }
    }
}
