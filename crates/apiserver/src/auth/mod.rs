//! Who sends a request, and whether they may.
//!
//! Guarantees: a request without valid credentials is anonymous or refused, never somebody; what no rule
//! allows is forbidden. Decisions read compiled rules, never a list of objects. Names only the kinds of
//! `rbac.authorization.k8s.io` and `authentication.k8s.io`/`authorization.k8s.io`, whose meaning this is.

mod access_webhook;
mod authentication_file;
mod authn;
mod authorization_file;
mod bootstrap_token;
mod certificates;
mod decisions;
mod escalation;
mod front_proxy;
mod memo;
mod node;
pub mod oidc;
mod rbac;
mod reviews;
mod rules;
mod token_cache;
mod token_webhook;
mod union;

use futures::future::BoxFuture;
use meta::{FieldSelector, GroupResource, LabelSelector, Status};
use resource::User;

pub use access_webhook::{AccessWebhook, AccessWebhookOptions};
pub use authentication_file::AuthenticationConfiguration;
pub use authn::{Anonymous, Authenticator, Peer, StaticTokens, StaticTokensError};
pub use authorization_file::{AuthorizationConfiguration, AuthorizerParts};
pub use certificates::{CertificateApproval, CertificateSigning, CertificateSubjectRestriction};
pub use decisions::Decisions;
pub use escalation::Escalation;
pub use front_proxy::FrontProxy;
pub(crate) use node::NODES;
pub use node::{NodeAuthorizer, node_of};
pub use rbac::{Rbac, Stamp};
pub use reviews::{Reviews, reviews};
pub use rules::Rule;
pub use token_webhook::TokenWebhook;
pub use union::{Always, Replaceable, Union};

/// Group of every user who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everyone else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group that passes every authorization.
pub const MASTERS: &str = "system:masters";

/// What somebody wants to do (upstream `authorizer.Attributes`).
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who.
    pub user: &'a User,
    /// `get`, `list`, ... or a lower-case HTTP method for paths.
    pub verb: &'a str,
    /// What.
    pub object: Asked<'a>,
    /// The field selector of a list or watch.
    pub fields: Option<&'a FieldSelector>,
    /// The label selector of a list or watch.
    pub labels: Option<&'a LabelSelector>,
}

impl<'a> Ask<'a> {
    /// Without selectors.
    pub fn new(user: &'a User, verb: &'a str, object: Asked<'a>) -> Self {
        Self { user, verb, object, fields: None, labels: None }
    }
}

/// What an [`Ask`] is about.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// Objects of a kind.
    Resource {
        /// Group; empty for core.
        group: &'a str,
        /// Version, where one is named.
        version: &'a str,
        /// Plural.
        resource: &'a str,
        /// Subresource; mostly empty.
        subresource: &'a str,
        /// Namespace; empty for cluster scope.
        namespace: &'a str,
        /// Name; empty for all.
        name: &'a str,
    },
    /// A path that is no resource.
    Path(&'a str),
}

/// The answer of an authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and by which rule.
    Allow(String),
    /// Nobody said yes; why, if there is something to say.
    NoOpinion(String),
    /// No, whoever else would say yes; why.
    Deny(String),
    /// Nobody said yes, and somebody who was to be asked could not answer.
    Failed {
        /// Why nobody did, if there is something to say.
        reason: String,
        /// What went wrong.
        error: String,
        /// Whether that means no, whoever else would say yes.
        denies: bool,
    },
}

impl Decision {
    /// Whether it is a yes.
    pub fn allows(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// By which rule, or why not.
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow(reason)
            | Self::NoOpinion(reason)
            | Self::Deny(reason)
            | Self::Failed { reason, .. } => reason,
        }
    }
}

/// Decides who may do what.
pub trait Authorizer: Send + Sync {
    /// Whether it may be done.
    fn allows(&self, ask: &Ask<'_>) -> bool;

    /// The same with the reason. Where somebody outside has to be asked, the calling thread waits: whoever can wait
    /// otherwise calls [`decide`].
    fn decide(&self, ask: &Ask<'_>) -> Decision;

    /// The decision where somebody outside has to be asked about it; `None` when [`Authorizer::decide`] does not
    /// wait.
    fn outside<'a>(&'a self, ask: &'a Ask<'a>) -> Option<BoxFuture<'a, Decision>> {
        let _ = ask;
        None
    }

    /// Everything the user may do in a namespace (and cluster-wide).
    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule>;

    /// Why that may not be everything.
    fn rules_incomplete(&self) -> Option<String> {
        None
    }
}

/// The decision of an authorizer, waiting for those outside.
pub async fn decide(authorizer: &dyn Authorizer, ask: &Ask<'_>) -> Decision {
    match authorizer.outside(ask) {
        Some(answer) => answer.await,
        None => authorizer.decide(ask),
    }
}

/// What a decision means for a request: 403 as upstream words it (`responsewriters.ForbiddenStatusError`), 500 when
/// it could not be decided.
pub(crate) fn verdict(ask: &Ask<'_>, decision: &Decision) -> Result<(), Status> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) | Decision::Deny(reason) => Err(forbidden(ask, reason)),
        Decision::Failed { error, .. } => Err(Status::internal(error)),
    }
}

/// 403 as upstream words it.
pub(crate) fn forbidden(ask: &Ask<'_>, reason: &str) -> Status {
    let user = &ask.user.name;
    let colon = if reason.is_empty() { "" } else { ": " };
    match ask.object {
        Asked::Path(path) => {
            let why = format!("forbidden: User {user:?} cannot {} path {path:?}{colon}{reason}", ask.verb);
            Status::new(403, meta::Reason::Forbidden, why)
        }
        Asked::Resource { group, version: _, resource, subresource, namespace, name } => {
            let slash = if subresource.is_empty() { "" } else { "/" };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let why = format!(
                "User {user:?} cannot {} resource \"{resource}{slash}{subresource}\" in API group {group:?} \
                 {place}{colon}{reason}",
                ask.verb
            );
            Status::forbidden(&GroupResource::new(group, resource), name, &why)
        }
    }
}
