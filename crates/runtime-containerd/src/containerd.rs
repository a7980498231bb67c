//! [`Runtime`] on containerd: each action is one CRI call.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use runtime::{
    Action, ContainerSpec, Done, Error, ErrorKind, Event, ExecOutput, Image, ObservedPod, PodSandboxSpec,
    Result, Runtime, Step, StreamRequest, StreamUrl,
    contract::{EXEC_OUTPUT_BYTES_MAX, Streams},
    log::Log,
    stats::{ContainerStats, Readiness, Stats, Status, Version},
};

use crate::{
    config,
    connection::{Connection, QUICK, SLOW},
    cri, events,
    images::{self, Registries},
    observe,
    private::Network,
};

/// How long the pod network may take to be ready once its configuration is written: containerd watches
/// the directory.
const NETWORK_READY: Duration = Duration::from_secs(10);

/// containerd by its socket. Cloning shares the connection.
#[derive(Clone)]
pub struct Containerd {
    connection: Connection,
    registries: Registries,
    network: Option<Arc<Network>>,
    /// What it is configured with, for versions that do not tell.
    handlers: Arc<[String]>,
}

impl Containerd {
    /// A containerd that someone else runs and configures, its pod network included. Connects when first
    /// used; must be called within a tokio runtime.
    pub fn new(socket: &Path, registries: Registries) -> Self {
        Self { connection: Connection::new(socket), registries, network: None, handlers: Arc::default() }
    }

    /// The same, but the pod network is ours to configure, and so were the runtime handlers.
    pub(crate) fn configured(
        socket: &Path,
        registries: Registries,
        network: Network,
        handlers: Arc<[String]>,
    ) -> Self {
        Self { network: Some(Arc::new(network)), handlers, ..Self::new(socket, registries) }
    }

    async fn call<Q, A>(
        &self,
        about: (Step, &str),
        method: &'static str,
        request: Q,
        limit: Duration,
    ) -> Result<A>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.connection.call(about, method, request, limit).await
    }

    async fn create_sandbox(&self, spec: &PodSandboxSpec) -> Result<Done> {
        let key = spec.key();
        let about = (Step::CreateSandbox, key.as_str());
        make_directory(&spec.log_dir, about).await?;
        let request = cri::RunPodSandboxRequest {
            config: Some(config::sandbox(spec)),
            runtime_handler: spec.runtime_handler.clone(),
        };
        let made: cri::Id =
            self.call(about, "/runtime.v1.RuntimeService/RunPodSandbox", request, SLOW).await?;
        Ok(Done::Sandbox { id: made.id })
    }

    async fn create_container(
        &self,
        sandbox: &str,
        pod: &PodSandboxSpec,
        spec: &ContainerSpec,
    ) -> Result<Done> {
        let about = (Step::CreateContainer, spec.name.as_str());
        if let Some(directory) = pod.log_dir.join(&spec.log_path).parent() {
            make_directory(directory, about).await?;
        }
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config::container(pod, spec)),
            sandbox_config: Some(config::sandbox(pod)),
        };
        let made: cri::Id =
            self.call(about, "/runtime.v1.RuntimeService/CreateContainer", request, SLOW).await?;
        Ok(Done::Container { id: made.id })
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<Done> {
        // CRI counts whole seconds; the node's grace may not be cut.
        let timeout = i64::try_from(whole_seconds(grace)).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        let limit = SLOW.saturating_add(grace);
        let about = (Step::StopContainer, id);
        let stopped: Result<cri::Empty> =
            self.call(about, "/runtime.v1.RuntimeService/StopContainer", request, limit).await;
        gone_is_done(stopped)
    }

    async fn by_id(&self, step: Step, method: &'static str, id: &str) -> Result<Done> {
        let request = cri::Id { id: id.to_owned() };
        let _: cri::Empty = self.call((step, id), method, request, SLOW).await?;
        Ok(Done::Done)
    }
}

#[async_trait]
impl Runtime for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    async fn observe(&self) -> Result<Vec<ObservedPod>> {
        observe::pods(&self.connection, None).await
    }

    async fn observe_pod(&self, uid: &str) -> Result<Option<ObservedPod>> {
        Ok(observe::pods(&self.connection, Some(uid)).await?.into_iter().next())
    }

    async fn act(&self, action: &Action) -> Result<Done> {
        match action {
            Action::CreateSandbox(spec) => self.create_sandbox(spec).await,
            Action::StopSandbox { id } => {
                let done =
                    self.by_id(Step::StopSandbox, "/runtime.v1.RuntimeService/StopPodSandbox", id).await;
                gone_is_done(done)
            }
            Action::RemoveSandbox { id } => {
                // CRI refuses to remove a sandbox that runs.
                let done =
                    self.by_id(Step::RemoveSandbox, "/runtime.v1.RuntimeService/StopPodSandbox", id).await;
                gone_is_done(done)?;
                let done =
                    self.by_id(Step::RemoveSandbox, "/runtime.v1.RuntimeService/RemovePodSandbox", id).await;
                gone_is_done(done)
            }
            Action::PullImage { image, policy, credentials } => {
                images::pull(&self.connection, self.registries, image, *policy, credentials.as_ref()).await
            }
            Action::RemoveImage { image } => images::remove(&self.connection, image).await,
            Action::CreateContainer { sandbox, pod, spec } => self.create_container(sandbox, pod, spec).await,
            Action::StartContainer { id } => {
                self.by_id(Step::StartContainer, "/runtime.v1.RuntimeService/StartContainer", id).await
            }
            Action::UpdateContainer { id, resources } => {
                let linux = Some(config::resources(*resources));
                let request = cri::UpdateContainerResourcesRequest { container_id: id.clone(), linux };
                let method = "/runtime.v1.RuntimeService/UpdateContainerResources";
                let _: cri::Empty = self.call((Step::UpdateContainer, id), method, request, SLOW).await?;
                Ok(Done::Done)
            }
            Action::StopContainer { id, grace } => self.stop_container(id, *grace).await,
            Action::RemoveContainer { id } => {
                let done =
                    self.by_id(Step::RemoveContainer, "/runtime.v1.RuntimeService/RemoveContainer", id).await;
                gone_is_done(done)
            }
        }
    }

    fn events(&self) -> BoxStream<'static, Event> {
        events::stream(self.connection.clone())
    }

    async fn exec_sync(&self, container: &str, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        let seconds = whole_seconds(timeout).max(1);
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let limit = Duration::from_secs(seconds).saturating_add(QUICK);
        let said: cri::ExecSyncResponse =
            self.call((Step::Exec, container), "/runtime.v1.RuntimeService/ExecSync", request, limit).await?;
        let truncated =
            said.stdout.len() > EXEC_OUTPUT_BYTES_MAX || said.stderr.len() > EXEC_OUTPUT_BYTES_MAX;
        let cut = |bytes: Vec<u8>| {
            let mut bytes = Bytes::from(bytes);
            bytes.truncate(EXEC_OUTPUT_BYTES_MAX);
            bytes
        };
        Ok(ExecOutput {
            exit_code: said.exit_code,
            stdout: cut(said.stdout),
            stderr: cut(said.stderr),
            truncated,
        })
    }

    async fn stream(&self, request: &StreamRequest) -> Result<StreamUrl> {
        let answer: cri::UrlResponse = match request {
            StreamRequest::Exec { container, command, streams: Streams { stdin, stdout, stderr, tty } } => {
                let request = cri::ExecRequest {
                    container_id: container.clone(),
                    cmd: command.clone(),
                    tty: *tty,
                    stdin: *stdin,
                    stdout: *stdout,
                    stderr: *stderr && !*tty,
                };
                self.call((Step::Exec, container), "/runtime.v1.RuntimeService/Exec", request, QUICK).await?
            }
            StreamRequest::Attach { container, streams: Streams { stdin, stdout, stderr, tty } } => {
                let request = cri::AttachRequest {
                    container_id: container.clone(),
                    stdin: *stdin,
                    tty: *tty,
                    stdout: *stdout,
                    stderr: *stderr && !*tty,
                };
                self.call((Step::Attach, container), "/runtime.v1.RuntimeService/Attach", request, QUICK)
                    .await?
            }
            StreamRequest::PortForward { sandbox, ports } => {
                let port = ports.iter().map(|port| i32::from(*port)).collect();
                let request = cri::PortForwardRequest { pod_sandbox_id: sandbox.clone(), port };
                self.call(
                    (Step::PortForward, sandbox),
                    "/runtime.v1.RuntimeService/PortForward",
                    request,
                    QUICK,
                )
                .await?
            }
        };
        Ok(StreamUrl(answer.url))
    }

    async fn log(&self, container: &str) -> Result<Log> {
        let missing = |message| Error::new(Step::Log, container, ErrorKind::NotFound, message);
        let status = observe::container_status(&self.connection, Step::Log, container).await?;
        let path = status.ok_or_else(|| missing("no such container"))?.log_path;
        if path.is_empty() { Err(missing("it has no log file")) } else { Ok(Log::File(path.into())) }
    }

    async fn reopen_log(&self, container: &str) -> Result<()> {
        let method = "/runtime.v1.RuntimeService/ReopenContainerLog";
        self.by_id(Step::Log, method, container).await.map(drop)
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        images::status(&self.connection, image).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        images::list(&self.connection).await
    }

    async fn set_pod_cidr(&self, cidr: &str) -> Result<()> {
        let Some(network) = &self.network else {
            let network_config = Some(cri::NetworkConfig { pod_cidr: cidr.to_owned() });
            let request = cri::UpdateRuntimeConfigRequest {
                runtime_config: Some(cri::RuntimeConfig { network_config }),
            };
            let method = "/runtime.v1.RuntimeService/UpdateRuntimeConfig";
            let _: cri::Empty = self.call((Step::Network, cidr), method, request, QUICK).await?;
            return Ok(());
        };
        network.write(cidr).await?;
        let ready = async {
            loop {
                match self.status().await?.network {
                    Readiness::Ready => return Ok(()),
                    Readiness::NotReady { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        tokio::time::timeout(NETWORK_READY, ready).await.unwrap_or_else(|_elapsed| {
            let message = "containerd does not take the new network configuration; see its log";
            Err(Error::new(Step::Network, cidr, ErrorKind::TimedOut, message))
        })
    }

    async fn version(&self) -> Result<Version> {
        let socket = self.connection.socket().display().to_string();
        let request = cri::VersionRequest { version: "v1".into() };
        let answer: cri::VersionResponse =
            self.call((Step::Connect, &socket), "/runtime.v1.RuntimeService/Version", request, QUICK).await?;
        Ok(Version { name: answer.runtime_name, version: answer.runtime_version })
    }

    async fn status(&self) -> Result<Status> {
        let about = (Step::Status, "containerd");
        let answer: cri::StatusResponse =
            self.call(about, "/runtime.v1.RuntimeService/Status", cri::Empty {}, QUICK).await?;
        let handlers = handlers(answer.runtime_handlers, &self.handlers);
        let conditions = answer.status.unwrap_or_default().conditions;
        let condition = |kind: &str| match conditions.iter().find(|condition| condition.kind == kind) {
            Some(condition) if condition.status => Readiness::Ready,
            Some(condition) => {
                Readiness::NotReady { reason: condition.reason.clone(), message: condition.message.clone() }
            }
            None => Readiness::NotReady {
                reason: "Unknown".into(),
                message: format!("containerd does not tell {kind}"),
            },
        };
        Ok(Status { runtime: condition("RuntimeReady"), network: condition("NetworkReady"), handlers })
    }

    async fn stats(&self) -> Result<Stats> {
        let filter = cri::PodSandboxFilter { label_selector: config::selector(None), ..Default::default() };
        let request = cri::ListContainerStatsRequest { filter: Some(filter) };
        let method = "/runtime.v1.RuntimeService/ListContainerStats";
        let answer: cri::ListContainerStatsResponse =
            self.call((Step::Stats, "containers"), method, request, SLOW).await?;
        let image_filesystem = images::filesystem(&self.connection).await?;
        Ok(Stats { containers: answer.stats.into_iter().map(container_stats).collect(), image_filesystem })
    }
}

/// Those that it tells, else those that it is configured with; the default among them.
fn handlers(told: Vec<cri::RuntimeHandler>, configured: &[String]) -> Vec<String> {
    let mut names: BTreeSet<String> = told.into_iter().map(|handler| handler.name).collect();
    if names.is_empty() {
        names.extend(configured.iter().cloned());
        names.insert(String::new());
    }
    names.into_iter().collect()
}

fn container_stats(stats: cri::ContainerStats) -> ContainerStats {
    let attributes = stats.attributes.unwrap_or_default();
    let cpu = stats.cpu.unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    ContainerStats {
        name: attributes.metadata.unwrap_or_default().name,
        pod_uid: attributes.labels.get(config::POD_UID).cloned().unwrap_or_default(),
        id: attributes.id,
        at: observe::timestamp(cpu.timestamp.max(memory.timestamp)),
        cpu_nanoseconds: cpu.usage_core_nano_seconds.map_or(0, |n| n.value),
        memory_working_set_bytes: memory.working_set_bytes.map_or(0, |n| n.value),
        writable_layer_bytes: stats.writable_layer.unwrap_or_default().used_bytes.map_or(0, |n| n.value),
    }
}

/// Rounded up.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// To stop or remove what is not there is done.
fn gone_is_done<T>(answer: Result<T>) -> Result<Done> {
    match answer {
        Ok(_) => Ok(Done::Done),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(Done::Done),
        Err(error) => Err(error),
    }
}

async fn make_directory(path: &Path, (step, subject): (Step, &str)) -> Result<()> {
    tokio::fs::create_dir_all(path).await.map_err(|error| {
        let message = format!("cannot make the log directory {}: {error}", path.display());
        Error::new(step, subject, ErrorKind::Internal, message).with_source(error)
    })
}
