//! What the API server refuses of what an object asks for: resources, tolerations or volumes that no pod can have, a
//! quota, an admission. The status says it until the server has taken everything.

use std::{collections::HashMap, fmt, sync::Arc};

use meta::ObjectKey;
use parking_lot::Mutex;
use reconcile::{Context, Effect, EffectFuture, Error};

/// Codes of answers that the same request gets again: bad request, forbidden, invalid.
const FINAL: [u16; 3] = [400, 403, 422];

/// The last answer for each object that has had one; `None` where everything has been taken since.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<ObjectKey, Option<String>>>);

impl Refusals {
    /// Notes a failure, unless it is one that passes by itself.
    pub(crate) fn note(&self, key: &ObjectKey, error: &Error) {
        if error.status().is_some_and(|status| FINAL.contains(&status.code)) {
            let why = format!("the API server refuses what this object asks for: {}", error.text());
            self.0.lock().insert(key.clone(), Some(why));
        }
    }

    /// What is refused; what the status `said` when nothing has been tried since the start.
    pub(crate) fn of(&self, key: &ObjectKey, said: Option<String>) -> Option<String> {
        self.0.lock().get(key).cloned().unwrap_or(said)
    }

    /// The object is no more.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

/// Done after all of a plan's children have been written.
pub(crate) struct Accepted {
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) key: ObjectKey,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Accepted")
    }
}

impl Effect for Accepted {
    fn name(&self) -> &'static str {
        "note that nothing is refused"
    }

    fn run<'a>(&'a self, _: &'a Context) -> EffectFuture<'a> {
        self.refusals.0.lock().insert(self.key.clone(), None);
        Box::pin(std::future::ready(Ok(())))
    }
}
