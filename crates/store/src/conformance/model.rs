//! Random histories against an oracle: a map and a list, written without looking at [`crate::plan`].

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use meta::Revision;
use proptest::{prelude::*, test_runner::TestRunner};

use super::{Home, key, load, open, run};
use crate::{Change, Error, Expect, Key, Outcome, Stored, Write};

/// Histories tried. Each is up to [`STEPS`] steps with a sync for every commit.
const CASES: u32 = 48;
const STEPS: usize = 40;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u8, Guess, Option<u8>)>),
    Compact(u64),
    Reopen,
    Check,
}

/// How a write's expectation relates to the truth.
#[derive(Clone, Debug)]
enum Guess {
    Absent,
    Any,
    Right,
    Off(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let guess = prop_oneof![
        2 => Just(Guess::Absent),
        2 => Just(Guess::Any),
        4 => Just(Guess::Right),
        1 => (0..30_u64).prop_map(Guess::Off),
    ];
    let write = (0..8_u8, guess, prop::option::weighted(0.7, any::<u8>()));
    let step = prop_oneof![
        8 => prop::collection::vec(write, 0..12).prop_map(Step::Commit),
        1 => (0..200_u64).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::Check),
    ];
    prop::collection::vec(step, 1..STEPS)
}

#[derive(Default)]
struct Oracle {
    objects: BTreeMap<Key, (Bytes, u64)>,
    history: Vec<Change>,
    compacted: u64,
}

impl Oracle {
    fn write(&self, (name, guess, value): (u8, Guess, Option<u8>)) -> Write {
        let key = key(&format!("m{name}"));
        let expect = match guess {
            Guess::Absent => Expect::Absent,
            Guess::Any => Expect::Any,
            Guess::Right => {
                self.objects.get(&key).map_or(Expect::Absent, |(_, at)| Expect::At(Revision(*at)))
            }
            Guess::Off(at) => Expect::At(Revision(at)),
        };
        // Sizes from nothing to 255 bytes.
        let value = value.map(|byte| Bytes::from(vec![byte; usize::from(byte)]));
        Write { key, expect, value }
    }

    fn apply(&mut self, write: &Write) -> Outcome {
        let found = self.objects.get(&write.key).cloned();
        let fits = match write.expect {
            Expect::Any => write.value.is_some() || found.is_some(),
            Expect::Absent => write.value.is_some() && found.is_none(),
            Expect::At(at) => found.as_ref().is_some_and(|(_, revision)| *revision == at.0),
        };
        if !fits {
            let key = write.key.clone();
            return Outcome::Clash(found.map(|(value, at)| Stored { key, value, revision: Revision(at) }));
        }
        let revision = self.history.len() as u64 + 1;
        match &write.value {
            Some(value) => self.objects.insert(write.key.clone(), (value.clone(), revision)),
            None => self.objects.remove(&write.key),
        };
        let change =
            Change { revision: Revision(revision), key: write.key.clone(), value: write.value.clone() };
        self.history.push(change);
        Outcome::Done(Revision(revision))
    }

    async fn check(&self, store: &dyn crate::Store) {
        let head = store.head().await.expect("head");
        assert_eq!((head.revision.0, head.compacted.0), (self.history.len() as u64, self.compacted));
        let (objects, revision) = load(store).await;
        assert_eq!(revision, head.revision);
        let expected: Vec<Stored> = self
            .objects
            .iter()
            .map(|(key, (value, at))| Stored {
                key: key.clone(),
                value: value.clone(),
                revision: Revision(*at),
            })
            .collect();
        assert_eq!(objects, expected);
        let kept = &self.history[usize::try_from(self.compacted).unwrap()..];
        let followed: Vec<Change> =
            store.follow(head.compacted).take(kept.len()).try_collect().await.expect("follow");
        assert_eq!(followed, kept);
        if let Some(before) = self.compacted.checked_sub(1) {
            let gone = store.follow(Revision(before)).next().await;
            assert!(matches!(gone, Some(Err(Error::Compacted { .. }))), "{gone:?}");
        }
    }
}

async fn replay(home: &dyn Home, steps: Vec<Step>) {
    let mut oracle = Oracle::default();
    let mut store = open(home).await;
    for step in steps {
        match step {
            Step::Commit(writes) => {
                let batch: Vec<Write> = writes.into_iter().map(|write| oracle.write(write)).collect();
                let expected: Vec<Outcome> = batch.iter().map(|write| oracle.apply(write)).collect();
                assert_eq!(store.commit(batch).await.expect("commit"), expected);
            }
            Step::Compact(through) => {
                store.compact(Revision(through)).await.expect("compact");
                oracle.compacted = oracle.compacted.max(through.min(oracle.history.len() as u64));
            }
            Step::Reopen => {
                drop(store);
                store = open(home).await;
            }
            Step::Check => oracle.check(&*store).await,
        }
    }
    oracle.check(&*store).await;
}

/// Random commits, compactions and reopenings; outcomes, objects and history equal the oracle's.
pub fn model<H: Home>(home: impl Fn() -> H) {
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            let home = home();
            run(replay(&home, steps));
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
