//! The time of day as tokio's (paused) clock tells it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use meta::{Clock, Timestamp};
use tokio::time::Instant;

/// A clock that moves with `tokio::time`.
#[derive(Debug)]
pub struct Virtual {
    start: Timestamp,
    origin: Instant,
}

impl Virtual {
    /// A clock that shows `start` now. Must be called within a tokio runtime.
    pub fn new(start: Timestamp) -> Self {
        Self { start, origin: Instant::now() }
    }
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        let gone = self.origin.elapsed();
        self.start.checked_add(gone).unwrap_or(Timestamp::MAX)
    }
}

/// A clock that is wrong by some time.
pub struct Skewed {
    clock: Arc<dyn Clock>,
    offset_ms: AtomicI64,
}

impl Skewed {
    /// A clock that is right until [`Skewed::set`].
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, offset_ms: AtomicI64::new(0) }
    }

    /// Makes it wrong by so much, in milliseconds; negative is late.
    pub fn set(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Relaxed);
    }
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let offset_ms = self.offset_ms.load(Relaxed);
        let now = self.clock.now();
        let by = Duration::from_millis(offset_ms.unsigned_abs());
        let moved = if offset_ms < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        moved.unwrap_or(now)
    }
}
