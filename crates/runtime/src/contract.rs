//! The trait itself. Implementations: `runtime::simulated`, `runtime-containerd`.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{
    Action, Done, Image, ObservedPod, Result,
    log::Log,
    stats::{Stats, Status, Version},
};

/// A container runtime on one machine.
///
/// Every method may be called from many tasks at once, and dropping a returned future never leaves the
/// runtime in a state that the next [`Runtime::observe`] does not show. A runtime only reports and acts
/// on pods that this contract created.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Scheme of `status.containerStatuses[].containerID`: `containerd` in `containerd://ID`.
    fn name(&self) -> &'static str;

    /// Every pod the runtime has, in order of uid, in whatever state: also those of an earlier run of
    /// this program, which is how running containers are adopted.
    async fn observe(&self) -> Result<Vec<ObservedPod>>;

    /// One pod by uid; `None` when the runtime has nothing of it.
    async fn observe_pod(&self, uid: &str) -> Result<Option<ObservedPod>>;

    /// Does one step and returns when it is done (an image is unpacked, a container runs or has been
    /// stopped). Stop and remove succeed when the subject is already gone. Not cancel-safe in the sense
    /// that a dropped step may still complete; observe afterwards.
    async fn act(&self, action: &Action) -> Result<Done>;

    /// Wakes the node when something changed. Nothing that changes after the call is missed: a runtime
    /// that needs a moment to subscribe says [`Event::Lost`] once it has. The stream does not end: when
    /// the runtime is unreachable it waits, and says [`Event::Lost`] once it is back. A slow reader gets
    /// [`Event::Lost`] instead of a growing queue.
    fn events(&self) -> BoxStream<'static, Event>;

    /// Runs a command in a running container and collects its output, bounded by
    /// [`EXEC_OUTPUT_BYTES_MAX`] per stream. A command that ran and failed is not an error.
    async fn exec_sync(&self, container: &str, command: &[String], timeout: Duration) -> Result<ExecOutput>;

    /// Prepares an exec, attach or port-forward session.
    async fn stream(&self, request: &StreamRequest) -> Result<StreamUrl>;

    /// Where a container's log is.
    async fn log(&self, container: &str) -> Result<Log>;

    /// Tells the runtime to reopen its log file after the node has moved it away (rotation).
    async fn reopen_log(&self, container: &str) -> Result<()>;

    /// The image a name stands for; `None` when it is not on this machine. Does not pull.
    async fn image_status(&self, image: &str) -> Result<Option<Image>>;

    /// All images on this machine.
    async fn list_images(&self) -> Result<Vec<Image>>;

    /// Gives pods their address range (`node.spec.podCIDR`), such as `10.244.3.0/24`. Existing pods
    /// keep their addresses. Idempotent. Before the first call the network is not ready.
    async fn set_pod_cidr(&self, cidr: &str) -> Result<()>;

    /// Name and version, for `node.status.nodeInfo`.
    async fn version(&self) -> Result<Version>;

    /// Whether the runtime and the pod network are ready, and why not.
    async fn status(&self) -> Result<Status>;

    /// Resource use of running containers and of the image file system.
    async fn stats(&self) -> Result<Stats>;

    /// A verdict for a container's probes instead of performing them. `None`, the default, means: the
    /// containers are real, probe them. Only a simulated runtime answers.
    async fn simulated_probe(
        &self,
        _container: &str,
        _probe: Probe,
    ) -> Option<std::result::Result<(), String>> {
        None
    }
}

/// Most bytes that [`Runtime::exec_sync`] returns of each stream; the rest is dropped and
/// [`ExecOutput::truncated`] is set. Probes, the only users, show 10 KiB at most (upstream
/// `pkg/probe/exec/exec.go`).
pub const EXEC_OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// Which probe is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum Probe {
    Startup,
    Readiness,
    Liveness,
}

/// Something happened; observe to learn what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A sandbox or container of this pod was created, started, exited or removed.
    Pod {
        /// The pod's uid.
        uid: String,
    },
    /// Events were lost or cannot be told to belong to one pod: observe everything.
    Lost,
}

/// What a command in a container said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code; 128+n when killed by signal n.
    pub exit_code: i32,
    /// Beginning of standard output.
    pub stdout: Bytes,
    /// Beginning of standard error.
    pub stderr: Bytes,
    /// Whether either stream was cut.
    pub truncated: bool,
}

/// A session that carries streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamRequest {
    /// Run a command with streams.
    Exec {
        /// Container id.
        container: String,
        /// Command and arguments; not empty.
        command: Vec<String>,
        /// Which streams.
        streams: Streams,
    },
    /// Join the main process' streams.
    Attach {
        /// Container id.
        container: String,
        /// Which streams.
        streams: Streams,
    },
    /// Forward TCP into the pod's network namespace.
    PortForward {
        /// Sandbox id.
        sandbox: String,
        /// Ports in the pod.
        ports: Vec<u16>,
    },
}

/// Which streams a session has. With `tty` there is no separate standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields of v1.PodExecOptions")]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// An `http://127.0.0.1:PORT/...` address, valid once and for about a minute, that speaks the
/// remote-command and port-forward protocols (SPDY/3.1 and WebSocket `v4.channel.k8s.io`) on an upgraded
/// connection. The node forwards the client's upgrade request to it unchanged, then copies bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUrl(pub String);
