//! Leader election by a Lease, for a controller process that runs beside others of its kind.
//!
//! Follows client-go's `tools/leaderelection`: a held lease is taken over only after it was seen
//! unchanged for a whole lease duration by the local clock (never by comparing times written by
//! another machine); an empty holder is taken at once; who cannot renew in time stops leading before
//! anybody else may begin.

use std::{future::Future, sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, api::PostParams};
use meta::{Clock, ObjectKey};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{Error, Kind, Result, error::text};

/// Times of an election; upstream's defaults for its own components.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; unique among the candidates.
    pub identity: String,
    /// A lease unchanged for so long is free.
    pub lease_duration: Duration,
    /// Without a renewal for so long, we stop leading. Shorter than `lease_duration`.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry_period: Duration,
}

impl LeaseOptions {
    /// Duration 15 s, deadline 10 s, retry 2 s.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// One candidate for one Lease.
pub struct LeaseLock {
    api: Api<Lease>,
    clock: Arc<dyn Clock>,
    options: LeaseOptions,
}

/// A lease of somebody else as last seen: it is free when it stays so for a lease duration.
struct Sighting {
    version: Option<String>,
    free: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl LeaseLock {
    /// A candidate; does nothing until [`LeaseLock::lead`].
    pub fn new(client: kube::Client, clock: Arc<dyn Clock>, options: LeaseOptions) -> Self {
        Self { api: Api::namespaced(client, &options.namespace), clock, options }
    }

    /// Waits for the lease, runs `work` while it is held, and gives it back. `work` gets a token that
    /// is cancelled when `stop` is or when the lease is lost, and must end soon after. Returns when
    /// `work` has ended; `false` when leadership was lost (the caller exits or calls again).
    pub async fn lead<F: Future<Output = ()>>(
        &self,
        stop: &CancellationToken,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> bool {
        tokio::select! {
            () = self.acquire() => {}
            () = stop.cancelled() => return true,
        }
        tracing::info!(lease = self.options.name, identity = self.options.identity, "leading");
        let leading = stop.child_token();
        let renewal = async {
            tokio::select! {
                () = self.keep() => {
                    tracing::error!(lease = self.options.name, "lease lost, stopping");
                    leading.cancel();
                    false
                }
                () = leading.cancelled() => true,
            }
        };
        let work = async {
            work(leading.clone()).await;
            leading.cancel();
        };
        let (kept, ()) = tokio::join!(renewal, work);
        if kept {
            self.release().await;
        }
        kept
    }

    async fn acquire(&self) {
        let mut seen: Option<Sighting> = None;
        loop {
            // Bounded like a renewal: behind a connection that died without a word, who stands for election
            // would wait for as long as TCP tries.
            match timeout(self.options.renew_deadline, self.try_acquire(&mut seen)).await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(lease = self.options.name, error = text(&error), "cannot acquire lease")
                }
                Err(_) => tracing::debug!(lease = self.options.name, "no answer in time about the lease"),
            }
            sleep(self.options.retry_period).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<Sighting>) -> Result<bool> {
        let Some(live) = self.read().await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.options.name.clone());
            lease.spec = Some(self.claim(None));
            return Ok(self.won(self.api.create(&PostParams::default(), &lease).await)?.is_some());
        };
        let spec = live.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.options.identity {
            let version = &live.metadata.resource_version;
            let same = seen.as_ref().is_some_and(|sighting| sighting.version == *version);
            if !same {
                let free = Box::pin(sleep(self.options.lease_duration));
                *seen = Some(Sighting { version: version.clone(), free });
            }
            let expired = match seen {
                // Polled, since a sleep that nobody polls does not notice its time.
                Some(sighting) => timeout(Duration::ZERO, sighting.free.as_mut()).await.is_ok(),
                None => false,
            };
            if !expired {
                return Ok(false);
            }
        }
        let mut lease = live;
        lease.spec = Some(self.claim(Some(&spec)));
        let answer = self.api.replace(&self.options.name, &PostParams::default(), &lease).await;
        Ok(self.won(answer)?.is_some())
    }

    /// Renews until renewing has failed for the deadline.
    async fn keep(&self) {
        let renew = || async {
            loop {
                match self.renew().await {
                    Ok(true) => return true,
                    Ok(false) => return false,
                    Err(error) => {
                        tracing::warn!(lease = self.options.name, error = text(&error), "cannot renew lease");
                        sleep(self.options.retry_period).await;
                    }
                }
            }
        };
        while timeout(self.options.renew_deadline, renew()).await.unwrap_or(false) {
            sleep(self.options.retry_period).await;
        }
    }

    /// `false` when somebody else holds it.
    async fn renew(&self) -> Result<bool> {
        let Some(mut lease) = self.read().await? else { return Ok(false) };
        let spec = lease.spec.take().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.options.identity) {
            return Ok(false);
        }
        lease.spec = Some(LeaseSpec { renew_time: Some(MicroTime(self.clock.now())), ..spec });
        self.api
            .replace(&self.options.name, &PostParams::default(), &lease)
            .await
            .map_err(self.failed("renew"))?;
        Ok(true)
    }

    /// Best effort: a lease that is not given back is free after its duration all the same.
    async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.read().await? else { return Ok(()) };
            let spec = lease.spec.take().unwrap_or_default();
            if spec.holder_identity.as_deref() == Some(&self.options.identity) {
                let now = Some(MicroTime(self.clock.now()));
                lease.spec = Some(LeaseSpec {
                    holder_identity: Some(String::new()),
                    lease_duration_seconds: Some(1),
                    renew_time: now,
                    ..spec
                });
                let answer = self.api.replace(&self.options.name, &PostParams::default(), &lease).await;
                answer.map_err(self.failed("release"))?;
            }
            Ok::<(), Error>(())
        };
        match timeout(self.options.retry_period, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(lease = self.options.name, error = text(&error), "lease not given back")
            }
            Err(_) => tracing::debug!(lease = self.options.name, "lease not given back in time"),
        }
    }

    async fn read(&self) -> Result<Option<Lease>> {
        self.api
            .get_opt(&self.options.name)
            .await
            .map_err(Error::read(format!("lease {}", self.options.name)))
    }

    fn claim(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.clock.now());
        let again =
            before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.options.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.options.identity.clone()),
            lease_duration_seconds: i32::try_from(self.options.lease_duration.as_secs()).ok(),
            acquire_time: before
                .and_then(|spec| spec.acquire_time.clone())
                .filter(|_| again)
                .or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if again || before.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    /// `None` when somebody else was faster.
    fn won(&self, answer: Result<Lease, kube::Error>) -> Result<Option<Lease>> {
        match answer {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(self.failed("acquire")(error)),
        }
    }

    fn failed(&self, verb: &'static str) -> impl FnOnce(kube::Error) -> Error + use<> {
        Error::write(verb, &Kind::of::<Lease>(), &ObjectKey::new(&self.options.namespace, &self.options.name))
    }
}
