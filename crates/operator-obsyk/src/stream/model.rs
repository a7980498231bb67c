//! The state alone against a model of everything around it: a watch that lags, breaks and lists again page
//! by page, requests that are lost before or after they were applied or refused for what they say, snapshots that overlap with all that.

use std::collections::BTreeMap;

use bytes::Bytes;
use meta::{Random, Seeded};

use super::{
    state::{Change, Outgoing, State, Sync},
    whole::Listed,
};
use crate::{
    Kind,
    project::{Id, Projected},
};

/// Revision and content of an object; the content decides its hash.
type Version = (u64, u64);

struct World {
    state: State,
    dice: Seeded,
    revision: u64,
    uids: u64,
    cluster: BTreeMap<u64, Version>,
    log: Vec<(u64, Option<Version>)>,
    /// How much of the log the watch has shown.
    shown: usize,
    /// A list of the watch that is being read: what is left of it, and where in the log it stands.
    relist: Option<(Vec<(u64, Version)>, usize)>,
    flights: Vec<Outgoing>,
    snapshot: Option<BTreeMap<u64, Version>>,
    /// The platform takes no snapshots.
    refuses: bool,
    /// What is left of a list that is read for what is owed.
    again: Option<(Kind, Vec<(u64, Version)>)>,
    remote: BTreeMap<u64, Version>,
}

fn id(uid: u64) -> Id {
    let kind = if uid.is_multiple_of(3) { Kind::Event } else { Kind::Pod };
    Id { kind, uid: uid.to_string().into() }
}

fn projected(uid: u64, (revision, content): Version) -> Projected {
    Projected {
        id: id(uid),
        name: format!("n{}", uid % 5).into(),
        namespace: "ns".into(),
        revision,
        version: revision.to_string().into(),
        body: Bytes::from(format!("{revision} {content}")),
        hash: content,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let dice = Seeded::new(seed);
        let budget = [40, 400, 100_000][usize::try_from(dice.below(3)).unwrap()];
        let mut world = Self {
            state: State::new(budget),
            dice,
            revision: 0,
            uids: 0,
            cluster: BTreeMap::new(),
            log: Vec::new(),
            shown: 0,
            relist: None,
            flights: Vec::new(),
            snapshot: None,
            refuses: seed.is_multiple_of(2),
            again: None,
            remote: BTreeMap::new(),
        };
        world.begin_relist();
        world
    }

    fn change(&mut self) {
        self.revision += 1;
        let some = usize::try_from(self.dice.below(self.cluster.len().max(1) as u64)).unwrap();
        let uid = self.cluster.keys().nth(some).copied();
        let version = (self.revision, self.dice.below(3));
        match (self.dice.below(4), uid) {
            (0, Some(uid)) => {
                self.cluster.remove(&uid);
                self.log.push((uid, None));
            }
            (1, _) | (_, None) => {
                self.uids += 1;
                self.cluster.insert(self.uids, version);
                self.log.push((self.uids, Some(version)));
            }
            (_, Some(uid)) => {
                self.cluster.insert(uid, version);
                self.log.push((uid, Some(version)));
            }
        }
    }

    /// The watch breaks: what it had not shown is never shown, a list takes its place.
    fn begin_relist(&mut self) {
        self.state.begin_list(Kind::Pod);
        self.state.begin_list(Kind::Event);
        self.relist =
            Some((self.cluster.iter().map(|(uid, version)| (*uid, *version)).collect(), self.log.len()));
    }

    fn watch(&mut self) {
        if let Some((left, at)) = &mut self.relist {
            if let Some((uid, version)) = left.pop() {
                self.state.seen(projected(uid, version));
            } else {
                self.shown = *at;
                self.relist = None;
                self.state.end_list(Kind::Pod);
                self.state.end_list(Kind::Event);
            }
        } else if let Some((uid, version)) = self.log.get(self.shown).copied() {
            self.shown += 1;
            match version {
                Some(version) => self.state.seen(projected(uid, version)),
                None => self.state.deleted(&projected(uid, (u64::try_from(self.shown).unwrap(), 0))),
            }
        }
    }

    /// What the platform does with a change.
    fn apply(&mut self, outgoing: &Outgoing) {
        let uid: u64 = outgoing.id.uid.parse().unwrap();
        match &outgoing.change {
            Change::Delete => drop(self.remote.remove(&uid)),
            Change::Upsert(body, hash) => {
                let first = std::str::from_utf8(body).unwrap().split_once(' ').unwrap().0.parse().unwrap();
                // A state may come back; then what is sent is as new as its last time.
                let same = |(of, version): &&(u64, Option<Version>)| {
                    *of == uid && version.is_some_and(|v| v.1 == *hash)
                };
                let (last, _) = self.log.iter().rev().find(same).unwrap().1.unwrap();
                let before = self.remote.insert(uid, (first, *hash));
                assert!(before.is_none_or(|(old, _)| old <= last), "{uid} went back");
            }
        }
    }

    fn land(&mut self, fate: u64) {
        if self.flights.is_empty() {
            return;
        }
        let outgoing =
            self.flights.remove(usize::try_from(self.dice.below(self.flights.len() as u64)).unwrap());
        if fate > 0 {
            self.apply(&outgoing);
        }
        if fate > 1 { self.state.acknowledged(&outgoing.id) } else { self.state.failed(&outgoing.id) }
    }

    /// The platform refuses a change for what it says: rightly or not, it has not taken it.
    fn refuse(&mut self) {
        if let Some(outgoing) = self.flights.pop() {
            self.state.quarantined(&outgoing.id);
        }
    }

    fn begin_snapshot(&mut self) {
        let wanted = matches!(self.state.sync(), Sync::Wanted(_));
        if wanted && self.flights.is_empty() && self.snapshot.is_none() {
            self.state.begin_snapshot();
            self.snapshot = Some(self.cluster.clone());
        }
    }

    fn end_snapshot(&mut self, fate: u64) {
        let Some(snapshot) = self.snapshot.take() else { return };
        let listed = snapshot.iter().map(|(uid, version)| {
            let Projected { id, name, namespace, revision, hash, .. } = projected(*uid, *version);
            Listed { id, name, namespace, revision, hash }
        });
        let listed = listed.collect();
        if self.refuses {
            if fate > 1 {
                self.state.go_by_changes()
            } else {
                self.state.snapshot_failed("test")
            }
            return;
        }
        if fate > 0 {
            for (uid, (revision, _)) in &snapshot {
                assert!(self.remote.get(uid).is_none_or(|(old, _)| old <= revision), "{uid} went back");
            }
            self.remote = snapshot;
        }
        if fate > 1 {
            self.state.snapshot_acknowledged(listed, &[]);
        } else {
            self.state.snapshot_failed("test");
        }
    }

    /// One page of one object, or the end, or that the list broke.
    fn list_again(&mut self, breaks: bool) {
        match self.again.take() {
            Some((kind, _)) if breaks => self.state.end_relist(kind, true),
            Some((kind, mut left)) => match left.pop() {
                Some((uid, version)) => {
                    self.state.relisted(projected(uid, version));
                    self.again = Some((kind, left));
                }
                None => self.state.end_relist(kind, false),
            },
            None => {
                if let Some(kind) = self.state.relist_wanted() {
                    self.state.begin_relist(kind);
                    let of = self.cluster.iter().filter(|(uid, _)| id(**uid).kind == kind);
                    self.again = Some((kind, of.map(|(uid, version)| (*uid, *version)).collect()));
                }
            }
        }
    }

    fn cut(&mut self) {
        if self.flights.len() < 3
            && let Some(outgoing) = self.state.cut(&Default::default())
        {
            self.flights.push(outgoing);
        }
    }

    fn step(&mut self) {
        if self.dice.below(4) == 0 {
            let breaks = self.dice.below(40) == 0;
            self.list_again(breaks);
        }
        match self.dice.below(16) {
            0..4 => self.change(),
            4..8 => self.watch(),
            8..11 => self.cut(),
            11 | 12 => self.land(self.dice.below(4)),
            13 => self.begin_snapshot(),
            14 => self.end_snapshot(self.dice.below(4)),
            _ if self.dice.below(4) == 0 => self.refuse(),
            _ if self.dice.below(4) == 0 && self.state.sync() == Sync::Idle => self.state.retry_refused(),
            _ if self.dice.below(8) == 0 && self.relist.is_none() => self.begin_relist(),
            _ => {}
        }
    }

    /// Everything answers and nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.watch();
            self.list_again(false);
            self.cut();
            self.land(3);
            self.begin_snapshot();
            self.end_snapshot(3);
            if self.state.sync() == Sync::Idle {
                self.state.retry_refused();
            }
            let heard = self.relist.is_none() && self.shown == self.log.len();
            let listed = self.again.is_none() && self.state.relist_wanted().is_none();
            if heard
                && listed
                && self.flights.is_empty()
                && self.state.sync() == Sync::Idle
                && self.state.queued() == 0
                && !self.state.has_refusals()
            {
                break;
            }
        }
        let contents = |objects: &BTreeMap<u64, Version>| -> Vec<(u64, u64)> {
            objects.iter().map(|(uid, (_, content))| (*uid, *content)).collect()
        };
        assert_eq!(contents(&self.remote), contents(&self.cluster));
        assert_eq!((self.state.queued(), self.state.queued_bytes()), (0, 0), "nothing is left over");
        let stats = &self.state.stats;
        let ended = stats.sent + stats.merged + stats.withdrawn + stats.shed + stats.quarantined;
        assert_eq!(stats.queued, ended, "every change ended as something: {stats:?}");
        assert_eq!(self.state.len(), self.cluster.len(), "and nothing is kept of what is gone");
        let counted: i32 = self.state.counts().iter().sum();
        assert_eq!(counted, i32::try_from(self.cluster.len()).unwrap());
    }
}

#[test]
fn whatever_happens_the_platform_ends_where_the_cluster_is() {
    for seed in 0..1000 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..2 {
                for _ in 0..world.dice.below(300) {
                    world.step();
                }
                world.settle();
            }
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
