//! The objects that parametrise a policy (upstream `policy/generic/policy_dispatcher.go` `CollectParams`).

use meta::{Status, Value};
use resource::{Context, Scope};

use super::{Bound, Ground, Trouble};

/// Params of one binding; each is another evaluation of the whole policy.
const PARAMS_MAX: usize = 1000;

impl Bound {
    /// One null where the policy has no params; none where there are none and that is fine.
    pub(super) async fn params(&self, ground: &Ground, cx: &Context<'_>) -> Result<Vec<Value>, Trouble> {
        let (Some((group, version, kind)), Some(wanted)) = (&self.policy.param_kind, &self.binding.param)
        else {
            return Ok(vec![Value::Null]);
        };
        let misconfigured =
            |why: String| Trouble::Misconfigured(format!("failed to configure binding: {why}"));
        let entry = ground.registry.by_kind(group, version, kind).ok_or_else(|| {
            let slash = if group.is_empty() { "" } else { "/" };
            misconfigured(format!(
                "failed to find resource referenced by paramKind: '{group}{slash}{version}, Kind={kind}'"
            ))
        })?;
        let namespace = match (entry.scope, wanted.namespace.as_str()) {
            (Scope::Namespaced, "") if cx.attributes.namespace.is_empty() => {
                let why =
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
                return Err(misconfigured(why.to_owned()));
            }
            (Scope::Namespaced, "") => &cx.attributes.namespace,
            (Scope::Namespaced, given) => given,
            (Scope::Cluster, "") => "",
            (Scope::Cluster, _) => {
                let why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
                return Err(misconfigured(why.to_owned()));
            }
        };
        let entries = match &wanted.selector {
            None => cx.view.get(&entry.stored_as, namespace, &wanted.name).into_iter().collect(),
            Some(selector) => {
                let all =
                    cx.view.list(&entry.stored_as, Some(namespace).filter(|namespace| !namespace.is_empty()));
                all.into_iter()
                    .filter(|entry| selector.matches_with(|key| entry.header.labels.get(key)))
                    .collect::<Vec<_>>()
            }
        };
        if entries.is_empty() && wanted.denies_absence {
            let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
            return Err(misconfigured(why.to_owned()));
        }
        if entries.len() > PARAMS_MAX {
            return Err(misconfigured(format!("paramRef selects more than {PARAMS_MAX} params")));
        }
        let mut params = Vec::with_capacity(entries.len());
        for stored in entries {
            let mut object = stored.object().map_err(|error| Trouble::Request(Status::internal(error)))?;
            crate::rest::to_served(&entry, &mut object).await?;
            params.push(object.into_value());
        }
        Ok(params)
    }
}
