//! What is known of a pod on this machine: the runtime's facts and the agent's own.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::ResourceRequirements;
use meta::Timestamp;
use runtime::{ObservedContainer, ObservedPod, ObservedSandbox};

use crate::{
    backoff::{Backoff, since},
    resize::Resize,
};

/// All that [`super::plan_pod`] looks at besides the Pod.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What the runtime has; `None` when it has nothing.
    pub pod: Option<ObservedPod>,
    /// The pod's volumes.
    pub volumes: Volumes,
    /// Whether a job for the whole pod (volumes, sandbox) runs.
    pub pod_busy: bool,
    /// Why the last try to make a sandbox failed.
    pub sandbox_failure: Option<Failure>,
    /// What the agent knows of each container, by name.
    pub facts: BTreeMap<String, Box<Facts>>,
    /// The node refused the pod.
    pub rejected: Option<Rejection>,
    /// It came to its end once (its phase was terminal), whatever the API server knows by now.
    pub finished: bool,
    /// The Pod object no longer exists.
    pub gone: bool,
    /// When the first container was told to stop, while the pod is wound down.
    pub stopping_since: Option<Timestamp>,
    /// Whether the API server has the status that tells how it ended.
    pub end_reported: bool,
    /// What the node says to a resize that is asked for.
    pub resize: Resize,
    /// When the API server last took a deletion of the object for good. Finalizers may keep it all the same.
    pub delete_asked: Option<Timestamp>,
}

impl Observed {
    /// The newest sandbox.
    pub fn sandbox(&self) -> Option<&ObservedSandbox> {
        self.pod.as_ref().and_then(ObservedPod::sandbox)
    }

    /// All containers, by name, newest attempt first.
    pub fn containers(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.pod.iter().flat_map(|pod| pod.containers.iter())
    }

    /// The newest container of a name, in whatever sandbox.
    pub fn container(&self, name: &str) -> Option<&ObservedContainer> {
        self.pod.as_ref().and_then(|pod| pod.container(name))
    }

    /// The newest container of a name, if it is in the newest sandbox.
    pub fn current(&self, name: &str) -> Option<&ObservedContainer> {
        let sandbox = self.sandbox()?;
        self.container(name).filter(|container| container.sandbox_id == sandbox.id)
    }

    /// Whether a job is at work on the container.
    pub fn is_busy(&self, name: &str) -> bool {
        self.facts.get(name).is_some_and(|facts| facts.busy.is_some())
    }
}

/// State of the pod's volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    /// Not made, or taken away.
    #[default]
    Absent,
    /// Usable.
    Ready,
    /// Could not be made.
    Failed(Failure),
}

/// What a job does with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// It pulls, creates, starts or runs postStart.
    Starting,
    /// Its resources are being changed.
    Resizing,
    /// It runs preStop or waits for the process to end, within this grace.
    Stopping {
        /// The grace that was given.
        grace: Duration,
    },
}

/// What only the agent knows of one container; all of it is about the newest attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// A job at work on it.
    pub busy: Option<Busy>,
    /// Why it could not be started.
    pub failure: Option<Failure>,
    /// The crash back-off last imposed.
    pub crash: Option<Backoff>,
    /// When an event last said that it waits for a back-off to end.
    pub told: Option<Timestamp>,
    /// The startup probe passed, or there is none and the container runs.
    pub started: bool,
    /// The readiness probe passes, or there is none and it has started.
    pub ready: bool,
    /// A probe wants it replaced.
    pub unhealthy: Option<Unhealthy>,
    /// What the newest attempt was given of cpu and memory; `None` as long as nobody has looked.
    pub resources: Option<ResourceRequirements>,
    /// Why the last try to resize it failed.
    pub resize_failure: Option<Failure>,
    /// Runtime id of the attempt that was stopped in order to begin anew with other resources.
    pub renewed: Option<String>,
    /// Text of the termination message file, by container id.
    pub termination_message: Option<(String, String)>,
}

/// A probe's verdict on one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unhealthy {
    /// Runtime id it is about.
    pub id: String,
    /// For the event.
    pub why: String,
    /// `probe.terminationGracePeriodSeconds`.
    pub grace: Option<Duration>,
}

/// A failed try and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase, as shown while waiting.
    pub reason: String,
    /// For a reader.
    pub message: String,
    /// When it failed.
    pub at: Timestamp,
    /// The wait before the next try.
    pub backoff: Backoff,
}

impl Failure {
    /// Whether it is one of the tries that upstream counts as pulls, which show `ImagePullBackOff` while they wait.
    pub(crate) fn is_pull(&self) -> bool {
        matches!(self.reason.as_str(), "ErrImagePull" | "RegistryUnavailable")
    }

    /// What is left of the wait; `None` when the next try is due.
    pub fn retry_in(&self, now: Timestamp) -> Option<Duration> {
        self.backoff.step.checked_sub(since(now, self.at)).filter(|left| !left.is_zero())
    }
}

/// Why the node refused a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// `status.reason`: `OutOfcpu`, `NodeAffinity`, ...
    pub reason: String,
    /// `status.message`.
    pub message: String,
}
