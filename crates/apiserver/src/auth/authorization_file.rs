//! The file: upstream's `apiserver.config.k8s.io` AuthorizationConfiguration (`v1`, `v1beta1`, `v1alpha1`), checked as
//! upstream does (`apiserver/pkg/apis/apiserver/validation`).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use meta::{Clock, FieldError, Random};
use serde::Deserialize;
use serde_json::json;

use super::{
    AccessWebhook, AccessWebhookOptions, Always, Authorizer, Decisions, Union, authentication_file::aggregate,
};
use crate::{
    conditions::Conditions,
    config_file,
    webhook::{Endpoint, Reviewer, Webhooks},
};

const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
/// Most match conditions of one webhook, as upstream.
const CONDITIONS_MAX: usize = 64;
/// Longest time a webhook may be given, as upstream.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// What an AuthorizationConfiguration says: its members with their names.
#[derive(Debug)]
pub struct AuthorizationConfiguration(Vec<(String, Member)>);

#[derive(Debug)]
enum Member {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Webhook),
}

impl Member {
    fn kind(&self) -> &'static str {
        match self {
            Self::AlwaysAllow => "AlwaysAllow",
            Self::AlwaysDeny => "AlwaysDeny",
            Self::Node => "Node",
            Self::Rbac => "RBAC",
            Self::Webhook(_) => "Webhook",
        }
    }
}

#[derive(Debug)]
struct Webhook {
    options: AccessWebhookOptions,
    timeout: Duration,
    kubeconfig: PathBuf,
    conditions: Conditions,
}

/// What a row of authorizers is made from.
pub struct AuthorizerParts {
    /// What type Node asks.
    pub node: Arc<dyn Authorizer>,
    /// What type RBAC asks.
    pub rbac: Arc<dyn Authorizer>,
    /// What calls webhooks.
    pub client: Webhooks,
    /// Jitter.
    pub random: Arc<dyn Random>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where what they decide is counted.
    pub decisions: Arc<Decisions>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    #[serde(default)]
    authorizers: Vec<FileMember>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMember {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<FileWebhook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileWebhook {
    #[serde(default, rename = "authorizedTTL")]
    authorized_ttl: String,
    #[serde(default, rename = "cacheAuthorizedRequests")]
    cache_authorized: Option<bool>,
    #[serde(default, rename = "unauthorizedTTL")]
    unauthorized_ttl: String,
    #[serde(default, rename = "cacheUnauthorizedRequests")]
    cache_unauthorized: Option<bool>,
    #[serde(default)]
    timeout: String,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    #[serde(default)]
    connection_info: FileConnection,
    #[serde(default)]
    match_conditions: Vec<FileCondition>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileConnection {
    #[serde(default, rename = "type")]
    kind: String,
    kube_config_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCondition {
    #[serde(default)]
    expression: String,
}

type Errors = Vec<FieldError>;

fn invalid(errors: &mut Errors, field: String, value: &str, why: &str) {
    errors.push(FieldError::invalid(field, &json!(value), why));
}

impl AuthorizationConfiguration {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let File { authorizers } = config_file::read("AuthorizationConfiguration", text)?;
        let mut errors = Errors::new();
        if authorizers.is_empty() {
            errors
                .push(FieldError::required("authorizers", "at least one authorization mode must be defined"));
        }
        let (mut types, mut names) = (BTreeSet::new(), BTreeSet::new());
        let mut members = Vec::new();
        for (at, member) in authorizers.into_iter().enumerate() {
            let path = format!("authorizers[{at}]");
            let field = format!("{path}.type");
            if member.kind.is_empty() {
                errors.push(FieldError::required(field, ""));
                continue;
            }
            if !TYPES.contains(&member.kind.as_str()) {
                errors.push(FieldError::not_supported(field, &json!(member.kind), &TYPES));
                continue;
            }
            if !types.insert(member.kind.clone()) && member.kind != "Webhook" {
                errors.push(FieldError::duplicate(field, &json!(member.kind)));
                continue;
            }
            check_name(&member.name, &path, &mut names, &mut errors);
            let name = member.name.clone();
            members.extend(member.read(&path, &mut errors).map(|member| (name, member)));
        }
        match errors.as_slice() {
            [] => Ok(Self(members)),
            some => Err(aggregate(some)),
        }
    }

    /// The row of authorizers. Reads the kubeconfig of each webhook.
    pub fn authorizers(self, parts: &AuthorizerParts) -> Result<Union, String> {
        let AuthorizerParts { node, rbac, client, random, clock, decisions } = parts;
        let make = |(name, member): (String, Member)| -> Result<Arc<dyn Authorizer>, String> {
            let kind = member.kind();
            let made: Arc<dyn Authorizer> = match member {
                Member::AlwaysAllow => Arc::new(Always::Allow),
                Member::AlwaysDeny => Arc::new(Always::Deny),
                Member::Node => node.clone(),
                Member::Rbac => rbac.clone(),
                Member::Webhook(Webhook { options, timeout, kubeconfig, conditions }) => {
                    let failed = |why: String| format!("webhook {name:?}: {}: {why}", kubeconfig.display());
                    let text = std::fs::read_to_string(&kubeconfig).map_err(|e| failed(e.to_string()))?;
                    let beside = kubeconfig.parent().unwrap_or(Path::new("/"));
                    let endpoint = Endpoint::parse(&text, beside).map_err(failed)?;
                    let reviewer = Reviewer::new(client.clone(), &endpoint, timeout, random.clone());
                    let reviewer = reviewer.map_err(failed)?;
                    Arc::new(AccessWebhook::new(reviewer, options, clock.clone()).when(conditions))
                }
            };
            Ok(decisions.counted(kind, &name, made))
        };
        self.0.into_iter().map(make).collect::<Result<_, _>>().map(Union)
    }
}

fn check_name(name: &str, path: &str, names: &mut BTreeSet<String>, errors: &mut Errors) {
    let field = format!("{path}.name");
    if name.is_empty() {
        errors.push(FieldError::required(field, ""));
        return;
    }
    if !names.insert(name.to_owned()) {
        errors.push(FieldError::duplicate(field, &json!(name)));
        return;
    }
    let why = meta::names::dns1123_subdomain(name);
    if !why.is_empty() {
        invalid(errors, field, name, &format!("authorizer name is invalid: {}", why.join(", ")));
    }
}

impl FileMember {
    fn read(self, path: &str, errors: &mut Errors) -> Option<Member> {
        let Self { kind, name: _, webhook } = self;
        let field = format!("{path}.webhook");
        let member = match (kind.as_str(), webhook) {
            ("Webhook", None) => {
                errors.push(FieldError::required(field, "required when type=Webhook"));
                return None;
            }
            ("Webhook", Some(webhook)) => return webhook.read(path, errors).map(Member::Webhook),
            (_, Some(_)) => {
                invalid(errors, field, "non-null", "may only be specified when type=Webhook");
                return None;
            }
            ("AlwaysAllow", None) => Member::AlwaysAllow,
            ("AlwaysDeny", None) => Member::AlwaysDeny,
            ("Node", None) => Member::Node,
            (_, None) => Member::Rbac,
        };
        Some(member)
    }
}

impl FileWebhook {
    fn read(self, path: &str, errors: &mut Errors) -> Option<Webhook> {
        let mut duration = |key: &str, text: &str, default: Option<Duration>, most: Duration, why: &str| {
            let field = format!("{path}.{key}");
            match (text, meta::parse_duration(text)) {
                ("", _) | (_, Some(Duration::ZERO)) if default.is_some() => return default,
                ("", _) | (_, Some(Duration::ZERO)) => errors.push(FieldError::required(field, "")),
                (_, Some(given)) if given <= most => return Some(given),
                _ => invalid(errors, field, text, why),
            }
            None
        };
        let (limit, any) = ("must be > 0s and <= 30s", "must be > 0s");
        let timeout = duration("timeout", &self.timeout, None, TIMEOUT_MAX, limit);
        // The times are upstream's defaults (`SetDefaults_WebhookConfiguration`).
        let of_yes = Some(Duration::from_secs(300));
        let yes = duration("authorizedTTL", &self.authorized_ttl, of_yes, Duration::MAX, any);
        let of_no = Some(Duration::from_secs(30));
        let no = duration("unauthorizedTTL", &self.unauthorized_ttl, of_no, Duration::MAX, any);
        let kept = |cached: Option<bool>, time: Option<Duration>| match cached {
            Some(false) => Some(Duration::ZERO),
            _ => time,
        };
        let version = choice(
            errors,
            format!("{path}.subjectAccessReviewVersion"),
            &self.subject_access_review_version,
            &["v1", "v1beta1"],
        );
        let fails =
            choice(errors, format!("{path}.failurePolicy"), &self.failure_policy, &["NoOpinion", "Deny"]);
        let kubeconfig = self.connection_info.check(path, errors);
        self.check_conditions(path, errors);
        let conditions = self.match_conditions.iter().map(|c| json!({ "expression": c.expression }));
        let conditions = json!({ "matchConditions": conditions.collect::<Vec<_>>() });
        Some(Webhook {
            options: AccessWebhookOptions {
                version: version?,
                authorized_for: kept(self.cache_authorized, yes)?,
                unauthorized_for: kept(self.cache_unauthorized, no)?,
                fails_closed: fails? == "Deny",
            },
            timeout: timeout?,
            kubeconfig: kubeconfig?,
            conditions: Conditions::read(&conditions, &["request"]),
        })
    }

    fn check_conditions(&self, path: &str, errors: &mut Errors) {
        let field = format!("{path}.matchConditionSubjectAccessReviewVersion");
        match self.match_condition_subject_access_review_version.as_str() {
            "v1" => {}
            "" if self.match_conditions.is_empty() => {}
            "" => errors.push(FieldError::required(field, "required if match conditions are specified")),
            other => errors.push(FieldError::not_supported(field, &json!(other), &["v1"])),
        }
        let count = self.match_conditions.len();
        if count > CONDITIONS_MAX {
            let why = format!("must have at most {CONDITIONS_MAX} items");
            invalid(errors, format!("{path}.matchConditions"), &count.to_string(), &why);
            return;
        }
        let mut seen = BTreeSet::new();
        for (at, FileCondition { expression }) in self.match_conditions.iter().enumerate() {
            let field = format!("{path}.matchConditions[{at}].expression");
            if expression.trim().is_empty() {
                errors.push(FieldError::required(field, ""));
            } else if !seen.insert(expression) {
                errors.push(FieldError::duplicate(field, &json!(expression)));
            } else if let Err(error) = schema::cel::Expression::compile(expression, &["request"]) {
                invalid(errors, field, expression, &error.to_string());
            }
        }
    }
}

impl FileConnection {
    fn check(&self, path: &str, errors: &mut Errors) -> Option<PathBuf> {
        let field = format!("{path}.connectionInfo.kubeConfigFile");
        match self.kind.as_str() {
            "KubeConfigFile" => {}
            "" => {
                errors.push(FieldError::required(format!("{path}.connectionInfo.type"), ""));
                return None;
            }
            other => {
                let field = format!("{path}.connectionInfo.type");
                errors.push(FieldError::not_supported(field, &json!(other), &["KubeConfigFile"]));
                return None;
            }
        }
        let Some(file) = self.kube_config_file.as_deref().filter(|file| !file.is_empty()) else {
            errors.push(FieldError::required(field, ""));
            return None;
        };
        let place = PathBuf::from(file);
        if !place.is_absolute() {
            invalid(errors, field, file, "must be an absolute path");
            return None;
        }
        match std::fs::metadata(&place) {
            Err(error) => invalid(errors, field, file, &format!("error loading file: {error}")),
            Ok(found) if !found.is_file() => invalid(errors, field, file, "must be a regular file"),
            Ok(_) => return Some(place),
        }
        None
    }
}

fn choice(errors: &mut Errors, field: String, given: &str, known: &[&'static str]) -> Option<&'static str> {
    let found = known.iter().copied().find(|one| *one == given);
    match (given, found) {
        (_, Some(found)) => return Some(found),
        ("", None) => errors.push(FieldError::required(field, "")),
        (other, None) => errors.push(FieldError::not_supported(field, &json!(other), known)),
    }
    None
}

#[cfg(test)]
mod tests;
