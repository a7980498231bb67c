//! Changes of a storage, which must keep what is in it.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::*;

#[tokio::test]
async fn changes_that_lose_data_are_refused_unless_told() {
    let cases = [
        (json!({"shards": {"keys": ["x", "1"]}}), "spec.shards.keys.0: \"0\" cannot become \"x\"", false),
        (
            json!({"mirroring": {"enabled": true}}),
            "spec.mirroring: shard \"0\" would move to other pods",
            true,
        ),
        (
            json!({"cas": {"currentBlocks": 30}}),
            "spec.cas.currentBlocks: the sizes of a store cannot change",
            true,
        ),
        (json!({"cas": {"size": "1Gi"}}), "spec.cas.size: the sizes of a store cannot change", true),
        (json!({"medium": "Ephemeral"}), "spec.medium: data is on volumes", true),
        (
            json!({"storageClassName": "fast"}),
            "spec.storageClassName: the volumes there are have the default class",
            false,
        ),
    ];
    for (spec, wanted, may) in cases {
        let farm = Farm::new(FARM);
        farm.run().await;
        let before = farm.list::<StatefulSet>();
        farm.edit::<BuildbarnStorage>("storage", spec.clone());
        farm.run().await;
        let ready = farm.condition::<BuildbarnStorage>("storage", "Ready");
        assert!(ready.starts_with("False WouldLoseData: ") && ready.contains(wanted), "{spec}: {ready}");
        assert_eq!(farm.list::<StatefulSet>(), before, "{spec}");
        farm.edit::<BuildbarnStorage>("storage", json!({"allowDataLoss": true}));
        farm.run().await;
        let ready = farm.condition::<BuildbarnStorage>("storage", "Ready");
        assert_eq!(!ready.contains("WouldLoseData"), may, "{spec}: {ready}");
    }
}

#[tokio::test]
async fn volumes_grow_and_never_shrink() {
    let farm = Farm::new(FARM);
    farm.run().await;
    let labels =
        farm.get::<StatefulSet>("storage").unwrap()["spec"]["volumeClaimTemplates"][0]["metadata"]["labels"]
            .clone();
    farm.storage.api.put(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "cas-storage-0", "namespace": "buildbarn", "labels": labels},
        "spec": {"resources": {"requests": {"storage": "10Gi"}}},
    }));
    let size = |farm: &Farm| {
        farm.get::<PersistentVolumeClaim>("cas-storage-0").unwrap()["spec"]["resources"]["requests"]["storage"].clone()
    };
    let geometry = farm.status::<BuildbarnStorage>("storage")["geometry"].clone();
    farm.edit::<BuildbarnStorage>("storage", json!({"cas": {"volumeSize": "20Gi"}}));
    farm.run().await;
    assert_eq!(size(&farm), "20Gi");
    assert_eq!(
        farm.status::<BuildbarnStorage>("storage")["geometry"],
        geometry,
        "blocks stay as they were made"
    );
    farm.edit::<BuildbarnStorage>("storage", json!({"cas": {"volumeSize": "5Gi"}}));
    farm.run().await;
    let ready = farm.condition::<BuildbarnStorage>("storage", "Ready");
    assert!(
        ready.contains("spec.cas.volumeSize: claim \"cas-storage-0\" has 20Gi and volumes cannot shrink"),
        "{ready}"
    );
    assert_eq!(size(&farm), "20Gi");
}

/// A store that comes later gets volumes: the StatefulSet, whose templates cannot change, is replaced under its pods.
#[tokio::test]
async fn a_store_comes_with_volumes_and_goes_when_its_data_may() {
    let farm = Farm::new(FARM);
    farm.run().await;
    let stores = || {
        let set = farm.get::<StatefulSet>("storage").unwrap();
        let templates = set["spec"]["volumeClaimTemplates"].as_array().unwrap().iter();
        templates.map(|claim| claim["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The garbage collector lets the pods go.
    let collect = || {
        let set = farm.get::<StatefulSet>("storage").unwrap();
        assert_eq!(set["metadata"]["finalizers"], json!(["orphan"]), "its pods are to stay");
        let done = json!({"metadata": {"finalizers": null}});
        farm.storage.api.patch(&Kind::of::<StatefulSet>(), &key("storage"), "", &done);
    };
    farm.edit::<BuildbarnStorage>("storage", json!({"iscc": {"enabled": true}}));
    farm.storage.settle(&key("storage")).await;
    assert_eq!(stores(), ["cas", "ac"]);
    collect();
    farm.run().await;
    assert_eq!(stores(), ["cas", "ac", "iscc"]);
    assert!(farm.condition::<BuildbarnStorage>("storage", "Ready").starts_with("True"));
    farm.edit::<BuildbarnStorage>("storage", json!({"iscc": {"enabled": false}}));
    farm.run().await;
    assert_eq!(stores(), ["cas", "ac", "iscc"], "there is data in it");
    farm.edit::<BuildbarnStorage>("storage", json!({"allowDataLoss": true}));
    farm.storage.settle(&key("storage")).await;
    collect();
    farm.run().await;
    assert_eq!(stores(), ["cas", "ac"]);
}
