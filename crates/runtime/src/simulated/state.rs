//! Sandboxes and containers of the simulated runtime, and what time does to them. No lock, no clock,
//! no events: every method is told the time and says which pod it changed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use meta::Timestamp;

use super::{
    address::Addresses,
    behaviour::{Behaviour, Health},
};
use crate::{
    ContainerSpec, ContainerState, Done, Error, ErrorKind, ObservedContainer, ObservedPod, ObservedSandbox,
    PodSandboxSpec, Result, SandboxState, Step, contract::Probe, stats::ContainerStats,
};

/// All pods, by uid.
#[derive(Default)]
pub(super) struct State {
    pub(super) addresses: Addresses,
    pods: BTreeMap<String, Pod>,
    /// Which pod a sandbox or container id belongs to.
    owners: HashMap<String, String>,
    /// Containers that will end by themselves, soonest first.
    due: BTreeSet<(Timestamp, String)>,
    made: u64,
}

struct Pod {
    namespace: String,
    name: String,
    sandboxes: Vec<ObservedSandbox>,
    containers: Vec<Container>,
}

struct Container {
    seen: ObservedContainer,
    behaviour: Behaviour,
}

/// A step's answer and the uid of the pod it changed.
type Changed = Result<(Done, Option<String>)>;

impl State {
    /// Lets everything happen that is due; the uids of the pods that changed.
    pub(super) fn advance(&mut self, now: Timestamp) -> Vec<String> {
        let mut changed = Vec::new();
        while let Some((at, _)) = self.due.first() {
            if *at > now {
                break;
            }
            let Some((at, id)) = self.due.pop_first() else { break };
            let Some(container) = self.container(&id) else { continue };
            let Some(exit) = container.behaviour.exit else { continue };
            finish(&mut container.seen, exit.code, exit.oom, at);
            changed.extend(self.owners.get(&id).cloned());
        }
        changed
    }

    /// When the next container ends by itself.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn observe(&self) -> Vec<ObservedPod> {
        self.pods.iter().map(|(uid, pod)| observed(uid, pod)).collect()
    }

    pub(super) fn observe_pod(&self, uid: &str) -> Option<ObservedPod> {
        self.pods.get(uid).map(|pod| observed(uid, pod))
    }

    pub(super) fn create_sandbox(&mut self, spec: &PodSandboxSpec, now: Timestamp) -> Changed {
        let fail = |kind, message: &str| Error::new(Step::CreateSandbox, spec.key(), kind, message);
        let pod = self.pods.get(&spec.uid);
        if pod.is_some_and(|pod| pod.sandboxes.iter().any(|sandbox| sandbox.attempt == spec.attempt)) {
            return Err(fail(ErrorKind::Invalid, &format!("attempt {} already exists", spec.attempt)));
        }
        let ips = if spec.namespaces.host_network {
            Vec::new()
        } else if !self.addresses.has_range() {
            return Err(fail(ErrorKind::Internal, "no pod address range yet: the node has no spec.podCIDR"));
        } else {
            let full = || fail(ErrorKind::Internal, "every address of the node's pod range is in use");
            vec![IpAddr::V4(self.addresses.take().ok_or_else(full)?)]
        };
        let id = self.next_id();
        self.owners.insert(id.clone(), spec.uid.clone());
        let pod = self.pods.entry(spec.uid.clone()).or_insert_with(|| Pod {
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            sandboxes: Vec::new(),
            containers: Vec::new(),
        });
        pod.sandboxes.push(ObservedSandbox {
            id: id.clone(),
            attempt: spec.attempt,
            state: SandboxState::Ready,
            created_at: now,
            ips,
            host_network: spec.namespaces.host_network,
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
        });
        pod.sandboxes.sort_by_key(|sandbox| Reverse(sandbox.attempt));
        Ok((Done::Sandbox { id }, Some(spec.uid.clone())))
    }

    pub(super) fn stop_sandbox(&mut self, id: &str, now: Timestamp) -> Option<String> {
        let uid = self.owners.get(id)?.clone();
        let pod = self.pods.get_mut(&uid)?;
        let sandbox = pod.sandboxes.iter_mut().find(|sandbox| sandbox.id == id)?;
        sandbox.state = SandboxState::NotReady;
        let ips = std::mem::take(&mut sandbox.ips);
        let running: Vec<String> = pod
            .containers
            .iter()
            .filter(|container| container.seen.sandbox_id == id && container.seen.is_running())
            .map(|container| container.seen.id.clone())
            .collect();
        ips.into_iter().filter_map(v4).for_each(|ip| self.addresses.release(ip));
        for container in running {
            self.exit(&container, 137, now);
        }
        Some(uid)
    }

    pub(super) fn remove_sandbox(&mut self, id: &str) -> Option<String> {
        let uid = self.owners.get(id)?.clone();
        let pod = self.pods.get_mut(&uid)?;
        pod.sandboxes
            .extract_if(.., |sandbox| sandbox.id == id)
            .flat_map(|sandbox| sandbox.ips)
            .filter_map(v4)
            .for_each(|ip| self.addresses.release(ip));
        self.owners.remove(id);
        for container in pod.containers.extract_if(.., |container| container.seen.sandbox_id == id) {
            self.owners.remove(&container.seen.id);
            self.due.retain(|(_, due)| *due != container.seen.id);
        }
        if pod.sandboxes.is_empty() && pod.containers.is_empty() {
            self.pods.remove(&uid);
        }
        Some(uid)
    }

    pub(super) fn create_container(
        &mut self,
        sandbox: &str,
        spec: &ContainerSpec,
        behaviour: Behaviour,
        image_id: String,
        now: Timestamp,
    ) -> Changed {
        let fail = |kind, message: String| Error::new(Step::CreateContainer, &spec.name, kind, message);
        let gone = || fail(ErrorKind::NotFound, format!("no sandbox {sandbox}"));
        let uid = self.owners.get(sandbox).cloned().ok_or_else(gone)?;
        let id = self.next_id();
        let pod = self.pods.get_mut(&uid).ok_or_else(gone)?;
        let found = pod.sandboxes.iter().find(|candidate| candidate.id == sandbox).ok_or_else(gone)?;
        if found.state == SandboxState::NotReady {
            return Err(fail(ErrorKind::Internal, format!("sandbox {sandbox} is stopped")));
        }
        if pod.containers.iter().any(|c| c.seen.name == spec.name && c.seen.attempt == spec.attempt) {
            return Err(fail(ErrorKind::Invalid, format!("attempt {} already exists", spec.attempt)));
        }
        let seen = ObservedContainer {
            id: id.clone(),
            sandbox_id: sandbox.to_owned(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            state: ContainerState::Created,
            created_at: now,
            image: spec.image_name.clone(),
            image_id,
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            log_path: String::new(),
        };
        pod.containers.push(Container { seen, behaviour });
        pod.containers
            .sort_by(|a, b| a.seen.name.cmp(&b.seen.name).then_with(|| b.seen.attempt.cmp(&a.seen.attempt)));
        self.owners.insert(id.clone(), uid.clone());
        Ok((Done::Container { id }, Some(uid)))
    }

    /// The behaviour of a container that may be started.
    pub(super) fn startable(&mut self, id: &str) -> Result<Behaviour> {
        let fail = |kind, message: &str| Error::new(Step::StartContainer, id, kind, message);
        let container = self.container(id).ok_or_else(|| fail(ErrorKind::NotFound, "no such container"))?;
        if container.seen.state != ContainerState::Created {
            return Err(fail(ErrorKind::Invalid, "it has been started before; create the next attempt"));
        }
        Ok(container.behaviour.clone())
    }

    pub(super) fn start(&mut self, id: &str, now: Timestamp) -> Changed {
        let behaviour = self.startable(id)?;
        if let Some(container) = self.container(id) {
            container.seen.state = ContainerState::Running { started_at: now };
        }
        if let Some(exit) = behaviour.exit {
            self.due.insert((now + exit.after, id.to_owned()));
        }
        Ok((Done::Done, self.owners.get(id).cloned()))
    }

    pub(super) fn fail_start(
        &mut self,
        id: &str,
        message: &str,
        now: Timestamp,
    ) -> Result<((), Option<String>)> {
        if let Some(container) = self.container(id) {
            container.seen.state = ContainerState::Exited {
                started_at: None,
                finished_at: now,
                exit_code: 128,
                reason: "StartError".into(),
                message: message.to_owned(),
            };
        }
        Ok(((), self.owners.get(id).cloned()))
    }

    /// The behaviour of a container that runs.
    pub(super) fn stoppable(&mut self, id: &str) -> Option<Behaviour> {
        self.container(id)
            .filter(|container| container.seen.is_running())
            .map(|container| container.behaviour.clone())
    }

    /// Ends a running container now.
    pub(super) fn exit(&mut self, id: &str, code: i32, now: Timestamp) -> Option<String> {
        let container = self.container(id).filter(|container| container.seen.is_running())?;
        finish(&mut container.seen, code, false, now);
        self.due.retain(|(_, due)| due != id);
        self.owners.get(id).cloned()
    }

    pub(super) fn remove_container(&mut self, id: &str) -> Option<String> {
        let uid = self.owners.get(id)?.clone();
        let pod = self.pods.get_mut(&uid)?;
        pod.containers.retain(|container| container.seen.id != id);
        self.owners.remove(id);
        self.due.retain(|(_, due)| due != id);
        Some(uid)
    }

    /// Uid of the pod that a container belongs to.
    pub(super) fn pod_of(&self, id: &str, step: Step) -> Result<String> {
        let gone = || Error::new(step, id, ErrorKind::NotFound, "no such container");
        self.owners.get(id).cloned().ok_or_else(gone)
    }

    /// What a container's log says and since when; `None` when it never ran.
    pub(super) fn log(&self, id: &str) -> Result<(&str, Option<Timestamp>)> {
        let gone = || Error::new(Step::Log, id, ErrorKind::NotFound, "no such container");
        let container = self.container_ref(id).ok_or_else(gone)?;
        Ok((&container.behaviour.log, started_at(&container.seen.state)))
    }

    /// Names of the images in use.
    pub(super) fn images(&self) -> BTreeSet<String> {
        self.pods
            .values()
            .flat_map(|pod| &pod.containers)
            .map(|container| container.seen.image.clone())
            .collect()
    }

    pub(super) fn stats(&self, now: Timestamp) -> Vec<ContainerStats> {
        let mut all = Vec::new();
        for (uid, pod) in &self.pods {
            for Container { seen, behaviour } in &pod.containers {
                let ContainerState::Running { started_at } = seen.state else { continue };
                let ran = Duration::try_from(now.duration_since(started_at)).unwrap_or_default();
                let nanoseconds = ran.as_nanos().saturating_mul(u128::from(behaviour.cpu_millicores)) / 1000;
                all.push(ContainerStats {
                    id: seen.id.clone(),
                    name: seen.name.clone(),
                    pod_uid: uid.clone(),
                    at: now,
                    cpu_nanoseconds: u64::try_from(nanoseconds).unwrap_or(u64::MAX),
                    memory_working_set_bytes: behaviour.memory_bytes,
                    writable_layer_bytes: 0,
                });
            }
        }
        all
    }

    pub(super) fn probe(&self, id: &str, probe: Probe, now: Timestamp) -> std::result::Result<(), String> {
        let container = self.container_ref(id).ok_or("no such container")?;
        let ContainerState::Running { started_at } = container.seen.state else {
            return Err("the container does not run".to_owned());
        };
        let health = match probe {
            Probe::Startup => container.behaviour.startup,
            Probe::Readiness => container.behaviour.readiness,
            Probe::Liveness => container.behaviour.liveness,
        };
        let healthy = match health {
            Health::Always => true,
            Health::Never => false,
            Health::Turns(after) => (started_at + after <= now) != (probe == Probe::Liveness),
        };
        if healthy { Ok(()) } else { Err("its annotations say so".to_owned()) }
    }

    fn container(&mut self, id: &str) -> Option<&mut Container> {
        let uid = self.owners.get(id)?;
        self.pods.get_mut(uid)?.containers.iter_mut().find(|container| container.seen.id == id)
    }

    fn container_ref(&self, id: &str) -> Option<&Container> {
        let uid = self.owners.get(id)?;
        self.pods.get(uid)?.containers.iter().find(|container| container.seen.id == id)
    }

    fn next_id(&mut self) -> String {
        self.made += 1;
        format!("{:064x}", self.made)
    }
}

fn observed(uid: &str, pod: &Pod) -> ObservedPod {
    ObservedPod {
        uid: uid.to_owned(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        sandboxes: pod.sandboxes.clone(),
        containers: pod.containers.iter().map(|container| container.seen.clone()).collect(),
    }
}

fn started_at(state: &ContainerState) -> Option<Timestamp> {
    match state {
        ContainerState::Running { started_at } => Some(*started_at),
        ContainerState::Exited { started_at, .. } => *started_at,
        ContainerState::Created | ContainerState::Unknown => None,
    }
}

fn finish(seen: &mut ObservedContainer, exit_code: i32, oom: bool, finished_at: Timestamp) {
    let reason = match (oom, exit_code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, _) => "Error",
    };
    let started_at = started_at(&seen.state);
    seen.state = ContainerState::Exited {
        started_at,
        finished_at,
        exit_code,
        reason: reason.into(),
        message: String::new(),
    };
}

fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// 64 hexadecimal digits that depend on the text only (FNV-1a, four times with different starts). No
/// security rests on it.
pub(super) fn fake_digest(text: &str) -> String {
    (0_u64..4)
        .map(|salt| {
            let start = 0xcbf2_9ce4_8422_2325_u64 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let hash = text
                .bytes()
                .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            format!("{hash:016x}")
        })
        .collect()
}
