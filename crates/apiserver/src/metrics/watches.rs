//! What watches were sent.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use meta::metrics::{Bounds, Exposition, Histogram, Kind, Unit, labels};
use resource::Resource;

/// Of `apiserver_watch_events_sizes`, upstream's.
const SIZES: [u64; 8] = [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10];

/// Of `apiserver_watch_list_duration_seconds`, upstream's.
const LIST_TIMES: Bounds = Bounds {
    upper: &[
        50_000,
        100_000,
        200_000,
        400_000,
        600_000,
        800_000,
        1_000_000,
        1_250_000,
        1_500_000,
        2_000_000,
        3_000_000,
        4_000_000,
        5_000_000,
        6_000_000,
        8_000_000,
        10_000_000,
        15_000_000,
        20_000_000,
        30_000_000,
        45_000_000,
        60_000_000,
        90_000_000,
        120_000_000,
        180_000_000,
        300_000_000,
    ],
    unit: Unit::Micros,
};

/// Events that one watch was sent since it last said so: counted by itself, told together, so that ten thousand
/// watchers do not count each event in the same place.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    events: [u64; SIZES.len() + 1],
    bytes: [u64; SIZES.len() + 1],
}

impl Tally {
    /// Counts an event of so many bytes.
    pub(crate) fn add(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        let at = SIZES.partition_point(|bound| *bound < bytes);
        if let (Some(events), Some(sum)) = (self.events.get_mut(at), self.bytes.get_mut(at)) {
            *events += 1;
            *sum += bytes;
        }
    }
}

/// Of all watches of one kind in one version.
pub(crate) struct WatchSeries {
    events: AtomicU64,
    sizes: Histogram,
    /// By scope: `cluster`, `namespace`, `resource`.
    lists: [(&'static str, Histogram); 3],
}

impl WatchSeries {
    /// Takes what a watch has counted.
    pub(crate) fn tell(&self, tally: &mut Tally) {
        let Tally { events, bytes } = std::mem::take(tally);
        for (at, (events, bytes)) in events.into_iter().zip(bytes).enumerate() {
            if events > 0 {
                self.events.fetch_add(events, Relaxed);
                self.sizes.observe_times(SIZES.get(at).copied().unwrap_or(u64::MAX), events, bytes);
            }
        }
    }

    /// Counts the time until a watch had told everything there was.
    pub(crate) fn listed(&self, scope: &str, took: Duration) {
        if let Some((_, times)) = self.lists.iter().find(|(of, _)| *of == scope) {
            times.took(took);
        }
    }
}

type Of = (Arc<str>, Arc<str>, Arc<str>);

/// All watches.
#[derive(Default)]
pub(crate) struct Watches(RwLock<HashMap<Of, Arc<WatchSeries>>>);

impl Watches {
    /// The numbers of a kind.
    pub(crate) fn of(&self, resource: &Resource) -> Arc<WatchSeries> {
        let of = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        if let Some(series) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&of) {
            return series.clone();
        }
        let new = || WatchSeries {
            events: AtomicU64::new(0),
            sizes: Histogram::new(Bounds { upper: &SIZES, unit: Unit::Whole }),
            lists: ["cluster", "namespace", "resource"].map(|scope| (scope, Histogram::new(LIST_TIMES))),
        };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(of).or_insert_with(|| Arc::new(new())).clone()
    }

    pub(super) fn expose(&self, out: &mut Exposition) {
        let mut all: Vec<(Of, Arc<WatchSeries>)> = {
            let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
            all.iter().map(|(of, series)| (of.clone(), series.clone())).collect()
        };
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let shown = |(group, version, resource): &Of, scope: Option<&'static str>| {
            let scope = scope.map(|scope| ("scope", scope));
            let pairs = [("group", &**group), ("resource", &**resource), ("version", &**version)];
            labels(&pairs.into_iter().chain(scope).collect::<Vec<_>>())
        };
        let help = "Events that watches were sent.";
        let mut family = out.family("apiserver_watch_events_total", Kind::Counter, help);
        for (of, series) in &all {
            let events = series.events.load(Relaxed);
            if events > 0 {
                family.value(&shown(of, None), events);
            }
        }
        let help = "Bytes of events that watches were sent.";
        let mut family = out.family("apiserver_watch_events_sizes", Kind::Histogram, help);
        all.iter().for_each(|(of, series)| family.histogram(&shown(of, None), &series.sizes));
        let help = "Time until a watch that begins with what there is had told all of it.";
        let mut family = out.family("apiserver_watch_list_duration_seconds", Kind::Histogram, help);
        for (of, series) in &all {
            for (scope, times) in &series.lists {
                family.histogram(&shown(of, Some(scope)), times);
            }
        }
    }
}
