//! Encryption at rest: a store in front of another that seals what the configuration names.
//!
//! Guarantees: the store behind never sees the plaintext of a named kind; a sealed value opens only under the key it was
//! sealed with, and with `aesgcm` only at its own place (the store key is authenticated with it), so that one object's
//! ciphertext cannot be put in another's; a value whose key is missing or wrong is an error that names object and key,
//! and nothing is changed. Form and file are upstream's (`EncryptionConfiguration`, `k8s:enc:aesgcm:v1:NAME:`). Does
//! not know what the values mean.

mod config;
mod key;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use meta::Revision;
use ring::rand::SystemRandom;
use store::{
    BATCH_BYTES_MAX, BATCH_WRITES_MAX, Change, Error, Expect, Head, Key, Loaded, Outcome, Result, Store,
    Stored, Write, Writers,
};

pub use config::{Encryption, EncryptionError, generate};
use key::{Form, SealingKey};

/// What every sealed value begins with. A value in plain form begins with a number of at most eight digits
/// in four bytes ([`meta::Entry::encode`]), which this is not.
const MARK: &[u8] = b"k8s:enc:";
/// How far into a value the name of its key may reach.
const NAME_BYTES_MAX: usize = 256;

/// One way to keep a value.
enum Provider {
    /// As it is.
    Identity,
    /// Under a key.
    Sealed(Box<SealingKey>),
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
            self.commit(batch).await?;
        }
        Ok(count)
    }

    fn seal(&self, key: &Key, value: &Bytes) -> Result<Bytes> {
        match self.encryption.providers(&key.group_resource()).first() {
            None | Some(Provider::Identity) => Ok(value.clone()),
            Some(Provider::Sealed(sealing)) => {
                sealing.seal(key, value, &self.random).ok_or_else(|| Error::Backend {
                    doing: "encrypt an object",
                    source: Arc::new(std::io::Error::other("no random numbers")),
                })
            }
        }
    }

    /// The plain value, and whether the first provider kept it.
    fn open(&self, key: &Key, value: Bytes) -> std::result::Result<(Bytes, bool), OpenError> {
        let providers = self.encryption.providers(&key.group_resource());
        if !value.starts_with(MARK) {
            return match providers.iter().position(|p| matches!(p, Provider::Identity)) {
                Some(at) => Ok((value, at == 0)),
                None if providers.is_empty() => Ok((value, true)),
                None => Err(OpenError::Plain { key: key.clone() }),
            };
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = Form::ALL.iter().find_map(|form| {
            let rest = value.strip_prefix(form.mark())?;
            let end = rest.iter().take(NAME_BYTES_MAX).position(|b| *b == b':')?;
            Some((*form, rest.get(..end)?, rest.get(end + 1..)?))
        });
        let Some((form, name, sealed)) = found else {
            let form = text(value.get(..value.len().min(24)).unwrap_or_default());
            return Err(OpenError::Form { key: key.clone(), form });
        };
        let mut known = false;
        for (at, provider) in providers.iter().enumerate() {
            let Provider::Sealed(sealing) = provider else { continue };
            if sealing.form != form || sealing.name.as_bytes() != name {
                continue;
            }
            known = true;
            if let Some(opened) = sealing.open(key, sealed) {
                return Ok((opened, at == 0));
            }
        }
        let (key, name) = (key.clone(), text(name));
        Err(if known { OpenError::Wrong { key, name } } else { OpenError::NoKey { key, name } })
    }

    fn opened(&self, stored: Stored) -> Result<(Stored, bool)> {
        let Stored { key, value, revision } = stored;
        let (value, fresh) = self.open(&key, value).map_err(closed)?;
        Ok((Stored { key, value, revision }, fresh))
    }
}

fn closed(error: OpenError) -> Error {
    Error::Backend { doing: "decrypt an object", source: Arc::new(error) }
}

impl Store for Sealed {
    fn load(&self) -> BoxStream<'_, Result<Loaded>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let open = |item: Result<Loaded>| match item? {
            Loaded::At(revision) => Ok(Loaded::At(revision)),
            Loaded::Object(stored) => {
                let (stored, fresh) = self.opened(stored)?;
                if !fresh {
                    self.stale.lock().unwrap_or_else(PoisonError::into_inner).push(stored.clone());
                }
                Ok(Loaded::Object(stored))
            }
        };
        self.inner.load().map(open).boxed()
    }

    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>> {
        let sealed: Result<Vec<Write>> = batch
            .into_iter()
            .map(|Write { key, expect, value }| {
                let value = value.map(|value| self.seal(&key, &value)).transpose()?;
                Ok(Write { key, expect, value })
            })
            .collect();
        async move {
            let outcomes = self.inner.commit(sealed?).await?;
            let open = |outcome| match outcome {
                Outcome::Clash(Some(stored)) => self.opened(stored).map(|(s, _)| Outcome::Clash(Some(s))),
                other => Ok(other),
            };
            outcomes.into_iter().map(open).collect()
        }
        .boxed()
    }

    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>> {
        let open = |item: Result<Change>| {
            let Change { revision, key, value } = item?;
            let value = value.map(|value| self.open(&key, value).map_err(closed)).transpose()?;
            Ok(Change { revision, key, value: value.map(|(value, _)| value) })
        };
        // After the first failure nothing follows, as the contract has it.
        let stop = |failed: &mut bool, item: Result<Change>| {
            let go = (!*failed).then_some(item);
            *failed |= go.as_ref().is_some_and(Result::is_err);
            std::future::ready(go)
        };
        self.inner.follow(after).map(open).scan(false, stop).boxed()
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
