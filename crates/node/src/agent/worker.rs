//! The task of one pod: observe, plan, act, report; then wait for something to happen.

mod act;
mod probes;
mod report;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, Id, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Agent,
    job::{Outcome, Subject, Tokens},
};
use crate::{
    admission,
    plan::{self, Observed, Rejection, Stop, Volumes, plan_pod},
    pod,
    resize::{self, Resize},
    volume,
};

/// How soon a step that failed for reasons outside the pod (API server or runtime away) is repeated.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait before a status that could not be reported is reported again; doubles up to it from
/// [`RETRY`], so that an API server without room for a node's pods is not kept busy refusing them.
const REPORT_RETRY_MAX: Duration = Duration::from_secs(16);
/// How often volumes that follow API objects are refreshed; upstream's sync period.
const REFRESH: Duration = Duration::from_secs(60);
/// Reports in a row that are followed up at once. A status settles after one or two; a server that
/// keeps something else than it is sent must not make this loop hot.
const REPORTS_MAX: u32 = 4;
/// How often a resize that waits for room is looked at again; a pod that ends here does not wake the others.
const DEFERRED_RETRY: Duration = Duration::from_secs(10);
/// Safety net: nothing is waited for longer than this.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// What the API server wants of a pod.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) pod: Arc<Pod>,
    /// It is no longer in the API.
    pub(super) gone: bool,
}

/// The task's state.
pub(super) struct Worker {
    agent: Arc<Agent>,
    wants: watch::Receiver<Want>,
    wake: Arc<Notify>,
    /// The newest version known, status included. The one of `wants`, where that is as new.
    pod: Arc<Pod>,
    have: Observed,
    volumes: BTreeMap<String, PathBuf>,
    tokens: Tokens,
    jobs: JoinSet<Outcome>,
    subjects: HashMap<Id, (Subject, AbortHandle)>,
    probes: probes::Probes,
    refresh_at: Option<Instant>,
    /// Ids of containers whose preStop hook has been run.
    hooked: Vec<String>,
    forgotten: bool,
    reports: u32,
    /// Reports in a row that failed.
    unreported: u32,
    /// The generation whose resize the node has taken.
    taken: Option<i64>,
}

impl Worker {
    pub(super) fn new(
        agent: Arc<Agent>,
        wants: watch::Receiver<Want>,
        wake: Arc<Notify>,
        rejected: Option<Rejection>,
    ) -> Self {
        let Want { pod, gone } = wants.borrow().clone();
        let have = Observed { rejected, gone, ..Observed::default() };
        Self {
            agent,
            wants,
            wake,
            pod,
            have,
            volumes: BTreeMap::new(),
            tokens: Tokens::new(),
            jobs: JoinSet::new(),
            subjects: HashMap::new(),
            probes: probes::Probes::default(),
            refresh_at: None,
            hooked: Vec::new(),
            forgotten: false,
            reports: 0,
            unreported: 0,
            taken: None,
        }
    }

    /// Runs until the pod is forgotten or the agent stops.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let wait = tokio::select! {
                () = stop.cancelled() => return,
                wait = self.step() => wait,
            };
            if self.forgotten {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.wants.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                Some(ended) = self.jobs.join_next_with_id(), if !self.jobs.is_empty() => self.ended(ended),
                answer = self.probes.answer() => self.answered(answer),
                () = tokio::time::sleep(wait) => {}
            }
            // More that has happened meanwhile is taken in the same round.
            while let Some(ended) = self.jobs.try_join_next_with_id() {
                self.ended(ended);
            }
            while let Some(answer) = self.probes.try_answer() {
                self.answered(answer);
            }
        }
    }

    /// One round; says how long to wait for the next at most. Cancelling it loses nothing: the next
    /// round observes anew.
    async fn step(&mut self) -> Duration {
        self.take_want();
        match self.agent.runtime.observe_pod(pod::uid(&self.pod)).await {
            Ok(seen) => self.have.pod = seen,
            Err(error) => {
                tracing::warn!(pod = %pod::long_name(&self.pod), %error, "cannot observe");
                return RETRY;
            }
        }
        self.read_termination_messages().await;
        self.look_at_resize();
        let now = self.agent.now();
        let stopping = plan::why_not_run(&self.pod, &self.have, now);
        if stopping.is_some() && self.have.stopping_since.is_none() {
            self.have.stopping_since = Some(now);
        }
        if stopping == Some(Stop::Finished) {
            self.have.finished = true;
        }
        self.watch_containers(stopping.is_some());
        self.have.end_reported = self.is_end_reported(now);
        let mut wait = IDLE_MAX;
        for action in plan_pod(&self.pod, &self.have, now) {
            match action {
                plan::Action::Recheck { after } => wait = wait.min(after),
                action => self.begin(action),
            }
        }
        if stopping.is_none() {
            wait = wait.min(self.refresh_volumes());
        }
        if matches!(self.have.resize, Resize::Deferred(_)) {
            wait = wait.min(DEFERRED_RETRY);
        }
        let reported = self.report().await;
        self.unreported = match reported {
            report::Reported::Failed => self.unreported.saturating_add(1),
            report::Reported::Same | report::Reported::Changed => 0,
        };
        match reported {
            report::Reported::Same => self.reports = 0,
            // Planning goes by what the API server knows: look again at once.
            report::Reported::Changed => {
                self.reports = self.reports.saturating_add(1);
                wait = if self.reports <= REPORTS_MAX { Duration::ZERO } else { wait.min(RETRY) };
            }
            report::Reported::Failed => wait = wait.min(self.report_again_after()),
        }
        wait
    }

    /// Asks whether the node has what a resize needs. What was taken stays taken until it is done.
    fn look_at_resize(&mut self) {
        self.have.resize = match (&self.have.resize, resize::is_wanted(&self.pod, &self.have)) {
            (_, false) => Resize::None,
            (Resize::Taken, true) if self.taken == self.pod.metadata.generation => Resize::Taken,
            (_, true) => {
                let others = self.agent.pods.active();
                let uid = pod::uid(&self.pod);
                let others = others.iter().map(AsRef::as_ref).filter(|other| pod::uid(other) != uid);
                admission::resize(&self.pod, others, &self.agent.view().node)
            }
        };
        if self.have.resize == Resize::Taken {
            self.taken = self.pod.metadata.generation;
        }
    }

    /// Doubles with each failure in a row; the upper half of it is random, so that pods that were refused
    /// together do not come again together.
    fn report_again_after(&self) -> Duration {
        let doubled = RETRY.saturating_mul(1 << self.unreported.saturating_sub(1).min(8));
        let longest = doubled.min(REPORT_RETRY_MAX);
        let half = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) / 2;
        longest / 2 + Duration::from_millis(self.agent.options.random.below(half.max(1)))
    }

    fn take_want(&mut self) {
        let Want { pod, gone } = self.wants.borrow_and_update().clone();
        self.have.gone |= gone;
        let version =
            |pod: &Pod| pod.metadata.resource_version.as_deref().and_then(|v| v.parse::<u64>().ok());
        // The answer to our own status patch may be newer than what the watch has brought. Once the watch is
        // there, both are one object in memory.
        let brought = version(&pod);
        if brought.is_some() && brought >= version(&self.pod) {
            self.pod = pod;
        }
    }

    /// Starts a refresh of the volumes when it is due; says when the next one is.
    fn refresh_volumes(&mut self) -> Duration {
        let wanted = volume::has_changing_contents(&self.pod) && !self.agent.options.host.is_simulated();
        if !wanted || self.have.volumes != Volumes::Ready || self.have.pod_busy {
            return IDLE_MAX;
        }
        let now = Instant::now();
        let jitter = Duration::from_millis(self.agent.options.random.below(15_000));
        let due = *self.refresh_at.get_or_insert(now + REFRESH + jitter);
        if due > now {
            return due - now;
        }
        self.refresh_at = None;
        self.begin(plan::Action::SetUpVolumes);
        REFRESH
    }
}
