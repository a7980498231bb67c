//! PersistentVolumes and the claims on them. Nothing mounts them.

use serde_json::{Value, json};

use crate::kit::{Kit, condition};

fn volume(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "set": "mine" } },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "storageClassName": "by-hand",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": { "path": "/tmp/x" },
        },
    })
}

fn claim(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "set": "mine" } },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
            "resources": { "requests": { "storage": "1Gi" } },
        },
    })
}

fn phase(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |object| object["status"]["phase"] == phase
}

#[tokio::test(start_paused = true)]
async fn volumes_and_claims_are_bound_changed_and_deleted() {
    let kit = Kit::nodes(1).await;
    kit.create("persistentvolumes", volume("disk")).await;
    kit.until("persistentvolumes/disk", "is available", phase("Available")).await;
    kit.create("persistentvolumeclaims", claim("data")).await;
    let bound = kit.until("persistentvolumeclaims/data", "is bound", phase("Bound")).await;
    assert_eq!(bound["spec"]["volumeName"], "disk");
    let disk = kit.until("persistentvolumes/disk", "is bound", phase("Bound")).await;
    assert_eq!(disk["spec"]["claimRef"]["name"], "data");
    let label = json!({ "metadata": { "labels": { "patched": "yes" } } });
    kit.merge("persistentvolumes/disk", label.clone()).await;
    kit.merge("persistentvolumeclaims/data", label).await;
    assert_eq!(kit.list("*:persistentvolumeclaims?labelSelector=patched%3Dyes").await.len(), 1);
    kit.delete("persistentvolumeclaims/data").await;
    kit.gone("persistentvolumeclaims/data").await;
    kit.until("persistentvolumes/disk", "is kept", phase("Released")).await;
    kit.delete("persistentvolumes/disk").await;
    kit.gone("persistentvolumes/disk").await;
    for name in ["a", "b"] {
        kit.create("persistentvolumes", volume(name)).await;
        kit.create("persistentvolumeclaims", claim(name)).await;
    }
    kit.delete("persistentvolumeclaims?labelSelector=set%3Dmine").await;
    kit.until_list("persistentvolumeclaims", "all are gone", <[Value]>::is_empty).await;
    kit.delete("persistentvolumes?labelSelector=set%3Dmine").await;
    kit.until_list("persistentvolumes", "all are gone", <[Value]>::is_empty).await;
}

#[tokio::test(start_paused = true)]
async fn the_status_of_volumes_and_claims_is_replaced_and_patched() {
    let kit = Kit::nodes(1).await;
    kit.create("persistentvolumes", volume("disk")).await;
    kit.create("persistentvolumeclaims", claim("data")).await;
    kit.until("persistentvolumeclaims/data", "is bound", phase("Bound")).await;
    let of = |reason: &str| json!([{ "type": "StatusUpdate", "status": "True", "reason": reason, "message": "set" }]);
    let at = "persistentvolumeclaims/data/status";
    let patched = kit.merge(at, json!({ "status": { "conditions": of("Patched") } })).await;
    assert_eq!(condition(&patched, "StatusUpdate")["reason"], "Patched");
    let updated = kit.update(at, |claim| claim["status"]["conditions"] = of("E2E")).await;
    assert_eq!(condition(&updated, "StatusUpdate")["reason"], "E2E");
    assert_eq!(updated["status"]["phase"], "Bound");
    let at = "persistentvolumes/disk/status";
    let said = json!({ "status": { "reason": "Patched", "message": "by a test" } });
    assert_eq!(kit.merge(at, said).await["status"]["reason"], "Patched");
    let updated = kit.update(at, |volume| volume["status"]["reason"] = json!("E2E")).await;
    assert_eq!(updated["status"]["reason"], "E2E");
}
