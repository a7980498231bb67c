//! One RBAC rule: what it allows, and whether others cover it.

use meta::Value;
use serde_json::json;

use super::{Ask, Asked};

/// A PolicyRule of `rbac.authorization.k8s.io/v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "upstream's names")]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// Reads a PolicyRule; what is not a string is left out, so that it allows nothing.
    pub fn from_value(value: &Value) -> Self {
        let strings = |key: &str| -> Vec<String> {
            let list = value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Self {
            verbs: strings("verbs"),
            api_groups: strings("apiGroups"),
            resources: strings("resources"),
            resource_names: strings("resourceNames"),
            non_resource_urls: strings("nonResourceURLs"),
        }
    }

    /// A ResourceRule or NonResourceRule as in SelfSubjectRulesReview, without empty lists.
    pub fn to_value(&self) -> Value {
        let mut value = json!({ "verbs": self.verbs });
        let lists = [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ];
        for (key, list) in lists {
            if let (false, Some(map)) = (list.is_empty(), value.as_object_mut()) {
                map.insert(key.to_owned(), json!(list));
            }
        }
        value
    }

    /// Whether it allows what is asked. Scope (namespace) is the binding's matter.
    pub fn allows(&self, ask: &Ask<'_>) -> bool {
        if !has(&self.verbs, ask.verb) {
            return false;
        }
        match ask.object {
            Asked::Path(path) => self.non_resource_urls.iter().any(|url| covers_path(url, path)),
            Asked::Resource { group, version: _, resource, subresource, namespace: _, name } => {
                has(&self.api_groups, group)
                    && self.resources.iter().any(|rule| covers_resource(rule, resource, subresource))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == name))
            }
        }
    }

    /// The rule taken apart: one verb, one group, one resource, one name (or one path) each.
    fn atoms(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let atom = Self {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        ..Self::default()
                    };
                    if self.resource_names.is_empty() {
                        atoms.push(atom);
                    } else {
                        let named = |name| Self { resource_names: one(name), ..atom.clone() };
                        atoms.extend(self.resource_names.iter().map(named));
                    }
                }
            }
            let path = |url| Self { verbs: one(verb), non_resource_urls: one(url), ..Self::default() };
            atoms.extend(self.non_resource_urls.iter().map(path));
        }
        atoms
    }

    /// Whether it allows everything that `atom`, a rule of one combination, allows.
    fn covers(&self, atom: &Self) -> bool {
        let each = |list: &[String], wanted: &[String]| wanted.iter().all(|w| has(list, w));
        let resources = atom.resources.iter().all(|wanted| {
            let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
            self.resources.iter().any(|rule| rule == wanted || covers_resource(rule, resource, subresource))
        });
        let names = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty()
                && atom.resource_names.iter().all(|name| self.resource_names.contains(name)));
        let paths = atom
            .non_resource_urls
            .iter()
            .all(|wanted| self.non_resource_urls.iter().any(|url| covers_path(url, wanted)));
        each(&self.verbs, &atom.verbs)
            && each(&self.api_groups, &atom.api_groups)
            && resources
            && names
            && paths
    }

    /// As upstream prints it in errors (`PolicyRule.CompactString`).
    fn compact(&self) -> String {
        let lists = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("NonResourceURLs", &self.non_resource_urls),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = lists
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| {
                format!("{name}:[{}]", list.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" "))
            })
            .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// What of `wanted` is in none of `held`, one line for each combination; empty when all is covered.
pub(super) fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms.filter(|atom| !held.iter().any(|rule| rule.covers(atom))).map(|atom| atom.compact()).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == wanted || item == "*")
}

/// `*`, `pods`, `pods/log`, `*/scale`.
fn covers_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
        Some((whole, sub)) => whole == resource && sub == subresource,
    }
}

/// `*`, `/healthz`, `/healthz/*`.
fn covers_path(url: &str, path: &str) -> bool {
    url == "*" || url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use resource::User;

    fn rule(value: Value) -> Rule {
        Rule::from_value(&value)
    }

    #[test]
    fn allows_what_it_names() {
        let user = User::default();
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log", "*/scale"]});
        let named = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["x"]});
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/logs/*"]});
        for (value, verb, group, resource, subresource, name, expected) in [
            (&pods, "get", "", "pods", "", "x", true),
            (&pods, "list", "", "pods", "", "", false),
            (&pods, "get", "apps", "pods", "", "x", false),
            (&pods, "get", "", "pods", "log", "x", true),
            (&pods, "get", "", "pods", "exec", "x", false),
            (&pods, "get", "", "replicationcontrollers", "scale", "x", true),
            (&named, "delete", "apps", "deployments", "", "x", true),
            (&named, "delete", "apps", "deployments", "", "y", false),
            (&named, "list", "apps", "deployments", "", "", false),
        ] {
            let object = Asked::Resource { group, version: "v1", resource, subresource, namespace: "", name };
            let ask = Ask::new(&user, verb, object);
            assert_eq!(rule(value.clone()).allows(&ask), expected, "{ask:?}");
        }
        for (path, expected) in [("/healthz", true), ("/healthz/a", false), ("/logs/a/b", true), ("/", false)]
        {
            let ask = Ask::new(&user, "get", Asked::Path(path));
            assert_eq!(rule(paths.clone()).allows(&ask), expected, "{path}");
        }
    }

    #[test]
    fn covers_only_what_is_held() {
        let held = [
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]})),
            rule(json!({"verbs": ["watch"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["a"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/api/*"]})),
        ];
        for (wanted, lacks) in [
            (json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}), 0),
            (json!({"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}), 1),
            (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}), 1),
            (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["a/scale", "*/scale", "a/log"]}), 1),
            (json!({"verbs": ["watch"], "apiGroups": ["x"], "resources": ["y"]}), 1),
            (json!({"verbs": ["watch"], "apiGroups": ["x"], "resources": ["y"], "resourceNames": ["a"]}), 0),
            (json!({"verbs": ["get"], "nonResourceURLs": ["/api/v1", "/apis"]}), 1),
        ] {
            assert_eq!(uncovered(&held, &[rule(wanted.clone())]).len(), lacks, "{wanted}");
        }
    }
}
