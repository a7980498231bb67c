//! The policy file: upstream's `audit.k8s.io/v1` Policy. The first rule that matches a request says how much of
//! it is logged; a request that no rule matches is not logged.

use resource::User;
use serde::Deserialize;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub(super) const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When in a request's life something is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "every object may have it")]
    metadata: Option<serde_json::Value>,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum PolicyError {
    #[error("not an audit policy: {0}")]
    Parse(String),
    #[error("apiVersion and kind are {0:?}, want audit.k8s.io/v1 Policy")]
    Kind(String),
    #[error("the policy has no rules, so nothing would be logged")]
    Empty,
    #[error("rules[{at}]: {why}")]
    Rule { at: usize, why: &'static str },
}

/// What a request is about, as rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) user: Option<&'a User>,
    pub(crate) verb: &'a str,
    pub(crate) of: Of<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Of<'a> {
    Resource { group: &'a str, resource: &'a str, subresource: &'a str, namespace: &'a str, name: &'a str },
    Path(&'a str),
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) level: Level,
    pub(crate) omit: Vec<Stage>,
    pub(crate) omit_managed_fields: bool,
}

impl Policy {
    /// Reads and checks the text of a policy file.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let tree: serde_json::Value =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Parse(error.to_string()))?;
        let policy: Self =
            serde_json::from_value(tree).map_err(|error| PolicyError::Parse(error.to_string()))?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(PolicyError::Kind(format!("{} {}", policy.api_version, policy.kind)));
        }
        if policy.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        for (at, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| PolicyError::Rule { at, why })?;
        }
        Ok(policy)
    }

    /// What the first rule that matches says.
    pub(crate) fn decide(&self, about: &About<'_>) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches(about));
        let omit = self.omit_stages.iter().chain(rule.iter().flat_map(|rule| &rule.omit_stages));
        Verdict {
            level: rule.map_or(Level::None, |rule| rule.level),
            omit: omit.copied().collect(),
            omit_managed_fields: rule
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), &'static str> {
        let about_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if about_resources && !self.non_resource_urls.is_empty() {
            return Err("has nonResourceURLs and resources or namespaces: a request has only one of them");
        }
        for url in &self.non_resource_urls {
            let body = url.strip_suffix('*').unwrap_or(url);
            if body.contains('*') || !(url == "*" || url.starts_with('/')) {
                return Err("a nonResourceURL is *, or begins with / and has * only at its end");
            }
        }
        for group in &self.resources {
            if group.group.contains('/') {
                return Err("a group has no version");
            }
            if !group.resource_names.is_empty() && group.resources.is_empty() {
                return Err("resourceNames need resources");
            }
        }
        Ok(())
    }

    fn matches(&self, about: &About<'_>) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|item| item == text);
        if let Some(user) = about.user {
            if !self.users.is_empty() && !has(&self.users, &user.name) {
                return false;
            }
            if !self.user_groups.is_empty() && !user.groups.iter().any(|group| has(&self.user_groups, group))
            {
                return false;
            }
        } else if !(self.users.is_empty() && self.user_groups.is_empty()) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, about.verb) {
            return false;
        }
        let about_resources = !(self.resources.is_empty() && self.namespaces.is_empty());
        match about.of {
            Of::Path(path) if !about_resources => {
                self.non_resource_urls.is_empty()
                    || self.non_resource_urls.iter().any(|url| covers(url, path))
            }
            Of::Path(_) => false,
            Of::Resource { .. } if !self.non_resource_urls.is_empty() => false,
            Of::Resource { group, resource, subresource, namespace, name } => {
                (self.namespaces.is_empty() || has(&self.namespaces, namespace))
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|of| {
                            of.group == group
                                && (of.resources.is_empty()
                                    || ((of.resource_names.is_empty() || has(&of.resource_names, name))
                                        && of.resources.iter().any(|r| is_of(r, resource, subresource))))
                        }))
            }
        }
    }
}

fn covers(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// `*`, `pods`, `pods/log`, `pods/*`, `*/status`.
fn is_of(rule: &str, resource: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        None => rule == "*" || (rule == resource && subresource.is_empty()),
        Some((of, sub)) => {
            !subresource.is_empty() && (of == "*" || of == resource) && (sub == "*" || sub == subresource)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: [system:kube-proxy]
  verbs: [watch]
  resources: [{group: "", resources: [endpoints, services]}]
- level: None
  nonResourceURLs: ["/healthz*", /version]
- level: Metadata
  resources: [{group: "", resources: [secrets, configmaps, serviceaccounts/token]}]
- level: Request
  userGroups: [dev]
  namespaces: [prod, ""]
  omitStages: [ResponseStarted]
  omitManagedFields: false
- level: RequestResponse
  resources:
  - {group: "", resources: ["pods/*"]}
  - {group: apps}
  - {group: batch, resources: [jobs], resourceNames: [big]}
"#;

    #[test]
    fn the_first_rule_that_matches_counts() {
        let policy = Policy::parse(POLICY).unwrap();
        let user = |name: &str, groups: &[&str]| User {
            name: name.to_owned(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        };
        let (proxy, ann, bob) = (user("system:kube-proxy", &[]), user("ann", &["dev"]), user("bob", &[]));
        let of = |group, resource, subresource, namespace, name| Of::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
        };
        for (user, verb, of, expected) in [
            (&proxy, "watch", of("", "services", "", "", ""), Level::None),
            (&proxy, "list", of("", "services", "", "", ""), Level::None),
            (&bob, "get", Of::Path("/healthz/ping"), Level::None),
            (&bob, "get", Of::Path("/api"), Level::None),
            (&ann, "create", of("", "secrets", "", "prod", "x"), Level::Metadata),
            (&ann, "create", of("", "serviceaccounts", "token", "prod", "x"), Level::Metadata),
            (&ann, "create", of("", "serviceaccounts", "", "prod", "x"), Level::Request),
            (&ann, "get", of("", "nodes", "", "", "n"), Level::Request),
            (&ann, "get", of("", "services", "", "test", "n"), Level::None),
            (&bob, "create", of("", "pods", "exec", "a", "p"), Level::RequestResponse),
            (&bob, "create", of("", "pods", "", "a", "p"), Level::None),
            (&bob, "get", of("apps", "deployments", "scale", "a", "d"), Level::RequestResponse),
            (&bob, "get", of("batch", "jobs", "", "a", "big"), Level::RequestResponse),
            (&bob, "get", of("batch", "jobs", "", "a", "small"), Level::None),
        ] {
            let about = About { user: Some(user), verb, of };
            assert_eq!(policy.decide(&about).level, expected, "{about:?}");
        }
        let verdict =
            policy.decide(&About { user: Some(&ann), verb: "get", of: of("", "nodes", "", "", "n") });
        assert_eq!(verdict.omit, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(!verdict.omit_managed_fields);
        // Nobody is known when authentication fails: rules about users do not match.
        let nobody = About { user: None, verb: "get", of: of("", "nodes", "", "", "n") };
        assert_eq!(policy.decide(&nobody).level, Level::None);
    }

    #[test]
    fn what_would_not_mean_what_it_says_is_refused() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        for (text, words) in [
            ("kind: Pod\napiVersion: v1\n".to_owned(), "unknown field"),
            (head.to_owned(), "no rules"),
            (format!("{head}rules: [{{level: All}}]"), "unknown variant"),
            (format!("{head}rules: [{{level: Metadata, verb: [get]}}]"), "unknown field"),
            (format!("{head}rules: [{{level: Metadata, nonResourceURLs: [healthz]}}]"), "begins with /"),
            (format!("{head}rules: [{{level: Metadata, nonResourceURLs: ['/a*b']}}]"), "only at its end"),
            (
                format!("{head}rules: [{{level: Metadata, nonResourceURLs: [/a], namespaces: [x]}}]"),
                "only one of them",
            ),
            (
                format!("{head}rules: [{{level: Metadata, resources: [{{group: '', resourceNames: [x]}}]}}]"),
                "resourceNames need resources",
            ),
            (format!("{head}rules: [{{level: Metadata, resources: [{{group: apps/v1}}]}}]"), "no version"),
        ] {
            let error = Policy::parse(&text).unwrap_err().to_string();
            let pod = text.starts_with("kind: Pod") && error.contains("want audit.k8s.io/v1");
            assert!(pod || error.contains(words), "{error}\n{text}");
        }
    }
}
