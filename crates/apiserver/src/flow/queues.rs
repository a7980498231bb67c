//! The seats and the queues of one priority level: who runs, who waits, who is refused.
//!
//! Guarantees: seats in use are never more than there are (save while their number was lowered under running
//! requests), and each is given back exactly once; a queue is never longer than its limit; nothing waits while
//! the next in turn fits. Queues take turns by start-time fair queuing: a request's cost is its width, so a
//! flow that sends much waits behind its own requests. Pure: knows neither clock nor tasks; who waits is
//! known by a number.

use std::collections::VecDeque;

/// Sizes of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Seats; at least one.
    pub(crate) seats: u64,
    /// Queues; none where a request that does not fit is refused at once.
    pub(crate) queues: usize,
    /// Queues that one flow may be put in.
    pub(crate) hand: usize,
    /// Requests in a queue.
    pub(crate) length_max: usize,
}

/// What becomes of a new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It runs, on so many seats.
    Runs { width: u64 },
    /// It waits under this number, for so many seats.
    Waits { id: u64, width: u64 },
    /// There is no queue to wait in.
    NoQueue,
    /// Its queue is full.
    Full,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    width: u64,
    /// Virtual time at which it is to start.
    start: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Virtual time at which the last of it is through.
    next: u64,
}

/// One level.
#[derive(Debug)]
pub(crate) struct Queues {
    limits: Limits,
    in_use: u64,
    waiting: usize,
    waiting_seats: u64,
    queues: Vec<Queue>,
    /// Virtual time: the start of what was dispatched last.
    now: u64,
    last_id: u64,
}

impl Queues {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut this =
            Self { limits, in_use: 0, waiting: 0, waiting_seats: 0, queues: Vec::new(), now: 0, last_id: 0 };
        this.resize(limits);
        this
    }

    /// Takes new sizes. Queues that are too many are used up; running requests keep their seats.
    pub(crate) fn resize(&mut self, limits: Limits) {
        self.limits = Limits { seats: limits.seats.max(1), ..limits };
        if self.queues.len() < limits.queues {
            self.queues.resize_with(limits.queues, Queue::default);
        }
    }

    /// A request of a flow, known by its hash.
    pub(crate) fn offer(&mut self, flow: u64, width: u64) -> Offer {
        let width = width.clamp(1, self.limits.seats);
        if self.waiting == 0 && self.in_use.saturating_add(width) <= self.limits.seats {
            self.in_use += width;
            return Offer::Runs { width };
        }
        let mut shortest: Option<usize> = None;
        let length = |at: usize| self.queues.get(at).map_or(usize::MAX, |queue| queue.waiting.len());
        for at in hand(flow, self.limits.queues, self.limits.hand) {
            if shortest.is_none_or(|best| length(at) < length(best)) {
                shortest = Some(at);
            }
        }
        let Some(queue) = shortest.and_then(|at| self.queues.get_mut(at)) else { return Offer::NoQueue };
        if queue.waiting.len() >= self.limits.length_max {
            return Offer::Full;
        }
        self.last_id += 1;
        let start = queue.next.max(self.now);
        queue.next = start + width;
        queue.waiting.push_back(Waiting { id: self.last_id, width, start });
        self.waiting += 1;
        self.waiting_seats += width;
        Offer::Waits { id: self.last_id, width }
    }

    /// Gives seats back.
    pub(crate) fn release(&mut self, width: u64) {
        debug_assert!(self.in_use >= width, "seats are given back once");
        self.in_use = self.in_use.saturating_sub(width);
    }

    /// Takes one out that does not want to wait longer; false when it is not waiting.
    pub(crate) fn cancel(&mut self, id: u64) -> bool {
        for queue in &mut self.queues {
            if let Some(at) = queue.waiting.iter().position(|waiting| waiting.id == id) {
                self.waiting_seats -= queue.waiting.remove(at).map_or(0, |waiting| waiting.width);
                self.waiting -= 1;
                return true;
            }
        }
        false
    }

    /// The next to run, if it fits; to be called until there is none. A wide one at its turn is not passed.
    pub(crate) fn dispatch(&mut self) -> Option<u64> {
        if self.waiting == 0 {
            return None;
        }
        let head = |queue: &Queue| queue.waiting.front().map(|waiting| waiting.start);
        let (_, at) =
            self.queues.iter().enumerate().filter_map(|(at, queue)| Some((head(queue)?, at))).min()?;
        let queue = self.queues.get_mut(at)?;
        let width = queue.waiting.front()?.width.min(self.limits.seats);
        if self.in_use + width > self.limits.seats {
            return None;
        }
        let next = queue.waiting.pop_front()?;
        self.waiting -= 1;
        self.waiting_seats -= next.width;
        self.now = self.now.max(next.start);
        // What it was promised, even where the level became smaller since.
        self.in_use += next.width;
        Some(next.id)
    }

    /// Seats in use, and requests that wait.
    #[cfg(test)]
    pub(crate) fn load(&self) -> (u64, usize) {
        (self.in_use, self.waiting)
    }

    /// Seats that are in use or waited for.
    pub(crate) fn demand(&self) -> u64 {
        self.in_use + self.waiting_seats
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }
}

/// Shuffle sharding: `size` different queues of `deck`, drawn from the hash of a flow.
fn hand(mut hash: u64, deck: usize, size: usize) -> Vec<usize> {
    let mut hand: Vec<usize> = Vec::with_capacity(size.min(deck));
    for dealt in 0..size.min(deck) {
        let left = (deck - dealt) as u64;
        let mut card = usize::try_from(hash % left).unwrap_or(0);
        hash /= left;
        // The card-th of those that are not dealt yet: `hand` is kept sorted.
        let at = hand.iter().position(|taken| {
            let before = *taken <= card;
            card += usize::from(before);
            !before
        });
        hand.insert(at.unwrap_or(hand.len()), card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { seats: 4, queues: 8, hand: 3, length_max: 5 };

    #[test]
    fn hands_are_different_queues() {
        for hash in (0..10_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            let dealt = hand(hash, 8, 3);
            assert!(dealt.len() == 3 && dealt.is_sorted_by(|a, b| a < b) && dealt[2] < 8, "{dealt:?}");
        }
        assert_eq!(hand(7, 0, 3), [0; 0]);
    }

    /// One flow fills its hand; another, that comes later, is not behind it.
    #[test]
    fn a_flood_waits_behind_itself() {
        let mut level = Queues::new(Limits { seats: 1, queues: 64, hand: 2, length_max: 50 });
        assert_eq!(level.offer(1, 1), Offer::Runs { width: 1 });
        let mut owner = HashMap::new();
        for _ in 0..100 {
            let Offer::Waits { id, .. } = level.offer(1, 1) else { panic!("there is room") };
            owner.insert(id, "flood");
        }
        assert_eq!(level.offer(1, 1), Offer::Full);
        for _ in 0..3 {
            let Offer::Waits { id, .. } = level.offer(0xFFFF_FFFF, 1) else { panic!("there is room") };
            owner.insert(id, "modest");
        }
        let mut order = Vec::new();
        while order.len() < 12 {
            level.release(1);
            order.push(owner[&level.dispatch().unwrap()]);
        }
        assert_eq!(order.iter().filter(|who| **who == "modest").count(), 3, "{order:?}");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Offer(u64, u64),
        Finish(usize),
        Cancel(usize),
        Resize(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..6_u64, 0..7_u64).prop_map(|(flow, width)| Step::Offer(flow.wrapping_mul(0x9E37_79B9), width)),
            3 => any::<usize>().prop_map(Step::Finish),
            1 => any::<usize>().prop_map(Step::Cancel),
            1 => (1..8_u64).prop_map(Step::Resize),
        ]
    }

    /// What runs and what waits, as somebody who watches the level knows it.
    #[derive(Default)]
    struct Seen {
        running: Vec<u64>,
        waiting: BTreeMap<u64, u64>,
    }

    impl Seen {
        fn settle(&mut self, level: &mut Queues) {
            while let Some(id) = level.dispatch() {
                self.running.push(self.waiting.remove(&id).expect("who is dispatched was waiting"));
            }
        }
    }

    proptest! {
        #[test]
        fn no_seat_is_lost_and_nothing_waits_for_nothing(steps in prop::collection::vec(step(), 0..200)) {
            let mut level = Queues::new(LIMITS);
            let mut seen = Seen::default();
            for step in steps {
                let before = level.load().0;
                match step {
                    Step::Offer(flow, width) => match level.offer(flow, width) {
                        Offer::Runs { width } => {
                            seen.running.push(width);
                            prop_assert!(level.load().0 <= level.limits().seats);
                        }
                        Offer::Waits { id, width } => { seen.waiting.insert(id, width); }
                        Offer::Full => prop_assert!(before > 0),
                        Offer::NoQueue => prop_assert!(false, "there are queues"),
                    },
                    Step::Finish(at) if !seen.running.is_empty() => {
                        let width = seen.running.swap_remove(at % seen.running.len());
                        level.release(width);
                    }
                    Step::Cancel(at) if !seen.waiting.is_empty() => {
                        let id = *seen.waiting.keys().nth(at % seen.waiting.len()).unwrap();
                        seen.waiting.remove(&id);
                        prop_assert!(level.cancel(id));
                        prop_assert!(!level.cancel(id));
                    }
                    Step::Finish(_) | Step::Cancel(_) => {}
                    Step::Resize(seats) => level.resize(Limits { seats, ..LIMITS }),
                }
                seen.settle(&mut level);
                prop_assert_eq!(level.load(), (seen.running.iter().sum(), seen.waiting.len()));
                let waited_for: u64 = seen.waiting.values().sum();
                prop_assert_eq!(level.demand(), level.load().0 + waited_for);
                prop_assert!(level.queues.iter().all(|queue| queue.waiting.len() <= LIMITS.length_max));
                prop_assert!(seen.waiting.is_empty() || !seen.running.is_empty(), "somebody waits for nobody");
            }
            // When everybody finishes, everybody who waited gets a turn.
            while let Some(width) = seen.running.pop() {
                level.release(width);
                seen.settle(&mut level);
            }
            prop_assert_eq!(level.load(), (0, 0));
        }
    }
}
