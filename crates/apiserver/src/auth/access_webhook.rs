//! Permissions that a webhook knows (upstream `apiserver/plugin/pkg/authorizer/webhook`).
//!
//! Guarantees: a webhook that does not answer allows nothing, and by its failure policy denies; answers are
//! remembered for the times that were set, failures not; match conditions spare it what it has no opinion on.

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt as _};
use meta::{Clock, Operator, Value};
use resource::User;
use schema::cel::{MATCH_BUDGET, Scope};
use serde_json::{Map, json};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::{Ask, Asked, Authorizer, Decision, Rule, memo::Memo};
use crate::{
    conditions::{Conditions, Verdict},
    webhook::Reviewer,
};

/// Answers remembered, as upstream.
const REMEMBERED_MAX: usize = 8192;
/// Bytes of a reason that is remembered.
const REASON_MAX: usize = 64 << 10;

/// Settings of one webhook.
#[derive(Clone, Debug)]
pub struct AccessWebhookOptions {
    /// Version of the SubjectAccessReviews it is sent: `v1` or `v1beta1`.
    pub version: &'static str,
    /// For how long a yes is remembered.
    pub authorized_for: Duration,
    /// For how long anything else is.
    pub unauthorized_for: Duration,
    /// Whether a failure means no.
    pub fails_closed: bool,
}

/// Asks a webhook whether something may be done.
pub struct AccessWebhook {
    reviewer: Reviewer,
    options: AccessWebhookOptions,
    conditions: Conditions,
    remembered: Memo<Answer>,
}

/// A review's status.
#[derive(Clone, Debug)]
struct Answer {
    allowed: bool,
    denied: bool,
    reason: String,
}

impl AccessWebhook {
    /// Asks about everything.
    pub fn new(reviewer: Reviewer, options: AccessWebhookOptions, clock: Arc<dyn Clock>) -> Self {
        let remembered = Memo::new(clock, REMEMBERED_MAX);
        Self { reviewer, options, conditions: Conditions::default(), remembered }
    }

    /// Asks only about what meets these conditions over `request`, the review's spec in `v1`.
    #[must_use]
    pub(super) fn when(mut self, conditions: Conditions) -> Self {
        self.conditions = conditions;
        self
    }

    async fn answer(&self, ask: &Ask<'_>) -> Decision {
        let spec = spec(ask);
        match self.wants(&spec) {
            Verdict::Wanted => {}
            Verdict::Unwanted => return Decision::NoOpinion(String::new()),
            Verdict::Failed(error) => return self.failed(error),
        }
        let key = Value::Object(spec.clone()).to_string();
        let key = [key.as_str()];
        let asked = self.remembered.get(&key, async {
            let answer = self.ask(spec).await?;
            let good = match answer.allowed {
                _ if answer.reason.len() > REASON_MAX => Duration::ZERO,
                true => self.options.authorized_for,
                false => self.options.unauthorized_for,
            };
            Ok::<_, String>((answer, good))
        });
        match asked.await {
            Err(error) => {
                tracing::warn!(error, "Failed to make webhook authorizer request");
                self.failed(error)
            }
            Ok(Answer { allowed: true, denied: true, reason }) => Decision::Failed {
                reason,
                error: "webhook subject access review returned both allow and deny response".to_owned(),
                denies: true,
            },
            Ok(Answer { denied: true, reason, .. }) => Decision::Deny(reason),
            Ok(Answer { allowed: true, reason, .. }) => Decision::Allow(reason),
            Ok(Answer { reason, .. }) => Decision::NoOpinion(reason),
        }
    }

    fn failed(&self, error: String) -> Decision {
        Decision::Failed { reason: String::new(), error, denies: self.options.fails_closed }
    }

    fn wants(&self, spec: &Map<String, Value>) -> Verdict {
        if self.conditions.is_empty() {
            return Verdict::Wanted;
        }
        let mut scope = Scope::new(MATCH_BUDGET);
        scope.set("request", &seen(spec));
        self.conditions.check(&scope)
    }

    async fn ask(&self, mut spec: Map<String, Value>) -> Result<Answer, String> {
        if self.options.version == "v1beta1"
            && let Some(groups) = spec.remove("groups")
        {
            spec.insert("group".to_owned(), groups);
        }
        let review = json!({
            "kind": "SubjectAccessReview",
            "apiVersion": format!("authorization.k8s.io/{}", self.options.version),
            "metadata": {}, "spec": spec,
        });
        let answer = self.reviewer.review(&review).await?;
        let status = answer.get("status").unwrap_or(&Value::Null);
        let flag = |key: &str| status.get(key).and_then(Value::as_bool).unwrap_or_default();
        let reason = status.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Answer { allowed: flag("allowed"), denied: flag("denied"), reason })
    }
}

impl Authorizer for AccessWebhook {
    fn allows(&self, ask: &Ask<'_>) -> bool {
        self.decide(ask).allows()
    }

    /// Gives this thread away until the answer is there: for the few who ask in the middle of something that cannot
    /// wait (an expression of a policy, the rights of a signer). The runtime runs other tasks on another thread.
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| handle.block_on(self.answer(ask)))
            }
            _ => self.failed("nobody outside can be asked from here".to_owned()),
        }
    }

    fn outside<'a>(&'a self, ask: &'a Ask<'a>) -> Option<BoxFuture<'a, Decision>> {
        Some(self.answer(ask).boxed())
    }

    fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
        Vec::new()
    }

    fn rules_incomplete(&self) -> Option<String> {
        Some("webhook authorizer does not support user rule resolution".to_owned())
    }
}

/// The spec of the review, in `v1`; what is empty is left out.
fn spec(ask: &Ask<'_>) -> Map<String, Value> {
    let User { name, uid, groups, extra } = ask.user;
    let mut spec = filled([("user", name.as_str()), ("uid", uid)]);
    if !groups.is_empty() {
        spec.insert("groups".to_owned(), json!(groups));
    }
    if !extra.is_empty() {
        spec.insert("extra".to_owned(), json!(extra));
    }
    match ask.object {
        Asked::Path(path) => {
            let about = filled([("path", path), ("verb", ask.verb)]);
            spec.insert("nonResourceAttributes".to_owned(), Value::Object(about));
        }
        Asked::Resource { group, version, resource, subresource, namespace, name } => {
            let mut about = filled([
                ("namespace", namespace),
                ("verb", ask.verb),
                ("group", group),
                ("version", version),
                ("resource", resource),
                ("subresource", subresource),
                ("name", name),
            ]);
            for (key, requirements) in [("fieldSelector", fields(ask)), ("labelSelector", labels(ask))] {
                if !requirements.is_empty() {
                    about.insert(key.to_owned(), json!({ "requirements": requirements }));
                }
            }
            spec.insert("resourceAttributes".to_owned(), Value::Object(about));
        }
    }
    spec
}

fn filled<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let filled = texts.into_iter().filter(|(_, text)| !text.is_empty());
    filled.map(|(key, text)| (key.to_owned(), json!(text))).collect()
}

fn fields(ask: &Ask<'_>) -> Vec<Value> {
    let terms = ask.fields.map(|selector| selector.requirements()).unwrap_or_default();
    let term = |term: &meta::FieldRequirement| {
        let operator = if term.negated { "NotIn" } else { "In" };
        json!({ "key": term.field, "operator": operator, "values": [term.value] })
    };
    terms.iter().map(term).collect()
}

/// Comparisons of numbers are left out, as upstream: what is asked is only broader.
fn labels(ask: &Ask<'_>) -> Vec<Value> {
    let terms = ask.labels.map(|selector| selector.requirements()).unwrap_or_default();
    let term = |term: &meta::Requirement| {
        let operator = match term.operator() {
            Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
            Operator::NotEquals | Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut requirement = json!({ "key": term.key(), "operator": operator });
        if let (false, Some(map)) = (term.values().is_empty(), requirement.as_object_mut()) {
            map.insert("values".to_owned(), json!(term.values()));
        }
        Some(requirement)
    };
    terms.iter().filter_map(term).collect()
}

/// The spec as conditions see it: every text is there, also an empty one (upstream
/// `convertObjectToUnstructured`).
fn seen(spec: &Map<String, Value>) -> Value {
    let mut seen = spec.clone();
    for (key, empty) in [("user", json!("")), ("uid", json!("")), ("groups", json!([])), ("extra", json!({}))]
    {
        seen.entry(key).or_insert(empty);
    }
    let texts = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    for (key, texts) in [("resourceAttributes", &texts[..]), ("nonResourceAttributes", &["path", "verb"])] {
        if let Some(about) = seen.get_mut(key).and_then(Value::as_object_mut) {
            for text in texts {
                about.entry(*text).or_insert_with(|| json!(""));
            }
        }
    }
    Value::Object(seen)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use meta::{FieldSelector, LabelSelector};

    use super::*;
    use crate::{
        auth::{Always, MASTERS, Union, decide, verdict},
        testing::Objects,
        testing_webhook::{Hook, Reply},
        webhook::{Endpoint, Webhooks},
    };

    const MINUTES: Duration = Duration::from_secs(300);
    const SECONDS: Duration = Duration::from_secs(30);

    fn options(version: &'static str, fails_closed: bool) -> AccessWebhookOptions {
        AccessWebhookOptions { version, authorized_for: MINUTES, unauthorized_for: SECONDS, fails_closed }
    }

    fn webhook(hook: &Hook, options: AccessWebhookOptions, clock: Arc<dyn Clock>) -> AccessWebhook {
        let endpoint = Endpoint {
            url: format!("https://{}/authz", hook.address()),
            ca_pem: hook.ca_pem(),
            ..Endpoint::default()
        };
        let client = Webhooks::new(Arc::new(Objects::default()));
        let random = Arc::new(meta::Seeded::new(1));
        let reviewer = Reviewer::new(client, &endpoint, Duration::from_secs(5), random).unwrap().eager();
        AccessWebhook::new(reviewer, options, clock)
    }

    fn clock() -> Arc<meta::Fixed> {
        Arc::new(meta::Fixed::new(meta::Timestamp::UNIX_EPOCH))
    }

    fn user(name: &str) -> User {
        User { name: name.to_owned(), groups: vec!["dev".to_owned()], ..User::default() }
    }

    fn pods(name: &str) -> Asked<'_> {
        Asked::Resource {
            group: "",
            version: "v1",
            resource: "pods",
            subresource: "log",
            namespace: "ns",
            name,
        }
    }

    /// Answers by the name of the user.
    async fn hook() -> Hook {
        let reason = "so I say";
        Hook::start(move |_, body| {
            let status = match body["spec"]["user"].as_str().unwrap() {
                "yes" => json!({"allowed": true, "reason": reason}),
                "no" => json!({"allowed": false, "denied": true, "reason": reason}),
                "both" => json!({"allowed": true, "denied": true}),
                "down" => return Reply::Raw(500, Vec::new()),
                _ => json!({"allowed": false, "reason": reason}),
            };
            Reply::Json(json!({ "status": status }))
        })
        .await
    }

    #[tokio::test]
    async fn what_it_says_goes() {
        let hook = hook().await;
        let webhook = Arc::new(webhook(&hook, options("v1", false), clock()));
        // Whom it does not allow somebody after it may, unless it denied.
        let union = Union(vec![webhook.clone(), Arc::new(Always::Allow)]);
        let strict = Union(vec![webhook, Arc::new(Always::Deny)]);
        for (name, then_allowed, code, words) in [
            ("yes", true, 0, ""),
            ("no", false, 403, "in the namespace \"ns\": so I say"),
            ("other", true, 403, "in the namespace \"ns\": so I say\nEverything is forbidden."),
            ("down", true, 500, "the server responded with the status code 500"),
            ("both", false, 500, "returned both allow and deny response"),
        ] {
            let user = user(name);
            let ask = Ask::new(&user, "get", pods("p"));
            assert_eq!(decide(&union, &ask).await.allows(), then_allowed, "{name}");
            let refused = verdict(&ask, &decide(&strict, &ask).await).err();
            assert_eq!(refused.as_ref().map_or(0, |status| status.code), code, "{name}");
            let message = refused.map(|status| status.message).unwrap_or_default();
            assert!(message.contains(words), "{message}");
        }
        let root = User { groups: vec![MASTERS.to_owned()], ..user("no") };
        assert!(decide(&union, &Ask::new(&root, "get", pods("p"))).await.allows(), "nobody is asked");
    }

    #[tokio::test]
    async fn reviews_say_everything_that_is_known() {
        let hook = hook().await;
        let fields = FieldSelector::parse("spec.nodeName=a,status.phase!=Running").unwrap();
        let labels = LabelSelector::parse("app in (a,b),!gone,size>3").unwrap();
        let mut ann = user("ann");
        ann.extra.insert("scope".to_owned(), vec!["x".to_owned()]);
        let about = |namespace| Asked::Resource {
            group: "apps",
            version: "v1",
            resource: "deployments",
            subresource: "",
            namespace,
            name: "",
        };
        let ask = Ask { fields: Some(&fields), labels: Some(&labels), ..Ask::new(&ann, "list", about("")) };
        for version in ["v1", "v1beta1"] {
            webhook(&hook, options(version, false), clock()).answer(&ask).await;
        }
        let path = Ask::new(&ann, "get", Asked::Path("/metrics"));
        webhook(&hook, options("v1", false), clock()).answer(&path).await;
        let calls: Vec<Value> = hook.calls().into_iter().map(|(_, body)| body).collect();
        assert_eq!(
            calls[0],
            json!({
                "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
                "spec": {
                    "user": "ann", "groups": ["dev"], "extra": {"scope": ["x"]},
                    "resourceAttributes": {
                        "verb": "list", "group": "apps", "version": "v1", "resource": "deployments",
                        "fieldSelector": {"requirements": [
                            {"key": "spec.nodeName", "operator": "In", "values": ["a"]},
                            {"key": "status.phase", "operator": "NotIn", "values": ["Running"]}]},
                        "labelSelector": {"requirements": [
                            {"key": "app", "operator": "In", "values": ["a", "b"]},
                            {"key": "gone", "operator": "DoesNotExist"}]},
                    },
                },
            })
        );
        assert_eq!(calls[1]["spec"]["group"], json!(["dev"]), "v1beta1 calls the groups so");
        assert_eq!(calls[2]["spec"]["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
    }

    #[tokio::test]
    async fn a_yes_is_remembered_longer_than_a_no_and_a_failure_not_at_all() {
        let up = Arc::new(AtomicBool::new(true));
        let is_up = up.clone();
        let hook = Hook::start(move |_, body| match is_up.load(Ordering::SeqCst) {
            false => Reply::Raw(403, Vec::new()),
            true => Reply::Json(json!({"status": {"allowed": body["spec"]["user"] == "yes"}})),
        })
        .await;
        let time = clock();
        let webhook = webhook(&hook, options("v1", true), time.clone());
        let ask = async |name: &str| {
            let user = user(name);
            webhook.answer(&Ask::new(&user, "get", pods("p"))).await
        };
        for _ in 0..2 {
            assert!(ask("yes").await.allows() && !ask("no").await.allows());
        }
        assert_eq!(hook.calls().len(), 2);
        time.set(meta::Timestamp::from_second(30).unwrap());
        assert!(ask("yes").await.allows() && !ask("no").await.allows());
        assert_eq!(hook.calls().len(), 3);
        time.set(meta::Timestamp::from_second(300).unwrap());
        up.store(false, Ordering::SeqCst);
        for _ in 0..2 {
            assert!(matches!(ask("yes").await, Decision::Failed { denies: true, .. }));
        }
        up.store(true, Ordering::SeqCst);
        assert!(ask("yes").await.allows());
        assert_eq!(hook.calls().len(), 6);
    }

    #[tokio::test]
    async fn conditions_spare_it_requests() {
        let hook = hook().await;
        let conditions = json!({"matchConditions": [
            {"expression": "has(request.resourceAttributes)"},
            {"expression": "request.resourceAttributes.namespace == 'ns'"},
            {"expression": "!('system:serviceaccounts' in request.groups)"},
        ]});
        let conditions = Conditions::read(&conditions, &["request"]);
        let webhook = webhook(&hook, options("v1", true), clock()).when(conditions);
        let yes = user("yes");
        let about = |namespace| Asked::Resource {
            group: "",
            version: "v1",
            resource: "pods",
            subresource: "",
            namespace,
            name: "",
        };
        assert!(webhook.answer(&Ask::new(&yes, "get", about("ns"))).await.allows());
        let none = Decision::NoOpinion(String::new());
        assert_eq!(webhook.answer(&Ask::new(&yes, "get", about(""))).await, none);
        assert_eq!(webhook.answer(&Ask::new(&yes, "get", Asked::Path("/x"))).await, none);
        let account = User { groups: vec!["system:serviceaccounts".to_owned()], ..user("yes") };
        assert_eq!(webhook.answer(&Ask::new(&account, "get", about("ns"))).await, none);
        assert_eq!(hook.calls().len(), 1);
        // A condition that cannot be evaluated is a failure.
        let broken = json!({"matchConditions": [{"expression": "request.resourceAttributes.verb == 'get'"}]});
        let webhook = webhook_when(&hook, &broken);
        let decision = webhook.answer(&Ask::new(&yes, "get", Asked::Path("/x"))).await;
        assert!(matches!(decision, Decision::Failed { denies: true, .. }), "{decision:?}");
    }

    fn webhook_when(hook: &Hook, conditions: &Value) -> AccessWebhook {
        webhook(hook, options("v1", true), clock()).when(Conditions::read(conditions, &["request"]))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_cannot_wait_gets_an_answer_too() {
        let hook = hook().await;
        let webhook = webhook(&hook, options("v1", false), clock());
        let (yes, no) = (user("yes"), user("no"));
        assert!(webhook.allows(&Ask::new(&yes, "get", pods("p"))));
        assert!(!webhook.allows(&Ask::new(&no, "get", pods("p"))));
    }
}
