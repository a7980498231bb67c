//! Runs controllers: `observe -> plan -> act` for each key that a watch, a recheck or a failure brings.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use meta::ObjectKey;
use tokio::{
    task::{Id, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Acted, Actor, Backoff, Context, Control, ControllerMetrics, Error, MetricsSnapshot, Reconciler, Result,
    error::text,
    expect::{Expectation, STALE_MAX, all_met},
    queue::{Later, Queue},
    watches::Enqueue,
};

/// Failures in a row after which what is not there yet is told of: some forty seconds, which is longer than anybody's
/// look at discovery takes to come.
const PATIENCE: u32 = 12;
/// How long work in progress may take to end after shutdown was asked for.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A key is looked at again no sooner than after so many times what looking took: what changes thousands of times while
/// it is looked at, as the owner of as many pods does, takes a quarter of a processor and not all of it.
const REST_FACTOR: u32 = 3;
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(1);
/// What took less needs none.
const REST_FROM: Duration = Duration::from_millis(2);

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A controller ready to run, its type forgotten.
pub struct Controller {
    control: Control,
    start: Box<dyn FnOnce(Context, CancellationToken) -> Running + Send>,
    client: Option<kube::Client>,
}

impl Controller {
    /// A controller driven by its reconciler.
    pub fn new<R: Reconciler>(reconciler: R) -> Self {
        let (queue, metrics) = (Arc::new(Queue::default()), Arc::new(ControllerMetrics::default()));
        let driver = Driver {
            reconciler: Arc::new(reconciler),
            actor: Arc::new(Actor::new(R::NAME)),
            queue: Arc::clone(&queue),
            metrics: Arc::clone(&metrics),
        };
        let control = Control { name: R::NAME, queue: Some(queue), metrics };
        Self { control, start: Box::new(move |cx, stop| Box::pin(driver.run(cx, stop))), client: None }
    }

    /// A loop that the driver's shape does not fit. It must end soon after the token is cancelled.
    pub fn custom<F>(
        name: &'static str,
        start: impl FnOnce(Context, CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let control = Control { name, queue: None, metrics: Arc::default() };
        Self { control, start: Box::new(move |cx, stop| Box::pin(start(cx, stop))), client: None }
    }

    /// The same with a client of its own, which it writes with and asks what only a live answer will do for. Caches
    /// are those of the process.
    pub fn acting_as(mut self, client: kube::Client) -> Self {
        self.client = Some(client);
        self
    }

    /// [`Reconciler::NAME`].
    pub fn name(&self) -> &'static str {
        self.control.name
    }

    /// A hand on it while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// A function that gives the counters now; take it before [`run`] takes the controller.
    pub fn metrics(&self) -> impl Fn() -> MetricsSnapshot + Send + Sync + use<> {
        let control = self.control();
        move || control.metrics()
    }
}

/// Runs the controllers until `stop` is cancelled, then lets work in progress end (5 s at most) and
/// returns. The caches of `cx` are left running: they belong to whoever made `cx`.
///
/// # Panics
///
/// With the panic of a controller itself; what a reconciliation of one key panics with is an error of that key.
pub async fn run(controllers: Vec<Controller>, cx: Context, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    for controller in controllers {
        tracing::debug!(controller = controller.name(), "starting");
        let mut cx = cx.clone();
        if let Some(client) = controller.client {
            cx.client = client;
        }
        tasks.spawn((controller.start)(cx, stop.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        // Nobody else does its work: whoever runs controllers has to know.
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Driver<R> {
    reconciler: Arc<R>,
    actor: Arc<Actor>,
    queue: Arc<Queue>,
    metrics: Arc<ControllerMetrics>,
}

/// What is remembered of a key between two plans.
#[derive(Default)]
struct Memory {
    failures: u32,
    expectations: Vec<Expectation>,
}

/// What one reconciliation came to.
struct Outcome {
    result: Result<()>,
    recheck_after: Option<Duration>,
    expectations: Vec<Expectation>,
    /// How long the processor was busy with looking and planning.
    looked: Duration,
}

impl<R: Reconciler> Driver<R> {
    async fn run(self, cx: Context, stop: CancellationToken) {
        let queue = Arc::clone(&self.queue);
        let enqueue: Enqueue = Arc::new(move |key| queue.add(key));
        let watches = self.reconciler.watches();
        tokio::select! {
            () = watches.start(&cx.stores, &enqueue) => {}
            () = stop.cancelled() => return,
        }
        let mut jobs: JoinSet<Outcome> = JoinSet::new();
        let mut active: HashMap<Id, ObjectKey> = HashMap::new();
        let mut memory: HashMap<ObjectKey, Memory> = HashMap::new();
        let (mut later, mut resting) = (Later::default(), Later::default());
        loop {
            while active.len() < R::CONCURRENCY
                && let Some(key) = self.queue.take()
            {
                let before =
                    memory.get_mut(&key).map(|m| std::mem::take(&mut m.expectations)).unwrap_or_default();
                let job = self.reconcile(cx.clone(), key.clone(), before);
                active.insert(jobs.spawn(job).id(), key);
            }
            self.gauge(&active);
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.queue.changed(), if active.len() < R::CONCURRENCY => {}
                key = later.next() => self.queue.add(key),
                key = resting.next() => self.queue.rested(&key),
                Some(ended) = jobs.join_next_with_id() => {
                    let (id, outcome) = match ended {
                        Ok((id, outcome)) => (id, outcome),
                        Err(error) => (error.id(), Outcome::panicked(&error)),
                    };
                    if let Some(key) = active.remove(&id) {
                        self.release(&key, outcome.looked, &mut resting);
                        self.settle(&cx, key, outcome, &mut memory, &mut later);
                    }
                }
            }
        }
        self.drain(jobs).await;
    }

    async fn drain(&self, mut jobs: JoinSet<Outcome>) {
        let all = async { while jobs.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX, all).await.is_err() {
            tracing::warn!(controller = R::NAME, left = jobs.len(), "work did not end in time, dropping it");
            jobs.shutdown().await;
        }
        self.gauge(&HashMap::new());
    }

    fn gauge(&self, active: &HashMap<Id, ObjectKey>) {
        self.metrics.active.store(active.len() as u64, Relaxed);
        self.metrics.queued.store(self.queue.len() as u64, Relaxed);
    }

    /// One reconciliation, as a task that owns all it needs.
    fn reconcile(
        &self,
        cx: Context,
        key: ObjectKey,
        before: Vec<Expectation>,
    ) -> impl Future<Output = Outcome> + Send + use<R> {
        let (reconciler, actor) = (Arc::clone(&self.reconciler), Arc::clone(&self.actor));
        let metrics = Arc::clone(&self.metrics);
        async move {
            if !all_met(&before).await {
                metrics.stale_waits.fetch_add(1, Relaxed);
                tracing::warn!(controller = R::NAME, %key, after = ?STALE_MAX, "cache did not show an earlier write, planning without it");
            }
            let began = Instant::now();
            let outcome = attempt(&*reconciler, &actor, &metrics, &cx, &key).await;
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            metrics.busy_us.fetch_add(took, Relaxed);
            outcome
        }
    }

    /// Lets a key be taken again, at once or after its rest.
    fn release(&self, key: &ObjectKey, looked: Duration, resting: &mut Later) {
        if looked < REST_FROM {
            self.queue.done(key);
        } else {
            self.queue.done_resting(key);
            resting.put(key.clone(), REST_MAX.min(looked * REST_FACTOR));
        }
    }

    fn settle(
        &self,
        cx: &Context,
        key: ObjectKey,
        outcome: Outcome,
        memory: &mut HashMap<ObjectKey, Memory>,
        later: &mut Later,
    ) {
        let Outcome { result, recheck_after, expectations, looked: _ } = outcome;
        self.metrics.reconciles.fetch_add(1, Relaxed);
        let mut entry = memory.remove(&key).unwrap_or_default();
        entry.expectations = expectations;
        let again = match result {
            Ok(()) => {
                entry.failures = 0;
                recheck_after
            }
            Err(error) => self.failed(cx, &key, &error, &mut entry),
        };
        match again {
            Some(wait) => later.put(key.clone(), wait),
            None => later.drop(&key),
        }
        if entry.failures > 0 || !entry.expectations.is_empty() {
            memory.insert(key, entry);
        }
    }

    /// When to try again.
    fn failed(&self, cx: &Context, key: &ObjectKey, error: &Error, entry: &mut Memory) -> Option<Duration> {
        let text = text(error);
        if error.is_terminal() {
            if error.is_namespace_terminating() {
                tracing::debug!(controller = R::NAME, %key, error = text, "left to the end of its namespace");
            } else {
                tracing::info!(controller = R::NAME, %key, error = text, "rejected until it changes");
            }
            return None;
        }
        entry.failures = entry.failures.saturating_add(1);
        self.queue.retried();
        let wait = Backoff::KEY.after(entry.failures, &*cx.random);
        if error.is_conflict() {
            self.metrics.conflicts.fetch_add(1, Relaxed);
            tracing::debug!(controller = R::NAME, %key, error = text, ?wait, "somebody wrote first, trying again");
        } else if matches!(error, Error::NotYet(_)) && entry.failures < PATIENCE {
            tracing::debug!(controller = R::NAME, %key, error = text, ?wait, "not there yet, trying again");
        } else {
            self.metrics.errors.fetch_add(1, Relaxed);
            tracing::warn!(controller = R::NAME, %key, error = text, failures = entry.failures, ?wait, "failed, trying again");
        }
        Some(wait)
    }
}

/// Looks, plans and acts, once.
async fn attempt<R: Reconciler>(
    reconciler: &R,
    actor: &Actor,
    metrics: &ControllerMetrics,
    cx: &Context,
    key: &ObjectKey,
) -> Outcome {
    let (observed, mut looked) = timed(reconciler.observe(cx, key)).await;
    let world = match observed {
        Ok(Some(world)) => world,
        Ok(None) => return Outcome { looked, ..Outcome::of(Ok(())) },
        Err(error) => return Outcome { looked, ..Outcome::of(Err(error)) },
    };
    let began = Instant::now();
    let plan = reconciler.plan(&world, cx.clock.now());
    looked += began.elapsed();
    let mut acted = actor.act(cx, &plan).await;
    if let Err(error) = &acted.result
        && !error.is_namespace_terminating()
    {
        let report = reconciler.failed(&world, error, cx.clock.now());
        let reported = actor.act(cx, &report).await;
        acted.writes += reported.writes;
        acted.expectations.extend(reported.expectations);
        if let Err(error) = reported.result {
            tracing::debug!(controller = R::NAME, %key, error = text(&error), "cannot report the failure");
        }
    }
    metrics.writes.fetch_add(acted.writes, Relaxed);
    let Acted { result, expectations, .. } = acted;
    Outcome { result, recheck_after: plan.recheck_after, expectations, looked }
}

/// What it came to, and how long the processor was at it: waiting does not count.
async fn timed<F: Future>(future: F) -> (F::Output, Duration) {
    let (mut future, mut busy) = (pin!(future), Duration::ZERO);
    let output = poll_fn(|cx| {
        let began = Instant::now();
        let polled = future.as_mut().poll(cx);
        busy += began.elapsed();
        polled
    })
    .await;
    (output, busy)
}

impl Outcome {
    fn of(result: Result<()>) -> Self {
        Self { result, recheck_after: None, expectations: Vec::new(), looked: Duration::ZERO }
    }

    fn panicked(error: &tokio::task::JoinError) -> Self {
        Self::of(Err(Error::Panicked(error.to_string())))
    }
}
