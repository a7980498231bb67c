//! ValidatingAdmissionPolicy.

use futures::future::{BoxFuture, FutureExt as _};
use meta::{Cause, Object, Reason, Status, Value};
use resource::{Admission, Attributes, Context};
use schema::cel::Scope;
use serde_json::json;

use super::{Bound, Policies, Trouble, read::Validation};

/// Bytes of a message that an expression made, as upstream.
const MESSAGE_MAX: usize = 5 * 1024;
/// Bytes of an audit annotation, as upstream; longer ones are cut.
const ANNOTATION_MAX: usize = 10 * 1024;
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The plugin of upstream's name.
pub(in crate::admission) struct ValidatingAdmissionPolicy(pub(in crate::admission) Policies);

impl Admission for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        super::request::concerns(attributes)
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        self.decide(cx, object, old).boxed()
    }
}

/// What one validation of one policy refuses.
struct Failure {
    /// `None` when the policy as a whole failed.
    at: Option<usize>,
    message: String,
    reason: String,
}

impl ValidatingAdmissionPolicy {
    async fn decide(
        &self,
        cx: &Context<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let mut denied: Option<Status> = None;
        let mut audited: Vec<Value> = Vec::new();
        for bound in self.0.bound(cx)? {
            let failures = match self.apply(&bound, cx, object, old).await {
                Ok(failures) => failures,
                Err(Trouble::Unwanted) => continue,
                Err(Trouble::Request(status)) => return Err(status),
                Err(Trouble::Misconfigured(why)) if bound.policy.ignores_failure => {
                    tracing::warn!(policy = bound.policy.name, "{why}; its failure policy is Ignore");
                    continue;
                }
                Err(Trouble::Misconfigured(message)) => {
                    let failure = Failure { at: None, message, reason: String::new() };
                    denied.get_or_insert_with(|| denial(cx.attributes, &bound, &failure));
                    continue;
                }
            };
            for failure in failures {
                let Bound { policy, binding } = &bound;
                if binding.denies {
                    denied.get_or_insert_with(|| denial(cx.attributes, &bound, &failure));
                }
                if binding.warns {
                    cx.attributes.notes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, failure.message
                    ));
                }
                if binding.audits {
                    audited.push(json!({
                        "message": failure.message, "policy": policy.name, "binding": binding.name,
                        "expressionIndex": failure.at.unwrap_or(0), "validationActions": binding.actions,
                    }));
                }
            }
        }
        if !audited.is_empty() {
            cx.attributes.notes.annotate(FAILURES, Value::Array(audited).to_string());
        }
        denied.map_or(Ok(()), Err)
    }

    async fn apply(
        &self,
        bound: &Bound,
        cx: &Context<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Vec<Failure>, Trouble> {
        let ground = &self.0.ground;
        let (_, sight) = bound.sight(ground, cx, object, old).await?;
        let mut failures = Vec::new();
        for params in bound.params(ground, cx).await? {
            let scope = match bound.evaluation(ground, cx, &sight, &params) {
                Ok(scope) => scope,
                // Conditions may depend on params.
                Err(Trouble::Unwanted) => continue,
                Err(trouble) => return Err(trouble),
            };
            for (at, validation) in bound.policy.validations.iter().enumerate() {
                failures.extend(check(bound, validation, at, &scope));
            }
            annotate(bound, cx.attributes, &scope);
        }
        Ok(failures)
    }
}

fn check(bound: &Bound, validation: &Validation, at: usize, scope: &Scope<'_>) -> Option<Failure> {
    let failure =
        |message: String, reason: &str| Some(Failure { at: Some(at), message, reason: reason.to_owned() });
    match validation.expression.as_ref().map_err(Clone::clone).and_then(|expression| expression.truth(scope))
    {
        Ok(true) => None,
        Ok(false) => failure(message(validation, scope), &validation.reason),
        Err(error) if bound.policy.ignores_failure => {
            tracing::warn!(policy = bound.policy.name, %error, "evaluate; its failure policy is Ignore");
            None
        }
        Err(error) => failure(error.to_string(), ""),
    }
}

/// What a failed validation says: its messageExpression, its message, or itself.
fn message(validation: &Validation, scope: &Scope<'_>) -> String {
    let computed = validation.message_expression.as_ref().and_then(|message| {
        let text = message.as_ref().ok()?.text(scope).ok()??;
        let text = text.trim();
        // A message that cannot be shown is not; the static one is.
        let good = !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains(['\n', '\r']);
        good.then(|| text.to_owned())
    });
    computed.unwrap_or_else(|| match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.source),
        message => message.to_owned(),
    })
}

fn annotate(bound: &Bound, attributes: &Attributes, scope: &Scope<'_>) {
    for (key, expression) in &bound.policy.annotations {
        let value = expression.as_ref().map_err(Clone::clone).and_then(|expression| expression.text(scope));
        match value {
            Ok(Some(text)) => {
                let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= ANNOTATION_MAX).last();
                let cut =
                    if text.len() > ANNOTATION_MAX { end.and_then(|end| text.get(..end)) } else { None };
                let key = format!("{}/{key}", bound.policy.name);
                attributes.notes.annotate(key, cut.unwrap_or(&text));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(policy = bound.policy.name, key, %error, "evaluate an audit annotation")
            }
        }
    }
}

fn denial(attributes: &Attributes, bound: &Bound, failure: &Failure) -> Status {
    refusal(attributes, "ValidatingAdmissionPolicy", bound, &failure.message, &failure.reason)
}

/// The answer to a request that a policy refuses.
pub(super) fn refusal(
    attributes: &Attributes,
    kind: &str,
    bound: &Bound,
    message: &str,
    reason: &str,
) -> Status {
    let why = format!(
        "{kind} '{}' with binding '{}' denied request: {message}",
        bound.policy.name, bound.binding.name
    );
    let mut status = Status::forbidden(&attributes.resource, &attributes.name, &why);
    (status.code, status.reason) = match reason {
        "Forbidden" => (403, Some(Reason::Forbidden)),
        "Unauthorized" => (401, Some(Reason::Unauthorized)),
        "RequestEntityTooLarge" => (413, Some(Reason::RequestEntityTooLarge)),
        _ => (422, Some(Reason::Invalid)),
    };
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { reason: String::new(), message: why, field: String::new() });
    }
    status
}
