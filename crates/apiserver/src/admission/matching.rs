//! Whether a webhook or policy wants a request: rules, selectors, equivalent versions (upstream
//! `apiserver/pkg/admission/plugin/webhook/predicates`).

use meta::{LabelSelector, Object, Status, Value};
use resource::{Attributes, Context, Resource, Scope};

use super::request::{Ground, Seen, namespace, operation};

/// `rules` or `resourceRules` with the selectors beside them, read once.
#[derive(Debug)]
pub(super) struct Matcher {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

/// A selector; what is not well formed was refused when it was written, and selects nothing.
#[derive(Debug)]
struct Selector(LabelSelector);

impl Selector {
    fn read(value: Option<&Value>) -> Self {
        Self(match value {
            None | Some(Value::Null) => LabelSelector::new(Vec::new()),
            Some(value) => LabelSelector::from_value(value).unwrap_or_else(|_| LabelSelector::nothing()),
        })
    }

    fn matches(&self, object: &Object) -> bool {
        self.0.matches_with(|key| object.label(key))
    }
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: Option<Scope>,
}

fn strings(value: &Value, key: &str) -> Vec<String> {
    let list = value.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    fn read(value: &Value) -> Self {
        Self {
            operations: strings(value, "operations"),
            groups: strings(value, "apiGroups"),
            versions: strings(value, "apiVersions"),
            resources: strings(value, "resources"),
            names: strings(value, "resourceNames"),
            scope: match value.get("scope").and_then(Value::as_str) {
                Some("Cluster") => Some(Scope::Cluster),
                Some("Namespaced") => Some(Scope::Namespaced),
                _ => None,
            },
        }
    }

    /// Whether it wants the request as this version of its kind.
    fn matches(&self, attributes: &Attributes, group: &str, version: &str, resource: &str) -> bool {
        let namespaces = attributes.resource.group.is_empty() && attributes.resource.resource == "namespaces";
        let scope =
            if attributes.namespace.is_empty() || namespaces { Scope::Cluster } else { Scope::Namespaced };
        has(&self.operations, operation(attributes))
            && has(&self.groups, group)
            && has(&self.versions, version)
            && self.scope.is_none_or(|wanted| wanted == scope)
            && (self.names.is_empty() || self.names.contains(&attributes.name))
            && self.resources.iter().any(|wanted| {
                let (plural, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
                let of = plural == "*" || plural == resource;
                of && (sub == attributes.subresource || sub == "*")
            })
    }
}

impl Matcher {
    /// Reads a webhook, or the `matchConstraints` of a policy.
    pub(super) fn read(value: &Value, rules: &str) -> Self {
        let list = |key: &str| -> Vec<Rule> {
            value.get(key).and_then(Value::as_array).into_iter().flatten().map(Rule::read).collect()
        };
        Self {
            rules: list(rules),
            excluded: list("excludeResourceRules"),
            equivalent: value.get("matchPolicy").and_then(Value::as_str) != Some("Exact"),
            namespaces: Selector::read(value.get("namespaceSelector")),
            objects: Selector::read(value.get("objectSelector")),
        }
    }

    /// Whether the rules say nothing, as in a binding that leaves all to its policy.
    pub(super) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// In which version the request is wanted; `None` when it is not.
    pub(super) fn wants(
        &self,
        ground: &Ground,
        cx: &Context<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Option<Seen>, Status> {
        let attributes = cx.attributes;
        if find(&self.excluded, self.equivalent, ground, attributes).is_some() {
            return Ok(None);
        }
        let Some(seen) = find(&self.rules, self.equivalent, ground, attributes) else { return Ok(None) };
        Ok(self.selects(cx, object, old)?.then_some(seen))
    }

    /// Whether the selectors let the request through.
    pub(super) fn selects(
        &self,
        cx: &Context<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<bool, Status> {
        if !self.objects.0.is_everything() {
            let matches = [object, old].into_iter().flatten().any(|object| self.objects.matches(object));
            if !matches {
                return Ok(false);
            }
        }
        if self.namespaces.0.is_everything() {
            return Ok(true);
        }
        Ok(namespace(cx, object)?.is_none_or(|namespace| self.namespaces.matches(&namespace)))
    }
}

/// The version of the request's kind that a rule wants: its own before any other.
fn find(rules: &[Rule], equivalent: bool, ground: &Ground, attributes: &Attributes) -> Option<Seen> {
    let Attributes { resource, version, .. } = attributes;
    if rules.iter().any(|rule| rule.matches(attributes, &resource.group, version, &resource.resource)) {
        return Some(Seen::direct(attributes));
    }
    if !equivalent || rules.is_empty() {
        return None;
    }
    let entry = ground.registry.resolve(&resource.group, version, &resource.resource)?;
    let wants = |other: &Resource| {
        rules.iter().any(|rule| rule.matches(attributes, &other.group, &other.version, &other.plural))
    };
    let other = ground.registry.others(&entry).into_iter().find(|other| wants(other))?;
    // The body of a subresource is of one kind whatever version its parent has.
    let body = *entry.kind != *attributes.kind;
    Some(Seen {
        group: other.group.to_string(),
        version: other.version.to_string(),
        resource: other.plural.to_string(),
        converted: (!body).then_some(other),
    })
}
