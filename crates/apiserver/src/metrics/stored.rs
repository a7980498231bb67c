//! The store and the cache: how long writes take to be durable, and what is kept of each kind.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use meta::{
    GroupResource,
    metrics::{Exposition, Histogram, Kind, labels, number},
};

use super::TIMES;
use crate::{Cache, cache::RING_EVENTS_MAX};

/// What a write did.
const OPERATIONS: [&str; 3] = ["create", "update", "delete"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Create,
    Update,
    Delete,
}

/// Writes to one stored kind.
#[derive(Default)]
pub(crate) struct Writes {
    took: [OnceLock<Histogram>; OPERATIONS.len()],
    errors: [AtomicU64; OPERATIONS.len()],
}

impl Writes {
    /// Counts a write, from being handed to the committer to being durable and visible.
    pub(crate) fn wrote(&self, write: Write, failed: bool, took: Duration) {
        let at = match write {
            Write::Create => 0,
            Write::Update => 1,
            Write::Delete => 2,
        };
        if let Some(times) = self.took.get(at) {
            times.get_or_init(|| Histogram::new(TIMES)).took(took);
        }
        if let Some(errors) = self.errors.get(at).filter(|_| failed) {
            errors.fetch_add(1, Relaxed);
        }
    }
}

/// Writes what is known of all kinds.
pub(super) fn expose(out: &mut Exposition, cache: &Cache) {
    let mut kinds = cache.kinds();
    kinds.retain(|(_, kind)| kind.is_stored());
    expose_writes(out, &kinds);
    expose_cache(out, &kinds);
}

type Kinds = [(GroupResource, Arc<crate::cache::Kind>)];

fn expose_writes(out: &mut Exposition, kinds: &Kinds) {
    let each = || {
        kinds.iter().flat_map(|(of, kind)| {
            let writes = &kind.counts.writes;
            let by = OPERATIONS.iter().zip(writes.took.iter().zip(&writes.errors));
            by.filter_map(|(operation, (took, errors))| {
                let pairs = [("group", &*of.group), ("operation", operation), ("resource", &*of.resource)];
                Some((labels(&pairs), took.get()?, errors.load(Relaxed)))
            })
        })
    };
    let help = "Time until a write is durable and visible, whatever the store is.";
    let mut family = out.family("etcd_request_duration_seconds", Kind::Histogram, help);
    each().for_each(|(text, took, _)| family.histogram(&text, took));
    let mut family = out.family("etcd_requests_total", Kind::Counter, "Writes to the store.");
    each().for_each(|(text, took, _)| family.value(&text, took.count()));
    let help = "Writes that the store refused.";
    let mut family = out.family("etcd_request_errors_total", Kind::Counter, help);
    each().filter(|(.., errors)| *errors > 0).for_each(|(text, _, errors)| family.value(&text, errors));
}

type Number = fn(&crate::cache::Kind) -> u64;

/// What is said of every kind in the cache; the last says whether the label `index` goes with it.
const OF_KIND: &[(&str, Kind, &str, Number, bool)] = &[
    ("apiserver_resource_objects", Kind::Gauge, "Stored objects.", |k| k.snapshot().len() as u64, false),
    ("apiserver_registered_watchers", Kind::Gauge, "Watches that run.", |k| k.watchers() as u64, false),
    (
        "apiserver_watch_cache_events_received_total",
        Kind::Counter,
        "Changes that came from the store.",
        |k| k.counts.events.load(Relaxed),
        false,
    ),
    (
        "apiserver_watch_cache_events_dispatched_total",
        Kind::Counter,
        "Changes that were passed on to watches.",
        |k| k.counts.events.load(Relaxed),
        false,
    ),
    (
        "apiserver_init_events_total",
        Kind::Counter,
        "Objects that watches began with.",
        |k| k.counts.initial.load(Relaxed),
        false,
    ),
    (
        "apiserver_terminated_watchers_total",
        Kind::Counter,
        "Watches that ended because they did not keep up.",
        |k| k.counts.lost.load(Relaxed),
        false,
    ),
    (
        "apiserver_watch_cache_capacity",
        Kind::Gauge,
        "Changes that are kept at most.",
        |_| RING_EVENTS_MAX as u64,
        false,
    ),
    ("apiserver_cache_list_total", Kind::Counter, "Lists.", |k| k.counts.lists.load(Relaxed), true),
    (
        "apiserver_cache_list_fetched_objects_total",
        Kind::Counter,
        "Objects that lists looked at.",
        |k| k.counts.fetched.load(Relaxed),
        true,
    ),
    (
        "apiserver_cache_list_returned_objects_total",
        Kind::Counter,
        "Objects that lists answered.",
        |k| k.counts.returned.load(Relaxed),
        false,
    ),
];

#[allow(clippy::cast_precision_loss, reason = "revisions stay below 2^53")]
fn expose_cache(out: &mut Exposition, kinds: &Kinds) {
    // The older name, which has the group in the resource.
    let mut family = out.family("apiserver_storage_objects", Kind::Gauge, "Stored objects.");
    for (of, kind) in kinds {
        family.value(&labels(&[("resource", &of.to_string())]), kind.snapshot().len());
    }
    for (name, sort, help, number, indexed) in OF_KIND {
        let mut family = out.family(name, *sort, help);
        for (of, kind) in kinds {
            let (group, resource) = (("group", &*of.group), ("resource", &*of.resource));
            let text =
                if *indexed { labels(&[group, ("index", ""), resource]) } else { labels(&[group, resource]) };
            family.value(&text, number(kind));
        }
    }
    let name = "apiserver_watch_cache_resource_version";
    let mut family = out.family(name, Kind::Gauge, "The newest revision of a kind.");
    for (of, kind) in kinds {
        let text = labels(&[("group", &of.group), ("resource", &of.resource)]);
        family.value(&text, number(kind.snapshot().revision.0 as f64));
    }
}
