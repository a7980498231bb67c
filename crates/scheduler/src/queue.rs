//! Pods that wait for a node: active (by priority, then age), backing off, unschedulable, gated, and
//! those whose binding is under way (upstream `backend/queue`).
//!
//! Guarantees: a pod is in exactly one place; a pod that fits nowhere is looked at again when an event
//! could help it, and after five minutes at the latest; repeated failures of one pod slow only that
//! pod. Time is a `Duration` since the start, passed in. Bounded by the pods that exist.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use meta::Timestamp;

use crate::{decide::Unfit, plugins::Wake, pod::PodInfo};

/// How long failed pods wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure; doubles with each (upstream `podInitialBackoffSeconds`).
    pub first: Duration,
    /// At most (upstream `podMaxBackoffSeconds`).
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(10) }
    }
}

impl Backoff {
    fn after(self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

/// How long a pod stays unschedulable without any event
/// (upstream `DefaultPodMaxInUnschedulablePodsDuration`).
pub(crate) const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

type Uid = Arc<str>;

/// The pods that wait.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Uid, Waiting>,
    active: BTreeSet<(Reverse<i32>, Timestamp, u64, Uid)>,
    backoff: BTreeSet<(Duration, Uid)>,
    unschedulable: BTreeSet<(Duration, Uid)>,
    arrivals: u64,
    backoff_times: Backoff,
    /// For each event, how many unschedulable pods it could help.
    interested: [usize; Wake::BITS],
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    place: Place,
    arrival: u64,
    attempts: u32,
    failed_at: Duration,
    told_at: Option<Duration>,
    why: Option<Arc<Unfit>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    Backoff { until: Duration },
    Unschedulable { since: Duration, wake: Wake },
    Gated,
    Busy,
}

/// A pod that waits.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The pod.
    pub pod: &'a PodInfo,
    /// `active`, `backoff`, `unschedulable`, `gated`, or `binding`.
    pub place: &'static str,
    /// How often it was looked at.
    pub attempts: u32,
    /// Why it fitted nowhere last.
    pub why: Option<&'a Unfit>,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Backoff { .. } => "backoff",
            Self::Unschedulable { .. } => "unschedulable",
            Self::Gated => "gated",
            Self::Busy => "binding",
        }
    }

    fn order(self) -> usize {
        match self {
            Self::Busy => 0,
            Self::Active => 1,
            Self::Backoff { .. } => 2,
            Self::Unschedulable { .. } => 3,
            Self::Gated => 4,
        }
    }
}

impl Queue {
    /// No pods.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff_times: backoff, ..Self::default() }
    }

    /// Adds a pod, or takes its new version. A changed shape or lifted gate makes it worth another
    /// try at once, subject to its backoff.
    pub fn push(&mut self, now: Duration, pod: Arc<PodInfo>) {
        let uid = Arc::clone(&pod.uid);
        let gated = !pod.gates.is_empty();
        let Some(known) = self.pods.get(&uid) else {
            self.arrivals += 1;
            let place = if gated { Place::Gated } else { Place::Active };
            let waiting = Waiting {
                pod,
                place: Place::Busy,
                arrival: self.arrivals,
                attempts: 0,
                failed_at: Duration::ZERO,
                told_at: None,
                why: None,
            };
            self.pods.insert(Arc::clone(&uid), waiting);
            return self.put(&uid, place);
        };
        let changed = known.pod.shape != pod.shape
            || known.pod.priority != pod.priority
            || known.pod.labels != pod.labels
            || known.pod.relations != pod.relations;
        let place = match known.place {
            Place::Busy => Place::Busy,
            _ if gated => Place::Gated,
            Place::Gated => Place::Active,
            Place::Unschedulable { .. } if changed => self.after_failure(now, &uid),
            other @ (Place::Active | Place::Backoff { .. } | Place::Unschedulable { .. }) => other,
        };
        self.take(&uid);
        if let Some(known) = self.pods.get_mut(&uid) {
            known.pod = pod;
        }
        self.put(&uid, place);
    }

    /// Forgets a pod: it is gone or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
        self.pods.remove(uid);
    }

    /// The next pod to place. It stays with the queue, busy, until [`Queue::reject`],
    /// [`Queue::retry`] or [`Queue::remove`].
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (_, _, _, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.place = Place::Busy;
        waiting.attempts = waiting.attempts.saturating_add(1);
        Some(Arc::clone(&waiting.pod))
    }

    /// The popped pod fits nowhere until something happens that helps.
    pub fn reject(&mut self, now: Duration, uid: &str, why: &Arc<Unfit>) {
        if let Some(waiting) = self.pods.get_mut(uid) {
            waiting.why = Some(Arc::clone(why));
        }
        let wake = why.wake;
        self.fail(now, uid, |_| Place::Unschedulable { since: now, wake });
    }

    /// The popped pod could not be bound; it is worth another try after its backoff.
    pub fn retry(&mut self, now: Duration, uid: &str) {
        let times = self.backoff_times;
        self.fail(now, uid, |attempts| Place::Backoff { until: now + times.after(attempts) });
    }

    /// Whether it is [`UNSCHEDULABLE_MAX`] since this last said so, which is as often as a lasting
    /// failure is worth an event.
    pub fn remind(&mut self, now: Duration, uid: &str) -> bool {
        let Some(waiting) = self.pods.get_mut(uid) else { return false };
        let due = waiting.told_at.is_none_or(|at| now >= at + UNSCHEDULABLE_MAX);
        if due {
            waiting.told_at = Some(now);
        }
        due
    }

    /// Something happened that could help pods that fit nowhere: those that `helps` says it of, given why
    /// they do not fit, are worth another try.
    pub fn wake(
        &mut self,
        now: Duration,
        events: Wake,
        mut helps: impl FnMut(&PodInfo, &Arc<Unfit>) -> bool,
    ) {
        if events.bits().all(|bit| self.interested.get(bit) == Some(&0)) {
            return;
        }
        let mut helped = |uid: &&Uid| {
            self.pods.get(&***uid).is_some_and(|w| {
                matches!(w.place, Place::Unschedulable { wake, .. } if wake.meets(events))
                    && w.why.as_ref().is_none_or(|why| helps(&w.pod, why))
            })
        };
        let waiting = self.unschedulable.iter().map(|(_, uid)| uid);
        let uids: Vec<Uid> = waiting.filter(|uid| helped(uid)).cloned().collect();
        for uid in uids {
            let place = self.after_failure(now, &uid);
            self.take(&uid);
            self.put(&uid, place);
        }
    }

    /// Moves pods whose wait is over.
    pub fn flush(&mut self, now: Duration) {
        while let Some((until, uid)) = self.backoff.first().cloned()
            && until <= now
        {
            self.take(&uid);
            self.put(&uid, Place::Active);
        }
        while let Some((since, uid)) = self.unschedulable.first().cloned()
            && since + UNSCHEDULABLE_MAX <= now
        {
            self.take(&uid);
            self.put(&uid, Place::Active);
        }
    }

    /// When [`Queue::flush`] has something to do next.
    pub fn next_flush(&self) -> Option<Duration> {
        let backoff = self.backoff.first().map(|(until, _)| *until);
        let oldest = self.unschedulable.first().map(|(since, _)| *since + UNSCHEDULABLE_MAX);
        backoff.into_iter().chain(oldest).min()
    }

    /// The newest version of a pod in the queue.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|w| &w.pod)
    }

    /// Pods that are active, backing off, unschedulable.
    pub fn lengths(&self) -> [usize; 3] {
        [self.active.len(), self.backoff.len(), self.unschedulable.len()]
    }

    /// Where a pod waits, in a word.
    pub fn place_of(&self, uid: &str) -> Option<&'static str> {
        self.pods.get(uid).map(|waiting| waiting.place.name())
    }

    /// All pods, those that are placed next first.
    pub fn list(&self) -> Vec<Listed<'_>> {
        let mut all: Vec<(usize, &Waiting)> =
            self.pods.values().map(|waiting| (waiting.place.order(), waiting)).collect();
        all.sort_by(|(a, x), (b, y)| {
            a.cmp(b).then_with(|| rank(x, Arc::clone(&x.pod.uid)).cmp(&rank(y, Arc::clone(&y.pod.uid))))
        });
        let listed = all.into_iter().map(|(_, waiting)| Listed {
            pod: &waiting.pod,
            place: waiting.place.name(),
            attempts: waiting.attempts,
            why: waiting.why.as_deref(),
        });
        listed.collect()
    }

    fn fail(&mut self, now: Duration, uid: &str, place: impl FnOnce(u32) -> Place) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        if waiting.place != Place::Busy {
            return;
        }
        waiting.failed_at = now;
        let gated = !waiting.pod.gates.is_empty();
        let place = if gated { Place::Gated } else { place(waiting.attempts) };
        let uid = Arc::clone(&waiting.pod.uid);
        self.put(&uid, place);
    }

    fn after_failure(&self, now: Duration, uid: &str) -> Place {
        let until = self.pods.get(uid).map_or(now, |w| w.failed_at + self.backoff_times.after(w.attempts));
        if until <= now { Place::Active } else { Place::Backoff { until } }
    }

    fn take(&mut self, uid: &str) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        let id = Arc::clone(&waiting.pod.uid);
        match waiting.place {
            Place::Active => {
                self.active.remove(&rank(waiting, id));
            }
            Place::Backoff { until } => {
                self.backoff.remove(&(until, id));
            }
            Place::Unschedulable { since, wake } => {
                self.unschedulable.remove(&(since, id));
                for bit in wake.bits() {
                    if let Some(count) = self.interested.get_mut(bit) {
                        *count -= 1;
                    }
                }
            }
            Place::Gated | Place::Busy => {}
        }
        waiting.place = Place::Busy;
    }

    fn put(&mut self, uid: &str, place: Place) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.place = place;
        let id = Arc::clone(&waiting.pod.uid);
        match place {
            Place::Active => {
                self.active.insert(rank(waiting, id));
            }
            Place::Backoff { until } => {
                self.backoff.insert((until, id));
            }
            Place::Unschedulable { since, wake } => {
                self.unschedulable.insert((since, id));
                for bit in wake.bits() {
                    if let Some(count) = self.interested.get_mut(bit) {
                        *count += 1;
                    }
                }
            }
            Place::Gated | Place::Busy => {}
        }
    }
}

fn rank(waiting: &Waiting, uid: Uid) -> (Reverse<i32>, Timestamp, u64, Uid) {
    (Reverse(waiting.pod.priority), waiting.pod.created, waiting.arrival, uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::test_pod;

    const S: Duration = Duration::from_secs(1);

    fn pod(uid: &str, priority: i32, created: i64) -> Arc<PodInfo> {
        let mut pod = test_pod(uid, serde_json::json!({"priority": priority, "containers": []}));
        pod.created = Timestamp::from_second(created).unwrap();
        Arc::new(pod)
    }

    fn why(wake: Wake) -> Arc<Unfit> {
        Arc::new(Unfit::of(1, wake))
    }

    fn popped(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|p| p.uid.to_string()).collect()
    }

    #[test]
    fn by_priority_then_age_then_arrival() {
        let mut queue = Queue::new(Backoff::default());
        for (uid, priority, created) in [("young", 0, 9), ("old", 0, 1), ("vip", 5, 9), ("later", 0, 9)] {
            queue.push(S, pod(uid, priority, created));
        }
        assert_eq!(popped(&mut queue), ["vip", "old", "young", "later"]);
        assert_eq!(queue.lengths(), [0, 0, 0]);
    }

    #[test]
    fn failures_back_off_to_ten_seconds() {
        let mut queue = Queue::new(Backoff::default());
        let mut now = S;
        queue.push(now, pod("p", 0, 0));
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(popped(&mut queue), ["p"]);
            queue.retry(now, "p");
            let until = now + S * seconds;
            assert_eq!(queue.next_flush(), Some(until));
            queue.flush(until - Duration::from_millis(1));
            assert!(queue.pop().is_none());
            now = until;
            queue.flush(now);
        }
    }

    #[test]
    fn only_events_that_could_help_wake() {
        let mut queue = Queue::new(Backoff::default());
        queue.push(S, pod("p", 0, 0));
        queue.pop();
        queue.reject(S, "p", &why(Wake::POD_GONE));
        queue.wake(S * 9, Wake::NODE_TAINTS, |_, _| true);
        assert_eq!(queue.lengths(), [0, 0, 1]);
        // Its backoff is over, so it is active at once.
        queue.wake(S * 9, Wake::POD_GONE | Wake::NODE_ADDED, |_, _| true);
        assert_eq!(queue.lengths(), [1, 0, 0]);
        // Within the backoff it has to wait.
        queue.pop();
        queue.reject(S * 9, "p", &why(Wake::POD_GONE));
        queue.wake(S * 10, Wake::POD_GONE, |_, _| true);
        assert_eq!((queue.lengths(), queue.next_flush()), ([0, 1, 0], Some(S * 11)));
        queue.flush(S * 11);
        assert_eq!(queue.lengths(), [1, 0, 0]);
    }

    #[test]
    fn nothing_is_unschedulable_for_ever() {
        let mut queue = Queue::new(Backoff::default());
        queue.push(S, pod("p", 0, 0));
        queue.pop();
        queue.reject(S, "p", &why(Wake::NOTHING));
        queue.flush(S + UNSCHEDULABLE_MAX - S);
        assert_eq!(queue.lengths(), [0, 0, 1]);
        queue.flush(S + UNSCHEDULABLE_MAX);
        assert_eq!(popped(&mut queue), ["p"]);
    }

    #[test]
    fn gates_hold_and_changes_of_shape_wake() {
        let mut queue = Queue::new(Backoff::default());
        let mut gated = test_pod("p", serde_json::json!({"containers": []}));
        gated.gates = vec!["g".into()];
        queue.push(S, Arc::new(gated.clone()));
        assert!(queue.pop().is_none());
        gated.gates.clear();
        queue.push(S, Arc::new(gated.clone()));
        assert_eq!(popped(&mut queue), ["p"]);
        queue.reject(S, "p", &why(Wake::NOTHING));
        // The same pod again, such as after our own condition patch, is no reason to try again.
        queue.push(S * 20, Arc::new(gated));
        assert_eq!(queue.lengths(), [0, 0, 1]);
        let selector = serde_json::json!({"containers": [], "nodeSelector": {"a": "b"}});
        queue.push(S * 20, Arc::new(test_pod("p", selector)));
        assert_eq!(queue.lengths(), [1, 0, 0]);
    }

    #[test]
    fn removal_while_busy_ends_it() {
        let mut queue = Queue::new(Backoff::default());
        queue.push(S, pod("p", 0, 0));
        queue.pop();
        queue.remove("p");
        queue.retry(S, "p");
        assert_eq!((queue.lengths(), queue.get("p").is_none()), ([0, 0, 0], true));
    }
}
