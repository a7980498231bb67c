use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::*;

const CRON: &str = r#"
apiVersion: batch/v1
kind: CronJob
metadata: { name: dump, namespace: ns, uid: uid-dump, creationTimestamp: "2026-01-01T00:00:00Z" }
spec:
  schedule: "*/10 * * * *"
  timeZone: Europe/Zurich
  concurrencyPolicy: Allow
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 1
  jobTemplate:
    metadata: { labels: { a: b } }
    spec: { template: { spec: { restartPolicy: Never, containers: [ { name: c, image: "i" } ] } } }
"#;

fn key() -> ObjectKey {
    ObjectKey::new("ns", "dump")
}

fn bench(edit: Value) -> Bench<CronJobs> {
    let bench = Bench::new(CronJobs::default());
    bench.put_yaml(CRON);
    bench.api.patch(&Kind::of::<CronJob>(), &key(), "", &json!({ "spec": edit }));
    bench
}

trait Cluster {
    fn jobs(&self) -> Vec<String>;
    fn end(&self, name: &str, condition: &str);
    fn status(&self) -> Value;
    fn active(&self) -> usize;
    async fn pass(&self, seconds: i64);
}

impl Cluster for Bench<CronJobs> {
    fn jobs(&self) -> Vec<String> {
        let jobs = self.api.list(&Kind::of::<Job>(), "ns");
        jobs.iter().map(|job| job["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
    fn end(&self, name: &str, condition: &str) {
        use meta::Clock;
        let now = meta::format_second(self.clock.now());
        let mut status = json!({ "startTime": now, "conditions": [{ "type": condition, "status": "True" }] });
        if condition == "Complete" {
            status["completionTime"] = json!(now);
        }
        self.api.patch(
            &Kind::of::<Job>(),
            &ObjectKey::new("ns", name),
            "status",
            &json!({ "status": status }),
        );
    }
    fn status(&self) -> Value {
        self.api.get(&Kind::of::<CronJob>(), &key()).unwrap()["status"].clone()
    }
    fn active(&self) -> usize {
        self.status()["active"].as_array().map_or(0, Vec::len)
    }
    async fn pass(&self, seconds: i64) {
        self.advance(seconds);
        // A step that only tells something is no rest yet.
        self.step(&key()).await;
        self.settle(&key()).await;
    }
}

#[tokio::test]
async fn a_job_is_made_when_its_time_has_come() {
    let cron = bench(json!({}));
    let plan = cron.plan(&key()).await.unwrap();
    assert_eq!((plan.apply.len(), plan.recheck_after.unwrap().as_millis()), (0, 600_100));
    cron.advance(601);
    insta::assert_yaml_snapshot!(cron.plan(&key()).await.unwrap());
    cron.settle(&key()).await;
    assert_eq!(cron.jobs(), ["dump-29453770"]);
    assert_eq!(
        (cron.status()["lastScheduleTime"].as_str(), cron.active()),
        (Some("2026-01-01T00:10:00Z"), 1)
    );
    cron.end("dump-29453770", "Complete");
    cron.pass(5).await;
    assert_eq!(
        (cron.status()["lastSuccessfulTime"].as_str(), cron.active()),
        (Some("2026-01-01T00:10:01Z"), 0)
    );
}

#[tokio::test]
async fn only_the_last_missed_time_is_made_up_for() {
    let cron = bench(json!({}));
    cron.pass(3700).await;
    assert_eq!(cron.jobs(), ["dump-29453820"]);
    let late = bench(json!({ "startingDeadlineSeconds": 30 }));
    late.pass(3700).await;
    assert!(late.jobs().is_empty());
    let suspended = bench(json!({ "suspend": true }));
    suspended.pass(3700).await;
    assert!(suspended.jobs().is_empty());
}

#[tokio::test]
async fn concurrency_is_allowed_forbidden_or_ended() {
    for (policy, jobs, active) in [("Allow", 2, 2), ("Forbid", 1, 1), ("Replace", 1, 1)] {
        let cron = bench(json!({ "concurrencyPolicy": policy }));
        cron.pass(601).await;
        cron.pass(600).await;
        assert_eq!((cron.jobs().len(), cron.active()), (jobs, active), "{policy}");
        let newest = if policy == "Forbid" { "dump-29453770" } else { "dump-29453780" };
        assert_eq!(cron.jobs().last().unwrap(), newest, "{policy}");
    }
}

#[tokio::test]
async fn history_is_kept_to_its_limits() {
    let cron = bench(json!({}));
    for end in ["Complete", "Failed", "Complete", "Failed"] {
        cron.pass(601).await;
        cron.end(cron.jobs().last().unwrap(), end);
        cron.settle(&key()).await;
    }
    assert_eq!(cron.jobs(), ["dump-29453790", "dump-29453800"]);
}

#[tokio::test]
async fn a_schedule_that_cannot_be_is_told_of_once() {
    for (edit, reason) in [
        (json!({ "schedule": "0 0 31 2 *" }), "InvalidSchedule"),
        (json!({ "schedule": "often" }), "UnparseableSchedule"),
        (json!({ "timeZone": "Mars/Base" }), "UnknownTimeZone"),
    ] {
        let cron = bench(edit);
        let (plan, _) = cron.step(&key()).await.unwrap();
        assert_eq!((plan.events[0].reason.as_str(), plan.recheck_after), (reason, None));
        cron.settle(&key()).await;
    }
}
