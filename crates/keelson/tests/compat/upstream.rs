//! Upstream's own conformance program, built from the modules of its release, against the real program.
//!
//! By hand only: building it takes a quarter of an hour and its modules three gigabytes.
//! `cargo test -p keelson --test compat upstream -- --ignored --nocapture`

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::cluster::{Cluster, Runtime};

/// Files of upstream's `test/e2e` whose conformance tests need an API server and controllers, and nodes whose pods
/// become ready whatever is in them.
const FILES: &[&str] = &[
    r"apimachinery/(aggregated_discovery|chunking|crd_publish_openapi|crd_watch|custom_resource_definition)\.go",
    r"apimachinery/(discovery|field_validation|flowcontrol|garbage_collector|mutatingadmissionpolicy)\.go",
    r"apimachinery/(namespace|resource_quota|server_version|table_conversion|validatingadmissionpolicy|watch)\.go",
    r"architecture/",
    r"dra/dra\.go",
    r"instrumentation/",
    r"network/(endpoints|endpointslicemirroring|ingress|ingressclass|service_cidrs)\.go",
    r"storage/(csi_inline|csi_node|csistoragecapacity|persistent_volumes|storageclass)\.go",
    r"storage/(volume_attachment|volumeattributesclass)\.go",
];

/// Those of them that are left out.
const LEFT_OUT: &[&str] = &[
    // It waits for five minutes until its server compacts.
    "should support continue listing from the last key if the original version has been compacted away",
];

fn succeed(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}

#[test]
#[ignore = "builds and runs upstream's program, which takes half an hour"]
fn upstreams_conformance_tests_that_need_no_containers_pass() {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e.test");
    let mut go = Command::new("go");
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/upstream"))
        .env("CGO_ENABLED", "0")
        .args(["test", "-c", "-mod=readonly", "-ldflags=-s -w", "-o"])
        .arg(&program)
        .arg("k8s.io/kubernetes/test/e2e");
    succeed(&mut go);
    let mut cluster = Cluster::up(Runtime::Simulated, &["--operators", "none", "--nodes", "2"]);
    let mut suite = Command::new(program);
    suite
        .arg("--kubeconfig")
        .arg(cluster.data_dir().join("admin.kubeconfig"))
        .args(["--provider=skeleton", "--disable-log-dump", "--ginkgo.no-color", "--ginkgo.timeout=2h"])
        .arg(r"--ginkgo.focus=\[Conformance\]")
        .args(FILES.iter().map(|file| format!("--ginkgo.focus-file={file}")))
        .args(LEFT_OUT.iter().map(|test| format!("--ginkgo.skip={test}")));
    succeed(&mut suite);
    assert_eq!(cluster.stop(), 0);
}
