//! Builds the Go program and runs its table of checks.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::cluster::{Cluster, Runtime};

/// Where the Go program is.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/go")
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| {
        panic!("run {command:?}: {error}: install Go 1.21 or newer (scripts/deps test)")
    })
}

/// Compiles once; Go keeps what it compiled, so that the next run costs seconds.
fn build() -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compat-go");
    let build = |toolchain: Option<&str>| {
        let mut go = Command::new("go");
        // Without symbols, which halves what the linker writes.
        go.current_dir(source())
            .args(["build", "-mod=readonly", "-ldflags=-s -w", "-o"])
            .arg(&program)
            .arg(".");
        run(go.envs(toolchain.map(|toolchain| ("GOTOOLCHAIN", toolchain))))
    };
    let mut built = build(None);
    if !built.status.success() && String::from_utf8_lossy(&built.stderr).contains("go.mod requires go") {
        // A Go older than go.mod asks for fetches that one like any module.
        built = build(Some("auto"));
    }
    assert!(built.status.success(), "go build:\n{}", String::from_utf8_lossy(&built.stderr));
    program
}

#[test]
fn client_go_and_controller_runtime_cannot_tell() {
    let program = build();
    let mut cluster = Cluster::up(Runtime::Simulated, &["--operators", "none"]);
    let kubeconfig = cluster.data_dir().join("admin.kubeconfig");
    let said = run(Command::new(program).arg("--kubeconfig").arg(kubeconfig));
    let (lines, log) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    println!("{lines}");
    let log: Vec<&str> = log.lines().collect();
    let tail = log[log.len().saturating_sub(50)..].join("\n");
    assert!(said.status.success(), "{lines}\nits log ends:\n{tail}\nkeelson said:\n{}", cluster.said());
    assert_eq!(cluster.stop(), 0);
}
