//! The objects of one namespace that make a farm, and how they refer to each other.

use std::sync::Arc;

use kube::{Resource, ResourceExt};
use reconcile::{Context, Store};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    types::{
        BuildbarnBrowser, BuildbarnFrontend, BuildbarnScheduler, BuildbarnStorage, BuildbarnWorker, Reference,
    },
    verdict::Verdict,
};

/// All objects of one namespace, in order of name.
#[derive(Clone, Default)]
pub(crate) struct Farm {
    pub(crate) schedulers: Vec<Arc<BuildbarnScheduler>>,
    pub(crate) workers: Vec<Arc<BuildbarnWorker>>,
    pub(crate) storages: Vec<Arc<BuildbarnStorage>>,
    pub(crate) frontends: Vec<Arc<BuildbarnFrontend>>,
    pub(crate) browsers: Vec<Arc<BuildbarnBrowser>>,
}

impl Farm {
    /// Reads the farm of a namespace.
    pub(crate) async fn read(cx: &Context, namespace: &str) -> Self {
        Self {
            schedulers: live(&*cx.stores.ready().await, namespace),
            workers: live(&*cx.stores.ready().await, namespace),
            storages: live(&*cx.stores.ready().await, namespace),
            frontends: live(&*cx.stores.ready().await, namespace),
            browsers: live(&*cx.stores.ready().await, namespace),
        }
    }

    /// The storage that is meant.
    pub(crate) fn storage(&self, by: Option<&Reference>) -> Result<&BuildbarnStorage, Verdict> {
        one(&self.storages, by, "spec.storageRef")
    }

    /// The scheduler that is meant.
    pub(crate) fn scheduler(&self, by: Option<&Reference>) -> Result<&BuildbarnScheduler, Verdict> {
        one(&self.schedulers, by, "spec.schedulerRef")
    }

    /// The browser that is meant; none is no fault unless it was named.
    pub(crate) fn browser(&self, by: Option<&Reference>) -> Result<Option<&BuildbarnBrowser>, Verdict> {
        match (by, self.browsers.as_slice()) {
            (None, [only]) => Ok(Some(only)),
            (None, _) => Ok(None),
            (Some(_), _) => one(&self.browsers, by, "spec.browserRef").map(Some),
        }
    }
}

fn live<K>(store: &Store<K>, namespace: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let mut all = store.in_namespace(namespace);
    all.retain(|object| object.meta().deletion_timestamp.is_none());
    all
}

fn one<'a, K>(all: &'a [Arc<K>], by: Option<&Reference>, field: &str) -> Result<&'a K, Verdict>
where
    K: Resource<DynamicType = ()>,
{
    let kind = K::kind(&());
    match (by, all) {
        (Some(by), _) => {
            all.iter().find(|object| object.name_any() == by.name).map(|found| &**found).ok_or_else(|| {
                let message = format!(
                    "{field}.name: there is no {kind} {:?} in this namespace: create it, or name another",
                    by.name
                );
                Verdict::not("ReferenceNotFound", message)
            })
        }
        (None, [only]) => Ok(only),
        (None, []) => {
            let message = format!("{field}: there is no {kind} in this namespace: create one");
            Err(Verdict::not("ReferenceNotFound", message))
        }
        (None, several) => {
            let names: Vec<String> = several.iter().map(|object| object.name_any()).collect();
            let message = format!(
                "{field}: there are several {kind} objects in this namespace, name one of: {}",
                names.join(", ")
            );
            Err(Verdict::not("ReferenceAmbiguous", message))
        }
    }
}
