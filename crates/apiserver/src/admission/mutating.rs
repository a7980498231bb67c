//! Everybody who may change a request: mutating policies, then mutating webhooks, each by name, and once
//! more those that want to see what others changed after them (`reinvocationPolicy: IfNeeded`).

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use meta::{Object, Status, Value};
use resource::{Admission, Attributes, Context};

use super::{
    policy::{Bound, Policies, same_identity},
    request,
    webhooks::{Caller, Hook},
};

/// Upstream's MutatingAdmissionPolicy and MutatingAdmissionWebhook in one, for their second round.
pub(super) struct Mutating {
    pub(super) policies: Policies,
    pub(super) webhooks: Caller,
}

/// One who may change the object.
enum Step {
    Policy(Bound),
    Webhook(Arc<Hook>),
}

impl Step {
    fn reinvoked(&self) -> bool {
        match self {
            Self::Policy(bound) => bound.reinvoked(),
            Self::Webhook(hook) => hook.reinvoked,
        }
    }
}

impl Admission for Mutating {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        request::concerns(attributes)
    }

    fn mutate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a mut Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        self.run(cx, object, old).boxed()
    }
}

impl Mutating {
    async fn run(
        &self,
        cx: &Context<'_>,
        mut object: Option<&mut Object>,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        // A policy changes objects; where there is none it has nothing to do.
        let policies = if object.is_some() { self.policies.bound(cx)? } else { Vec::new() };
        let mut steps: Vec<Step> = policies.into_iter().map(Step::Policy).collect();
        steps.extend(self.webhooks.hooks(cx)?.into_iter().map(Step::Webhook));
        // The state of the object that each step left, counted in changes.
        let mut changes = 0_u64;
        let mut left: Vec<Option<u64>> = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let (ran, changed) = self.step(step, (0, at), cx, object.as_deref_mut(), old).await?;
            changes += u64::from(changed);
            left.push(ran.then_some(changes));
        }
        for (at, (step, left)) in steps.iter().zip(left).enumerate() {
            if step.reinvoked() && left.is_some_and(|left| left < changes) {
                let (_, changed) = self.step(step, (1, at), cx, object.as_deref_mut(), old).await?;
                changes += u64::from(changed);
            }
        }
        Ok(())
    }

    /// Whether it ran, and whether it changed the object.
    async fn step(
        &self,
        step: &Step,
        (round, at): (usize, usize),
        cx: &Context<'_>,
        object: Option<&mut Object>,
        old: Option<&Object>,
    ) -> Result<(bool, bool), Status> {
        match (step, object) {
            (Step::Policy(_), None) => Ok((false, false)),
            (Step::Policy(bound), Some(object)) => {
                let before = object.clone();
                let ran = self.policies.mutate(bound, cx, object, old).await?;
                self.settle(cx, &before, object)?;
                Ok((ran, *object != before))
            }
            (Step::Webhook(hook), object) => {
                let Some((seen, answer)) = self.webhooks.ask(hook, cx, object.as_deref(), old).await? else {
                    return Ok((false, false));
                };
                let changed = match (answer.patch, object) {
                    (None, _) => false,
                    (Some(_), None) => {
                        let why = format!(
                            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                            hook.name
                        );
                        return Err(Status::internal(why));
                    }
                    (Some(patch), Some(object)) => {
                        let before = object.clone();
                        self.patch(&seen, cx, object, &patch).await?;
                        self.settle(cx, &before, object)?;
                        *object != before
                    }
                };
                let note = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{at}");
                let said = serde_json::json!({
                    "configuration": hook.configuration(), "webhook": &*hook.name, "mutated": changed,
                });
                cx.attributes.notes.annotate(note, said.to_string());
                Ok((true, changed))
            }
        }
    }

    /// Applies a webhook's patch to the object in the version that the webhook saw.
    async fn patch(
        &self,
        seen: &request::Seen,
        cx: &Context<'_>,
        object: &mut Object,
        patch: &Value,
    ) -> Result<(), Status> {
        let versions = seen.converted.as_ref().zip(self.webhooks.ground.entry(cx.attributes));
        let mut changed = object.clone();
        if let Some((to, from)) = &versions {
            request::convert(from, to, &mut changed).await?;
        }
        let mut tree = changed.into_value();
        schema::patch::json(&mut tree, patch).map_err(Status::internal)?;
        let mut changed = Object::from_value(tree)
            .map_err(|_| Status::internal("the patch of a webhook does not leave an object"))?;
        if let Some((to, from)) = &versions {
            request::convert(to, from, &mut changed).await?;
        }
        *object = changed;
        Ok(())
    }

    /// What was changed has the form of its kind again and is still the same object.
    fn settle(&self, cx: &Context<'_>, before: &Object, object: &mut Object) -> Result<(), Status> {
        if object == before {
            return Ok(());
        }
        let was = Value::Object(before.0.clone());
        same_identity(&was, object)
            .map_err(|why| Status::internal(format!("admission changed the object: {why}")))?;
        self.webhooks.ground.settle(cx.attributes, object);
        Ok(())
    }
}
