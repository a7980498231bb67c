//! Which resources there are: built-in, CRDs and aggregated alike. Read anew each time; whoever asks
//! decides how old an answer may be.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use reconcile::{Error, Kind, Result};

/// One resource in the version to use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
    /// What can be done with it.
    pub(crate) verbs: Vec<String>,
}

/// All resources, and the group versions that did not answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Discovered {
    /// One entry for each resource, in its preferred version or, where that lacks it, another.
    pub(crate) resources: Vec<Found>,
    /// `group/version: why` for each that failed. What it holds is not known, so nothing may be
    /// concluded from its absence.
    pub(crate) failed: Vec<String>,
}

impl Found {
    /// Whether the resource serves every one of these verbs.
    pub(crate) fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|served| served == verb))
    }
}

/// Asks the API server.
pub(crate) async fn discover(client: &kube::Client) -> Result<Discovered> {
    let mut found = Discovered::default();
    let mut known = BTreeSet::new();
    let core = client.list_core_api_resources("v1").await.map_err(Error::read("discovery of v1"))?;
    add(&mut found, &mut known, "", "v1", core.resources);
    let groups = client.list_api_groups().await.map_err(Error::read("discovery of groups"))?;
    for group in groups.groups {
        let preferred = group.preferred_version.as_ref().map(|version| version.version.clone());
        let mut versions: Vec<String> = group.versions.into_iter().map(|version| version.version).collect();
        versions.sort_by_key(|version| Some(version) != preferred.as_ref());
        for version in versions {
            let api_version = format!("{}/{version}", group.name);
            match client.list_api_group_resources(&api_version).await {
                Ok(list) => add(&mut found, &mut known, &group.name, &version, list.resources),
                Err(error) => found.failed.push(format!("{api_version}: {}", reconcile::text(&error))),
            }
        }
    }
    Ok(found)
}

fn add(
    found: &mut Discovered,
    known: &mut BTreeSet<(String, String)>,
    group: &str,
    version: &str,
    resources: Vec<APIResource>,
) {
    for resource in resources.into_iter().filter(|resource| !resource.name.contains('/')) {
        if known.insert((group.to_owned(), resource.name.clone())) {
            let kind = Kind::new(group, version, &resource.kind, &resource.name);
            found.resources.push(Found { kind, namespaced: resource.namespaced, verbs: resource.verbs });
        }
    }
}
