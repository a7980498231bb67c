//! Admission webhooks (upstream `apiserver/pkg/admission/plugin/webhook`): mutating ones one after another,
//! validating ones side by side.

use std::{sync::Arc, time::Duration};

use futures::{
    future::{BoxFuture, FutureExt as _},
    stream::{self, StreamExt as _},
};
use meta::{GroupResource, Object, Status, Value};
use resource::{Admission, Attributes, Context};
use schema::cel::{MATCH_BUDGET, Scope};
use tokio::time::Instant;

use super::{
    compiled::Compiled,
    matching::Matcher,
    request::{self, GROUP, Ground, Seen},
    review::{self, Answer},
};
use crate::{
    conditions::{Conditions, Verdict},
    metrics::Called,
    trace,
    webhook::{Target, Webhooks},
};

/// Validating webhooks asked at once for one request; a thousand configurations must not open a thousand
/// connections for each write.
const PARALLEL: usize = 16;

/// Names that a match condition may use.
const NAMES: &[&str] = &["object", "oldObject", "request", "authorizer", "authorizer.requestResource"];

/// One webhook of one configuration.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) name: Arc<str>,
    configuration: String,
    target: Result<Target, String>,
    matcher: Matcher,
    conditions: Conditions,
    ignores_failure: bool,
    no_side_effects: bool,
    pub(super) reinvoked: bool,
    timeout: Duration,
    /// The review version that both sides know.
    version: Option<&'static str>,
}

/// The webhooks of one configuration, in their order.
pub(super) fn read(configuration: &Object) -> Vec<Arc<Hook>> {
    let hook = |value: &Value| {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let versions = value.get("admissionReviewVersions").and_then(Value::as_array).into_iter().flatten();
        let seconds = value.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(10).clamp(1, 30);
        Arc::new(Hook {
            name: text("name").into(),
            configuration: configuration.name().to_owned(),
            target: Target::read(value.get("clientConfig").unwrap_or(&Value::Null)),
            matcher: Matcher::read(value, "rules"),
            conditions: Conditions::read(value, NAMES),
            ignores_failure: text("failurePolicy") == "Ignore",
            no_side_effects: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            timeout: Duration::from_secs(seconds),
            version: versions.filter_map(Value::as_str).find_map(|version| match version {
                "v1" => Some("v1"),
                "v1beta1" => Some("v1beta1"),
                _ => None,
            }),
        })
    };
    configuration.list(&["webhooks"]).iter().map(hook).collect()
}

/// Calls webhooks about requests.
pub(super) struct Caller {
    pub(super) ground: Ground,
    client: Webhooks,
    configurations: Compiled<Vec<Arc<Hook>>>,
    mutating: bool,
}

impl Hook {
    /// The configuration it is in.
    pub(super) fn configuration(&self) -> &str {
        &self.configuration
    }
}

impl Caller {
    pub(super) fn new(ground: Ground, client: Webhooks, mutating: bool) -> Self {
        let kind = if mutating { "mutatingwebhookconfigurations" } else { "validatingwebhookconfigurations" };
        let configurations = Compiled::new(GroupResource::new(GROUP, kind), read);
        Self { ground, client, configurations, mutating }
    }

    /// Every webhook, by name of its configuration.
    pub(super) fn hooks(&self, cx: &Context<'_>) -> Result<Vec<Arc<Hook>>, Status> {
        Ok(self.configurations.all(cx.view)?.iter().flat_map(|hooks| hooks.iter().cloned()).collect())
    }

    /// Asks one webhook if it wants the request. `None` when it does not, or failed and may.
    pub(super) async fn ask(
        &self,
        hook: &Hook,
        cx: &Context<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Option<(Seen, Answer)>, Status> {
        let attributes = cx.attributes;
        let Some(seen) = hook.matcher.wants(&self.ground, cx, object, old)? else { return Ok(None) };
        let (new, old) =
            (self.shown(&seen, attributes, object).await?, self.shown(&seen, attributes, old).await?);
        let request = request::request(attributes, &seen);
        if !hook.conditions.is_empty() {
            let whole = Value::Object(request.clone());
            let mut scope = Scope::new(MATCH_BUDGET);
            for (name, value) in [("object", &new), ("oldObject", &old), ("request", &whole)] {
                scope.set(name, value);
            }
            scope.set_authorizer(&self.ground.asker(attributes), Some(&request::asked(attributes)));
            match hook.conditions.check(&scope) {
                Verdict::Wanted => {}
                Verdict::Unwanted => return Ok(None),
                Verdict::Failed(_) if hook.ignores_failure => return Ok(None),
                Verdict::Failed(why) => {
                    return Err(Status::forbidden(&attributes.resource, &attributes.name, &why));
                }
            }
        }
        if attributes.dry_run && !hook.no_side_effects {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Status::bad_request(why));
        }
        let began = Instant::now();
        let part = trace::part("Webhook", trace::SpanKind::Client);
        if let Some(part) = &part {
            part.note("webhook", &*hook.name);
            part.note("configuration", hook.configuration.as_str());
        }
        let answered = self.call(hook, cx, request, new, old).await;
        if let Some(part) = part.filter(|_| answered.is_err()) {
            part.failed();
        }
        let (called, result) = match answered {
            Ok(answer) => {
                self.note(hook, attributes, &answer);
                if answer.allowed {
                    (Called::Allowed, Ok(Some((seen, answer))))
                } else {
                    let denial = answer.denial(&hook.name);
                    (Called::Refused(denial.code), Err(denial))
                }
            }
            Err(why) => match self.failed(hook, attributes, &why) {
                Ok(()) => (Called::FailedOpen, Ok(None)),
                Err(status) => (Called::Failed, Err(status)),
            },
        };
        let (kind, operation) =
            (if self.mutating { "admit" } else { "validating" }, request::operation(attributes));
        self.client.counts().called(&hook.name, kind, operation, called, began.elapsed());
        result
    }

    /// What a failure of a webhook means: nothing, or the end of the request.
    pub(super) fn failed(&self, hook: &Hook, attributes: &Attributes, why: &str) -> Result<(), Status> {
        let why = format!("failed calling webhook {:?}: {why}", hook.name);
        if !hook.ignores_failure {
            return Err(Status::internal(why));
        }
        tracing::warn!(
            webhook = &*hook.name,
            configuration = hook.configuration,
            "{why}; its failure policy is Ignore"
        );
        let stage = if self.mutating { "mutation" } else { "validation" };
        attributes
            .notes
            .annotate(format!("failed-open.{stage}.webhook.admission.k8s.io/{}", hook.name), &*hook.name);
        Ok(())
    }

    fn note(&self, hook: &Hook, attributes: &Attributes, answer: &Answer) {
        for warning in &answer.warnings {
            attributes.notes.warn(warning.as_str());
        }
        for (key, value) in &answer.annotations {
            attributes.notes.annotate(format!("{}/{key}", hook.name), value.as_str());
        }
    }

    async fn shown(
        &self,
        seen: &Seen,
        attributes: &Attributes,
        object: Option<&Object>,
    ) -> Result<Value, Status> {
        let (Some(object), Some(to)) = (object, &seen.converted) else { return Ok(request::value(object)) };
        let Some(from) = self.ground.entry(attributes) else { return Ok(request::value(Some(object))) };
        let mut object = object.clone();
        request::convert(&from, to, &mut object).await?;
        Ok(object.into_value())
    }

    async fn call(
        &self,
        hook: &Hook,
        cx: &Context<'_>,
        request: serde_json::Map<String, Value>,
        new: Value,
        old: Value,
    ) -> Result<Answer, String> {
        let version =
            hook.version.ok_or("webhook does not accept known AdmissionReview versions (v1, v1beta1)")?;
        let target = hook.target.as_ref().map_err(Clone::clone)?;
        let uid = cx.random.uuid();
        let review = review::review(version, &uid, request, new, old);
        let answer = self.client.post(target, &review, hook.timeout).await;
        let answer = answer.map_err(|why| format!("failed to call webhook: {why}"))?;
        review::read(version, &uid, self.mutating, &answer)
            .map_err(|why| format!("received invalid webhook response: {why}"))
    }
}

/// The plugin of upstream's name.
pub(super) struct ValidatingAdmissionWebhook(pub(super) Caller);

impl Admission for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        request::concerns(attributes)
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        self.ask_all(cx, object, old).boxed()
    }
}

impl ValidatingAdmissionWebhook {
    /// Asks all; the first refusal in their order is the answer, so that it is the same each time.
    async fn ask_all(
        &self,
        cx: &Context<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let hooks = self.0.hooks(cx)?;
        let asked = stream::iter(hooks)
            .map(|hook| async move { self.0.ask(&hook, cx, object, old).await })
            .buffered(PARALLEL);
        let answers: Vec<_> = asked.collect().await;
        answers.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }
}
