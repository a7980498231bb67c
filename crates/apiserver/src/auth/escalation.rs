//! Nobody grants what they do not hold (upstream `rbac/validation` and the `policybased` registries).

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _, ready};
use meta::{GroupResource, Object, Status, Value};
use resource::{Admission, Attributes, Context, Operation};

use super::{Ask, Asked, Authorizer, Rule, rbac::GROUP, rules::uncovered};

/// Refuses roles with rules, and bindings to roles with rules, that the writer does not hold, unless the
/// writer may `escalate` or `bind`.
pub struct Escalation(pub Arc<dyn Authorizer>);

impl Admission for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.resource.group == GROUP
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let Some(object) = object else { return ready(Ok(())).boxed() };
        let verdict = match cx.attributes.resource.resource.as_str() {
            "roles" | "clusterroles" => self.role(cx, object, old),
            "rolebindings" | "clusterrolebindings" => self.binding(cx, object, old),
            _ => Ok(()),
        };
        ready(verdict).boxed()
    }
}

fn rules_of(role: &Object) -> Vec<Rule> {
    role.list(&["rules"]).iter().map(Rule::from_value).collect()
}

impl Escalation {
    fn role(&self, cx: &Context<'_>, role: &Object, old: Option<&Object>) -> Result<(), Status> {
        let same = |key: &str| old.is_some_and(|o| o.get(&[key]) == role.get(&[key]));
        if (same("rules") && same("aggregationRule"))
            || self.may(cx, "escalate", &cx.attributes.resource, role.name())
        {
            return Ok(());
        }
        let mut wanted = rules_of(role);
        if role.get(&["aggregationRule"]).is_some_and(|rule| !rule.is_null()) {
            // It may come to hold anything, so its writer must hold everything.
            let all = || vec!["*".to_owned()];
            wanted.push(Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
            wanted.push(Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() });
        }
        self.holds(cx, &wanted)
    }

    fn binding(&self, cx: &Context<'_>, binding: &Object, old: Option<&Object>) -> Result<(), Status> {
        let same = |key: &str| old.is_some_and(|o| o.get(&[key]) == binding.get(&[key]));
        if same("roleRef") && same("subjects") {
            return Ok(());
        }
        let name = binding.str(&["roleRef", "name"]).unwrap_or_default();
        let (plural, namespace) = match binding.str(&["roleRef", "kind"]) {
            Some("Role") => ("roles", cx.attributes.namespace.as_str()),
            _ => ("clusterroles", ""),
        };
        let resource = GroupResource::new(GROUP, plural);
        if self.may(cx, "bind", &resource, name) {
            return Ok(());
        }
        let role =
            cx.view.get(&resource, namespace, name).ok_or_else(|| Status::not_found(&resource, name))?;
        self.holds(cx, &rules_of(&role.object().map_err(Status::internal)?))
    }

    fn may(&self, cx: &Context<'_>, verb: &str, resource: &GroupResource, name: &str) -> bool {
        let object = Asked::Resource {
            group: &resource.group,
            version: "*",
            resource: &resource.resource,
            subresource: "",
            namespace: &cx.attributes.namespace,
            name,
        };
        self.0.allows(&Ask::new(&cx.attributes.user, verb, object))
    }

    fn holds(&self, cx: &Context<'_>, wanted: &[Rule]) -> Result<(), Status> {
        let user = &cx.attributes.user;
        let lacking = uncovered(&self.0.rules(user, &cx.attributes.namespace), wanted);
        if lacking.is_empty() {
            return Ok(());
        }
        let groups: Vec<Value> = user.groups.iter().map(|g| Value::String(g.clone())).collect();
        let why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            Value::Array(groups),
            lacking.join("\n")
        );
        Err(Status::forbidden(&cx.attributes.resource, &cx.attributes.name, &why))
    }
}
