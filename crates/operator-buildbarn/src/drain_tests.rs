//! The moves of a pool against a scheduler that keeps its rules and a ReplicaSet controller that keeps its own: no
//! schedule of scaling, rollouts, emptied nodes, restarts and silence of the scheduler takes a pod that runs
//! something. What is left out: a scheduler that restarts between being looked at and the deletion that follows,
//! the ReplicaSet controller's included; for that moment there is the worker's own end on SIGTERM.

use std::sync::Arc;

use futures::FutureExt;
use meta::{Random, Seeded};
use proptest::prelude::*;

use super::*;
use crate::{
    queue::{BuildQueue, QueueName, fake::FakeScheduler},
    types::Platform,
};

/// One step of a world.
#[derive(Clone, Debug)]
enum Event {
    Scale(i32),
    Rollout,
    Cordon(u8),
    Uncordon(u8),
    Submit(u32),
    FinishSome,
    Restart,
    Silence(bool),
    Reconcile,
}

struct Sim {
    scheduler: Arc<FakeScheduler>,
    random: Seeded,
    queue: QueueName,
    pods: Vec<Member>,
    deployments: BTreeMap<String, Asked>,
    template: u32,
    desired: i32,
    cordoned: BTreeSet<String>,
    now: i64,
    made: u32,
    drains: u32,
    lost: Vec<String>,
}

const NODES: u64 = 3;
/// An action never takes so long here.
const LIMIT_S: i64 = 1_000_000;

impl Sim {
    fn new(seed: u64) -> Self {
        let queue = QueueName { prefix: String::new(), platform: Platform::default(), size_class: 0 };
        let scheduler = Arc::new(FakeScheduler::default());
        scheduler.declare(&queue);
        Self {
            scheduler,
            random: Seeded::new(seed),
            queue,
            pods: Vec::new(),
            deployments: BTreeMap::new(),
            template: 0,
            desired: 3,
            cordoned: BTreeSet::new(),
            now: 0,
            made: 0,
            drains: 0,
            lost: Vec::new(),
        }
    }

    fn current(&self) -> String {
        format!("t{}", self.template)
    }

    fn apply(&mut self, event: &Event) {
        self.now += 1;
        match event {
            Event::Scale(to) => self.desired = *to,
            Event::Rollout => self.template += 1,
            Event::Cordon(node) => drop(self.cordoned.insert(format!("n{node}"))),
            Event::Uncordon(node) => drop(self.cordoned.remove(&format!("n{node}"))),
            Event::Submit(actions) => self.scheduler.submit(&self.queue, *actions),
            Event::FinishSome => {
                for pod in &self.pods {
                    if self.random.below(2) == 0 {
                        self.scheduler.finish(&pod.name);
                    }
                }
            }
            Event::Restart => {
                // Left out, as the head of this file says: what was to be deleted is.
                self.replicas();
                self.scheduler.restart();
            }
            Event::Silence(silent) => self.scheduler.silence(*silent),
            Event::Reconcile => self.reconcile(),
        }
        self.scheduler.assign();
        self.cluster();
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Snapshot::take(&*self.scheduler, Some(std::slice::from_ref(&self.queue))).now_or_never().unwrap().ok()
    }

    fn moves(&self, seen: Option<&Snapshot>) -> Moves {
        moves(&State {
            members: &self.pods,
            deployments: &self.deployments,
            current: &self.current(),
            desired: self.desired,
            cordoned: &self.cordoned,
            queue: seen,
            limit_seconds: LIMIT_S,
            now: Timestamp::from_second(self.now).unwrap(),
        })
    }

    fn reconcile(&mut self) {
        let seen = self.snapshot();
        // The world goes on while the plan is made.
        self.scheduler.submit(&self.queue, 1);
        self.scheduler.assign();
        let moves = self.moves(seen.as_ref());
        for (template, replicas) in &moves.replicas {
            self.deployments.entry(template.clone()).or_default().replicas = *replicas;
        }
        for template in &moves.remove {
            self.deployments.remove(template);
        }
        self.mark(&moves);
        for name in &moves.delete {
            self.take(name);
        }
    }

    fn mark(&mut self, moves: &Moves) {
        let pattern = |pod: &str| pod_pattern(pod);
        let ok = |answer: Option<Result<(), crate::queue::QueueError>>| answer.unwrap().is_ok();
        for name in &moves.drain {
            ok(self.scheduler.add_drain(&self.queue, &pattern(name)).now_or_never());
        }
        for name in &moves.undrain {
            ok(self.scheduler.remove_drain(&self.queue, &pattern(name)).now_or_never());
        }
        let now = Timestamp::from_second(self.now).unwrap();
        for pod in &mut self.pods {
            if moves.mark.contains(&pod.name) {
                pod.draining_since = Some(now);
            }
            if moves.revoke.contains(&pod.name) {
                pod.released = false;
            }
            if moves.unmark.contains(&pod.name) {
                pod.draining_since = None;
            }
            if moves.release.contains(&pod.name)
                && ok(self.scheduler.terminate(&pattern(&pod.name)).now_or_never())
            {
                pod.released = true;
                self.drains += 1;
            }
        }
    }

    /// A pod is deleted: what it runs is lost.
    fn take(&mut self, name: &str) {
        if self.scheduler.busy(name) {
            self.lost.push(name.to_owned());
        }
        self.scheduler.vanish(name);
        self.pods.retain(|pod| pod.name != name);
    }

    /// ReplicaSet controller and nodes; each may be late.
    fn cluster(&mut self) {
        for index in 0..self.pods.len() {
            if !self.pods[index].ready && self.random.below(2) == 0 {
                self.pods[index].ready = true;
                self.scheduler.register(&self.queue, &self.pods[index].name, 2);
            }
        }
        if self.random.below(3) > 0 {
            self.replicas();
        }
    }

    /// The ReplicaSet controller comes to its turn.
    fn replicas(&mut self) {
        let asked: Vec<(String, i32)> =
            self.deployments.iter().map(|(name, asked)| (name.clone(), asked.replicas)).collect();
        for (template, replicas) in asked {
            let mut own: Vec<Member> =
                self.pods.iter().filter(|pod| pod.template == template).cloned().collect();
            for _ in own.len()..usize::try_from(replicas).unwrap() {
                self.made += 1;
                self.pods.push(Member {
                    name: format!("p{}", self.made),
                    template: template.clone(),
                    node: format!("n{}", self.random.below(NODES)),
                    ready: false,
                    deleting: false,
                    created: Timestamp::from_second(self.now).unwrap(),
                    draining_since: None,
                    released: false,
                });
            }
            // Upstream's order: what is not ready first, then by cost, then by what we do not know.
            own.sort_by_key(|pod| (pod.ready, !pod.released, self.random.below(1000)));
            let surplus = own.len().saturating_sub(usize::try_from(replicas).unwrap());
            for pod in own.iter().take(surplus) {
                self.take(&pod.name);
            }
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0i32..9).prop_map(Event::Scale),
        1 => Just(Event::Rollout),
        1 => (0u8..3).prop_map(Event::Cordon),
        1 => (0u8..3).prop_map(Event::Uncordon),
        2 => (1u32..8).prop_map(Event::Submit),
        2 => Just(Event::FinishSome),
        1 => Just(Event::Restart),
        1 => any::<bool>().prop_map(Event::Silence),
        9 => Just(Event::Reconcile),
    ]
}

/// The ReplicaSet controller is late; meanwhile the scheduler has forgotten its promise and given the pod something.
#[test]
fn a_deletion_that_has_not_happened_is_called_off_when_the_scheduler_restarts() {
    let mut sim = Sim::new(1);
    sim.reconcile();
    while sim.pods.len() < 3 || sim.pods.iter().any(|pod| !pod.ready) {
        sim.cluster();
    }
    sim.desired = 2;
    while sim.deployments["t0"].replicas > 2 {
        sim.pods.iter().for_each(|pod| sim.scheduler.finish(&pod.name));
        sim.reconcile();
    }
    assert!(sim.pods.iter().any(|pod| pod.released));
    sim.scheduler.restart();
    sim.scheduler.submit(&sim.queue, 6);
    sim.scheduler.assign();
    sim.reconcile();
    sim.replicas();
    assert_eq!((sim.pods.len(), sim.lost.len()), (3, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// No schedule loses an action, and when the world comes to rest so does the pool, as it was wanted.
    #[test]
    fn no_schedule_takes_a_pod_that_runs_something(seed in any::<u64>(), events in prop::collection::vec(event(), 1..200)) {
        let mut sim = Sim::new(seed);
        for event in &events {
            sim.apply(event);
            prop_assert!(sim.lost.is_empty(), "{:?} were lost at {event:?}", sim.lost);
        }
        sim.apply(&Event::Silence(false));
        sim.cordoned.clear();
        for _ in 0..400 {
            sim.apply(&Event::FinishSome);
            sim.apply(&Event::Reconcile);
        }
        for _ in 0..20 {
            let names: Vec<String> = sim.pods.iter().map(|pod| pod.name.clone()).collect();
            names.iter().for_each(|name| sim.scheduler.finish(name));
            sim.cluster();
        }
        prop_assert!(sim.lost.is_empty());
        prop_assert_eq!(sim.pods.len(), usize::try_from(sim.desired).unwrap());
        let current = sim.current();
        prop_assert!(sim.pods.iter().all(|pod| pod.template == current && pod.draining_since.is_none()));
        prop_assert_eq!(sim.deployments.keys().collect::<Vec<_>>(), [&current]);
        let seen = sim.snapshot();
        let at_rest = sim.moves(seen.as_ref());
        prop_assert_eq!(at_rest, Moves { replicas: [(current, sim.desired)].into(), ..Moves::default() });
        prop_assert_eq!(sim.scheduler.drains(), 0, "drains are forgotten with their pods");
    }
}

/// A number of the environment.
fn given(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// 10,000 random drains, none of which loses an action, a scheduler that restarts and falls silent included.
/// `BUILDBARN_DRAINS` says how many, `BUILDBARN_SEED` which.
#[test]
fn ten_thousand_random_drains_lose_nothing() {
    let (drains, seed) = (given("BUILDBARN_DRAINS", 10_000), given("BUILDBARN_SEED", 7));
    let mut sim = Sim::new(seed);
    let choices = [
        Event::Restart,
        Event::Silence(true),
        Event::Silence(false),
        Event::Silence(false),
        Event::Scale(2),
        Event::Scale(12),
        Event::Rollout,
        Event::Cordon(0),
        Event::Cordon(1),
        Event::Uncordon(0),
        Event::Uncordon(1),
        Event::Submit(6),
        Event::Submit(3),
        Event::FinishSome,
        Event::FinishSome,
        Event::Reconcile,
        Event::Reconcile,
        Event::Reconcile,
        Event::Reconcile,
        Event::Reconcile,
        Event::Reconcile,
    ];
    let mut steps = 0_u64;
    while u64::from(sim.drains) < drains {
        let choice = usize::try_from(sim.random.below(choices.len() as u64)).unwrap();
        sim.apply(&choices[choice].clone());
        steps += 1;
        assert!(steps < 1000 * drains, "only {} drains after {steps} steps of seed {seed}", sim.drains);
        assert!(sim.lost.is_empty(), "seed {seed}, drain {}: {:?} were lost", sim.drains, sim.lost);
    }
    println!("{drains} drains of seed {seed} in {steps} steps lost nothing");
}

#[test]
fn a_pod_that_does_not_end_is_not_waited_for_beyond_the_limit() {
    let since = Timestamp::from_second(0).unwrap();
    let pod = Member {
        name: "p".into(),
        template: "t".into(),
        node: "n".into(),
        ready: true,
        deleting: false,
        created: since,
        draining_since: Some(since),
        released: false,
    };
    let deployments = [("t".to_owned(), Asked { replicas: 1, stuck: false })].into();
    let at = |seconds| {
        let none = BTreeSet::new();
        let state = State {
            members: std::slice::from_ref(&pod),
            deployments: &deployments,
            current: "t",
            desired: 0,
            cordoned: &none,
            queue: None,
            limit_seconds: 60,
            now: Timestamp::from_second(seconds).unwrap(),
        };
        moves(&state)
    };
    assert_eq!((at(60).give_up.len(), at(61).give_up), (0, vec!["p".to_owned()]));
}
