//! Discovery: which groups, versions and resources there are, in the legacy and the aggregated form.
//!
//! Guarantees: the documents follow the registry; a document is built once per change of what is served.

mod aggregated;
mod legacy;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, header};
use resource::{Resource, Subresource, Verb};

use crate::Registry;

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
    /// Sorted by plural.
    pub(crate) resources: Vec<Arc<Resource>>,
}

/// All groups: built-in ones before those of CRDs, so that an ambiguous short name means the built-in kind;
/// each in order of its name.
pub(crate) fn groups(registry: &Registry) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // A kind without verbs is stored and never served.
    for resource in registry.all().into_iter().filter(|resource| !resource.verbs.is_empty()) {
        if groups.last().is_none_or(|group| group.name != *resource.group) {
            groups.push(Group { name: resource.group.to_string(), versions: Vec::new() });
        }
        let Some(group) = groups.last_mut() else { continue };
        if group.versions.last().is_none_or(|version| version.name != *resource.version) {
            group.versions.push(Version { name: resource.version.to_string(), resources: Vec::new() });
        }
        if let Some(version) = group.versions.last_mut() {
            version.resources.push(resource);
        }
    }
    for group in &mut groups {
        group.versions.sort_by_key(|version| std::cmp::Reverse(priority(&version.name)));
    }
    let custom = |group: &Group| {
        group.versions.iter().flat_map(|version| &version.resources).all(|resource| resource.custom)
    };
    groups.sort_by_key(custom);
    groups
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
