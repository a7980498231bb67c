//! The loop of one ObsykAgent: takes what the watches say, sends what the platform does not have, and says
//! how it goes.
//!
//! One task owns everything, so there are no locks, and it never waits for the network: requests are futures
//! beside it. It ends when it is told to, after it has sent what it can within its grace.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use meta::{Clock, Random};
use reconcile::CancellationToken;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    batching::Batching,
    feed::{Observed, feeds},
    gate::{Again, Bucket, Gate},
    lag::Lag,
    listing::{Listing, Page, Unread, page, snapshot},
    report::{REPORT_EVERY, Report},
    state::{BUDGET_BYTES, Change, Outgoing, State, Sync, name_key},
};
use crate::{
    Kind,
    project::Id,
    validate::Valid,
    wire::{Credentials, EVENTS, HEARTBEAT, Http, Platform, Refusal, SNAPSHOT, Trouble},
};

/// What the watches may be ahead of the loop.
const OBSERVED_MAX: usize = 256;
/// Of these, so many are taken at once before anything else is looked at.
const OBSERVED_BATCH: usize = 64;
/// Changes on their way at the most: one for each 10 a second, so that the original's rate keeps the
/// original's one at a time.
const FLIGHTS_MAX: u32 = 8;
/// How long after it was told to stop the loop goes on sending.
const GRACE: Duration = Duration::from_secs(4);
/// Two snapshots are at least so far apart.
const SNAPSHOT_SPACING: Duration = Duration::from_secs(10);
/// A kind that still owes something after it was listed for that is listed again so much later.
const RELIST_SPACING: Duration = Duration::from_secs(10);
/// A snapshot makes sure once a day that nothing was forgotten in a way nobody thought of.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(86_400);

/// What an agent is started with; another value means another agent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) valid: Valid,
    pub(crate) credentials: Credentials,
    pub(crate) cluster_uid: String,
    /// PEM of authorities that are trusted beside the system's.
    pub(crate) authorities: Option<Vec<u8>>,
    /// Grows with each new leader of the replicas.
    pub(crate) fence: u64,
}

/// What a request came to.
pub(super) enum Done {
    Event(Outgoing, Result<(), Trouble>),
    Heartbeat(Result<(), Trouble>),
    Snapshot(Result<Listing, Trouble>),
    Page(Kind, Result<Page, Unread>),
    Asked(Result<(), Trouble>),
    Opened(Result<Bytes, Trouble>),
    Batch(Result<Bytes, Trouble>),
}

/// One agent, ready to run.
pub(crate) struct Agent {
    client: kube::Client,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    pub(super) settings: Settings,
    pub(super) platform: Arc<Platform>,
    pub(super) state: State,
    pub(super) gate: Gate,
    pub(super) again: Again,
    bucket: Bucket,
    pub(super) requests: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) batching: Batching,
    /// Names of changes on their way.
    busy: HashSet<(Kind, Arc<str>)>,
    /// A page of a kind that is listed again is on its way.
    paging: bool,
    next_page: Option<(Kind, String)>,
    next_relist: Instant,
    beating: bool,
    next_beat: Instant,
    next_snapshot: Instant,
    daily: Instant,
    /// A refused token is replaced once without waiting.
    token_retried: bool,
    /// For each kind: its first list is complete, or failed with this.
    pub(super) ready: [Option<Result<(), String>>; Kind::ALL.len()],
    pub(super) report: Report,
    pub(super) lag: Lag,
    pub(super) reports: watch::Sender<Report>,
    pub(super) next_report: Instant,
    pub(super) stopping: bool,
}

impl Agent {
    pub(crate) fn new(
        client: kube::Client,
        http: Arc<dyn Http>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        settings: Settings,
        reports: watch::Sender<Report>,
    ) -> Self {
        let now = Instant::now();
        let Settings { valid, credentials, cluster_uid: _, authorities: _, fence } = &settings;
        let platform = Platform::new(
            http,
            &valid.platform_url,
            credentials.clone(),
            Arc::clone(&clock),
            Arc::clone(&random),
        );
        let platform = if valid.batch { platform.with_fence(*fence) } else { platform };
        Self {
            client,
            clock,
            random,
            platform: Arc::new(platform),
            state: State::new(BUDGET_BYTES),
            gate: Gate::new(now),
            again: Again::new(),
            bucket: Bucket::new(valid.events_per_second, valid.burst, now),
            requests: FuturesUnordered::new(),
            batching: Batching::new(now),
            busy: HashSet::new(),
            paging: false,
            next_page: None,
            next_relist: now,
            beating: false,
            next_beat: now + valid.sync_interval,
            next_snapshot: now,
            daily: now + SNAPSHOT_EVERY,
            token_retried: false,
            ready: Default::default(),
            report: Report::default(),
            lag: Lag::default(),
            reports,
            next_report: now + REPORT_EVERY,
            stopping: false,
            settings,
        }
    }

    /// A smaller budget, for tests of what happens when it is used up.
    #[cfg(test)]
    pub(crate) fn with_budget(mut self, bytes: usize) -> Self {
        self.state = State::new(bytes);
        self
    }

    /// Runs until `stop`, then for its grace.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (to, mut observed) = mpsc::channel(OBSERVED_MAX);
        let mut watches = JoinSet::new();
        for feed in feeds(&self.client, &self.random, &to) {
            watches.spawn(feed);
        }
        drop(to);
        let mut batch = Vec::with_capacity(OBSERVED_BATCH);
        loop {
            let wake = self.start_requests(Instant::now());
            tokio::select! {
                () = stop.cancelled() => break,
                count = observed.recv_many(&mut batch, OBSERVED_BATCH) => {
                    if count == 0 {
                        tracing::error!("all watches of the agent ended, which they never do");
                        break;
                    }
                    batch.drain(..).for_each(|observed| self.take(observed));
                }
                Some(done) = self.requests.next() => self.finish(done),
                () = sleep_until(wake) => {}
            }
            self.tell(Instant::now(), false);
        }
        watches.shutdown().await;
        self.flush().await;
        self.tell(Instant::now(), true);
    }

    /// Sends what waits, as far as the grace allows. Nothing is lost by what does not fit: the next start
    /// begins with a snapshot.
    async fn flush(&mut self) {
        self.stopping = true;
        let deadline = Instant::now() + GRACE;
        self.next_report = deadline;
        while self.state.sync() == Sync::Idle && self.state.queued() > 0 {
            let wake = self.start_requests(Instant::now()).min(deadline);
            tokio::select! {
                Some(done) = self.requests.next() => self.finish(done),
                () = sleep_until(wake) => {}
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        tracing::debug!(left = self.state.queued(), "agent stopped");
    }

    fn take(&mut self, observed: Observed) {
        match observed {
            Observed::Begin(kind) => self.state.begin_list(kind),
            Observed::Seen(object) => self.state.seen(object),
            Observed::Gone(object) => self.state.deleted(&object),
            Observed::End(kind) => {
                self.state.end_list(kind);
                let late = self.set_ready(kind, Ok(()));
                if late {
                    self.end_session("a kind can be read again");
                }
            }
            Observed::Failed(kind, why) => {
                self.report.broken_watches += 1;
                let known = self.ready.get(kind.index()).is_some_and(|ready| matches!(ready, Some(Ok(()))));
                // A watch that breaks goes on from where it was; only a first list that fails is news.
                if !known {
                    self.set_ready(kind, Err(why));
                }
            }
        }
    }

    /// Whether the kind had failed before.
    fn set_ready(&mut self, kind: Kind, result: Result<(), String>) -> bool {
        let Some(slot) = self.ready.get_mut(kind.index()) else { return false };
        slot.replace(result).is_some_and(|before| before.is_err())
    }

    /// Starts what may be started; gives the time to look again.
    fn start_requests(&mut self, now: Instant) -> Instant {
        let mut wake = self.next_report;
        if !self.gate.is_open(now) {
            return wake.min(self.gate.opens());
        }
        if now >= self.daily && !self.stopping {
            self.daily = now + SNAPSHOT_EVERY;
            self.end_session("daily");
        }
        let began = self.report.last_ack.is_some();
        if !self.beating && ((began && now >= self.next_beat) || self.gate.probes()) && !self.stopping {
            self.beat(now);
        }
        if self.gate.probes() {
            return wake;
        }
        let free = self.busy.is_empty() && self.ready.iter().all(Option::is_some);
        wake = wake.min(self.send_batches(now, free));
        if self.is_batch_wanted(now) == Some(false)
            && matches!(self.state.sync(), Sync::Wanted(_))
            && !self.stopping
        {
            if free && now >= self.next_snapshot {
                self.send_snapshot();
            } else if now < self.next_snapshot {
                wake = wake.min(self.next_snapshot);
            }
        }
        // One that is on its way makes no other due: waking for it would be waking for ever.
        if began && !self.beating && !self.stopping {
            wake = wake.min(self.next_beat.max(now));
        }
        wake = wake.min(self.say_again(now));
        wake = wake.min(self.read_again(now));
        wake = wake.min(self.send_changes(now).unwrap_or(wake));
        if self.stopping { wake } else { wake.min(self.daily) }
    }

    /// Says again what was refused, when that is due; gives the time to look again.
    fn say_again(&mut self, now: Instant) -> Instant {
        let Some(due) = self.again.due().filter(|_| !self.stopping) else { return self.next_report };
        if now < due {
            return due;
        }
        self.again.said(now);
        if self.state.sync() == Sync::Idle {
            self.state.retry_refused();
        } else if self.state.has_refusals() {
            // What begins then may say it anew, and may not.
            self.again.refused(now);
        }
        self.next_report
    }

    /// Lists again what is owed, a page at a time and as there is room; gives the time to look again.
    fn read_again(&mut self, now: Instant) -> Instant {
        if self.paging || self.stopping {
            return self.next_report;
        }
        if let Some((kind, _)) = &self.next_page
            && !self.state.is_relisting(*kind)
        {
            // Something else brings what it owed.
            self.next_page = None;
        }
        let (kind, next) = match self.next_page.take() {
            Some((kind, token)) if !self.state.has_room() => {
                self.next_page = Some((kind, token));
                return self.next_report;
            }
            Some((kind, token)) => (kind, Some(token)),
            None => match self.state.relist_wanted() {
                None => return self.next_report,
                Some(_) if now < self.next_relist => return self.next_relist,
                Some(kind) => {
                    self.state.begin_relist(kind);
                    (kind, None)
                }
            },
        };
        self.paging = true;
        let page = page(self.client.clone(), kind, next);
        self.requests.push(async move { Done::Page(kind, page.await) }.boxed());
        self.next_report
    }

    fn finish_page(&mut self, kind: Kind, page: Result<Page, Unread>) {
        self.paging = false;
        let broken = match page {
            Ok(Page { objects, next }) => {
                objects.into_iter().for_each(|object| self.state.relisted(object));
                if let Some(token) = next {
                    self.next_page = Some((kind, token));
                    return;
                }
                false
            }
            Err(Unread::Refused(why)) => {
                self.set_ready(kind, Err(why));
                false
            }
            Err(Unread::Failed(why)) => {
                tracing::debug!(kind = kind.name(), why, "list failed, trying again");
                true
            }
        };
        self.state.end_relist(kind, broken);
        if self.state.owes(kind) {
            self.next_relist = Instant::now() + RELIST_SPACING;
        }
    }

    fn beat(&mut self, now: Instant) {
        self.beating = true;
        self.next_beat = now + self.settings.valid.sync_interval;
        let body =
            json!({"agent_version": env!("CARGO_PKG_VERSION"), "cluster_uid": self.settings.cluster_uid});
        let (platform, body) = (Arc::clone(&self.platform), Bytes::from(body.to_string()));
        let asks = self.settings.valid.batch;
        let request = async move {
            let sent = if asks {
                platform.beat(HEARTBEAT, body).await
            } else {
                platform.post(HEARTBEAT, body).await
            };
            Done::Heartbeat(sent)
        };
        self.requests.push(request.boxed());
    }

    fn send_snapshot(&mut self) {
        self.state.begin_snapshot();
        let Settings { valid, credentials: _, cluster_uid, authorities: _, fence: _ } = &self.settings;
        let (body, filling) = snapshot(self.client.clone(), cluster_uid, &valid.cluster_name);
        let platform = Arc::clone(&self.platform);
        let request = async move {
            let mut filling = std::pin::pin!(filling.fuse());
            let mut sending = std::pin::pin!(platform.post_stream(SNAPSHOT, body).fuse());
            let mut listing = None;
            // The body is dropped with its request, and then the filling ends by itself.
            loop {
                tokio::select! {
                    sent = &mut sending => {
                        let result = match (sent, listing) {
                            (Err(trouble), Some(Err(why))) if trouble.status.is_none() => Err(Trouble { message: why, ..trouble }),
                            (Err(trouble), _) => Err(trouble),
                            (Ok(()), Some(Ok(listing))) => Ok(listing),
                            (Ok(()), Some(Err(why))) => Err(Trouble::unreachable("snapshot", why)),
                            (Ok(()), None) => Err(Trouble::unreachable("snapshot", "it answered before the end")),
                        };
                        return Done::Snapshot(result);
                    }
                    filled = &mut filling, if listing.is_none() => listing = Some(filled),
                }
            }
        };
        self.requests.push(request.boxed());
    }

    /// Gives the time at which the rate allows the next, if it does not now.
    fn send_changes(&mut self, now: Instant) -> Option<Instant> {
        if self.batching.session.is_some() {
            return None;
        }
        let most = (self.settings.valid.events_per_second / 10).clamp(1, FLIGHTS_MAX);
        while self.busy.len() < usize::try_from(most).unwrap_or(1) {
            if !self.stopping
                && let Err(next) = self.bucket.take(now)
            {
                return (self.state.sync() == Sync::Idle && self.state.queued() > 0).then_some(next);
            }
            let Some(outgoing) = self.state.cut(&self.busy) else {
                self.bucket.give_back();
                return None;
            };
            self.busy.insert(name_key(&outgoing.id, &outgoing.namespace, &outgoing.name));
            let body = event(&self.settings.cluster_uid, &outgoing);
            let platform = Arc::clone(&self.platform);
            let request = async move { Done::Event(outgoing, platform.post(EVENTS, body).await) };
            self.requests.push(request.boxed());
        }
        None
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Event(outgoing, result) => {
                let Outgoing { id, name, namespace, .. } = &outgoing;
                self.busy.remove(&name_key(id, namespace, name));
                self.finish_event(id, namespace, result);
            }
            Done::Heartbeat(result) => {
                self.beating = false;
                match result {
                    Ok(()) => {
                        if let Some(session) = &mut self.batching.session {
                            session.check();
                        }
                        self.succeeded();
                    }
                    Err(trouble) => self.failed(trouble),
                }
            }
            Done::Snapshot(Ok(listing)) => {
                let now = Instant::now();
                self.next_snapshot = now + SNAPSHOT_SPACING;
                self.next_beat = self.next_beat.min(now + self.settings.valid.sync_interval);
                self.token_retried = false;
                self.state.snapshot_acknowledged(listing.objects, &listing.skipped);
                self.report.last_snapshot = Some(self.clock.now());
                self.report.refused = None;
                self.succeeded();
            }
            Done::Snapshot(Err(trouble)) if trouble.refusal == Refusal::Content => {
                tracing::warn!(why = trouble.message, "the platform refuses the snapshot, sending changes");
                self.report.refused = Some(trouble.message);
                self.state.go_by_changes();
                // It answered.
                self.gate.succeeded();
                self.report.trouble = None;
            }
            Done::Page(kind, page) => self.finish_page(kind, page),
            Done::Asked(result) => self.finish_asked(result),
            Done::Opened(result) => self.finish_opened(result),
            Done::Batch(result) => self.finish_batch(result),
            Done::Snapshot(Err(trouble)) => {
                self.state.snapshot_failed("the last one did not arrive");
                let again = trouble.status == Some(401) && !self.token_retried;
                self.token_retried = again;
                if !again {
                    self.failed_or_fenced(trouble);
                }
            }
        }
    }

    fn finish_event(&mut self, id: &Id, namespace: &str, result: Result<(), Trouble>) {
        match result {
            Ok(()) => {
                self.state.acknowledged(id);
                self.succeeded();
            }
            Err(trouble) if trouble.refusal == Refusal::Content => {
                let (kind, uid) = (id.kind.name(), &*id.uid);
                tracing::warn!(
                    kind,
                    namespace,
                    uid,
                    status = trouble.status,
                    "the platform refused a change for what it says"
                );
                self.state.quarantined(id);
                self.again.refused(Instant::now());
                // It answered: the others may go on.
                self.gate.succeeded();
            }
            Err(trouble) => {
                self.state.failed(id);
                self.failed_or_fenced(trouble);
            }
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.gate.succeeded();
        self.report.trouble = None;
        self.report.last_ack = Some(self.clock.now());
    }

    pub(super) fn failed(&mut self, trouble: Trouble) {
        tracing::debug!(status = trouble.status, message = trouble.message, "request failed, kept for later");
        self.gate.failed(&trouble, &*self.random, Instant::now());
        self.state.stats.retries += 1;
        *self.report.failures.entry(trouble.refusal).or_default() += 1;
        self.report.trouble = Some(trouble);
    }
}

/// The body of one change.
fn event(cluster_uid: &str, outgoing: &Outgoing) -> Bytes {
    let Outgoing { id, name, namespace, change, known } = outgoing;
    let kind = match (change, known) {
        (Change::Delete, _) => "deleted",
        (Change::Upsert(..), true) => "modified",
        (Change::Upsert(..), false) => "added",
    };
    let mut head = json!({
        "cluster_uid": cluster_uid, "type": kind, "kind": id.kind.name(), "uid": &*id.uid, "name": &**name,
    });
    if let (false, Some(head)) = (namespace.is_empty(), head.as_object_mut()) {
        head.insert("namespace".into(), json!(&**namespace));
    }
    let mut body = head.to_string();
    if let Change::Upsert(object, _) = change {
        body.truncate(body.len().saturating_sub(1));
        body.push_str(",\"object\":");
        body.push_str(&String::from_utf8_lossy(object));
        body.push('}');
    }
    body.into()
}
