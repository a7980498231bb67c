//! Events for the user, without spam.
//!
//! A repeated note becomes a series on the first event instead of a new object, written at its 2nd,
//! 4th, 8th, ... occurrence (upstream's `EventSeries` is likewise written rarely); and one object may
//! cause at most [`BURST`] new events, one more every 5 minutes (client-go's `EventSourceObjectSpamFilter`).
//! A failure to write an event is logged and is never the failure of a reconciliation.

use std::collections::{HashMap, VecDeque};

use k8s_openapi::api::{core::v1::ObjectReference, events::v1::Event};
use kube::Resource;
use meta::{ObjectKey, Timestamp, format_micro};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Child, Context, Kind, Write, act::send, reference_to};

/// New events one object may cause at once.
const BURST: u32 = 25;
/// One more every so many seconds.
const REFILL_S: i64 = 300;
/// A note not repeated for this long begins a new event (upstream `finishTime`, 6 minutes).
const SERIES_S: i64 = 360;
/// How many notes and objects are remembered; client-go's aggregator keeps as many.
const REMEMBERED: usize = 4096;

/// Upstream's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Severity {
    /// Things go as they should.
    Normal,
    /// Something needs a look.
    Warning,
}

/// One thing to tell the user about an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// What it is about.
    pub regarding: ObjectReference,
    /// Normal or Warning.
    pub severity: Severity,
    /// One CamelCase word: why.
    pub reason: String,
    /// One CamelCase word: what was done.
    pub action: String,
    /// For a reader; at most 1024 bytes are kept.
    pub message: String,
}

impl Note {
    /// A normal note about a typed object.
    pub fn normal<K: Resource<DynamicType = ()>>(
        object: &K,
        reason: &str,
        action: &str,
        message: impl Into<String>,
    ) -> Self {
        Self::about(object, Severity::Normal, reason, action, message.into())
    }

    /// A warning about a typed object.
    pub fn warning<K: Resource<DynamicType = ()>>(
        object: &K,
        reason: &str,
        action: &str,
        message: impl Into<String>,
    ) -> Self {
        Self::about(object, Severity::Warning, reason, action, message.into())
    }

    fn about<K: Resource<DynamicType = ()>>(
        object: &K,
        severity: Severity,
        reason: &str,
        action: &str,
        message: String,
    ) -> Self {
        // Without the version: the same note about a later version is the same note.
        let regarding = ObjectReference { resource_version: None, ..reference_to(object) };
        Self { regarding, severity, reason: reason.to_owned(), action: action.to_owned(), message }
    }
}

/// Writes notes as `events.k8s.io/v1` events of one reporting controller.
pub struct Recorder {
    reporter: String,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    series: Recent<String, Series>,
    budgets: Recent<String, Budget>,
}

#[derive(Clone)]
struct Series {
    key: ObjectKey,
    count: i32,
    last: Timestamp,
}

#[derive(Clone, Copy)]
struct Budget {
    left: u32,
    since: Timestamp,
}

impl Recorder {
    /// A recorder for the controller called `reporter`, such as `keelson-deployment`.
    pub fn new(reporter: impl Into<String>) -> Self {
        Self { reporter: reporter.into(), memory: Mutex::default() }
    }

    /// Tells of `note`, unless it would be spam.
    pub async fn tell(&self, cx: &Context, note: &Note) {
        let Some(child) = self.decide(note, cx.clock.now(), cx) else { return };
        if let Err(error) = send(&cx.client, &self.reporter, &child).await {
            // There is no such event: the next occurrence has to make one.
            self.memory.lock().series.remove(&identity(note));
            if !error.is_namespace_terminating() {
                let error = error.text();
                tracing::warn!(reason = note.reason, key = %child.key, error, "cannot write event");
            }
        }
    }

    fn decide(&self, note: &Note, now: Timestamp, cx: &Context) -> Option<Child> {
        let uid = note.regarding.uid.clone().unwrap_or_default();
        let id = identity(note);
        let mut memory = self.memory.lock();
        if let Some(series) = memory.series.get_mut(&id)
            && now.as_second() - series.last.as_second() < SERIES_S
        {
            series.count = series.count.saturating_add(1);
            series.last = now;
            return u32::try_from(series.count).is_ok_and(u32::is_power_of_two).then(|| repeat(series));
        }
        let budget = memory.budgets.entry(uid, Budget { left: BURST, since: now });
        let earned = (now.as_second() - budget.since.as_second()) / REFILL_S;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            *budget = Budget { left: budget.left.saturating_add(earned).min(BURST), since: now };
        }
        budget.left = budget.left.checked_sub(1)?;
        let namespace =
            note.regarding.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        let name =
            format!("{}.{:016x}", note.regarding.name.as_deref().unwrap_or("unknown"), cx.random.next());
        let key = ObjectKey::new(namespace, name);
        memory.series.put(id, Series { key: key.clone(), count: 1, last: now });
        Some(self.event(note, key, now))
    }

    fn event(&self, note: &Note, key: ObjectKey, now: Timestamp) -> Child {
        let mut message = note.message.clone();
        let mut end = message.len().min(1024);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        let body = json!({
            "metadata": { "name": key.name, "namespace": key.namespace },
            "eventTime": format_micro(now),
            "reportingController": self.reporter,
            "reportingInstance": self.reporter,
            "regarding": note.regarding,
            "type": note.severity,
            "reason": note.reason,
            "action": note.action,
            "note": message,
        });
        Child::object(Kind::of::<Event>(), key, Write::Create, body)
    }
}

/// Notes with the same identity are one series.
fn identity(note: &Note) -> String {
    let Note { regarding, severity, reason, action, message } = note;
    format!("{}/{severity:?}/{reason}/{action}/{message}", regarding.uid.as_deref().unwrap_or_default())
}

fn repeat(series: &Series) -> Child {
    let body: Value =
        json!({ "series": { "count": series.count, "lastObservedTime": format_micro(series.last) } });
    Child {
        kind: Kind::of::<Event>(),
        key: series.key.clone(),
        write: Write::Patch(None),
        body,
        announce: None,
    }
}

/// A map of the most recently added; the oldest goes when it is full.
struct Recent<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Recent<K, V> {
    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    fn remove(&mut self, key: &K) {
        if self.map.remove(key).is_some() {
            self.order.retain(|present| present != key);
        }
    }

    fn put(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
    }

    fn entry(&mut self, key: K, or: V) -> &mut V {
        if !self.map.contains_key(&key) {
            self.order.push_back(key.clone());
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
        }
        self.map.entry(key).or_insert(or)
    }
}
