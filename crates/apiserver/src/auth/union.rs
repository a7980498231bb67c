//! Several authorizers in a row: the first that has an opinion decides.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, FutureExt as _};
use resource::User;

use super::{Ask, Authorizer, Decision, Rule, decide, rbac::is_master};

/// Asks each in turn until one allows or denies. Members of `system:masters` pass before anybody is asked, as
/// upstream.
pub struct Union(pub Vec<Arc<dyn Authorizer>>);

/// What those asked so far said, of whom none decided.
#[derive(Default)]
struct Undecided {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Undecided {
    /// Takes a decision in; gives it back when it ends the row.
    fn take(&mut self, decision: Decision) -> Option<Decision> {
        match decision {
            Decision::NoOpinion(reason) => self.reasons.push(reason),
            Decision::Failed { reason, error, denies: false } => {
                self.reasons.push(reason);
                self.errors.push(error);
            }
            last => return Some(last),
        }
        None
    }

    fn decision(mut self) -> Decision {
        self.reasons.retain(|reason| !reason.is_empty());
        let reason = self.reasons.join("\n");
        match self.errors.as_slice() {
            [] => Decision::NoOpinion(reason),
            [one] => Decision::Failed { reason, error: one.clone(), denies: false },
            many => Decision::Failed { reason, error: format!("[{}]", many.join(", ")), denies: false },
        }
    }
}

impl Authorizer for Union {
    fn allows(&self, ask: &Ask<'_>) -> bool {
        if is_master(ask.user) {
            return true;
        }
        match self.outside(ask) {
            // Only those outside deny.
            None => self.0.iter().any(|authorizer| authorizer.allows(ask)),
            Some(_) => self.decide(ask).allows(),
        }
    }

    /// The reasons of all who have no opinion, when nobody decides.
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        if is_master(ask.user) {
            return Decision::Allow(String::new());
        }
        let mut undecided = Undecided::default();
        let last = self.0.iter().find_map(|authorizer| undecided.take(authorizer.decide(ask)));
        last.unwrap_or_else(|| undecided.decision())
    }

    fn outside<'a>(&'a self, ask: &'a Ask<'a>) -> Option<BoxFuture<'a, Decision>> {
        if is_master(ask.user) || !self.0.iter().any(|authorizer| authorizer.outside(ask).is_some()) {
            return None;
        }
        let answer = async move {
            let mut undecided = Undecided::default();
            for authorizer in &self.0 {
                if let Some(last) = undecided.take(decide(&**authorizer, ask).await) {
                    return last;
                }
            }
            undecided.decision()
        };
        Some(answer.boxed())
    }

    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.0.iter().flat_map(|authorizer| authorizer.rules(user, namespace)).collect()
    }

    fn rules_incomplete(&self) -> Option<String> {
        let mut errors: Vec<String> =
            self.0.iter().filter_map(|authorizer| authorizer.rules_incomplete()).collect();
        errors.dedup();
        match errors.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("[{}]", many.join(", "))),
        }
    }
}

/// A row that is replaced when its file changes. A request is decided by one row.
pub struct Replaceable(ArcSwap<Union>);

impl Replaceable {
    /// Decides by `row` at first.
    pub fn new(row: Union) -> Self {
        Self(ArcSwap::from_pointee(row))
    }

    /// Decides by `row` from now on.
    pub fn replace(&self, row: Union) {
        self.0.store(Arc::new(row));
    }
}

impl Authorizer for Replaceable {
    fn allows(&self, ask: &Ask<'_>) -> bool {
        self.0.load_full().allows(ask)
    }

    fn decide(&self, ask: &Ask<'_>) -> Decision {
        self.0.load_full().decide(ask)
    }

    fn outside<'a>(&'a self, ask: &'a Ask<'a>) -> Option<BoxFuture<'a, Decision>> {
        let row = self.0.load_full();
        let waits = row.outside(ask).is_some();
        waits.then(|| async move { decide(&*row, ask).await }.boxed())
    }

    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.0.load_full().rules(user, namespace)
    }

    fn rules_incomplete(&self) -> Option<String> {
        self.0.load_full().rules_incomplete()
    }
}

/// Everybody may do everything, or nobody anything (upstream `AlwaysAllow` and `AlwaysDeny`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Always {
    /// Everything.
    Allow,
    /// Nothing that nobody else allows.
    Deny,
}

impl Authorizer for Always {
    fn allows(&self, _: &Ask<'_>) -> bool {
        *self == Self::Allow
    }

    fn decide(&self, _: &Ask<'_>) -> Decision {
        match self {
            Self::Allow => Decision::Allow(String::new()),
            Self::Deny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
        }
    }

    fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
        let all = || vec!["*".to_owned()];
        match self {
            Self::Allow => vec![
                Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
                Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
            ],
            Self::Deny => Vec::new(),
        }
    }
}
