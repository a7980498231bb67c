//! What became of the requests of a flow schema, and what is shown of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use meta::metrics::{Bounds, Exposition, Histogram, Kind, Unit, labels};

use super::{Schema, Table, borrow::Share, lock};
use Number::{Part, Seats};

/// Of waiting and execution, upstream's.
const TIMES: Bounds = Bounds {
    upper: &[
        0, 5_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
        15_000_000, 30_000_000,
    ],
    unit: Unit::Micros,
};
/// Of `work_estimated_seats`, upstream's.
const SEATS: Bounds = Bounds { upper: &[1, 2, 4, 8, 16, 32, 64, 100], unit: Unit::Whole };

/// Of one schema.
pub(super) struct Counts {
    pub(super) dispatched: AtomicU64,
    pub(super) executing: AtomicU64,
    pub(super) executing_seats: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) waiting_seats: AtomicU64,
    /// Found no seat free when they came.
    pub(super) waited: AtomicU64,
    pub(super) no_queue: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) timed_out: AtomicU64,
    /// Until their turn.
    pub(super) turned: Histogram,
    /// Until they gave up.
    pub(super) gave_up: Histogram,
    pub(super) executed: Histogram,
    pub(super) widths: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        let none = AtomicU64::default;
        Self {
            dispatched: none(),
            executing: none(),
            executing_seats: none(),
            waiting: none(),
            waiting_seats: none(),
            waited: none(),
            no_queue: none(),
            full: none(),
            timed_out: none(),
            turned: Histogram::new(TIMES),
            gave_up: Histogram::new(TIMES),
            executed: Histogram::new(TIMES),
            widths: Histogram::new(SEATS),
        }
    }
}

type Of = fn(&Counts) -> &AtomicU64;

/// Numbers of a schema.
const NUMBERS: &[(&str, Kind, &str, Of)] = &[
    ("current_executing_requests", Kind::Gauge, "Requests that run.", |c| &c.executing),
    ("current_executing_seats", Kind::Gauge, "Seats that are taken.", |c| &c.executing_seats),
    ("current_inqueue_requests", Kind::Gauge, "Requests that wait for their turn.", |c| &c.waiting),
    ("current_inqueue_seats", Kind::Gauge, "Seats that are waited for.", |c| &c.waiting_seats),
    ("dispatched_requests_total", Kind::Counter, "Requests that were let in.", |c| &c.dispatched),
    (
        "request_dispatch_no_accommodation_total",
        Kind::Counter,
        "Requests that found no seat when they came.",
        |c| &c.waited,
    ),
];

const REFUSED: &[(&str, Of)] =
    &[("concurrency-limit", |c| &c.no_queue), ("queue-full", |c| &c.full), ("time-out", |c| &c.timed_out)];

type OfShare = fn(&Share) -> Number;

/// What a level has a number of.
enum Number {
    Seats(u64),
    Part(f64),
}

/// Numbers of a level.
const LEVELS: &[(&str, &str, OfShare)] = &[
    ("nominal_limit_seats", "Seats of the level by its shares.", |share| Seats(share.range.nominal)),
    ("current_limit_seats", "Seats of the level now.", |share| Seats(share.current)),
    ("lower_limit_seats", "Seats of the level without those that it may lend.", |share| {
        Seats(share.range.lower)
    }),
    ("upper_limit_seats", "Seats of the level with those that it may borrow.", |share| {
        Seats(share.range.upper)
    }),
    ("demand_seats_high_watermark", "Most seats that were wanted in the last period.", |share| {
        Seats(share.high)
    }),
    ("demand_seats_average", "Seats that were wanted in the last period.", |share| Part(share.average)),
    ("demand_seats_stdev", "Standard deviation of the seats wanted in the last period.", |share| {
        Part(share.deviation)
    }),
    ("demand_seats_smoothed", "Seats that are wanted, with what was wanted earlier.", |share| {
        Part(share.smoothed)
    }),
    ("target_seats", "Seats that the level would have, were there enough.", |share| Part(share.target)),
];

/// Writes everything.
pub(super) fn expose(table: &Table, fair: f64, out: &mut Exposition) {
    let pairs = |schema: &'_ Schema| {
        labels(&[("flow_schema", &schema.matcher.name), ("priority_level", &schema.level.name)])
    };
    let schemas: Vec<(String, &Counts)> =
        table.schemas.iter().map(|schema| (pairs(schema), &*schema.counts)).collect();
    let full = |name: &str| format!("apiserver_flowcontrol_{name}");
    for (name, kind, help, of) in NUMBERS {
        let name = full(name);
        let mut family = out.family(&name, *kind, help);
        schemas.iter().for_each(|(text, counts)| family.value(text, of(counts).load(Relaxed)));
    }
    let name = full("rejected_requests_total");
    let mut family = out.family(&name, Kind::Counter, "Requests that were refused.");
    for (reason, of) in REFUSED {
        for (text, counts) in &schemas {
            family.value(&format!("{text},reason=\"{reason}\""), of(counts).load(Relaxed));
        }
    }
    let name = full("request_wait_duration_seconds");
    let mut family = out.family(&name, Kind::Histogram, "Time until a request's turn, or until it gave up.");
    for (text, counts) in &schemas {
        family.histogram(&format!("execute=\"true\",{text}"), &counts.turned);
        family.histogram(&format!("execute=\"false\",{text}"), &counts.gave_up);
    }
    let name = full("request_execution_seconds");
    let mut family = out.family(&name, Kind::Histogram, "Time that a request had its seats.");
    schemas.iter().for_each(|(text, c)| family.histogram(&format!("{text},type=\"regular\""), &c.executed));
    let name = full("work_estimated_seats");
    let mut family = out.family(&name, Kind::Histogram, "Seats that requests were thought to need.");
    schemas.iter().for_each(|(text, counts)| family.histogram(text, &counts.widths));
    for (name, help, of) in LEVELS {
        let name = full(name);
        let mut family = out.family(&name, Kind::Gauge, help);
        for level in table.levels.values() {
            let pair = labels(&[("priority_level", &level.name)]);
            match of(&lock(&level.state).share) {
                Seats(seats) => family.value(&pair, seats),
                Part(part) => family.value(&pair, part),
            }
        }
    }
    let name = full("seat_fair_frac");
    out.family(&name, Kind::Gauge, "Part of their targets that levels within their limits have.")
        .value("", fair);
}
