//! `bench store` on a small store.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::process::Command;

#[test]
fn fills_and_opens_again() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let bench = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.args(["store", "--objects=1000", "--output=json", "--directory"]).arg(&directory);
        command.args(more).output().unwrap()
    };
    let output = bench(&["--batch=30", "--in-flight=3", "--keep"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rows"][0]["done"], 1000);
    assert_eq!(report["rows"][1]["done"], 34, "batches of 30");

    let again = bench(&[]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("already holds a store with 1000 writes"));
    std::fs::remove_dir_all(&directory).unwrap();
    assert!(bench(&[]).status.success());
    assert!(!directory.exists(), "the store was left");
}
