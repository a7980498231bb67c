//! `/api`, `/apis`, `/apis/G`, `/api/v1`, `/apis/G/V`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use meta::{GroupVersion, Value};
use resource::{Resource, Scope};
use serde_json::json;

use super::{Group, Version, below, groups, verb};
use crate::Registry;

/// The document at a path; `None` when nothing is served there.
pub(crate) fn legacy(registry: &Registry, path: &str) -> Option<Value> {
    let groups = groups(registry);
    let find = |name: &str| groups.iter().find(|group| group.name == name);
    let mut parts = path.split('/').skip(1);
    match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        ("api", None, ..) => {
            let versions: Vec<&str> =
                find("").map_or(Vec::new(), |g| g.versions.iter().map(|v| &*v.name).collect());
            Some(json!({ "kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": [] }))
        }
        ("api", Some(version), None, _) => Some(resources("", find("")?.version(version)?)),
        ("apis", None, ..) => {
            let all: Vec<Value> = groups.iter().filter(|g| !g.name.is_empty()).map(group).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": all }))
        }
        ("apis", Some(name), None, _) if !name.is_empty() => {
            let mut document = group(find(name)?);
            if let Some(map) = document.as_object_mut() {
                map.insert("kind".to_owned(), json!("APIGroup"));
                map.insert("apiVersion".to_owned(), json!("v1"));
            }
            Some(document)
        }
        ("apis", Some(name), Some(version), None) if !name.is_empty() => {
            Some(resources(name, find(name)?.version(version)?))
        }
        _ => None,
    }
}

impl Group {
    fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }
}

fn group(group: &Group) -> Value {
    let shown = |version: &Version| json!({ "groupVersion": format!("{}/{}", group.name, version.name), "version": version.name });
    let versions: Vec<Value> = group.versions.iter().map(shown).collect();
    json!({ "name": group.name, "versions": versions, "preferredVersion": versions.first() })
}

fn resources(group: &str, version: &Version) -> Value {
    let mut all = Vec::new();
    for resource in &version.resources {
        all.push(whole(resource));
        for part in below(resource) {
            let mut shown = json!({
                "name": format!("{}/{}", resource.plural, part.name), "singularName": "",
                "namespaced": resource.scope == Scope::Namespaced, "kind": part.kind, "verbs": part.verbs,
            });
            if let Some(map) = shown.as_object_mut()
                && (part.group != *resource.group || part.version != *resource.version)
            {
                map.insert("group".to_owned(), json!(part.group));
                map.insert("version".to_owned(), json!(part.version));
            }
            all.push(shown);
        }
    }
    json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": GroupVersion::new(group, &*version.name).to_string(), "resources": all,
    })
}

fn whole(resource: &Resource) -> Value {
    let mut shown = json!({
        "name": &*resource.plural, "singularName": &*resource.singular, "kind": &*resource.kind,
        "namespaced": resource.scope == Scope::Namespaced,
        "verbs": resource.verbs.iter().map(|v| verb(*v)).collect::<Vec<_>>(),
    });
    if let Some(map) = shown.as_object_mut() {
        for (key, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
            if !list.is_empty() {
                map.insert(key.to_owned(), json!(list.iter().map(|s| &**s).collect::<Vec<_>>()));
            }
        }
        if resource.verbs.contains(&resource::Verb::Get) {
            map.insert("storageVersionHash".to_owned(), json!(storage_version_hash(resource)));
        }
    }
    shown
}

/// Upstream's `StorageVersionHash`: the first eight bytes of the SHA-256 of `group/version/kind`.
fn storage_version_hash(resource: &Resource) -> String {
    let name = format!("{}/{}/{}", resource.stored_as.group, resource.stored_version.version, resource.kind);
    let hash = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    STANDARD.encode(hash.as_ref().get(..8).unwrap_or_default())
}
