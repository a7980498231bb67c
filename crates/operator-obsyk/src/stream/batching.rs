//! The agent's part of the batch mode: asking for it, opening sessions, sending batches, and going back to
//! the original contract when the platform has it no more.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use serde_json::json;
use tokio::time::Instant;

use super::{
    agent::{Agent, Done},
    session::{Refusing, Session},
    state::Sync,
};
use crate::{
    Kind,
    wire::{self, Refusal, STATE, STREAM, Trouble},
};

/// A change waits so long for others to go with it.
const LINGER: Duration = Duration::from_secs(1);
/// Two sessions are opened at least so far apart.
const OPEN_SPACING: Duration = Duration::from_secs(2);
/// A platform that offered batches and did not know them is asked again after this.
const BATCH_AGAIN: Duration = Duration::from_secs(3600);

/// Where the batch mode stands.
pub(super) struct Batching {
    pub(super) session: Option<Session>,
    /// A request of the batch mode is on its way.
    busy: bool,
    /// Not asked for before then.
    after: Instant,
    next_open: Instant,
    /// Until when a change waits for others.
    linger: Option<Instant>,
}

impl Batching {
    pub(super) fn new(now: Instant) -> Self {
        Self { session: None, busy: false, after: now, next_open: now, linger: None }
    }
}

impl Agent {
    /// Whether the platform speaks batches; `None` until it has been asked.
    pub(super) fn is_batch_wanted(&self, now: Instant) -> Option<bool> {
        if !self.settings.valid.batch || now < self.batching.after {
            return Some(false);
        }
        self.platform.offers_batches()
    }

    /// Starts what the batch mode has to ask or say; gives the time to look again.
    pub(super) fn send_batches(&mut self, now: Instant, free: bool) -> Instant {
        let later = self.next_report;
        if self.batching.busy {
            return later;
        }
        let wanted = self.is_batch_wanted(now);
        match (self.state.sync(), wanted) {
            (Sync::Wanted(_), None) => self.ask(),
            (Sync::Wanted(_), Some(true)) if !free => {}
            (Sync::Wanted(_), Some(true)) if now < self.batching.next_open => return self.batching.next_open,
            (Sync::Wanted(_), Some(true)) => self.open(now),
            (Sync::Idle, Some(true)) if self.batching.session.is_none() => {
                self.state.want_all("the platform offers batches");
                return now;
            }
            (Sync::Idle, _) => return self.send_batch(now),
            (Sync::Wanted(_) | Sync::Running(_), _) => {}
        }
        later
    }

    fn ask(&mut self) {
        self.batching.busy = true;
        let platform = Arc::clone(&self.platform);
        self.requests.push(async move { Done::Asked(platform.ask().await) }.boxed());
    }

    fn open(&mut self, now: Instant) {
        self.give_up_session();
        self.batching.busy = true;
        self.batching.next_open = now + OPEN_SPACING;
        let body = json!({
            "cluster_uid": self.settings.cluster_uid, "cluster_name": self.settings.valid.cluster_name,
            "agent_version": env!("CARGO_PKG_VERSION"), "fence": self.settings.fence,
        });
        let (platform, body) = (Arc::clone(&self.platform), Bytes::from(body.to_string()));
        self.requests.push(async move { Done::Opened(platform.exchange_json(STATE, body).await) }.boxed());
    }

    /// Sends the batch on its way again, or the next one.
    fn send_batch(&mut self, now: Instant) -> Instant {
        let Some(session) = &mut self.batching.session else { return self.next_report };
        if session.flight.is_none() {
            let queued = self.state.queued();
            if !session.has_news(&self.state) && !self.stopping {
                if queued == 0 {
                    return self.next_report;
                }
                let until = *self.batching.linger.get_or_insert(now + LINGER);
                // What is read again waits for the room that this takes.
                if queued < session.full() && self.state.has_room() && now < until {
                    return until;
                }
            }
            self.batching.linger = None;
            if !session.cut(&mut self.state, &self.settings.cluster_uid) {
                return self.next_report;
            }
        }
        let Some((body, encoding)) = session.encode() else { return self.next_report };
        self.batching.busy = true;
        self.state.stats.sent_bytes += u64::try_from(body.len()).unwrap_or(0);
        let platform = Arc::clone(&self.platform);
        let request = async move { Done::Batch(platform.exchange_batch(STREAM, body, encoding).await) };
        self.requests.push(request.boxed());
        self.next_report
    }

    pub(super) fn finish_asked(&mut self, result: Result<(), Trouble>) {
        self.batching.busy = false;
        match result {
            Ok(()) => self.gate.succeeded(),
            Err(trouble) => self.failed(trouble),
        }
    }

    pub(super) fn finish_opened(&mut self, result: Result<Bytes, Trouble>) {
        self.batching.busy = false;
        match result.and_then(|body| wire::opened(&body)) {
            Ok(opened) => {
                if !matches!(self.state.sync(), Sync::Wanted(_)) {
                    return;
                }
                let unread: Vec<Kind> = Kind::ALL
                    .into_iter()
                    .zip(&self.ready)
                    .filter(|(_, ready)| matches!(ready, Some(Err(_))))
                    .map(|(kind, _)| kind)
                    .collect();
                let differ = self.state.begin_session(&opened.buckets, &unread);
                let (epoch, kinds) = (opened.epoch, differ.len());
                tracing::debug!(epoch, kinds, "session opened, these kinds differ");
                self.state.stats.sessions += 1;
                self.report.refused = None;
                self.report.began = true;
                self.batching.session = Some(Session::new(&opened, differ));
                self.succeeded();
            }
            Err(trouble) => match trouble.status {
                Some(404 | 405 | 501) => self.go_back(),
                Some(409) => self.superseded(trouble),
                _ => self.failed(trouble),
            },
        }
    }

    pub(super) fn finish_batch(&mut self, result: Result<Bytes, Trouble>) {
        self.batching.busy = false;
        match result.and_then(|body| wire::acknowledged(&body)) {
            Ok(acknowledged) => self.take_acknowledgement(&acknowledged),
            Err(trouble) => self.take_refusal(trouble),
        }
    }

    fn take_acknowledgement(&mut self, answer: &wire::Acknowledged) {
        let Some(session) = &mut self.batching.session else { return };
        let last = session.flight.as_ref().map(|flight| flight.last);
        if answer.epoch != session.epoch || last.is_some_and(|last| answer.acked_seq < last) {
            self.end_session("the platform lost records");
            return;
        }
        session.acknowledged(&mut self.state);
        self.succeeded();
        match answer.action.as_str() {
            "resync" | "resync_kinds" => {
                tracing::warn!(kinds = ?answer.kinds, "the platform's inventory differs, comparing");
                self.state.stats.drift_repaired += u64::try_from(answer.kinds.len()).unwrap_or(0).max(1);
                self.end_session("drift");
            }
            _ => {}
        }
    }

    fn take_refusal(&mut self, trouble: Trouble) {
        let Some(session) = &mut self.batching.session else { return };
        let words = wire::refused(&trouble);
        let going = match trouble.status {
            Some(404 | 405 | 501) => return self.go_back(),
            Some(409 | 410) if matches!(words.error.as_str(), "stale_epoch" | "fenced") => {
                self.end_session("another session was opened");
                return self.superseded(trouble);
            }
            Some(409 | 410) => Refusing::Ends,
            Some(415) if session.unpack() => Refusing::Goes,
            Some(415) => return self.go_back(),
            Some(status @ (400 | 413 | 422)) => {
                self.again.refused(Instant::now());
                session.refused(&mut self.state, words.seq, status == 413)
            }
            status => {
                // A refused token was not read any further; of all else nobody knows what became.
                if status != Some(401)
                    && let Some(flight) = &mut session.flight
                {
                    flight.ambiguous = true;
                }
                return self.failed(trouble);
            }
        };
        match going {
            Refusing::Goes => self.gate.succeeded(),
            Refusing::Ends => {
                tracing::debug!(status = trouble.status, why = trouble.message, "session ends");
                self.end_session("the session could not go on");
                // What stands in the way may go on standing there.
                if trouble.status != Some(409) {
                    self.failed(trouble);
                }
            }
        }
    }

    fn give_up_session(&mut self) {
        if let Some(session) = self.batching.session.take() {
            session.give_up(&mut self.state);
        }
    }

    /// The next session begins by comparing.
    pub(super) fn end_session(&mut self, reason: &'static str) {
        self.state.want_all(reason);
        self.give_up_session();
    }

    /// A request of the original contract failed, perhaps since another agent leads.
    pub(super) fn failed_or_fenced(&mut self, trouble: Trouble) {
        if trouble.status == Some(409) && wire::refused(&trouble).error == "fenced" {
            self.superseded(trouble);
        } else {
            self.failed(trouble);
        }
    }

    /// Another agent speaks for the cluster.
    fn superseded(&mut self, trouble: Trouble) {
        let message = format!(
            "{}; another agent streams this cluster to the same platform: keep one of them",
            trouble.message
        );
        self.failed(Trouble { refusal: Refusal::Superseded, message, ..trouble });
    }

    /// The platform does not know batches: the original contract does.
    fn go_back(&mut self) {
        tracing::info!("the platform does not take batches, going on with the original contract");
        self.batching.after = Instant::now() + BATCH_AGAIN;
        self.end_session("the platform takes no batches");
        self.gate.succeeded();
    }
}
