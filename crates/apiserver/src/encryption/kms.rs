//! Keys that somebody else keeps: the client of a KMS plugin (`v2.KeyManagementService`), and the envelopes values are
//! stored in. Envelopes and times are upstream's (`apiserver/pkg/storage/value/encrypt/envelope/kmsv2`).
//!
//! Guarantees: each value is sealed under a key of its own, derived from a seed that leaves this process only encrypted
//! by the plugin; nothing is sealed when the plugin has not confirmed its key for [`CONFIRMED`]; a new key of the
//! plugin brings a new seed. Seeds are asked for once.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use prost::Message;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk},
    rand::SystemRandom,
};
use store::Key as Place;
use tokio::time::Instant;

use super::key::fresh;
use crate::grpc::{CallError, Channel, Target};

/// What a value begins with, before the name of its plugin and a colon.
pub(super) const MARK: &[u8] = b"k8s:enc:kms:v2:";
/// How long a plugin may take, unless the configuration says otherwise.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How often a plugin is asked how it is, while it answers and while it does not.
const ASKED: Duration = Duration::from_secs(60);
const ASKED_AGAIN: Duration = Duration::from_secs(10);
/// How long a key is used after the plugin last confirmed it.
const CONFIRMED: Duration = Duration::from_secs(180);
const SEED_LEN: usize = 32;
const INFO_LEN: usize = 32;
const KEY_ID_BYTES_MAX: usize = 1 << 10;
const SOURCE_BYTES_MAX: usize = 1 << 10;
const ANNOTATIONS_BYTES_MAX: usize = 32 << 10;
/// Seeds that are remembered. Each start of a server makes one, each new key of the plugin another.
const SEEDS_MAX: usize = 1_000;
/// The kind of seed that is written and read: values under keys of HKDF with SHA-256, each with an extended nonce.
const HKDF_SEED: i32 = 1;

const STATUS: &str = "/v2.KeyManagementService/Status";
const ENCRYPT: &str = "/v2.KeyManagementService/Encrypt";
const DECRYPT: &str = "/v2.KeyManagementService/Decrypt";

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusResponse {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(string, tag = "2")]
    pub(super) healthz: String,
    #[prost(string, tag = "3")]
    pub(super) key_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) uid: String,
    #[prost(string, tag = "3")]
    pub(super) key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) plaintext: Vec<u8>,
}

/// A value as it is stored (upstream `EncryptedObject`).
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    source_type: i32,
}

impl Envelope {
    fn check(&self) -> Result<(), String> {
        let Self { data: _, key_id, source, annotations, source_type } = self;
        let annotated: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if *source_type != HKDF_SEED {
            return Err(format!(
                "its kind of key, {source_type}, is not supported: want {HKDF_SEED}, a seed"
            ));
        }
        if key_id.is_empty() || key_id.len() > KEY_ID_BYTES_MAX {
            return Err(format!("the id of a key must have 1 to {KEY_ID_BYTES_MAX} bytes"));
        }
        if source.is_empty() || source.len() > SOURCE_BYTES_MAX {
            return Err(format!("an encrypted seed must have 1 to {SOURCE_BYTES_MAX} bytes"));
        }
        if annotated > ANNOTATIONS_BYTES_MAX {
            return Err(format!("annotations must have at most {ANNOTATIONS_BYTES_MAX} bytes"));
        }
        if annotations.keys().any(|key| !meta::names::dns1123_subdomain(key).is_empty() || !key.contains('.'))
        {
            return Err("keys of annotations must be fully qualified domain names".to_owned());
        }
        Ok(())
    }
}

/// What keys of values are derived from.
struct Seed(Prk);

impl Seed {
    fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= SEED_LEN).then(|| Self(Prk::new_less_safe(HKDF_SHA256, bytes)))
    }

    fn key(&self, info: &[u8; INFO_LEN]) -> Option<LessSafeKey> {
        let info = [&info[..]];
        let key = self.0.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }

    fn seal(&self, place: &Place, value: &[u8], random: &SystemRandom) -> Option<Vec<u8>> {
        let (info, nonce): ([u8; INFO_LEN], [u8; NONCE_LEN]) = (fresh(random)?, fresh(random)?);
        let mut body = value.to_vec();
        let aad = Aad::from(place.as_str().as_bytes());
        let unique = Nonce::assume_unique_for_key(nonce);
        let tag = self.key(&info)?.seal_in_place_separate_tag(unique, aad, &mut body).ok()?;
        Some([&info[..], &nonce, &body, tag.as_ref()].concat())
    }

    fn open(&self, place: &Place, sealed: &[u8]) -> Option<Bytes> {
        let (info, sealed) = sealed.split_first_chunk::<INFO_LEN>()?;
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let aad = Aad::from(place.as_str().as_bytes());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.key(info)?.open_in_place(nonce, aad, &mut body).ok()?.len();
        body.truncate(length);
        Some(Bytes::from(body))
    }
}

/// What values are sealed with now.
struct Current {
    seed: Arc<Seed>,
    /// Without data.
    envelope: Envelope,
}

/// Why a plugin is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KmsError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the plugin says that it is not healthy: {0:?}")]
    Unhealthy(String),
    #[error("the plugin speaks version {0:?}, want v2")]
    Version(String),
    #[error("the plugin's answer cannot be used: {0}")]
    Answer(String),
    #[error("the plugin encrypted with the key {encrypted:?} while its current key is {current:?}")]
    Changing { encrypted: String, current: String },
    #[error("the system has no random numbers")]
    NoRandom,
    #[error("what was stored is no envelope: {0}")]
    Envelope(String),
    #[error("it does not open with the seed that the plugin decrypted: it was changed or moved")]
    Wrong,
    #[error("the plugin has not confirmed its key for {} seconds{}", CONFIRMED.as_secs(), why.as_deref().unwrap_or(""))]
    Unconfirmed { why: Option<String> },
}

/// What was heard from a plugin last.
struct Heard {
    /// When it last confirmed the current key.
    confirmed: Option<Instant>,
    /// What was wrong since.
    problem: Option<KmsError>,
}

/// A plugin.
pub(super) struct Kms {
    pub(super) name: String,
    channel: Channel,
    random: SystemRandom,
    current: ArcSwapOption<Current>,
    heard: Mutex<Heard>,
    /// By their envelope without data, encoded.
    seeds: Mutex<HashMap<Vec<u8>, Arc<Seed>>>,
}

impl Kms {
    pub(super) fn new(name: String, socket: PathBuf, limit: Duration) -> Self {
        Self {
            name,
            channel: Channel::new(Target::Unix(socket), limit),
            random: SystemRandom::new(),
            current: ArcSwapOption::empty(),
            heard: Mutex::new(Heard { confirmed: None, problem: None }),
            seeds: Mutex::default(),
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why values cannot be sealed, if they cannot.
    pub(super) fn usable(&self) -> Result<(), KmsError> {
        let heard = self.heard();
        if heard.confirmed.is_some_and(|at| at.elapsed() <= CONFIRMED) {
            return Ok(());
        }
        Err(KmsError::Unconfirmed { why: heard.problem.as_ref().map(|problem| format!(": {problem}")) })
    }

    /// What is wrong with the plugin, if it was when it was asked last.
    pub(super) fn problem(&self) -> Option<KmsError> {
        self.heard().problem.clone()
    }

    /// Asks the plugin how it is, and for a seed when its key is a new one. Returns when to ask again.
    pub(super) async fn ask(&self) -> Duration {
        let asked = self.confirm().await;
        let mut heard = self.heard();
        match asked {
            Ok(at) => {
                *heard = Heard { confirmed: Some(at), problem: None };
                ASKED
            }
            Err(problem) => {
                if heard.problem.as_ref() != Some(&problem) {
                    tracing::warn!(plugin = self.name, %problem, "the KMS plugin cannot be used");
                }
                heard.problem = Some(problem);
                ASKED_AGAIN
            }
        }
    }

    async fn confirm(&self) -> Result<Instant, KmsError> {
        let began = Instant::now();
        let status: StatusResponse = self.channel.call(STATUS, &StatusRequest {}).await?;
        // Plugins of before v2 was finished say so.
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            return Err(KmsError::Version(status.version));
        }
        if status.healthz != "ok" {
            return Err(KmsError::Unhealthy(status.healthz));
        }
        if status.key_id.is_empty() {
            return Err(KmsError::Answer("its status names no key".to_owned()));
        }
        let known = self.current.load().as_ref().is_some_and(|now| now.envelope.key_id == status.key_id);
        if !known {
            let current = self.seed(&status.key_id).await?;
            tracing::info!(plugin = self.name, "values are sealed under a new seed from here on");
            self.current.store(Some(Arc::new(current)));
        }
        Ok(began)
    }

    /// A fresh seed, encrypted with the plugin's current key.
    async fn seed(&self, key_id: &str) -> Result<Current, KmsError> {
        let secret: [u8; SEED_LEN] = fresh(&self.random).ok_or(KmsError::NoRandom)?;
        let seed = Seed::new(&secret).map(Arc::new).ok_or(KmsError::NoRandom)?;
        let request = EncryptRequest { plaintext: secret.to_vec(), uid: self.uid()? };
        let EncryptResponse { ciphertext, key_id: encrypted, annotations } =
            self.channel.call(ENCRYPT, &request).await?;
        if encrypted != key_id {
            return Err(KmsError::Changing { encrypted, current: key_id.to_owned() });
        }
        if ciphertext == secret {
            return Err(KmsError::Answer("it did not encrypt the seed".to_owned()));
        }
        let envelope = Envelope {
            data: Vec::new(),
            key_id: encrypted,
            source: ciphertext,
            annotations,
            source_type: HKDF_SEED,
        };
        envelope.check().map_err(KmsError::Answer)?;
        self.remember(&envelope, seed.clone());
        Ok(Current { seed, envelope })
    }

    /// The id of a call, for the plugin's log.
    fn uid(&self) -> Result<String, KmsError> {
        let bytes: [u8; 16] = fresh(&self.random).ok_or(KmsError::NoRandom)?;
        Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn remember(&self, bare: &Envelope, seed: Arc<Seed>) {
        let mut seeds = self.seeds.lock().unwrap_or_else(PoisonError::into_inner);
        if seeds.len() >= SEEDS_MAX {
            seeds.clear();
        }
        seeds.insert(bare.encode_to_vec(), seed);
    }

    /// The value as it is stored at `place`.
    pub(super) fn seal(&self, place: &Place, value: &[u8]) -> Result<Bytes, KmsError> {
        self.usable()?;
        let current = self.current.load();
        let Some(current) = &*current else { return Err(KmsError::Unconfirmed { why: None }) };
        let data = current.seed.seal(place, value, &self.random).ok_or(KmsError::NoRandom)?;
        let envelope = Envelope { data, ..current.envelope.clone() };
        Ok(Bytes::from([MARK, self.name.as_bytes(), b":", &envelope.encode_to_vec()].concat()))
    }

    /// The plain value of what comes behind the name, and whether it is sealed with the plugin's current key.
    pub(super) async fn open(&self, place: &Place, sealed: &[u8]) -> Result<(Bytes, bool), KmsError> {
        let mut bare = Envelope::decode(sealed).map_err(|error| KmsError::Envelope(error.to_string()))?;
        bare.check().map_err(KmsError::Envelope)?;
        let data = std::mem::take(&mut bare.data);
        let known = {
            let seeds = self.seeds.lock().unwrap_or_else(PoisonError::into_inner);
            seeds.get(&bare.encode_to_vec()).cloned()
        };
        let seed = match known {
            Some(seed) => seed,
            None => self.decrypt(&bare).await?,
        };
        let value = seed.open(place, &data).ok_or(KmsError::Wrong)?;
        let current = self.current.load().as_ref().is_none_or(|now| now.envelope.key_id == bare.key_id);
        Ok((value, current))
    }

    async fn decrypt(&self, bare: &Envelope) -> Result<Arc<Seed>, KmsError> {
        let Envelope { key_id, source, annotations, .. } = bare.clone();
        let request = DecryptRequest { ciphertext: source, uid: self.uid()?, key_id, annotations };
        let DecryptResponse { plaintext } = self.channel.call(DECRYPT, &request).await?;
        let seed = Seed::new(&plaintext)
            .ok_or_else(|| KmsError::Answer(format!("a seed has at least {SEED_LEN} bytes")))?;
        let seed = Arc::new(seed);
        self.remember(bare, seed.clone());
        Ok(seed)
    }

    /// Where the plugin listens.
    pub(super) fn socket(&self) -> &Target {
        self.channel.target()
    }
}
