//! What scheduler and controller manager show of themselves, and to whom.

use std::{net::TcpListener, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    part::{eventually, kubectl, try_kubectl},
    parts::Cluster,
};

/// A kubeconfig of the part at this port, whose certificate nobody knows.
fn at(cluster: &Cluster, port: &str, token: &str) -> PathBuf {
    let path = cluster.path(&format!("part-{port}-{}.kubeconfig", token.len()));
    let text = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let server = format!("https://127.0.0.1:{port}");
    config["clusters"][0]["cluster"] = json!({ "server": server, "insecure-skip-tls-verify": true });
    // With nothing at all kubectl asks for a name and a password, which are nobody's here.
    let nobody = json!({ "username": "nobody", "password": "x" });
    config["users"][0]["user"] = if token.is_empty() { nobody } else { json!({ "token": token }) };
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn parts_show_metrics_and_configuration_to_whom_the_api_server_lets() {
    let cluster = Cluster::start(1);
    let admin = cluster.kubeconfig();
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let ports = [free(), free()];
    let _scheduler = cluster.part(&["scheduler", "--secure-port", &ports[0]], "kube-scheduler.kubeconfig");
    let manager = ["controller-manager", "--secure-port", &ports[1]];
    let _manager = cluster.part(&manager, "kube-controller-manager.kubeconfig");
    kubectl(&admin, &["create", "serviceaccount", "scraper"]);
    let role = ["create", "clusterrole", "scraper", "--verb=get"];
    kubectl(&admin, &[&role[..], &["--non-resource-url=/metrics", "--non-resource-url=/configz"]].concat());
    let binding = ["create", "clusterrolebinding", "scraper", "--clusterrole=scraper"];
    kubectl(&admin, &[&binding[..], &["--serviceaccount=default:scraper"]].concat());
    let token = kubectl(&admin, &["create", "token", "scraper"]);
    let raw = |port: &str, token: &str, path: &str| {
        try_kubectl(&at(&cluster, port, token), &["get", "--raw", path])
    };
    for (port, lease, series, component) in [
        (&ports[0], "kube-scheduler", "", "componentconfig"),
        (
            &ports[1],
            "kube-controller-manager",
            "workqueue_adds_total{name=\"deployment\"}",
            "kubecontrollermanager.config.k8s.io",
        ),
    ] {
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(raw(port, "", path).as_deref().map(str::trim), Ok("ok"), "{lease} {path}");
        }
        let leads = format!("leader_election_master_status{{name=\"{lease}\"}} 1");
        eventually("its metrics", || {
            let text = raw(port, token.trim(), "/metrics")?;
            if text.contains(&leads) && text.contains(series) { Ok(()) } else { Err(text) }
        });
        let config: Value = serde_json::from_str(&raw(port, token.trim(), "/configz").unwrap()).unwrap();
        assert!(config[component].to_string().contains(lease), "{config}");
        let refused = raw(port, "", "/metrics").unwrap_err();
        assert!(refused.contains("\"system:anonymous\" cannot get path \"/metrics\""), "{refused}");
    }
}
