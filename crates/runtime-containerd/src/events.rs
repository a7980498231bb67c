//! Wakes the node: containerd's events, each held back until CRI shows what it tells.
//!
//! CRI learns of an exit from the same events as we do, so a reader who looked at once would often see
//! the old state, and then nothing more would come. Hence every event waits until the status agrees;
//! they wait side by side.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{BoxStream, FuturesUnordered},
};
use prost::Message;
use runtime::{Event, Step};
use tonic::Streaming;

use crate::{
    config,
    connection::{Connection, NAMESPACE, QUICK},
    cri,
    observe::{container_status, sandbox_status},
};

const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";
const PUBLISH: &str = "/containerd.services.events.v1.Events/Publish";

/// Topic of the event we send ourselves: when it comes back, the subscription stands.
const MARKER: &str = "/keelson/subscribed";

/// Between two markers, and between two attempts to connect.
const RETRY: Duration = Duration::from_millis(100);

/// Between two looks at a status that does not agree yet.
const LOOK: Duration = Duration::from_millis(10);

/// How long a status may take to agree; then the reader is woken all the same.
const AGREE: Duration = Duration::from_secs(2);

/// How long after an exit with 137 the word OOMKilled may come.
const OOM_LATE: Duration = Duration::from_millis(300);

/// After a subscription stands, when to say once more that events were lost: of what ended just before,
/// CRI may not know yet, and no event will come.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Events that wait for their status; the next one is read when one of them is through.
const WAITING_MAX: usize = 128;

/// Pods remembered by container; forgotten all at once when there are more.
const OWNERS_MAX: usize = 16_384;

/// Events from now on; never ends.
pub(crate) fn stream(connection: Connection) -> BoxStream<'static, Event> {
    let status = Statuses { connection, owners: Arc::default() };
    let reader = Reader { status, live: None, waiting: FuturesUnordered::new() };
    futures::stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await;
        Some((event, reader))
    })
    .boxed()
}

struct Reader {
    status: Statuses,
    live: Option<Streaming<cri::Envelope>>,
    waiting: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
}

impl Reader {
    async fn next(&mut self) -> Event {
        loop {
            let Some(live) = &mut self.live else {
                self.live = Some(subscribe(&self.status.connection).await);
                let second = tokio::time::sleep(SECOND_LOOK).map(|()| Some(Event::Lost));
                self.waiting.push(second.boxed());
                return Event::Lost;
            };
            let full = self.waiting.len() >= WAITING_MAX;
            tokio::select! {
                Some(event) = self.waiting.next() => {
                    if let Some(event) = event {
                        return event;
                    }
                }
                message = live.message(), if !full => match message {
                    Ok(Some(envelope)) => self.take(&envelope),
                    Ok(None) => self.live = None,
                    Err(error) => {
                        tracing::warn!(%error, "containerd's event stream broke off, subscribing again");
                        self.live = None;
                    }
                }
            }
        }
    }

    fn take(&mut self, envelope: &cri::Envelope) {
        match News::read(envelope) {
            Ok(Some(news)) => self.waiting.push(self.status.clone().settle(news).boxed()),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, topic = envelope.topic, "containerd sent an event that cannot be read")
            }
        }
    }
}

/// What happened to which container or sandbox.
enum News {
    Started(String),
    Exited(String),
    OutOfMemory(String),
    Removed(String),
}

impl News {
    fn read(envelope: &cri::Envelope) -> Result<Option<Self>, prost::DecodeError> {
        let value = envelope.event.as_ref().map_or(&[][..], |any| any.value.as_slice());
        let subject = || cri::Subject::decode(value).map(|subject| subject.id);
        Ok(match envelope.topic.as_str() {
            "/tasks/exit" => {
                let exit = cri::TaskExit::decode(value)?;
                // the end of an exec has the id of that exec
                (exit.id == exit.container_id).then_some(Self::Exited(exit.container_id))
            }
            "/tasks/start" => Some(Self::Started(subject()?)),
            "/tasks/oom" => Some(Self::OutOfMemory(subject()?)),
            "/containers/delete" => Some(Self::Removed(subject()?)),
            _ => None,
        })
    }
}

/// What CRI says of a container or sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Created,
    Running,
    /// Ended; `killed` and not (yet) called OOMKilled.
    Ended {
        killed: bool,
    },
    Gone,
}

#[derive(Clone)]
struct Statuses {
    connection: Connection,
    owners: Arc<Mutex<HashMap<String, String>>>,
}

impl Statuses {
    /// The event to tell, once the status agrees with the news; `None` when it is not about our pods.
    async fn settle(self, news: News) -> Option<Event> {
        let (News::Started(id) | News::Exited(id) | News::OutOfMemory(id) | News::Removed(id)) = &news;
        let uid = self.owner(id).await?;
        let agreed = async {
            match &news {
                News::Started(id) => self.until(id, |seen| seen != Seen::Created).await,
                News::Removed(id) => self.until(id, |seen| seen == Seen::Gone).await,
                News::OutOfMemory(id) => {
                    self.until(id, |seen| matches!(seen, Seen::Ended { killed: false } | Seen::Gone)).await;
                }
                News::Exited(id) => {
                    let ended = |seen| matches!(seen, Seen::Ended { .. } | Seen::Gone);
                    self.until(id, ended).await;
                    let named = self.until(id, |seen| seen != Seen::Ended { killed: true });
                    // no OOMKilled within that time: it was killed by someone
                    drop(tokio::time::timeout(OOM_LATE, named).await);
                }
            }
        };
        if tokio::time::timeout(AGREE, agreed).await.is_err() {
            tracing::debug!(container = id, "containerd's status does not agree with its event yet");
        }
        if let News::Removed(id) = &news {
            self.owners().remove(id);
        }
        Some(Event::Pod { uid })
    }

    async fn until(&self, id: &str, agrees: impl Fn(Seen) -> bool) {
        while !agrees(self.look(id).await) {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self, id: &str) -> Seen {
        match container_status(&self.connection, Step::Observe, id).await {
            Ok(Some(status)) => match status.state() {
                cri::ContainerState::Created => Seen::Created,
                cri::ContainerState::Running => Seen::Running,
                cri::ContainerState::Exited | cri::ContainerState::Unknown => {
                    Seen::Ended { killed: status.exit_code == 137 && status.reason != "OOMKilled" }
                }
            },
            Ok(None) => match sandbox_status(&self.connection, id).await {
                Ok(Some(status)) => match status.state() {
                    cri::PodSandboxState::Ready => Seen::Running,
                    cri::PodSandboxState::NotReady => Seen::Ended { killed: false },
                },
                Ok(None) => Seen::Gone,
                Err(_) => Seen::Gone,
            },
            // The stream breaks off in a moment too, and the reader is told to look at everything.
            Err(_) => Seen::Gone,
        }
    }

    /// The pod of a container or sandbox; `None` when it is not one of ours.
    async fn owner(&self, id: &str) -> Option<String> {
        if let Some(uid) = self.owners().get(id) {
            return Some(uid.clone());
        }
        let labels = match container_status(&self.connection, Step::Observe, id).await.ok()? {
            Some(status) => status.labels,
            None => sandbox_status(&self.connection, id).await.ok()??.labels,
        };
        let ours = labels.get(config::MANAGED.0).is_some_and(|value| value == config::MANAGED.1);
        let uid = ours.then(|| labels.get(config::POD_UID).cloned())??;
        let mut owners = self.owners();
        if owners.len() >= OWNERS_MAX {
            owners.clear();
        }
        owners.insert(id.to_owned(), uid.clone());
        Some(uid)
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Subscribes; returns when the subscription stands, which is known from the first event that comes.
async fn subscribe(connection: &Connection) -> Streaming<cri::Envelope> {
    loop {
        let request = cri::SubscribeRequest { filters: vec![format!("namespace=={NAMESPACE}")] };
        tokio::select! {
            stream = connection.stream(SUBSCRIBE, request) => match stream {
                Ok(stream) => {
                    initialized(connection).await;
                    return stream;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot subscribe to containerd's events yet");
                    tokio::time::sleep(RETRY).await;
                }
            },
            () = mark(connection) => {}
        }
    }
}

/// Waits until CRI answers: a containerd that starts serves events sooner.
async fn initialized(connection: &Connection) {
    let filter = cri::PodSandboxFilter { id: MARKER.into(), ..Default::default() };
    let request = cri::ListPodSandboxRequest { filter: Some(filter) };
    let list = "/runtime.v1.RuntimeService/ListPodSandbox";
    while let Err(error) = connection
        .call::<_, cri::ListPodSandboxResponse>((Step::Observe, "events"), list, request.clone(), QUICK)
        .await
    {
        tracing::debug!(%error, "containerd's CRI plugin does not answer yet");
        tokio::time::sleep(RETRY).await;
    }
}

/// Sends markers for ever.
async fn mark(connection: &Connection) {
    loop {
        let event = cri::Any { type_url: "keelson.dev/Subscribed".into(), value: Vec::new() };
        let request = cri::PublishRequest { topic: MARKER.into(), event: Some(event) };
        let sent = connection.call::<_, cri::Empty>((Step::Observe, "events"), PUBLISH, request, QUICK).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "containerd takes no events yet");
        }
        tokio::time::sleep(RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_exec_is_no_news_and_other_topics_are_skipped() {
        let envelope = |topic: &str, value: Vec<u8>| cri::Envelope {
            topic: topic.into(),
            event: Some(cri::Any { type_url: String::new(), value }),
        };
        let exit = |id: &str| cri::TaskExit { container_id: "c".into(), id: id.into() }.encode_to_vec();
        assert!(
            matches!(News::read(&envelope("/tasks/exit", exit("c"))), Ok(Some(News::Exited(id))) if id == "c")
        );
        assert!(matches!(News::read(&envelope("/tasks/exit", exit("exec-1"))), Ok(None)));
        assert!(matches!(News::read(&envelope(MARKER, vec![])), Ok(None)));
        assert!(News::read(&envelope("/tasks/oom", vec![0xff])).is_err());
    }
}
