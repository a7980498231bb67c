//! All that the code of a controller may reach at run time.

use std::sync::Arc;

use meta::{Clock, Random};

use crate::Stores;

/// Client, caches, time and chance. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The API.
    pub client: kube::Client,
    /// The caches of this process.
    pub stores: Stores,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Chance: jitter and name suffixes.
    pub random: Arc<dyn Random>,
}

impl Context {
    /// A context with caches of its own; share it (clone it) between all controllers of a process.
    pub fn new(client: kube::Client, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let stores = Stores::new(client.clone(), Arc::clone(&random));
        Self { client, stores, clock, random }
    }
}
