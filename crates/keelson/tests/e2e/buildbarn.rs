//! A build farm on simulated nodes: the objects that a user applies, and what comes of them.

use crate::cluster::{Cluster, Runtime};

const FARM: &str = include_str!("../../../../examples/buildbarn/small.yaml");

/// Every kind of a farm, with the name that it has in the example.
const PARTS: &[(&str, &str)] = &[
    ("buildbarnstorage", "storage"),
    ("buildbarnscheduler", "scheduler"),
    ("buildbarnworker", "ubuntu"),
    ("buildbarnfrontend", "frontend"),
    ("buildbarnbrowser", "browser"),
];

fn get(cluster: &Cluster, what: &str, path: &str) -> String {
    cluster.kubectl(&["get", "-n", "buildbarn", what, "-o", &format!("jsonpath={path}")])
}

fn ready(cluster: &Cluster) {
    for (kind, name) in PARTS {
        let what = format!("{kind}/{name}");
        cluster.eventually(&format!("{what} is ready"), || {
            let state =
                get(cluster, &what, "{.status.state} {.metadata.generation} {.status.observedGeneration}");
            let words: Vec<&str> = state.split(' ').collect();
            match words[..] {
                ["Ready", wanted, seen] if wanted == seen => Ok(()),
                _ => Err(format!("{state}: {}", get(cluster, &what, "{.status.conditions}"))),
            }
        });
    }
}

/// The ConfigMap that each workload's pods are made from: a new name restarts them.
fn configurations(cluster: &Cluster) -> Vec<String> {
    let path = "{range .items[*]}{.metadata.name}={.spec.template.spec.volumes[?(@.name==\"configs\")]}{\"\\n\"}{end}";
    let all = get(cluster, "deployments,statefulsets", path);
    let mut lines: Vec<String> = all.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_farm_becomes_ready_and_a_change_restarts_one_component() {
    let cluster = Cluster::up(Runtime::Simulated, &["--nodes", "3"]);
    cluster.apply(FARM);
    ready(&cluster);
    let before = configurations(&cluster);
    assert!(before.len() >= 5 && before.iter().all(|line| line.contains("configMap")), "{before:?}");
    let patch = r#"{"spec":{"configOverlay":{"maximumMessageSizeBytes":4194304}}}"#;
    cluster.kubectl(&["patch", "-n", "buildbarn", "buildbarnfrontend/frontend", "--type=merge", "-p", patch]);
    let after = cluster.eventually("the frontend has another configuration", || {
        let after = configurations(&cluster);
        if after == before { Err(format!("{after:?}")) } else { Ok(after) }
    });
    let changed: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(changed.len() == 1 && changed[0].starts_with("frontend"), "{changed:?}");
    ready(&cluster);
    let refused = cluster.refuse(&FARM.replace("concurrency: 4", "concurrency: 0"));
    assert!(refused.contains("concurrency"), "{refused}");
    cluster.kubectl(&["delete", "namespace", "buildbarn", "--timeout=120s"]);
}
