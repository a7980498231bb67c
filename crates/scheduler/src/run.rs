//! Connects [`Core`] to an API server.
//!
//! Guarantees: nothing is decided before every watch has listed; at most [`Options::binds_max`] writes
//! are under way; on shutdown no new decision is made, writes under way are awaited, and events that
//! wait are written.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::Client;
use meta::{Clock, Random};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

use crate::{
    bind::{WriteError, bind, write_volumes},
    core::{Core, Step},
    notes::{Notes, Writer},
    pod::PodInfo,
    profile::Profile,
    watches::{KINDS, Signal, all},
};

/// Decisions made before events are looked at again: a few milliseconds' worth.
const DECISIONS_MAX: usize = 64;

/// The longest sleep without a reason.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// How a scheduler runs.
#[derive(Clone)]
pub struct Options {
    /// Pods with this `spec.schedulerName` are placed; upstream's default is `default-scheduler`.
    pub scheduler_name: String,
    /// Who reports events: upstream uses `NAME-HOST`.
    pub instance: String,
    /// Bindings under way at a time.
    pub binds_max: usize,
    /// The time of day, for events and conditions.
    pub clock: Arc<dyn Clock>,
    /// Settles ties between equal nodes, and names events.
    pub random: Arc<dyn Random>,
}

impl Options {
    /// The default scheduler.
    pub fn new(instance: impl Into<String>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            scheduler_name: "default-scheduler".into(),
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
}

/// Schedules until `shutdown` completes.
pub async fn run(client: Client, options: Options, shutdown: impl Future<Output = ()> + Send) {
    let profile = Profile::new(options.random.next());
    let core = Core::new(&options.scheduler_name, profile);
    let notes = Notes::start(Writer {
        client: client.clone(),
        clock: options.clock,
        random: options.random,
        controller: options.scheduler_name,
        instance: options.instance,
    });
    let binds_max = options.binds_max.max(1);
    let mut session = Session {
        core,
        notes,
        client,
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
    start: Instant,
    jobs: JoinSet<Result<(), WriteError>>,
    about: HashMap<Id, (Job, Arc<PodInfo>, Arc<str>)>,
    binds_max: usize,
}

impl Session {
    async fn serve(&mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut signals = std::pin::pin!(all(&self.client));
        let mut synced = 0;
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
                let task = self.jobs.spawn(async move { bind(&client, &p, &n).await });
                self.about.insert(task.id(), (Job::Bind, pod, node));
            }
            Step::WriteVolumes { pod, node, bindings } => {
                let n = Arc::clone(&node);
                let task = self.jobs.spawn(async move { write_volumes(&client, &n, &bindings).await });
                self.about.insert(task.id(), (Job::Volumes, pod, node));
            }
            Step::Tell { pod, why, remind } => {
                tracing::debug!(pod = %pod.key, %why, "pod fits nowhere");
                self.notes.unfit(pod, &why, remind);
            }
        }
    }

    fn finish(&mut self, done: Result<(Id, Result<(), WriteError>), JoinError>) {
        let now = self.start.elapsed();
        let (id, failure) = match done {
            Ok((id, Ok(()))) => (id, None),
            Ok((id, Err(error))) if error.is_gone() => (id, Some(None)),
            Ok((id, Err(error))) => (id, Some(Some(describe(&error)))),
            Err(error) => (error.id(), Some(Some(error.to_string()))),
        };
        let Some((job, pod, node)) = self.about.remove(&id) else { return };
        match job {
            Job::Volumes => self.core.volumes_written(now, &pod.uid, failure.is_none()),
            Job::Bind => self.core.bound(now, &pod.uid, failure.is_none()),
        }
        match failure {
            None if job == Job::Bind => self.notes.placed(pod, node),
            // Its claims are on their way; or the pod is gone and nobody is left to tell.
            None | Some(None) => {}
            Some(Some(why)) => {
                tracing::warn!(pod = %pod.key, %node, %why, "binding failed, placing the pod anew");
                self.notes.failed(pod, why);
            }
        }
    }
}

/// What failed and why, without the whole answer's fields.
fn describe(error: &WriteError) -> String {
    match error {
        WriteError::Refused { what, source } => match &**source {
            kube::Error::Api(status) => format!("{what}: {}", status.message),
            other => format!("{what}: {other}"),
        },
        WriteError::Late(_) | WriteError::Taken(_) => error.to_string(),
    }
}
