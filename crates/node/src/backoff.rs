//! How long to wait between tries: crash loops and image pulls, 10 s doubling to 5 min.
//!
//! Guarantees upstream's arithmetic (`client-go/util/flowcontrol/backoff.go`): the first failure is
//! retried at once, each further one waits the next step counted from the moment of the failure, and
//! a subject that was quiet for twice the longest step (10 min) begins anew. Pure.

use std::time::Duration;

use meta::Timestamp;

/// First wait.
pub const INITIAL: Duration = Duration::from_secs(10);
/// Longest wait.
pub const MAX: Duration = Duration::from_secs(300);

/// The wait that was last imposed on a subject, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait.
    pub step: Duration,
    /// When it was chosen.
    pub at: Timestamp,
}

/// What to do about a subject that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Try now, and remember this.
    Go(Backoff),
    /// Wait this much longer, out of a wait of `step`.
    Wait {
        /// The whole wait.
        step: Duration,
        /// What is left of it.
        left: Duration,
    },
}

/// Whether a subject that failed at `failed` may be tried again at `now`.
pub fn gate(last: Option<Backoff>, failed: Timestamp, now: Timestamp) -> Gate {
    let Some(last) = last.filter(|last| since(failed, last.at) <= MAX * 2) else {
        return Gate::Go(Backoff { step: INITIAL, at: now });
    };
    match last.step.checked_sub(since(now, failed)) {
        Some(left) if !left.is_zero() => Gate::Wait { step: last.step, left },
        _ => Gate::Go(Backoff { step: (last.step * 2).min(MAX), at: now }),
    }
}

/// From `earlier` to `later`; zero when the clock went backwards.
pub fn since(later: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// As Go prints a duration of whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn doubles_to_five_minutes_and_forgets_after_ten() {
        let mut last = None;
        let mut clock = 0;
        let mut steps = Vec::new();
        for _ in 0..8 {
            // It crashes the moment it runs; we look exactly when the wait is over.
            let failed = at(clock);
            if let Gate::Wait { left, .. } = gate(last, failed, at(clock)) {
                clock += i64::try_from(left.as_secs()).unwrap();
            }
            let Gate::Go(next) = gate(last, failed, at(clock)) else { panic!("still waiting") };
            last = Some(next);
            steps.push(next.step.as_secs());
        }
        assert_eq!(steps, [10, 20, 40, 80, 160, 300, 300, 300]);
        let ran_long = at(clock + 601);
        assert_eq!(gate(last, ran_long, ran_long), Gate::Go(Backoff { step: INITIAL, at: ran_long }));
        let ran_short = at(clock + 599);
        assert!(matches!(gate(last, ran_short, ran_short), Gate::Wait { .. }));
    }

    #[test]
    fn words_are_gos() {
        for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s")] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
