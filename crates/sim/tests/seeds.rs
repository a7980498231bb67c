//! Whole simulations: users and faults for a few minutes, then peace, then the invariants.
//!
//! `SIM_SEEDS=FIRST..LAST` runs others than the first few; a failure prints the command that repeats it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by panicking")]

use std::{ops::Range, time::Duration};

/// As many as a test run has time for.
const SEEDS: Range<u64> = 1..7;
/// How long users and faults go on; `HOURS` is the same for the command.
const DURATION: Duration = Duration::from_secs(180);
const HOURS: &str = "0.05";

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else { return SEEDS };
    let (first, last) =
        text.split_once("..").unwrap_or_else(|| panic!("SIM_SEEDS is FIRST..LAST, not {text}"));
    first.parse().unwrap()..last.parse().unwrap()
}

fn run(seed: u64) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let report = runtime.block_on(sim::run(sim::Plan { seed, duration: DURATION, nodes: 3 })).unwrap();
    assert!(
        report.violations.is_empty(),
        "{report}again: cargo xtask sim --seed {seed} --hours {HOURS} --trace"
    );
    assert!(!report.actions.is_empty() && report.objects > 0, "{report}nothing happened");
}

#[test]
fn a_cluster_in_peace_is_as_its_objects_ask() {
    let (odd, even): (Vec<u64>, Vec<u64>) = seeds().partition(|seed| seed % 2 == 1);
    std::thread::scope(|scope| {
        scope.spawn(|| odd.into_iter().for_each(run));
        even.into_iter().for_each(run);
    });
}
