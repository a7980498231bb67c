//! Tokens of an OpenID Connect issuer (upstream `plugin/pkg/auth/authenticator/token/oidc`).
//!
//! Guarantees: a token is accepted only when its signature is by a key that the issuer publishes now, in an
//! algorithm that was allowed, its issuer is this one, its audience is this client, and its time has come and
//! not gone; and what its mapping asks for is true. Keys are fetched when they are first needed and when a token names one that is not known, at most once in
//! [`FETCH_PAUSE`]; what the issuer no longer publishes is forgotten after [`KEYS_AGE_MAX`].

mod keys;
mod mapping;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use futures::future::BoxFuture;
use meta::{Clock, Timestamp};
use resource::User;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::outbound::Outbound;

pub use keys::Algorithm;
use keys::Keys;
pub use mapping::{Mapping, Rule, Source};

/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Least time between two fetches, so that forged key ids do not make the server ask for its issuer.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// Keys older than this are fetched anew before they are used.
const KEYS_AGE_MAX: Duration = Duration::from_secs(3600);
/// Most groups of one token.
const GROUPS_MAX: usize = 1_000;

/// Settings of one issuer.
#[derive(Debug)]
pub struct OidcOptions {
    /// `https` URL, as tokens have it in `iss`.
    pub issuer: String,
    /// Tokens must have one of these in `aud`.
    pub audiences: Vec<String>,
    /// Algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// What claims mean, and which are accepted.
    pub mapping: Mapping,
}

/// Where an issuer's keys come from.
pub trait KeySource: Send + Sync {
    /// The JWK set of the issuer now.
    fn fetch(&self) -> BoxFuture<'_, Result<Value, String>>;
}

/// Discovery over HTTPS.
pub struct Discovered {
    issuer: String,
    /// Where its document is, if not below the issuer.
    url: Option<String>,
    client: Outbound,
}

impl Discovered {
    /// Asks `issuer` with this client.
    pub fn new(issuer: &str, client: Outbound) -> Self {
        Self { issuer: issuer.to_owned(), url: None, client }
    }

    /// Finds the issuer's document at another URL.
    #[must_use]
    pub fn at(mut self, url: Option<String>) -> Self {
        self.url = url;
        self
    }

    async fn json(&self, url: &str) -> Result<Value, String> {
        let (code, bytes) = self.client.get(url).await.map_err(|error| format!("{error}"))?;
        if !code.is_success() {
            return Err(format!("{url} answered {code}"));
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {error}"))
    }
}

impl KeySource for Discovered {
    fn fetch(&self) -> BoxFuture<'_, Result<Value, String>> {
        Box::pin(async move {
            let base = self.issuer.trim_end_matches('/');
            let known = || format!("{base}/.well-known/openid-configuration");
            let document = self.json(&self.url.clone().unwrap_or_else(known)).await?;
            let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
            if text("issuer") != self.issuer {
                return Err(format!("the issuer calls itself {:?}, not {:?}", text("issuer"), self.issuer));
            }
            self.json(text("jwks_uri")).await
        })
    }
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum OidcError {
    #[error("not a compact JWS")]
    Malformed,
    #[error("signed with an algorithm that is not allowed")]
    Algorithm,
    #[error("signed with no key that the issuer publishes")]
    Signature,
    #[error("claim {0} is missing or not as required")]
    Claim(String),
    #[error("expired, or not valid yet")]
    Time,
    #[error("{0}")]
    Mapping(String),
    #[error("the name {0:?} begins with system:, which is the cluster's own")]
    Reserved(String),
    #[error("the keys of the issuer could not be had: {0}")]
    Keys(String),
}

/// Keys as they were fetched.
#[derive(Default)]
struct Known {
    keys: Keys,
    fetched: Option<Timestamp>,
}

/// Accepts the tokens of one issuer.
pub struct Oidc {
    options: OidcOptions,
    source: Arc<dyn KeySource>,
    clock: Arc<dyn Clock>,
    known: ArcSwap<Known>,
    /// When was last asked, also in vain.
    asked: Mutex<Option<Timestamp>>,
}

impl Oidc {
    /// Fetches nothing yet.
    pub fn new(options: OidcOptions, source: Arc<dyn KeySource>, clock: Arc<dyn Clock>) -> Self {
        Self { options, source, clock, known: ArcSwap::default(), asked: Mutex::default() }
    }

    /// Whether the token claims to be of this issuer; decided without trust.
    pub(super) fn issued(&self, token: &str) -> bool {
        let claims = token.split('.').nth(1).and_then(json);
        claims.as_ref().and_then(|c| c.get("iss")).and_then(Value::as_str) == Some(&self.options.issuer)
    }

    /// The user of a token.
    pub async fn authenticate(&self, token: &str) -> Result<User, OidcError> {
        let parts = Parts::read(token)?;
        if !self.options.algorithms.contains(&parts.algorithm) {
            return Err(OidcError::Algorithm);
        }
        let mut known = self.known.load_full();
        let old = |known: &Known| {
            let age = known.fetched.map(|at| self.clock.now().as_second().saturating_sub(at.as_second()));
            age.is_none_or(|age| age > i64::try_from(KEYS_AGE_MAX.as_secs()).unwrap_or(i64::MAX))
        };
        if old(&known) || !known.keys.knows(parts.key_id.as_deref()) {
            self.fetch().await?;
            known = self.known.load_full();
            if old(&known) {
                return Err(OidcError::Keys("they are too old".to_owned()));
            }
        }
        let Parts { key_id, algorithm, signed, signature, claims } = &parts;
        if !known.keys.verify(key_id.as_deref(), *algorithm, signed.as_bytes(), signature) {
            return Err(OidcError::Signature);
        }
        user(&self.options, claims, self.clock.now())
    }

    /// Asks the issuer, unless it was asked a moment ago; whoever waits finds what the first one fetched.
    async fn fetch(&self) -> Result<(), OidcError> {
        let mut asked = self.asked.lock().await;
        let now = self.clock.now();
        let pause = i64::try_from(FETCH_PAUSE.as_secs()).unwrap_or(i64::MAX);
        if asked.is_some_and(|at| now.as_second().saturating_sub(at.as_second()) < pause) {
            return Ok(());
        }
        *asked = Some(now);
        let set = self.source.fetch().await.map_err(|why| {
            tracing::warn!(issuer = self.options.issuer, why, "cannot fetch the keys of the token issuer");
            OidcError::Keys(why)
        })?;
        let keys = Keys::read(&set);
        if keys.is_empty() {
            return Err(OidcError::Keys("it publishes no key of a kind that is known here".to_owned()));
        }
        self.known.store(Arc::new(Known { keys, fetched: Some(now) }));
        Ok(())
    }
}

/// A token taken apart; nothing of it is believed yet.
struct Parts<'a> {
    key_id: Option<String>,
    algorithm: Algorithm,
    signed: &'a str,
    signature: Vec<u8>,
    claims: Value,
}

impl<'a> Parts<'a> {
    fn read(token: &'a str) -> Result<Self, OidcError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(OidcError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(OidcError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(OidcError::Malformed)?;
        let header = json(header).ok_or(OidcError::Malformed)?;
        let text = |key: &str| header.get(key).and_then(Value::as_str);
        // Extensions that must be understood are not (RFC 7515 section 4.1.11).
        if header.get("crit").is_some() {
            return Err(OidcError::Malformed);
        }
        Ok(Self {
            key_id: text("kid").map(str::to_owned),
            algorithm: text("alg").and_then(Algorithm::parse).ok_or(OidcError::Algorithm)?,
            signed,
            signature: BASE64.decode(signature).map_err(|_| OidcError::Malformed)?,
            claims: json(claims).filter(Value::is_object).ok_or(OidcError::Malformed)?,
        })
    }
}

fn json(part: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}

/// What verified claims say at `now`.
fn user(options: &OidcOptions, claims: &Value, now: Timestamp) -> Result<User, OidcError> {
    let missing = |claim: &str| OidcError::Claim(claim.to_owned());
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
    if text("iss") != Some(&options.issuer) {
        return Err(missing("iss"));
    }
    let wanted =
        |audience: &Value| audience.as_str().is_some_and(|a| options.audiences.iter().any(|w| w == a));
    let audience = match claims.get("aud") {
        Some(Value::Array(many)) => many.iter().any(wanted),
        Some(one) => wanted(one),
        None => false,
    };
    if !audience {
        return Err(missing("aud"));
    }
    // A time may have a fraction (RFC 7519 section 2).
    let time = |claim: &str| claims.get(claim).map(|v| v.as_f64().ok_or_else(|| missing(claim))).transpose();
    let seconds = now.as_second() as f64;
    if seconds >= time("exp")?.ok_or_else(|| missing("exp"))? || time("nbf")?.is_some_and(|nbf| seconds < nbf)
    {
        return Err(OidcError::Time);
    }
    options.mapping.user(claims)
}

#[cfg(test)]
mod tests;
