//! Several authorizers in a row: the first that allows decides.

use std::sync::Arc;

use resource::User;

use super::{Ask, Authorizer, Decision, Rule, rbac::is_master};

/// Asks each in turn. Members of `system:masters` pass before anybody is asked, as upstream.
pub struct Union(pub Vec<Arc<dyn Authorizer>>);

impl Authorizer for Union {
    fn allows(&self, ask: &Ask<'_>) -> bool {
        is_master(ask.user) || self.0.iter().any(|authorizer| authorizer.allows(ask))
    }

    /// The reasons of all who have no opinion, when nobody allows.
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        if is_master(ask.user) {
            return Decision::Allow(String::new());
        }
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in &self.0 {
            match authorizer.decide(ask) {
                Decision::Allow(because) => return Decision::Allow(because),
                Decision::NoOpinion(why) => reasons.extend(Some(why).filter(|why| !why.is_empty())),
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }

    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.0.iter().flat_map(|authorizer| authorizer.rules(user, namespace)).collect()
    }
}
