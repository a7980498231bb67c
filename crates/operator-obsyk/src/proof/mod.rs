//! The proof (section 4.3 of the specification): whatever fails, in the end the platform has what a second
//! reading of the contract says that it should have, in both modes; and beside it the original's design on
//! the same seeds.
//!
//! The platform is the reference receiver, which shares no code with the agent; the oracle shares none with
//! either. `OBSYK_SEEDS=5000 cargo test -p operator-obsyk proof` runs more seeds, `OBSYK_SEED=7` one, both
//! together so many from there on.

mod churn;
mod original;
mod scene;
mod wire;

use std::time::Duration;

use meta::{Random, Seeded};

use scene::{Mode, Scene};

/// Seeds of each mode when nothing else is asked for.
const SEEDS: u64 = 8;
/// Seeds that once failed, which every run begins with: a platform whose disk lost objects while the agent
/// spoke the original contract (50), a platform that ended between a request and its answer (125, 467), a
/// session that a 404 ended before its first batch (425), an object that a batch of one was refused for (1479),
/// a deposed leader that a 404 sent back to the original contract (1177), an agent that still waited when it
/// was stopped (1506).
const ONCE_FAILED: [u64; 7] = [50, 125, 425, 467, 1177, 1479, 1506];

/// Which seeds to run.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("OBSYK_SEED"), number("OBSYK_SEEDS")) {
        (Some(first), count) => (first..first + count.unwrap_or(1)).collect(),
        (None, count) => ONCE_FAILED.into_iter().chain(0..count.unwrap_or(SEEDS)).collect(),
    }
}

/// Runs each seed in a runtime of its own, whose time is virtual; all of them, also after one that fails.
fn run(mode: Mode) {
    let fails = |seed: &u64| {
        let one = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(story(*seed, mode));
        };
        std::panic::catch_unwind(one).inspect_err(|_| eprintln!("OBSYK_SEED={seed} {mode:?}")).is_err()
    };
    let failed: Vec<u64> = seeds().into_iter().filter(fails).collect();
    assert!(failed.is_empty(), "{mode:?} fails with OBSYK_SEED of {failed:?}");
}

/// One run: churn with everything that can fail, then quiet, then the comparison.
async fn story(seed: u64, mode: Mode) {
    let mut scene = Scene::new(seed, mode).await;
    let dice = Seeded::new(seed ^ 0x5eed);
    scene.churn.fill(30);
    scene.start_agent();
    for round in 0..5 {
        if dice.below(4) > 0 {
            scene.fail(seed * 8 + round);
        } else {
            scene.heal();
        }
        scene.storm(60, Duration::from_millis(dice.below(600))).await;
        match dice.below(8) {
            0 => scene.kill_agent(),
            1 => scene.stop_agent().await,
            2 => scene.restart_platform().await,
            3 => scene.break_watches(dice.below(2) == 0),
            4 => scene.depose(),
            5 => scene.lose_objects(3).await,
            6 => scene.deny(dice.below(20)),
            _ => {}
        }
        scene.start_agent();
    }
    scene.heal();
    scene.quiet().await;
    scene.check().await;
}

#[test]
fn in_batches_nothing_is_lost() {
    run(Mode::Batch);
}

#[test]
fn by_the_original_contract_nothing_is_lost() {
    run(Mode::Original);
}

#[test]
fn by_the_original_contract_without_snapshots_nothing_is_lost() {
    run(Mode::NoSnapshots);
}

/// An object larger than a batch goes alone; one larger than the platform takes is named, and holds up no other.
#[test]
fn in_batches_objects_of_any_size_are_sent_or_named() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut scene = Scene::new(2, Mode::Batch).await;
        scene.churn.fill(10);
        scene.start_agent();
        scene.quiet().await;
        scene.churn.large("large", 2 << 20);
        scene.churn.large("too-large", 5 << 20);
        scene.storm(30, Duration::from_millis(100)).await;
        let refusals = scene.refused().await;
        assert_eq!(refusals, (1, "ConfigMap ns/too-large".to_owned()));
        let differences = scene.differences();
        assert!(
            differences.len() == 1 && differences[0].starts_with("missing (\"ConfigMap\""),
            "{} differences, first {:.200}",
            differences.len(),
            differences.first().cloned().unwrap_or_default()
        );
        scene.churn.gone("too-large");
        scene.quiet().await;
        assert_eq!(scene.differences(), Vec::<String>::new());
    });
}

/// The original's design loses on most of the same seeds: so the proof can fail. How much is in `docs/obsyk.md`.
#[test]
fn the_originals_design_loses() {
    let (mut lost, mut runs, mut wrong, mut all) = (0_usize, 0_usize, 0_usize, 0_usize);
    for seed in seeds() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (differences, objects) = runtime.block_on(original::differs(seed));
        runs += 1;
        lost += usize::from(differences > 0);
        wrong += differences;
        all += objects;
    }
    println!("the original's design is wrong on {lost} of {runs} seeds, about {wrong} objects of {all}");
    assert!(runs < 4 || lost * 2 > runs, "it lost on {lost} of {runs} seeds only");
}
