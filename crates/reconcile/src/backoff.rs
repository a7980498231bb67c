//! Exponential backoff with jitter from the seeded source.

use std::time::Duration;

use meta::Random;

/// How long to wait after the n-th failure in a row: between half of and the whole of
/// `base * 2^(n-1)`, at most `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait.
    pub base: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// For keys of a controller. 10 ms lets a conflict settle at once; 5 minutes keeps a key that
    /// cannot succeed from costing anything.
    pub const KEY: Self = Self { base: Duration::from_millis(10), max: Duration::from_secs(300) };
    /// For a watch that broke. Half a minute bounds how long a healed API server goes unnoticed.
    pub const WATCH: Self = Self { base: Duration::from_millis(100), max: Duration::from_secs(30) };

    /// The wait after `failures` (1 or more) failures in a row.
    pub fn after(&self, failures: u32, random: &dyn Random) -> Duration {
        let doubled =
            self.base.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        let whole = doubled.min(self.max);
        let half = whole / 2;
        let jitter_us = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(random.below(jitter_us.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use meta::Seeded;

    use super::*;

    #[test]
    fn grows_to_its_bound_and_no_further() {
        let random = Seeded::new(7);
        for failures in 1..70 {
            let wait = Backoff::KEY.after(failures, &random);
            let whole =
                Duration::from_millis(10).saturating_mul(1 << (failures - 1).min(20)).min(Backoff::KEY.max);
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?} of {whole:?}");
        }
    }
}
