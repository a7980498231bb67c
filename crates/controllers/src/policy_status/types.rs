//! The kinds that a policy matches and their schemas, as the API server publishes them (upstream
//! `apiserver/pkg/admission/plugin/policy/validating/typechecking.go`).

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::{
    api::admissionregistration::v1::{NamedRuleWithOperations, ValidatingAdmissionPolicy},
    apimachinery::pkg::apis::meta::v1::APIResourceList,
};
use reconcile::{Error, Result};
use schema::{Schema, openapi::from_document};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Kinds of one policy that are looked at, as upstream.
const TYPES_MAX: usize = 10;

/// A kind: group, version, name.
pub(super) type KindName = (String, String, String);

/// What a policy's expressions are checked against.
#[derive(Default)]
pub(super) struct Types {
    /// The kinds it matches, sorted. One without a schema is left out.
    pub(super) matched: Vec<(KindName, Schema)>,
    /// That of its params, where it has some and they have one.
    pub(super) params: Option<Schema>,
}

/// Group, version and plural of what the rules name in full, in upstream's order; at most as many as are looked at.
pub(super) fn resources(policy: &ValidatingAdmissionPolicy) -> Vec<(String, String, String)> {
    let spec = policy.spec.as_ref();
    let constraints = spec.and_then(|spec| spec.match_constraints.as_ref());
    let rules = constraints.and_then(|constraints| constraints.resource_rules.as_deref()).unwrap_or_default();
    let mut found: Vec<(String, String, String)> = Vec::new();
    for (group, version, resource) in rules.iter().flat_map(of_rule) {
        let one = (group, version, resource);
        if !found.contains(&one) && found.len() < TYPES_MAX {
            found.push(one);
        }
    }
    found
}

/// Nothing of a rule whose groups or versions have a wildcard; subresources are passed over.
fn of_rule(rule: &NamedRuleWithOperations) -> Vec<(String, String, String)> {
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort();
        list
    };
    let (groups, versions) = (sorted(&rule.api_groups), sorted(&rule.api_versions));
    if groups.iter().chain(&versions).any(|name| name.contains('*')) {
        return Vec::new();
    }
    let mut resources = sorted(&rule.resources);
    resources.retain(|resource| !resource.contains(['*', '/']));
    let mut all = Vec::new();
    for group in &groups {
        for version in &versions {
            all.extend(resources.iter().map(|of| (group.clone(), version.clone(), of.clone())));
        }
    }
    all
}

/// Asks the API server; what it does not know is left out.
pub(super) async fn of(client: &kube::Client, policy: &ValidatingAdmissionPolicy) -> Result<Types> {
    let mut asked = Asked { client, lists: HashMap::new(), documents: HashMap::new() };
    let mut kinds: BTreeSet<KindName> = BTreeSet::new();
    for (group, version, resource) in resources(policy) {
        let kind = asked.kind(&group, &version, &resource).await?;
        kinds.extend(kind.map(|kind| (group, version, kind)));
    }
    let mut types = Types::default();
    for kind in kinds {
        let schema = asked.schema(&kind).await?;
        types.matched.extend(schema.map(|schema| (kind, schema)));
    }
    if let Some(kind) = policy.spec.as_ref().and_then(|spec| spec.param_kind.as_ref()) {
        let api_version = kind.api_version.as_deref().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = (group.to_owned(), version.to_owned(), kind.kind.clone().unwrap_or_default());
        types.params = asked.schema(&kind).await?;
    }
    Ok(types)
}

/// What was asked for one policy already.
struct Asked<'c> {
    client: &'c kube::Client,
    lists: HashMap<String, Option<APIResourceList>>,
    documents: HashMap<String, Option<Value>>,
}

impl Asked<'_> {
    async fn kind(&mut self, group: &str, version: &str, resource: &str) -> Result<Option<String>> {
        let path = format!("/{}", root(group, version));
        if !self.lists.contains_key(&path) {
            let list = get(self.client, &path).await?;
            self.lists.insert(path.clone(), list);
        }
        let list = self.lists.get(&path).and_then(Option::as_ref);
        let mut all = list.into_iter().flat_map(|list| &list.resources);
        Ok(all.find(|one| one.name == resource).map(|one| one.kind.clone()))
    }

    async fn schema(&mut self, (group, version, kind): &KindName) -> Result<Option<Schema>> {
        let path = format!("/openapi/v3/{}", root(group, version));
        if !self.documents.contains_key(&path) {
            let document = get(self.client, &path).await?;
            self.documents.insert(path.clone(), document);
        }
        let document = self.documents.get(&path).and_then(Option::as_ref);
        Ok(document.and_then(|document| from_document(document, group, version, kind)))
    }
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `None` where there is no such path: a group or version that is not served.
async fn get<T: DeserializeOwned>(client: &kube::Client, path: &str) -> Result<Option<T>> {
    let request = http::Request::get(path).header(http::header::ACCEPT, "application/json").body(Vec::new());
    let Ok(request) = request else {
        // A name that no path can hold names nothing.
        return Ok(None);
    };
    match client.request::<T>(request).await {
        Ok(found) => Ok(Some(found)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 406) => Ok(None),
        Err(error) => Err(Error::read(path)(error)),
    }
}
