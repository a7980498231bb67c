//! When the platform may be tried again: backoff with full jitter, the platform's own `Retry-After`, and a
//! circuit breaker; and when what it refused for good may be said again. Pure, save for the instants it is given.

use std::time::Duration;

use meta::Random;
use tokio::time::Instant;

use crate::wire::{Refusal, Trouble};

/// So many failures in a row open the breaker: from then on a heartbeat, which costs nothing, goes first.
const FAILURES_MAX: u32 = 5;

/// The first and the longest wait after a refusal.
fn waits(refusal: Refusal) -> (Duration, Duration) {
    let (first, longest) = match refusal {
        Refusal::Transient => (1, 60),
        Refusal::Unauthorized | Refusal::Superseded => (30, 300),
        Refusal::Forbidden => (300, 300),
        Refusal::Content | Refusal::Endpoint => (5, 300),
    };
    (Duration::from_secs(first), Duration::from_secs(longest))
}

/// See the module.
pub(crate) struct Gate {
    failures: u32,
    opens: Instant,
}

impl Gate {
    pub(crate) fn new(now: Instant) -> Self {
        Self { failures: 0, opens: now }
    }

    /// Whether a request may be sent now.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        now >= self.opens
    }

    /// When it opens.
    pub(crate) fn opens(&self) -> Instant {
        self.opens
    }

    /// Whether the next request has to be a heartbeat.
    pub(crate) fn probes(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Failures since something succeeded.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.into()
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Closes after a failure. Requests that were on their way with it do not count twice.
    pub(crate) fn failed(&mut self, trouble: &Trouble, random: &dyn Random, now: Instant) {
        if self.is_open(now) {
            self.failures = self.failures.saturating_add(1);
        }
        let (first, longest) = waits(trouble.refusal);
        let doubled =
            first.saturating_mul(1_u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let most = doubled.min(longest);
        let jittered = match trouble.refusal {
            Refusal::Transient => {
                let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
                Duration::from_micros(random.below(micros.saturating_add(1)))
            }
            // A person has to do something; there is no herd to spread.
            Refusal::Unauthorized
            | Refusal::Forbidden
            | Refusal::Superseded
            | Refusal::Content
            | Refusal::Endpoint => most,
        };
        let wait = jittered.max(trouble.retry_after.unwrap_or_default());
        self.opens = self.opens.max(now + wait);
    }
}

/// The first and the longest wait before something that was refused for what it says is said again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// When what the platform refused for what it says is said again: after a minute, and after twice as long each
/// time that it is refused again. Each time costs a list of its kind and one refused request.
pub(crate) struct Again {
    wait: Duration,
    due: Option<Instant>,
    /// When it was said again last.
    last: Option<Instant>,
}

impl Again {
    pub(crate) fn new() -> Self {
        Self { wait: AGAIN.0, due: None, last: None }
    }

    /// Something was refused.
    pub(crate) fn refused(&mut self, now: Instant) {
        if self.due.is_some() {
            return;
        }
        let same = self.last.is_some_and(|last| now.saturating_duration_since(last) < self.wait);
        self.wait = if same { (self.wait * 2).min(AGAIN.1) } else { AGAIN.0 };
        self.due = Some(now + self.wait);
    }

    /// When it is to be said again, if anything is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It is being said again.
    pub(crate) fn said(&mut self, now: Instant) {
        self.due = None;
        self.last = Some(now);
    }
}

/// A token bucket.
pub(crate) struct Bucket {
    per_second: u32,
    burst: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self { per_second, burst: f64::from(burst), level: f64::from(burst), at: now }
    }

    /// Takes one, or says when there will be one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * f64::from(self.per_second)).min(self.burst);
        self.at = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        let missing = (1.0 - self.level) / f64::from(self.per_second.max(1));
        // A microsecond more, so that rounding does not wake us too early for ever.
        Err(now + Duration::from_secs_f64(missing) + Duration::from_micros(1))
    }

    /// Gives back one that was not used.
    pub(crate) fn give_back(&mut self) {
        self.level += 1.0;
    }
}

#[cfg(test)]
mod tests {
    use meta::Seeded;

    use super::*;

    fn trouble(refusal: Refusal, after: Option<u64>) -> Trouble {
        Trouble {
            refusal,
            status: None,
            retry_after: after.map(Duration::from_secs),
            message: String::new(),
            answer: Default::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_longer_each_time_and_as_long_as_asked() {
        let (random, start) = (Seeded::new(1), Instant::now());
        let mut gate = Gate::new(start);
        let mut now = start;
        for failures in 1..12_u32 {
            assert_eq!(gate.probes(), failures > FAILURES_MAX);
            gate.failed(&trouble(Refusal::Transient, None), &random, now);
            let wait = gate.opens() - now;
            assert!(wait <= Duration::from_secs(60.min(1 << (failures - 1).min(6))), "{failures}: {wait:?}");
            now = gate.opens();
        }
        gate.failed(&trouble(Refusal::Transient, Some(120)), &random, now);
        assert!(gate.opens() - now >= Duration::from_secs(120));
        gate.succeeded();
        assert!(!gate.probes());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_said_again_less_and_less_often() {
        let mut again = Again::new();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..8 {
            again.refused(now);
            again.refused(now + Duration::from_secs(1));
            let due = again.due().unwrap();
            waits.push((due - now).as_secs());
            now = due;
            again.said(now);
            assert_eq!(again.due(), None);
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        // Long after it was taken, another one.
        now += Duration::from_secs(7200);
        again.refused(now);
        assert_eq!(again.due(), Some(now + Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_bucket_gives_burst_then_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 20, start);
        let burst = std::iter::repeat_with(|| bucket.take(start)).take_while(Result::is_ok).count();
        assert_eq!(burst, 20);
        let (mut now, mut taken) = (start, 0);
        while now < start + Duration::from_secs(10) {
            match bucket.take(now) {
                Ok(()) => taken += 1,
                Err(next) => now = next,
            }
        }
        assert!((99..=101).contains(&taken), "{taken}");
    }
}
