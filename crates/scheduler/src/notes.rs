//! What users read of the scheduler: the `PodScheduled` condition and events.
//!
//! Guarantees: nothing here delays a binding; a condition that did not change is not written; a
//! lasting failure is repeated as an event every five minutes, so that it does not expire. Bounded:
//! when the writers are [`FAILURES_MAX`] failures behind, scheduling waits, so that none is lost; when
//! they are [`PLACED_MAX`] placements behind, `Scheduled` events are dropped and counted in the log, as
//! upstream's broadcaster does.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use meta::{Clock, ObjectKey, Random, format_micro, format_second};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{bind::within, decide::Unfit, pod::PodInfo, preempt::Victim};

/// Failures that may wait to be told.
const FAILURES_MAX: usize = 1024;
/// Placements that may wait to be told: about a second's worth.
const PLACED_MAX: usize = 8192;
/// Writes at a time: as many as bindings, so that one event for each keeps up with them.
const WRITERS: usize = 64;

/// Something to tell.
#[derive(Debug)]
enum Note {
    Placed { pod: Arc<PodInfo>, node: Arc<str> },
    Unfit { pod: Arc<PodInfo>, message: String, event: bool, nomination: Nomination },
    Preempted { pod: Arc<PodInfo>, victim: ObjectKey, uid: Arc<str>, node: Arc<str> },
    Failed { pod: Arc<PodInfo>, message: String },
}

/// What becomes of `status.nominatedNodeName`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nomination {
    /// It stays as it is.
    Keep,
    /// It is void.
    Clear,
    /// Room is made there.
    Node(Arc<str>),
}

/// Writes conditions and events beside the scheduling loop.
pub(crate) struct Notes {
    failures: mpsc::Sender<Note>,
    placed: mpsc::Sender<Note>,
    writer: JoinHandle<()>,
    dropped: AtomicU64,
}

/// Who writes, and when it is.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) instance: String,
}

impl Notes {
    /// Starts the writer, which ends with [`Notes::drain`].
    pub(crate) fn start(writer: Writer) -> Self {
        let queue = |bound: usize| {
            let (sender, receiver) = mpsc::channel::<Note>(bound);
            let notes = stream::unfold(receiver, |mut r| async move { r.recv().await.map(|note| (note, r)) });
            (sender, notes.boxed())
        };
        let (failures, told) = queue(FAILURES_MAX);
        let (placed, done) = queue(PLACED_MAX);
        let writer = Arc::new(writer);
        let writing = stream::select(told, done).for_each_concurrent(WRITERS, move |note| {
            let writer = Arc::clone(&writer);
            async move { writer.write(note).await }
        });
        Self { failures, placed, writer: tokio::spawn(writing), dropped: AtomicU64::new(0) }
    }

    /// Whether another failure can be told.
    pub(crate) fn has_room(&self) -> bool {
        self.failures.capacity() > 0
    }

    /// The pod was bound.
    pub(crate) fn placed(&self, pod: Arc<PodInfo>, node: Arc<str>) {
        self.send(&self.placed, Note::Placed { pod, node });
    }

    /// The pod could not be bound though a node was found.
    pub(crate) fn failed(&self, pod: Arc<PodInfo>, message: String) {
        self.send(&self.failures, Note::Failed { pod, message });
    }

    /// The pod fits nowhere.
    pub(crate) fn unfit(&self, pod: Arc<PodInfo>, why: &Unfit, remind: bool, nomination: Nomination) {
        let message = why.to_string();
        let event = remind || pod.condition.message != message;
        self.send(&self.failures, Note::Unfit { pod, message, event, nomination });
    }

    /// A pod was deleted to make room for another.
    pub(crate) fn preempted(&self, pod: &Arc<PodInfo>, victim: &Victim, node: &Arc<str>) {
        let (pod, node) = (Arc::clone(pod), Arc::clone(node));
        let (victim, uid) = (victim.key.clone(), Arc::clone(&victim.uid));
        self.send(&self.placed, Note::Preempted { pod, victim, uid, node });
    }

    /// Writes what is waiting, then ends.
    pub(crate) async fn drain(self) {
        drop((self.failures, self.placed));
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "writer of events ended early");
        }
    }

    fn send(&self, to: &mpsc::Sender<Note>, note: Note) {
        if to.try_send(note).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "events dropped: the api server takes them too slowly");
            }
        }
    }
}

impl Writer {
    async fn write(&self, note: Note) {
        let written = match &note {
            Note::Placed { pod, node } => {
                let text = format!("Successfully assigned {} to {node}", pod.key);
                self.about(pod, "Normal", "Scheduled", "Binding", &text).await
            }
            Note::Failed { pod, message } => {
                self.about(pod, "Warning", "FailedScheduling", "Scheduling", message).await
            }
            Note::Preempted { pod, victim, uid, node } => {
                let text = format!("Preempted by pod {} on node {node}", pod.uid);
                let related = reference(&pod.key, &pod.uid);
                let event = Told {
                    kind: "Normal",
                    reason: "Preempted",
                    action: "Preempting",
                    note: &text,
                    related: Some(related),
                };
                self.event(&pod.scheduler_name, victim, uid, event).await
            }
            Note::Unfit { pod, message, event, nomination } => {
                let condition = self.condition(pod, message, nomination).await;
                if *event {
                    let told = self.about(pod, "Warning", "FailedScheduling", "Scheduling", message).await;
                    condition.and(told)
                } else {
                    condition
                }
            }
        };
        match written {
            Err(error) if !error.is_gone() => {
                tracing::warn!(error = &error as &dyn std::error::Error, ?note, "telling users failed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    async fn condition(
        &self,
        pod: &PodInfo,
        message: &str,
        nomination: &Nomination,
    ) -> Result<(), crate::bind::WriteError> {
        const REASON: &str = "Unschedulable";
        let old = &pod.condition;
        let same = old.status == "False" && old.reason == REASON && old.message == message;
        let nominated = match nomination {
            Nomination::Keep => None,
            Nomination::Clear => pod.nominated.is_some().then_some(Value::Null),
            Nomination::Node(node) => (pod.nominated.as_ref() != Some(node)).then(|| json!(&**node)),
        };
        if same && nominated.is_none() {
            return Ok(());
        }
        let mut condition =
            json!({"type": "PodScheduled", "status": "False", "reason": REASON, "message": message});
        if old.status != "False"
            && let Some(map) = condition.as_object_mut()
        {
            map.insert("lastTransitionTime".into(), format_second(self.clock.now()).into());
        }
        let mut status = json!({"conditions": [condition]});
        if let (Some(nominated), Some(status)) = (nominated, status.as_object_mut()) {
            status.insert("nominatedNodeName".into(), nominated);
        }
        let patch = json!({"metadata": {"uid": &*pod.uid}, "status": status});
        let pods = Api::<Pod>::namespaced(self.client.clone(), &pod.key.namespace);
        let (parameters, patch) = (PatchParams::default(), Patch::Strategic(&patch));
        let write = pods.patch_status(&pod.key.name, &parameters, &patch);
        within(|| format!("set condition PodScheduled of pod {}", pod.key), write).await.map(|_| ())
    }

    async fn about(
        &self,
        pod: &PodInfo,
        kind: &'static str,
        reason: &'static str,
        action: &'static str,
        note: &str,
    ) -> Result<(), crate::bind::WriteError> {
        let told = Told { kind, reason, action, note, related: None };
        self.event(&pod.scheduler_name, &pod.key, &pod.uid, told).await
    }

    async fn event(
        &self,
        controller: &str,
        about: &ObjectKey,
        uid: &str,
        told: Told<'_>,
    ) -> Result<(), crate::bind::WriteError> {
        // Upstream's bound on a note (events.k8s.io/v1 validation).
        const NOTE_MAX: usize = 1024;
        let Told { kind, reason, action, note, related } = told;
        let end = note.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&e| e <= NOTE_MAX).last();
        let mut event: Value = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {
                "name": format!("{}.{:016x}", about.name, self.random.next()),
                "namespace": about.namespace,
            },
            "eventTime": format_micro(self.clock.now()),
            "reportingController": controller,
            "reportingInstance": self.instance,
            "type": kind, "reason": reason, "action": action,
            "note": note.get(..end.unwrap_or(0)).unwrap_or_default(),
            "regarding": reference(about, uid),
        });
        if let (Some(related), Some(event)) = (related, event.as_object_mut()) {
            event.insert("related".into(), related);
        }
        let what = || format!("create event {reason} of pod {about}");
        let event: Event = match serde_json::from_value(event) {
            Ok(event) => event,
            Err(error) => {
                let source = Box::new(kube::Error::SerdeError(error));
                return Err(crate::bind::WriteError::Refused { what: what(), source });
            }
        };
        let events = Api::<Event>::namespaced(self.client.clone(), &about.namespace);
        let parameters = PostParams::default();
        within(what, events.create(&parameters, &event)).await.map(|_| ())
    }
}

/// The words of an event.
struct Told<'a> {
    kind: &'static str,
    reason: &'static str,
    action: &'static str,
    note: &'a str,
    related: Option<Value>,
}

fn reference(pod: &ObjectKey, uid: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": uid})
}
