//! What a plan looks at.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::ResourceExt;
use meta::ObjectKey;
use reconcile::{Context, Result};

use crate::{
    children::Names,
    types::Database,
    validate::{Valid, Wrong, validate},
};

/// One Database and what there is of it.
pub struct World {
    pub(crate) database: Arc<Database>,
    pub(crate) valid: std::result::Result<Valid, Wrong>,
    pub(crate) stateful_set: Option<Arc<StatefulSet>>,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) headless: Option<Arc<Service>>,
    pub(crate) config: Option<Arc<ConfigMap>>,
    pub(crate) budget: Option<Arc<PodDisruptionBudget>>,
    /// The Secret that holds, or shall hold, the password.
    pub(crate) secret: Option<Arc<Secret>>,
    /// Members, in order of name.
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) claims: Vec<Arc<PersistentVolumeClaim>>,
    /// A password for the case that one has to be made; used at most once.
    pub(crate) fresh_password: String,
}

/// Letters and digits of a generated password: about 190 bits.
const PASSWORD_LENGTH: usize = 40;

pub(crate) async fn observe(cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
    let stores = &cx.stores;
    let Some(database) = stores.ready::<Database>().await.get(key) else { return Ok(None) };
    let valid = validate(&database);
    let near = |name: String| ObjectKey::new(key.namespace.as_str(), name);
    let services = stores.ready::<Service>().await;
    let secret = match &valid {
        Ok(valid) => stores.ready::<Secret>().await.get(&near(valid.password.key().name.clone())),
        Err(_) => None,
    };
    let pods = stores.ready::<Pod>().await.in_namespace(&key.namespace);
    let claims = stores.ready::<PersistentVolumeClaim>().await.in_namespace(&key.namespace);
    Ok(Some(World {
        stateful_set: stores.ready::<StatefulSet>().await.get(key),
        service: services.get(&near(Names::service(&key.name))),
        headless: services.get(&near(Names::headless(&key.name))),
        config: stores.ready::<ConfigMap>().await.get(&near(Names::config(&key.name))),
        budget: stores.ready::<PodDisruptionBudget>().await.get(key),
        secret,
        pods: pods.into_iter().filter(|pod| is_member(&**pod, &key.name)).collect(),
        claims: claims.into_iter().filter(|claim| is_member(&**claim, &key.name)).collect(),
        fresh_password: password(cx),
        database,
        valid,
    }))
}

fn is_member(object: &impl ResourceExt, name: &str) -> bool {
    let labels = object.labels();
    labels.get("app.kubernetes.io/managed-by").is_some_and(|manager| manager == "database-operator")
        && labels.get("app.kubernetes.io/instance").is_some_and(|instance| instance == name)
}

fn password(cx: &Context) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
    let letter = |_| {
        let at = usize::try_from(cx.random.below(ALPHABET.len() as u64)).unwrap_or(0);
        char::from(*ALPHABET.get(at).unwrap_or(&b'x'))
    };
    (0..PASSWORD_LENGTH).map(letter).collect()
}
