//! Which probes run, and what their answers mean.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Probe};
use runtime::ContainerState;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::Worker;
use crate::{
    agent::{Agent, events::Level, start::is_probed},
    backoff::since,
    plan::{Busy, Unhealthy},
    pod,
    probe::{self, Answer, Asker, Check, ProbeKind, Schedule, Subject},
};

/// Answers of probes that wait to be taken; a pod has few probes and each waits for its turn.
const ANSWERS_MAX: usize = 16;

/// The probes of one pod.
#[derive(Default)]
pub(super) struct Probes {
    /// Made for the first probe: most pods have none, and it is kilobytes.
    answers: Option<(mpsc::Sender<Answer>, mpsc::Receiver<Answer>)>,
    tasks: JoinSet<()>,
    running: HashMap<(String, ProbeKind), (String, AbortHandle)>,
    /// Container ids by name, to notice a new instance.
    ids: HashMap<String, String>,
}

impl Probes {
    /// The next answer; never, while there is no probe.
    pub(super) async fn answer(&mut self) -> Answer {
        // The sender is here, too: the channel does not end.
        match &mut self.answers {
            Some((_, answers)) => match answers.recv().await {
                Some(answer) => answer,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// An answer that is there already.
    pub(super) fn try_answer(&mut self) -> Option<Answer> {
        self.answers.as_mut()?.1.try_recv().ok()
    }

    fn tell(&mut self) -> mpsc::Sender<Answer> {
        self.answers.get_or_insert_with(|| mpsc::channel(ANSWERS_MAX)).0.clone()
    }

    /// Stops the probes of `container` except those of kinds in `keep` for instance `id`.
    fn retain(&mut self, container: &str, id: &str, keep: &[ProbeKind]) {
        self.running.retain(|(name, kind), (of, handle)| {
            let stays = name != container || (of == id && keep.contains(kind));
            if !stays {
                handle.abort();
            }
            stays
        });
        while self.tasks.try_join_next().is_some() {}
    }
}

impl Worker {
    /// Brings facts and probes in line with the containers that run.
    pub(super) fn watch_containers(&mut self, stopping: bool) {
        let want = Arc::clone(&self.pod);
        for member in pod::members(&want).filter(|member| is_probed(member.role)) {
            self.watch_container(member.container, stopping);
        }
    }

    fn watch_container(&mut self, container: &Container, stopping: bool) {
        let name = &container.name;
        let seen = self.have.current(name).map(|seen| (seen.id.clone(), seen.state.clone()));
        let Some((id, ContainerState::Running { started_at })) = seen else {
            self.probes.retain(name, "", &[]);
            let facts = self.facts(name);
            (facts.started, facts.ready) = (false, false);
            return;
        };
        self.notice_instance(container, &id);
        let facts = self.facts(name);
        if facts.busy == Some(Busy::Starting) {
            // Until postStart is through it has not started.
            return;
        }
        if container.startup_probe.is_none() {
            facts.started = true;
        }
        if facts.started && container.readiness_probe.is_none() {
            facts.ready = true;
        }
        let kinds: &[ProbeKind] = match (facts.started, stopping) {
            (false, false) => &[ProbeKind::Startup],
            (true, false) => &[ProbeKind::Liveness, ProbeKind::Readiness],
            (_, true) => &[ProbeKind::Readiness],
        };
        self.probes.retain(name, &id, kinds);
        let age = since(self.agent.now(), started_at);
        for kind in kinds {
            if let Some(probe) = kind.of(container) {
                self.watch_probe(container, probe.clone(), *kind, &id, age);
            }
        }
    }

    /// A new instance begins unproven; one that was found running (adopted) keeps the verdict that
    /// the API server was told, so that a restart of the agent does not make it unready.
    fn notice_instance(&mut self, container: &Container, id: &str) {
        let name = &container.name;
        let before = self.probes.ids.insert(name.clone(), id.to_owned());
        if before.as_deref() == Some(id) {
            return;
        }
        let wire_id = format!("{}://{id}", self.agent.runtime.name());
        let status = self.pod.status.as_ref();
        let reported = status.and_then(|status| {
            let main = status.container_statuses.iter().flatten();
            let init = status.init_container_statuses.iter().flatten();
            main.chain(init)
                .find(|own: &&ContainerStatus| own.container_id.as_deref() == Some(wire_id.as_str()))
        });
        let adopted =
            reported.map(|own| (own.started.unwrap_or_default(), own.ready)).filter(|_| before.is_none());
        let told = reported.and_then(|own| own.resources.clone()).or_else(|| container.resources.clone());
        let facts = self.facts(name);
        (facts.started, facts.ready) = adopted.unwrap_or_default();
        facts.unhealthy = None;
        if before.is_none() && facts.resources.is_none() {
            facts.resources = told;
        }
    }

    fn watch_probe(&mut self, container: &Container, probe: Probe, kind: ProbeKind, id: &str, age: Duration) {
        let key = (container.name.clone(), kind);
        if self.probes.running.contains_key(&key) {
            return;
        }
        let ip = self.pod_ips().into_iter().next().unwrap_or_default();
        let schedule = Schedule::of(&probe);
        let check = probe::check(container, &probe, &ip);
        let asker = Arc::new(PodAsker { agent: Arc::clone(&self.agent), check });
        let subject = Subject { container: container.name.clone(), id: id.to_owned(), kind };
        let watching = probe::watch(asker, subject, schedule, age, self.probes.tell());
        let handle = self.probes.tasks.spawn(watching);
        self.probes.running.insert(key, (id.to_owned(), handle));
    }

    /// Takes in the answer of a probe.
    pub(super) fn answered(&mut self, answer: Answer) {
        let Answer { subject, verdict, failure, grace } = answer;
        let name = subject.container.clone();
        if self.probes.ids.get(&name) != Some(&subject.id) {
            return;
        }
        if let Some(why) = failure {
            let message = format!("{} probe failed: {why}", subject.kind.as_str());
            self.agent.event(&self.pod, Some(&name), Level::Warning, "Unhealthy", message);
        }
        let kind = subject.kind.as_str().to_lowercase();
        let facts = self.facts(&name);
        match (subject.kind, verdict) {
            (_, None) | (ProbeKind::Liveness, Some(true)) => {}
            (ProbeKind::Readiness, Some(ready)) => facts.ready = ready,
            (ProbeKind::Startup, Some(true)) => facts.started = true,
            (ProbeKind::Startup | ProbeKind::Liveness, Some(false)) => {
                let why = format!("Container {name} failed {kind} probe, will be restarted");
                facts.unhealthy = Some(Unhealthy { id: subject.id, why, grace });
            }
        }
    }
}

struct PodAsker {
    agent: Arc<Agent>,
    check: Result<Check, String>,
}

#[async_trait]
impl Asker for PodAsker {
    async fn ask(&self, subject: &Subject, timeout: Duration) -> Result<(), String> {
        let runtime = &self.agent.runtime;
        let kind = match subject.kind {
            ProbeKind::Startup => runtime::contract::Probe::Startup,
            ProbeKind::Liveness => runtime::contract::Probe::Liveness,
            ProbeKind::Readiness => runtime::contract::Probe::Readiness,
        };
        if let Some(verdict) = runtime.simulated_probe(&subject.id, kind).await {
            return verdict;
        }
        match self.check.as_ref().map_err(Clone::clone)? {
            Check::Network(target) => self.agent.options.host.probe(target, timeout).await,
            Check::Exec(command) => {
                let output =
                    runtime.exec_sync(&subject.id, command, timeout).await.map_err(|e| e.to_string())?;
                if output.exit_code == 0 {
                    return Ok(());
                }
                let said = [output.stdout, output.stderr].concat();
                Err(String::from_utf8_lossy(&said).trim().to_owned())
            }
        }
    }
}
