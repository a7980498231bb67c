//! The one error: which step failed on what, what kind of failure it is, and the runtime's own words.
//! A struct and not an enum of steps, because every step carries the same four facts; [`Step`] and
//! [`ErrorKind`] are the enums.

use std::fmt;

/// What a runtime call returns.
pub type Result<T> = std::result::Result<T, Error>;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "one for each action and question of the contract")]
pub enum Step {
    Connect,
    Observe,
    CreateSandbox,
    StopSandbox,
    RemoveSandbox,
    PullImage,
    InspectImage,
    ListImages,
    RemoveImage,
    CreateContainer,
    StartContainer,
    StopContainer,
    RemoveContainer,
    UpdateContainer,
    Exec,
    Attach,
    PortForward,
    Log,
    Network,
    Status,
    Stats,
    Prepare,
    Shutdown,
}

impl Step {
    /// As the words in a sentence: `pull image`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Connect => "connect to",
            Self::Observe => "observe",
            Self::CreateSandbox => "create sandbox of pod",
            Self::StopSandbox => "stop sandbox",
            Self::RemoveSandbox => "remove sandbox",
            Self::PullImage => "pull image",
            Self::InspectImage => "inspect image",
            Self::ListImages => "list images of",
            Self::RemoveImage => "remove image",
            Self::CreateContainer => "create container",
            Self::StartContainer => "start container",
            Self::StopContainer => "stop container",
            Self::RemoveContainer => "remove container",
            Self::UpdateContainer => "update container",
            Self::Exec => "exec in container",
            Self::Attach => "attach to container",
            Self::PortForward => "forward ports of sandbox",
            Self::Log => "find the log of container",
            Self::Network => "set up the pod network of",
            Self::Status => "read the status of",
            Self::Stats => "read the statistics of",
            Self::Prepare => "prepare",
            Self::Shutdown => "shut down",
        }
    }
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The sandbox, container or log does not exist.
    NotFound,
    /// No such image: not on this machine and not to be had.
    ImageNotFound,
    /// Policy `Never` and the image is not on this machine.
    ImageNeverPull,
    /// The image's name cannot be parsed.
    InvalidImageName,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry cannot be reached.
    RegistryUnavailable,
    /// The request contradicts itself or the runtime's abilities; the same request will fail again.
    Invalid,
    /// This runtime does not do that.
    NotSupported,
    /// The runtime did not answer or is gone.
    Unavailable,
    /// It took longer than allowed.
    TimedOut,
    /// Something needed on this machine is missing (a program, a privilege).
    Missing,
    /// Everything else.
    Internal,
}

/// A failed step.
#[derive(Debug)]
pub struct Error {
    /// What was being done.
    pub step: Step,
    /// On what: a pod, a container name or id, an image.
    pub subject: String,
    /// What kind of failure.
    pub kind: ErrorKind,
    /// What the runtime said, or what to do about it.
    pub message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure with a message of its own.
    pub fn new(step: Step, subject: impl Into<String>, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { step, subject: subject.into(), kind, message: message.into(), source: None }
    }

    /// Keeps what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the same step on the same subject will fail again until someone changes something.
    pub fn is_terminal(&self) -> bool {
        match self.kind {
            ErrorKind::ImageNeverPull
            | ErrorKind::InvalidImageName
            | ErrorKind::Invalid
            | ErrorKind::NotSupported
            | ErrorKind::Missing => true,
            ErrorKind::NotFound
            | ErrorKind::ImageNotFound
            | ErrorKind::Unauthorized
            | ErrorKind::RegistryUnavailable
            | ErrorKind::Unavailable
            | ErrorKind::TimedOut
            | ErrorKind::Internal => false,
        }
    }

    /// The `reason` of a waiting container, as the kubelet words it (`pkg/kubelet/images/types.go`,
    /// `pkg/kubelet/kuberuntime/kuberuntime_container.go`). After the first failure the kubelet shows
    /// `ImagePullBackOff` while it waits to pull again; that is the node's to say.
    pub fn reason(&self) -> &'static str {
        match (self.step, self.kind) {
            (_, ErrorKind::ImageNeverPull) => "ErrImageNeverPull",
            (_, ErrorKind::InvalidImageName) => "InvalidImageName",
            (Step::InspectImage, _) => "ImageInspectError",
            (Step::PullImage, ErrorKind::RegistryUnavailable) => "RegistryUnavailable",
            (Step::PullImage, _) => "ErrImagePull",
            (Step::CreateSandbox | Step::Network, _) => "CreatePodSandboxError",
            (Step::StopSandbox | Step::RemoveSandbox, _) => "KillPodSandboxError",
            (Step::CreateContainer, _) => "CreateContainerError",
            (Step::StartContainer, _) => "RunContainerError",
            (Step::StopContainer | Step::RemoveContainer, _) => "KillContainerError",
            (
                Step::Connect
                | Step::Observe
                | Step::ListImages
                | Step::RemoveImage
                | Step::UpdateContainer
                | Step::Exec
                | Step::Attach
                | Step::PortForward
                | Step::Log
                | Step::Status
                | Step::Stats
                | Step::Prepare
                | Step::Shutdown,
                _,
            ) => "RuntimeError",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.step.words(), self.subject, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_failed_on_what_and_keeps_the_cause() {
        let error =
            Error::new(Step::PullImage, "docker.io/library/x:1", ErrorKind::ImageNotFound, "no such image")
                .with_source("404");
        assert_eq!(error.to_string(), "pull image docker.io/library/x:1: no such image");
        assert_eq!(error.reason(), "ErrImagePull");
        assert!(!error.is_terminal());
        assert_eq!(std::error::Error::source(&error).map(ToString::to_string).as_deref(), Some("404"));
    }

    #[test]
    fn reasons_are_the_kubelets() {
        for (step, kind, reason) in [
            (Step::PullImage, ErrorKind::ImageNeverPull, "ErrImageNeverPull"),
            (Step::PullImage, ErrorKind::RegistryUnavailable, "RegistryUnavailable"),
            (Step::InspectImage, ErrorKind::InvalidImageName, "InvalidImageName"),
            (Step::CreateSandbox, ErrorKind::Internal, "CreatePodSandboxError"),
            (Step::CreateContainer, ErrorKind::Invalid, "CreateContainerError"),
            (Step::StartContainer, ErrorKind::Internal, "RunContainerError"),
        ] {
            assert_eq!(Error::new(step, "", kind, "").reason(), reason);
        }
    }
}
