//! How the map of shards changes without losing data. Pure.
//!
//! Readers and writers cannot all change at the same moment, so a change goes by steps in any two neighbours of
//! which everyone finds what anyone writes: the earlier map alone; written by the earlier and read by both
//! (`Preparing`); written by the later and read by both (`Fallback`), until what counts has been copied or is too
//! old; the later map alone. A step is taken when every reader has finished the one before.

use meta::{Timestamp, format_second};

use crate::types::{ReshardingStage as Stage, Shard, Topology};

/// What is known of the world.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) now: Timestamp,
    /// Pods of the StatefulSet that are ready, counted only while all that were asked for exist.
    pub(crate) ready: i32,
    /// Readers that do not use the map yet.
    pub(crate) waiting: &'a [String],
    pub(crate) window_seconds: i64,
    /// Data may be lost.
    pub(crate) allow_loss: bool,
    /// And is to be: no window.
    pub(crate) drop_data: bool,
}

/// The map to use now, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) topology: Topology,
    /// The wish cannot be followed; why.
    pub(crate) refused: Option<String>,
    /// The wish is followed later.
    pub(crate) put_off: bool,
    /// What a change under way waits for.
    pub(crate) waits_for: Option<String>,
}

/// Said of a change that comes while another one is on its way.
const UNDER_WAY: &str = "spec.shards: a change of the shards is under way; this one begins when status.topology.stage is \
     Stable again: wait, or set it back";

/// Pods that a map needs.
pub(crate) fn pods(topology: &Topology) -> i32 {
    let all = topology.shards.iter().chain(&topology.previous).flat_map(|shard| &shard.pods);
    all.max().map_or(0, |highest| highest + 1)
}

/// The next step from what is recorded to what is wanted. No shards wanted means stopped: the map stays.
pub(crate) fn step(recorded: Option<&Topology>, wanted: &[Shard], facts: &Facts<'_>) -> Step {
    let Some(recorded) = recorded else {
        let topology = Topology { shards: wanted.to_vec(), ..Topology::default() };
        return Step { topology, refused: None, put_off: false, waits_for: None };
    };
    let stays = |refused, waits_for| Step { topology: recorded.clone(), refused, put_off: false, waits_for };
    let changes = !wanted.is_empty() && *wanted != *recorded.shards;
    match recorded.stage {
        Stage::Stable if recorded.shards.is_empty() => {
            let topology = Topology { shards: wanted.to_vec(), ..Topology::default() };
            Step { topology, refused: None, put_off: false, waits_for: None }
        }
        Stage::Stable if !changes => stays(None, None),
        Stage::Stable => match refusal(&recorded.shards, wanted, facts.allow_loss) {
            Some(why) => stays(Some(why), None),
            None => begin(Stage::Growing, wanted.to_vec(), recorded.shards.clone(), facts),
        },
        Stage::Growing if changes && *wanted == *recorded.previous => {
            let topology = Topology { shards: wanted.to_vec(), ..Topology::default() };
            Step { topology, refused: None, put_off: false, waits_for: None }
        }
        // Standing still would make what was asked for second impossible for good.
        _ if changes => {
            Step { refused: Some(UNDER_WAY.to_owned()), put_off: true, ..advance(recorded, facts) }
        }
        _ => advance(recorded, facts),
    }
}

/// The next step of a change that has begun.
fn advance(recorded: &Topology, facts: &Facts<'_>) -> Step {
    let waits = |waits_for| Step {
        topology: recorded.clone(),
        refused: None,
        put_off: false,
        waits_for: Some(waits_for),
    };
    let done = || {
        let topology = Topology { shards: recorded.shards.clone(), ..Topology::default() };
        Step { topology, refused: None, put_off: false, waits_for: None }
    };
    let enter = |stage| begin(stage, recorded.shards.clone(), recorded.previous.clone(), facts);
    match recorded.stage {
        Stage::Stable => Step { topology: recorded.clone(), refused: None, put_off: false, waits_for: None },
        Stage::Growing if facts.ready < pods(recorded) => {
            waits(format!("{} of {} pods of the map that comes are ready", facts.ready, pods(recorded)))
        }
        // No window, and yet nobody is sent to a pod that is not there.
        Stage::Growing if facts.drop_data => done(),
        Stage::Growing => enter(Stage::Preparing),
        Stage::Preparing | Stage::Fallback if !facts.waiting.is_empty() => {
            waits(format!("waiting for {} to use the map", facts.waiting.join(", ")))
        }
        Stage::Preparing => enter(Stage::Fallback),
        Stage::Fallback => match left(recorded, facts) {
            Some(seconds) => waits(format!("the earlier map is read for another {seconds} s")),
            None => done(),
        },
    }
}

/// Seconds of the window that are left.
pub(crate) fn left(topology: &Topology, facts: &Facts<'_>) -> Option<i64> {
    let since: Timestamp = topology.since.as_deref()?.parse().ok()?;
    let left = since.as_second().saturating_add(facts.window_seconds).saturating_sub(facts.now.as_second());
    (left > 0).then_some(left)
}

fn begin(stage: Stage, shards: Vec<Shard>, previous: Vec<Shard>, facts: &Facts<'_>) -> Step {
    let topology = Topology { stage, shards, previous, since: Some(format_second(facts.now)) };
    Step { topology, refused: None, put_off: false, waits_for: None }
}

/// Why a map cannot become another.
fn refusal(from: &[Shard], to: &[Shard], allow_loss: bool) -> Option<String> {
    for (at, (before, after)) in from.iter().zip(to).enumerate() {
        if before.key != after.key {
            return Some(format!(
                "spec.shards.keys.{at}: {:?} cannot become {:?}, since a key is a shard's identity and its data would \
                 not be found: set it back, and add or remove shards only at the end",
                before.key, after.key
            ));
        }
        if before.pods != after.pods && !allow_loss {
            return Some(format!(
                "spec.mirroring: shard {:?} would move to other pods and its data would not be found: set it back, or \
                 set spec.allowDataLoss to true",
                before.key
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shards(count: i32) -> Vec<Shard> {
        (0..count).map(|n| Shard { key: n.to_string(), weight: 1, pods: vec![n] }).collect()
    }

    fn facts(at: i64, ready: i32, waiting: &[String]) -> Facts<'_> {
        let now = Timestamp::from_second(at).unwrap();
        Facts { now, ready, waiting, window_seconds: 100, allow_loss: false, drop_data: false }
    }

    #[test]
    fn a_shard_comes_by_steps() {
        let none = Vec::new();
        let some = vec!["BuildbarnWorker a".to_owned()];
        let mut map = step(None, &shards(2), &facts(0, 0, &none)).topology;
        let mut stages = Vec::new();
        let story =
            [(1, 2, &none), (2, 3, &none), (3, 3, &some), (4, 3, &none), (50, 3, &none), (104, 3, &none)];
        for (at, ready, waiting) in story {
            map = step(Some(&map), &shards(3), &facts(at, ready, waiting)).topology;
            stages.push((map.stage, map.previous.len()));
        }
        let wanted = [
            (Stage::Growing, 2),
            (Stage::Preparing, 2),
            (Stage::Preparing, 2),
            (Stage::Fallback, 2),
            (Stage::Fallback, 2),
            (Stage::Stable, 0),
        ];
        assert_eq!(stages, wanted);
    }

    #[test]
    fn what_is_dropped_has_no_window_and_waits_for_its_pods() {
        let none = Vec::new();
        let facts = |ready| Facts { allow_loss: true, drop_data: true, ..facts(1, ready, &none) };
        let map = Topology { shards: shards(2), ..Topology::default() };
        let growing = step(Some(&map), &shards(3), &facts(2)).topology;
        let waits = step(Some(&growing), &shards(3), &facts(2)).topology;
        let there = step(Some(&growing), &shards(3), &facts(3)).topology;
        assert_eq!(
            (growing.stage, waits.stage, there.stage),
            (Stage::Growing, Stage::Growing, Stage::Stable)
        );
        assert_eq!(there.shards, shards(3));
    }

    #[test]
    fn keys_stay_and_the_window_cannot_be_cut() {
        let none = Vec::new();
        let map = Topology { shards: shards(3), ..Topology::default() };
        let renamed = [Shard { key: "x".into(), ..shards(1).remove(0) }];
        let refused = step(Some(&map), &renamed, &facts(0, 3, &none));
        assert!(refused.refused.unwrap().starts_with("spec.shards.keys.0: \"0\" cannot become \"x\""));
        assert_eq!(refused.topology, map);
        let fewer = step(Some(&map), &shards(2), &facts(0, 3, &none)).topology;
        assert_eq!((fewer.stage, pods(&fewer)), (Stage::Growing, 3));
        let changed_again = step(Some(&fewer), &shards(1), &facts(1, 3, &none));
        assert!(changed_again.refused.unwrap().contains("under way"));
        assert_eq!(step(Some(&map), &[], &facts(0, 3, &none)).topology, map);
    }

    #[test]
    fn a_change_during_a_change_waits_for_it_and_then_begins() {
        let none = Vec::new();
        let mut map = Topology { shards: shards(2), ..Topology::default() };
        map = step(Some(&map), &shards(3), &facts(0, 2, &none)).topology;
        let mut seen = Vec::new();
        for at in [1, 2, 50, 103, 104] {
            let next = step(Some(&map), &shards(4), &facts(at, 3, &none));
            map = next.topology;
            seen.push((map.stage, map.shards.len(), next.refused.is_some()));
        }
        let wanted = [
            (Stage::Preparing, 3, true),
            (Stage::Fallback, 3, true),
            (Stage::Fallback, 3, true),
            (Stage::Stable, 3, true),
            (Stage::Growing, 4, false),
        ];
        assert_eq!(seen, wanted);
    }

    proptest! {
        /// Whatever is asked for and whoever lags: between two neighbouring steps, what is written by one side's map
        /// is read by the other's, and a pod with data goes only after nobody reads it.
        #[test]
        fn neighbours_find_what_the_other_writes(wishes in prop::collection::vec((1i32..6, 0i32..7, any::<bool>()), 1..60)) {
            let lag = vec!["x".to_owned()];
            let none = Vec::new();
            let mut map = step(None, &shards(2), &facts(0, 0, &none)).topology;
            for (at, (count, ready, lags)) in wishes.into_iter().enumerate() {
                let waiting = if lags { &lag } else { &none };
                let next = step(Some(&map), &shards(count), &facts(at as i64 * 40, ready, waiting)).topology;
                let (was, is) = (views(&map), views(&next));
                prop_assert!(is.1.contains(&was.0), "{map:?} -> {next:?}");
                prop_assert!(was.1.contains(&is.0), "{map:?} -> {next:?}");
                map = next;
            }
        }
    }

    /// The map that is written, and all that are read.
    fn views(map: &Topology) -> (Vec<Shard>, Vec<Vec<Shard>>) {
        match map.stage {
            Stage::Stable => (map.shards.clone(), vec![map.shards.clone()]),
            Stage::Growing => (map.previous.clone(), vec![map.previous.clone()]),
            Stage::Preparing => (map.previous.clone(), vec![map.previous.clone(), map.shards.clone()]),
            Stage::Fallback => (map.shards.clone(), vec![map.shards.clone(), map.previous.clone()]),
        }
    }
}
