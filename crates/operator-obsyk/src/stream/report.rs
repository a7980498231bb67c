//! How it goes with an agent, for its status and metrics: at once when somebody should know, else now and then.

use std::{collections::BTreeMap, time::Duration};

use meta::Timestamp;
use tokio::time::Instant;

use super::{agent::Agent, session::Session, state::Sync};
use crate::{
    Kind,
    types::{ResourceCounts, StreamStatus},
    wire::{Refusal, Trouble},
};

/// News in the report waits at most so long; the status is written no more often.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(30);

/// How it goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// What keeps the platform from knowing everything, if something does.
    pub(crate) trouble: Option<Trouble>,
    /// All kinds have been listed, or failed.
    pub(crate) listed: bool,
    /// A session was opened once.
    pub(crate) began: bool,
    /// The platform does not take snapshots; its words.
    pub(crate) refused: Option<String>,
    /// Objects that it has not as they are, since it refused that for what it says: how many, and one of them.
    pub(crate) refusals: Option<(usize, String)>,
    /// Kinds that cannot be read, and why.
    pub(crate) unread: Vec<(Kind, String)>,
    pub(crate) last_ack: Option<Timestamp>,
    pub(crate) last_snapshot: Option<Timestamp>,
    pub(crate) counts: ResourceCounts,
    pub(crate) stream: StreamStatus,
    /// Requests that came to nothing, by why.
    pub(crate) failures: BTreeMap<Refusal, u64>,
    /// Of these, how many there were since one succeeded.
    pub(crate) failures_in_a_row: u64,
    /// Watches and lists that broke.
    pub(crate) broken_watches: u64,
    /// Tokens the platform granted.
    pub(crate) tokens: u64,
}

impl Agent {
    /// Makes the report public: at once when somebody should know, else now and then.
    pub(super) fn tell(&mut self, now: Instant, last: bool) {
        let debts = self.state.sync() != Sync::Idle || self.state.owes_any();
        self.lag.note(now, self.state.orders(), debts);
        let unread = Kind::ALL.into_iter().zip(&self.ready).filter_map(|(kind, ready)| match ready {
            Some(Err(why)) => Some((kind, why.clone())),
            Some(Ok(())) | None => None,
        });
        let unread: Vec<_> = unread.collect();
        let listed = self.ready.iter().all(Option::is_some);
        let news = {
            let public = self.reports.borrow();
            let refusal = |trouble: &Option<Trouble>| trouble.as_ref().map(|t| (t.refusal, t.status));
            refusal(&public.trouble) != refusal(&self.report.trouble)
                || public.unread != unread
                || public.began != self.report.began
                || public.listed != listed
                || public.refused.is_none() != self.report.refused.is_none()
                || public.refusals.is_some() != self.state.has_refusals()
                || public.last_snapshot.is_none() != self.report.last_snapshot.is_none()
        };
        if !(news || last || now >= self.next_report) {
            return;
        }
        self.next_report = now + REPORT_EVERY;
        self.report.unread = unread;
        self.report.listed = listed;
        self.report.refusals = self.state.refusals();
        let counts = Kind::ALL.into_iter().zip(self.state.counts()).filter(|(_, count)| **count != 0);
        self.report.counts = counts.map(|(kind, count)| (kind.counter().to_owned(), *count)).collect();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.report.stream = StreamStatus {
            queue_objects: number(self.state.queued()),
            queue_bytes: number(self.state.queued_bytes()),
            lag_seconds: self.lag.seconds(now),
            epoch: self.batching.session.as_ref().map(|session| session.epoch),
            acked_seq: self.batching.session.as_ref().map(Session::acknowledged_seq),
            ..self.state.stats.clone()
        };
        self.report.failures_in_a_row = self.gate.failures();
        self.report.tokens = self.platform.tokens();
        self.reports.send_replace(self.report.clone());
    }
}
