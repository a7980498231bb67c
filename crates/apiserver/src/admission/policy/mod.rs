//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy (upstream `apiserver/pkg/admission/plugin/policy`):
//! expressions instead of webhooks. How they go with the kinds a policy matches (`status.typeChecking`) is a
//! controller's business.

mod mutating;
mod params;
mod read;
mod validating;

use std::sync::Arc;

use meta::{GroupResource, Object, Status, Value};
use resource::Context;
use schema::cel::{MATCH_BUDGET, POLICY_BUDGET, Scope};

use super::{
    compiled::Compiled,
    request::{self, GROUP, Ground, Seen},
};
use crate::conditions::Verdict;
use read::{Binding, Policy};

pub(super) use mutating::same_identity;
pub(super) use validating::ValidatingAdmissionPolicy;

/// The policies of one kind with their bindings.
pub(super) struct Policies {
    pub(super) ground: Ground,
    policies: Compiled<Policy>,
    bindings: Compiled<Binding>,
}

/// A policy to apply to a request, because of a binding.
pub(super) struct Bound {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
}

/// Why a policy could not be applied, or what it says when it fails closed.
pub(super) enum Trouble {
    /// It does not want the request.
    Unwanted,
    /// It, or its binding, cannot be used as it is.
    Misconfigured(String),
    /// The request cannot be decided.
    Request(Status),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        Self::Request(status)
    }
}

impl Policies {
    pub(super) fn new(ground: Ground, mutating: bool) -> Self {
        let (policies, bindings) = if mutating {
            ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings")
        } else {
            ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
        };
        Self {
            ground,
            policies: Compiled::new(GroupResource::new(GROUP, policies), Policy::read),
            bindings: Compiled::new(GroupResource::new(GROUP, bindings), Binding::read),
        }
    }

    /// Every policy that is bound, by name of the policy, then of the binding.
    pub(super) fn bound(&self, cx: &Context<'_>) -> Result<Vec<Bound>, Status> {
        let policies = self.policies.all(cx.view)?;
        if policies.is_empty() {
            return Ok(Vec::new());
        }
        let bindings = self.bindings.all(cx.view)?;
        let of = |policy: &Arc<Policy>| {
            let mine = bindings.iter().filter(|binding| binding.policy == policy.name);
            mine.map(|binding| Bound { policy: policy.clone(), binding: binding.clone() }).collect::<Vec<_>>()
        };
        Ok(policies.iter().flat_map(of).collect())
    }
}

/// A request as a policy sees it.
struct Sight {
    object: Value,
    old: Value,
    request: Value,
    namespace: Value,
}

impl Bound {
    /// What the policy sees of the request.
    async fn sight(
        &self,
        ground: &Ground,
        cx: &Context<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<(Seen, Sight), Trouble> {
        let attributes = cx.attributes;
        let seen = self.policy.matcher.wants(ground, cx, object, old)?.ok_or(Trouble::Unwanted)?;
        if let Some(matcher) = &self.binding.matcher {
            let wanted = if matcher.has_rules() {
                matcher.wants(ground, cx, object, old)?.is_some()
            } else {
                matcher.selects(cx, object, old)?
            };
            if !wanted {
                return Err(Trouble::Unwanted);
            }
        }
        let from = ground.entry(attributes);
        let mut shown = [object.cloned(), old.cloned()];
        if let (Some(from), Some(to)) = (&from, &seen.converted) {
            for object in shown.iter_mut().flatten() {
                request::convert(from, to, object).await?;
            }
        }
        let [new, before] = shown;
        let namespaces = GroupResource::new("", "namespaces");
        let namespace = match attributes.resource == namespaces {
            true => None,
            false => request::namespace(cx, object)?,
        };
        let sight = Sight {
            object: new.map_or(Value::Null, Object::into_value),
            old: before.map_or(Value::Null, Object::into_value),
            request: Value::Object(request::request(attributes, &seen)),
            namespace: namespace.map_or(Value::Null, Object::into_value),
        };
        Ok((seen, sight))
    }

    /// The scope in which the policy's expressions are evaluated with one set of params.
    fn scope<'a>(
        &'a self,
        ground: &Ground,
        cx: &Context<'_>,
        sight: &Sight,
        params: &Value,
        budget: u64,
    ) -> Result<Scope<'a>, Trouble> {
        let mut scope = Scope::new(budget);
        for (name, value) in [
            ("object", &sight.object),
            ("oldObject", &sight.old),
            ("request", &sight.request),
            ("namespaceObject", &sight.namespace),
            ("params", params),
        ] {
            scope.set(name, value);
        }
        scope.set_authorizer(&ground.asker(cx.attributes), Some(&request::asked(cx.attributes)));
        for (name, expression) in &self.policy.variables {
            match expression {
                Ok(expression) => scope.define(name, expression),
                Err(error) => {
                    return Err(Trouble::Misconfigured(format!("failed to compile policy: {error}")));
                }
            }
        }
        Ok(scope)
    }

    /// Whether the match conditions let the request through.
    fn wanted(
        &self,
        ground: &Ground,
        cx: &Context<'_>,
        sight: &Sight,
        params: &Value,
    ) -> Result<(), Trouble> {
        if self.policy.conditions.is_empty() {
            return Ok(());
        }
        match self.policy.conditions.check(&self.scope(ground, cx, sight, params, MATCH_BUDGET)?) {
            Verdict::Wanted => Ok(()),
            Verdict::Unwanted => Err(Trouble::Unwanted),
            Verdict::Failed(why) => Err(Trouble::Misconfigured(why)),
        }
    }

    fn evaluation<'a>(
        &'a self,
        ground: &Ground,
        cx: &Context<'_>,
        sight: &Sight,
        params: &Value,
    ) -> Result<Scope<'a>, Trouble> {
        self.wanted(ground, cx, sight, params)?;
        self.scope(ground, cx, sight, params, POLICY_BUDGET)
    }
}
