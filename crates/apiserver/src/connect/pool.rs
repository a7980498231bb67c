//! Connections to other servers that are kept between requests.
//!
//! Guarantees: a connection is kept only when the answer before it was read to its end; one that is closed, or was
//! idle for [`IDLE_MAX`], is not used again; connections with other credentials or another trust are others.
//! Deliberately unaware of HTTP/2: a connection carries one request at a time.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time::Instant;

use crate::http::Body;

/// How long a connection may lie idle; upstream's servers close theirs after 90 seconds.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Connections kept for one target; more requests at once open more, which are closed after.
const KEPT_MAX: usize = 16;
/// Targets with kept connections; beyond it those that are idle longest go.
const TARGETS_MAX: usize = 256;

/// Who is on the other side, and what it was shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
    pub(super) tls: Identity,
}

/// A configuration, told apart by where it is: two that say the same are two.
#[derive(Clone, Debug)]
pub(super) struct Identity(pub(super) Arc<ClientConfig>);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

impl Idle {
    fn is_usable(&self) -> bool {
        self.since.elapsed() < IDLE_MAX && !self.sender.is_closed()
    }
}

/// The connections of one forwarder. Clones are one.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<HashMap<Target, Vec<Idle>>>>);

impl Pool {
    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Vec<Idle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that can be sent on at once: the one used last.
    pub(super) fn take(&self, target: &Target) -> Option<SendRequest<Body>> {
        let mut kept = self.lock();
        let idle = kept.get_mut(target)?;
        let found = std::iter::from_fn(|| idle.pop())
            .find(|idle| idle.is_usable() && idle.sender.is_ready())
            .map(|idle| idle.sender);
        if idle.is_empty() {
            kept.remove(target);
        }
        found
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, target: Target, sender: SendRequest<Body>) {
        if sender.is_closed() {
            return;
        }
        let mut kept = self.lock();
        if kept.len() >= TARGETS_MAX && !kept.contains_key(&target) {
            kept.retain(|_, idle| {
                idle.retain(Idle::is_usable);
                !idle.is_empty()
            });
            if kept.len() >= TARGETS_MAX {
                return;
            }
        }
        let idle = kept.entry(target).or_default();
        idle.retain(Idle::is_usable);
        if idle.len() < KEPT_MAX {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Lets all go.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}
