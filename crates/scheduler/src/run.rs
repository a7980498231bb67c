//! Connects [`Core`] to an API server.
//!
//! Guarantees: nothing is decided before every watch has listed; at most [`Options::binds_max`] writes
//! are under way; on shutdown no new decision is made, writes under way are awaited, and events that
//! wait are written.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::Client;
use meta::{Clock, Random};
use reconcile::{CancellationToken, LeaseLock, LeaseOptions};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

use crate::{
    bind::{WriteError, bind, evict, forget_nomination, write_volumes},
    core::{Core, Step},
    desk::{Ask, Asks},
    notes::{Nomination, Notes, Writer},
    pod::PodInfo,
    preempt::Room,
    profile::Profile,
    queue::Backoff,
    watches::{KINDS, Signal, all},
};

/// Decisions made before events are looked at again: a few milliseconds' worth.
const DECISIONS_MAX: usize = 64;

/// The longest sleep without a reason.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// How a scheduler runs.
#[derive(Clone)]
pub struct Options {
    /// How pods are placed, by their `spec.schedulerName`.
    pub profiles: Vec<Profile>,
    /// How long failed pods wait.
    pub backoff: Backoff,
    /// Who reports events: upstream uses `NAME-HOST`.
    pub instance: String,
    /// Who we are in the election of a leader; `None` runs without one (the only scheduler there is).
    pub leader_elect: Option<String>,
    /// Questions to answer; `None` answers none.
    pub asks: Option<Asks>,
    /// Writes under way at a time; the API server commits those that arrive together as one.
    pub binds_max: usize,
    /// The time of day, for events and conditions.
    pub clock: Arc<dyn Clock>,
    /// Settles ties between equal nodes, and names events.
    pub random: Arc<dyn Random>,
}

impl Options {
    /// One profile, upstream's default; no election.
    pub fn new(instance: impl Into<String>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            profiles: vec![Profile::new(random.next())],
            backoff: Backoff::default(),
            leader_elect: None,
            asks: None,
            instance: instance.into(),
            binds_max: 64,
            clock,
            random,
        }
    }
}

/// What a task was about and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Volumes,
    Bind,
    Evict,
}

/// What was written.
#[derive(Debug)]
enum Done {
    Written,
    Evicted(Arc<Room>),
}

/// Schedules until `shutdown` completes. With an election, waits to be the leader first, and begins anew
/// when leadership was lost.
pub async fn run(client: Client, options: Options, shutdown: impl Future<Output = ()> + Send) {
    let Some(identity) = options.leader_elect.clone() else {
        return schedule(client, options, shutdown).await;
    };
    let lease = LeaseOptions::new("kube-system", "kube-scheduler", identity);
    let lock = LeaseLock::new(client.clone(), Arc::clone(&options.clock), lease);
    let stop = CancellationToken::new();
    let lead = async {
        let work = |leading: CancellationToken| {
            let (client, options) = (client.clone(), options.clone());
            async move { schedule(client, options, leading.cancelled()).await }
        };
        while !lock.lead(&stop, work).await {}
    };
    let end = async {
        shutdown.await;
        stop.cancel();
    };
    tokio::join!(lead, end);
}

async fn schedule(client: Client, options: Options, shutdown: impl Future<Output = ()> + Send) {
    let core = Core::with_backoff(options.profiles, options.backoff);
    let clock = Arc::clone(&options.clock);
    let random = Arc::clone(&options.random);
    let notes = Notes::start(Writer {
        client: client.clone(),
        clock: options.clock,
        random: options.random,
        instance: options.instance,
    });
    let binds_max = options.binds_max.max(1);
    let mut session = Session {
        core,
        notes,
        client,
        clock,
        random,
        asks: options.asks,
        start: Instant::now(),
        jobs: JoinSet::new(),
        about: HashMap::new(),
        binds_max,
    };
    session.serve(shutdown).await;
    while let Some(done) = session.jobs.join_next_with_id().await {
        session.finish(done);
    }
    session.notes.drain().await;
}

struct Session {
    core: Core,
    notes: Notes,
    client: Client,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    asks: Option<Asks>,
    start: Instant,
    jobs: JoinSet<Result<Done, WriteError>>,
    about: HashMap<Id, (Job, Arc<PodInfo>, Arc<str>)>,
    binds_max: usize,
}

impl Session {
    async fn serve(&mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut signals = std::pin::pin!(all(&self.client, &self.random));
        let mut synced = 0;
        let asks = self.asks.clone();
        loop {
            let more = synced == KINDS && self.decide_some();
            let wake_at = match self.core.next_at() {
                Some(at) if synced == KINDS => self.start + at,
                _ => Instant::now() + IDLE_MAX,
            };
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(done) = self.jobs.join_next_with_id() => self.finish(done),
                ask = question(asks.as_ref()), if synced == KINDS => ask.answer(&mut self.core),
                Some(signal) = signals.next() => match signal {
                    Signal::Change(change) => self.core.apply(self.start.elapsed(), change),
                    Signal::Synced => {
                        synced += 1;
                        if synced == KINDS {
                            tracing::info!(
                                nodes = self.core.snapshot().nodes(),
                                pods = self.core.snapshot().pods(),
                                "scheduler is ready",
                            );
                        }
                    }
                },
                () = std::future::ready(()), if more => {}
                () = tokio::time::sleep_until(wake_at), if self.has_room() => {}
            }
        }
    }

    fn has_room(&self) -> bool {
        self.jobs.len() < self.binds_max && self.notes.has_room()
    }

    /// Decides while there is room; returns whether there may be more to decide at once.
    fn decide_some(&mut self) -> bool {
        for _ in 0..DECISIONS_MAX {
            if !self.has_room() {
                return false;
            }
            let Some(step) = self.core.next(self.start.elapsed()) else { return false };
            self.carry_out(step);
        }
        true
    }

    fn carry_out(&mut self, step: Step) {
        let client = self.client.clone();
        match step {
            Step::Bind { pod, node } => {
                let (p, n) = (Arc::clone(&pod), Arc::clone(&node));
                let task =
                    self.jobs.spawn(async move { bind(&client, &p, &n).await.map(|()| Done::Written) });
                self.about.insert(task.id(), (Job::Bind, pod, node));
            }
            Step::WriteVolumes { pod, node, bindings } => {
                let n = Arc::clone(&node);
                let write = async move { write_volumes(&client, &n, &bindings).await };
                let task = self.jobs.spawn(async move { write.await.map(|()| Done::Written) });
                self.about.insert(task.id(), (Job::Volumes, pod, node));
            }
            Step::Tell { pod, why, remind } => {
                tracing::debug!(pod = %pod.key, %why, "pod fits nowhere");
                let nomination = if why.no_room { Nomination::Clear } else { Nomination::Keep };
                self.notes.unfit(pod, &why, remind, nomination);
            }
            Step::Preempt { pod, why, room, remind } => {
                tracing::info!(pod = %pod.key, node = %room.node, victims = room.victims.len(), "making room");
                self.notes.unfit(Arc::clone(&pod), &why, remind, Nomination::Node(Arc::clone(&room.node)));
                let (p, node, now) = (Arc::clone(&pod), Arc::clone(&room.node), self.clock.now());
                let task = self.jobs.spawn(async move {
                    for (key, uid) in &room.displaced {
                        forget_nomination(&client, key, uid).await?;
                    }
                    for victim in &room.victims {
                        evict(&client, &p, victim, now).await?;
                    }
                    Ok(Done::Evicted(room))
                });
                self.about.insert(task.id(), (Job::Evict, pod, node));
            }
        }
    }

    fn finish(&mut self, done: Result<(Id, Result<Done, WriteError>), JoinError>) {
        let now = self.start.elapsed();
        let mut made = None;
        let (id, failure) = match done {
            Ok((id, Ok(Done::Written))) => (id, None),
            Ok((id, Ok(Done::Evicted(room)))) => {
                made = Some(room);
                (id, None)
            }
            Ok((id, Err(error))) if error.is_gone() => (id, Some(None)),
            Ok((id, Err(error))) => (id, Some(Some(reconcile::text(&error)))),
            Err(error) => (error.id(), Some(Some(error.to_string()))),
        };
        let Some((job, pod, node)) = self.about.remove(&id) else { return };
        match job {
            Job::Volumes => self.core.volumes_written(now, &pod.uid, failure.is_none()),
            Job::Bind => self.core.bound(now, &pod.uid, failure.is_none()),
            Job::Evict => self.core.evicted(now, &pod.uid, failure.is_none()),
        }
        for victim in made.iter().flat_map(|room| &room.victims).filter(|victim| !victim.deleting) {
            self.notes.preempted(&pod, victim, &node);
        }
        match failure {
            None if job == Job::Bind => self.notes.placed(pod, node),
            // Its claims are on their way; or the pod is gone and nobody is left to tell.
            None | Some(None) => {}
            Some(Some(why)) => {
                tracing::warn!(pod = %pod.key, %node, %why, "writing failed, placing the pod anew");
                self.notes.failed(pod, why);
            }
        }
    }
}

/// The next question, if any can come.
async fn question(asks: Option<&Asks>) -> Ask {
    match asks {
        Some(asks) => asks.next().await,
        None => std::future::pending().await,
    }
}
