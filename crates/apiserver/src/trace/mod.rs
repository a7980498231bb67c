//! Traces of requests in OpenTelemetry's form (KEP-647), off unless a file says otherwise.
//!
//! Guarantees: without a configuration a request pays one comparison; a request that is not sampled pays one draw;
//! what is sampled waits in a bounded queue and is lost, and counted, when nobody takes it: no request waits for a
//! collector. A trace context that comes with a request (W3C `traceparent`) is followed for those who may do
//! anything, and linked to for everyone else, so that no stranger decides what is traced. Webhooks and other servers
//! are told of the span that asks them. The few messages of OTLP are written here: its crates bring a runtime, a
//! registry for the whole process and a second gRPC stack.

mod config;
mod context;
mod export;
mod otlp;

use std::{
    cell::RefCell,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use meta::{Clock, Random};
use resource::User;
use tokio::{sync::mpsc, time::Instant};

pub use config::{TracingConfiguration, TracingConfigurationError};
pub use export::Exporter;

use context::SpanContext;

/// The W3C header.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Groups whose trace contexts are followed (upstream `notSystemPrivilegedGroup`).
const TRUSTED: [&str; 2] = ["system:masters", "system:monitoring"];
/// Spans that wait to be taken, as upstream's batch processor.
const WAITING_MAX: usize = 2_048;
/// Spans of one request; a request that asks a hundred webhooks is not worth more.
const SPANS_MAX: usize = 128;

/// Which end of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpanKind {
    Internal,
    Server,
    Client,
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    context: SpanContext,
    parent: Option<[u8; 8]>,
    /// A trace that led to this one without being the same.
    link: Option<SpanContext>,
    name: String,
    kind: SpanKind,
    /// Nanoseconds since 1970.
    began: u64,
    ended: u64,
    attributes: Vec<(&'static str, Value)>,
    failed: bool,
}

/// What decides which requests are traced, and takes their spans. Clones are one.
#[derive(Clone)]
pub struct Tracing(Arc<Inner>);

struct Inner {
    rate_per_million: u64,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    spans: mpsc::Sender<Vec<Span>>,
    lost: std::sync::atomic::AtomicU64,
}

impl Tracing {
    /// Samples as the configuration says; the exporter has to be run for anything to arrive.
    pub fn new(
        configuration: &TracingConfiguration,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> (Self, Exporter) {
        let (spans, waiting) = mpsc::channel(WAITING_MAX);
        let rate_per_million = u64::from(configuration.sampling_rate_per_million);
        let lost = std::sync::atomic::AtomicU64::new(0);
        let inner = Arc::new(Inner { rate_per_million, clock, random, spans, lost });
        let instance = inner.random.uuid();
        (Self(inner), Exporter::new(configuration.endpoint.clone(), instance, waiting))
    }

    /// How many requests were sampled whose spans nobody took.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.clock.now().as_nanosecond()).unwrap_or(0)
    }

    fn id<const N: usize>(&self) -> [u8; N] {
        let mut id = [0; N];
        for chunk in id.chunks_mut(4) {
            let drawn = self.0.random.below(1 << 32).to_be_bytes();
            chunk.iter_mut().zip(drawn.iter().rev()).for_each(|(to, from)| *to = *from);
        }
        // Nothing but zeros is no id.
        if let Some(last) = id.last_mut() {
            *last |= 1;
        }
        id
    }

    /// Whether a request of this user is traced, and as part of what.
    fn decide(
        &self,
        user: &User,
        headers: &HeaderMap,
    ) -> Option<(SpanContext, Option<[u8; 8]>, Option<SpanContext>)> {
        let given = headers.get(TRACEPARENT).and_then(|value| SpanContext::parse(value.to_str().ok()?));
        let trusted = user.groups.iter().any(|group| TRUSTED.contains(&group.as_str()));
        if let Some(parent) = given.filter(|_| trusted) {
            let own = SpanContext { trace: parent.trace, span: self.id(), sampled: true };
            return parent.sampled.then_some((own, Some(parent.span), None));
        }
        let sampled = self.0.random.below(1_000_000) < self.0.rate_per_million;
        sampled.then(|| (SpanContext { trace: self.id(), span: self.id(), sampled: true }, None, given))
    }
}

/// The trace of the request that this task answers.
struct Active {
    tracing: Tracing,
    began: (u64, Instant),
    open: OnceLock<Open>,
    ended: Mutex<Vec<Span>>,
}

struct Open {
    context: SpanContext,
    parent: Option<[u8; 8]>,
    link: Option<SpanContext>,
}

impl Active {
    fn at(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began.1);
        self.began.0 + u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
    }

    fn keep(&self, span: Span) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() < SPANS_MAX {
            ended.push(span);
        }
    }
}

tokio::task_local! {
    static ACTIVE: Arc<Active>;
}

/// A request that may come to be traced.
pub(crate) struct Request(Arc<Active>);

impl Request {
    pub(crate) fn begin(tracing: &Tracing) -> Self {
        let began = (tracing.now(), Instant::now());
        let (open, ended) = (OnceLock::new(), Mutex::default());
        Self(Arc::new(Active { tracing: tracing.clone(), began, open, ended }))
    }

    /// Runs what answers the request; what it does is part of its trace.
    pub(crate) async fn run<F: Future>(&self, work: F) -> F::Output {
        ACTIVE.scope(self.0.clone(), work).await
    }

    /// Ends the request's own span and hands everything over.
    pub(crate) fn end(self, name: String, attributes: Vec<(&'static str, Value)>, failed: bool) {
        let active = self.0;
        let Some(Open { context, parent, link }) = active.open.get() else { return };
        let span = Span {
            context: *context,
            parent: *parent,
            link: *link,
            name,
            kind: SpanKind::Server,
            began: active.began.0,
            ended: active.at(Instant::now()),
            attributes,
            failed,
        };
        let mut spans = std::mem::take(&mut *active.ended.lock().unwrap_or_else(PoisonError::into_inner));
        spans.push(span);
        if active.tracing.0.spans.try_send(spans).is_err() {
            active.tracing.0.lost.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// Decides, once it is known who asks, whether the request of this task is traced.
pub(crate) fn decide(user: &User, headers: &HeaderMap) {
    // Without a trace there is nothing to decide.
    let _ = ACTIVE.try_with(|active| {
        if let Some((context, parent, link)) = active.tracing.decide(user, headers) {
            // Decided once: a request has one user.
            let _ = active.open.set(Open { context, parent, link });
        }
    });
}

/// What whoever is asked for the request of this task is told: the header, and the span of the request.
pub(crate) fn header() -> Option<(HeaderName, HeaderValue)> {
    let told = ACTIVE.try_with(|active| active.open.get().map(|open| open.context.to_string()));
    Some((TRACEPARENT, HeaderValue::from_str(&told.ok()??).ok()?))
}

/// A part of a request; ends when dropped.
pub(crate) struct Part {
    active: Arc<Active>,
    context: SpanContext,
    parent: [u8; 8],
    name: &'static str,
    kind: SpanKind,
    began: Instant,
    attributes: RefCell<Vec<(&'static str, Value)>>,
    failed: std::cell::Cell<bool>,
}

/// Begins a part of the request of this task; nothing when it is not traced.
pub(crate) fn part(name: &'static str, kind: SpanKind) -> Option<Part> {
    let active = ACTIVE.try_with(Arc::clone).ok()?;
    let open = active.open.get()?;
    let (trace, parent) = (open.context.trace, open.context.span);
    let context = SpanContext { trace, span: active.tracing.id(), sampled: true };
    Some(Part {
        active,
        context,
        parent,
        name,
        kind,
        began: Instant::now(),
        attributes: RefCell::default(),
        failed: std::cell::Cell::new(false),
    })
}

impl Part {
    pub(crate) fn note(&self, name: &'static str, value: impl Into<String>) {
        self.attributes.borrow_mut().push((name, Value::Text(value.into())));
    }

    pub(crate) fn failed(&self) {
        self.failed.set(true);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let span = Span {
            context: self.context,
            parent: Some(self.parent),
            link: None,
            name: self.name.to_owned(),
            kind: self.kind,
            began: self.active.at(self.began),
            ended: self.active.at(Instant::now()),
            attributes: self.attributes.take(),
            failed: self.failed.get(),
        };
        self.active.keep(span);
    }
}

/// How long the exporter may take for what is left when the server stops.
const LAST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
