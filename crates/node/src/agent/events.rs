//! Events about pods: what `kubectl describe` shows.
//!
//! Guarantees: recording never waits; the same event about the same container is one object with a
//! count; what does not fit into the queue is counted in the log, not lost silently.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use meta::{Clock, Random, Timestamp};
use runtime::action::Role;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{options::Options, pod};

/// Events that wait to be written. Each pod makes about five when it starts.
const QUEUE_MAX: usize = 2048;
/// Events remembered to count repetitions.
const KNOWN_MAX: usize = 1024;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Normal,
    Warning,
}

struct Note {
    about: ObjectReference,
    level: Level,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// Records events.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<Note>,
    clock: Arc<dyn Clock>,
}

/// Writes events.
pub(crate) struct Recorder {
    queue: mpsc::Receiver<Note>,
    random: Arc<dyn Random>,
    node: String,
    known: HashMap<String, (String, i32)>,
}

pub(crate) fn channel(options: &Options) -> (Events, Recorder) {
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    let events = Events { queue: sender, clock: Arc::clone(&options.clock) };
    let random = Arc::clone(&options.random);
    (events, Recorder { queue, random, node: options.name.clone(), known: HashMap::new() })
}

impl Events {
    /// Records an event about a pod, or about one of its containers (`field` as upstream words it:
    /// `spec.containers{name}`).
    pub(crate) fn record(
        &self,
        want: &Pod,
        container: Option<&str>,
        level: Level,
        reason: &'static str,
        message: String,
    ) {
        let field_path = container.map(|name| {
            let list = match pod::member(want, name).map(|member| member.role) {
                Some(Role::Init | Role::Sidecar) => "initContainers",
                Some(Role::Main) => "containers",
                Some(Role::Ephemeral) | None => "ephemeralContainers",
            };
            format!("spec.{list}{{{name}}}")
        });
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: want.metadata.name.clone(),
            namespace: want.metadata.namespace.clone(),
            uid: want.metadata.uid.clone(),
            resource_version: want.metadata.resource_version.clone(),
            field_path,
        };
        self.queue(Note { about, level, reason, message, at: self.clock.now() });
    }

    /// Records an event about the node. As upstream's kubelet, under its name instead of its UID.
    pub(crate) fn record_node(&self, node: &str, level: Level, reason: &'static str, message: String) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        self.queue(Note { about, level, reason, message, at: self.clock.now() });
    }

    fn queue(&self, note: Note) {
        let reason = note.reason;
        if let Err(error) = self.queue.try_send(note) {
            tracing::warn!(reason, %error, "dropped an event: too many wait to be written");
        }
    }
}

impl Recorder {
    pub(crate) async fn run(mut self, client: Client) {
        while let Some(note) = self.queue.recv().await {
            if let Err(error) = self.write(&client, &note).await {
                tracing::debug!(
                    error = reconcile::text(&error),
                    reason = note.reason,
                    "could not write an event"
                );
            }
        }
    }

    async fn write(&mut self, client: &Client, note: &Note) -> Result<(), kube::Error> {
        let namespace = note.about.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        let key = format!(
            "{} {} {} {}",
            note.about.uid.as_deref().unwrap_or_default(),
            note.about.field_path.as_deref().unwrap_or_default(),
            note.reason,
            note.message
        );
        if let Some((name, count)) = self.known.get_mut(&key) {
            *count = count.saturating_add(1);
            let patch = json!({ "count": count, "lastTimestamp": Time(note.at) });
            match events.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(()),
                // It was removed in the meantime (events expire): write a new one.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let name = format!("{}.{:016x}", note.about.name.as_deref().unwrap_or_default(), self.random.next());
        events.create(&PostParams::default(), &self.event(note, &name)).await?;
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(key, (name, 1));
        Ok(())
    }

    fn event(&self, note: &Note, name: &str) -> Event {
        let at = Some(Time(note.at));
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: note.about.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: note.about.clone(),
            type_: Some(match note.level {
                Level::Normal => "Normal".to_owned(),
                Level::Warning => "Warning".to_owned(),
            }),
            reason: Some(note.reason.to_owned()),
            message: Some(note.message.clone()),
            count: Some(1),
            first_timestamp: at.clone(),
            last_timestamp: at,
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.node.clone()),
            }),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.node.clone()),
            ..Event::default()
        }
    }
}
