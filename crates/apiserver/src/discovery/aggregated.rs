//! `apidiscovery.k8s.io/v2` APIGroupDiscoveryList.

use bytes::Bytes;
use meta::Value;
use resource::{Resource, Scope};
use serde_json::json;

use super::{Aggregated, Below, Group, Version, below, verb};
use crate::openapi::hash;

/// The document for these groups.
pub(super) fn document(groups: &[Group]) -> Aggregated {
    let items: Vec<Value> = groups.iter().map(group).collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let body = Bytes::from(document.to_string());
    let etag = format!("\"{}\"", hash(&body));
    Aggregated { body, etag }
}

fn group(group: &Group) -> Value {
    let mut metadata = json!({ "creationTimestamp": null });
    if let (false, Some(map)) = (group.name.is_empty(), metadata.as_object_mut()) {
        map.insert("name".to_owned(), json!(group.name));
    }
    json!({ "metadata": metadata, "versions": group.versions.iter().map(version).collect::<Vec<_>>() })
}

fn version(version: &Version) -> Value {
    if let Some(remote) = &version.remote {
        let resources = remote.seen.as_ref().map(|seen| seen.aggregated(&remote.of)).unwrap_or_default();
        let freshness = if remote.available { "Current" } else { "Stale" };
        return json!({ "version": version.name, "freshness": freshness, "resources": resources });
    }
    let resources: Vec<Value> = version.resources.iter().map(|r| resource(r)).collect();
    json!({ "version": version.name, "freshness": "Current", "resources": resources })
}

fn resource(resource: &Resource) -> Value {
    let scope = match resource.scope {
        Scope::Namespaced => "Namespaced",
        Scope::Cluster => "Cluster",
    };
    let mut shown = json!({
        "resource": &*resource.plural, "singularResource": &*resource.singular, "scope": scope,
        "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "verbs": resource.verbs.iter().map(|v| verb(*v)).collect::<Vec<_>>(),
    });
    let Some(map) = shown.as_object_mut() else { return shown };
    for (key, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !list.is_empty() {
            map.insert(key.to_owned(), json!(list.iter().map(|s| &**s).collect::<Vec<_>>()));
        }
    }
    let parts: Vec<Value> = below(resource).iter().map(subresource).collect();
    if !parts.is_empty() {
        map.insert("subresources".to_owned(), Value::Array(parts));
    }
    shown
}

fn subresource(part: &Below<'_>) -> Value {
    let Below { name, group, version, kind: of, verbs } = part;
    json!({ "subresource": name, "responseKind": kind(group, version, of), "verbs": verbs })
}

fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}
