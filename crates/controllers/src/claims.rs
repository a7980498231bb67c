//! Which children a controller has, by owner reference and selector: it adopts matching orphans and
//! releases children that no longer match (upstream `controller_ref_manager.go`).

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::{
    Api, Resource, ResourceExt,
    core::{Selector, SelectorExt},
};
use reconcile::{Child, Context, Error, Kind, Plan, Result, Store, owner_reference};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// The children of one owner as its controller has to treat them.
pub(crate) struct Claims<K> {
    /// Controlled and matching.
    pub(crate) mine: Vec<Arc<K>>,
    /// Matching orphans, to become ours.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Controlled but no longer matching, to be let go.
    pub(crate) release: Vec<Arc<K>>,
}

/// A selector ready to match. An empty one selects nothing here: every workload's selector is required
/// to be non-empty, so an empty one is damage, not a wish for everything.
pub(crate) fn selector(selector: &LabelSelector) -> Result<Selector> {
    let parsed = Selector::try_from(selector.clone())
        .map_err(|error| Error::Rejected(format!("invalid label selector: {error}")))?;
    if parsed.selects_all() {
        return Err(Error::Rejected("the label selector is empty and would select every object".to_owned()));
    }
    Ok(parsed)
}

/// Whether the labels of `object` match.
pub(crate) fn matches<K: Resource>(selector: &Selector, object: &K) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(object.meta().labels.as_ref().unwrap_or(&NONE))
}

/// Sorts the objects of `store` into the claims of `owner`: those that match the selector and `fits`.
/// Before anything may be adopted, the owner
/// is read from the API itself: a cache may show an owner that is deleted, or another of that name.
pub(crate) async fn claim<O, K>(
    cx: &Context,
    owner: &O,
    selector: &Selector,
    store: &Store<K>,
    fits: impl Fn(&K) -> bool,
) -> Result<Claims<K>>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    K: Resource<DynamicType = ()> + Send + Sync + 'static,
{
    let uid = owner.uid().unwrap_or_default();
    let (mine, other): (Vec<_>, Vec<_>) = store
        .controlled_by(&uid)
        .into_iter()
        .partition(|object| matches(selector, &**object) && fits(object));
    let deleting = owner.meta().deletion_timestamp.is_some();
    let release =
        other.into_iter().filter(|object| !deleting && object.meta().deletion_timestamp.is_none()).collect();
    let namespace = owner.namespace().unwrap_or_default();
    let orphans = if deleting { Vec::new() } else { store.orphans(&namespace) };
    let mut adopt: Vec<Arc<K>> = orphans
        .into_iter()
        .filter(|object| {
            object.meta().deletion_timestamp.is_none() && matches(selector, &**object) && fits(object)
        })
        .collect();
    if !adopt.is_empty() && !may_adopt(cx, owner, &namespace, &uid).await? {
        adopt.clear();
    }
    Ok(Claims { mine, adopt, release })
}

async fn may_adopt<O>(cx: &Context, owner: &O, namespace: &str, uid: &str) -> Result<bool>
where
    O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let name = owner.name_any();
    let live = Api::<O>::namespaced(cx.client.clone(), namespace).get_opt(&name).await;
    let live = live.map_err(Error::read(format!("{} {namespace}/{name}", Kind::of::<O>())))?;
    Ok(live.is_some_and(|live| {
        live.meta().uid.as_deref() == Some(uid) && live.meta().deletion_timestamp.is_none()
    }))
}

impl<K: Resource<DynamicType = ()> + Serialize> Claims<K> {
    /// Whether something is to be adopted or released first.
    pub(crate) fn is_settled(&self) -> bool {
        self.adopt.is_empty() && self.release.is_empty()
    }

    /// Plans the adoptions and releases.
    pub(crate) fn plan<O: Resource<DynamicType = ()>>(&self, plan: &mut Plan, owner: &O) {
        self.plan_with(plan, owner, None);
    }

    /// Plans the adoptions and releases; what is adopted gets `finalizer`, what is released loses it.
    pub(crate) fn plan_with<O: Resource<DynamicType = ()>>(
        &self,
        plan: &mut Plan,
        owner: &O,
        finalizer: Option<&str>,
    ) {
        let ours = owner_reference(owner);
        for object in &self.adopt {
            let mut owners = object.meta().owner_references.clone().unwrap_or_default();
            owners.push(ours.clone());
            let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
            finalizers
                .extend(finalizer.filter(|f| !finalizers.iter().any(|has| has == f)).map(str::to_owned));
            plan.apply.push(claim_patch(&**object, &owners, finalizer.map(|_| finalizers)));
        }
        for object in &self.release {
            let mut owners = object.meta().owner_references.clone().unwrap_or_default();
            owners.retain(|owner| owner.uid != ours.uid);
            let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
            finalizers.retain(|has| finalizer != Some(has));
            plan.apply.push(claim_patch(&**object, &owners, finalizer.map(|_| finalizers)));
        }
    }
}

fn claim_patch<K: Resource<DynamicType = ()>>(
    object: &K,
    owners: &impl Serialize,
    finalizers: Option<Vec<String>>,
) -> Child {
    let mut metadata = json!({ "ownerReferences": owners });
    if let (Some(finalizers), Some(fields)) = (finalizers, metadata.as_object_mut()) {
        fields.insert("finalizers".to_owned(), json!(finalizers));
    }
    Child::patch_body(Kind::of::<K>(), object, None, json!({ "metadata": metadata }))
}
