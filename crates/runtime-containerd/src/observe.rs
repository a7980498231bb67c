//! From CRI's lists and statuses to [`ObservedPod`]s.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use futures::{StreamExt, TryStreamExt};
use meta::Timestamp;
use runtime::{
    ContainerState, ErrorKind, ObservedContainer, ObservedPod, ObservedSandbox, Result, SandboxState, Step,
};

use crate::{
    config,
    connection::{Connection, QUICK},
    cri,
};

/// Questions in flight at a time; containerd answers them from memory on a few threads.
const IN_FLIGHT: usize = 16;

/// All pods, or the one with a uid.
pub(crate) async fn pods(connection: &Connection, uid: Option<&str>) -> Result<Vec<ObservedPod>> {
    let about = (Step::Observe, uid.unwrap_or("all pods"));
    let filter = cri::PodSandboxFilter { label_selector: config::selector(uid), ..Default::default() };
    let request = cri::ListPodSandboxRequest { filter: Some(filter) };
    let sandboxes: cri::ListPodSandboxResponse =
        connection.call(about, "/runtime.v1.RuntimeService/ListPodSandbox", request, QUICK).await?;
    let filter = cri::ContainerFilter { label_selector: config::selector(uid), ..Default::default() };
    let request = cri::ListContainersRequest { filter: Some(filter) };
    let containers: cri::ListContainersResponse =
        connection.call(about, "/runtime.v1.RuntimeService/ListContainers", request, QUICK).await?;

    let sandboxes: Vec<_> = futures::stream::iter(sandboxes.items)
        .map(|sandbox| async move { sandbox_status(connection, &sandbox.id).await })
        .buffered(IN_FLIGHT)
        .try_collect()
        .await?;
    let containers: Vec<_> = futures::stream::iter(containers.containers)
        .map(|short| async move {
            let status = container_status(connection, Step::Observe, &short.id).await?;
            Ok(status.map(|status| (short.pod_sandbox_id, status)))
        })
        .buffered(IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(assemble(sandboxes.into_iter().flatten(), containers.into_iter().flatten()))
}

/// A container's status; `None` when it is gone.
pub(crate) async fn container_status(
    connection: &Connection,
    step: Step,
    id: &str,
) -> Result<Option<cri::ContainerStatus>> {
    let request = cri::Id { id: id.to_owned() };
    let answer: Result<cri::ContainerStatusResponse> =
        connection.call((step, id), "/runtime.v1.RuntimeService/ContainerStatus", request, QUICK).await;
    absent_is_none(answer.map(|answer| answer.status))
}

/// A sandbox's status; `None` when it is gone.
pub(crate) async fn sandbox_status(
    connection: &Connection,
    id: &str,
) -> Result<Option<cri::PodSandboxStatus>> {
    let request = cri::Id { id: id.to_owned() };
    let answer: Result<cri::PodSandboxStatusResponse> = connection
        .call((Step::Observe, id), "/runtime.v1.RuntimeService/PodSandboxStatus", request, QUICK)
        .await;
    absent_is_none(answer.map(|answer| answer.status))
}

fn absent_is_none<T>(answer: Result<Option<T>>) -> Result<Option<T>> {
    match answer {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        other => other,
    }
}

fn assemble(
    sandboxes: impl Iterator<Item = cri::PodSandboxStatus>,
    containers: impl Iterator<Item = (String, cri::ContainerStatus)>,
) -> Vec<ObservedPod> {
    let mut pods: BTreeMap<String, ObservedPod> = BTreeMap::new();
    for status in sandboxes {
        let metadata = status.metadata.clone().unwrap_or_default();
        let pod = pods
            .entry(metadata.uid.clone())
            .or_insert_with(|| empty(metadata.uid, metadata.namespace, metadata.name));
        pod.sandboxes.push(sandbox(status, metadata.attempt));
    }
    for (sandbox_id, status) in containers {
        let label = |key| status.labels.get(key).cloned().unwrap_or_default();
        let (uid, namespace, name) =
            (label(config::POD_UID), label(config::POD_NAMESPACE), label(config::POD_NAME));
        let pod = pods.entry(uid.clone()).or_insert_with(|| empty(uid, namespace, name));
        pod.containers.push(container(sandbox_id, status));
    }
    for pod in pods.values_mut() {
        pod.sandboxes.sort_by_key(|sandbox| Reverse(sandbox.attempt));
        pod.containers.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| b.attempt.cmp(&a.attempt)));
    }
    pods.into_values().collect()
}

fn empty(uid: String, namespace: String, name: String) -> ObservedPod {
    ObservedPod { uid, namespace, name, sandboxes: Vec::new(), containers: Vec::new() }
}

fn sandbox(status: cri::PodSandboxStatus, attempt: u32) -> ObservedSandbox {
    let state = match status.state() {
        cri::PodSandboxState::Ready => SandboxState::Ready,
        cri::PodSandboxState::NotReady => SandboxState::NotReady,
    };
    let options = status.linux.unwrap_or_default().namespaces.unwrap_or_default().options.unwrap_or_default();
    let host_network = options.network() == cri::NamespaceMode::Node;
    let network = status.network.unwrap_or_default();
    let ips: Vec<IpAddr> = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        .filter_map(|ip| ip.parse().ok())
        .collect();
    ObservedSandbox {
        id: status.id,
        attempt,
        state,
        created_at: timestamp(status.created_at),
        ips: if state == SandboxState::Ready && !host_network { ips } else { Vec::new() },
        host_network,
        labels: config::given(status.labels),
        annotations: config::given(status.annotations),
    }
}

fn container(sandbox_id: String, status: cri::ContainerStatus) -> ObservedContainer {
    let state = match status.state() {
        cri::ContainerState::Created => ContainerState::Created,
        cri::ContainerState::Running => ContainerState::Running { started_at: timestamp(status.started_at) },
        cri::ContainerState::Exited => ContainerState::Exited {
            // containerd notes the start when it has returned, which for a short life is after the end
            started_at: (status.started_at > 0).then(|| timestamp(status.started_at.min(status.finished_at))),
            finished_at: timestamp(status.finished_at),
            exit_code: status.exit_code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        },
        cri::ContainerState::Unknown => ContainerState::Unknown,
    };
    let metadata = status.metadata.unwrap_or_default();
    let asked_for = status.annotations.get(config::IMAGE_NAME).cloned();
    ObservedContainer {
        id: status.id,
        sandbox_id,
        name: metadata.name,
        attempt: metadata.attempt,
        state,
        created_at: timestamp(status.created_at),
        image: asked_for.unwrap_or_else(|| status.image.unwrap_or_default().image),
        image_id: status.image_ref,
        labels: config::given(status.labels),
        annotations: config::given(status.annotations),
        log_path: status.log_path,
    }
}

/// CRI's nanoseconds since 1970; what is out of range, which no clock shows, is 1970.
pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_put_together_newest_attempt_first() {
        let labels: runtime::action::Map = [(config::POD_UID.to_owned(), "u".to_owned())].into();
        let sandbox = |attempt, state: cri::PodSandboxState| cri::PodSandboxStatus {
            id: format!("s{attempt}"),
            metadata: Some(cri::PodSandboxMetadata { uid: "u".into(), attempt, ..Default::default() }),
            state: state.into(),
            network: Some(cri::PodSandboxNetworkStatus { ip: "10.0.0.2".into(), additional_ips: vec![] }),
            ..Default::default()
        };
        let container = |attempt| cri::ContainerStatus {
            id: format!("c{attempt}"),
            metadata: Some(cri::ContainerMetadata { name: "main".into(), attempt }),
            state: cri::ContainerState::Exited.into(),
            exit_code: 3,
            labels: labels.clone(),
            ..Default::default()
        };
        let sandboxes = [sandbox(0, cri::PodSandboxState::NotReady), sandbox(1, cri::PodSandboxState::Ready)];
        let containers = [("s0".to_owned(), container(0)), ("s1".to_owned(), container(1))];
        let pods = assemble(sandboxes.into_iter(), containers.into_iter());
        let [pod] = pods.as_slice() else { panic!("{pods:?}") };
        assert_eq!(pod.sandbox().map(|s| (s.id.as_str(), s.ips.len())), Some(("s1", 1)));
        assert!(pod.sandboxes.last().unwrap().ips.is_empty(), "a stopped sandbox has no address");
        let newest = pod.container("main").unwrap();
        assert_eq!((newest.id.as_str(), newest.exit_code()), ("c1", Some(3)));
        assert!(newest.labels.is_empty());
    }
}
