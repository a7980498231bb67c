//! Watches of services and endpoint slices, as changes. Objects are projected as they arrive; what
//! went away during a broken watch is reported as gone.

use std::{collections::HashSet, fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::{core::v1::Service as WireService, discovery::v1::EndpointSlice};
use kube::{Api, Client, Resource, ResourceExt, runtime::watcher};
use meta::{ObjectKey, Random};
use reconcile::events;
use serde::de::DeserializeOwned;

use crate::services::{Change, Service, Slice};

/// Kinds that are watched; each says [`Signal::Synced`] once.
pub(crate) const KINDS: usize = 2;

/// What a watch says.
#[derive(Debug)]
pub(crate) enum Signal {
    /// Something changed.
    Change(Change),
    /// One more kind is known completely.
    Synced,
}

/// Services and slices. Never ends; broken watches are resumed as [`events`] says.
pub(crate) fn all(client: &Client, random: &Arc<dyn Random>) -> impl Stream<Item = Signal> + Send + use<> {
    stream::select_all([
        follow(
            Api::<WireService>::all(client.clone()),
            random,
            |service| Change::Service(Box::new(Service::read(&service))),
            Change::ServiceGone,
        ),
        follow(
            Api::<EndpointSlice>::all(client.clone()),
            random,
            |slice| Change::Slice(Box::new(Slice::read(&slice))),
            Change::SliceGone,
        ),
    ])
}

fn follow<K>(
    api: Api<K>,
    random: &Arc<dyn Random>,
    set: fn(K) -> Change,
    gone: fn(ObjectKey) -> Change,
) -> stream::BoxStream<'static, Signal>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut known = Known::default();
    events(api, watcher::Config::default(), random.clone())
        .flat_map(move |event| stream::iter(known.signals(event, set, gone)))
        .boxed()
}

/// Keys that were reported, to tell after a list what went away unseen.
#[derive(Default)]
struct Known {
    keys: HashSet<ObjectKey>,
    listed: HashSet<ObjectKey>,
    synced: bool,
}

impl Known {
    fn signals<K: Resource<DynamicType = ()>>(
        &mut self,
        event: watcher::Event<K>,
        set: fn(K) -> Change,
        gone: fn(ObjectKey) -> Change,
    ) -> Vec<Signal> {
        let key = |object: &K| ObjectKey {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        };
        match event {
            watcher::Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                self.listed.insert(key(&object));
                vec![Signal::Change(set(object))]
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let before = std::mem::replace(&mut self.keys, listed);
                let lost = before.into_iter().filter(|k| !self.keys.contains(k));
                let mut signals: Vec<Signal> = lost.map(|k| Signal::Change(gone(k))).collect();
                if !std::mem::replace(&mut self.synced, true) {
                    signals.push(Signal::Synced);
                }
                signals
            }
            watcher::Event::Apply(object) => {
                self.keys.insert(key(&object));
                vec![Signal::Change(set(object))]
            }
            watcher::Event::Delete(object) => {
                let key = key(&object);
                self.keys.remove(&key);
                vec![Signal::Change(gone(key))]
            }
        }
    }
}
