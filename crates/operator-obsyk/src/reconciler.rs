//! The controller of ObsykAgents: reads what an agent should run with, has it run so, and says how it goes.
//!
//! An edit of the spec, other credentials or another cluster replace the agent, and each start begins with a
//! snapshot. A Secret that is gone stops it; one that cannot be read keeps the agent that runs with the old.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use meta::{ObjectKey, Timestamp};
use reconcile::{Context, Error, Plan, Progress, Reconciler, Result, Watches};
use tokio::sync::watch;

use crate::{
    fleet::{Fleet, Run},
    status::status,
    stream::{Report, Settings},
    types::ObsykAgent,
    validate::{Valid, validate},
    wire::Credentials,
};

/// How soon a rotated Secret is noticed: one read of one object each time.
const RECHECK: Duration = Duration::from_secs(30);

/// Reconciles ObsykAgents.
pub(crate) struct Agents {
    pub(crate) fleet: Arc<Fleet>,
    /// Keeps the feed of keys open; it has nothing to list.
    fed: watch::Sender<Progress>,
}

impl Agents {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        let progress = Progress { lists_done: 1, ..Progress::default() };
        Self { fleet, fed: watch::channel(progress).0 }
    }
}

/// What a plan looks at.
pub(crate) struct World {
    pub(crate) key: ObjectKey,
    /// None once it is deleted.
    pub(crate) agent: Option<Arc<ObsykAgent>>,
    pub(crate) wanted: Wanted,
    pub(crate) running: Option<(Settings, Report)>,
    fleet: Arc<Fleet>,
}

/// What the agent should run with.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// It is deleted.
    Gone,
    /// The spec cannot be followed; why.
    BadSpec(String),
    /// There is no such Secret.
    NoSecret(String),
    /// The Secret is not what it should be; the rest is fine.
    BadSecret(String),
    /// Everything is there.
    Settings(Box<Settings>),
}

impl Reconciler for Agents {
    type World = World;
    const NAME: &'static str = "obsyk-operator";

    fn watches(&self) -> Watches {
        let (fleet, fed) = (Arc::clone(&self.fleet), self.fed.clone());
        Watches::of::<ObsykAgent>().fed_by(move |_, enqueue| {
            fleet.notify(enqueue);
            fed.subscribe()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let live = cx.stores.ready::<ObsykAgent>().await.get(key);
        let agent = live.filter(|agent| agent.metadata.deletion_timestamp.is_none());
        let wanted = match &agent {
            None => Wanted::Gone,
            Some(agent) => match validate(&agent.spec) {
                Err(why) => Wanted::BadSpec(why),
                Ok(valid) => wanted(cx, key, valid, self.fleet.fence).await?,
            },
        };
        let running = self.fleet.find(key);
        if agent.is_none() && running.is_none() {
            return Ok(None);
        }
        Ok(Some(World { key: key.clone(), agent, wanted, running, fleet: Arc::clone(&self.fleet) }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let World { key, agent, wanted, running, fleet } = world;
        let mut plan = Plan::default();
        let current = running.as_ref().map(|(settings, _)| settings);
        let next = match wanted {
            Wanted::Gone | Wanted::BadSpec(_) | Wanted::NoSecret(_) => None,
            Wanted::BadSecret(_) => current,
            Wanted::Settings(settings) => Some(&**settings),
        };
        if next != current {
            let settings = next.cloned();
            plan.effects.push(Box::new(Run { fleet: Arc::clone(fleet), key: key.clone(), settings }));
        }
        if let Some(agent) = agent {
            plan.set_status(&**agent, &status(agent, wanted, running.as_ref(), now));
            plan.recheck_after = Some(RECHECK);
        }
        plan
    }
}

/// Reads the Secret and the cluster's identity, uncached: no other Secret is read for it.
async fn wanted(cx: &Context, key: &ObjectKey, valid: Valid, fence: u64) -> Result<Wanted> {
    let name = &valid.secret;
    let secrets = Api::<Secret>::namespaced(cx.client.clone(), &key.namespace);
    let secret =
        secrets.get_opt(name).await.map_err(Error::read(format!("secret {}/{name}", key.namespace)))?;
    let Some(secret) = secret else {
        return Ok(Wanted::NoSecret(format!(
            "there is no Secret {name} in namespace {}: create it with client_id and private_key",
            key.namespace
        )));
    };
    let data = secret.data.unwrap_or_default();
    let value = |key: &str| data.get(key).map(|value| value.0.as_slice());
    let credentials = match Credentials::parse(value("client_id"), value("private_key")) {
        Ok(credentials) => credentials,
        Err(why) => return Ok(Wanted::BadSecret(format!("Secret {name}: {why}"))),
    };
    let authorities = value("ca.crt").map(<[u8]>::to_vec);
    if authorities.as_deref().is_some_and(|pem| crate::wire::authorities(pem).is_none()) {
        return Ok(Wanted::BadSecret(format!("Secret {name}: {}", crate::wire::KeyError::Authority)));
    }
    let namespaces = Api::<Namespace>::all(cx.client.clone());
    let system = namespaces.get("kube-system").await.map_err(Error::read("namespace kube-system"))?;
    let cluster_uid = system.metadata.uid.unwrap_or_default();
    Ok(Wanted::Settings(Box::new(Settings { valid, credentials, cluster_uid, authorities, fence })))
}
