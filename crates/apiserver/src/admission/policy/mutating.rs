//! MutatingAdmissionPolicy.

use meta::{Object, Status, Value};
use resource::Context;
use serde_json::json;

use super::{Bound, Policies, Trouble, read::Mutation, validating::refusal};

impl Bound {
    /// Whether it wants to see the object again when others change it after.
    pub(in crate::admission) fn reinvoked(&self) -> bool {
        self.policy.reinvoked
    }
}

impl Policies {
    /// Lets one policy change the object. Tells whether it wanted the request.
    pub(in crate::admission) async fn mutate(
        &self,
        bound: &Bound,
        cx: &Context<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<bool, Status> {
        match self.apply(bound, cx, object, old).await {
            Ok(()) => Ok(true),
            Err(Trouble::Unwanted) => Ok(false),
            Err(Trouble::Request(status)) => Err(status),
            Err(Trouble::Misconfigured(why)) if bound.policy.ignores_failure => {
                tracing::warn!(policy = bound.policy.name, "{why}; its failure policy is Ignore");
                Ok(true)
            }
            Err(Trouble::Misconfigured(why)) => {
                Err(refusal(cx.attributes, "MutatingAdmissionPolicy", bound, &why, ""))
            }
        }
    }

    /// Each mutation sees what those before it made; the object changes only when all of them succeed.
    async fn apply(
        &self,
        bound: &Bound,
        cx: &Context<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), Trouble> {
        let ground = &self.ground;
        let (seen, mut sight) = bound.sight(ground, cx, Some(&*object), old).await?;
        let from = ground.entry(cx.attributes);
        let entry = seen.converted.clone().or_else(|| from.clone());
        for params in bound.params(ground, cx).await? {
            match bound.wanted(ground, cx, &sight, &params) {
                Ok(()) => {}
                Err(Trouble::Unwanted) => continue,
                Err(trouble) => return Err(trouble),
            }
            for mutation in &bound.policy.mutations {
                let scope = bound.scope(ground, cx, &sight, &params, schema::cel::POLICY_BUDGET)?;
                let made = mutation.expression.as_ref().map_err(Clone::clone);
                let made = made.and_then(|expression| expression.value(&scope));
                let made = made.map_err(|error| Trouble::Misconfigured(error.to_string()))?;
                drop(scope);
                sight.object = mutated(mutation, entry.as_deref(), &sight.object, made)
                    .map_err(Trouble::Misconfigured)?;
            }
        }
        let changed = Object::from_value(sight.object)
            .map_err(|_| Trouble::Misconfigured("the mutation does not leave an object".to_owned()))?;
        let mut changed = changed;
        if let (Some(to), Some(from)) = (&seen.converted, &from) {
            super::request::convert(to, from, &mut changed).await?;
        }
        *object = changed;
        Ok(())
    }
}

fn mutated(
    mutation: &Mutation,
    entry: Option<&resource::Resource>,
    object: &Value,
    made: Value,
) -> Result<Value, String> {
    if !mutation.applies {
        let mut object = object.clone();
        let Value::Array(_) = made else { return Err("a JSONPatch expression must give a list".to_owned()) };
        schema::patch::json(&mut object, &made).map_err(|error| format!("JSON Patch: {error}"))?;
        return Ok(object);
    }
    let entry = entry.ok_or("ApplyConfiguration is not supported for this kind of body")?;
    if !made.is_object() {
        return Err("an ApplyConfiguration expression must give an Object".to_owned());
    }
    for (path, field) in [
        ("/apiVersion", "apiVersion"),
        ("/kind", "kind"),
        ("/metadata/name", "metadata.name"),
        ("/metadata/namespace", "metadata.namespace"),
        ("/metadata/managedFields", "metadata.managedFields"),
    ] {
        if made.pointer(path).is_some_and(|given| object.pointer(path) != Some(given)) {
            return Err(format!("invalid ApplyConfiguration: may not set {field}"));
        }
    }
    schema::managed::merge(&entry.schema, object, &made)
        .map_err(|why| format!("invalid ApplyConfiguration: {why}"))
}

/// Whether a mutation changed what an object is called.
pub(in crate::admission) fn same_identity(before: &Value, after: &Object) -> Result<(), String> {
    for path in [&["metadata", "name"][..], &["metadata", "namespace"], &["kind"], &["apiVersion"]] {
        let pointer = format!("/{}", path.join("/"));
        let (was, is) = (before.pointer(&pointer), after.get(path));
        if was.is_some_and(|was| *was != json!("")) && was != is {
            return Err(format!("{} must not be changed", path.join(".")));
        }
    }
    Ok(())
}
