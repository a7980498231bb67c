//! How long failed daemon pods are left before they are replaced: a kubelet that refuses a pod would
//! refuse the next one too. At once first, then 1 s, doubled up to 15 min (upstream `failedPodsBackoff`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use parking_lot::Mutex;

use super::placement::node_of;
use crate::pods;

const LONGEST_S: i64 = 900;

/// Failures by DaemonSet and node.
#[derive(Default)]
pub(super) struct Memory {
    sets: Mutex<HashMap<ObjectKey, HashMap<String, Entry>>>,
}

struct Entry {
    count: u32,
    uid: String,
    until: Timestamp,
}

/// Until when the failed pods of one DaemonSet stay, by UID.
#[derive(Default)]
pub(super) struct Failures(HashMap<String, Timestamp>);

impl Failures {
    /// How long a failed pod still stays; `None` when it may go.
    pub(super) fn wait(&self, pod: &Pod, now: Timestamp) -> Option<Duration> {
        let until = self.0.get(&pod.uid()?)?;
        let left = u64::try_from(until.as_second().saturating_sub(now.as_second())).ok()?;
        (left > 0).then(|| Duration::from_secs(left))
    }
}

impl Memory {
    /// Takes in the failed pods that are there now.
    pub(super) fn learn(&self, set: &ObjectKey, all: &[Arc<Pod>], now: Timestamp) -> Failures {
        let mut sets = self.sets.lock();
        let nodes = sets.entry(set.clone()).or_default();
        nodes.retain(|_, entry| now.as_second() - entry.until.as_second() < 2 * LONGEST_S);
        let mut failures = Failures::default();
        let failed = all.iter().filter(|pod| pods::phase(pod) == "Failed" && !pods::is_deleting(pod));
        for pod in failed {
            let (Some(node), Some(uid)) = (node_of(pod), pod.uid()) else { continue };
            let entry =
                nodes.entry(node.to_owned()).or_insert(Entry { count: 0, uid: String::new(), until: now });
            if entry.uid != uid {
                let delay = entry.count.checked_sub(1).map_or(0, |doublings| 1_i64 << doublings.min(10));
                let until = entry.until.as_second().saturating_add(delay.min(LONGEST_S)).max(now.as_second());
                *entry = Entry {
                    count: entry.count.saturating_add(1),
                    uid: uid.clone(),
                    until: Timestamp::from_second(until).unwrap_or(now),
                };
            }
            failures.0.insert(uid, entry.until);
        }
        if nodes.is_empty() {
            sets.remove(set);
        }
        failures
    }

    /// Forgets a set that is gone.
    pub(super) fn forget(&self, set: &ObjectKey) {
        self.sets.lock().remove(set);
    }
}
