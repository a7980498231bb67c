//! Discovery: which groups, versions and resources there are, in the legacy and the aggregated form.
//!
//! Guarantees: the documents follow the registry; a document is built once per change of what is served.

mod aggregated;
mod legacy;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, header};
use resource::{Resource, Subresource, Verb};

use crate::{
    Registry,
    aggregation::{Remote, Remotes},
};

pub(crate) use legacy::legacy;

/// `Content-Type` of the aggregated form.
pub(crate) const AGGREGATED_TYPE: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// One aggregated document.
#[derive(Clone)]
pub(crate) struct Aggregated {
    pub(crate) body: Bytes,
    /// Quoted.
    pub(crate) etag: String,
}

/// Aggregated documents as they were last built.
#[derive(Default)]
pub(crate) struct Discovery(Mutex<Option<Arc<Built>>>);

struct Built {
    generation: u64,
    core: Aggregated,
    groups: Aggregated,
}

impl Discovery {
    /// The document of `/api` (`core`) or `/apis`.
    pub(crate) fn aggregated(&self, registry: &Registry, core: bool) -> Aggregated {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = registry.generation();
        let built = match &*slot {
            Some(built) if built.generation == generation => built.clone(),
            _ => {
                let groups = groups(registry);
                let (core, groups): (Vec<_>, Vec<_>) = groups.into_iter().partition(|g| g.name.is_empty());
                let built = Built {
                    generation,
                    core: aggregated::document(&core),
                    groups: aggregated::document(&groups),
                };
                slot.insert(Arc::new(built)).clone()
            }
        };
        if core { built.core.clone() } else { built.groups.clone() }
    }

    /// What `/` lists.
    pub(crate) fn paths(&self, registry: &Registry) -> Vec<String> {
        let mut paths: Vec<String> = [
            "/.well-known/openid-configuration",
            "/api",
            "/apis",
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned)
        .into();
        for group in groups(registry) {
            let root =
                if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
            paths.extend(group.versions.iter().map(|version| format!("{root}/{}", version.name)));
            if !group.name.is_empty() {
                paths.push(root);
            }
        }
        paths.sort();
        paths
    }
}

/// Whether the client asks for the aggregated form.
pub(crate) fn wants_aggregated(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let json = parts.next().is_some_and(|media| media == "application/json");
        let wanted = ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"];
        let parts: Vec<&str> = parts.collect();
        json && wanted.iter().all(|part| parts.contains(part))
    })
}

/// One group.
pub(crate) struct Group {
    pub(crate) name: String,
    /// Preferred first.
    pub(crate) versions: Vec<Version>,
}

/// One version of a group.
pub(crate) struct Version {
    pub(crate) name: String,
    /// Sorted by plural; none of those that another server answers for.
    pub(crate) resources: Vec<Arc<Resource>>,
    /// The other server that answers for it.
    pub(crate) remote: Option<Arc<Remote>>,
}

/// Priority of the groups of custom resources among those of other servers, upstream's.
const CUSTOM_PRIORITY: i64 = 1_000;
/// Priority of a version that is served here among those of other servers, upstream's for custom resources.
const LOCAL_VERSION_PRIORITY: i64 = 100;

/// All groups: built-in ones before those of CRDs and of other servers, so that an ambiguous short name means the
/// built-in kind; each in order of its priority and name.
pub(crate) fn groups(registry: &Registry) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // A kind without verbs is stored and never served.
    for resource in registry.all().into_iter().filter(|resource| !resource.verbs.is_empty()) {
        if groups.last().is_none_or(|group| group.name != *resource.group) {
            groups.push(Group { name: resource.group.to_string(), versions: Vec::new() });
        }
        let Some(group) = groups.last_mut() else { continue };
        if group.versions.last().is_none_or(|version| version.name != *resource.version) {
            let name = resource.version.to_string();
            group.versions.push(Version { name, resources: Vec::new(), remote: None });
        }
        if let Some(version) = group.versions.last_mut() {
            version.resources.push(resource);
        }
    }
    let builtin: BTreeSet<String> = groups
        .iter()
        .filter(|group| group.versions.iter().flat_map(|version| &version.resources).any(|r| !r.custom))
        .map(|group| group.name.clone())
        .collect();
    add_remotes(&mut groups, &registry.remotes());
    for group in &mut groups {
        group.versions.sort_by_key(|version| {
            let of_remote = version.remote.as_ref().map_or(LOCAL_VERSION_PRIORITY, |r| r.version_priority);
            std::cmp::Reverse((of_remote, priority(&version.name)))
        });
    }
    groups.sort_by_cached_key(|group| {
        let is_builtin = builtin.contains(&group.name);
        let of_remotes =
            group.versions.iter().filter_map(|version| Some(version.remote.as_ref()?.group_priority));
        let priority = if is_builtin { 0 } else { of_remotes.max().unwrap_or(CUSTOM_PRIORITY) };
        (!is_builtin, std::cmp::Reverse(priority), group.name.clone())
    });
    groups
}

/// Puts other servers in the place of what is served here.
fn add_remotes(groups: &mut Vec<Group>, remotes: &Remotes) {
    for (of, remote) in remotes {
        let at = groups.iter().position(|group| group.name == of.group).unwrap_or_else(|| {
            groups.push(Group { name: of.group.clone(), versions: Vec::new() });
            groups.len() - 1
        });
        let Some(group) = groups.get_mut(at) else { continue };
        group.versions.retain(|version| version.name != of.version);
        let name = of.version.clone();
        group.versions.push(Version { name, resources: Vec::new(), remote: Some(remote.clone()) });
    }
}

/// Orders versions as upstream's `CompareKubeAwareVersionStrings`: GA before beta before alpha, higher
/// numbers first, anything else last.
pub(crate) fn priority(version: &str) -> (u8, u64, u64) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, stage) = rest.split_at(digits);
        let major: u64 = major.parse().ok()?;
        if stage.is_empty() {
            return Some((3, major, 0));
        }
        let (stage, minor) = match stage.strip_prefix("beta") {
            Some(minor) => (2, minor),
            None => (1, stage.strip_prefix("alpha")?),
        };
        Some((stage, major, minor.parse().ok()?))
    };
    parse().unwrap_or((0, 0, 0))
}

/// A subresource as discovery shows it.
pub(crate) struct Below<'a> {
    pub(crate) name: &'a str,
    /// Group, version, kind of its body.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) verbs: &'static [&'static str],
}

/// The subresources of a kind. The nameless one is the virtual kind itself.
pub(crate) fn below(resource: &Resource) -> Vec<Below<'_>> {
    let named = resource.subresources.iter().filter(|(name, _)| !name.is_empty());
    named.map(|(name, subresource)| shown(resource, name, subresource)).collect()
}

fn shown<'a>(resource: &Resource, name: &'a str, subresource: &Subresource) -> Below<'a> {
    let own = |kind: String, verbs| Below {
        name,
        group: resource.group.to_string(),
        version: resource.version.to_string(),
        kind,
        verbs,
    };
    match subresource {
        Subresource::Update if name == "finalize" => own(resource.kind.to_string(), &["update"]),
        Subresource::Status | Subresource::Update => {
            own(resource.kind.to_string(), &["get", "patch", "update"])
        }
        Subresource::Scale(_) => Below {
            name,
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            kind: "Scale".to_owned(),
            verbs: &["get", "patch", "update"],
        },
        Subresource::Act(act) => {
            let (group, version, kind) = act.body();
            Below {
                name,
                group: group.to_owned(),
                version: version.to_owned(),
                kind: kind.to_owned(),
                verbs: &["create"],
            }
        }
        Subresource::Connect => match name {
            "log" => own(resource.kind.to_string(), &["get"]),
            "proxy" => {
                own(format!("{}ProxyOptions", resource.kind), &["create", "delete", "get", "patch", "update"])
            }
            _ => own(format!("{}{}Options", resource.kind, connect_word(name)), &["create", "get"]),
        },
    }
}

fn connect_word(name: &str) -> String {
    match name {
        "portforward" => "PortForward".to_owned(),
        other => {
            let (first, rest) = other.split_at_checked(1).unwrap_or((other, ""));
            format!("{}{rest}", first.to_uppercase())
        }
    }
}

/// A verb in discovery's spelling.
pub(crate) fn verb(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
        Verb::Get => "get",
        Verb::List => "list",
        Verb::Patch => "patch",
        Verb::Update => "update",
        Verb::Watch => "watch",
    }
}

#[cfg(test)]
mod tests;
