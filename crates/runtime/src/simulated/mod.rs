//! A runtime without containers: it keeps what it is told and lets time pass over it.
//!
//! Guarantees: the same answers as a real runtime would give, cheap for many thousands of pods; state
//! moves by the [`Clock`] passed in, `tokio::time` only wakes. Nothing is written to disk; a program
//! that restarts finds an empty runtime. Deliberately unable to exec, attach or forward ports: it says so.
//!
//! # Behaviour
//!
//! Annotations on the pod, below `simulated.keelson.dev/`; with `.NAME` appended they hold for the
//! container NAME only (`simulated.keelson.dev/exit-after.main`). Durations are `250ms`, `10s`, `5m`,
//! `1h`. A value that cannot be read makes `CreateContainer` fail with the reason.
//!
//! | annotation | value | default | meaning |
//! |---|---|---|---|
//! | `start-delay` | duration | the runtime's setting | how long `StartContainer` takes |
//! | `exit-after` | duration | never (init containers and pods of a Job: at once) | how long it runs |
//! | `exit-code` | 0-255 | 0 | its exit code; alone, it exits at once |
//! | `crash-loop` | `true` or a count | none | every (or each of the first N) attempts exits with `exit-code`, 1 when not given, after `exit-after`, at once when not given |
//! | `oom` | `true` | `false` | it exits with 137 and `OOMKilled` after `exit-after`, at once when not given |
//! | `start-error` | text | none | `StartContainer` fails with this text |
//! | `stop-delay` | duration | `0s` | how long it takes to stop; longer than the grace means killed, 137 |
//! | `readiness` | `true`, `false`, duration | `true` | answer to readiness probes; a duration: ready that long after its start |
//! | `startup` | `true`, `false`, duration | `true` | the same for startup probes |
//! | `liveness` | `true`, `false`, duration | `true` | answer to liveness probes; a duration: fails from that long after its start |
//! | `log` | text | one line that names it | what its log says |
//! | `cpu-millicores` | number | 1 | CPU it uses while it runs |
//! | `memory-bytes` | number | 1048576 | its working set |
//!
//! Images: every image is present under every valid name, except that the registry host
//! `missing.invalid` has none, `unauthorized.invalid` wants credentials and `unreachable.invalid` does
//! not answer.

mod address;
mod behaviour;
mod state;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use meta::Clock;
use tokio::sync::broadcast;

use crate::{
    Action, Done, Error, ErrorKind, Event, ExecOutput, Image, ObservedPod, PullPolicy, Result, Runtime, Step,
    StreamRequest, StreamUrl,
    contract::Probe,
    image,
    log::{Line, Log, StreamName},
    stats::{ContainerStats, Readiness, Stats, Status, Version},
};
use behaviour::Behaviour;
use state::State;

/// Events kept for a slow reader before it gets [`Event::Lost`]; a hundred pods of four events. The room
/// is taken when a runtime is made (about 60 bytes each), and there are thousands of them.
const EVENTS_KEPT: usize = 512;

/// How the simulated runtime behaves where annotations say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How long `StartContainer` takes.
    pub start_delay: Duration,
    /// Pod address range; the network is not ready while it is `None`.
    pub pod_cidr: Option<String>,
}

/// The simulated runtime. Cloning shares it.
#[derive(Clone)]
pub struct Simulated(Arc<Shared>);

struct Shared {
    clock: Arc<dyn Clock>,
    settings: Settings,
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
}

impl Simulated {
    /// An empty runtime. Fails when `settings.pod_cidr` cannot be read.
    pub fn new(clock: Arc<dyn Clock>, settings: Settings) -> Result<Self> {
        let mut state = State::default();
        if let Some(cidr) = &settings.pod_cidr {
            state.addresses.set_range(cidr).map_err(|message| range_error(cidr, message))?;
        }
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        Ok(Self(Arc::new(Shared { clock, settings, state: Mutex::new(state), events })))
    }

    fn image_of(name: &str) -> Result<Option<Image>> {
        let step = Step::InspectImage;
        if name.starts_with("sha256:") {
            return Ok(Some(Image { id: name.to_owned(), ..Image::default() }));
        }
        let full = image::full_name(name)
            .ok_or_else(|| Error::new(step, name, ErrorKind::InvalidImageName, "not an image name"))?;
        let host = full.split('/').next().unwrap_or_default();
        if matches!(host, "missing.invalid" | "unauthorized.invalid" | "unreachable.invalid") {
            return Ok(None);
        }
        let id = format!("sha256:{}", state::fake_digest(&full));
        let repository = full.rsplit_once([':', '@']).map_or(full.as_str(), |(repository, _)| repository);
        let repo_digests = vec![format!("{repository}@{id}")];
        Ok(Some(Image {
            repo_tags: vec![full.clone()],
            repo_digests,
            size_bytes: 1 << 20,
            id,
            ..Image::default()
        }))
    }

    fn pull(name: &str, policy: PullPolicy) -> Result<Done> {
        let fail = |kind, message: &str| Err(Error::new(Step::PullImage, name, kind, message));
        if let Some(image) = Self::image_of(name)? {
            return Ok(Done::Image { id: image.id });
        }
        if policy == PullPolicy::Never {
            return fail(
                ErrorKind::ImageNeverPull,
                "the image is not on this machine and imagePullPolicy Never forbids to pull it",
            );
        }
        match name.split('/').next().unwrap_or_default() {
            "unauthorized.invalid" => fail(ErrorKind::Unauthorized, "the registry refuses these credentials"),
            "unreachable.invalid" => fail(ErrorKind::RegistryUnavailable, "the registry does not answer"),
            _ => fail(ErrorKind::ImageNotFound, "the registry has no such image"),
        }
    }
}

impl Shared {
    /// The state as of now: all that was due has happened and has been told.
    fn advanced(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for uid in state.advance(self.clock.now()) {
            self.tell(uid);
        }
        state
    }

    /// Tells listeners; there may be none, which is no failure.
    fn tell(&self, uid: String) {
        drop(self.events.send(Event::Pod { uid }));
    }

    /// Changes one pod under the lock and tells of it while holding the order that produced it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<(T, Option<String>)>) -> Result<T> {
        let mut state = self.advanced();
        let (value, uid) = change(&mut state)?;
        if let Some(uid) = uid {
            self.tell(uid);
        }
        Ok(value)
    }

    async fn start(&self, id: &str) -> Result<Done> {
        let behaviour = self.advanced().startable(id)?;
        if let Some(message) = &behaviour.start_error {
            let now = self.clock.now();
            self.change(|state| state.fail_start(id, message, now))?;
            return Err(Error::new(Step::StartContainer, id, ErrorKind::Internal, message));
        }
        tokio::time::sleep(behaviour.start_delay.unwrap_or(self.settings.start_delay)).await;
        let now = self.clock.now();
        self.change(|state| state.start(id, now))
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<Done> {
        let Some(behaviour) = self.advanced().stoppable(id) else { return Ok(Done::Done) };
        tokio::time::sleep(behaviour.stop_delay.min(grace)).await;
        let exit_code = if behaviour.stop_delay > grace { 137 } else { 0 };
        let now = self.clock.now();
        self.change(|state| Ok((Done::Done, state.exit(id, exit_code, now))))
    }
}

#[async_trait]
impl Runtime for Simulated {
    fn name(&self) -> &'static str {
        "simulated"
    }

    async fn observe(&self) -> Result<Vec<ObservedPod>> {
        Ok(self.0.advanced().observe())
    }

    async fn observe_pod(&self, uid: &str) -> Result<Option<ObservedPod>> {
        Ok(self.0.advanced().observe_pod(uid))
    }

    async fn act(&self, action: &Action) -> Result<Done> {
        let now = self.0.clock.now();
        match action {
            Action::CreateSandbox(spec) => self.0.change(|state| state.create_sandbox(spec, now)),
            Action::StopSandbox { id } => {
                self.0.change(|state| Ok((Done::Done, state.stop_sandbox(id, now))))
            }
            Action::RemoveSandbox { id } => self.0.change(|state| Ok((Done::Done, state.remove_sandbox(id)))),
            Action::PullImage { image, policy, credentials: _ } => Self::pull(image, *policy),
            Action::RemoveImage { image: _ } => Ok(Done::Done),
            Action::CreateContainer { sandbox, pod, spec } => {
                let invalid =
                    |message| Error::new(Step::CreateContainer, &spec.name, ErrorKind::Invalid, message);
                let behaviour = Behaviour::read(pod, spec).map_err(invalid)?;
                let image = Self::image_of(&spec.image)?.ok_or_else(|| {
                    let message = format!("image {} is not on this machine", spec.image);
                    Error::new(Step::CreateContainer, &spec.name, ErrorKind::ImageNotFound, message)
                })?;
                self.0.change(|state| state.create_container(sandbox, spec, behaviour, image.id, now))
            }
            Action::StartContainer { id } => self.0.start(id).await,
            Action::UpdateContainer { id, resources: _ } => {
                self.0.change(|state| Ok((Done::Done, Some(state.pod_of(id, Step::UpdateContainer)?))))
            }
            Action::StopContainer { id, grace } => self.0.stop(id, *grace).await,
            Action::RemoveContainer { id } => {
                self.0.change(|state| Ok((Done::Done, state.remove_container(id))))
            }
        }
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let receiver = self.0.events.subscribe();
        futures::stream::unfold((self.0.clone(), receiver), |(shared, mut receiver)| async move {
            let event = next_event(&shared, &mut receiver).await;
            Some((event, (shared, receiver)))
        })
        .boxed()
    }

    async fn exec_sync(
        &self,
        container: &str,
        _command: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutput> {
        Err(unsupported(Step::Exec, container))
    }

    async fn stream(&self, request: &StreamRequest) -> Result<StreamUrl> {
        Err(match request {
            StreamRequest::Exec { container, .. } => unsupported(Step::Exec, container),
            StreamRequest::Attach { container, .. } => unsupported(Step::Attach, container),
            StreamRequest::PortForward { sandbox, .. } => unsupported(Step::PortForward, sandbox),
        })
    }

    async fn log(&self, container: &str) -> Result<Log> {
        let state = self.0.advanced();
        let (text, started_at) = state.log(container)?;
        Ok(Log::Lines(
            started_at
                .into_iter()
                .flat_map(|at| {
                    text.lines().map(move |line| Line {
                        at,
                        stream: StreamName::Stdout,
                        partial: false,
                        text: Bytes::copy_from_slice(line.as_bytes()),
                    })
                })
                .collect(),
        ))
    }

    async fn reopen_log(&self, container: &str) -> Result<()> {
        self.0.advanced().pod_of(container, Step::Log).map(drop)
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        Self::image_of(image)
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        let names = self.0.advanced().images();
        Ok(names.iter().filter_map(|name| Self::image_of(name).ok().flatten()).collect())
    }

    async fn set_pod_cidr(&self, cidr: &str) -> Result<()> {
        self.0.advanced().addresses.set_range(cidr).map_err(|message| range_error(cidr, message))
    }

    async fn version(&self) -> Result<Version> {
        Ok(Version { name: "simulated".into(), version: env!("CARGO_PKG_VERSION").into() })
    }

    async fn status(&self) -> Result<Status> {
        let network = if self.0.advanced().addresses.has_range() {
            Readiness::Ready
        } else {
            let message = "no pod address range yet: the node has no spec.podCIDR".into();
            Readiness::NotReady { reason: "NetworkPluginNotReady".into(), message }
        };
        // Whatever the handler, there is nothing to run.
        Ok(Status { runtime: Readiness::Ready, network, handlers: vec![String::new()] })
    }

    async fn stats(&self) -> Result<Stats> {
        let now = self.0.clock.now();
        let containers: Vec<ContainerStats> = self.0.advanced().stats(now);
        Ok(Stats { containers, image_filesystem: None })
    }

    async fn simulated_probe(
        &self,
        container: &str,
        probe: Probe,
    ) -> Option<std::result::Result<(), String>> {
        let now = self.0.clock.now();
        Some(self.0.advanced().probe(container, probe, now))
    }
}

/// Waits for a change that someone made or that time makes.
async fn next_event(shared: &Shared, receiver: &mut broadcast::Receiver<Event>) -> Event {
    loop {
        let due = shared.advanced().next_due();
        let wait = due.map(|due| duration_until(due, shared.clock.now()));
        let received = match wait {
            Some(wait) => match tokio::time::timeout(wait, receiver.recv()).await {
                Ok(received) => received,
                Err(_elapsed) => continue,
            },
            None => receiver.recv().await,
        };
        match received {
            Ok(event) => return event,
            Err(broadcast::error::RecvError::Lagged(_)) => return Event::Lost,
            // `shared` holds a sender, so the channel cannot close while this runs.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// At least a millisecond, so that a clock a little behind the timer does not make a busy loop.
fn duration_until(due: meta::Timestamp, now: meta::Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default().max(Duration::from_millis(1))
}

fn unsupported(step: Step, subject: &str) -> Error {
    Error::new(
        step,
        subject,
        ErrorKind::NotSupported,
        "not supported by the simulated runtime: its containers have no processes",
    )
}

fn range_error(cidr: &str, message: String) -> Error {
    Error::new(Step::Network, format!("pod address range {cidr}"), ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests;
