//! Following APIServices, and keeping those of custom resources.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use meta::{GroupVersion, Object, ObjectKey, Status, Value};
use resource::Resource;
use serde_json::json;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{
    Aggregation,
    attend::{attend, report},
    check,
    remote::{Remote, group_version, is_remote},
};
use crate::{
    cache::Happened,
    rest::{Caller, DeleteOptions, Duplicates, ListOptions},
};

/// Says that this server made an APIService and keeps it.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Priorities of the groups of custom resources, upstream's.
const CUSTOM_GROUP_PRIORITY: u32 = 1_000;
const CUSTOM_VERSION_PRIORITY: u32 = 100;
/// Pause before a broken watch is begun anew.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Kinds that come together are registered together.
const GATHER: Duration = Duration::from_millis(100);

/// Follows until it is dropped; at once for ever when there are no APIServices.
pub(super) async fn follow(layer: &Aggregation) {
    let rest = &layer.0.rest;
    let Some(services) = rest.registry().resolve("apiregistration.k8s.io", "v1", "apiservices") else {
        return std::future::pending().await;
    };
    let mut following =
        Following { layer: layer.clone(), services, attended: HashMap::new(), tasks: JoinSet::new() };
    loop {
        following.watch().await;
        sleep(RETRY_AFTER).await;
        // Those that went while no watch was open.
        let there = rest.cache().kind(&following.services.stored_as).snapshot();
        let gone = |name: &&String| there.get(&ObjectKey::new("", name.as_str())).is_none();
        let gone: Vec<String> = following.attended.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|name| following.let_go(name));
    }
}

struct Following {
    layer: Aggregation,
    /// The kind.
    services: Arc<Resource>,
    /// By name of the APIService.
    attended: HashMap<String, Attended>,
    tasks: JoinSet<()>,
}

struct Attended {
    /// What it was begun with.
    spec: Value,
    of: GroupVersion,
    task: AbortHandle,
}

impl Following {
    /// Until the watch breaks.
    async fn watch(&mut self) {
        let rest = self.layer.0.rest.clone();
        let mut served = rest.registry().changes();
        let mut watch = match rest.watch(&self.services, None, &ListOptions::default()).await {
            Ok(watch) => watch,
            Err(status) => return tracing::warn!(%status, "watch APIServices"),
        };
        self.register().await;
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                _ = served.changed() => {
                    sleep(GATHER).await;
                    served.mark_unchanged();
                    self.register().await;
                    continue;
                }
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => continue,
            };
            match event {
                None => return,
                Some(Err(status)) => return tracing::warn!(%status, "watch of APIServices broke"),
                Some(Ok(event)) if event.happened == Happened::Deleted => {
                    self.let_go(&event.entry.header.key.name);
                    self.register().await;
                }
                Some(Ok(event)) => match event.entry.object() {
                    Ok(object) => self.settle(&object).await,
                    Err(error) => tracing::error!(%error, "stored APIService is damaged"),
                },
            }
        }
    }

    /// Attends to whom an APIService names, or to nobody.
    async fn settle(&mut self, service: &Object) {
        let name = service.name();
        if !is_remote(service) {
            self.let_go(name);
            if let Err(status) = report(&self.layer.0.rest, &self.services, name, &check::local()).await {
                tracing::debug!(name, %status, "write the condition of a local APIService");
            }
            return;
        }
        let spec = service.get(&["spec"]).cloned().unwrap_or_default();
        if self.attended.get(name).is_some_and(|attended| attended.spec == spec) {
            return;
        }
        let registry = self.layer.0.rest.registry();
        let of = group_version(service);
        let mut remote = Remote::read(service, &self.layer.0.login);
        remote.seen = registry.remote(&of).and_then(|before| before.seen.clone());
        // Before what was attended is let go, so that nobody finds neither.
        registry.set_remote(remote.clone());
        let task = attend(self.layer.clone(), self.services.clone(), name.to_owned(), remote);
        let task = self.tasks.spawn(task);
        if let Some(before) = self.attended.insert(name.to_owned(), Attended { spec, of, task }) {
            before.task.abort();
        }
    }

    fn let_go(&mut self, name: &str) {
        if let Some(Attended { spec: _, of, task }) = self.attended.remove(name) {
            task.abort();
            self.layer.0.rest.registry().remove_remote(&of);
        }
    }

    /// Makes the APIServices of custom resources that have none, and removes those whose kinds are gone.
    async fn register(&self) {
        let rest = &self.layer.0.rest;
        let all = rest.registry().all();
        let custom = all.iter().filter(|resource| resource.custom);
        let custom: BTreeSet<(&str, &str)> = custom.map(|kind| (&*kind.group, &*kind.version)).collect();
        let there = rest.cache().kind(&self.services.stored_as).snapshot();
        for (group, version) in custom {
            let name = format!("{version}.{group}");
            if there.get(&ObjectKey::new("", name.as_str())).is_none() {
                self.note(&name, self.make(&name, group, version).await);
            }
        }
        for entry in there.range(None, None) {
            let managed = entry.header.labels.get(MANAGED).is_some_and(|how| how == "true");
            let name = &entry.header.key.name;
            let (version, group) = name.split_once('.').unwrap_or((name, ""));
            if managed && !rest.registry().serves(group, version) {
                let options =
                    DeleteOptions { uid: Some(entry.header.uid.clone()), ..DeleteOptions::default() };
                let caller = Caller::server();
                let deleted = rest.delete(&caller, &self.services, &entry.header.key, &options).await;
                self.note(name, deleted.map(|_| ()));
            }
        }
    }

    async fn make(&self, name: &str, group: &str, version: &str) -> Result<(), Status> {
        let service = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name, "labels": {MANAGED: "true"}},
            "spec": {"group": group, "version": version, "groupPriorityMinimum": CUSTOM_GROUP_PRIORITY,
                "versionPriority": CUSTOM_VERSION_PRIORITY},
        });
        let service = Object::from_value(service).unwrap_or_default();
        let rest = &self.layer.0.rest;
        rest.create(&Caller::server(), &self.services, "", service, Duplicates::default()).await.map(|_| ())
    }

    /// Another server on the same store may have been faster.
    fn note(&self, name: &str, done: Result<(), Status>) {
        if let Err(status) = done
            && !matches!(
                status.reason,
                Some(meta::Reason::AlreadyExists | meta::Reason::NotFound | meta::Reason::Conflict)
            )
        {
            tracing::warn!(name, %status, "keep the APIService of custom resources");
        }
    }
}
