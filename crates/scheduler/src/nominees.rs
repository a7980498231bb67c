//! Pods that room is being made for: each has a node on which pods of lower or equal priority may not take
//! that room (upstream `backend/queue/nominator.go`).

use std::{collections::HashMap, sync::Arc};

use crate::pod::PodInfo;

/// Pods with a nominated node.
#[derive(Debug, Default)]
pub struct Nominees {
    nodes: HashMap<Arc<str>, Arc<str>>,
    at: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
}

impl Nominees {
    /// The node a pod is nominated for.
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.nodes.get(uid)
    }

    /// The pods nominated for a node, in order of nomination.
    pub fn at(&self, node: &str) -> &[Arc<PodInfo>] {
        self.at.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether one of them has affinity or anti-affinity of its own.
    pub(crate) fn have_terms(&self) -> bool {
        let mut all = self.at.values().flatten();
        all.any(|pod| pod.relations.as_ref().is_some_and(|r| r.concerns_others()))
    }

    /// Those on a node that `pod` must leave room for.
    pub(crate) fn before<'a>(
        &'a self,
        pod: &'a PodInfo,
        node: &str,
    ) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        self.at(node).iter().filter(|other| other.priority >= pod.priority && other.uid != pod.uid)
    }

    /// Whether a nominated pod is known as it is.
    pub(crate) fn knows(&self, pod: &PodInfo) -> bool {
        let node = self.nodes.get(&pod.uid);
        node.is_some_and(|node| {
            self.at(node).iter().any(|known| {
                known.uid == pod.uid && known.shape == pod.shape && known.priority == pod.priority
            })
        })
    }

    pub(crate) fn set(&mut self, pod: &Arc<PodInfo>, node: Option<&str>) {
        self.remove(&pod.uid);
        if let Some(node) = node {
            let node: Arc<str> = node.into();
            self.nodes.insert(Arc::clone(&pod.uid), Arc::clone(&node));
            self.at.entry(node).or_default().push(Arc::clone(pod));
        }
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Arc<str>> {
        let node = self.nodes.remove(uid)?;
        if let Some(here) = self.at.get_mut(&node) {
            here.retain(|pod| *pod.uid != *uid);
            if here.is_empty() {
                self.at.remove(&node);
            }
        }
        Some(node)
    }
}
