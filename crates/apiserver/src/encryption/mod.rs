//! Encryption at rest: a store in front of another that seals what the configuration names.
//!
//! Guarantees: the store behind never sees the plaintext of a named kind; a sealed value opens only under the key it was
//! sealed with, and with `aesgcm` only at its own place (the store key is authenticated with it), so that one object's
//! ciphertext cannot be put in another's; a value whose key is missing or wrong is an error that names object and key,
//! and nothing is changed. A write that cannot be sealed is refused alone, not what is committed with it. Form and file
//! are upstream's (`EncryptionConfiguration`, `k8s:enc:aesgcm:v1:NAME:`). Does not know what the values mean.

mod config;
mod key;
mod kms;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use meta::Revision;
use ring::rand::SystemRandom;
use store::{
    BATCH_BYTES_MAX, BATCH_WRITES_MAX, Change, Error, Expect, Head, Key, Loaded, Outcome, Result, Store,
    Stored, Write, Writers,
};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub use config::{Encryption, EncryptionError, generate};
use key::{Form, SealingKey};
use kms::{Kms, KmsError};

/// What every sealed value begins with. A value in plain form begins with a number of at most eight digits
/// in four bytes ([`meta::Entry::encode`]), which this is not.
const MARK: &[u8] = b"k8s:enc:";
/// How far into a value the name of its key may reach.
const NAME_BYTES_MAX: usize = 256;
/// How long a KMS plugin may take to be there when nothing can go on without it, and the pause between two looks.
const PLUGIN_MAX: Duration = Duration::from_secs(30);
const PLUGIN_PAUSE: Duration = Duration::from_millis(500);

/// One way to keep a value.
enum Provider {
    /// As it is.
    Identity,
    /// Under a key.
    Sealed(Box<SealingKey>),
    /// Under keys that somebody else keeps.
    Kms(Box<Kms>),
}

impl Provider {
    /// What its values begin with, before its name and a colon, and that name; `None` for plain ones.
    fn mark(&self) -> Option<(&'static [u8], &str)> {
        match self {
            Self::Identity => None,
            Self::Sealed(key) => Some((key.form.mark(), &key.name)),
            Self::Kms(kms) => Some((kms::MARK, &kms.name)),
        }
    }
}

/// Why a stored value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum OpenError {
    #[error(
        "{key} is encrypted with the key {name:?}, which the encryption configuration does not have for this kind: \
         put that key back (nothing was changed)"
    )]
    NoKey { key: Key, name: String },
    #[error(
        "{key} does not open with the key {name:?}: the key is another one than it was encrypted with, or the value \
         was changed or moved (nothing was changed)"
    )]
    Wrong { key: Key, name: String },
    #[error("{key} is encrypted with the KMS plugin {name:?}: {why} (nothing was changed)")]
    Kms { key: Key, name: String, why: String },
    #[error("{key} is encrypted in a form that this release does not read: {form:?} (nothing was changed)")]
    Form { key: Key, form: String },
    #[error(
        "{key} is not encrypted, and the encryption configuration has no identity provider for this kind: add \
         `identity: {{}}` as the last provider (nothing was changed)"
    )]
    Plain { key: Key },
}

/// A store that seals on the way in and opens on the way out.
pub struct Sealed {
    inner: Arc<dyn Store>,
    encryption: Encryption,
    random: SystemRandom,
    /// Values that the last load found kept in another way than the first provider's.
    stale: Mutex<Vec<Stored>>,
}

impl Sealed {
    /// Seals what `encryption` names in front of `inner`.
    pub fn new(inner: Arc<dyn Store>, encryption: Encryption) -> Self {
        Self { inner, encryption, random: SystemRandom::new(), stale: Mutex::default() }
    }

    /// Writes every value that the last load found under an older key, or in plain form, with the first
    /// provider. Returns how many; after more than none the caller loads again, because revisions moved.
    pub async fn reseal(&self) -> Result<usize> {
        let mut stale = std::mem::take(&mut *self.stale.lock().unwrap_or_else(PoisonError::into_inner));
        let count = stale.len();
        while !stale.is_empty() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(stored) = stale.pop_if(|stored| {
                batch.len() < BATCH_WRITES_MAX / 2 && bytes + stored.value.len() < BATCH_BYTES_MAX / 2
            }) {
                bytes += stored.value.len();
                let Stored { key, value, revision } = stored;
                batch.push(Write { key, expect: Expect::At(revision), value: Some(value) });
            }
            // One that was changed meanwhile was sealed anew by that change.
            for outcome in self.commit(batch).await? {
                if let Outcome::Refused { why } = outcome {
                    let source = Arc::new(std::io::Error::other(String::from(&*why)));
                    return Err(Error::Backend { doing: "encrypt an object", source });
                }
            }
        }
        Ok(count)
    }

    /// Waits until every KMS plugin that writes has given a key, for 30 seconds at most. Nothing is written before.
    pub async fn begin(&self) -> std::result::Result<(), EncryptionError> {
        let give_up = Instant::now() + PLUGIN_MAX;
        for (kms, writes) in self.encryption.plugins() {
            loop {
                kms.ask().await;
                match kms.usable() {
                    Ok(()) => break,
                    Err(_) if !writes => break,
                    Err(_) if Instant::now() < give_up => sleep(PLUGIN_PAUSE).await,
                    Err(error) => {
                        let why = kms.problem().unwrap_or(error).to_string();
                        let (name, socket) = (kms.name.clone(), kms.socket().to_string());
                        return Err(EncryptionError::Plugin { name, socket, why });
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks the KMS plugins how they are, and for new seeds when their keys are new. Ends when `stop` is cancelled;
    /// where there are none, at once.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let ask = self.encryption.plugins().map(|(kms, _)| async move {
            loop {
                let next = Instant::now() + kms.ask().await;
                sleep_until(next).await;
            }
        });
        let all = futures::future::join_all(ask);
        // Cancelled or nothing to do: both end it.
        let _: Option<Vec<()>> = stop.run_until_cancelled(all).await;
    }

    /// What is wrong with a KMS plugin, for `/readyz`.
    pub fn healthy(&self) -> std::result::Result<(), String> {
        let problem = |(kms, _): (&Kms, bool)| kms.problem().map(|why| format!("{:?}: {why}", kms.name));
        self.encryption.plugins().find_map(problem).map_or(Ok(()), Err)
    }

    /// Whether any KMS plugin is configured.
    pub fn has_plugins(&self) -> bool {
        self.encryption.plugins().next().is_some()
    }

    fn seal(&self, key: &Key, value: &Bytes) -> std::result::Result<Bytes, KmsError> {
        match self.encryption.providers(&key.group_resource()).first() {
            None | Some(Provider::Identity) => Ok(value.clone()),
            Some(Provider::Sealed(sealing)) => {
                sealing.seal(key, value, &self.random).ok_or(KmsError::NoRandom)
            }
            Some(Provider::Kms(kms)) => kms.seal(key, value),
        }
    }

    /// The plain value, and whether the first provider keeps it so.
    async fn open(&self, key: &Key, value: Bytes) -> std::result::Result<(Bytes, bool), OpenError> {
        let providers = self.encryption.providers(&key.group_resource());
        if !value.starts_with(MARK) {
            return match providers.iter().position(|p| matches!(p, Provider::Identity)) {
                Some(at) => Ok((value, at == 0)),
                None if providers.is_empty() => Ok((value, true)),
                None => Err(OpenError::Plain { key: key.clone() }),
            };
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let marks = Form::ALL.iter().map(|form| form.mark()).chain([kms::MARK]);
        let found = marks.into_iter().find_map(|mark| {
            let rest = value.strip_prefix(mark)?;
            let end = rest.iter().take(NAME_BYTES_MAX).position(|b| *b == b':')?;
            Some((mark, rest.get(..end)?, rest.get(end + 1..)?))
        });
        let Some((mark, name, sealed)) = found else {
            let form = text(value.get(..value.len().min(24)).unwrap_or_default());
            return Err(OpenError::Form { key: key.clone(), form });
        };
        let mut wrong = None;
        for (at, provider) in providers.iter().enumerate() {
            if provider.mark().is_none_or(|of| (of.0, of.1.as_bytes()) != (mark, name)) {
                continue;
            }
            let (key, name) = (key.clone(), text(name));
            match provider {
                Provider::Identity => {}
                Provider::Sealed(sealing) => match sealing.open(&key, sealed) {
                    Some(opened) => return Ok((opened, at == 0)),
                    None => wrong = Some(OpenError::Wrong { key, name }),
                },
                Provider::Kms(kms) => match kms.open(&key, sealed).await {
                    Ok((opened, current)) => return Ok((opened, at == 0 && current)),
                    Err(error) => wrong = Some(OpenError::Kms { key, name, why: error.to_string() }),
                },
            }
        }
        Err(wrong.unwrap_or_else(|| OpenError::NoKey { key: key.clone(), name: text(name) }))
    }

    /// The same, when it is nobody's turn to be refused: a plugin that is not there may come back, for 30 seconds. What
    /// another server has sealed is under a seed that this one may never have asked for.
    async fn open_in_time(&self, key: &Key, value: Bytes) -> std::result::Result<(Bytes, bool), OpenError> {
        let give_up = Instant::now() + PLUGIN_MAX;
        loop {
            match self.open(key, value.clone()).await {
                Err(OpenError::Kms { .. }) if Instant::now() < give_up => sleep(PLUGIN_PAUSE).await,
                opened => return opened,
            }
        }
    }

    async fn opened(&self, stored: Stored) -> std::result::Result<(Stored, bool), OpenError> {
        let Stored { key, value, revision } = stored;
        let (value, fresh) = self.open(&key, value).await?;
        Ok((Stored { key, value, revision }, fresh))
    }

    /// What became of a write that was sealed.
    async fn outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Clash(Some(stored)) => match self.opened(stored).await {
                Ok((stored, _)) => Outcome::Clash(Some(stored)),
                Err(error) => Outcome::Refused { why: error.to_string().into() },
            },
            other => other,
        }
    }
}

fn closed(error: OpenError) -> Error {
    Error::Backend { doing: "decrypt an object", source: Arc::new(error) }
}

impl Store for Sealed {
    fn load(&self) -> BoxStream<'_, Result<Loaded>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let open = async |item: Result<Loaded>| match item? {
            Loaded::At(revision) => Ok(Loaded::At(revision)),
            Loaded::Object(stored) => {
                let (stored, fresh) = self.opened(stored).await.map_err(closed)?;
                if !fresh {
                    self.stale.lock().unwrap_or_else(PoisonError::into_inner).push(stored.clone());
                }
                Ok(Loaded::Object(stored))
            }
        };
        self.inner.load().then(open).boxed()
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        let mut refused = Vec::new();
        let mut sealed = Vec::with_capacity(batch.len());
        for (at, Write { key, expect, value }) in batch.into_iter().enumerate() {
            match value.map(|value| self.seal(&key, &value)).transpose() {
                Ok(value) => sealed.push(Write { key, expect, value }),
                Err(error) => {
                    let why = format!("{key} cannot be encrypted: {error}").into();
                    refused.push((at, Outcome::Refused { why }));
                }
            }
        }
        async move {
            let committed = if sealed.is_empty() { Vec::new() } else { self.inner.commit(sealed).await? };
            let mut outcomes = Vec::with_capacity(committed.len() + refused.len());
            for outcome in committed {
                outcomes.push(self.outcome(outcome).await);
            }
            for (at, outcome) in refused {
                outcomes.insert(at, outcome);
            }
            Ok(outcomes)
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>> {
        let open = async |item: Result<Change>| {
            let Change { revision, key, value } = item?;
            let value = match value {
                Some(value) => Some(self.open_in_time(&key, value).await.map_err(closed)?.0),
                None => None,
            };
            Ok(Change { revision, key, value })
        };
        // After the first failure nothing follows, as the contract has it.
        let stop = |failed: &mut bool, item: Result<Change>| {
            let go = (!*failed).then_some(item);
            *failed |= go.as_ref().is_some_and(Result::is_err);
            std::future::ready(go)
        };
        self.inner.follow(after).then(open).scan(false, stop).boxed()
    }

    fn writers(&self) -> Writers {
        self.inner.writers()
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.inner.head()
    }

    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>> {
        self.inner.compact(through)
    }
}

#[cfg(test)]
mod tests;
