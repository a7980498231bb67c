//! Says in each FlowSchema whether its priority level is there: its condition `Dangling`, as upstream's
//! `presyncFlowSchemaStatus` in `apf_controller.go`.
//!
//! Guarantees: the condition follows the objects, whoever writes something else into it; servers that disagree write no
//! schema more than six times a minute. What a schema without its level does to requests is [`super::Flow`]'s.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use meta::{Condition, Object, ObjectKey, Reason, Status, Value, format_second};
use resource::Resource;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::GROUP;
use crate::rest::{Caller, Duplicates, ListOptions, Patch, PatchKind, Rest, Target, Watch};

/// Upstream's owner of the condition.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// How often everything is looked at without a change, for what could not be watched or written.
const EVERY: Duration = Duration::from_secs(30);
/// Changes that come together are one.
const GATHER: Duration = Duration::from_millis(100);
/// Writes of one schema within [`MINUTE`], upstream's: servers that see different levels do not fight without end.
const WRITES_MAX: usize = 6;
const MINUTE: Duration = Duration::from_secs(60);

/// Keeps the conditions true, until it is dropped. Never ends; does nothing where there are no flow schemas.
pub(super) async fn follow(rest: &Rest) {
    let kind = |plural| rest.registry().resolve(GROUP, "v1", plural);
    let (Some(schemas), Some(levels)) = (kind("flowschemas"), kind("prioritylevelconfigurations")) else {
        return std::future::pending().await;
    };
    let mut watches = [(&schemas, None), (&levels, None)];
    let mut writes = Writes::default();
    loop {
        // Watched before it is looked at, so that no change is missed.
        for (kind, watch) in &mut watches {
            if watch.is_none() {
                let options = ListOptions { skip_initial_events: true, ..ListOptions::default() };
                *watch = rest.watch(kind, None, &options).await.ok();
            }
        }
        settle(rest, &schemas, &levels, &mut writes).await;
        let [(_, schema), (_, level)] = &mut watches;
        tokio::select! {
            () = sleep(EVERY) => continue,
            () = changed(schema) => {}
            () = changed(level) => {}
        }
        sleep(GATHER).await;
        while changed(schema).now_or_never().or_else(|| changed(level).now_or_never()).is_some() {}
    }
}

async fn changed(watch: &mut Option<Watch>) {
    let Some(open) = watch else { return std::future::pending().await };
    if !matches!(open.next().await, Some(Ok(_))) {
        // Broken or over: opened anew before the next look.
        *watch = None;
    }
}

/// When each schema was written of late.
#[derive(Default)]
struct Writes(BTreeMap<String, VecDeque<Instant>>);

impl Writes {
    /// Whether the schema may be written now; then it is taken for written.
    fn may(&mut self, name: &str) -> bool {
        let now = Instant::now();
        let of = self.0.entry(name.to_owned()).or_default();
        while of.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            of.pop_front();
        }
        let may = of.len() < WRITES_MAX;
        if may {
            of.push_back(now);
        }
        may
    }
}

/// Writes every condition that is not as it should be. What fails is tried again at the next look.
async fn settle(rest: &Rest, schemas: &Arc<Resource>, levels: &Arc<Resource>, writes: &mut Writes) {
    let all = |kind: &Resource| rest.cache().kind(&kind.stored_as).snapshot();
    let levels = all(levels);
    let levels: BTreeSet<&str> = levels.range(None, None).map(|entry| &*entry.header.key.name).collect();
    let schemas_now = all(schemas);
    writes.0.retain(|name, _| schemas_now.get(&ObjectKey::new("", &**name)).is_some());
    for entry in schemas_now.range(None, None) {
        // A damaged one is told of where it is used.
        let Ok(object) = entry.object() else { continue };
        let Some(condition) = due(&object, &levels) else { continue };
        let name = object.name();
        if !writes.may(name) {
            continue;
        }
        match write(rest, schemas, name, &condition).await {
            Ok(()) => {}
            Err(status) if status.reason == Some(Reason::NotFound) => {}
            Err(status) => tracing::warn!(name, %status, "write the condition of a FlowSchema"),
        }
    }
}

/// The condition that the schema should have; `None` where it has it.
fn due(schema: &Object, levels: &BTreeSet<&str>) -> Option<Condition> {
    let level = schema.str(&["spec", "priorityLevelConfiguration", "name"]).unwrap_or_default();
    let names = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let condition = match levels.contains(level) {
        true => Condition::new("Dangling", false, "Found").message(format!("{names} and it exists")),
        false => Condition::new("Dangling", true, "NotFound")
            .message(format!("{names} but there is no such object")),
    };
    let has = meta::find_condition(schema, &condition.r#type);
    let is = |field: &str, value: &str| has.and_then(|has| has.get(field)?.as_str()) == Some(value);
    let same = is("status", condition.status.as_str())
        && is("reason", &condition.reason)
        && is("message", &condition.message);
    (!same).then_some(condition)
}

async fn write(
    rest: &Rest,
    schemas: &Arc<Resource>,
    name: &str,
    condition: &Condition,
) -> Result<(), Status> {
    let body: Value = json!({
        "apiVersion": schemas.api_version(), "kind": &*schemas.kind, "metadata": {"name": name},
        "status": {"conditions": [{
            "type": condition.r#type, "status": condition.status.as_str(), "reason": condition.reason,
            "message": condition.message, "lastTransitionTime": format_second(rest.clock().now()),
        }]},
    });
    let caller = Caller { field_manager: MANAGER.to_owned(), ..Caller::server() };
    let target = Target { key: ObjectKey::new("", name), subresource: "status".to_owned() };
    let kind = PatchKind::Apply { force: true };
    let patch = Patch { kind, body, duplicates: Duplicates::default() };
    rest.patch(&caller, schemas, &target, patch).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Cache, Registry,
        rest::{DeleteOptions, Parts},
    };

    struct Cluster {
        rest: Rest,
        schemas: Arc<Resource>,
        levels: Arc<Resource>,
    }

    impl Cluster {
        async fn start() -> Self {
            let registry = Arc::new(Registry::new());
            registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
            let store = store::Memory::new();
            let cache = Arc::new(Cache::load(&store, &registry).await.unwrap());
            let kind = |plural| registry.resolve(GROUP, "v1", plural).unwrap();
            let (schemas, levels) = (kind("flowschemas"), kind("prioritylevelconfigurations"));
            let (rest, _task) = Rest::start(Parts {
                store: Arc::new(store),
                cache,
                registry,
                admission: Vec::new(),
                clock: Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap())),
                random: Arc::new(meta::Seeded::new(1)),
            });
            Self { rest, schemas, levels }
        }

        async fn create(&self, kind: &Arc<Resource>, name: &str, spec: Value) {
            let object = Object::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
            self.rest.create(&Caller::server(), kind, "", object, Duplicates::default()).await.unwrap();
        }

        async fn schema(&self, name: &str, level: &str) {
            let subject = json!({"kind": "User", "user": {"name": "jane"}});
            let path = json!({"verbs": ["*"], "nonResourceURLs": ["*"]});
            let rules = json!([{"subjects": [subject], "nonResourceRules": [path]}]);
            let spec = json!({"priorityLevelConfiguration": {"name": level}, "rules": rules});
            self.create(&self.schemas, name, spec).await;
        }

        async fn level(&self, name: &str) {
            let limited = json!({"limitResponse": {"type": "Reject"}});
            self.create(&self.levels, name, json!({"type": "Limited", "limited": limited})).await;
        }

        /// Status, reason and message of the condition, after everybody had time to write.
        async fn dangling(&self, name: &str) -> Value {
            sleep(GATHER * 3).await;
            let entry =
                self.rest.cache().kind(&self.schemas.stored_as).get(&ObjectKey::new("", name)).unwrap();
            let object = entry.object().unwrap();
            assert!(
                meta::find_condition(&object, "Dangling").is_some()
                    || object.list(&["status", "conditions"]).is_empty()
            );
            let condition = meta::find_condition(&object, "Dangling").cloned().unwrap_or_default();
            json!([condition["status"], condition["reason"], condition["message"]])
        }
    }

    fn says(status: &str, reason: &str, rest: &str) -> Value {
        let message =
            format!("This FlowSchema references the PriorityLevelConfiguration object named \"gold\" {rest}");
        json!([status, reason, message])
    }

    #[tokio::test(start_paused = true)]
    async fn a_schema_says_whether_its_level_is_there() {
        let cluster = Cluster::start().await;
        let rest = cluster.rest.clone();
        let task = tokio::spawn(async move { follow(&rest).await });
        let missing = || says("True", "NotFound", "but there is no such object");
        cluster.schema("one", "gold").await;
        assert_eq!(cluster.dangling("one").await, missing());
        cluster.level("gold").await;
        let found = says("False", "Found", "and it exists");
        assert_eq!(cluster.dangling("one").await, found);
        cluster.schema("two", "gold").await;
        assert_eq!(cluster.dangling("two").await, found);
        let key = ObjectKey::new("", "gold");
        let (caller, options) = (Caller::server(), DeleteOptions::default());
        cluster.rest.delete(&caller, &cluster.levels, &key, &options).await.unwrap();
        assert_eq!((cluster.dangling("one").await, cluster.dangling("two").await), (missing(), missing()));
        // Whoever says something else is corrected, six times a minute.
        let lie = json!({"status": {"conditions": [{"type": "Dangling", "status": "False"}]}});
        let target = Target { key: ObjectKey::new("", "two"), subresource: "status".to_owned() };
        let mut said = Vec::new();
        for _ in 0..6 {
            let patch =
                Patch { kind: PatchKind::Merge, body: lie.clone(), duplicates: Duplicates::default() };
            cluster.rest.patch(&caller, &cluster.schemas, &target, patch).await.unwrap();
            said.push(cluster.dangling("two").await == missing());
        }
        assert_eq!(said, [true, true, true, true, false, false]);
        sleep(MINUTE + EVERY).await;
        assert_eq!(cluster.dangling("two").await, missing());
        task.abort();
    }
}
