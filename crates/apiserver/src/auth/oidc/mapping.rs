//! From verified claims to a user: by names of claims or by expressions, and by rules that both must meet.

use std::collections::BTreeMap;

use resource::User;
use schema::cel::{Expression, POLICY_BUDGET, Scope};
use serde_json::{Value, json};

use super::{GROUPS_MAX, OidcError};
use crate::auth::AUTHENTICATED;

const EMAIL: &str = "email";
/// Where the id of a token is kept, as upstream (`user.CredentialIDKey`).
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Where a part of a user comes from.
#[derive(Debug)]
pub enum Source {
    /// A claim.
    Claim {
        /// Its name.
        name: String,
        /// Put before what it says.
        prefix: String,
    },
    /// An expression over `claims`.
    Expression(Expression),
}

/// An expression that must be true.
#[derive(Debug)]
pub struct Rule {
    /// Over `claims`, or over `user`.
    pub expression: Expression,
    /// What is said when it is not.
    pub message: String,
}

/// What claims mean.
#[derive(Debug)]
pub struct Mapping {
    /// The name; a token without one is refused.
    pub username: Source,
    /// The groups, a text or a list.
    pub groups: Option<Source>,
    /// The UID.
    pub uid: Option<Source>,
    /// Extra values, a text or a list each.
    pub extra: Vec<(String, Expression)>,
    /// Claims that must have these values.
    pub required_claims: Vec<(String, String)>,
    /// What must be true of the claims.
    pub claim_rules: Vec<Rule>,
    /// What must be true of the user.
    pub user_rules: Vec<Rule>,
    /// Whether names and groups that begin with `system:` are the cluster's own: such a name is refused, such a group
    /// left out.
    pub reserves_system: bool,
}

impl Mapping {
    /// The user whom verified claims describe; errors in upstream's words.
    pub(super) fn user(&self, claims: &Value) -> Result<User, OidcError> {
        let mut scope = Scope::new(POLICY_BUDGET);
        scope.set("claims", claims);
        let name = self.name(claims, &scope)?;
        let mut groups = self.groups(claims, &scope)?;
        let uid = self.uid(claims, &scope)?;
        let extra = self.extra(claims, &scope)?;
        for (claim, value) in &self.required_claims {
            if claims.get(claim).and_then(Value::as_str) != Some(value) {
                return Err(OidcError::Claim(claim.clone()));
            }
        }
        check("claim validation expression", &self.claim_rules, &scope)?;
        if self.reserves_system {
            if name.starts_with("system:") {
                return Err(OidcError::Reserved(name));
            }
            groups.retain(|group| !group.starts_with("system:"));
        }
        if !self.user_rules.is_empty() {
            let user = json!({ "username": name, "uid": uid, "groups": groups, "extra": extra });
            let mut scope = Scope::new(POLICY_BUDGET);
            scope.set("user", &user);
            check("user info validation rule", &self.user_rules, &scope)?;
        }
        groups.push(AUTHENTICATED.to_owned());
        Ok(User { name, uid, groups, extra })
    }

    fn name(&self, claims: &Value, scope: &Scope<'_>) -> Result<String, OidcError> {
        let (name, prefix) = match &self.username {
            Source::Expression(expression) => {
                let name = text("username claim expression", expression, scope)?;
                return match name.is_empty() {
                    true => Err(refused("empty username via CEL expression is not allowed")),
                    false => Ok(name),
                };
            }
            Source::Claim { name, prefix } => (name, prefix),
        };
        let value = claims.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| OidcError::Claim(name.clone()))?;
        if name == EMAIL && claims.get("email_verified").is_some_and(|v| v.as_bool() != Some(true)) {
            return Err(OidcError::Claim("email_verified".to_owned()));
        }
        Ok(format!("{prefix}{value}"))
    }

    fn groups(&self, claims: &Value, scope: &Scope<'_>) -> Result<Vec<String>, OidcError> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Expression(expression)) => list("group claim expression", expression, scope),
            Some(Source::Claim { name, prefix }) => {
                let bad = || OidcError::Claim(name.clone());
                let given = match claims.get(name) {
                    None | Some(Value::Null) => Vec::new(),
                    Some(value) => texts(value).ok_or_else(bad)?,
                };
                Ok(given.iter().map(|group| format!("{prefix}{group}")).collect())
            }
        }
    }

    fn uid(&self, claims: &Value, scope: &Scope<'_>) -> Result<String, OidcError> {
        match &self.uid {
            None => Ok(String::new()),
            Some(Source::Expression(expression)) => text("uid claim expression", expression, scope),
            Some(Source::Claim { name, prefix }) => {
                let value = claims.get(name).and_then(Value::as_str);
                value.map(|value| format!("{prefix}{value}")).ok_or_else(|| OidcError::Claim(name.clone()))
            }
        }
    }

    fn extra(&self, claims: &Value, scope: &Scope<'_>) -> Result<BTreeMap<String, Vec<String>>, OidcError> {
        let mut extra = BTreeMap::new();
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let values = list("extra claim expression", expression, scope)?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }
}

fn refused(why: impl Into<String>) -> OidcError {
    OidcError::Mapping(why.into())
}

fn value(what: &str, expression: &Expression, scope: &Scope<'_>) -> Result<Value, OidcError> {
    expression.value(scope).map_err(|error| refused(format!("error evaluating {what}: {error}")))
}

fn text(what: &str, expression: &Expression, scope: &Scope<'_>) -> Result<String, OidcError> {
    match value(what, expression, scope)? {
        Value::String(text) => Ok(text),
        _ => Err(refused(format!("error evaluating {what}: the expression must return a string"))),
    }
}

fn list(what: &str, expression: &Expression, scope: &Scope<'_>) -> Result<Vec<String>, OidcError> {
    let value = value(what, expression, scope)?;
    if value.is_null() {
        return Ok(Vec::new());
    }
    let mut list = texts(&value).ok_or_else(|| {
        refused(format!("error evaluating {what}: expression must return a string or a list of strings"))
    })?;
    list.retain(|text| !text.is_empty());
    Ok(list)
}

/// A text or a bounded list of texts.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) if many.len() <= GROUPS_MAX => {
            many.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    }
}

fn check(what: &str, rules: &[Rule], scope: &Scope<'_>) -> Result<(), OidcError> {
    for Rule { expression, message } in rules {
        let source = expression.source();
        match value(what, expression, scope)? {
            Value::Bool(true) => {}
            Value::Bool(false) => {
                return Err(refused(format!(
                    "error evaluating {what}: validation expression '{source}' failed: {message}"
                )));
            }
            _ => {
                return Err(refused(format!(
                    "error evaluating {what}: validation expression '{source}' must return a boolean"
                )));
            }
        }
    }
    Ok(())
}
