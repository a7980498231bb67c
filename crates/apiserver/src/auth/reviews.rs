//! The virtual kinds that answer questions about identity and permission. Nothing is stored.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use meta::{GroupResource, GroupVersion, Object, Status, Value};
use resource::{Act, Acted, Context, Plain, Resource, Scope, Subresource, User, Verb};
use schema::{Node, Schema, TypeSet};
use serde_json::{Map, json};

use super::{Ask, Asked, Authenticator, Authorizer, Decision, decide};

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// What answers each of the six review kinds.
pub struct Reviews {
    /// `authorization.k8s.io` SubjectAccessReview.
    pub subject_access: Arc<dyn Act>,
    /// `authorization.k8s.io` SelfSubjectAccessReview.
    pub self_subject_access: Arc<dyn Act>,
    /// `authorization.k8s.io` LocalSubjectAccessReview.
    pub local_subject_access: Arc<dyn Act>,
    /// `authorization.k8s.io` SelfSubjectRulesReview.
    pub self_subject_rules: Arc<dyn Act>,
    /// `authentication.k8s.io` TokenReview.
    pub token: Arc<dyn Act>,
    /// `authentication.k8s.io` SelfSubjectReview.
    pub self_subject: Arc<dyn Act>,
}

impl Reviews {
    /// Reviews that ask these two.
    pub fn new(authorizer: &Arc<dyn Authorizer>, authenticator: &Arc<Authenticator>) -> Self {
        let access = |of: Of| Arc::new(AccessReview { of, authorizer: authorizer.clone() });
        Self {
            subject_access: access(Of::Subject),
            self_subject_access: access(Of::Myself),
            local_subject_access: access(Of::LocalSubject),
            self_subject_rules: Arc::new(RulesReview(authorizer.clone())),
            token: Arc::new(TokenReview(authenticator.clone())),
            self_subject: Arc::new(SelfReview),
        }
    }
}

/// The six kinds with open schemas, for a server whose table of kinds does not have them.
pub fn reviews(authorizer: &Arc<dyn Authorizer>, authenticator: &Arc<Authenticator>) -> Vec<Resource> {
    let Reviews {
        subject_access,
        self_subject_access,
        local_subject_access,
        self_subject_rules,
        token,
        self_subject,
    } = Reviews::new(authorizer, authenticator);
    let cluster = Scope::Cluster;
    vec![
        kind(AUTHORIZATION, "SubjectAccessReview", cluster, subject_access),
        kind(AUTHORIZATION, "SelfSubjectAccessReview", cluster, self_subject_access),
        kind(AUTHORIZATION, "LocalSubjectAccessReview", Scope::Namespaced, local_subject_access),
        kind(AUTHORIZATION, "SelfSubjectRulesReview", cluster, self_subject_rules),
        kind(AUTHENTICATION, "TokenReview", cluster, token),
        kind(AUTHENTICATION, "SelfSubjectReview", cluster, self_subject),
    ]
}

fn kind(group: &str, kind: &str, scope: Scope, act: Arc<dyn Act>) -> Resource {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let mut set = TypeSet::new();
    let root = set.add(Node::default());
    Resource {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        stored_as: GroupResource::new(group, plural.as_str()),
        stored_version: GroupVersion::new(group, "v1"),
        plural: plural.into(),
        singular: singular.into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope,
        convert: None,
        verbs: &[Verb::Create],
        schema: Schema::new(Arc::new(set), root),
        columns: Vec::new(),
        subresources: vec![("".into(), Subresource::Act(act))],
        selectable: Vec::new(),
        strategy: Arc::new(Plain),
        complete_since: meta::Revision(0),
        custom: false,
        deprecated: None,
    }
}

fn answered(body: &Object, status: Value) -> Acted {
    let mut answer = body.clone();
    answer.set_default(&["metadata"], Map::new());
    answer.set(&["status"], status);
    Acted::Answer(answer.into_value())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

enum Of {
    Subject,
    Myself,
    LocalSubject,
}

struct AccessReview {
    of: Of,
    authorizer: Arc<dyn Authorizer>,
}

impl AccessReview {
    fn kind(&self) -> &'static str {
        match self.of {
            Of::Subject => "SubjectAccessReview",
            Of::Myself => "SelfSubjectAccessReview",
            Of::LocalSubject => "LocalSubjectAccessReview",
        }
    }

    fn subject(&self, cx: &Context<'_>, spec: &Value) -> Result<User, Status> {
        if matches!(self.of, Of::Myself) {
            return Ok(cx.attributes.user.clone());
        }
        let user = User {
            name: text(spec, "user").to_owned(),
            uid: text(spec, "uid").to_owned(),
            groups: strings(spec.get("groups")),
            extra: spec
                .get("extra")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(key, list)| (key.to_lowercase(), strings(Some(list))))
                .collect(),
        };
        if user.name.is_empty() && user.groups.is_empty() {
            let why = "at least one of user or group must be specified";
            let errors = [meta::FieldError::invalid("spec.user", &json!(""), why)];
            return Err(Status::invalid(AUTHORIZATION, self.kind(), "", &errors));
        }
        Ok(user)
    }

    fn invalid(&self, field: &str, why: &str) -> Status {
        let error = meta::FieldError::invalid(field, &Value::Null, why);
        Status::invalid(AUTHORIZATION, self.kind(), "", &[error])
    }
}

impl Act for AccessReview {
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        (AUTHORIZATION, "v1", self.kind())
    }

    fn outside<'a>(
        &'a self,
        cx: &'a Context<'a>,
        body: &'a Object,
    ) -> Option<BoxFuture<'a, Result<Acted, Status>>> {
        Some(self.answer(cx, body).boxed())
    }

    fn act(&self, _: &Context<'_>, _: Option<&Object>, _: &Object) -> Result<Acted, Status> {
        Err(Status::internal("access reviews may have to wait"))
    }
}

impl AccessReview {
    async fn answer(&self, cx: &Context<'_>, body: &Object) -> Result<Acted, Status> {
        let spec = body.get(&["spec"]).unwrap_or(&Value::Null);
        let user = self.subject(cx, spec)?;
        let of = |key: &str| spec.get(key).filter(|v| v.is_object());
        let (asked, object) = match (of("resourceAttributes"), of("nonResourceAttributes")) {
            (Some(asked), None) => {
                let namespace = text(asked, "namespace");
                if matches!(self.of, Of::LocalSubject) && namespace != cx.attributes.namespace {
                    let field = "spec.resourceAttributes.namespace";
                    return Err(self.invalid(field, "must match metadata.namespace"));
                }
                let object = Asked::Resource {
                    group: text(asked, "group"),
                    version: text(asked, "version"),
                    resource: text(asked, "resource"),
                    subresource: text(asked, "subresource"),
                    namespace,
                    name: text(asked, "name"),
                };
                (asked, object)
            }
            (None, Some(asked)) if !matches!(self.of, Of::LocalSubject) => {
                (asked, Asked::Path(text(asked, "path")))
            }
            _ => {
                let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                return Err(self.invalid("spec.resourceAttributes", why));
            }
        };
        let fields = fields(asked);
        let ask = Ask { fields: fields.as_ref(), ..Ask::new(&user, text(asked, "verb"), object) };
        Ok(answered(body, status(&decide(&*self.authorizer, &ask).await)))
    }
}

/// A SubjectAccessReviewStatus.
fn status(decision: &Decision) -> Value {
    let mut status = Map::new();
    status.insert("allowed".to_owned(), decision.allows().into());
    if matches!(decision, Decision::Deny(_) | Decision::Failed { denies: true, .. }) {
        status.insert("denied".to_owned(), true.into());
    }
    if !decision.reason().is_empty() {
        status.insert("reason".to_owned(), decision.reason().into());
    }
    if let Decision::Failed { error, .. } = decision {
        status.insert("evaluationError".to_owned(), error.as_str().into());
    }
    Value::Object(status)
}

/// The field selector of the list or watch that is asked about, raw or as requirements for equality.
fn fields(asked: &Value) -> Option<meta::FieldSelector> {
    let selector = asked.get("fieldSelector")?;
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        return meta::FieldSelector::parse(raw).ok();
    }
    let requirements = selector.get("requirements").and_then(Value::as_array).into_iter().flatten();
    let equal = requirements.filter(|r| text(r, "operator") == "In").filter_map(|r| {
        match strings(r.get("values")).as_slice() {
            [value] => Some(format!("{}={value}", text(r, "key"))),
            _ => None,
        }
    });
    meta::FieldSelector::parse(&equal.collect::<Vec<_>>().join(",")).ok()
}

struct RulesReview(Arc<dyn Authorizer>);

impl Act for RulesReview {
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        (AUTHORIZATION, "v1", "SelfSubjectRulesReview")
    }

    fn act(&self, cx: &Context<'_>, _: Option<&Object>, body: &Object) -> Result<Acted, Status> {
        let namespace = body.str(&["spec", "namespace"]).unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let rules = self.0.rules(&cx.attributes.user, namespace);
        let (paths, resources): (Vec<_>, Vec<_>) =
            rules.iter().partition(|rule| !rule.non_resource_urls.is_empty());
        let values =
            |rules: Vec<&super::Rule>| rules.into_iter().map(super::Rule::to_value).collect::<Vec<_>>();
        let incomplete = self.0.rules_incomplete();
        let mut status = json!({
            "resourceRules": values(resources), "nonResourceRules": values(paths),
            "incomplete": incomplete.is_some(),
        });
        if let (Some(why), Some(map)) = (incomplete, status.as_object_mut()) {
            map.insert("evaluationError".to_owned(), why.into());
        }
        Ok(answered(body, status))
    }
}

struct TokenReview(Arc<Authenticator>);

impl Act for TokenReview {
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        (AUTHENTICATION, "v1", "TokenReview")
    }

    fn outside<'a>(
        &'a self,
        _: &'a Context<'a>,
        body: &'a Object,
    ) -> Option<BoxFuture<'a, Result<Acted, Status>>> {
        Some(self.answer(body).boxed())
    }

    fn act(&self, _: &Context<'_>, _: Option<&Object>, _: &Object) -> Result<Acted, Status> {
        Err(Status::internal("token reviews may have to wait"))
    }
}

impl TokenReview {
    async fn answer(&self, body: &Object) -> Result<Acted, Status> {
        let token = body.str(&["spec", "token"]).unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = strings(body.get(&["spec", "audiences"]));
        let status = match self.0.token(token, &audiences).await {
            Ok((user, good)) => json!({ "authenticated": true, "user": user_info(&user), "audiences": good }),
            Err(_) => json!({ "authenticated": false, "user": {}, "error": "invalid bearer token" }),
        };
        Ok(answered(body, status))
    }
}

struct SelfReview;

impl Act for SelfReview {
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        (AUTHENTICATION, "v1", "SelfSubjectReview")
    }

    fn act(&self, cx: &Context<'_>, _: Option<&Object>, body: &Object) -> Result<Acted, Status> {
        Ok(answered(body, json!({ "userInfo": user_info(&cx.attributes.user) })))
    }
}

/// `authentication.k8s.io/v1` UserInfo.
fn user_info(user: &User) -> Value {
    let User { name, uid, groups, extra } = user;
    let mut info = json!({ "username": name, "groups": groups });
    if let Some(map) = info.as_object_mut() {
        if !uid.is_empty() {
            map.insert("uid".to_owned(), json!(uid));
        }
        if !extra.is_empty() {
            map.insert("extra".to_owned(), json!(extra));
        }
    }
    info
}
