//! Stopping one container: preStop hook, then the runtime's TERM, grace and KILL.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use runtime::Action;

use super::{Agent, events::Level, job::Failed};
use crate::{
    lifecycle::{self, Hook},
    plan::GRACE_MIN,
    pod,
};

pub(super) struct Stop {
    pub(super) agent: Arc<Agent>,
    pub(super) want: Arc<Pod>,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) grace: Duration,
    pub(super) why: String,
    pub(super) ip: String,
    /// Whether a former stop of the same container has run the hook already.
    pub(super) hook_done: bool,
}

impl Stop {
    pub(super) async fn run(self) -> Result<(), Failed> {
        self.event(Level::Normal, "Killing", self.why.clone());
        let begun = tokio::time::Instant::now();
        if !self.grace.is_zero() && !self.hook_done {
            self.pre_stop().await;
        }
        // The hook spends from the grace, but the process always gets a moment to end.
        let grace = self.grace.saturating_sub(begun.elapsed()).max(GRACE_MIN.min(self.grace));
        self.agent.runtime.act(&Action::StopContainer { id: self.id.clone(), grace }).await?;
        Ok(())
    }

    async fn pre_stop(&self) {
        let Some(member) = pod::member(&self.want, &self.name) else { return };
        let Some(handler) = Hook::PreStop.of(member.container) else { return };
        let (runtime, host) = (self.agent.runtime.as_ref(), self.agent.options.host.as_ref());
        let hook = lifecycle::run(runtime, host, member.container, &self.id, handler, &self.ip, self.grace);
        let why = match tokio::time::timeout(self.grace, hook).await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => format!("it did not end within the grace of {} s", self.grace.as_secs()),
        };
        // The container is stopped all the same.
        self.event(Level::Warning, Hook::PreStop.failure(), format!("PreStopHook failed: {why}"));
    }

    fn event(&self, level: Level, reason: &'static str, message: String) {
        self.agent.event(&self.want, Some(&self.name), level, reason, message);
    }
}
