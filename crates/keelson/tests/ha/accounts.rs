//! Controllers that act as service accounts of their own: every loop does its work, and nobody lacks a right.

use crate::{
    part::{Part, eventually, kubectl, try_kubectl},
    parts::Cluster,
};

/// Something for each controller to do.
const WORKLOAD: &str = "\
apiVersion: v1
kind: Namespace
metadata: { name: work }
---
apiVersion: v1
kind: ResourceQuota
metadata: { name: quota, namespace: work }
spec: { hard: { pods: '50' } }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: work }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: c, image: i, resources: { requests: { cpu: 10m } } }] }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: work }
spec: { selector: { app: web }, ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: elsewhere, namespace: work }
spec: { ports: [{ port: 80 }] }
---
apiVersion: v1
kind: Endpoints
metadata: { name: elsewhere, namespace: work }
subsets: [{ addresses: [{ ip: 192.0.2.1 }], ports: [{ port: 80 }] }]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: { name: web, namespace: work }
spec: { minAvailable: 1, selector: { matchLabels: { app: web } } }
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: { name: web, namespace: work }
spec: { minReplicas: 3, maxReplicas: 4, scaleTargetRef: { apiVersion: apps/v1, kind: Deployment, name: web } }
---
apiVersion: v1
kind: ReplicationController
metadata: { name: old, namespace: work }
spec:
  replicas: 1
  selector: { app: old }
  template: { metadata: { labels: { app: old } }, spec: { containers: [{ name: c, image: i }] } }
---
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: agent, namespace: work }
spec:
  selector: { matchLabels: { app: agent } }
  template: { metadata: { labels: { app: agent } }, spec: { containers: [{ name: c, image: i }] } }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db, namespace: work }
spec:
  replicas: 2
  serviceName: db
  persistentVolumeClaimRetentionPolicy: { whenDeleted: Delete }
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec:
      containers: [{ name: c, image: i, volumeMounts: [{ name: data, mountPath: /data }] }]
  volumeClaimTemplates:
  - metadata: { name: data }
    spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 1Gi } } }
---
apiVersion: v1
kind: Pod
metadata: { name: scratch, namespace: work }
spec:
  containers: [{ name: c, image: i, volumeMounts: [{ name: data, mountPath: /data }] }]
  volumes:
  - name: data
    ephemeral:
      volumeClaimTemplate: { spec: { accessModes: [ReadWriteOnce], resources: { requests: { storage: 1Gi } } } }
---
apiVersion: batch/v1
kind: Job
metadata: { name: once, namespace: work }
spec:
  ttlSecondsAfterFinished: 1
  template:
    metadata: { annotations: { simulated.keelson.dev/exit-after: 1s } }
    spec: { restartPolicy: Never, containers: [{ name: c, image: i }] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: more-to-see, labels: { rbac.authorization.k8s.io/aggregate-to-view: 'true' } }
rules: [{ apiGroups: [example.org], resources: [things], verbs: [get] }]
---
apiVersion: v1
kind: Secret
metadata: { name: robot, namespace: work, annotations: { kubernetes.io/service-account.name: default } }
type: kubernetes.io/service-account-token
";

/// What an object says at a path.
fn says(cluster: &Cluster, arguments: &[&str], path: &str, expected: &str) {
    let admin = cluster.kubeconfig();
    let path = format!("jsonpath={path}");
    let arguments = [&["get", "-n", "work"], arguments, &["-o", &path]].concat();
    eventually(&format!("{arguments:?}"), || {
        let found = try_kubectl(&admin, &arguments)?;
        if found == expected { Ok(()) } else { Err(found) }
    });
}

fn gone(cluster: &Cluster, arguments: &[&str]) {
    let admin = cluster.kubeconfig();
    eventually(&format!("{arguments:?} is gone"), || {
        let arguments = [&["get", "--ignore-not-found", "--no-headers"], arguments].concat();
        let found = try_kubectl(&admin, &arguments)?;
        if found.is_empty() { Ok(()) } else { Err(found) }
    });
}

#[test]
fn each_controller_acts_as_its_account_and_lacks_no_right() {
    let cluster = Cluster::start(1);
    let admin = cluster.kubeconfig();
    // Without the roles of its controllers, the manager's own user could do next to nothing.
    let binding = ["clusterrolebinding", "system:keelson:controller-manager"];
    let keep = "rbac.authorization.kubernetes.io/autoupdate=false";
    kubectl(&admin, &[&["annotate", "--overwrite"], &binding[..], &[keep]].concat());
    let nobody = ["--type=merge", "-p", "{\"subjects\":null}"];
    kubectl(&admin, &[&["patch"], &binding[..], &nobody].concat());
    let own = cluster.path("server-0/kube-controller-manager.kubeconfig");
    for right in [["create", "pods"], ["delete", "namespaces"], ["update", "deployments.apps"]] {
        let answer = try_kubectl(&own, &[&["auth", "can-i"], &right[..]].concat());
        assert!(answer.is_err(), "{right:?}: {answer:?}");
    }
    let flags = ["controller-manager", "--use-service-account-credentials"];
    let pki = |name: &str| cluster.path("pki").join(name).display().to_string();
    let signing =
        ["--cluster-signing-cert-file", &pki("ca.crt"), "--cluster-signing-key-file", &pki("ca.key")];
    let manager = cluster.part(&[&flags[..], &signing].concat(), "kube-controller-manager.kubeconfig");
    let scheduler = cluster.part(&["scheduler"], "kube-scheduler.kubeconfig");
    let nodes: Vec<Part> = ["node-1", "node-2"]
        .map(|name| {
            // Each is given its range of pod addresses.
            cluster
                .part(&["node", "--name", name, "--runtime", "simulated"], &format!("node-{name}.kubeconfig"))
        })
        .into();
    eventually("the default service account", || try_kubectl(&admin, &["get", "serviceaccount", "default"]));
    let file = cluster.path("workload.yaml");
    std::fs::write(&file, WORKLOAD).unwrap();
    kubectl(&admin, &["apply", "-f", file.to_str().unwrap()]);
    says(&cluster, &["deployment", "web"], "{.status.readyReplicas}", "3");
    says(&cluster, &["replicationcontroller", "old"], "{.status.readyReplicas}", "1");
    says(&cluster, &["daemonset", "agent"], "{.status.numberReady}", "2");
    says(&cluster, &["statefulset", "db"], "{.status.readyReplicas}", "2");
    says(&cluster, &["pod", "scratch"], "{.status.phase}", "Running");
    says(&cluster, &["poddisruptionbudget", "web"], "{.status.currentHealthy}", "3");
    says(&cluster, &["endpoints", "web"], "{.subsets[0].ports[0].port}", "80");
    let of = "kubernetes.io/service-name=";
    let mirrored = format!("{of}elsewhere");
    says(
        &cluster,
        &["endpointslices", "-l", &mirrored],
        "{.items[0].endpoints[0].addresses[0]}",
        "192.0.2.1",
    );
    says(&cluster, &["secret", "robot"], "{.data.namespace}", "d29yaw==");
    says(&cluster, &["configmap", "kube-root-ca.crt"], "{.metadata.name}", "kube-root-ca.crt");
    gone(&cluster, &["job", "once", "-n", "work"]);
    eventually("the aggregated role", || {
        let rules = kubectl(&admin, &["get", "clusterrole", "view", "-o", "yaml"]);
        if rules.contains("example.org") { Ok(()) } else { Err(rules) }
    });
    // A node that is gone, and pods that nobody runs any more.
    drop(nodes);
    kubectl(&admin, &["delete", "node", "node-2"]);
    eventually("the pods of the node are gone", || {
        let path = "jsonpath={.items[?(@.spec.nodeName==\"node-2\")].metadata.name}";
        let pods = kubectl(&admin, &["get", "pods", "-n", "work", "-o", path]);
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
    kubectl(&admin, &["delete", "node", "node-1"]);
    kubectl(&admin, &["delete", "statefulset", "db", "-n", "work", "--cascade=foreground", "--wait=false"]);
    kubectl(&admin, &["delete", "namespace", "work", "--wait=false"]);
    gone(&cluster, &["namespace", "work"]);
    gone(&cluster, &["persistentvolumes"]);
    let accounts = kubectl(&admin, &["get", "serviceaccounts", "-n", "kube-system", "-o", "name"]);
    for account in ["deployment-controller", "statefulset-controller", "namespace-controller"] {
        assert!(accounts.contains(&format!("serviceaccount/{account}\n")), "{accounts}");
    }
    for (name, part) in [("controller manager", manager), ("scheduler", scheduler)] {
        assert!(!part.said().contains("forbidden"), "{name}: {}", part.said());
    }
}
