//! Whole simulations: users and faults for a while, then peace, then the invariants.
//!
//! `SIM_SEEDS=FIRST..LAST` runs others; a failure prints the command that repeats it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so by panicking")]

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// As many as every change has to survive.
const SEEDS: Range<u64> = 1..1001;
/// Every so many seeds one is long: what follows from a node that is given up takes minutes.
const LONG_EVERY: u64 = 25;
/// How long users and faults go on in that one, and in the others.
const LONG: Duration = Duration::from_secs(180);
const SHORT: Duration = Duration::from_secs(36);

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("SIM_SEEDS") else { return SEEDS };
    let (first, last) =
        text.split_once("..").unwrap_or_else(|| panic!("SIM_SEEDS is FIRST..LAST, not {text}"));
    first.parse().unwrap()..last.parse().unwrap()
}

fn run(seed: u64) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let duration = if seed.is_multiple_of(LONG_EVERY) { LONG } else { SHORT };
    let report = runtime.block_on(sim::run(sim::Plan { seed, duration, nodes: 3 })).unwrap();
    let hours = duration.as_secs_f64() / 3600.0;
    assert!(
        report.violations.is_empty(),
        "{report}again: cargo xtask sim --seed {seed} --hours {hours} --trace"
    );
    assert!(!report.actions.is_empty() && report.objects > 0, "{report}nothing happened");
}

#[test]
fn a_cluster_in_peace_is_as_its_objects_ask() {
    let Range { start, end } = seeds();
    let next = AtomicU64::new(start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < end) {
                    run(seed);
                }
            });
        }
    });
}
