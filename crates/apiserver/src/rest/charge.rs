//! Taking from budgets that objects share, the last step before an object is stored.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
};

use meta::{Object, Reason, Status};
use resource::{Context, User};
use tokio::sync::Mutex;

use super::{Caller, Rest, TRIES_MAX};
use crate::auth::{AUTHENTICATED, MASTERS};

/// Stripes of namespaces that wait for one another. More would let more namespaces write at once than one
/// batch of the committer has use for.
const TURNS: usize = 64;

/// One request at a time takes from the budgets of a namespace: many at once would only make each other's
/// writes fail. Fair, so that nobody waits for ever. The conditional write still guards against others: the
/// controller that counts, other servers.
pub(super) struct Turns([Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    fn of(&self, namespace: &str) -> Option<&Mutex<()>> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(namespace);
        usize::try_from(hash % TURNS as u64).ok().and_then(|at| self.0.get(at))
    }
}

impl Rest {
    /// Takes what the object needs from every budget, or refuses. A dry run only asks.
    pub(super) async fn charge(
        &self,
        cx: &Context<'_>,
        object: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let mut taken = BTreeSet::new();
        for plugin in self.admission.iter().filter(|plugin| plugin.handles(cx.attributes)) {
            if plugin.charge(cx, object, old, &taken)?.is_empty() || cx.attributes.dry_run {
                continue;
            }
            let _turn = match self.turns.of(&cx.attributes.namespace) {
                Some(turn) => Some(turn.lock().await),
                None => None,
            };
            let mut tries = 0;
            loop {
                let budgets = plugin.charge(cx, object, old, &taken)?;
                if budgets.is_empty() {
                    break;
                }
                if tries == TRIES_MAX {
                    let why = format!("the quotas of namespace {} change too fast", cx.attributes.namespace);
                    return Err(Status::new(504, Reason::ServerTimeout, why).retry_after(1));
                }
                tries += 1;
                for budget in budgets {
                    let key = budget.key();
                    // Boxed: the update of a budget is itself an update.
                    if Box::pin(self.amend(&server(), budget)).await? {
                        taken.insert(key);
                    }
                }
            }
        }
        Ok(())
    }
}

fn server() -> Caller {
    Caller {
        user: User {
            name: "system:apiserver".to_owned(),
            groups: vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()],
            ..User::default()
        },
        field_manager: "kube-apiserver".to_owned(),
        ..Caller::default()
    }
}

#[cfg(test)]
mod tests;
