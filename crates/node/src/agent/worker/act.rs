//! Carrying out the actions of a plan, each as a job, and taking in what came of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};
use runtime::Action as Step;
use tokio::task::{Id, JoinError};

use super::Worker;
use crate::{
    agent::{
        Agent,
        events::Level,
        job::{Failed, Outcome, Subject},
        start::Start,
        stop::Stop,
        volumes,
    },
    backoff::{self, Backoff, since},
    plan::{Action, Again, Busy, Facts, Failure, Volumes},
    pod, resize, resources, sandbox,
};

/// Wait before a container whose configuration is wrong is tried again: what it lacks may appear.
const CONFIG_RETRY: Duration = Duration::from_secs(5);
/// Waits after a sandbox or volumes could not be made: from a second to ten, because what they lack
/// (a Secret, a bound claim) is usually being made by somebody.
const POD_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Waits after a container could not be resized: what is in the way is mostly that it uses too much.
const RESIZE_RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// Deletes the Pod object for good, if it is still this pod.
async fn delete(agent: &Agent, want: &Pod) -> Result<(), Failed> {
    let pods: Api<Pod> = Api::namespaced(agent.client.clone(), pod::namespace(want));
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: want.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match pods.delete(pod::name(want), &params).await {
        Ok(_) => Ok(()),
        // Gone already, or another pod of the same name: the watch will tell.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Failed::new("FailedDelete", error)),
    }
}

/// Tells the runtime what a container has now. Memory is not taken from under it: the kernel would kill.
async fn resize(agent: &Agent, want: &Pod, id: &str, name: &str) -> Result<ResourceRequirements, Failed> {
    let gone = || Failed::new("ResizeError", format!("container {name} is no longer in the pod"));
    let container = pod::member(want, name).ok_or_else(gone)?.container;
    let limits = resources::limits(want, container, agent.view().memory_bytes);
    if limits.memory_limit_bytes > 0 {
        let stats = agent.runtime.stats().await?;
        let used = stats.containers.iter().find(|stats| stats.id == id);
        let used = used.map_or(0, |stats| stats.memory_working_set_bytes);
        if u64::try_from(limits.memory_limit_bytes).is_ok_and(|limit| limit < used) {
            let limit = limits.memory_limit_bytes;
            let why =
                format!("attempting to set memory limit ({limit}) of {name} below current usage ({used})");
            return Err(Failed::new("ResizeError", why));
        }
    }
    agent.runtime.act(&Step::UpdateContainer { id: id.to_owned(), resources: limits }).await?;
    Ok(container.resources.clone().unwrap_or_default())
}

impl Worker {
    /// Starts the job for an action.
    pub(super) fn begin(&mut self, action: Action) {
        let agent = Arc::clone(&self.agent);
        let want = Arc::clone(&self.pod);
        let uid = pod::uid(&want).to_owned();
        match action {
            Action::Recheck { .. } => {}
            Action::SetUpVolumes => {
                let (ips, tokens) = (self.pod_ips(), self.tokens.clone());
                self.spawn(Subject::Pod, async move {
                    Outcome::Volumes(volumes::set_up(agent, want, ips, tokens).await)
                });
            }
            Action::TearDownVolumes => self.spawn(Subject::Pod, async move {
                let done = agent.options.host.tear_down_volumes(&uid).await;
                Outcome::VolumesGone(done.map_err(|error| Failed::new("FailedUnmount", error)))
            }),
            Action::CreateSandbox { attempt } => self.spawn(Subject::Pod, async move {
                let made = async {
                    let mut spec = agent.sandbox_spec(&want, attempt).await?;
                    spec.runtime_handler = agent.runtime_handler(&want).await?;
                    agent.runtime.act(&Step::CreateSandbox(Box::new(spec))).await.map_err(Failed::from)
                };
                Outcome::Sandbox(made.await.map(drop))
            }),
            Action::StopSandbox { id } => {
                self.spawn_step(Subject::Pod, Step::StopSandbox { id }, Outcome::SandboxGone)
            }
            Action::RemoveSandbox { id } => {
                self.spawn_step(Subject::Pod, Step::RemoveSandbox { id }, Outcome::SandboxGone);
            }
            Action::RemoveContainer { id } => {
                self.spawn_step(Subject::Pod, Step::RemoveContainer { id }, Outcome::Removed);
            }
            Action::StartContainer { name, role: _, attempt, sandbox, replaces, backoff } => {
                self.start(
                    Start {
                        agent,
                        want: resize::as_allocated(&want, &self.have),
                        name,
                        attempt,
                        sandbox,
                        sandbox_attempt: self.have.sandbox().map_or(0, |sandbox| sandbox.attempt),
                        replaces,
                        pod_ips: self.pod_ips(),
                        volumes: self.volumes.clone(),
                        running: self.running(),
                    },
                    backoff,
                );
            }
            Action::ResizeContainer { id, name } => self.resize(id, name),
            Action::StopContainer { id, name, grace, why, renew } => {
                if renew {
                    self.facts(&name).renewed = Some(id.clone());
                }
                let ip = self.pod_ips().into_iter().next().unwrap_or_default();
                self.stop(Stop { agent, want, id, name, grace, why, ip, hook_done: false });
            }
            Action::BackOff { name, again } => self.tell_back_off(&name, again),
            Action::AbortStart { name } => {
                let of = Subject::Container(name);
                for (_, handle) in self.subjects.values().filter(|(subject, _)| *subject == of) {
                    handle.abort();
                }
            }
            Action::Delete => {
                self.spawn(Subject::Pod, async move { Outcome::Deleted(delete(&agent, &want).await) })
            }
            Action::Forget => self.spawn(Subject::Pod, async move {
                let logs = sandbox::log_dir(&agent.options.log_dir, &want);
                let done = agent.options.host.forget_pod(&uid, &logs).await;
                Outcome::Forgotten(done.map_err(|error| Failed::new("FailedCleanup", error)))
            }),
        }
    }

    /// Runtime ids of the containers that run, by name.
    fn running(&self) -> BTreeMap<String, String> {
        let running = self.have.containers().filter(|container| container.is_running());
        running.map(|container| (container.name.clone(), container.id.clone())).collect()
    }

    /// The words and types are upstream's (`kuberuntime_manager.go`, `doBackOff`; `image_manager.go`).
    fn tell_back_off(&mut self, name: &str, again: Again) {
        let (agent, want) = (Arc::clone(&self.agent), Arc::clone(&self.pod));
        self.facts(name).told = Some(agent.now());
        let tell = |level, reason, message| agent.event(&want, Some(name), level, reason, message);
        match again {
            Again::Run => {
                let pod = pod::long_name(&want);
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                tell(Level::Warning, "BackOff", message);
            }
            Again::Pull => {
                let image = pod::image(&want, name);
                tell(Level::Normal, "BackOff", format!("Back-off pulling image {image:?}"));
                tell(Level::Warning, "Failed", "Error: ImagePullBackOff".to_owned());
            }
        }
    }

    fn start(&mut self, start: Start, backoff: Option<Backoff>) {
        let name = start.name.clone();
        let facts = self.facts(&name);
        facts.busy = Some(Busy::Starting);
        if backoff.is_some() {
            facts.crash = backoff;
        }
        let member = pod::member(&start.want, &name);
        facts.resources = member.and_then(|member| member.container.resources.clone());
        facts.resize_failure = None;
        self.spawn(Subject::Container(name), async move { Outcome::Started(start.run().await) });
    }

    fn stop(&mut self, mut stop: Stop) {
        let subject = Subject::Container(stop.name.clone());
        // A stop with less grace replaces the one under way.
        for (_, handle) in self.subjects.values().filter(|(other, _)| *other == subject) {
            handle.abort();
        }
        stop.hook_done = self.hooked.contains(&stop.id);
        self.hooked.push(stop.id.clone());
        self.facts(&stop.name).busy = Some(Busy::Stopping { grace: stop.grace });
        self.spawn(subject, async move { Outcome::Stopped(stop.run().await) });
    }

    /// Gives a running container the resources of its spec.
    fn resize(&mut self, id: String, name: String) {
        let (agent, want) = (Arc::clone(&self.agent), self.pod.clone());
        self.facts(&name).busy = Some(Busy::Resizing);
        self.spawn(Subject::Container(name.clone()), async move {
            Outcome::Resized(resize(&agent, &want, &id, &name).await)
        });
    }

    fn resized(&mut self, name: &str, result: Result<ResourceRequirements, Failed>) {
        match result {
            Ok(resources) => {
                let facts = self.facts(name);
                facts.resources = Some(resources);
                facts.resize_failure = None;
            }
            Err(failed) => {
                self.warn(Some(name), "ResizeError", &failed);
                let last = self.facts(name).resize_failure.take();
                let failure = self.failure(failed, last.as_ref(), RESIZE_RETRY);
                self.facts(name).resize_failure = Some(failure);
            }
        }
    }

    fn spawn_step(&mut self, subject: Subject, step: Step, outcome: fn(Result<(), Failed>) -> Outcome) {
        let agent = Arc::clone(&self.agent);
        self.spawn(subject, async move {
            outcome(agent.runtime.act(&step).await.map(drop).map_err(Failed::from))
        });
    }

    fn spawn(&mut self, subject: Subject, job: impl Future<Output = Outcome> + Send + 'static) {
        if subject == Subject::Pod {
            self.have.pod_busy = true;
        }
        let handle = self.jobs.spawn(job);
        self.subjects.insert(handle.id(), (subject, handle));
    }

    pub(super) fn facts(&mut self, name: &str) -> &mut Facts {
        self.have.facts.entry(name.to_owned()).or_default()
    }

    /// Takes in the end of a job.
    pub(super) fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(pod = %pod::long_name(&self.pod), %error, "a job failed unexpectedly");
                }
                (error.id(), None)
            }
        };
        let Some((subject, _)) = self.subjects.remove(&id) else { return };
        // An aborted job may have been followed by another on the same subject.
        let replaced = self.subjects.values().any(|(other, _)| *other == subject);
        match &subject {
            Subject::Pod => self.have.pod_busy = replaced,
            Subject::Container(name) if !replaced => self.facts(name).busy = None,
            Subject::Container(_) => {}
        }
        if let Some(outcome) = outcome {
            self.take_outcome(&subject, outcome);
        }
    }

    fn take_outcome(&mut self, subject: &Subject, outcome: Outcome) {
        match outcome {
            Outcome::Volumes(Ok(made)) => {
                self.have.volumes = Volumes::Ready;
                self.volumes = made.paths;
                self.tokens = made.tokens;
            }
            Outcome::Volumes(Err(failed)) => {
                self.warn(None, "FailedMount", &failed);
                // A refresh that failed leaves the volumes as they were.
                if self.have.volumes != Volumes::Ready {
                    let last = match &self.have.volumes {
                        Volumes::Failed(last) => Some(last.clone()),
                        Volumes::Absent | Volumes::Ready => None,
                    };
                    self.have.volumes = Volumes::Failed(self.failure(failed, last.as_ref(), POD_RETRY));
                }
            }
            Outcome::VolumesGone(Ok(())) => {
                self.have.volumes = Volumes::Absent;
                self.volumes.clear();
            }
            Outcome::Sandbox(Ok(())) => self.have.sandbox_failure = None,
            Outcome::Sandbox(Err(failed)) => {
                let failed =
                    Failed::new(&failed.reason, format!("Failed to create pod sandbox: {}", failed.message));
                self.warn(None, "FailedCreatePodSandBox", &failed);
                let last = self.have.sandbox_failure.take();
                self.have.sandbox_failure = Some(self.failure(failed, last.as_ref(), POD_RETRY));
            }
            Outcome::Started(result) => {
                if let Subject::Container(name) = subject {
                    self.started(name, result);
                }
            }
            Outcome::Resized(result) => {
                if let Subject::Container(name) = subject {
                    self.resized(name, result);
                }
            }
            Outcome::Forgotten(Ok(())) => self.forgotten = true,
            Outcome::SandboxGone(Ok(())) | Outcome::Stopped(Ok(())) | Outcome::Removed(Ok(())) => {}
            Outcome::Deleted(Ok(())) => self.have.delete_asked = Some(self.agent.now()),
            Outcome::VolumesGone(Err(failed))
            | Outcome::SandboxGone(Err(failed))
            | Outcome::Stopped(Err(failed))
            | Outcome::Removed(Err(failed))
            | Outcome::Deleted(Err(failed))
            | Outcome::Forgotten(Err(failed)) => {
                // Each of these is planned again by the next round; it comes after a pause.
                self.warn(None, "FailedKillPod", &failed);
                self.pause();
            }
        }
    }

    fn started(&mut self, name: &str, result: Result<(), Failed>) {
        let failed = match result {
            Ok(()) => {
                self.facts(name).failure = None;
                return;
            }
            Err(failed) => failed,
        };
        tracing::info!(pod = %pod::long_name(&self.pod), container = name, reason = failed.reason, message = failed.message, "cannot start");
        let last = self.facts(name).failure.take();
        let waits = match failed.reason.as_str() {
            "ErrImagePull"
            | "RegistryUnavailable"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "ImageInspectError" => (backoff::INITIAL, backoff::MAX),
            // The container exists and has ended: the crash back-off takes it from here.
            "RunContainerError" | "PostStartHookError" => (Duration::ZERO, Duration::ZERO),
            _ => (CONFIG_RETRY, CONFIG_RETRY),
        };
        let failure = self.failure(failed, last.as_ref(), waits);
        self.facts(name).failure = Some(failure);
    }

    /// A failure whose wait is twice that of the last one, between two bounds.
    fn failure(
        &self,
        failed: Failed,
        last: Option<&Failure>,
        (first, most): (Duration, Duration),
    ) -> Failure {
        let now = self.agent.now();
        let recent = last.filter(|last| since(now, last.at) <= most * 2 && last.reason == failed.reason);
        let step = recent.map_or(first, |last| (last.backoff.step * 2).clamp(first, most));
        Failure {
            reason: failed.reason,
            message: failed.message,
            at: now,
            backoff: Backoff { step, at: now },
        }
    }

    fn warn(&self, container: Option<&str>, reason: &'static str, failed: &Failed) {
        tracing::warn!(pod = %pod::long_name(&self.pod), reason, message = failed.message);
        self.agent.event(&self.pod, container, Level::Warning, reason, failed.message.clone());
    }

    /// Keeps the pod busy for a moment, so that a step that keeps failing is not repeated at once.
    fn pause(&mut self) {
        self.spawn(Subject::Pod, async {
            tokio::time::sleep(super::RETRY).await;
            Outcome::Removed(Ok(()))
        });
    }

    /// The sandbox's addresses, or the node's with the host's network.
    pub(super) fn pod_ips(&self) -> Vec<String> {
        if pod::is_host_network(&self.pod) {
            return self.agent.options.addresses.clone();
        }
        self.have
            .sandbox()
            .map(|sandbox| sandbox.ips.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }
}
