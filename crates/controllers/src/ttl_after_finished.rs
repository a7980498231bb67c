//! Deletes finished Jobs when their `ttlSecondsAfterFinished` has passed (upstream
//! `pkg/controller/ttlafterfinished`).

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::batch::v1::Job;
use meta::{ObjectKey, Timestamp};
use reconcile::{Context, Plan, Precondition, Propagation, Reconciler, Result, Watches};

use crate::{job, spec::HasSpec};

/// The controller.
pub struct TtlAfterFinished;

/// What one plan looks at.
pub struct World {
    job: Arc<Job>,
}

impl Reconciler for TtlAfterFinished {
    type World = World;
    const NAME: &'static str = "ttl-after-finished";

    fn watches(&self) -> Watches {
        Watches::of::<Job>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let job = cx.stores.ready::<Job>().await.get(key);
        Ok(job.filter(|job| job.metadata.deletion_timestamp.is_none()).map(|job| World { job }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let job = &*world.job;
        let (Some(ttl), Some(finished)) = (job.spec().ttl_seconds_after_finished, job::finished_at(job))
        else {
            return plan;
        };
        let end = finished.as_second().saturating_add(i64::from(ttl));
        let left = u64::try_from(end.saturating_sub(now.as_second())).unwrap_or(0);
        if left > 0 {
            plan.recheck(Duration::from_secs(left));
        } else {
            // Only this version: a longer time to live may have been written meanwhile.
            let target = Precondition::of(job).unchanged(job);
            plan.delete.push(Precondition { propagation: Some(Propagation::Foreground), ..target });
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_finished_job_goes_when_its_time_has_passed() {
        let bench = Bench::new(TtlAfterFinished);
        let (key, jobs) = (ObjectKey::new("ns", "j"), Kind::of::<Job>());
        bench.api.put(&json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "j", "namespace": "ns" },
            "spec": { "ttlSecondsAfterFinished": 60, "template": {} },
        }));
        assert_eq!(bench.plan(&key).await.unwrap().recheck_after, None);
        let done =
            json!([{ "type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        bench.api.patch(&jobs, &key, "status", &json!({ "status": { "conditions": done } }));
        bench.advance(20);
        assert_eq!(bench.plan(&key).await.unwrap().recheck_after, Some(Duration::from_secs(40)));
        bench.advance(40);
        insta::assert_yaml_snapshot!(bench.plan(&key).await.unwrap(), { ".**.uid" => "[uid]" });
        bench.settle(&key).await;
        let left = bench.api.get(&jobs, &key);
        assert!(left.is_none_or(|job| job["metadata"]["deletionTimestamp"].is_string()));
    }
}
