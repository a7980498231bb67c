//! Who sends a request, and whether they may.
//!
//! Guarantees: a request without valid credentials is anonymous or refused, never somebody; what no rule
//! allows is forbidden. Decisions read compiled rules, never a list of objects. Names only the kinds of
//! `rbac.authorization.k8s.io` and `authentication.k8s.io`/`authorization.k8s.io`, whose meaning this is.

mod authn;
mod bootstrap_token;
mod certificates;
mod escalation;
mod front_proxy;
mod memo;
mod node;
pub mod oidc;
mod rbac;
mod reviews;
mod rules;
mod token_webhook;
mod union;

use meta::{FieldSelector, GroupResource, Status};
use resource::User;

pub use authn::{Authenticator, Peer, StaticTokens, StaticTokensError};
pub use certificates::{CertificateApproval, CertificateSigning, CertificateSubjectRestriction};
pub use escalation::Escalation;
pub use front_proxy::FrontProxy;
pub use node::{NodeAuthorizer, node_of};
pub use rbac::{Rbac, Stamp};
pub use reviews::{Reviews, reviews};
pub use rules::Rule;
pub use token_webhook::TokenWebhook;
pub use union::Union;

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
}

/// What an [`Ask`] is about.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// Objects of a kind.
    Resource {
        /// Group; empty for core.
        group: &'a str,
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
}

/// Decides who may do what.
pub trait Authorizer: Send + Sync {
    /// Whether it may be done. Called once a request; must not wait.
    fn allows(&self, ask: &Ask<'_>) -> bool;

    /// The same with the reason, for reviews.
    fn decide(&self, ask: &Ask<'_>) -> Decision;

    /// Everything the user may do in a namespace (and cluster-wide).
    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule>;
}

/// 403 as upstream words it (`responsewriters.ForbiddenStatusError`).
pub(crate) fn forbidden(ask: &Ask<'_>) -> Status {
    let user = &ask.user.name;
    match ask.object {
        Asked::Path(path) => {
            let why = format!("forbidden: User {user:?} cannot {} path {path:?}", ask.verb);
            Status::new(403, meta::Reason::Forbidden, why)
        }
        Asked::Resource { group, resource, subresource, namespace, name } => {
            let slash = if subresource.is_empty() { "" } else { "/" };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let why = format!(
                "User {user:?} cannot {} resource \"{resource}{slash}{subresource}\" in API group {group:?} {place}",
                ask.verb
            );
            Status::forbidden(&GroupResource::new(group, resource), name, &why)
        }
    }
}
