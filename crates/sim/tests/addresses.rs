//! What an API server that dies in the middle of a Service leaves behind is found again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by panicking")]

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::{Event, Service},
    networking::v1::IPAddress,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use sim::{Cluster, Settings};

fn service(name: &str) -> Service {
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dies_within_a_service_leaves_no_address_taken() {
    let mut cluster = Cluster::start(&Settings::new(1, 1)).await.unwrap();
    let client = cluster.client();
    let addresses: Api<IPAddress> = Api::all(client.clone());
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let taken = async || -> Vec<String> {
        let all = addresses.list(&Default::default()).await.unwrap();
        all.iter().map(|address| address.name_any()).collect()
    };
    let before = taken().await;
    let kept = services.create(&PostParams::default(), &service("kept")).await.unwrap();
    let kept = kept.spec.unwrap().cluster_ip.unwrap();
    // The server dies at some moment of a create, until one is after the claim and before the Service.
    let mut leaked = None;
    for attempt in 0..40 {
        let name = format!("died-{attempt}");
        cluster.slow_store(400);
        let (api, died) = (services.clone(), service(&name));
        let creating = tokio::spawn(async move { api.create(&PostParams::default(), &died).await });
        tokio::time::sleep(Duration::from_millis(50 + 10 * attempt)).await;
        cluster.crash_api();
        creating.await.unwrap().unwrap_err();
        cluster.slow_store(0);
        cluster.start_api().await.unwrap();
        let stored = services.get_opt(&name).await.unwrap().is_some();
        let now = taken().await;
        if !stored && now.len() > before.len() + 1 {
            leaked = now.into_iter().find(|address| *address != kept && !before.contains(address));
            break;
        }
        if stored {
            services.delete(&name, &DeleteParams::default()).await.unwrap();
        }
    }
    let leaked = leaked.unwrap_or_else(|| panic!("no attempt was within a Service"));
    // And somebody takes an address away that is held.
    addresses.delete(&kept, &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    let now = taken().await;
    assert!(now.contains(&kept) && !now.contains(&leaked), "{now:?}, {leaked} leaked");
    assert_eq!(now.len(), before.len() + 1);
    let events: Api<Event> = Api::default_namespaced(client);
    let events = events.list(&Default::default()).await.unwrap();
    let told = |reason: &str, part: &str| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some(reason)
                && event.message.as_deref().unwrap_or_default().contains(part)
        })
    };
    assert!(told("IPAddressNotAllocated", &leaked), "{events:?}");
    assert!(told("ClusterIPNotAllocated", &kept), "{events:?}");
}
