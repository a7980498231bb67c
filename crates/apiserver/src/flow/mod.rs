//! Priority and fairness: which requests run now, which wait, which are refused (KEP-1040).
//!
//! Guarantees: a request has at most one place, and gives it back however it ends; requests of one priority
//! level never take seats of another, so what floods one leaves the others as they are; exempt requests never
//! wait. Where nothing waits, a request costs one classification and one short lock. Levels and schemas are
//! read from the objects of the cluster, anew when one changed; without any, everything but
//! `system:masters` shares one level.

mod counts;
mod queues;
mod schema;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use meta::{GroupResource, Object, Reason, Status, metrics::Exposition};
use serde_json::Value;
use tokio::{sync::oneshot, time::Instant};

pub(crate) use schema::{Asks, On};

use crate::cache::{Cache, Kind};
use counts::Counts;
use queues::{Limits, Offer, Queues};
use schema::Matcher;

/// Seats of all levels together, as upstream's 400 reading and 200 mutating requests.
pub(crate) const SEATS: u64 = 600;
/// Objects of a list that one seat stands for.
const OBJECTS_PER_SEAT: u64 = 100;
/// Most seats of one request.
const WIDTH_MAX: u64 = 10;
/// Most of a level that one request may take, in percent.
const WIDTH_PERCENT_MAX: u64 = 15;
/// How long a request may wait for its turn: a quarter of the request time-out, as upstream.
const WAIT: Duration = Duration::from_secs(15);
/// When a refused client may come again, in seconds.
const RETRY_AFTER: u32 = 1;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The gate that requests pass.
pub(crate) struct Flow {
    schemas: Arc<Kind>,
    levels: Arc<Kind>,
    seats: u64,
    table: ArcSwap<Table>,
    building: Mutex<()>,
}

/// All schemas by precedence, and their levels.
#[derive(Default)]
struct Table {
    stamp: Option<u64>,
    schemas: Vec<Arc<Schema>>,
    levels: HashMap<String, Arc<Level>>,
}

/// A schema, where its requests go, and what became of them.
struct Schema {
    matcher: Matcher,
    level: Arc<Level>,
    counts: Arc<Counts>,
}

struct Level {
    name: String,
    uid: String,
    /// `None` for a level whose requests never wait.
    state: Option<Arc<Mutex<State>>>,
}

struct State {
    queues: Queues,
    /// Those who wait, by number.
    wake: HashMap<u64, oneshot::Sender<()>>,
}

/// Where a request was put; holds its seats until it is dropped.
pub(crate) struct Place {
    schema: Arc<Schema>,
    seat: Option<Seat>,
    since: Instant,
}

struct Seat {
    state: Arc<Mutex<State>>,
    /// Its number while, or since, it had to wait.
    id: Option<u64>,
    width: u64,
}

/// A refusal, and by whom.
pub(crate) struct Refused {
    schema: Option<Arc<Schema>>,
    pub(crate) status: Status,
}

impl Flow {
    pub(crate) fn new(cache: &Cache, seats: u64) -> Self {
        let kind = |plural| cache.kind(&GroupResource::new(GROUP, plural));
        Self {
            schemas: kind("flowschemas"),
            levels: kind("prioritylevelconfigurations"),
            seats,
            table: ArcSwap::default(),
            building: Mutex::default(),
        }
    }

    /// Lets the request in, makes it wait for its turn, or refuses it. `objects` is how many it looks at.
    pub(crate) async fn admit(&self, asks: &Asks<'_>, objects: u64) -> Result<Place, Box<Refused>> {
        let table = self.table();
        let found = table.schemas.iter().find(|schema| schema.matcher.matches(asks));
        // The last is for whom none is meant.
        let Some(schema) = found.or(table.schemas.last()).cloned() else {
            let status = Status::internal("there is no flow schema, not even the mandatory ones");
            return Err(Box::new(Refused { schema: None, status }));
        };
        drop(table);
        let Some(state) = schema.level.state.clone() else {
            return Ok(Place::new(schema, None));
        };
        let (mut seat, mut turn) = {
            let mut held = lock(&state);
            let widest = (held.queues.limits().seats * WIDTH_PERCENT_MAX / 100).clamp(1, WIDTH_MAX);
            let width = objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, widest);
            let counts = &schema.counts;
            counts.widths.observe(width);
            let refused = match held.queues.offer(schema.matcher.flow(asks), width) {
                Offer::Runs { width } => {
                    drop(held);
                    counts.turned.observe(0);
                    return Ok(Place::new(schema, Some(Seat { state, id: None, width })));
                }
                Offer::Waits { id, width } => {
                    let (wake, turn) = oneshot::channel();
                    held.wake.insert(id, wake);
                    drop(held);
                    Ok((Seat { state, id: Some(id), width }, turn))
                }
                Offer::NoQueue => Err(&counts.no_queue),
                Offer::Full => Err(&counts.full),
            };
            match refused {
                Ok(waits) => waits,
                Err(count) => {
                    count.fetch_add(1, Ordering::Relaxed);
                    return Err(Refused::by(&schema));
                }
            }
        };
        let counts = schema.counts.clone();
        counts.waited.fetch_add(1, Ordering::Relaxed);
        let waiting = (Gauge::up(&counts.waiting, 1), Gauge::up(&counts.waiting_seats, seat.width));
        let since = Instant::now();
        let came = tokio::time::timeout(WAIT, &mut turn).await;
        drop(waiting);
        if came.is_err() {
            counts.gave_up.took(since.elapsed());
            counts.timed_out.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::by(&schema));
        }
        counts.turned.took(since.elapsed());
        seat.id = None;
        Ok(Place::new(schema, Some(seat)))
    }

    fn table(&self) -> Arc<Table> {
        let stamp = || self.schemas.snapshot().revision.0 + self.levels.snapshot().revision.0;
        let table = self.table.load_full();
        if table.stamp == Some(stamp()) {
            return table;
        }
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, stamp) = (self.table.load_full(), stamp());
        if old.stamp == Some(stamp) {
            return old;
        }
        let table = Arc::new(Table::build(stamp, read(&self.schemas), read(&self.levels), self.seats, &old));
        self.table.store(table.clone());
        table
    }

    /// What `/metrics` says of it.
    pub(crate) fn expose(&self, out: &mut Exposition) {
        counts::expose(&self.table(), out);
    }
}

impl Table {
    fn build(stamp: u64, schemas: Vec<Object>, levels: Vec<Object>, seats: u64, old: &Self) -> Self {
        let (mandatory_levels, mandatory_schemas): (Vec<Object>, Vec<Object>) =
            resource::flow_control::mandatory().into_iter().partition(|object| object.kind() != "FlowSchema");
        let mut by_name: HashMap<String, Object> = mandatory_levels
            .into_iter()
            .chain(levels)
            .map(|level| (level.name().to_owned(), level))
            .collect();
        let shares: u64 = by_name.values().map(shares).sum();
        let mut table = Self { stamp: Some(stamp), ..Self::default() };
        for (name, object) in by_name.drain() {
            let limits = limits(&object, seats, shares);
            let before = old.levels.get(&name).and_then(|level| level.state.clone());
            let state = limits.map(|limits| match before {
                Some(state) => {
                    let mut held = lock(&state);
                    held.queues.resize(limits);
                    held.settle();
                    drop(held);
                    state
                }
                None => Arc::new(Mutex::new(State { queues: Queues::new(limits), wake: HashMap::new() })),
            });
            let uid = object.str(&["metadata", "uid"]).unwrap_or_default().to_owned();
            table.levels.insert(name.clone(), Arc::new(Level { name, uid, state }));
        }
        let mut matchers: HashMap<String, Matcher> = HashMap::new();
        for object in mandatory_schemas.iter().chain(&schemas) {
            matchers.insert(object.name().to_owned(), Matcher::read(object));
        }
        for matcher in matchers.into_values() {
            // One whose level is not there is dangling: as if it were not there itself.
            let Some(level) = table.levels.get(&matcher.level).cloned() else { continue };
            let same = |schema: &&Arc<Schema>| {
                schema.matcher.name == matcher.name && schema.level.name == level.name
            };
            let counts =
                old.schemas.iter().find(same).map(|schema| schema.counts.clone()).unwrap_or_default();
            table.schemas.push(Arc::new(Schema { matcher, level, counts }));
        }
        let order = |schema: &Arc<Schema>| {
            let Matcher { precedence, name, .. } = &schema.matcher;
            (*precedence, name == "catch-all", name.clone())
        };
        table.schemas.sort_by_key(order);
        table
    }
}

fn read(kind: &Kind) -> Vec<Object> {
    let entries = kind.snapshot();
    let read = |entry: &Arc<meta::Entry>| match entry.object() {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(%error, key = %entry.header.key, "stored flow control object is damaged, it is left out");
            None
        }
    };
    entries.range(None, None).filter_map(read).collect()
}

fn member<'a>(level: &'a Object, of: &str, field: &str) -> Option<&'a Value> {
    level.get(&["spec", of, field])
}

fn shares(level: &Object) -> u64 {
    let (of, unset) = if is_exempt(level) { ("exempt", 0) } else { ("limited", 30) };
    member(level, of, "nominalConcurrencyShares").and_then(Value::as_u64).unwrap_or(unset)
}

fn is_exempt(level: &Object) -> bool {
    level.str(&["spec", "type"]) == Some("Exempt")
}

/// The part of all seats that the level's shares come to, rounded up.
fn limits(level: &Object, seats: u64, all: u64) -> Option<Limits> {
    if is_exempt(level) {
        return None;
    }
    let response = member(level, "limited", "limitResponse");
    let queuing = response.filter(|response| response.get("type").is_some_and(|kind| kind == "Queue"));
    let number = |field: &str, unset: u64| {
        let number = queuing.and_then(|response| response.get("queuing")?.get(field)?.as_u64());
        usize::try_from(number.unwrap_or(if queuing.is_some() { unset } else { 0 })).unwrap_or(0)
    };
    Some(Limits {
        seats: (seats * shares(level)).div_ceil(all.max(1)).max(1),
        queues: number("queues", 64),
        hand: number("handSize", 8),
        length_max: number("queueLengthLimit", 50),
    })
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Wakes all whose turn it is. Who is gone gives its seats back when its place is dropped.
    fn settle(&mut self) {
        while let Some(id) = self.queues.dispatch() {
            if let Some(wake) = self.wake.remove(&id) {
                // One that is not there any more is about to give its seats back.
                let _ = wake.send(());
            }
        }
    }
}

impl Seat {
    fn width(&self) -> u64 {
        self.width
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        match self.id {
            Some(id) if state.queues.cancel(id) => drop(state.wake.remove(&id)),
            _ => state.queues.release(self.width),
        }
        state.settle();
    }
}

impl Place {
    fn new(schema: Arc<Schema>, seat: Option<Seat>) -> Self {
        schema.counts.dispatched.fetch_add(1, Ordering::Relaxed);
        schema.counts.executing.fetch_add(1, Ordering::Relaxed);
        schema.counts.executing_seats.fetch_add(seat.as_ref().map_or(1, Seat::width), Ordering::Relaxed);
        Self { schema, seat, since: Instant::now() }
    }

    /// Says in the answer's headers who decided.
    pub(crate) fn note(&self, headers: &mut HeaderMap) {
        self.schema.note(headers);
    }

    #[cfg(test)]
    pub(crate) fn width(&self) -> u64 {
        self.seat.as_ref().map_or(0, |seat| seat.width)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &self.schema.counts;
        counts.executing.fetch_sub(1, Ordering::Relaxed);
        counts.executing_seats.fetch_sub(self.seat.as_ref().map_or(1, Seat::width), Ordering::Relaxed);
        counts.executed.took(self.since.elapsed());
        drop(self.seat.take());
    }
}

impl Refused {
    fn by(schema: &Arc<Schema>) -> Box<Self> {
        let why = "too many requests, please try again later";
        let status = Status::new(429, Reason::TooManyRequests, why).retry_after(RETRY_AFTER);
        Box::new(Self { schema: Some(schema.clone()), status })
    }

    /// Says in the answer's headers who decided.
    pub(crate) fn note(&self, headers: &mut HeaderMap) {
        if let Some(schema) = &self.schema {
            schema.note(headers);
        }
    }
}

impl Schema {
    fn note(&self, headers: &mut HeaderMap) {
        for (name, uid) in [(SCHEMA_UID, &self.matcher.uid), (LEVEL_UID, &self.level.uid)] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                headers.insert(name, value);
            }
        }
    }
}

/// A number that is so much higher while this lives.
struct Gauge<'a>(&'a AtomicU64, u64);

impl<'a> Gauge<'a> {
    fn up(of: &'a AtomicU64, by: u64) -> Self {
        of.fetch_add(by, Ordering::Relaxed);
        Self(of, by)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
