//! Starting one container: image, configuration, creation, start, postStart hook.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use runtime::{
    Action, ContainerSpec, Image, PodSandboxSpec, PullPolicy,
    action::{Mount, Role, SPEC_HASH},
};

use super::{Agent, events::Level, fetch, job::Failed};
use crate::{
    dns, env,
    expand::expand_all,
    images,
    lifecycle::{self, Hook},
    pod::{self, Member},
    resources, sandbox, security,
    sources::Needs,
    volume,
};

const CONFIG: &str = "CreateContainerConfigError";
/// A postStart hook has no time limit upstream; a hook that hangs this long is taken for failed.
const POST_START_MAX: Duration = Duration::from_secs(600);

/// All that a start needs to know; a copy, so that the pod may change meanwhile.
pub(super) struct Start {
    pub(super) agent: Arc<Agent>,
    pub(super) want: Arc<Pod>,
    pub(super) name: String,
    pub(super) attempt: u32,
    pub(super) sandbox: String,
    pub(super) sandbox_attempt: u32,
    pub(super) replaces: Option<String>,
    pub(super) pod_ips: Vec<String>,
    pub(super) volumes: BTreeMap<String, PathBuf>,
    /// Runtime ids of the containers that run, by name.
    pub(super) running: BTreeMap<String, String>,
}

impl Start {
    /// Does all of it. The error is what the container's status shows while it waits.
    pub(super) async fn run(self) -> Result<(), Failed> {
        let result = self.steps().await;
        if let Err(failed) = &result {
            let Failed { reason, message } = failed;
            let (event, message) = match reason.as_str() {
                "PostStartHookError" => ("FailedPostStartHook", format!("Error: {message}")),
                "ErrImagePull" | "RegistryUnavailable" => {
                    let image = pod::image(&self.want, &self.name);
                    self.event(
                        Level::Warning,
                        "Failed",
                        format!("Failed to pull image {image:?}: {message}"),
                    );
                    ("Failed", format!("Error: {reason}"))
                }
                _ => ("Failed", format!("Error: {message}")),
            };
            self.event(Level::Warning, event, message);
        }
        result
    }

    async fn steps(&self) -> Result<(), Failed> {
        let runtime = &self.agent.runtime;
        let ephemeral = pod::ephemeral(&self.want).find(|own| own.member().container.name == self.name);
        let member = pod::member(&self.want, &self.name)
            .or_else(|| ephemeral.as_ref().map(pod::Ephemeral::member))
            .ok_or_else(|| Failed::new(CONFIG, format!("container {} is no longer in the pod", self.name)))?;
        let image = self.image(member).await?;
        if let Some(id) = &self.replaces {
            runtime.act(&Action::RemoveContainer { id: id.clone() }).await?;
        }
        let mut spec = self.spec(member, image).await?;
        if let Some(target) = ephemeral.as_ref().and_then(|own| own.target.as_ref()) {
            let id = self.running.get(target).ok_or_else(|| {
                Failed::new(CONFIG, format!("the target container {target} does not run: wait until it does"))
            })?;
            spec.processes_of = Some(id.clone());
        }
        let create = Action::CreateContainer {
            sandbox: self.sandbox.clone(),
            pod: Box::new(self.sandbox_spec().await?),
            spec: Box::new(spec),
        };
        let id = runtime.act(&create).await?.id().to_owned();
        self.event(Level::Normal, "Created", format!("Container created: {}", self.name));
        runtime.act(&Action::StartContainer { id: id.clone() }).await?;
        self.event(Level::Normal, "Started", format!("Container started: {}", self.name));
        self.post_start(member, &id).await
    }

    fn event(&self, level: Level, reason: &'static str, message: String) {
        self.agent.event(&self.want, Some(&self.name), level, reason, message);
    }

    async fn image(&self, member: Member<'_>) -> Result<Image, Failed> {
        let runtime = &self.agent.runtime;
        let name = member.container.image.clone().unwrap_or_default();
        let policy = images::policy(member.container);
        let present = runtime.image_status(&name).await?;
        if let (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) = (&present, policy) {
            self.event(
                Level::Normal,
                "Pulled",
                format!("Container image {name:?} already present on machine"),
            );
            return Ok(image.clone());
        }
        if policy == PullPolicy::Never {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            return Err(Failed::new("ErrImageNeverPull", message));
        }
        let secrets = fetch::pull_secrets(&self.agent.client, &self.want)
            .await
            .map_err(|error| Failed::new("ErrImagePull", error))?;
        let credentials = images::credentials(&name, &secrets);
        let permit = self.agent.pulls.acquire().await;
        self.event(Level::Normal, "Pulling", format!("Pulling image {name:?}"));
        let pulled = runtime.act(&Action::PullImage { image: name.clone(), policy, credentials }).await;
        drop(permit);
        let id = pulled?.id().to_owned();
        self.event(Level::Normal, "Pulled", format!("Successfully pulled image {name:?}"));
        let known = runtime.image_status(&id).await?;
        Ok(known.unwrap_or(Image { id, ..Image::default() }))
    }

    async fn spec(&self, member: Member<'_>, image: Image) -> Result<ContainerSpec, Failed> {
        let container = member.container;
        let env = self.env(member).await?;
        let config = |error: &dyn std::fmt::Display| Failed::new(CONFIG, error);
        let security =
            security::context(&self.want, container, Some(&image)).map_err(|error| config(&error))?;
        let mounts = self.mounts(member, &env).await?;
        Ok(ContainerSpec {
            name: container.name.clone(),
            attempt: self.attempt,
            role: member.role,
            image: image.id,
            image_name: container.image.clone().unwrap_or_default(),
            command: expand_all(container.command.as_deref().unwrap_or_default(), &env),
            args: expand_all(container.args.as_deref().unwrap_or_default(), &env),
            working_dir: container.working_dir.clone().unwrap_or_default(),
            env: env.into_iter().collect(),
            mounts,
            devices: Vec::new(),
            resources: resources::limits(&self.want, container, self.agent.view().memory_bytes),
            security,
            log_path: format!("{}/{}.log", container.name, self.attempt),
            tty: container.tty.unwrap_or_default(),
            stdin: container.stdin.unwrap_or_default(),
            stdin_once: container.stdin_once.unwrap_or_default(),
            processes_of: None,
            labels: BTreeMap::new(),
            annotations: [(SPEC_HASH.to_owned(), pod::spec_hash(container))].into(),
        })
    }

    async fn env(&self, member: Member<'_>) -> Result<BTreeMap<String, String>, Failed> {
        let config = |error: &dyn std::fmt::Display| Failed::new(CONFIG, error);
        let client = &self.agent.client;
        let needs = Needs::of_env(member.container);
        let sources = fetch::sources(client, &self.want, &needs).await.map_err(|error| config(&error))?;
        let services = if self.agent.options.service_env {
            fetch::service_env(client, &self.want).await.map_err(|error| config(&error))?
        } else {
            BTreeMap::new()
        };
        let place = self.agent.place(self.pod_ips.clone());
        let mut env = env::environment(&self.want, member.container, &place, &sources, &services)
            .map_err(|error| config(&error))?;
        env.entry("HOSTNAME".to_owned())
            .or_insert_with(|| dns::hostname(&self.want, &self.agent.options.name));
        Ok(env)
    }

    async fn mounts(&self, member: Member<'_>, env: &BTreeMap<String, String>) -> Result<Vec<Mount>, Failed> {
        let host = &self.agent.options.host;
        let uid = pod::uid(&self.want);
        let container = member.container;
        let config = |error: &dyn std::fmt::Display| Failed::new(CONFIG, error);
        let wanted =
            volume::mounts(&self.want, container, env, &self.volumes).map_err(|error| config(&error))?;
        let mut list = Vec::with_capacity(wanted.len() + 2);
        for (index, mounting) in wanted.into_iter().enumerate() {
            let Some(root) = self.volumes.get(&mounting.volume) else { continue };
            let host_path = if mounting.sub_path.is_empty() {
                root.clone()
            } else {
                let key = format!("{}/{}/{index}", mounting.volume, container.name);
                let pinned = host.sub_path(uid, &key, root, &mounting.sub_path).await;
                pinned.map_err(|error| {
                    config(&format!(
                        "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                        mounting.volume, container.name
                    ))
                })?
            };
            list.push(Mount {
                host_path,
                container_path: mounting.container_path,
                read_only: mounting.read_only,
                propagation: mounting.propagation,
            });
        }
        let free = |list: &[Mount], path: &str| !list.iter().any(|mount| mount.container_path == path);
        if free(&list, "/etc/hosts") {
            let text = self.hosts().await?;
            let host_path = host.write_hosts(uid, &text).await.map_err(|error| config(&error))?;
            list.push(Mount { host_path, container_path: "/etc/hosts".to_owned(), ..Mount::default() });
        }
        let message_path = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        let message_path = message_path.unwrap_or("/dev/termination-log");
        if free(&list, message_path) {
            let made = host.termination_file(uid, &container.name, self.attempt).await;
            let host_path = made.map_err(|error| config(&error))?;
            list.push(Mount { host_path, container_path: message_path.to_owned(), ..Mount::default() });
        }
        Ok(list)
    }

    async fn hosts(&self) -> Result<String, Failed> {
        let options = &self.agent.options;
        let own = if pod::is_host_network(&self.want) {
            options.host.own_hosts().await.map_err(|error| Failed::new(CONFIG, error))?
        } else {
            String::new()
        };
        let hostname = dns::hostname(&self.want, &options.name);
        Ok(dns::hosts(&self.want, &self.pod_ips, &hostname, &options.dns.domain, &own))
    }

    async fn sandbox_spec(&self) -> Result<PodSandboxSpec, Failed> {
        self.agent.sandbox_spec(&self.want, self.sandbox_attempt).await
    }

    async fn post_start(&self, member: Member<'_>, id: &str) -> Result<(), Failed> {
        let Some(handler) = Hook::PostStart.of(member.container) else { return Ok(()) };
        let (runtime, host) = (self.agent.runtime.as_ref(), self.agent.options.host.as_ref());
        let ip = self.pod_ips.first().map(String::as_str).unwrap_or_default();
        let ran = lifecycle::run(runtime, host, member.container, id, handler, ip, POST_START_MAX).await;
        let Err(why) = ran else { return Ok(()) };
        // Upstream kills a container whose hook failed; its restart policy then decides.
        let grace = pod::grace(&self.want);
        runtime.act(&Action::StopContainer { id: id.to_owned(), grace }).await?;
        Err(Failed::new("PostStartHookError", format!("PostStartHook failed: {why}")))
    }
}

impl Agent {
    /// The sandbox specification of a pod on this node.
    pub(super) async fn sandbox_spec(&self, want: &Pod, attempt: u32) -> Result<PodSandboxSpec, Failed> {
        let options = &self.options;
        if let Some(what) = sandbox::not_supported(want) {
            return Err(Failed::new(
                "CreatePodSandboxError",
                format!("{what} is not supported by this node"),
            ));
        }
        let own =
            options.host.own_dns().await.map_err(|error| Failed::new("FailedCreatePodSandBox", error))?;
        let around = sandbox::Surroundings {
            hostname: dns::hostname(want, &options.name),
            dns: dns::resolv_conf(want, &options.dns, &own),
            log_dir: options.log_dir.clone(),
            pod_cgroups: options.pod_cgroups,
        };
        Ok(sandbox::spec(want, attempt, &around))
    }

    /// What runs the sandbox of a pod: the handler of its RuntimeClass, as it is now; empty for the default
    /// (upstream `pkg/kubelet/runtimeclass`).
    pub(super) async fn runtime_handler(&self, want: &Pod) -> Result<String, Failed> {
        let named = want.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref());
        let Some(name) = named.filter(|name| !name.is_empty()) else { return Ok(String::new()) };
        let class = fetch::runtime_class(&self.client, name)
            .await
            .map_err(|error| Failed::new("CreatePodSandboxError", error))?;
        let missing = || format!("runtimeclass.node.k8s.io {name:?} not found");
        let class = class.ok_or_else(|| Failed::new("CreatePodSandboxError", missing()))?;
        Ok(class.handler)
    }

    /// Records an event about a pod.
    pub(super) fn event(
        &self,
        want: &Pod,
        container: Option<&str>,
        level: Level,
        reason: &'static str,
        message: String,
    ) {
        if self.options.record_events {
            self.events.record(want, container, level, reason, message);
        }
    }
}

/// Whether containers of this role may have probes.
pub(super) fn is_probed(role: Role) -> bool {
    matches!(role, Role::Main | Role::Sidecar)
}
