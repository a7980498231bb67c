//! Admission: what may be written, and what is added to it, beyond the kind's own rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use meta::{Entry, GroupResource, GroupVersion, Object, ObjectKey, Status, Value};

use crate::Context;

/// Who sends a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `system:serviceaccount:ns:name`, a certificate's CN, ...
    pub name: String,
    /// UID, where the authenticator knows one.
    pub uid: String,
    /// Groups, `system:authenticated` included.
    pub groups: Vec<String>,
    /// Extra values (`authentication.kubernetes.io/pod-name`, ...).
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What admission calls a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What there is to say to a client beside yes and no, collected over one request.
#[derive(Debug, Default)]
pub struct Notes(Mutex<(Vec<String>, BTreeMap<String, String>)>);

impl Notes {
    /// A text for a `Warning` header; one that was given before is not repeated.
    pub fn warn(&self, text: impl Into<String>) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.into();
        if !notes.0.contains(&text) {
            notes.0.push(text);
        }
    }

    /// Several of them.
    pub fn warn_all(&self, texts: impl IntoIterator<Item: Into<String>>) {
        texts.into_iter().for_each(|text| self.warn(text));
    }

    /// An annotation of the request's audit event. The first value of a key stays, as upstream.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.1.entry(key.into()).or_insert_with(|| value.into());
    }

    /// The warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// The audit annotations so far.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }
}

/// One request, as authorization, admission and strategies see it.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Who.
    pub user: User,
    /// What kind of write.
    pub operation: Operation,
    /// Group and plural of the request path.
    pub resource: GroupResource,
    /// Version of the request path.
    pub version: String,
    /// Kind of the object.
    pub kind: String,
    /// Group and version of `kind`: those of the path, save for bodies of subresources (`Scale`, `Eviction`).
    pub kind_version: GroupVersion,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// Namespace; empty for cluster scope.
    pub namespace: String,
    /// Name; may be empty on create with `generateName`.
    pub name: String,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// CreateOptions, UpdateOptions or DeleteOptions as the client sent them.
    pub options: Value,
    /// Where warnings and audit annotations go.
    pub notes: Arc<Notes>,
}

/// Committed state, read from the watch cache without waiting. What it shows may be older than the object
/// being written by the time of the commit; whoever needs more uses a `Claim`.
pub trait View: Send + Sync {
    /// One object; `None` when absent or when nobody serves the kind.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Entry>>;

    /// All objects of a kind, in one namespace or (with `None`) everywhere, in key order.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Entry>>;

    /// Those of [`list`](Self::list) whose indexed field ([`Selectable::indexed`](crate::Selectable::indexed))
    /// has this value, without looking at the others; all of them where there is no index.
    fn indexed(&self, resource: &GroupResource, namespace: Option<&str>, value: &str) -> Vec<Arc<Entry>> {
        let _ = value;
        self.list(resource, namespace)
    }
}

/// One admission plugin. Mutation runs before validation of the object, in the order of the chain;
/// validation after. Plugins that reach the network (webhooks) are async, all others return ready futures.
pub trait Admission: Send + Sync {
    /// Upstream's plugin name.
    fn name(&self) -> &'static str;

    /// Whether it wants this request at all.
    fn handles(&self, attributes: &Attributes) -> bool;

    /// Changes the object being written. `object` is absent for deletes, `old` for creates.
    fn mutate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a mut Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let _ = (cx, object, old);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Refuses or lets pass.
    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let _ = (cx, object, old);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Takes what the object needs from budgets that objects share (quotas): answers with the budgets as they
    /// are then, or refuses. The engine calls it last, stores the status of each budget if it is unchanged
    /// since it was read, asks again about those that are not, and only then stores the object. `taken` names
    /// the budgets of this request that are stored already.
    fn charge(
        &self,
        cx: &Context<'_>,
        object: &Object,
        old: Option<&Object>,
        taken: &BTreeSet<ObjectKey>,
    ) -> Result<Vec<Object>, Status> {
        let _ = (cx, object, old, taken);
        Ok(Vec::new())
    }
}
