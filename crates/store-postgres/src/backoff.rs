//! How long to wait before the next attempt: doubling, bounded, with jitter.

use std::time::Duration;

use meta::Random;

/// The first wait. A connection lost to a restarted connection pooler is back at once.
const FIRST: Duration = Duration::from_millis(20);
/// The longest: an outage ends within this of being noticed.
const LONGEST: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    /// Half to all of the span, so that servers which lost the same database do not return as one.
    pub(crate) async fn wait(&mut self, random: &dyn Random) {
        let span = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        self.0 = (self.0 * 2).min(LONGEST);
        tokio::time::sleep(Duration::from_micros(span / 2 + random.below(span / 2))).await;
    }
}
