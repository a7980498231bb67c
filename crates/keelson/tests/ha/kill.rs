//! `kill -9` of API servers under load, and one that is paused while another takes its store over. Oracle: what
//! was acknowledged is there at its revision, and a watcher of another server saw each change once, in order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    part::{Part, eventually, kubectl, try_kubectl},
    parts::Cluster,
    run,
    servers::{config, open, postgres},
};

pub(crate) async fn client(path: &std::path::Path, server: std::net::SocketAddr) -> Client {
    let mut kubeconfig = Kubeconfig::read_from(path).unwrap();
    kubeconfig.clusters[0].cluster.as_mut().unwrap().server = Some(format!("https://{server}"));
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Creates objects until told to stop or the server is gone; names and revisions of those acknowledged.
async fn write(
    client: Client,
    name: String,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> BTreeMap<u64, String> {
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let mut acknowledged = BTreeMap::new();
    for number in 0.. {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(format!("{name}-{number}"));
        match api.create(&PostParams::default(), &object).await {
            Ok(made) => {
                let revision = made.metadata.resource_version.unwrap().parse().unwrap();
                acknowledged.insert(revision, made.metadata.name.unwrap());
                done.fetch_add(1, Ordering::Relaxed);
            }
            // Its server was killed.
            Err(_) => break,
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

#[test]
fn api_servers_are_killed_between_commit_and_publication() {
    let mut cluster = Cluster::start(2);
    let kubeconfig = cluster.kubeconfig();
    run(async {
        let survivor = client(&kubeconfig, cluster.servers[1].address()).await;
        let api: Api<ConfigMap> = Api::namespaced(survivor, "default");
        let end = Arc::new(AtomicU64::new(u64::MAX));
        let start = api.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
        let first: u64 = start.parse().unwrap();
        let mut events = api
            .watch(&WatchParams::default().timeout(290).disable_bookmarks(), &start)
            .await
            .unwrap()
            .boxed();
        let last = end.clone();
        let watcher = tokio::spawn(async move {
            let mut seen: Vec<(u64, String)> = Vec::new();
            loop {
                let next = tokio::time::timeout(Duration::from_millis(200), events.next()).await;
                match next {
                    Ok(Some(Ok(WatchEvent::Added(object)))) => {
                        let revision = object.metadata.resource_version.unwrap().parse().unwrap();
                        seen.push((revision, object.metadata.name.unwrap()));
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => {}
                }
                if seen.last().is_some_and(|(revision, _)| *revision >= last.load(Ordering::Relaxed)) {
                    return seen;
                }
            }
        });
        let mut acknowledged = BTreeMap::new();
        for round in 0..3 {
            let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let address = cluster.servers.last().unwrap().address();
            let victim = if round == 0 { cluster.servers[0].address() } else { address };
            let mut writers = Vec::new();
            for writer in 0..8 {
                let client = client(&kubeconfig, victim).await;
                writers.push(tokio::spawn(write(
                    client,
                    format!("r{round}w{writer}"),
                    stop.clone(),
                    done.clone(),
                )));
            }
            while done.load(Ordering::Relaxed) < 100 {
                assert!(!writers.iter().all(|writer| writer.is_finished()), "all writers failed");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // In the midst of it.
            match round {
                0 => cluster.servers[0].kill(),
                _ => cluster.servers.pop().unwrap().kill(),
            }
            for writer in writers {
                acknowledged.extend(writer.await.unwrap());
            }
            tokio::task::block_in_place(|| cluster.add_server());
        }
        let marker = ConfigMap {
            metadata: kube::api::ObjectMeta { name: Some("end".into()), ..Default::default() },
            ..Default::default()
        };
        let made = api.create(&PostParams::default(), &marker).await.unwrap();
        let at: u64 = made.metadata.resource_version.unwrap().parse().unwrap();
        acknowledged.insert(at, "end".into());
        end.store(at, Ordering::Relaxed);
        let seen = watcher.await.unwrap();
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "out of order, or twice");
        let seen: BTreeMap<u64, String> = seen.into_iter().collect();
        for (revision, name) in &acknowledged {
            assert_eq!(seen.get(revision), Some(name), "acknowledged at {revision}");
        }
        // What the watcher saw is what is there: nothing was deleted.
        let listed = api.list(&Default::default()).await.unwrap();
        let listed: BTreeMap<u64, String> = listed
            .items
            .into_iter()
            .map(|object| {
                (object.metadata.resource_version.unwrap().parse().unwrap(), object.metadata.name.unwrap())
            })
            .filter(|(revision, _)| *revision > first)
            .collect();
        assert_eq!(listed, seen);
    });
}

/// A server that slept through being deposed writes nothing, reads nothing old, and ends.
#[test]
fn a_paused_server_wakes_up_deposed_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let url = postgres().url(&postgres().database());
    let data = directory.path().join("data");
    let mut server = Part::start(&[
        "apiserver",
        "--listen",
        "127.0.0.1:0",
        "--store",
        &url,
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    let kubeconfig = data.join("admin.kubeconfig");
    kubectl(&kubeconfig, &["create", "configmap", "before"]);
    server.signal("-STOP");
    run(async {
        let other = open(config(&url, None)).await.unwrap();
        other.take_over().await.unwrap();
    });
    server.signal("-CONT");
    let late = try_kubectl(&kubeconfig, &["create", "configmap", "late"]);
    assert!(late.is_err(), "{late:?}");
    assert_eq!(server.ended(), 1, "{}", server.said());
    assert!(server.said().contains("took the store over"), "{}", server.said());
    let late = "SELECT key FROM keelson.objects WHERE key LIKE '%/late'";
    let database = url.rsplit_once('/').unwrap().1;
    assert_eq!(postgres().sql(database, late), Vec::<String>::new());
    // Started again it belongs to the new epoch.
    let again = Part::start(&[
        "apiserver",
        "--listen",
        "127.0.0.1:0",
        "--store",
        &url,
        "--data-dir",
        data.to_str().unwrap(),
    ]);
    eventually("the object of before", || try_kubectl(&kubeconfig, &["get", "configmap", "before"]));
    drop(again);
}
