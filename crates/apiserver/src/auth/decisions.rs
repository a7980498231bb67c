//! How often each authorizer of the row decided (upstream `authorization/metrics`).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::future::{BoxFuture, FutureExt as _};
use meta::metrics::{Exposition, Kind, labels};
use resource::User;

use super::{Ask, Authorizer, Decision, Rule};

/// Counts by type and name of the authorizer. They go on when the row is replaced.
#[derive(Default)]
pub struct Decisions(Mutex<BTreeMap<(&'static str, String), Arc<Made>>>);

/// By one authorizer. Having no opinion is no decision.
#[derive(Default)]
struct Made {
    allowed: AtomicU64,
    denied: AtomicU64,
}

impl Made {
    fn note(&self, decision: &Decision) {
        match decision {
            Decision::Allow(_) => drop(self.allowed.fetch_add(1, Relaxed)),
            Decision::Deny(_) | Decision::Failed { denies: true, .. } => {
                self.denied.fetch_add(1, Relaxed);
            }
            Decision::NoOpinion(_) | Decision::Failed { denies: false, .. } => {}
        }
    }
}

impl Decisions {
    /// The same authorizer, counted. `kind` is the type that configurations name it by.
    pub fn counted(
        &self,
        kind: &'static str,
        name: &str,
        authorizer: Arc<dyn Authorizer>,
    ) -> Arc<dyn Authorizer> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = all.entry((kind, name.to_owned())).or_default().clone();
        Arc::new(Counted { authorizer, made })
    }

    /// Writes the counts that are not zero.
    pub fn expose(&self, out: &mut Exposition) {
        let help = "Decisions of authorizers that ended the row.";
        let mut family = out.family("apiserver_authorization_decisions_total", Kind::Counter, help);
        for ((kind, name), made) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            for (decision, count) in [("allowed", &made.allowed), ("denied", &made.denied)] {
                let count = count.load(Relaxed);
                if count > 0 {
                    family.value(&labels(&[("decision", decision), ("name", name), ("type", kind)]), count);
                }
            }
        }
    }
}

struct Counted {
    authorizer: Arc<dyn Authorizer>,
    made: Arc<Made>,
}

impl Authorizer for Counted {
    fn allows(&self, ask: &Ask<'_>) -> bool {
        let allows = self.authorizer.allows(ask);
        self.made.allowed.fetch_add(u64::from(allows), Relaxed);
        allows
    }

    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let decision = self.authorizer.decide(ask);
        self.made.note(&decision);
        decision
    }

    fn outside<'a>(&'a self, ask: &'a Ask<'a>) -> Option<BoxFuture<'a, Decision>> {
        let answer = self.authorizer.outside(ask)?;
        let noted = answer.inspect(|decision| self.made.note(decision));
        Some(noted.boxed())
    }

    fn rules(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.authorizer.rules(user, namespace)
    }

    fn rules_incomplete(&self) -> Option<String> {
        self.authorizer.rules_incomplete()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Always, Asked, Union, decide};

    /// Answers from outside with what it was made with.
    struct Outside(Decision);

    impl Authorizer for Outside {
        fn allows(&self, ask: &Ask<'_>) -> bool {
            self.decide(ask).allows()
        }
        fn decide(&self, _: &Ask<'_>) -> Decision {
            self.0.clone()
        }
        fn outside<'a>(&'a self, _: &'a Ask<'a>) -> Option<BoxFuture<'a, Decision>> {
            Some(std::future::ready(self.0.clone()).boxed())
        }
        fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn who_ended_the_row_is_counted() {
        let decisions = Decisions::default();
        let failed = |denies| Decision::Failed { reason: String::new(), error: "down".to_owned(), denies };
        let row = |first: Decision| {
            Union(vec![
                decisions.counted("Webhook", "w", Arc::new(Outside(first))),
                decisions.counted("AlwaysDeny", "alwaysdeny", Arc::new(Always::Deny)),
                decisions.counted("AlwaysAllow", "alwaysallow", Arc::new(Always::Allow)),
            ])
        };
        let user = User::default();
        let ask = Ask::new(&user, "get", Asked::Path("/x"));
        for (first, allows) in [
            (Decision::Allow(String::new()), true),
            (Decision::Deny(String::new()), false),
            (failed(true), false),
            (failed(false), true),
            (Decision::NoOpinion(String::new()), true),
        ] {
            // A row of its own each time, as after a reload.
            assert_eq!(decide(&row(first.clone()), &ask).await.allows(), allows, "{first:?}");
        }
        let inside = Union(vec![decisions.counted("AlwaysAllow", "alwaysallow", Arc::new(Always::Allow))]);
        assert!(inside.allows(&ask) && inside.decide(&ask).allows());
        let mut out = Exposition::default();
        decisions.expose(&mut out);
        let counts: Vec<&str> =
            out.text().lines().filter_map(|line| line.strip_prefix("apiserver_")).collect();
        assert_eq!(
            counts,
            [
                "authorization_decisions_total{decision=\"allowed\",name=\"alwaysallow\",type=\"AlwaysAllow\"} 4",
                "authorization_decisions_total{decision=\"allowed\",name=\"w\",type=\"Webhook\"} 1",
                "authorization_decisions_total{decision=\"denied\",name=\"w\",type=\"Webhook\"} 2",
            ]
        );
    }
}
