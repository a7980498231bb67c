//! Which requests a flow schema is about (upstream `apiserver/pkg/util/flowcontrol/rule.go`).

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use meta::Object;
use resource::User;
use serde_json::Value;

/// What a request is, as far as schemas look at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks<'a> {
    pub(crate) user: &'a User,
    pub(crate) verb: &'a str,
    pub(crate) on: On<'a>,
}

/// What it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On<'a> {
    Path(&'a str),
    /// Namespace: empty for cluster scope.
    Resource {
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
    },
}

/// What tells flows of one schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

/// A flow schema as it is matched.
#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) precedence: i64,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) level: String,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// Namespace and name.
    Account(String, String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Vec<String>,
    urls: Vec<String>,
}

impl Matcher {
    pub(crate) fn read(object: &Object) -> Self {
        let spec = |path: &[&str]| object.str(&[&["spec"], path].concat()).unwrap_or_default().to_owned();
        let precedence = object.get(&["spec", "matchingPrecedence"]).and_then(Value::as_i64);
        Self {
            precedence: precedence.unwrap_or(1000),
            name: object.name().to_owned(),
            uid: object.str(&["metadata", "uid"]).unwrap_or_default().to_owned(),
            level: spec(&["priorityLevelConfiguration", "name"]),
            distinguisher: match &*spec(&["distinguisherMethod", "type"]) {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: object.list(&["spec", "rules"]).iter().map(Rule::read).collect(),
        }
    }

    pub(crate) fn matches(&self, asks: &Asks<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(asks))
    }

    /// The flow that the request belongs to: equal for equal flows of this process.
    pub(crate) fn flow(&self, asks: &Asks<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match (self.distinguisher, asks.on) {
            (Distinguisher::User, _) => asks.user.name.hash(&mut hasher),
            (Distinguisher::Namespace, On::Resource { namespace, .. }) => namespace.hash(&mut hasher),
            (Distinguisher::Namespace, On::Path(_)) | (Distinguisher::None, _) => {}
        }
        hasher.finish()
    }
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let list = |member: &str| rule.get(member).and_then(Value::as_array).into_iter().flatten();
        Self {
            subjects: list("subjects").filter_map(Subject::read).collect(),
            resources: list("resourceRules")
                .map(|rule| ResourceRule {
                    verbs: texts(rule, "verbs"),
                    groups: texts(rule, "apiGroups"),
                    resources: texts(rule, "resources"),
                    namespaces: texts(rule, "namespaces"),
                    cluster: rule.get("clusterScope").and_then(Value::as_bool).unwrap_or(false),
                })
                .collect(),
            paths: list("nonResourceRules")
                .map(|rule| PathRule { verbs: texts(rule, "verbs"), urls: texts(rule, "nonResourceURLs") })
                .collect(),
        }
    }

    fn matches(&self, asks: &Asks<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.is(asks.user))
            && match asks.on {
                On::Path(path) => self
                    .paths
                    .iter()
                    .any(|rule| has(&rule.verbs, asks.verb) && rule.urls.iter().any(|url| covers(url, path))),
                On::Resource { .. } => self.resources.iter().any(|rule| rule.matches(asks)),
            }
    }
}

impl ResourceRule {
    fn matches(&self, asks: &Asks<'_>) -> bool {
        let On::Resource { group, resource, subresource, namespace } = asks.on else { return false };
        let named = |rule: &String| match rule.split_once('/') {
            None => rule == "*" || (subresource.is_empty() && rule == resource),
            Some((of, sub)) => sub == subresource && (of == "*" || of == resource),
        };
        let placed = if namespace.is_empty() { self.cluster } else { has(&self.namespaces, namespace) };
        placed && has(&self.verbs, asks.verb) && has(&self.groups, group) && self.resources.iter().any(named)
    }
}

impl Subject {
    fn read(subject: &Value) -> Option<Self> {
        let text = |member: &str, field: &str| Some(subject.get(member)?.get(field)?.as_str()?.to_owned());
        match subject.get("kind")?.as_str()? {
            "User" => Some(Self::User(text("user", "name")?)),
            "Group" => Some(Self::Group(text("group", "name")?)),
            "ServiceAccount" => {
                Some(Self::Account(text("serviceAccount", "namespace")?, text("serviceAccount", "name")?))
            }
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.groups.contains(name),
            Self::Account(namespace, name) => user
                .name
                .strip_prefix("system:serviceaccount:")
                .and_then(|account| account.split_once(':'))
                .is_some_and(|(ns, account)| ns == namespace && (name == "*" || account == name)),
        }
    }
}

fn texts(rule: &Value, member: &str) -> Vec<String> {
    let list = rule.get(member).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], item: &str) -> bool {
    list.iter().any(|member| member == "*" || member == item)
}

fn covers(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}
