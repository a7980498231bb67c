//! What became of the calls of admission webhooks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use meta::metrics::{Bounds, Exposition, Histogram, Kind, Unit, labels};

/// Upstream's.
const TIMES: Bounds = Bounds {
    upper: &[5_000, 25_000, 100_000, 500_000, 1_000_000, 2_500_000, 10_000_000, 25_000_000],
    unit: Unit::Micros,
};
/// Codes above are counted as this one, as upstream, so that a webhook cannot make up labels.
const CODE_MAX: u16 = 600;
/// Webhooks and results that are counted apart. A webhook that is renamed all day must not fill the memory:
/// beyond it, what is new is not counted.
const SERIES_MAX: usize = 4_096;

/// What a webhook answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Called {
    /// It let the request pass.
    Allowed,
    /// It refused it, with this code.
    Refused(u16),
    /// It could not be called, and the request ended.
    Failed,
    /// It could not be called, and the request went on.
    FailedOpen,
}

/// Name, type and operation.
type Hook = (Arc<str>, &'static str, &'static str);

#[derive(Default)]
pub(crate) struct WebhookCounts(Mutex<BTreeMap<(Hook, Called), Arc<Times>>>);

struct Times {
    took: Histogram,
    count: AtomicU64,
}

impl WebhookCounts {
    /// Counts one call. `kind` is `admit` or `validating`.
    pub(crate) fn called(
        &self,
        name: &Arc<str>,
        kind: &'static str,
        operation: &'static str,
        called: Called,
        took: Duration,
    ) {
        let called = match called {
            Called::Refused(code) => Called::Refused(code.min(CODE_MAX)),
            other => other,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = all.len() >= SERIES_MAX;
        let times = match all.entry(((name.clone(), kind, operation), called)) {
            std::collections::btree_map::Entry::Occupied(known) => known.get().clone(),
            std::collections::btree_map::Entry::Vacant(_) if full => return,
            std::collections::btree_map::Entry::Vacant(new) => {
                let times = Times { took: Histogram::new(TIMES), count: AtomicU64::new(0) };
                new.insert(Arc::new(times)).clone()
            }
        };
        drop(all);
        times.took.took(took);
        times.count.fetch_add(1, Relaxed);
    }

    /// Writes them.
    pub(crate) fn expose(&self, out: &mut Exposition) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut times: BTreeMap<(&Hook, bool), Histogram> = BTreeMap::new();
        for ((hook, called), of) in &all {
            let rejected = matches!(called, Called::Refused(_) | Called::Failed);
            times.entry((hook, rejected)).or_insert_with(|| Histogram::new(TIMES)).add(&of.took);
        }
        let name = "apiserver_admission_webhook_admission_duration_seconds";
        let mut family = out.family(name, Kind::Histogram, "Time of a webhook's answer.");
        for (((name, kind, operation), rejected), of) in &times {
            let rejected = if *rejected { "true" } else { "false" };
            family.histogram(
                &labels(&[("name", name), ("operation", operation), ("rejected", rejected), ("type", kind)]),
                of,
            );
        }
        let mut family = out.family(
            "apiserver_admission_webhook_request_total",
            Kind::Counter,
            "Calls of a webhook by what it answered.",
        );
        for (((name, kind, operation), called), of) in &all {
            let (code, rejected) = match called {
                Called::Allowed => (200, "false"),
                Called::Refused(code) => (*code, "true"),
                Called::Failed => (500, "true"),
                Called::FailedOpen => (500, "false"),
            };
            let pairs = [
                ("code", &*code.to_string()),
                ("name", name),
                ("operation", operation),
                ("rejected", rejected),
                ("type", kind),
            ];
            family.value(&labels(&pairs), of.count.load(Relaxed));
        }
        let name = "apiserver_admission_webhook_rejection_count";
        let mut family = out.family(name, Kind::Counter, "Requests that a webhook ended, by why.");
        for (((name, kind, operation), called), of) in &all {
            let (error, code) = match called {
                Called::Refused(code) => ("no_error", *code),
                Called::Failed => ("calling_webhook_error", 0),
                Called::Allowed | Called::FailedOpen => continue,
            };
            let pairs = [
                ("error_type", error),
                ("name", name),
                ("operation", operation),
                ("rejection_code", &*code.to_string()),
                ("type", kind),
            ];
            family.value(&labels(&pairs), of.count.load(Relaxed));
        }
        let mut open: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (((name, kind, _), called), of) in &all {
            if *called == Called::FailedOpen {
                *open.entry((name, kind)).or_default() += of.count.load(Relaxed);
            }
        }
        let name = "apiserver_admission_webhook_fail_open_count";
        let mut family =
            out.family(name, Kind::Counter, "Requests that went on without the answer of a webhook.");
        for ((name, kind), count) in open {
            family.value(&labels(&[("name", name), ("type", kind)]), count);
        }
    }
}
