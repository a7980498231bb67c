//! How the stores do, read from their pods' metrics through the API server: retention, fill, and whether the
//! key-location map is too small. A pod that does not answer is left out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use parking_lot::Mutex;
use reconcile::Context;

use crate::types::StoreStatus;

/// How long a pod may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pods that are asked for one plan; the rest have to be looked at by a monitoring system.
const PODS_MAX: usize = 32;

const EVICTED: &str =
    "buildbarn_blobstore_old_current_new_location_blob_map_last_removed_old_block_insertion_time_seconds";
const ALLOCATED: &str = "buildbarn_blobstore_block_device_backed_block_allocator_allocations_total";
const FREED: &str = "buildbarn_blobstore_block_device_backed_block_allocator_releases_total";
const FULL: &str = "buildbarn_blobstore_hashing_key_location_map_put_too_many_iterations_total";

/// How long a reading is good for: the numbers it gives move by the hour.
const GOOD_FOR_S: i64 = 60;
/// Storages whose readings are kept.
const KEPT_MAX: usize = 1024;

/// The last readings of every storage.
#[derive(Default)]
pub(crate) struct Readings {
    last: Mutex<HashMap<ObjectKey, Reading>>,
}

struct Reading {
    at: Timestamp,
    /// Pods that were asked.
    pods: Vec<String>,
    stores: Vec<StoreStatus>,
}

impl Readings {
    /// The last reading, or a new one when that is old or other pods are ready.
    pub(crate) async fn read(&self, cx: &Context, key: &ObjectKey, pods: &[Arc<Pod>]) -> Vec<StoreStatus> {
        let now = cx.clock.now();
        let ready = pods.iter().filter(|pod| crate::status::is_ready(pod)).take(PODS_MAX);
        let mut pods: Vec<String> = ready.map(|pod| pod.name_any()).collect();
        pods.sort();
        if let Some(reading) = self.last.lock().get(key)
            && now.as_second() - reading.at.as_second() < GOOD_FOR_S
            && reading.pods == pods
        {
            return reading.stores.clone();
        }
        let all = pods.iter().map(|pod| one(cx, &key.namespace, pod.clone()));
        let stores: Vec<StoreStatus> = futures::future::join_all(all).await.into_iter().flatten().collect();
        let mut last = self.last.lock();
        if last.len() >= KEPT_MAX {
            last.clear();
        }
        last.insert(key.clone(), Reading { at: now, pods, stores: stores.clone() });
        stores
    }
}

async fn one(cx: &Context, namespace: &str, pod: String) -> Vec<StoreStatus> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:9980/proxy/metrics");
    let Ok(request) = http::Request::get(path).body(Vec::new()) else { return Vec::new() };
    match tokio::time::timeout(PATIENCE, cx.client.request_text(request)).await {
        Ok(Ok(text)) => parse(&pod, &text, cx.clock.now()),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// Reads what Prometheus' text form says of the stores.
pub(crate) fn parse(pod: &str, text: &str, now: Timestamp) -> Vec<StoreStatus> {
    let mut stores: Vec<StoreStatus> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("buildbarn_blobstore_")) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = rest.split_once('}') else { continue };
        let Some(value) = value.split_whitespace().next().and_then(|value| value.parse::<f64>().ok()) else {
            continue;
        };
        let Some(store) = store(labels) else { continue };
        let entry = match stores.iter_mut().find(|entry| entry.store == store) {
            Some(entry) => entry,
            None => {
                stores.push(StoreStatus {
                    pod: pod.to_owned(),
                    store: store.to_owned(),
                    ..StoreStatus::default()
                });
                match stores.last_mut() {
                    Some(entry) => entry,
                    None => continue,
                }
            }
        };
        match name {
            EVICTED if value > 0.0 => {
                entry.retention_hours = Some((now.as_second() - seconds(value)).max(0) / 3600)
            }
            FULL => entry.map_too_full = Some(seconds(value)),
            // Blocks that were found again after a restart count as allocated.
            ALLOCATED => entry.blocks_in_use = Some(entry.blocks_in_use.unwrap_or(0) + seconds(value)),
            FREED => entry.blocks_in_use = Some(entry.blocks_in_use.unwrap_or(0) - seconds(value)),
            _ => {}
        }
    }
    stores.retain(|entry| {
        entry.retention_hours.is_some() || entry.map_too_full.is_some() || entry.blocks_in_use.is_some()
    });
    stores.sort_by(|a, b| a.store.cmp(&b.store));
    stores
}

#[allow(clippy::cast_possible_truncation, reason = "a count or a time; `as` saturates")]
fn seconds(value: f64) -> i64 {
    value as i64
}

fn store(labels: &str) -> Option<&'static str> {
    let kind = labels
        .split(',')
        .find_map(|label| label.trim().strip_prefix("storage_type=\"")?.strip_suffix('"'))?;
    match kind {
        "cas" => Some("cas"),
        "ac" => Some("ac"),
        "iscc" => Some("iscc"),
        "fsac" => Some("fsac"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_the_age_of_what_was_evicted_last() {
        let text = format!(
            "# HELP x\n{EVICTED}{{storage_type=\"cas\"}} 3600\n{EVICTED}{{storage_type=\"ac\"}} 0\n\
             {FREED}{{storage_type=\"cas\"}} 3\n{ALLOCATED}{{storage_type=\"cas\"}} 22\n\
             {FULL}{{storage_type=\"cas\"}} 7\nbuildbarn_blobstore_other 1\n{EVICTED}{{storage_type=\"cas\" nonsense\n"
        );
        let now = Timestamp::from_second(3 * 3600).unwrap();
        let wanted = StoreStatus {
            pod: "storage-0".into(),
            store: "cas".into(),
            retention_hours: Some(2),
            map_too_full: Some(7),
            blocks_in_use: Some(19),
            fill_percent: None,
        };
        assert_eq!(parse("storage-0", &text, now), [wanted]);
    }
}
