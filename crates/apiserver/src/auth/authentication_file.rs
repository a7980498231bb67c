//! The file: upstream's `apiserver.config.k8s.io` AuthenticationConfiguration (`v1`, `v1beta1`, `v1alpha1`), checked as
//! upstream does (`apiserver/pkg/apis/apiserver/validation`).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use meta::{Clock, FieldError, names};
use schema::cel::Expression;
use serde::Deserialize;
use serde_json::json;

use super::{
    authn::Anonymous,
    oidc::{Algorithm, Discovered, Mapping, Oidc, OidcOptions, Rule, Source},
};
use crate::{config_file, outbound::Outbound};

/// Most issuers, as upstream.
const ISSUERS_MAX: usize = 64;
/// How long an issuer may take to answer, as upstream.
const ISSUER_TIME: Duration = Duration::from_secs(30);
const BOTH: &str = "claim and expression can't both be set";
const NEITHER: &str = "claim or expression is required";
const EMAIL_UNVERIFIED: &str = "claims.email_verified must be used in claimMappings.username.expression or \
     claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in \
     claimMappings.username.expression";

/// What an AuthenticationConfiguration says.
pub struct AuthenticationConfiguration {
    issuers: Vec<Issuer>,
    /// Who is let in without credentials; `None` when it does not say.
    pub anonymous: Option<Anonymous>,
}

struct Issuer {
    options: OidcOptions,
    discovery_url: Option<String>,
    ca_pem: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    #[serde(default)]
    jwt: Vec<FileJwt>,
    anonymous: Option<FileAnonymous>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileAnonymous {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<FilePath>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePath {
    #[serde(default)]
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileJwt {
    issuer: FileIssuer,
    #[serde(default)]
    claim_validation_rules: Vec<FileClaimRule>,
    #[serde(default)]
    claim_mappings: FileMappings,
    #[serde(default)]
    user_validation_rules: Vec<FileUserRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileIssuer {
    #[serde(default)]
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: String,
    #[serde(default)]
    certificate_authority: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    #[serde(default)]
    egress_selector_type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileClaimRule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileUserRule {
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMappings {
    #[serde(default)]
    username: FileSource,
    #[serde(default)]
    groups: FileSource,
    #[serde(default)]
    uid: FileUid,
    #[serde(default)]
    extra: Vec<FileExtra>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSource {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileUid {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    expression: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FileExtra {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value_expression: String,
}

/// Errors as they are found; nothing that has any is used.
#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn required(&mut self, field: impl Into<String>, why: &str) {
        self.0.push(FieldError::required(field, why));
    }

    fn invalid(&mut self, field: impl Into<String>, value: &str, why: impl Into<String>) {
        self.0.push(FieldError::invalid(field, &json!(value), why));
    }

    fn duplicate(&mut self, field: impl Into<String>, value: &str) {
        self.0.push(FieldError::duplicate(field, &json!(value)));
    }

    fn compile(&mut self, field: &str, source: &str, name: &str) -> Option<Expression> {
        match Expression::compile(source, &[name]) {
            Ok(expression) => Some(expression),
            Err(error) => {
                self.invalid(field, source, error.to_string());
                None
            }
        }
    }
}

/// All errors as one text, as upstream prints an aggregate.
pub(super) fn aggregate(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

impl AuthenticationConfiguration {
    /// Reads the text of a file. `own_issuers` are those whose tokens this server issues itself.
    pub fn parse(text: &str, own_issuers: &[String]) -> Result<Self, String> {
        let File { jwt, anonymous } = config_file::read("AuthenticationConfiguration", text)?;
        let mut errors = Errors::default();
        if jwt.len() > ISSUERS_MAX {
            let why = format!("jwt: Too many: {}: must have at most {ISSUERS_MAX} items", jwt.len());
            return Err(why);
        }
        let (mut urls, mut discovery_urls) = (BTreeSet::new(), BTreeSet::new());
        let mut issuers = Vec::new();
        for (at, jwt) in jwt.into_iter().enumerate() {
            let path = format!("jwt[{at}]");
            if !urls.insert(jwt.issuer.url.clone()) {
                errors.duplicate(format!("{path}.issuer.url"), &jwt.issuer.url);
            }
            let discovery_url = &jwt.issuer.discovery_url;
            if !discovery_url.is_empty() && !discovery_urls.insert(discovery_url.clone()) {
                errors.duplicate(format!("{path}.issuer.discoveryURL"), discovery_url);
            }
            issuers.extend(jwt.read(&path, own_issuers, &mut errors));
        }
        let anonymous = anonymous.map(|anonymous| anonymous.read(&mut errors));
        match errors.0.as_slice() {
            [] => Ok(Self { issuers, anonymous }),
            some => Err(aggregate(some)),
        }
    }

    /// What accepts the tokens of its issuers. Nothing is fetched yet.
    pub fn issuers(self, clock: &Arc<dyn Clock>) -> Result<Vec<Oidc>, String> {
        let make = |Issuer { options, discovery_url, ca_pem }: Issuer| {
            let client = Outbound::new(ca_pem.as_deref(), None, ISSUER_TIME)
                .map_err(|error| format!("prepare to ask {}: {error}", options.issuer))?;
            let source = Discovered::new(&options.issuer, client).at(discovery_url);
            Ok(Oidc::new(options, Arc::new(source), clock.clone()))
        };
        self.issuers.into_iter().map(make).collect()
    }
}

impl FileAnonymous {
    fn read(self, errors: &mut Errors) -> Anonymous {
        let Self { enabled, conditions } = self;
        if !enabled && !conditions.is_empty() {
            errors.0.push(FieldError::invalid(
                "anonymous.conditions",
                &json!(conditions.iter().map(|c| json!({ "Path": c.path })).collect::<Vec<_>>()),
                "enabled should be set to true when conditions are defined",
            ));
        }
        match (enabled, conditions.is_empty()) {
            (false, _) => Anonymous::Off,
            (true, true) => Anonymous::On,
            (true, false) => {
                Anonymous::Paths(conditions.into_iter().map(|condition| condition.path).collect())
            }
        }
    }
}

impl FileJwt {
    fn read(self, path: &str, own_issuers: &[String], errors: &mut Errors) -> Option<Issuer> {
        let Self { issuer, claim_validation_rules, claim_mappings, user_validation_rules } = self;
        issuer.check(&format!("{path}.issuer"), own_issuers, errors);
        let (required_claims, claim_rules) =
            claim_rules(claim_validation_rules, &format!("{path}.claimValidationRules"), errors);
        let mappings = format!("{path}.claimMappings");
        let FileMappings { username, groups, uid, extra } = claim_mappings;
        let username_source = username.expression.clone();
        if username.claim.is_empty() && username.expression.is_empty() {
            errors.required(format!("{mappings}.username"), NEITHER);
        }
        let username = username.read(&format!("{mappings}.username"), errors);
        let groups = groups.read(&format!("{mappings}.groups"), errors);
        let uid = uid.read(&format!("{mappings}.uid"), errors);
        let extra = extras(extra, &format!("{mappings}.extra"), errors);
        if let Some(Source::Expression(name)) = &username {
            let verified = |expression: &Expression| expression.selects("claims", "email_verified");
            let all = extra.iter().map(|(_, e)| e).chain(claim_rules.iter().map(|rule| &rule.expression));
            if name.selects("claims", "email") && !verified(name) && !all.into_iter().any(verified) {
                let field = format!("{mappings}.username.expression");
                errors.invalid(field, &username_source, EMAIL_UNVERIFIED);
            }
        }
        let user_rules = user_rules(user_validation_rules, &format!("{path}.userValidationRules"), errors);
        let filled = |text: String| (!text.is_empty()).then_some(text);
        Some(Issuer {
            discovery_url: filled(issuer.discovery_url),
            ca_pem: filled(issuer.certificate_authority),
            options: OidcOptions {
                issuer: issuer.url,
                audiences: issuer.audiences,
                algorithms: Algorithm::ALL.to_vec(),
                mapping: Mapping {
                    username: username?,
                    groups,
                    uid,
                    extra,
                    required_claims,
                    claim_rules,
                    user_rules,
                    reserves_system: false,
                },
            },
        })
    }
}

impl FileIssuer {
    fn check(&self, path: &str, own_issuers: &[String], errors: &mut Errors) {
        let (url, discovery) = (&self.url, &self.discovery_url);
        match url.is_empty() {
            true => errors.required(format!("{path}.url"), ""),
            false => check_url(url, own_issuers, &format!("{path}.url"), errors),
        }
        if !discovery.is_empty() {
            let field = format!("{path}.discoveryURL");
            if url.trim_end_matches('/') == discovery.trim_end_matches('/') {
                errors.invalid(field.as_str(), discovery, "discoveryURL must be different from URL");
            }
            check_url(discovery, &[], &field, errors);
        }
        self.check_audiences(path, errors);
        if !self.certificate_authority.is_empty()
            && let Err(error) = Outbound::new(Some(&self.certificate_authority), None, ISSUER_TIME)
        {
            errors.invalid(format!("{path}.certificateAuthority"), "<omitted>", error.to_string());
        }
        if !self.egress_selector_type.is_empty() {
            let why = "egress selectors are not supported: leave the field out";
            errors.invalid(format!("{path}.egressSelectorType"), &self.egress_selector_type, why);
        }
    }

    fn check_audiences(&self, path: &str, errors: &mut Errors) {
        let field = format!("{path}.audiences");
        if self.audiences.is_empty() {
            let why = format!("at least one {field} is required");
            return errors.required(field, &why);
        }
        let mut seen = BTreeSet::new();
        for (at, audience) in self.audiences.iter().enumerate() {
            let field = format!("{field}[{at}]");
            if audience.is_empty() {
                errors.required(field.as_str(), "");
            }
            if !seen.insert(audience) {
                errors.duplicate(field, audience);
            }
        }
        let (policy, field) = (self.audience_match_policy.as_str(), format!("{path}.audienceMatchPolicy"));
        match self.audiences.len() {
            1 if !matches!(policy, "" | "MatchAny") => {
                let why = "audienceMatchPolicy must be empty or MatchAny for single audience";
                errors.invalid(field, policy, why);
            }
            1 => {}
            _ if policy != "MatchAny" => {
                errors.invalid(field, policy, "audienceMatchPolicy must be MatchAny for multiple audiences");
            }
            _ => {}
        }
    }
}

fn check_url(url: &str, disallowed: &[String], field: &str, errors: &mut Errors) {
    if disallowed.iter().any(|issuer| issuer == url) {
        let why = format!("URL must not overlap with disallowed issuers: [{}]", disallowed.join(" "));
        errors.invalid(field, url, why);
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    for (bad, why) in [
        (scheme != "https", "URL scheme must be https"),
        (authority.contains('@'), "URL must not contain a username or password"),
        (!query.is_empty(), "URL must not contain a query"),
        (!fragment.is_empty(), "URL must not contain a fragment"),
    ] {
        if bad {
            errors.invalid(field, url, why);
        }
    }
}

fn claim_rules(
    rules: Vec<FileClaimRule>,
    path: &str,
    errors: &mut Errors,
) -> (Vec<(String, String)>, Vec<Rule>) {
    let (mut required, mut compiled) = (Vec::new(), Vec::new());
    let (mut claims, mut expressions) = (BTreeSet::new(), BTreeSet::new());
    for (at, rule) in rules.into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        let FileClaimRule { claim, required_value, expression, message } = rule;
        match (claim.is_empty(), expression.is_empty()) {
            (false, false) => errors.invalid(path, &claim, BOTH),
            (true, true) => errors.required(path, NEITHER),
            (false, true) => {
                if !message.is_empty() {
                    let why = "may not be specified when claim is set";
                    errors.invalid(format!("{path}.message"), &message, why);
                }
                if !claims.insert(claim.clone()) {
                    errors.duplicate(format!("{path}.claim"), &claim);
                }
                required.push((claim, required_value));
            }
            (true, false) => {
                if !required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    errors.invalid(format!("{path}.requiredValue"), &required_value, why);
                }
                let field = format!("{path}.expression");
                if !expressions.insert(expression.clone()) {
                    errors.duplicate(field, &expression);
                    continue;
                }
                let expression = errors.compile(&field, &expression, "claims");
                compiled.extend(expression.map(|expression| Rule { expression, message }));
            }
        }
    }
    (required, compiled)
}

fn user_rules(rules: Vec<FileUserRule>, path: &str, errors: &mut Errors) -> Vec<Rule> {
    let (mut compiled, mut seen) = (Vec::new(), BTreeSet::new());
    for (at, FileUserRule { expression, message }) in rules.into_iter().enumerate() {
        let field = format!("{path}[{at}].expression");
        if expression.is_empty() {
            errors.required(field, "");
        } else if !seen.insert(expression.clone()) {
            errors.duplicate(field, &expression);
        } else {
            let expression = errors.compile(&field, &expression, "user");
            compiled.extend(expression.map(|expression| Rule { expression, message }));
        }
    }
    compiled
}

impl FileSource {
    /// `None` when it names nothing.
    fn read(self, path: &str, errors: &mut Errors) -> Option<Source> {
        let Self { claim, prefix, expression } = self;
        match (claim.is_empty(), expression.is_empty()) {
            (false, false) => {
                errors.invalid(path, "", BOTH);
                None
            }
            (true, true) => None,
            (true, false) => {
                if let Some(prefix) = prefix {
                    let why = "may not be specified when expression is set";
                    errors.invalid(format!("{path}.prefix"), &prefix, why);
                }
                errors.compile(&format!("{path}.expression"), &expression, "claims").map(Source::Expression)
            }
            (false, true) => {
                if prefix.is_none() {
                    let why = "prefix is required when claim is set. It can be set to an empty string to \
                               disable prefixing";
                    errors.required(format!("{path}.prefix"), why);
                }
                Some(Source::Claim { name: claim, prefix: prefix.unwrap_or_default() })
            }
        }
    }
}

impl FileUid {
    fn read(self, path: &str, errors: &mut Errors) -> Option<Source> {
        let Self { claim, expression } = self;
        let prefix = (!claim.is_empty()).then(String::new);
        FileSource { claim, prefix, expression }.read(path, errors)
    }
}

fn extras(extra: Vec<FileExtra>, path: &str, errors: &mut Errors) -> Vec<(String, Expression)> {
    let (mut compiled, mut seen) = (Vec::new(), BTreeSet::new());
    for (at, FileExtra { key, value_expression }) in extra.into_iter().enumerate() {
        let (field, expression) = (format!("{path}[{at}].key"), format!("{path}[{at}].valueExpression"));
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let reserved = |root: &str| domain == root || domain.ends_with(&format!(".{root}"));
        for why in names::domain_prefixed_path(&key) {
            errors.invalid(field.as_str(), &key, why);
        }
        if reserved("kubernetes.io") || reserved("k8s.io") {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            errors.invalid(field.as_str(), &key, why);
        }
        if key != key.to_lowercase() {
            errors.invalid(field.as_str(), &key, "must be lowercase");
        }
        if !seen.insert(key.clone()) {
            errors.duplicate(field, &key);
        } else if value_expression.is_empty() {
            errors.required(expression, "");
        } else if let Some(value) = errors.compile(&expression, &value_expression, "claims") {
            compiled.push((key, value));
        }
    }
    compiled
}

#[cfg(test)]
mod tests;
