//! Priority and fairness: which requests run now, which wait, which are refused (KEP-1040).
//!
//! Guarantees: a request has at most one place, and gives it back however it ends; requests of one priority
//! level take seats of another only as far as that lends them and has not used them lately, so what floods one leaves
//! the others what they need; exempt requests never wait. Where nothing waits, a request costs one classification and
//! one short lock. Levels and schemas are read from the objects of the cluster, anew when one changed; without any,
//! everything but `system:masters` shares one level. Seats are lent and borrowed when one of those changed, and every
//! ten seconds while [`Flow::keep`] runs.

mod borrow;
mod counts;
mod dangling;
mod queues;
mod schema;

use std::{
    collections::{BTreeMap, HashMap},
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
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval_at},
};

pub(crate) use schema::{Asks, On};

use crate::{
    cache::{Cache, Kind},
    rest::Rest,
};
use borrow::{PERIOD, Range, Share};
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
    began: Instant,
    table: ArcSwap<Table>,
    building: Mutex<()>,
    /// The part of their targets that levels within limits have, as bits of an `f64`.
    fair: AtomicU64,
}

/// All schemas by precedence, and their levels.
#[derive(Default)]
struct Table {
    stamp: Option<u64>,
    schemas: Vec<Arc<Schema>>,
    levels: BTreeMap<String, Arc<Level>>,
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
    /// Most seats of one request.
    width_max: u64,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Of an exempt level, with seats without end.
    queues: Queues,
    /// Those who wait, by number.
    wake: HashMap<u64, oneshot::Sender<()>>,
    share: Share,
    /// When the flow began, from which `share` counts time.
    began: Instant,
}

/// Where a request was put; holds its seats until it is dropped.
pub(crate) struct Place {
    schema: Arc<Schema>,
    seat: Seat,
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
            began: Instant::now(),
            table: ArcSwap::default(),
            building: Mutex::default(),
            fair: AtomicU64::new(0),
        }
    }

    /// Seats of all levels together.
    pub(crate) fn seats(&self) -> u64 {
        self.seats
    }

    /// Does what has to be done whoever asks for what: seats are lent each [`PERIOD`], and flow schemas say whether their
    /// level is there. Never ends; to be run once.
    pub(crate) async fn keep(&self, rest: &Rest) {
        let lend = async {
            let mut every = interval_at(Instant::now() + PERIOD, PERIOD);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                every.tick().await;
                self.adjust();
            }
        };
        tokio::select! {
            () = lend => {}
            () = dangling::follow(rest) => {}
        }
    }

    /// Shares the seats out anew, by what the levels wanted since it was last done.
    fn adjust(&self) {
        let table = self.table();
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        table.adjust(self);
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
        let (mut seat, mut turn) = {
            let state = schema.level.state.clone();
            let mut held = lock(&state);
            let width = objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, schema.level.width_max);
            let counts = &schema.counts;
            counts.widths.observe(width);
            let offered = held.queues.offer(schema.matcher.flow(asks), width);
            held.note();
            let refused = match offered {
                Offer::Runs { width } => {
                    drop(held);
                    counts.turned.observe(0);
                    return Ok(Place::new(schema, Seat { state, id: None, width }));
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
        Ok(Place::new(schema, seat))
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
        let table = Arc::new(self.build(stamp, read(&self.schemas), read(&self.levels), &old));
        table.adjust(self);
        self.table.store(table.clone());
        table
    }

    /// What `/metrics` says of it.
    pub(crate) fn expose(&self, out: &mut Exposition) {
        counts::expose(&self.table(), f64::from_bits(self.fair.load(Ordering::Relaxed)), out);
    }

    fn build(&self, stamp: u64, schemas: Vec<Object>, levels: Vec<Object>, old: &Table) -> Table {
        let (mandatory_levels, mandatory_schemas): (Vec<Object>, Vec<Object>) =
            resource::flow_control::mandatory().into_iter().partition(|object| object.kind() != "FlowSchema");
        let by_name: BTreeMap<String, Object> = mandatory_levels
            .into_iter()
            .chain(levels)
            .map(|level| (level.name().to_owned(), level))
            .collect();
        let shares: u64 = by_name.values().map(shares).sum();
        let mut table = Table { stamp: Some(stamp), ..Table::default() };
        for (name, object) in by_name {
            let before = old.levels.get(&name).map(|level| level.state.clone());
            let level = self.level(&object, shares, before);
            table.levels.insert(name, Arc::new(level));
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

    /// A level as its object has it, of all shares there are; what it has `before` it keeps until seats are adjusted.
    fn level(&self, object: &Object, shares_of_all: u64, before: Option<Arc<Mutex<State>>>) -> Level {
        let exempt = is_exempt(object);
        let percent = |field| member(object, field).and_then(Value::as_u64);
        let nominal = (self.seats * shares(object)).div_ceil(shares_of_all.max(1));
        let (lendable, borrowing) =
            (percent("lendablePercent").unwrap_or(0), percent("borrowingLimitPercent"));
        let range = Range::new(nominal, lendable, borrowing, self.seats);
        let sizes = sizes(object);
        let state = before.unwrap_or_else(|| {
            let share = Share::new(exempt, range, self.began.elapsed());
            let (queues, wake) = (Queues::new(sizes), HashMap::new());
            Arc::new(Mutex::new(State { queues, wake, share, began: self.began }))
        });
        let mut held = lock(&state);
        (held.share.exempt, held.share.range) = (exempt, range);
        held.queues.resize(sizes);
        held.seat();
        drop(held);
        let uid = object.str(&["metadata", "uid"]).unwrap_or_default().to_owned();
        Level { name: object.name().to_owned(), uid, width_max: widest(nominal, sizes), state }
    }
}

impl Table {
    /// Ends a period: every level has the seats that its demand gives it, and who fits now has its turn.
    fn adjust(&self, flow: &Flow) {
        let now = flow.began.elapsed();
        let levels: Vec<&Arc<Level>> = self.levels.values().collect();
        let wishes: Vec<_> = levels.iter().map(|level| lock(&level.state).share.observe(now)).collect();
        let (seats, fair) = borrow::adjust(&wishes);
        flow.fair.store(fair.to_bits(), Ordering::Relaxed);
        for (level, seats) in levels.into_iter().zip(seats) {
            let mut held = lock(&level.state);
            held.share.current = seats;
            held.seat();
        }
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

/// A field of what the level's type has.
fn member<'a>(level: &'a Object, field: &str) -> Option<&'a Value> {
    level.get(&["spec", if is_exempt(level) { "exempt" } else { "limited" }, field])
}

fn shares(level: &Object) -> u64 {
    let unset = if is_exempt(level) { 0 } else { 30 };
    member(level, "nominalConcurrencyShares").and_then(Value::as_u64).unwrap_or(unset)
}

fn is_exempt(level: &Object) -> bool {
    level.str(&["spec", "type"]) == Some("Exempt")
}

/// The queues of a level; its seats are the share's to say.
fn sizes(level: &Object) -> Limits {
    let response = member(level, "limitResponse");
    let queuing = response.filter(|response| response.get("type").is_some_and(|kind| kind == "Queue"));
    let number = |field: &str, unset: u64| {
        let number = queuing.and_then(|response| response.get("queuing")?.get(field)?.as_u64());
        usize::try_from(number.unwrap_or(if queuing.is_some() { unset } else { 0 })).unwrap_or(0)
    };
    Limits {
        seats: 1,
        queues: number("queues", 64),
        hand: number("handSize", 8),
        length_max: number("queueLengthLimit", 50),
    }
}

/// Most seats of one request: in a level with queues, a part of them (upstream `priorityLevelMaxSeatsPercent`), and no
/// more than lets every queue of a hand have one that wide.
fn widest(nominal: u64, sizes: Limits) -> u64 {
    let hand = u64::try_from(sizes.hand).unwrap_or(u64::MAX);
    match sizes.queues {
        0 => WIDTH_MAX,
        _ => (nominal * WIDTH_PERCENT_MAX).div_ceil(100).min(nominal / hand.max(1)).clamp(1, WIDTH_MAX),
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Gives the level the seats that are its own for now, and whose turn it is therefore a seat.
    fn seat(&mut self) {
        let seats = if self.share.exempt { u64::MAX } else { self.share.current };
        self.queues.resize(Limits { seats, ..self.queues.limits() });
        self.settle();
    }

    /// Notes how many seats are wanted, whenever that changed.
    fn note(&mut self) {
        self.share.demand.set(self.began.elapsed(), self.queues.demand());
    }

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

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        match self.id {
            Some(id) if state.queues.cancel(id) => drop(state.wake.remove(&id)),
            _ => state.queues.release(self.width),
        }
        state.note();
        state.settle();
    }
}

impl Place {
    fn new(schema: Arc<Schema>, seat: Seat) -> Self {
        schema.counts.dispatched.fetch_add(1, Ordering::Relaxed);
        schema.counts.executing.fetch_add(1, Ordering::Relaxed);
        schema.counts.executing_seats.fetch_add(seat.width, Ordering::Relaxed);
        Self { schema, seat, since: Instant::now() }
    }

    /// Says in the answer's headers who decided.
    pub(crate) fn note(&self, headers: &mut HeaderMap) {
        self.schema.note(headers);
    }

    #[cfg(test)]
    pub(crate) fn width(&self) -> u64 {
        self.seat.width
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &self.schema.counts;
        counts.executing.fetch_sub(1, Ordering::Relaxed);
        counts.executing_seats.fetch_sub(self.seat.width, Ordering::Relaxed);
        counts.executed.took(self.since.elapsed());
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
