//! What is counted of answers about tokens that are remembered (upstream `authentication/token/cache`). Only those of
//! token issuers and of the token webhook are: whoever else knows a token is asked each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use meta::metrics::{Bounds, Exposition, Histogram, Kind, Unit, labels};
use tokio::time::Instant;

/// Those that Prometheus has where nobody says others.
const TIMES: Bounds = Bounds {
    upper: &[
        5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
    ],
    unit: Unit::Micros,
};

/// Numbers of all caches of one server.
pub(super) struct TokenCache {
    hits: Histogram,
    misses: Histogram,
    fetched: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicU64,
    blocked: AtomicU64,
}

impl Default for TokenCache {
    fn default() -> Self {
        let (times, none) = (|| Histogram::new(TIMES), AtomicU64::default);
        Self {
            hits: times(),
            misses: times(),
            fetched: none(),
            failed: none(),
            in_flight: none(),
            blocked: none(),
        }
    }
}

impl TokenCache {
    /// Somebody asks, until what is returned is dropped; `known` tells whether the answer is remembered.
    pub(super) fn asking(self: &Arc<Self>, known: bool) -> Asking {
        self.blocked.fetch_add(u64::from(!known), Relaxed);
        Asking { counts: self.clone(), known, since: Instant::now() }
    }

    /// Somebody outside is asked.
    pub(super) fn fetching(self: &Arc<Self>) -> Fetching {
        self.in_flight.fetch_add(1, Relaxed);
        Fetching { counts: self.clone(), answered: false }
    }

    /// Writes what there is, nothing where nothing was asked.
    pub(super) fn expose(&self, out: &mut Exposition) {
        let pair = |status: &str| labels(&[("status", status)]);
        let all = [("hit", &self.hits), ("miss", &self.misses)];
        if all.iter().all(|(_, times)| times.count() == 0) {
            return;
        }
        let name = |rest: &str| format!("authentication_token_cache_{rest}");
        let (total, times) = (name("request_total"), name("request_duration_seconds"));
        let mut family = out.family(&total, Kind::Counter, "Tokens by whether their answer was remembered.");
        all.iter().for_each(|(status, times)| family.value(&pair(status), times.count()));
        let mut family = out.family(&times, Kind::Histogram, "Time until an answer was there.");
        all.iter().for_each(|(status, times)| family.histogram(&pair(status), times));
        let (total, active) = (name("fetch_total"), name("active_fetch_count"));
        let mut family = out.family(&total, Kind::Counter, "Tokens that somebody outside was asked about.");
        for (status, count) in [("error", &self.failed), ("ok", &self.fetched)] {
            family.value(&pair(status), count.load(Relaxed));
        }
        let help = "Tokens that somebody outside is being asked about, and those who wait for that.";
        let mut family = out.family(&active, Kind::Gauge, help);
        for (status, count) in [("blocked", &self.blocked), ("in_flight", &self.in_flight)] {
            family.value(&pair(status), count.load(Relaxed));
        }
    }
}

pub(super) struct Asking {
    counts: Arc<TokenCache>,
    known: bool,
    since: Instant,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let Self { counts, known, since } = self;
        let took: Duration = since.elapsed();
        if *known { &counts.hits } else { &counts.misses }.took(took);
        counts.blocked.fetch_sub(u64::from(!*known), Relaxed);
    }
}

/// Counts as failed unless it is answered.
pub(super) struct Fetching {
    counts: Arc<TokenCache>,
    answered: bool,
}

impl Fetching {
    pub(super) fn answered(mut self, answered: bool) {
        self.answered = answered;
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let Self { counts, answered } = self;
        if *answered { &counts.fetched } else { &counts.failed }.fetch_add(1, Relaxed);
        counts.in_flight.fetch_sub(1, Relaxed);
    }
}
