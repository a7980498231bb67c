//! The generator against a server whose behaviour is known.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod stub;

use std::process::{Command, Output};

use stub::{Faults, Stub, TOKEN};

const SMALL: &[&str] = &[
    "--objects=50",
    "--seconds=60",
    "--requests-max=200",
    "--watchers=7",
    "--watch-updates=120",
    "--in-flight=16",
    "--connections=2",
    "--lists-in-flight=2",
    "--output=json",
];

/// What the server was left with.
struct Left {
    created: u64,
    objects: Vec<String>,
}

fn run(faults: Faults, arguments: impl Fn(&Stub) -> Vec<String>) -> (Output, Left) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let stub = runtime.block_on(stub::start(faults));
    let output =
        Command::new(env!("CARGO_BIN_EXE_bench")).arg("server").args(arguments(&stub)).output().unwrap();
    let state = stub.state.lock().unwrap();
    let left = Left { created: state.created, objects: state.objects.keys().cloned().collect() };
    (output, left)
}

fn flags(stub: &Stub) -> Vec<String> {
    let mut all: Vec<String> = SMALL.iter().map(ToString::to_string).collect();
    all.push(format!("--server=https://{}", stub.address));
    all.push(format!("--token={TOKEN}"));
    all.push("--insecure-skip-tls-verify".into());
    all
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", String::from_utf8_lossy(&output.stderr)))
}

fn row<'a>(report: &'a serde_json::Value, phase: &str) -> &'a serde_json::Value {
    report["rows"].as_array().unwrap().iter().find(|row| row["phase"] == phase).expect(phase)
}

#[test]
fn every_phase_is_measured_and_cleaned_up() {
    let (output, left) = run(Faults::default(), flags);
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    let phases =
        [("fill", 50), ("get", 200), ("update", 200), ("list", 200), ("create", 200), ("watch", 7 * 120)];
    for (phase, done) in phases {
        let row = row(&report, phase);
        assert_eq!((&row["done"], &row["errors"]), (&done.into(), &0.into()), "{row}");
        assert!(row["perSecond"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(left.created, 2 + 50 + 200, "two namespaces, and the objects");
    assert!(left.objects.is_empty(), "{:?}", left.objects);
}

#[test]
fn a_kubeconfig_is_understood_and_memory_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    let (output, _) = run(Faults::default(), |stub| {
        let path = directory.path().join("config");
        std::fs::write(directory.path().join("ca.pem"), &stub.certificate).unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: other, context: {{cluster: x, user: y}}}}, {{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: k, cluster: {{server: 'https://{}', certificate-authority: ca.pem}}}}]\n\
             users: [{{name: u, user: {{token: {TOKEN}}}}}]\n",
            stub.address
        );
        std::fs::write(&path, text).unwrap();
        let mut all: Vec<String> = SMALL.iter().map(ToString::to_string).collect();
        all.push(format!("--kubeconfig={}", path.display()));
        all.push(format!("--pid={}", std::process::id()));
        all.extend(["--idle-seconds=0".into(), "--phases=get".into(), "--keep".into()]);
        all.push("--spawn=sleep 1000".into());
        all
    });
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    let names: Vec<&str> =
        report["figures"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    let (ready, idle) = ("from start to ready", ["memory, idle", "processor, idle"]);
    assert_eq!(names, [ready, idle[0], idle[1], "memory, 50 objects", "memory, at the end"]);
    for figure in report["figures"].as_array().unwrap() {
        // A process that waits takes no time.
        let least = if figure["name"] == idle[1] { 0.0 } else { 0.5 };
        assert!(figure["value"].as_f64().unwrap() >= least, "{figure}");
    }
    assert!(row(&report, "get")["serverUs"].is_number());
}

#[test]
fn selecting_watchers_are_given_what_they_want() {
    let (output, _) = run(Faults::default(), |stub| {
        let phases = ["--phases=get-beside-lists,watch-selected", "--selecting-watchers=450"];
        [flags(stub), phases.map(Into::into).to_vec()].concat()
    });
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!(row(&report, "get-beside-lists")["done"], 200);
    // 50 objects are of the groups 0 to 49, each of which has 5 watchers.
    assert_eq!(row(&report, "watch-selected")["done"], 5 * 120);
}

#[test]
fn missed_events_are_counted() {
    // Revisions 53 to 172 are the updates (after two namespaces and 50 objects), 24 of them dropped.
    let faults = Faults { drop_event: Some(5), ..Faults::default() };
    let (output, _) = run(faults, |stub| {
        let phases = ["--phases=watch", "--watch-silence-seconds=1"];
        [flags(stub), phases.map(Into::into).to_vec()].concat()
    });
    let report = report(&output);
    let row = row(&report, "watch");
    assert_eq!((&row["done"], &row["errors"]), (&(7 * 96).into(), &(7 * 24).into()), "{row}");
    assert!(row["note"].as_str().unwrap().contains("168 events missed"), "{row}");
    assert!(!output.status.success());
}

#[test]
fn doubled_events_are_counted() {
    let faults = Faults { double_event: Some(60), ..Faults::default() };
    let (output, _) = run(faults, |stub| [flags(stub), vec!["--phases=watch".into()]].concat());
    let report = report(&output);
    let row = row(&report, "watch");
    assert!(row["errors"].as_u64().unwrap() >= 7, "{row}");
    assert!(row["note"].as_str().unwrap().contains("out of order"), "{row}");
    assert!(!output.status.success());
}

#[test]
fn refusals_are_counted_and_shown() {
    let faults = Faults { refuse_update: Some(10), ..Faults::default() };
    let (output, _) = run(faults, |stub| [flags(stub), vec!["--phases=update".into()]].concat());
    let report = report(&output);
    let row = row(&report, "update");
    assert_eq!((&row["done"], &row["errors"]), (&180.into(), &20.into()), "{row}");
    assert!(row["note"].as_str().unwrap().contains("refused to order"), "{row}");
    assert!(!output.status.success());
}

#[test]
fn what_prevents_a_measurement_is_told() {
    let check = |change: fn(&Stub) -> Vec<String>, expected: &str| {
        let (output, _) = run(Faults::default(), change);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains(expected), "{expected:?} is not in {stderr:?}");
        assert!(output.stdout.is_empty());
    };
    check(|stub| vec![format!("--server=https://{}", stub.address)], "certificate authority");
    check(
        |stub| vec![format!("--server=https://{}", stub.address), "--insecure-skip-tls-verify".into()],
        "401 Unauthorized: Unauthorized",
    );
    check(|stub| vec![format!("--server=http://{}", stub.address)], "must begin with https://");
    check(|_| vec!["--kubeconfig=/nonexistent".into()], "read /nonexistent");
    check(
        |_| {
            vec![
                "--server=https://127.0.0.1:1".into(),
                "--insecure-skip-tls-verify".into(),
                "--spawn=exit 3".into(),
            ]
        },
        "ended by itself",
    );
}
