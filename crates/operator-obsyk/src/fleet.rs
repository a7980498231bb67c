//! The agents that run: one for each ObsykAgent, started, replaced and stopped by the reconciler's effects,
//! and joined at the end by [`Fleet::keep`].

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use futures::future::join_all;
use meta::ObjectKey;
use parking_lot::Mutex;
use reconcile::{CancellationToken, Context, Effect, EffectFuture, Enqueue};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    stream::{Agent, Report, Settings},
    wire::{Http, Https},
};

/// All agents of the process.
pub(crate) struct Fleet {
    http: OnceLock<Result<Arc<dyn Http>, String>>,
    /// Told to platforms, so that a deposed leader's sessions are refused.
    pub(crate) fence: u64,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    by_key: HashMap<ObjectKey, Member>,
    enqueue: Option<Enqueue>,
    closed: bool,
}

struct Member {
    settings: Settings,
    reports: watch::Receiver<Report>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Fleet {
    /// No agents; the network is opened by the first.
    pub(crate) fn new(fence: u64) -> Arc<Self> {
        Arc::new(Self { http: OnceLock::new(), fence, members: Mutex::default() })
    }

    /// The same with another network.
    #[cfg(test)]
    pub(crate) fn over(http: Arc<dyn Http>) -> Arc<Self> {
        let fleet = Self::new(0);
        drop(fleet.http.set(Ok(http)));
        fleet
    }

    /// Where to put the keys of agents that have news.
    pub(crate) fn notify(&self, enqueue: Enqueue) {
        self.members.lock().enqueue = Some(enqueue);
    }

    /// How it goes with each.
    pub(crate) fn all(&self) -> Vec<(ObjectKey, Report)> {
        let members = self.members.lock();
        let mut all: Vec<_> = members
            .by_key
            .iter()
            .map(|(key, member)| (key.clone(), member.reports.borrow().clone()))
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    /// What the agent of a key runs with, and how it goes.
    pub(crate) fn find(&self, key: &ObjectKey) -> Option<(Settings, Report)> {
        let members = self.members.lock();
        let member = members.by_key.get(key)?;
        Some((member.settings.clone(), member.reports.borrow().clone()))
    }

    /// The network: one for all, and one of its own for who trusts an authority of its own.
    fn http(&self, authorities: Option<&[u8]>) -> Result<Arc<dyn Http>, String> {
        let open = |authorities| {
            Https::new(authorities).map(|https| Arc::new(https) as Arc<dyn Http>).map_err(|e| e.to_string())
        };
        match authorities {
            Some(authorities) => open(Some(authorities)),
            None => self.http.get_or_init(|| open(None)).clone(),
        }
    }

    /// Ends the agent of a key, after its flush: what comes after it must not be overtaken by it.
    async fn end(&self, key: &ObjectKey) {
        let member = self.members.lock().by_key.remove(key);
        if let Some(member) = member {
            member.end().await;
        }
    }

    fn start(self: &Arc<Self>, key: &ObjectKey, settings: Settings, cx: &Context) -> Result<(), String> {
        let http = self.http(settings.authorities.as_deref())?;
        let (to, reports) = watch::channel(Report::default());
        let (clock, random) = (Arc::clone(&cx.clock), Arc::clone(&cx.random));
        let agent = Agent::new(cx.client.clone(), http, clock, random, settings.clone(), to);
        let mut members = self.members.lock();
        if members.closed {
            return Ok(());
        }
        let stop = CancellationToken::new();
        let (mut news, enqueue, name) = (reports.clone(), members.enqueue.clone(), key.clone());
        let running = agent.run(stop.clone());
        let task = tokio::spawn(async move {
            let tell = async {
                while news.changed().await.is_ok() {
                    if let Some(enqueue) = &enqueue {
                        enqueue(name.clone());
                    }
                }
            };
            // The telling ends with the agent, which owns the other end.
            tokio::join!(running, tell);
        });
        members.by_key.insert(key.clone(), Member { settings, reports, stop, task });
        Ok(())
    }

    /// Waits for `stop`, then ends all agents at the same time.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        stop.cancelled().await;
        let members = {
            let mut members = self.members.lock();
            members.closed = true;
            std::mem::take(&mut members.by_key)
        };
        join_all(members.into_values().map(Member::end)).await;
    }
}

impl Member {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "an agent ended unexpectedly");
        }
    }
}

/// Makes the agent of a key run with these settings, or not at all.
pub(crate) struct Run {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) key: ObjectKey,
    pub(crate) settings: Option<Settings>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fleet: _, key, settings } = self;
        f.debug_struct("Run").field("key", key).field("settings", settings).finish()
    }
}

impl Effect for Run {
    fn name(&self) -> &'static str {
        if self.settings.is_some() { "start agent" } else { "stop agent" }
    }

    fn run<'a>(&'a self, cx: &'a Context) -> EffectFuture<'a> {
        Box::pin(async move {
            self.fleet.end(&self.key).await;
            match &self.settings {
                Some(settings) => Ok(self.fleet.start(&self.key, settings.clone(), cx)?),
                None => Ok(()),
            }
        })
    }
}
