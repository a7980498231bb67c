//! The aggregation layer: versions of groups that another server answers for, which an APIService names.
//!
//! Guarantees: a request is passed on only after it was authenticated and authorized here, with the user in headers
//! that no client can set, to whom the front proxy's certificate is shown; only a server that answered its last check
//! gets requests, everyone else's are answered with 503 at once. What is read of other servers for discovery and
//! OpenAPI is bounded; what was read last is shown while a server does not answer.
//! Deliberately unaware of what other servers serve: nothing of it is decoded, defaulted or stored here.

mod attend;
mod check;
mod document;
mod proxy;
mod register;
mod remote;
mod trust;

use std::sync::Arc;

use meta::metrics::{Exposition, Kind, labels};
use tokio_util::sync::CancellationToken;

use crate::{connect::Forwarder, pki::Pair, rest::Rest};

pub(crate) use document::merge;
pub(crate) use proxy::{Passing, remote_of_path};
pub(crate) use remote::{Remote, Remotes};
pub use trust::Trusted;

/// The aggregation layer of a server. Cheap to clone.
#[derive(Clone)]
pub struct Aggregation(Arc<Layer>);

struct Layer {
    rest: Rest,
    /// What other servers know this one by.
    login: Pair,
    forwarder: Forwarder,
}

impl Aggregation {
    /// A layer that shows `login` to other servers.
    pub fn new(rest: &Rest, login: Pair) -> Self {
        Self(Arc::new(Layer { rest: rest.clone(), login, forwarder: Forwarder::default() }))
    }

    /// Follows APIServices until `stop`: keeps those of custom resources, judges the others, and publishes in
    /// `kube-system` whom extension servers may trust. Does nothing when the registry has no APIService.
    pub async fn run(self, trusted: Trusted, stop: CancellationToken) {
        let rest = self.0.rest.clone();
        let publishing = trusted.keep(&rest);
        let following = register::follow(&self);
        tokio::select! {
            () = stop.cancelled() => {}
            () = async { tokio::join!(publishing, following); } => {}
        }
    }

    /// Ends every stream to another server and waits for it.
    pub(crate) async fn stop(&self) {
        self.0.forwarder.stop().await;
    }
}

/// Which other servers do not answer, under upstream's name.
pub(crate) fn expose(remotes: &Remotes, out: &mut Exposition) {
    let help = "APIServices of other servers, 1 for those that do not answer.";
    let mut family = out.family("aggregator_unavailable_apiservice", Kind::Gauge, help);
    for (of, remote) in remotes {
        let name = format!("{}.{}", of.version, of.group);
        family.value(&labels(&[("name", &name)]), u8::from(!remote.available));
    }
}

#[cfg(test)]
mod tests;
