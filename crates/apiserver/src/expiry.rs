//! Drops objects of kinds that are kept for a time only, such as events: so long after their last write as
//! the kind's `Strategy::time_to_live` says.
//!
//! Guarantees: an object stays at least its time, by the server's clock, and goes at most one round later; an
//! object that is written while it is being dropped stays. When it was written is read from the object, so
//! that the time goes on over restarts. Deliberately without leases: the store's five verbs know no time.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use meta::{Entry, GroupResource, Timestamp};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::rest::Rest;

/// Between two rounds: how much too long an object may be kept.
const EVERY: Duration = Duration::from_secs(60);
/// Objects looked at before others have their turn on this thread: about a millisecond's worth.
const READ_MAX: usize = 512;

/// Drops what has had its time, until `stop`. A failure is logged and made up for by the next round.
pub async fn run(rest: Rest, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        for (kind, time) in timed(&rest) {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sweep(&rest, &kind, time) => {}
            }
        }
    }
}

/// The stored kinds whose objects have a time, once each.
fn timed(rest: &Rest) -> BTreeMap<GroupResource, Duration> {
    let all = rest.registry().all();
    all.iter().filter_map(|of| Some((of.stored_as.clone(), of.strategy.time_to_live()?))).collect()
}

async fn sweep(rest: &Rest, kind: &GroupResource, time: Duration) {
    let Ok(since) = rest.clock().now().checked_sub(time) else { return };
    let snapshot = rest.cache().kind(kind).snapshot();
    let mut old: Vec<Arc<Entry>> = Vec::new();
    for (at, entry) in snapshot.range(None, None).enumerate() {
        if at % READ_MAX == READ_MAX - 1 {
            tokio::task::yield_now().await;
        }
        if last_write(&entry.bytes).is_some_and(|at| at < since) {
            old.push(entry.clone());
        }
    }
    if old.is_empty() {
        return;
    }
    match rest.discard(kind, old).await {
        Ok(count) => tracing::debug!(%kind, count, "dropped objects that had their time"),
        Err(status) => tracing::warn!(%kind, %status, "drop objects that had their time"),
    }
}

#[derive(Deserialize)]
struct Shell<'a> {
    #[serde(borrow)]
    metadata: Times<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times<'a> {
    #[serde(borrow)]
    creation_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    managed_fields: Vec<Managed<'a>>,
}

#[derive(Deserialize)]
struct Managed<'a> {
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
}

/// When an object was last written: the newest time in its `managedFields`, which the server keeps, or its
/// creation where that is newer or fields are not tracked.
fn last_write(json: &[u8]) -> Option<Timestamp> {
    let Shell { metadata } = serde_json::from_slice(json).ok()?;
    let managed = metadata.managed_fields.iter().filter_map(|entry| entry.time.as_deref());
    let times = managed.chain(metadata.creation_timestamp.as_deref());
    times.filter_map(|time| time.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use meta::{Clock as _, Object, ObjectKey};
    use serde_json::json;

    use super::*;
    use crate::{
        Cache, Registry,
        rest::{Caller, Parts, Patch, PatchKind, Target},
    };

    #[test]
    fn the_newest_time_counts() {
        for (metadata, expected) in [
            (json!({"creationTimestamp": "2026-01-01T00:00:00Z"}), Some("2026-01-01T00:00:00Z")),
            (
                json!({"creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [
                    {"time": "2026-01-01T00:30:00Z", "fieldsV1": {"f:count": {}}}, {"manager": "m"}]}),
                Some("2026-01-01T00:30:00Z"),
            ),
            (json!({"name": "e"}), None),
        ] {
            let object = json!({ "metadata": metadata }).to_string();
            assert_eq!(last_write(object.as_bytes()), expected.map(|at| at.parse().unwrap()), "{object}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_go_an_hour_after_their_last_write() {
        let registry = Arc::new(Registry::new());
        registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
        let store = store::Memory::new();
        let cache = Arc::new(Cache::load(&store, &registry).await.unwrap());
        let clock = Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let (rest, _task) = Rest::start(Parts {
            store: Arc::new(store),
            cache,
            registry: registry.clone(),
            admission: Vec::new(),
            clock: clock.clone(),
            random: Arc::new(meta::Seeded::new(1)),
        });
        let caller = Caller { field_manager: "test".to_owned(), ..Caller::default() };
        let events = registry.resolve("", "v1", "events").unwrap();
        let maps = registry.resolve("", "v1", "configmaps").unwrap();
        for (resource, name) in [(&events, "once"), (&events, "again"), (&maps, "kept")] {
            let mut value = json!({"metadata": {"name": name}});
            if &*resource.plural == "events" {
                value["involvedObject"] = json!({"kind": "Pod", "namespace": "default", "name": "p"});
            }
            let object = Object::from_value(value).unwrap();
            rest.create(&caller, resource, "default", object, crate::rest::Duplicates::default())
                .await
                .unwrap();
        }
        let names = || -> Vec<String> {
            let all = [&events, &maps].map(|of| rest.cache().kind(&of.stored_as).snapshot());
            all.iter().flat_map(|s| s.range(None, None)).map(|e| e.header.key.name.clone()).collect()
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(rest.clone(), stop.clone()));
        let pass = |seconds: i64| {
            clock.set(clock.now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap());
            tokio::time::sleep(EVERY + Duration::from_secs(1))
        };
        pass(1_800).await;
        let target = Target { key: ObjectKey::new("default", "again"), subresource: String::new() };
        let patch = Patch {
            kind: PatchKind::Merge,
            body: json!({"count": 2}),
            duplicates: crate::rest::Duplicates::default(),
        };
        rest.patch(&caller, &events, &target, patch).await.unwrap();
        pass(1_800).await;
        assert_eq!(names(), ["again", "once", "kept"]);
        pass(1).await;
        assert_eq!(names(), ["again", "kept"]);
        pass(1_800).await;
        assert_eq!(names(), ["kept"]);
        stop.cancel();
        task.await.unwrap();
    }
}
