use reconcile::{Kind, testkit::Bench};
use serde_json::{Value, json};

use super::*;

const JOB: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: { name: sum, namespace: ns, uid: uid-sum, generation: 1 }
spec:
  parallelism: 2
  completions: 3
  backoffLimit: 2
  completionMode: NonIndexed
  suspend: false
  podReplacementPolicy: TerminatingOrFailed
  selector: { matchLabels: { batch.kubernetes.io/controller-uid: uid-sum } }
  template:
    metadata: { labels: { batch.kubernetes.io/controller-uid: uid-sum } }
    spec: { restartPolicy: Never, containers: [ { name: c, image: "i" } ] }
"#;

fn key() -> ObjectKey {
    ObjectKey::new("ns", "sum")
}

fn bench(edit: Value) -> Bench<Jobs> {
    let bench = Bench::new(Jobs::default());
    bench.put_yaml(JOB);
    bench.edit(edit);
    bench
}

fn indexed(edit: Value) -> Bench<Jobs> {
    let bench = bench(json!({ "completionMode": "Indexed" }));
    bench.edit(edit);
    bench
}

trait Cluster {
    fn edit(&self, spec: Value);
    fn pods(&self) -> Vec<Value>;
    fn running(&self) -> usize;
    fn indexes(&self) -> Vec<String>;
    fn end(&self, count: usize, phase: &str);
    fn end_index(&self, index: u32, phase: &str, code: i32);
    fn end_pod(&self, pod: &Value, phase: &str, code: i32);
    fn status(&self) -> Value;
    fn conditions(&self) -> String;
    async fn rest(&self);
}

fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"].is_null() && pod["metadata"]["deletionTimestamp"].is_null()
}

impl Cluster for Bench<Jobs> {
    fn edit(&self, spec: Value) {
        self.api.patch(&Kind::of::<Job>(), &key(), "", &json!({ "spec": spec }));
    }
    fn pods(&self) -> Vec<Value> {
        self.api.list(&Kind::of::<Pod>(), "ns")
    }
    fn running(&self) -> usize {
        self.pods().iter().filter(|pod| is_running(pod)).count()
    }
    fn indexes(&self) -> Vec<String> {
        let index = |pod: &Value| pod["metadata"]["labels"][tally::INDEX].as_str().unwrap().to_owned();
        let mut all: Vec<_> = self.pods().iter().filter(|pod| is_running(pod)).map(index).collect();
        all.sort();
        all
    }
    fn end(&self, count: usize, phase: &str) {
        self.pods().iter().filter(|pod| is_running(pod)).take(count).for_each(|p| self.end_pod(p, phase, 1));
    }
    fn end_index(&self, index: u32, phase: &str, code: i32) {
        let pods = self.pods();
        let wanted = |pod: &&Value| pod["metadata"]["labels"][tally::INDEX] == json!(index.to_string());
        self.end_pod(pods.iter().find(|pod| is_running(pod) && wanted(pod)).unwrap(), phase, code);
    }
    fn end_pod(&self, pod: &Value, phase: &str, code: i32) {
        use meta::Clock;
        let at = meta::format_second(self.clock.now());
        let state = json!({ "terminated": { "exitCode": code, "finishedAt": at } });
        let container = json!({ "name": "c", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state });
        let status = json!({ "status": { "phase": phase, "containerStatuses": [container] } });
        let name = pod["metadata"]["name"].as_str().unwrap();
        self.api.patch(&Kind::of::<Pod>(), &ObjectKey::new("ns", name), "status", &status);
    }
    fn status(&self) -> Value {
        self.api.get(&Kind::of::<Job>(), &key()).unwrap()["status"].clone()
    }
    /// `Type=reason` of every True condition.
    fn conditions(&self) -> String {
        let status = self.status();
        let list = status["conditions"].as_array().cloned().unwrap_or_default();
        let text = |c: &Value| format!("{}={}", c["type"].as_str().unwrap(), c["reason"].as_str().unwrap());
        list.iter().filter(|c| c["status"] == "True").map(text).collect::<Vec<_>>().join(" ")
    }
    async fn rest(&self) {
        self.settle(&key()).await;
    }
}

const COMPLETED: &str = "SuccessCriteriaMet=CompletionsReached Complete=CompletionsReached";

#[tokio::test]
async fn the_first_plan_makes_pods_and_a_start_time() {
    insta::assert_yaml_snapshot!(bench(json!({})).plan(&key()).await.unwrap());
}

/// As in a namespace that goes, or under a quota: upstream frees what has ended all the same.
#[tokio::test]
async fn pods_that_have_ended_are_freed_although_no_new_one_can_be_made() {
    let job = bench(json!({}));
    job.rest().await;
    job.end(2, "Succeeded");
    for _ in 0..2 {
        let full = meta::Status::new(403, meta::Reason::Forbidden, "exceeded quota");
        job.api.fail_next(http::Method::POST, "/pods", full);
        let (_, acted) = job.step(&key()).await.unwrap();
        assert!(acted.result.is_err(), "the third pod is refused");
    }
    let held = |pod: &Value| pod["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    assert_eq!((job.pods().len(), job.pods().iter().filter(|pod| held(pod)).count()), (2, 0));
}

#[tokio::test]
async fn a_pod_that_was_counted_as_failed_succeeds_no_more() {
    let job = bench(json!({ "parallelism": 1, "completions": 1 }));
    job.rest().await;
    let pod = job.pods().remove(0);
    job.api.delete(&Kind::of::<Pod>(), &ObjectKey::new("ns", pod["metadata"]["name"].as_str().unwrap()));
    job.step(&key()).await;
    assert_eq!(job.status()["uncountedTerminatedPods"]["failed"].as_array().map(Vec::len), Some(1));
    job.end_pod(&pod, "Succeeded", 0);
    job.rest().await;
    job.advance(60);
    job.rest().await;
    let status = job.status();
    assert_eq!((status["failed"].as_i64(), status["succeeded"].as_i64()), (Some(1), None));
    assert_eq!((job.running(), job.conditions().as_str()), (1, ""), "another takes its place");
}

#[tokio::test]
async fn each_pod_is_counted_once_and_the_job_completes() {
    let job = bench(json!({}));
    job.rest().await;
    assert_eq!((job.running(), job.status()["active"].as_i64()), (2, Some(2)));
    job.end(2, "Succeeded");
    job.step(&key()).await;
    let uncounted = job.status()["uncountedTerminatedPods"]["succeeded"].as_array().unwrap().len();
    assert_eq!((uncounted, job.status()["succeeded"].as_i64()), (2, None), "entered before freed");
    job.rest().await;
    assert_eq!((job.running(), job.status()["succeeded"].as_i64()), (1, Some(2)));
    job.end(1, "Succeeded");
    job.rest().await;
    assert_eq!(job.conditions(), COMPLETED);
    insta::assert_yaml_snapshot!("status_when_complete", job.status());
    assert!(
        job.pods()
            .iter()
            .all(|pod| pod["metadata"]["finalizers"].is_null() || pod["metadata"]["finalizers"] == json!([]))
    );
}

#[tokio::test]
async fn failures_are_waited_out_and_limited() {
    let job = bench(json!({ "parallelism": 1, "completions": 1 }));
    for wait in [10, 20] {
        job.rest().await;
        assert_eq!(job.running(), 1);
        job.end(1, "Failed");
        job.rest().await;
        let plan = job.plan(&key()).await.unwrap();
        assert_eq!((job.running(), plan.recheck_after.unwrap().as_secs()), (0, wait));
        job.advance(wait as i64);
    }
    job.rest().await;
    job.end(1, "Failed");
    job.rest().await;
    assert_eq!(job.conditions(), "FailureTarget=BackoffLimitExceeded Failed=BackoffLimitExceeded");
    assert_eq!(job.status()["failed"], 3);
}

#[tokio::test]
async fn a_failed_job_ends_only_when_its_pods_have() {
    let job = bench(json!({ "activeDeadlineSeconds": 60 }));
    job.rest().await;
    for pod in job.pods() {
        let name = ObjectKey::new("ns", pod["metadata"]["name"].as_str().unwrap());
        job.api.patch(&Kind::of::<Pod>(), &name, "", &json!({ "spec": { "nodeName": "n" } }));
    }
    assert_eq!(job.plan(&key()).await.unwrap().recheck_after.unwrap().as_secs(), 60);
    job.advance(60);
    job.rest().await;
    assert_eq!(
        (job.conditions().as_str(), job.status()["terminating"].as_i64()),
        ("FailureTarget=DeadlineExceeded", Some(2))
    );
    for pod in job.pods() {
        let name = ObjectKey::new("ns", pod["metadata"]["name"].as_str().unwrap());
        job.api.delete(&Kind::of::<Pod>(), &name);
    }
    job.rest().await;
    assert_eq!(job.conditions(), "FailureTarget=DeadlineExceeded Failed=DeadlineExceeded");
    assert_eq!((job.status()["failed"].as_i64(), job.pods().len()), (Some(2), 0));
}

#[tokio::test]
async fn a_suspended_job_has_no_pods_and_no_failures() {
    let job = bench(json!({}));
    job.rest().await;
    job.edit(json!({ "suspend": true }));
    job.rest().await;
    assert_eq!((job.pods().len(), job.conditions().as_str()), (0, "Suspended=JobSuspended"));
    assert!(job.status()["startTime"].is_null() && job.status()["failed"].is_null());
    job.edit(json!({ "suspend": false }));
    job.rest().await;
    assert_eq!((job.running(), job.conditions().as_str()), (2, ""));
    assert!(job.status()["startTime"].is_string());
}

#[tokio::test]
async fn indexed_pods_have_an_index_each() {
    let job = indexed(json!({}));
    insta::assert_yaml_snapshot!("indexed_first_plan", job.plan(&key()).await.unwrap());
    job.rest().await;
    assert_eq!(job.indexes(), ["0", "1"]);
    job.end_index(1, "Succeeded", 0);
    job.rest().await;
    assert_eq!(
        (job.indexes(), job.status()["completedIndexes"].as_str()),
        (vec!["0".into(), "2".into()], Some("1"))
    );
    job.end_index(0, "Succeeded", 0);
    job.end_index(2, "Succeeded", 0);
    job.rest().await;
    assert_eq!(job.conditions(), COMPLETED);
    assert_eq!((&job.status()["completedIndexes"], &job.status()["succeeded"]), (&json!("0-2"), &json!(3)));
}

#[tokio::test]
async fn an_index_fails_by_itself() {
    let job = indexed(json!({ "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX, "parallelism": 3 }));
    job.rest().await;
    job.end_index(0, "Failed", 1);
    job.rest().await;
    assert_eq!(job.indexes(), ["1", "2"]);
    job.advance(10);
    job.rest().await;
    assert_eq!(job.indexes(), ["0", "1", "2"]);
    let again =
        job.pods().into_iter().find(|p| is_running(p) && p["metadata"]["labels"][tally::INDEX] == "0");
    assert_eq!(again.unwrap()["metadata"]["annotations"][tally::FAILURES], "1");
    job.end_index(0, "Failed", 1);
    job.end_index(1, "Succeeded", 0);
    job.rest().await;
    job.advance(100);
    job.rest().await;
    assert_eq!((job.indexes(), job.status()["failedIndexes"].as_str()), (vec!["2".into()], Some("0")));
    job.end_index(2, "Succeeded", 0);
    job.rest().await;
    assert_eq!(job.conditions(), "FailureTarget=FailedIndexes Failed=FailedIndexes");
    assert_eq!((&job.status()["completedIndexes"], &job.status()["failed"]), (&json!("1,2"), &json!(2)));
}

#[tokio::test]
async fn too_many_failed_indexes_fail_the_job() {
    let job = indexed(json!({ "backoffLimitPerIndex": 0, "maxFailedIndexes": 0, "backoffLimit": i32::MAX }));
    job.rest().await;
    job.end_index(1, "Failed", 1);
    job.rest().await;
    assert_eq!(job.conditions(), "FailureTarget=MaxFailedIndexesExceeded Failed=MaxFailedIndexesExceeded");
}

#[tokio::test]
async fn policies_decide_what_counts() {
    let rules = json!([
        { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        { "action": "Ignore", "onExitCodes": { "operator": "In", "values": [7] } },
    ]);
    let job = indexed(
        json!({ "podFailurePolicy": { "rules": rules }, "podReplacementPolicy": "Failed", "backoffLimit": 0 }),
    );
    job.rest().await;
    job.end_index(0, "Failed", 7);
    job.advance(60);
    job.rest().await;
    assert_eq!((job.indexes(), &job.status()["failed"]), (vec!["0".into(), "1".into()], &Value::Null));
    job.end_index(0, "Failed", 42);
    job.rest().await;
    assert_eq!(job.conditions(), "FailureTarget=PodFailurePolicy Failed=PodFailurePolicy");

    let job = indexed(json!({ "successPolicy": { "rules": [{ "succeededIndexes": "1" }] } }));
    job.rest().await;
    job.end_index(1, "Succeeded", 0);
    job.rest().await;
    assert_eq!(job.conditions(), "SuccessCriteriaMet=SuccessPolicy Complete=SuccessPolicy");
    assert_eq!(job.running(), 0);
}

#[tokio::test]
async fn scaling_down_takes_pods_without_counting_them() {
    let job = bench(json!({ "completions": null, "parallelism": 3 }));
    job.rest().await;
    job.edit(json!({ "parallelism": 1 }));
    job.rest().await;
    assert_eq!((job.pods().len(), &job.status()["failed"]), (1, &Value::Null));
    job.end(1, "Succeeded");
    job.rest().await;
    assert_eq!(job.conditions(), COMPLETED);
}

#[tokio::test]
async fn a_restart_remembers_failures_that_are_still_to_be_seen() {
    let job = bench(json!({ "parallelism": 1 }));
    job.rest().await;
    job.end(1, "Failed");
    job.rest().await;
    let restarted = job.beside(Jobs::default());
    assert_eq!(restarted.plan(&key()).await.unwrap().recheck_after.unwrap().as_secs(), 10);
}

#[tokio::test]
async fn a_job_of_another_manager_is_left_alone() {
    let job = bench(json!({ "managedBy": "example.com/queue" }));
    assert!(job.plan(&key()).await.is_none());
}

#[tokio::test]
async fn pods_of_a_deleted_job_are_freed() {
    let job = bench(json!({}));
    job.rest().await;
    let orphans = job.beside(OrphanedJobPods);
    let pod = ObjectKey::new("ns", job.pods()[0]["metadata"]["name"].as_str().unwrap());
    assert!(orphans.plan(&pod).await.is_none(), "its Job still counts it");
    job.api.delete(&Kind::of::<Job>(), &key());
    job.api.delete(&Kind::of::<Pod>(), &pod);
    assert_eq!(job.pods().len(), 2, "held by the finalizer");
    orphans.settle(&pod).await;
    assert_eq!(job.pods().len(), 1);
}
