//! Upstream's own conformance program, built from the modules of its release, against the real program: on simulated nodes
//! what needs no containers, on containerd the rest, with images that are built from upstream's modules and Debian's
//! packages.
//!
//! By hand only: building it takes a quarter of an hour and its modules three gigabytes.
//! `cargo test -p keelson --test compat upstream -- --ignored --nocapture`

use std::{
    fs,
    path::{Path, PathBuf},
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

/// Files whose tests need containers.
const WITH_CONTAINERS: &[&str] =
    &["apps/", "auth/", "common/", "kubectl/", "network/", "node/", "scheduling/", "storage/"];

/// Tests that are left out.
const LEFT_OUT: &[&str] = &[
    // It waits for five minutes until its server compacts.
    "should support continue listing from the last key if the original version has been compacted away",
];

fn succeed(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}

fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/upstream")
}

/// Builds the program and runs it against a cluster.
fn run(cluster: &Cluster, files: &[&str]) {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e.test");
    let mut go = Command::new("go");
    go.current_dir(modules())
        .env("CGO_ENABLED", "0")
        .args(["test", "-c", "-mod=readonly", "-ldflags=-s -w", "-o"])
        .arg(&program)
        .arg("k8s.io/kubernetes/test/e2e");
    succeed(&mut go);
    let mut suite = cluster.command(program);
    suite
        .arg("--kubeconfig")
        .arg(cluster.data_dir().join("admin.kubeconfig"))
        .args(["--provider=skeleton", "--disable-log-dump", "--ginkgo.no-color", "--ginkgo.timeout=4h"])
        .arg(r"--ginkgo.focus=\[Conformance\]")
        .args(files.iter().map(|file| format!("--ginkgo.focus-file={file}")))
        .args(LEFT_OUT.iter().map(|test| format!("--ginkgo.skip={test}")));
    succeed(&mut suite);
}

#[test]
#[ignore = "builds and runs upstream's program, which takes half an hour"]
fn upstreams_conformance_tests_that_need_no_containers_pass() {
    let mut cluster = Cluster::up(Runtime::Simulated, &["--operators", "none", "--nodes", "2"]);
    run(&cluster, FILES);
    assert_eq!(cluster.stop(), 0);
}

#[test]
#[ignore = "builds upstream's program and images and runs it, which takes hours"]
fn upstreams_conformance_tests_that_need_containers_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upstream-images");
    let named = fs::read_dir(modules().join("images")).unwrap().map(|entry| entry.unwrap().path());
    let named: Vec<PathBuf> = named.filter(|path| path.is_dir()).collect();
    succeed(Command::new(root.join("images/build.sh")).arg("--output").arg(&images).args(&named));
    let mut cluster = Cluster::up(Runtime::Containerd, &["--operators", "none"]);
    for image in &named {
        let archive = images.join(image.file_name().unwrap()).with_extension("tar");
        let mut load = cluster.command(env!("CARGO_BIN_EXE_keelson"));
        succeed(load.args(["image", "load", "--data-dir"]).arg(cluster.data_dir()).arg(archive));
    }
    run(&cluster, WITH_CONTAINERS);
    assert_eq!(cluster.stop(), 0);
}
