//! Taking from budgets that objects share, the last step before an object is stored.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
};

use meta::{Object, Reason, Status};
use resource::{Context, User};
use tokio::sync::Mutex;

use super::{Caller, Rest, TRIES_MAX, pipeline::UNKNOWN};
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

/// What a request took: each budget as it was before, at the revision at which it is without.
#[derive(Default)]
#[must_use]
pub(super) struct Taken(Vec<Object>);

impl Rest {
    /// Takes what the object needs from every budget, or refuses and takes nothing. A dry run only asks.
    pub(super) async fn charge(
        &self,
        cx: &Context<'_>,
        object: &Object,
        old: Option<&Object>,
    ) -> Result<Taken, Status> {
        let mut all = Taken::default();
        match self.take(cx, object, old, &mut all).await {
            Ok(()) => Ok(all),
            Err(status) => {
                self.give_back(all).await;
                Err(status)
            }
        }
    }

    /// Gives back what was taken for an object that is not stored: each budget that nobody has changed since is as it
    /// was. Of others only whoever counts knows what is in them, and counts anew.
    pub(super) async fn give_back(&self, taken: Taken) {
        for budget in taken.0 {
            let key = budget.key();
            match Box::pin(self.amend(&server(), budget)).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    tracing::debug!(%key, "a budget has changed since, it is left to be counted anew")
                }
                Err(status) => tracing::warn!(%key, %status, "give back what was taken from a budget"),
            }
        }
    }

    /// The same after a failed write; where nobody knows whether the object is stored, what it took stays taken.
    pub(super) async fn give_back_after(&self, status: &Status, taken: Taken) {
        if status.code != UNKNOWN {
            self.give_back(taken).await;
        }
    }

    async fn take(
        &self,
        cx: &Context<'_>,
        object: &Object,
        old: Option<&Object>,
        all: &mut Taken,
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
                    let (key, before) = (budget.key(), self.unchanged(&budget));
                    // Boxed: the update of a budget is itself an update.
                    if let Some(after) = Box::pin(self.amend(&server(), budget)).await? {
                        taken.insert(key);
                        all.0.extend(before.map(|mut before| {
                            before.set(&["metadata", "resourceVersion"], after.revision.to_string());
                            before
                        }));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Rest {
    /// A budget as it is stored, if that is what `changed` was made from.
    fn unchanged(&self, changed: &Object) -> Option<Object> {
        let version = changed.group_version()?;
        let resource = self.registry.by_kind(&version.group, &version.version, changed.kind())?;
        let entry = self.kind(&resource).get(&changed.key())?;
        let same = changed.str(&["metadata", "resourceVersion"]) == Some(&entry.revision.to_string());
        same.then(|| entry.object().ok()).flatten()
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
