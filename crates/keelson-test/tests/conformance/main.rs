//! What upstream's conformance suite asks of controllers and scheduler, on simulated nodes and in virtual time.
//!
//! Each test does what one test of upstream's does, as its description says; `docs/conformance.md` lists which
//! is which, and [`documented`] holds the list and these files against each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod batch;
mod budgets;
mod daemons;
mod deployments;
mod garbage;
mod kit;
mod network;
mod pods;
mod policies;
mod quota;
mod replicas;
mod scheduling;
mod storage;

/// The tests of these files, and the section of the page that names each.
#[test]
fn documented() {
    let page = include_str!("../../../../docs/conformance.md");
    let sources = [
        ("batch", include_str!("batch.rs")),
        ("budgets", include_str!("budgets.rs")),
        ("daemons", include_str!("daemons.rs")),
        ("deployments", include_str!("deployments.rs")),
        ("garbage", include_str!("garbage.rs")),
        ("network", include_str!("network.rs")),
        ("pods", include_str!("pods.rs")),
        ("policies", include_str!("policies.rs")),
        ("quota", include_str!("quota.rs")),
        ("replicas", include_str!("replicas.rs")),
        ("scheduling", include_str!("scheduling.rs")),
        ("storage", include_str!("storage.rs")),
    ];
    let mut tests = std::collections::BTreeSet::new();
    for (module, source) in sources {
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("#[tokio::test") {
                let name = lines.next().unwrap().trim_start_matches("async fn ").split('(').next().unwrap();
                tests.insert(format!("{module}::{name}"));
            }
        }
    }
    let named = page.split('`').skip(1).step_by(2).filter(|text| {
        text.split_once("::").is_some_and(|(module, _)| sources.iter().any(|(known, _)| *known == module))
    });
    let named: std::collections::BTreeSet<_> = named.map(ToOwned::to_owned).collect();
    assert_eq!(named, tests);
}
