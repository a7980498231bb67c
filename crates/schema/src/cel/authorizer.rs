//! `authorizer`: expressions ask who may do what (upstream `apiserver/pkg/cel/library/authz.go`).

use std::sync::Arc;

use kube_cel::cel::{Context, ExecutionError, Value as Cel, extractors::This, objects::Opaque};

/// What a check asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Namespace and name of the service account to ask for instead of the user of the request.
    pub service_account: Option<(String, String)>,
    /// A path, for requests that are not about objects.
    pub path: Option<String>,
    /// Group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace; empty for cluster scope.
    pub namespace: String,
    /// Name; empty for all.
    pub name: String,
    /// Field selector as written; empty for none.
    pub fields: String,
    /// Label selector as written; empty for none.
    pub labels: String,
    /// Verb.
    pub verb: String,
}

/// Who answers checks. An expression cannot wait: where the answer has to be waited for, its thread does.
pub trait Authorize: Send + Sync {
    /// Whether it is allowed, and why (not); an error when it could not be decided.
    fn check(&self, asked: &Asked) -> Result<(bool, String), String>;
}

/// A check being put together.
#[derive(Clone)]
pub(super) struct Check {
    authorize: Arc<dyn Authorize>,
    asked: Asked,
}

impl Check {
    pub(super) fn new(authorize: &Arc<dyn Authorize>) -> Self {
        Self::of(authorize, &Asked::default())
    }

    pub(super) fn of(authorize: &Arc<dyn Authorize>, asked: &Asked) -> Self {
        Self { authorize: authorize.clone(), asked: asked.clone() }
    }

    pub(super) fn into_value(self) -> Cel {
        Cel::Opaque(Arc::new(self))
    }
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.asked.fmt(f)
    }
}

impl PartialEq for Check {
    fn eq(&self, other: &Self) -> bool {
        self.asked == other.asked
    }
}

impl Eq for Check {}

impl Opaque for Check {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.authorization.Authorizer"
    }
}

/// The answer of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    allowed: bool,
    reason: String,
    error: String,
}

impl Opaque for Verdict {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.authorization.Decision"
    }
}

fn with(this: &Cel, change: impl FnOnce(&mut Asked)) -> Result<Cel, ExecutionError> {
    let Cel::Opaque(opaque) = this else { return Err(ExecutionError::NoSuchOverload) };
    let mut check = opaque.downcast_ref::<Check>().ok_or(ExecutionError::NoSuchOverload)?.clone();
    change(&mut check.asked);
    Ok(check.into_value())
}

fn verdict(this: &Cel) -> Result<&Verdict, ExecutionError> {
    let Cel::Opaque(opaque) = this else { return Err(ExecutionError::NoSuchOverload) };
    opaque.downcast_ref::<Verdict>().ok_or(ExecutionError::NoSuchOverload)
}

type Text = Arc<String>;

/// Adds the functions.
pub(super) fn register(context: &mut Context<'_>) {
    context.add_function("path", |This(this): This<Cel>, path: Text| {
        with(&this, |asked| asked.path = Some(path.to_string()))
    });
    context.add_function("group", |This(this): This<Cel>, group: Text| {
        with(&this, |asked| asked.group = group.to_string())
    });
    context.add_function("serviceAccount", |This(this): This<Cel>, namespace: Text, name: Text| {
        with(&this, |asked| asked.service_account = Some((namespace.to_string(), name.to_string())))
    });
    context.add_function("resource", |This(this): This<Cel>, resource: Text| {
        with(&this, |asked| asked.resource = resource.to_string())
    });
    context.add_function("subresource", |This(this): This<Cel>, subresource: Text| {
        with(&this, |asked| asked.subresource = subresource.to_string())
    });
    context.add_function("namespace", |This(this): This<Cel>, namespace: Text| {
        with(&this, |asked| asked.namespace = namespace.to_string())
    });
    context.add_function("name", |This(this): This<Cel>, name: Text| {
        with(&this, |asked| asked.name = name.to_string())
    });
    context.add_function("fieldSelector", |This(this): This<Cel>, selector: Text| {
        with(&this, |asked| asked.fields = selector.to_string())
    });
    context.add_function("labelSelector", |This(this): This<Cel>, selector: Text| {
        with(&this, |asked| asked.labels = selector.to_string())
    });
    context.add_function("check", |This(this): This<Cel>, verb: Text| {
        let Cel::Opaque(opaque) = &this else { return Err(ExecutionError::NoSuchOverload) };
        let check = opaque.downcast_ref::<Check>().ok_or(ExecutionError::NoSuchOverload)?;
        let asked = Asked { verb: verb.to_string(), ..check.asked.clone() };
        let verdict = match check.authorize.check(&asked) {
            Ok((allowed, reason)) => Verdict { allowed, reason, error: String::new() },
            Err(error) => Verdict { allowed: false, reason: String::new(), error },
        };
        Ok(Cel::Opaque(Arc::new(verdict)))
    });
    context.add_function("allowed", |This(this): This<Cel>| verdict(&this).map(|verdict| verdict.allowed));
    context.add_function("reason", |This(this): This<Cel>| {
        verdict(&this).map(|verdict| Arc::new(verdict.reason.clone()))
    });
    context.add_function("errored", |This(this): This<Cel>| verdict(&this).map(|v| !v.error.is_empty()));
    context.add_function("error", |This(this): This<Cel>| verdict(&this).map(|v| Arc::new(v.error.clone())));
}
