//! How many seats each priority level has for now: levels lend what they do not use, and borrow (KEP-1040, "Seat
//! Borrowing"; upstream `apf_controller.go` and `conc_alloc.go`).
//!
//! Guarantees: a level that is not exempt has never fewer seats than its lower limit, nor more than its upper; all of
//! them together have what they have nominally, to the rounding of half a seat each, unless exempt requests leave them
//! less; the same demands give the same seats. Pure: time is passed in, as what has passed since some beginning.

use std::time::Duration;

/// Between two adjustments, upstream's `borrowingAdjustmentPeriod`.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);
/// What is left of a smoothed demand after a period without any: half of it after five minutes.
const DECAY: f64 = 0.977;
/// The least target, so that nothing is divided by zero.
const TARGET_MIN: f64 = 0.001;
/// What sums of fractions may be wrong by.
const EPSILON: f64 = 1e-7;

/// The limits of a level, in seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) nominal: u64,
    /// Without what it lends.
    pub(super) lower: u64,
    /// With all that it may borrow.
    pub(super) upper: u64,
}

impl Range {
    /// From percentages of the nominal limit. Without a limit of borrowing it may have all `seats` besides.
    pub(super) fn new(nominal: u64, lendable: u64, borrowing: Option<u64>, seats: u64) -> Self {
        let part = |percent: u64| (nominal.saturating_mul(percent).saturating_add(50)) / 100;
        let borrowed = borrowing.map_or(seats, part);
        Self { nominal, lower: nominal - part(lendable.min(100)), upper: nominal.saturating_add(borrowed) }
    }
}

/// Adds up over a period how many seats are in use or waited for.
#[derive(Debug, Default)]
pub(super) struct Demand {
    seats: u64,
    high: u64,
    since: Duration,
    /// Of time, of seats over time, and of their squares.
    sums: [f64; 3],
}

/// A period of it.
struct Observed {
    seconds: f64,
    average: f64,
    deviation: f64,
    high: u64,
}

impl Demand {
    /// From `now` on it is so much.
    pub(super) fn set(&mut self, now: Duration, seats: u64) {
        self.pass(now);
        self.seats = seats;
        self.high = self.high.max(seats);
    }

    fn pass(&mut self, now: Duration) {
        let (time, seats) = (now.saturating_sub(self.since).as_secs_f64(), real(self.seats));
        for (sum, by) in self.sums.iter_mut().zip([1.0, seats, seats * seats]) {
            *sum += time * by;
        }
        self.since = self.since.max(now);
    }

    /// Ends the period and begins the next.
    fn take(&mut self, now: Duration) -> Observed {
        self.pass(now);
        let [seconds, linear, square] = std::mem::take(&mut self.sums);
        let high = std::mem::replace(&mut self.high, self.seats);
        let average = if seconds > 0.0 { linear / seconds } else { 0.0 };
        let variance = if seconds > 0.0 { square / seconds - average * average } else { 0.0 };
        Observed { seconds, average, deviation: variance.max(0.0).sqrt(), high }
    }
}

/// What is known of a level's demand, and the seats that it has for it.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) exempt: bool,
    pub(super) range: Range,
    /// Seats for now; of an exempt level, those that it is counted with.
    pub(super) current: u64,
    pub(super) demand: Demand,
    /// Of the last period.
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) high: u64,
    /// Falls slower than it rises.
    pub(super) smoothed: f64,
    /// What it would have, were there seats enough.
    pub(super) target: f64,
}

impl Share {
    pub(super) fn new(exempt: bool, range: Range, now: Duration) -> Self {
        Self {
            exempt,
            range,
            current: range.nominal - (range.nominal - range.lower) / 2,
            demand: Demand { since: now, ..Demand::default() },
            average: 0.0,
            deviation: 0.0,
            high: 0,
            smoothed: 0.0,
            target: 0.0,
        }
    }

    /// Ends a period: what the level wants in the next.
    pub(super) fn observe(&mut self, now: Duration) -> Wish {
        let Observed { seconds, average, deviation, high } = self.demand.take(now);
        self.high = high;
        if seconds > 0.0 {
            (self.average, self.deviation) = (average, deviation);
            let envelope = average + deviation;
            self.smoothed = envelope.max(DECAY * self.smoothed + (1.0 - DECAY) * envelope);
        }
        let Self { exempt, range, current, smoothed, .. } = *self;
        // What it used and has a right to is not taken away again at once.
        let least = range.lower.max(if exempt { high } else { high.min(range.nominal) });
        self.target = real(least).max(smoothed);
        Wish { exempt, range, least, target: self.target, current }
    }
}

/// What a level wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    exempt: bool,
    range: Range,
    least: u64,
    target: f64,
    current: u64,
}

/// The seats of each level, in the order of the wishes, and which part of their targets levels within limits have.
pub(super) fn adjust(wishes: &[Wish]) -> (Vec<u64>, f64) {
    let all: u64 = wishes.iter().map(|wish| wish.range.nominal).sum();
    let (exempt, limited): (Vec<&Wish>, Vec<&Wish>) = wishes.iter().partition(|wish| wish.exempt);
    let left = all.saturating_sub(exempt.iter().map(|wish| wish.least).sum());
    let lower: u64 = limited.iter().map(|wish| wish.range.lower).sum();
    let least: u64 = limited.iter().map(|wish| wish.least).sum();
    let mut fair = 0.0;
    let mut seats: Vec<u64> = if left <= lower {
        limited.iter().map(|wish| wish.range.lower).collect()
    } else if left <= least {
        let part = real(left - lower) / real(least - lower);
        let more = |wish: &Wish| whole(real(wish.least - wish.range.lower) * part);
        limited.iter().map(|wish| wish.range.lower + more(wish)).collect()
    } else {
        let items: Vec<Item> = limited.iter().map(|wish| Item::of(wish)).collect();
        match allocate(real(all), &items) {
            Some((seats, found)) => {
                fair = found;
                seats.into_iter().map(whole).collect()
            }
            None => limited.iter().map(|wish| wish.current).collect(),
        }
    };
    seats.reverse();
    let of = |wish: &Wish| if wish.exempt { wish.least } else { seats.pop().unwrap_or(wish.current) };
    (wishes.iter().map(of).collect(), fair)
}

/// One of those that share.
#[derive(Clone, Copy, Debug)]
struct Item {
    target: f64,
    lower: f64,
    upper: f64,
}

impl Item {
    fn of(wish: &Wish) -> Self {
        let target = wish.target.max(TARGET_MIN);
        Self { target, lower: real(wish.least), upper: real(wish.range.upper) }
    }

    /// A part of its target, within its bounds.
    fn at(&self, fair: f64) -> f64 {
        (fair * self.target).min(self.upper).max(self.lower)
    }
}

/// Shares out `sum`: everybody has the same part of its target, or the bound that is in the way. `None` where the bounds
/// allow no such sum. What is shared out grows with the part, in straight lines between the parts at which somebody
/// meets a bound.
fn allocate(sum: f64, items: &[Item]) -> Option<(Vec<f64>, f64)> {
    let shared = |fair: f64| items.iter().map(|item| item.at(fair)).sum::<f64>();
    let bends = |item: &Item| [item.lower / item.target, item.upper / item.target];
    let mut bends: Vec<f64> = items.iter().flat_map(bends).collect();
    bends.sort_by(f64::total_cmp);
    let (first, last) = (*bends.first()?, *bends.last()?);
    if sum < shared(first) - EPSILON || sum > shared(last) + EPSILON {
        return None;
    }
    let at = bends.partition_point(|bend| shared(*bend) < sum);
    let above = bends.get(at).copied().unwrap_or(last);
    let below = at.checked_sub(1).and_then(|at| bends.get(at)).copied().unwrap_or(first);
    let (from, to) = (shared(below), shared(above));
    let fair = if to > from { below + (above - below) * (sum - from) / (to - from) } else { above };
    Some((items.iter().map(|item| item.at(fair)).collect(), fair))
}

#[allow(clippy::cast_precision_loss, reason = "seats are far below 2^53")]
fn real(seats: u64) -> f64 {
    seats as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is shared out is neither negative nor beyond the seats there are"
)]
fn whole(seats: f64) -> u64 {
    seats.round() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn limits_are_percentages_of_the_nominal() {
        for (nominal, lendable, borrowing, lower, upper) in [
            (245, 90, None, 24, 845),
            (98, 25, None, 73, 698),
            (12, 33, Some(67), 8, 20),
            (12, 0, Some(0), 12, 12),
            (12, 100, Some(400), 0, 60),
            (0, 50, Some(50), 0, 0),
        ] {
            let range = Range::new(nominal, lendable, borrowing, 600);
            assert_eq!(range, Range { nominal, lower, upper }, "{nominal} {lendable} {borrowing:?}");
        }
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_period_knows_its_average_deviation_and_height() {
        let mut share = Share::new(false, Range::new(10, 50, None, 100), SECOND);
        assert_eq!(share.current, 8);
        share.demand.set(SECOND * 2, 8);
        share.demand.set(SECOND * 4, 2);
        let wish = share.observe(SECOND * 5);
        // One second of 0, two of 8, one of 2.
        assert_eq!((share.average, share.high, wish.least), (4.5, 8, 8));
        assert!(near(share.deviation, (33.0 - 20.25_f64).sqrt()), "{}", share.deviation);
        let risen = 4.5 + share.deviation;
        assert_eq!((share.smoothed, wish.target), (risen, risen));
        // The next begins with what there is, and what was smoothed falls slowly.
        let wish = share.observe(SECOND * 15);
        assert_eq!((share.average, share.deviation, share.high, wish.least), (2.0, 0.0, 2, 5));
        assert!(near(share.smoothed, 0.977 * risen + 0.023 * 2.0), "{}", share.smoothed);
        // No time has passed: nothing is known.
        let before = share.smoothed;
        share.observe(SECOND * 15);
        assert_eq!((share.average, share.smoothed), (2.0, before));
    }

    fn wish(exempt: bool, range: (u64, u64, u64), high: u64, smoothed: f64) -> Wish {
        let (nominal, lower, upper) = range;
        let mut share = Share::new(exempt, Range { nominal, lower, upper }, SECOND);
        share.demand.set(SECOND, high);
        share.smoothed = smoothed;
        share.observe(SECOND)
    }

    /// By nominal, lower and upper limit, high watermark and smoothed demand: what each has.
    #[test]
    fn seats_go_where_they_are_used() {
        let limited = |range, high, smoothed| wish(false, range, high, smoothed);
        let exempt = |high| wish(true, (0, 0, 0), high, 0.0);
        let check = |wishes: &[Wish], expected: &[u64], fair: f64| {
            let (seats, found) = adjust(wishes);
            assert_eq!(seats, expected, "{wishes:?}");
            assert!((found - fair).abs() < 0.01, "{found} of {wishes:?}");
        };
        // The two cases of upstream's TestBorrowing: what is lent, and what may be borrowed, is the limit.
        check(&[limited((12, 6, 20), 24, 24.0), limited((12, 8, 18), 6, 6.0)], &[16, 8], 0.67);
        check(&[limited((12, 6, 16), 24, 24.0), limited((12, 4, 18), 6, 6.0)], &[16, 8], 1.33);
        // Nobody wants anything: as the lower limits are to each other.
        check(&[limited((30, 20, 90), 0, 0.0), limited((30, 10, 90), 0, 0.0)], &[40, 20], 2.0);
        // Both want all: each as much as it has nominally.
        check(&[limited((20, 5, 90), 99, 60.0), limited((40, 5, 90), 99, 60.0)], &[20, 40], 0.0);
        // Exempt requests take no seats, until they leave fewer than are used.
        check(
            &[exempt(10), limited((30, 10, 60), 15, 15.0), limited((30, 10, 60), 20, 20.0)],
            &[10, 26, 34],
            1.71,
        );
        check(
            &[exempt(30), limited((30, 10, 60), 15, 15.0), limited((30, 10, 60), 25, 20.0)],
            &[30, 13, 18],
            0.0,
        );
        check(
            &[exempt(90), limited((30, 10, 60), 15, 15.0), limited((30, 20, 60), 25, 20.0)],
            &[90, 10, 20],
            0.0,
        );
        // What an exempt level has nominally may be more than the others may borrow: they keep what they have.
        check(&[wish(true, (30, 0, 30), 0, 0.0), limited((30, 10, 30), 5, 5.0)], &[0, 20], 0.0);
        check(&[], &[], 0.0);
    }

    fn item() -> impl Strategy<Value = Item> {
        (0.0..9.0_f64, 0.0..9.0_f64, 0.0..9.0_f64).prop_map(|(lower, more, target)| Item {
            target: (lower + target).max(TARGET_MIN),
            lower,
            upper: lower + more,
        })
    }

    proptest! {
        #[test]
        fn what_is_shared_out_is_the_sum_and_fair(items in prop::collection::vec(item(), 1..9), part in 0.0..1.0_f64) {
            let low: f64 = items.iter().map(|item| item.lower).sum();
            let high: f64 = items.iter().map(|item| item.upper).sum();
            let sum = low + (high - low) * part;
            let (seats, fair) = allocate(sum, &items).unwrap();
            prop_assert!((seats.iter().sum::<f64>() - sum).abs() < 1e-6);
            for (seats, item) in seats.iter().zip(&items) {
                prop_assert!(item.lower <= *seats && *seats <= item.upper);
                let wanted = fair * item.target;
                prop_assert!(wanted > item.upper || *seats >= wanted - 1e-9);
                prop_assert!(wanted < item.lower || *seats <= wanted + 1e-9);
            }
            prop_assert!(allocate(low - 0.1, &items).is_none() && allocate(high + 0.1, &items).is_none());
        }
    }
}
