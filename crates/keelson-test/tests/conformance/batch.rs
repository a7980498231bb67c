//! Jobs and CronJobs.

use serde_json::{Value, json};

use crate::kit::{Kit, collection, condition, name, owners, status, template};

const MINUTE: u64 = 60;

fn job(name: &str, seconds: u64) -> Value {
    let mut template = template(name);
    template["metadata"]["annotations"] =
        json!({ "simulated.keelson.dev/exit-after": format!("{seconds}s") });
    template["spec"]["restartPolicy"] = json!("Never");
    json!({
        "metadata": { "name": name, "labels": {} },
        "spec": { "parallelism": 2, "completions": 2, "backoffLimit": 6, "template": template },
    })
}

/// Fires each minute; what it starts takes so long.
fn cron(policy: &str, seconds: u64) -> Value {
    json!({
        "metadata": { "name": "tick" },
        "spec": {
            "schedule": "*/1 * * * ?", "concurrencyPolicy": policy, "suspend": false,
            "jobTemplate": { "spec": job("tick", seconds)["spec"] },
        },
    })
}

fn active(cron: &Value) -> usize {
    cron["status"]["active"].as_array().map_or(0, Vec::len)
}

#[tokio::test(start_paused = true)]
async fn a_suspended_cron_job_starts_nothing() {
    let kit = Kit::nodes(1).await;
    let mut suspended = cron("Allow", 300);
    suspended["spec"]["suspend"] = json!(true);
    kit.create("cronjobs", suspended).await;
    kit.seconds(5 * MINUTE).await;
    assert_eq!(kit.list("jobs").await, Vec::<Value>::new());
    assert_eq!(active(&kit.get("cronjobs/tick").await), 0);
}

#[tokio::test(start_paused = true)]
async fn allow_lets_jobs_run_beside_each_other() {
    let kit = Kit::nodes(1).await;
    kit.create("cronjobs", cron("Allow", 300)).await;
    kit.until("cronjobs/tick", "two run", |cron| active(cron) == 2).await;
    let running = kit.list("jobs").await;
    assert_eq!(running.iter().filter(|job| job["status"]["active"] == 2).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn forbid_waits_for_the_job_that_runs() {
    let kit = Kit::nodes(1).await;
    kit.create("cronjobs", cron("Forbid", 300)).await;
    kit.until("cronjobs/tick", "one runs", |cron| active(cron) == 1).await;
    let only = name(&kit.list("jobs").await[0]);
    kit.seconds(4 * MINUTE).await;
    let jobs = kit.list("jobs").await;
    assert_eq!((jobs.len(), name(&jobs[0])), (1, only));
}

#[tokio::test(start_paused = true)]
async fn replace_ends_the_job_that_runs() {
    let kit = Kit::nodes(1).await;
    kit.create("cronjobs", cron("Replace", 300)).await;
    kit.until("cronjobs/tick", "one runs", |cron| active(cron) == 1).await;
    let first = name(&kit.list("jobs").await[0]);
    kit.gone(&format!("jobs/{first}")).await;
    let next = kit.until("cronjobs/tick", "the next runs", |cron| {
        active(cron) == 1 && cron["status"]["active"][0]["name"] != first.as_str()
    });
    next.await;
}

#[tokio::test(start_paused = true)]
async fn a_job_adopts_and_releases() {
    let kit = Kit::nodes(1).await;
    kit.create("jobs", job("work", 3600)).await;
    kit.until("jobs/work", "runs", |job| job["status"]["ready"] == 2).await;
    let at = format!("pods/{}", name(&kit.list("pods").await[0]));
    kit.merge(&at, json!({ "metadata": { "ownerReferences": null } })).await;
    kit.until(&at, "is adopted again", |pod| owners(pod) == ["work"]).await;
    let labels = json!({
        "job-name": null, "batch.kubernetes.io/job-name": null,
        "controller-uid": null, "batch.kubernetes.io/controller-uid": null,
    });
    kit.merge(&at, json!({ "metadata": { "labels": labels } })).await;
    kit.until(&at, "is let go", |pod| owners(pod).is_empty()).await;
    kit.until_list("pods", "is replaced", |pods| pods.len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_jobs_status_is_replaced_and_patched() {
    let kit = Kit::nodes(1).await;
    kit.create("jobs", job("work", 3600)).await;
    kit.until("jobs/work", "runs", |job| job["status"]["ready"] == 2).await;
    let conditions =
        |reason: &str| json!({ "conditions": [{ "type": "Custom", "status": "True", "reason": reason }] });
    status(&kit, "jobs/work", conditions("E2E"), conditions("Patched")).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_job_takes_its_pods_with_it() {
    let kit = Kit::nodes(1).await;
    kit.create("jobs", job("work", 3600)).await;
    kit.until("jobs/work", "runs", |job| job["status"]["ready"] == 2).await;
    kit.delete_with("jobs/work", json!({ "propagationPolicy": "Foreground" })).await;
    kit.gone("jobs/work").await;
    assert_eq!(kit.list("pods").await, Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn a_job_is_made_suspended_resumed_and_deleted() {
    let kit = Kit::nodes(1).await;
    let mut suspended = job("work", 1);
    suspended["spec"]["suspend"] = json!(true);
    kit.create("jobs", suspended).await;
    kit.until("jobs/work", "is suspended", |job| condition(job, "Suspended")["status"] == "True").await;
    kit.seconds(30).await;
    assert_eq!(kit.list("pods").await, Vec::<Value>::new());
    kit.merge("jobs/work", json!({ "metadata": { "labels": { "patched": "yes" } } })).await;
    kit.update("jobs/work", |job| job["spec"]["suspend"] = json!(false)).await;
    let done =
        kit.until("jobs/work", "completes", |job| condition(job, "Complete")["status"] == "True").await;
    assert_eq!(done["status"]["succeeded"], 2);
    assert_eq!(kit.list("*:jobs?labelSelector=patched%3Dyes").await.len(), 1);
    kit.delete_with("jobs/work", json!({ "propagationPolicy": "Background" })).await;
    kit.until_list("pods", "collected", <[Value]>::is_empty).await;
    collection(&kit, "jobs", &job("more", 3600)).await;
}
