//! Role based access control: Roles and bindings compiled into an index by subject.
//!
//! Guarantees: a decision reads the index of the newest committed roles and bindings; the index is rebuilt
//! when one of them changed, and then only what changed is parsed again. A binding to a role that does not
//! exist allows nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use meta::{Entry, GroupResource, Object, Revision};
use resource::{User, View};

use super::{Ask, Asked, Authorizer, Decision, MASTERS, Rule};

/// Tells a state of the RBAC objects from another: changes whenever one of them does.
pub type Stamp = Arc<dyn Fn() -> u64 + Send + Sync>;

pub(super) const GROUP: &str = "rbac.authorization.k8s.io";

/// The RBAC authorizer.
pub struct Rbac {
    view: Arc<dyn View>,
    stamp: Stamp,
    index: ArcSwap<Index>,
    parsed: Mutex<Parsed>,
}

/// Who is granted what.
#[derive(Default)]
struct Index {
    stamp: Option<u64>,
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

/// Rules given to a subject by one binding.
struct Grant {
    /// `None` for everywhere.
    namespace: Option<String>,
    rules: Arc<[Rule]>,
    because: Arc<str>,
}

/// Objects as parsed, kept while their revision stays.
#[derive(Default)]
struct Parsed {
    roles: Memory<Arc<[Rule]>>,
    bindings: Memory<Arc<Binding>>,
}

type Memory<T> = HashMap<(&'static str, meta::ObjectKey), (Revision, T)>;

struct Binding {
    role_kind: String,
    role_name: String,
    subjects: Vec<Subject>,
}

struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

impl Rbac {
    /// Reads roles and bindings from `view`, anew whenever `stamp` gives another number.
    pub fn new(view: Arc<dyn View>, stamp: Stamp) -> Self {
        Self { view, stamp, index: ArcSwap::default(), parsed: Mutex::default() }
    }

    fn index(&self) -> Arc<Index> {
        let now = (self.stamp)();
        let index = self.index.load_full();
        if index.stamp == Some(now) {
            return index;
        }
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever waited for the lock may find the work done. The stamp is read before the objects, so an
        // index is never newer than it says, only rebuilt once too often.
        let now = (self.stamp)();
        let index = self.index.load_full();
        if index.stamp == Some(now) {
            return index;
        }
        let built = Arc::new(parsed.compile(&*self.view, now));
        self.index.store(built.clone());
        built
    }

    fn find<T>(&self, user: &User, namespace: &str, mut seen: impl FnMut(&Grant) -> Option<T>) -> Option<T> {
        let index = self.index();
        let users = index.users.get(&user.name).into_iter();
        let groups = user.groups.iter().filter_map(|group| index.groups.get(group));
        let here = |grant: &&Grant| grant.namespace.as_deref().is_none_or(|n| n == namespace);
        users.chain(groups).flatten().filter(here).find_map(&mut seen)
    }
}

impl Parsed {
    fn compile(&mut self, view: &dyn View, stamp: u64) -> Index {
        let mut index = Index { stamp: Some(stamp), ..Index::default() };
        let list = |plural: &str| view.list(&GroupResource::new(GROUP, plural), None);
        let (mut old, mut roles) = (std::mem::take(&mut self.roles), Memory::new());
        for plural in ["roles", "clusterroles"] {
            refresh(&mut old, &mut roles, plural, &list(plural), |object| {
                object.list(&["rules"]).iter().map(Rule::from_value).collect()
            });
        }
        let (mut old, mut bindings) = (std::mem::take(&mut self.bindings), Memory::new());
        for plural in ["rolebindings", "clusterrolebindings"] {
            refresh(&mut old, &mut bindings, plural, &list(plural), |object| Arc::new(Binding::read(object)));
        }
        self.roles = roles;
        self.bindings = bindings;
        for ((plural, key), (_, binding)) in &self.bindings {
            index.add(plural, key, binding, &self.roles);
        }
        index
    }
}

/// Moves what is unchanged from `old` to `new` and parses the rest.
fn refresh<T>(
    old: &mut Memory<T>,
    new: &mut Memory<T>,
    plural: &'static str,
    entries: &[Arc<Entry>],
    parse: impl Fn(&Object) -> T,
) {
    for entry in entries {
        let key = (plural, entry.header.key.clone());
        match old.remove(&key) {
            Some(kept) if kept.0 == entry.revision => {
                new.insert(key, kept);
            }
            _ => match entry.object() {
                Ok(object) => {
                    new.insert(key, (entry.revision, parse(&object)));
                }
                Err(error) => {
                    tracing::error!(%error, ?key, "stored rbac object is damaged, it allows nothing")
                }
            },
        }
    }
}

impl Binding {
    fn read(object: &Object) -> Self {
        let subjects = object.list(&["subjects"]).iter().map(|subject| {
            let text = |key: &str| subject.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
            Subject { kind: text("kind"), name: text("name"), namespace: text("namespace") }
        });
        Self {
            role_kind: object.str(&["roleRef", "kind"]).unwrap_or_default().to_owned(),
            role_name: object.str(&["roleRef", "name"]).unwrap_or_default().to_owned(),
            subjects: subjects.collect(),
        }
    }
}

impl Index {
    fn add(&mut self, plural: &str, key: &meta::ObjectKey, binding: &Binding, roles: &Memory<Arc<[Rule]>>) {
        let namespaced = plural == "rolebindings";
        let role = match (binding.role_kind.as_str(), namespaced) {
            ("ClusterRole", _) => ("clusterroles", meta::ObjectKey::new("", &binding.role_name)),
            ("Role", true) => ("roles", meta::ObjectKey::new(&key.namespace, &binding.role_name)),
            _ => return,
        };
        let Some((_, rules)) = roles.get(&role) else { return };
        for subject in &binding.subjects {
            let (map, name) = match subject.kind.as_str() {
                "User" => (&mut self.users, subject.name.clone()),
                "Group" => (&mut self.groups, subject.name.clone()),
                "ServiceAccount" => {
                    let namespace =
                        if subject.namespace.is_empty() { &key.namespace } else { &subject.namespace };
                    (&mut self.users, format!("system:serviceaccount:{namespace}:{}", subject.name))
                }
                _ => continue,
            };
            let kind = if namespaced { "RoleBinding" } else { "ClusterRoleBinding" };
            let because = format!(
                "RBAC: allowed by {kind} \"{key}\" of {} {:?} to {} {:?}",
                binding.role_kind, binding.role_name, subject.kind, subject.name
            );
            map.entry(name).or_default().push(Grant {
                namespace: namespaced.then(|| key.namespace.clone()),
                rules: rules.clone(),
                because: because.into(),
            });
        }
    }
}

pub(super) fn is_master(user: &User) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
}

fn namespace_of<'a>(ask: &Ask<'a>) -> &'a str {
    match ask.object {
        Asked::Resource { namespace, .. } => namespace,
        Asked::Path(_) => "",
    }
}

impl Authorizer for Rbac {
    fn allows(&self, ask: &Ask<'_>) -> bool {
        is_master(ask.user)
            || self
                .find(ask.user, namespace_of(ask), |grant| {
                    grant.rules.iter().any(|r| r.allows(ask)).then_some(())
                })
                .is_some()
    }

    fn decide(&self, ask: &Ask<'_>) -> Decision {
        if is_master(ask.user) {
            return Decision::Allow(String::new());
        }
        let because = self.find(ask.user, namespace_of(ask), |grant| {
            grant.rules.iter().any(|rule| rule.allows(ask)).then(|| grant.because.to_string())
        });
        because.map_or_else(|| Decision::NoOpinion(String::new()), Decision::Allow)
    }

    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        if is_master(user) {
            let all = || vec!["*".to_owned()];
            let resources = Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() };
            return vec![resources, Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() }];
        }
        let mut rules = Vec::new();
        self.find(user, namespace, |grant| -> Option<()> {
            rules.extend(grant.rules.iter().cloned());
            None
        });
        rules
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn user(name: &str, groups: &[&str]) -> User {
        User { name: name.into(), groups: groups.iter().map(|g| (*g).into()).collect(), ..User::default() }
    }

    fn objects() -> Objects {
        let rbac = |plural| GroupResource::new(GROUP, plural);
        let role = |name: &str, verbs: &[&str]| {
            json!({"metadata": {"name": name, "namespace": "dev"}, "rules": [
                {"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]})
        };
        let mut reader = role("reader", &["get", "list"]);
        reader["metadata"].as_object_mut().unwrap().remove("namespace");
        Objects::default()
            .with(&rbac("clusterroles"), reader)
            .with(&rbac("roles"), role("writer", &["create"]))
            .with(
                &rbac("clusterrolebindings"),
                json!({"metadata": {"name": "all"},
                "roleRef": {"kind": "ClusterRole", "name": "reader"},
                "subjects": [{"kind": "Group", "name": "ops"}]}),
            )
            .with(
                &rbac("rolebindings"),
                json!({"metadata": {"name": "b", "namespace": "dev"},
                "roleRef": {"kind": "Role", "name": "writer"},
                "subjects": [{"kind": "User", "name": "ann"}, {"kind": "ServiceAccount", "name": "bot"}]}),
            )
            .with(
                &rbac("rolebindings"),
                json!({"metadata": {"name": "c", "namespace": "dev"},
                "roleRef": {"kind": "ClusterRole", "name": "reader"},
                "subjects": [{"kind": "User", "name": "ann"}]}),
            )
            .with(
                &rbac("rolebindings"),
                json!({"metadata": {"name": "dangling", "namespace": "dev"},
                "roleRef": {"kind": "Role", "name": "absent"},
                "subjects": [{"kind": "User", "name": "eve"}]}),
            )
    }

    #[test]
    fn decides_by_subject_and_scope() {
        let rbac = Rbac::new(Arc::new(objects()), Arc::new(|| 1));
        let bot = "system:serviceaccount:dev:bot";
        for (name, groups, verb, namespace, expected) in [
            ("ops1", &["ops"][..], "list", "", true),
            ("ops1", &["ops"], "get", "prod", true),
            ("ops1", &["ops"], "create", "dev", false),
            ("ann", &[], "create", "dev", true),
            ("ann", &[], "create", "prod", false),
            ("ann", &[], "get", "dev", true),
            ("ann", &[], "get", "", false),
            (bot, &[], "create", "dev", true),
            ("system:serviceaccount:prod:bot", &[], "create", "dev", false),
            ("eve", &[], "get", "dev", false),
            ("root", &[MASTERS], "delete", "prod", true),
        ] {
            let user = user(name, groups);
            let object = Asked::Resource {
                group: "",
                version: "v1",
                resource: "pods",
                subresource: "",
                namespace,
                name: "",
            };
            let ask = Ask::new(&user, verb, object);
            assert_eq!(rbac.allows(&ask), expected, "{ask:?}");
            assert_eq!(matches!(rbac.decide(&ask), Decision::Allow(_)), expected);
        }
    }

    #[test]
    fn follows_changes() {
        let stamp = Arc::new(AtomicU64::new(1));
        let view = Arc::new(objects());
        let seen = stamp.clone();
        let rbac = Rbac::new(view.clone(), Arc::new(move || seen.load(Ordering::SeqCst)));
        let ann = user("ann", &[]);
        let object = Asked::Resource {
            group: "",
            version: "v1",
            resource: "pods",
            subresource: "",
            namespace: "dev",
            name: "",
        };
        let ask = Ask::new(&ann, "create", object);
        assert!(rbac.allows(&ask));
        view.remove(&GroupResource::new(GROUP, "rolebindings"), "dev", "b");
        stamp.store(2, Ordering::SeqCst);
        assert!(!rbac.allows(&ask));
    }
}
